//! Many cases, one after the other on each of several threads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

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

impl Campaign {
    /// Runs the cases of these seeds, until there are none or it is over.
    pub fn run(&self, seeds: Range<u64>, is_over: impl Fn() -> bool + Sync) -> Outcome {
        let next = AtomicU64::new(seeds.start);
        let outcome = Mutex::new(Outcome::default());
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end || is_over() {
                            return;
                        }
                        let found = run(&draw(seed, &self.allowed));
                        outcome.lock().unwrap().add(seed, found);
                    }
                });
            }
        });
        outcome.into_inner().unwrap()
    }

    /// A failure, made smaller, for a person.
    pub fn report(&self, seed: u64, failure: Failure) -> String {
        report(seed, failure, draw(seed, &self.allowed))
    }
}

impl Outcome {
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
