//! What readers are told of a row, whatever the rules that span rows make of it.

use std::collections::BTreeMap;

use federation_hub::model::{CellValue, ColumnIndex, NOBODY, RowState, Seq, Stamp, Verdict};
use proptest::prelude::*;

use crate::arbitrary::{cell_value, row_state};

/// The position before the push that is derived, and two after it.
const SINCE: Seq = 3;
const NOW: Seq = 100;
const THEN: Seq = 101;

fn verdict() -> impl Strategy<Value = Verdict> {
    (any::<bool>(), prop::collection::btree_map(0_u16..3, cell_value(), 0..3), any::<bool>())
        .prop_map(|(alive, values, whole)| Verdict { alive, values, whole })
}

fn shown(state: &RowState) -> Vec<(ColumnIndex, Stamp, CellValue)> {
    state.cells.iter().map(|(column, cell)| (*column, cell.stamp, cell.value.clone())).collect()
}

proptest! {
    /// Breaks if a derived value or death gets a stamp of its own, which would then beat somebody's write.
    #[test]
    fn what_is_derived_is_shown_and_has_no_stamp_of_its_own(
        raw in row_state(),
        before in row_state(),
        verdict in verdict(),
    ) {
        let told = raw.effective(&before, &verdict, SINCE, NOW);
        for (column, cell) in &raw.cells {
            let told = &told.cells[column];
            prop_assert_eq!(told.stamp, cell.stamp);
            prop_assert_eq!(&told.value, verdict.values.get(column).unwrap_or(&cell.value));
        }
        prop_assert_eq!(told.cells.len(), raw.cells.len());
        if !raw.cells.is_empty() {
            prop_assert_eq!(told.is_alive(), verdict.alive);
        }
        prop_assert!(told.highest() <= raw.highest());
    }

    /// Breaks if a row is told again and again: every push would reach every replica.
    #[test]
    fn what_was_told_is_told_once(raw in row_state(), before in row_state(), verdict in verdict()) {
        let verdict = Verdict { whole: false, ..verdict };
        let told = raw.effective(&before, &verdict, SINCE, NOW);
        prop_assert_eq!(raw.effective(&told, &verdict, NOW, THEN), told);
    }

    #[test]
    fn where_no_rule_speaks_readers_are_told_what_was_written(raw in row_state(), before in row_state()) {
        let verdict = Verdict { alive: raw.is_alive(), values: BTreeMap::new(), whole: false };
        let told = raw.effective(&before, &verdict, SINCE, NOW);
        prop_assert_eq!(shown(&told), shown(&raw));
        prop_assert_eq!(told.is_alive(), raw.is_alive());
    }

    /// What is told anew is above the cursors of those who were told before: at the position of this push, and then
    /// nobody's, or at that of a write of it, and then its author's, who need not hear of it.
    #[test]
    fn every_difference_reaches_every_reader(raw in row_state(), before in row_state(), verdict in verdict()) {
        let told = raw.effective(&before, &verdict, SINCE, NOW);
        for (column, cell) in &told.cells {
            let was = before.cells.get(column).filter(|it| (it.stamp, &it.value) == (cell.stamp, &cell.value));
            let written = raw.cells.get(column).filter(|it| it.value == cell.value && it.seq > SINCE);
            let expected = was.or(written).map_or((NOW, NOBODY), |it| (it.seq, it.writer));
            prop_assert_eq!((cell.seq, cell.writer), expected);
        }
        if let Some(delete) = &told.deleted {
            let was = before.deleted.as_ref().filter(|it| it.stamp == delete.stamp);
            let written = raw.deleted.as_ref().filter(|it| it.stamp == delete.stamp && it.seq > SINCE);
            let expected = was.or(written).map_or((NOW, NOBODY), |it| (it.seq, it.writer));
            prop_assert_eq!((delete.seq, delete.writer), expected);
        }
    }

    /// Whoever may have dropped the row is told all of it; and nobody is when nobody can have.
    #[test]
    fn a_row_that_somebody_may_have_dropped_is_told_whole(
        raw in row_state(),
        before in row_state(),
        verdict in verdict(),
    ) {
        let told = raw.effective(&before, &verdict, SINCE, NOW);
        let was_told = !before.cells.is_empty() || before.deleted.is_some();
        let is_back = verdict.alive && was_told && !before.is_alive();
        let deleted_now = raw.deleted.as_ref().is_some_and(|it| it.seq > SINCE) && !raw.is_alive();
        let whole = verdict.whole || is_back || (verdict.alive && deleted_now);
        let earlier = before.whole_since.max(raw.whole_since);
        prop_assert_eq!(told.whole_since, if whole { NOW } else { earlier });
        prop_assert_eq!(told.number, raw.number.or(before.number));
    }

    /// Rows that are one thing are that whichever of them is asked first, and a dead one has no say.
    #[test]
    fn united_rows_are_the_same_in_any_order(a in row_state(), b in row_state(), c in row_state()) {
        let orders = [[&a, &b, &c], [&c, &a, &b], [&b, &c, &a]];
        let [first, others @ ..] = orders.map(|members| RowState::united(members, &[]));
        // Of what is older than syncing, the row that was born first stands.
        let written = |state: &RowState| {
            let cells = shown(state).into_iter();
            cells.filter(|(_, stamp, _)| *stamp != Stamp::ZERO).collect::<Vec<_>>()
        };
        for other in others {
            prop_assert_eq!(written(&other), written(&first));
            prop_assert!(other.cells.keys().eq(first.cells.keys()));
            prop_assert_eq!(other.is_alive(), first.is_alive());
        }
        prop_assert_eq!(first.is_alive(), [&a, &b, &c].into_iter().any(RowState::is_alive));
        prop_assert_eq!(shown(&RowState::united([&a, &a], &[])), shown(&a));
    }
}
