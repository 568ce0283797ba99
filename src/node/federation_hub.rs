//! `FederationHub`: an agent's end of the line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use napi::Env;
use napi::bindgen_prelude::{Either, Object, PromiseRaw};
use napi_derive::napi;
use tokio::sync::Mutex as AsyncMutex;

use super::choice::sync_options;
use super::error::CodedError;
use super::js_driver::{HandleInfo, JsDriver};
use super::js_resolver::JsResolver;
use super::js_thread::{self, JsThread};
use super::js_tokens::{JsTokens, OpenQuestions};
use super::migration;
use super::options::{FederationHubConfig, agent_options};
use crate::engine::agent::{Agent, SyncTicket};
use crate::engine::token_source::TokenSource;
use crate::engine::{runtime, sync_report, upkeep};
use crate::storage::sqlite_driver::SqliteDriver;

/// What one sync did.
#[napi(object, object_from_js = false)]
pub struct SyncReport {
    /// Rows of other agents that were applied here.
    pub pulled: f64,
    /// Rows of this agent that the hub has stored durably.
    pub pushed: f64,
    /// Cells that another agent had written concurrently, and for which the rule picked one of the two values.
    pub conflicts: f64,
    /// Rows that cannot be applied here for now. They are kept, with the reason, in the table
    /// `_federation_quarantine`, and tried again by every sync.
    pub quarantined: f64,
    /// Rows of this agent that the hub has refused.
    pub rejected: f64,
    /// Rows that were not as the hub has them, though nobody had written them as far as capture saw. They are again,
    /// or, if the hub knows nothing of them, are offered to it. A notice names their table.
    pub healed: f64,
    /// How long the sync took, in milliseconds.
    pub duration_ms: f64,
    /// Bytes sent to the hub.
    pub bytes_sent: f64,
    /// Bytes received from the hub.
    pub bytes_received: f64,
    /// What somebody should know: rows that were set aside or refused, and why. Usually empty.
    pub notices: Vec<String>,
}

/// Where an agent stands.
#[napi(object, object_from_js = false)]
pub struct SyncStats {
    /// When the agent last connected or synced, in milliseconds since the epoch; 0 before the first time.
    pub last_sync_time: f64,
    /// For each live agent heard of, and this one, how many of its syncs are known here.
    #[napi(ts_type = "Record<string, number>")]
    pub vector_clock: BTreeMap<String, f64>,
}

/// An agent's end of the line to its hub.
///
/// ```ts
/// const hub = new FederationHub({ endpoint: 'quic://hub.example.com:4433', agentId, tenantId, token });
/// await hub.connect();
/// await hub.sync(db); // an open handle of better-sqlite3, node:sqlite, sql.js or libsql, or a path
/// await hub.disconnect();
/// ```
///
/// Rejected promises carry a `FederationError`, whose `code` says what went wrong.
#[napi]
pub struct FederationHub {
    agent: Result<Agent, CodedError>,
    /// Those for tokens, if a function gives them.
    questions: Option<Arc<OpenQuestions>>,
}

#[napi]
impl FederationHub {
    /// Remembers the configuration; reads no file and opens no socket. What is wrong with it, `connect()` tells.
    #[napi(constructor, ts_args_type = "config: FederationHubConfig")]
    pub fn new(config: FederationHubConfig<'_>, choice: String) -> Self {
        let questions = config.token.is_empty().then(Arc::default);
        let options = sync_options(&choice.into_bytes()).and_then(|sync| agent_options(config, sync));
        Self { agent: options.map(|options| Agent::sharing(runtime::endpoint(), options)), questions }
    }

    /// Connects to the hub: QUIC, TLS 1.3, the token. Certificate paths that the configuration does not give
    /// are taken from the environment now.
    #[napi(ts_args_type = "", ts_return_type = "Promise<void>")]
    pub fn connect<'env>(&self, env: &'env Env, tokens: Object<'_>) -> napi::Result<PromiseRaw<'env, ()>> {
        let (agent, questions) = (self.agent.clone(), self.questions.clone());
        js_thread::promise(env, &[&tokens], |thread| async move {
            Ok(agent?.connect_with(token_source(&thread, 0, questions)).await?)
        })
    }

    /// Answers a question for a token.
    #[napi(skip_typescript)]
    pub fn give_token(&self, question: u32, token: String) {
        if let Some(questions) = &self.questions {
            questions.answer(question, Ok(token));
        }
    }

