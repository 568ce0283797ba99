//! The log to which capture appends: which rows may have changed, by their keys.
//!
//! A key has a column of the log for each of its own. The log is made with room for most keys, and gets more as a table with
//! a longer key is first shared.

use super::catalog::{Catalog, Table, as_number};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
use crate::model::Value;

/// The columns for keys that the log is made with.
pub const FIRST_KEY_COLUMNS: usize = 4;

/// The log's columns for a key of so many; `of` is what stands before each.
pub fn key_columns(of: &str, width: usize) -> String {
    (0..width).map(|at| format!("{of}k{at}")).collect::<Vec<_>>().join(", ")
}

/// Sees to it that the log has room for the keys of these tables.
pub fn make_room(sql: &mut dyn Sql, catalog: &Catalog) -> Result<(), SqlError> {
    let width = catalog.key_width();
    if width <= FIRST_KEY_COLUMNS {
        return Ok(());
    }
    let statement =
        "SELECT count(*) FROM pragma_table_info('_federation_log', 'main') WHERE name GLOB 'k[0-9]*'";
    let row = sql.query_row(statement, &[])?;
    let there = usize::try_from(Fields::from(row.unwrap_or_default()).integer()?).unwrap_or_default();
    for at in there..width {
        sql.run(&format!("ALTER TABLE main._federation_log ADD COLUMN k{at}"))?;
    }
    Ok(())
}

/// Adds an entry to the log, as capture does; `op` is one of [`log_op`].
pub fn log_entry(
    sql: &mut dyn Sql,
    table: &Table,
    op: i64,
    at_ms: i64,
    key: &[Value],
) -> Result<(), SqlError> {
    let mut params = vec![table.number.into(), op.into(), at_ms.into()];
    params.extend(key.iter().map(ValueRef::from));
    let statement = format!(
        "INSERT INTO main._federation_log(tbl, op, at, {}) VALUES(?, ?, ?{})",
        key_columns("", key.len()),
        ", ?".repeat(key.len())
    );
    sql.execute(&statement, &params)?;
    Ok(())
}

/// An entry of the log.
pub struct LogEntry {
    /// Its place.
    pub seq: i64,
    /// The number of the table.
    pub table: i64,
    /// One of [`log_op`].
    pub op: i64,
    /// When, in ms since the epoch, by this machine's clock.
    pub at_ms: i64,
    /// The table of a row whose delete has done this.
    pub effect_of: Option<i64>,
    /// The columns of the key, and NULLs behind them.
    pub columns: Vec<Value>,
}

impl LogEntry {
    /// The key that it names.
    pub fn key(&self, table: &Table) -> Vec<Value> {
        self.columns[..table.key_columns().len().min(self.columns.len())].to_vec()
    }
}

/// The first entries, of those that a condition selects.
pub fn read_log(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    condition: &str,
    params: &[ValueRef<'_>],
    limit: usize,
) -> Result<Vec<LogEntry>, SqlError> {
    let mut entries = Vec::new();
    let statement = format!(
        "SELECT seq, tbl, op, at, effect_of, {} FROM main._federation_log {condition} ORDER BY seq LIMIT ?",
        key_columns("", catalog.key_width())
    );
    let mut params = params.to_vec();
    params.push(integer(limit as u64)?);
    sql.query(&statement, &params, &mut |row| {
        let mut fields = Fields::of(row);
        let (seq, table) = (fields.integer()?, fields.integer()?);
        let (op, at_ms) = (fields.integer()?, fields.integer()?);
        let effect_of = as_number(&fields.value());
        entries.push(LogEntry { seq, table, op, at_ms, effect_of, columns: fields.rest() });
        Ok(())
    })?;
    Ok(entries)
}
