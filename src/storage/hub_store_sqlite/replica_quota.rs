//! How many replicas a tenant keeps.
//!
//! Nobody is refused for it: a hub would turn away new agents for as long as those that are gone are remembered. Instead the
//! replicas that were heard of the longest ago retire before their time, of those agents that have the most: whoever fills
//! the hub with replicas loses its own. A replica that retires so loses nothing but time: it takes another id as it comes
//! back, starts from a fresh snapshot, and offers what it has not sent.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use super::damaged;
use super::presence::{Sightings, fold};
use super::tenant::Tenant;
use super::weight::StoreLimits;
use crate::model::ReplicaId;
use crate::storage::hub_store::StoreError;

/// How many replicas retire at once, at most: to find them costs more than to retire one.
const AT_ONCE: usize = 64;

/// A tenant keeps as many replicas, however many bytes they take.
const ALWAYS_KEPT: usize = 64;

/// Has replicas retire if a tenant has no room for one more. Returns the tables of which definitions are declared by nobody
/// now.
pub fn make_room(
    conn: &Connection,
    sightings: &mut Sightings,
    tenant: &Tenant,
    limits: StoreLimits,
) -> Result<BTreeSet<i64>, StoreError> {
    let kept = usize::try_from(tenant.replicas).unwrap_or(usize::MAX);
    let surplus = if kept >= limits.replicas {
        // Some more than there must, so that those who come next find room.
        (kept - limits.replicas).saturating_add((limits.replicas / AT_ONCE).max(1))
    } else if tenant.kept_bytes > limits.tenant_bytes && kept > ALWAYS_KEPT {
        kept - ALWAYS_KEPT
    } else {
        return Ok(BTreeSet::new());
    };
    let mut undeclared = BTreeSet::new();
    for replica in oldest(conn, sightings, tenant.id, surplus.min(AT_ONCE))? {
        undeclared.append(&mut fold(conn, sightings, tenant.id, replica)?);
    }
    Ok(undeclared)
}

/// Of the agents that have at least half as many replicas as the one with the most: the replicas that were heard of the
/// longest ago.
fn oldest(
    conn: &Connection,
    sightings: &Sightings,
    tenant: i64,
    count: usize,
) -> Result<Vec<ReplicaId>, StoreError> {
    let most: i64 = conn
        .prepare_cached(
            "SELECT max(n) FROM (SELECT count(*) AS n FROM replica WHERE tenant = ?1 GROUP BY agent)",
        )?
        .query_row([tenant], |row| row.get::<_, Option<i64>>(0))?
        .unwrap_or(0);
    let mut statement = conn.prepare_cached(
        "SELECT id, seen_ms FROM replica WHERE tenant = ?1 AND agent IN (
             SELECT agent FROM replica WHERE tenant = ?1 GROUP BY agent HAVING 2 * count(*) >= ?2)",
    )?;
    let mut rows = statement.query(params![tenant, most])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        let id = ReplicaId::from_slice(id).ok_or_else(|| damaged("a replica's id"))?;
        found.push((sightings.seen_ms(tenant, id, row.get(1)?), id.0));
    }
    found.sort_unstable();
    Ok(found.into_iter().take(count).map(|(_, id)| ReplicaId(id)).collect())
}
