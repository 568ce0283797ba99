//! What became of keys, in the order of the log: rows whose keys were edited are followed, numbers that were given again
//! are taken from the rows that had them, and what a delete did to rows that referenced its row is told from what
//! statements did to them.
//!
//! A row is looked for where it is now, wherever in the log it is touched; so this comes before everything else.
//!
//! SQLite does what `ON DELETE` clauses say between the triggers that run before a delete and those that run after it. So
//! what the log has between the two is an effect of the delete, if a clause of the table says so. A row that died is handed
//! over before what went with it: the hub knows of the cause when it hears of the effect.

use std::collections::{BTreeMap, HashSet};

use super::capture_triggers::log_op;
use super::catalog::{Catalog, Table, as_number};
use super::change_log::{LogEntry, key_columns, log_entry, read_log};
use super::context::Context;
use super::driver::{Sql, SqlError, ValueRef};
use super::local_key::LocalKey;
use super::referrers::{spoil, spoil_all};
use super::rows::{Entry, read_columns};
use super::settle::{Cause, Changed, OnChanged, Origin, settle_delete};
use super::table_info::OnDelete;
use crate::model::Value;

/// Follows up to `limit` entries of the log that are about keys. Returns whether no other is left, and how many rows
/// were handed over.
pub fn follow_keys(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    limit: usize,
    mark: u64,
    changed: OnChanged<'_>,
) -> Result<(bool, usize), SqlError> {
    // An edit of a key is two entries.
    let room = limit * 2;
    let entries = read_log(sql, context.catalog, "WHERE op IN (1, 2, 5, 8)", &[], room)?;
    if entries.is_empty() {
        return Ok((true, 0));
    }
    let mut is_all = entries.len() < room;
    let (mut given_again, mut handed_over, mut has_effects) = (GivenAgain::default(), 0, false);
    let (mut last, mut at) = (None, 0);
    let moved = moved_tables(sql)?;
    while let Some(entry) = entries.get(at) {
        if entry.op == log_op::MOVED_FROM && at + 1 == entries.len() && !is_all {
            // Its other half comes with the next turn.
            break;
        }
        let gone = match entry.op {
            log_op::DIED => {
                let effect_of = if has_effects { effect_of(sql, entry)? } else { entry.effect_of };
                if moved.contains(&entry.table) || is_there(sql, context.catalog, entry)? {
                    die(sql, context, entry, effect_of, mark, &mut given_again)?
                } else {
                    // It is settled when it is its turn: what was written before it gets earlier stamps.
                    None
                }
            }
            log_op::DELETING => match end_of(sql, context.catalog, entry)? {
                Some(end) => {
                    has_effects |= mark_effects(sql, context.catalog, entry, &end)?;
                    die(sql, context, &end, end.effect_of, mark, &mut given_again)?
                }
                None => None,
            },
            log_op::MOVED_FROM => {
                at += 1;
                match entries.get(at) {
                    Some(to) => follow(sql, context, (entry, to), mark)?,
                    None => None,
                }
            }
            _ => None,
        };
        last = entries.get(at).map(|entry| entry.seq);
        at += 1;
        if let (Some(gone), Some(table)) = (gone, context.catalog.numbered(entry.table)) {
            handed_over += 1;
            if !changed(sql, context, table, gone)? || handed_over >= limit {
                is_all = is_all && at == entries.len();
                break;
            }
        }
    }
    is_all = is_all && at >= entries.len();
    given_again.log_references(sql, context.catalog)?;
    if let Some(last) = last {
        sql.execute(
            "UPDATE main._federation_log SET op = ? WHERE op IN (1, 2, 5, 8) AND op IN (1, 2) AND seq <= ?",
            &[log_op::FOLLOWED.into(), last.into()],
        )?;
        sql.execute(
            "UPDATE main._federation_log SET op = 3 WHERE op IN (1, 2, 5, 8) AND op = 5 AND seq <= ?",
            &[last.into()],
        )?;
        sql.execute(
            "DELETE FROM main._federation_log WHERE op IN (1, 2, 5, 8) AND op = 8 AND seq <= ?",
            &[last.into()],
        )?;
    }
    Ok((is_all, handed_over))
}

/// So many numbers are looked for one by one, which an index may serve; more of them in one look at all rows.
const FEW: usize = 16;

/// Numbers of rows that are gone, and that other rows have now: by table, each with the time.
#[derive(Default)]
struct GivenAgain(BTreeMap<i64, BTreeMap<i64, i64>>);

