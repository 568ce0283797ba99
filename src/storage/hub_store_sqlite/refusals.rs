//! Tables that the hub does not take from a replica, because its declaration contradicts the tenant's first.
//!
//! They are found when the replica declares its tables, and kept with it until it declares them again: its
//! rows of such a table are rejected, it is told of none, and everything else goes on.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::rules::TenantRules;
use super::session::Replica;
use super::standing::{Declarer, Settling};
use super::tenant::Tenant;
use super::{damaged, definitions, dropped, tables};
use crate::model::ReplicaId;
use crate::protocol::hub_request::RegisterRequest;
use crate::storage::hub_store::{StoreError, StoreStats};

/// A table that is refused to a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedTable {
    /// The store's number of the table; 0 if it has none.
    pub table: i64,
    /// Its name on the replica.
    pub name: String,
    /// Why, and what to do.
    pub reason: String,
}

/// Takes in declarations, and notes which of them contradict the first.
pub fn register(
    conn: &Connection,
    stats: &mut StoreStats,
    agent: &str,
    (tenant, replica): (&mut Tenant, &Replica),
    request: &RegisterRequest,
    rules: &mut Option<TenantRules>,
) -> Result<(), StoreError> {
    let before = tenant.seq;
    let (mut refused, mut taken) = (Vec::new(), Vec::new());
    for schema in &request.schema {
        let name = schema.name.clone();
        if let Some(reason) = dropped::objection(conn, tenant, schema, request.cursor)? {
            let table = tables::id_of(conn, tenant, &name)?.unwrap_or(0);
            refused.push(RefusedTable { table, name, reason });
            continue;
        }
        let declared = if request.may_define {
            tables::declare(conn, tenant, schema, request.replica.tie_break())?
        } else {
            tables::compare(conn, tenant, schema)?
        };
        match declared {
            Ok(table) => taken.push((table, schema)),
            Err(reason) => {
                let table = tables::id_of(conn, tenant, &schema.name)?.unwrap_or(0);
                refused.push(RefusedTable { table, name, reason });
            }
        }
    }
    if refused != replica.refused {
        save(conn, tenant, request.replica, &refused)?;
    }
    // Whoever may not write has no say in what newcomers get.
    let taken = if request.may_define { taken } else { Vec::new() };
    let changed = definitions::declare(conn, tenant, request.replica, replica.declaration, (&taken, agent))?;
    let declarer = Declarer { writer: request.replica.tie_break(), schema: &request.schema };
    let mut settling = Settling::new(conn, tenant, rules);
    settling.since = before;
    settling.settle(stats, &changed, Some(&declarer))?;
    // Declaring what one has declared before writes nothing, and so costs no fsync.
    if tenant.seq == before { Ok(()) } else { tenant.save(conn) }
}

/// Reads what [`register`] noted.
pub fn read(bytes: Option<&[u8]>) -> Result<Vec<RefusedTable>, StoreError> {
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    rmp_serde::from_slice(bytes).map_err(|_| damaged("a replica's tables"))
}

fn save(
    conn: &Connection,
    tenant: &Tenant,
    replica: ReplicaId,
    refused: &[RefusedTable],
) -> Result<(), StoreError> {
    let bytes = match refused {
        [] => None,
        some => Some(rmp_serde::to_vec(some).map_err(|error| StoreError::Failed(error.to_string()))?),
    };
    conn.prepare_cached("UPDATE replica SET refused = ?3 WHERE tenant = ?1 AND id = ?2")?
        .execute(params![tenant.id, &replica.0[..], bytes])?;
    Ok(())
}
