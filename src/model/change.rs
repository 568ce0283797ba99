//! Changes, as they travel: what a replica did to a row, and what the hub made of it.

use serde::{Deserialize, Serialize};

use super::{Adjustment, CellValue, RowId, Stamp};

/// A position in a tenant's order of accepted changes, numbered by the hub from 1. 0 is "nothing yet".
///
/// A replica's *cursor* is a `Seq`: everything up to it is merged here. A write's *base* is the `Seq` up to
/// which its author had seen that row.
pub type Seq = u64;

/// A column's position in the [`TableHeader`] of the message that names it.
pub type ColumnIndex = u16;

/// The table that some rows of a message belong to, and the columns that their writes name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableHeader {
    /// The table's name.
    pub name: String,
    /// The names that [`ColumnIndex`] counts.
    pub columns: Vec<String>,
}

/// What one write did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Wrote these cells.
    Set(Vec<(ColumnIndex, CellValue)>),
    /// Deleted the row.
    Delete,
    /// Adjusted these cells, whose columns have a rule that looks at what a write did.
    Adjust(Vec<(ColumnIndex, Adjustment)>),
    /// As `Delete`, by no statement that named the row: it went with a row that it references.
    Gone,
    /// As `Set`, by no statement that named the row: a clause has replaced these references to rows that were deleted.
    Cut(Vec<(ColumnIndex, CellValue)>),
}

impl Op {
    /// Whether the row was deleted.
    pub fn is_delete(&self) -> bool {
        matches!(self, Self::Delete | Self::Gone)
    }

    /// The same, as if a statement had said it.
    #[must_use]
    pub fn as_said(self) -> Self {
        match self {
            Self::Gone => Self::Delete,
            Self::Cut(cells) => Self::Set(cells),
            other => other,
        }
    }

    /// The columns that are written.
    pub fn columns_mut(&mut self) -> Box<dyn Iterator<Item = &mut ColumnIndex> + '_> {
        match self {
            Self::Set(cells) | Self::Cut(cells) => Box::new(cells.iter_mut().map(|(column, _)| column)),
            Self::Adjust(cells) => Box::new(cells.iter_mut().map(|(column, _)| column)),
            Self::Delete | Self::Gone => Box::new(std::iter::empty()),
        }
    }
}

/// A write to a row: one stamp, one base, some cells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// When and by whom.
    pub stamp: Stamp,
    /// What its author had seen of the row.
    pub base: Seq,
    /// What it did.
    pub op: Op,
}

/// A row as its replica changed it since the last acknowledged push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange {
    /// Which [`TableHeader`] of the message.
    pub table: u16,
    /// The row.
    pub id: RowId,
    /// The local number of a row of a numbered table: a wish, which other replicas grant where it is free.
    pub number: Option<i64>,
    /// Whether its author made the row, or offers all of it, and the hub has not acknowledged that yet. A row
    /// that is not new, and that the hub does not know, is one whose delete everyone has seen.
    pub is_new: bool,
    /// The writes, at most one for each cell.
    pub writes: Vec<Write>,
}

/// A row's merged state as the hub hands it out, as far as it changed above the reader's cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowUpdate {
    /// Which [`TableHeader`] of the message.
    pub table: u16,
    /// The row.
    pub id: RowId,
    /// The number that the row was born with.
    pub number: Option<i64>,
    /// The position of the row's last change.
    pub seq: Seq,
    /// Whether `writes` holds every cell of the row, so that a replica without the row can make it.
    pub whole: bool,
    /// Set if this row was found to be another one written twice: the identity under which both go on. Then
    /// there are no writes; a replica that has the row keeps it, and its number, as the other one.
    pub united: Option<RowId>,
    /// The last write of each cell that changed above the reader's cursor (all cells where the reader may
    /// lack some). `base` is the position of the write itself.
    pub writes: Vec<Write>,
}

impl Write {
    /// The heap bytes behind the write's values.
    pub fn heap_bytes(&self) -> usize {
        match &self.op {
            Op::Set(cells) | Op::Cut(cells) => {
                24 + cells.iter().map(|(_, value)| 8 + value.heap_bytes()).sum::<usize>()
            }
            Op::Adjust(cells) => 24 + cells.iter().map(|(_, it)| 8 + it.heap_bytes()).sum::<usize>(),
            Op::Delete | Op::Gone => 24,
        }
    }
}

impl RowUpdate {
    /// The bytes that the row takes in a frame, roughly, for bounds on chunks.
    pub fn heap_bytes(&self) -> usize {
        40 + self.writes.iter().map(Write::heap_bytes).sum::<usize>()
    }
}

impl RowChange {
    /// The bytes that the row takes in a frame, roughly, for bounds on batches.
    pub fn heap_bytes(&self) -> usize {
        40 + self.writes.iter().map(Write::heap_bytes).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Number, Value};

    fn write(op: Op) -> Write {
        Write { stamp: Stamp::ZERO, base: 0, op }
    }

    /// Breaks if batches and chunks are cut by something else than what their rows hold.
    #[test]
    fn a_row_takes_what_its_values_take_and_something_for_each_of_them() {
        let text = |length| CellValue::from(Value::Text("x".repeat(length)));
        let edit = Adjustment::Edit { added: vec!["12345".into()], removed: vec![] };
        let writes = vec![
            write(Op::Set(vec![(0, text(100)), (1, text(30))])),
            write(Op::Adjust(vec![(2, Adjustment::Add(Number::ZERO)), (3, edit)])),
            write(Op::Delete),
        ];
        let bytes: Vec<usize> = writes.iter().map(Write::heap_bytes).collect();
        assert_eq!(bytes, [24 + 8 + 100 + 8 + 30, 24 + 8 + 16 + 8 + 13, 24]);
        let in_all = 40 + 170 + 69 + 24;
        let id = RowId([1; 16]);
        let change = RowChange { table: 0, id, number: None, is_new: true, writes: writes.clone() };
        assert_eq!(change.heap_bytes(), in_all);
        let update = RowUpdate { table: 0, id, number: None, seq: 1, whole: true, united: None, writes };
        assert_eq!(update.heap_bytes(), in_all);
    }
}
