//! Cases at which the model looks: winners, conflicts, and nothing that was acknowledged missing.

use crate::features::Feature;
use crate::proof::{Kind, assert_all_pass};

/// How many cases of each kind run where nobody asks for more.
const SLICE: u64 = 40;

/// How many of those that write rows anew.
const ANEW_SLICE: u64 = 30;

/// What spans no rows.
const ROWS_ALONE: [Feature; 6] = [
    Feature::Triggers,
    Feature::Deletes,
    Feature::Losses,
    Feature::Meanwhile,
    Feature::Template,
    Feature::Late,
];

fn assert_audited(slice: u64, sure: &[Feature], allowed: &[Feature]) {
    let sure = [&[Feature::Dense], sure].concat();
    let allowed = [&ROWS_ALONE[..], allowed].concat();
    assert_all_pass(slice, Kind { sure: &sure, allowed: &allowed, is_audited: true });
}

#[test]
fn the_last_write_wins_and_each_conflict_is_counted_once() {
    assert_audited(SLICE, &[], &[]);
}

#[test]
fn rules_make_of_all_writes_what_they_promise() {
    assert_audited(SLICE, &[Feature::Rules], &[]);
}

/// Breaks if a rule that comes when its column is in use turns back what others write to it, or stays.
#[test]
fn a_rule_that_comes_late_holds_where_nothing_was_written_and_nowhere_else() {
    assert_audited(SLICE, &[Feature::LateRules], &[]);
}

#[test]
fn indexes_that_come_later_hold_where_nothing_contradicts_them() {
    assert_audited(SLICE, &[Feature::LateIndexes], &[]);
}

#[test]
fn what_was_set_aside_while_an_expression_failed_is_decided_as_if_it_had_not() {
    assert_audited(SLICE, &[Feature::FailingRows], &[]);
}

#[test]
fn foreign_keys_keep_delete_and_replace_what_they_say() {
    let allowed = [Feature::InheritedKeys, Feature::Cycles];
    assert_audited(SLICE, &[Feature::References, Feature::Actions], &allowed);
}

#[test]
fn keys_of_many_columns_are_what_they_are_to_the_last() {
    let sure = [Feature::LongKeys, Feature::NaturalReferences, Feature::CompositeReferences];
    assert_audited(SLICE, &sure, &[Feature::References, Feature::Actions, Feature::Cycles]);
}

/// Breaks if a number that is given again is taken for the row that had it, or a child that was deleted itself for one that
/// went with its parent.
#[test]
fn rows_that_are_written_anew_and_families_that_are_cleared_are_what_was_written() {
    let sure = [Feature::Anew, Feature::References, Feature::Actions, Feature::Deletes];
    assert_audited(ANEW_SLICE, &sure, &[Feature::Cycles]);
}
