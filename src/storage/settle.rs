//! Settling: what the log says may have changed, compared with what was synced, becomes stamped writes.
//!
//! Entries are settled when changes are collected, and again before remote changes are applied: so a write
//! made while a sync was in flight keeps the base and the stamps that its author had seen.

use std::collections::{BTreeMap, HashMap};

use super::capture_triggers::log_op;
use super::catalog::{Catalog, Column, Key, Table};
use super::change_log::{LogEntry, log_entry, read_log};
use super::context::Context;
use super::difference::{Difference, differing};
use super::driver::{Sql, SqlError};
use super::identity::fingerprint;
use super::key_history::follow_keys;
use super::local_key::LocalKey;
use super::outgoing::{natural_id, old_id};
use super::referrers::spoil_unguarded;
use super::renamed_stamps::Meaning;
use super::row_meta::{CellMeta, Pending, RowMeta, Tombstone};
use super::rows::{Entry, Sending, read_row};
use super::ruled::fallback_notice;
use super::table_info::{ForeignKey, OnDelete};
use crate::model::{RowId, Stamp, Value};

/// How a difference came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The application wrote it, at this time (ms since the epoch, by this machine's clock).
    Written(i64),
    /// It was there before the database was first attached.
    Old,
}

/// How a difference came about, and by what.
#[derive(Clone, Debug)]
pub struct Cause {
    /// How.
    pub origin: Origin,
    /// The tables of rows whose deletes have reached the row by a foreign key's clause, by their numbers. A delete is one's
    /// effect if there are any.
    pub effect_of: Vec<i64>,
    /// The last place of the log that names the row.
    pub seq: i64,
}

impl From<Origin> for Cause {
    fn from(origin: Origin) -> Self {
        Self { origin, effect_of: Vec::new(), seq: i64::MAX }
    }
}

/// A row that turned out different.
#[derive(Debug)]
pub struct Changed {
    /// Its bookkeeping, already written back.
    pub entry: Entry,
    /// Its cells, in the order of the table's columns; none if it was deleted.
    pub row: Option<Vec<Value>>,
    /// Whether nothing was known of its key before.
    pub is_new: bool,
}

/// Receives each row that turned out different. Says whether it takes another one in this turn.
pub type OnChanged<'a> =
    &'a mut dyn FnMut(&mut dyn Sql, &mut Context<'_>, &Table, Changed) -> Result<bool, SqlError>;

/// A key that the log names.
struct Touched {
    values: Vec<Value>,
    /// The first entry that names it.
    first: i64,
    /// The last one.
    last: i64,
    at_ms: i64,
    /// What has deleted it last, if that was another row's delete.
    gone_with: Option<i64>,
    /// The tables of rows whose deletes have changed it.
    cut_by: Vec<i64>,
}

impl Touched {
    fn note(&mut self, entry: &LogEntry) {
        (self.last, self.at_ms) = (entry.seq, entry.at_ms);
        match entry.op {
            log_op::DELETED | log_op::DIED => self.gone_with = entry.effect_of,
            _ => self.cut_by.extend(entry.effect_of.filter(|table| !self.cut_by.contains(table))),
        }
    }

    fn cause(&self, is_there: bool) -> Cause {
        let effect_of = if is_there { self.cut_by.clone() } else { self.gone_with.into_iter().collect() };
        Cause { origin: Origin::Written(self.at_ms), effect_of, seq: self.last }
    }
}

