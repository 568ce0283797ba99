//! Merging a batch into the store.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use super::contests::Contests;
use super::derive::Deriver;
use super::dropped;
use super::merger::Merger;
use super::refused;
use super::rules::TenantRules;
use super::session::{Replica, session};
use super::standing::{Settling, Watch, to_be_retried};
use super::tables::{Table, merge_rules};
use super::tenant::Tenant;
use super::weight::StoreLimits;
use crate::model::{ColumnIndex, Hlc, KeyKind, RowChange, RowState, Rule, TableHeader};
use crate::protocol::hub_request::{Caller, PushRequest};
use crate::protocol::limits::MAX_CLOCK_LEAD_MS;
use crate::protocol::message::{Ack, Refusal};
use crate::storage::hub_store::{StoreError, StoreStats};

/// See [`crate::storage::hub_store::HubStore::push`]. Adds to `left` the tables of which it is still to be decided what stands.
pub fn push(
    conn: &Connection,
    stats: &mut StoreStats,
    caller: &Caller,
    request: PushRequest,
    (now_ms, limits): (i64, StoreLimits),
    (rules, left): (&mut Option<TenantRules>, &mut BTreeSet<i64>),
) -> Result<Ack, StoreError> {
    let (mut tenant, replica) = session(conn, caller, request.replica, request.epoch)?;
    let mut ack =
        Ack { n: request.n, conflicts: 0, rejected: Vec::new(), notices: Vec::new(), contests: Vec::new() };
    if !is_next(&replica, &request)? {
        return Ok(ack);
    }
    check_clock(&request, tenant.highest, now_ms)?;

    let (rows_before, weight_before) = (tenant.rows, tenant.weight);
    let only_deletes = only_deletes(&request.body.rows);
    replica.begin_push(conn, &tenant, request.replica, request.counter)?;
    let tables = resolve(conn, &mut tenant, &replica, &request.body.tables, limits)?;
    let mut current = TenantRules::of(conn, tenant.id, rules.take())?;
    let changed_rules = current.changed(conn, tenant.id)?;
    let writer = request.replica.tie_break();
    let contests = Contests::new(conn, tenant.id);
    let deriver = Deriver::new(conn, &mut tenant, &mut current)?;
    let max_row_bytes = limits.row_bytes;
    let watch = Watch::over(conn, deriver.tenant.id, &replica, tables.iter().flatten().map(|it| it.table))?;
    let (touched, watched) = (changed_rules, BTreeSet::new());
    let mut merger = Merger { deriver, writer, max_row_bytes, touched, contests, watch, watched };
    let mut rejected = Vec::new();
    for (position, change) in (0_u32..).zip(request.body.rows) {
        let place = (change.table, change.id);
        let outcome = match tables.get(usize::from(change.table)) {
            Some(Ok(table)) => merger.merge(table, change)?,
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("the row names a table that the batch does not".to_owned()),
        };
        if let Err(reason) = outcome {
            ack.rejected.push((position, reason));
            let header = request.body.tables.get(usize::from(place.0));
            rejected.extend(header.map(|header| (request.n, header.name.clone(), place.1)));
        }
    }
    for collision in &request.body.collisions {
        if let Some(Ok(table)) = tables.get(usize::from(collision.table)) {
            merger.liken(table, collision)?;
        }
    }
    let outcome = merger.finish()?;
    (ack.conflicts, ack.notices, ack.contests) = (outcome.conflicts, outcome.notices, outcome.contests);
    tenant.weight.check(weight_before, tenant.kept_bytes, limits, only_deletes)?;
    *rules = Some(current);
    stats.rows = stats.rows.saturating_sub(rows_before).saturating_add(tenant.rows);
    let mut to_settle = to_be_retried(conn, tenant.id, &replica)?;
    to_settle.extend(&outcome.refuted);
    let mut settling = Settling::new(conn, &mut tenant, rules);
    settling.refuted = outcome.refuted;
    settling.settle(stats, &mut to_settle)?;
    left.append(&mut to_settle);

    if tenant.kept_bytes <= limits.tenant_bytes {
        replica.note_rejected(conn, (&tenant, request.replica), request.counter, rejected)?;
    }
    tenant.save(conn)?;
    conn.prepare_cached("UPDATE replica SET n = ?3, digest = ?4 WHERE tenant = ?1 AND id = ?2")?.execute(
        params![tenant.id, &request.replica.0[..], request.n.cast_signed(), &request.digest.0[..]],
    )?;
    conn.prepare_cached(
        "INSERT INTO agent (tenant, name, counter, seq) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET counter = max(counter, excluded.counter), seq = excluded.seq",
    )?
    .execute(params![
        tenant.id,
        caller.agent,
        request.counter.cast_signed(),
        tenant.seq.cast_signed()
    ])?;
    Ok(ack)
}

fn only_deletes(rows: &[RowChange]) -> bool {
    rows.iter().flat_map(|row| &row.writes).all(|write| write.op.is_delete())
}

