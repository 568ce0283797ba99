//! What foreign keys did on the replica that deleted a parent is no write: the hub derives it anew.
//!
//! A child that went with its parent, or was cut loose from it, in one push has its own writes taken back, so
//! that it comes back with the parent if that outlives the delete.

use std::collections::{BTreeMap, BTreeSet};

use super::{Deriver, LinkRule};
use crate::model::{
    Cell, CellValue, ColumnIndex, Op, RowChange, RowState, Rule, RuleBook, Seq, Value, Write,
};
use crate::storage::hub_store::StoreError;
use crate::storage::table_info::OnDelete;

/// A row before a batch, and what the batch did to it.
pub struct Earlier {
    /// What it was.
    pub raw: RowState,
    /// What was done.
    pub change: RowChange,
    /// The rules of the table's columns.
    pub rules: Vec<Rule>,
    /// The position of the merge.
    pub position: Seq,
    /// The conflicts that count.
    pub conflicts: u32,
}

impl Earlier {
    /// Whether the batch set a column to NULL.
    fn nulls(&self, column: ColumnIndex) -> bool {
        self.change.writes.iter().any(|write| match &write.op {
            Op::Set(cells) => cells.iter().any(|(at, value)| *at == column && *value == Value::Null.into()),
            Op::Delete | Op::Adjust(_) => false,
        })
    }
}

/// Whether foreign keys can have made some of this on the replica where it was written.
pub fn may_follow(writes: &[Write]) -> bool {
    writes.iter().any(|write| match &write.op {
        Op::Delete => true,
        Op::Set(cells) => cells.iter().any(|(_, value)| *value == Value::Null.into()),
        Op::Adjust(_) => false,
    })
}

