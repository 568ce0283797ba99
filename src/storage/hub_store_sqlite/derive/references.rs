//! Which row a reference means, and which rows reference one.

use std::collections::{BTreeSet, HashMap};

use super::{Deriver, Target, Work};
use crate::model::{CellValue, ColumnIndex, Remainder, RowId, Seq};
use crate::storage::hub_store::StoreError;
use crate::storage::hub_store_sqlite::rules::{LinkRule, TableRules};

impl Deriver<'_> {
    /// What a foreign key of several columns was last told to be, if its columns were written by different
    /// writes: half of one and half of another means no row.
    pub(super) fn mixed(
        &self,
        no: i64,
        work: &Work,
        link: &LinkRule,
    ) -> Result<Option<Vec<CellValue>>, StoreError> {
        let written: BTreeSet<Seq> =
            link.columns.iter().filter_map(|column| work.merged.cells.get(column)).map(|it| it.seq).collect();
        if written.len() < 2 {
            return Ok(None);
        }
        let before = &self.rows.get(no)?.before;
        Ok(link.columns.iter().map(|column| Some(before.cells.get(column)?.value.clone())).collect())
    }

    /// The identity under which a row goes.
    pub(super) fn canonical(&self, id: RowId) -> Result<RowId, StoreError> {
        if !self.has_unions {
            return Ok(id);
        }
        Ok(self.claims.survivor_of(id)?.unwrap_or(id))
    }

    /// The row that a link's values mean, and whether it has another key by now. Adds what it would be
    /// referenced by. A row that the hub does not know is none: nothing can be said of it.
    pub(super) fn parent(
        &mut self,
        link: &LinkRule,
        values: &[CellValue],
        targets: &mut BTreeSet<Target>,
    ) -> Result<Option<(i64, bool)>, StoreError> {
        let Some(key) = link.key else {
            let [CellValue::Ref(id)] = values else { return Ok(None) };
            let found = self.rows.find(link.parent, *id)?;
            return found.map(|no| Ok((self.entity(no)?, false))).transpose();
        };
        let Some(parent) = self.rules.table(link.parent) else { return Ok(None) };
        let Some(rule) = parent.unique.get(key) else { return Ok(None) };
        let named = rule.digest_of(&link.order, values);
        let Some(digest) = self.claims.present(named)? else { return Ok(None) };
        targets.insert(digest.into());
        if let Some(taker) = self.takers.get(&digest) {
            return Ok(Some((*taker, false)));
        }
        if let Some(holder) = self.claims.holder(digest)? {
            return Ok(Some((self.entity(holder)?, false)));
        }
        let former = self.claims.former_holder(digest)?;
        former.map(|no| Ok((self.entity(no)?, true))).transpose()
    }

    /// The rows that reference this one, or did before its key changed.
    pub(super) fn children(&mut self, no: i64) -> Result<BTreeSet<i64>, StoreError> {
        if !self.is_parent(no)? {
            return Ok(BTreeSet::new());
        }
        let mut targets = BTreeSet::new();
        for member in self.members(no)? {
            targets.insert(self.rows.get(member)?.id.into());
            targets.extend(self.claims.held_by(member)?.into_iter().map(Target::from));
            targets.extend(self.claims.formerly_held_by(member)?.into_iter().map(Target::from));
        }
        self.referencing(&targets)
    }

    pub(super) fn referencing(&mut self, targets: &BTreeSet<Target>) -> Result<BTreeSet<i64>, StoreError> {
        let mut rows = BTreeSet::new();
        for no in self.claims.referencing(targets)? {
            rows.insert(self.entity(no)?);
        }
        Ok(rows)
    }

    /// Whether one of these rows is what is looked for, or one of their parents, and so on. Remembers what it finds of each
    /// row in `known`, and believes what is there.
    pub(super) fn is_any_above(
        &mut self,
        rows: Vec<i64>,
        known: &mut HashMap<i64, bool>,
        mut is_it: impl FnMut(&mut Self, i64) -> Result<bool, StoreError>,
        mut parents: impl FnMut(&mut Self, i64) -> Result<Vec<i64>, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut seen = BTreeSet::new();
        // The rows on the way up, each with those above it that were not looked at yet.
        let mut way: Vec<(Option<i64>, Vec<i64>)> = vec![(None, rows)];
        while let Some((_, left)) = way.last_mut() {
            let Some(no) = left.pop() else {
                way.pop();
                continue;
            };
            if !seen.insert(no) {
                continue;
            }
            let is_known = known.get(&no).copied();
            if is_known == Some(true) || is_known.is_none() && is_it(self, no)? {
                let on_the_way = way.into_iter().filter_map(|(no, _)| no).chain([no]);
                known.extend(on_the_way.map(|no| (no, true)));
                return Ok(true);
            }
            if is_known.is_none() {
                way.push((Some(no), parents(self, no)?));
            }
        }
        known.extend(seen.into_iter().map(|no| (no, false)));
        Ok(false)
    }

    /// Notes which rows of a batch want keys that others had, or hold while they are dead by their own writes or went with
    /// a row that is. Whoever references such a key means the row that is to live with it, and does not keep another one.
    /// Adds the rows whose lives that may change.
    pub(super) fn note_takers(&mut self, rows: &mut BTreeSet<i64>) -> Result<(), StoreError> {
        for no in &*rows {
            self.rows.load(*no)?;
        }
        for no in self.by_birth(rows) {
            let table = self.rows.get(no)?.table;
            let Some(rules) = self.rules.table(table).filter(|rules| !rules.referenced.is_empty()) else {
                continue;
            };
            let merged = self.merged(no)?;
            if !merged.is_alive() || self.cascaded.contains(&no) {
                continue;
            }
            let written = merged.cells.iter().map(|(column, cell)| (*column, &cell.value));
            let written = self.canonical_values(written)?;
            let written = |column| written.get(&column).cloned();
            for (at, key) in self.rules.keys_of(self.claims, table, &merged, &written)? {
                if !rules.referenced.contains(&at) {
                    continue;
                }
                let holder = self.claims.holder(key)?;
                let Some(meant) = holder.map_or_else(|| self.claims.former_holder(key), |it| Ok(Some(it)))?
                else {
                    continue;
                };
                let has_it =
                    holder.is_some() && !self.cascaded.contains(&meant) && self.merged(meant)?.is_alive();
                if meant != no && !has_it {
                    self.takers.entry(key).or_insert(no);
                    rows.insert(meant);
                    rows.append(&mut self.referencing(&[Target::from(key)].into())?);
                }
            }
        }
        Ok(())
    }
}

/// What stays of a column that a row has no more. One of a key or a reference is a matter of other rows as well.
pub(super) fn remainder(rules: &TableRules, column: ColumnIndex) -> Remainder {
    let in_links = rules.links.iter().any(|link| link.columns.contains(&column));
    let is_bound = in_links || rules.unique.iter().any(|unique| unique.columns.contains(&column));
    match (is_bound, rules.required.contains(&column)) {
        (false, _) => Remainder::Told,
        (true, false) => Remainder::Null,
        (true, true) => Remainder::Nothing,
    }
}
