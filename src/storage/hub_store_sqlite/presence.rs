//! Who is there: replicas that attach, are heard of, and retire.
//!
//! What is kept of a replica and of its agent goes when it retires, so that a tenant's bookkeeping is as large as
//! the number of its live agents (I10). Stamps and writers stand in the rows themselves, and mean the same when
//! nobody answers to them any more; their replica never comes back under its id.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, params};

use super::replica_quota::make_room;
use super::rules::TenantRules;
use super::session::Replica;
use super::standing::Settling;
use super::tenant::Tenant;
use super::unsettled::Unsettled;
use super::weight::StoreLimits;
use super::{damaged, definitions, incarnations, refused};
use crate::model::{ReplicaId, Seq};
use crate::protocol::hub_request::{AttachRequest, Caller};
use crate::protocol::limits::MAX_CLOCK_ENTRIES;
use crate::protocol::message::{Attached, Incarnation, Refusal, Standing};
use crate::storage::hub_store::{StoreError, StoreStats, Upkeep};

/// Names of retired agents that a tenant keeps, to have them taken out of others' clocks. Who has not heard of
/// one that is forgotten is told of all live agents instead.
const MAX_RETIRED_NAMES: i64 = 256;

/// How long a connected replica's expired token is let be before it is looked at again, in ms.
const TOKEN_GRACE_MS: i64 = 60_000;

/// The share of the time to live after which it is written down that a replica was heard of.
const SEEN_SHARE: i64 = 8;

/// Agents' clock entries, and who retired: see [`crate::protocol::message::Done`].
pub type ClockNews = (Vec<(String, u64)>, Option<Vec<String>>);

/// When a replica was heard of last, and what cursor it reported then; and what of that the file says.
struct Sighting {
    at_ms: i64,
    cursor: Seq,
    written: Option<(i64, Seq)>,
}

/// What was heard of replicas since it was last written down. What is lost of it only makes things later: an
/// older cursor keeps tombstones, and an agent that syncs is heard of again.
#[derive(Default)]
pub struct Sightings(HashMap<(i64, ReplicaId), Sighting>);

impl Sightings {
    /// A replica has pulled, and therefore pushed all that it had not told up to this cursor.
    pub fn add(&mut self, tenant: i64, replica: ReplicaId, cursor: Seq, at_ms: i64) {
        let sighting = self.0.entry((tenant, replica)).or_insert(Sighting { at_ms, cursor, written: None });
        (sighting.at_ms, sighting.cursor) = (at_ms, cursor);
    }

    /// Forgets a replica, or what was thought of it.
    pub fn remove(&mut self, tenant: i64, replica: ReplicaId) {
        self.0.remove(&(tenant, replica));
    }

    /// When a replica was heard of last, in ms since the epoch, which may be later than when it was by what the file says.
    pub fn seen_ms(&self, tenant: i64, replica: ReplicaId, written_ms: i64) -> i64 {
        self.0.get(&(tenant, replica)).map_or(written_ms, |sighting| sighting.at_ms.max(written_ms))
    }

    /// Forgets all replicas of a tenant.
    pub fn remove_all(&mut self, tenant: i64) {
        self.0.retain(|(other, _), _| *other != tenant);
    }

    /// Forgets everything: what was thought to be written may not be.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Writes up to `limit` of them down. Returns how many.
    pub fn write(
        &mut self,
        conn: &Connection,
        upkeep: &Upkeep<'_>,
        limit: usize,
    ) -> Result<usize, StoreError> {
        let patience = upkeep.agent_ttl_ms / SEEN_SHARE;
        let due = self.0.iter_mut().filter(|(_, sighting)| {
            sighting.written.is_none_or(|(at_ms, cursor)| {
                cursor != sighting.cursor || sighting.at_ms.saturating_sub(at_ms) > patience
            })
        });
        let sql = "UPDATE replica SET cursor = ?3, seen_ms = ?4 WHERE tenant = ?1 AND id = ?2";
        let mut statement = conn.prepare_cached(sql)?;
        let mut count = 0;
        for ((tenant, replica), sighting) in due.take(limit) {
            statement.execute(params![
                tenant,
                &replica.0[..],
                sighting.cursor.cast_signed(),
                sighting.at_ms
            ])?;
            sighting.written = Some((sighting.at_ms, sighting.cursor));
            count += 1;
        }
        Ok(count)
    }
}

