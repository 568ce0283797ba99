//! Whose turn it is: tenants share the store's thread evenly, however much each of them asks of it.
//!
//! Start-time fair queueing: each lane has a clock of its own, which its jobs push forward by what they cost, and the lane
//! that is behind is served next. Within a lane the order stays as it was. A lane that has nothing to ask saves up no
//! turns, and owes those that it has had.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;

/// Jobs by lane.
#[derive(Debug)]
pub(super) struct FairQueue<K, T> {
    lanes: HashMap<K, Lane<T>>,
    /// The lanes with jobs, by when they start, and those that began to wait first.
    order: BTreeSet<(u64, u64, K)>,
    /// The lanes without, by when they have paid for what they had.
    paying: BTreeSet<(u64, K)>,
    /// When the last job that was taken started, in units of cost.
    now: u64,
    arrivals: u64,
}

#[derive(Debug)]
struct Lane<T> {
    /// When its next job starts.
    start: u64,
    jobs: VecDeque<(u64, T)>,
}

impl<K, T> Default for FairQueue<K, T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), order: BTreeSet::new(), paying: BTreeSet::new(), now: 0, arrivals: 0 }
    }
}

impl<K: Clone + Eq + Hash + Ord, T> FairQueue<K, T> {
    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Puts a job behind the others of its lane. It costs at least 1.
    pub(super) fn push(&mut self, key: &K, cost: u64, job: T) {
        let now = self.now;
        let lane =
            self.lanes.entry(key.clone()).or_insert_with(|| Lane { start: now, jobs: VecDeque::new() });
        if lane.jobs.is_empty() {
            self.paying.remove(&(lane.start, key.clone()));
            lane.start = lane.start.max(now);
            self.order.insert((lane.start, self.arrivals, key.clone()));
            self.arrivals += 1;
        }
        lane.jobs.push_back((cost.max(1), job));
    }

    /// The next job, and what it costs.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let (start, _, key) = self.order.pop_first()?;
        self.now = start;
        let lane = self.lanes.get_mut(&key)?;
        let (cost, job) = lane.jobs.pop_front()?;
        lane.start = start.saturating_add(cost);
        if lane.jobs.is_empty() {
            self.paying.insert((lane.start, key));
        } else {
            self.order.insert((lane.start, self.arrivals, key));
            self.arrivals += 1;
        }
        self.forget_lanes();
        Some((cost, job))
    }

    /// A lane without jobs is forgotten when it owes nothing; all are when nobody waits for what they have had.
    fn forget_lanes(&mut self) {
        while let Some((paid_at, _)) = self.paying.first()
            && (*paid_at <= self.now || self.order.is_empty())
        {
            if let Some((_, key)) = self.paying.pop_first() {
                self.lanes.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn drain(queue: &mut FairQueue<u8, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop().map(|(_, job)| job)).collect()
    }

    #[test]
    fn whoever_asks_little_does_not_wait_for_whoever_floods() {
        let mut queue = FairQueue::default();
        for job in 0..100 {
            queue.push(&1, 10, job);
        }
        assert_eq!(queue.pop(), Some((10, 0)));
        queue.push(&2, 1, 1_000);
        queue.push(&2, 1, 1_001);
        let order = drain(&mut queue);
        assert_eq!(order[..4], [1_000, 1_001, 1, 2], "{order:?}");
        assert_eq!(order.len(), 101);
        assert!(queue.lanes.is_empty() && queue.paying.is_empty(), "who is gone costs nothing");
    }

    #[test]
    fn who_asks_again_each_time_it_is_served_gets_no_more_than_its_share() {
        let mut queue = FairQueue::default();
        for job in 0..20 {
            queue.push(&1, 1, job);
        }
        // One job at a time, each as dear as ten of the other's.
        let mut between = Vec::new();
        let mut cheap = 0;
        queue.push(&2, 10, 1_000);
        while let Some((_, job)) = queue.pop() {
            if job >= 1_000 {
                between.push(std::mem::take(&mut cheap));
                if job < 1_002 {
                    queue.push(&2, 10, job + 1);
                }
            } else {
                cheap += 1;
            }
        }
        assert_eq!(between, [1, 9, 10]);
    }

    proptest! {
        /// Nothing is lost, lanes keep their order, and of two lanes that both wait none gets more than one job ahead.
        #[test]
        fn lanes_that_wait_are_served_evenly(
            jobs in prop::collection::vec((0_u8..4, 1_u64..50, any::<bool>()), 0..200)
        ) {
            let mut queue = FairQueue::default();
            let mut served = BTreeMap::<u8, Vec<u32>>::new();
            let mut expected = BTreeMap::<u8, Vec<u32>>::new();
            let mut costs = Vec::new();
            for (n, (lane, cost, takes)) in (0_u32..).zip(&jobs) {
                queue.push(lane, *cost, n);
                expected.entry(*lane).or_default().push(n);
                costs.push((*lane, *cost));
                if *takes && let Some((_, job)) = queue.pop() {
                    served.entry(costs[job as usize].0).or_default().push(job);
                }
            }
            // From here on whoever waits waits without a break.
            let waiting: BTreeSet<u8> = queue.order.iter().map(|(_, _, lane)| *lane).collect();
            let mut left: BTreeMap<u8, usize> =
                waiting.iter().map(|lane| (*lane, queue.lanes[lane].jobs.len())).collect();
            let mut had: BTreeMap<u8, u64> = queue.order.iter().map(|(start, _, lane)| (*lane, *start)).collect();
            while let Some((cost, job)) = queue.pop() {
                let lane = costs[job as usize].0;
                let behind = had.iter().filter(|(lane, _)| left[*lane] > 0).map(|(_, had)| *had).min();
                prop_assert!(behind.is_none_or(|behind| had[&lane] <= behind), "{} was ahead", lane);
                *had.get_mut(&lane).unwrap() += cost;
                *left.get_mut(&lane).unwrap() -= 1;
                served.entry(lane).or_default().push(job);
            }
            prop_assert_eq!(served, expected);
            prop_assert!(queue.is_empty() && queue.lanes.is_empty());
        }
    }
}
