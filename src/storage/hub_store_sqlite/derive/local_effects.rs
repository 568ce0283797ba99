//! What foreign keys did on the replica that deleted a parent is no write: the hub derives it anew.
//!
//! A replica says of a delete, or of a reference that was replaced, whether a statement said so or a clause did, as another
//! row was deleted. What a clause did is forgotten, so that the row comes back with the parent if that outlives its
//! delete; but only if the hub knows as well that the row referenced one which that replica has deleted. It may have
//! referenced another one for a while of which the hub has never heard.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Deriver, LinkRule};
use crate::model::{CellValue, ColumnIndex, Op, RowChange, RowState, Rule, RuleBook, Seq};
use crate::storage::hub_store::StoreError;
use crate::storage::table_info::OnDelete;

/// What of a change no statement has said.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// The delete of the row: what its author had seen.
    gone: Option<Seq>,
    /// References that were replaced, each with what it was replaced by, and what the author had seen.
    cut: BTreeMap<ColumnIndex, (CellValue, Seq)>,
}

impl Effects {
    /// Takes the marks off the writes of a change.
    pub fn take(change: &mut RowChange) -> Self {
        let mut effects = Self::default();
        for write in &mut change.writes {
            match &write.op {
                Op::Gone => effects.gone = Some(write.base),
                Op::Cut(cells) => {
                    effects.cut.extend(cells.iter().map(|(at, value)| (*at, (value.clone(), write.base))));
                }
                Op::Set(_) | Op::Adjust(_) | Op::Delete => continue,
            }
            let op = std::mem::replace(&mut write.op, Op::Delete);
            write.op = op.as_said();
        }
        effects
    }

    /// Whether there are any.
    pub fn is_any(&self) -> bool {
        self.gone.is_some() || !self.cut.is_empty()
    }
}

/// A row before a batch, and what the batch did to it.
pub struct Earlier {
    /// What it was.
    pub raw: RowState,
    /// What was done.
    pub change: RowChange,
    /// What of that no statement has said.
    pub effects: Effects,
    /// The rules of the table's columns.
    pub rules: Vec<Rule>,
    /// The position of the merge.
    pub position: Seq,
    /// The conflicts that count.
    pub conflicts: u32,
}

impl Earlier {
    /// Whether the last that was done was to delete the row.
    fn is_of_delete(&self) -> bool {
        let last = self.change.writes.iter().max_by_key(|write| write.stamp);
        last.is_some_and(|write| write.op.is_delete())
    }
}

/// Who deleted rows, after having seen this much of them.
#[derive(Clone, Copy)]
struct Deleter {
    writer: u64,
    base: Seq,
}

/// Of which rows it is known whether they are gone for a deleter who had seen this much.
type KnownGone = HashMap<Seq, HashMap<i64, bool>>;

