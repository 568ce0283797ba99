//! An agent's session with its hub: a connection on which the hub has said welcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::agent_error::{AgentError, ErrorCode};
use super::clock::wall_now_ms;
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
    offset_ms: i64,
    hub_time: (i64, Instant),
}

impl Session {
    /// Connects and greets.
    pub async fn open(endpoint: &AgentEndpoint, door: Door<'_>) -> Result<Self, AgentError> {
        let deadline = Instant::now() + door.limit;
        let connection = endpoint.connect(door.address, door.tls, door.limit).await?;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let greeting = timeout(left, greet(&connection, door.hello)).await;
        let (welcome, asked_at) = greeting.map_err(|_| {
            AgentError::silent_greeting(&format!(
                "the hub at {} did not answer the greeting within {} ms",
                door.address,
                door.limit.as_millis()
            ))
        })??;
        // The hub read its clock somewhere between question and answer; the middle halves the error.
        let wall = asked_at + (wall_now_ms() - asked_at) / 2;
        Ok(Self {
            connection,
            offset_ms: welcome.hub_now_ms - wall,
            hub_time: (welcome.hub_now_ms, Instant::now()),
            welcome: Arc::new(welcome),
        })
    }

    /// Whether the connection is known to be over.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// The hub's clock, as far as this side can tell.
    pub fn clock(&self) -> HubClock {
        let (hub_ms, at) = self.hub_time;
        let elapsed = i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX);
        HubClock { offset_ms: self.offset_ms, now_ms: hub_ms.saturating_add(elapsed) }
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

async fn greet(connection: &Connection, hello: Hello) -> Result<(Welcome, i64), AgentError> {
    let (mut sender, mut receiver) = connection.open().await?;
    let asked_at = wall_now_ms();
    sender.send(&ToHub::Hello(hello)).await?;
    sender.finish()?;
    match receiver.next::<ToAgent>().await? {
        Some(ToAgent::Welcome(welcome)) => Ok((welcome, asked_at)),
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
