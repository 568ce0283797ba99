//! How a row differs from its last synced state.

use super::catalog::{Column, Table};
use super::foreign_keys::referenced_keys;
use super::references::Reference;
use super::renamed_stamps::Meaning;
use super::row_meta::RowMeta;
use super::rows::fingerprints;
use crate::model::{Stamp, Value};

/// A cell that is another write than the last synced state.
pub struct Difference {
    /// The column's position in the table's columns.
    pub at: usize,
    /// The fingerprint of its value now.
    pub fingerprint: u64,
    /// The stamp that it keeps, where a column was renamed and nothing else.
    pub renamed: Option<Stamp>,
}

/// The fingerprint that a column's cell had when the row was last looked at.
pub fn last_known(meta: &RowMeta, column: &Column) -> u64 {
    let mut numbers = std::iter::once(&column.number).chain(&column.was);
    // A cell that is not known yet is of a column that was added: its default is no write (I5).
    numbers.find_map(|number| meta.cell(*number)).map_or(column.default, |cell| cell.fingerprint)
}

/// The cells of a row that differ from what is remembered of it; all of them if it was not alive. `own` is the tie-break
/// of this replica's stamps.
pub fn differing(table: &Table, meta: &RowMeta, row: &[Value], own: u64) -> Vec<Difference> {
    let whole = !meta.is_alive();
    let cells: Vec<(&Column, u64)> = fingerprints(table, row).collect();
    let differs = |(column, fingerprint): &(&Column, u64)| whole || last_known(meta, column) != *fingerprint;
    // A number that means another table's row now is another reference, although it is the same number.
    let means_another = |(column, _): &(&Column, u64)| match &column.references {
        Some(Reference::ByColumn { column, .. }) => cells.get(*column).is_some_and(&differs),
        _ => false,
    };
    let renamed: Vec<Option<Stamp>> = cells
        .iter()
        .map(|(column, fingerprint)| stamp_before_rename(meta, column, *fingerprint, own).filter(|_| !whole))
        .collect();
    let mut is_written: Vec<bool> = cells
        .iter()
        .zip(&renamed)
        .map(|(cell, renamed)| renamed.is_some() || differs(cell) || means_another(cell))
        .collect();
    write_together(table, &mut is_written);
    let cells = cells.iter().zip(renamed).zip(is_written).enumerate().filter(|(_, (_, written))| *written);
    cells
        .map(|(at, (((_, fingerprint), renamed), _))| Difference { at, fingerprint: *fingerprint, renamed })
        .collect()
}

/// The columns of a foreign key mean one row together: half of one write and half of another mean none. So do the
/// columns that rows reference: a key made of the halves of two would be one that no row was written to reference.
fn write_together(table: &Table, is_written: &mut [bool]) {
    let composite = table.foreign_keys.iter().filter(|key| key.columns.len() > 1);
    let own =
        composite.map(|key| key.columns.iter().filter_map(|(column, _)| table.position(column)).collect());
    let links: Vec<Vec<usize>> = own.chain(referenced_keys(table)).collect();
    // Foreign keys can share columns, so that one pulls in the next.
    for _ in 0..links.len() {
        for link in links.iter().filter(|link| !link.is_empty()) {
            if link.iter().any(|at| is_written[*at]) {
                for at in link {
                    is_written[*at] = true;
                }
            }
        }
    }
}

/// A cell of a column that was renamed is a cell of the new name, written when that of the old name was: so
/// whichever agent renames the column first or last, the latest write of its value is the one that stays.
fn stamp_before_rename(meta: &RowMeta, column: &Column, fingerprint: u64, own: u64) -> Option<Stamp> {
    if meta.cell(column.number).is_some() {
        return None;
    }
    let before = column.was.iter().find_map(|was| meta.cell(*was));
    let before = before.filter(|cell| cell.fingerprint == fingerprint)?;
    let over = column.over.and_then(|over| meta.cell(over)).map(|cell| cell.stamp);
    Some(Meaning::of(column).carry(before.stamp, over, own))
}
