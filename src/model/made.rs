//! What a merge rule made a cell of: nobody wrote the cell's value, but some replicas had a part in it.

use serde::{Deserialize, Serialize};

use super::{Cell, CellValue, NOBODY, Number, Seq, Stamp, Value};

/// How many additions to a counter are remembered one by one. A delete that has seen none of the last so many
/// cancels those before them as well.
const MAX_ADDITIONS: usize = 16;

/// A part of a counter, as the hub accepted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addition {
    /// Its position.
    pub seq: Seq,
    /// [`super::ReplicaId::tie_break`] of the replica that pushed it.
    pub writer: u64,
    /// What was added.
    pub amount: Number,
}

/// What a rule made a cell of. Two positions are enough to tell whether a write knew of it all, since only its
/// own replica's part does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// The replica that had the last part in it.
    writer: u64,
    /// The position of its last part.
    seq: Seq,
    /// The last position at which any other replica had a part in it.
    other: Seq,
    /// What was written to a counter before anything was added, which a delete leaves.
    start: Option<Addition>,
    /// What was added to a counter since then, as far back as it is known.
    pub(super) additions: Vec<Addition>,
    /// The greatest stamp of a write that had a part in it. The cell's own is above it.
    #[serde(default)]
    written: Option<Stamp>,
}

impl Made {
    /// What is known of a cell that a replica wrote, before a rule makes something else of it.
    pub(super) fn of(cell: &Cell) -> Self {
        let amount = match &cell.value {
            CellValue::Plain(value) => Number::of(value),
            CellValue::Ref(_) => None,
        };
        let (writer, seq, amount) = (cell.writer, cell.seq, amount.unwrap_or(Number::ZERO));
        let start = Some(Addition { seq, writer, amount });
        Self { start, written: Some(cell.stamp), ..Self::default() }.with_part(writer, seq)
    }

    /// Whether someone who had seen everything up to `base` wrote without knowing of a part of this.
    pub(super) fn is_concurrent_with(&self, writer: u64, base: Seq) -> bool {
        base < if self.writer == writer { self.other } else { self.seq }
    }

    /// Notes who had a part in it.
    #[must_use]
    pub fn with_part(mut self, writer: u64, seq: Seq) -> Self {
        if self.writer != writer {
            self.other = self.seq;
        }
        (self.writer, self.seq) = (writer, seq);
        self
    }

    /// Notes when somebody had a part in it.
    #[must_use]
    pub(super) fn written_at(mut self, stamp: Stamp) -> Self {
        self.written = self.written.max(Some(stamp));
        self
    }

    /// Whether everything that it is made of was written before this, or at once with it.
    pub(super) fn is_written_by(&self, stamp: Stamp) -> bool {
        self.written.is_some_and(|written| written <= stamp)
    }

    /// Whether everything that it is made of was written before this.
    pub(super) fn is_written_before(&self, stamp: Stamp) -> bool {
        self.written.is_some_and(|written| written < stamp)
    }

    /// Who had a part in one of two cells. What was added is not known one by one any more.
    pub(super) fn and(&self, other: &Self) -> Self {
        let (last, first) = if self.seq > other.seq { (self, other) } else { (other, self) };
        let of_another = if first.writer == last.writer { first.other } else { first.seq };
        Self {
            writer: last.writer,
            seq: last.seq,
            other: last.other.max(of_another),
            written: last.written.max(first.written),
            ..Self::default()
        }
    }

    /// A value that one replica wrote in its place.
    pub(super) fn replaced_by(self, writer: u64, seq: Seq) -> Self {
        Self { written: self.written, ..Self::default() }.with_part(writer, seq)
    }

    /// Notes an addition.
    #[must_use]
    pub fn with_addition(mut self, addition: Addition) -> Self {
        self.additions.push(addition);
        if self.additions.len() > MAX_ADDITIONS {
            self.additions.remove(0);
        }
        self
    }

    /// Whether this is a counter.
    pub(super) fn is_counter(&self) -> bool {
        !self.additions.is_empty()
    }

    /// Takes the additions away that a delete's author had seen, and its own. Returns what is left.
    pub(super) fn cancel(&mut self, base: Seq, writer: u64) -> Value {
        self.additions.retain(|addition| addition.seq > base && addition.writer != writer);
        (self.writer, self.seq, self.other) = (NOBODY, 0, 0);
        let mut left = Number::ZERO;
        for part in self.start.into_iter().chain(self.additions.clone()) {
            left = left.plus(part.amount);
            *self = std::mem::take(self).with_part(part.writer, part.seq);
        }
        left.into()
    }
}
