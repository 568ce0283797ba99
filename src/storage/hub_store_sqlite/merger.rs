//! Merging the rows of a batch, one after the other, each at a position of its own.

use std::collections::BTreeSet;

use super::contests::Contests;
use super::derive::{Deriver, Earlier, Effects, first_stands};
use super::push::{Resolved, check_row, renumber};
use super::standing::Watch;
use crate::model::{CellValue, ColumnIndex, Op, RowChange, RuleBook, Seq};
use crate::protocol::message::{Collision, Contested};
use crate::storage::hub_store::StoreError;

/// Merges rows into the raw states, and has derived from them what is told.
pub struct Merger<'a> {
    pub deriver: Deriver<'a>,
    /// Who pushes.
    pub writer: u64,
    /// The largest row that is taken, in bytes of its values.
    pub max_row_bytes: usize,
    /// Rows that are to be looked at when all are merged.
    pub touched: BTreeSet<i64>,
    /// Concurrent writes that the application resolves itself.
    pub contests: Contests<'a>,
    /// Tables whose text that stands has to be held against what is written.
    pub watch: Watch,
    /// Rows of such tables.
    pub watched: BTreeSet<i64>,
}

/// What a change is made to.
struct Meant {
    /// Rows that take it.
    rows: Vec<i64>,
    /// The others that its author knew: they take its delete, so that nothing older brings them back.
    dead: Vec<i64>,
    /// Whether its author knew that rows are one.
    as_one: bool,
}

