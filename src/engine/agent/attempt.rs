//! The attempts of a sync: connect, attach, run, and what mends a failure at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Agent, AgentOptions, Link, MAX_DATABASES, SyncTicket, random};
use crate::engine::agent_error::{AgentError, ErrorCode, Remedy};
use crate::engine::clock::wall_now_ms;
use crate::engine::comeback::Comeback;
use crate::engine::link::{Door, Session};
use crate::engine::pause::with_jitter;
use crate::engine::sync::{AttachedDatabase, ClockNews, SharedMint, SyncJob, run};
use crate::engine::sync_report::SyncReport;
use crate::engine::token_source::{self, TokenSource};
use crate::engine::turn::turn;
use crate::model::ReplicaId;
use crate::protocol::limits::MAX_TOKEN_BYTES;
use crate::protocol::message::{Attach, Hello};
use crate::storage::attach::{Next, open, reconcile, release};
use crate::storage::driver::{Sql, SqlDriver, batch};
use crate::storage::lease::{Claim, Holder};
use crate::storage::replica::Mint;
use crate::transport::{AgentTls, EndpointAddress, PemSource};

/// How often a database attaches anew before it is given up: once under each new replica id.
const MAX_ATTACHES: usize = 3;

/// The attempts of one sync, and what they have done together.
struct Attempts {
    comeback: Comeback,
    report: SyncReport,
}

impl Agent {
    /// One sync, with what mends a failure at once.
    pub(super) async fn sync_in_turn(
        &self,
        link: &mut Link,
        ticket: &SyncTicket,
        database: &dyn SqlDriver,
    ) -> Result<SyncReport, AgentError> {
        let started = Instant::now();
        let is_lost = link.session.as_ref().is_none_or(Session::is_over);
        let mut attempts =
            Attempts { comeback: Comeback::new(self.patience(), is_lost), report: SyncReport::default() };
        let (mut has_attached, mut is_full) = (false, false);
        let clock = loop {
            match self.sync_or_come_back(link, ticket, database, &mut attempts).await {
                // Other processes that sync this database have the same to do, and end the session that this one has.
                Err(AgentError { remedy: Remedy::Attach, .. })
                    if !has_attached || started.elapsed() < self.patience() =>
                {
                    has_attached = true;
                    link.databases.remove(&database.database_id());
                }
                Err(error @ AgentError { remedy: Remedy::PullOnly, .. }) if !is_full => {
                    is_full = true;
                    // What others wrote is there for the asking all the same.
                    link.full = Some((Instant::now() + with_jitter(error.retry_after_ms, random()), error));
                }
                outcome => break outcome?,
            }
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

    async fn sync_once(
        &self,
        link: &mut Link,
        ticket: &SyncTicket,
        driver: &dyn SqlDriver,
        attempts: &mut Attempts,
    ) -> Result<ClockNews, AgentError> {
        let limit = attempts.comeback.limit(Duration::from_millis(self.0.options.connect_timeout_ms));
        let session = if let Some(session) = link.session.take().filter(|session| !session.is_over()) {
            session
        } else {
            link.databases.clear();
            self.open_session(ticket.tokens.as_ref(), limit).await?
        };
        link.session = Some(session.clone());
        let (mint, holder) = link.mint()?;
        let id = driver.database_id();
        let mut database = match link.databases.remove(&id) {
            Some(database) => database,
            None => match self.attach(&session, driver, &mint, holder).await {
                Ok(database) => database,
                Err(error) => {
                    give_back(driver, holder).await;
                    return Err(error);
                }
            },
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
            give_back(driver, holder).await;
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
            let (incarnation, fresh) = (session.welcome.incarnation, fresh_replica(mint));
            let mut asked = state;
            let reconciled = loop {
                let (tenant, attached) = (tenant.clone(), attached.clone());
                let reconciled = turn(driver, patience, move |sql| {
                    reconcile(sql, &tenant, incarnation, &asked, &attached, fresh, claim(holder))
                })
                .await?;
                delivered += reconciled.delivered;
                if reconciled.next != Next::Reconcile {
                    break reconciled;
                }
                asked = reconciled.state;
            };
            notices.extend(reconciled.notice);
            match reconciled.next {
                Next::Sync { pulls_first } => {
                    return Ok(AttachedDatabase {
                        epoch,
                        catalog: None,
                        noted: None,
                        pulls_first,
                        is_leased: true,
                        delivered,
                        notices,
                    });
                }
                Next::Attach { is_new: minted } => (state, is_new) = (reconciled.state, minted),
                // Asked again above until it is another.
                Next::Reconcile => state = reconciled.state,
            }
        }
        // Others have had the lease in between, because the hub took longer to answer than it holds.
        let message =
            "hub and database do not agree on what was accepted; is the database synced by another process?";
        Err(AgentError { remedy: Remedy::Attach, ..AgentError::new(ErrorCode::Protocol, message) })
    }

    /// Connects for the first time. A hub that is there, and lets nobody in because it is being restarted, is asked again
    /// for as long as connecting may take.
    pub(super) async fn open_first_session(
        &self,
        tokens: Option<&Arc<dyn TokenSource>>,
    ) -> Result<Session, AgentError> {
        let limit = Duration::from_millis(self.0.options.connect_timeout_ms);
        let mut comeback = Comeback::new(limit, false);
        loop {
            match self.open_session(tokens, comeback.limit(limit)).await {
                Err(error) if comeback.is_due(&error, random()).await => {}
                outcome => return outcome,
            }
        }
    }

    /// Connects, and is admitted.
    async fn open_session(
        &self,
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
        if token.len() > MAX_TOKEN_BYTES {
            // The hub would not even read the message that it is in.
            return Err(AgentError::new(
                ErrorCode::Unauthenticated,
                format!(
                    "the token has {} bytes, and a hub takes {MAX_TOKEN_BYTES} at most: issue one with fewer or shorter \
                     claims",
                    token.len()
                ),
            ));
        }
        let hello = Hello { tenant: options.tenant_id.clone(), agent: options.agent_id.clone(), token };
        let door =
            Door { address: &address, tls: &tls, hello, limit: limit.saturating_sub(started.elapsed()) };
        Session::open(&self.0.endpoint, door).await
    }
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

/// Lets others have the database at once. If this fails, the lease runs out by itself.
async fn give_back(driver: &dyn SqlDriver, holder: Holder) {
    let _ = batch(driver, move |sql| release(sql, claim(holder))).await;
}

fn fresh_replica(mint: &SharedMint) -> ReplicaId {
    let mut mint = mint.lock().unwrap_or_else(PoisonError::into_inner);
    ReplicaId(mint())
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
