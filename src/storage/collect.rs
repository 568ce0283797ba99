//! Collecting: one bounded turn that turns local changes into a batch for the hub.
//!
//! Settling and composing are one transaction, so that a stamp always travels with the value that it was
//! made for, and a batch's composition is stored before its first byte leaves (I12).

use std::collections::HashMap;

use super::bookkeeping::{ReplicaState, SentBatch, remember_batch, sent_batches};
use super::capture_triggers::log_op;
use super::catalog::{Catalog, Table};
use super::collisions::{self, Found};
use super::context::Context;
use super::driver::{Sql, SqlError};
use super::outgoing::outgoing;
use super::rows::{Entry, LocalKey, Sending, read_row};
use super::scan::{Missing, Scan, has_null_key, log_missing};
use super::settle::{Changed, log_entry, settle_log, settle_row};
use crate::model::{ColumnIndex, Op, RowChange, Seq, TableHeader, Value, Write};
use crate::protocol::frame::MAX_FRAME_BYTES;
use crate::protocol::message::{Batch, BatchBody, Collision};

/// How much one turn of the database's thread does: about 10 ms of it (I7).
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    /// Rows looked at.
    pub rows: usize,
    /// Bytes composed.
    pub bytes: usize,
    /// The largest row that is sent, in bytes of its values.
    pub row_bytes: usize,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self { rows: 250, bytes: 1 << 20, row_bytes: MAX_ROW_BYTES }
    }
}

impl TurnLimits {
    /// For a hub that reads no larger frames than this, in bytes. A batch that is nearly full has room for a row of the
    /// largest size.
    pub fn for_frames_of(max_frame_bytes: u32) -> Self {
        let (max_frame_bytes, usual) = (max_frame_bytes as usize, Self::default());
        Self {
            bytes: usual.bytes.min(max_frame_bytes / 4),
            row_bytes: usual.row_bytes.min(max_frame_bytes.saturating_sub(1 << 20)),
            ..usual
        }
    }
}

/// The largest row that is sent, in bytes of its values: a frame holds it with room to spare.
pub const MAX_ROW_BYTES: usize = MAX_FRAME_BYTES - (1 << 20);

/// What a turn found.
#[derive(Debug, Default)]
pub struct Collected {
    /// A batch to send, its bookkeeping stored.
    pub batch: Option<(SentBatch, Batch)>,
    /// The rows in it.
    pub rows: u64,
    /// Whether another turn would find more.
    pub more: bool,
    /// Rows that cannot be sent, each with the reason.
    pub rejected: Vec<String>,
    /// What people should know besides.
    pub notices: Vec<String>,
}

/// Collects one batch, within the transaction that is open.
pub fn collect(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    state: &mut ReplicaState,
    limits: TurnLimits,
) -> Result<Collected, SqlError> {
    let sent = sent_batches(sql)?.last().copied();
    let mark = sent.map_or(state.acked, |batch| batch.mark).max(state.acked) + 1;
    let mut composer = Composer::new(mark, state.acked, limits.row_bytes);
    let mut compose = |sql: &mut dyn Sql, context: &mut Context<'_>, table: &Table, changed: Changed| {
        composer.add(sql, context, table, &changed.entry, changed.row)
    };
    let mut drained = settle_log(sql, context, limits.rows, mark, &mut compose)?;
    drained = drained && composer.bytes < limits.bytes;
    if drained {
        drained = scan_tables(sql, context, &mut composer, limits)?;
    }
    if drained {
        drained = add_unsent(sql, context, &mut composer, limits)?;
    }
    if drained && state.cursor == state.resume {
        composer.add_collisions(sql, context.catalog, state.cursor)?;
    }
    let mut collected =
        Collected { more: !drained, rows: composer.body.rows.len() as u64, ..Collected::default() };
    collected.rejected = std::mem::take(&mut composer.rejected);
    collected.notices = std::mem::take(&mut context.notices);
    if !composer.body.rows.is_empty() || !composer.body.collisions.is_empty() {
        let previous = sent.map_or(state.acked_digest, |batch| batch.digest);
        let body = rmp_serde::to_vec(&composer.body)
            .map_err(|error| SqlError::corrupt(format!("cannot encode a batch: {error}")))?;
        let batch = Batch { n: state.n(mark), previous, body };
        let sent = SentBatch { mark, digest: batch.digest(state.replica) };
        remember_batch(sql, sent)?;
        collected.batch = Some((sent, batch));
    }
    if context.highest > state.highest {
        state.highest = context.highest;
        state.save(sql)?;
    }
    Ok(collected)
}

