//! The thread that owns a hub's store, and group commit.
//!
//! Whatever waits when the thread comes around is one group: its writes run one after the other, one commit
//! makes them durable, and only then are they answered (I13), followed by the group's reads. While a commit
//! is under way the next group gathers, so that the more agents push, the more of them share an fsync. Of what waits,
//! tenants get their turns evenly ([`fair_queue`]): who floods the store waits for itself.

mod commits;
mod fair_queue;
mod operator;
mod shares;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub use self::commits::CommitMetrics;
use self::fair_queue::FairQueue;
use self::operator::RevocationJob;
use self::shares::Shares;
use super::clock::wall_now_ms;
use super::hub_time::{HubTime, KEEP_TIME_MS};
use crate::model::ReplicaId;
use crate::protocol::check::CheckRequest;
use crate::protocol::hub_request::{
    AttachRequest, Caller, PullRequest, PushRequest, RegisterRequest, StoreRequest,
};
use crate::protocol::message::{Ack, Attached, Incarnation};
use crate::storage::backup::BackupSource;
use crate::storage::hub_store::{
    Checked, HubStore, Snapshot, StoreError, StoreStats, Upkeep, Welcomed, hub_time_ms,
};

/// Jobs that wait for the thread; whoever asks more waits as well.
const MAX_WAITING: usize = 1024;

/// Jobs of one group. More would let the first of them wait for long.
const MAX_GROUP: usize = 128;

/// What a group may cost ([`Job::cost`]), its last job aside: a group of one tenant's must not keep others waiting.
const MAX_GROUP_COST: u64 = 4_096;

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
}

/// What changes the store.
enum Write {
    Attach(AttachRequest, oneshot::Sender<Reply>),
    Register(RegisterRequest, oneshot::Sender<Reply>),
    Push(PushRequest, oneshot::Sender<Reply>),
    EndSession(u64, oneshot::Sender<()>),
    Retire(Vec<(ReplicaId, u64)>, oneshot::Sender<()>),
}

/// What reads it.
enum Read {
    Welcome(oneshot::Sender<Answer<Greeting>>),
    Check(CheckRequest, oneshot::Sender<Reply>),
    Pull(PullRequest, oneshot::Sender<Reply>),
}

enum Work {
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

/// Something that a store is to do, with where its answer goes.
pub struct Job(Task);

enum Task {
    /// What an agent asks.
    Asked(Arc<Caller>, Work),
    /// What the operator asks.
    Revocation(RevocationJob),
    Backup(oneshot::Sender<Option<Box<dyn BackupSource>>>),
    /// What nobody asks; the answer says whether there is more to do now.
    Upkeep(UpkeepJob, oneshot::Sender<bool>),
}

impl Job {
    /// Whose it is; nobody's if the operator, or time, asks for it.
    fn lane(&self) -> Option<String> {
        match &self.0 {
            Task::Asked(caller, _) => Some(caller.tenant.clone()),
            Task::Revocation(_) | Task::Backup(_) | Task::Upkeep(..) => None,
        }
    }

    /// About how much work it is, in rows.
    fn cost(&self) -> u64 {
        let Task::Asked(_, work) = &self.0 else { return 1 };
        let Work::Write(Write::Push(request, _)) = work else { return READ_COST };
        let rows = request.body.rows.iter();
        rows.map(|row| 1 + (row.heap_bytes() / BYTES_PER_COST) as u64).sum()
    }

    /// A question, and where its answer comes out.
    pub fn ask(caller: &Arc<Caller>, request: StoreRequest) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        let work = match request {
            StoreRequest::Attach(request) => Work::Write(Write::Attach(request, reply)),
            StoreRequest::Register(request) => Work::Write(Write::Register(request, reply)),
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

/// A job on its way to the thread, with its part of its tenant's share.
struct Waiting {
    job: Job,
    share: Option<OwnedSemaphorePermit>,
    _queued: Queued,
}

/// A handle to the store's thread. The thread ends when the last handle is dropped and all that was asked is
/// done.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Waiting>,
    shares: Shares,
    incarnation: Incarnation,
    counts: Arc<StoreCounts>,
}

/// How much the store holds, as of the last commit; for whoever wants to look without asking.
#[derive(Debug, Default)]
pub struct StoreCounts {
    tenants: AtomicU64,
    rows: AtomicU64,
    /// Jobs that wait.
    queued: AtomicUsize,
    /// What commits cost.
    pub commits: CommitMetrics,
}

impl StoreCounts {
    /// The counts.
    pub fn get(&self) -> StoreStats {
        StoreStats { tenants: self.tenants.load(Ordering::Relaxed), rows: self.rows.load(Ordering::Relaxed) }
    }

