//! Capture: triggers that note which rows may have changed.
//!
//! A trigger appends a table, a key and a time to one log, and nothing else. *What* changed is found when
//! the log is read, by comparing the row with the fingerprints of its last synced state. So a trigger names
//! no column but those of the key (which SQLite lets nobody drop), the application's `DROP COLUMN` goes
//! through, a value that was merely assigned again is no change, and there is no limit to the columns.
//! The triggers themselves are in `capture_triggers`.

use std::collections::HashMap;

use super::bookkeeping::PREFIX;
use super::capture_triggers::{log_op, trigger_name, trigger_texts};
use super::catalog::{Catalog, Table, quote};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
use super::known_columns::KnownColumns;
use super::renamed_tables;
use super::vacuum;
use crate::model::Seq;

/// How the rows that a table holds when it is first seen are taken (I5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// The database is attached for the first time: its rows are older than syncing.
    Old,
    /// The table appeared between two syncs: its rows are writes.
    New,
    /// The table was made here from the tenant's schema, and is empty.
    Made,
}

/// Reads the catalog, and brings numbers, columns and triggers of the bookkeeping up to it. Runs no DDL
/// when nothing changed. Once something was pulled (up to `resume`), the past of what is new is asked for.
pub fn refresh(sql: &mut dyn Sql, discovery: Discovery, resume: Seq) -> Result<Catalog, SqlError> {
    let mut catalog = Catalog::read(sql)?;
    let mut known = known_tables(sql)?;
    let mut triggers = installed_triggers(sql)?;
    catalog.dropped = renamed_tables::follow(sql, &catalog, &mut known, &triggers, resume)?;
    for table in &mut catalog.tables {
        let wants_past = resume > 0 && discovery != Discovery::Made;
        match known.remove(&table.name.to_ascii_lowercase()) {
            Some(registered) => {
                let insert = triggers.get(&trigger_name(registered.number, "insert"));
                // It was dropped and made again, or rebuilt: its triggers went with it, or with what it was.
                let is_rebuilt =
                    insert.is_none_or(|trigger| !trigger.table.eq_ignore_ascii_case(&table.name));
                adopt(sql, table, registered, is_rebuilt, wants_past)?;
                if is_rebuilt {
                    forget_touched(sql, table.number)?;
                    rescan(sql, table.number, resume > 0)?;
                }
            }
            None => register(sql, table, discovery, wants_past)?,
        }
        for (name, text) in trigger_texts(table) {
            match triggers.remove(&name) {
                Some(installed) if installed.text == text => continue,
                Some(_) => sql.run(&format!("DROP TRIGGER main.{}", quote(&name)))?,
                None => {}
            }
            sql.run(&text)?;
        }
    }
    for name in triggers.keys() {
        sql.run(&format!("DROP TRIGGER main.{}", quote(name)))?;
    }
    vacuum::follow(sql, &catalog)?;
    catalog.dropped.extend(known.into_keys());
    Ok(catalog)
}

/// A row of `_federation_table`.
pub struct KnownTable {
    /// The table's number.
    pub number: i64,
    columns: KnownColumns,
}

/// The tables that the bookkeeping knows, by their names in lower case.
fn known_tables(sql: &mut dyn Sql) -> Result<HashMap<String, KnownTable>, SqlError> {
    let mut known = HashMap::new();
    sql.query("SELECT name, tbl, columns FROM _federation_table", &[], &mut |row| {
        let mut fields = Fields::of(row);
        let (name, number) = (fields.text()?, fields.integer()?);
        let columns = serde_json::from_str(&fields.text()?)
            .map_err(|error| SqlError::corrupt(format!("columns of {name}: {error}")))?;
        known.insert(name.to_ascii_lowercase(), KnownTable { number, columns });
        Ok(())
    })?;
    Ok(known)
}

/// A capture trigger that is there.
pub struct InstalledTrigger {
    /// The table that it is on.
    pub table: String,
    text: String,
}

/// The capture triggers that are there, by their names.
pub fn installed_triggers(sql: &mut dyn Sql) -> Result<HashMap<String, InstalledTrigger>, SqlError> {
    let mut triggers = HashMap::new();
    sql.query(
        "SELECT name, tbl_name, sql FROM main.sqlite_master WHERE type = 'trigger' AND substr(name, 1, ?) = ?",
        &[integer(PREFIX.len() as u64)?, PREFIX.into()],
        &mut |row| {
            let mut fields = Fields::of(row);
            let name = fields.text()?;
            triggers.insert(name, InstalledTrigger { table: fields.text()?, text: fields.text()? });
            Ok(())
        },
    )?;
    Ok(triggers)
}

