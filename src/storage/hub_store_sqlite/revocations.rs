//! Whom the operator has revoked. Not a tenant's business: it may be one that the store has never heard of.

use rusqlite::{Connection, Row, params};

use super::damaged;
use crate::protocol::message::Refusal;
use crate::storage::hub_store::StoreError;
use crate::storage::revocation::{Revocation, Revoked};

/// Revocations at once. A hub has all of them in memory.
const MAX_REVOCATIONS: i64 = 100_000;

/// What `kind` says of the names beside it: `tenant`, and of an agent `name`; of a token only `name`.
mod kind {
    pub const TENANT: i64 = 0;
    pub const AGENT: i64 = 1;
    pub const TOKEN: i64 = 2;
}

fn key_of(whom: &Revoked) -> (i64, &str, &str) {
    match whom {
        Revoked::Tenant(tenant) => (kind::TENANT, tenant, ""),
        Revoked::Agent { tenant, agent } => (kind::AGENT, tenant, agent),
        Revoked::Token(id) => (kind::TOKEN, "", id),
    }
}

fn read(row: &Row<'_>) -> Result<Revocation, StoreError> {
    let (tenant, name): (String, String) = (row.get(1)?, row.get(2)?);
    let whom = match row.get(0)? {
        kind::TENANT => Revoked::Tenant(tenant),
        kind::AGENT => Revoked::Agent { tenant, agent: name },
        kind::TOKEN => Revoked::Token(name),
        _ => return Err(damaged("a revocation")),
    };
    Ok(Revocation { whom, at_ms: row.get(3)?, until_ms: row.get(4)? })
}

/// Remembers a revocation; those that have ended make room.
pub fn revoke(conn: &Connection, revocation: &Revocation) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM revocation WHERE until_ms <= ?1")?.execute([revocation.at_ms])?;
    let count: i64 =
        conn.prepare_cached("SELECT count(*) FROM revocation")?.query_row([], |row| row.get(0))?;
    if count >= MAX_REVOCATIONS {
        let message = format!("{MAX_REVOCATIONS} revocations are remembered already: take some back");
        return Err(StoreError::Refused(Refusal::Protocol, message));
    }
    let (kind, tenant, name) = key_of(&revocation.whom);
    conn.prepare_cached("INSERT OR REPLACE INTO revocation VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![kind, tenant, name, revocation.at_ms, revocation.until_ms])?;
    Ok(())
}

/// Forgets a revocation. Says whether there was one.
pub fn reinstate(conn: &Connection, whom: &Revoked) -> Result<bool, StoreError> {
    let (kind, tenant, name) = key_of(whom);
    let deleted = conn
        .prepare_cached("DELETE FROM revocation WHERE kind = ?1 AND tenant = ?2 AND name = ?3")?
        .execute(params![kind, tenant, name])?;
    Ok(deleted > 0)
}

/// All that hold at `now_ms`.
pub fn all(conn: &Connection, now_ms: i64) -> Result<Vec<Revocation>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT kind, tenant, name, at_ms, until_ms FROM revocation
         WHERE until_ms IS NULL OR until_ms > ?1 ORDER BY kind, tenant, name",
    )?;
    let mut rows = statement.query([now_ms])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}
