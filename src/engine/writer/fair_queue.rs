//! Whose turn it is: tenants share the store's thread evenly, however much each of them asks of it.
//!
//! Start-time fair queueing: each lane has a clock of its own, which its jobs push forward by what they are expected to
//! cost, and by what they cost beyond that once it is known; the lane that is behind is served next. Within a lane the
//! order stays as it was. A lane that has nothing to ask saves up no turns, and owes those that it has had.

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
    /// When it began to wait.
    arrival: u64,
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

    /// Puts a job behind the others of its lane. It is expected to cost that much, and at least 1.
    pub(super) fn push(&mut self, key: &K, cost: u64, job: T) {
        if let Some(lane) = self.lanes.get_mut(key).filter(|lane| !lane.jobs.is_empty()) {
            lane.jobs.push_back((cost.max(1), job));
            return;
        }
        let mut lane = self.lane(key);
        lane.start = lane.start.max(self.now);
        lane.jobs.push_back((cost.max(1), job));
        self.put_back(key.clone(), lane);
    }

    /// The next job, with its lane, and what it is expected to cost.
    pub(super) fn pop(&mut self) -> Option<(K, u64, T)> {
        let (start, _, key) = self.order.first().cloned()?;
        self.now = start;
        let mut lane = self.lane(&key);
        let (cost, job) = lane.jobs.pop_front()?;
        lane.start = start.saturating_add(cost);
        self.put_back(key.clone(), lane);
        self.forget_lanes();
        Some((key, cost, job))
    }

    /// Has a lane pay for what a job of it has cost beyond what was expected.
    pub(super) fn charge(&mut self, key: &K, cost: u64) {
        let mut lane = self.lane(key);
        lane.start = lane.start.max(self.now).saturating_add(cost);
        self.put_back(key.clone(), lane);
    }

    /// Takes a lane out, to change it.
    fn lane(&mut self, key: &K) -> Lane<T> {
        let Some(lane) = self.lanes.remove(key) else {
            return Lane { start: self.now, arrival: 0, jobs: VecDeque::new() };
        };
        if lane.jobs.is_empty() {
            self.paying.remove(&(lane.start, key.clone()));
        } else {
            self.order.remove(&(lane.start, lane.arrival, key.clone()));
        }
        lane
    }

    /// Puts a lane where it belongs now, behind those that start when it does.
    fn put_back(&mut self, key: K, mut lane: Lane<T>) {
        if lane.jobs.is_empty() {
            self.paying.insert((lane.start, key.clone()));
        } else {
            lane.arrival = self.arrivals;
            self.arrivals += 1;
            self.order.insert((lane.start, lane.arrival, key.clone()));
        }
        self.lanes.insert(key, lane);
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
        std::iter::from_fn(|| queue.pop().map(|(_, _, job)| job)).collect()
    }

    #[test]
    fn whoever_asks_little_does_not_wait_for_whoever_floods() {
        let mut queue = FairQueue::default();
        for job in 0..100 {
            queue.push(&1, 10, job);
        }
        assert_eq!(queue.pop(), Some((1, 10, 0)));
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
        while let Some((_, _, job)) = queue.pop() {
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

    #[test]
    fn who_costs_more_than_expected_pays_for_it_whether_it_waits_or_not() {
        for waits in [true, false] {
            let mut queue = FairQueue::default();
            queue.push(&1, 1, 100);
            for job in 0..20 {
                queue.push(&2, 1, job);
            }
            assert_eq!(queue.pop(), Some((1, 1, 100)));
            if waits {
                queue.push(&1, 1, 101);
                queue.charge(&1, 9);
            } else {
                queue.charge(&1, 9);
                queue.push(&1, 1, 101);
            }
            let order = drain(&mut queue);
            assert_eq!(order.iter().position(|job| *job == 101), Some(10), "{order:?}");
        }
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
                if *takes && let Some((lane, _, job)) = queue.pop() {
                    served.entry(lane).or_default().push(job);
                    queue.charge(&lane, u64::from(n) % 7);
                }
            }
            // From here on whoever waits waits without a break.
            let waiting: BTreeSet<u8> = queue.order.iter().map(|(_, _, lane)| *lane).collect();
            let mut left: BTreeMap<u8, usize> =
                waiting.iter().map(|lane| (*lane, queue.lanes[lane].jobs.len())).collect();
            let mut had: BTreeMap<u8, u64> = queue.order.iter().map(|(start, _, lane)| (*lane, *start)).collect();
            while let Some((lane, cost, job)) = queue.pop() {
                prop_assert_eq!((lane, cost), costs[job as usize]);
                let behind = had.iter().filter(|(lane, _)| left[*lane] > 0).map(|(_, had)| *had).min();
                prop_assert!(behind.is_none_or(|behind| had[&lane] <= behind), "{} was ahead", lane);
                let surcharge = u64::from(job) % 5;
                queue.charge(&lane, surcharge);
                *had.get_mut(&lane).unwrap() += cost + surcharge;
                *left.get_mut(&lane).unwrap() -= 1;
                served.entry(lane).or_default().push(job);
            }
            prop_assert_eq!(served, expected);
            prop_assert!(queue.is_empty());
            queue.push(&0, 1, 0);
            queue.pop();
            prop_assert!(queue.lanes.is_empty() && queue.paying.is_empty(), "nobody waits for what they have had");
        }
    }
}
