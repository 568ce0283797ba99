//! A replica's turns: each is one transaction on the database's thread, and what the agent's pump is made of.
//!
//! ```text
//! open ──► (Attach) ──► reconcile ──► collect … ──► (send, receive) ──► apply …
//! ```
//!
//! `open` and `reconcile` (`attach.rs`) run once for each database and connection; afterwards a sync is
//! `collect`, the exchange with the hub, and `apply` for what came back. An idle sync is one `collect` of three
//! statements.

use std::sync::Arc;

use super::apply::{Applied, Incoming, apply};
use super::barred::{Barred, despite_failures};
use super::bookkeeping::{ReplicaState, probe, schema_version};
use super::capture::{Discovery, refresh};
use super::catalog::Catalog;
use super::choice::SyncOptions;
use super::collect::{Collected, TurnLimits, collect};
use super::context::Context;
use super::driver::{Sql, SqlError, SqlErrorKind};
use super::lease::Claim;
use super::look::{Slice, waiting_tables};
use super::missing_tables::{self, Missing};
use super::quarantine::examples;
use super::registered::{self, NotedRefusals, note_refused, tell_suspects};
use super::retrial::Retrial;
use super::settle::settle_log;
use super::tenant_tables;
use super::transaction::{Purpose, transaction, without_waiting};
use super::triggers::tell_unkept;
use super::walk::Walk;
use super::yielding::Indexes;
use crate::model::{Digest, Hlc, StampSource, TableSchema, Value};

/// Log entries settled in one go before remote changes are applied.
const SETTLE: usize = 1_000;

/// A catalog and the schema version that it was read at.
#[derive(Clone, Debug)]
pub struct CachedCatalog {
    /// SQLite's counter of schema changes.
    pub schema_version: i64,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The digest of the definitions as they travel.
    digest: Digest,
    /// Where the look at the replica's rows stands.
    walk: Option<Walk>,
    /// Whether another connection can make a reader of this database wait: it is a file with a rollback
    /// journal. Readers of a write-ahead log, and of memory, wait for nobody.
    readers_wait: bool,
}

/// What the hub's clock says, as far as this agent can tell.
#[derive(Clone, Copy, Debug)]
pub struct HubClock {
    /// Hub time minus wall time, in ms.
    pub offset_ms: i64,
    /// The hub's time now, in ms since the epoch.
    pub now_ms: i64,
}

impl HubClock {
    /// The first clock reading of the hub's present millisecond.
    fn reading(self) -> Hlc {
        Hlc::from_ms(self.now_ms)
    }
}

/// Source of random bytes for new identities.
pub type Mint = Box<dyn FnMut() -> [u8; 16] + Send>;

/// What every turn of a sync is run with.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The hub's clock.
    pub clock: HubClock,
    /// Who works on the database.
    pub claim: Claim,
    /// What the application has chosen.
    pub options: &'a SyncOptions,
}

/// Reasons for rows being set aside that a sync repeats.
const EXAMPLES: u64 = 5;

/// What one collecting turn found.
#[derive(Debug)]
pub struct CollectTurn {
    /// The replica's state.
    pub state: ReplicaState,
    /// The catalog, which the next turn wants back.
    pub catalog: CachedCatalog,
    /// The tables' definitions and their digest, if the hub may not know them.
    pub schema: Option<(Vec<TableSchema>, Digest)>,
    /// Tables whose past is to be asked for.
    pub refresh: Vec<String>,
    /// A batch, if there is something to send.
    pub collected: Collected,
    /// Rows as they are, to be compared with what the hub has. Only with the last turn of a sync.
    pub look: Vec<Slice>,
    /// Rows that capture had missed, and that the next sync sends.
    pub strays: u64,
    /// Rows that are set aside.
    pub quarantined: u64,
    /// What people should know.
    pub notices: Vec<String>,
}

/// Collects one batch. Three statements if there is nothing to do; three more, which keep the application
/// from freezing, if another connection can make readers wait.
pub fn collect_turn(
    sql: &mut dyn Sql,
    cached: Option<CachedCatalog>,
    setting: Setting<'_>,
    limits: TurnLimits,
    mint: &mut Mint,
) -> Result<CollectTurn, SqlError> {
    let may_wait = cached.as_ref().is_none_or(|cached| cached.readers_wait);
    let work = |sql: &mut dyn Sql| {
        transaction(sql, Purpose::Collect, |sql| collect_in(sql, cached, setting, limits, mint))
    };
    if may_wait { without_waiting(sql, work) } else { work(sql) }
}

