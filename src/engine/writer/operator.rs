//! What the hub's operator asks of the store: revocations, and what a backup is made from.

use tokio::sync::oneshot;

use super::group::Uncommitted;
use super::job::{Answer, Job, Task};
use super::{Writer, closed};
use crate::engine::clock::wall_now_ms;
use crate::protocol::hub_request::Caller;
use crate::storage::backup::BackupSource;
use crate::storage::hub_store::HubStore;
use crate::storage::revocation::{Revocation, Revoked};

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

    async fn ask_operator<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Answer<T>>) -> RevocationJob,
    ) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job(Task::Revocation(job(reply)))).await;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }
}
