//! Deriving: what the rules that span rows make of the rows that a batch changed, and of those around them.
//!
//! Rounds run until nothing changes. Each takes some rows and decides first who lives (foreign keys), then
//! who has which unique key; the latter unites rows, or withholds one, and what that touches is looked at in
//! the next round. Everything is decided from the raw states and in the order of birth, so that it does not
//! depend on luck. A row that stands for several united ones is looked at in their place.

mod alike;
mod circles;
mod liveness;
mod local_effects;
mod references;
mod unions;
mod unique;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::Connection;

pub use local_effects::{Earlier, Effects};
pub use unions::first_stands;

use super::claims::{Claims, Target};
use super::damaged;
use super::key::KeyDigest;
use super::rows::Rows;
use super::rules::{LinkRule, TableRules, TenantRules};
use super::tenant::Tenant;
use crate::model::{Cell, CellValue, ColumnIndex, NOBODY, RowState, Seq, Value, Verdict};
use crate::protocol::limits::MAX_ACK_NOTICES;
use crate::storage::hub_store::StoreError;

/// Rounds after which a batch is left as it is, besides one for each row that gets what it waited for: no schema is known
/// that needs more than a few.
const MAX_ROUNDS: usize = 100;

/// Derives for one batch.
pub struct Deriver<'a> {
    /// The tenant, whose positions are given away.
    pub tenant: &'a mut Tenant,
    /// Its rows.
    pub rows: Rows<'a>,
    /// Its rules.
    pub rules: &'a mut TenantRules,
    /// What was counted and is to be told.
    pub report: Report,
    claims: Claims<'a>,
    /// The last position before the batch.
    since: Seq,
    /// Whether any rows are united; they seldom are.
    has_unions: bool,
    works: BTreeMap<i64, Work>,
    /// Rows that were decided about; others among the works were only looked at.
    decided: BTreeSet<i64>,
    /// Rows that every reader needs whole.
    whole: BTreeSet<i64>,
    /// Rows that went with a parent where the batch was made: if they live on, they are needed there whole.
    dropped: BTreeSet<i64>,
    /// Of those, the ones whose delete was another one's effect.
    cascaded: BTreeSet<i64>,
    /// Rows that this batch made.
    births: BTreeSet<i64>,
    /// Rows that waited until this batch freed their keys.
    admitted: BTreeSet<i64>,
    /// Rows that have lost a key in this batch, since circles were last looked for.
    lost: BTreeSet<i64>,
    /// Rows that this batch made, and whose links were noted.
    linked: BTreeSet<i64>,
    /// Keys that rows held before they lost or changed them, and whether they were born with them.
    released: BTreeMap<i64, BTreeMap<KeyDigest, bool>>,
    /// Keys that rows held together which were parted since.
    let_go: Vec<(i64, KeyDigest)>,
    /// Rows that were parted from others, and those that reference them.
    parted: BTreeSet<i64>,
    /// Rows that this batch did nothing to but take another one out of them.
    left: BTreeSet<i64>,
    /// Rows that are asked what they want; others are looked at because of them.
    asked: BTreeSet<i64>,
    /// Rows that others referenced in an earlier round, which may not do so any more.
    abandoned: BTreeSet<i64>,
    /// Who is to have keys of rows that are dead by their own writes, until that is decided.
    takers: BTreeMap<KeyDigest, i64>,
    /// Of rows that this batch may have changed by foreign keys only: what they were before.
    earlier: BTreeMap<i64, Earlier>,
}

/// What deriving found.
#[derive(Default)]
pub struct Report {
    /// Cells in conflict.
    pub conflicts: u32,
    /// What people should know.
    pub notices: Vec<String>,
}

impl Report {
    /// Adds a notice, once, while there is room.
    pub fn note(&mut self, notice: String) {
        if self.notices.len() < MAX_ACK_NOTICES && !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }
}

/// A row, or several united ones, on the way to their effective state.
struct Work {
    table: i64,
    /// The merge of what was written.
    merged: RowState,
    /// Cells that show another value.
    values: BTreeMap<ColumnIndex, CellValue>,
    /// Those of them that stand in for a key which another row has.
    fallback: BTreeMap<ColumnIndex, CellValue>,
    edges: Vec<Edge>,
    alive: bool,
    /// Kept alive by a row that references it.
    kept: bool,
    withheld: bool,
}

/// A reference to a row that the hub knows.
#[derive(Clone, Copy)]
struct Edge {
    /// Which of the table's links.
    link: usize,
    parent: i64,
    /// Found by a key that it had: it has another one now.
    renamed: bool,
}

impl Work {
    /// Whether it lives by its stamps.
    fn is_written_alive(&self) -> bool {
        self.merged.is_alive()
    }

    fn value(&self, column: ColumnIndex) -> Option<CellValue> {
        self.values.get(&column).or_else(|| self.merged.cells.get(&column).map(|cell| &cell.value)).cloned()
    }

