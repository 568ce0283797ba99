//! An agent: the handle that `FederationHub` stands on.
//!
//! ```text
//! connect ──► Session ──► sync: attach (once) ─► collect ─► send ─► receive ─► apply ──► disconnect
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::agent_error::{AgentError, ErrorCode, Remedy};
use super::clock::wall_now_ms;
use super::comeback::Comeback;
use super::link::{Door, Session};
use super::pause::{Pause, with_jitter};
use super::resolve::ConflictResolver;
use super::sync::{AttachedDatabase, ClockNews, SharedMint, SyncJob, run};
use super::sync_report::SyncReport;
use super::token_source::{self, TokenSource};
use super::turn::turn;
use crate::model::{ReplicaId, VectorClock};
use crate::protocol::close_code::{CLOSED, GOODBYE};
use crate::protocol::message::{Attach, Hello};
use crate::storage::attach::{open, reconcile, release};
use crate::storage::choice::SyncOptions;
use crate::storage::driver::{Sql, SqlDriver, batch};
use crate::storage::lease::{Claim, Holder};
use crate::storage::replica::Mint;
use crate::transport::{AgentEndpoint, AgentTls, EndpointAddress, PemSource};

/// Databases whose attachment is remembered; more than any agent has.
const MAX_DATABASES: usize = 64;

