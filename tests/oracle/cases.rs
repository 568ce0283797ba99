//! What the oracles' cases have in common: who pushes what, and when they pull.

use proptest::prelude::*;

use crate::pushes::Step;

/// Replicas of a case.
const REPLICAS: usize = 4;

/// Fewer than `most` pushes of these statements, fewer than `per_push` in each, pulls, and pulls that break off.
/// Which statements a replica runs may depend on which it is.
pub fn steps<S>(
    statement: impl Fn(usize) -> S,
    per_push: usize,
    most: usize,
) -> impl Strategy<Value = Vec<Step>>
where
    S: Strategy<Value = (u64, String)>,
{
    let push = (0..REPLICAS).prop_flat_map(move |who| {
        let statements = prop::collection::vec(statement(who), 1..per_push);
        statements.prop_map(move |statements| Step::Push(who, statements))
    });
    let pull = || 0..REPLICAS;
    let step = prop_oneof![
        6 => push,
        4 => pull().prop_map(Step::Pull),
        1 => pull().prop_map(Step::BreakOff),
    ];
    prop::collection::vec(step, 1..most)
}

/// Such steps, before which some replicas push what they had before they ever synced: rows that such a statement makes.
pub fn steps_after_old_rows<S>(
    old: impl Fn(usize) -> S,
    steps: impl Strategy<Value = Vec<Step>>,
) -> impl Strategy<Value = Vec<Step>>
where
    S: Strategy<Value = String>,
{
    let old: Vec<_> = (0..REPLICAS).map(|who| prop::collection::vec(old(who), 0..3)).collect();
    let order = Just((0..REPLICAS).collect::<Vec<_>>()).prop_shuffle();
    (old, order, steps).prop_map(|(old, order, steps)| {
        let has_any = |who: &usize| !old[*who].is_empty();
        let first = order.into_iter().filter(has_any).map(|who| Step::Old(who, old[who].clone()));
        first.chain(steps).collect()
    })
}

/// A schema of one table, of these.
pub fn one_of(tables: &[&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop::sample::select(tables.to_vec()).prop_map(|table| vec![format!("CREATE TABLE {table}")])
}
