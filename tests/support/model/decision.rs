//! Who gets which unique key: what is decided after each batch.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::Seq;

use super::claims::Claims;
use super::history::{Birth, RowKey};
use super::living::{self, Family, Having, Raws};
use super::tenant::{Row, Tenant};
use super::unique::Key;
use super::view::View;

/// Decides after a batch.
pub struct Decision<'a> {
    pub(super) tenant: &'a Tenant,
    pub(super) claims: Claims,
    /// All rows by themselves.
    pub(super) own: Raws,
    /// Those that are asked what they want.
    pub(super) asked: BTreeSet<RowKey>,
    /// Those that the batch wrote to, and those that got a chance since: they come first.
    first: BTreeSet<RowKey>,
    /// Rows that the batch did nothing to but take another one out of them.
    left: BTreeSet<RowKey>,
    /// Waiting rows that were asked, which happens once in a batch.
    admitted: BTreeSet<RowKey>,
    /// Rows that have lost a key since circles were looked for.
    lost: BTreeSet<RowKey>,
    /// Keys that rows had when the batch came, and whether they were made with them.
    pub(super) released: BTreeMap<(RowKey, Key), bool>,
    /// Keys that nobody has for the moment.
    freed: BTreeSet<Key>,
    /// Who counts as having a key by now.
    having: Having,
    pub(super) now: Seq,
    pub(super) conflicts: u32,
}

/// Decides what a batch that wrote to these rows makes of them, and how many conflicts it has beside those of its
/// writes with what the hub had: cells of rows that are one with another one from now on. New rows have `left` others, with
/// which they had gone under one identity.
pub fn decide(
    tenant: &Tenant,
    touched: &BTreeSet<RowKey>,
    left: BTreeSet<RowKey>,
    now: Seq,
) -> (Claims, u32) {
    let mut decision = Decision {
        claims: tenant.claims().clone(),
        own: Raws::new(),
        tenant,
        asked: touched.clone(),
        first: BTreeSet::new(),
        left,
        admitted: BTreeSet::new(),
        lost: BTreeSet::new(),
        released: BTreeMap::new(),
        freed: BTreeSet::new(),
        having: Having::Wanted,
        now,
        conflicts: 0,
    };
    decision.run();
    (decision.claims, decision.conflicts)
}

