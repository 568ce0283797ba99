//! The writes of a row, in the hub's order.

use federation_hub::model::{Adjustment, CellValue, Op, RowId, Seq, Stamp, TableHeader, Write};

/// A row: its table's name in lower case, and its identity.
pub type RowKey = (String, RowId);

/// What was done, to one cell or to the row.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The cell of this column was written.
    Set(String, CellValue),
    /// The value in this column was adjusted.
    Adjust(String, Adjustment),
    /// The row was deleted.
    Delete,
}

/// One thing that was done, as the hub accepted it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Whoever has seen everything up to here has seen this.
    pub position: Seq,
    /// Who did it, and in which of its pushes.
    pub push: (u64, u64),
    /// The count of its batch among all that were accepted.
    pub batch: usize,
    /// When.
    pub stamp: Stamp,
    /// What its author had seen.
    pub base: Seq,
    /// What it was.
    pub what: What,
    /// Whether its author said that a clause of a foreign key has done it.
    pub is_effect: bool,
    /// Whether it was nobody's doing, and is derived instead.
    pub is_forgotten: bool,
}

impl Entry {
    /// Whether somebody with this base wrote without knowing of this.
    pub fn is_concurrent_with(&self, writer: u64, base: Seq) -> bool {
        self.push.0 != writer && self.position > base
    }

    /// The column, if it was about a cell.
    pub fn column(&self) -> Option<&str> {
        match &self.what {
            What::Set(column, _) | What::Adjust(column, _) => Some(column),
            What::Delete => None,
        }
    }
}

/// How a row came to be.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Its place among all rows, in the order in which they were accepted.
    pub order: usize,
    /// The batch that brought it.
    pub batch: usize,
    /// Whoever has seen everything up to here has seen it.
    pub position: Seq,
    /// Who made it.
    pub author: u64,
    /// What its author had seen.
    pub base: Seq,
}

/// All that was done to a row.
#[derive(Clone, Debug)]
pub struct History {
    /// How it came to be.
    pub birth: Birth,
    /// The number that the row was born with.
    pub number: Option<i64>,
    /// What was done.
    pub entries: Vec<Entry>,
}

impl History {
    /// Whether the last delete, or the last one of another replica beside that, is this one's, and later than what it had
    /// seen; and it has not written to the row since.
    pub fn remembers_delete_of(&self, author: u64, base: Seq) -> bool {
        let is_delete = |entry: &&Entry| entry.what == What::Delete && !entry.is_forgotten;
        let deletes = || self.entries.iter().filter(is_delete);
        let last = deletes().max_by_key(|entry| entry.stamp);
        let of_another = deletes().filter(|entry| last.is_some_and(|last| last.push.0 != entry.push.0));
        let mut known = last.into_iter().chain(of_another.max_by_key(|entry| entry.stamp));
        let is_made_again = |delete: &Entry| {
            let own = self.entries.iter().filter(|entry| entry.push.0 == author && !entry.is_forgotten);
            own.into_iter().any(|entry| entry.what != What::Delete && entry.stamp > delete.stamp)
        };
        known.any(|it| it.push.0 == author && it.position > base && !is_made_again(it))
    }
}

/// A write, cell by cell.
pub fn entries(
    header: &TableHeader,
    write: &Write,
    (push, batch): ((u64, u64), usize),
    position: Seq,
) -> Vec<Entry> {
    let name = |column: u16| header.columns[usize::from(column)].to_ascii_lowercase();
    let done = match &write.op {
        Op::Delete | Op::Gone => vec![What::Delete],
        Op::Set(cells) | Op::Cut(cells) => {
            cells.iter().map(|(at, value)| What::Set(name(*at), value.clone())).collect()
        }
        Op::Adjust(cells) => cells.iter().map(|(at, what)| What::Adjust(name(*at), what.clone())).collect(),
    };
    let entry = |what| Entry {
        position,
        push,
        batch,
        stamp: write.stamp,
        base: write.base,
        what,
        is_effect: matches!(write.op, Op::Gone | Op::Cut(_)),
        is_forgotten: false,
    };
    done.into_iter().map(entry).collect()
}