/// Whether the batch is the replica's next one. The last one, sent again, is acknowledged again without
/// effect; anything else is refused (I12).
fn is_next(replica: &Replica, request: &PushRequest) -> Result<bool, StoreError> {
    let (last_n, last_digest) = replica.last.unwrap_or((0, crate::model::Digest::ZERO));
    if replica.last == Some((request.n, request.digest)) {
        return Ok(false);
    }
    if last_n.checked_add(1) == Some(request.n) && request.previous == last_digest {
        return Ok(true);
    }
    let message = if request.n == last_n {
        format!("batch {last_n} of this replica was accepted with other content: attach again")
    } else {
        format!("batch {} does not follow batch {last_n}: attach again", request.n)
    };
    refused(Refusal::Stale, message)
}

/// Refuses stamps from too far in the future: they would win over everybody's edits until time caught up. How far is
/// measured from the hub's own time, which no agent's stamp moves; but whoever has seen the highest stamp that is stored
/// stamps one above it.
fn check_clock(request: &PushRequest, highest: Hlc, now_ms: i64) -> Result<(), StoreError> {
    let writes = request.body.rows.iter().flat_map(|row| &row.writes);
    let Some(newest) = writes.map(|write| write.stamp.hlc.ms()).max() else { return Ok(()) };
    let lead_ms = newest.saturating_sub(now_ms.unsigned_abs());
    if lead_ms <= MAX_CLOCK_LEAD_MS || newest <= highest.ms().saturating_add(1) {
        return Ok(());
    }
    refused(
        Refusal::Clock,
        format!(
            "the agent's clock says {newest} ms since 1970, the hub's {now_ms}: {} s ahead, and at most {} are \
             accepted; set the one that is wrong",
            lead_ms / 1000,
            MAX_CLOCK_LEAD_MS / 1000
        ),
    )
}

/// A header of the batch, in the store's terms.
pub struct Resolved {
    /// The table's number.
    pub table: i64,
    key: KeyKind,
    /// Its name.
    pub name: String,
    /// The store's number of each of the header's columns.
    pub columns: Vec<ColumnIndex>,
    /// The names of the store's columns.
    pub names: Vec<String>,
    /// Their merge rules.
    pub rules: Vec<Rule>,
}

/// Finds the tables that a batch names. For one that cannot be used there is the reason.
fn resolve(
    conn: &Connection,
    tenant: &mut Tenant,
    replica: &Replica,
    headers: &[TableHeader],
    limits: StoreLimits,
) -> Result<Vec<Result<Resolved, String>>, StoreError> {
    let mut room = None;
    let resolve_one = |header: &TableHeader| {
        let Some(mut table) = Table::find(conn, tenant.id, &header.name)? else {
            // What it was refused for when it was declared is one reason for all of its rows.
            let known = replica.refused.iter().find(|refused| refused.name == header.name);
            let why = known.map(|refused| refused.reason.clone());
            let is_dropped = dropped::is_dropped(conn, tenant.id, &header.name)?;
            return Ok(Err(why.unwrap_or_else(|| {
                if is_dropped {
                    return "the hub's operator has removed the table: its rows stay here".to_owned();
                }
                format!(
                    "the hub has no table {}: it was not declared, or its declaration exceeds a limit",
                    header.name
                )
            })));
        };
        if let Some(refused) = replica.refused.iter().find(|refused| refused.table == table.id) {
            return Ok(Err(refused.reason.clone()));
        }
        let columns = table.resolve(conn, tenant, header, (&mut room, limits))?;
        Ok(columns.map(|columns| Resolved {
            table: table.id,
            key: table.schema.key,
            rules: merge_rules(&table.schema),
            names: table.schema.columns,
            name: table.schema.name,
            columns,
        }))
    };
    headers.iter().map(resolve_one).collect()
}

/// Puts the store's column numbers in place of the header's; false if the header lacks one.
pub fn renumber(change: &mut RowChange, columns: &[ColumnIndex]) -> bool {
    for column in change.writes.iter_mut().flat_map(|write| write.op.columns_mut()) {
        match columns.get(usize::from(*column)) {
            Some(number) => *column = *number,
            None => return false,
        }
    }
    true
}

/// What a merged row must be to be kept.
pub fn check_row(
    table: &Resolved,
    change: &RowChange,
    state: &RowState,
    max_bytes: usize,
) -> Result<(), String> {
    let numbered = match table.key {
        KeyKind::Number => state.number.is_some() || !state.is_alive(),
        KeyKind::Natural => change.number.is_none(),
    };
    if !numbered {
        let (here, there) = match table.key {
            KeyKind::Number => ("an INTEGER PRIMARY KEY", "another key"),
            KeyKind::Natural => ("a TEXT, BLOB or composite key", "an INTEGER PRIMARY KEY"),
        };
        return Err(format!(
            "table {} was first declared with {here}, and has {there} on this replica: rename one of them",
            table.name
        ));
    }
    let bytes = state.cells.values().map(|cell| 48 + cell.value.heap_bytes()).sum::<usize>();
    if bytes > max_bytes {
        return Err(format!(
            "a row of {} has {bytes} bytes, and the hub takes at most {max_bytes} (maxRowBytes)",
            table.name
        ));
    }
    Ok(())
}