impl Merger<'_> {
    /// Merges one row. The inner error is the reason for which the row is rejected.
    pub fn merge(
        &mut self,
        table: &Resolved,
        mut change: RowChange,
    ) -> Result<Result<(), String>, StoreError> {
        if !renumber(&mut change, &table.columns) {
            return Ok(Err("the row names a column that its table's header does not".to_owned()));
        }
        let effects = Effects::take(&mut change);
        let found = self.deriver.rows.find(table.table, change.id)?;
        let base = change.writes.iter().map(|write| write.base).min().unwrap_or(0);
        let Some(no) = found else {
            if !change.is_new {
                return Ok(gone(table, &change));
            }
            let position = self.deriver.tenant.seq + 1;
            let no = self.deriver.rows.create((table.table, change.id), position, self.writer, base)?;
            let outcome = self.merge_into(table, no, &change, &effects, true)?;
            match outcome {
                Ok((true, _)) => self.deriver.born(no),
                _ => self.deriver.rows.forget(no),
            }
            return Ok(outcome.map(drop));
        };
        let is_made_again = self.is_made_again(no, base, &change)?;
        let meant = self.meant(no, base, is_made_again)?;
        // Somebody who knew that rows are one wrote over what they are together.
        let mut conflicts =
            if meant.as_one { Some(self.conflicts_with_union(table, no, &change)?) } else { None };
        for (at, target) in meant.rows.into_iter().enumerate() {
            let outcome = self.merge_into(table, target, &change, &effects, at == 0)?;
            // What was done to a value is done once, however many rows are one.
            change.writes.retain(|write| !matches!(write.op, Op::Adjust(_)));
            match outcome {
                Ok((_, counted)) => {
                    conflicts.get_or_insert(counted);
                }
                Err(reason) => return Ok(Err(reason)),
            }
        }
        self.deriver.report.conflicts = self.deriver.report.conflicts.saturating_add(conflicts.unwrap_or(0));
        let position = self.deriver.tenant.seq;
        change.writes.retain(|write| write.op == Op::Delete);
        if !change.writes.is_empty() {
            for target in meant.dead {
                if let Err(reason) = self.merge_into(table, target, &change, &effects, false)? {
                    return Ok(Err(reason));
                }
            }
        }
        if is_made_again {
            self.deriver.born_again(no, position, (self.writer, base))?;
        }
        Ok(Ok(()))
    }

    /// Whether a change makes a row again that its author had deleted, or knew as dead.
    fn is_made_again(&self, no: i64, base: Seq, change: &RowChange) -> Result<bool, StoreError> {
        let row = self.deriver.rows.get(no)?;
        let (deletes, sets): (Vec<_>, Vec<_>) =
            change.writes.iter().partition(|write| write.op == Op::Delete);
        let is_whole = || row.raw.cells.keys().all(|column| writes(change, *column));
        let was_known = row.born <= base || !row.raw.is_alive();
        Ok(change.is_new && !sets.is_empty() && (!deletes.is_empty() || was_known && is_whole()))
    }

    fn conflicts_with_union(
        &mut self,
        table: &Resolved,
        no: i64,
        change: &RowChange,
    ) -> Result<u32, StoreError> {
        let mut united = self.deriver.merged(no)?;
        let mut book = RuleBook::of(&table.rules);
        let position = self.deriver.tenant.seq + 1;
        Ok(united.merge_by(&mut book, None, &change.writes, self.writer, position).conflicts)
    }

    /// The rows that a write to this one means: of united rows, those which its author knew as one row. Who knew of no
    /// union writes to the row that it names, and so does who makes it again.
    fn meant(&mut self, no: i64, base: Seq, is_made_again: bool) -> Result<Meant, StoreError> {
        let alone = Meant { rows: vec![no], dead: Vec::new(), as_one: false };
        let row = self.deriver.rows.get(no)?;
        if row.survivor.is_some() {
            if base >= row.united_at {
                // Its author knew that the row was another one by then: this is a new one with its key.
                self.deriver.stand_alone(no)?;
            }
            return Ok(alone);
        }
        let (mut living, mut dying, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for member in self.deriver.members(no)? {
            let row = self.deriver.rows.get(member)?;
            if row.united_at > base {
                continue;
            }
            if row.raw.is_alive() {
                living.push(member);
            } else if row.died > base {
                dying.push(member);
            } else {
                dead.push(member);
            }
        }
        if living.len() + dying.len() + dead.len() < 2 {
            return Ok(alone);
        }
        // An edit can bring back what its author saw living, and nothing that was gone by then.
        let seen = if living.is_empty() { &dying } else { &living };
        let as_one = !seen.is_empty();
        let rows = if as_one && !is_made_again { seen.clone() } else { vec![no] };
        let known = living.iter().chain(&dying).chain(&dead).copied();
        let mut dead: Vec<i64> = known.filter(|member| !rows.contains(member)).collect();
        dead.sort_unstable();
        Ok(Meant { rows, dead, as_one })
    }

    /// Merges a change into one raw state; says whether that changed it, and how many cells were in conflict;
    /// `counts` says whether these are the ones that are told.
    fn merge_into(
        &mut self,
        table: &Resolved,
        no: i64,
        change: &RowChange,
        effects: &Effects,
        counts: bool,
    ) -> Result<Result<(bool, u32), String>, StoreError> {
        let position = self.deriver.tenant.seq + 1;
        let row = self.deriver.rows.get_mut(no)?;
        let mut raw = row.raw.clone();
        let mut book = RuleBook::of(&table.rules);
        let merged = raw.merge_by(&mut book, change.number, &change.writes, self.writer, position);
        if let Err(reason) = check_row(table, change, &raw, self.max_row_bytes) {
            return Ok(Err(reason));
        }
        self.contests.add(table, change.id, book.contests)?;
        if book.has_passed_over && raw.is_alive() {
            self.deriver.report.note(first_stands(&table.name));
        }
        let highest = raw.highest().hlc;
        let earlier = if merged.changed { std::mem::replace(&mut row.raw, raw) } else { row.raw.clone() };
        row.note_death(position);
        let is_free = self.deriver.rules.table(table.table).is_none_or(|rules| rules.is_free());
        if merged.changed {
            let has_effective = row.effective.is_some();
            let references = row.raw.cells.values().any(|cell| matches!(cell.value, CellValue::Ref(_)));
            self.deriver.rows.store(no)?;
            if self.watch.is_over(table.table) {
                self.watched.insert(no);
            }
            let tenant = &mut *self.deriver.tenant;
            tenant.seq = position;
            tenant.highest = tenant.highest.max(highest);
            // A reference that only the application declares follows a union as well.
            if !is_free || has_effective || references {
                self.touched.insert(no);
            }
        }
        let is_new = earlier.cells.is_empty() && earlier.deleted.is_none();
        let may_matter = effects.is_any() || change.writes.iter().any(|write| write.op.is_delete());
        if !is_new && !is_free && may_matter {
            let (change, rules, effects) = (change.clone(), table.rules.clone(), effects.clone());
            let conflicts = if counts { merged.conflicts } else { 0 };
            self.deriver
                .note_earlier(no, Earlier { raw: earlier, change, effects, rules, position, conflicts });
        }
        self.deriver.note_overwritten(no, change)?;
        Ok(Ok((merged.changed, merged.conflicts)))
    }

    /// Learns that two rows collide.
    pub fn liken(&mut self, table: &Resolved, collision: &Collision) -> Result<(), StoreError> {
        let mut touched = self.deriver.liken(table.table, collision)?;
        self.touched.append(&mut touched);
        Ok(())
    }

    /// Derives what is told. Returns the conflicts, what people should know, and what they resolve themselves; and the tables
    /// whose text does not bear what was written.
    pub fn finish(mut self) -> Result<Outcome, StoreError> {
        let deriver = &mut self.deriver;
        deriver.take_back_effects(&mut self.touched, self.writer)?;
        deriver.derive(&self.touched)?;
        deriver.count_rows();
        let mut told = Vec::new();
        for no in self.watched {
            let row = deriver.rows.get(no)?;
            if row.stands_for_itself() && !row.withheld && row.told().is_alive() {
                told.push((row.table, row.told().clone()));
            }
        }
        let refuted = self.watch.refuted(deriver.rules, &told);
        let (conflicts, notices) = (deriver.report.conflicts, std::mem::take(&mut deriver.report.notices));
        Ok(Outcome { conflicts, notices, contests: self.contests.finish(), refuted })
    }
}

/// Whether a change writes a column.
fn writes(change: &RowChange, column: ColumnIndex) -> bool {
    change.writes.iter().any(|write| match &write.op {
        Op::Set(cells) | Op::Cut(cells) => cells.iter().any(|(at, _)| *at == column),
        Op::Adjust(cells) => cells.iter().any(|(at, _)| *at == column),
        Op::Delete | Op::Gone => false,
    })
}

/// What came of a batch.
pub struct Outcome {
    pub conflicts: u32,
    pub notices: Vec<String>,
    pub contests: Vec<Contested>,
    pub refuted: BTreeSet<i64>,
}

/// What becomes of a write to a row that the hub does not know any more: it has lost to the row's delete.
fn gone(table: &Resolved, change: &RowChange) -> Result<(), String> {
    if change.writes.iter().all(|write| write.op == Op::Delete) {
        return Ok(());
    }
    Err(format!(
        "the row of {} was deleted while this agent was away, and its change has lost to that delete",
        table.name
    ))
}
