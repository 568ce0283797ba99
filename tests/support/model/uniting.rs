//! Which rows become one.

use federation_hub::model::Stamp;

use super::decision::Decision;
use super::history::{Birth, Entry, RowKey};
use super::raw::{Cell, is_plain};
use super::unique::Key;
use super::view::View;

impl Decision<'_> {
    /// Whether two rows are one thing, written twice: of all that live of either, each was made apart from each of the
    /// others with this key, or in its place.
    pub(super) fn is_written_twice(&self, row: &RowKey, holder: &RowKey, (at, key): (usize, &Key)) -> bool {
        let by_birth = (self.is_by_birth(row, key), self.claims.held[key].1);
        let is_apart = |one: Birth, other: Birth| {
            one.author != other.author && one.base < other.position && other.base < one.position
        };
        let (ones, others) = (self.living_members(row), self.living_members(holder));
        let mut pairs = ones.iter().flat_map(|one| others.iter().map(move |other| (one, other)));
        (by_birth.0 || by_birth.1)
            && pairs.all(|(one, other)| {
                by_birth == (true, true) && is_apart(self.birth(one), self.birth(other))
                    || by_birth.1 && self.is_replaced(one, other, at)
                    || by_birth.0 && self.is_replaced(other, one, at)
            })
    }

    /// Whether a row was deleted, and another one made in its place by somebody who knew which key it had.
    fn is_replaced(&self, row: &RowKey, by: &RowKey, at: usize) -> bool {
        let (raw, by) = (&self.own[row], self.birth(by));
        let cells = self.tenant.schema().unique[&row.0][at].columns.iter();
        let mut cells = cells.filter_map(|column| raw.cells.get(column));
        let is_known = |it: &Entry| it.position <= by.base || it.push.0 == by.author;
        raw.deleted.is_some()
            && self.birth(row).order < by.order
            && cells.all(|cell| cell.made_of.iter().all(is_known))
    }

    /// The rows that are one with this one and live by what was written to them; all, if none does.
    fn living_members(&self, row: &RowKey) -> Vec<RowKey> {
        let members = self.claims.unions.members(row);
        let living: Vec<RowKey> = members.iter().filter(|row| self.own[*row].is_alive).cloned().collect();
        if living.is_empty() { members } else { living }
    }

    pub(super) fn is_by_birth(&self, row: &RowKey, key: &Key) -> bool {
        if let Some(was) = self.released.get(&(row.clone(), key.clone())) {
            return *was;
        }
        self.claims.unions.members(row).iter().any(|member| {
            let raw = &self.own[member];
            let at = self.keys_of(member, &self.own).into_iter().find(|(_, it)| it == key);
            raw.is_alive
                && at.is_some_and(|(at, _)| {
                    let columns = &self.tenant.schema().unique[&row.0][at].columns;
                    let written = columns.iter().filter_map(|column| raw.cells.get(column));
                    let batch = self.birth(member).batch;
                    written.flat_map(|cell| &cell.made_of).all(|entry| entry.batch == batch)
                })
        })
    }

    pub(super) fn unite(&mut self, view: &mut View, row: &RowKey, holder: &RowKey) {
        let (survivor, loser) = (holder, row);
        self.conflicts += self.differences(view, row, holder);
        for key in self.held_by(loser) {
            self.claims.held.remove(&key);
            self.claims.former.insert(key, loser.clone());
        }
        self.claims.unions.unite(loser, survivor, self.now);
        self.claims.kept.remove(loser);
        self.claims.withheld.remove(loser);
        self.claims.waiting.retain(|(_, waiting)| waiting != loser);
        for gone in [loser, survivor] {
            view.living.rows.remove(gone);
        }
        self.look();
        // Another row may become one with both yet.
        view.united = self.tenant.united(&self.own, &self.claims.unions);
        self.asked.remove(loser);
        self.asked.insert(survivor.clone());
    }

    /// Cells of a row that this batch made, if one of two is that, which differ from what the other one has and are
    /// concurrent with it.
    fn differences(&self, view: &View, one: &RowKey, other: &RowKey) -> u32 {
        let mut count = 0;
        for (row, present) in [(one, other), (other, one)] {
            let birth = self.birth(row);
            if birth.batch != self.tenant.batches() {
                continue;
            }
            let is_of_batch = |cell: &&Cell| cell.made_of.iter().any(|made| made.batch == birth.batch);
            for (column, cell) in self.own[row].cells.iter().filter(|(_, cell)| is_of_batch(cell)) {
                let Some(there) = view.united[present].cells.get(column) else { continue };
                let is_concurrent = |made: &Entry| made.is_concurrent_with(birth.author, birth.base);
                let is_plain = is_plain(self.tenant.rule(&row.0)(column));
                let counts = is_plain && (cell.stamp != Stamp::ZERO || there.stamp == Stamp::ZERO);
                let is_concurrent = there.made_of.iter().any(is_concurrent);
                count += u32::from(counts && is_concurrent && there.value != cell.value);
            }
        }
        count
    }
}