impl GivenAgain {
    /// Logs the rows that hold such a number: it is another reference than before, although it is the same number.
    fn log_references(self, sql: &mut dyn Sql, catalog: &Catalog) -> Result<(), SqlError> {
        for (table, numbers) in self.0 {
            let Some(parent) = catalog.numbered(table) else { continue };
            let mut children = Vec::new();
            if numbers.len() <= FEW {
                for number in numbers.keys() {
                    children.extend(spoil(sql, catalog, parent, *number)?);
                }
            } else {
                children = spoil_all(sql, catalog, parent, &numbers)?;
            }
            for child in children {
                let at_ms = numbers.get(&child.number).copied().unwrap_or_default();
                log_entry(sql, child.table, log_op::TOUCHED, at_ms, &child.key)?;
            }
        }
        Ok(())
    }
}

/// The tables of which the log has rows with edited keys.
fn moved_tables(sql: &mut dyn Sql) -> Result<HashSet<i64>, SqlError> {
    let mut tables = HashSet::new();
    let statement = "SELECT DISTINCT tbl FROM main._federation_log WHERE op IN (1, 2, 5, 8) AND op IN (1, 2)";
    sql.query(statement, &[], &mut |row| {
        tables.extend(as_number(&row[0]));
        Ok(())
    })?;
    Ok(tables)
}

/// Whether a row has the key of this entry now.
fn is_there(sql: &mut dyn Sql, catalog: &Catalog, entry: &LogEntry) -> Result<bool, SqlError> {
    let Some(table) = catalog.numbered(entry.table) else { return Ok(false) };
    Ok(read_columns(sql, table, "1", &entry.key(table))?.is_some())
}

/// The end of a delete that has begun; none if it came to nothing.
fn end_of(sql: &mut dyn Sql, catalog: &Catalog, begun: &LogEntry) -> Result<Option<LogEntry>, SqlError> {
    let mut params: Vec<ValueRef<'_>> = vec![begun.seq.into(), begun.table.into()];
    params.extend(begun.columns.iter().map(ValueRef::from));
    let width = begun.columns.len();
    let condition = format!(
        "WHERE seq > ? AND tbl = ? AND op IN (3, 5) AND ({}) IS ({})",
        key_columns("", width),
        vec!["?"; width].join(", ")
    );
    Ok(read_log(sql, catalog, &condition, &params, 1)?.pop())
}

/// Notes what a delete did to rows that referenced its row. Says whether there was room for anything.
fn mark_effects(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    begun: &LogEntry,
    end: &LogEntry,
) -> Result<bool, SqlError> {
    let Some(table) = catalog.numbered(begun.table).filter(|_| end.seq > begun.seq + 1) else {
        return Ok(false);
    };
    let over = |is_meant: fn(OnDelete) -> bool| {
        let links = table.children.iter().filter(|link| is_meant(link.on_delete));
        let numbers =
            links.filter_map(|link| catalog.table(&link.child)).map(|child| child.number.to_string());
        numbers.collect::<Vec<_>>().join(", ")
    };
    let gone = over(|clause| clause == OnDelete::Cascade);
    let cut = over(|clause| matches!(clause, OnDelete::SetNull | OnDelete::SetDefault));
    sql.execute(
        &format!(
            "UPDATE main._federation_log SET effect_of = ? WHERE seq > ? AND seq < ? \
             AND (op IN (3, 5) AND tbl IN ({gone}) OR op = 0 AND tbl IN ({cut}))"
        ),
        &[table.number.into(), begun.seq.into(), end.seq.into()],
    )?;
    Ok(true)
}

/// What was noted of an entry since it was read.
fn effect_of(sql: &mut dyn Sql, entry: &LogEntry) -> Result<Option<i64>, SqlError> {
    let row =
        sql.query_row("SELECT effect_of FROM main._federation_log WHERE seq = ?", &[entry.seq.into()])?;
    Ok(row.and_then(|row| as_number(row.first()?)))
}

