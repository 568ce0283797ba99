//! Who lives: foreign keys, as a function of what was written.
//!
//! 1. Rows live by their stamps. One that is withheld does not.
//! 2. What a living row references with RESTRICT or NO ACTION is kept alive, and so is whatever a row that is
//!    kept cannot be without.
//! 3. A row that is not kept dies with a dead parent that it references with CASCADE.
//! 4. SET NULL and SET DEFAULT apply; where they cannot, the row dies.

use std::collections::BTreeSet;

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
        for no in round {
            if self.may_matter(*no)? {
                open.push(*no);
            }
            // What a row no longer references may have lived by it alone.
            for parent in self.former_parents(*no)? {
                if self.leans_on_the_dead(parent, &mut BTreeSet::new())? {
                    open.push(parent);
                }
            }
        }
        for parent in std::mem::take(&mut self.abandoned) {
            let parent = self.entity(parent)?;
            if self.leans_on_the_dead(parent, &mut BTreeSet::new())? {
                open.push(parent);
            }
        }
        while let Some(no) = open.pop() {
            if !region.insert(no) {
                continue;
            }
            self.prepare(no)?;
            open.extend(self.children(no)?);
            for Edge { parent, .. } in self.work(no)?.edges.clone() {
                if !region.contains(&parent) && self.leans_on_the_dead(parent, &mut BTreeSet::new())? {
                    open.push(parent);
                }
            }
        }
        Ok(region)
    }

    /// Whether a row, or one that it depends on, is dead by its stamps or by the rules: then its life is a
    /// matter of the rows that reference it.
    fn leans_on_the_dead(&mut self, no: i64, seen: &mut BTreeSet<i64>) -> Result<bool, StoreError> {
        if !seen.insert(no) {
            return Ok(false);
        }
        if !self.is_plainly_alive(no)? {
            return Ok(true);
        }
        if self.rules.table(self.rows.get(no)?.table).is_none_or(|rules| rules.links.is_empty()) {
            return Ok(false);
        }
        if !self.works.contains_key(&no) {
            self.prepare(no)?;
        }
        for Edge { parent, .. } in self.work(no)?.edges.clone() {
            if self.leans_on_the_dead(parent, seen)? {
                return Ok(true);
            }
        }
        Ok(false)
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
        let before = &self.rows.get(no)?.before;
        let was_dead = !before.cells.is_empty() && !before.is_alive();
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

    /// Whether a living row keeps its parent: because the reference says so, or because the row is kept
    /// itself and cannot be without the parent.
    fn holds(&self, no: i64, edge: Edge, kept: bool) -> Result<bool, StoreError> {
        let Some((rules, at)) = self.link(self.work(no)?.table, edge.link) else { return Ok(false) };
        let link = &rules.links[at];
        Ok(match link.on_delete {
            OnDelete::Refuse => true,
            OnDelete::Cascade => kept,
            OnDelete::SetNull | OnDelete::SetDefault => kept && link.replacement.is_none(),
        })
    }

    /// Steps 3 and 4, as far as they end lives.
    fn bury(&mut self, region: &BTreeSet<i64>) -> Result<(), StoreError> {
        loop {
            let mut dying = Vec::new();
            for no in region {
                if self.work(*no)?.alive && self.must_die(*no)? {
                    dying.push(*no);
                }
            }
            if dying.is_empty() {
                return Ok(());
            }
            for no in dying {
                self.work_mut(no)?.alive = false;
            }
        }
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
