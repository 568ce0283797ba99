//! Swaps: rows that each take a unique value that another of them still holds.
//!
//! SQLite checks each statement by itself, so no order of single writes gets two rows to swap their names, and
//! only one order a chain of renames. When a row is refused, the rows in its way are looked up; if each of them
//! is to be written in the same turn, all are taken out of the table and put back as they are to be. If that
//! fails, they are put back as they were.

use std::rc::Rc;

use super::ahead::{Ahead, Update};
use super::apply::Applier;
use super::apply_row::Outcome;
use super::catalog::{Key, Table, quote, quote_list};
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::follow::Leader;
use super::foreign_keys::columns_with_shadows;
use super::incoming::Arrival;
use super::local_key::LocalKey;
use super::numbers::exhausts;
use super::obstacles::obstacles;
use super::quarantine::ask_again;
use super::row_meta::RowMeta;
use super::rows::{Entry, key_condition, key_params};
use crate::model::Value;

/// How many rows may be in each other's way. More than an application renames at once, and few enough for a turn.
const MAX_MEMBERS: usize = 250;

/// A row that takes part.
struct Member<'a> {
    update: Rc<Update<'a>>,
    /// Its place among the rows ahead.
    place: usize,
    /// Its bookkeeping before.
    before: Option<Entry>,
    /// The row as it is, if it is here: rowid (of a table that hides it) and cells.
    row: Option<(Option<i64>, Vec<Value>)>,
    /// The row as it is to be; none if it is to be gone.
    target: Option<Vec<Value>>,
    meta: RowMeta,
    /// Whether the hub is to be asked for the table again.
    is_outdated: bool,
}

/// Applies a row that was refused, the one at the place `at`, together with those that are in its way. Returns
/// whether that went well; otherwise nothing has changed, and the rows ahead are still ahead.
pub fn rotate<'a>(
    applier: &mut Applier<'_>,
    sql: &mut dyn Sql,
    at: usize,
    refused: &Rc<Update<'a>>,
    ahead: &mut Ahead<'a>,
) -> Result<bool, SqlError> {
    let Some(table) = applier.catalog.table(&refused.0.name) else { return Ok(false) };
    let Some(mut members) = gather(applier, sql, table, at, refused, ahead)? else { return Ok(false) };
    // Rows that are made may reference those that stay, by the numbers that these come back under.
    members.sort_by_key(|member| member.row.is_none());
    let noted = applier.journal.count();
    for member in &members {
        take_out(sql, table, member)?;
    }
    for (done, member) in members.iter().enumerate() {
        if !put_back(applier, sql, table, member)? {
            applier.journal.truncate(noted);
            undo(sql, table, &members, done)?;
            return Ok(false);
        }
    }
    if applier.is_final {
        for member in &members {
            lead_along(applier, table, member)?;
        }
    }
    applier.journal.bind(noted);
    if members.iter().any(|member| member.is_outdated) {
        ask_again(sql, table)?;
    }
    for member in members {
        applier.applied += 1;
        ahead.done(member.place);
    }
    Ok(true)
}

/// The row that was refused, the rows in its way, the rows in theirs, and so on. None if one of them stays
/// where it is, or if nothing is in the way.
fn gather<'a>(
    applier: &mut Applier<'_>,
    sql: &mut dyn Sql,
    table: &Table,
    at: usize,
    refused: &Rc<Update<'a>>,
    ahead: &mut Ahead<'a>,
) -> Result<Option<Vec<Member<'a>>>, SqlError> {
    let Some(first) = Member::of(applier, sql, table, refused.clone(), at)? else { return Ok(None) };
    let mut members = vec![first];
    let mut looked_at = 0;
    while let Some(member) = members.get(looked_at) {
        looked_at += 1;
        let Some(target) = member.target.clone() else { continue };
        for (_, key) in obstacles(sql, table, &target, |_| true)? {
            let Some(entry) = Entry::by_key(sql, table, &LocalKey::of(table, &key)?)? else {
                return Ok(None);
            };
            if members.iter().any(|member| member.update.1.id == entry.id) {
                continue;
            }
            let Some(place) = ahead.find(&table.name, entry.id) else { return Ok(None) };
            let Some(update) = ahead.get(place) else { return Ok(None) };
            match Member::of(applier, sql, table, update, place)? {
                Some(member) if members.len() < MAX_MEMBERS => members.push(member),
                _ => return Ok(None),
            }
        }
    }
    Ok((members.len() > 1).then_some(members))
}

