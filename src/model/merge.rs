//! Merging: the state of a row, and what a replica's writes make of it.
//!
//! A row is a set of last-writer-wins registers, one for each cell and one for its deletion. Merging takes
//! the greater stamp of each, and is therefore commutative, associative and idempotent. *Concurrency* is
//! another question, and has another answer: the hub numbers what it accepts, and a write was concurrent
//! with the present one exactly if that one is of another replica and came after the write's base
//! (a dotted version vector with the hub as its one long-lived entry).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{CellValue, ColumnIndex, Contest, Made, Op, Rule, RuleBook, Seq, Stamp, Write};

/// One register: the write that holds it, and where in the tenant's order that write stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell<V = CellValue> {
    /// The stamp of the winning write.
    pub stamp: Stamp,
    /// The position at which the hub accepted it.
    pub seq: Seq,
    /// [`super::ReplicaId::tie_break`] of the replica that pushed it.
    pub writer: u64,
    /// What it wrote.
    pub value: V,
}

impl<V> Cell<V> {
    /// Whether someone who had seen everything up to `base` wrote without knowing of this write.
    pub fn is_concurrent_with(&self, writer: u64, base: Seq) -> bool {
        self.seq > base && self.writer != writer
    }
}

/// What merging a replica's writes did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Whether anything of the state is different now.
    pub changed: bool,
    /// Registers whose pushed value differs from, and is concurrent with, the state's write, whichever won.
    pub conflicts: u32,
}

/// The merged state of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowState {
    /// The local number that the row was born with, in a numbered table.
    pub number: Option<i64>,
    /// Readers whose cursor is below this need every cell: the row came back to life, or outlived a delete
    /// of a replica that has therefore dropped it.
    pub whole_since: Seq,
    /// The last delete. Cells go on merging under it.
    pub deleted: Option<Cell<()>>,
    /// The cells, by the hub's number of the column.
    pub cells: BTreeMap<ColumnIndex, Cell>,
    /// What rules made cells of.
    pub made: BTreeMap<ColumnIndex, Made>,
    /// The last delete of another replica than that of `deleted`: what that replica did went with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beneath: Option<Cell<()>>,
}

impl RowState {
    /// A row lives while one of its cells is newer than its last delete: an edit that beats a concurrent
    /// delete brings the whole row back.
    pub fn is_alive(&self) -> bool {
        let newest = self.cells.values().map(|cell| cell.stamp).max();
        newest > self.deleted.as_ref().map(|delete| delete.stamp)
    }

    /// The position of the last change.
    pub fn seq(&self) -> Seq {
        let cells = self.cells.values().map(|cell| cell.seq).max().unwrap_or(0);
        let deleted = self.deleted.as_ref().map_or(0, |delete| delete.seq);
        cells.max(deleted).max(self.whole_since)
    }

    /// The highest stamp of the row.
    pub fn highest(&self) -> Stamp {
        let cells = self.cells.values().map(|cell| cell.stamp);
        cells.chain(self.deleted.iter().map(|delete| delete.stamp)).max().unwrap_or(Stamp::ZERO)
    }

    /// Merges what the replica `writer` pushed; what it changes takes the position `seq`. In every column the
    /// later write wins.
    pub fn merge(&mut self, number: Option<i64>, writes: &[Write], writer: u64, seq: Seq) -> Merged {
        self.merge_by(&mut RuleBook::default(), number, writes, writer, seq)
    }

    /// As [`merge`](Self::merge), with the rules of a table's columns.
    pub fn merge_by(
        &mut self,
        book: &mut RuleBook<'_>,
        number: Option<i64>,
        writes: &[Write],
        writer: u64,
        seq: Seq,
    ) -> Merged {
        let was_alive = self.is_alive();
        let known = !self.cells.is_empty() || self.deleted.is_some();
        let existence_conflict = self.existence_conflict(writes, writer, was_alive);
        let mut merged = Merged { changed: false, conflicts: u32::from(existence_conflict) };
        if self.number.is_none() && number.is_some() {
            self.number = number;
        }
        let mut deletes = false;
        for write in writes {
            match &write.op {
                Op::Delete | Op::Gone => {
                    deletes = true;
                    merged.changed |= self.delete(Cell { stamp: write.stamp, seq, writer, value: () });
                    merged.changed |= self.cancel(write.base, writer, seq);
                    merged.changed |= self.sink(seq);
                }
                Op::Set(cells) | Op::Cut(cells) => {
                    for (column, value) in cells {
                        let (changed, conflict) = self.set(book, *column, value, write, writer, seq);
                        merged.changed |= changed;
                        merged.conflicts += u32::from(conflict);
                    }
                }
                Op::Adjust(cells) => {
                    for (column, adjustment) in cells {
                        merged.changed |= self.adjust(*column, adjustment, write, writer, seq);
                    }
                }
            }
        }
        if let Some(last) = writes.iter().filter(|it| !it.op.is_delete()).map(|it| it.stamp).max() {
            self.make_again(last, writer);
        }
        let alive = self.is_alive();
        if alive && ((known && !was_alive) || deletes) {
            self.whole_since = seq;
            merged.changed = true;
        }
        merged
    }