/// A row was deleted. If it had a number, whatever has that number now is another row; not so if it was taken away by an
/// INSERT of the same number, for which SQLite fires this trigger or not, as it was told. Under a natural key it is the same
/// row again.
fn die(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    died: &LogEntry,
    effect_of: Option<i64>,
    mark: u64,
    given_again: &mut GivenAgain,
) -> Result<Option<Changed>, SqlError> {
    let Some(table) = context.catalog.numbered(died.table) else { return Ok(None) };
    let values = died.key(table);
    if values.contains(&Value::Null) {
        return Ok(None);
    }
    let key = LocalKey::of(table, &values)?;
    let Some(entry) = Entry::by_key(sql, table, &key)?.filter(Entry::is_present) else { return Ok(None) };
    let is_there = read_columns(sql, table, "1", &values)?.is_some();
    if let LocalKey::Number(number) = key {
        if is_replaced(sql, died, number)? {
            return Ok(None);
        }
        if is_there {
            given_again.0.entry(table.number).or_default().insert(number, died.at_ms);
        }
    } else if is_there {
        return Ok(None);
    }
    let effect_of = effect_of.into_iter().collect();
    let cause = Cause { origin: Origin::Written(died.at_ms), effect_of, seq: died.seq };
    let last_delete = context.last_delete;
    let gone = settle_delete(sql, context, table, entry, &cause, mark)?;
    // What was made before it need not beat it.
    let at = std::mem::replace(&mut context.last_delete, last_delete);
    context.note_death(died.seq, gone.entry.meta.deleted.map_or(at, |delete| delete.stamp.hlc));
    Ok(Some(gone))
}

/// Whether an INSERT has taken a row away to put another one under its number: nothing happened to the number between the
/// beginning of that INSERT and the delete, nor between the delete and the end of the INSERT.
fn is_replaced(sql: &mut dyn Sql, died: &LogEntry, number: i64) -> Result<bool, SqlError> {
    let (table, seq) = (died.table.into(), died.seq.into());
    let begun = sql.query_row(
        "SELECT max(seq) FROM main._federation_log WHERE op = 6 AND tbl = ? AND k0 = ? AND seq < ?",
        &[table, number.into(), seq],
    )?;
    let Some([Value::Integer(begun)]) = begun.as_deref() else { return Ok(false) };
    let before = sql.query_row(
        "SELECT seq FROM main._federation_log WHERE seq > ? AND tbl = ? AND k0 = ? AND op <> 8 ORDER BY seq LIMIT 1",
        &[(*begun).into(), table, number.into()],
    )?;
    let after = sql.query_row(
        "SELECT op FROM main._federation_log WHERE seq > ? AND tbl = ? AND (k0 = ? OR op = 7 AND k0 = -1) \
         ORDER BY seq LIMIT 1",
        &[seq, table, number.into()],
    )?;
    let is = |found: Option<Vec<Value>>, wanted: i64| found == Some(vec![Value::Integer(wanted)]);
    Ok(is(before, died.seq) && is(after, log_op::TOUCHED))
}

/// Follows the edit of a key. A row that had the new key must be gone, or SQLite had refused the edit; it comes back as
/// deleted.
fn follow(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    (from, to): (&LogEntry, &LogEntry),
    mark: u64,
) -> Result<Option<Changed>, SqlError> {
    let Some(table) = context.catalog.numbered(from.table) else { return Ok(None) };
    let at_ms = from.at_ms;
    let (from, to) = (from.key(table), to.key(table));
    if from.iter().chain(&to).any(|value| matches!(value, Value::Null)) {
        // A key that holds a NULL identifies nothing: the row leaves, or comes anew.
        return Ok(None);
    }
    let (from, to) = (LocalKey::of(table, &from)?, LocalKey::of(table, &to)?);
    let numbers = [from.clone(), to.clone()];
    let replaced = follow_move(sql, context, table, &from, to, at_ms, mark)?;
    for number in numbers {
        let LocalKey::Number(number) = number else { continue };
        for child in spoil(sql, context.catalog, table, number)? {
            log_entry(sql, child.table, log_op::TOUCHED, at_ms, &child.key)?;
        }
    }
    Ok(replaced)
}

/// A row's key was edited: its bookkeeping follows, so that it stays the same row.
fn follow_move(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    table: &Table,
    from: &LocalKey,
    to: LocalKey,
    at_ms: i64,
    mark: u64,
) -> Result<Option<Changed>, SqlError> {
    if *from == to {
        return Ok(None);
    }
    let Some(mut entry) = Entry::by_key(sql, table, from)? else { return Ok(None) };
    let replaced = match Entry::by_key(sql, table, &to)? {
        Some(occupant) => {
            let cause = Origin::Written(at_ms).into();
            Some(settle_delete(sql, context, table, occupant, &cause, mark)?)
        }
        None => None,
    };
    entry.key = to;
    entry.update(sql, table, from)?;
    Ok(replaced)
}
