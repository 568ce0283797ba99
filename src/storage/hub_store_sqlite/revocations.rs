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

/// How many revocations there are at most. They are counted once, and again when there might be too many: each of very many
/// costs as much as the first.
#[derive(Default)]
pub struct Tally(Option<i64>);

impl Tally {
    /// Counts again before the next one: what was counted may have been taken back.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

/// Remembers a revocation; those that have ended make room where there is none.
pub fn revoke(conn: &Connection, tally: &mut Tally, revocation: &Revocation) -> Result<(), StoreError> {
    let at_most = match tally.0.take() {
        Some(known) if known < MAX_REVOCATIONS => known,
        _ => {
            conn.prepare_cached("DELETE FROM revocation WHERE until_ms <= ?1")?
                .execute([revocation.at_ms])?;
            conn.prepare_cached("SELECT count(*) FROM revocation")?.query_row([], |row| row.get(0))?
        }
    };
    if at_most >= MAX_REVOCATIONS {
        let message = format!("{MAX_REVOCATIONS} revocations are remembered already: take some back");
        return Err(StoreError::Refused(Refusal::Protocol, message));
    }
    let (kind, tenant, name) = key_of(&revocation.whom);
    conn.prepare_cached("INSERT OR REPLACE INTO revocation VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![kind, tenant, name, revocation.at_ms, revocation.until_ms])?;
    tally.0 = Some(at_most + 1);
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

#[cfg(test)]
mod tests {
    use super::super::open;
    use super::*;

    fn token(n: i64, at_ms: i64, until_ms: Option<i64>) -> Revocation {
        Revocation { whom: Revoked::Token(format!("token {n:06}")), at_ms, until_ms }
    }

    /// Breaks if the limit is off, if what has ended makes no room, or if a tally outlives what it has counted.
    #[test]
    fn there_are_so_many_and_those_that_end_make_room() {
        let conn = open::memory().unwrap();
        let mut tally = Tally::default();
        for n in 0..MAX_REVOCATIONS {
            revoke(&conn, &mut tally, &token(n, 0, (n % 2 == 0).then_some(1_000))).unwrap();
        }
        for _ in 0..2 {
            let error = revoke(&conn, &mut tally, &token(-1, 999, None)).unwrap_err();
            assert!(matches!(&error, StoreError::Refused(_, why) if why.contains("100000")), "{error}");
        }
        // The same one again is another one to the tally, and none to the store.
        conn.execute("DELETE FROM revocation WHERE name = 'token 000007'", []).unwrap();
        for at_ms in 0..3 {
            revoke(&conn, &mut tally, &token(9, at_ms, None)).unwrap();
        }
        revoke(&conn, &mut tally, &token(-1, 998, None)).unwrap();
        revoke(&conn, &mut tally, &token(-2, 999, None)).unwrap_err();
        revoke(&conn, &mut tally, &token(-2, 1_000, None)).unwrap();
        let held = all(&conn, 0).unwrap();
        assert_eq!(held.len(), usize::try_from(MAX_REVOCATIONS / 2 + 1).unwrap());
        assert!(held.iter().all(|it| it.until_ms.is_none()));
    }
}
