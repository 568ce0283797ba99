use proptest::prelude::*;

use super::*;
use crate::model::{Hlc, Value};

fn stamp(ms: u64, replica: u64) -> Stamp {
    Stamp { hlc: Hlc(ms), replica }
}

fn set(stamp: Stamp, base: Seq, cells: &[(ColumnIndex, i64)]) -> Write {
    let cells = cells.iter().map(|(column, value)| (*column, Value::Integer(*value).into())).collect();
    Write { stamp, base, op: Op::Set(cells) }
}

fn delete(stamp: Stamp, base: Seq) -> Write {
    Write { stamp, base, op: Op::Delete }
}

/// What replicas must agree on; positions and writers depend on the order of arrival.
type Registers = (Option<Stamp>, Vec<(ColumnIndex, Stamp, CellValue)>, bool);

fn registers(state: &RowState) -> Registers {
    let cells = state.cells.iter().map(|(column, cell)| (*column, cell.stamp, cell.value.clone()));
    (state.deleted.as_ref().map(|delete| delete.stamp), cells.collect(), state.is_alive())
}

fn writes() -> impl Strategy<Value = Vec<(u64, Write)>> {
    let op = prop_oneof![
        prop::collection::vec((0_u16..3, 0_i64..3), 1..3).prop_map(|mut cells| {
            cells.sort_unstable();
            cells.dedup_by_key(|(column, _)| *column);
            Op::Set(cells.into_iter().map(|(c, v)| (c, Value::Integer(v).into())).collect())
        }),
        Just(Op::Delete),
    ];
    let write = (0_u64..4, 1_u64..4, op)
        .prop_map(|(ms, replica, op)| (replica, Write { stamp: stamp(ms, replica), base: 0, op }));
    prop::collection::vec(write, 0..6)
}

fn merge_all(writes: &[(u64, Write)]) -> RowState {
    let mut state = RowState::default();
    for (seq, (writer, write)) in (1..).zip(writes) {
        state.merge(None, std::slice::from_ref(write), *writer, seq);
    }
    state
}

proptest! {
    /// Breaks if a tie is broken by arrival, or a delete discards cells.
    #[test]
    fn any_order_and_any_repetition_ends_in_one_state(
        (original, shuffled) in writes().prop_flat_map(|w| (Just(w.clone()), Just(w).prop_shuffle())),
        repeated in 0_usize..6,
    ) {
        let mut with_repeats = shuffled.clone();
        with_repeats.extend(original.iter().take(repeated).cloned());
        prop_assert_eq!(registers(&merge_all(&original)), registers(&merge_all(&with_repeats)));
    }
}

#[test]
fn two_columns_written_apart_both_survive_without_a_conflict() {
    let mut state = RowState::default();
    state.merge(None, &[set(stamp(1, 1), 0, &[(0, 1), (1, 1)])], 1, 1);
    assert_eq!(state.merge(None, &[set(stamp(5, 2), 1, &[(0, 2)])], 2, 2).conflicts, 0);
    assert_eq!(state.merge(None, &[set(stamp(4, 3), 1, &[(1, 3)])], 3, 3).conflicts, 0);
    assert_eq!(state.cells[&0].value, Value::Integer(2).into());
    assert_eq!(state.cells[&1].value, Value::Integer(3).into());
}

#[test]
fn a_conflict_is_counted_for_the_loser_too_and_never_for_one_who_had_seen() {
    let mut state = RowState::default();
    state.merge(None, &[set(stamp(1, 1), 0, &[(0, 1)])], 1, 1);
    state.merge(None, &[set(stamp(9, 2), 1, &[(0, 2)])], 2, 2);
    let lost = state.merge(None, &[set(stamp(5, 3), 1, &[(0, 3)])], 3, 3);
    assert_eq!(lost, Merged { changed: false, conflicts: 1 });
    let seen = state.merge(None, &[set(stamp(10, 3), 2, &[(0, 3)])], 3, 4);
    assert_eq!(seen, Merged { changed: true, conflicts: 0 });
    let own_earlier_write_unseen = state.merge(None, &[set(stamp(11, 3), 2, &[(0, 4)])], 3, 5);
    assert_eq!(own_earlier_write_unseen.conflicts, 0);
    let same_value = state.merge(None, &[set(stamp(12, 1), 2, &[(0, 4)])], 1, 6);
    assert_eq!(same_value.conflicts, 0);
}

#[test]
fn an_edit_that_beats_a_concurrent_delete_brings_the_whole_row_back() {
    let mut state = RowState::default();
    state.merge(None, &[set(stamp(1, 1), 0, &[(0, 1), (1, 1)])], 1, 1);
    state.merge(None, &[delete(stamp(5, 2), 1)], 2, 2);
    assert!(!state.is_alive());
    let back = state.merge(None, &[set(stamp(6, 3), 1, &[(0, 7)])], 3, 3);
    assert_eq!(back, Merged { changed: true, conflicts: 1 });
    assert!(state.is_alive());
    let (writes, whole) = state.since(2, 2).unwrap();
    assert!(whole, "the deleter needs every cell, {writes:?}");
    assert_eq!(writes.len(), 3);
}

