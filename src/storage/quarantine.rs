//! What cannot be applied is set aside with its reason, and tried again; everything else goes on (I9).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, Table};
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::fields::{Fields, integer};
use super::local_key::LocalKey;
use super::one_row;
use super::parked::Parked;
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending};
use super::transaction::is_in_transaction;
use crate::model::{ColumnIndex, Op, RowId, RowUpdate, TableHeader, Value};

/// A row that is set aside.
#[derive(Clone, Debug)]
pub struct SetAside {
    /// Its table and the columns that the update names.
    pub header: TableHeader,
    /// All that has come of the row since it was set aside.
    pub update: RowUpdate,
    /// The mark of the last batch that the hub knew when it said any of it.
    pub acked: u64,
    /// What the row was like, if it is out of its table until it can be as it is to be.
    pub parked: Option<Parked>,
}

/// `_federation_quarantine.change`.
#[derive(Serialize, Deserialize)]
struct Change<'a> {
    header: Cow<'a, TableHeader>,
    update: Cow<'a, RowUpdate>,
    acked: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parked: Option<Cow<'a, Parked>>,
}

/// Sets a row aside.
pub fn set_aside(
    sql: &mut dyn Sql,
    (header, update, acked): (&TableHeader, &RowUpdate, u64),
    parked: Option<&Parked>,
    reason: &str,
) -> Result<(), SqlError> {
    let place = [header.name.as_str().into(), ValueRef::Blob(&update.id.0)];
    let parked = parked.map(Cow::Borrowed);
    let change = Change { header: Cow::Borrowed(header), update: Cow::Borrowed(update), acked, parked };
    let change = rmp_serde::to_vec(&change)
        .map_err(|error| SqlError::corrupt(format!("cannot encode a row to set it aside: {error}")))?;
    sql.execute(
        "INSERT OR REPLACE INTO main._federation_quarantine(tbl, id, reason, change) VALUES(?, ?, ?, ?)",
        &[place[0], place[1], reason.into(), ValueRef::Blob(&change)],
    )?;
    Ok(())
}

/// Takes what is set aside of a row, if anything is.
pub fn take(sql: &mut dyn Sql, table: &str, id: RowId) -> Result<Option<SetAside>, SqlError> {
    let found = find(sql, table, id)?;
    if found.is_some() {
        remove(sql, table, id)?;
    }
    Ok(found)
}

/// What is set aside of a row, if anything is.
pub fn find(sql: &mut dyn Sql, table: &str, id: RowId) -> Result<Option<SetAside>, SqlError> {
    Ok(find_kept(sql, table, id)?.map(|(_, row)| row))
}

/// What is set aside of a row, if anything is, with its place.
pub fn find_kept(sql: &mut dyn Sql, table: &str, id: RowId) -> Result<Option<(i64, SetAside)>, SqlError> {
    let key = [ValueRef::Text(table), ValueRef::Blob(&id.0)];
    let statement = "SELECT rowid, change FROM main._federation_quarantine WHERE tbl = ? AND id = ?";
    let row = sql.query_row(statement, &key)?;
    row.map(|row| Ok((Fields::from(vec![row[0].clone()]).integer()?, decode(&row[1])?))).transpose()
}

/// Has a row be set aside no more.
pub fn remove(sql: &mut dyn Sql, table: &str, id: RowId) -> Result<(), SqlError> {
    let key = [ValueRef::Text(table), ValueRef::Blob(&id.0)];
    sql.execute("DELETE FROM main._federation_quarantine WHERE tbl = ? AND id = ?", &key)?;
    Ok(())
}

/// Up to `limit` rows that are set aside, each with its place: those behind the place `after`, up to the place `upto`.
/// A row that is set aside again gets a place behind all others.
pub fn between(
    sql: &mut dyn Sql,
    (after, upto): (i64, i64),
    limit: usize,
) -> Result<Vec<(i64, SetAside)>, SqlError> {
    let mut rows = Vec::new();
    sql.query(
        "SELECT rowid, change FROM main._federation_quarantine WHERE rowid > ? AND rowid <= ? ORDER BY rowid LIMIT ?",
        &[after.into(), upto.into(), integer(limit as u64)?],
        &mut |row| {
            let change = decode(&row[1])?;
            rows.push((Fields::of(row).integer()?, change));
            Ok(())
        },
    )?;
    Ok(rows)
}

/// The last of these places.
pub fn last_place(sql: &mut dyn Sql) -> Result<i64, SqlError> {
    let row = sql.query_row("SELECT coalesce(max(rowid), 0) FROM main._federation_quarantine", &[])?;
    Fields::from(row.unwrap_or_default()).integer()
}

/// The rows that are out of their tables.
pub fn all_parked(sql: &mut dyn Sql) -> Result<Vec<SetAside>, SqlError> {
    let mut parked = Vec::new();
    sql.query("SELECT change FROM main._federation_quarantine", &[], &mut |row| {
        parked.extend(Some(decode(&row[0])?).filter(|row| row.parked.is_some()));
        Ok(())
    })?;
    Ok(parked)
}