fn collect_in(
    sql: &mut dyn Sql,
    cached: Option<CachedCatalog>,
    setting: Setting<'_>,
    limits: TurnLimits,
    mint: &mut Mint,
) -> Result<CollectTurn, SqlError> {
    let mut walk = cached.as_ref().and_then(|cached| cached.walk.clone());
    let (probe, glanced) = match (&cached, &walk) {
        (Some(cached), Some(walk)) => walk.glance(sql, &cached.catalog)?,
        _ => (probe(sql)?, None),
    };
    let mut state = probe.state;
    setting.claim.check(state.lease.as_ref())?;
    if probe.is_under_way && state.lease.is_none_or(|lease| lease.holder != setting.claim.holder) {
        // Nobody else will ever ask what became of it.
        return Err(SqlError {
            kind: SqlErrorKind::Unsettled,
            message: "another process's sync of this database was broken off".into(),
        });
    }
    let fresh = cached.filter(|cached| cached.schema_version == probe.schema_version);
    let (is_fresh, mut notices) = (fresh.is_some(), Vec::new());
    let read = |sql: &mut dyn Sql| read_anew(sql, setting, &state, &mut notices);
    let catalog = fresh.map_or_else(|| without_waiting(sql, read), Ok)?;
    let walk = walk.get_or_insert_with(|| Walk::starting_at(mint()));
    let is_known = state.schema_digest == Some(catalog.digest);
    if !is_known && state.schema_digest.take().is_some() {
        // The answer to what is declared now may get lost, and the hub has taken it in all the same.
        without_waiting(sql, |sql| state.save(sql))?;
    }
    let schema = (!is_known).then(|| (catalog.catalog.schemas(), catalog.digest));
    let mut turn = CollectTurn {
        state: state.clone(),
        catalog,
        schema,
        refresh: Vec::new(),
        collected: Collected::default(),
        quarantined: probe.quarantined,
        look: Vec::new(),
        strays: 0,
        notices,
    };
    let is_idle = is_fresh && !probe.has_changes;
    if !is_idle {
        turn.refresh = registered::to_refresh(sql)?;
        turn.collected = without_waiting(sql, |sql| {
            let catalog = turn.catalog.catalog.clone();
            let mut context = context(&catalog, &state, setting.clock, mint);
            collect(sql, &mut context, &mut state, limits)
        })?;
        if turn.collected.batch.is_some() {
            // From here to the end of the sync nobody else may compose a batch, or take this one for lost.
            state.lease = Some(setting.claim.lease());
            state.save(sql)?;
        }
        turn.state = state;
    }
    if turn.state.cursor > 0 && is_idle {
        turn.look = walk.go_on(glanced);
    } else if turn.state.cursor > 0 && !turn.collected.more {
        without_waiting(sql, |sql| check(sql, &mut turn, walk, is_fresh))?;
    }
    turn.catalog.walk = Some(walk.clone());
    Ok(turn)
}

/// Reads the catalog at the beginning of a connection, or where somebody has changed the schema, and tells, once for each
/// database, what people should know of it.
fn read_anew(
    sql: &mut dyn Sql,
    setting: Setting<'_>,
    state: &ReplicaState,
    notices: &mut Vec<String>,
) -> Result<CachedCatalog, SqlError> {
    missing_tables::make_held(sql, setting.options, notices)?;
    let mut cached = read_catalog(sql, setting, state)?;
    notices.extend(tell_suspects(sql, &cached.catalog)?);
    if !cached.catalog.tables.is_empty() {
        notices.extend(tell_unkept(sql)?);
    }
    // What was told is remembered, in a table that may have been made for it.
    cached.schema_version = schema_version(sql)?;
    Ok(cached)
}