    /// Says why there is no token.
    #[napi(skip_typescript)]
    pub fn refuse_token(&self, question: u32, why: String) {
        if let Some(questions) = &self.questions {
            questions.answer(question, Err(why));
        }
    }

    /// Exchanges changes with the hub: pulls, merges, pushes, in one round trip. The first sync of a database
    /// installs what notes its changes; the application does nothing for it.
    ///
    /// Takes an open handle of better-sqlite3, node:sqlite, sql.js or libsql, an object that holds one as `db`,
    /// `database` or `raw`, or the path of a file that this process does not have open. A sync of a database
    /// that is being synced waits its turn. A sync that fails loses nothing: the next one sends it. A lost
    /// connection is restored.
    #[napi(ts_args_type = "database: SyncableDatabase | string", ts_return_type = "Promise<SyncReport>")]
    pub fn sync<'env>(
        &self,
        env: &'env Env,
        database: Either<Object<'_>, String>,
        statements: Object<'_>,
        resolver: Object<'_>,
        tokens: Object<'_>,
    ) -> napi::Result<PromiseRaw<'env, SyncReport>> {
        let questions = self.questions.clone();
        let begun = self.agent.clone().and_then(|agent| {
            let ticket = agent.begin_sync()?;
            Ok((agent, ticket))
        });
        let handle = match database {
            Either::A(handle) => handle,
            Either::B(path) => {
                return js_thread::promise(env, &[&resolver, &tokens], |thread| async move {
                    let (agent, ticket) = begun?;
                    let ticket = ticket.authenticated_by(token_source(&thread, 1, questions));
                    let ticket = ticket.resolved_by(Arc::new(JsResolver::new(thread, 0)));
                    sync_file(&agent, ticket, Path::new(&path)).await
                });
            }
        };
        let HandleInfo { database_id, turn } = HandleInfo::of(env, &statements)?;
        let is_warm = begun.as_ref().is_ok_and(|(agent, _)| agent.is_warm(database_id));
        let work = |thread: JsThread| async move {
            let (agent, ticket) = begun?;
            let ticket = ticket.authenticated_by(token_source(&thread, 3, questions));
            let ticket = ticket.resolved_by(Arc::new(JsResolver::new(thread.clone(), 2)));
            let _turn = turn.lock().await;
            Ok(agent.sync(ticket, Arc::new(JsDriver::new(thread, database_id))).await?.into())
        };
        let keep = [&handle, &statements, &resolver, &tokens];
        if is_warm {
            js_thread::promise_begun_here(env, &keep, work)
        } else {
            js_thread::promise(env, &keep, work)
        }
    }

    /// Removes everything that syncing has put into a database: its bookkeeping tables, triggers and indexes. What
    /// is left equals a database that never synced, with the rows that it has now. No hub is asked, and none has
    /// to be connected; a sync that is running is waited for. What was not pushed before is from then on the
    /// business of this database alone. Synced again, it is a new replica.
    ///
    /// Rejects while a transaction is open on the handle.
    #[napi(ts_args_type = "database: SyncableDatabase | string", ts_return_type = "Promise<void>")]
    pub fn detach<'env>(
        env: &'env Env,
        database: Either<Object<'_>, String>,
        statements: Object<'_>,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let handle = match database {
            Either::A(handle) => handle,
            Either::B(path) => {
                return js_thread::promise(env, &[], |_| async move { detach_file(Path::new(&path)).await });
            }
        };
        let HandleInfo { database_id, turn } = HandleInfo::of(env, &statements)?;
        js_thread::promise(env, &[&handle, &statements], |thread| async move {
            let _turn = turn.lock().await;
            Ok(upkeep::detach(&JsDriver::new(thread, database_id)).await?)
        })
    }

    /// The first half of `migrate`, whose whole is JavaScript: it runs a function of the application between them.
    #[napi(skip_typescript)]
    pub fn begin_migration<'env>(
        env: &'env Env,
        handle: Object<'_>,
        statements: Object<'_>,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let HandleInfo { database_id, turn } = HandleInfo::of(env, &statements)?;
        js_thread::promise(env, &[&handle, &statements], |thread| migration::begin(thread, database_id, turn))
    }

    /// The second half of `migrate`.
    #[napi(skip_typescript)]
    pub fn end_migration<'env>(
        env: &'env Env,
        handle: Object<'_>,
        statements: Object<'_>,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let HandleInfo { database_id, .. } = HandleInfo::of(env, &statements)?;
        js_thread::promise(env, &[&handle, &statements], |thread| migration::end(thread, database_id))
    }

    /// Closes the connection, after the sync that is running. Does nothing when there is none.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn disconnect<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let agent = self.agent.clone();
        js_thread::promise(env, &[], |_| async move {
            if let Ok(agent) = agent {
                agent.disconnect().await;
            }
            Ok(())
        })
    }

    /// Whether `connect()` has succeeded and `disconnect()` was not called since; also while the link is down
    /// and the next sync is going to restore it.
    #[napi]
    pub fn is_connected(&self) -> bool {
        self.agent.as_ref().is_ok_and(Agent::is_connected)
    }

    /// Where this agent stands; a copy.
    #[napi]
    pub fn get_sync_stats(&self) -> SyncStats {
        let Ok(agent) = &self.agent else {
            return SyncStats { last_sync_time: 0.0, vector_clock: BTreeMap::new() };
        };
        let stats = agent.stats();
        SyncStats {
            last_sync_time: number(stats.last_sync_time_ms.cast_unsigned()),
            vector_clock: stats
                .vector_clock
                .iter()
                .map(|(agent, count)| (agent.to_owned(), number(count)))
                .collect(),
        }
    }
}

