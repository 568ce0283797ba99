//! The texts of the capture triggers.
//!
//! REPLACE takes rows away without firing anything: triggers that run before name the rows that hold a unique
//! key of the new row. Those have to name the columns of the key. Of a constraint SQLite lets nobody drop them;
//! those of an index can be dropped once the index is, and until a sync has seen that, our trigger makes the
//! application's `DROP COLUMN` fail. So its name says what to do: SQLite's error quotes it.

use super::bookkeeping::PREFIX;
use super::catalog::{Key, Table, quote, quote_list};
use super::change_log::key_columns;
use super::table_info::OnDelete;
use super::unique_index::{KeyOrigin, KeyPart, KeyTerm, UniqueKey};

/// Milliseconds since the epoch, in SQL of any age.
pub const WALL_CLOCK: &str = "CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER)";

/// What a log entry says of its key.
pub mod log_op {
    /// The row with this key may have changed.
    pub const TOUCHED: i64 = 0;
    /// The row with this key moved to the key of the next entry.
    pub const MOVED_FROM: i64 = 1;
    /// See [`MOVED_FROM`].
    pub const MOVED_TO: i64 = 2;
    /// As [`TOUCHED`], by a DELETE.
    pub const DELETED: i64 = 3;
    /// Either key of a move that has been followed.
    pub const FOLLOWED: i64 = 4;
    /// The row with this number was deleted: whatever has the number later is another row.
    pub const DIED: i64 = 5;
    /// An INSERT of this number begins, and a row with it is there, which it may take away.
    pub const REPLACING: i64 = 6;
    /// An INSERT of this number begins after a [`REPLACING`] of it, and no row with it is there; -1 stands for a number that
    /// SQLite chooses.
    pub const INSERTING: i64 = 7;
    /// A DELETE of the row with this key begins, with what it does to rows that reference it.
    pub const DELETING: i64 = 8;
}

/// The capture triggers of a table: name and text.
pub fn trigger_texts(table: &Table) -> Vec<(String, String)> {
    let columns = table.key_columns();
    let entry = |op: i64, row: &str| format!("{} VALUES({});", log_into(table), log_values(table, op, row));
    let moved: Vec<String> = columns
        .iter()
        .map(|column| {
            let (old, new) = (format!("OLD.{}", quote(column)), format!("NEW.{}", quote(column)));
            format!("{old} IS NOT {new} COLLATE BINARY OR typeof({old}) <> typeof({new})")
        })
        .collect();
    let on = quote(&table.name);
    let (deleted, replace) = match &table.key {
        Key::Number(number) => (log_op::DIED, Some(replace_trigger(table, number))),
        Key::Natural(_) => (log_op::DELETED, None),
    };
    // A rowid has several names, and is edited under any of them.
    let of_key = match table.key {
        Key::Number(_) => String::new(),
        Key::Natural(_) => format!(" OF {}", quote_list(columns)),
    };
    let mut triggers = vec![
        trigger(table, "insert", &format!("AFTER INSERT ON {on}"), &entry(log_op::TOUCHED, "NEW.")),
        trigger(table, "update", &format!("AFTER UPDATE ON {on}"), &entry(log_op::TOUCHED, "NEW.")),
        trigger(table, "delete", &format!("AFTER DELETE ON {on}"), &entry(deleted, "OLD.")),
        trigger(
            table,
            "move",
            &format!("AFTER UPDATE{of_key} ON {on} WHEN {}", moved.join(" OR ")),
            &format!("{} {}", entry(log_op::MOVED_FROM, "OLD."), entry(log_op::MOVED_TO, "NEW.")),
        ),
    ];
    triggers.extend(replace);
    if table.children.iter().any(|link| link.on_delete != OnDelete::Refuse) {
        // What is noted between this and the end of the delete is what foreign keys make of it.
        let begins = format!("BEFORE DELETE ON {on}");
        triggers.push(trigger(table, "deletes", &begins, &entry(log_op::DELETING, "OLD.")));
    }
    for (at, unique) in table.unique_keys.iter().filter(|key| key.can_take_others()).enumerate() {
        triggers.extend(replace_triggers(table, at, unique));
    }
    triggers
}

/// The trigger that tells a REPLACE, after which the row under a number is the same as before, from a DELETE and an INSERT.
/// SQLite may fire the trigger of a DELETE for what a REPLACE takes away. In a trigger that runs before, a number that SQLite
/// has yet to choose is -1. An INSERT of a number that is not there costs two looks, one of them at an index that is
/// nearly always empty.
fn replace_trigger(table: &Table, number: &str) -> (String, String) {
    let (on, number) = (quote(&table.name), quote(number));
    let (tbl, replacing, inserting) = (table.number, log_op::REPLACING, log_op::INSERTING);
    let is_there = format!("EXISTS(SELECT 1 FROM {on} WHERE {number} = NEW.{number})");
    let begun = format!("SELECT 1 FROM _federation_log WHERE op = {replacing} AND tbl = {tbl}");
    trigger(
        table,
        "replace",
        &format!(
            "BEFORE INSERT ON {on} WHEN CASE NEW.{number} WHEN -1 THEN EXISTS({begun}) \
             ELSE {is_there} OR EXISTS({begun} AND k0 = NEW.{number}) END"
        ),
        &format!(
            "{} VALUES({tbl}, CASE WHEN NEW.{number} <> -1 AND {is_there} THEN {replacing} ELSE {inserting} END, \
             {WALL_CLOCK}, NEW.{number});",
            log_into(table)
        ),
    )
}

