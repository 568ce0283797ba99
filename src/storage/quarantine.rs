//! What cannot be applied is set aside with its reason, and tried again; everything else goes on (I9).

use super::catalog::Table;
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::fields::{Fields, integer};
use super::local_key::LocalKey;
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending};
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
}

/// Sets a row aside.
pub fn set_aside(
    sql: &mut dyn Sql,
    (header, update, acked): (&TableHeader, &RowUpdate, u64),
    reason: &str,
) -> Result<(), SqlError> {
    let change = rmp_serde::to_vec(&(header, update, acked))
        .map_err(|error| SqlError::corrupt(format!("cannot encode a row to set it aside: {error}")))?;
    sql.execute(
        "INSERT OR REPLACE INTO main._federation_quarantine(tbl, id, reason, change) VALUES(?, ?, ?, ?)",
        &[header.name.as_str().into(), ValueRef::Blob(&update.id.0), reason.into(), ValueRef::Blob(&change)],
    )?;
    Ok(())
}

/// Takes what is set aside of a row, if anything is.
pub fn take(sql: &mut dyn Sql, table: &str, id: RowId) -> Result<Option<SetAside>, SqlError> {
    let found = find(sql, table, id)?;
    if found.is_some() {
        let key = [ValueRef::Text(table), ValueRef::Blob(&id.0)];
        sql.execute("DELETE FROM main._federation_quarantine WHERE tbl = ? AND id = ?", &key)?;
    }
    Ok(found)
}

/// What is set aside of a row, if anything is.
pub fn find(sql: &mut dyn Sql, table: &str, id: RowId) -> Result<Option<SetAside>, SqlError> {
    let key = [ValueRef::Text(table), ValueRef::Blob(&id.0)];
    let row =
        sql.query_row("SELECT change FROM main._federation_quarantine WHERE tbl = ? AND id = ?", &key)?;
    row.map(|row| decode(&row[0])).transpose()
}

/// Takes up to `limit` rows that are set aside, to try them again: those whose last try is the longest ago.
pub fn take_some(sql: &mut dyn Sql, limit: u64) -> Result<Vec<SetAside>, SqlError> {
    let mut rows = Vec::new();
    sql.query(
        "SELECT change FROM main._federation_quarantine ORDER BY rowid LIMIT ?",
        &[integer(limit)?],
        &mut |row| {
            rows.push(decode(&row[0])?);
            Ok(())
        },
    )?;
    for row in &rows {
        sql.execute(
            "DELETE FROM main._federation_quarantine WHERE tbl = ? AND id = ?",
            &[row.header.name.as_str().into(), ValueRef::Blob(&row.update.id.0)],
        )?;
    }
    Ok(rows)
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

/// Why rows are set aside: a few examples.
pub fn examples(sql: &mut dyn Sql, limit: u64) -> Result<Vec<(String, String)>, SqlError> {
    let mut examples = Vec::new();
    sql.query(
        "SELECT tbl, reason FROM main._federation_quarantine GROUP BY tbl, reason LIMIT ?",
        &[integer(limit)?],
        &mut |row| {
            let mut fields = Fields::of(row);
            examples.push((fields.text()?, fields.text()?));
            Ok(())
        },
    )?;
    Ok(examples)
}

/// The refusal of a row by a constraint, or by what its table lacks here, in words; other failures end the turn.
pub fn refused<T>(outcome: Result<T, SqlError>) -> Result<Option<String>, SqlError> {
    match outcome {
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind, SqlErrorKind::Constraint | SqlErrorKind::Missing) => {
            Ok(Some(error.message))
        }
        Err(error) => Err(error),
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
    let (header, update, acked) = rmp_serde::from_slice(bytes)
        .map_err(|error| SqlError::corrupt(format!("cannot read a row that was set aside: {error}")))?;
    Ok(SetAside { header, update, acked })
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
            return Self { header, update: later.update, acked: later.acked };
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
        Self { header, update, acked: self.acked.min(later.acked) }
    }
}
