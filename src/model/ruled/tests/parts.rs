//! What is known of who had a part in what a rule made, and when.

use super::*;

/// A row to which this was done, each at a position of the tenant's.
fn at(rule: Rule, writes: &[(Seq, Write)]) -> RowState {
    let (mut state, rules) = (RowState::default(), [rule]);
    for (seq, write) in writes {
        let (book, writer) = (&mut RuleBook::of(&rules), write.stamp.replica);
        state.merge_by(book, None, std::slice::from_ref(write), writer, *seq);
    }
    state
}

/// Of a delete of two rows that are one, by one who had seen everything up to a base.
fn conflicts(rule: Rule, members: [&RowState; 2], by: u64, base: Seq) -> u32 {
    let mut united = RowState::united(members, &[rule]);
    united.merge_by(&mut RuleBook::of(&[rule]), None, &[write(20, by, base, Op::Delete)], by, 9).conflicts
}

#[test]
fn of_two_rows_that_are_one_only_the_author_of_what_is_kept_has_a_part_in_it() {
    let kept = at(Rule::Max, &[(1, set(5, 1, 0, 9))]);
    let lesser = at(Rule::Max, &[(4, set(6, 2, 0, 3))]);
    for members in [[&kept, &lesser], [&lesser, &kept]] {
        assert_eq!(value(&RowState::united(members, &[Rule::Max])), 9);
        assert_eq!(conflicts(Rule::Max, members, 3, 3), 0, "the lesser one is all that it has not seen");
        assert_eq!(conflicts(Rule::Max, members, 3, 0), 1);
    }
}

#[test]
fn all_who_added_to_one_of_two_rows_that_are_one_have_a_part_in_the_sum() {
    // What was written later came first.
    let one = at(Rule::Counter, &[(1, add(9, 1, 0, 4))]);
    let other = at(Rule::Counter, &[(4, add(5, 2, 0, 3))]);
    for members in [[&one, &other], [&other, &one]] {
        for (by, base, expected) in [(3, 3, 1), (3, 4, 0), (2, 0, 1), (2, 1, 0), (1, 3, 1), (1, 4, 0)] {
            assert_eq!(conflicts(Rule::Counter, members, by, base), expected, "{by} {base}");
        }
    }
}

#[test]
fn a_delete_later_than_all_that_was_added_to_two_rows_is_later_than_their_sum() {
    let one = merged(Rule::Counter, &[add(7, 2, 0, 2), add(3, 3, 0, 3)]);
    let other = at(Rule::Counter, &[(4, add(6, 4, 0, 1))]);
    // Below the stamp under which the first two are told.
    let delete =
        Write { stamp: Stamp { hlc: Hlc(7 << 16).next(), replica: 1 }, ..write(7, 1, 4, Op::Delete) };
    for members in [[&one, &other], [&other, &one]] {
        let mut united = RowState::united(members, &[Rule::Counter]);
        united.merge_by(&mut RuleBook::of(&[Rule::Counter]), None, std::slice::from_ref(&delete), 1, 5);
        assert!(!united.is_alive());
    }
}

/// Breaks if what was written to a cell is forgotten when a rule makes something else of it.
#[test]
fn a_value_that_was_written_after_a_delete_keeps_the_row_whatever_came_in_its_place() {
    let kept_and_told_again = [set(7, 1, 0, 9), set(3, 2, 1, 3), write(5, 3, 0, Op::Delete)];
    assert!(merged(Rule::Max, &kept_and_told_again).is_alive());
    let replaced = [set(7, 1, 0, 3), set(5, 2, 0, 9), write(6, 3, 0, Op::Delete)];
    assert!(merged(Rule::Max, &replaced).is_alive());
}

/// Breaks if everyone is told of a row again of which nothing is different.
#[test]
fn what_comes_again_or_is_older_than_all_that_a_rule_made_a_cell_of_changes_nothing() {
    let again = |rule, mut state: RowState, write: Write| {
        let writer = write.stamp.replica;
        state.merge_by(&mut RuleBook::of(&[rule]), None, &[write], writer, 9).changed
    };
    let best = || merged(Rule::Max, &[set(5, 1, 0, 9), set(6, 2, 0, 3)]);
    assert!(!again(Rule::Max, best(), set(6, 2, 0, 3)));
    assert!(!again(Rule::Max, best(), set(4, 3, 0, 2)));
    let delete =
        Write { stamp: Stamp { hlc: Hlc(7 << 16).next(), replica: 1 }, ..write(7, 1, 0, Op::Delete) };
    let sunk = merged(Rule::Counter, &[add(7, 2, 0, 2), add(3, 3, 0, 3), delete.clone()]);
    assert_eq!(sunk.cells[&0].stamp, delete.stamp);
    assert!(!again(Rule::Counter, sunk, delete));
}