impl<'a> Member<'a> {
    /// None if the update means nothing here as yet.
    fn of(
        applier: &mut Applier<'_>,
        sql: &mut dyn Sql,
        table: &Table,
        update: Rc<Update<'a>>,
        place: usize,
    ) -> Result<Option<Self>, SqlError> {
        let before = Entry::by_id(sql, table, update.1.id)?;
        let arrival =
            Arrival { table, header: &update.0, update: &update.1, entry: before.as_ref(), acked: update.2 };
        let Ok((mut meta, cells)) = arrival.merge(sql, &mut applier.resolver)? else { return Ok(None) };
        let is_outdated = meta.told(&update.1, update.2);
        let row = match before.as_ref().filter(|entry| entry.is_present()) {
            Some(entry) => Some(whole_row(sql, table, entry)?),
            None => None,
        };
        let target = meta.is_alive().then(|| {
            let mut cells_before = match &row {
                Some((_, cells)) => cells.clone(),
                None => vec![Value::Null; table.columns.len()],
            };
            for cell in cells {
                cells_before[cell.at] = cell.value;
            }
            cells_before
        });
        if let (Key::Natural(positions), Some(target)) = (&table.key, &target) {
            let key: Vec<Value> = positions.iter().map(|&at| target[at].clone()).collect();
            if exhausts(sql, table, &key)?.is_some() {
                return Ok(None);
            }
        }
        Ok(Some(Self { update, place, before, row, target, meta, is_outdated }))
    }
}

/// What an update makes of its row here; none if the row is to be gone, or the update means nothing as yet.
pub fn target(
    applier: &mut Applier<'_>,
    sql: &mut dyn Sql,
    table: &Table,
    update: &Rc<Update<'_>>,
    place: usize,
) -> Result<Option<Vec<Value>>, SqlError> {
    Ok(Member::of(applier, sql, table, update.clone(), place)?.and_then(|member| member.target))
}

/// A row as it is: rowid (of a table that hides it) and cells.
pub fn whole_row(
    sql: &mut dyn Sql,
    table: &Table,
    entry: &Entry,
) -> Result<(Option<i64>, Vec<Value>), SqlError> {
    let key = entry.key.values()?.unwrap_or_default();
    let statement = format!(
        "SELECT {}, {} FROM main.{} WHERE {}",
        table.hidden_rowid.map_or("NULL", |name| name),
        columns_with_shadows(table),
        quote(&table.name),
        key_condition(table)
    );
    let row = sql.query_row(&statement, &key_params(table, &key))?;
    let mut row = row.ok_or_else(|| SqlError::corrupt("a present row is not there"))?;
    let cells = row.split_off(1);
    Ok((super::catalog::as_number(&row[0]), cells))
}

/// Deletes the row, and puts its bookkeeping where no other can be in its way.
fn take_out(sql: &mut dyn Sql, table: &Table, member: &Member<'_>) -> Result<(), SqlError> {
    let (Some(before), Some(_)) = (&member.before, &member.row) else { return Ok(()) };
    delete(sql, table, &before.key)?;
    let parked = Entry { key: LocalKey::dead(before.id), ..before.clone() };
    parked.update(sql, table, &before.key)
}

/// Takes a row out of its table.
pub fn delete(sql: &mut dyn Sql, table: &Table, key: &LocalKey) -> Result<(), SqlError> {
    let Some(key) = key.values()? else { return Ok(()) };
    let statement = format!("DELETE FROM main.{} WHERE {}", quote(&table.name), key_condition(table));
    sql.execute(&statement, &key_params(table, &key))?;
    Ok(())
}

/// Writes the row as it is to be. Returns whether SQLite has taken it.
fn put_back(
    applier: &mut Applier<'_>,
    sql: &mut dyn Sql,
    table: &Table,
    member: &Member<'_>,
) -> Result<bool, SqlError> {
    let (Some(before), Some((rowid, cells))) = (&member.before, &member.row) else {
        let update = &*member.update;
        let outcome = applier.apply_row(sql, member.place, update, true)?;
        // By itself a row that references nothing needs no note; what makes room for it may have to come back.
        if let (true, Outcome::Applied) = (table.parents.is_empty(), &outcome)
            && let Some(made) = Entry::by_id(sql, table, update.1.id)?
        {
            let before = member.before.clone().map(|entry| (entry, None));
            applier.journal.note(member.place, (table, made.id), before, made.key);
        }
        return Ok(matches!(outcome, Outcome::Applied | Outcome::Unchanged));
    };
    let mut entry = before.clone();
    entry.take_over(member.meta.clone());
    let parked = LocalKey::dead(before.id);
    let was = Some((before.clone(), Some((*rowid, cells.clone()))));
    let Some(target) = &member.target else {
        entry.bury();
        entry.update(sql, table, &parked)?;
        applier.journal.note(member.place, (table, entry.id), was, entry.key);
        return Ok(true);
    };
    if !insert(sql, table, &before.key, *rowid, target)? {
        return Ok(false);
    }
    if let Key::Natural(positions) = &table.key {
        let key: Vec<Value> = positions.iter().map(|&at| target[at].clone()).collect();
        entry.key = LocalKey::of(table, &key)?;
    }
    entry.update(sql, table, &parked)?;
    applier.journal.note(member.place, (table, entry.id), was, entry.key);
    Ok(true)
}

