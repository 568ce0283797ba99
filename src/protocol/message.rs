//! The messages, in the order in which a connection sees them.
//!
//! 1. On the first stream: [`ToHub::Hello`], answered by [`ToAgent::Welcome`].
//! 2. On a stream of its own, once for each database and connection: [`ToHub::Attach`], answered by
//!    [`ToAgent::Attached`].
//! 3. On a stream of its own, for each sync: [`ToHub::Sync`], any number of [`ToHub::Batch`],
//!    [`ToHub::End`]; answered by one [`ToAgent::Ack`] for each batch, then [`ToAgent::Tables`] (if any are
//!    new), any number of [`ToAgent::Rows`], and [`ToAgent::Done`]. Anywhere between `Sync` and `End` there may
//!    be [`ToHub::Check`]s, each answered in its turn by [`ToAgent::Compared`].
//!
//! Instead of any answer the hub may send [`ToAgent::Refused`], which ends the stream.

use serde::{Deserialize, Serialize};

use super::check::{Check, Prints};
use super::limits::MAX_COLLISIONS;
use crate::model::{
    CellValue, ColumnIndex, Digest, Hlc, Op, ReplicaId, RowChange, RowId, RowUpdate, Seq, Stamp, TableHeader,
    TableSchema,
};

/// The ALPN name of this version of the protocol. A change that older peers would misread takes a new one.
pub const ALPN: &[u8] = b"federation-hub/3";

/// A store's incarnation: new each time the store is opened.
pub type Incarnation = ReplicaId;

/// Everything an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHub {
    /// Who is calling.
    Hello(Hello),
    /// Which database the following syncs are about.
    Attach(Attach),
    /// The start of a sync.
    Sync(SyncBegin),
    /// Some of the agent's changes.
    Batch(Batch),
    /// No more batches in this sync.
    End,
    /// Asks for fingerprints of rows.
    Check(Check),
}

/// Who is calling, and the token that proves it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The tenant that the agent believes it belongs to; the token decides (I16).
    pub tenant: String,
    /// The agent's name, for people.
    pub agent: String,
    /// A JWT.
    pub token: String,
}

/// Never shows the token: what is printed ends in a log.
impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("tenant", &self.tenant)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// Which replica the following syncs are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The replica.
    pub replica: ReplicaId,
    /// Up to where it has merged.
    pub cursor: Seq,
    /// Whether its id was minted since the agent last attached this database: no copy of the database can have
    /// been synced under it, and the hub may take it for one that it has never seen.
    pub is_new: bool,
}

/// The start of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncBegin {
    /// The replica, attached before on this connection.
    pub replica: ReplicaId,
    /// The epoch that [`Attached`] opened.
    pub epoch: u64,
    /// Up to where the replica has merged.
    pub cursor: Seq,
    /// Up to where an interrupted pull has been merged; equals `cursor` if none was.
    pub resume: Seq,
    /// The agent's own entry of its vector clock.
    pub counter: u64,
    /// All tables, if the hub may not know them as they are; none once it has taken them in.
    pub schema: Option<Vec<TableSchema>>,
    /// Tables of which every row is wanted whole: they, or columns of theirs, are new to this replica.
    pub refresh: Vec<String>,
}

/// A batch of changes, accepted whole and once (I12).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// 1 for a replica's first batch, and one more for each that follows.
    pub n: u64,
    /// The digest of batch `n - 1`; zeros for the first.
    pub previous: Digest,
    /// The encoded [`BatchBody`]. Kept as bytes, because the digest is over these very bytes.
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// What a batch holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchBody {
    /// The tables that the rows name, and the columns that their writes name.
    pub tables: Vec<TableHeader>,
    /// The changes.
    pub rows: Vec<RowChange>,
    /// Rows of others that cannot be applied, because the replica's unique index takes them for the same as another
    /// one: the hub cannot evaluate every index. At most [`super::limits::MAX_COLLISIONS`].
    pub collisions: Vec<Collision>,
}

