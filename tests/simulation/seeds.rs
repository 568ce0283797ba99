//! The slice that runs with every test: fixed seeds, fresh ones, and those that once failed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::draw::{ALL, Fault, draw};
use crate::run::{add, report, run};
use crate::simulation::Tally;

/// How many seeds run where nobody asks for more.
const SLICE: u64 = 40;

/// A number from the environment.
fn asked_for(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is {value}, which is no number")))
}

/// What may go wrong: everything, unless the environment names some faults.
fn faults() -> Vec<Fault> {
    let names = std::env::var("FEDERATION_FAULTS").unwrap_or("all".into());
    let is_named = |fault: &Fault| names == "all" || names.split(',').any(|name| name == format!("{fault:?}"));
    ALL.into_iter().filter(is_named).collect()
}

/// Runs cases on all cores; reports the first that fails, and the seeds of the others.
fn run_seeds(seeds: Range<u64>) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let outcomes = Mutex::new((Tally::new(), BTreeMap::new()));
    let allowed = faults();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run(&draw(seed, &allowed));
                    let (tally, failures) = &mut *outcomes.lock().unwrap();
                    match outcome {
                        Ok(found) => add(tally, &found),
                        Err(failure) => drop(failures.insert(seed, failure)),
                    }
                }
            });
        }
    });
    let (tally, failures) = outcomes.into_inner().unwrap();
    for (seed, failure) in &failures {
        println!("seed {seed}: {}", failure.kind);
    }
    if let Some((seed, failure)) = failures.into_iter().next() {
        panic!("{}", report(seed, failure, draw(seed, &allowed)));
    }
    tally
}

#[test]
fn whatever_happens_all_replicas_end_alike() {
    let one = asked_for("FEDERATION_SEED");
    let count = asked_for("FEDERATION_SEEDS").unwrap_or(if one.is_some() { 1 } else { SLICE });
    let from = one.unwrap_or(1);
    println!("{:#?}", run_seeds(from..from + count));
}

#[test]
fn fresh_seeds_pass_as_well() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let from = u64::try_from(now.as_millis()).unwrap();
    println!("fresh seeds from {from}");
    run_seeds(from..from + 5);
}
