//! Who lives: foreign keys, as a function of what was written.
//!
//! 1. Rows live by their stamps. One that is withheld does not.
//! 2. What a living row references with RESTRICT or NO ACTION is kept alive, and so is whatever a row that is
//!    kept cannot be without.
//! 3. A row that is not kept dies with a dead parent that it references with CASCADE.
//! 4. SET NULL and SET DEFAULT apply; where they cannot, the row dies.

use std::collections::{BTreeSet, HashMap};

use super::{Deriver, Edge};
use crate::model::CellValue;
use crate::storage::hub_store::StoreError;
use crate::storage::hub_store_sqlite::rules::LinkRule;
use crate::storage::table_info::OnDelete;

/// How a row stands.
#[derive(Clone, Copy)]
struct Standing {
    is_written_alive: bool,
    alive: bool,
}

impl Deriver<'_> {
    /// Decides for some rows and all that depends on it, and returns them all.
    pub(super) fn decide_who_lives(&mut self, round: &BTreeSet<i64>) -> Result<BTreeSet<i64>, StoreError> {
        let region = self.region(round)?;
        for no in &region {
            let work = self.work_mut(*no)?;
            (work.kept, work.alive) = (false, work.is_written_alive() && !work.withheld);
        }
        self.keep(&region)?;
        self.bury(&region)?;
        let all: BTreeSet<i64> = region.union(round).copied().collect();
        // A key that a reference follows may itself be made of a reference that follows one, and in a circle. Each
        // turn brings one row more to what it stays at.
        for _ in 0..=all.len() {
            let mut has_followed = false;
            for no in &all {
                has_followed |= self.replace_references(*no)?;
            }
            if !has_followed {
                break;
            }
        }
        Ok(all)
    }

    /// The rows whose life may be another now, with everything that their lives depend on.
    fn region(&mut self, round: &BTreeSet<i64>) -> Result<BTreeSet<i64>, StoreError> {
        let mut region = BTreeSet::new();
        let mut open = Vec::new();
        let mut known = HashMap::new();
        for no in round {
            if self.may_matter(*no)? {
                open.push(*no);
            }
            // What a row no longer references may have lived by it alone.
            for parent in self.former_parents(*no)? {
                if self.leans_on_the_dead(parent, &mut known)? {
                    open.push(parent);
                }
            }
        }
        for parent in std::mem::take(&mut self.abandoned) {
            let parent = self.entity(parent)?;
            if self.leans_on_the_dead(parent, &mut known)? {
                open.push(parent);
            }
        }
        while let Some(no) = open.pop() {
            if !region.insert(no) {
                continue;
            }
            self.prepare(no)?;
            if self.stays_dead(no)? {
                continue;
            }
            open.extend(self.children(no)?);
            for Edge { parent, .. } in self.work(no)?.edges.clone() {
                if !region.contains(&parent) && self.leans_on_the_dead(parent, &mut known)? {
                    open.push(parent);
                }
            }
        }
        Ok(region)
    }

    /// Whether a row was told as dead and is dead by its own writes, nothing can keep it, and it has kept nothing while it
    /// lived by its writes: then no other row's life is another one by it. Else each batch of a large delete would look at
    /// all of that delete again.
    fn stays_dead(&mut self, no: i64) -> Result<bool, StoreError> {
        if self.decided.contains(&no) || self.released.contains_key(&no) {
            return Ok(false);
        }
        let (was_dead, work) = (self.rows.get(no)?.was_told_dead(), self.work(no)?);
        let Some(rules) = self.rules.table(work.table).filter(|rules| !rules.can_be_kept) else {
            return Ok(false);
        };
        let keeps_none = work.edges.iter().all(|edge| !rules.links[edge.link].holds(false));
        Ok(was_dead && !work.is_written_alive() && keeps_none)
    }

    /// Whether a row, or one that it depends on, is dead by its stamps or by the rules: then its life is a
    /// matter of the rows that reference it. `known` is what earlier looks for the same region have found.
    fn leans_on_the_dead(&mut self, no: i64, known: &mut HashMap<i64, bool>) -> Result<bool, StoreError> {
        self.is_any_above(vec![no], known, |it, no| Ok(!it.is_plainly_alive(no)?), Self::parents_of_living)
    }

    fn parents_of_living(&mut self, no: i64) -> Result<Vec<i64>, StoreError> {
        if self.rules.table(self.rows.get(no)?.table).is_none_or(|rules| rules.links.is_empty()) {
            return Ok(Vec::new());
        }
        if !self.works.contains_key(&no) {
            self.prepare(no)?;
        }
        Ok(self.work(no)?.edges.iter().map(|edge| edge.parent).collect())
    }

    /// The rows that this one referenced when it was last told of, and does not any more.
    fn former_parents(&mut self, no: i64) -> Result<Vec<i64>, StoreError> {
        let row = self.rows.get(no)?;
        if row.before.cells.is_empty() {
            return Ok(Vec::new());
        }
        let now: BTreeSet<i64> = self.work(no)?.edges.iter().map(|edge| edge.parent).collect();
        let before = self.parents_before(no, |_| true)?;
        Ok(before.into_iter().map(|(parent, _)| parent).filter(|parent| !now.contains(parent)).collect())
    }

    fn may_matter(&mut self, no: i64) -> Result<bool, StoreError> {
        let work = self.work(no)?;
        let was_dead = self.rows.get(no)?.was_told_dead();
        if !work.is_written_alive() || work.withheld || was_dead || self.released.contains_key(&no) {
            return Ok(true);
        }
        for Edge { parent, .. } in work.edges.clone() {
            if !self.is_plainly_alive(parent)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a row lives by its stamps, and nothing says otherwise.
    fn is_plainly_alive(&mut self, no: i64) -> Result<bool, StoreError> {
        let Standing { is_written_alive, alive } = self.standing(no)?;
        Ok(is_written_alive && alive)
    }

    /// Whether a row lives, as far as is decided.
    pub(super) fn is_told_alive(&mut self, no: i64) -> Result<bool, StoreError> {
        self.rows.load(no)?;
        Ok(self.standing(no)?.alive)
    }

    fn standing(&mut self, no: i64) -> Result<Standing, StoreError> {
        if let Some(work) = self.works.get(&no) {
            return Ok(Standing {
                is_written_alive: work.is_written_alive(),
                alive: work.alive && !work.withheld,
            });
        }
        let members = self.members(no)?;
        let row = self.rows.get(no)?;
        let alive = row.told().is_alive();
        let mut is_written_alive = false;
        for member in members {
            is_written_alive |= self.rows.get(member)?.raw.is_alive();
        }
        Ok(Standing { is_written_alive, alive })
    }

    /// Step 2.
    fn keep(&mut self, region: &BTreeSet<i64>) -> Result<(), StoreError> {
        let mut open: Vec<i64> = Vec::new();
        for no in region {
            if self.work(*no)?.alive {
                open.push(*no);
            }
        }
        while let Some(no) = open.pop() {
            let (kept, edges) = (self.work(no)?.kept, self.work(no)?.edges.clone());
            for edge in edges {
                if edge.parent == no || !region.contains(&edge.parent) || !self.holds(no, edge, kept)? {
                    continue;
                }
                let parent = self.work_mut(edge.parent)?;
                if !parent.kept && !parent.withheld {
                    (parent.kept, parent.alive) = (true, true);
                    open.push(edge.parent);
                }
            }
        }
        Ok(())
    }

    fn holds(&self, no: i64, edge: Edge, kept: bool) -> Result<bool, StoreError> {
        let Some((rules, at)) = self.link(self.work(no)?.table, edge.link) else { return Ok(false) };
        Ok(rules.links[at].holds(kept))
    }

    /// Steps 3 and 4, as far as they end lives.
    fn bury(&mut self, region: &BTreeSet<i64>) -> Result<(), StoreError> {
        let mut children: HashMap<i64, Vec<i64>> = HashMap::new();
        for no in region {
            for edge in &self.work(*no)?.edges {
                children.entry(edge.parent).or_default().push(*no);
            }
        }
        let mut open: Vec<i64> = region.iter().copied().collect();
        while let Some(no) = open.pop() {
            if self.work(no)?.alive && self.must_die(no)? {
                self.work_mut(no)?.alive = false;
                open.extend(children.get(&no).into_iter().flatten());
            }
        }
        Ok(())
    }

    fn must_die(&mut self, no: i64) -> Result<bool, StoreError> {
        let (table, edges) = (self.work(no)?.table, self.work(no)?.edges.clone());
        for edge in edges {
            if self.standing(edge.parent)?.alive {
                continue;
            }
            let Some((rules, at)) = self.link(table, edge.link) else { continue };
            let link = &rules.links[at];
            let survives = matches!(link.on_delete, OnDelete::SetNull | OnDelete::SetDefault)
                && link.replacement.is_some();
            // A row that is kept has living parents, unless one of them is withheld.
            if !survives {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Step 4, as far as it changes cells; and a reference by key follows a row whose key was changed. Returns
    /// whether one has followed.
    fn replace_references(&mut self, no: i64) -> Result<bool, StoreError> {
        let mut has_followed = false;
        let (table, mut edges) = (self.work(no)?.table, self.work(no)?.edges.clone());
        // The key by which a row references itself may be made of its other references.
        edges.sort_by_key(|edge| edge.parent == no);
        for edge in edges {
            let Some((rules, at)) = self.link(table, edge.link) else { continue };
            let link = &rules.links[at];
            let is_alive = self.standing(edge.parent)?.alive;
            let values = if edge.parent == no && !is_alive {
                None
            } else if !is_alive {
                link.replacement.clone()
            } else if edge.renamed {
                self.named_by(link, edge.parent)?
            } else {
                None
            };
            let work = self.work_mut(no)?;
            for (column, value) in link.columns.iter().copied().zip(values.into_iter().flatten()) {
                has_followed |= edge.renamed && is_alive && work.values.get(&column) != Some(&value);
                work.values.insert(column, value);
            }
        }
        Ok(has_followed)
    }

    /// What a row holds that references this one by a link, as this one is at present; none if a part is missing.
    pub(super) fn named_by(
        &mut self,
        link: &LinkRule,
        parent: i64,
    ) -> Result<Option<Vec<CellValue>>, StoreError> {
        self.rows.load(parent)?;
        let row = self.rows.get(parent)?;
        let value = |column| match self.works.get(&parent) {
            Some(work) => work.value(column),
            None => row.told().cells.get(&column).map(|cell| cell.value.clone()),
        };
        Ok(self.rules.named_by(link, &row.raw, &value))
    }
}