/// Goes on with tables whose rows have not all been looked at, and composes nothing: what is found is unsent.
pub fn look_at_old_rows(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    limits: TurnLimits,
) -> Result<(), SqlError> {
    scan_tables(sql, context, &mut Composer::new(0, 0, limits.row_bytes), limits).map(|_| ())
}

/// Gathers the rows of a batch.
struct Composer {
    mark: u64,
    /// The mark of the last acknowledged batch.
    acked: u64,
    max_row_bytes: usize,
    body: BatchBody,
    places: HashMap<i64, u16>,
    bytes: usize,
    rejected: Vec<String>,
}

impl Composer {
    fn new(mark: u64, acked: u64, max_row_bytes: usize) -> Self {
        Self {
            mark,
            acked,
            max_row_bytes,
            body: BatchBody::default(),
            places: HashMap::new(),
            bytes: 0,
            rejected: Vec::new(),
        }
    }

    /// Adds what of a row is in this batch.
    fn add(
        &mut self,
        sql: &mut dyn Sql,
        context: &mut Context<'_>,
        table: &Table,
        entry: &Entry,
        row: Option<Vec<Value>>,
    ) -> Result<(), SqlError> {
        let mut change = RowChange {
            table: self.place(table)?,
            id: entry.id,
            number: match entry.key {
                LocalKey::Number(number) => Some(number),
                _ => None,
            },
            is_new: entry.meta.is_new_to_hub(self.acked),
            writes: Vec::new(),
        };
        if let Some(deleted) = entry.meta.deleted
            && let Some(pending) = deleted.pending.filter(|pending| pending.mark == self.mark)
        {
            change.writes.push(Write { stamp: deleted.stamp, base: pending.base, op: Op::Delete });
        }
        if let Some(row) = row {
            self.add_cells(sql, context, table, entry, &row, &mut change.writes)?;
            self.add_adjustments(table, entry, &mut change.writes);
        }
        let bytes = change.heap_bytes();
        if bytes > self.max_row_bytes {
            self.rejected.push(format!(
                "a row of {} is not shared: its {bytes} bytes exceed the limit of {}",
                table.name, self.max_row_bytes
            ));
        } else if !change.writes.is_empty() {
            self.bytes += bytes;
            self.body.rows.push(change);
        }
        Ok(())
    }

    fn add_cells(
        &self,
        sql: &mut dyn Sql,
        context: &mut Context<'_>,
        table: &Table,
        entry: &Entry,
        row: &[Value],
        writes: &mut Vec<Write>,
    ) -> Result<(), SqlError> {
        for (at, column) in table.columns.iter().enumerate() {
            let index = ColumnIndex::try_from(at)
                .map_err(|_| SqlError::corrupt(format!("{} has too many columns", table.name)))?;
            let Some(cell) = entry.meta.cell(column.number) else { continue };
            let Some(pending) = cell.pending.filter(|pending| pending.mark == self.mark) else { continue };
            let value = outgoing(sql, context, table, row, at)?;
            let same = |write: &&mut Write| write.stamp == cell.stamp && write.base == pending.base;
            match writes.iter_mut().find(same).map(|write| &mut write.op) {
                Some(Op::Set(cells)) => cells.push((index, value)),
                _ => writes.push(Write {
                    stamp: cell.stamp,
                    base: pending.base,
                    op: Op::Set(vec![(index, value)]),
                }),
            }
        }
        Ok(())
    }

    /// Adds what this replica did to cells whose rule asks for that.
    fn add_adjustments(&self, table: &Table, entry: &Entry, writes: &mut Vec<Write>) {
        for (column, pending) in entry.meta.adjustments(self.mark) {
            let at = table.columns.iter().position(|own| own.number == column);
            let (Some(at), Some(cell)) =
                (at.and_then(|at| ColumnIndex::try_from(at).ok()), entry.meta.cell(column))
            else {
                continue;
            };
            let op = Op::Adjust(vec![(at, pending.what.clone())]);
            writes.push(Write { stamp: cell.stamp, base: pending.base, op });
        }
    }

