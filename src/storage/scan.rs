//! Looking at all rows of a table: when it is first seen, made again, or changed with capture out of the way.

use super::capture_triggers::{WALL_CLOCK, log_op};
use super::catalog::{Catalog, Table, quote, quote_list};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
use super::local_key::{decode_values, encode_values};
use super::rows::{Entry, column_list};
use super::settle::{Origin, log_entry};
use super::table_info::OnDelete;
use crate::model::{KeyKind, Value};

/// The values of a row's key columns, and of its travelling columns.
pub type KeyAndRow = (Vec<Value>, Vec<Value>);

/// What it means that a row is not there which was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is none: the table is looked at for the first time.
    None,
    /// It went with its table, as that was dropped: the hub is asked for it.
    AskFor,
    /// A migration has deleted it.
    Delete,
}

/// A first look at a table's rows, page by page, in the order of the key.
pub struct Scan {
    /// How its rows came about.
    pub origin: Origin,
    /// What rows are that were synced and are not there.
    pub missing: Missing,
    /// Whether it is for the sake of columns that were renamed, dropped, or made anew.
    pub is_of_columns: bool,
    /// This machine's clock, in ms since the epoch.
    pub now_ms: i64,
    after: Option<Vec<Value>>,
}

impl Scan {
    /// The look at a table that is under way, if one is.
    pub fn of(sql: &mut dyn Sql, table: &Table) -> Result<Option<Self>, SqlError> {
        let row = sql.query_row(
            &format!(
                "SELECT scan, scanned, {WALL_CLOCK} FROM main._federation_table WHERE tbl = ? AND scan IS NOT NULL"
            ),
            &[table.number.into()],
        )?;
        let Some(row) = row else { return Ok(None) };
        let mut fields = Fields::from(row);
        let scan = fields.text()?;
        let after = match fields.value() {
            Value::Blob(bytes) => Some(decode_values(&bytes)?),
            _ => None,
        };
        let now_ms = fields.integer()?;
        let origin = if scan == "old" { Origin::Old } else { Origin::Written(now_ms) };
        let missing = match scan.as_str() {
            "again" => Missing::AskFor,
            "changed" => Missing::Delete,
            _ => Missing::None,
        };
        let is_of_columns = scan == "renamed";
        Ok(Some(Self { origin, missing, is_of_columns, now_ms, after }))
    }

    /// The next rows, with their keys. Rows whose key holds a NULL have no identity and are passed over.
    pub fn page(&self, sql: &mut dyn Sql, table: &Table, limit: usize) -> Result<Vec<KeyAndRow>, SqlError> {
        let keys = quote_list(table.key_columns());
        let width = table.key_columns().len();
        let marks = vec!["?"; width].join(", ");
        let mut conditions: Vec<String> =
            table.key_columns().into_iter().map(|column| format!("{} IS NOT NULL", quote(column))).collect();
        conditions.extend(self.after.as_ref().map(|_| format!("({keys}) > ({marks})")));
        let mut params: Vec<ValueRef<'_>> = self.after.iter().flatten().map(ValueRef::from).collect();
        params.push(integer(limit as u64)?);
        let mut page = Vec::new();
        let statement = format!(
            "SELECT {keys}, {} FROM main.{} WHERE {} ORDER BY {keys} LIMIT ?",
            column_list(table),
            quote(&table.name),
            conditions.join(" AND ")
        );
        sql.query(&statement, &params, &mut |row| {
            let (key, cells) = row.split_at(width);
            page.push((key.to_vec(), cells.to_vec()));
            Ok(())
        })?;
        Ok(page)
    }

    /// Remembers how far the look has come; an empty page ends it.
    pub fn advance(sql: &mut dyn Sql, table: &Table, last: Option<Vec<Value>>) -> Result<(), SqlError> {
        match last {
            Some(key) => sql.execute(
                "UPDATE main._federation_table SET scanned = ? WHERE tbl = ?",
                &[ValueRef::Blob(&encode_values(&key)?), table.number.into()],
            )?,
            None => sql.execute(
                "UPDATE main._federation_table SET scan = NULL, scanned = NULL WHERE tbl = ?",
                &[table.number.into()],
            )?,
        };
        Ok(())
    }
}

/// Whether there is a row whose key holds a NULL, which SQLite allows: nothing tells such rows apart.
pub fn has_null_key(sql: &mut dyn Sql, table: &Table) -> Result<bool, SqlError> {
    if table.key_kind() == KeyKind::Number {
        return Ok(false);
    }
    let nulls: Vec<String> =
        table.key_columns().into_iter().map(|column| format!("{} IS NULL", quote(column))).collect();
    let statement = format!("SELECT 1 FROM main.{} WHERE {} LIMIT 1", quote(&table.name), nulls.join(" OR "));
    Ok(sql.query_row(&statement, &[])?.is_some())
}

fn last_entry(sql: &mut dyn Sql) -> Result<i64, SqlError> {
    let row = sql.query_row("SELECT coalesce(max(seq), 0) FROM main._federation_log", &[])?;
    Fields::from(row.unwrap_or_default()).integer()
}

/// Has rows that were synced and are not there settled as deleted. Returns whether there are any.
pub fn log_missing(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    table: &Table,
    now_ms: i64,
) -> Result<bool, SqlError> {
    let missing = Entry::missing(sql, table)?;
    let before = last_entry(sql)?;
    let op = if table.key_kind() == KeyKind::Number { log_op::DIED } else { log_op::DELETED };
    for entry in &missing {
        let Some(key) = entry.key.values()? else { continue };
        log_entry(sql, table, op, now_ms, &key)?;
    }
    // Nobody noted how they went. One whose parent is missing as well has gone with it, as far as anybody can tell.
    let over = table.parents.iter().find(|link| link.on_delete == OnDelete::Cascade);
    if let Some(parent) = over.and_then(|link| catalog.table(&link.parent)) {
        sql.execute(
            "UPDATE main._federation_log SET effect_of = ? WHERE tbl = ? AND op IN (3, 5) AND seq > ?",
            &[parent.number.into(), table.number.into(), before.into()],
        )?;
    }
    Ok(!missing.is_empty())
}
