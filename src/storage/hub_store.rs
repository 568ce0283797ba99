//! What a hub needs of its store.
//!
//! One thread owns a [`HubStore`] and runs *groups*: any number of writes, one [`HubStore::commit`], then
//! the reads. Nothing is told to anyone before its group is committed (I13), and every operation sees and
//! touches the caller's tenant only (I16).
//!
//! ```text
//! attach | declare | push | end_session
//!        | retire | upkeep | revoke | reinstate   ×n      pending; each whole or not at all
//! commit                                           one fsync for all of them; none if nothing was written
//! welcome | check | snapshot | revocations  ×m      see what is durable
//! ```

use std::collections::HashSet;

use thiserror::Error;

use super::backup::BackupSource;
use super::declaring::Declaring;
use super::hub_operator::OperatorStore;
use super::revocation::{Revocation, Revoked};
use crate::model::{Hlc, ReplicaId, TableSchema};
use crate::protocol::check::{CheckRequest, Prints};
use crate::protocol::hub_request::{AttachRequest, Caller, PullRequest, PushRequest, RegisterRequest};
use crate::protocol::message::{Ack, Attached, Done, Incarnation, Refusal, Refused, Rows};

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// The request is not acceptable. The reason and the message are for the agent.
    #[error("{1}")]
    Refused(Refusal, String),
    /// The disk takes nothing: it is full, or became read-only. The request had no effect and may be repeated, as soon as
    /// the operator has made room.
    #[error(
        "the hub's disk is full, or cannot be written ({0}): its operator has to make room; nothing of this was stored"
    )]
    NoRoom(String),
    /// The store failed: a damaged file. The request had no effect and may be repeated.
    #[error("the hub's store failed: {0}")]
    Failed(String),
    /// Too many large pulls are running; this one can be answered when one of them has ended.
    #[error("too many large pulls at once")]
    Busy,
}

/// When an agent for whose rows there was no room may offer them again, in ms.
const RETRY_FULL_MS: u32 = 10_000;

/// When an agent may ask again for what the disk had no room for, in ms.
const RETRY_NO_ROOM_MS: u32 = 2_000;

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(Refusal::Full, message) => {
                Self::new(Refusal::Full, message).for_ms(RETRY_FULL_MS)
            }
            StoreError::Refused(reason, message) => Self::new(reason, message),
            StoreError::NoRoom(_) => Self::new(Refusal::NoRoom, error.to_string()).for_ms(RETRY_NO_ROOM_MS),
            StoreError::Failed(_) | StoreError::Busy => Self::new(Refusal::Store, error.to_string()),
        }
    }
}

/// What the store knows of a caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Welcomed {
    /// The count from which the agent's own clock entry goes on; 0 for an agent never seen.
    pub counter: u64,
    /// The highest clock reading among the tenant's stamps.
    pub highest: Hlc,
    /// Under which name positions of the caller's tenant are given away, where it is not the store's.
    pub incarnation: Option<Incarnation>,
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Tenants.
    pub tenants: u64,
    /// Live rows, of all tenants.
    pub rows: u64,
}

/// What [`HubStore::upkeep`] goes by.
#[derive(Clone, Copy, Debug)]
pub struct Upkeep<'a> {
    /// The hub's time, in ms since the epoch.
    pub now_ms: i64,
    /// The machine's clock, by which tokens expire, in ms since the epoch.
    pub wall_ms: i64,
    /// A replica retires when it has not synced for this long, in ms.
    pub agent_ttl_ms: i64,
    /// Tenants' replicas that are connected: these outlive their token.
    pub connected: &'a HashSet<(String, ReplicaId)>,
}

/// Everything that a replica lacks, at one point in its tenant's order (I14).
pub struct Snapshot {
    /// Definitions of tables that changed.
    pub tables: Vec<TableSchema>,
    /// The first rows, possibly all of them, possibly none.
    pub first: Rows,
    /// The remaining rows, of the same point.
    pub rest: Option<Box<dyn RowSource>>,
    /// What to say when all rows are told.
    pub done: Done,
}

/// The answer to a [`CheckRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The rows that were asked for, in the order of their identities.
    pub rows: Rows,
    /// The fingerprints.
    pub prints: Prints,
}

/// The rows of a large pull, a chunk at a time. Reading blocks; any thread may do it.
pub trait RowSource: Send {
    /// The next rows; nothing when all are told.
    fn next_chunk(&mut self) -> Result<Option<Rows>, StoreError>;
}