/// Notes that what references a row by a key that no row has any more is to follow it to its new one.
fn lead_along(applier: &mut Applier<'_>, table: &Table, member: &Member<'_>) -> Result<(), SqlError> {
    let (Some(before), Some((_, cells)), Some(target)) = (&member.before, &member.row, &member.target) else {
        return Ok(());
    };
    let Some(key) = before.key.values()? else { return Ok(()) };
    let new_key = match &table.key {
        Key::Number(_) => key.clone(),
        Key::Natural(positions) => positions.iter().map(|&at| target[at].clone()).collect(),
    };
    let (was, is) = ((key, cells.clone()), (new_key, target.clone()));
    applier.leaders.push(Leader { item: member.place, table: table.number, was, is });
    Ok(())
}

/// Inserts a row under the number, or the hidden rowid, that it had. Returns whether SQLite has taken it.
pub fn insert(
    sql: &mut dyn Sql,
    table: &Table,
    key: &LocalKey,
    rowid: Option<i64>,
    row: &[Value],
) -> Result<bool, SqlError> {
    let mut names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let mut params: Vec<ValueRef<'_>> = row.iter().take(names.len()).map(ValueRef::from).collect();
    match (&table.key, key, table.hidden_rowid, rowid) {
        (Key::Number(column), LocalKey::Number(number), ..) => {
            names.push(column);
            params.push((*number).into());
        }
        (_, _, Some(name), Some(rowid)) => {
            names.push(name);
            params.push(rowid.into());
        }
        _ => {}
    }
    let statement = format!(
        "INSERT{} INTO main.{}({}) VALUES({})",
        table.or_abort(),
        quote(&table.name),
        quote_list(names.iter().copied()),
        vec!["?"; names.len()].join(", ")
    );
    match sql.execute(&statement, &params) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind, SqlErrorKind::Constraint | SqlErrorKind::Missing) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Puts every row back as it was; the first `done` of them have been written.
fn undo(sql: &mut dyn Sql, table: &Table, members: &[Member<'_>], done: usize) -> Result<(), SqlError> {
    for member in &members[..done] {
        if let Some(entry) = Entry::by_id(sql, table, member.update.1.id)? {
            delete(sql, table, &entry.key)?;
            match &member.before {
                Some(before) => {
                    let parked = Entry { key: LocalKey::dead(before.id), ..before.clone() };
                    parked.update(sql, table, &entry.key)?;
                }
                None => entry.forget(sql, table)?,
            }
        }
    }
    for member in members {
        let Some(before) = &member.before else { continue };
        if let Some((rowid, row)) = &member.row
            && !insert(sql, table, &before.key, *rowid, row)?
        {
            return Err(SqlError::corrupt("a row that was here cannot be put back"));
        }
        if let Some(now) = Entry::by_id(sql, table, before.id)? {
            before.update(sql, table, &now.key)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::catalog::Catalog;
    use crate::storage::choice::{Choice, SyncOptions};
    use crate::storage::sqlite_driver::RusqliteSql;

    #[test]
    fn only_a_constraint_is_a_refusal() {
        let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
        sql.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL)").unwrap();
        let options = SyncOptions::default();
        let choice = Choice::new(&options, std::collections::HashMap::new());
        let catalog = Catalog::read(&mut sql, &choice).unwrap();
        let table = catalog.table("t").unwrap();
        let mut insert_null = || insert(&mut sql, table, &LocalKey::Number(1), None, &[Value::Null]);
        assert!(!insert_null().unwrap());
        // What the database cannot do now, being locked perhaps, is no reason to set a row aside.
        sql.run("DROP TABLE t").unwrap();
        insert(&mut sql, table, &LocalKey::Number(1), None, &[Value::Null]).unwrap_err();
    }
}
