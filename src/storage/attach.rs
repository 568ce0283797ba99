//! Attaching a database: its bookkeeping is made if there is none, and hub and replica settle what each knows.
//! Once for each database and connection.

use thiserror::Error;

use super::acknowledged::BATCHES_PER_TURN;
use super::bookkeeping::{
    ReplicaState, SentBatch, acknowledge, forget_sent, install, is_installed, lead_here, probe, sent_batches,
};
use super::capture::{Discovery, refresh};
use super::catalog::Catalog;
use super::choice::SyncOptions;
use super::collect::{TurnLimits, look_at_old_rows};
use super::context::Context;
use super::detach::remove;
use super::doubt;
use super::driver::{Sql, SqlError};
use super::lease::Claim;
use super::refused_rows::{RefusedRow, refuse, try_again};
use super::transaction::{Purpose, transaction, without_waiting};
use crate::model::{Digest, Hlc, ReplicaId, RowId, Seq, StampSource};
use crate::protocol::message::{Attached, Incarnation, Standing};

/// Why a turn failed. Its transaction was rolled back: nothing has happened.
#[derive(Clone, Debug, Error)]
pub enum TurnError {
    /// The database refused.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The database is bound to another tenant, whose rows must not reach this one (I15, I16).
    #[error(
        "this database holds the memory of tenant {bound}, and cannot be synced as tenant {asked}: use a \
         database of its own for each tenant"
    )]
    OtherTenant {
        /// Whose memory it holds.
        bound: String,
        /// Who asked.
        asked: String,
    },
}

/// Installs the bookkeeping if it is not there, and reads the replica's state. As long as that names no
/// incarnation, the replica's id is `fresh`. From here to the end of the sync the database is the claimant's: an attach
/// ends the session of whoever else works on it.
pub fn open(
    sql: &mut dyn Sql,
    tenant: &str,
    fresh: ReplicaId,
    claim: Claim,
    options: &SyncOptions,
) -> Result<ReplicaState, TurnError> {
    let state = without_waiting(sql, |sql| {
        transaction(sql, Purpose::Collect, |sql| {
            if is_installed(sql)? {
                lead_here(sql)?;
            } else {
                // Where our tables were dropped by hand, others and triggers may be left, which nothing belongs to.
                remove(sql)?;
                install(sql, fresh)?;
                let catalog = refresh(sql, options, Discovery::of_existing(options), 0, None)?;
                first_look(sql, &catalog, fresh)?;
            }
            let mut state = probe(sql)?.state;
            claim.check(state.lease.as_ref())?;
            if state.incarnation.is_none() && state.replica != fresh {
                // It was never attached to any hub, and may have been copied since it got its id.
                state.replica = fresh;
            }
            state.lease = Some(claim.lease());
            state.save(sql)?;
            Ok(state)
        })
    })?;
    match state.tenant {
        Some(bound) if bound != tenant => Err(TurnError::OtherTenant { bound, asked: tenant.to_owned() }),
        _ => Ok(state),
    }
}

/// Gives the lease back, where no turn has ended the sync: whoever waits need not wait for it to run out.
pub fn release(sql: &mut dyn Sql, claim: Claim) -> Result<(), SqlError> {
    without_waiting(sql, |sql| {
        transaction(sql, Purpose::Collect, |sql| {
            let mut state = probe(sql)?.state;
            if state.lease.is_some_and(|lease| lease.holder == claim.holder) {
                state.lease = None;
                state.save(sql)?;
            }
            Ok(())
        })
    })
}

/// Looks at the first rows of a database as it is attached: the identity of an old row is made of what it holds
/// before the application touches it again. A template of a few hundred rows is dealt with here; of a larger
/// database, rows that are edited before their turn comes are taken for new ones.
fn first_look(sql: &mut dyn Sql, catalog: &Catalog, replica: ReplicaId) -> Result<(), SqlError> {
    let stamps = StampSource { replica, offset_ms: 0, hub_now_ms: 0, highest: Hlc::ZERO };
    let mut stretched = blake3::Hasher::new().update(&replica.0).finalize_xof();
    let mut mint = || {
        let mut bytes = [0; 16];
        stretched.fill(&mut bytes);
        bytes
    };
    let mut context = Context::new(catalog, 0, stamps, &mut mint);
    look_at_old_rows(sql, &mut context, TurnLimits::default())
}

/// What a replica and its hub make of each other.
#[derive(Debug)]
pub struct Reconciled {
    /// The state now.
    pub state: ReplicaState,
    /// What to do next.
    pub next: Next,
    /// Rows of batches that the hub had accepted without an acknowledgement's reaching this replica (I13); changed
    /// again since, a row is not one of them.
    pub delivered: u64,
    /// What people should know.
    pub notice: Option<String>,
}

/// What follows when a replica has heard from its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It has booked some of what the hub had accepted, and asks itself again, in the light of the same answer.
    Reconcile,
    /// It is attached.
    Sync {
        /// Whether it sends nothing before it has been told of everything. It has rows that may be gone, and others that
        /// reference them: sent first, these would wait at everyone for what perhaps nobody sends any more.
        pulls_first: bool,
    },
    /// It attaches again: it took a new id, or another process has synced the database since it asked.
    Attach {
        /// Whether nobody has attached its present id to any hub.
        is_new: bool,
    },
}

/// What to tell when nobody knows whether the hub has some additions and removals, so that they are not sent.
const DROPPED: &str = "additions and removals of this database that were under way are dropped: it is a copy, went \
                       back in time, or was away for so long that the hub has forgotten it, and nobody knows \
                       whether they have been counted";

