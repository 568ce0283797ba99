//! The thread that owns a hub's store, and group commit.
//!
//! Whatever waits when the thread comes around is one group: its writes run one after the other, one commit
//! makes them durable, and only then are they answered (I13), followed by the group's reads. While a commit
//! is under way the next group gathers, so that the more agents push, the more of them share an fsync. Of what waits,
//! tenants get their turns evenly ([`fair_queue`]): who floods the store waits for itself.

mod commits;
mod fair_queue;
pub mod group;
pub mod job;
mod operator;
mod shares;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub use self::commits::CommitMetrics;
use self::group::run_and_count;
use self::job::{Answer, Greeting, Job, Reply, Task, UpkeepJob};
use self::shares::Shares;
use self::turns::Turns;
use super::clock::wall_now_ms;
use super::hub_time::HubTime;
use crate::model::ReplicaId;
use crate::protocol::hub_request::{Caller, StoreRequest};
use crate::protocol::message::Incarnation;
use crate::storage::hub_store::{HubStore, StoreError, StoreStats};

/// Jobs that wait for the thread; whoever asks more waits as well.
const MAX_WAITING: usize = 1024;

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
            Task::Revocation(_) | Task::Backup(_) | Task::Tenants(_) | Task::Upkeep(..) => None,
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
    let mut turns = Turns::default();
    let (began, mut time) = (Instant::now(), HubTime::new(store.kept_time_ms()));
    while turns.gather(&mut waiting) {
        let now_ms = time.read(wall_now_ms(), began.elapsed());
        run_and_count(store.as_mut(), turns.group(), now_ms, &mut |stats, writes, took| {
            counts.set(stats);
            counts.commits.add(writes, took);
        });
    }
}

#[cfg(test)]
mod tests;
