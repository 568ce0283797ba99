//! Which incarnations a store has had, and how far each of them came (I15).
//!
//! A store has a new incarnation each time it is opened, and remembers for each tenant where the earlier ones
//! ended. A file that was put back from a backup does not know the incarnations that followed the backup, and of
//! the one in which it was made it knows only how far that had come by then. So an agent can tell from a list of
//! them whether what it has merged is of this store's past; nobody need declare that a file is an older one.

use rusqlite::{Connection, params};

use super::damaged;
use super::tenant::Tenant;
use crate::model::Seq;
use crate::protocol::limits::MAX_PAST_INCARNATIONS;
use crate::protocol::message::Incarnation;
use crate::storage::hub_store::StoreError;

/// Takes down that the tenant is in this incarnation now. Returns the ones before it, the newest first, each with
/// the position at which it ended.
pub fn enter(
    conn: &Connection,
    tenant: &Tenant,
    current: Incarnation,
) -> Result<Vec<(Incarnation, Seq)>, StoreError> {
    let mut known =
        conn.prepare_cached("SELECT n, id, began FROM incarnation WHERE tenant = ?1 ORDER BY n DESC")?;
    let mut rows = known.query([tenant.id])?;
    let (mut past, mut newest, mut ended, mut is_entered) = (Vec::new(), 0, tenant.seq, false);
    while let Some(row) = rows.next()? {
        let (n, began): (i64, i64) = (row.get(0)?, row.get(2)?);
        let id = row.get_ref(1)?.as_blob().ok().and_then(Incarnation::from_slice);
        let id = id.ok_or_else(|| damaged("the list of incarnations"))?;
        newest = newest.max(n);
        if id == current {
            is_entered = true;
        } else {
            past.push((id, ended));
        }
        ended = began.cast_unsigned();
    }
    if !is_entered {
        conn.prepare_cached("INSERT INTO incarnation (tenant, n, id, began) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![tenant.id, newest + 1, &current.0[..], tenant.seq.cast_signed()])?;
        let kept = i64::try_from(MAX_PAST_INCARNATIONS).unwrap_or(i64::MAX);
        conn.prepare_cached("DELETE FROM incarnation WHERE tenant = ?1 AND n <= ?2")?
            .execute(params![tenant.id, newest - kept])?;
    }
    past.truncate(MAX_PAST_INCARNATIONS);
    Ok(past)
}