/// A hub's store.
pub trait HubStore: Send {
    /// Under which name the store gives away positions, until it is closed (I15).
    fn incarnation(&self) -> Incarnation;

    /// How much is committed. Cheap.
    fn stats(&self) -> StoreStats;

    /// Opens a new epoch of a replica, so that batches of earlier ones are refused (I12). Of one that is not
    /// known, and not new, it says so and does nothing. `now_ms` is the hub's time, in ms since the epoch.
    fn attach(
        &mut self,
        caller: &Caller,
        request: &AttachRequest,
        now_ms: i64,
    ) -> Result<Attached, StoreError>;

    /// Takes in a piece of a replica's declarations of tables, and says whether there is more to do: then it is asked again,
    /// with the same `state`. The first declaration of a table stands; later ones may add columns
    /// and indexes. A declaration that contradicts the first, or exceeds a limit, has no effect: the rows
    /// pushed for it are rejected, each with the reason.
    fn declare(
        &mut self,
        caller: &Caller,
        request: &RegisterRequest,
        state: &mut Declaring,
    ) -> Result<bool, StoreError>;

    /// Takes in all pieces of a replica's declarations, one after the other.
    fn register(&mut self, caller: &Caller, request: &RegisterRequest) -> Result<(), StoreError> {
        let mut state = Declaring::default();
        while self.declare(caller, request, &mut state)? {}
        Ok(())
    }

    /// Merges a batch: whole, once, and only as the successor of the replica's last one (I12). `now_ms` is
    /// the hub's time, in ms since the epoch.
    fn push(&mut self, caller: &Caller, request: PushRequest, now_ms: i64) -> Result<Ack, StoreError>;

    /// Remembers the clock entry of an agent whose last syncs pushed nothing.
    fn end_session(&mut self, caller: &Caller, counter: u64) -> Result<(), StoreError>;

    /// Retires replicas that said goodbye, each in the epoch that it had: what is kept of them, and of their
    /// agent if it has no other, is folded away (I10). One that has attached again since then stays.
    fn retire(&mut self, caller: &Caller, replicas: &[(ReplicaId, u64)]) -> Result<(), StoreError>;

    /// Does a bounded part of what becomes due with time: retires replicas, and collects the tombstones that
    /// every live one has seen. Says whether there is more to do now.
    fn upkeep(&mut self, upkeep: &Upkeep<'_>) -> Result<bool, StoreError>;

    /// What the hub's operator sees and removes of tenants; nothing if this store has no such side.
    fn operator(&mut self) -> Option<&mut dyn OperatorStore> {
        None
    }

    /// Remembers a revocation, in place of an earlier one of the same.
    fn revoke(&mut self, revocation: &Revocation) -> Result<(), StoreError>;

    /// Forgets a revocation. Says whether there was one.
    fn reinstate(&mut self, whom: &Revoked) -> Result<bool, StoreError>;

    /// The latest time that any of the store's hubs has had kept, in ms since the epoch; 0 if none has, and after
    /// writes that were taken back. Cheap.
    fn kept_time_ms(&self) -> i64;

    /// Keeps the hub's time, so that no later hub of this store begins before it, in ms since the epoch.
    fn keep_time(&mut self, now_ms: i64) -> Result<(), StoreError>;

    /// Makes all pending writes durable. After an error none of them has happened.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// All revocations that are remembered, whose end has not come by `now_ms` (ms since the epoch).
    fn revocations(&mut self, now_ms: i64) -> Result<Vec<Revocation>, StoreError>;

    /// What a backup is made from; nothing if the store dies with its hub.
    fn backup_source(&self) -> Option<Box<dyn BackupSource>> {
        None
    }

    /// What the store knows of a caller.
    fn welcome(&mut self, caller: &Caller) -> Result<Welcomed, StoreError>;

    /// Fingerprints of rows as they were at a replica's cursor. Called between a commit and the next write.
    fn check(&mut self, caller: &Caller, request: &CheckRequest) -> Result<Checked, StoreError>;

    /// What a replica lacks. Called between a commit and the next write.
    fn snapshot(
        &mut self,
        caller: &Caller,
        request: &PullRequest,
        now_ms: i64,
    ) -> Result<Snapshot, StoreError>;
}
