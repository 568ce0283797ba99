//! Merging the columns that have a rule of their own.
//!
//! What a rule makes of two writes is nobody's write, so it is told to everyone, its last author included: its
//! writer is [`NOBODY`], and its stamp exceeds both, so that every replica takes it.

use super::made::{Addition, Made};
use super::{Adjustment, Cell, CellValue, ColumnIndex, NOBODY, RowState, Rule, Seq, Stamp, Value, Write};

/// The rules of a table's columns, and what came up while merging by them.
#[derive(Debug, Default)]
pub struct RuleBook<'a> {
    /// By the hub's number of the column; columns beyond the end have none.
    pub rules: &'a [Rule],
    /// Concurrent writes of columns whose rule is [`Rule::Resolver`].
    pub contests: Vec<Contest>,
    /// Whether what one replica had before it synced stands in place of what another one had.
    pub has_passed_over: bool,
}

/// Two concurrent writes of one cell, for the replica that pushed the second to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// The column.
    pub column: ColumnIndex,
    /// What the hub had.
    pub present: Cell,
    /// What was pushed.
    pub pushed: Cell,
}

impl<'a> RuleBook<'a> {
    /// A book of these rules.
    pub fn of(rules: &'a [Rule]) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The rule of a column.
    pub fn rule(&self, column: ColumnIndex) -> Rule {
        self.rules.get(usize::from(column)).copied().unwrap_or_default()
    }
}

impl Rule {
    /// One cell of two rows that are one thing written twice, and what it is made of. The later one's stamp goes
    /// with what the rule makes of both. Of two that are older than syncing, `a` is taken for the later one: it is of the
    /// row that was born first, which stands whole.
    pub(super) fn unite(self, a: (&Cell, Option<&Made>), b: (&Cell, Option<&Made>)) -> (Cell, Option<Made>) {
        let of = |(cell, made): (&Cell, Option<&Made>)| made.cloned().unwrap_or_else(|| Made::of(cell));
        let is_first =
            a.0.stamp.max(b.0.stamp) != Stamp::ZERO && (a.0.stamp, &a.0.value) < (b.0.stamp, &b.0.value);
        let ((earlier, before), (later, after)) = if is_first { (a, b) } else { (b, a) };
        let plain = |cell: &Cell| match &cell.value {
            CellValue::Plain(value) => value.clone(),
            CellValue::Ref(_) => Value::Null,
        };
        let value = match self {
            Self::Max | Self::Min => self.choose(&earlier.value, &later.value).cloned(),
            // Both began with nothing, so that each is what was done to it.
            Self::Counter | Self::Set => self
                .difference(&Value::Null, &plain(earlier))
                .filter(|_| self.difference(&Value::Null, &plain(later)).is_some())
                .map(|done| done.apply(&plain(later)).into()),
            Self::Lww | Self::Resolver => None,
        };
        let made = match &value {
            Some(_) if matches!(self, Self::Counter | Self::Set) => Some(of(a).and(&of(b))),
            Some(value) if *value == earlier.value => Some(of((earlier, before))),
            _ => after.cloned(),
        };
        let cell = match value {
            Some(value) if value != later.value => {
                Cell { stamp: later.stamp, seq: earlier.seq.max(later.seq), writer: NOBODY, value }
            }
            _ => later.clone(),
        };
        (cell, made)
    }
}

/// The least stamp that beats `present`, or `new` if that does.
fn newer(present: Stamp, new: Stamp) -> Stamp {
    if new > present { new } else { Stamp { hlc: present.hlc.next(), ..present } }
}

impl RowState {
    /// Merges a cell by a rule that chooses; says whether the row is to be told of.
    pub(super) fn choose(
        &mut self,
        rule: Rule,
        column: ColumnIndex,
        value: &CellValue,
        write: &Write,
        writer: u64,
        seq: Seq,
    ) -> bool {
        let Some(present) = self.cells.get(&column) else {
            let cell = Cell { stamp: write.stamp, seq, writer, value: value.clone() };
            self.cells.insert(column, cell);
            return true;
        };
        let kept = rule.choose(&present.value, value).unwrap_or(value).clone();
        let is_news = write.stamp > present.stamp;
        // Its author shows the other value now, and would not be told of this one.
        let must_hear = kept != *value && (present.writer == writer || write.base >= present.seq);
        if kept == present.value && !is_news && !must_hear {
            return self.note_written(column, write.stamp);
        }
        let author = if kept == *value && is_news { writer } else { NOBODY };
        let before = self.made.get(&column).cloned().unwrap_or_else(|| Made::of(present));
        let made = if kept == present.value { before } else { before.replaced_by(writer, seq) };
        self.made.insert(column, made.written_at(write.stamp));
        let stamp = self.within_life(present.stamp, write.stamp);
        self.cells.insert(column, Cell { stamp, seq, writer: author, value: kept });
        true
    }

