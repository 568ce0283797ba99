//! Capture: triggers that note which rows may have changed.
//!
//! A trigger appends a table, a key and a time to one log, and nothing else. *What* changed is found when
//! the log is read, by comparing the row with the fingerprints of its last synced state. So a trigger names
//! no column but those of the key (which SQLite lets nobody drop), the application's `DROP COLUMN` goes
//! through, a value that was merely assigned again is no change, and there is no limit to the columns.
//! The triggers themselves are in `capture_triggers`.

use std::collections::HashMap;

use super::bookkeeping::PREFIX;
use super::capture_triggers::trigger_texts;
use super::catalog::{Catalog, Table, quote};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
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
    for table in &mut catalog.tables {
        let wants_past = resume > 0 && discovery != Discovery::Made;
        let registered = known.remove(&table.name);
        let is_new = registered.is_none();
        match registered {
            Some(registered) => adopt(sql, table, registered, wants_past)?,
            None => register(sql, table, discovery, wants_past)?,
        }
        let mut captured = true;
        for (name, text) in trigger_texts(table) {
            match triggers.remove(&name) {
                Some(installed) if installed == text => {}
                Some(_) => {
                    sql.run(&format!("DROP TRIGGER {}", quote(&name)))?;
                    sql.run(&text)?;
                }
                None => {
                    captured = false;
                    sql.run(&text)?;
                }
            }
        }
        if !captured && !is_new {
            // The table was dropped and made again, or rebuilt: its triggers went with it. Every row is
            // compared with what was synced of it.
            rescan(sql, table.number, resume > 0)?;
        }
    }
    for name in triggers.keys() {
        sql.run(&format!("DROP TRIGGER {}", quote(name)))?;
    }
    Ok(catalog)
}

/// A row of `_federation_table`.
struct Registered {
    number: i64,
    columns: Vec<String>,
}

fn known_tables(sql: &mut dyn Sql) -> Result<HashMap<String, Registered>, SqlError> {
    let mut known = HashMap::new();
    sql.query("SELECT name, tbl, columns FROM _federation_table", &[], &mut |row| {
        let mut fields = Fields::of(row);
        let (name, number) = (fields.text()?, fields.integer()?);
        let columns = serde_json::from_str(&fields.text()?)
            .map_err(|error| SqlError::corrupt(format!("columns of {name}: {error}")))?;
        known.insert(name, Registered { number, columns });
        Ok(())
    })?;
    Ok(known)
}

/// The capture triggers that are there: their texts by their names.
pub fn installed_triggers(sql: &mut dyn Sql) -> Result<HashMap<String, String>, SqlError> {
    let mut triggers = HashMap::new();
    sql.query(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND substr(name, 1, ?) = ?",
        &[integer(PREFIX.len() as u64)?, PREFIX.into()],
        &mut |row| {
            let mut fields = Fields::of(row);
            triggers.insert(fields.text()?, fields.text()?);
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
    let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
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
    registered: Registered,
    wants_past: bool,
) -> Result<(), SqlError> {
    table.number = registered.number;
    let mut columns = registered.columns;
    let before = columns.len();
    for column in &table.columns {
        if !columns.contains(&column.name) {
            columns.push(column.name.clone());
        }
    }
    if columns.len() > before {
        sql.execute(
            "UPDATE _federation_table SET columns = ?, refresh = max(refresh, ?) WHERE tbl = ?",
            &[
                columns_json(&columns)?.as_str().into(),
                i64::from(wants_past).into(),
                registered.number.into(),
            ],
        )?;
    }
    number_columns(table, &columns)
}

fn number_columns(table: &mut Table, known: &[String]) -> Result<(), SqlError> {
    for column in &mut table.columns {
        let at = known.iter().position(|name| *name == column.name);
        column.number = at
            .and_then(|at| u16::try_from(at).ok())
            .ok_or_else(|| SqlError::corrupt(format!("column {} has no number", column.name)))?;
    }
    Ok(())
}

fn columns_json(columns: &[String]) -> Result<String, SqlError> {
    serde_json::to_string(columns).map_err(|error| SqlError::corrupt(error.to_string()))
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
