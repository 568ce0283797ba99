//! What a hub's session asks of the store, parsed and bounded.

use crate::model::{Digest, ReplicaId, Seq, TableSchema};

use super::check::CheckRequest;
use super::message::{BatchBody, Incarnation};

/// Who is calling, as the token proved it: the only source of a tenant (invariant I16).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Whose rows may be seen and changed.
    pub tenant: String,
    /// The agent's name, for people.
    pub agent: String,
}

/// One question to the store. Those of one stream are answered in the order in which they were asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// Opens a new epoch of a replica.
    Attach(AttachRequest),
    /// Declares tables.
    Register(RegisterRequest),
    /// Merges a batch.
    Push(PushRequest),
    /// Reads fingerprints of rows.
    Check(CheckRequest),
    /// Reads what a replica lacks.
    Pull(PullRequest),
}

/// A replica that wants to sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Who.
    pub replica: ReplicaId,
    /// Up to where it has merged everything.
    pub cursor: Seq,
    /// Whether its id was minted just now, so that it may be unknown here.
    pub is_new: bool,
    /// Until when the token that it was proved by keeps it from retiring, in ms since the epoch.
    pub token_until_ms: i64,
    /// Which incarnation its agent was welcomed with; none if nobody knows. The agent keeps its positions under that one.
    pub incarnation: Option<Incarnation>,
}

/// Tables that a replica declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterRequest {
    /// Who declares them.
    pub replica: ReplicaId,
    /// The epoch of its session.
    pub epoch: u64,
    /// Up to where it has merged everything.
    pub cursor: Seq,
    /// The tables.
    pub schema: Vec<TableSchema>,
    /// Whether what is new in them becomes the tenant's; if not, only what contradicts it is noted.
    pub may_define: bool,
}

/// A batch, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRequest {
    /// Whose batch.
    pub replica: ReplicaId,
    /// The epoch of its session.
    pub epoch: u64,
    /// The agent's own entry of its vector clock.
    pub counter: u64,
    /// The batch's number.
    pub n: u64,
    /// The digest of batch `n - 1`.
    pub previous: Digest,
    /// The digest of this batch.
    pub digest: Digest,
    /// The changes. Every table and column that they name is in their headers.
    pub body: BatchBody,
}

/// What a replica has, and therefore what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// Who reads.
    pub replica: ReplicaId,
    /// The epoch of its session.
    pub epoch: u64,
    /// Up to where it has merged everything.
    pub cursor: Seq,
    /// Up to where an interrupted pull has been merged.
    pub resume: Seq,
    /// Tables of which every row is wanted whole.
    pub refresh: Vec<String>,
}