impl Deriver<'_> {
    /// Notes what a row was before this batch.
    pub fn note_earlier(&mut self, no: i64, earlier: Earlier) {
        self.earlier.insert(no, earlier);
    }

    /// Takes back what the clauses of `writer`'s foreign keys did in this batch.
    pub fn take_back_effects(&mut self, touched: &mut BTreeSet<i64>, writer: u64) -> Result<(), StoreError> {
        // What a row referenced before it was made again is not what a clause has replaced since.
        let is_marked = |no: &i64, it: &Earlier| it.effects.is_any() && !self.births.contains(no);
        let marked = self.earlier.iter().filter(|(no, it)| is_marked(no, it));
        let marked: Vec<(i64, Effects)> = marked.map(|(no, it)| (*no, it.effects.clone())).collect();
        // Whether a row counts as deleted follows from what the batch did, before any of it is taken back.
        let (mut forgotten, mut known) = (Vec::new(), HashMap::new());
        for (no, effects) in marked {
            let is_gone = match effects.gone {
                Some(base) => self.has_gone_with_a_parent(no, Deleter { writer, base }, &mut known)?,
                None => false,
            };
            let cut = self.cut_loose(no, &effects, writer, &mut known)?;
            if is_gone || !cut.is_empty() {
                forgotten.push((no, is_gone, cut));
            }
        }
        for (no, is_gone, cut) in forgotten {
            if self.forget(no, is_gone, &cut, writer)? {
                touched.insert(no);
            } else {
                touched.remove(&no);
            }
        }
        Ok(())
    }

    /// Takes a row's delete back, or what its references were replaced by, or both. Returns whether it is to be derived: not
    /// if it is as it was before the batch, and was told as dead then.
    fn forget(
        &mut self,
        no: i64,
        is_delete: bool,
        cut: &[ColumnIndex],
        writer: u64,
    ) -> Result<bool, StoreError> {
        let Some(mut earlier) = self.earlier.remove(&no) else { return Ok(true) };
        let writes = &mut earlier.change.writes;
        writes.retain(|write| !is_delete || !write.op.is_delete());
        for write in &mut *writes {
            if let Op::Set(cells) = &mut write.op {
                cells.retain(|(column, _)| !cut.contains(column));
            }
        }
        writes.retain(|write| write.op != Op::Set(Vec::new()));
        let is_as_it_was = writes.is_empty();
        let (mut raw, mut book) = (earlier.raw, RuleBook::of(&earlier.rules));
        let number = earlier.change.number;
        let merged = raw.merge_by(&mut book, number, writes, writer, earlier.position);
        let derived = earlier.conflicts.saturating_sub(merged.conflicts);
        self.report.conflicts = self.report.conflicts.saturating_sub(derived);
        let position = self.tenant.seq;
        let row = self.rows.get_mut(no)?;
        row.raw = raw;
        row.note_death(position);
        self.rows.store(no)?;
        // If it lives on, it is needed whole where it is not, or shows another value.
        let entity = self.entity(no)?;
        self.dropped.insert(entity);
        if is_delete {
            self.cascaded.insert(entity);
        }
        let was_dead = self.rows.get(no)?.was_told_dead();
        Ok(!(is_as_it_was && was_dead && entity == no && self.members(no)?.len() == 1))
    }

    /// Whether a row went, over CASCADE, with a parent that its deleter has deleted.
    fn has_gone_with_a_parent(
        &mut self,
        no: i64,
        by: Deleter,
        known: &mut KnownGone,
    ) -> Result<bool, StoreError> {
        if !self.earlier.get(&no).is_some_and(Earlier::is_of_delete) {
            return Ok(false);
        }
        for parent in self.parents_seen(no, |link| link.on_delete == OnDelete::Refuse)? {
            if self.is_any_deleted(parent, by)? {
                // Back among the living it would keep that one.
                return Ok(false);
            }
        }
        let parents = self.parents_seen(no, |link| link.on_delete == OnDelete::Cascade)?;
        self.is_any_gone(parents, by, known)
    }

    /// Whether one of these rows was deleted, or went with one that was.
    fn is_any_gone(
        &mut self,
        rows: BTreeSet<i64>,
        by: Deleter,
        known: &mut KnownGone,
    ) -> Result<bool, StoreError> {
        // What went with another one is not known as deleted any more.
        let parents = |it: &mut Self, no| {
            Ok(it.parents_seen(no, |link| link.on_delete == OnDelete::Cascade)?.into_iter().collect())
        };
        let known = known.entry(by.base).or_default();
        self.is_any_above(rows.into_iter().collect(), known, |it, no| it.is_any_deleted(no, by), parents)
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

    /// The references that a clause has replaced, of rows that were deleted, and that the hub replaces likewise.
    fn cut_loose(
        &mut self,
        no: i64,
        effects: &Effects,
        writer: u64,
        known: &mut KnownGone,
    ) -> Result<Vec<ColumnIndex>, StoreError> {
        let Some(earlier) = self.earlier.get(&no) else { return Ok(Vec::new()) };
        let Some(rules) = self.rules.table(self.rows.get(no)?.table) else { return Ok(Vec::new()) };
        // What the row was told to reference is replaced already if somebody else has deleted the parent as well.
        let value = |column: &ColumnIndex| earlier.raw.cells.get(column).map(|cell| cell.value.clone());
        let mut meant = Vec::new();
        for link in rules.links.iter().filter(|link| is_replacing(link)) {
            let replaced = link.replacement.iter().flatten().zip(&link.columns);
            let cut: BTreeMap<ColumnIndex, Seq> = replaced
                .filter_map(|(by, column)| {
                    let (value, base) = effects.cut.get(column)?;
                    (value == by).then_some((*column, *base))
                })
                .collect();
            let values: Option<Vec<CellValue>> = link.columns.iter().map(value).collect();
            if let (Some(base), Some(values)) = (cut.values().min().copied(), values) {
                meant.push((link, values, cut, base));
            }
        }
        let mut all = Vec::new();
        for (link, values, cut, base) in meant {
            if let Some((parent, _)) = self.parent(link, &values, &mut BTreeSet::new())?
                && self.is_any_gone([parent].into(), Deleter { writer, base }, known)?
            {
                all.extend(cut.into_keys());
            }
        }
        Ok(all)
    }

    /// Whether a row, or one that is one with it, was deleted: it may not have been known that they are.
    fn is_any_deleted(&mut self, no: i64, by: Deleter) -> Result<bool, StoreError> {
        self.rows.load(no)?;
        for member in self.members(no)? {
            if self.is_deleted(member, by)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_deleted(&mut self, no: i64, by: Deleter) -> Result<bool, StoreError> {
        if let Some(earlier) = self.earlier.get(&no) {
            // Somebody else's later delete, or edit, hides it in what was merged.
            return Ok(earlier.is_of_delete());
        }
        self.rows.load(no)?;
        // What was deleted and made again has taken its children with it, and its delete has no position. What somebody
        // else's edit has brought back has not, although it lives.
        let mut deletes = self.rows.get(no)?.raw.deletes();
        Ok(deletes.any(|delete| delete.writer == by.writer && delete.seq > by.base))
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

fn is_replacing(link: &LinkRule) -> bool {
    matches!(link.on_delete, OnDelete::SetNull | OnDelete::SetDefault)
}
