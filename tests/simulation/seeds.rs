//! The slice that runs with every test: seeds that once failed, fixed ones, and fresh ones.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::campaign::Campaign;
use crate::draw::{ALL, Fault, draw};
use crate::run::{run, trace};
use crate::simulation::Tally;

/// How many seeds run where nobody asks for more.
const SLICE: u64 = 14;

/// How many fresh ones.
const FRESH: u64 = 4;

/// Seeds that have shown something. What each one does changes whenever drawing does; what they showed has a test
/// of its own.
const SHOWED: [(u64, &str); 12] = [
    (11, "a column that was new to a replica hid what a rule had made of a row"),
    (57, "a row whose additions were dropped stayed unsent for ever"),
    (66, "the same, in a copy of a database"),
    (103, "a batch that a process left behind was sent by nobody"),
    (133, "the rows of tables whose declaration failed were rejected for good"),
    (18_005_000, "an edit that outlived a delete kept its row after the hub had forgotten its author"),
    (25_000_126, "an agent that was behind vanished for ever, and left a child of a parent that was gone"),
    (26_001_700, "an update that waited for the next turn was taken for older than what it knew of"),
    (26_001_790, "the same, of a row that had become one with another"),
    (29_000_050, "an agent vanished between two batches, the first of which needed the second"),
    (35_012_320, "rows that were one by what they referenced stayed one when that parted"),
    (
        44_000_345,
        "a row of the hub's kept one here from following its parent to the name that this got meanwhile",
    ),
];

/// A number from the environment.
fn asked_for(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is {value}, which is no number")))
}

/// What may go wrong: everything, unless the environment names some faults.
fn faults() -> Vec<Fault> {
    let Ok(names) = std::env::var("FEDERATION_FAULTS") else { return ALL.to_vec() };
    ALL.into_iter().filter(|fault| names.split(',').any(|name| name == format!("{fault:?}"))).collect()
}

/// Runs cases; reports the first that fails.
fn run_seeds(seeds: Range<u64>) -> Tally {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let campaign = Campaign { allowed: faults(), threads };
    let outcome = campaign.run(seeds, || false, |_, _| {});
    println!("{}", outcome.summary());
    if let Some((seed, failure)) = outcome.failures.into_iter().next() {
        panic!("{}", campaign.report(seed, failure));
    }
    outcome.tally
}

#[test]
fn whatever_happens_all_replicas_end_alike() {
    let one = asked_for("FEDERATION_SEED");
    let count = asked_for("FEDERATION_SEEDS").unwrap_or(if one.is_some() { 1 } else { SLICE });
    let from = one.unwrap_or(1);
    let tally = run_seeds(from..from + count);
    println!("{tally:#?}");
    assert!(one.is_some() || tally.get("batches") >= Some(&count), "a suite in which nothing happens");
}

#[test]
fn what_once_failed_passes() {
    for (seed, showed) in SHOWED {
        println!("seed {seed}: {showed}");
        run_seeds(seed..seed + 1);
    }
}

#[test]
fn fresh_seeds_pass_as_well() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let from = u64::try_from(now.as_millis()).unwrap();
    println!("fresh seeds from {from}");
    run_seeds(from..from + FRESH);
}

#[test]
fn a_seed_is_all_that_it_takes_to_repeat_a_case() {
    for seed in 1..=5 {
        let case = draw(seed, &ALL);
        assert_eq!(trace(&case), trace(&draw(seed, &ALL)), "seed {seed}");
        assert_eq!(run(&case).ok(), run(&case).ok(), "seed {seed}");
    }
}
