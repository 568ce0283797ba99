//! Forgetting what died everywhere: once the hub has forgotten a row, nobody will hear of it again, and what is
//! remembered of it here goes as well.

use super::bookkeeping::ReplicaState;
use super::catalog::Catalog;
use super::driver::{Sql, SqlError};
use super::rows::{Entry, Sending};
use crate::model::Seq;

/// Forgets dead rows, if the hub has collected tombstones up to `horizon` and that is news. The delete of one that
/// this replica deleted itself is somewhere below the cursor: it goes when the hub has come that far.
pub fn bury(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    state: &mut ReplicaState,
    horizon: Seq,
) -> Result<(), SqlError> {
    if horizon <= state.buried {
        return Ok(());
    }
    state.buried = horizon;
    for table in &catalog.tables {
        for mut entry in Entry::dead(sql, table)? {
            let is_under_way = !matches!(entry.sending, Sending::Clean | Sending::Refused);
            if is_under_way || entry.meta.held {
                continue;
            }
            let was = entry.key.clone();
            if entry.meta.united.is_some() {
                // Everybody has heard that it is another one: nothing means that row by this name any more.
                if entry.meta.seen <= horizon {
                    entry.forget(sql, table)?;
                }
                continue;
            }
            if let Some(own) = entry.meta.deleted.as_mut().filter(|delete| delete.pending.is_some()) {
                own.pending = None;
                entry.meta.seen = entry.meta.seen.max(state.cursor);
                entry.update(sql, table, &was)?;
            }
            if entry.meta.seen <= horizon {
                entry.forget(sql, table)?;
            }
        }
    }
    Ok(())
}
