//! Merging by stamps: commutative, associative and idempotent, over any states and any writes.
//!
//! What replicas must agree on is the registers. Positions and writers are the hub's notes on the order in which
//! it happened to accept things, and differ from order to order as they should.

use federation_hub::model::{
    Adjustment, Cell, CellValue, ColumnIndex, Number, Op, RowState, Rule, RuleBook, Seq, Stamp, Value, Write,
};
use proptest::prelude::*;

use crate::arbitrary::{plain_write, row_state, seq, stamp, value, write};

/// A writer that no state of these tests has.
const WRITER: u64 = 9;
/// A position after all of theirs.
const LATER: Seq = 100;

type Registers = (bool, Option<Stamp>, Vec<(ColumnIndex, Stamp, CellValue)>);

fn registers(state: &RowState) -> Registers {
    // Of what is older than syncing, what the hub was told of first stands.
    let value = |cell: &Cell| if cell.stamp == Stamp::ZERO { Value::Null.into() } else { cell.value.clone() };
    let cells = state.cells.iter().map(|(column, cell)| (*column, cell.stamp, value(cell)));
    (state.is_alive(), state.deleted.as_ref().map(|delete| delete.stamp), cells.collect())
}

/// A state with another one merged into it, as it would be told to whoever has nothing.
fn join(into: &RowState, other: &RowState) -> RowState {
    let mut joined = into.clone();
    for write in other.everything().map_or_else(Vec::new, |(writes, _)| writes) {
        joined.merge(None, &[write], WRITER, LATER);
    }
    joined
}

fn with(state: &RowState, writes: &[Write]) -> RowState {
    let mut state = state.clone();
    for write in writes {
        state.merge(None, std::slice::from_ref(write), WRITER, LATER);
    }
    state
}