impl Decision<'_> {
    fn run(&mut self) {
        self.look();
        self.part(&self.asked.clone());
        self.asked = self.asked.iter().map(|row| self.claims.unions.entity(row)).collect();
        for row in &self.asked {
            self.claims.withheld.remove(row);
            self.left.remove(row);
        }
        self.first = self.meant_before();
        for row in self.bereaved() {
            self.claims.kept.remove(&row);
        }
        for _ in 0..100 {
            let decided = |it: &Claims| (it.held.clone(), it.withheld.clone(), it.former.clone());
            let before = decided(&self.claims);
            self.round();
            self.having = Having::Decided;
            let after = decided(&self.claims);
            if self.asked.is_empty() && before == after {
                let circles = self.circles();
                if circles.is_empty() {
                    break;
                }
                for row in circles {
                    self.ask_again(row);
                }
            }
        }
        let view = self.view();
        let shown = |row: &RowKey| (row.clone(), view.row(row));
        self.claims.shown = view.living.rows.iter().map(shown).collect();
    }

    /// Rows that reference, by what was written to them, one that this batch deleted, or one of those: they try again for
    /// what they have not got.
    fn bereaved(&self) -> BTreeSet<RowKey> {
        let united = self.tenant.united(&self.own, &self.claims.unions);
        let family = self.claims.family(self.tenant, &united);
        let mut gone: BTreeSet<RowKey> =
            self.asked.iter().filter(|row| !united[*row].is_alive).cloned().collect();
        loop {
            let is_next = |row: &&RowKey| {
                !gone.contains(*row) && family.parents(row).iter().any(|(_, parent)| gone.contains(parent))
            };
            let next: Vec<RowKey> = united.keys().filter(is_next).cloned().collect();
            if next.is_empty() {
                return gone;
            }
            gone.extend(next);
        }
    }

    /// Rows that are dead by their own writes, and had keys last that a row of the batch wants.
    fn meant_before(&self) -> BTreeSet<RowKey> {
        let united = self.tenant.united(&self.own, &self.claims.unions);
        let living = self.asked.iter().filter(|row| united[*row].is_alive);
        let wanted = living.flat_map(|row| self.keys_of(row, &united));
        let had = wanted.filter_map(|(_, key)| {
            let holder = self.claims.held.get(&key).map(|(holder, _)| holder);
            holder.or_else(|| self.claims.former.get(&key)).map(|row| self.claims.unions.entity(row))
        });
        had.filter(|row| !united[row].is_alive).collect()
    }

    fn family<'b>(&'b self, raws: &'b Raws) -> Family<'b> {
        Family { having: self.having, ..self.claims.family(self.tenant, raws) }
    }

    pub(super) fn look(&mut self) {
        let raws = self.tenant.raws(&|_| true);
        self.own = self.claims.unions.with_references(raws);
    }

    fn view(&self) -> View {
        let united = self.tenant.united(&self.own, &self.claims.unions);
        let mut raws = united.clone();
        for (row, kept) in &self.claims.kept {
            for (column, value) in kept {
                if let Some(cell) = raws.get_mut(row).and_then(|raw| raw.cells.get_mut(column)) {
                    cell.value = value.clone();
                }
            }
        }
        let living = living::derive(&self.family(&raws));
        View { united, raws, living }
    }

    /// Of rows that are one with one of these, those whose own key is no other's any more leave.
    fn part(&mut self, rows: &BTreeSet<RowKey>) {
        let entities: BTreeSet<RowKey> = rows.iter().map(|row| self.claims.unions.entity(row)).collect();
        let mut rows = self.by_birth(self.own.keys());
        rows.retain(|row| self.own[row].is_alive && entities.contains(&self.claims.unions.entity(row)));
        let mut parted = BTreeSet::new();
        for row in rows {
            let entity = self.claims.unions.entity(&row);
            let mut others = self.claims.unions.members(&entity);
            others.retain(|other| *other != row && self.own[other].is_alive);
            let others = self.by_birth(&others);
            let own = self.keys_of(&row, &self.own);
            let is_shared = |other: &RowKey| {
                self.keys_of(other, &self.own).iter().any(|(_, key)| own.iter().any(|(_, it)| it == key))
            };
            if others.is_empty() || others.iter().any(is_shared) {
                continue;
            }
            let held: Vec<Key> = self.held_by(&entity);
            for key in held {
                self.release(&key);
                self.freed.insert(key);
            }
            let heir = self.claims.unions.part(&row, &others, self.now);
            parted.extend([row, heir]);
            self.look();
        }
        if parted.is_empty() {
            return;
        }
        // Keys may be made of references to them.
        let family = self.claims.family(self.tenant, &self.own);
        let references =
            |row: &&RowKey| family.parents(row).iter().any(|(_, parent)| parted.contains(parent));
        let children: BTreeSet<RowKey> = self.own.keys().filter(references).cloned().collect();
        self.asked.append(&mut parted);
        self.part(&children);
    }

    fn round(&mut self) {
        for row in &self.asked {
            self.claims.kept.remove(row);
            if !self.claims.withheld.contains(row) {
                self.claims.waiting.retain(|(_, waiting)| waiting != row);
            }
        }
        self.first.append(&mut self.asked);
        let mut view = self.view();
        // What nobody wants any more is free before anybody takes anything.
        let mut freed = std::mem::take(&mut self.freed);
        for (key, (row, _)) in self.claims.held.clone() {
            if !self.wanted(&view, &row).iter().any(|(_, it)| *it == key) {
                self.release(&key);
                freed.insert(key);
            }
        }
        for row in view.united.keys() {
            if !view.living.rows.contains(row) || self.claims.kept.contains_key(row) {
                let keys: Vec<Key> =
                    self.keys_of(row, &view.united).into_iter().map(|(_, key)| key).collect();
                self.claims.note_meant(keys, row);
            }
        }
        let mut claimants = self.by_birth(&view.living.rows);
        // Whose author made a row anew knew of those that it left.
        claimants.sort_by_key(|row| self.left.contains(row) || !self.first.contains(row));
        // Whoever cannot have what it wants falls back on what it had, before another one takes that.
        for row in &claimants {
            if self.obstacle(&view, row).is_some() {
                self.claim(&mut view, row);
            }
        }
        for row in &claimants {
            self.claim(&mut view, row);
        }
        freed.retain(|key| !self.claims.held.contains_key(key));
        for key in freed {
            let waiting = self.claims.waiting.iter().filter(|(it, _)| *it == key).map(|(_, row)| row);
            for row in waiting.cloned().collect::<Vec<_>>() {
                if self.admitted.insert(row.clone()) {
                    self.ask_again(row);
                }
            }
        }
        // Some may have been united since.
        self.asked = self.asked.iter().map(|row| self.claims.unions.entity(row)).collect();
    }

    fn ask_again(&mut self, row: RowKey) {
        self.claims.withheld.remove(&row);
        self.part(&[row.clone()].into());
        self.asked.insert(row);
    }

    /// Rows that lost a key to rows which wait themselves, and these likewise, and that come round to where they began:
    /// with all that they lead to.
    fn circles(&mut self) -> BTreeSet<RowKey> {
        let mut circles = BTreeSet::new();
        for row in std::mem::take(&mut self.lost) {
            let (mut found, mut is_closed, mut is_blocked) = (vec![row.clone()], false, false);
            let mut at = 0;
            while let Some(waiting) = found.get(at).cloned() {
                at += 1;
                let keys = self.claims.waiting.iter().filter(|(_, it)| *it == waiting);
                let keys: Vec<Key> = keys.map(|(key, _)| key.clone()).collect();
                is_blocked |= keys.is_empty();
                let holders = keys.iter().filter_map(|key| self.claims.held.get(key));
                for (holder, _) in holders {
                    is_closed |= *holder == row;
                    if !found.contains(holder) {
                        found.push(holder.clone());
                    }
                }
            }
            if is_closed && !is_blocked {
                circles.extend(found);
            }
        }
        circles.retain(|row| self.admitted.insert(row.clone()));
        circles
    }

    /// Gives a row its keys, or what it gets instead of them.
    fn claim(&mut self, view: &mut View, row: &RowKey) {
        while let Some((at, key, holder)) = self.obstacle(view, row) {
            if self.is_written_twice(row, &holder, (at, &key)) {
                return self.unite(view, row, &holder);
            }
            self.lose(view, row, at, key);
        }
        for (_, key) in self.wanted(view, row) {
            if !self.claims.held.contains_key(&key) {
                let is_by_birth = self.is_by_birth(row, &key);
                self.claims.held.insert(key, (row.clone(), is_by_birth));
            }
        }
    }

    /// The first of a row's keys that another one has.
    fn obstacle(&self, view: &View, row: &RowKey) -> Option<(usize, Key, RowKey)> {
        self.wanted(view, row).into_iter().find_map(|(at, key)| {
            let (holder, _) = self.claims.held.get(&key).filter(|(holder, _)| holder != row)?;
            Some((at, key, holder.clone()))
        })
    }

    /// The columns of a key, and of the foreign keys that share one with it, show what was told last. If that is
    /// nothing, or would change nothing, or references what is gone, the row is told as dead.
    fn lose(&mut self, view: &mut View, row: &RowKey, at: usize, key: Key) {
        self.claims.waiting.insert((key, row.clone()));
        self.lost.insert(row.clone());
        let schema = self.tenant.schema();
        let columns = schema.with_references(&row.0, &schema.unique[&row.0][at].columns);
        let present = view.row(row);
        let before = self.tenant.claims().shown.get(row);
        let mut changed = Row::new();
        for column in &columns {
            let Some(told) =
                before.and_then(|row| row.get(column)).map(|told| self.claims.unions.value(told))
            else {
                continue;
            };
            if present.get(column) != Some(&told) {
                changed.insert(column.clone(), told);
            }
        }
        let mut raws = view.raws.clone();
        for (column, value) in &changed {
            raws.get_mut(row).unwrap().cells.get_mut(column).unwrap().value = value.clone();
        }
        let family = self.family(&raws);
        let is_gone = family.parents(row).iter().any(|(reference, parent)| {
            reference.columns.iter().any(|(column, _)| changed.contains_key(column))
                && !view.living.rows.contains(parent)
        });
        if changed.is_empty() || is_gone {
            self.claims.kept.remove(row);
            self.claims.withheld.insert(row.clone());
            view.living.rows.remove(row);
            return;
        }
        for column in changed.keys() {
            view.living.values.remove(&(row.clone(), column.clone()));
        }
        self.claims.kept.entry(row.clone()).or_default().extend(changed);
        view.raws = raws;
    }

    fn wanted(&self, view: &View, row: &RowKey) -> Vec<(usize, Key)> {
        if !view.living.rows.contains(row) {
            return Vec::new();
        }
        let mut raw = view.raws[row].clone();
        for (column, value) in view.row(row) {
            raw.cells.get_mut(&column).unwrap().value = value;
        }
        self.keys_of(row, &[(row.clone(), raw)].into())
    }

    /// The keys of a row, each with its place among those of the table.
    pub(super) fn keys_of(&self, row: &RowKey, raws: &Raws) -> Vec<(usize, Key)> {
        let unique = self.tenant.schema().unique.get(&row.0).into_iter().flatten().enumerate();
        unique.filter_map(|(at, unique)| Some((at, self.tenant.keys().key(unique, &raws[row])?))).collect()
    }

    fn release(&mut self, key: &Key) {
        if let Some((row, is_by_birth)) = self.claims.held.remove(key) {
            self.claims.former.insert(key.clone(), row.clone());
            self.released.insert((row, key.clone()), is_by_birth);
        }
    }

    pub(super) fn held_by(&self, row: &RowKey) -> Vec<Key> {
        self.claims.held.iter().filter(|(_, (holder, _))| holder == row).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn birth(&self, row: &RowKey) -> Birth {
        self.tenant.birth(row)
    }

    fn by_birth<'r>(&self, rows: impl IntoIterator<Item = &'r RowKey>) -> Vec<RowKey> {
        let mut rows: Vec<RowKey> = rows.into_iter().cloned().collect();
        rows.sort_by_key(|row| self.birth(row).order);
        rows
    }
}
