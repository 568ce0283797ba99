//! A replica, as the store knows it, and the session in which it is attached.

use rusqlite::{Connection, OptionalExtension, params};

use super::refusals::{self, RefusedTable};
use super::tenant::Tenant;
use super::{damaged, refused};
use crate::model::{Digest, ReplicaId, RowId};
use crate::protocol::hub_request::Caller;
use crate::protocol::limits::MAX_TOLD_REJECTED;
use crate::protocol::message::Refusal;
use crate::storage::hub_store::StoreError;

/// What the store knows of a replica.
pub(super) struct Replica {
    pub(super) epoch: u64,
    pub(super) last: Option<(u64, Digest)>,
    /// The agent's count at its last push.
    pub(super) push: u64,
    /// Tables whose declarations contradict the tenant's.
    pub(super) refused: Vec<RefusedTable>,
    /// Which declaration is its; none if it has declared nothing.
    pub(super) declaration: Option<i64>,
    /// Rows that were not taken of that push.
    pub(super) rejected: Vec<Rejected>,
}

/// A row that was not taken: the number of its batch, the name of its table, and its identity.
pub(super) type Rejected = (u64, String, RowId);

impl Replica {
    /// Notes the push that a batch is part of: batches of one sync bear one count.
    pub(super) fn begin_push(
        &self,
        conn: &Connection,
        tenant: &Tenant,
        id: ReplicaId,
        counter: u64,
    ) -> Result<(), StoreError> {
        if self.push == counter {
            return Ok(());
        }
        conn.prepare_cached(
            "UPDATE replica SET push_counter = ?3, rejected = NULL WHERE tenant = ?1 AND id = ?2",
        )?
        .execute(params![tenant.id, &id.0[..], counter.cast_signed()])?;
        Ok(())
    }

    pub(super) fn find(
        conn: &Connection,
        tenant: &Tenant,
        id: ReplicaId,
    ) -> Result<Option<Self>, StoreError> {
        let found = conn
            .prepare_cached(
                "SELECT epoch, n, digest, push_counter, refused, declaration, rejected FROM replica
                 WHERE tenant = ?1 AND id = ?2",
            )?
            .query_row(params![tenant.id, &id.0[..]], |row| {
                let digest = row.get_ref(2)?.as_blob_or_null()?.map(Digest::from_slice);
                let push = row.get::<_, i64>(3)?.cast_unsigned();
                let refused = refusals::read(row.get_ref(4)?.as_blob_or_null()?);
                let rejected = read_rejected(row.get_ref(6)?.as_blob_or_null()?);
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, i64>(1)?,
                    digest,
                    push,
                    (refused, row.get(5)?, rejected),
                ))
            })
            .optional()?;
        let Some((epoch, n, digest, push, (refused, declaration, rejected))) = found else { return Ok(None) };
        let last = match digest {
            None => None,
            Some(Some(digest)) => Some((n.cast_unsigned(), digest)),
            Some(None) => return Err(damaged("a replica's digest")),
        };
        Ok(Some(Self {
            epoch: epoch.cast_unsigned(),
            last,
            push,
            refused: refused?,
            declaration,
            rejected: rejected?,
        }))
    }

    /// Notes which rows of a batch were not taken: if the acknowledgement is lost, attaching tells.
    pub(super) fn note_rejected(
        &self,
        conn: &Connection,
        (tenant, id): (&Tenant, ReplicaId),
        counter: u64,
        news: Vec<Rejected>,
    ) -> Result<(), StoreError> {
        if news.is_empty() {
            return Ok(());
        }
        let mut rejected = if self.push == counter { self.rejected.clone() } else { Vec::new() };
        rejected.extend(news);
        rejected.drain(..rejected.len().saturating_sub(MAX_TOLD_REJECTED));
        let bytes = rmp_serde::to_vec(&rejected).map_err(|_| damaged("a replica's rejected rows"))?;
        conn.prepare_cached("UPDATE replica SET rejected = ?3 WHERE tenant = ?1 AND id = ?2")?
            .execute(params![tenant.id, &id.0[..], bytes])?;
        Ok(())
    }
}

fn read_rejected(bytes: Option<&[u8]>) -> Result<Vec<Rejected>, StoreError> {
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    rmp_serde::from_slice(bytes).map_err(|_| damaged("a replica's rejected rows"))
}

/// The tenant and the replica of a session, if it is still the replica's newest.
pub(super) fn session(
    conn: &Connection,
    caller: &Caller,
    replica: ReplicaId,
    epoch: u64,
) -> Result<(Tenant, Replica), StoreError> {
    let not_attached = "the replica is not attached: attach it, then sync again";
    let Some(tenant) = Tenant::find(conn, &caller.tenant)? else {
        return refused(Refusal::Stale, not_attached);
    };
    match Replica::find(conn, &tenant, replica)? {
        None => refused(Refusal::Stale, not_attached),
        Some(found) if found.epoch != epoch => refused(
            Refusal::Stale,
            format!(
                "a newer session of this replica exists (epoch {}, not {epoch}): attach again",
                found.epoch
            ),
        ),
        Some(found) => Ok((tenant, found)),
    }
}
