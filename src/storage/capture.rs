//! Capture: triggers that note which rows may have changed.
//!
//! A trigger appends a table, a key and a time to one log, and nothing else. *What* changed is found when
//! the log is read, by comparing the row with the fingerprints of its last synced state. So a trigger names
//! no column but those of the key (which SQLite lets nobody drop), the application's `DROP COLUMN` goes
//! through, a value that was merely assigned again is no change, and there is no limit to the columns.
//! The triggers themselves are in `capture_triggers`.

use std::collections::{HashMap, HashSet};

use super::bookkeeping::PREFIX;
use super::capture_triggers::{log_op, replace_triggers, trigger_name, trigger_texts};
use super::catalog::{Catalog, Table, quote};
use super::change_log::{key_columns, make_room};
use super::choice::{Choice, SyncOptions};
use super::driver::{Sql, SqlError};
use super::fields::{Fields, integer};
use super::missing_tables::Remembered;
use super::registered::{self, TakenIn};
use super::renamed_tables;
use super::scan::look_for_deleted;
use super::sql_text::in_main;
use super::surplus;
use super::tenant_tables;
use super::vacuum;
use crate::model::{Hlc, Seq};

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

impl Discovery {
    /// How rows are taken that were there before syncing.
    pub fn of_existing(options: &SyncOptions) -> Self {
        if options.existing_rows_are_old { Self::Old } else { Self::New }
    }
}

/// Reads the catalog, and brings numbers, columns and triggers of the bookkeeping up to it. Runs no DDL
/// when nothing changed. Once something was pulled (up to `resume`), the past of what is new is asked for. `hub_now` is the
/// hub's time, if somebody knows it.
pub fn refresh(
    sql: &mut dyn Sql,
    options: &SyncOptions,
    discovery: Discovery,
    resume: Seq,
    hub_now: Option<Hlc>,
) -> Result<Catalog, SqlError> {
    let agreed = tenant_tables::read(sql)?;
    let ranks = surplus::ranks(sql)?;
    let missing = Remembered::read(sql)?;
    let choice = Choice::new(options, agreed.clone()).ranked(ranks).with_made(missing.made.clone());
    let mut catalog = Catalog::read(sql, &choice)?;
    make_room(sql, &catalog)?;
    let mut known = registered::read(sql)?;
    let mut triggers = installed_triggers(sql)?;
    for name in &catalog.excluded {
        registered::leave_out(sql, name, known.remove(&name.to_ascii_lowercase()))?;
    }
    catalog.dropped = renamed_tables::follow(sql, &catalog, &mut known, &triggers, &agreed, resume)?;
    for table in &mut catalog.tables {
        let wants_past = resume > 0 && discovery != Discovery::Made;
        let agreed = agreed.get(&table.name.to_lowercase());
        match registered::take_in(sql, table, known.remove(&table.name.to_ascii_lowercase()))? {
            TakenIn::Known(registered) => {
                let insert = triggers.get(&trigger_name(registered.number, "insert"));
                // It was dropped and made again, or rebuilt, or left out for a while: its triggers went with it,
                // or with what it was.
                let is_rebuilt =
                    insert.is_none_or(|trigger| !trigger.table.eq_ignore_ascii_case(&table.name));
                registered::adopt(sql, table, registered, (agreed, hub_now), is_rebuilt, wants_past)?;
                if is_rebuilt {
                    forget_touched(sql, table)?;
                    rescan(sql, table.number)?;
                } else if discovery != Discovery::Made && has_new_key(table, &triggers) {
                    look_for_deleted(sql, table.number)?;
                }
            }
            TakenIn::Unknown => {
                // What an application makes its tables with is old also where the file was synced before.
                let waited = discovery == Discovery::New && missing.waits_for(&table.name);
                let discovery = if waited { Discovery::of_existing(options) } else { discovery };
                registered::register(sql, table, agreed, discovery, wants_past)?;
            }
            // It was there all the time, and is attached now.
            TakenIn::Attached => {
                registered::register(sql, table, agreed, Discovery::of_existing(options), wants_past)?;
            }
        }
        for (name, text) in trigger_texts(table) {
            match triggers.remove(&name) {
                Some(installed) if installed.text == text => continue,
                Some(_) => sql.run(&format!("DROP TRIGGER main.{}", quote(&name)))?,
                None => {}
            }
            sql.run(&in_main(&text))?;
        }
    }
    for name in triggers.keys() {
        sql.run(&format!("DROP TRIGGER main.{}", quote(name)))?;
    }
    missing.forget(sql)?;
    vacuum::follow(sql, &catalog)?;
    registered::mark_unseen(sql, &mut catalog)?;
    catalog.dropped.extend(known.into_keys());
    Ok(catalog)
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

/// Forgets what the log has of a table that was dropped, but for its deletes: a row that was edited before its
/// table was dropped was not deleted by that. What the table holds now is compared anyway.
fn forget_touched(sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
    let (touched, deleted, died) = (log_op::TOUCHED, log_op::DELETED, log_op::DIED);
    let replacing = log_op::REPLACING;
    // Of a row that died, another one has the number by now, unless it was replaced.
    sql.execute(
        &format!(
            "DELETE FROM main._federation_log AS d WHERE tbl = ? AND (op = {deleted} OR op = {died} AND EXISTS (SELECT 1 \
             FROM main._federation_log AS r WHERE r.op = {replacing} AND r.tbl = d.tbl AND r.k0 = d.k0 AND r.seq < d.seq)) \
             AND EXISTS (SELECT 1 \
             FROM main._federation_log AS t WHERE t.tbl = d.tbl AND t.op = {touched} AND t.seq > d.seq \
             AND ({}) IS ({}))",
            key_columns("t.", table.key_width()),
            key_columns("d.", table.key_width())
        ),
        &[table.number.into()],
    )?;
    sql.execute(
        &format!(
            "DELETE FROM main._federation_log WHERE tbl = ? AND op = {touched} AND NOT EXISTS \
             (SELECT 1 FROM main._federation_table AS t WHERE t.tbl = _federation_log.tbl AND t.scan LIKE 'changed%')"
        ),
        &[table.number.into()],
    )?;
    Ok(())
}

/// Whether a unique key of a table is new, so that nothing has noted what a REPLACE took away by it.
fn has_new_key(table: &Table, installed: &HashMap<String, InstalledTrigger>) -> bool {
    // The name has the key's place among the others, which may have changed.
    let program = |text: &str| text.find(" BEFORE ").map(|at| text[at..].to_owned());
    let on_table = installed.values().filter(|trigger| trigger.table.eq_ignore_ascii_case(&table.name));
    let known: HashSet<String> = on_table.filter_map(|trigger| program(&trigger.text)).collect();
    let unique = table.unique_keys.iter().filter(|key| key.can_take_others()).enumerate();
    let mut wanted = unique.flat_map(|(at, unique)| replace_triggers(table, at, unique));
    wanted.any(|(_, text)| program(&text).is_some_and(|program| !known.contains(&program)))
}

/// Has every row of a table compared with what was synced of it, and the hub asked for those that are gone; also by a replica
/// that the hub has told of nothing yet, which would not be told of its own rows.
fn rescan(sql: &mut dyn Sql, table: i64) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE main._federation_table SET scan = CASE WHEN scan LIKE 'changed%' THEN 'changed' ELSE 'again' END, \
         scanned = NULL, refresh = max(refresh, ?) WHERE tbl = ?",
        &[registered::AGAIN.into(), table.into()],
    )?;
    Ok(())
}