/// Numbers a table that the bookkeeping does not know, and its columns.
fn register(
    sql: &mut dyn Sql,
    table: &mut Table,
    discovery: Discovery,
    wants_past: bool,
) -> Result<(), SqlError> {
    let mut columns = KnownColumns::default();
    columns.follow(&names(table), false);
    let scan = match discovery {
        Discovery::Old => ValueRef::Text("old"),
        Discovery::New => ValueRef::Text("new"),
        Discovery::Made => ValueRef::Null,
    };
    sql.execute(
        "INSERT INTO _federation_table(name, columns, scan, refresh) VALUES(?, ?, ?, ?)",
        &[
            table.name.as_str().into(),
            columns_json(&columns)?.as_str().into(),
            scan,
            i64::from(wants_past).into(),
        ],
    )?;
    let number =
        sql.query_row("SELECT tbl FROM _federation_table WHERE name = ?", &[table.name.as_str().into()])?;
    table.number = Fields::from(number.unwrap_or_default()).integer()?;
    number_columns(table, &columns)
}

/// Takes over the numbers of a table that the bookkeeping knows; columns that are new to it get new ones,
/// and their past is asked for.
fn adopt(
    sql: &mut dyn Sql,
    table: &mut Table,
    registered: KnownTable,
    is_rebuilt: bool,
    wants_past: bool,
) -> Result<(), SqlError> {
    table.number = registered.number;
    let mut columns = registered.columns;
    let found = columns.follow(&names(table), is_rebuilt);
    if found.changed {
        sql.execute(
            "UPDATE _federation_table SET columns = ?, refresh = max(refresh, ?) WHERE tbl = ?",
            &[
                columns_json(&columns)?.as_str().into(),
                i64::from(wants_past && found.added).into(),
                registered.number.into(),
            ],
        )?;
    }
    if found.renamed {
        // What the column holds becomes cells of the new name, with the stamps that they have.
        sql.execute(
            "UPDATE _federation_table SET scan = 'renamed', scanned = NULL WHERE tbl = ? AND scan IS NULL",
            &[registered.number.into()],
        )?;
    }
    number_columns(table, &columns)
}

fn names(table: &Table) -> Vec<&str> {
    table.columns.iter().map(|column| column.name.as_str()).collect()
}

fn number_columns(table: &mut Table, known: &KnownColumns) -> Result<(), SqlError> {
    for (place, column) in table.columns.iter_mut().enumerate() {
        column.number = known
            .number(place)
            .ok_or_else(|| SqlError::corrupt(format!("column {} has no number", column.name)))?;
        column.was = known.was(column.number);
    }
    Ok(())
}

fn columns_json(columns: &KnownColumns) -> Result<String, SqlError> {
    serde_json::to_string(columns).map_err(|error| SqlError::corrupt(error.to_string()))
}

/// Forgets what the log has of a table that was dropped, but for its deletes: a row that was edited before its
/// table was dropped was not deleted by that. What the table holds now is compared anyway.
fn forget_touched(sql: &mut dyn Sql, table: i64) -> Result<(), SqlError> {
    let (touched, deleted) = (log_op::TOUCHED, log_op::DELETED);
    sql.execute(
        &format!(
            "DELETE FROM _federation_log AS d WHERE tbl = ? AND op = {deleted} AND EXISTS (SELECT 1 \
             FROM _federation_log AS t WHERE t.tbl = d.tbl AND t.op = {touched} AND t.seq > d.seq \
             AND (t.k0, t.k1, t.k2, t.k3) IS (d.k0, d.k1, d.k2, d.k3))"
        ),
        &[table.into()],
    )?;
    sql.execute(
        &format!(
            "DELETE FROM _federation_log WHERE tbl = ? AND op = {touched} AND NOT EXISTS \
             (SELECT 1 FROM _federation_table AS t WHERE t.tbl = _federation_log.tbl AND t.scan = 'changed')"
        ),
        &[table.into()],
    )?;
    Ok(())
}

/// Has every row of a table compared with what was synced of it, and the hub asked for those that are gone.
fn rescan(sql: &mut dyn Sql, table: i64, wants_past: bool) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE _federation_table SET scan = CASE WHEN scan = 'changed' THEN scan ELSE 'again' END, \
         scanned = NULL, refresh = max(refresh, ?) WHERE tbl = ?",
        &[i64::from(wants_past).into(), table.into()],
    )?;
    Ok(())
}
