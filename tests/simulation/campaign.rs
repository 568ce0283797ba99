//! Many cases, one after the other on each of several threads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::checks::Failure;
use crate::draw::{Fault, draw};
use crate::run::{report, run};
use crate::simulation::Tally;

/// How cases are drawn and run.
pub struct Campaign {
    /// The faults that cases may have.
    pub allowed: Vec<Fault>,
    pub threads: usize,
}

/// What came of many cases.
#[derive(Default)]
pub struct Outcome {
    /// What was tried, in those that passed.
    pub tally: Tally,
    /// The seeds of those that failed.
    pub failures: BTreeMap<u64, Failure>,
}

/// How often somebody who waits for a campaign hears of it.
const PULSE: Duration = Duration::from_secs(60);

impl Campaign {
    /// Runs the cases of these seeds, until there are none or it is over. Every minute `pulse` sees what has come
    /// of it so far, and the seed that is the next.
    pub fn run(
        &self,
        seeds: Range<u64>,
        is_over: impl Fn() -> bool + Sync,
        pulse: impl Fn(&Outcome, u64) + Sync,
    ) -> Outcome {
        let next = AtomicU64::new(seeds.start);
        let outcome = Mutex::new(Outcome::default());
        let (ended, end) = mpsc::channel::<()>();
        thread::scope(|scope| {
            for _ in 0..self.threads {
                let ended = ended.clone();
                let (next, outcome, is_over) = (&next, &outcome, &is_over);
                scope.spawn(move || {
                    // Whoever waits for the end learns it when the last of these is dropped.
                    let _ended = ended;
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end || is_over() {
                            return;
                        }
                        let found = run(&draw(seed, &self.allowed));
                        lock(outcome).add(seed, found);
                    }
                });
            }
            drop(ended);
            while end.recv_timeout(PULSE) == Err(RecvTimeoutError::Timeout) {
                pulse(&lock(&outcome), next.load(Ordering::Relaxed));
            }
        });
        outcome.into_inner().unwrap()
    }

    /// A failure, made smaller, for a person.
    pub fn report(&self, seed: u64, failure: Failure) -> String {
        report(seed, failure, draw(seed, &self.allowed))
    }
}

fn lock(outcome: &Mutex<Outcome>) -> MutexGuard<'_, Outcome> {
    outcome.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outcome {
    /// All of it in one line.
    pub fn summary(&self) -> String {
        let count = |what| self.tally.get(what).copied().unwrap_or_default();
        let (agents, hubs) = (count("deaths of agents"), count("deaths of the hub"));
        format!(
            "{} seeds, {} operations, {} crashes ({agents} of agents, {hubs} of hubs), {} syncs, {} failures",
            count("seeds"),
            count("statements"),
            agents + hubs,
            count("syncs"),
            self.failures.len()
        )
    }

    fn add(&mut self, seed: u64, found: Result<Tally, Failure>) {
        *self.tally.entry("seeds").or_default() += 1;
        match found {
            Ok(found) => {
                for (what, count) in found {
                    *self.tally.entry(what).or_default() += count;
                }
            }
            Err(failure) => {
                println!("seed {seed} fails: {}", failure.kind);
                self.failures.insert(seed, failure);
            }
        }
    }
}