/// Takes in some rows for the self-check, now that the log is settled; more of them if the catalog is not `is_fresh`:
/// at the beginning of a connection, or where somebody has changed the schema.
fn check(sql: &mut dyn Sql, turn: &mut CollectTurn, walk: &mut Walk, is_fresh: bool) -> Result<(), SqlError> {
    let catalog = Arc::clone(&turn.catalog.catalog);
    let waiting = waiting_tables(sql)?;
    turn.look = if is_fresh {
        let glanced = walk.glance(sql, &catalog)?.1;
        walk.go_on(glanced)
    } else {
        walk.look(sql, &catalog, &waiting)?
    };
    let waits = |name: &str| catalog.table(name).is_none_or(|table| waiting.contains(&table.number));
    turn.look.retain(|slice| !waits(&slice.bounds.table));
    if let Some((count, table)) = walk.capture_strays(sql, &catalog, &waiting)? {
        turn.strays = count;
        let name = &table.name;
        turn.notices.push(format!("table {name}: rows that capture had missed were found, and are sent"));
    }
    Ok(())
}

/// What one applying turn did.
#[derive(Debug)]
pub struct ApplyTurn {
    /// The replica's state.
    pub state: ReplicaState,
    /// The catalog, which the next turn wants back.
    pub catalog: CachedCatalog,
    /// What was applied.
    pub applied: Applied,
    /// What people should know.
    pub notices: Vec<String>,
}

/// What an applying turn brings besides rows.
#[derive(Debug, Default)]
pub struct ApplyExtras {
    /// Definitions that the hub has told: what the tenant has agreed on is remembered.
    pub told: Vec<TableSchema>,
    /// Which of these are missing here, and what becomes of them.
    pub missing: Missing,
    /// With the end of the sync: the digest of the schema that the hub knows now.
    pub schema_digest: Option<Digest>,
    /// With the end of the sync: tables whose past has been delivered.
    pub refreshed: Vec<String>,
}

impl ApplyExtras {
    /// Whether it brings nothing.
    pub fn is_empty(&self) -> bool {
        let Self { told, missing: _, schema_digest, refreshed } = self;
        told.is_empty() && schema_digest.is_none() && refreshed.is_empty()
    }
}

/// Applies rows, acknowledgements and the end of a sync. `incoming` is borrowed, because the database may
/// turn out busy as late as at the COMMIT, and the turn is then repeated. If the turn [`Applied::is_unfinished`], it is
/// followed by others of the same `retrial` that bring nothing but the end: see [`Incoming::rest`].
#[expect(
    clippy::needless_pass_by_value,
    reason = "a turn takes it and gives it back; this one may run twice"
)]
pub fn apply_turn(
    sql: &mut dyn Sql,
    cached: Option<CachedCatalog>,
    setting: Setting<'_>,
    mint: &mut Mint,
    extras: &ApplyExtras,
    incoming: &Incoming,
    retrial: &mut Retrial,
) -> Result<ApplyTurn, SqlError> {
    retrial.restart_time();
    despite_failures(sql, |sql, indexes, barred| {
        retrial.begin_turn();
        let turn =
            apply_once(sql, cached.clone(), setting, mint, extras, incoming, (indexes, barred, retrial));
        retrial.end_turn(turn.is_ok());
        turn
    })
}

