//! What the store's thread is asked, and what it answers.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::operator::{OperatorJob, RevocationJob};
use crate::model::ReplicaId;
use crate::protocol::check::CheckRequest;
use crate::protocol::hub_request::{
    AttachRequest, Caller, PullRequest, PushRequest, RegisterRequest, StoreRequest,
};
use crate::protocol::message::{Ack, Attached, Incarnation};
use crate::storage::backup::BackupSource;
use crate::storage::declaring::Declaring;
use crate::storage::hub_store::{Checked, Snapshot, StoreError};

/// What reading costs, in rows: the first chunk of a pull is bounded, and so is a check.
const READ_COST: u64 = 16;

/// Bytes of a pushed row that cost as much as another row.
const BYTES_PER_COST: usize = 1 << 10;

/// An answer of the store.
pub type Answer<T> = Result<T, StoreError>;

/// The store's answer to a [`StoreRequest`], of the kind that was asked.
pub enum Reply {
    /// To [`StoreRequest::Attach`].
    Attached(Answer<Attached>),
    /// To [`StoreRequest::Register`].
    Registered(Answer<()>),
    /// To [`StoreRequest::Push`].
    Pushed(Answer<Ack>),
    /// To [`StoreRequest::Check`].
    Checked(Answer<Checked>),
    /// To [`StoreRequest::Pull`].
    Pulled(Answer<Box<Snapshot>>),
}

/// What an agent is greeted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The hub's time for the agent's tenant, in ms since the epoch.
    pub hub_now_ms: i64,
    /// The count from which the agent's own clock entry goes on; 0 for an agent never seen.
    pub counter: u64,
    /// The incarnation of the tenant's positions, where it is not the store's.
    pub incarnation: Option<Incarnation>,
}

/// What changes the store.
pub(super) enum Write {
    Attach(AttachRequest, oneshot::Sender<Reply>),
    /// A piece of it, and how far it has come.
    Register(Box<(RegisterRequest, Declaring)>, oneshot::Sender<Reply>),
    Push(PushRequest, oneshot::Sender<Reply>),
    EndSession(u64, oneshot::Sender<()>),
    Retire(Vec<(ReplicaId, u64)>, oneshot::Sender<()>),
}

/// What reads it.
pub(super) enum Read {
    Welcome(oneshot::Sender<Answer<Greeting>>),
    Check(CheckRequest, oneshot::Sender<Reply>),
    Pull(PullRequest, oneshot::Sender<Reply>),
}

/// What an agent asks.
pub(super) enum Work {
    Write(Write),
    Read(Read),
}

/// A turn of what becomes due with time.
pub struct UpkeepJob {
    /// The machine's clock, by which tokens expire, in ms since the epoch.
    pub wall_ms: i64,
    /// How long a replica may be silent, in ms.
    pub agent_ttl_ms: i64,
    /// Tenants' replicas that are connected.
    pub connected: HashSet<(String, ReplicaId)>,
}

/// Whose turn a job takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Lane {
    /// The operator's, who waits for nobody to pay.
    Operator,
    /// What nobody asks for.
    Upkeep,
    /// This tenant's.
    Tenant(String),
}

/// Something that a store is to do, with where its answer goes.
pub struct Job(pub(super) Task);

/// What there is to do.
pub(super) enum Task {
    /// What an agent asks.
    Asked(Arc<Caller>, Work),
    /// What the operator asks.
    Revocation(RevocationJob),
    Backup(oneshot::Sender<Option<Box<dyn BackupSource>>>),
    /// What the operator asks of tenants.
    Tenants(OperatorJob),
    /// What nobody asks; the answer says whether there is more to do now.
    Upkeep(UpkeepJob, oneshot::Sender<bool>),
}

impl Job {
    /// Whose it is.
    pub(super) fn lane(&self) -> Lane {
        match &self.0 {
            Task::Asked(caller, _) => Lane::Tenant(caller.tenant.clone()),
            Task::Revocation(_) | Task::Backup(_) => Lane::Operator,
            // Looking at tenants, and removing what is theirs, takes as long as it takes.
            Task::Tenants(_) | Task::Upkeep(..) => Lane::Upkeep,
        }
    }

    /// About how much work it is, in rows.
    pub(super) fn cost(&self) -> u64 {
        let Task::Asked(_, work) = &self.0 else { return 1 };
        let Work::Write(Write::Push(request, _)) = work else { return READ_COST };
        let rows = request.body.rows.iter();
        rows.map(|row| 1 + (row.heap_bytes() / BYTES_PER_COST) as u64).sum()
    }

    /// Whether it is done in pieces.
    pub(super) fn is_in_pieces(&self) -> bool {
        matches!(&self.0, Task::Asked(_, Work::Write(Write::Register(..))))
    }

    /// A question, and where its answer comes out.
    pub fn ask(caller: &Arc<Caller>, request: StoreRequest) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        let work = match request {
            StoreRequest::Attach(request) => Work::Write(Write::Attach(request, reply)),
            StoreRequest::Register(request) => {
                Work::Write(Write::Register(Box::new((request, Declaring::default())), reply))
            }
            StoreRequest::Push(request) => Work::Write(Write::Push(request, reply)),
            StoreRequest::Check(request) => Work::Read(Read::Check(request, reply)),
            StoreRequest::Pull(request) => Work::Read(Read::Pull(request, reply)),
        };
        (Self(Task::Asked(Arc::clone(caller), work)), answer)
    }

    /// The question what the store knows of a caller.
    pub fn welcome(caller: &Arc<Caller>) -> (Self, oneshot::Receiver<Answer<Greeting>>) {
        let (reply, answer) = oneshot::channel();
        (Self(Task::Asked(Arc::clone(caller), Work::Read(Read::Welcome(reply)))), answer)
    }

    /// What becomes due with time; the answer says whether there is more to do now.
    pub fn upkeep(job: UpkeepJob) -> (Self, oneshot::Receiver<bool>) {
        let (reply, answer) = oneshot::channel();
        (Self(Task::Upkeep(job, reply)), answer)
    }

    /// The goodbye of an agent's replicas, each with its epoch.
    pub fn retire(caller: &Arc<Caller>, replicas: Vec<(ReplicaId, u64)>) -> (Self, oneshot::Receiver<()>) {
        let (reply, answer) = oneshot::channel();
        (Self(Task::Asked(Arc::clone(caller), Work::Write(Write::Retire(replicas, reply)))), answer)
    }

    /// The end of an agent's session, whose clock entry is remembered.
    pub fn end_session(caller: &Arc<Caller>, counter: u64) -> (Self, oneshot::Receiver<()>) {
        let (reply, answer) = oneshot::channel();
        let work = Work::Write(Write::EndSession(counter, reply));
        (Self(Task::Asked(Arc::clone(caller), work)), answer)
    }
}