    /// The values of a link's columns; none if one is NULL or missing.
    fn link_values(&self, link: &LinkRule) -> Option<Vec<CellValue>> {
        let value = |column: &ColumnIndex| self.value(*column).filter(|value| *value != Value::Null.into());
        link.columns.iter().map(value).collect()
    }
}

impl<'a> Deriver<'a> {
    /// Begins with a batch that has changed nothing yet.
    pub fn new(
        conn: &'a Connection,
        tenant: &'a mut Tenant,
        rules: &'a mut TenantRules,
    ) -> Result<Self, StoreError> {
        let claims = Claims::new(conn, tenant.id);
        Ok(Self {
            rows: Rows::new(conn, tenant.id),
            since: tenant.seq,
            has_unions: claims.has_unions()?,
            claims,
            tenant,
            rules,
            report: Report::default(),
            works: BTreeMap::new(),
            decided: BTreeSet::new(),
            whole: BTreeSet::new(),
            dropped: BTreeSet::new(),
            cascaded: BTreeSet::new(),
            births: BTreeSet::new(),
            admitted: BTreeSet::new(),
            lost: BTreeSet::new(),
            linked: BTreeSet::new(),
            released: BTreeMap::new(),
            let_go: Vec::new(),
            parted: BTreeSet::new(),
            left: BTreeSet::new(),
            asked: BTreeSet::new(),
            abandoned: BTreeSet::new(),
            takers: BTreeMap::new(),
            earlier: BTreeMap::new(),
        })
    }

    /// Notes a row that this batch made.
    pub fn born(&mut self, no: i64) {
        self.births.insert(no);
    }

    /// Notes that this batch made a row again which had been deleted: it is a row of its author's, with the keys that it
    /// was made with now. `position` is that of the batch's writes to it.
    pub fn born_again(
        &mut self,
        no: i64,
        position: Seq,
        (author, base): (u64, Seq),
    ) -> Result<(), StoreError> {
        let row = self.rows.get_mut(no)?;
        if !row.raw.is_alive() || row.raw.cells.values().all(|cell| cell.seq != position) {
            return Ok(());
        }
        (row.born, row.author, row.base) = (position, author, base);
        self.rows.store(no)?;
        self.births.insert(no);
        // Unlike a new one it has links already.
        self.linked.insert(no);
        Ok(())
    }

    /// The rows that are one with this one.
    pub fn members(&mut self, no: i64) -> Result<Vec<i64>, StoreError> {
        if self.has_unions { self.rows.members(no) } else { Ok(vec![no]) }
    }

    /// The row that stands for this one.
    fn entity(&mut self, no: i64) -> Result<i64, StoreError> {
        self.rows.load(no)?;
        let row = self.rows.get(no)?;
        let Some(survivor) = row.survivor else { return Ok(no) };
        let table = row.table;
        self.rows.find(table, survivor)?.ok_or_else(|| damaged("a union of rows"))
    }

    /// Derives what is told of the rows that the batch touched, and of those around them.
    pub fn derive(&mut self, touched: &BTreeSet<i64>) -> Result<(), StoreError> {
        for no in touched {
            let entity = self.entity(*no)?;
            self.rows.get_mut(entity)?.withheld = false;
            // What becomes of one of them can leave another one alone.
            for member in self.members(entity)? {
                self.part(member)?;
            }
        }
        let mut round = std::mem::take(&mut self.parted);
        for no in touched {
            let entity = self.entity(*no)?;
            self.rows.get_mut(entity)?.withheld = false;
            self.left.remove(&entity);
            round.insert(entity);
        }
        self.note_takers(&mut round)?;
        let mut rounds = 0;
        while rounds < MAX_ROUNDS + self.admitted.len() {
            rounds += 1;
            if round.is_empty() {
                round = self.close_circles()?;
            }
            if round.is_empty() {
                return self.settle();
            }
            for no in &round {
                self.prepare(*no)?;
            }
            self.asked.extend(&round);
            let around = self.decide_who_lives(&round)?;
            round = self.decide_keys(&around)?;
            self.decided.extend(around);
        }
        tracing::warn!(tenant = self.tenant.id, "rules of a tenant's schema do not come to an end");
        self.settle()
    }

    /// The merge of what was written to a row, and to those that are one with it.
    pub fn merged(&mut self, no: i64) -> Result<RowState, StoreError> {
        self.rows.load(no)?;
        let members = self.members(no)?;
        if members.len() == 1 {
            return Ok(self.rows.get(no)?.raw.clone());
        }
        let table = self.rows.get(no)?.table;
        let merge = self.rules.table(table).map(|rules| rules.merge.clone()).unwrap_or_default();
        let raw = members.iter().map(|no| self.rows.get(*no).map(|row| &row.raw));
        Ok(RowState::united(raw.collect::<Result<Vec<_>, _>>()?, &merge))
    }