/// How many rows are set aside.
pub fn count(sql: &mut dyn Sql) -> Result<u64, SqlError> {
    let row = sql.query_row("SELECT count(*) FROM main._federation_quarantine", &[])?;
    Fields::from(row.unwrap_or_default()).unsigned()
}

/// The tables whose rows are set aside.
pub fn tables(sql: &mut dyn Sql) -> Result<Vec<String>, SqlError> {
    let mut tables = Vec::new();
    sql.query("SELECT DISTINCT tbl FROM main._federation_quarantine", &[], &mut |row| {
        tables.push(Fields::of(row).text()?);
        Ok(())
    })?;
    Ok(tables)
}

/// Why rows are set aside, in words: a few examples.
pub fn examples(sql: &mut dyn Sql, catalog: &Catalog, limit: u64) -> Result<Vec<String>, SqlError> {
    let mut examples = Vec::new();
    sql.query(
        "SELECT tbl, reason FROM main._federation_quarantine GROUP BY tbl, reason LIMIT ?",
        &[integer(limit)?],
        &mut |row| {
            let mut fields = Fields::of(row);
            let (table, reason) = (fields.text()?, fields.text()?);
            let advice =
                catalog.table(&table).filter(|_| reason.starts_with("CHECK")).and_then(one_row::advice);
            let advice = advice.map_or_else(String::new, |advice| format!(": {advice}"));
            examples.push(format!("rows of {table} are set aside: {reason}{advice}"));
            Ok(())
        },
    )?;
    Ok(examples)
}

/// Why a statement that writes a row was refused, in words: by a constraint, or because the statement itself failed over
/// this row. Failures of the database end the turn.
pub fn refused<T>(sql: &mut dyn Sql, outcome: Result<T, SqlError>) -> Result<Option<String>, SqlError> {
    let Err(error) = outcome else { return Ok(None) };
    match error.kind {
        SqlErrorKind::Constraint => Ok(Some(error.message)),
        // Not every driver tells what has failed, and a failure of the database may end the transaction.
        SqlErrorKind::Statement if is_in_transaction(sql) => Ok(Some(error.message)),
        _ => Err(error),
    }
}

/// Has the hub asked for the past of a table.
pub fn ask_again(sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
    sql.execute(
        "UPDATE main._federation_table SET refresh = max(refresh, 1) WHERE tbl = ?",
        &[table.number.into()],
    )?;
    Ok(())
}

/// Notes that an update of a row could not be applied: what the application writes to it from now on has
/// not seen that update. The row need not be here: the application can make one with its key.
pub fn hold(sql: &mut dyn Sql, table: &Table, id: RowId) -> Result<(), SqlError> {
    match Entry::by_id(sql, table, id)? {
        Some(entry) if entry.meta.held => Ok(()),
        Some(mut entry) => {
            entry.meta.held = true;
            let was = entry.key.clone();
            entry.update(sql, table, &was)
        }
        None => {
            let meta = RowMeta { held: true, ..RowMeta::default() };
            Entry { key: LocalKey::dead(id), id, sending: Sending::Clean, meta }.insert(sql, table)
        }
    }
}

fn decode(change: &Value) -> Result<SetAside, SqlError> {
    let Value::Blob(bytes) = change else { return Err(SqlError::corrupt("a row set aside is no blob")) };
    let Change { header, update, acked, parked } = rmp_serde::from_slice(bytes)
        .map_err(|error| SqlError::corrupt(format!("cannot read a row that was set aside: {error}")))?;
    let parked = parked.map(Cow::into_owned);
    Ok(SetAside { header: header.into_owned(), update: update.into_owned(), acked, parked })
}

impl SetAside {
    /// Adds a later update of the same row. The hub numbers a table's columns once and for all, so that one
    /// header is the beginning of the other.
    ///
    /// What comes later is the hub's newer word, also on a write that it has spoken of before: see
    /// [`super::incoming`].
    #[must_use]
    pub fn merge(self, later: Self) -> Self {
        let longer = |a: TableHeader, b: TableHeader| if a.columns.len() > b.columns.len() { a } else { b };
        let header = longer(self.header, later.header);
        if later.update.whole || later.update.united.is_some() {
            return Self { header, update: later.update, acked: later.acked, parked: self.parked };
        }
        let is_newest = |column: ColumnIndex| {
            later.update.writes.iter().all(|newer| match &newer.op {
                Op::Set(cells) | Op::Cut(cells) => cells.iter().all(|(other, _)| *other != column),
                Op::Delete | Op::Gone | Op::Adjust(_) => true,
            })
        };
        let mut writes = Vec::new();
        for mut write in self.update.writes {
            if let Op::Set(cells) = &mut write.op {
                let mut kept = std::mem::take(cells);
                kept.retain(|(column, _)| is_newest(*column));
                if kept.is_empty() {
                    continue;
                }
                write.op = Op::Set(kept);
            }
            writes.push(write);
        }
        writes.extend(later.update.writes);
        let number = self.update.number.or(later.update.number);
        let update = RowUpdate { whole: self.update.whole, number, writes, ..later.update };
        Self { header, update, acked: self.acked.min(later.acked), parked: self.parked }
    }
}