/// Two rows that a replica's unique index takes for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collision {
    /// Their table, by its place in [`BatchBody::tables`].
    pub table: u16,
    /// The name of the index.
    pub index: String,
    /// The rows.
    pub rows: (RowId, RowId),
    /// Up to where the replica had merged when it found them so: a row that the hub has told of since is another.
    pub base: Seq,
}

impl BatchBody {
    /// Whether the headers hold every table and column that is named, and there are not too many collisions.
    pub fn is_consistent(&self) -> bool {
        let is_named = |table: u16| self.tables.get(usize::from(table)).is_some();
        if self.collisions.len() > MAX_COLLISIONS || !self.collisions.iter().all(|it| is_named(it.table)) {
            return false;
        }
        self.rows.iter().all(|row| {
            let Some(header) = self.tables.get(usize::from(row.table)) else { return false };
            let named = |column: &ColumnIndex| usize::from(*column) < header.columns.len();
            row.writes.iter().all(|write| match &write.op {
                Op::Set(cells) | Op::Cut(cells) => cells.iter().all(|(column, _)| named(column)),
                Op::Adjust(cells) => cells.iter().all(|(column, _)| named(column)),
                Op::Delete | Op::Gone => true,
            })
        })
    }
}

impl Batch {
    /// The digest that identifies this batch: over the replica, `n`, the predecessor, and the body.
    pub fn digest(&self, replica: ReplicaId) -> Digest {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&replica.0).update(&self.n.to_be_bytes()).update(&self.previous.0).update(&self.body);
        Digest(*hasher.finalize().as_bytes())
    }
}

/// Everything a hub says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// The agent is let in.
    Welcome(Welcome),
    /// What the hub knows of a replica.
    Attached(Attached),
    /// A batch is durable.
    Ack(Ack),
    /// Definitions of tables that changed above the reader's cursor.
    Tables(Vec<TableSchema>),
    /// Rows that changed above the reader's cursor, in order of their `seq`.
    Rows(Rows),
    /// The end of a sync.
    Done(Done),
    /// The hub will not go on with this stream.
    Refused(Refused),
    /// The answer to a [`Check`].
    Compared(Prints),
}

/// The agent is let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The hub's time between the `Hello` and this, in ms since the epoch. Some stored stamps may be ahead of it.
    pub hub_now_ms: i64,
    /// Which store this is (I15).
    pub incarnation: Incarnation,
    /// The count from which the agent's own clock entry goes on; 0 for an agent never seen.
    pub counter: u64,
    /// The largest frame that the hub reads, in bytes.
    pub max_frame_bytes: u32,
    /// Whether the agent's token permits it to write: if not, its batches are refused.
    pub may_write: bool,
}

/// What the hub knows of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Batches of earlier epochs are refused from now on (I12).
    pub epoch: u64,
    /// The last batch accepted of this replica, and its digest.
    pub last: Option<(u64, Digest)>,
    /// Earlier incarnations of the store, the newest first, each with the position at which it ended. What was
    /// merged in another one, or beyond its end, this store does not know (I15).
    pub past: Vec<(Incarnation, Seq)>,
    /// Whether the replica can go on where it was.
    pub standing: Standing,
    /// Rows of the last batches that the hub could not take, each with the number of its batch and the name of its
    /// table: the acknowledgement that said so may have been lost. At most [`super::limits::MAX_TOLD_REJECTED`].
    pub rejected: Vec<(u64, String, RowId)>,
}

/// What has become of a replica while it was away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// Nothing: it goes on at its cursor.
    Current,
    /// Deletes above its cursor are forgotten: rows that it is not told of in a pull of everything are gone.
    Behind,
    /// It is not known, or not any more; no epoch was opened. It takes a new id, and attaches again.
    Retired,
}

