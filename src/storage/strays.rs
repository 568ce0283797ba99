//! Rows that are in a table although the bookkeeping does not know them: somebody wrote them behind capture's back.
//!
//! They are nobody's but this replica's, so they are captured now, as writes. A sync that sends something anyway looks
//! at a few keys of one table, in their order; one that is idle does not.

use std::collections::HashSet;

use super::capture_triggers::{WALL_CLOCK, log_op};
use super::catalog::{Table, quote, quote_list};
use super::change_log::log_entry;
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
use super::local_key::LocalKey;
use crate::model::Value;

/// Keys that are looked at in one sync.
const KEYS_PER_SYNC: usize = 64;

/// What was found, and where the next look goes on.
#[derive(Debug, Default)]
pub struct Strays {
    /// How many rows were captured.
    pub captured: u64,
    /// The last key that was looked at; none at the end of the table.
    pub last: Option<Vec<Value>>,
}

/// Looks at the rows of a table behind a key, and logs those that nobody knows. The log must be settled.
pub fn capture_strays(
    sql: &mut dyn Sql,
    table: &Table,
    after: Option<&Vec<Value>>,
) -> Result<Strays, SqlError> {
    let keys = keys_behind(sql, table, after)?;
    let mut strays =
        Strays { captured: 0, last: keys.last().filter(|_| keys.len() == KEYS_PER_SYNC).cloned() };
    let known = known(sql, table, &keys)?;
    for key in keys {
        if !known.contains(&LocalKey::of(table, &key)?) {
            let now_ms = wall_clock(sql)?;
            log_entry(sql, table, log_op::TOUCHED, now_ms, &key)?;
            strays.captured += 1;
        }
    }
    Ok(strays)
}

/// The next keys. Rows whose key holds a NULL have no identity.
fn keys_behind(
    sql: &mut dyn Sql,
    table: &Table,
    after: Option<&Vec<Value>>,
) -> Result<Vec<Vec<Value>>, SqlError> {
    let columns = table.key_columns();
    let list = quote_list(columns.iter().copied());
    let mut conditions: Vec<String> =
        columns.iter().map(|column| format!("{} IS NOT NULL", quote(column))).collect();
    if after.is_some() {
        conditions.push(format!("({list}) > ({})", vec!["?"; columns.len()].join(", ")));
    }
    let mut params: Vec<ValueRef<'_>> = after.into_iter().flatten().map(ValueRef::from).collect();
    params.push(integer(KEYS_PER_SYNC as u64)?);
    let statement = format!(
        "SELECT {list} FROM main.{} WHERE {} ORDER BY {list} LIMIT ?",
        quote(&table.name),
        conditions.join(" AND ")
    );
    let mut keys = Vec::new();
    sql.query(&statement, &params, &mut |row| {
        keys.push(row.to_vec());
        Ok(())
    })?;
    Ok(keys)
}

/// Which of these keys the bookkeeping knows.
fn known(sql: &mut dyn Sql, table: &Table, keys: &[Vec<Value>]) -> Result<HashSet<LocalKey>, SqlError> {
    let mut known = HashSet::new();
    let keys: Vec<LocalKey> = keys.iter().map(|key| LocalKey::of(table, key)).collect::<Result<_, _>>()?;
    let mut params: Vec<ValueRef<'_>> = vec![table.number.into()];
    params.extend(keys.iter().map(LocalKey::as_param));
    params.resize(KEYS_PER_SYNC + 1, ValueRef::Null);
    let statement = format!(
        "SELECT k FROM main._federation_row WHERE tbl = ? AND k IN ({})",
        vec!["?"; KEYS_PER_SYNC].join(", ")
    );
    sql.query(&statement, &params, &mut |row| {
        known.insert(LocalKey::read(&mut row[0])?);
        Ok(())
    })?;
    Ok(known)
}

fn wall_clock(sql: &mut dyn Sql) -> Result<i64, SqlError> {
    let row = sql.query_row(&format!("SELECT {WALL_CLOCK}"), &[])?;
    Fields::from(row.unwrap_or_default()).integer()
}
