//! An agent: the handle that `FederationHub` stands on.
//!
//! ```text
//! connect ──► Session ──► sync: attach (once) ─► collect ─► send ─► receive ─► apply ──► disconnect
//! ```

mod attempt;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::agent_error::AgentError;
use super::clock::wall_now_ms;
use super::link::Session;
use super::pause::Pause;
use super::resolve::ConflictResolver;
use super::sync::{AttachedDatabase, SharedMint};
use super::sync_report::SyncReport;
use super::token_source::TokenSource;
use crate::model::VectorClock;
use crate::protocol::close_code::{CLOSED, GOODBYE};
use crate::storage::choice::SyncOptions;
use crate::storage::driver::SqlDriver;
use crate::storage::lease::Holder;
use crate::transport::{AgentEndpoint, PemSource};

/// Databases whose attachment is remembered; more than any agent has.
const MAX_DATABASES: usize = 64;

/// What an agent is made of.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// `quic://host[:port]`.
    pub endpoint: String,
    /// The agent's name, for people.
    pub agent_id: String,
    /// The tenant that the agent believes it belongs to; the token decides.
    pub tenant_id: String,
    /// A JWT, for agents without a [`TokenSource`].
    pub token: String,
    /// Whether the agent shows a certificate of its own.
    pub enable_mtls: bool,
    /// Its certificate.
    pub cert: Option<PemSource>,
    /// Its key.
    pub key: Option<PemSource>,
    /// The CA of the hub's certificate.
    pub ca: Option<PemSource>,
    /// How long connecting may take, in ms.
    pub connect_timeout_ms: u64,
    /// How long a sync may make no progress, in ms.
    pub request_timeout_ms: u64,
    /// Which tables are shared, and how.
    pub sync: Arc<SyncOptions>,
}

/// What an agent knows of its syncs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentStats {
    /// When the last sync ended, or the connection was made, in ms since the epoch; 0 before.
    pub last_sync_time_ms: i64,
    /// How much of each agent's work has been merged here.
    pub vector_clock: VectorClock,
}

/// An agent. Clones are handles to the same one.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    options: AgentOptions,
    shared: Mutex<Shared>,
    pause: Pause,
    endpoint: AgentEndpoint,
    /// Held by whoever talks to the hub, so that one sync runs at a time.
    link: tokio::sync::Mutex<Link>,
}

/// What can be asked at any time.
#[derive(Default)]
struct Shared {
    is_connected: bool,
    stats: AgentStats,
}

/// What belongs to the connection.
#[derive(Default)]
struct Link {
    session: Option<Session>,
    databases: HashMap<u64, AttachedDatabase>,
    /// Databases whose last sync has failed.
    unsettled: HashSet<u64>,
    mint: Option<(SharedMint, Holder)>,
    /// Nothing is sent until then, because the hub has no room for more rows.
    full: Option<(Instant, AgentError)>,
}

/// A sync that was asked for, and counted.
pub struct SyncTicket {
    counter: u64,
    resolver: Option<Arc<dyn ConflictResolver>>,
    tokens: Option<Arc<dyn TokenSource>>,
}

impl std::fmt::Debug for SyncTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncTicket").field("counter", &self.counter).finish_non_exhaustive()
    }
}

impl SyncTicket {
    /// Has conflicts that the rules leave to the application resolved by this.
    #[must_use]
    pub fn resolved_by(self, resolver: Arc<dyn ConflictResolver>) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    /// Has a connection that must be restored authenticated by a new token.
    #[must_use]
    pub fn authenticated_by(self, tokens: Option<Arc<dyn TokenSource>>) -> Self {
        Self { tokens, ..self }
    }
}

impl Agent {
    /// An agent that is not connected yet, with a socket of its own. No I/O.
    pub fn new(options: AgentOptions) -> Self {
        Self::sharing(AgentEndpoint::new(), options)
    }

