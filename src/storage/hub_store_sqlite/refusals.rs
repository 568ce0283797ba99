//! Tables that the hub does not take from a replica, because its declaration contradicts the tenant's first.
//!
//! They are found when the replica declares its tables, and kept with it until it declares them again: its
//! rows of such a table are rejected, it is told of none, and everything else goes on.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::session::Replica;
use super::tenant::Tenant;
use super::{damaged, tables};
use crate::model::ReplicaId;
use crate::protocol::hub_request::RegisterRequest;
use crate::storage::hub_store::StoreError;

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
    tenant: &mut Tenant,
    replica: &Replica,
    request: &RegisterRequest,
) -> Result<(), StoreError> {
    let before = tenant.seq;
    let mut refused = Vec::new();
    for schema in &request.schema {
        let declared = if request.may_define {
            tables::declare(conn, tenant, schema, request.replica.tie_break())?
        } else {
            tables::compare(conn, tenant, schema)?
        };
        if let Err(reason) = declared {
            let table = tables::id_of(conn, tenant, &schema.name)?.unwrap_or(0);
            refused.push(RefusedTable { table, name: schema.name.clone(), reason });
        }
    }
    if refused != replica.refused {
        save(conn, tenant, request.replica, &refused)?;
    }
    // Declaring what is known already writes nothing, and so costs no fsync.
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
