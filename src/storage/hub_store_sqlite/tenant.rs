//! A tenant: how far its order of changes has come, and what its rows take.

use rusqlite::{Connection, OptionalExtension, params};

use super::weight::Weight;
use crate::model::{Hlc, Seq};
use crate::storage::hub_store::{StoreError, StoreStats};

/// A tenant, as far as every operation needs it.
pub(super) struct Tenant {
    pub(super) id: i64,
    /// The last position that was given away.
    pub(super) seq: Seq,
    pub(super) highest: Hlc,
    /// Live rows.
    pub(super) rows: u64,
    /// What all rows take.
    pub(super) weight: Weight,
    /// What its definitions and replicas take, in bytes; counted where they are written.
    pub(super) kept_bytes: u64,
    /// Its replicas, likewise.
    pub(super) replicas: u64,
    /// Tombstones have been collected up to here.
    pub(super) horizon: Seq,
    /// And none that could be is left up to here.
    pub(super) swept: Seq,
    /// Names of agents that retired up to here may be forgotten; -1 if none are.
    pub(super) forgotten: i64,
}

impl Tenant {
    pub(super) fn find(conn: &Connection, name: &str) -> Result<Option<Self>, StoreError> {
        let tenant = conn
            .prepare_cached(
                "SELECT id, seq, highest, rows, horizon, swept, forgotten, live_bytes, dead_bytes,
                        kept_bytes, replicas
                 FROM tenant WHERE name = ?1",
            )?
            .query_row([name], |row| {
                let unsigned = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
                let (seq, highest, rows) = (unsigned(1)?, Hlc(unsigned(2)?), unsigned(3)?);
                let (horizon, swept, forgotten) = (unsigned(4)?, unsigned(5)?, row.get(6)?);
                let weight = Weight { live: unsigned(7)?, dead: unsigned(8)? };
                let (kept_bytes, replicas) = (unsigned(9)?, unsigned(10)?);
                let id = row.get(0)?;
                Ok(Self { id, seq, highest, rows, weight, kept_bytes, replicas, horizon, swept, forgotten })
            })
            .optional()?;
        Ok(tenant)
    }

    pub(super) fn find_or_create(
        conn: &Connection,
        name: &str,
        stats: &mut StoreStats,
    ) -> Result<Self, StoreError> {
        if let Some(tenant) = Self::find(conn, name)? {
            return Ok(tenant);
        }
        // What is being erased of a tenant bears its number until nothing is left.
        conn.execute(
            "INSERT INTO tenant (id, name) SELECT 1 + max(
                 (SELECT coalesce(max(id), 0) FROM tenant), (SELECT coalesce(max(tenant), 0) FROM removal)), ?1",
            [name],
        )?;
        stats.tenants += 1;
        let id = conn.last_insert_rowid();
        Ok(Self {
            id,
            seq: 0,
            highest: Hlc::ZERO,
            rows: 0,
            weight: Weight::default(),
            kept_bytes: 0,
            replicas: 0,
            horizon: 0,
            swept: 0,
            forgotten: -1,
        })
    }

    pub(super) fn save(&self, conn: &Connection) -> Result<(), StoreError> {
        conn.prepare_cached(
            "UPDATE tenant SET seq = ?2, highest = ?3, rows = ?4, live_bytes = ?5, dead_bytes = ?6 WHERE id = ?1",
        )?
        .execute(params![
            self.id,
            self.seq.cast_signed(),
            self.highest.0.cast_signed(),
            self.rows.cast_signed(),
            self.weight.live.cast_signed(),
            self.weight.dead.cast_signed()
        ])?;
        Ok(())
    }
}
