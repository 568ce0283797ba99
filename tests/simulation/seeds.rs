//! The slice that runs with every test: fixed seeds, fresh ones, and those that once failed.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::draw::{ALL, draw};
use crate::run::{report, run};

/// How many seeds run where nobody asks for more.
const SLICE: u64 = 40;

/// A number from the environment.
fn asked_for(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is {value}, which is no number")))
}

fn run_seeds(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let case = draw(seed, &ALL);
        if let Err(failure) = run(&case) {
            panic!("{}", report(seed, failure, case));
        }
    }
}

#[test]
fn whatever_happens_all_replicas_end_alike() {
    let one = asked_for("FEDERATION_SEED");
    let count = asked_for("FEDERATION_SEEDS").unwrap_or(if one.is_some() { 1 } else { SLICE });
    let from = one.unwrap_or(1);
    run_seeds(from..from + count);
}

#[test]
fn fresh_seeds_pass_as_well() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let from = u64::try_from(now.as_millis()).unwrap();
    println!("fresh seeds from {from}");
    run_seeds(from..from + 5);
}