/// Settles up to `limit` log entries; what changed is marked as under way in batch `mark` (0: unsent) and
/// handed to `changed`, as long as that takes more. Returns whether the log is empty now.
pub fn settle_log(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    limit: usize,
    mark: u64,
    changed: OnChanged<'_>,
) -> Result<bool, SqlError> {
    let catalog = context.catalog;
    let (is_followed, handed_over) = follow_keys(sql, context, limit, mark, changed)?;
    if !is_followed || handed_over >= limit {
        return Ok(false);
    }
    let limit = limit - handed_over;
    let entries = read_log(sql, catalog, "", &[], limit)?;
    let Some(mut last) = entries.last().map(|entry| entry.seq) else { return Ok(true) };
    let mut is_whole = entries.len() < limit;
    let mut touched: HashMap<(i64, LocalKey), Touched> = HashMap::new();
    let mut order = Vec::new();
    let mut touch = |table: &Table, values: Vec<Value>, entry: &LogEntry| -> Result<(), SqlError> {
        if values.iter().any(|value| matches!(value, Value::Null)) {
            return Ok(());
        }
        let key = LocalKey::of(table, &values)?;
        let slot = touched.entry((table.number, key.clone())).or_insert_with(|| {
            order.push((table.number, key));
            let (first, last, at_ms) = (entry.seq, entry.seq, entry.at_ms);
            Touched { values, first, last, at_ms, gone_with: None, cut_by: Vec::new() }
        });
        slot.note(entry);
        Ok(())
    };
    for entry in &entries {
        let Some(table) = catalog.numbered(entry.table) else { continue };
        let values = entry.key(table);
        if values.iter().any(|value| matches!(value, Value::Null)) {
            context.note_without_key(table);
        }
        touch(table, values, entry)?;
    }
    let mut numbered = NewNumbers::default();
    let mut takes_more = true;
    for place in order {
        let (Some(touched), Some(table)) = (touched.remove(&place), catalog.numbered(place.0)) else {
            continue;
        };
        if !takes_more {
            // What names this row and all behind it stays for the next turn.
            (last, is_whole) = (touched.first - 1, false);
            break;
        }
        let row = read_row(sql, table, &touched.values)?;
        let cause = touched.cause(row.is_some());
        if let Some(change) = settle_row(sql, context, table, place.1, row, &cause, mark)? {
            numbered.note(table, &change, touched.at_ms);
            takes_more = changed(sql, context, table, change)?;
        }
    }
    sql.execute("DELETE FROM main._federation_log WHERE seq <= ?", &[last.into()])?;
    Ok(!numbered.log_references(sql, catalog, mark)? && is_whole)
}

/// Numbers that rows got which the application has made: by table, each with the time.
#[derive(Default)]
struct NewNumbers(BTreeMap<i64, BTreeMap<i64, i64>>);

impl NewNumbers {
    fn note(&mut self, table: &Table, change: &Changed, at_ms: i64) {
        if let (true, LocalKey::Number(number)) = (change.is_new, &change.entry.key) {
            self.0.entry(table.number).or_default().insert(*number, at_ms);
        }
    }

    /// Logs the rows that referred to rows which are gone, by numbers that mean new ones now: SQLite gives the number
    /// of a deleted row again, unless the table is `AUTOINCREMENT`. Says whether there are any.
    fn log_references(self, sql: &mut dyn Sql, catalog: &Catalog, mark: u64) -> Result<bool, SqlError> {
        let mut is_any = false;
        for (table, numbers) in self.0 {
            let Some(parent) = catalog.numbered(table) else { continue };
            for child in spoil_unguarded(sql, catalog, parent, &numbers, mark)? {
                let at_ms = numbers.get(&child.number).copied().unwrap_or_default();
                log_entry(sql, child.table, log_op::TOUCHED, at_ms, &child.key)?;
                is_any = true;
            }
        }
        Ok(is_any)
    }
}

/// Compares one row with its bookkeeping, and writes the difference into it.
pub fn settle_row(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    table: &Table,
    key: LocalKey,
    row: Option<Vec<Value>>,
    cause: &Cause,
    mark: u64,
) -> Result<Option<Changed>, SqlError> {
    let origin = cause.origin;
    let entry = Entry::by_key(sql, table, &key)?;
    let Some(row) = row else {
        return match entry {
            Some(entry) if entry.is_present() => {
                settle_delete(sql, context, table, entry, cause, mark).map(Some)
            }
            _ => Ok(None),
        };
    };
    let is_new = entry.is_none();
    let (mut entry, was) = match entry {
        Some(entry) => (entry, Some(key)),
        None => born(sql, context, table, key, &row, origin)?,
    };
    let whole = !entry.meta.is_alive();
    let mut seen = entry.meta.highest();
    if let (Origin::Written(at_ms), true) = (origin, whole) {
        seen = seen.max(context.deleted_until(at_ms)).max(context.death_before(cause.seq));
    }
    let stamp = match origin {
        Origin::Written(at_ms) => context.stamp(at_ms, seen),
        Origin::Old => Stamp::ZERO,
    };
    let differing = differing(table, &entry.meta, &row, context.stamps.replica.tie_break());
    if differing.is_empty() {
        return Ok(None);
    }
    // What was unsent of the row before goes with it.
    entry.take_up(mark);
    if whole {
        entry.meta.unshared = Some(mark);
    }
    let is_old = origin == Origin::Old;
    let row_base = match &was {
        _ if is_old || table.is_unseen => 0,
        Some(_) => entry.meta.base(context.cursor),
        None => context.base_of_new(sql)?,
    };
    for Difference { at, fingerprint, renamed } in differing {
        let (column, value) = (&table.columns[at], &row[at]);
        let known = entry.meta.cell(column.number).copied();
        // Nobody has told this replica yet what others wrote to a column that was added. Whoever gave its name to another
        // column has seen what that held.
        let is_unseen =
            known.is_none() && !whole && column.over.is_none_or(|it| entry.meta.cell(it).is_none());
        let base = if is_unseen { 0 } else { row_base };
        let is_adjusted = renamed.is_none() && entry.meta.adjust(column, value, (base, mark), whole, is_old);
        let pending = if is_adjusted {
            known.filter(|_| !whole).and_then(|cell| cell.pending)
        } else {
            let is_effect = is_cut(context.catalog, table, column, value, cause);
            Some(Pending { base, mark, is_effect })
        };
        if !(is_adjusted || is_old)
            && let Some(notice) = fallback_notice(&table.name, column, value)
        {
            context.note(notice);
        }
        let stamp = renamed.unwrap_or_else(|| if is_old { stamp } else { Meaning::of(column).write(stamp) });
        entry.meta.put(CellMeta { column: column.number, stamp, fingerprint, pending });
    }
    match was {
        Some(was) => entry.update(sql, table, &was)?,
        None => entry.insert(sql, table)?,
    }
    Ok(Some(Changed { entry, row: Some(row), is_new }))
}

