//! The suite: a fixed slice of seeds, thousands of them on request, and seeds that once failed.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::case::{Case, Outcome};
use crate::checks::Failure;
use crate::database::Ablation;
use crate::draw_steps::Step;
use crate::features::{ALL, Feature};
use crate::shrink::shrink;

/// How many cases run where nobody asks for more.
const SLICE: u64 = 100;

/// How many of those that have every difficulty at once.
const CROWDED_SLICE: u64 = 35;

/// How many of those with generated columns that are unique.
const GENERATED_SLICE: u64 = 35;

/// How many of those with definitions that come later.
const LATE_SLICE: u64 = 40;

/// How many of those with long keys.
const LONG_SLICE: u64 = 40;

/// How many of those whose applications hand out numbers.
const APART_SLICE: u64 = 40;

/// How many of those with indexes that fail over some rows.
const FAILING_SLICE: u64 = 35;

/// How many of those with full-text indexes.
const SEARCH_SLICE: u64 = 35;

/// A number from the environment.
fn asked_for(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is {value}, which is no number")))
}

/// What may be drawn: all of these, unless the environment names some features.
pub fn features(all: &[Feature]) -> Vec<Feature> {
    let names = std::env::var("FEDERATION_FEATURES").unwrap_or("all".into());
    let is_named =
        |feature: &Feature| names == "all" || names.split(',').any(|name| name == format!("{feature:?}"));
    all.iter().copied().filter(is_named).collect()
}

/// What cases are drawn from.
#[derive(Clone, Copy, Default)]
pub struct Kind<'a> {
    /// What each of them has.
    pub sure: &'a [Feature],
    /// What some of them have.
    pub allowed: &'a [Feature],
    /// Whether the model looks at them. In every other one the time stands still, so that ties are broken.
    pub is_audited: bool,
}

impl Kind<'_> {
    fn draw(self, seed: u64) -> Case {
        let tick_ms = i64::from(!self.is_audited || seed.is_multiple_of(2));
        Case { is_audited: self.is_audited, tick_ms, ..Case::draw_with(seed, self.sure, self.allowed) }
    }
}

