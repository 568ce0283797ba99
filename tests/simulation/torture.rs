//! The simulator, for as long as wanted.
//!
//! ```text
//! cargo run --release --example torture -- --seed 1 --minutes 60
//! cargo run --release --example torture -- --seed 77 --cases 1        one seed again, exactly
//! ```
//!
//! `--jobs` says how many cases run at once (all cores, if not given), `--faults Network,Hub` which faults may be
//! drawn (all, if not given). Every minute it says how far it is. A case that fails is made smaller and
//! printed at the end; the seeds go on. The last line says what was done; the exit code is 1 if any case failed.

#![expect(clippy::unwrap_used, reason = "a simulation that cannot go on has failed")]

use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use campaign::{Campaign, Outcome};
use draw::{ALL, Fault};

mod campaign;
mod case;
#[path = "../schemas/catching.rs"]
mod catching;
#[expect(dead_code, reason = "shared with the random schemas, which need more of it")]
#[path = "../schemas/checks.rs"]
mod checks;
#[path = "../support/clock.rs"]
mod clock;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/database.rs"]
mod database;
#[path = "../schemas/dice.rs"]
mod dice;
mod disk;
mod draw;
#[expect(dead_code, reason = "shared with the random schemas, which need more of it")]
#[path = "../schemas/draw_rules.rs"]
mod draw_rules;
#[path = "../schemas/draw_schema.rs"]
mod draw_schema;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../schemas/draw_search.rs"]
mod draw_search;
#[expect(dead_code, reason = "shared with the random schemas, which need more of it")]
#[path = "../schemas/draw_steps.rs"]
mod draw_steps;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../schemas/features.rs"]
mod features;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/hub.rs"]
mod hub;
mod hub_side;
#[expect(dead_code, reason = "shared with the random schemas, which need more of it")]
#[path = "../schemas/isomorphism.rs"]
mod isomorphism;
mod ledger;
mod network;
mod power;
mod probe;
mod process;
mod queue;
mod rich;
mod run;
#[path = "../schemas/schema.rs"]
mod schema;
mod settle;
mod simulation;
mod store;
mod sync;
mod weather;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "../support/world.rs"]
mod world;

const USAGE: &str = "torture [--seed S] [--minutes M | --cases N] [--jobs J] [--faults Network,Hub,…]";

/// What was asked for on the command line.
struct Wanted {
    seeds: Range<u64>,
    time: Option<Duration>,
    jobs: usize,
    faults: Vec<Fault>,
}

impl Wanted {
    /// Reads the arguments, or says what is wrong with them.
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut seed, mut minutes, mut cases) = (1, None, None);
        let mut jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut faults = ALL.to_vec();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(USAGE)?;
            let number = || value.parse::<u64>().map_err(|_| format!("{name} {value} is no number: {USAGE}"));
            match name.as_str() {
                "--seed" => seed = number()?,
                "--minutes" => minutes = Some(number()?),
                "--cases" => cases = Some(number()?),
                "--jobs" => jobs = usize::try_from(number()?).unwrap_or(1).max(1),
                "--faults" => {
                    let is_named = |it: &Fault| value.split(',').any(|name| name == format!("{it:?}"));
                    faults = ALL.into_iter().filter(is_named).collect();
                }
                _ => return Err(USAGE.to_owned()),
            }
        }
        if minutes.is_none() && cases.is_none() {
            minutes = Some(1);
        }
        let end = cases.map_or(u64::MAX, |cases| seed.saturating_add(cases));
        let time = minutes.map(|minutes| Duration::from_secs(60 * minutes));
        Ok(Self { seeds: seed..end, time, jobs, faults })
    }
}

fn main() -> ExitCode {
    let wanted = match Wanted::read(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::FAILURE;
        }
    };
    println!("from seed {}, with {:?}", wanted.seeds.start, wanted.faults);
    let began = Instant::now();
    let campaign = Campaign { allowed: wanted.faults, threads: wanted.jobs };
    let is_over = || wanted.time.is_some_and(|time| began.elapsed() >= time);
    let from = wanted.seeds.start;
    let pulse = |so_far: &Outcome, next| {
        println!("after {} s, before seed {next}: {}", began.elapsed().as_secs(), so_far.summary());
    };
    let outcome = campaign.run(wanted.seeds, is_over, pulse);
    let took_s = began.elapsed().as_secs();
    for (seed, failure) in &outcome.failures {
        println!("{}", campaign.report(*seed, failure.clone()));
    }
    for (what, count) in &outcome.tally {
        println!("{count:>12} {what}");
    }
    println!("torture from seed {from}: {took_s} s, {}", outcome.summary());
    if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