/// See [`crate::storage::hub_store::HubStore::attach`].
///
/// Comes with the tables of which definitions are declared by nobody now. The cursor of a replica that attaches is not believed yet: until its first pull, which follows its push, it
/// may have writes to rows whose delete it has seen, and holds their tombstones.
pub fn attach(
    conn: &Connection,
    (stats, sightings, limits): (&mut StoreStats, &mut Sightings, StoreLimits),
    caller: &Caller,
    request: &AttachRequest,
    (incarnation, now_ms): (Incarnation, i64),
) -> Result<(Attached, BTreeSet<i64>), StoreError> {
    if request.incarnation.is_some_and(|welcomed| welcomed != incarnation) {
        let message = "the hub's operator has removed something of this tenant: connect again";
        return refused(Refusal::Stopping, message);
    }
    let mut undeclared = BTreeSet::new();
    let (past, rejected) = (Vec::new(), Vec::new());
    let mut retired = Attached { epoch: 0, last: None, past, standing: Standing::Retired, rejected };
    let tenant = match Tenant::find(conn, &caller.tenant)? {
        Some(tenant) => tenant,
        None if request.is_new => Tenant::find_or_create(conn, &caller.tenant, stats)?,
        None => return Ok((retired, undeclared)),
    };
    let past = incarnations::enter(conn, &tenant, incarnation)?;
    let former = agent_of(conn, tenant.id, request.replica)?;
    if former.is_none() && (!request.is_new || is_mistakable(conn, tenant.id, request.replica)?) {
        retired.past = past;
        return Ok((retired, undeclared));
    }
    if former.is_none() {
        undeclared = make_room(conn, sightings, &tenant, limits)?;
    }
    conn.prepare_cached(
        "INSERT INTO replica (tenant, id, agent, epoch, seen_ms, token_until_ms) VALUES (?1, ?2, ?3, 1, ?4, ?5)
         ON CONFLICT DO UPDATE SET epoch = epoch + 1, agent = excluded.agent, cursor = min(cursor, ?6),
             seen_ms = excluded.seen_ms, token_until_ms = excluded.token_until_ms",
    )?
    .execute(params![
        tenant.id,
        &request.replica.0[..],
        caller.agent,
        now_ms,
        request.token_until_ms,
        request.cursor.cast_signed()
    ])?;
    if let Some(former) = former.filter(|former| *former != caller.agent) {
        retire_agent(conn, tenant.id, &former)?;
    }
    let found = Replica::find(conn, &tenant, request.replica)?.ok_or_else(|| damaged("a replica"))?;
    let standing = if request.cursor < tenant.horizon { Standing::Behind } else { Standing::Current };
    let Replica { epoch, last, rejected, .. } = found;
    Ok((Attached { epoch, last, past, standing, rejected }, undeclared))
}

fn agent_of(conn: &Connection, tenant: i64, replica: ReplicaId) -> Result<Option<String>, StoreError> {
    let sql = "SELECT agent FROM replica WHERE tenant = ?1 AND id = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    Ok(statement.query_row(params![tenant, &replica.0[..]], |row| row.get(0)).optional()?)
}