    /// As [`Self::new`], on a socket that others use as well.
    pub fn sharing(endpoint: AgentEndpoint, options: AgentOptions) -> Self {
        Self(Arc::new(Inner {
            options,
            endpoint,
            shared: Mutex::default(),
            pause: Pause::default(),
            link: tokio::sync::Mutex::default(),
        }))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, unless it is connected, with the token of the options.
    pub async fn connect(&self) -> Result<(), AgentError> {
        self.connect_with(None).await
    }

    /// Connects, unless it is connected, with a token that is asked for now.
    pub async fn connect_with(&self, tokens: Option<Arc<dyn TokenSource>>) -> Result<(), AgentError> {
        if self.is_connected() {
            return Ok(());
        }
        self.0.pause.keep(Duration::from_millis(self.0.options.connect_timeout_ms)).await?;
        let mut link = self.0.link.lock().await;
        if self.is_connected() {
            return Ok(());
        }
        let session = self.open_first_session(tokens.as_ref()).await;
        let session = session.inspect_err(|error| self.note(error))?;
        link.databases.clear();
        let mut shared = self.shared();
        shared.is_connected = true;
        shared.stats.last_sync_time_ms = wall_now_ms();
        shared.stats.vector_clock.raise(&self.0.options.agent_id, session.welcome.counter);
        link.session = Some(session);
        Ok(())
    }

    /// Counts a sync that begins now.
    ///
    /// # Errors
    /// [`super::agent_error::ErrorCode::NotConnected`] before `connect` and after `disconnect`.
    pub fn begin_sync(&self) -> Result<SyncTicket, AgentError> {
        let mut shared = self.shared();
        if !shared.is_connected {
            return Err(AgentError::not_connected());
        }
        let counter = shared.stats.vector_clock.increment(&self.0.options.agent_id);
        Ok(SyncTicket { counter, resolver: None, tokens: None })
    }

    /// Runs a sync, after those that were asked for before. Whatever fails, nothing is lost: the next sync
    /// sends it.
    pub async fn sync(
        &self,
        ticket: SyncTicket,
        database: Arc<dyn SqlDriver>,
    ) -> Result<SyncReport, AgentError> {
        // Before its turn: whoever disconnects does not wait for it.
        self.0.pause.keep(self.patience()).await?;
        let mut link = self.0.link.lock().await;
        if !self.is_connected() {
            return Err(AgentError::not_connected());
        }
        self.sync_in_turn(&mut link, &ticket, &*database).await.inspect_err(|error| self.note(error))
    }

    /// Takes note of a hub that wants to be left alone.
    fn note(&self, error: &AgentError) {
        self.0.pause.note(error, Instant::now(), random());
    }

    /// Ends the connection, after the syncs that were asked for before. Quiet when not connected.
    pub async fn disconnect(&self) {
        let mut link = self.0.link.lock().await;
        self.shared().is_connected = false;
        link.databases.clear();
        link.full = None;
        if let Some(session) = link.session.take() {
            // The hub forgets a replica that says goodbye. One whose last sync has failed would not learn any
            // more what of it has arrived.
            let code = if link.unsettled.is_empty() { GOODBYE } else { CLOSED };
            session.connection.say_goodbye(code, "goodbye").await;
        }
    }

    /// True from `connect` to `disconnect`, also while the link is down and about to be restored.
    pub fn is_connected(&self) -> bool {
        self.shared().is_connected
    }

    /// Whether a sync of this database would go straight to work: nobody else is syncing, the connection is
    /// up, and the database is attached.
    pub fn is_warm(&self, database_id: u64) -> bool {
        self.0.link.try_lock().is_ok_and(|link| {
            link.session.as_ref().is_some_and(|session| !session.is_over())
                && link.databases.contains_key(&database_id)
        })
    }

    /// A copy of what is known.
    pub fn stats(&self) -> AgentStats {
        self.shared().stats.clone()
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.0.options.request_timeout_ms)
    }
}

/// For jitter; a system without random numbers gives none.
fn random() -> u32 {
    let mut random = [0; 4];
    let _ = getrandom::fill(&mut random);
    u32::from_ne_bytes(random)
}
