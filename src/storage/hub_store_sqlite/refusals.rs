//! Takes in what a replica declares, in pieces, and notes which tables the hub does not take from it.
//!
//! A table is refused because its declaration contradicts the tenant's first, or because there is no room for it. That is
//! found when the replica declares its tables, and kept with it until it declares them again: its rows of such a table are
//! rejected, it is told of none, and everything else goes on.
//!
//! A piece takes in some tables, decides what stands of those that it has taken in, and is written whole or not at all. So
//! whoever syncs between two pieces sees tables that are complete.

use rusqlite::{Connection, params};

use super::definitions::{self, Notes};
use super::room::{Room, too_large};
use super::rules::{self, TenantRules};
use super::session::Replica;
use super::standing::{Declarer, PIECE_COST, Settling, cost_of_texts};
use super::tenant::Tenant;
use super::weight::StoreLimits;
use super::{damaged, dropped, tables};
use crate::model::ReplicaId;
use crate::protocol::hub_request::RegisterRequest;
use crate::protocol::message::Refusal;
use crate::storage::declaring::Declaring;
pub use crate::storage::declaring::RefusedTable;
use crate::storage::hub_store::{StoreError, StoreStats};

/// What a piece works with.
pub struct Piece<'a> {
    /// The store.
    pub conn: &'a Connection,
    /// The tenant.
    pub tenant: &'a mut Tenant,
    /// Who declares.
    pub replica: &'a Replica,
    /// Its agent's name.
    pub agent: &'a str,
    /// What it declares.
    pub request: &'a RegisterRequest,
    /// What the tenant may have.
    pub limits: StoreLimits,
    /// The tenant's rules, if they are known.
    pub rules: &'a mut Option<TenantRules>,
}