impl Drop for FederationHub {
    /// The object was collected, or its thread has ended, without `disconnect()`.
    fn drop(&mut self) {
        if let Ok(agent) = &self.agent
            && agent.is_connected()
        {
            let agent = agent.clone();
            // Without a thread there is no connection either.
            let _ = runtime::spawn(async move { agent.disconnect().await });
        }
    }
}

/// What to ask for tokens, if there is a function for them.
fn token_source(
    thread: &JsThread,
    place: usize,
    questions: Option<Arc<OpenQuestions>>,
) -> Option<Arc<dyn TokenSource>> {
    questions
        .map(|questions| Arc::new(JsTokens::new(thread.clone(), place, questions)) as Arc<dyn TokenSource>)
}

/// Syncs a file that nothing in this process has open, and has it closed again before it returns.
async fn sync_file(agent: &Agent, ticket: SyncTicket, path: &Path) -> Result<SyncReport, CodedError> {
    if path == Path::new(":memory:") {
        return Err(CodedError::database(
            "':memory:' names no database that exists: pass the open handle to sync()",
        ));
    }
    let turn = file_turn(path);
    let _turn = turn.lock().await;
    let driver = SqliteDriver::open(path).map_err(|error| CodedError::database(error.to_string()))?;
    let closed = driver.closed();
    let outcome = agent.sync(ticket, Arc::new(driver)).await;
    closed.await;
    Ok(outcome?.into())
}

/// Detaches a file that nothing in this process has open.
async fn detach_file(path: &Path) -> Result<(), CodedError> {
    if !path.exists() {
        return Err(CodedError::database(format!("there is no database {} to detach", path.display())));
    }
    let turn = file_turn(path);
    let _turn = turn.lock().await;
    let driver = SqliteDriver::open(path).map_err(|error| CodedError::database(error.to_string()))?;
    let closed = driver.closed();
    let outcome = upkeep::detach(&driver).await;
    drop(driver);
    closed.await;
    Ok(outcome?)
}

/// What a sync of this file holds, so that two of them take turns.
fn file_turn(path: &Path) -> Arc<AsyncMutex<()>> {
    static TURNS: Mutex<BTreeMap<PathBuf, Weak<AsyncMutex<()>>>> = Mutex::new(BTreeMap::new());
    // A file that does not exist yet has no canonical path, but it has an absolute one.
    let name = path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    turns.retain(|_, turn| turn.strong_count() > 0);
    let turn = turns.get(&name).and_then(Weak::upgrade).unwrap_or_default();
    turns.insert(name, Arc::downgrade(&turn));
    turn
}

impl From<sync_report::SyncReport> for SyncReport {
    fn from(report: sync_report::SyncReport) -> Self {
        Self {
            pulled: number(report.pulled),
            pushed: number(report.pushed),
            conflicts: number(report.conflicts),
            quarantined: number(report.quarantined),
            rejected: number(report.rejected),
            healed: number(report.healed),
            duration_ms: report.duration_ms,
            bytes_sent: number(report.bytes_sent),
            bytes_received: number(report.bytes_received),
            notices: report.notices,
        }
    }
}

/// A count, as JavaScript has them.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which no count of ours reaches")]
pub fn number(count: u64) -> f64 {
    count as f64
}
