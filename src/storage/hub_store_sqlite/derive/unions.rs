//! Rows that are one: what was written twice is united, and parted when it is no longer the same.

use std::collections::BTreeSet;

use super::Deriver;
use crate::model::{Cell, CellValue, ColumnIndex, RowId, Stamp};
use crate::storage::hub_store::StoreError;
use crate::storage::hub_store_sqlite::key::KeyDigest;
use crate::storage::hub_store_sqlite::rows::Row;

/// Whether two rows were made by different replicas, neither of which knew of the other row.
fn are_strangers(a: &Row, b: &Row) -> bool {
    a.author != b.author && a.base < b.born && b.base < a.born
}

/// Whether a row was deleted, and another one made in its place: by somebody who knew which key it had. An edit of somebody
/// else has brought it back since.
fn is_replaced(row: &Row, by: &Row, columns: &[ColumnIndex]) -> bool {
    let is_known = |column| {
        let cell = row.raw.cells.get(column);
        cell.is_none_or(|cell| cell.seq <= by.base || cell.writer == by.author)
    };
    row.raw.deleted.is_some() && row.born < by.born && columns.iter().all(is_known)
}

/// Tells that of rows older than syncing only one can stand.
pub fn first_stands(table: &str) -> String {
    format!(
        "rows of {table} were there before the first sync on several agents, under one key and with different values: \
         of each, the one that the hub was told of first stands, as a whole"
    )
}