impl Deriver<'_> {
    /// Notes what a row was before this batch.
    pub fn note_earlier(&mut self, no: i64, earlier: Earlier) {
        self.earlier.insert(no, earlier);
    }

    /// Takes back what `writer`'s foreign keys did in the push that began after `from`.
    pub fn take_back_local_effects(
        &mut self,
        touched: &mut BTreeSet<i64>,
        writer: u64,
        from: Seq,
    ) -> Result<(), StoreError> {
        let mut candidates = touched.clone();
        // A write that lost to a later one has changed nothing, and may still count as a conflict.
        candidates.extend(self.earlier.keys());
        let has_delete = |earlier: &Earlier| earlier.change.writes.iter().any(|write| write.op == Op::Delete);
        let deleted: Vec<i64> =
            self.earlier.iter().filter(|(_, it)| has_delete(it)).map(|(no, _)| *no).collect();
        for no in deleted {
            // Of rows that are one, the one that stands for them has the keys.
            let entity = self.entity(no)?;
            candidates.extend(self.children(entity)?);
        }
        let mut went_with = BTreeMap::new();
        let mut cut = Vec::new();
        for no in candidates {
            let parents = self.went_with(no, writer, from)?;
            if !parents.is_empty() {
                went_with.insert(no, parents);
            }
            cut.extend(self.cut_loose(no, writer, from)?.into_iter().map(|column| (no, column)));
        }
        let mut forgotten: BTreeMap<i64, (bool, Vec<ColumnIndex>)> = BTreeMap::new();
        for no in explained(went_with) {
            forgotten.entry(no).or_default().0 = true;
        }
        for (no, column) in cut {
            forgotten.entry(no).or_default().1.push(column);
        }
        for (no, (is_delete, nulled)) in forgotten {
            self.forget(no, is_delete, &nulled, (writer, from))?;
            touched.insert(no);
        }
        Ok(())
    }

    /// Takes a row's delete back, or NULLs in its references, or both.
    fn forget(
        &mut self,
        no: i64,
        is_delete: bool,
        nulled: &[ColumnIndex],
        (writer, from): (u64, Seq),
    ) -> Result<(), StoreError> {
        let is_of_push = |delete: &Cell<()>| delete.writer == writer && delete.seq > from;
        if let Some(mut earlier) = self.earlier.remove(&no) {
            let writes = &mut earlier.change.writes;
            writes.retain(|write| !is_delete || write.op != Op::Delete);
            for write in &mut *writes {
                if let Op::Set(cells) = &mut write.op {
                    cells.retain(|(column, _)| !nulled.contains(column));
                }
            }
            writes.retain(|write| write.op != Op::Set(Vec::new()));
            let (mut raw, mut book) = (earlier.raw, RuleBook::of(&earlier.rules));
            if is_delete && raw.deletes().any(is_of_push) {
                // An earlier batch of the push deleted it as well.
                raw.undelete(writer);
            }
            let merged = raw.merge_by(&mut book, earlier.change.number, writes, writer, earlier.position);
            let derived = earlier.conflicts.saturating_sub(merged.conflicts);
            self.report.conflicts = self.report.conflicts.saturating_sub(derived);
            self.rows.get_mut(no)?.raw = raw;
        } else {
            // An earlier batch of the push deleted it.
            self.rows.get_mut(no)?.raw.undelete(writer);
        }
        let position = self.tenant.seq;
        self.rows.get_mut(no)?.note_death(position);
        self.rows.store(no)?;
        // If it lives on, it is needed whole where it is not, or shows another value.
        let entity = self.entity(no)?;
        self.dropped.insert(entity);
        if is_delete {
            self.cascaded.insert(entity);
        }
        Ok(())
    }

    /// The parents with which a row went, over CASCADE, that the push deleted.
    fn went_with(&mut self, no: i64, writer: u64, from: Seq) -> Result<Vec<i64>, StoreError> {
        if !self.is_deleted_by(no, writer, from)? {
            return Ok(Vec::new());
        }
        let keeping = self.parents_seen(no, |link| link.on_delete == OnDelete::Refuse)?;
        if !self.deleted_among(keeping, writer, from)?.is_empty() {
            // Back among the living it would keep that one: it was deleted first, or in its own right.
            return Ok(Vec::new());
        }
        let parents = self.parents_seen(no, |link| link.on_delete == OnDelete::Cascade)?;
        self.deleted_among(parents, writer, from)
    }

    /// The parents that a row may have had where it was deleted: those that it was told to have, and those of its
    /// own writes, which are others if it is one with another row, or its key was taken.
    fn parents_seen(
        &mut self,
        no: i64,
        is_meant: impl Fn(&LinkRule) -> bool,
    ) -> Result<BTreeSet<i64>, StoreError> {
        let entity = self.entity(no)?;
        let told = self.parents_before(entity, &is_meant)?;
        let mut parents: BTreeSet<i64> = told.into_iter().map(|(parent, _)| parent).collect();
        let row = self.rows.get(no)?;
        let Some(rules) = self.rules.table(row.table) else { return Ok(parents) };
        let raw = self.earlier.get(&no).map_or(&row.raw, |earlier| &earlier.raw);
        let value = |column| raw.cells.get(column).map(|cell| cell.value.clone());
        let links = rules.links.iter().filter(|link| is_meant(link));
        let written: Vec<(&LinkRule, Vec<CellValue>)> = links
            .filter_map(|link| Some((link, link.columns.iter().map(value).collect::<Option<_>>()?)))
            .collect();
        for (link, values) in written {
            parents.extend(self.parent(link, &values, &mut BTreeSet::new())?.map(|(parent, _)| parent));
        }
        Ok(parents)
    }

    /// The rows that the push deleted, of these and of those that are one with one of them: it may not have known
    /// that they are.
    fn deleted_among(
        &mut self,
        rows: impl IntoIterator<Item = i64>,
        writer: u64,
        from: Seq,
    ) -> Result<Vec<i64>, StoreError> {
        let mut deleted = Vec::new();
        for no in rows {
            self.rows.load(no)?;
            for member in self.members(no)? {
                if self.is_deleted_by(member, writer, from)? {
                    deleted.push(member);
                }
            }
        }
        Ok(deleted)
    }

    /// The references that the batch set to NULL, whether or not that won, of rows that the push deleted.
    fn cut_loose(&mut self, no: i64, writer: u64, from: Seq) -> Result<Vec<ColumnIndex>, StoreError> {
        let Some(earlier) = self.earlier.get(&no) else { return Ok(Vec::new()) };
        let Some(rules) = self.rules.table(self.rows.get(no)?.table) else { return Ok(Vec::new()) };
        // What the row was told to reference is NULL already if somebody else has deleted the parent as well.
        let value = |column: &ColumnIndex| earlier.raw.cells.get(column).map(|cell| cell.value.clone());
        let mut meant = Vec::new();
        for link in rules.links.iter().filter(|link| link.on_delete == OnDelete::SetNull) {
            let nulled: Vec<ColumnIndex> =
                link.columns.iter().copied().filter(|column| earlier.nulls(*column)).collect();
            let values: Option<Vec<CellValue>> = link.columns.iter().map(value).collect();
            if let (false, Some(values)) = (nulled.is_empty(), values) {
                meant.push((link, values, nulled));
            }
        }
        let mut cut = Vec::new();
        for (link, values, nulled) in meant {
            if let Some((parent, _)) = self.parent(link, &values, &mut BTreeSet::new())?
                && !self.deleted_among([parent], writer, from)?.is_empty()
            {
                cut.extend(nulled);
            }
        }
        Ok(cut)
    }

    fn is_deleted_by(&mut self, no: i64, writer: u64, from: Seq) -> Result<bool, StoreError> {
        if let Some(earlier) = self.earlier.get(&no) {
            // Somebody else's later delete, or edit, hides it in what was merged.
            let last = earlier.change.writes.iter().max_by_key(|write| write.stamp);
            return Ok(last.is_some_and(|write| write.op == Op::Delete));
        }
        self.rows.load(no)?;
        // What was deleted and made again has taken its children with it, and its delete is of no push. What somebody
        // else's edit has brought back has not, although it lives.
        let mut deletes = self.rows.get(no)?.raw.deletes();
        Ok(deletes.any(|delete| delete.writer == writer && delete.seq > from))
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

/// Of rows that were deleted with some of their parents, those that went with one that was deleted in its own
/// right. Rows that reference each other in a circle, or themselves, explain nothing.
fn explained(mut went_with: BTreeMap<i64, Vec<i64>>) -> Vec<i64> {
    let mut explained = Vec::new();
    loop {
        let is_explained = |parents: &Vec<i64>| parents.iter().any(|it| !went_with.contains_key(it));
        let more: Vec<i64> =
            went_with.iter().filter(|(_, parents)| is_explained(parents)).map(|(no, _)| *no).collect();
        if more.is_empty() {
            return explained;
        }
        for no in more {
            went_with.remove(&no);
            explained.push(no);
        }
    }
}