    /// Applies what a write did to the present value; says whether the row is to be told of.
    pub(super) fn adjust(
        &mut self,
        column: ColumnIndex,
        adjustment: &Adjustment,
        write: &Write,
        writer: u64,
        seq: Seq,
    ) -> bool {
        let nothing = CellValue::Plain(Value::Null);
        let present = self.cells.get(&column);
        let value = match present.map_or(&nothing, |cell| &cell.value) {
            CellValue::Plain(value) => adjustment.apply(value),
            CellValue::Ref(_) => return false,
        };
        let stamp = present.map_or(write.stamp, |cell| self.within_life(cell.stamp, write.stamp));
        let made = self.made.remove(&column).or_else(|| present.map(Made::of)).unwrap_or_default();
        let made = made.with_part(writer, seq).written_at(write.stamp);
        let made = match adjustment {
            Adjustment::Add(amount) => made.with_addition(Addition { seq, writer, amount: *amount }),
            Adjustment::Edit { .. } => made,
        };
        self.made.insert(column, made);
        self.cells.insert(column, Cell { stamp, seq, writer: NOBODY, value: value.into() });
        true
    }

    /// A delete cancels the additions that its author had seen, and its own. Says whether that changed anything.
    pub(super) fn cancel(&mut self, base: Seq, writer: u64, seq: Seq) -> bool {
        let mut changed = false;
        for (column, made) in self.made.iter_mut().filter(|(_, made)| made.is_counter()) {
            let Some(cell) = self.cells.get_mut(column) else { continue };
            let left = CellValue::from(made.cancel(base, writer));
            if cell.value != left {
                *cell = Cell { stamp: cell.stamp, seq, writer: NOBODY, value: left };
                changed = true;
            }
        }
        changed
    }

    /// Notes when a value was written that changes nothing of a cell which rules made. Says whether that is later than
    /// all that it was made of.
    pub(super) fn note_written(&mut self, column: ColumnIndex, stamp: Stamp) -> bool {
        let Some(made) = self.made.get_mut(&column).filter(|made| made.is_written_before(stamp)) else {
            return false;
        };
        *made = std::mem::take(made).written_at(stamp);
        true
    }

    /// What rules made is told under a stamp above all that it was made of. Beneath a delete that is later than
    /// all of that, it must not bring the row back. Says whether that changed anything: whoever has the row by that
    /// stamp is to be told.
    pub(super) fn sink(&mut self, seq: Seq) -> bool {
        let Some(delete) = self.deleted.as_ref().map(|delete| delete.stamp) else { return false };
        let mut changed = false;
        for (column, cell) in self.cells.iter_mut().filter(|(_, cell)| cell.stamp > delete) {
            if self.made.get(column).is_some_and(|made| made.is_written_by(delete)) {
                (cell.stamp, cell.seq, cell.writer) = (delete, seq, NOBODY);
                changed = true;
            }
        }
        changed
    }

    /// Whether someone who had seen everything up to `base` wrote without knowing of some cell's present value.
    pub(super) fn is_concurrent_with(&self, writer: u64, base: Seq) -> bool {
        self.cells.iter().any(|(column, cell)| match self.made.get(column) {
            Some(made) => made.is_concurrent_with(writer, base),
            None => cell.is_concurrent_with(writer, base),
        })
    }

    /// A stamp for what a rule made, which must not bring a row back that the write itself would not.
    fn within_life(&self, present: Stamp, new: Stamp) -> Stamp {
        let stamp = newer(present, new);
        match &self.deleted {
            Some(delete) if stamp > delete.stamp && new.max(present) <= delete.stamp => present,
            _ => stamp,
        }
    }
}

#[cfg(test)]
mod tests;
