//! Parked rows: those that are out of their table for as long as others take over the values that they held.
//!
//! Such a row is set aside like any other whose update cannot be applied yet, together with what it was like. It is not
//! deleted: its bookkeeping goes on as that of a living row, and it comes back when the value is free that it is to have.
//! So it does if the process dies meanwhile: the next sync goes on where that one was.

use serde::{Deserialize, Serialize};

use super::catalog::{Key, Table, quote, quote_list};
use super::driver::{Sql, SqlError, ValueRef};
use super::local_key::{LocalKey, decode_values, encode_values};
use super::quarantine::{self, SetAside};
use super::row_io::{delete, insert, whole_row};
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending};
use crate::model::{CellValue, Op, RowId, Value};

/// What a row was like that is out of its table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    /// Where its bookkeeping lay.
    key: LocalKey,
    /// Its rowid, if its table hides that behind another key.
    rowid: Option<i64>,
    /// The columns that travel, and behind them generated ones by which it is referenced.
    columns: Vec<String>,
    /// How many of them travel.
    travelling: usize,
    /// Their values, as bookkeeping has values.
    #[serde(with = "serde_bytes")]
    cells: Vec<u8>,
    /// The column of its number, if that is its key.
    number: Option<String>,
}

impl Parked {
    /// Takes a row out of its table, and lays its bookkeeping where no other row's can be in its way.
    pub fn take_out(sql: &mut dyn Sql, table: &Table, entry: &Entry) -> Result<Self, SqlError> {
        let (rowid, cells) = whole_row(sql, table, entry)?;
        delete(sql, table, &entry.key)?;
        let mut laid = entry.clone();
        laid.bury();
        laid.update(sql, table, &entry.key)?;
        let own = table.columns.iter().map(|column| &column.name);
        let columns = own.chain(table.shadows.iter().map(|shadow| &shadow.name)).cloned().collect();
        let number = match &table.key {
            Key::Number(column) => Some(column.clone()),
            Key::Natural(_) => None,
        };
        let (key, travelling) = (entry.key.clone(), table.columns.len());
        Ok(Self { key, rowid, columns, travelling, cells: encode_values(&cells)?, number })
    }

    /// The row's bookkeeping as it was in its table, if `now` is that of a row which is still out of it: the application
    /// may have made one with its key.
    pub fn entry(&self, now: &Entry) -> Option<Entry> {
        if !matches!(now.key, LocalKey::Dead(_)) || !now.meta.is_alive() {
            return None;
        }
        let mut entry = Entry { key: self.key.clone(), ..now.clone() };
        if matches!(self.key, LocalKey::Number(_)) {
            entry.meta.number = None;
        }
        Some(entry)
    }

    /// The row as it was: rowid (of a table that hides it) and cells. A column that was added since is NULL.
    pub fn row(&self, table: &Table) -> Result<(Option<i64>, Vec<Value>), SqlError> {
        let cells = decode_values(&self.cells)?;
        let names = table.columns.iter().map(|column| &column.name);
        let names = names.chain(table.shadows.iter().map(|shadow| &shadow.name));
        let cell = |name: &String| {
            let at = self.columns.iter().position(|known| known.eq_ignore_ascii_case(name));
            at.and_then(|at| cells.get(at).cloned()).unwrap_or(Value::Null)
        };
        Ok((self.rowid, names.map(cell).collect()))
    }

    /// Puts the row back as it was. Returns whether SQLite has taken it.
    pub fn put_back(&self, sql: &mut dyn Sql, table: &Table, id: RowId) -> Result<bool, SqlError> {
        let Some(now) = Entry::by_id(sql, table, id)? else { return Ok(true) };
        let Some(entry) = self.entry(&now) else { return Ok(true) };
        let (rowid, cells) = self.row(table)?;
        if !insert(sql, table, &entry.key, rowid, &cells)? {
            return Ok(false);
        }
        self.let_number_go(sql, table, id)?;
        entry.update(sql, table, &now.key)?;
        Ok(true)
    }

    /// Keeps the row's number from being given to another one before the row is back.
    pub fn keep_number(&self, sql: &mut dyn Sql, table: &Table, id: RowId) -> Result<(), SqlError> {
        if !matches!(self.key, LocalKey::Number(_)) || Entry::by_key(sql, table, &self.key)?.is_some() {
            return Ok(());
        }
        let meta = RowMeta::default();
        Entry { key: self.key.clone(), id: keeper(id), sending: Sending::Clean, meta }.insert(sql, table)
    }

    /// Ends [`Self::keep_number`]. Returns whether the number is the row's to have.
    pub fn let_number_go(&self, sql: &mut dyn Sql, table: &Table, id: RowId) -> Result<bool, SqlError> {
        if !matches!(self.key, LocalKey::Number(_)) {
            return Ok(true);
        }
        match Entry::by_key(sql, table, &self.key)? {
            Some(kept) if kept.id == keeper(id) => kept.forget(sql, table).map(|()| true),
            Some(_) => Ok(false),
            None => Ok(true),
        }
    }
}

/// The identity that keeps the number of a parked row: nobody has it, and it follows from the row's.
fn keeper(id: RowId) -> RowId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(&[b"parked", &id.0[..]].concat()).as_bytes()[..16]);
    RowId(bytes)
}

/// Puts every parked row into its table, as far as there is room: as it is to be, or else as it was. The bookkeeping is
/// about to go.
pub fn put_back_all(sql: &mut dyn Sql) -> Result<(), SqlError> {
    for row in quarantine::all_parked(sql)? {
        let Some(parked) = &row.parked else { continue };
        let cells = decode_values(&parked.cells)?;
        let names = parked.columns.iter().map(String::as_str).take(parked.travelling);
        let was: Vec<(&str, Value)> = names.zip(cells).collect();
        let mut wanted = was.clone();
        for (name, value) in told(&row) {
            if let Some(cell) = wanted.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                cell.1 = value.clone();
            }
        }
        for mut cells in [wanted, was] {
            if let (Some(column), LocalKey::Number(number)) = (&parked.number, &parked.key) {
                cells.push((column, Value::Integer(*number)));
            }
            let names = quote_list(cells.iter().map(|(name, _)| *name));
            let statement = format!(
                "INSERT OR IGNORE INTO main.{}({names}) VALUES({})",
                quote(&row.header.name),
                vec!["?"; cells.len()].join(", ")
            );
            let params: Vec<ValueRef<'_>> = cells.iter().map(|(_, value)| value.into()).collect();
            // Whatever is in its way, nothing else is to be held up by it.
            if matches!(sql.execute(&statement, &params), Ok(1)) {
                break;
            }
        }
    }
    Ok(())
}

/// The values that an update tells, with the names of their columns.
fn told(row: &SetAside) -> impl Iterator<Item = (&str, &Value)> {
    let sets = row.update.writes.iter().filter_map(|write| match &write.op {
        Op::Set(cells) | Op::Cut(cells) => Some(cells),
        Op::Delete | Op::Gone | Op::Adjust(_) => None,
    });
    sets.flatten().filter_map(|(column, value)| match value {
        CellValue::Plain(value) => Some((row.header.columns.get(usize::from(*column))?.as_str(), value)),
        CellValue::Ref(_) => None,
    })
}