/// Whether a column holds what a foreign key's clause has put there, as a row of the referenced table was deleted.
fn is_cut(catalog: &Catalog, table: &Table, column: &Column, value: &Value, cause: &Cause) -> bool {
    let cuts = |key: &ForeignKey| {
        let is_put = match key.on_delete {
            OnDelete::SetNull => *value == Value::Null,
            OnDelete::SetDefault => fingerprint(value) == column.default,
            OnDelete::Cascade | OnDelete::Refuse => false,
        };
        let is_parent = |parent: &Table| cause.effect_of.contains(&parent.number);
        is_put
            && key.columns.iter().any(|(from, _)| from.eq_ignore_ascii_case(&column.name))
            && catalog.table(&key.parent).is_some_and(is_parent)
    };
    !cause.effect_of.is_empty() && table.foreign_keys.iter().any(cuts)
}

/// Notes that a row is gone.
pub fn settle_delete(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    table: &Table,
    mut entry: Entry,
    cause: &Cause,
    mark: u64,
) -> Result<Changed, SqlError> {
    let Origin::Written(at_ms) = cause.origin else {
        return Err(SqlError::corrupt("a delete older than syncing"));
    };
    entry.take_up(mark);
    let base = if table.is_unseen { 0 } else { entry.meta.base(context.cursor) };
    let pending = Some(Pending { base, mark, is_effect: !cause.effect_of.is_empty() });
    let stamp = context.stamp(at_ms, entry.meta.highest());
    context.last_delete = context.last_delete.max(stamp.hlc);
    entry.meta.deleted = Some(Tombstone { stamp, pending });
    for cell in &mut entry.meta.cells {
        // Its value is gone; the delete speaks for it.
        cell.pending = None;
    }
    // And for what was added and not sent.
    entry.meta.ruled.clear();
    let was = entry.bury();
    entry.update(sql, table, &was)?;
    Ok(Changed { entry, row: None, is_new: false })
}

/// A row that the bookkeeping does not know under this key: a new one, or one that was deleted and is back.
/// With the latter comes the key that its entry still lies under.
fn born(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    table: &Table,
    key: LocalKey,
    row: &[Value],
    origin: Origin,
) -> Result<(Entry, Option<LocalKey>), SqlError> {
    let id = match (&table.key, &key, origin) {
        (Key::Number(_), LocalKey::Number(number), Origin::Old) => old_id(sql, context, table, *number, row)?,
        (Key::Number(_), ..) => RowId((context.mint)()),
        (Key::Natural(positions), ..) => natural_id(sql, context, table, positions, row)?,
    };
    let fresh = |id, key| Entry { key, id, sending: Sending::Unsent, meta: RowMeta::default() };
    Ok(match Entry::by_id(sql, table, id)? {
        None => (fresh(id, key), None),
        Some(mut known) if !known.is_present() && known.meta.united.is_none() => {
            let was = std::mem::replace(&mut known.key, key);
            (known, Some(was))
        }
        // That identity lives on under another key, or is another row's.
        Some(_) => (fresh(RowId((context.mint)()), key), None),
    })
}
