//! Who has which unique key.
//!
//! Two rows that were made apart with one key are the same thing written twice: they are united, column by
//! column, under the identity of the one that was accepted first. In any other collision the later claim
//! loses: the columns of its key keep the values that were last accepted. If those are taken as well, the row
//! is withheld until one of them is free.

use std::collections::{BTreeMap, BTreeSet};

use super::{Deriver, Target, Work};
use crate::model::{CellValue, ColumnIndex, Op, RowChange};
use crate::storage::hub_store::StoreError;
use crate::storage::hub_store_sqlite::key::KeyDigest;

/// Which of a table's unique keys, and its value.
pub(super) type WantedKey = (usize, KeyDigest);

impl Deriver<'_> {
    /// Decides for some rows, and returns those that are to be looked at again.
    pub(super) fn decide_keys(&mut self, rows: &BTreeSet<i64>) -> Result<BTreeSet<i64>, StoreError> {
        let mut again = BTreeSet::new();
        let mut freed = std::mem::take(&mut self.let_go);
        // What rows no longer want is free before anybody takes anything: values may be swapped.
        for no in rows {
            let wanted = self.wanted(*no)?;
            for held in self.claims.held_by(*no)? {
                if !wanted.iter().any(|(_, digest)| *digest == held) {
                    self.release(*no, held)?;
                    freed.push((*no, held));
                }
            }
            // What is withheld is not asked again what it wants.
            if !self.works.get(no).is_some_and(|work| work.withheld) {
                self.claims.stop_waiting(*no)?;
            }
        }
        for no in rows {
            self.note_unheld(*no, &mut again)?;
        }
        let mut claimants = self.by_birth(rows);
        // What waits for a key has it after what was written now, also if it is looked at for another reason.
        claimants.sort_by_key(|no| self.left.contains(no) || !self.asked.contains(no));
        // Whoever loses falls back on what it had, before another one takes that.
        for &no in &claimants {
            if self.obstacle(no)?.is_some() {
                self.claim(no, &mut again)?;
            }
        }
        for no in claimants {
            self.claim(no, &mut again)?;
        }
        for (row, key) in freed {
            let holder = self.claims.holder(key)?;
            if holder == Some(row) {
                continue;
            }
            if holder.is_none() {
                for no in self.claims.waiting(key)? {
                    // A row whose life would take its own key from it again stays withheld: else there were
                    // no end to it.
                    if !self.admitted.insert(no) {
                        continue;
                    }
                    self.ask_again(no)?;
                    again.insert(no);
                }
            }
            again.extend(self.referencing(&[Target::from(key)].into())?);
            again.extend(self.children(row)?);
        }
        for (key, taker) in std::mem::take(&mut self.takers) {
            if self.claims.holder(key)? != Some(taker) {
                again.extend(self.referencing(&[Target::from(key)].into())?);
            }
        }
        again.append(&mut self.parted);
        Ok(again)
    }

    /// Has a row that waits want what was written to it.
    pub(super) fn ask_again(&mut self, no: i64) -> Result<(), StoreError> {
        self.rows.load(no)?;
        self.rows.get_mut(no)?.withheld = false;
        self.forget_work(no);
        // It may have been one with another row by the value that it fell back on.
        for member in self.members(no)? {
            self.part(member)?;
        }
        Ok(())
    }

    /// Rows in the order of their births.
    pub(super) fn by_birth(&self, rows: &BTreeSet<i64>) -> Vec<i64> {
        let mut rows: Vec<i64> = rows.iter().copied().collect();
        rows.sort_by_key(|no| self.rows.get(*no).map(|row| (row.born, row.id)).ok());
        rows
    }

    /// The keys that a row must have to itself.
    pub(super) fn wanted(&mut self, no: i64) -> Result<Vec<WantedKey>, StoreError> {
        let stands = self.rows.get(no)?.stands_for_itself();
        let work = self.works.get(&no).filter(|work| stands && work.alive && !work.withheld);
        let Some(work) = work else { return Ok(Vec::new()) };
        self.rules.keys_of(self.claims, work.table, &work.merged, &|column| work.value(column))
    }

    /// Notes the keys that the author of a change saw in its row, if other writes won over it: its rows may
    /// reference the row by them.
    pub fn note_overwritten(&mut self, no: i64, change: &RowChange) -> Result<(), StoreError> {
        let row = self.rows.get(no)?;
        if self.rules.table(row.table).is_none_or(|rules| !rules.is_parent) {
            return Ok(());
        }
        let cells = change.writes.iter().filter_map(|write| match &write.op {
            Op::Set(cells) | Op::Cut(cells) => Some(cells),
            Op::Delete | Op::Gone | Op::Adjust(_) => None,
        });
        let written = cells.flatten().map(|(column, value)| (*column, value));
        let lost = |(column, value): (ColumnIndex, &CellValue)| {
            row.raw.cells.get(&column).is_some_and(|cell| cell.value != *value)
        };
        if !written.clone().any(lost) {
            return Ok(());
        }
        let known = row.raw.cells.iter().map(|(column, cell)| (*column, &cell.value));
        let seen = self.canonical_values(known.chain(written))?;
        let seen = |column| seen.get(&column).cloned();
        for (_, key) in self.rules.keys_of(self.claims, row.table, &row.raw, &seen)? {
            self.note_meant(key, no)?;
        }
        Ok(())
    }

    /// Has references by a key that no row holds or has held mean this one. Returns whether that is new.
    fn note_meant(&self, key: KeyDigest, no: i64) -> Result<bool, StoreError> {
        let is_new = self.claims.holder(key)?.is_none() && self.claims.former_holder(key)?.is_none();
        if is_new {
            self.claims.note_former(key, no)?;
        }
        Ok(is_new)
    }

    /// Notes the keys that were written to a parent and that it never held, because it is dead or was given
    /// others, so that what references it by them finds it.
    fn note_unheld(&mut self, no: i64, again: &mut BTreeSet<i64>) -> Result<(), StoreError> {
        let Some(work) = self.works.get(&no) else { return Ok(()) };
        let is_dead = !work.alive || work.withheld;
        if !is_dead && work.values.is_empty()
            || self.rules.table(work.table).is_none_or(|rules| !rules.is_parent)
        {
            return Ok(());
        }
        let written = work.merged.cells.iter().map(|(column, cell)| (*column, &cell.value));
        let written = self.canonical_values(written)?;
        let written = |column| written.get(&column).cloned();
        for (_, key) in self.rules.keys_of(self.claims, work.table, &work.merged, &written)? {
            if self.note_meant(key, no)? {
                again.extend(self.referencing(&[Target::from(key)].into())?);
            }
        }
        Ok(())
    }

    /// The first of a row's keys that another row holds.
    fn obstacle(&mut self, no: i64) -> Result<Option<(WantedKey, i64)>, StoreError> {
        for wanted in self.wanted(no)? {
            if let Some(holder) = self.claims.holder(wanted.1)?.filter(|holder| *holder != no) {
                return Ok(Some((wanted, holder)));
            }
        }
        Ok(None)
    }

    /// Gives a row its keys, or what it gets instead of them.
    fn claim(&mut self, no: i64, again: &mut BTreeSet<i64>) -> Result<(), StoreError> {
        while let Some(((key, digest), holder)) = self.obstacle(no)? {
            if self.is_written_twice(no, holder, (key, digest))? {
                return self.unite(no, holder, again);
            }
            self.lose(no, key, digest, again)?;
        }
        for (key, digest) in self.wanted(no)? {
            if self.claims.holder(digest)?.is_none() {
                let by_birth = self.is_by_birth(no, (key, digest))?;
                self.claims.take(digest, no, by_birth)?;
                let had_it = self.released.get(&no).is_some_and(|keys| keys.contains_key(&digest));
                if !had_it {
                    again.extend(self.referencing(&[Target::from(digest)].into())?);
                }
            }
        }
        Ok(())
    }

    /// Whether other rows can reference this one.
    pub(super) fn is_parent(&self, no: i64) -> Result<bool, StoreError> {
        let table = self.rows.get(no)?.table;
        Ok(self.rules.table(table).is_some_and(|rules| rules.is_parent))
    }

    /// Frees a key, and remembers that the row had it: it may fall back on it.
    pub(super) fn release(&mut self, no: i64, key: KeyDigest) -> Result<(), StoreError> {
        let by_birth = self.claims.claim(key)?.is_some_and(|(_, by_birth)| by_birth);
        self.claims.release(key, self.is_parent(no)?)?;
        self.released.entry(no).or_default().insert(key, by_birth);
        Ok(())
    }

    /// Whether two rows that want this key are the same thing, written twice.
    fn is_written_twice(&mut self, no: i64, holder: i64, wanted: WantedKey) -> Result<bool, StoreError> {
        self.rows.load(holder)?;
        let has_it = self.claims.claim(wanted.1)?.is_some_and(|(_, by_birth)| by_birth);
        let have_it = (self.is_by_birth(no, wanted)?, has_it);
        let Some(rules) = self.rules.table(self.rows.get(no)?.table) else { return Ok(false) };
        Ok((have_it.0 || have_it.1)
            && self.are_one((no, holder), have_it, &rules.unique[wanted.0].columns)?)
    }

    /// Whether a row, or one that is one with it, has had a key since it was made.
    pub(super) fn is_by_birth(&mut self, no: i64, (key, digest): WantedKey) -> Result<bool, StoreError> {
        if let Some(was) = self.released.get(&no).and_then(|keys| keys.get(&digest)) {
            return Ok(*was);
        }
        let Some(rules) = self.rules.table(self.rows.get(no)?.table) else { return Ok(false) };
        let members = self.members(no)?;
        // Then the key that it wants is its own: no need to make all of its keys again for every row that comes.
        let is_as_written =
            |work: &Work| work.values.is_empty() && work.edges.iter().all(|edge| !edge.renamed);
        let is_own = members.len() == 1 && self.works.get(&no).is_some_and(is_as_written);
        for member in members {
            let row = self.rows.get(member)?;
            let is_first = |column| row.raw.cells.get(column).is_none_or(|cell| cell.seq == row.born);
            let is_unchanged = row.raw.is_alive() && rules.unique[key].columns.iter().all(is_first);
            if is_unchanged && (is_own || self.own_keys(member)?.contains(&digest)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the values of a key back to those that were last accepted, or the row out of sight.
    fn lose(
        &mut self,
        no: i64,
        key: usize,
        digest: KeyDigest,
        again: &mut BTreeSet<i64>,
    ) -> Result<(), StoreError> {
        self.claims.wait(digest, no)?;
        self.lost.insert(no);
        let row = self.rows.get(no)?;
        let (table, before) = (row.table, row.before.clone());
        let Some(rules) = self.rules.table(table) else { return Ok(()) };
        let told = before.cells.iter().map(|(column, cell)| (*column, &cell.value));
        let mut accepted = if before.is_alive() { self.canonical_values(told)? } else { BTreeMap::new() };
        let columns = rules.with_links(&rules.unique[key].columns);
        accepted.retain(|column, _| columns.contains(column));
        let work = self.work_mut(no)?;
        let (values, fallback) = (work.values.clone(), work.fallback.clone());
        let mut changed = BTreeMap::new();
        for (column, accepted) in accepted {
            if work.value(column).as_ref() != Some(&accepted) {
                work.values.insert(column, accepted.clone());
                work.fallback.insert(column, accepted);
                changed.insert(column, rules.columns[usize::from(column)].as_str());
            }
        }
        // What it referenced may be gone by now, or have another key.
        let mut targets = BTreeSet::new();
        for link in rules.links.iter().filter(|link| link.columns.iter().any(|it| changed.contains_key(it))) {
            let Some(values) = self.work(no)?.link_values(link) else { continue };
            targets.extend(values.iter().filter_map(|value| match value {
                CellValue::Ref(id) => Some(Target::from(*id)),
                CellValue::Plain(_) => None,
            }));
            let is_gone = match self.parent(link, &values, &mut targets)? {
                Some((parent, renamed)) => renamed || !self.is_told_alive(parent)?,
                None => false,
            };
            if is_gone {
                changed.clear();
                break;
            }
        }
        self.claims.add_links(no, &targets)?;
        if changed.is_empty() {
            let work = self.work_mut(no)?;
            (work.withheld, work.values, work.fallback) = (true, values, fallback);
            again.insert(no);
            self.report.note(format!(
                "a row of {} is withheld: another row has its unique values, and none that it had before are free",
                rules.name
            ));
        } else {
            self.report.note(format!(
                "a row of {} keeps its former {}: another row has the new one, which must be unique",
                rules.name,
                changed.into_values().collect::<Vec<_>>().join(", ")
            ));
            if !rules.referenced.is_empty() {
                // They show the key that it has.
                again.extend(self.children(no)?);
            }
        }
        Ok(())
    }

    /// What was written to a row, with each reference by the identity under which its row goes.
    pub(super) fn canonical_cells(&self, no: i64) -> Result<BTreeMap<ColumnIndex, CellValue>, StoreError> {
        self.canonical_values(
            self.rows.get(no)?.raw.cells.iter().map(|(column, cell)| (*column, &cell.value)),
        )
    }

    pub(super) fn canonical_values<'v>(
        &self,
        cells: impl Iterator<Item = (ColumnIndex, &'v CellValue)>,
    ) -> Result<BTreeMap<ColumnIndex, CellValue>, StoreError> {
        let mut values = BTreeMap::new();
        for (column, value) in cells {
            let value = match value {
                CellValue::Ref(id) => CellValue::Ref(self.canonical(*id)?),
                CellValue::Plain(value) => value.clone().into(),
            };
            values.insert(column, value);
        }
        Ok(values)
    }
}
