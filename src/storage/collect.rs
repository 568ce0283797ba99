//! Collecting: one bounded turn that turns local changes into a batch for the hub.
//!
//! Settling and composing are one transaction, so that a stamp always travels with the value that it was
//! made for, and a batch's composition is stored before its first byte leaves (I12).

use super::bookkeeping::{ReplicaState, SentBatch, remember_batch, sent_batches};
use super::capture_triggers::log_op;
use super::catalog::Table;
use super::change_log::log_entry;
use super::composer::Composer;
use super::context::Context;
use super::driver::{Sql, SqlError};
use super::local_key::LocalKey;
use super::prerequisites::add_prerequisites;
use super::quarantine::ask_again;
use super::refused_rows::{Places, refuse};
use super::rows::{Entry, Sending, read_row};
use super::scan::{Scan, has_null_key};
use super::settle::{Changed, settle_log, settle_row};
use super::turn_time::TurnTime;
use crate::model::Value;
use crate::protocol::frame::MAX_FRAME_BYTES;
use crate::protocol::message::Batch;

/// How much one turn of the database's thread does: about 10 ms of it (I7).
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    /// Rows looked at.
    pub rows: usize,
    /// Bytes composed.
    pub bytes: usize,
    /// The largest row that is sent, in bytes of its values.
    pub row_bytes: usize,
    /// How long it works on rows.
    pub time: TurnTime,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self { rows: 250, bytes: 1 << 20, row_bytes: MAX_ROW_BYTES, time: TurnTime::ENDLESS }
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
    /// Where these are here.
    pub places: Places,
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
    let mut composer = Composer::new(mark, state.acked, limits);
    // What changed now may reference what waits to be sent, and goes after it: whoever vanishes between two batches
    // leaves no row that waits for one which nobody else has.
    let is_behind = is_scanning(sql)? || !Entry::unsent_tables(sql, context.catalog)?.is_empty();
    let mut settled = 0;
    let mut compose = |sql: &mut dyn Sql, context: &mut Context<'_>, table: &Table, changed: Changed| {
        settled += 1;
        if !is_behind {
            composer.add(sql, context, table, &changed.entry, changed.row)?;
        }
        Ok(composer.bytes < limits.bytes && !composer.limits.time.is_over())
    };
    let taken_up = if is_behind { 0 } else { mark };
    let mut drained = settle_log(sql, context, limits.rows, taken_up, &mut compose)?;
    let is_settled = drained;
    drained = drained && composer.bytes < limits.bytes;
    if drained && is_behind {
        drained = catch_up(sql, context, &mut composer, settled)?;
    }
    if !drained {
        add_prerequisites(sql, context, &mut composer)?;
    }
    if drained && state.cursor == state.resume {
        composer.add_collisions(sql, context.catalog, state.cursor)?;
    }
    let mut collected =
        Collected { more: !drained, rows: composer.body.rows.len() as u64, ..Collected::default() };
    collected.rejected = std::mem::take(&mut composer.rejected);
    collected.places = std::mem::take(&mut composer.rows);
    refuse(sql, &composer.refused)?;
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
    if context.record(state, is_settled) {
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
    if !is_scanning(sql)? {
        return Ok(());
    }
    let (mut look, mut composer) = (Look::default(), Composer::new(0, 0, limits));
    for table in &context.catalog.tables {
        if !look.go_on(sql, context, &mut composer, table)? {
            break;
        }
    }
    Ok(())
}

/// Whether there are tables whose rows have not all been looked at.
fn is_scanning(sql: &mut dyn Sql) -> Result<bool, SqlError> {
    Ok(sql.query_row("SELECT 1 FROM main._federation_table WHERE scan IS NOT NULL", &[])?.is_some())
}