/// Whether another replica's writes could not be told from those of this one: stamps name a replica by the beginning of its
/// id. With random ids that is an accident of 1 in 2^63; it takes another id then, as one that has retired does.
fn is_mistakable(conn: &Connection, tenant: i64, replica: ReplicaId) -> Result<bool, StoreError> {
    const HIGHEST: u64 = 1 << 63;
    let sql = "SELECT EXISTS(SELECT 1 FROM replica WHERE tenant = ?1 AND id BETWEEN ?2 AND ?3)";
    let mut statement = conn.prepare_cached(sql)?;
    for beginning in [replica.tie_break(), replica.tie_break() | HIGHEST] {
        let bound = |rest: u64| [beginning.to_be_bytes(), rest.to_be_bytes()].concat();
        let is_taken =
            statement.query_row(params![tenant, bound(0), bound(u64::MAX)], |row| row.get::<_, bool>(0))?;
        if is_taken {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Keeps an agent's clock entry from a session that pushed nothing, unless the agent has retired by then.
pub fn end_session(conn: &Connection, caller: &Caller, counter: u64) -> Result<(), StoreError> {
    let Some(tenant) = Tenant::find(conn, &caller.tenant)? else { return Ok(()) };
    // An agent that pushed nothing has told nobody anything: its entry keeps its position.
    conn.prepare_cached(
        "INSERT INTO agent (tenant, name, counter, seq)
         SELECT ?1, ?2, ?3, 0 WHERE EXISTS (SELECT 1 FROM replica WHERE tenant = ?1 AND agent = ?2)
         ON CONFLICT DO UPDATE SET counter = excluded.counter WHERE excluded.counter > counter",
    )?
    .execute(params![tenant.id, caller.agent, counter.cast_signed()])?;
    Ok(())
}

/// See [`crate::storage::hub_store::HubStore::retire`].
///
/// Returns the tables of which it is still to be decided what stands.
pub fn retire(
    conn: &Connection,
    (stats, sightings, rules): (&mut StoreStats, &mut Sightings, &mut Option<TenantRules>),
    caller: &Caller,
    replicas: &[(ReplicaId, u64)],
) -> Result<BTreeSet<i64>, StoreError> {
    let mut undeclared = BTreeSet::new();
    let Some(tenant) = Tenant::find(conn, &caller.tenant)? else { return Ok(undeclared) };
    for (replica, epoch) in replicas {
        let found = Replica::find(conn, &tenant, *replica)?;
        if found.is_some_and(|found| found.epoch == *epoch) {
            undeclared.append(&mut fold(conn, sightings, tenant.id, *replica)?);
        }
    }
    settle(conn, stats, &caller.tenant, rules, &mut undeclared)?;
    Ok(undeclared)
}

/// Decides what stands of a piece of some tables, and takes them out.
pub fn settle(
    conn: &Connection,
    stats: &mut StoreStats,
    tenant: &str,
    rules: &mut Option<TenantRules>,
    tables: &mut BTreeSet<i64>,
) -> Result<(), StoreError> {
    if tables.is_empty() {
        return Ok(());
    }
    let Some(mut tenant) = Tenant::find(conn, tenant)? else {
        tables.clear();
        return Ok(());
    };
    let before = tenant.seq;
    Settling::new(conn, &mut tenant, rules).settle(stats, tables)?;
    if tenant.seq == before { Ok(()) } else { tenant.save(conn) }
}

/// Looks at some rows of a tenant that were looked at under other rules than there are now.
pub fn derive_left(
    conn: &Connection,
    stats: &mut StoreStats,
    tenant: &str,
    rules: &mut Option<TenantRules>,
) -> Result<(), StoreError> {
    let Some(mut tenant) = Tenant::find(conn, tenant)? else { return Ok(()) };
    Settling::new(conn, &mut tenant, rules).derive_left(stats)?;
    tenant.save(conn)
}

/// Retires up to `limit` replicas whose time is over. Returns how many were looked at.
pub fn retire_due(
    conn: &Connection,
    (sightings, unsettled): (&mut Sightings, &mut Unsettled),
    upkeep: &Upkeep<'_>,
    limit: usize,
) -> Result<usize, StoreError> {
    let mut undeclared: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    let silent = "SELECT tenant, id FROM replica WHERE seen_ms < ?1 LIMIT ?2";
    let oldest_ms = upkeep.now_ms.saturating_sub(upkeep.agent_ttl_ms);
    let silent = due(conn, silent, oldest_ms, limit)?;
    for (tenant, replica) in &silent {
        let mut tables = fold(conn, sightings, *tenant, *replica)?;
        undeclared.entry(*tenant).or_default().append(&mut tables);
    }
    let expired = "SELECT tenant, id FROM replica WHERE token_until_ms <= ?1 LIMIT ?2";
    let expired = due(conn, expired, upkeep.wall_ms, limit - silent.len())?;
    for (tenant, replica) in &expired {
        let name: String = conn
            .prepare_cached("SELECT name FROM tenant WHERE id = ?1")?
            .query_row([tenant], |row| row.get(0))?;
        if upkeep.connected.contains(&(name, *replica)) {
            let sql = "UPDATE replica SET token_until_ms = ?3 WHERE tenant = ?1 AND id = ?2";
            let later_ms = upkeep.wall_ms.saturating_add(TOKEN_GRACE_MS);
            conn.prepare_cached(sql)?.execute(params![tenant, &replica.0[..], later_ms])?;
        } else {
            let mut tables = fold(conn, sightings, *tenant, *replica)?;
            undeclared.entry(*tenant).or_default().append(&mut tables);
        }
    }
    for (tenant, tables) in undeclared {
        if tables.is_empty() {
            continue;
        }
        let name: String = conn
            .prepare_cached("SELECT name FROM tenant WHERE id = ?1")?
            .query_row([tenant], |row| row.get(0))?;
        unsettled.add(&name, tables);
    }
    Ok(silent.len() + expired.len())
}

fn due(conn: &Connection, sql: &str, at_ms: i64, limit: usize) -> Result<Vec<(i64, ReplicaId)>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![at_ms, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        found.push((row.get(0)?, ReplicaId::from_slice(id).ok_or_else(|| damaged("a replica's id"))?));
    }
    Ok(found)
}

/// Folds a replica away, and its agent if that has no other. Returns the tables of which definitions are declared by nobody
/// now.
pub fn fold(
    conn: &Connection,
    sightings: &mut Sightings,
    tenant: i64,
    replica: ReplicaId,
) -> Result<BTreeSet<i64>, StoreError> {
    let Some(agent) = agent_of(conn, tenant, replica)? else { return Ok(BTreeSet::new()) };
    let declaration: Option<i64> = conn
        .prepare_cached("DELETE FROM replica WHERE tenant = ?1 AND id = ?2 RETURNING declaration")?
        .query_row(params![tenant, &replica.0[..]], |row| row.get(0))?;
    sightings.remove(tenant, replica);
    retire_agent(conn, tenant, &agent)?;
    let mut undeclared = definitions::drop_hold(conn, tenant, replica)?;
    if let Some(declaration) = declaration {
        undeclared.append(&mut definitions::release(conn, tenant, declaration)?);
    }
    Ok(undeclared)
}

/// Takes an agent's clock entry away if no replica bears its name.
fn retire_agent(conn: &Connection, tenant: i64, agent: &str) -> Result<(), StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM replica WHERE tenant = ?1 AND agent = ?2)";
    if conn.prepare_cached(sql)?.query_row(params![tenant, agent], |row| row.get(0))? {
        return Ok(());
    }
    let pushed: Option<i64> = conn
        .prepare_cached("DELETE FROM agent WHERE tenant = ?1 AND name = ?2 RETURNING seq")?
        .query_row(params![tenant, agent], |row| row.get(0))
        .optional()?;
    if pushed.is_none_or(|seq| seq == 0) {
        // Nobody has heard of it.
        return Ok(());
    }
    conn.prepare_cached(
        "INSERT OR REPLACE INTO retired (tenant, name, seq) SELECT id, ?2, seq FROM tenant WHERE id = ?1",
    )?
    .execute(params![tenant, agent])?;
    forget_names(conn, tenant)
}

