//! Merging a batch into the store.

use rusqlite::{Connection, OptionalExtension, params};

use super::tables::Table;
use super::{Replica, Tenant, damaged, refused, session};
use crate::model::{ColumnIndex, Hlc, KeyKind, Op, RowChange, RowState, Seq, TableHeader};
use crate::protocol::hub_request::{Caller, PushRequest};
use crate::protocol::limits::{MAX_CLOCK_LEAD_MS, MAX_ROW_BYTES};
use crate::protocol::message::{Ack, Refusal};
use crate::storage::hub_store::{StoreError, StoreStats, hub_time_ms};
use crate::storage::row_codec;

/// See [`crate::storage::hub_store::HubStore::push`].
pub fn push(
    conn: &Connection,
    stats: &mut StoreStats,
    caller: &Caller,
    request: PushRequest,
    now_ms: i64,
) -> Result<Ack, StoreError> {
    let (mut tenant, replica) = session(conn, caller, request.replica, request.epoch)?;
    let mut ack = Ack { n: request.n, conflicts: 0, rejected: Vec::new(), notices: Vec::new() };
    if !is_next(&replica, &request)? {
        return Ok(ack);
    }
    check_clock(&request, tenant.highest, now_ms)?;

    let rows_before = tenant.rows;
    let tables = resolve(conn, &mut tenant, &request.body.tables)?;
    let mut merger = Merger { conn, tenant: &mut tenant, writer: request.replica.tie_break(), conflicts: 0 };
    for (position, change) in (0_u32..).zip(request.body.rows) {
        let outcome = match tables.get(usize::from(change.table)) {
            Some(Ok(table)) => merger.merge(table, change)?,
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("the row names a table that the batch does not".to_owned()),
        };
        if let Err(reason) = outcome {
            ack.rejected.push((position, reason));
        }
    }
    ack.conflicts = merger.conflicts;

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
    stats.rows = stats.rows.saturating_sub(rows_before).saturating_add(tenant.rows);
    Ok(ack)
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

/// Refuses stamps from too far in the future: they would win over everybody's edits until time caught up.
fn check_clock(request: &PushRequest, highest: Hlc, now_ms: i64) -> Result<(), StoreError> {
    let writes = request.body.rows.iter().flat_map(|row| &row.writes);
    let Some(newest) = writes.map(|write| write.stamp.hlc).max() else { return Ok(()) };
    let hub_ms = hub_time_ms(now_ms, highest);
    let lead_ms = newest.ms().saturating_sub(hub_ms.unsigned_abs());
    if lead_ms <= MAX_CLOCK_LEAD_MS {
        return Ok(());
    }
    refused(
        Refusal::Clock,
        format!(
            "the agent's clock says {} ms since 1970, the hub's {hub_ms}: {} s ahead, and at most {} are \
             accepted; set the one that is wrong",
            newest.ms(),
            lead_ms / 1000,
            MAX_CLOCK_LEAD_MS / 1000
        ),
    )
}

/// A header of the batch, in the store's terms.
struct Resolved {
    table: i64,
    key: KeyKind,
    name: String,
    /// The store's number of each of the header's columns.
    columns: Vec<ColumnIndex>,
}

/// Finds the tables that a batch names. For one that cannot be used there is the reason.
fn resolve(
    conn: &Connection,
    tenant: &mut Tenant,
    headers: &[TableHeader],
) -> Result<Vec<Result<Resolved, String>>, StoreError> {
    let resolve_one = |header: &TableHeader| {
        let Some(mut table) = Table::find(conn, tenant.id, &header.name)? else {
            return Ok(Err(format!(
                "the hub has no table {}: it was not declared, or its declaration exceeds a limit",
                header.name
            )));
        };
        let columns = table.resolve(conn, tenant, header)?;
        Ok(columns.map(|columns| Resolved {
            table: table.id,
            key: table.schema.key,
            name: table.schema.name,
            columns,
        }))
    };
    headers.iter().map(resolve_one).collect()
}

/// Merges rows one after the other, each at a position of its own.
struct Merger<'a> {
    conn: &'a Connection,
    tenant: &'a mut Tenant,
    writer: u64,
    conflicts: u32,
}