impl Deriver<'_> {
    /// Whether the later claim to a key means the row that has it, which was written twice: of all that live of either,
    /// each was made apart from each of the others, or in its place. `have_it` says whether the two have the key by birth.
    pub(super) fn are_one(
        &mut self,
        (no, holder): (i64, i64),
        have_it: (bool, bool),
        columns: &[ColumnIndex],
    ) -> Result<bool, StoreError> {
        let (ones, others) = (self.living_members(no)?, self.living_members(holder)?);
        for one in ones {
            for other in &others {
                let (a, b) = (self.rows.get(one)?, self.rows.get(*other)?);
                let is_one = have_it.0 && have_it.1 && are_strangers(a, b)
                    || have_it.1 && is_replaced(a, b, columns)
                    || have_it.0 && is_replaced(b, a, columns);
                if !is_one {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The rows that are one with this one and live by what was written to them; all, if none does.
    fn living_members(&mut self, no: i64) -> Result<Vec<i64>, StoreError> {
        let members = self.members(no)?;
        let is_alive = |no: &i64| self.rows.get(*no).is_ok_and(|row| row.raw.is_alive());
        let living: Vec<i64> = members.iter().copied().filter(is_alive).collect();
        Ok(if living.is_empty() { members } else { living })
    }

    /// Makes two rows one, under the identity of the one that has the key.
    pub(super) fn unite(
        &mut self,
        no: i64,
        holder: i64,
        again: &mut BTreeSet<i64>,
    ) -> Result<(), StoreError> {
        let (survivor, loser) = (holder, no);
        let conflicts = self.conflicts_of_union(no, holder)? + self.conflicts_of_union(holder, no)?;
        self.report.conflicts = self.report.conflicts.saturating_add(conflicts);
        if let Some(rules) = self.rules.table(self.rows.get(no)?.table) {
            self.report.note(format!(
                "a row of {} was also made by another agent: the two are one row now",
                rules.name
            ));
            if self.differ_in_old_cells(no, holder)? {
                self.report.note(first_stands(&rules.name));
            }
        }
        let is_parent = self.is_parent(loser)?;
        for (_, key) in if is_parent { self.wanted(loser)? } else { Vec::new() } {
            if self.claims.holder(key)?.is_none() {
                self.claims.note_former(key, loser)?;
            }
        }
        for key in self.claims.held_by(loser)? {
            self.claims.release(key, is_parent)?;
        }
        again.extend(self.children(loser)?);
        let identity = self.rows.get(survivor)?.id;
        for member in self.members(loser)? {
            self.set_survivor(member, Some(identity))?;
        }
        self.has_unions = true;
        self.forget_work(loser);
        self.forget_work(survivor);
        again.remove(&loser);
        again.insert(survivor);
        self.whole.insert(survivor);
        Ok(())
    }

    /// Counts the cells of a row that this batch made and that are in conflict with those of another one, now that
    /// the two are one.
    fn conflicts_of_union(&mut self, new: i64, present: i64) -> Result<u32, StoreError> {
        if !self.births.contains(&new) {
            return Ok(0);
        }
        let present = self.merged(present)?;
        let row = self.rows.get(new)?;
        let rules = self.rules.table(row.table);
        let rule = |column: ColumnIndex| rules.as_ref()?.merge.get(usize::from(column)).copied();
        let mut count = 0;
        // What somebody else wrote to one that was made again is in conflict already.
        for (column, cell) in row.raw.cells.iter().filter(|(_, cell)| cell.seq >= row.born) {
            let Some(there) = present.cells.get(column) else { continue };
            // What was there before every write is in conflict with what was so as well: one of them is lost.
            let counts = cell.stamp != Stamp::ZERO || there.stamp == Stamp::ZERO;
            if counts
                && rule(*column).unwrap_or_default().loses()
                && there.is_concurrent_with(cell.writer, row.base)
                && self.differ(&cell.value, &there.value)?
            {
                count += 1;
            }
        }
        Ok(count)
    }

    /// Whether what was there before syncing differs between two rows, so that one of them passes over something.
    fn differ_in_old_cells(&mut self, one: i64, other: i64) -> Result<bool, StoreError> {
        let (one, table) = (self.merged(one)?, self.rows.get(one)?.table);
        let other = self.merged(other)?;
        let rules = self.rules.table(table);
        let rule = |column: ColumnIndex| rules.as_ref()?.merge.get(usize::from(column)).copied();
        let is_old = |(column, cell): &(&ColumnIndex, &Cell)| {
            cell.stamp == Stamp::ZERO && rule(**column).unwrap_or_default().loses()
        };
        for (column, cell) in one.cells.iter().filter(is_old) {
            if let Some(there) = other.cells.get(column).filter(|there| there.stamp == Stamp::ZERO)
                && self.differ(&cell.value, &there.value)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether two cells show different values, however the rows go that they reference.
    fn differ(&self, one: &CellValue, other: &CellValue) -> Result<bool, StoreError> {
        match (one, other) {
            (CellValue::Ref(one), CellValue::Ref(other)) => {
                Ok(self.canonical(*one)? != self.canonical(*other)?)
            }
            _ => Ok(one != other),
        }
    }

    /// Puts a row under the identity of another one, or under its own, and has everyone told.
    fn set_survivor(&mut self, no: i64, survivor: Option<RowId>) -> Result<(), StoreError> {
        self.tenant.seq += 1;
        let position = self.tenant.seq;
        let row = self.rows.get_mut(no)?;
        row.survivor = survivor;
        row.united_at = position;
        if survivor.is_some() {
            row.effective = None;
            row.withheld = false;
        }
        self.rows.store(no)
    }

    /// Parts a row from those that it was united with, if what was written to it gave it another key.
    pub(super) fn part(&mut self, no: i64) -> Result<(), StoreError> {
        let entity = self.entity(no)?;
        let members = self.members(entity)?;
        if members.len() < 2 || !self.rows.get(no)?.raw.is_alive() {
            return Ok(());
        }
        let own = self.own_keys(no)?;
        let mut others = Vec::new();
        let mut shares = false;
        for member in members.into_iter().filter(|member| *member != no) {
            if self.rows.get(member)?.raw.is_alive() {
                shares |= self.own_keys(member)?.iter().any(|key| own.contains(key));
                others.push(member);
            }
        }
        if shares || others.is_empty() {
            return Ok(());
        }
        for key in self.claims.held_by(entity)? {
            self.release(entity, key)?;
            self.let_go.push((entity, key));
        }
        let rest: Vec<i64> = self.members(entity)?.into_iter().filter(|member| *member != no).collect();
        self.set_survivor(no, None)?;
        let heir = if no == entity { others[0] } else { entity };
        let identity = self.rows.get(heir)?.id;
        for member in rest {
            let survivor = (member != heir).then_some(identity);
            if self.rows.get(member)?.survivor != survivor {
                self.set_survivor(member, survivor)?;
            }
        }
        for no in [no, heir] {
            self.whole.insert(no);
            if let Some(work) = self.works.get_mut(&no) {
                work.fallback.clear();
            }
            self.prepare(no)?;
            self.parted.insert(no);
            for child in self.children(no)? {
                // It may have been one with another row by a key that is made of this reference.
                for member in self.members(child)? {
                    self.part(member)?;
                }
                self.parted.insert(child);
            }
        }
        Ok(())
    }

    /// Takes a row out of its union.
    pub fn stand_alone(&mut self, no: i64) -> Result<(), StoreError> {
        let entity = self.entity(no)?;
        self.set_survivor(no, None)?;
        // It may have lived by this one alone.
        self.parted.insert(entity);
        self.left.insert(entity);
        self.whole.insert(no);
        let children = self.children(no)?;
        self.parted.extend(children);
        self.parted.insert(no);
        Ok(())
    }

    /// The keys that a row would have by itself, references by a key that was changed since included.
    pub(super) fn own_keys(&mut self, no: i64) -> Result<Vec<KeyDigest>, StoreError> {
        let mut values = self.canonical_cells(no)?;
        let table = self.rows.get(no)?.table;
        let Some(rules) = self.rules.table(table) else { return Ok(Vec::new()) };
        for link in rules.links.iter().filter(|link| link.key.is_some()) {
            let own = link.columns.iter().map(|column| values.get(column).cloned());
            let Some(own) = own.collect::<Option<Vec<CellValue>>>() else { continue };
            if let Some((parent, true)) = self.parent(link, &own, &mut BTreeSet::new())? {
                let present = self.named_by(link, parent)?;
                values.extend(link.columns.iter().copied().zip(present.into_iter().flatten()));
            }
        }
        let value = |column| values.get(&column).cloned();
        let keys = self.rules.keys_of(self.claims, table, &self.rows.get(no)?.raw, &value)?;
        Ok(keys.into_iter().map(|(_, digest)| digest).collect())
    }
}
