//! Collecting tombstones: a dead row goes for good once every live replica has reported a cursor above its
//! death, and nothing that stays references it.
//!
//! What a row was united with goes with it, or before it, by being folded into it (`folding.rs`); and so does everything by which it could be found: the keys that it
//! had, and its links. A dead row that others reference waits for them: children before their parents, and dead
//! rows that reference each other in a circle together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rusqlite::{Connection, OptionalExtension, params};

use super::claims::{Claims, Target};
use super::folding::Folder;
use super::weight::Weight;
use crate::model::RowId;
use crate::storage::hub_store::StoreError;

/// Where the look at dead rows stands. It goes round and round.
#[derive(Default)]
pub struct Sweep {
    tenant: i64,
    /// Dead rows up to here have been looked at.
    after: i64,
}

/// A dead row that everyone has seen die.
struct Candidate {
    /// Rows that were united with it.
    members: Vec<i64>,
    referrers: BTreeSet<i64>,
    /// The position of the last change of any of them.
    seq: i64,
}

impl Sweep {
    /// Looks at up to `limit` dead rows of one tenant, and removes those that can go. Returns whether there are
    /// others to look at in this round.
    pub fn step(&mut self, conn: &Connection, limit: usize) -> Result<bool, StoreError> {
        let sql = "SELECT tenant FROM row_state WHERE dead AND (tenant, seq) > (?1, ?2)
                   ORDER BY tenant, seq LIMIT 1";
        let next: Option<i64> = conn
            .prepare_cached(sql)?
            .query_row(params![self.tenant, self.after], |row| row.get(0))
            .optional()?;
        let Some(tenant) = next else {
            *self = Self::default();
            return Ok(false);
        };
        if tenant != self.tenant {
            *self = Self { tenant, after: 0 };
        }
        let horizon = reported_by_all(conn, tenant)?;
        let sql = "SELECT row, seq FROM row_state WHERE dead AND tenant = ?1 AND seq > ?2 AND seq <= ?3
                   ORDER BY seq LIMIT ?4";
        let limit_rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let dead: Vec<(i64, i64)> = conn
            .prepare_cached(sql)?
            .query_map(params![tenant, self.after, horizon, limit_rows], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        // The rest of the tenant is newer than what everyone has seen.
        self.after = match dead.last() {
            Some((_, seq)) if dead.len() == limit => *seq,
            _ => i64::MAX,
        };
        let rows: VecDeque<i64> = dead.into_iter().map(|(row, _)| row).collect();
        let folder = Folder { conn, tenant, horizon: horizon.cast_unsigned() };
        let looked_at = rows.clone();
        let collector = Collector { conn, tenant, horizon, limit: limit * 2, found: BTreeMap::new() };
        let mut last = collector.collect(rows)?;
        for row in looked_at {
            last = last.max(folder.fold(row)?.map(u64::cast_signed));
        }
        if let Some(last) = last {
            let swept = horizon.min(self.after);
            conn.prepare_cached(
                "UPDATE tenant SET horizon = max(horizon, ?2), swept = max(swept, ?3) WHERE id = ?1",
            )?
            .execute(params![tenant, last, swept])?;
        }
        Ok(true)
    }
}

/// The least cursor that a live replica has reported; everything if there is none.
fn reported_by_all(conn: &Connection, tenant: i64) -> Result<i64, StoreError> {
    let sql =
        "SELECT coalesce((SELECT min(cursor) FROM replica WHERE tenant = ?1), seq) FROM tenant WHERE id = ?1";
    Ok(conn.prepare_cached(sql)?.query_row([tenant], |row| row.get(0))?)
}

struct Collector<'a> {
    conn: &'a Connection,
    tenant: i64,
    horizon: i64,
    /// How many rows are looked at together.
    limit: usize,
    found: BTreeMap<i64, Candidate>,
}

