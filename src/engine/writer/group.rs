//! A group of jobs: writes, their one commit, their answers, and then the reads.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::job::{Answer, Greeting, Job, Read, Reply, Task, UpkeepJob, Work, Write};
use super::operator::{OperatorJob, Sent};
use crate::engine::hub_time::KEEP_TIME_MS;
use crate::protocol::hub_request::{Caller, RegisterRequest};
use crate::storage::declaring::Declaring;
use crate::storage::hub_store::{HubStore, StoreStats, Upkeep, Welcomed};

/// Where the jobs of a group come from.
pub(super) trait Source {
    /// Who pays for a job.
    type Bill;

    /// The next job; none if the group is to be committed now.
    fn next(&mut self) -> Option<(Job, Self::Bill)>;

    /// Told of each job how long it took. Returns what is needed to let it wait again.
    fn took(&mut self, bill: Self::Bill, time: Duration) -> Self::Bill;

    /// Has a job wait again, of which a piece is done.
    fn again(&mut self, job: Job, bill: Self::Bill);
}

/// Jobs that nobody pays for.
struct Free<'a> {
    jobs: std::vec::IntoIter<Job>,
    again: &'a mut Vec<Job>,
}

impl Source for Free<'_> {
    type Bill = ();

    fn next(&mut self) -> Option<(Job, ())> {
        self.jobs.next().map(|job| (job, ()))
    }

    fn took(&mut self, (): (), _: Duration) {}

    fn again(&mut self, job: Job, (): ()) {
        self.again.push(job);
    }
}

/// Runs a group, and leaves it empty: jobs of which a piece is done make another group. `now_ms` is the hub's time, in ms
/// since the epoch.
pub fn run_group(store: &mut dyn HubStore, group: &mut Vec<Job>, now_ms: i64) {
    while !group.is_empty() {
        let jobs = std::mem::take(group).into_iter();
        run_and_count(store, Free { jobs, again: group }, now_ms, &mut |_, _, _| {});
    }
}

/// As [`run_group`]; `count` is told, before anybody gets an answer, how much there is, how many writes shared the
/// commit, and how long that took.
pub(super) fn run_and_count<S: Source>(
    store: &mut dyn HubStore,
    mut source: S,
    now_ms: i64,
    count: &mut dyn FnMut(StoreStats, usize, Duration),
) {
    let mut reads = Vec::new();
    let mut lists = Vec::new();
    let mut looks = Vec::new();
    let mut answers = Vec::new();
    let mut pieces = Vec::new();
    // While no agent is there, nobody goes by it.
    let mut is_time_told = false;
    while let Some((Job(task), bill)) = source.next() {
        is_time_told |= match &task {
            Task::Asked(..) => true,
            Task::Revocation(_) | Task::Backup(_) | Task::Tenants(_) => false,
            Task::Upkeep(job, _) => !job.connected.is_empty(),
        };
        let began = Instant::now();
        match task {
            Task::Asked(caller, Work::Write(write)) => match run_write(store, &caller, write, now_ms) {
                Written::Whole(answer) => answers.push(answer),
                Written::Piece(request, reply) => {
                    let bill = source.took(bill, began.elapsed());
                    pieces.push((caller, request, reply, bill));
                    continue;
                }
            },
            Task::Asked(caller, Work::Read(read)) => {
                reads.push((caller, read, bill));
                continue;
            }
            Task::Upkeep(job, reply) => answers.push(run_upkeep(store, &job, reply, now_ms)),
            // It reads what is committed by then, and so nothing of this group that might be taken back.
            Task::Backup(reply) => {
                let _ = reply.send(store.backup_source());
            }
            Task::Tenants(OperatorJob::Write(work)) => {
                answers.push(Uncommitted::Tenants(work(store, now_ms)));
            }
            Task::Tenants(OperatorJob::Read(work)) => {
                looks.push((work, bill));
                continue;
            }
            Task::Revocation(job) => match job.run(store) {
                Ok(answer) => answers.push(answer),
                Err(list) => lists.push(list),
            },
        }
        source.took(bill, began.elapsed());
    }
    if is_time_told && now_ms.saturating_sub(store.kept_time_ms()) >= KEEP_TIME_MS {
        keep_time(store, now_ms);
    }
    let began = Instant::now();
    let committed = store.commit();
    if let Err(error) = &committed {
        tracing::error!(%error, "a group of {} writes was not committed", answers.len());
    }
    count(store.stats(), answers.len() + pieces.len(), began.elapsed());
    for answer in answers {
        answer.send(&committed);
    }
    for (caller, request, reply, bill) in pieces {
        match &committed {
            // Whatever others have asked meanwhile comes first.
            Ok(()) => {
                source.again(Job(Task::Asked(caller, Work::Write(Write::Register(request, reply)))), bill);
            }
            Err(error) => drop(reply.send(Reply::Registered(Err(error.clone())))),
        }
    }
    for list in lists {
        list.read(store);
    }
    for (look, bill) in looks {
        let began = Instant::now();
        look(store);
        source.took(bill, began.elapsed());
    }
    for (caller, read, bill) in reads {
        let began = Instant::now();
        run_read(store, &caller, read, now_ms);
        source.took(bill, began.elapsed());
    }
}

fn keep_time(store: &mut dyn HubStore, now_ms: i64) {
    if let Err(error) = store.keep_time(now_ms) {
        tracing::warn!(%error, "the hub's time was not kept, and is with the next group");
    }
}

/// A write that has run and waits for its commit. Whoever asked may be gone; the write has happened anyway.
pub(super) enum Uncommitted {
    Reply(oneshot::Sender<Reply>, Reply),
    /// Nobody is left to be told of a failure.
    Done(oneshot::Sender<()>),
    Upkeep(oneshot::Sender<bool>, bool),
    Revoked(oneshot::Sender<Answer<()>>, Answer<()>),
    Reinstated(oneshot::Sender<Answer<bool>>, Answer<bool>),
    Tenants(Sent),
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
            Self::Tenants(send) => send(committed),
            Self::Upkeep(asker, more) => {
                let _ = asker.send(more && committed.is_ok());
            }
        }
    }
}

/// What a write has come to.
enum Written {
    Whole(Uncommitted),
    /// A piece of a declaration, of which there is more.
    Piece(Box<(RegisterRequest, Declaring)>, oneshot::Sender<Reply>),
}

fn run_write(store: &mut dyn HubStore, caller: &Caller, write: Write, now_ms: i64) -> Written {
    Written::Whole(match write {
        Write::Attach(request, reply) => {
            Uncommitted::Reply(reply, Reply::Attached(store.attach(caller, &request, now_ms)))
        }
        Write::Register(mut register, reply) => {
            let (request, state) = &mut *register;
            match store.declare(caller, request, state) {
                Ok(true) => return Written::Piece(register, reply),
                outcome => Uncommitted::Reply(reply, Reply::Registered(outcome.map(drop))),
            }
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
    })
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
                hub_now_ms: now_ms,
                counter: known.counter,
                incarnation: known.incarnation,
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