    /// Merges a delete; says whether that changed anything.
    fn delete(&mut self, delete: Cell<()>) -> bool {
        let is_later = |than: &Option<Cell<()>>| than.as_ref().is_none_or(|it| it.stamp < delete.stamp);
        if is_later(&self.deleted) {
            let beaten = self.deleted.replace(delete).filter(|it| Some(it.writer) != self.deleter());
            if beaten.is_some() {
                self.beneath = beaten;
            }
            return true;
        }
        let is_beneath = self.deleter() != Some(delete.writer) && is_later(&self.beneath);
        if is_beneath {
            self.beneath = Some(delete);
        }
        is_beneath
    }

    /// Whoever deleted a row and writes to it again has made it again, whatever becomes of that write: the delete
    /// is of no push any more, and has the position 0.
    fn make_again(&mut self, stamp: Stamp, writer: u64) {
        for delete in self.deleted.iter_mut().chain(&mut self.beneath) {
            if delete.writer == writer && delete.stamp < stamp {
                delete.seq = 0;
            }
        }
    }

    /// The deletes that are known, the last one first.
    pub fn deletes(&self) -> impl Iterator<Item = &Cell<()>> {
        self.deleted.iter().chain(&self.beneath)
    }

    fn deleter(&self) -> Option<u64> {
        self.deleted.as_ref().map(|delete| delete.writer)
    }

    /// A delete that did not know of an edit, or an edit that did not know of a delete.
    fn existence_conflict(&self, writes: &[Write], writer: u64, was_alive: bool) -> bool {
        writes.iter().any(|write| match &write.op {
            Op::Delete | Op::Gone => was_alive && self.is_concurrent_with(writer, write.base),
            Op::Set(_) | Op::Cut(_) | Op::Adjust(_) => {
                write.stamp != Stamp::ZERO
                    && !was_alive
                    && self
                        .deleted
                        .as_ref()
                        .is_some_and(|delete| delete.is_concurrent_with(writer, write.base))
            }
        })
    }

    /// Merges one cell; says whether it changed, and whether it was in conflict.
    fn set(
        &mut self,
        book: &mut RuleBook<'_>,
        column: ColumnIndex,
        value: &CellValue,
        write: &Write,
        writer: u64,
        seq: Seq,
    ) -> (bool, bool) {
        let rule = book.rule(column);
        if matches!(rule, Rule::Max | Rule::Min) {
            return (self.choose(rule, column, value, write, writer, seq), false);
        }
        let cell = || Cell { stamp: write.stamp, seq, writer, value: value.clone() };
        match self.cells.get_mut(&column) {
            None => {
                self.cells.insert(column, cell());
                (true, false)
            }
            Some(current) => {
                // What is older than syncing is before every write, and concurrent with none.
                let conflict = rule.loses()
                    && write.stamp != Stamp::ZERO
                    && current.is_concurrent_with(writer, write.base)
                    && current.value != *value;
                // Rows older than syncing share one stamp. The one that was accepted first stands, all of it: by their
                // values, one author's content would come to stand beside another one's hash of it.
                let are_old = write.stamp == Stamp::ZERO && current.stamp == Stamp::ZERO;
                book.has_passed_over |= are_old && current.writer != writer && current.value != *value;
                // Any other two writes of one stamp are a clone's and its original's. Any order does, as long as it is
                // the same everywhere.
                let wins = !are_old && (write.stamp, value) > (current.stamp, &current.value);
                if conflict && rule == Rule::Resolver {
                    book.contests.push(Contest { column, present: current.clone(), pushed: cell() });
                }
                if wins {
                    *current = cell();
                    self.made.remove(&column);
                }
                (wins || self.note_written(column, write.stamp), conflict)
            }
        }
    }

    /// What a reader whose cursor is `cursor` lacks, one write for each stamp, and whether that is every
    /// cell; nothing if it lacks nothing. A reader's own writes are not told to it, unless it may have
    /// dropped the row.
    pub fn since(&self, cursor: Seq, reader: u64) -> Option<(Vec<Write>, bool)> {
        let everything = self.whole_since > cursor;
        self.telling(|seq, writer| everything || (seq > cursor && writer != reader))
    }

    /// What a reader who may have anything of the row is told: every cell, whoever wrote it.
    pub fn everything(&self) -> Option<(Vec<Write>, bool)> {
        self.telling(|_, _| true)
    }

    fn telling(&self, news: impl Fn(Seq, u64) -> bool) -> Option<(Vec<Write>, bool)> {
        let mut sets: BTreeMap<(Stamp, Seq), Vec<(ColumnIndex, CellValue)>> = BTreeMap::new();
        let mut told = 0;
        for (column, cell) in self.cells.iter().filter(|(_, cell)| news(cell.seq, cell.writer)) {
            sets.entry((cell.stamp, cell.seq)).or_default().push((*column, cell.value.clone()));
            told += 1;
        }
        let mut writes: Vec<Write> = sets
            .into_iter()
            .map(|((stamp, base), cells)| Write { stamp, base, op: Op::Set(cells) })
            .collect();
        // What merged under a delete goes with the delete: a reader that never had the row has forgotten it.
        let under_delete = !writes.is_empty() && !self.is_alive();
        let told_delete = |delete: &&Cell<()>| under_delete || news(delete.seq, delete.writer);
        if let Some(delete) = self.deleted.as_ref().filter(told_delete) {
            writes.push(Write { stamp: delete.stamp, base: delete.seq, op: Op::Delete });
        }
        (!writes.is_empty()).then_some((writes, told == self.cells.len()))
    }
}

#[cfg(test)]
mod tests;
