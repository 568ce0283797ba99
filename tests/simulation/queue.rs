//! What is going to happen, in the order of a virtual time.

use std::collections::BTreeMap;

/// Happenings by (time, tie-break): what was queued first happens first.
pub struct Queue<T> {
    now_ms: i64,
    next: u64,
    waiting: BTreeMap<(i64, u64), T>,
}

impl<T> Queue<T> {
    /// An empty queue at this time, in ms since the epoch.
    pub fn new(now_ms: i64) -> Self {
        Self { now_ms, next: 0, waiting: BTreeMap::new() }
    }

    /// The true time, in ms since the epoch; nobody in the simulated world can see it.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Has something happen at a time; at once, if that is past.
    pub fn at(&mut self, at_ms: i64, what: T) {
        self.next += 1;
        self.waiting.insert((at_ms.max(self.now_ms), self.next), what);
    }

    /// Has something happen after a while.
    pub fn after(&mut self, ms: i64, what: T) {
        self.at(self.now_ms + ms, what);
    }

    /// Goes to the next happening, if it is not after this time; else to this time. Says how much time passed.
    pub fn pop_until(&mut self, until_ms: i64) -> (i64, Option<T>) {
        let before = self.now_ms;
        let is_due = self.waiting.first_key_value().is_some_and(|((at_ms, _), _)| *at_ms <= until_ms);
        let what = if is_due { self.waiting.pop_first() } else { None };
        self.now_ms = match &what {
            Some(((at_ms, _), _)) => *at_ms,
            None => until_ms.max(before),
        };
        (self.now_ms - before, what.map(|(_, what)| what))
    }

    /// When the next thing happens.
    pub fn next_ms(&self) -> Option<i64> {
        self.waiting.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }
}