proptest! {
    /// Breaks if a tie is broken by arrival (`>=` instead of `>`), or a delete discards cells.
    #[test]
    fn states_merge_in_any_order(a in row_state(), b in row_state()) {
        prop_assert_eq!(registers(&join(&a, &b)), registers(&join(&b, &a)));
    }

    #[test]
    fn states_merge_in_any_grouping(a in row_state(), b in row_state(), c in row_state()) {
        prop_assert_eq!(
            registers(&join(&join(&a, &b), &c)),
            registers(&join(&a, &join(&b, &c)))
        );
    }

    #[test]
    fn a_state_merged_with_itself_is_itself(a in row_state(), b in row_state()) {
        prop_assert_eq!(registers(&join(&a, &a)), registers(&a));
        let once = join(&a, &b);
        prop_assert_eq!(registers(&join(&once, &b)), registers(&once));
    }

    /// Breaks if what a rule or a constraint made, which nobody wrote, is left out.
    #[test]
    fn whoever_has_nothing_is_told_everything(state in row_state()) {
        let told = state.everything();
        let cells = told.iter().flat_map(|(writes, _)| writes).map(|write| match &write.op {
            Op::Set(cells) => cells.len(),
            _ => 0,
        });
        prop_assert_eq!(cells.sum::<usize>(), state.cells.len());
        let whole = told.is_some_and(|(_, whole)| whole);
        prop_assert!(whole || (state.cells.is_empty() && state.deleted.is_none()));
    }

    #[test]
    fn writes_merge_in_any_order_into_any_state(
        state in row_state(),
        (writes, shuffled) in prop::collection::vec(plain_write(), 0..6)
            .prop_flat_map(|writes| (Just(writes.clone()), Just(writes).prop_shuffle())),
    ) {
        prop_assert_eq!(registers(&with(&state, &writes)), registers(&with(&state, &shuffled)));
    }

    #[test]
    fn writes_merged_at_once_or_one_by_one_are_the_same(
        state in row_state(),
        writes in prop::collection::vec(write(), 0..6),
    ) {
        let mut at_once = state.clone();
        at_once.merge(None, &writes, WRITER, LATER);
        prop_assert_eq!(registers(&at_once), registers(&with(&state, &writes)));
    }

    /// Breaks if a write that changes nothing says that it did, or the other way round: the hub would number what
    /// nobody needs, or would not tell what everybody needs.
    #[test]
    fn a_write_says_truly_whether_it_changed_anything(state in row_state(), write in plain_write()) {
        let mut merged = state.clone();
        let first = merged.merge(None, std::slice::from_ref(&write), WRITER, LATER);
        if registers(&merged) != registers(&state) {
            prop_assert!(first.changed);
        }
        if !first.changed {
            prop_assert_eq!(&merged, &state);
        }
        let twice = {
            let mut twice = merged.clone();
            twice.merge(None, std::slice::from_ref(&write), WRITER, LATER + 1);
            twice
        };
        prop_assert_eq!(registers(&twice), registers(&merged));
        if !(write.op == Op::Delete && merged.is_alive()) {
            prop_assert_eq!(&twice, &merged, "told once");
        }
    }

    /// The last change and the highest stamp of a row are those of its registers.
    #[test]
    fn a_row_is_as_new_as_the_newest_of_its_registers(state in row_state()) {
        let seqs = state.cells.values().map(|cell| cell.seq);
        let seqs = seqs.chain(state.deleted.iter().map(|delete| delete.seq)).chain([state.whole_since]);
        prop_assert_eq!(state.seq(), seqs.max().unwrap());
        let stamps = state.cells.values().map(|cell| cell.stamp);
        let stamps = stamps.chain(state.deleted.iter().map(|delete| delete.stamp));
        prop_assert_eq!(state.highest(), stamps.max().unwrap_or(Stamp::ZERO));
    }

    /// Who deleted a row, or never had it because it was deleted, needs all of it when it comes back. A row that
    /// is new is told like any write.
    #[test]
    fn a_row_that_comes_back_is_told_whole(state in row_state(), writes in prop::collection::vec(plain_write(), 1..3)) {
        let mut merged = state.clone();
        merged.merge(None, &writes, WRITER, LATER);
        let known = !state.cells.is_empty() || state.deleted.is_some();
        let deletes = writes.iter().any(|write| write.op == Op::Delete);
        let whole = merged.is_alive() && (deletes || (known && !state.is_alive()));
        prop_assert_eq!(merged.whole_since, if whole { LATER } else { state.whole_since });
    }

    /// The first number that a row was born with stands.
    #[test]
    fn a_row_keeps_its_number(state in row_state(), number in prop::option::of(any::<i64>())) {
        let mut merged = state.clone();
        merged.merge(number, &[], WRITER, LATER);
        prop_assert_eq!(merged.number, state.number.or(number));
    }

    #[test]
    fn an_adjustment_is_always_told(state in row_state(), stamp in stamp(), amount in -3_i64..3) {
        let adjust = Op::Adjust(vec![(0, Adjustment::Add(Number::Integer(amount)))]);
        let is_value = !matches!(state.cells.get(&0).map(|it| &it.value), Some(CellValue::Ref(_)));
        let merged = state.clone().merge(None, &[Write { stamp, base: 0, op: adjust }], WRITER, LATER);
        prop_assert_eq!(merged.changed, is_value);
    }

    /// Stamps only rise: what won never comes back by merging.
    #[test]
    fn merging_forgets_no_later_write(state in row_state(), writes in prop::collection::vec(plain_write(), 0..6)) {
        let merged = with(&state, &writes);
        for (column, cell) in &state.cells {
            prop_assert!(merged.cells[column].stamp >= cell.stamp);
        }
        let deleted = |state: &RowState| state.deleted.as_ref().map(|delete| delete.stamp);
        prop_assert!(deleted(&merged) >= deleted(&state));
        prop_assert!(merged.highest() >= state.highest());
    }

    /// A dotted version vector in one number: a conflict needs another writer, above the base, and another value.
    #[test]
    fn a_conflict_is_one_with_somebody_elses_write_above_the_base(
        state in row_state(),
        stamp in stamp(),
        base in seq(),
        value in value(),
        writer in 0_u64..4,
    ) {
        let write = Write { stamp, base, op: Op::Set(vec![(0, value.clone().into())]) };
        let conflicts = state.clone().merge(None, &[write], writer, LATER).conflicts;
        let unseen = |seq: Seq, by: u64| seq > base && by != writer && stamp != Stamp::ZERO;
        let on_cell = state.cells.get(&0).is_some_and(|it| {
            unseen(it.seq, it.writer) && it.value != CellValue::Plain(value)
        });
        let on_row = !state.is_alive()
            && state.deleted.as_ref().is_some_and(|it| unseen(it.seq, it.writer));
        prop_assert_eq!(conflicts, u32::from(on_cell) + u32::from(on_row));
    }

    #[test]
    fn a_delete_is_in_conflict_once_with_a_living_row_that_others_wrote_to(
        state in row_state(),
        stamp in stamp(),
        base in seq(),
        writer in 0_u64..4,
    ) {
        let conflicts =
            state.clone().merge(None, &[Write { stamp, base, op: Op::Delete }], writer, LATER).conflicts;
        let unseen = state.cells.values().any(|cell| cell.seq > base && cell.writer != writer);
        prop_assert_eq!(conflicts, u32::from(state.is_alive() && unseen));
    }

    /// What a reader is told makes its copy what the hub has; and one that has everything is told nothing.
    #[test]
    fn a_reader_who_takes_what_it_is_told_has_what_there_is(
        writes in prop::collection::vec((1_u64..4, plain_write()), 1..8),
        cursor in 0_usize..8,
    ) {
        const READER: u64 = 4;
        let mut hub = RowState::default();
        let mut copy = RowState::default();
        for (at, (writer, write)) in writes.iter().enumerate() {
            let seq = at as Seq + 1;
            hub.merge(None, std::slice::from_ref(write), *writer, seq);
            if at < cursor {
                copy = hub.clone();
            }
        }
        let cursor = cursor.min(writes.len()) as Seq;
        let told = hub.since(cursor, READER).map_or_else(Vec::new, |(writes, _)| writes);
        let known = registers(&with(&copy, &told));
        // A row that comes back whole comes without its last delete, which a copy may still remember.
        prop_assert_eq!((known.0, known.2), (hub.is_alive(), registers(&hub).2));
        prop_assert_eq!(hub.since(writes.len() as Seq, READER), None);
    }

    /// Breaks if two rows that were there before their agents synced are mixed: one's content with another's hash.
    #[test]
    fn of_rows_older_than_syncing_the_first_one_stands_whole(
        rows in prop::collection::vec(prop::collection::btree_map(0_u16..4, value(), 1..4), 1..5),
    ) {
        let mut state = RowState::default();
        for (at, row) in (1..).zip(&rows) {
            let cells = row.iter().map(|(column, value)| (*column, value.clone().into())).collect();
            let write = Write { stamp: Stamp::ZERO, base: 0, op: Op::Set(cells) };
            let mut book = RuleBook::default();
            let before = state.clone();
            state.merge_by(&mut book, None, &[write], at, at);
            let passed_over = row.iter().any(|(column, value)| {
                before.cells.get(column).is_some_and(|it| it.value != CellValue::Plain(value.clone()))
            });
            prop_assert_eq!(book.has_passed_over, passed_over);
        }
        for (column, cell) in &state.cells {
            let first = rows.iter().position(|row| row.contains_key(column)).unwrap();
            prop_assert_eq!(cell.writer, first as u64 + 1);
            prop_assert_eq!(&cell.value, &CellValue::Plain(rows[first][column].clone()));
        }
    }

    /// A counter counts each addition, in any order; a greatest and a least value are those of all.
    #[test]
    fn rules_do_not_depend_on_order(
        (writes, shuffled) in prop::collection::vec((stamp(), -9_i64..9), 1..6)
            .prop_flat_map(|writes| (Just(writes.clone()), Just(writes).prop_shuffle())),
    ) {
        let merged = |rule: Rule, writes: &[(Stamp, i64)]| {
            let (mut state, rules) = (RowState::default(), [rule]);
            for (seq, (stamp, amount)) in (1..).zip(writes) {
                let op = if rule.adjusts() {
                    Op::Adjust(vec![(0, Adjustment::Add(Number::Integer(*amount)))])
                } else {
                    Op::Set(vec![(0, Value::Integer(*amount).into())])
                };
                let write = Write { stamp: *stamp, base: 0, op };
                state.merge_by(&mut RuleBook::of(&rules), None, &[write], stamp.replica, seq);
            }
            state.cells[&0].value.clone()
        };
        for rule in [Rule::Counter, Rule::Max, Rule::Min] {
            prop_assert_eq!(merged(rule, &writes), merged(rule, &shuffled));
        }
    }
}