/// Adds what has waited, settled or not yet looked at: parents, as far as there is an order of tables, before what
/// references them. Returns whether nothing is left.
fn catch_up(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    composer: &mut Composer,
    looked_at: usize,
) -> Result<bool, SqlError> {
    let catalog = context.catalog;
    let unsent = Entry::unsent_tables(sql, catalog)?;
    let mut look = Look { looked_at, is_logged: false };
    let is_scanning = is_scanning(sql)?;
    for table in &catalog.tables {
        if unsent.contains(&table.number) && !add_unsent(sql, context, composer, table)? {
            return Ok(false);
        }
        if is_scanning && !look.go_on(sql, context, composer, table)? {
            return Ok(false);
        }
    }
    Ok(!look.is_logged)
}

/// A look at the rows of tables whose rows have not all been looked at, as far as a turn goes.
#[derive(Default)]
struct Look {
    /// Rows that the turn has looked at.
    looked_at: usize,
    /// Whether something was logged, which is to be settled.
    is_logged: bool,
}

impl Look {
    /// Goes on with a table. Returns whether it has no other rows.
    fn go_on(
        &mut self,
        sql: &mut dyn Sql,
        context: &mut Context<'_>,
        composer: &mut Composer,
        table: &Table,
    ) -> Result<bool, SqlError> {
        while let Some(scan) = Scan::of(sql, table)? {
            let limit = composer.limits.rows.saturating_sub(self.looked_at);
            if limit == 0 || composer.is_full() {
                return Ok(false);
            }
            if scan.is_for_missing {
                let (looked_at, is_logged) = scan.go_on_for_missing(sql, context.catalog, table, limit)?;
                self.looked_at += looked_at;
                self.is_logged |= is_logged;
                continue;
            }
            let page = scan.page(sql, table, limit)?;
            if page.is_empty() && composer.mark == 0 {
                // The turn that composes ends the look, and tells of what it found.
                break;
            }
            let mut last = None;
            for (key, row) in page {
                if last.is_some() && composer.limits.time.is_over() {
                    break;
                }
                self.looked_at += 1;
                let local = LocalKey::of(table, &key)?;
                let cause = scan.origin.into();
                let found = settle_row(sql, context, table, local, Some(row), &cause, composer.mark)?;
                if let Some(changed) = found {
                    composer.add(sql, context, table, &changed.entry, changed.row)?;
                }
                last = Some(key);
            }
            match last {
                Some(last) => Scan::advance(sql, table, &last)?,
                None => self.end_of_rows(sql, table, &scan)?,
            }
        }
        Ok(true)
    }

    /// All rows of a table were looked at.
    fn end_of_rows(&mut self, sql: &mut dyn Sql, table: &Table, scan: &Scan) -> Result<(), SqlError> {
        if has_null_key(sql, table)? {
            // Whoever settles the log tells of it.
            let key = vec![Value::Null; table.key_columns().len()];
            log_entry(sql, table, log_op::TOUCHED, scan.now_ms, &key)?;
            self.is_logged = true;
        }
        if scan.is_of_columns {
            // What was told before its column was looked at was passed over.
            ask_again(sql, table)?;
        }
        scan.end_of_rows(sql, table)
    }
}

/// Adds rows of a table that were settled before and are not under way. Returns whether none is left.
fn add_unsent(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    composer: &mut Composer,
    table: &Table,
) -> Result<bool, SqlError> {
    let room = composer.limits.rows.saturating_sub(composer.body.rows.len());
    let entries = Entry::unsent(sql, table, i64::try_from(room).unwrap_or(i64::MAX))?;
    let drained = entries.len() < room;
    for entry in entries {
        if composer.is_full() {
            return Ok(false);
        }
        add_entry(sql, context, composer, table, entry)?;
    }
    Ok(drained)
}

/// Adds a row that was settled before and is not under way.
pub fn add_entry(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    composer: &mut Composer,
    table: &Table,
    mut entry: Entry,
) -> Result<(), SqlError> {
    let was = entry.key.clone();
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
    entry.update(sql, table, &was)
}
