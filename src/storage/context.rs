//! What the storage functions of one batch share.

use std::collections::BTreeMap;

use super::bookkeeping::{HalfSettled, ReplicaState};
use super::catalog::{Catalog, Table};
use super::driver::{Sql, SqlError};
use super::yielding::Indexes;
use crate::model::{Hlc, Seq, Stamp, StampSource};

/// What the storage functions of one batch share.
pub struct Context<'a> {
    /// The tables.
    pub catalog: &'a Catalog,
    /// Up to where the hub's changes have been merged: the base of writes found now.
    pub cursor: Seq,
    /// Makes the stamps of writes found now.
    pub stamps: StampSource,
    /// The highest clock reading made so far.
    pub highest: Hlc,
    /// The highest one of a delete: what was made in its place must beat it, also under the same identity.
    pub last_delete: Hlc,
    /// The highest one of the deletes up to some entries of the log that are about keys, which are read before others.
    deaths: BTreeMap<i64, Hlc>,
    /// Random bytes for new identities; passed in, so that a simulation can repeat itself.
    pub mint: &'a mut dyn FnMut() -> [u8; 16],
    /// What people should know, each once.
    pub notices: Vec<String>,
    /// Whether anything is set aside, once that was asked.
    is_set_aside: Option<bool>,
    /// How the turn does with indexes that triggers keep.
    pub indexes: Indexes,
}

impl<'a> Context<'a> {
    /// The start of a batch.
    pub fn new(
        catalog: &'a Catalog,
        cursor: Seq,
        stamps: StampSource,
        mint: &'a mut dyn FnMut() -> [u8; 16],
    ) -> Self {
        let (highest, last_delete, notices) = (stamps.highest, Hlc::ZERO, Vec::new());
        let (indexes, deaths) = (Indexes::default(), BTreeMap::new());
        Self {
            catalog,
            cursor,
            stamps,
            highest,
            last_delete,
            deaths,
            mint,
            notices,
            is_set_aside: None,
            indexes,
        }
    }
}

impl Context<'_> {
    /// Goes on with a log of which earlier turns have settled a part.
    pub fn go_on(&mut self, half_settled: Option<&HalfSettled>) {
        let Some(HalfSettled { highest, last_delete, deaths }) = half_settled else { return };
        (self.highest, self.last_delete) = (self.highest.max(*highest), *last_delete);
        self.deaths.clone_from(deaths);
    }

    /// Takes down how far the log is settled: what was stamped counts as seen once `is_whole`. Returns whether that is news.
    pub fn record(&self, state: &mut ReplicaState, is_whole: bool) -> bool {
        let before = (state.highest, state.half_settled.take());
        if is_whole {
            state.highest = state.highest.max(self.highest);
        } else {
            let (highest, last_delete, deaths) = (self.highest, self.last_delete, self.deaths.clone());
            state.half_settled = Some(HalfSettled { highest, last_delete, deaths });
        }
        before != (state.highest, state.half_settled.clone())
    }

    /// Tells of rows that stay here, once for each table and turn.
    pub fn note_without_key(&mut self, table: &Table) {
        self.note(format!(
            "rows of {} whose PRIMARY KEY holds a NULL are not shared: nothing tells them apart",
            table.name
        ));
    }

    /// Tells of a table whose indexes cannot be kept.
    pub fn note_failed_index(&mut self, table: &str) {
        let reason = self.indexes.failure.clone().unwrap_or_default();
        self.note_refused_by_index(table, &reason);
    }

    /// Tells of rows that an index has not taken.
    pub fn note_refused_by_index(&mut self, table: &str, reason: &str) {
        self.note(format!(
            "an index that triggers keep of {table} does not take all that a sync brings ({reason}): rebuild it"
        ));
    }

    /// Notes a delete that is at this place of the log.
    pub fn note_death(&mut self, seq: i64, at: Hlc) {
        if at > self.death_before(seq) {
            self.deaths.insert(seq, at);
        }
    }

    /// The highest one of the deletes before a place of the log, of those that were noted.
    pub fn death_before(&self, seq: i64) -> Hlc {
        self.deaths.range(..seq).next_back().map_or(Hlc::ZERO, |(_, at)| *at)
    }

    /// Tells people something, once.
    pub fn note(&mut self, notice: String) {
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }

    /// What somebody who makes a row now has seen: everything that was merged, unless some of it could not be applied.
    pub fn base_of_new(&mut self, sql: &mut dyn Sql) -> Result<Seq, SqlError> {
        let is_set_aside = match self.is_set_aside {
            Some(known) => known,
            None => sql.query_row("SELECT 1 FROM main._federation_quarantine LIMIT 1", &[])?.is_some(),
        };
        self.is_set_aside = Some(is_set_aside);
        Ok(if is_set_aside { 0 } else { self.cursor })
    }

    /// What a row that was made at this time must beat: the last delete, unless that came later.
    pub fn deleted_until(&self, at_ms: i64) -> Hlc {
        let is_later = self.last_delete.ms() > self.stamps.stamp(at_ms).hlc.ms();
        if is_later { Hlc::ZERO } else { self.last_delete }
    }

    /// The stamp of a write of `at_ms` to a row whose highest reading is `seen`, remembered as the highest
    /// if it is. A row can be deleted and come back in one turn, and the latter must beat the former.
    pub fn stamp(&mut self, at_ms: i64, seen: Hlc) -> Stamp {
        let mut stamp = self.stamps.stamp(at_ms);
        stamp.hlc = stamp.hlc.max(seen.next());
        self.highest = self.highest.max(stamp.hlc);
        stamp
    }
}
