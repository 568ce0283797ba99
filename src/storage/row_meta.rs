//! What a replica remembers of a row: its cells' stamps and fingerprints, and which of them are unsent.

use serde::{Deserialize, Serialize};

use super::driver::SqlError;
use super::meta_codec;
use super::ruled::RuledCell;
use crate::model::{Hlc, Op, RowId, RowUpdate, Seq, Stamp};

/// A replica's number for a column of a table: its position in `_federation_table.columns`.
pub type LocalColumn = u16;

/// A write that the hub has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What this replica had seen of the row when it wrote.
    pub base: Seq,
    /// The mark of the batch that carried it; 0 if none did yet.
    pub mark: u64,
    /// Whether no statement said so: it is what a foreign key's clause made of the delete of another row.
    pub is_effect: bool,
}

/// What is remembered of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellMeta {
    /// Which column.
    pub column: LocalColumn,
    /// The stamp of the write that holds the cell.
    pub stamp: Stamp,
    /// The fingerprint of the value in the table when it was last looked at.
    pub fingerprint: u64,
    /// Set if the write is this replica's own and may be unacknowledged.
    pub pending: Option<Pending>,
}

/// What is remembered of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Its stamp.
    pub stamp: Stamp,
    /// Set if the delete is this replica's own and may be unacknowledged.
    pub pending: Option<Pending>,
}

/// What is remembered of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowMeta {
    /// The position up to which this row's changes have been merged, if it is beyond the replica's cursor
    /// (a pull that is under way).
    pub seen: Seq,
    /// An update of this row is in quarantine: writes here have not seen it.
    pub held: bool,
    /// Set until the hub is known to have the row: the mark of the batch that first carried all of it; 0 if none
    /// did yet.
    pub unshared: Option<u64>,
    /// The last delete.
    pub deleted: Option<Tombstone>,
    /// The number that the row had here before it was deleted: if it comes back, that is its number.
    pub number: Option<i64>,
    /// The row that this one was found to be, written twice. There is nothing here under this identity.
    pub united: Option<RowId>,
    /// The cells; none for an identity that is only reserved.
    pub cells: Vec<CellMeta>,
    /// What is kept besides of cells whose rule looks at what a write did.
    pub ruled: Vec<RuledCell>,
}

/// Whether an update tells of a row that is dead.
fn is_of_death(update: &RowUpdate) -> bool {
    let newest = |is_delete: bool| {
        let writes = update.writes.iter().filter(|write| (write.op == Op::Delete) == is_delete);
        writes.map(|write| write.stamp).max()
    };
    newest(true) > newest(false)
}

impl RowMeta {
    /// The bytes for `_federation_row.state`.
    pub fn encode(&self) -> Result<Vec<u8>, SqlError> {
        meta_codec::encode(self)
    }

    /// Reads `_federation_row.state`.
    pub fn decode(bytes: &[u8]) -> Result<Self, SqlError> {
        meta_codec::decode(bytes)
    }

    /// The cell of a column.
    pub fn cell(&self, column: LocalColumn) -> Option<&CellMeta> {
        self.cells.iter().find(|cell| cell.column == column)
    }

    /// Replaces or adds a cell.
    pub fn put(&mut self, cell: CellMeta) {
        match self.cells.iter_mut().find(|present| present.column == cell.column) {
            Some(present) => *present = cell,
            None => self.cells.push(cell),
        }
    }

    /// A row lives while one of its cells is newer than its last delete (`RowState::is_alive`).
    pub fn is_alive(&self) -> bool {
        let newest = self.cells.iter().map(|cell| cell.stamp).max();
        newest > self.deleted.map(|delete| delete.stamp)
    }

    /// The highest clock reading of the row.
    pub fn highest(&self) -> Hlc {
        let cells = self.cells.iter().map(|cell| cell.stamp.hlc);
        cells.chain(self.deleted.map(|delete| delete.stamp.hlc)).max().unwrap_or(Hlc::ZERO)
    }

    /// An identity that was given away before its row was seen.
    pub fn is_reserved(&self) -> bool {
        self.cells.is_empty() && self.deleted.is_none() && self.united.is_none()
    }

