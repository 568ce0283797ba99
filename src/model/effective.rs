//! Effective state: what readers of a row are told, where rules that span rows change what its own writes say.
//!
//! The hub keeps every row's *raw* state, the plain merge of its writes. UNIQUE constraints and foreign keys
//! then decide whether the row lives, and which of its cells show another value. Nothing of that is a write:
//! a derived value carries the stamp of the write that it stands in for, and a derived death that of the
//! row's newest cell. So it gives way to every later write, and is never in conflict with one.

use std::collections::BTreeMap;

use super::{Cell, CellValue, ColumnIndex, RowState, Rule, Seq, Value};

/// The writer of what is derived: no replica's, so that every replica is told of it.
pub const NOBODY: u64 = 0;

/// What the rules that span rows make of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the row lives.
    pub alive: bool,
    /// Cells that show another value than was written.
    pub values: BTreeMap<ColumnIndex, CellValue>,
    /// Whether every reader needs every cell: the row was united with another one, or parted from it.
    pub whole: bool,
}

/// What stays of a column whose author's row has left the one that it was one with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// What was told.
    Told,
    /// NULL: other rows may want the value, or be referenced by it.
    Null,
    /// Nothing: it would have to be NULL, which the column does not take.
    Nothing,
}

impl RowState {
    /// The merge of rows that are one thing written twice, in the order of their births: of those that live, or of all
    /// if none does. Columns with a rule are merged by it: what was added to one of them was added to all.
    pub fn united<'a>(members: impl IntoIterator<Item = &'a Self> + Clone, rules: &[Rule]) -> Self {
        let any_alive = members.clone().into_iter().any(Self::is_alive);
        let mut united = Self::default();
        for member in members.into_iter().filter(|member| !any_alive || member.is_alive()) {
            united.number = united.number.or(member.number);
            united.whole_since = united.whole_since.max(member.whole_since);
            if !any_alive
                && united.deleted.as_ref().map(|it| it.stamp) < member.deleted.as_ref().map(|it| it.stamp)
            {
                united.deleted.clone_from(&member.deleted);
            }
            for (column, cell) in &member.cells {
                let rule = rules.get(usize::from(*column)).copied().unwrap_or_default();
                let made = member.made.get(column);
                let (cell, made) = match united.cells.get(column) {
                    Some(present) => rule.unite((present, united.made.get(column)), (cell, made)),
                    None => (cell.clone(), made.cloned()),
                };
                united.cells.insert(*column, cell);
                match made {
                    Some(made) => united.made.insert(*column, made),
                    None => united.made.remove(column),
                };
            }
        }
        united
    }

    /// What readers are told of a row whose raw state this is, and which was told as `before`.
    ///
    /// What stays as it was told keeps its position; what the raw state changed above `since` keeps the
    /// position and the writer of that write; everything else takes `position`, and is told to everyone.
    #[must_use]
    pub fn effective(&self, before: &Self, verdict: &Verdict, since: Seq, position: Seq) -> Self {
        let cells = self.cells.iter().map(|(column, cell)| {
            let value = verdict.values.get(column).unwrap_or(&cell.value);
            let told =
                before.cells.get(column).filter(|told| told.stamp == cell.stamp && told.value == *value);
            let cell = match told {
                Some(told) => told.clone(),
                None if *value == cell.value && cell.seq > since => cell.clone(),
                None => Cell { stamp: cell.stamp, seq: position, writer: NOBODY, value: value.clone() },
            };
            (*column, cell)
        });
        let was_told = !before.cells.is_empty() || before.deleted.is_some();
        // Whoever deleted a row that lives on has dropped it.
        let outlived =
            verdict.alive && !self.is_alive() && self.deleted.as_ref().is_some_and(|it| it.seq > since);
        let back = verdict.alive && was_told && !before.is_alive();
        let whole = (verdict.whole || outlived || back).then_some(position);
        Self {
            number: self.number.or(before.number),
            whole_since: before.whole_since.max(self.whole_since).max(whole.unwrap_or(0)),
            deleted: self.effective_delete(before, verdict, since, position),
            cells: cells.collect(),
            made: BTreeMap::new(),
            beneath: self.beneath.clone(),
        }
    }

    /// Goes on telling of columns that the row has no more: it was one with a row whose author knew more columns, and nobody
    /// can be told of a cell that is not there.
    pub fn keep_told(&mut self, before: &Self, position: Seq, remainder: impl Fn(ColumnIndex) -> Remainder) {
        for (column, told) in &before.cells {
            if self.cells.contains_key(column) {
                continue;
            }
            let kept = match remainder(*column) {
                Remainder::Nothing => continue,
                Remainder::Null if told.value != Value::Null.into() => {
                    let value = Value::Null.into();
                    Cell { stamp: told.stamp, seq: position, writer: NOBODY, value }
                }
                Remainder::Null | Remainder::Told => told.clone(),
            };
            self.cells.insert(*column, kept);
        }
    }

    fn effective_delete(
        &self,
        before: &Self,
        verdict: &Verdict,
        since: Seq,
        position: Seq,
    ) -> Option<Cell<()>> {
        let raw = self.deleted.as_ref();
        let stamp = match (verdict.alive, self.is_alive()) {
            (true, false) => None,
            (false, true) => self.cells.values().map(|cell| cell.stamp).max(),
            _ => raw.map(|delete| delete.stamp),
        }?;
        let told = before.deleted.as_ref().filter(|told| told.stamp == stamp);
        let written = raw.filter(|delete| delete.stamp == stamp && delete.seq > since);
        Some(told.or(written).cloned().unwrap_or(Cell { stamp, seq: position, writer: NOBODY, value: () }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hlc, Op, Stamp, Write};

    const READER: u64 = 99;

    fn stamp(ms: u64, replica: u64) -> Stamp {
        Stamp { hlc: Hlc(ms), replica }
    }

    fn set(ms: u64, replica: u64, cells: &[(ColumnIndex, i64)]) -> Write {
        let cells = cells.iter().map(|(column, value)| (*column, Value::Integer(*value).into())).collect();
        Write { stamp: stamp(ms, replica), base: 0, op: Op::Set(cells) }
    }

    fn delete(ms: u64, replica: u64) -> Write {
        Write { stamp: stamp(ms, replica), base: 0, op: Op::Delete }
    }

    fn row(writes: &[(u64, Write)], from: Seq) -> RowState {
        let mut state = RowState::default();
        for (seq, (writer, write)) in (from..).zip(writes) {
            state.merge(None, std::slice::from_ref(write), *writer, seq);
        }
        state
    }

    fn alive() -> Verdict {
        Verdict { alive: true, ..Verdict::default() }
    }

    #[test]
    fn a_row_that_no_rule_touches_is_told_as_it_was_written() {
        let raw = row(&[(1, set(5, 1, &[(0, 1), (1, 2)]))], 3);
        assert_eq!(raw.effective(&RowState::default(), &alive(), 2, 9), raw);
        assert_eq!(raw.effective(&raw, &alive(), 8, 9), raw, "and told once");
    }

    /// Breaks if a derived value takes a stamp of its own, or is kept from the replica that wrote.
    #[test]
    fn a_derived_value_stands_in_for_the_write_and_goes_to_everyone_and_back() {
        let raw = row(&[(1, set(5, 1, &[(0, 1)]))], 3);
        let nulled = Verdict { values: [(0, Value::Null.into())].into(), ..alive() };
        let told = raw.effective(&raw, &nulled, 8, 9);
        assert_eq!(
            told.cells[&0],
            Cell { stamp: stamp(5, 1), seq: 9, writer: NOBODY, value: Value::Null.into() }
        );
        assert!(told.since(8, 1).is_some());
        assert_eq!(raw.effective(&told, &nulled, 10, 11), told, "told once");
        let back = raw.effective(&told, &alive(), 11, 12);
        assert_eq!(
            back.cells[&0],
            Cell { stamp: stamp(5, 1), seq: 12, writer: NOBODY, value: Value::Integer(1).into() }
        );
    }

    #[test]
    fn a_derived_death_is_told_to_everyone_and_its_end_brings_the_whole_row() {
        let raw = row(&[(1, set(5, 1, &[(0, 1), (1, 2)]))], 3);
        let dead = raw.effective(&raw, &Verdict::default(), 8, 9);
        assert!(!dead.is_alive());
        assert!(dead.since(8, 1).is_some());
        let back = raw.effective(&dead, &alive(), 10, 11);
        assert!(back.is_alive());
        let (writes, whole) = back.since(10, READER).unwrap();
        assert!(whole && writes.iter().all(|write| write.op != Op::Delete), "{writes:?}");
    }

    #[test]
    fn a_row_that_is_kept_alive_comes_back_to_whoever_deleted_it() {
        let mut raw = row(&[(1, set(5, 1, &[(0, 1)]))], 3);
        let before = raw.clone();
        raw.merge(None, &[delete(6, 2)], 2, 4);
        let kept = raw.effective(&before, &alive(), 3, 5);
        assert!(kept.is_alive());
        assert!(kept.since(4, 2).is_some_and(|(_, whole)| whole));
        assert_eq!(
            raw.effective(&kept, &alive(), 4, 9),
            kept,
            "once: the delete is none of what came after it"
        );
        let gone = raw.effective(&kept, &Verdict::default(), 8, 9);
        assert!(!gone.is_alive() && gone.since(8, READER).is_some());
    }

    #[test]
    fn united_rows_merge_cell_by_cell_and_a_withdrawn_one_takes_its_cells_along() {
        let one = row(&[(1, set(5, 1, &[(0, 1), (1, 10)]))], 1);
        let mut other = row(&[(2, set(6, 2, &[(0, 2)]))], 2);
        let united = RowState::united([&one, &other], &[]);
        assert_eq!(united.cells[&0].value, Value::Integer(2).into());
        assert_eq!(united.cells[&1].value, Value::Integer(10).into());
        other.merge(None, &[delete(9, 2)], 2, 3);
        assert_eq!(RowState::united([&one, &other], &[]).cells, one.cells);
        let mut gone = one.clone();
        gone.merge(None, &[delete(8, 1)], 1, 4);
        assert!(!RowState::united([&gone, &other], &[]).is_alive());
    }

    #[test]
    fn a_column_that_is_gone_is_told_on_or_taken_back_once_or_not_told_at_all() {
        let before = row(&[(1, set(5, 1, &[(0, 1), (1, 10), (2, 20), (3, 30)]))], 1);
        let remainder = |column| match column {
            0 | 1 => Remainder::Told,
            2 => Remainder::Null,
            _ => Remainder::Nothing,
        };
        let mut told = row(&[(2, set(6, 2, &[(0, 2)]))], 2);
        told.keep_told(&before, 9, remainder);
        assert_eq!(told.cells[&0].value, Value::Integer(2).into());
        assert_eq!(told.cells[&1], before.cells[&1]);
        let null = Cell { stamp: before.cells[&2].stamp, seq: 9, writer: NOBODY, value: Value::Null.into() };
        assert_eq!(told.cells[&2], null);
        assert!(!told.cells.contains_key(&3));
        let mut later = row(&[(2, set(6, 2, &[(0, 2)]))], 2);
        later.keep_told(&told, 12, remainder);
        assert_eq!(later, told, "it was told");
    }
}