/// What SQLite's error says of a trigger that stands in the way of a `DROP COLUMN`.
const ADVICE: &str = " (change the table inside FederationHub.migrate)";

/// Triggers that note which rows a REPLACE would take away because of a unique key.
pub fn replace_triggers(table: &Table, at: usize, unique: &UniqueKey) -> Vec<(String, String)> {
    let on = quote(&table.name);
    // What the index leaves out, its expressions may fail over: the condition comes first.
    let filter = unique.filter.iter().flat_map(|it| [format!("({it})"), of_new_row(table, unique, it)]);
    let parts = unique.parts.iter().map(|part| same_part(table, unique, part));
    let same: Vec<String> = filter.chain(parts).collect();
    let values = log_values(table, log_op::TOUCHED, "");
    let victims = format!("{} SELECT {values} FROM {on} WHERE {}", log_into(table), same.join(" AND "));
    let key = key_list(table, "");
    let columns = quote_list(unique.columns.iter().map(String::as_str));
    let advice = if unique.origin == KeyOrigin::Index { ADVICE } else { "" };
    let insert = trigger(
        table,
        &format!("replace_{at}_insert{advice}"),
        &format!("BEFORE INSERT ON {on}"),
        &format!("{victims};"),
    );
    if columns.is_empty() {
        // An index over a constant: no UPDATE changes that.
        return vec![insert];
    }
    let update = trigger(
        table,
        &format!("replace_{at}_update{advice}"),
        &format!("BEFORE UPDATE OF {columns} ON {on}"),
        &format!("{victims} AND ({key}) IS NOT ({});", key_list(table, "OLD.")),
    );
    vec![insert, update]
}

/// Whether a row has this part of the key in common with the new row. Worded so that the index serves it.
fn same_part(table: &Table, unique: &UniqueKey, part: &KeyPart) -> String {
    let (own, new) = match &part.term {
        KeyTerm::Column(column) if unique.columns.contains(column) => {
            (quote(column), new_value(table, column))
        }
        KeyTerm::Column(column) => {
            (quote(column), of_new_row(table, unique, &unique.only_inside(&quote(column))))
        }
        KeyTerm::Expression(expression) => {
            let new = of_new_row(table, unique, &unique.only_inside(expression));
            (format!("({expression})"), new)
        }
    };
    format!("{own} = {new} COLLATE {}", quote(&part.collation))
}

/// An expression over the columns of the row that is about to be written.
fn of_new_row(table: &Table, unique: &UniqueKey, expression: &str) -> String {
    let columns: Vec<String> = unique
        .columns
        .iter()
        .map(|name| format!("{} AS {}", new_value(table, name), quote(name)))
        .chain(["NULL".to_owned()])
        .collect();
    let row = unique.with_generated(format!("SELECT {}", columns.join(", ")));
    format!("(SELECT {expression} FROM ({row}))")
}

/// What a column of the row that is about to be written will hold: BEFORE triggers still see the NULL that a
/// REPLACE turns into the default.
fn new_value(table: &Table, name: &str) -> String {
    let written = format!("NEW.{}", quote(name));
    match table.columns.iter().find(|column| column.name == name).and_then(|it| it.replacement.as_ref()) {
        Some(default) => format!("coalesce({written}, ({default}))"),
        None => written,
    }
}

/// The name of a capture trigger of the table that has this number.
pub fn trigger_name(table: i64, suffix: &str) -> String {
    format!("{PREFIX}{table}_{suffix}")
}

fn trigger(table: &Table, suffix: &str, when: &str, body: &str) -> (String, String) {
    let name = trigger_name(table.number, suffix);
    let text = format!("CREATE TRIGGER {} {when} BEGIN {body} END", quote(&name));
    (name, text)
}

fn log_into(table: &Table) -> String {
    format!("INSERT INTO _federation_log(tbl, op, at, {})", key_columns("", table.key_width()))
}

/// The values of a log entry; `row` is what stands before the key's columns.
fn log_values(table: &Table, op: i64, row: &str) -> String {
    format!("{}, {op}, {WALL_CLOCK}, {}", table.number, key_list(table, row))
}

fn key_list(table: &Table, row: &str) -> String {
    let columns = table.key_columns();
    columns.iter().map(|column| format!("{row}{}", quote(column))).collect::<Vec<_>>().join(", ")
}
