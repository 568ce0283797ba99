//! What an update of the hub means to the row that is here: the pure half of applying.

use super::catalog::{Catalog, Column, Table};
use super::driver::{Sql, SqlError};
use super::row_meta::{CellMeta, RowMeta, Tombstone};
use super::rows::{Entry, LocalKey, merged_cell};
use crate::model::{CellValue, Op, RowUpdate, TableHeader, Value};

/// A cell that the merge took from the hub.
pub struct Cell {
    /// Its position in the table's columns.
    pub at: usize,
    /// Its value, as it is stored here.
    pub value: Value,
    /// What to remember of it.
    pub meta: CellMeta,
}

/// What is remembered of a row after a merge, and the cells to write.
pub type MergedRow = (RowMeta, Vec<Cell>);

/// Merges an update into what is remembered of the row: the new memory, and the cells to write. Or why the
/// update means nothing here.
pub fn merge(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    table: &Table,
    header: &TableHeader,
    update: &RowUpdate,
    entry: Option<&Entry>,
) -> Result<Result<MergedRow, String>, SqlError> {
    let mut meta = entry.map(|entry| entry.meta.clone()).unwrap_or_default();
    let is_present = entry.is_some_and(Entry::is_present);
    let mut cells = Vec::new();
    let mut deleted = meta.deleted;
    for write in &update.writes {
        let sets = match &write.op {
            Op::Delete => {
                if deleted.is_none_or(|delete| delete.stamp < write.stamp) {
                    deleted = Some(Tombstone { stamp: write.stamp, pending: None });
                }
                continue;
            }
            Op::Set(sets) => sets,
        };
        for (index, value) in sets {
            let name = header.columns.get(usize::from(*index));
            let Some(at) = name.and_then(|name| position(table, name)) else {
                // The hub keeps it until this application's schema has the column.
                continue;
            };
            let column = &table.columns[at];
            let value = match stored_form(sql, catalog, column, value)? {
                Ok(value) => value,
                Err(reason) => return Ok(Err(reason)),
            };
            let remote = merged_cell(column.number, write.stamp, &value);
            let wins = meta.cell(column.number).is_none_or(|local| {
                (remote.stamp, remote.fingerprint != local.fingerprint) > (local.stamp, false)
            });
            // A row that is not here is made of what the hub has, whatever is remembered of it.
            if wins || !is_present {
                cells.push(Cell { at, value, meta: remote });
            }
        }
    }
    if !is_present && update.whole {
        meta.cells.clear();
    }
    meta.deleted = deleted;
    for cell in &cells {
        meta.put(cell.meta);
    }
    Ok(Ok((meta, cells)))
}

fn position(table: &Table, name: &str) -> Option<usize> {
    table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
}

/// A value as it is stored here: the identity of a parent row becomes its number here.
fn stored_form(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    column: &Column,
    value: &CellValue,
) -> Result<Result<Value, String>, SqlError> {
    let id = match value {
        CellValue::Plain(value) => return Ok(Ok(value.clone())),
        CellValue::Ref(id) => *id,
    };
    let Some(reference) = &column.references else {
        return Ok(Err("it references a row, through a column that is no foreign key here".into()));
    };
    for parent in reference.parents().into_iter().filter_map(|name| catalog.table(name)) {
        if let Some(LocalKey::Number(number)) = Entry::by_id(sql, parent, id)?.map(|entry| entry.key) {
            return Ok(Ok(column.affinity.stored(number)));
        }
    }
    Ok(Err(format!("it waits for the row of {} that it references", reference.parents().join(" or "))))
}