/// A batch is durable (I13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which.
    pub n: u64,
    /// How many of its cells were in conflict.
    pub conflicts: u32,
    /// Rows that the hub could not take, by their position in the batch, each with its reason.
    pub rejected: Vec<(u32, String)>,
    /// What people should know of the rows that were accepted: which were united with others, and which lost
    /// a unique value to another row. At most [`super::limits::MAX_ACK_NOTICES`].
    pub notices: Vec<String>,
    /// Of columns whose rule is [`crate::model::Rule::Resolver`]: writes of this batch that were concurrent with
    /// another one.
    pub contests: Vec<Contested>,
}

/// Two concurrent writes of one cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contested {
    /// The table's name.
    pub table: String,
    /// The row.
    pub id: RowId,
    /// The column's name.
    pub column: String,
    /// What this batch wrote.
    pub local: (Stamp, CellValue),
    /// What another replica had written.
    pub remote: (Stamp, CellValue),
    /// The name of the agent that pushed it; empty if the hub has forgotten.
    pub agent: String,
}

/// Some rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The tables that the rows name, with every column that the hub knows of each.
    pub tables: Vec<TableHeader>,
    /// The rows.
    pub rows: Vec<RowUpdate>,
}

/// The end of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The snapshot that was read (I14): the reader's new cursor.
    pub cursor: Seq,
    /// The highest clock reading among the tenant's stamps at that point.
    pub highest: Hlc,
    /// The hub's time after the sync's `End` had come, in ms since the epoch.
    pub hub_now_ms: i64,
    /// Agents that pushed since the reader's cursor, with their own clock entries; all live ones that ever did
    /// if `retired` says so.
    pub clock: Vec<(String, u64)>,
    /// Agents that retired since the reader's cursor, perhaps some that it has been told of. None if the hub
    /// has forgotten some of them: whoever is not in `clock` is gone.
    pub retired: Option<Vec<String>>,
    /// Rows that died up to here are forgotten: nobody will hear of them again.
    pub horizon: Seq,
    /// Tables that the hub neither takes from this replica nor tells it of, because they are declared otherwise
    /// in this tenant, each with the reason; in every sync, until the replica declares them anew.
    pub refused: Vec<(String, String)>,
    /// What people should know of definitions that are not the tenant's, since the reader's cursor. At most
    /// [`super::limits::MAX_DONE_NOTICES`].
    pub notices: Vec<String>,
}

/// Why the hub will not go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For programs.
    pub reason: Refusal,
    /// For people: what was wrong and what to do.
    pub message: String,
    /// How long to wait before asking again, in ms; 0 if waiting changes nothing, or nobody knows.
    pub retry_after_ms: u32,
}

impl Refused {
    /// A refusal that says nothing of when to ask again.
    pub fn new(reason: Refusal, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after_ms: 0 }
    }

    /// Asks for this long a wait, in ms.
    #[must_use]
    pub fn for_ms(self, retry_after_ms: u32) -> Self {
        Self { retry_after_ms, ..self }
    }
}

/// For programs: why the hub will not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// The token is missing, forged, expired, or of another tenant or agent.
    Unauthenticated,
    /// The message makes no sense here, or exceeds a limit.
    Protocol,
    /// The replica must attach again: a newer session of it exists, or the batch is not the expected one.
    Stale,
    /// Stamps from more than 60 s ahead of the hub's time.
    Clock,
    /// The hub's store cannot take or give anything at present.
    Store,
    /// The hub is stopping.
    Stopping,
    /// The token does not permit it.
    Forbidden,
    /// The hub has as much to do as it may, for everybody.
    Busy,
    /// The agent's tenant has as much as it may: agents at once, or rows and bytes per second.
    Quota,
    /// The agent's tenant stores as many bytes as it may. Batches that add to them are refused; reading goes on.
    Full,
    /// The hub's disk takes no more. Batches are refused; reading goes on.
    NoRoom,
}
