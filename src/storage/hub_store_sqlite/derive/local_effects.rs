//! What foreign keys did on the replica that deleted a parent is no write: the hub derives it anew.
//!
//! A child that went with its parent, or was cut loose from it, in one push has its own writes taken back, so
//! that it comes back with the parent if that outlives the delete.

use std::collections::BTreeSet;

use super::{Deriver, LinkRule};
use crate::model::{Cell, CellValue, ColumnIndex, NOBODY, Seq, Value};
use crate::storage::hub_store::StoreError;
use crate::storage::table_info::OnDelete;

impl Deriver<'_> {
    /// Notes that a row was deleted by its own stamps, the conflicts that were counted for it, and the delete
    /// that there was before.
    pub fn deleted(&mut self, no: i64, conflicts: u32, before: Option<Cell<()>>) {
        self.deleted.insert(no, (conflicts, before));
    }

    /// Takes back what `writer`'s foreign keys did in the push that began after `from`.
    pub fn take_back_local_effects(
        &mut self,
        touched: &mut BTreeSet<i64>,
        writer: u64,
        from: Seq,
    ) -> Result<(), StoreError> {
        let mut candidates = touched.clone();
        for no in self.deleted.keys().copied().collect::<Vec<_>>() {
            candidates.extend(self.children(no)?);
        }
        let mut revived = Vec::new();
        let mut tied = Vec::new();
        for no in candidates {
            if self.went_with_parent(no, writer, from)? {
                revived.push(no);
            }
            tied.extend(
                self.cut_loose(no, writer, from)?.into_iter().map(|(column, value)| (no, column, value)),
            );
        }
        for no in revived {
            // Somebody else's delete, which this one stood in for, was none of a foreign key's.
            let (counted, before) = self.deleted.remove(&no).unwrap_or_default();
            self.rows.get_mut(no)?.raw.deleted = before;
            self.report.conflicts = self.report.conflicts.saturating_sub(counted);
            self.rows.store(no)?;
            touched.insert(no);
            let entity = self.entity(no)?;
            self.dropped.insert(entity);
        }
        for (no, column, value) in tied {
            if let Some(cell) = self.rows.get_mut(no)?.raw.cells.get_mut(&column) {
                cell.value = value;
                // Its author has another value under this stamp, and must be told as well.
                cell.writer = NOBODY;
            }
            self.rows.store(no)?;
            touched.insert(no);
        }
        Ok(())
    }

    /// Whether the push deleted the row, and a parent that it references with CASCADE.
    fn went_with_parent(&mut self, no: i64, writer: u64, from: Seq) -> Result<bool, StoreError> {
        if !self.is_deleted_by(no, writer, from)? {
            return Ok(false);
        }
        for parent in self.parents_before(no, |link| link.on_delete == OnDelete::Refuse)? {
            if self.is_deleted_by(parent.0, writer, from)? {
                // Back among the living it would keep that one: it was deleted first, or in its own right.
                return Ok(false);
            }
        }
        for parent in self.parents_before(no, |link| link.on_delete == OnDelete::Cascade)? {
            if self.is_deleted_by(parent.0, writer, from)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The references that the push set to NULL while it deleted what they meant, as they were.
    fn cut_loose(
        &mut self,
        no: i64,
        writer: u64,
        from: Seq,
    ) -> Result<Vec<(ColumnIndex, CellValue)>, StoreError> {
        let mut cut = Vec::new();
        for (parent, column) in self.parents_before(no, |link| link.on_delete == OnDelete::SetNull)? {
            let row = self.rows.get(no)?;
            let is_cut = row.raw.cells.get(&column).is_some_and(|cell| {
                cell.value == Value::Null.into() && cell.writer == writer && cell.seq > from
            });
            let was = row.before.cells.get(&column).map(|cell| cell.value.clone());
            if is_cut
                && let Some(was) = was
                && self.is_deleted_by(parent, writer, from)?
            {
                cut.push((column, was));
            }
        }
        Ok(cut)
    }

    fn is_deleted_by(&mut self, no: i64, writer: u64, from: Seq) -> Result<bool, StoreError> {
        self.rows.load(no)?;
        let raw = &self.rows.get(no)?.raw;
        let is_pushed = |by: u64, seq: Seq| by == writer && seq > from;
        let Some(delete) = raw.deleted.as_ref().filter(|it| is_pushed(it.writer, it.seq)) else {
            return Ok(false);
        };
        // What was deleted and made again has taken its children with it. What somebody else's edit has brought
        // back has not, although it lives.
        let again = raw.cells.values().any(|it| is_pushed(it.writer, it.seq) && it.stamp > delete.stamp);
        Ok(!again)
    }

    /// The parents that a row was told to have, over some of its references, each with its first column.
    pub(super) fn parents_before(
        &mut self,
        no: i64,
        is_meant: impl Fn(&LinkRule) -> bool,
    ) -> Result<Vec<(i64, ColumnIndex)>, StoreError> {
        self.rows.load(no)?;
        let row = self.rows.get(no)?;
        let Some(rules) = self.rules.table(row.table) else { return Ok(Vec::new()) };
        // Only what the references hold is copied: a row can be large, and every row of a push comes by here.
        let value = |column| row.before.cells.get(column).map(|cell| cell.value.clone());
        let links = rules.links.iter().filter(|link| is_meant(link));
        let told: Vec<(&LinkRule, Vec<CellValue>)> = links
            .filter_map(|link| Some((link, link.columns.iter().map(value).collect::<Option<_>>()?)))
            .collect();
        let mut parents = Vec::new();
        for (link, values) in told {
            if let Some((parent, _)) = self.parent(link, &values, &mut BTreeSet::new())? {
                parents.push((parent, link.columns[0]));
            }
        }
        Ok(parents)
    }
}
