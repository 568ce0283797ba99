//! What an agent that may only read has written: it stays, and is told of.

use super::bookkeeping::probe;
use super::collect::{MAX_ROW_BYTES, TurnLimits, look_at_old_rows};
use super::driver::{Sql, SqlError};
use super::replica::{CachedCatalog, Mint, Setting, context, settle_all};
use super::row_meta::RowMeta;
use super::rows::Entry;
use super::transaction::{Purpose, transaction};
use super::turn_time::TurnTime;
use crate::model::Hlc;

/// Unsent rows of a table that are looked at, beginning with those to be offered again.
const MAX_ROWS: i64 = 1_000;

/// Composes nothing.
pub const NOTHING: TurnLimits =
    TurnLimits { rows: 0, bytes: 0, row_bytes: MAX_ROW_BYTES, time: TurnTime::ENDLESS };

/// Whether something was written here that is not sent. Rows that were there before the first sync do not count:
/// nobody wrote them for others, unless `counts_old` says that they would be sent.
pub fn held_back_turn(
    sql: &mut dyn Sql,
    cached: &CachedCatalog,
    setting: Setting<'_>,
    mint: &mut Mint,
    counts_old: bool,
) -> Result<bool, SqlError> {
    transaction(sql, Purpose::Record, |sql| {
        let probe = probe(sql)?;
        let mut state = probe.state;
        setting.claim.check(state.lease.as_ref())?;
        if probe.schema_version != cached.schema_version {
            // Somebody has changed the schema just now: the next sync knows it.
            return Ok(false);
        }
        let mut context = context(&cached.catalog, &state, setting.clock, mint);
        settle_all(sql, &mut context)?;
        look_at_old_rows(sql, &mut context, TurnLimits::default())?;
        if context.record(&mut state, true) {
            state.save(sql)?;
        }
        let unsent = Entry::unsent_tables(sql, &cached.catalog)?;
        for table in cached.catalog.tables.iter().filter(|table| unsent.contains(&table.number)) {
            let unsent = Entry::unsent(sql, table, MAX_ROWS)?;
            if unsent.iter().any(|entry| counts_old || is_written(&entry.meta)) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

fn is_written(meta: &RowMeta) -> bool {
    let is_set = meta.cells.iter().any(|cell| cell.pending.is_some() && cell.stamp.hlc > Hlc::ZERO);
    let is_deleted = meta.deleted.is_some_and(|deleted| deleted.pending.is_some());
    is_set || is_deleted || meta.adjustments(0).next().is_some()
}