fn apply_once(
    sql: &mut dyn Sql,
    cached: Option<CachedCatalog>,
    setting: Setting<'_>,
    mint: &mut Mint,
    extras: &ApplyExtras,
    incoming: &Incoming,
    (indexes, barred, retrial): (&mut Indexes, &mut Barred, &mut Retrial),
) -> Result<ApplyTurn, SqlError> {
    let may_delete = incoming.done.is_some() && !extras.refreshed.is_empty();
    let purpose = if incoming.touches_tables() || may_delete { Purpose::Apply } else { Purpose::Record };
    transaction(sql, purpose, |sql| {
        let probe = probe(sql)?;
        let mut state = probe.state;
        setting.claim.check(state.lease.as_ref())?;
        // The turn that ends the sync gives it back.
        state.lease = Some(setting.claim.lease());
        let mut notices = Vec::new();
        let walk = cached.as_ref().and_then(|cached| cached.walk.clone());
        let fresh = cached.filter(|cached| cached.schema_version == probe.schema_version);
        let mut catalog = match fresh {
            Some(cached) => cached,
            None => read_catalog(sql, setting, &state)?,
        };
        let is_news = tenant_tables::remember(sql, &extras.told)?;
        missing_tables::forget_removed(sql, &extras.told)?;
        if tenant_tables::decline(sql, &catalog.catalog, &extras.told)? {
            catalog = read_catalog(sql, setting, &state)?;
        }
        let created = missing_tables::make(sql, &catalog.catalog, &extras.missing.make, &mut notices)?;
        missing_tables::hold(sql, &catalog.catalog, &extras.missing.hold, &mut notices)?;
        if created {
            refresh(sql, setting.options, Discovery::Made, state.resume, Some(setting.clock.reading()))?;
        }
        if created || is_news {
            catalog = read_catalog(sql, setting, &state)?;
        }
        let shared = catalog.catalog.clone();
        let mut context = context(&shared, &state, setting.clock, mint);
        context.indexes.clone_from(indexes);
        settle_all(sql, &mut context)?;
        if incoming.done.is_some() {
            if let Some(digest) = extras.schema_digest {
                state.schema_digest = Some(digest);
            }
            for table in &extras.refreshed {
                sql.execute(
                    "UPDATE main._federation_table SET refresh = 0 WHERE name = ?",
                    &[table.as_str().into()],
                )?;
            }
        }
        let (before, trials) = (probe.quarantined, (retrial, barred));
        let applied = apply(sql, &mut context, &mut state, incoming, &extras.refreshed, before, trials);
        indexes.clone_from(&context.indexes);
        let applied = applied?;
        notices.append(&mut context.notices);
        if let Some(done) = incoming.done.as_ref().filter(|_| !applied.is_unfinished) {
            // It is a declaration that makes a difference.
            let is_declared = extras.schema_digest.is_some() || !done.refused.is_empty();
            let noted = if is_declared {
                note_refused(sql, &catalog.catalog, &done.refused)?
            } else {
                NotedRefusals::default()
            };
            if noted.is_news {
                state.schema_digest = None;
                state.save(sql)?;
            }
            if noted.has_changed || !extras.refreshed.is_empty() {
                catalog = read_catalog(sql, setting, &state)?;
            }
        }
        if applied.quarantined > 0 && incoming.done.is_some() && !applied.is_unfinished {
            notices.extend(examples(sql, &shared, EXAMPLES)?);
        }
        // Triggers that were suspended and are back have changed the version, but not the catalog.
        catalog.schema_version = schema_version(sql)?;
        catalog.walk = walk;
        Ok(ApplyTurn { state, catalog, applied, notices })
    })
}

/// Settles the whole log before remote changes are applied.
pub(super) fn settle_all(sql: &mut dyn Sql, context: &mut Context<'_>) -> Result<(), SqlError> {
    while !settle_log(sql, context, SETTLE, 0, &mut |_, _, _, _| Ok(true))? {}
    Ok(())
}

/// What the storage functions of one turn share.
pub(super) fn context<'a>(
    catalog: &'a Catalog,
    state: &ReplicaState,
    clock: HubClock,
    mint: &'a mut Mint,
) -> Context<'a> {
    let stamps = StampSource {
        replica: state.replica,
        offset_ms: clock.offset_ms,
        hub_now_ms: clock.now_ms,
        highest: state.highest,
    };
    let mut context = Context::new(catalog, state.cursor, stamps, mint);
    context.go_on(state.half_settled.as_ref());
    context
}

/// Brings capture up to the schema, and reads the version that it has then.
fn read_catalog(
    sql: &mut dyn Sql,
    setting: Setting<'_>,
    state: &ReplicaState,
) -> Result<CachedCatalog, SqlError> {
    let now = Some(setting.clock.reading());
    let catalog = refresh(sql, setting.options, Discovery::New, state.resume, now)?;
    let digest = schema_digest(&catalog)?;
    let schema_version = schema_version(sql)?;
    let journal = sql.query_row("PRAGMA main.journal_mode", &[])?;
    let file = sql.query_row("SELECT file FROM pragma_database_list WHERE name = 'main'", &[])?;
    let is =
        |row: Option<Vec<Value>>, text: &str| matches!(row.as_deref(), Some([Value::Text(it)]) if it == text);
    let readers_wait = !is(file, "") && !is(journal, "wal");
    Ok(CachedCatalog { schema_version, catalog: Arc::new(catalog), digest, walk: None, readers_wait })
}

fn schema_digest(catalog: &Catalog) -> Result<Digest, SqlError> {
    let bytes =
        rmp_serde::to_vec(&catalog.schemas()).map_err(|error| SqlError::corrupt(error.to_string()))?;
    Ok(Digest(*blake3::hash(&bytes).as_bytes()))
}