/// Runs the cases of some seeds on all cores.
fn run_seeds(
    seeds: std::ops::Range<u64>,
    ablation: Option<Ablation>,
    kind: Kind<'_>,
) -> Vec<(u64, Result<Outcome, Failure>)> {
    let next = AtomicU64::new(seeds.start);
    let outcomes = Mutex::new(Vec::new());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = kind.draw(seed).run(ablation);
                    outcomes.lock().unwrap().push((seed, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap();
    outcomes.sort_by_key(|(seed, _)| *seed);
    outcomes
}

#[test]
fn whatever_the_schema_all_replicas_end_alike() {
    assert_all_pass(SLICE, Kind { allowed: &features(&ALL), ..Kind::default() });
}

/// Agents meet at the same few rows, with all that can happen to them.
#[test]
fn with_every_difficulty_at_once_all_replicas_end_alike() {
    let crowded = [&ALL[..], &[Feature::Dense]].concat();
    assert_all_pass(CROWDED_SLICE, Kind { sure: &crowded, ..Kind::default() });
}

#[test]
fn with_generated_columns_that_are_unique_all_replicas_end_alike() {
    let sure = [Feature::GeneratedKeys, Feature::Unique, Feature::UniqueIndexes];
    assert_all_pass(GENERATED_SLICE, Kind { sure: &sure, allowed: &features(&ALL), ..Kind::default() });
}

/// Breaks if an index that one agent makes takes other agents' rows from them, or a column that two add apart is lost.
#[test]
fn with_definitions_on_which_agents_differ_all_replicas_end_alike() {
    let sure = [Feature::LateIndexes, Feature::LateColumns];
    let allowed = [
        Feature::References,
        Feature::Actions,
        Feature::Unique,
        Feature::Deletes,
        Feature::Losses,
        Feature::Meanwhile,
        Feature::Late,
    ];
    assert_all_pass(LATE_SLICE, Kind { sure: &sure, allowed: &features(&allowed), ..Kind::default() });
}

/// Breaks if a part of a key counts for nothing, behind the first few.
#[test]
fn with_keys_of_up_to_sixteen_columns_all_replicas_end_alike() {
    let sure = [Feature::LongKeys, Feature::CompositeReferences];
    assert_all_pass(LONG_SLICE, Kind { sure: &sure, allowed: &features(&ALL), ..Kind::default() });
    let crowded = [&ALL[..], &[Feature::Dense, Feature::LongKeys]].concat();
    assert_all_pass(LONG_SLICE, Kind { sure: &crowded, ..Kind::default() });
}

/// Breaks if a row from elsewhere gets a number that an application may hand out, or another row because of it.
#[test]
fn with_applications_that_hand_out_numbers_all_replicas_end_alike() {
    let kind = Kind { sure: &[Feature::Apart], allowed: &features(&ALL), ..Kind::default() };
    assert_all_pass(APART_SLICE, kind);
    let sure = [Feature::Apart, Feature::Anew, Feature::References, Feature::Actions, Feature::Deletes];
    assert_all_pass(APART_SLICE, Kind { sure: &sure, allowed: &features(&ALL), ..Kind::default() });
}

/// Breaks if a row over which an expression fails at one agent stops that agent, or is lost to it.
#[test]
fn with_rows_over_which_expressions_fail_all_replicas_end_alike() {
    let kind = Kind { sure: &[Feature::FailingRows], allowed: &features(&ALL), ..Kind::default() };
    assert_all_pass(FAILING_SLICE, kind);
    let sure = [
        Feature::FailingRows,
        Feature::Dense,
        Feature::Unique,
        Feature::UniqueIndexes,
        Feature::References,
        Feature::Actions,
        Feature::KeyEdits,
        Feature::Deletes,
    ];
    assert_all_pass(FAILING_SLICE, Kind { sure: &sure, ..Kind::default() });
}

/// Every replica's indexes have the words of its rows, whatever brought these.
#[test]
fn with_search_indexes_that_triggers_keep_everything_is_found() {
    let kind = Kind { sure: &[Feature::Search], allowed: &features(&ALL), ..Kind::default() };
    assert_all_pass(SEARCH_SLICE, kind);
    let sure = [Feature::Search, Feature::Dense, Feature::Unique, Feature::KeyEdits, Feature::Deletes];
    assert_all_pass(SEARCH_SLICE, Kind { sure: &sure, ..Kind::default() });
}

/// Runs so many cases, or those that the environment asks for. Makes the first one that fails smaller.
pub fn assert_all_pass(slice: u64, kind: Kind<'_>) {
    let one = asked_for("FEDERATION_SEED");
    let count = asked_for("FEDERATION_SEEDS").unwrap_or(if one.is_some() { 1 } else { slice });
    let from = one.unwrap_or(1);
    println!("{count} cases from seed {from} of {:?} and {:?}", kind.sure, kind.allowed);
    let outcomes = run_seeds(from..from + count, None, kind);
    let mut failed: Vec<(u64, Failure)> = Vec::new();
    let mut sum = Outcome::default();
    for (seed, outcome) in outcomes {
        match outcome {
            Ok(outcome) => {
                sum.rows += outcome.rows;
                sum.writes += outcome.writes;
            }
            Err(failure) => failed.push((seed, failure)),
        }
    }
    println!("{sum:?}");
    assert!(one.is_some() || sum.rows as u64 >= 5 * count, "a suite in which nothing happens proves nothing");
    if let Some((seed, failure)) = failed.first().cloned() {
        for (seed, failure) in &failed {
            println!("seed {seed}: {}", failure.kind);
        }
        let (case, failure) = shrink(kind.draw(seed), failure, None);
        panic!("seed {seed} and {} others fail\n{}", failed.len() - 1, report(&case, &failure));
    }
}

/// A case, and how it fails, for a person.
fn report(case: &Case, failure: &Failure) -> String {
    let (features, tick_ms) = (&case.features, case.tick_ms);
    let mut report = format!("{}: {}\n{features:?}, {tick_ms} ms a write\n", failure.kind, failure.detail);
    for statement in case.schema.statements() {
        writeln!(report, "{statement};").unwrap();
    }
    for (at, agent) in case.agents.iter().enumerate() {
        writeln!(report, "agent {at}: {agent:?}").unwrap();
    }
    if !case.template.is_empty() {
        writeln!(report, "template: {:#?}", case.template).unwrap();
    }
    for step in &case.steps {
        match step {
            Step::Write(agent, statements) => writeln!(report, "{agent}: {}", statements.join(";\n   ")),
            Step::Transaction(agent, statements) => {
                writeln!(report, "{agent}: BEGIN;\n   {};\n   COMMIT", statements.join(";\n   "))
            }
            Step::Sync(agent, fate, meanwhile) => {
                writeln!(report, "{agent} syncs: {fate:?} {}", meanwhile.join(";\n   "))
            }
            Step::Pass(ms) => writeln!(report, "{ms} ms pass"),
            Step::Rules(agent, says) => writeln!(report, "{agent} declares rules: {says}"),
        }
        .unwrap();
    }
    report
}

#[test]
fn a_seed_is_all_that_it_takes_to_repeat_a_case() {
    for seed in 1..6 {
        let run = || Case::draw(seed, &ALL).run(None).map_err(|failure| failure.detail);
        assert_eq!(run(), run(), "seed {seed}");
    }
}

/// Within how many cases the suite must notice that a part of the storage layer does nothing.
const NOTICED_WITHIN: u64 = 20;

#[test]
fn the_suite_notices_when_foreign_keys_are_not_translated() {
    assert_notices(Ablation::References, &[Feature::References]);
}

#[test]
fn the_suite_notices_when_unique_keys_are_not_arbitrated() {
    assert_notices(Ablation::UniqueArbitration, &[Feature::Unique, Feature::UniqueIndexes]);
}

#[test]
fn the_suite_notices_when_triggers_fire_for_remote_writes() {
    assert_notices(Ablation::TriggerSuppression, &[Feature::Triggers]);
}

#[test]
fn the_suite_notices_when_indexes_are_not_kept() {
    assert_notices(Ablation::TriggerEffects, &[Feature::Search, Feature::Deletes]);
}

/// The same cases pass with the part in place, and fail without it.
fn assert_notices(ablation: Ablation, features: &[Feature]) {
    let seeds = 1..1 + NOTICED_WITHIN;
    let failures = |ablation| {
        let outcomes = run_seeds(seeds.clone(), ablation, Kind { allowed: features, ..Kind::default() });
        outcomes
            .into_iter()
            .filter_map(|(seed, outcome)| outcome.err().map(|failure| (seed, failure.kind)))
            .collect::<Vec<_>>()
    };
    assert_eq!(failures(None), vec![]);
    let noticed = failures(Some(ablation));
    println!("{ablation:?} switched off: {noticed:?}");
    assert!(!noticed.is_empty(), "{ablation:?} could be switched off and nobody would notice");
}