impl Merger<'_> {
    /// Merges one row. The inner error is the reason for which the row is rejected.
    fn merge(&mut self, table: &Resolved, mut change: RowChange) -> Result<Result<(), String>, StoreError> {
        if !renumber(&mut change, &table.columns) {
            return Ok(Err("the row names a column that its table's header does not".to_owned()));
        }
        let stored = self.load(table, &change)?;
        let (row, mut state) = stored.map_or((None, RowState::default()), |(row, state)| (Some(row), state));
        let was_alive = state.is_alive();
        let merged = state.merge(change.number, &change.writes, self.writer, self.tenant.seq + 1);
        if let Err(reason) = check_row(table, &change, &state) {
            return Ok(Err(reason));
        }
        self.conflicts = self.conflicts.saturating_add(merged.conflicts);
        if merged.changed {
            self.store(table, row, &change, &state)?;
            let highest = change.writes.iter().map(|write| write.stamp.hlc).max();
            self.tenant.seq += 1;
            self.tenant.highest = self.tenant.highest.max(highest.unwrap_or_default());
            self.tenant.rows += u64::from(state.is_alive());
            self.tenant.rows = self.tenant.rows.saturating_sub(u64::from(was_alive));
        }
        Ok(Ok(()))
    }

    fn load(&self, table: &Resolved, change: &RowChange) -> Result<Option<(i64, RowState)>, StoreError> {
        let sql = "SELECT rowid, body FROM row_state WHERE tenant = ?1 AND tbl = ?2 AND id = ?3";
        let found = self
            .conn
            .prepare_cached(sql)?
            .query_row(params![self.tenant.id, table.table, &change.id.0[..]], |row| {
                Ok((row.get::<_, i64>(0)?, row_codec::decode(row.get_ref(1)?.as_blob()?)))
            })
            .optional()?;
        match found {
            None => Ok(None),
            Some((row, Ok(state))) => Ok(Some((row, state))),
            Some((_, Err(_))) => Err(damaged("a row")),
        }
    }

    fn store(
        &self,
        table: &Resolved,
        row: Option<i64>,
        change: &RowChange,
        state: &RowState,
    ) -> Result<(), StoreError> {
        let body = row_codec::encode(state).map_err(|error| StoreError::Failed(error.to_string()))?;
        let (writer, other_seq) = authorship(state);
        let seq = state.seq().cast_signed();
        let (writer, other_seq) = (writer.cast_signed(), other_seq.cast_signed());
        if let Some(row) = row {
            let sql = "UPDATE row_state SET seq = ?3, writer = ?4, other_seq = ?5, body = ?6
                       WHERE rowid = ?2 AND tenant = ?1";
            let params = params![self.tenant.id, row, seq, writer, other_seq, body];
            self.conn.prepare_cached(sql)?.execute(params)?;
        } else {
            let sql = "INSERT INTO row_state (tenant, tbl, id, seq, writer, other_seq, body)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let id = &change.id.0[..];
            let params = params![self.tenant.id, table.table, id, seq, writer, other_seq, body];
            self.conn.prepare_cached(sql)?.execute(params)?;
        }
        Ok(())
    }
}

/// Puts the store's column numbers in place of the header's; false if the header lacks one.
fn renumber(change: &mut RowChange, columns: &[ColumnIndex]) -> bool {
    let sets = change.writes.iter_mut().filter_map(|write| match &mut write.op {
        Op::Set(cells) => Some(cells),
        Op::Delete => None,
    });
    for (column, _) in sets.flatten() {
        match columns.get(usize::from(*column)) {
            Some(number) => *column = *number,
            None => return false,
        }
    }
    true
}

/// What a merged row must be to be kept.
fn check_row(table: &Resolved, change: &RowChange, state: &RowState) -> Result<(), String> {
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
    if bytes > MAX_ROW_BYTES {
        return Err(format!("the row has {bytes} bytes, and the hub takes at most {MAX_ROW_BYTES}"));
    }
    Ok(())
}

/// Whose the row's last change was, and the last position that someone else must be told of: what the index
/// by position keeps.
fn authorship(state: &RowState) -> (u64, Seq) {
    let cells = state.cells.values().map(|cell| (cell.seq, cell.writer));
    let registers = cells.chain(state.deleted.iter().map(|delete| (delete.seq, delete.writer)));
    let last = registers.clone().max().map_or(0, |(_, writer)| writer);
    let others = registers.filter(|(_, writer)| *writer != last).map(|(seq, _)| seq).max();
    (last, others.unwrap_or(0).max(state.whole_since))
}
