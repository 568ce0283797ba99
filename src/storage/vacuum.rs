//! Tables without a PRIMARY KEY: their rows are found by a hidden rowid, which `VACUUM` may change.
//!
//! A row of a table of our own, likewise without a key, tells whether that has happened. `VACUUM` keeps the rows
//! in order; so rows and bookkeeping are matched by what they hold, and what is left over by where it stands.

use std::collections::HashMap;

use super::capture_triggers::{WALL_CLOCK, log_op};
use super::catalog::{Catalog, Table, as_number, quote};
use super::change_log::log_entry;
use super::difference::last_known;
use super::driver::{Sql, SqlError, ValueRef};
use super::local_key::LocalKey;
use super::rows::{Entry, column_list, fingerprints};
use super::scan::look_anew;
use crate::model::Value;

/// The tables for bookkeeping: a row that `VACUUM` moves, since the row before it is missing.
pub const SENTINEL: [&str; 2] = [
    "CREATE TABLE main._federation_vacuum(x)",
    "INSERT INTO main._federation_vacuum(rowid, x) VALUES(2, NULL)",
];

/// Finds the rows of tables without a key again, if there was a `VACUUM`. The catalog's tables have their numbers.
pub fn follow(sql: &mut dyn Sql, catalog: &Catalog) -> Result<(), SqlError> {
    let mut keyless = catalog.tables.iter().filter(|table| table.is_keyless()).peekable();
    if keyless.peek().is_none() {
        return Ok(());
    }
    let place = sql.query_row("SELECT rowid FROM main._federation_vacuum", &[])?;
    if matches!(place.as_deref(), Some([Value::Integer(2)])) {
        return Ok(());
    }
    for table in keyless {
        rematch(sql, table)?;
    }
    sql.execute("UPDATE main._federation_vacuum SET rowid = 2", &[])?;
    Ok(())
}

/// What a row holds, by its fingerprints.
type Content = Vec<u64>;

/// A row of a table, or the bookkeeping of one.
struct Placed {
    number: i64,
    content: Content,
}

fn rematch(sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
    let rows = rows(sql, table)?;
    let (known, others) = known(sql, table)?;
    let pairs = pair(&known, &rows);
    let at_ms = last_write(sql, table)?;
    sql.execute("DELETE FROM main._federation_log WHERE tbl = ?", &[table.number.into()])?;
    // Out of each other's way first.
    sql.execute(
        "UPDATE main._federation_row SET k = 'v' || k WHERE tbl = ? AND typeof(k) = 'integer'",
        &[table.number.into()],
    )?;
    let highest = rows.iter().chain(&known).map(|placed| placed.number).chain(others.iter().copied()).max();
    let mut free = highest.unwrap_or(0);
    let mut place = |sql: &mut dyn Sql, was: i64, now: Option<i64>| {
        let now = now.unwrap_or_else(|| {
            free = free.saturating_add(1);
            free
        });
        let was = format!("v{was}");
        let params = [now.into(), table.number.into(), ValueRef::Text(&was)];
        sql.execute("UPDATE main._federation_row SET k = ? WHERE tbl = ? AND k = ?", &params).map(|_| now)
    };
    for (entry, row) in known.iter().zip(&pairs) {
        let row = row.map(|at| &rows[at]);
        let number = place(sql, entry.number, row.map(|row| row.number))?;
        match row {
            Some(row) if row.content == entry.content => {}
            Some(_) => log_entry(sql, table, log_op::TOUCHED, at_ms, &[Value::Integer(number)])?,
            None => log_entry(sql, table, log_op::DIED, at_ms, &[Value::Integer(number)])?,
        }
    }
    for number in others {
        place(sql, number, None)?;
    }
    for (at, row) in rows.iter().enumerate() {
        if !pairs.contains(&Some(at)) {
            log_entry(sql, table, log_op::TOUCHED, at_ms, &[Value::Integer(row.number)])?;
        }
    }
    look_anew(sql, table.number)
}