    fn set(&self, stats: StoreStats) {
        self.tenants.store(stats.tenants, Ordering::Relaxed);
        self.rows.store(stats.rows, Ordering::Relaxed);
    }
}

/// A job that counts as waiting for as long as this lives.
struct Queued(Arc<StoreCounts>);

impl Queued {
    fn enter(counts: &Arc<StoreCounts>) -> Self {
        counts.queued.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counts))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Writer {
    /// Gives the store a thread. The second value is for waiting until the store is closed.
    pub fn start(store: Box<dyn HubStore>) -> std::io::Result<(Self, thread::JoinHandle<()>)> {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        let counts = Arc::new(StoreCounts::default());
        counts.set(store.stats());
        let writer = Self {
            jobs,
            shares: Shares::default(),
            incarnation: store.incarnation(),
            counts: Arc::clone(&counts),
        };
        let thread = thread::Builder::new()
            .name("federation-store".to_owned())
            .spawn(move || run(store, waiting, &counts))?;
        Ok((writer, thread))
    }

    /// Jobs that wait for the thread.
    pub fn waiting(&self) -> usize {
        self.counts.queued.load(Ordering::Relaxed)
    }

    /// Which store this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// How much the store holds. Holding this does not keep the thread.
    pub fn counts(&self) -> Arc<StoreCounts> {
        Arc::clone(&self.counts)
    }

    /// Asks the store; returns once the question has its place in the order. The answer comes through the
    /// receiver, which fails if the store is gone.
    pub async fn ask(&self, caller: &Arc<Caller>, request: StoreRequest) -> oneshot::Receiver<Reply> {
        let (job, answer) = Job::ask(caller, request);
        self.submit(job).await;
        answer
    }

    /// What the store knows of a caller.
    pub async fn welcome(&self, caller: &Arc<Caller>) -> Answer<Greeting> {
        let (job, answer) = Job::welcome(caller);
        self.submit(job).await;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Remembers an agent's clock entry at the end of its session.
    pub async fn end_session(&self, caller: &Arc<Caller>, counter: u64) {
        let (job, answer) = Job::end_session(caller, counter);
        self.submit(job).await;
        // Nobody is left to be told of a failure.
        let _ = answer.await;
    }

    /// Retires replicas that said goodbye.
    pub async fn retire(&self, caller: &Arc<Caller>, replicas: Vec<(ReplicaId, u64)>) {
        let (job, answer) = Job::retire(caller, replicas);
        self.submit(job).await;
        // If it fails they retire later, for having been silent too long.
        let _ = answer.await;
    }

    /// Does a turn of upkeep; says whether there is more to do now.
    pub async fn upkeep(&self, job: UpkeepJob) -> bool {
        let (job, answer) = Job::upkeep(job);
        self.submit(job).await;
        answer.await.unwrap_or(false)
    }

    async fn submit(&self, job: Job) {
        let share = match &job.0 {
            Task::Asked(caller, _) => self.shares.enter(&caller.tenant).await,
            Task::Revocation(_) | Task::Backup(_) | Task::Upkeep(..) => None,
        };
        // A thread that is gone drops the job, and with it the reply: the asker learns it there.
        let queued = Queued::enter(&self.counts);
        let _ = self.jobs.send(Waiting { job, share, _queued: queued }).await;
    }
}

fn closed() -> StoreError {
    StoreError::Failed("it is closed".to_owned())
}

/// The thread: one group after the other until nobody can ask any more.
fn run(mut store: Box<dyn HubStore>, mut waiting: mpsc::Receiver<Waiting>, counts: &StoreCounts) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    let mut queue = Queue::default();
    let (began, mut time) = (Instant::now(), HubTime::new(store.kept_time_ms()));
    while gather(&mut queue, &mut waiting) {
        take_group(&mut queue, &mut group);
        let now_ms = time.read(wall_now_ms(), began.elapsed());
        run_and_count(store.as_mut(), &mut group, now_ms, &mut |stats, writes, took| {
            counts.set(stats);
            counts.commits.add(writes, took);
        });
    }
}

type Queue = FairQueue<Option<String>, Waiting>;

/// Takes in all jobs that wait, and waits for one if there is none. False when nobody can ask any more. No more come in
/// than their tenants' shares allow.
fn gather(queue: &mut Queue, waiting: &mut mpsc::Receiver<Waiting>) -> bool {
    if queue.is_empty() {
        let Some(first) = waiting.blocking_recv() else { return false };
        queue.push(&first.job.lane(), first.job.cost(), first);
    }
    for _ in 0..MAX_WAITING {
        let Ok(next) = waiting.try_recv() else { break };
        queue.push(&next.job.lane(), next.job.cost(), next);
    }
    true
}

/// The next group, tenants in turn.
fn take_group(queue: &mut Queue, group: &mut Vec<Job>) {
    let mut cost = 0;
    while group.len() < MAX_GROUP && cost < MAX_GROUP_COST {
        let Some((job_cost, Waiting { job, share, .. })) = queue.pop() else { return };
        cost += job_cost;
        // Another one of its tenant may wait from now on.
        drop(share);
        group.push(job);
    }
}

/// Runs a group, and leaves it empty. `now_ms` is the hub's time, in ms since the epoch.
pub fn run_group(store: &mut dyn HubStore, group: &mut Vec<Job>, now_ms: i64) {
    run_and_count(store, group, now_ms, &mut |_, _, _| {});
}

/// As [`run_group`]; `count` is told, before anybody gets an answer, how much there is, how many writes shared the
/// commit, and how long that took.
fn run_and_count(
    store: &mut dyn HubStore,
    group: &mut Vec<Job>,
    now_ms: i64,
    count: &mut dyn FnMut(StoreStats, usize, Duration),
) {
    let mut reads = Vec::new();
    let mut lists = Vec::new();
    let mut answers = Vec::new();
    // While no agent is there, nobody goes by it.
    let is_time_told = group.iter().any(|job| match &job.0 {
        Task::Asked(..) => true,
        Task::Revocation(_) | Task::Backup(_) => false,
        Task::Upkeep(job, _) => !job.connected.is_empty(),
    });
    for Job(task) in group.drain(..) {
        match task {
            Task::Asked(caller, Work::Write(write)) => answers.push(run_write(store, &caller, write, now_ms)),
            Task::Asked(caller, Work::Read(read)) => reads.push((caller, read)),
            Task::Upkeep(job, reply) => answers.push(run_upkeep(store, &job, reply, now_ms)),
            // It reads what is committed by then, and so nothing of this group that might be taken back.
            Task::Backup(reply) => {
                let _ = reply.send(store.backup_source());
            }
            Task::Revocation(job) => match job.run(store) {
                Ok(answer) => answers.push(answer),
                Err(list) => lists.push(list),
            },
        }
    }
    if is_time_told && now_ms.saturating_sub(store.kept_time_ms()) >= KEEP_TIME_MS {
        keep_time(store, now_ms);
    }
    let began = Instant::now();
    let committed = store.commit();
    if let Err(error) = &committed {
        tracing::error!(%error, "a group of {} writes was not committed", answers.len());
    }
    count(store.stats(), answers.len(), began.elapsed());
    for answer in answers {
        answer.send(&committed);
    }
    for list in lists {
        list.read(store);
    }
    for (caller, read) in reads {
        run_read(store, &caller, read, now_ms);
    }
}

fn keep_time(store: &mut dyn HubStore, now_ms: i64) {
    if let Err(error) = store.keep_time(now_ms) {
        tracing::warn!(%error, "the hub's time was not kept, and is with the next group");
    }
}

/// A write that has run and waits for its commit. Whoever asked may be gone; the write has happened anyway.
enum Uncommitted {
    Reply(oneshot::Sender<Reply>, Reply),
    /// Nobody is left to be told of a failure.
    Done(oneshot::Sender<()>),
    Upkeep(oneshot::Sender<bool>, bool),
    Revoked(oneshot::Sender<Answer<()>>, Answer<()>),
    Reinstated(oneshot::Sender<Answer<bool>>, Answer<bool>),
}

impl Uncommitted {
    fn send(self, committed: &Answer<()>) {
        match self {
            Self::Reply(asker, reply) => {
                let reply = match (committed, reply) {
                    (Ok(()), reply) => reply,
                    (Err(error), Reply::Attached(answer)) => Reply::Attached(answer.and(Err(error.clone()))),
                    (Err(error), Reply::Registered(answer)) => {
                        Reply::Registered(answer.and(Err(error.clone())))
                    }
                    (Err(error), Reply::Pushed(answer)) => Reply::Pushed(answer.and(Err(error.clone()))),
                    (Err(error), Reply::Checked(answer)) => Reply::Checked(answer.and(Err(error.clone()))),
                    (Err(error), Reply::Pulled(answer)) => Reply::Pulled(answer.and(Err(error.clone()))),
                };
                let _ = asker.send(reply);
            }
            Self::Done(asker) => {
                let _ = asker.send(());
            }
            Self::Revoked(asker, answer) => {
                let _ = asker.send(answer.and(committed.clone()));
            }
            Self::Reinstated(asker, answer) => {
                let _ = asker.send(answer.and_then(|was| committed.clone().map(|()| was)));
            }
            Self::Upkeep(asker, more) => {
                let _ = asker.send(more && committed.is_ok());
            }
        }
    }
}

fn run_write(store: &mut dyn HubStore, caller: &Caller, write: Write, now_ms: i64) -> Uncommitted {
    match write {
        Write::Attach(request, reply) => {
            Uncommitted::Reply(reply, Reply::Attached(store.attach(caller, &request, now_ms)))
        }
        Write::Register(request, reply) => {
            Uncommitted::Reply(reply, Reply::Registered(store.register(caller, &request)))
        }
        Write::Push(request, reply) => {
            Uncommitted::Reply(reply, Reply::Pushed(store.push(caller, request, now_ms)))
        }
        Write::EndSession(counter, reply) => {
            if let Err(error) = store.end_session(caller, counter) {
                tracing::warn!(%error, agent = caller.agent, "an agent's count was not kept");
            }
            Uncommitted::Done(reply)
        }
        Write::Retire(replicas, reply) => {
            if let Err(error) = store.retire(caller, &replicas) {
                tracing::warn!(%error, agent = caller.agent, "an agent's goodbye was not heard");
            }
            Uncommitted::Done(reply)
        }
    }
}

fn run_upkeep(
    store: &mut dyn HubStore,
    job: &UpkeepJob,
    reply: oneshot::Sender<bool>,
    now_ms: i64,
) -> Uncommitted {
    let UpkeepJob { wall_ms, agent_ttl_ms, connected } = job;
    let upkeep = Upkeep { now_ms, wall_ms: *wall_ms, agent_ttl_ms: *agent_ttl_ms, connected };
    let more = store.upkeep(&upkeep).unwrap_or_else(|error| {
        tracing::warn!(%error, "upkeep of the store has failed, and is tried again later");
        false
    });
    Uncommitted::Upkeep(reply, more)
}

fn run_read(store: &mut dyn HubStore, caller: &Caller, read: Read, now_ms: i64) {
    match read {
        Read::Welcome(reply) => {
            let greeting = |known: Welcomed| Greeting {
                hub_now_ms: hub_time_ms(now_ms, known.highest),
                counter: known.counter,
            };
            let _ = reply.send(store.welcome(caller).map(greeting));
        }
        Read::Check(request, reply) => {
            let _ = reply.send(Reply::Checked(store.check(caller, &request)));
        }
        Read::Pull(request, reply) => {
            let _ = reply.send(Reply::Pulled(store.snapshot(caller, &request, now_ms).map(Box::new)));
        }
    }
}

#[cfg(test)]
mod tests;
