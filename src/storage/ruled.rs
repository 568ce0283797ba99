//! Cells of columns whose rule looks at what a write did: counters and sets.
//!
//! The value that was last seen in the table is kept for each of them, because the difference to it is what
//! travels. What the table shows is the hub's value plus what is pending here.

use serde::{Deserialize, Serialize};

use super::catalog::Column;
use super::row_meta::{CellMeta, LocalColumn, Pending, RowMeta};
use super::rows::merged_cell;
use crate::model::{Adjustment, CellValue, Rule, Seq, Stamp, Value};

/// What is kept of such a cell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuledCell {
    /// Which column.
    pub column: LocalColumn,
    /// The value that was in the table when it was last looked at.
    pub shown: CellValue,
    /// What this replica did to it that the hub's value may not have yet.
    pub pending: Vec<PendingAdjustment>,
}

/// An adjustment that may be unacknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingAdjustment {
    /// The mark of the batch that carried it; 0 if none did yet.
    pub mark: u64,
    /// What this replica had seen of the row.
    pub base: Seq,
    /// What it did.
    pub what: Adjustment,
}

impl PendingAdjustment {
    fn is_acked(&self, acked: u64) -> bool {
        (1..=acked).contains(&self.mark)
    }
}

impl RowMeta {
    /// What is kept of a cell.
    pub fn ruled(&self, column: LocalColumn) -> Option<&RuledCell> {
        self.ruled.iter().find(|cell| cell.column == column)
    }

    fn ruled_mut(&mut self, column: LocalColumn) -> &mut RuledCell {
        let at = self.ruled.iter().position(|cell| cell.column == column).unwrap_or_else(|| {
            let shown = Value::Null.into();
            self.ruled.push(RuledCell { column, shown, pending: Vec::new() });
            self.ruled.len() - 1
        });
        &mut self.ruled[at]
    }

    /// Takes in a local write of a cell; `is_whole` says that the row is new. Says whether it travels as an
    /// adjustment. Otherwise the value travels, and that of a row that is older than syncing always does.
    pub fn adjust(
        &mut self,
        column: &Column,
        after: &Value,
        (base, mark): (Seq, u64),
        is_whole: bool,
        is_old: bool,
    ) -> bool {
        if !column.rule.adjusts() {
            return false;
        }
        let is_set = self.cell(column.number).and_then(|cell| cell.pending).is_some_and(|it| it.mark == mark);
        let before = match self.ruled(column.number) {
            _ if is_whole => Some(Value::Null),
            Some(RuledCell { shown: CellValue::Plain(shown), .. }) => Some(shown.clone()),
            _ => None,
        };
        let difference = before
            .filter(|_| !is_old && (is_whole || !is_set))
            .and_then(|before| column.rule.difference(&before, after));
        let cell = self.ruled_mut(column.number);
        cell.shown = after.clone().into();
        let Some(what) = difference else {
            // The value says it all.
            cell.pending.clear();
            return false;
        };
        if is_whole {
            cell.pending.clear();
        }
        match cell.pending.iter_mut().find(|it| (it.mark, it.base) == (mark, base)) {
            Some(same) => same.what = same.what.then(&what).unwrap_or(what),
            None => cell.pending.push(PendingAdjustment { mark, base, what }),
        }
        true
    }

    /// What the hub's value makes of a cell here; nothing if a value that was written here, and that the hub
    /// does not have yet, goes before it.
    pub fn arrive(
        &mut self,
        column: &Column,
        stamp: Stamp,
        value: &Value,
        acked: u64,
    ) -> Option<(Value, CellMeta)> {
        let local = self.cell(column.number).copied();
        let is_unsent = local.is_some_and(|local| {
            local.stamp > stamp && local.pending.is_some_and(|pending| !pending.is_acked(acked))
        });
        if is_unsent {
            return None;
        }
        let cell = self.ruled_mut(column.number);
        cell.pending.retain(|pending| !pending.is_acked(acked));
        let shown = cell.pending.iter().fold(value.clone(), |value, pending| pending.what.apply(&value));
        cell.shown = shown.clone().into();
        let stamp = local.map_or(stamp, |local| local.stamp.max(stamp));
        let meta = merged_cell(column.number, stamp, &shown);
        Some((shown, meta))
    }

