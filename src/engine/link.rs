//! An agent's session with its hub: a connection on which the hub has said welcome.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::agent_error::{AgentError, ErrorCode};
use super::clock::reading;
use super::hub_offset::{HubOffset, Reading};
use crate::protocol::message::{Attach, Attached, Hello, ToAgent, ToHub, Welcome};
use crate::storage::replica::HubClock;
use crate::transport::{AgentEndpoint, AgentTls, Connection, EndpointAddress};

/// What a session is opened with.
pub struct Door<'a> {
    /// Where the hub is.
    pub address: &'a EndpointAddress,
    /// What the agent shows and trusts.
    pub tls: &'a AgentTls,
    /// Who calls.
    pub hello: Hello,
    /// How long the whole may take.
    pub limit: Duration,
}

/// A connection on which the hub has said welcome.
#[derive(Clone, Debug)]
pub struct Session {
    /// The connection.
    pub connection: Connection,
    /// What the hub said.
    pub welcome: Arc<Welcome>,
    offset: Arc<Mutex<HubOffset>>,
}

impl Session {
    /// Connects and greets.
    pub async fn open(endpoint: &AgentEndpoint, door: Door<'_>) -> Result<Self, AgentError> {
        let deadline = Instant::now() + door.limit;
        let connection = endpoint.connect(door.address, door.tls, door.limit).await?;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let greeting = timeout(left, greet(&connection, door.hello)).await;
        let (welcome, asked) = greeting.map_err(|_| {
            AgentError::silent_greeting(&format!(
                "the hub at {} did not answer the greeting within {} ms",
                door.address,
                door.limit.as_millis()
            ))
        })??;
        let offset = HubOffset::new(asked, reading(), welcome.hub_now_ms);
        Ok(Self { connection, offset: Arc::new(Mutex::new(offset)), welcome: Arc::new(welcome) })
    }

    /// Whether another one is needed: the connection is known to be over, or this machine's clock was set since the hub
    /// last told its time, so that nothing could be stamped.
    pub fn is_over(&self) -> bool {
        self.connection.close_reason().is_some() || self.offset().has_jumped(reading())
    }

    /// The hub's clock, as far as this side can tell.
    pub fn clock(&self) -> HubClock {
        self.offset().clock(reading())
    }

    /// Takes in the hub's time from an answer that has just come, to what was asked at that time.
    pub fn renew_clock(&self, asked: Reading, hub_now_ms: i64) {
        let answered = HubOffset::new(asked, reading(), hub_now_ms);
        self.offset().renew(answered);
    }

    fn offset(&self) -> MutexGuard<'_, HubOffset> {
        self.offset.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks what the hub knows of a replica.
    pub async fn attach(&self, attach: Attach, patience: Duration) -> Result<Attached, AgentError> {
        let (mut sender, mut receiver) = self.connection.open().await?;
        sender.send(&ToHub::Attach(attach)).await?;
        sender.finish()?;
        let answer = timeout(patience, receiver.next::<ToAgent>()).await;
        match answer.map_err(|_| AgentError::timeout(millis(patience)))?? {
            Some(ToAgent::Attached(attached)) => Ok(attached),
            other => Err(unexpected(other)),
        }
    }
}

async fn greet(connection: &Connection, hello: Hello) -> Result<(Welcome, Reading), AgentError> {
    let (mut sender, mut receiver) = connection.open().await?;
    let asked = reading();
    sender.send(&ToHub::Hello(hello)).await?;
    sender.finish()?;
    match receiver.next::<ToAgent>().await? {
        Some(ToAgent::Welcome(welcome)) => Ok((welcome, asked)),
        other => Err(unexpected(other)),
    }
}

/// The hub refused, or said something else than was asked.
fn unexpected(answer: Option<ToAgent>) -> AgentError {
    match answer {
        Some(ToAgent::Refused(refused)) => refused.into(),
        Some(_) => AgentError::new(ErrorCode::Protocol, "the hub answered something else than was asked"),
        None => AgentError::new(ErrorCode::Protocol, "the hub ended the conversation without an answer"),
    }
}

/// Whole milliseconds of a duration.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