impl Collector<'_> {
    /// Removes those of the rows that nothing else needs, with dead rows that reference them. Returns the last
    /// position of what went, if anything did.
    fn collect(mut self, rows: VecDeque<i64>) -> Result<Option<i64>, StoreError> {
        self.gather(rows)?;
        // What stays keeps what it references.
        loop {
            let going: BTreeSet<i64> = self
                .found
                .iter()
                .flat_map(|(row, candidate)| candidate.members.iter().chain(std::iter::once(row)))
                .copied()
                .collect();
            let before = self.found.len();
            self.found.retain(|_, candidate| candidate.referrers.is_subset(&going));
            if self.found.len() == before {
                break;
            }
        }
        let mut freed = Weight::default();
        for (row, candidate) in &self.found {
            for row in candidate.members.iter().chain(std::iter::once(row)) {
                freed = freed.changed(self.remove(*row)?, Weight::default());
            }
        }
        self.conn
            .prepare_cached(
                "UPDATE tenant SET live_bytes = max(0, live_bytes - ?2), dead_bytes = max(0, dead_bytes - ?3)
                 WHERE id = ?1",
            )?
            .execute(params![self.tenant, freed.live.cast_signed(), freed.dead.cast_signed()])?;
        Ok(self.found.values().map(|candidate| candidate.seq).max())
    }

    /// Looks at dead rows, and at the dead rows that reference them.
    fn gather(&mut self, mut ahead: VecDeque<i64>) -> Result<(), StoreError> {
        while let Some(row) = ahead.pop_front() {
            if self.found.contains_key(&row) || self.found.len() >= self.limit {
                continue;
            }
            let Some(candidate) = self.candidate(row)? else { continue };
            ahead.extend(candidate.referrers.iter().filter(|row| !self.found.contains_key(row)));
            self.found.insert(row, candidate);
        }
        Ok(())
    }

    /// A row with what goes with it and what holds it; none if somebody may not have seen it die.
    fn candidate(&self, row: i64) -> Result<Option<Candidate>, StoreError> {
        let sql = "SELECT id, tbl, seq FROM row_state
                   WHERE row = ?1 AND tenant = ?2 AND dead AND seq <= ?3 AND survivor IS NULL";
        let found: Option<([u8; 16], i64, i64)> = self
            .conn
            .prepare_cached(sql)?
            .query_row(params![row, self.tenant, self.horizon], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((id, table, mut seq)) = found else { return Ok(None) };
        let united: Vec<(i64, [u8; 16], i64)> = self
            .conn
            .prepare_cached(
                "SELECT row, id, seq FROM row_state WHERE tenant = ?1 AND survivor = ?2 AND tbl = ?3",
            )?
            .query_map(params![self.tenant, &id[..], table], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        let claims = Claims::new(self.conn, self.tenant);
        let mut targets: BTreeSet<Target> = [RowId(id).into()].into();
        let mut members = Vec::new();
        for (member, id, at) in united {
            if at > self.horizon {
                return Ok(None);
            }
            seq = seq.max(at);
            targets.insert(RowId(id).into());
            members.push(member);
        }
        for row in members.iter().chain(std::iter::once(&row)) {
            targets.extend(claims.formerly_held_by(*row)?.into_iter().map(Target::from));
        }
        let mut referrers = claims.referencing(&targets)?;
        referrers.remove(&row);
        Ok(Some(Candidate { members, referrers, seq }))
    }

    /// Removes a row; returns what it took.
    fn remove(&self, row: i64) -> Result<Weight, StoreError> {
        for sql in [
            "DELETE FROM claim WHERE row = ?1",
            "DELETE FROM former_claim WHERE row = ?1",
            "DELETE FROM claim_wait WHERE row = ?1",
            "DELETE FROM link WHERE row = ?1",
        ] {
            self.conn.prepare_cached(sql)?.execute([row])?;
        }
        let sql = "DELETE FROM row_state WHERE row = ?1 RETURNING length(body) + coalesce(length(effective), 0), dead";
        let weight = self
            .conn
            .prepare_cached(sql)?
            .query_row([row], |row| Ok(Weight::of(row.get::<_, u32>(0)? as usize, row.get(1)?)))
            .optional()?;
        Ok(weight.unwrap_or_default())
    }
}