#[test]
fn the_last_delete_is_remembered_and_another_replicas_beneath_it() {
    let mut state = RowState::default();
    state.merge(None, &[set(stamp(1, 1), 0, &[(0, 1)])], 1, 1);
    for (ms, replica) in [(5, 2), (6, 3), (7, 3)] {
        state.merge(None, &[delete(stamp(ms, replica), 1)], replica, ms);
    }
    let known =
        |state: &RowState| state.deletes().map(|it| (it.stamp, it.seq, it.writer)).collect::<Vec<_>>();
    assert_eq!(known(&state), [(stamp(7, 3), 7, 3), (stamp(5, 2), 5, 2)]);
    assert!(state.merge(None, &[delete(stamp(6, 4), 1)], 4, 8).changed, "an earlier one is kept as well");
    assert!(!state.merge(None, &[delete(stamp(6, 4), 1)], 4, 9).changed);
    assert_eq!(known(&state), [(stamp(7, 3), 7, 3), (stamp(6, 4), 8, 4)]);
}

#[test]
fn a_delete_of_one_who_makes_the_row_again_is_of_no_push() {
    let mut state = RowState::default();
    state.merge(None, &[delete(stamp(5, 1), 0)], 1, 1);
    state.merge(None, &[set(stamp(9, 2), 0, &[(0, 2)])], 2, 2);
    assert_eq!(state.deleted.as_ref().map(|it| it.seq), Some(1), "another one's edit");
    state.merge(None, &[set(stamp(4, 1), 0, &[(0, 1)])], 1, 3);
    assert_eq!(state.deleted.as_ref().map(|it| it.seq), Some(1), "an edit from before");
    state.merge(None, &[set(stamp(5, 1), 0, &[(0, 1)])], 1, 3);
    assert_eq!(state.deleted.as_ref().map(|it| it.seq), Some(1), "an edit that shares its stamp");
    state.merge(None, &[set(stamp(6, 1), 0, &[(0, 1)])], 1, 4);
    assert_eq!(state.deleted.as_ref().map(|it| (it.stamp, it.seq)), Some((stamp(5, 1), 0)));
}

#[test]
fn a_delete_that_loses_makes_its_author_get_the_whole_row() {
    let mut state = RowState::default();
    state.merge(None, &[set(stamp(1, 1), 0, &[(0, 1), (1, 1)])], 1, 1);
    state.merge(None, &[set(stamp(9, 3), 1, &[(0, 7)])], 3, 2);
    let lost = state.merge(None, &[delete(stamp(5, 2), 1)], 2, 3);
    assert_eq!(lost, Merged { changed: true, conflicts: 1 });
    assert!(state.since(2, 2).unwrap().1);
}

/// Breaks if whoever asks for everything is taken for [`NOBODY`], who made what rules make.
#[test]
fn everything_is_also_what_a_rule_made() {
    let rules = [Rule::Max];
    let mut state = RowState::default();
    let best = |ms, best| set(stamp(ms, ms), 0, &[(0, best)]);
    state.merge_by(&mut RuleBook::of(&rules), None, &[best(1, 9)], 1, 1);
    state.merge_by(&mut RuleBook::of(&rules), None, &[best(2, 5)], 2, 2);
    assert_eq!(state.cells[&0].writer, crate::model::NOBODY);
    let (writes, whole) = state.everything().unwrap();
    assert!(whole, "{writes:?}");
}

#[test]
fn a_value_that_is_written_to_a_counter_is_in_conflict_with_nothing() {
    for (rule, conflicts) in [(Rule::Counter, 0), (Rule::Set, 0), (Rule::Lww, 1)] {
        let rules = [rule];
        let mut state = RowState::default();
        state.merge_by(&mut RuleBook::of(&rules), None, &[set(stamp(1, 1), 0, &[(0, 9)])], 1, 1);
        let merged = state.merge_by(&mut RuleBook::of(&rules), None, &[set(stamp(2, 2), 0, &[(0, 5)])], 2, 2);
        assert_eq!(merged.conflicts, conflicts, "{rule:?}");
    }
}

#[test]
fn what_merges_under_a_delete_is_told_with_the_delete() {
    let mut state = RowState::default();
    state.merge(None, &[delete(stamp(5, 2), 0)], 2, 1);
    state.merge(None, &[set(stamp(1, 1), 0, &[(0, 1)])], 1, 2);
    let (writes, _) = state.since(1, 9).unwrap();
    assert_eq!(writes, vec![set(stamp(1, 1), 2, &[(0, 1)]), delete(stamp(5, 2), 1)]);
}

#[test]
fn a_reader_gets_what_it_lacks_and_not_its_own_words() {
    let mut state = RowState::default();
    state.merge(None, &[set(stamp(1, 1), 0, &[(0, 1), (1, 1)])], 1, 1);
    state.merge(None, &[set(stamp(2, 2), 1, &[(1, 2)])], 2, 2);
    assert_eq!(state.since(2, 9), None);
    assert_eq!(state.since(1, 2), None);
    let (writes, whole) = state.since(1, 1).unwrap();
    assert_eq!(writes, vec![set(stamp(2, 2), 2, &[(1, 2)])]);
    assert!(!whole);
    assert!(state.since(0, 9).unwrap().1);
}

#[test]
fn rows_older_than_syncing_lose_to_any_write_and_do_not_churn() {
    let mut state = RowState::default();
    state.merge(None, &[set(Stamp::ZERO, 0, &[(0, 1)])], 1, 1);
    assert!(!state.merge(None, &[set(Stamp::ZERO, 0, &[(0, 1)])], 2, 2).changed);
    assert!(state.merge(None, &[set(stamp(1, 3), 0, &[(0, 0)])], 3, 3).changed);
}
