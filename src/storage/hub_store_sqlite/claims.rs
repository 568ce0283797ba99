//! Which row holds which unique key, which rows wait for one, and which rows reference which: the indexes
//! that rules spanning rows are decided by.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::key::{KeyDigest, KeyOf};
use crate::model::RowId;
use crate::storage::hub_store::StoreError;

/// The indexes of one tenant.
#[derive(Clone, Copy)]
pub struct Claims<'a> {
    conn: &'a Connection,
    tenant: i64,
}

/// What a row can be referenced by: its identity, or a key of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target(pub [u8; 16]);

impl From<RowId> for Target {
    fn from(id: RowId) -> Self {
        Self(id.0)
    }
}

impl From<KeyDigest> for Target {
    fn from(digest: KeyDigest) -> Self {
        Self(digest.0)
    }
}

impl<'a> Claims<'a> {
    /// The indexes of a tenant.
    pub fn new(conn: &'a Connection, tenant: i64) -> Self {
        Self { conn, tenant }
    }

    /// The key under which rows collide that have this one: what the store cannot evaluate, replicas have told.
    pub fn present(self, key: KeyOf) -> Result<Option<KeyDigest>, StoreError> {
        Ok(match key {
            KeyOf::None => None,
            KeyOf::Known(key) => Some(key),
            KeyOf::Compared(key) => Some(self.alike(key)?.unwrap_or(key)),
            KeyOf::Computed(input) => self.alike(input)?,
        })
    }

    fn alike(self, key: KeyDigest) -> Result<Option<KeyDigest>, StoreError> {
        let sql = "SELECT same FROM alike WHERE tenant = ?1 AND digest = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let same = statement.query_row(params![self.tenant, &key.0[..]], |row| row.get(0).map(KeyDigest));
        Ok(same.optional()?)
    }

    /// Has a key be the same as `same` from now on, and all that were the same as it.
    pub fn liken(self, key: KeyDigest, same: KeyDigest) -> Result<(), StoreError> {
        let params = params![self.tenant, &key.0[..], &same.0[..]];
        let sql = "UPDATE alike SET same = ?3 WHERE tenant = ?1 AND same = ?2";
        self.conn.prepare_cached(sql)?.execute(params)?;
        let sql = "INSERT OR REPLACE INTO alike (tenant, digest, same) VALUES (?1, ?2, ?3)";
        self.conn.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }

    /// Which row holds a key.
    pub fn holder(self, key: KeyDigest) -> Result<Option<i64>, StoreError> {
        Ok(self.claim(key)?.map(|(row, _)| row))
    }

    /// Which row holds a key, and whether that row was born with it.
    pub fn claim(self, key: KeyDigest) -> Result<Option<(i64, bool)>, StoreError> {
        let sql = "SELECT row, by_birth FROM claim WHERE tenant = ?1 AND digest = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let claim = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
        Ok(statement.query_row(params![self.tenant, &key.0[..]], claim).optional()?)
    }

    /// The keys that a row holds.
    pub fn held_by(self, row: i64) -> Result<Vec<KeyDigest>, StoreError> {
        self.digests("SELECT digest FROM claim WHERE row = ?1", row)
    }

    /// Which row had a key last that nobody holds now.
    pub fn former_holder(self, key: KeyDigest) -> Result<Option<i64>, StoreError> {
        let sql = "SELECT row FROM former_claim WHERE tenant = ?1 AND digest = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.query_row(params![self.tenant, &key.0[..]], |row| row.get(0)).optional()?)
    }

    /// The keys that a row had, and nobody else has had since.
    pub fn formerly_held_by(self, row: i64) -> Result<Vec<KeyDigest>, StoreError> {
        self.digests("SELECT digest FROM former_claim WHERE row = ?1", row)
    }

