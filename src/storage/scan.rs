//! Looking at all rows of a table: when it is first seen, made again, or changed with capture out of the way.

use super::capture_triggers::{WALL_CLOCK, log_op};
use super::catalog::{Catalog, Table, quote, quote_list};
use super::change_log::log_entry;
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
use super::local_key::{decode_values, encode_values};
use super::rows::{Entry, column_list, read_row};
use super::settle::Origin;
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
    /// Whether all rows were looked at, and it is looked which that were synced are not there.
    pub is_for_missing: bool,
    after: Value,
}

/// What `_federation_table.scan` ends with while it is looked which rows are not there.
const FOR_MISSING: &str = " missing";

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
        let after = fields.value();
        let now_ms = fields.integer()?;
        let (what, is_for_missing) = match scan.strip_suffix(FOR_MISSING) {
            Some(what) => (what, true),
            None => (scan.as_str(), false),
        };
        let origin = if what == "old" { Origin::Old } else { Origin::Written(now_ms) };
        let missing = match what {
            "again" => Missing::AskFor,
            "changed" => Missing::Delete,
            _ => Missing::None,
        };
        let is_of_columns = what == "renamed";
        Ok(Some(Self { origin, missing, is_of_columns, now_ms, is_for_missing, after }))
    }

    /// The next rows, with their keys. Rows whose key holds a NULL have no identity and are passed over.
    pub fn page(&self, sql: &mut dyn Sql, table: &Table, limit: usize) -> Result<Vec<KeyAndRow>, SqlError> {
        let after = match &self.after {
            Value::Blob(bytes) => Some(decode_values(bytes)?),
            _ => None,
        };
        let keys = quote_list(table.key_columns());
        let width = table.key_columns().len();
        let marks = vec!["?"; width].join(", ");
        let mut conditions: Vec<String> =
            table.key_columns().into_iter().map(|column| format!("{} IS NOT NULL", quote(column))).collect();
        conditions.extend(after.as_ref().map(|_| format!("({keys}) > ({marks})")));
        let mut params: Vec<ValueRef<'_>> = after.iter().flatten().map(ValueRef::from).collect();
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

    /// Remembers up to which row the look has come.
    pub fn advance(sql: &mut dyn Sql, table: &Table, last: &[Value]) -> Result<(), SqlError> {
        sql.execute(
            "UPDATE main._federation_table SET scanned = ? WHERE tbl = ?",
            &[ValueRef::Blob(&encode_values(last)?), table.number.into()],
        )?;
        Ok(())
    }

    /// All rows were looked at. It remains to look which are missing, if that means anything.
    pub fn end_of_rows(&self, sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
        if self.missing == Missing::None {
            return Self::end(sql, table);
        }
        sql.execute(
            "UPDATE main._federation_table SET scan = scan || ?, scanned = NULL WHERE tbl = ?",
            &[FOR_MISSING.into(), table.number.into()],
        )?;
        Ok(())
    }

    fn end(sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
        sql.execute(
            "UPDATE main._federation_table SET scan = NULL, scanned = NULL WHERE tbl = ?",
            &[table.number.into()],
        )?;
        Ok(())
    }

    /// Looks at so many of the rows that were synced, and does with those that are not there what that means. Returns how
    /// many it has looked at, and whether the log has got anything by that.
    pub fn go_on_for_missing(
        &self,
        sql: &mut dyn Sql,
        catalog: &Catalog,
        table: &Table,
        limit: usize,
    ) -> Result<(usize, bool), SqlError> {
        let entries = Entry::after(sql, table, &self.after, limit)?;
        match entries.last() {
            Some(last) => sql.execute(
                "UPDATE main._federation_table SET scanned = ? WHERE tbl = ?",
                &[last.key.as_param(), table.number.into()],
            )?,
            None => return Self::end(sql, table).map(|()| (0, false)),
        };
        let looked_at = entries.len();
        let mut missing = Vec::new();
        for entry in entries {
            if let Some(key) = entry.key.values()?
                && read_row(sql, table, &key)?.is_none()
            {
                missing.push((entry, key));
            }
        }
        match self.missing {
            Missing::None => {}
            Missing::AskFor => missing.into_iter().try_for_each(|(entry, _)| entry.release(sql, table))?,
            Missing::Delete => return Ok((looked_at, self.log_missing(sql, catalog, table, &missing)?)),
        }
        Ok((looked_at, false))
    }

    /// Has rows that were synced and are not there settled as deleted. Returns whether there are any.
    fn log_missing(
        &self,
        sql: &mut dyn Sql,
        catalog: &Catalog,
        table: &Table,
        missing: &[(Entry, Vec<Value>)],
    ) -> Result<bool, SqlError> {
        let before = last_entry(sql)?;
        let op = if table.key_kind() == KeyKind::Number { log_op::DIED } else { log_op::DELETED };
        for (_, key) in missing {
            log_entry(sql, table, op, self.now_ms, key)?;
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
}

/// Has it looked which rows of a table are gone, unless a look at it is under way: the application has deleted them.
pub fn look_for_deleted(sql: &mut dyn Sql, table: i64) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE main._federation_table SET scan = 'changed' || ?, scanned = NULL WHERE tbl = ? AND scan IS NULL",
        &[FOR_MISSING.into(), table.into()],
    )?;
    Ok(())
}

/// Has a look at a table that is under way begin again.
pub fn look_anew(sql: &mut dyn Sql, table: i64) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE main._federation_table SET scan = replace(scan, ?, ''), scanned = NULL \
         WHERE tbl = ? AND scan IS NOT NULL",
        &[FOR_MISSING.into(), table.into()],
    )?;
    Ok(())
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