/// Whether what was merged here is what the store gave away, in this incarnation or in its past.
fn is_of_past(state: &ReplicaState, current: Incarnation, past: &[(Incarnation, Seq)]) -> bool {
    state.incarnation.is_none_or(|known| {
        known == current
            || past.iter().any(|(id, ended)| *id == known && state.resume.max(state.cursor) <= *ended)
    })
}

/// Positions mean nothing to this store, and it is offered all that is here. What the tenant has agreed on stays: this
/// store may not know of it any more.
fn begin_anew(sql: &mut dyn Sql, state: &mut ReplicaState) -> Result<(), SqlError> {
    (state.cursor, state.resume, state.covered) = (0, 0, state.acked);
    state.schema_digest = None;
    sql.execute("UPDATE main._federation_row SET batch = -2", &[])?;
    Ok(())
}

/// Rows of batches that the hub has accepted, and did not take, without this replica's having heard it: it had heard of
/// the first `heard`. Of batches that are not booked yet, a later turn asks.
fn refused_unheard(
    sql: &mut dyn Sql,
    sent: &[SentBatch],
    state: &ReplicaState,
    heard: u64,
    rejected: &[(u64, String, RowId)],
) -> Result<Vec<RefusedRow>, SqlError> {
    let mut refused = Vec::new();
    let known = state.n(state.acked);
    for (n, table, id) in rejected.iter().filter(|(n, ..)| *n > heard && *n <= known) {
        if let Some(batch) = sent.iter().find(|batch| state.n(batch.mark) == *n) {
            refused.extend(RefusedRow::named(sql, batch.mark, table, *id)?);
        }
    }
    Ok(refused)
}

/// Settles with the hub which batches it has accepted (I12), and which store this is (I15). The hub was `asked` on
/// behalf of that state.
pub fn reconcile(
    sql: &mut dyn Sql,
    tenant: &str,
    incarnation: Incarnation,
    asked: &ReplicaState,
    attached: &Attached,
    fresh: ReplicaId,
    claim: Claim,
) -> Result<Reconciled, SqlError> {
    without_waiting(sql, |sql| {
        transaction(sql, Purpose::Collect, |sql| {
            let mut state = probe(sql)?.state;
            claim.check(state.lease.as_ref())?;
            if state != *asked {
                // The answer is about a past that another process has gone on from: in its light, what that one has
                // pushed since would look like what a hub forgot. That one has had the lease since this one's ran out.
                state.lease = Some(claim.lease());
                state.save(sql)?;
                let next = Next::Attach { is_new: state.incarnation.is_none() };
                return Ok(Reconciled { state, next, delivered: 0, notice: None });
            }
            let sent = sent_batches(sql)?;
            let accepted = attached.last.map_or((0, Digest::ZERO), |last| last);
            let before = (state.n(state.acked), state.acked_digest);
            // Of a copy of this database the hub knows more than it does. One that knows less has forgotten; in one and
            // the same opening it has let the replica retire, and a late `Attach` has brought back the name alone.
            let is_same_opening = state.incarnation == Some(incarnation);
            let knows_less = accepted.0 < before.0;
            let is_retired = attached.standing == Standing::Retired || knows_less && is_same_opening;
            let has_forgotten = knows_less && !is_retired;
            // A hub that has let the replica retire has what it acknowledged; one that was put back to a time before
            // it knew the replica may not. Where no position tells the two apart, nothing may be lost.
            let may_have_lost = is_retired && !is_same_opening && state.covered != state.acked;
            let other_store =
                has_forgotten || may_have_lost || !is_of_past(&state, incarnation, &attached.past);
            let known = sent.iter().position(|batch| (state.n(batch.mark), batch.digest) == accepted);
            let renewed = other_store || is_retired || known.is_none() && accepted != before;
            let (mut delivered, mut notice, mut is_part) = (0, None, false);
            if renewed {
                notice = state.renew(sql, fresh)?.then(|| DROPPED.to_owned());
            } else {
                is_part = known.is_some_and(|at| at >= BATCHES_PER_TURN);
                if let Some(batch) = known.and_then(|at| sent.get(at.min(BATCHES_PER_TURN - 1))) {
                    delivered = acknowledge(sql, &mut state, *batch)?;
                }
                if !sent.is_empty() && !is_part {
                    forget_sent(sql, state.acked)?;
                }
                let refused = refused_unheard(sql, &sent, &state, before.0, &attached.rejected)?;
                refuse(sql, &refused)?;
                delivered = delivered.saturating_sub(refused.len() as u64);
            }
            if is_part {
                state.save(sql)?;
                return Ok(Reconciled { state, next: Next::Reconcile, delivered, notice });
            }
            if other_store {
                begin_anew(sql, &mut state)?;
            }
            if !is_same_opening {
                // It may take larger rows.
                try_again(sql)?;
                // What a pull that broke off has passed over was to come later, if rows were changed meanwhile that a
                // store which was put back has as they were.
                state.resume = state.cursor;
                // Nor does such a store know what was declared meanwhile.
                state.schema_digest = None;
            }
            if renewed || !is_same_opening || !sent.is_empty() {
                state.incarnation = Some(incarnation);
                state.tenant = Some(tenant.to_owned());
                state.save(sql)?;
            }
            let is_behind = if renewed {
                !other_store && doubt::has_late_writes(sql, state.cursor, state.acked)?
            } else {
                attached.standing == Standing::Behind
            };
            if is_behind {
                doubt::begin(sql, state.acked)?;
            }
            let next = if renewed {
                Next::Attach { is_new: true }
            } else {
                Next::Sync { pulls_first: is_behind && doubt::is_any(sql)? }
            };
            Ok(Reconciled { state, next, delivered, notice })
        })
    })
}
