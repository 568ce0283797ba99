//! What the hub cannot evaluate, replicas tell: a unique index over a function, or with a collation, of the
//! application's own. A replica that has it and meets two rows that collide says so; from then on what either is
//! made of is the same key, and the rows are ruled on like any others.

use std::collections::BTreeSet;

use super::{Deriver, Target};
use crate::model::Seq;
use crate::protocol::message::Collision;
use crate::storage::hub_store::StoreError;
use crate::storage::hub_store_sqlite::key::{KeyDigest, KeyOf};

impl Deriver<'_> {
    /// Learns that two rows collide. Returns the rows that are to be looked at for it; none if the hub has told of
    /// either row since, so that the replica has seen another one, or can evaluate the index itself.
    pub fn liken(&mut self, table: i64, collision: &Collision) -> Result<BTreeSet<i64>, StoreError> {
        let Some(rules) = self.rules.table(table) else { return Ok(BTreeSet::new()) };
        let is_named = |index: &str| index.eq_ignore_ascii_case(&collision.index);
        let Some(at) = rules.unique.iter().position(|unique| is_named(&unique.index)) else {
            return Ok(BTreeSet::new());
        };
        let mut rows = Vec::new();
        for id in [collision.rows.0, collision.rows.1] {
            let Some(no) = self.rows.find(table, id)? else { return Ok(BTreeSet::new()) };
            if !self.is_as_told(no, collision.base)? {
                return Ok(BTreeSet::new());
            }
            let key = self.rules.key_of(table, at, &self.rows.get(no)?.before);
            let (KeyOf::Compared(own) | KeyOf::Computed(own)) = key else { return Ok(BTreeSet::new()) };
            let row = self.rows.get(no)?;
            let written =
                rules.unique[at].columns.iter().filter_map(|it| row.raw.cells.get(it)).map(|it| it.seq);
            rows.push(((written.max(), row.born, row.id), no, own, self.claims.present(key)?));
        }
        // Whoever wrote its values first has them.
        rows.sort_unstable();
        let [(_, first, one, has), (_, second, other, had)] = rows[..] else { return Ok(BTreeSet::new()) };
        if first == second || has.is_some() && has == had {
            return Ok(BTreeSet::new());
        }
        let mut touched = BTreeSet::from([first, second]);
        let key = has.or(had).unwrap_or(one);
        if let (Some(_), Some(had)) = (has, had) {
            touched.append(&mut self.concerned(had)?);
            self.claims.liken(had, key)?;
        }
        self.claims.liken(one, key)?;
        self.claims.liken(other, key)?;
        if self.claims.holder(key)?.is_none() {
            let by_birth = self.is_by_birth(first, (at, key))?;
            self.claims.take(key, first, by_birth)?;
        }
        Ok(touched)
    }

    /// Whether a row is alive, and is what a replica that has merged up to `base` has of it.
    fn is_as_told(&self, no: i64, base: Seq) -> Result<bool, StoreError> {
        let row = self.rows.get(no)?;
        let told = row.before.seq().max(row.raw.seq()).max(row.united_at);
        // Neither a row that is withheld, nor one that is another, was told as one that lives.
        Ok(row.before.is_alive() && told <= base.min(self.since))
    }

    /// The rows that hold a key, wait for it or reference a row by it.
    fn concerned(&mut self, key: KeyDigest) -> Result<BTreeSet<i64>, StoreError> {
        let mut concerned: BTreeSet<i64> = self.claims.waiting(key)?.into_iter().collect();
        concerned.append(&mut self.referencing(&[Target::from(key)].into())?);
        concerned.extend(self.claims.holder(key)?);
        for no in &concerned {
            self.rows.load(*no)?;
        }
        Ok(concerned)
    }
}
