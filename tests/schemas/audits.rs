//! Cases at which the model looks: winners, conflicts, and nothing that was acknowledged missing.

use crate::features::Feature;
use crate::proof::{Kind, assert_all_pass};

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

fn assert_audited(sure: &[Feature], allowed: &[Feature]) {
    let sure = [&[Feature::Dense], sure].concat();
    let allowed = [&ROWS_ALONE[..], allowed].concat();
    assert_all_pass(SLICE, Kind { sure: &sure, allowed: &allowed, is_audited: true });
}

#[test]
fn the_last_write_wins_and_each_conflict_is_counted_once() {
    assert_audited(&[], &[]);
}

#[test]
fn rules_make_of_all_writes_what_they_promise() {
    assert_audited(&[Feature::Rules], &[]);
}

/// Breaks if a rule that comes when its column is in use turns back what others write to it, or stays.
#[test]
fn a_rule_that_comes_late_holds_where_nothing_was_written_and_nowhere_else() {
    assert_audited(&[Feature::LateRules], &[]);
}

#[test]
fn indexes_that_come_later_hold_where_nothing_contradicts_them() {
    assert_audited(&[Feature::LateIndexes], &[]);
}

#[test]
fn foreign_keys_keep_delete_and_replace_what_they_say() {
    assert_audited(&[Feature::References, Feature::Actions], &[Feature::InheritedKeys, Feature::Cycles]);
}