/// Keeps the list of retired agents short.
fn forget_names(conn: &Connection, tenant: i64) -> Result<(), StoreError> {
    let sql = "SELECT name, seq FROM retired WHERE tenant = ?1 ORDER BY seq DESC LIMIT -1 OFFSET ?2";
    let excess: Vec<(String, i64)> = conn
        .prepare_cached(sql)?
        .query_map(params![tenant, MAX_RETIRED_NAMES], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, seq) in excess {
        conn.prepare_cached("DELETE FROM retired WHERE tenant = ?1 AND name = ?2")?
            .execute(params![tenant, name])?;
        conn.prepare_cached("UPDATE tenant SET forgotten = max(forgotten, ?2) WHERE id = ?1")?
            .execute(params![tenant, seq])?;
    }
    Ok(())
}

/// What is new above a cursor among agents: who pushed, the newest first, and who retired.
pub fn news_since(conn: &Connection, tenant: &Tenant, cursor: Seq) -> Result<ClockNews, StoreError> {
    let is_whole = cursor.cast_signed() <= tenant.forgotten;
    let mut statement = conn.prepare_cached(
        "SELECT name, counter FROM agent WHERE tenant = ?1 AND seq > ?2 ORDER BY seq DESC LIMIT ?3",
    )?;
    let limit = i64::try_from(MAX_CLOCK_ENTRIES).unwrap_or(i64::MAX);
    let since = if is_whole { 0 } else { cursor.cast_signed() };
    let clock = statement.query_map([tenant.id, since, limit], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    let clock = clock.collect::<Result<_, _>>()?;
    if is_whole {
        return Ok((clock, None));
    }
    // Who retires takes no position of its own, so one that retired at the cursor may be news.
    let mut statement =
        conn.prepare_cached("SELECT name FROM retired WHERE tenant = ?1 AND seq >= ?2 ORDER BY seq")?;
    let retired = statement.query_map(params![tenant.id, cursor.cast_signed()], |row| row.get(0))?;
    Ok((clock, Some(retired.collect::<Result<_, _>>()?)))
}