    fn place(&mut self, table: &Table) -> Result<u16, SqlError> {
        if let Some(place) = self.places.get(&table.number) {
            return Ok(*place);
        }
        let place = u16::try_from(self.body.tables.len())
            .map_err(|_| SqlError::corrupt("more tables than a batch can name"))?;
        let columns = table.columns.iter().map(|column| column.name.clone()).collect();
        self.body.tables.push(TableHeader { name: table.name.clone(), columns });
        self.places.insert(table.number, place);
        Ok(place)
    }

    fn add_collisions(&mut self, sql: &mut dyn Sql, catalog: &Catalog, base: Seq) -> Result<(), SqlError> {
        for Found { table, rows, index, .. } in collisions::take(sql, catalog)? {
            let Some(table) = catalog.numbered(table) else { continue };
            let table = self.place(table)?;
            self.body.collisions.push(Collision { table, index, rows, base });
        }
        Ok(())
    }

    fn is_full(&self, limits: TurnLimits) -> bool {
        self.body.rows.len() >= limits.rows || self.bytes >= limits.bytes
    }
}

/// Goes on with tables whose rows have not all been looked at. Returns whether none is left.
fn scan_tables(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    composer: &mut Composer,
    limits: TurnLimits,
) -> Result<bool, SqlError> {
    if sql.query_row("SELECT 1 FROM _federation_table WHERE scan IS NOT NULL", &[])?.is_none() {
        return Ok(true);
    }
    let catalog = context.catalog;
    let (mut looked_at, mut is_logged) = (0, false);
    for table in &catalog.tables {
        while let Some(scan) = Scan::of(sql, table)? {
            if looked_at >= limits.rows || composer.is_full(limits) {
                return Ok(false);
            }
            let page = scan.page(sql, table, limits.rows - looked_at)?;
            looked_at += page.len();
            let last = page.last().map(|(key, _)| key.clone());
            if last.is_none() && composer.mark == 0 {
                // The turn that composes ends the look, and tells of what it found.
                break;
            }
            if last.is_none() {
                if has_null_key(sql, table)? {
                    // Whoever settles the log tells of it.
                    let key = vec![Value::Null; table.key_columns().len()];
                    log_entry(sql, table, log_op::TOUCHED, scan.now_ms, &key)?;
                    is_logged = true;
                }
                match scan.missing {
                    Missing::None => {}
                    Missing::AskFor => Entry::release_missing(sql, table)?,
                    Missing::Delete => is_logged |= log_missing(sql, table, scan.now_ms)?,
                }
            }
            for (key, row) in page {
                let local = LocalKey::of(table, &key)?;
                let found = settle_row(sql, context, table, local, Some(row), scan.origin, composer.mark)?;
                if let Some(changed) = found {
                    composer.add(sql, context, table, &changed.entry, changed.row)?;
                }
            }
            Scan::advance(sql, table, last)?;
        }
    }
    Ok(!is_logged)
}

/// Adds rows that were settled before and are not under way. Returns whether none is left.
fn add_unsent(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    composer: &mut Composer,
    limits: TurnLimits,
) -> Result<bool, SqlError> {
    let room = limits.rows.saturating_sub(composer.body.rows.len());
    let entries = Entry::unsent(sql, context.catalog, i64::try_from(room).unwrap_or(i64::MAX))?;
    let drained = entries.len() < room;
    for (table, mut entry) in entries {
        if composer.is_full(limits) {
            return Ok(false);
        }
        let was = entry.key.clone();
        let Some(table) = context.catalog.numbered(table) else {
            continue;
        };
        entry.take_up(composer.mark);
        let row = match entry.key.values()? {
            Some(key) => read_row(sql, table, &key)?,
            None => None,
        };
        let before = (composer.body.rows.len(), composer.rejected.len());
        composer.add(sql, context, table, &entry, row)?;
        if before == (composer.body.rows.len(), composer.rejected.len()) {
            // Nothing of it is left to send: there will be no acknowledgement to wait for.
            entry.sending = Sending::Clean;
        }
        entry.update(sql, table, &was)?;
    }
    Ok(drained)
}
