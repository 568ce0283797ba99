//! Which jobs make the next group: tenants in turn, until the group has had its time.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::fair_queue::FairQueue;
use super::group::Source;
use super::job::{Job, Lane};
use super::{MAX_WAITING, Queued, Waiting};

/// Jobs of one group. More would let the first of them wait for long.
pub(super) const MAX_GROUP: usize = 128;

/// What a group may cost ([`Job::cost`]), its last job aside: a group of one tenant's must not keep others waiting.
const MAX_GROUP_COST: u64 = 4_096;

/// How long what costs 1 may take, in µs: about what merging a row takes. What takes longer costs more.
const COST_US: u128 = 50;

/// The jobs that wait, by whose they are.
#[derive(Default)]
pub(super) struct Turns(FairQueue<Lane, Waiting>);

impl Turns {
    /// Takes in all jobs that wait, and waits for one if there is none. False when nobody can ask any more. No more come
    /// in than their tenants' shares allow.
    pub(super) fn gather(&mut self, waiting: &mut mpsc::Receiver<Waiting>) -> bool {
        if self.0.is_empty() {
            let Some(first) = waiting.blocking_recv() else { return false };
            self.0.push(&first.job.lane(), first.job.cost(), first);
        }
        for _ in 0..MAX_WAITING {
            let Ok(next) = waiting.try_recv() else { break };
            self.0.push(&next.job.lane(), next.job.cost(), next);
        }
        true
    }

    /// The next group.
    pub(super) fn group(&mut self) -> Group<'_> {
        Group { turns: self, jobs: 0, cost: 0 }
    }
}

/// A group that is being taken.
pub(super) struct Group<'a> {
    turns: &'a mut Turns,
    jobs: usize,
    /// What its jobs cost so far.
    cost: u64,
}

/// Whose job it was, and what it was expected to cost.
pub(super) struct Bill {
    lane: Lane,
    cost: u64,
    /// The job's part of its tenant's share, as long as it may have to wait again.
    share: Option<OwnedSemaphorePermit>,
    queued: Queued,
}

impl Source for Group<'_> {
    type Bill = Bill;

    fn next(&mut self) -> Option<(Job, Bill)> {
        if self.jobs == MAX_GROUP || self.cost >= MAX_GROUP_COST {
            return None;
        }
        let (lane, cost, Waiting { job, share, _queued: queued }) = self.turns.0.pop()?;
        (self.jobs, self.cost) = (self.jobs + 1, self.cost + cost);
        // Another one of its tenant may wait from now on.
        let share = share.filter(|_| job.is_in_pieces());
        Some((job, Bill { lane, cost, share, queued }))
    }

    fn took(&mut self, bill: Bill, time: Duration) -> Bill {
        let cost = u64::try_from(time.as_micros() / COST_US).unwrap_or(u64::MAX);
        if let Some(surcharge) = cost.checked_sub(bill.cost).filter(|surcharge| *surcharge > 0) {
            self.cost = self.cost.saturating_add(surcharge);
            // A revocation does not wait because the one before it took long.
            if bill.lane != Lane::Operator {
                self.turns.0.charge(&bill.lane, surcharge);
            }
        }
        bill
    }

    fn again(&mut self, job: Job, Bill { share, queued, .. }: Bill) {
        let (lane, cost) = (job.lane(), job.cost());
        self.turns.0.push(&lane, cost, Waiting { job, share, _queued: queued });
    }
}
