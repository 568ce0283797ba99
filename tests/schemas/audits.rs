//! Cases at which the model looks: winners, conflicts, and nothing that was acknowledged missing.

use crate::features::Feature;
use crate::proof::{assert_all_pass, features};

/// How many cases of each kind run where nobody asks for more.
const SLICE: u64 = 60;

/// What spans no rows.
const ROWS_ALONE: [Feature; 6] = [
    Feature::Triggers,
    Feature::Deletes,
    Feature::Losses,
    Feature::Meanwhile,
    Feature::Template,
    Feature::Late,
];

/// Foreign keys to rows that are found by their identity.
const FOREIGN_KEYS: [Feature; 4] =
    [Feature::References, Feature::InheritedKeys, Feature::Cycles, Feature::Actions];

#[test]
fn foreign_keys_keep_delete_and_replace_what_they_say() {
    let allowed = [&ROWS_ALONE[..], &FOREIGN_KEYS].concat();
    assert_all_pass(SLICE, &features(&allowed), true);
}

#[test]
fn rules_make_of_all_writes_what_they_promise() {
    let allowed = [&features(&ROWS_ALONE)[..], &[Feature::Rules]].concat();
    assert_all_pass(SLICE, &allowed, true);
}

#[test]
fn the_last_write_wins_and_each_conflict_is_counted_once() {
    assert_all_pass(SLICE, &features(&ROWS_ALONE), true);
}