    /// Turns what batches beyond `acked` carried into unsent writes.
    pub fn forget_sent(&mut self, acked: u64) {
        let pending = self.cells.iter_mut().map(|cell| &mut cell.pending);
        for pending in pending.chain(self.deleted.iter_mut().map(|delete| &mut delete.pending)) {
            *pending = pending
                .filter(|pending| !pending.is_acked(acked))
                .map(|pending| Pending { mark: 0, ..pending });
        }
        self.unshared = self.is_new_to_hub(acked).then_some(0);
        self.forget_sent_adjustments(acked);
    }

    /// Turns what the batch `mark` carried into unsent writes: it was not taken.
    pub fn refuse(&mut self, mark: u64) {
        let pending = self.cells.iter_mut().filter_map(|cell| cell.pending.as_mut());
        let pending = pending.chain(self.deleted.iter_mut().filter_map(|delete| delete.pending.as_mut()));
        pending.filter(|pending| pending.mark == mark).for_each(|pending| pending.mark = 0);
        if self.unshared == Some(mark) {
            self.unshared = Some(0);
        }
        self.refuse_adjustments(mark);
    }

    /// Notes that this update of the hub is in the row. Returns whether the table is to be asked for again: of a write
    /// here and an update that was set aside, the hub has not told this replica what it made of both. `acked` is the
    /// mark of the last batch that the hub knew when it sent the update.
    pub fn told(&mut self, update: &RowUpdate, acked: u64) -> bool {
        let is_outdated = self.held && self.cells.iter().any(|cell| cell.is_unknown_to_hub(acked));
        // A row that was made here, and that the hub knows as dead only, is one that it will not have once it forgets
        // the dead.
        if !(self.is_alive() && is_of_death(update)) {
            self.unshared = None;
        }
        (self.seen, self.held) = (update.seq, false);
        is_outdated
    }

    /// Whether a cell is remembered only under a number that its column had before it was renamed.
    pub fn is_yet_to_be_carried(&self, column: LocalColumn, was: &[LocalColumn]) -> bool {
        self.cell(column).is_none() && was.iter().any(|was| self.cell(*was).is_some())
    }

    /// Whether a write of a cell has not been sent.
    pub fn is_unsent(&self) -> bool {
        self.cells.iter().any(|cell| cell.pending.is_some_and(|pending| pending.mark == 0))
    }

    /// Whether the hub cannot have the row: `acked` is the mark of the last batch that it has acknowledged.
    pub fn is_new_to_hub(&self, acked: u64) -> bool {
        self.unshared.is_some_and(|mark| !(1..=acked).contains(&mark))
    }

    /// Whether a write of a cell, which the hub has not acknowledged, has seen less than this position; `acked` is the mark
    /// of the last batch that it has.
    pub fn has_write_from_before(&self, position: Seq, acked: u64) -> bool {
        let unsent = self.cells.iter().filter(|cell| cell.is_unknown_to_hub(acked));
        unsent.filter_map(|cell| cell.pending).any(|pending| pending.base < position)
    }

    /// Has unacknowledged writes know of what the hub did at this position.
    pub fn raise_bases(&mut self, position: Seq) {
        for pending in self.cells.iter_mut().filter_map(|cell| cell.pending.as_mut()) {
            pending.base = pending.base.max(position);
        }
    }

    /// What a write to this row, made now, has seen: `cursor`, or more if a pull under way brought more, or
    /// nothing if an update of the row could not be applied.
    pub fn base(&self, cursor: Seq) -> Seq {
        if self.held { 0 } else { cursor.max(self.seen) }
    }
}

impl CellMeta {
    /// Whether the cell holds a write that the hub has not acknowledged: `acked` is the mark of the last batch
    /// that it has.
    pub fn is_unknown_to_hub(&self, acked: u64) -> bool {
        self.pending.is_some_and(|pending| !pending.is_acked(acked))
    }
}

impl Pending {
    /// Whether the hub has acknowledged it: `acked` is the mark of the last acknowledged batch.
    pub fn is_acked(&self, acked: u64) -> bool {
        (1..=acked).contains(&self.mark)
    }
}
