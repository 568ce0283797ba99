//! What is told of rows, as far as it has been decided who has which key.

use super::history::RowKey;
use super::living::{Living, Raws};
use super::raw::Cell;
use super::tenant::Row;

/// What follows from what was written.
pub struct View {
    /// The rows that stand for themselves, as they were written.
    pub united: Raws,
    /// And as they are to be, but for foreign keys.
    pub raws: Raws,
    /// Which rows live, and what they show.
    pub living: Living,
}

impl View {
    /// What a row shows.
    pub fn row(&self, row: &RowKey) -> Row {
        let shown = |(column, cell): (&String, &Cell)| {
            let derived = self.living.values.get(&(row.clone(), column.clone()));
            (column.clone(), derived.unwrap_or(&cell.value).clone())
        };
        self.raws[row].cells.iter().map(shown).collect()
    }
}