    /// Merges what was written to a row, and looks up what it references.
    fn prepare(&mut self, no: i64) -> Result<(), StoreError> {
        self.rows.load(no)?;
        let members = self.members(no)?;
        let row = self.rows.get(no)?;
        let (table, is_new) = (row.table, self.births.contains(&no));
        let work = self.works.get(&no);
        let withheld = work.map_or(row.withheld, |work| work.withheld);
        let fallback = work.map(|work| work.fallback.clone()).unwrap_or_default();
        // Whoever withdrew one of them has dropped the row, which the others may keep alive.
        let is_withdrawn =
            |raw: &RowState| raw.deleted.as_ref().is_some_and(|it| it.seq > self.since) && !raw.is_alive();
        let mut withdrawn = members.iter().filter_map(|no| self.rows.get(*no).ok());
        if members.len() > 1 && withdrawn.any(|row| is_withdrawn(&row.raw)) {
            self.dropped.insert(no);
        }
        let merged = self.merged(no)?;
        let mut work = Work {
            table,
            alive: merged.is_alive() && !withheld,
            merged,
            values: BTreeMap::new(),
            fallback,
            edges: Vec::new(),
            kept: false,
            withheld,
        };
        let mut targets = BTreeSet::new();
        for (column, cell) in &work.merged.cells {
            let CellValue::Ref(id) = cell.value else { continue };
            targets.insert(Target::from(id));
            let canonical = self.canonical(id)?;
            if canonical != id {
                targets.insert(canonical.into());
                work.values.insert(*column, CellValue::Ref(canonical));
            }
        }
        work.values.extend(work.fallback.clone());
        if let Some(rules) = self.rules.table(table) {
            for (at, link) in rules.links.iter().enumerate() {
                let Some(values) = work.link_values(link) else { continue };
                let mut parent = self.parent(link, &values, &mut targets)?;
                if parent.is_none()
                    && let Some(told) = self.mixed(no, &work, link)?
                {
                    parent = self.parent(link, &told, &mut targets)?;
                    let told = parent.iter().flat_map(|_| link.columns.iter().copied().zip(told.clone()));
                    work.values.extend(told);
                }
                if let Some((parent, renamed)) = parent {
                    work.edges.push(Edge { link: at, parent, renamed });
                }
            }
        }
        // A row that was united is prepared anew, and has links by then.
        self.claims.set_links(no, is_new && self.linked.insert(no), &targets)?;
        self.forget_work(no);
        self.works.insert(no, work);
        Ok(())
    }

    /// Has a row be worked out anew. What it referenced may have lived by it alone.
    fn forget_work(&mut self, no: i64) {
        let work = self.works.remove(&no);
        self.abandoned.extend(work.iter().flat_map(|work| &work.edges).map(|edge| edge.parent));
    }

    /// Brings the tenant's count of live rows, and what they take, up to what the batch made of it.
    pub fn count_rows(&mut self) {
        let (before, after) = self.rows.live();
        self.tenant.rows = self.tenant.rows.saturating_add(after).saturating_sub(before);
        self.tenant.weight = self.rows.weigh(self.tenant.weight);
    }

    fn work(&self, no: i64) -> Result<&Work, StoreError> {
        self.works.get(&no).ok_or_else(|| damaged("the index of references"))
    }

    fn work_mut(&mut self, no: i64) -> Result<&mut Work, StoreError> {
        self.works.get_mut(&no).ok_or_else(|| damaged("the index of references"))
    }

    fn link(&self, table: i64, at: usize) -> Option<(Arc<TableRules>, usize)> {
        self.rules.table(table).filter(|rules| at < rules.links.len()).map(|rules| (rules, at))
    }

    /// Writes down what is told of every row that was looked at, where it differs.
    fn settle(&mut self) -> Result<(), StoreError> {
        for (no, work) in std::mem::take(&mut self.works) {
            if !self.decided.contains(&no) {
                continue;
            }
            let is_united = self.members(no)?.len() > 1;
            let row = self.rows.get_mut(no)?;
            if !row.stands_for_itself() {
                continue;
            }
            let alive = work.alive && !work.withheld;
            let whole = alive && (self.whole.contains(&no) || self.dropped.contains(&no));
            let verdict = Verdict { alive, values: work.values, whole };
            let position = self.tenant.seq + 1;
            let mut told = work.merged.effective(&row.before, &verdict, self.since, position);
            if let Some(rules) = self.rules.table(work.table).filter(|_| alive) {
                told.keep_told(&row.before, position, |column| references::remainder(&rules, column));
            }
            let is_news = |delete: &&mut Cell<()>| is_united && !alive && delete.seq > self.since;
            if let Some(delete) = told.deleted.as_mut().filter(is_news) {
                // Whoever deleted the last of them may have been told that the others live.
                (delete.seq, delete.writer) = (position, NOBODY);
            }
            if told.seq() == position {
                self.tenant.seq = position;
            }
            let effective = (told != row.raw).then_some(told);
            if effective != row.effective || row.was_withheld != work.withheld {
                row.effective = effective;
                row.withheld = work.withheld;
                self.rows.store(no)?;
            }
        }
        Ok(())
    }
}
