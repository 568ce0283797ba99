mod parts;

use proptest::prelude::*;

use super::*;
use crate::model::{Hlc, Number, Op};

fn write(ms: u64, replica: u64, base: Seq, op: Op) -> Write {
    Write { stamp: Stamp { hlc: Hlc(ms << 16), replica }, base, op }
}

fn add(ms: u64, replica: u64, base: Seq, amount: i64) -> Write {
    write(ms, replica, base, Op::Adjust(vec![(0, Adjustment::Add(Number::Integer(amount)))]))
}

fn set(ms: u64, replica: u64, base: Seq, value: i64) -> Write {
    write(ms, replica, base, Op::Set(vec![(0, Value::Integer(value).into())]))
}

fn merged(rule: Rule, writes: &[Write]) -> RowState {
    let (mut state, rules) = (RowState::default(), [rule]);
    for (seq, write) in (1..).zip(writes) {
        state.merge_by(
            &mut RuleBook::of(&rules),
            None,
            std::slice::from_ref(write),
            write.stamp.replica,
            seq,
        );
    }
    state
}

fn value(state: &RowState) -> i64 {
    match state.cells[&0].value {
        CellValue::Plain(Value::Integer(value)) => value,
        ref other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_counter_holds_the_sum_and_a_maximum_the_greatest_in_any_order(
        amounts in prop::collection::vec((1_u64..50, -9_i64..9), 1..9),
        seed in any::<u64>(),
    ) {
        let mut order: Vec<usize> = (0..amounts.len()).collect();
        order.sort_by_key(|at| seed.rotate_left(u32::try_from(*at).unwrap() * 7));
        for (rule, expected) in [
            (Rule::Counter, amounts.iter().map(|(_, amount)| amount).sum::<i64>()),
            (Rule::Max, amounts.iter().map(|(_, amount)| *amount).max().unwrap()),
            (Rule::Min, amounts.iter().map(|(_, amount)| *amount).min().unwrap()),
        ] {
            let writes: Vec<Write> = order.iter().map(|at| {
                let ((ms, amount), replica) = (amounts[*at], *at as u64 + 1);
                if rule == Rule::Counter { add(ms, replica, 0, amount) } else { set(ms, replica, 0, amount) }
            }).collect();
            prop_assert_eq!(value(&merged(rule, &writes)), expected);
        }
    }
}

#[test]
fn a_sum_is_told_to_everyone_its_author_included_and_beats_what_either_has() {
    let state = merged(Rule::Counter, &[add(5, 1, 0, 2), add(3, 2, 0, 3)]);
    assert_eq!(value(&state), 5);
    assert!(state.cells[&0].stamp > Stamp { hlc: Hlc(5 << 16), replica: 1 });
    for reader in [1, 2] {
        assert!(state.since(1, reader).is_some());
    }
}

#[test]
fn what_was_done_to_two_rows_that_are_one_was_done_to_that_one() {
    let (one, other) = (merged(Rule::Counter, &[add(5, 1, 0, 3)]), merged(Rule::Counter, &[add(4, 2, 0, 4)]));
    for members in [[&one, &other], [&other, &one]] {
        assert_eq!(value(&RowState::united(members, &[Rule::Counter])), 7);
        assert_eq!(value(&RowState::united(members, &[Rule::Max])), 4);
        assert_eq!(value(&RowState::united(members, &[])), 3, "the later one");
    }
}

#[test]
fn whoever_wrote_less_than_the_maximum_is_told_of_it() {
    let state = merged(Rule::Max, &[set(5, 1, 0, 9), set(6, 2, 1, 3)]);
    let (writes, _) = state.since(1, 2).unwrap();
    assert_eq!(writes[0].op, Op::Set(vec![(0, Value::Integer(9).into())]));
    assert!(writes[0].stamp >= Stamp { hlc: Hlc(6 << 16), replica: 2 });
}

#[test]
fn a_delete_cancels_what_it_has_seen_and_nothing_else_in_any_order() {
    let delete = || write(20, 1, 2, Op::Delete);
    let before = [add(1, 1, 0, 10), add(2, 2, 1, 5)];
    let [first, second] = before;
    let state = merged(Rule::Counter, &[first.clone(), second.clone(), add(30, 2, 2, 2), delete()]);
    assert_eq!((value(&state), state.is_alive()), (2, true));
    let state = merged(Rule::Counter, &[first, second, delete(), add(30, 2, 2, 2), delete()]);
    assert_eq!((value(&state), state.is_alive()), (2, true));
}

#[test]
fn a_delete_leaves_what_was_there_before_anything_was_added_in_any_order() {
    let (old, delete) = (set(1, 1, 0, 5), || write(20, 1, 1, Op::Delete));
    for writes in [[old.clone(), add(30, 2, 1, 3), delete()], [old, delete(), add(30, 2, 1, 3)]] {
        let state = merged(Rule::Counter, &writes);
        assert_eq!((value(&state), state.is_alive()), (8, true));
    }
}

/// Breaks if what a rule made is taken for the work of a stranger.
#[test]
fn a_delete_is_in_conflict_with_what_others_had_a_part_in_and_it_has_not_seen() {
    let edit = |replica| {
        write(
            1,
            replica,
            0,
            Op::Adjust(vec![(0, Adjustment::Edit { added: vec!["1".into()], removed: vec![] })]),
        )
    };
    let conflicts = |rule, writes: &[Write], delete: Write| {
        let writer = delete.stamp.replica;
        let mut state = merged(rule, writes);
        state.merge_by(&mut RuleBook::of(&[rule]), None, &[delete], writer, 9).conflicts
    };
    let delete = |replica, base| write(20, replica, base, Op::Delete);
    for (rule, by) in [(Rule::Counter, [add(1, 1, 0, 1), add(1, 2, 0, 1)]), (Rule::Set, [edit(1), edit(2)])] {
        let [one, other] = by;
        assert_eq!(conflicts(rule, std::slice::from_ref(&one), delete(1, 0)), 0, "its own");
        assert_eq!(conflicts(rule, std::slice::from_ref(&one), delete(2, 0)), 1);
        assert_eq!(conflicts(rule, &[one.clone(), other.clone()], delete(1, 0)), 1);
        assert_eq!(conflicts(rule, &[one.clone(), other.clone()], delete(1, 2)), 0, "seen");
        assert_eq!(conflicts(rule, &[other, one], delete(1, 1)), 0, "the other's seen, and its own");
    }
    assert_eq!(conflicts(Rule::Max, &[set(1, 1, 0, 5), set(2, 2, 0, 3)], delete(1, 0)), 0, "its own stands");
    assert_eq!(conflicts(Rule::Max, &[set(1, 1, 0, 5), set(2, 2, 0, 7)], delete(1, 0)), 1);
}

#[test]
fn whoever_shows_another_value_than_the_one_that_is_kept_hears_of_it_and_nobody_else() {
    let present = || merged(Rule::Max, &[set(5, 1, 0, 9)]);
    let rules = [Rule::Max];
    let outcome = |write: Write| {
        let (mut state, writer) = (present(), write.stamp.replica);
        let changed = state.merge_by(&mut RuleBook::of(&rules), None, &[write], writer, 2).changed;
        (changed, value(&state), state.cells[&0].writer, state.cells[&0].stamp)
    };
    let stamp = |ms: u64, replica| Stamp { hlc: Hlc(ms << 16), replica };
    // Older, lesser, and of one who will be told of the present one anyway.
    assert_eq!(outcome(set(4, 2, 0, 3)), (false, 9, 1, stamp(5, 1)));
    // The same, but of one who had seen it; and of its own author.
    let raised = Stamp { hlc: Hlc(5 << 16).next(), replica: 1 };
    assert_eq!(outcome(set(4, 2, 1, 3)), (true, 9, NOBODY, raised));
    assert_eq!(outcome(set(4, 1, 0, 3)), (true, 9, NOBODY, raised));
    // Older, and equal: everyone shows it.
    assert_eq!(outcome(set(4, 2, 1, 9)), (false, 9, 1, stamp(5, 1)));
    // Later and lesser, later and greater, older and greater, at once and greater.
    assert_eq!(outcome(set(6, 2, 0, 3)), (true, 9, NOBODY, stamp(6, 2)));
    assert_eq!(outcome(set(6, 2, 0, 10)), (true, 10, 2, stamp(6, 2)));
    assert_eq!(outcome(set(4, 2, 0, 10)), (true, 10, NOBODY, raised));
    assert_eq!(outcome(set(5, 1, 0, 10)), (true, 10, NOBODY, raised));
}

#[test]
fn the_last_sixteen_additions_are_remembered_one_by_one() {
    let additions = |count: u64| (1..=count).map(|it| add(it, it, 0, 1)).collect::<Vec<_>>();
    assert_eq!(merged(Rule::Counter, &additions(16)).made[&0].additions.len(), 16);
    let mut state = merged(Rule::Counter, &additions(17));
    assert_eq!(state.made[&0].additions.first().map(|it| it.seq), Some(2));
    assert_eq!(state.made[&0].additions.len(), 16);
    // One who had seen none of them cancels that which is not remembered.
    state.merge(None, &[write(99, 99, 0, Op::Delete)], 99, 18);
    assert_eq!(value(&state), 16);
}

#[test]
fn of_two_equal_rows_that_are_one_nobody_need_be_told() {
    let [one, other] = [set(5, 1, 0, 4), set(6, 2, 0, 4)].map(|it| merged(Rule::Max, &[it]));
    for rule in [Rule::Max, Rule::Min, Rule::Lww] {
        assert_eq!(RowState::united([&one, &other], &[rule]).cells[&0].writer, 2);
    }
    let less = merged(Rule::Max, &[set(7, 3, 0, 2)]);
    let united = RowState::united([&one, &less], &[Rule::Max]);
    assert_eq!((value(&united), united.cells[&0].writer), (4, NOBODY));
}

#[test]
fn only_a_conflict_over_a_resolved_column_is_for_somebody_to_resolve() {
    for (rule, base, contests) in [(Rule::Lww, 0, 0), (Rule::Resolver, 1, 0), (Rule::Resolver, 0, 1)] {
        let (mut state, rules) = (merged(rule, &[set(5, 1, 0, 1)]), [rule]);
        let mut book = RuleBook::of(&rules);
        state.merge_by(&mut book, None, &[set(6, 2, base, 2)], 2, 2);
        assert_eq!(book.contests.len(), contests, "{rule:?} {base}");
    }
}

#[test]
fn an_addition_older_than_the_delete_leaves_the_row_deleted() {
    // What the sum is told under would be just above the delete.
    let state = merged(Rule::Counter, &[add(3, 1, 0, 1), write(3, 2, 1, Op::Delete), add(2, 9, 0, 7)]);
    assert!(!state.is_alive());
    // What one replica writes between two syncs may share a stamp, and the delete wins.
    let at_once = merged(Rule::Counter, &[add(3, 1, 0, 1), write(3, 1, 1, Op::Delete), add(2, 9, 0, 7)]);
    assert!(!at_once.is_alive());
    let later = merged(Rule::Counter, &[add(3, 1, 0, 1), write(3, 2, 1, Op::Delete), add(4, 9, 0, 7)]);
    assert!(later.is_alive());
}

#[test]
fn concurrent_writes_of_a_resolved_column_are_kept_for_the_second_author() {
    let rules = [Rule::Resolver];
    let mut state = RowState::default();
    state.merge(None, &[set(5, 1, 0, 1)], 1, 1);
    let mut book = RuleBook::of(&rules);
    assert_eq!(state.merge_by(&mut book, None, &[set(4, 2, 0, 2)], 2, 2).conflicts, 1);
    let [contest] = &book.contests[..] else { panic!("{book:?}") };
    assert_eq!(contest.present.value, Value::Integer(1).into());
    assert_eq!(contest.pushed.value, Value::Integer(2).into());
    assert_eq!(value(&state), 1, "the later write stands until somebody resolves");
}

/// Breaks if the stamp under which a sum is told counts as one under which somebody wrote.
#[test]
fn a_delete_later_than_all_that_was_added_is_later_than_the_sum_in_any_order() {
    let delete =
        Write { stamp: Stamp { hlc: Hlc(7 << 16).next(), replica: 1 }, ..write(7, 1, 0, Op::Delete) };
    let [first, second] = [add(7, 2, 0, 2), add(3, 3, 0, 3)];
    for writes in
        [[first.clone(), second.clone(), delete.clone()], [first.clone(), delete.clone(), second.clone()]]
    {
        let mut state = merged(Rule::Counter, &writes);
        assert!(!state.is_alive(), "{writes:?}");
        assert_eq!(value(&state), 5, "the delete has seen neither");
        // Whoever shows the sum under the stamp above the delete's hears that it is dead, the deleter too.
        let (told, _) = state.since(2, 1).unwrap();
        assert!(told.iter().any(|write| write.op == Op::Delete), "{told:?}");
        state.merge_by(&mut RuleBook::of(&[Rule::Counter]), None, &[add(8, 2, 3, 1)], 2, 4);
        assert!(state.is_alive());
    }
    let later = Write { stamp: Stamp { hlc: Hlc(7 << 16).next(), replica: 9 }, ..add(7, 9, 0, 1) };
    let state = merged(Rule::Counter, &[first, later, delete]);
    assert!(state.is_alive(), "what was added at that moment was written");
}

/// Breaks if a value that loses to what a rule made, and was written later than all of that, is not noted.
#[test]
fn a_value_that_changes_nothing_keeps_its_row_alive() {
    let [first, second] = [set(7, 2, 0, 9), set(3, 3, 1, 3)];
    // Above the first, and below the stamp that the second one's author is told it by.
    let third = Write { stamp: Stamp { hlc: Hlc(7 << 16).next(), replica: 1 }, ..set(7, 1, 0, 4) };
    let delete = write(7, 3, 0, Op::Delete);
    let state = merged(Rule::Max, &[first.clone(), second.clone(), third, delete.clone()]);
    assert_eq!((value(&state), state.is_alive()), (9, true));
    assert!(!merged(Rule::Max, &[first, second, delete]).is_alive());
}

#[test]
fn of_rows_that_are_one_it_is_known_who_had_a_part_in_what_a_rule_made() {
    let conflicts = |rule: Rule, members: [&RowState; 2], base| {
        let mut united = RowState::united(members, &[rule]);
        united.merge_by(&mut RuleBook::of(&[rule]), None, &[write(20, 2, base, Op::Delete)], 2, 9).conflicts
    };
    // The second write changes nothing.
    let one = merged(Rule::Max, &[set(5, 1, 0, 4), set(6, 1, 0, 3)]);
    let other = merged(Rule::Max, &[set(5, 2, 0, 2)]);
    for members in [[&one, &other], [&other, &one]] {
        assert_eq!(conflicts(Rule::Max, members, 1), 0);
        assert_eq!(conflicts(Rule::Max, members, 0), 1);
    }
    let one = merged(Rule::Counter, &[add(5, 1, 0, 4), add(6, 3, 0, 3)]);
    let other = merged(Rule::Counter, &[add(5, 2, 0, 4)]);
    for members in [[&one, &other], [&other, &one]] {
        assert_eq!(conflicts(Rule::Counter, members, 1), 1);
        assert_eq!(conflicts(Rule::Counter, members, 2), 0);
    }
}
