//! What the hub's operator asks of the store: revocations, what a backup is made from, and tenants.

use tokio::sync::oneshot;

use super::group::Uncommitted;
use super::job::{Answer, Job, Task};
use super::{Writer, closed};
use crate::engine::clock::wall_now_ms;
use crate::protocol::hub_request::Caller;
use crate::storage::backup::BackupSource;
use crate::storage::hub_operator::OperatorStore;
use crate::storage::hub_store::{HubStore, StoreError};
use crate::storage::revocation::{Revocation, Revoked};

fn no_such_side() -> StoreError {
    StoreError::Failed("it cannot be operated".to_owned())
}

/// What is done to revocations.
pub(super) enum RevocationJob {
    Add(Revocation, oneshot::Sender<Answer<()>>),
    Remove(Revoked, oneshot::Sender<Answer<bool>>),
    List(List),
}

/// What is read once the group is committed.
pub(super) enum List {
    /// Those that hold at a time of the wall clock, as tokens do, in ms since the epoch.
    Revocations(i64, oneshot::Sender<Answer<Vec<Revocation>>>),
    /// Nothing that anybody wants to know, but whether it can be read.
    Nothing(oneshot::Sender<Answer<()>>),
}

/// Tells whoever asked what came of a write, once it is known whether that is committed.
pub(super) type Sent = Box<dyn FnOnce(&Answer<()>) + Send>;

/// Changes the store, at this time of the hub's, in ms since the epoch.
pub(super) type Change = Box<dyn FnOnce(&mut dyn HubStore, i64) -> Sent + Send>;

/// Looks at the store.
pub(super) type Look = Box<dyn FnOnce(&mut dyn HubStore) + Send>;

/// What is asked of the store's operator's side.
pub(super) enum OperatorJob {
    /// It changes something.
    Write(Change),
    /// It reads, or does what is none of a transaction.
    Read(Look),
}

impl RevocationJob {
    /// Runs a write; hands a reading back, which waits for the commit.
    pub(super) fn run(self, store: &mut dyn HubStore) -> Result<Uncommitted, List> {
        match self {
            Self::Add(revocation, reply) => Ok(Uncommitted::Revoked(reply, store.revoke(&revocation))),
            Self::Remove(whom, reply) => Ok(Uncommitted::Reinstated(reply, store.reinstate(&whom))),
            Self::List(list) => Err(list),
        }
    }
}

impl List {
    /// Reads it. Whoever asked may be gone.
    pub(super) fn read(self, store: &mut dyn HubStore) {
        match self {
            Self::Revocations(at_ms, reply) => drop(reply.send(store.revocations(at_ms))),
            Self::Nothing(reply) => {
                let nobody = Caller { tenant: String::new(), agent: String::new() };
                let _ = reply.send(store.welcome(&nobody).map(drop));
            }
        }
    }
}

impl Writer {
    /// Remembers a revocation.
    pub async fn revoke(&self, revocation: Revocation) -> Answer<()> {
        self.ask_operator(|reply| RevocationJob::Add(revocation, reply)).await
    }

    /// Forgets a revocation. Says whether there was one.
    pub async fn reinstate(&self, whom: Revoked) -> Answer<bool> {
        self.ask_operator(|reply| RevocationJob::Remove(whom, reply)).await
    }

    /// All revocations that hold.
    pub async fn revocations(&self) -> Answer<Vec<Revocation>> {
        self.ask_operator(|reply| RevocationJob::List(List::Revocations(wall_now_ms(), reply))).await
    }

    /// Whether the store's thread answers, and can read. Costs as much in a full store as in an empty one.
    pub async fn is_readable(&self) -> Answer<()> {
        self.ask_operator(|reply| RevocationJob::List(List::Nothing(reply))).await
    }

    /// What a backup is made from; nothing if the store has none, or is closed.
    pub async fn backup_source(&self) -> Option<Box<dyn BackupSource>> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job(Task::Backup(reply))).await;
        answer.await.ok().flatten()
    }

    /// Has the store's operator's side change something.
    pub async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn OperatorStore, i64) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let job = OperatorJob::Write(Box::new(move |store, now_ms| {
            let outcome = store.operator().map_or_else(|| Err(no_such_side()), |it| work(it, now_ms));
            Box::new(move |committed| {
                // Whoever asked may be gone; it has happened anyway.
                let _ = reply.send(outcome.and_then(|value| committed.clone().map(|()| value)));
            })
        }));
        self.submit(Job(Task::Tenants(job))).await;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Has the store's operator's side look at something.
    pub async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn OperatorStore) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let job = OperatorJob::Read(Box::new(move |store| {
            let _ = reply.send(store.operator().map_or_else(|| Err(no_such_side()), work));
        }));
        self.submit(Job(Task::Tenants(job))).await;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn ask_operator<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Answer<T>>) -> RevocationJob,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job(Task::Revocation(job(reply)))).await;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}