    /// Marks the adjustments that are unsent as under way in the batch `mark`. Those of a cell whose value
    /// travels go with the value.
    pub fn take_up_adjustments(&mut self, mark: u64, offer: bool) {
        let Self { cells, ruled, .. } = self;
        for cell in ruled.iter_mut() {
            let own = cells.iter().find(|it| it.column == cell.column);
            if offer || own.and_then(|it| it.pending).is_some_and(|pending| pending.mark == mark) {
                cell.pending.clear();
            }
            cell.pending.iter_mut().filter(|pending| pending.mark == 0).for_each(|it| it.mark = mark);
        }
    }

    /// The adjustments under way in a batch, with their columns.
    pub fn adjustments(&self, mark: u64) -> impl Iterator<Item = (LocalColumn, &PendingAdjustment)> {
        let under_way = move |pending: &&PendingAdjustment| pending.mark == mark;
        self.ruled
            .iter()
            .flat_map(move |cell| cell.pending.iter().filter(under_way).map(|pending| (cell.column, pending)))
    }

    /// Turns the adjustments that batches beyond `acked` carried into unsent ones.
    pub fn forget_sent_adjustments(&mut self, acked: u64) {
        for cell in &mut self.ruled {
            cell.pending.retain(|pending| !pending.is_acked(acked));
            cell.pending.iter_mut().for_each(|pending| pending.mark = 0);
        }
    }

    /// Turns the adjustments that the batch `mark` carried into unsent ones.
    pub fn refuse_adjustments(&mut self, mark: u64) {
        let pending = self.ruled.iter_mut().flat_map(|cell| &mut cell.pending);
        pending.filter(|pending| pending.mark == mark).for_each(|pending| pending.mark = 0);
    }

    /// Drops the adjustments that are under way beyond `acked`: nobody knows whether the hub has them. Says
    /// whether there were any. Of a row that the hub may not have at all the value travels instead, under the stamp
    /// that it has: if the hub has the row, it has the cell under this stamp or a greater one.
    pub fn drop_uncertain_adjustments(&mut self, acked: u64) -> bool {
        let is_new = self.is_new_to_hub(acked);
        let mut dropped = false;
        for cell in &mut self.ruled {
            let is_uncertain = |it: &&PendingAdjustment| it.mark != 0 && !it.is_acked(acked);
            let Some(first) = cell.pending.iter().find(is_uncertain) else { continue };
            let pending = Pending { base: first.base, mark: first.mark, is_effect: false };
            dropped = true;
            cell.pending.retain(|pending| pending.mark == 0 || pending.is_acked(acked));
            let own = self.cells.iter_mut().find(|own| own.column == cell.column);
            if let Some(own) = own.filter(|_| is_new) {
                own.pending = Some(pending);
            }
        }
        dropped
    }
}

/// What to tell when a write cannot travel as what it did.
pub fn fallback_notice(table: &str, column: &Column, value: &Value) -> Option<String> {
    let wanted = match column.rule {
        Rule::Counter if *value != Value::Null => "a number",
        Rule::Set if *value != Value::Null => "a JSON array of scalars",
        _ => return None,
    };
    Some(format!(
        "a value of {table}.{} is not {wanted}, as its merge rule {} wants: such writes are merged as if it had \
         none, and the later one wins",
        column.name,
        column.rule.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Number;

    /// A row to whose counter something was added in the batches of these marks.
    fn added_to(marks: &[u64]) -> RowMeta {
        let what = Adjustment::Add(Number::Integer(1));
        let pending = |mark: &u64| PendingAdjustment { mark: *mark, base: 0, what: what.clone() };
        let pending = marks.iter().map(pending).collect();
        let cell = RuledCell { column: 0, shown: Value::Null.into(), pending };
        RowMeta { ruled: vec![cell], ..RowMeta::default() }
    }

    /// Breaks if additions are lost, or are said to be, of which it is known whether the hub has them.
    #[test]
    fn additions_that_were_never_sent_or_are_acknowledged_are_not_uncertain() {
        for (marks, dropped, left) in [
            (&[0][..], false, &[0][..]),
            (&[1], false, &[1]),
            (&[0, 1], false, &[0, 1]),
            (&[2], true, &[]),
            (&[0, 1, 2, 3], true, &[0, 1]),
        ] {
            let mut meta = added_to(marks);
            assert_eq!(meta.drop_uncertain_adjustments(1), dropped, "{marks:?}");
            assert_eq!(meta, added_to(left), "{marks:?}");
        }
    }
}