    /// Notes that references by a free key mean a row, though it never held that key.
    pub fn note_former(self, key: KeyDigest, row: i64) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO former_claim (tenant, digest, row) VALUES (?1, ?2, ?3)";
        self.conn.prepare_cached(sql)?.execute(params![self.tenant, &key.0[..], row])?;
        Ok(())
    }

    /// Gives a free key to a row, which may have been born with it.
    pub fn take(self, key: KeyDigest, row: i64, by_birth: bool) -> Result<(), StoreError> {
        let sql = "DELETE FROM former_claim WHERE tenant = ?1 AND digest = ?2";
        self.conn.prepare_cached(sql)?.execute(params![self.tenant, &key.0[..]])?;
        let sql = "INSERT INTO claim (tenant, digest, row, by_birth) VALUES (?1, ?2, ?3, ?4)";
        self.conn.prepare_cached(sql)?.execute(params![self.tenant, &key.0[..], row, by_birth])?;
        Ok(())
    }

    /// Frees a key, and remembers who had it if other rows may mean that row by it.
    pub fn release(self, key: KeyDigest, is_parent: bool) -> Result<(), StoreError> {
        if is_parent {
            let sql = "INSERT OR REPLACE INTO former_claim (tenant, digest, row)
                       SELECT tenant, digest, row FROM claim WHERE tenant = ?1 AND digest = ?2";
            self.conn.prepare_cached(sql)?.execute(params![self.tenant, &key.0[..]])?;
        }
        let sql = "DELETE FROM claim WHERE tenant = ?1 AND digest = ?2";
        self.conn.prepare_cached(sql)?.execute(params![self.tenant, &key.0[..]])?;
        Ok(())
    }

    /// Has a row wait for a key that another one holds.
    pub fn wait(self, key: KeyDigest, row: i64) -> Result<(), StoreError> {
        let sql = "INSERT OR IGNORE INTO claim_wait (tenant, digest, row) VALUES (?1, ?2, ?3)";
        self.conn.prepare_cached(sql)?.execute(params![self.tenant, &key.0[..], row])?;
        Ok(())
    }

    /// Ends a row's waiting.
    pub fn stop_waiting(self, row: i64) -> Result<(), StoreError> {
        self.conn.prepare_cached("DELETE FROM claim_wait WHERE row = ?1")?.execute([row])?;
        Ok(())
    }

    /// The rows that wait for a key.
    pub fn waiting(self, key: KeyDigest) -> Result<Vec<i64>, StoreError> {
        let sql = "SELECT row FROM claim_wait WHERE tenant = ?1 AND digest = ?2 ORDER BY row";
        self.rows(sql, &key.0)
    }

    /// The keys that a row waits for.
    pub fn waited_for_by(self, row: i64) -> Result<Vec<KeyDigest>, StoreError> {
        self.digests("SELECT digest FROM claim_wait WHERE row = ?1", row)
    }

    /// The rows that reference one of these targets.
    pub fn referencing(self, targets: &BTreeSet<Target>) -> Result<BTreeSet<i64>, StoreError> {
        let mut rows = BTreeSet::new();
        for target in targets {
            rows.extend(self.rows("SELECT row FROM link WHERE tenant = ?1 AND target = ?2", &target.0)?);
        }
        Ok(rows)
    }

    /// Notes what a row references, and nothing else.
    pub fn set_links(self, row: i64, is_new: bool, targets: &BTreeSet<Target>) -> Result<(), StoreError> {
        let known = if is_new { BTreeSet::new() } else { self.links_of(row)? };
        for target in known.difference(targets) {
            let sql = "DELETE FROM link WHERE tenant = ?1 AND target = ?2 AND row = ?3";
            self.conn.prepare_cached(sql)?.execute(params![self.tenant, &target.0[..], row])?;
        }
        for target in targets.difference(&known) {
            // A row that was made in this batch may be looked at twice in it.
            let sql = "INSERT OR IGNORE INTO link (tenant, target, row) VALUES (?1, ?2, ?3)";
            self.conn.prepare_cached(sql)?.execute(params![self.tenant, &target.0[..], row])?;
        }
        Ok(())
    }

    /// Notes further things that a row references.
    pub fn add_links(self, row: i64, targets: &BTreeSet<Target>) -> Result<(), StoreError> {
        if targets.is_empty() {
            return Ok(());
        }
        let known = self.links_of(row)?;
        self.set_links(row, false, &known.union(targets).copied().collect())
    }

    fn links_of(self, row: i64) -> Result<BTreeSet<Target>, StoreError> {
        let found = self.digests("SELECT target FROM link WHERE row = ?1", row)?;
        Ok(found.into_iter().map(Target::from).collect())
    }

    fn digests(self, sql: &str, row: i64) -> Result<Vec<KeyDigest>, StoreError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let digests = statement.query_map([row], |row| row.get(0).map(KeyDigest))?;
        Ok(digests.collect::<Result<_, _>>()?)
    }

    fn rows(self, sql: &str, digest: &[u8; 16]) -> Result<Vec<i64>, StoreError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(params![self.tenant, &digest[..]], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The identity under which a row goes that was united with another one.
    pub fn survivor_of(self, id: RowId) -> Result<Option<RowId>, StoreError> {
        let sql = "SELECT survivor FROM row_state WHERE tenant = ?1 AND id = ?2 AND survivor IS NOT NULL";
        let mut statement = self.conn.prepare_cached(sql)?;
        let found = statement.query_row(params![self.tenant, &id.0[..]], |row| row.get(0)).optional()?;
        Ok(found.map(RowId))
    }

    /// Whether any rows of the tenant are united.
    pub fn has_unions(self) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS(SELECT 1 FROM row_state WHERE tenant = ?1 AND survivor IS NOT NULL)";
        Ok(self.conn.prepare_cached(sql)?.query_row([self.tenant], |row| row.get(0))?)
    }
}
