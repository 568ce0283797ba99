//! What cannot be applied is set aside with its reason, and tried again; everything else goes on (I9).

use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
use crate::model::{RowId, RowState, RowUpdate, TableHeader, Value};

/// How many rows one apply tries again.
const RETRIES: u64 = 500;

/// A row that is set aside.
#[derive(Clone, Debug)]
pub struct SetAside {
    /// Its table and the columns that the update names.
    pub header: TableHeader,
    /// All that has come of the row since it was set aside.
    pub update: RowUpdate,
}

/// Sets a row aside.
pub fn set_aside(
    sql: &mut dyn Sql,
    header: &TableHeader,
    update: &RowUpdate,
    reason: &str,
) -> Result<(), SqlError> {
    let change = rmp_serde::to_vec(&(header, update))
        .map_err(|error| SqlError::corrupt(format!("cannot encode a row to set it aside: {error}")))?;
    sql.execute(
        "INSERT OR REPLACE INTO _federation_quarantine(tbl, id, reason, change) VALUES(?, ?, ?, ?)",
        &[header.name.as_str().into(), ValueRef::Blob(&update.id.0), reason.into(), ValueRef::Blob(&change)],
    )?;
    Ok(())
}

/// Takes what is set aside of a row, if anything is.
pub fn take(sql: &mut dyn Sql, table: &str, id: RowId) -> Result<Option<SetAside>, SqlError> {
    let key = [ValueRef::Text(table), ValueRef::Blob(&id.0)];
    let row = sql.query_row("SELECT change FROM _federation_quarantine WHERE tbl = ? AND id = ?", &key)?;
    let Some(row) = row else { return Ok(None) };
    sql.execute("DELETE FROM _federation_quarantine WHERE tbl = ? AND id = ?", &key)?;
    decode(&row[0]).map(Some)
}

/// Takes rows that are set aside, to try them again: those whose last try is the longest ago.
pub fn take_some(sql: &mut dyn Sql) -> Result<Vec<SetAside>, SqlError> {
    let mut rows = Vec::new();
    sql.query(
        "SELECT change FROM _federation_quarantine ORDER BY rowid LIMIT ?",
        &[integer(RETRIES)?],
        &mut |row| {
            rows.push(decode(&row[0])?);
            Ok(())
        },
    )?;
    for row in &rows {
        sql.execute(
            "DELETE FROM _federation_quarantine WHERE tbl = ? AND id = ?",
            &[row.header.name.as_str().into(), ValueRef::Blob(&row.update.id.0)],
        )?;
    }
    Ok(rows)
}

/// How many rows are set aside.
pub fn count(sql: &mut dyn Sql) -> Result<u64, SqlError> {
    let row = sql.query_row("SELECT count(*) FROM _federation_quarantine", &[])?;
    Fields::from(row.unwrap_or_default()).unsigned()
}

/// The tables whose rows are set aside.
pub fn tables(sql: &mut dyn Sql) -> Result<Vec<String>, SqlError> {
    let mut tables = Vec::new();
    sql.query("SELECT DISTINCT tbl FROM _federation_quarantine", &[], &mut |row| {
        tables.push(Fields::of(row).text()?);
        Ok(())
    })?;
    Ok(tables)
}

/// Why rows are set aside: a few examples.
pub fn examples(sql: &mut dyn Sql, limit: u64) -> Result<Vec<(String, String)>, SqlError> {
    let mut examples = Vec::new();
    sql.query(
        "SELECT tbl, reason FROM _federation_quarantine GROUP BY tbl, reason LIMIT ?",
        &[integer(limit)?],
        &mut |row| {
            let mut fields = Fields::of(row);
            examples.push((fields.text()?, fields.text()?));
            Ok(())
        },
    )?;
    Ok(examples)
}

fn decode(change: &Value) -> Result<SetAside, SqlError> {
    let Value::Blob(bytes) = change else { return Err(SqlError::corrupt("a row set aside is no blob")) };
    let (header, update) = rmp_serde::from_slice(bytes)
        .map_err(|error| SqlError::corrupt(format!("cannot read a row that was set aside: {error}")))?;
    Ok(SetAside { header, update })
}

impl SetAside {
    /// Adds a later update of the same row. The hub numbers a table's columns once and for all, so that one
    /// header is the beginning of the other.
    #[must_use]
    pub fn merge(self, later: Self) -> Self {
        let mut state = RowState::default();
        for (update, seq) in [(&self.update, 1), (&later.update, 2)] {
            state.merge(update.number, &update.writes, 0, seq);
        }
        // A reader that has seen nothing and written nothing gets every cell.
        let writes = state.since(0, u64::MAX).map(|(writes, _)| writes).unwrap_or_default();
        let longer = |a: TableHeader, b: TableHeader| if a.columns.len() > b.columns.len() { a } else { b };
        Self {
            header: longer(self.header, later.header),
            update: RowUpdate {
                seq: self.update.seq.max(later.update.seq),
                whole: self.update.whole || later.update.whole,
                number: self.update.number.or(later.update.number),
                writes,
                ..later.update
            },
        }
    }
}