/// How often a database attaches anew before it is given up: once under each new replica id.
const MAX_ATTACHES: usize = 3;

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
    endpoint: AgentEndpoint,
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
    /// An agent that is not connected yet. No I/O.
    pub fn new(options: AgentOptions) -> Self {
        Self(Arc::new(Inner {
            options,
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
        let limit = Duration::from_millis(self.0.options.connect_timeout_ms);
        let session = self.open_session(&link.endpoint, tokens.as_ref(), limit).await;
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
    /// [`ErrorCode::NotConnected`] before `connect` and after `disconnect`.
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

    /// One sync, with what mends a failure at once.
    async fn sync_in_turn(
        &self,
        link: &mut Link,
        ticket: &SyncTicket,
        database: &dyn SqlDriver,
    ) -> Result<SyncReport, AgentError> {
        let started = Instant::now();
        let is_lost = link.session.as_ref().is_none_or(Session::is_closed);
        let mut attempts =
            Attempts { comeback: Comeback::new(self.patience(), is_lost), report: SyncReport::default() };
        let first = self.sync_or_come_back(link, ticket, database, &mut attempts).await;
        let clock = match first {
            Err(AgentError { remedy: Remedy::Attach, .. }) => {
                link.databases.remove(&database.database_id());
                self.sync_or_come_back(link, ticket, database, &mut attempts).await?
            }
            Err(error @ AgentError { remedy: Remedy::PullOnly, .. }) => {
                link.full = Some((Instant::now() + with_jitter(error.retry_after_ms, random()), error));
                // What others wrote is there for the asking all the same.
                self.sync_or_come_back(link, ticket, database, &mut attempts).await?
            }
            outcome => outcome?,
        };
        let Attempts { mut report, .. } = attempts;
        report.duration_ms = started.elapsed().as_secs_f64() * 1e3;
        let mut shared = self.shared();
        shared.stats.last_sync_time_ms = wall_now_ms();
        let own = &self.0.options.agent_id;
        shared.stats.vector_clock.follow(&clock.entries, clock.retired.as_deref(), own);
        match &link.full {
            _ if !report.is_held_back => Ok(report),
            Some((_, error)) => Err(error.clone()),
            None => Err(AgentError::held_back()),
        }
    }

    /// One sync, and as many further ones as it takes to restore a connection that was lost.
    async fn sync_or_come_back(
        &self,
        link: &mut Link,
        ticket: &SyncTicket,
        database: &dyn SqlDriver,
        attempts: &mut Attempts,
    ) -> Result<ClockNews, AgentError> {
        loop {
            let outcome = self.sync_once(link, ticket, database, attempts).await;
            match outcome {
                Err(error) if attempts.comeback.is_due(&error, random()).await => link.session = None,
                outcome => return outcome,
            }
        }
    }

    /// Ends the connection, after the syncs that were asked for before. Quiet when not connected.
    pub async fn disconnect(&self) {
        let mut link = self.0.link.lock().await;
        self.shared().is_connected = false;
        link.databases.clear();
        link.full = None;
        // Held until the goodbye is on its way: the last handle of a connection closes it without a word.
        let session = link.session.take();
        if session.is_some() {
            // The hub forgets a replica that says goodbye. One whose last sync has failed would not learn any
            // more what of it has arrived.
            let code = if link.unsettled.is_empty() { GOODBYE } else { CLOSED };
            link.endpoint.close(code, "goodbye").await;
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
            link.session.as_ref().is_some_and(|session| !session.is_closed())
                && link.databases.contains_key(&database_id)
        })
    }

    /// A copy of what is known.
    pub fn stats(&self) -> AgentStats {
        self.shared().stats.clone()
    }

    async fn open_session(
        &self,
        endpoint: &AgentEndpoint,
        tokens: Option<&Arc<dyn TokenSource>>,
        limit: Duration,
    ) -> Result<Session, AgentError> {
        let options = &self.0.options;
        let address = EndpointAddress::parse(&options.endpoint)?;
        let tls = AgentTls { identity: identity(options)?, ca: options.ca.clone() };
        let started = Instant::now();
        let token = match tokens {
            Some(tokens) => token_source::ask(tokens, limit).await?,
            None => options.token.clone(),
        };
        let hello = Hello { tenant: options.tenant_id.clone(), agent: options.agent_id.clone(), token };
        let door =
            Door { address: &address, tls: &tls, hello, limit: limit.saturating_sub(started.elapsed()) };
        Session::open(endpoint, door).await
    }

    async fn sync_once(
        &self,
        link: &mut Link,
        ticket: &SyncTicket,
        driver: &dyn SqlDriver,
        attempts: &mut Attempts,
    ) -> Result<ClockNews, AgentError> {
        let limit = attempts.comeback.limit(Duration::from_millis(self.0.options.connect_timeout_ms));
        let session = if let Some(session) = link.session.take().filter(|session| !session.is_closed()) {
            session
        } else {
            link.databases.clear();
            self.open_session(&link.endpoint, ticket.tokens.as_ref(), limit).await?
        };
        link.session = Some(session.clone());
        let (mint, holder) = link.mint()?;
        let id = driver.database_id();
        let mut database = match link.databases.remove(&id) {
            Some(database) => database,
            None => self.attach(&session, driver, &mint, holder).await?,
        };
        link.full.take_if(|(until, _)| *until <= Instant::now());
        let patience = self.patience();
        let job = SyncJob {
            session: &session,
            driver,
            database: &mut database,
            counter: ticket.counter,
            patience,
            mint,
            holder,
            options: Arc::clone(&self.0.options.sync),
            resolver: ticket.resolver.clone(),
            agent_id: self.0.options.agent_id.clone(),
            is_hub_full: link.full.is_some(),
        };
        let outcome = run(job, &mut attempts.report).await;
        if outcome.is_err() {
            link.unsettled.insert(id);
            // If this fails as well, the lease runs out by itself.
            let _ = batch(driver, move |sql| release(sql, claim(holder))).await;
        }
        // Remembered only if it went well: after a failure the hub is asked again what it has accepted.
        let done = outcome?;
        link.unsettled.remove(&id);
        if link.databases.len() >= MAX_DATABASES {
            link.databases.clear();
        }
        link.databases.insert(id, database);
        Ok(done)
    }

    /// Agrees with the hub on what it has of this database.
    async fn attach(
        &self,
        session: &Session,
        driver: &dyn SqlDriver,
        mint: &SharedMint,
        holder: Holder,
    ) -> Result<AttachedDatabase, AgentError> {
        let patience = self.patience();
        let tenant = self.0.options.tenant_id.clone();
        let fresh = fresh_replica(mint);
        let opening = tenant.clone();
        let options = Arc::clone(&self.0.options.sync);
        let opened = move |sql: &mut dyn Sql| open(sql, &opening, fresh, claim(holder), &options);
        let mut state = turn(driver, patience, opened).await?;
        let (mut delivered, mut notices) = (0, Vec::new());
        // An id that was minted in `open` has not been tried on any hub.
        let mut is_new = state.incarnation.is_none();
        for _ in 0..MAX_ATTACHES {
            let attach = Attach { replica: state.replica, cursor: state.cursor, is_new };
            let attached = session.attach(attach, patience).await?;
            let epoch = attached.epoch;
            let (tenant, incarnation, fresh) =
                (tenant.clone(), session.welcome.incarnation, fresh_replica(mint));
            let reconciled = turn(driver, patience, move |sql| {
                reconcile(sql, &tenant, incarnation, &attached, fresh, claim(holder))
            })
            .await?;
            delivered += reconciled.delivered;
            notices.extend(reconciled.notice);
            if !reconciled.renewed {
                return Ok(AttachedDatabase { epoch, catalog: None, is_noted: false, delivered, notices });
            }
            (state, is_new) = (reconciled.state, true);
        }
        Err(AgentError::new(
            ErrorCode::Protocol,
            "hub and database do not agree on what was accepted; is the database synced by another process?",
        ))
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.0.options.request_timeout_ms)
    }
}

/// The attempts of one sync, and what they have done together.
struct Attempts {
    comeback: Comeback,
    report: SyncReport,
}

impl Link {
    /// Random bytes for identities: one seed from the system, stretched. The first of them name this agent as
    /// the holder of leases.
    fn mint(&mut self) -> Result<(SharedMint, Holder), AgentError> {
        if let Some(mint) = &self.mint {
            return Ok(mint.clone());
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| {
            AgentError::new(ErrorCode::Internal, format!("the system gives no random bytes: {error}"))
        })?;
        let mut stretched = blake3::Hasher::new_keyed(&seed).finalize_xof();
        let mut mint: Mint = Box::new(move || {
            let mut bytes = [0; 16];
            stretched.fill(&mut bytes);
            bytes
        });
        let holder = Holder(mint());
        let mint: SharedMint = Arc::new(Mutex::new(mint));
        self.mint = Some((mint.clone(), holder));
        Ok((mint, holder))
    }
}

fn claim(holder: Holder) -> Claim {
    Claim { holder, now_ms: wall_now_ms() }
}

fn fresh_replica(mint: &SharedMint) -> ReplicaId {
    let mut mint = mint.lock().unwrap_or_else(PoisonError::into_inner);
    ReplicaId(mint())
}

/// For jitter; a system without random numbers gives none.
fn random() -> u32 {
    let mut random = [0; 4];
    let _ = getrandom::fill(&mut random);
    u32::from_ne_bytes(random)
}

/// The agent's certificate and key, or which of them is missing.
fn identity(options: &AgentOptions) -> Result<Option<(PemSource, PemSource)>, AgentError> {
    if !options.enable_mtls {
        return Ok(None);
    }
    let missing: Vec<&str> = [
        ("certPath (or FEDERATION_CERT_PATH)", options.cert.is_none()),
        ("keyPath (or FEDERATION_KEY_PATH)", options.key.is_none()),
        ("caPath (or FEDERATION_CA_PATH)", options.ca.is_none()),
    ]
    .into_iter()
    .filter_map(|(name, missing)| missing.then_some(name))
    .collect();
    match (&options.cert, &options.key) {
        (Some(cert), Some(key)) if missing.is_empty() => Ok(Some((cert.clone(), key.clone()))),
        _ => Err(AgentError::new(
            ErrorCode::Config,
            format!(
                "mutual TLS is on, and {} is missing. Give it in the configuration or the environment, or set \
                 enableMTLS: false if the hub asks for no client certificate",
                missing.join(", ")
            ),
        )),
    }
}