impl Piece<'_> {
    /// Does a piece of what there is to do. Says whether there is more.
    pub fn run(mut self, stats: &mut StoreStats, state: &mut Declaring) -> Result<bool, StoreError> {
        let before = self.tenant.seq;
        state.pieces += 1;
        let more = self.step(stats, before, state)?;
        // Declaring what one has declared before writes nothing, and so costs no fsync.
        if self.tenant.seq != before {
            self.tenant.save(self.conn)?;
        }
        Ok(more)
    }

    fn step(
        &mut self,
        stats: &mut StoreStats,
        before: u64,
        state: &mut Declaring,
    ) -> Result<bool, StoreError> {
        let (tenant, replica) = (self.tenant.id, self.request.replica);
        if state.pieces == 1 {
            // A hub, or a session, has ended before an earlier declaration was taken in.
            state.unsettled = definitions::held_tables(self.conn, tenant, replica)?;
        }
        // What earlier pieces have left.
        let mut cost = self.settle(before, state, PIECE_COST)?;
        if !state.unsettled.is_empty() || cost >= PIECE_COST {
            return Ok(true);
        }
        if state.tables < self.request.schema.len() {
            cost += self.take_tables(state, PIECE_COST - cost)?;
            // All of them, so that whoever syncs next is told of no table without its text.
            self.settle(before, state, i64::MAX)?;
        }
        if state.tables < self.request.schema.len() || !state.unsettled.is_empty() {
            return Ok(true);
        }
        if !state.is_noted {
            if !self.note(state)? {
                return Ok(true);
            }
            self.settle(before, state, PIECE_COST.saturating_sub(cost))?;
            if !state.unsettled.is_empty() {
                return Ok(true);
            }
        }
        if std::mem::take(&mut state.is_changed) {
            Settling::new(self.conn, self.tenant, self.rules).derive(stats)?;
            state.has_rows_left = rules::is_anything_left(self.conn, self.tenant.id)?;
        } else if state.has_rows_left {
            state.has_rows_left = Settling::new(self.conn, self.tenant, self.rules).derive_left(stats)?;
        }
        Ok(state.has_rows_left)
    }

    /// Takes in tables until that has cost as much as it may. Returns what it did, with what settling them will.
    fn take_tables(&mut self, state: &mut Declaring, allowed: i64) -> Result<i64, StoreError> {
        let (conn, request) = (self.conn, self.request);
        let mut room = Room::of(conn, self.tenant.id, self.limits)?;
        let mut notes = Notes::new(conn, self.tenant.id, self.agent);
        let mut cost = 0;
        while cost < allowed
            && let Some(schema) = request.schema.get(state.tables)
        {
            state.tables += 1;
            cost += 1;
            // Whoever may not write has no say in what newcomers get.
            let declared = if let Some(why) = too_large(schema) {
                Err(why)
            } else if let Some(why) = dropped::objection(conn, self.tenant, schema, request.cursor)? {
                Err(why)
            } else {
                cost += i64::try_from(schema.columns.len() / 64).unwrap_or(i64::MAX);
                if request.may_define {
                    let writer = request.replica.tie_break();
                    tables::declare(conn, (&mut *self.tenant, &mut room), schema, writer)?
                } else {
                    tables::compare(conn, self.tenant, schema)?
                }
            };
            match declared {
                Ok(table) if request.may_define => {
                    let mut noted = notes.note(table, schema)?;
                    state.definitions.append(&mut noted.ids);
                    if noted.is_news {
                        cost += cost_of_texts(conn, self.tenant.id, table)?;
                        state.unsettled.insert(table);
                    }
                }
                Ok(_) => {}
                Err(reason) => {
                    let table = tables::id_of(conn, self.tenant, &schema.name)?.unwrap_or(0);
                    state.refused.push(RefusedTable { table, name: schema.name.clone(), reason });
                }
            }
        }
        notes.hold(request.replica)?;
        Ok(cost)
    }

    /// Decides what stands of tables, until that has cost as much as it may. Returns what it did.
    fn settle(&mut self, before: u64, state: &mut Declaring, allowed: i64) -> Result<i64, StoreError> {
        if state.unsettled.is_empty() {
            return Ok(0);
        }
        let declarer = Declarer { writer: self.request.replica.tie_break(), schema: &self.request.schema };
        let mut settling = Settling::new(self.conn, self.tenant, self.rules);
        settling.since = before;
        settling.resume(state);
        let (cost, changed) = settling.settle_some(&mut state.unsettled, Some(&declarer), allowed)?;
        settling.suspend(state);
        state.is_changed |= changed;
        Ok(cost)
    }

    /// Refuses to note refusals where what is noted of replicas takes all the room by itself.
    fn check_room(&self, state: &Declaring) -> Result<(), StoreError> {
        let (kept, limit) = (self.tenant.kept_bytes, self.limits.tenant_bytes);
        if kept <= limit || state.refused.len() <= self.replica.refused.len() {
            return Ok(());
        }
        let message = format!(
            "this tenant's definitions and replicas take {kept} bytes of the hub's store, and everything of it may take \
             {limit} (maxStoredBytesPerTenant): disconnect agents that are done, or have the hub's operator raise the limit"
        );
        Err(StoreError::Refused(Refusal::Full, message))
    }

    /// Writes down what the replica declares, and what is refused to it. Says whether that could be done: if something of
    /// it has gone meanwhile, its tables are taken in anew.
    fn note(&mut self, state: &mut Declaring) -> Result<bool, StoreError> {
        if state.refused != self.replica.refused {
            self.check_room(state)?;
            save(self.conn, self.tenant, self.request.replica, &state.refused)?;
        }
        let declared = definitions::declare(
            self.conn,
            self.tenant,
            self.request.replica,
            self.replica.declaration,
            &state.definitions,
        )?;
        let Some(mut changed) = declared else {
            state.tables = 0;
            state.refused.clear();
            state.definitions.clear();
            return Ok(false);
        };
        state.is_noted = true;
        state.unsettled.append(&mut changed);
        Ok(true)
    }
}

/// Reads which tables are refused to a replica.
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