/// When the table was last written, as far as that is not synced; else now.
fn last_write(sql: &mut dyn Sql, table: &Table) -> Result<i64, SqlError> {
    let statement =
        format!("SELECT coalesce((SELECT max(at) FROM main._federation_log WHERE tbl = ?), {WALL_CLOCK})");
    let row = sql.query_row(&statement, &[table.number.into()])?;
    row.and_then(|row| as_number(&row[0])).ok_or_else(|| SqlError::corrupt("no time"))
}

/// The table's rows, in order.
fn rows(sql: &mut dyn Sql, table: &Table) -> Result<Vec<Placed>, SqlError> {
    let mut rows = Vec::new();
    let key = quote(table.key_columns()[0]);
    let statement =
        format!("SELECT {key}, {} FROM main.{} ORDER BY {key}", column_list(table), quote(&table.name));
    sql.query(&statement, &[], &mut |row| {
        let content = fingerprints(table, &row[1..]).map(|(_, fingerprint)| fingerprint).collect();
        let number = as_number(&row[0]).ok_or_else(|| SqlError::corrupt("a rowid that is no integer"))?;
        rows.push(Placed { number, content });
        Ok(())
    })?;
    Ok(rows)
}

/// What is known of the rows that were there, in order; and the numbers of others, which were given away.
fn known(sql: &mut dyn Sql, table: &Table) -> Result<(Vec<Placed>, Vec<i64>), SqlError> {
    let (mut known, mut others) = (Vec::new(), Vec::new());
    for entry in Entry::all(sql, table)? {
        let LocalKey::Number(number) = entry.key else { continue };
        if entry.is_present() {
            let content = table.columns.iter().map(|column| last_known(&entry.meta, column)).collect();
            known.push(Placed { number, content });
        } else {
            others.push(number);
        }
    }
    known.sort_by_key(|placed| placed.number);
    Ok((known, others))
}

/// For each row that is known, the one that it is now.
fn pair(known: &[Placed], rows: &[Placed]) -> Vec<Option<usize>> {
    let mut pairs: Vec<Option<usize>> = vec![None; known.len()];
    let mut alike: HashMap<&Content, Vec<usize>> = HashMap::new();
    for (at, row) in rows.iter().enumerate().rev() {
        alike.entry(&row.content).or_default().push(at);
    }
    for (at, entry) in known.iter().enumerate() {
        pairs[at] = alike.get_mut(&entry.content).and_then(Vec::pop);
    }
    // What stands between the same two rows, and is as many, has been edited.
    let mut taken: Vec<bool> = vec![false; rows.len()];
    for at in pairs.iter().flatten() {
        taken[*at] = true;
    }
    let mut start = 0;
    while start < known.len() {
        let end =
            pairs[start..].iter().position(Option::is_some).map_or(known.len(), |length| start + length);
        let first = start.checked_sub(1).and_then(|before| pairs[before]).map_or(0, |at| at + 1);
        let left: Vec<usize> = (first..rows.len()).take_while(|&at| !taken[at]).collect();
        if left.len() == end - start {
            for (place, at) in (start..end).zip(left) {
                pairs[place] = Some(at);
                taken[at] = true;
            }
        }
        start = end + 1;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(contents: &[u64]) -> Vec<Placed> {
        contents.iter().zip(1..).map(|(&content, number)| Placed { number, content: vec![content] }).collect()
    }

    #[test]
    fn rows_are_found_by_what_they_hold_then_by_where_they_stand() {
        for (known, rows, expected) in [
            (&[1, 2, 3][..], &[1, 2, 3][..], &[Some(0), Some(1), Some(2)][..]),
            (&[1, 2, 3], &[1, 3], &[Some(0), None, Some(1)]),
            (&[1, 3], &[0, 1, 2, 3], &[Some(1), Some(3)]),
            (&[7, 7, 1, 7], &[7, 7, 1], &[Some(0), Some(1), Some(2), None]),
            // The second was edited; of the last two, one is gone and the other edited: nobody knows which.
            (&[1, 2, 3, 4, 5], &[1, 9, 3, 8], &[Some(0), Some(1), Some(2), None, None]),
            (&[1, 2], &[8, 9], &[Some(0), Some(1)]),
            (&[], &[1], &[]),
        ] {
            assert_eq!(pair(&placed(known), &placed(rows)), expected, "{known:?} {rows:?}");
        }
    }
}
