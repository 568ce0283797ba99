//! Running cases, and making failing ones smaller.

use std::fmt::Write as _;

use crate::case::{Case, Step};
use crate::catching::catching;
use crate::checks::Failure;
use crate::simulation::{Simulation, Tally};

/// How many smaller cases are tried.
const TRIES: usize = 400;

/// Runs a case. Returns what was tried in it.
pub fn run(case: &Case) -> Result<Tally, Failure> {
    catching(|| {
        let mut simulation = Simulation::new(case);
        simulation.run()?;
        Ok(simulation.tally)
    })
}

/// What happened in a case, line by line.
pub fn trace(case: &Case) -> Vec<String> {
    let mut simulation = None;
    let _ = catching(|| simulation.insert(Simulation::new(case)).run());
    simulation.map(|simulation| simulation.trace).unwrap_or_default()
}

/// The smallest case found that fails in the same way, and how it fails: half of the steps are left out at once at
/// first, one at a time in the end; then single statements.
pub fn shrink(mut case: Case, mut failure: Failure) -> (Case, Failure) {
    let mut left = TRIES;
    let mut keeps = |case: &mut Case, failure: &mut Failure, smaller: Case| {
        if left == 0 {
            return false;
        }
        left -= 1;
        match run(&smaller) {
            Err(found) if found.kind == failure.kind => {
                (*case, *failure) = (smaller, found);
                true
            }
            _ => false,
        }
    };
    let mut chunk = case.steps.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < case.steps.len() {
            let mut smaller = case.clone();
            smaller.steps.drain(at..(at + chunk).min(case.steps.len()));
            if !keeps(&mut case, &mut failure, smaller) {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    for at in 0..case.steps.len() {
        let mut statement = statements(&mut case.steps[at]).map_or(0, |list| list.len());
        while statement > 0 {
            statement -= 1;
            let mut smaller = case.clone();
            if let Some(list) = statements(&mut smaller.steps[at]) {
                list.remove(statement);
            }
            keeps(&mut case, &mut failure, smaller);
        }
    }
    (case, failure)
}

fn statements(step: &mut Step) -> Option<&mut Vec<String>> {
    match step {
        Step::Write { statements, .. } => Some(statements),
        _ => None,
    }
}

/// A failing case, for a person: how it fails, how to repeat it, and what it takes.
pub fn report(seed: u64, failure: Failure, case: Case) -> String {
    let steps = case.steps.len();
    let (case, failure) = shrink(case, failure);
    let mut report = format!(
        "seed {seed} fails: {}\n{}\nrepeat it: FEDERATION_SEED={seed} cargo test --test simulation, or \
         cargo run --release --example torture -- --seed {seed} --cases 1\n{} of {steps} steps are left:\n",
        failure.kind,
        failure.detail,
        case.steps.len()
    );
    for statement in &case.schema {
        writeln!(report, "  {statement};").unwrap();
    }
    for (at, agent) in case.agents.iter().enumerate() {
        writeln!(report, "  process {at}: {agent:?}").unwrap();
    }
    for line in trace(&case) {
        writeln!(report, "  {line}").unwrap();
    }
    report
}
