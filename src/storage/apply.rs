//! Applying: what the hub says becomes rows of the application's tables.
//!
//! One bounded turn is one transaction, atomic with the position that records it (I7). It begins by
//! settling the log, so that what the application wrote meanwhile keeps the base it had, and ends by
//! clearing it, so that what was applied is not taken for a write of this replica.

use std::collections::BTreeSet;

use super::applier::Applier;
use super::barred::Barred;
use super::bookkeeping::{ReplicaState, SentBatch, acknowledge};
use super::burial::bury;
use super::collisions;
use super::context::Context;
use super::doubt::{self, Gone};
use super::driver::{Sql, SqlError};
use super::follow::settle_followed;
use super::quarantine;
use super::refused_rows::{RefusedRow, refuse};
use super::registered;
use super::retrial::Retrial;
use super::triggers::{self, Suspended};
use super::yielding::Yielding;
use crate::model::{Hlc, TableHeader};
use crate::protocol::message::{Done, Rows};

/// What one turn applies.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Batches that the hub has acknowledged, in order.
    pub acked: Vec<SentBatch>,
    /// Rows of these that the hub did not take.
    pub refused: Vec<RefusedRow>,
    /// Rows.
    pub rows: Rows,
    /// The end of the sync.
    pub done: Option<Done>,
    /// Rows were set aside before: at the end of the sync they are tried again.
    pub retry: bool,
}

impl Incoming {
    /// What turns bring that go on with one which has not ended.
    #[must_use]
    pub fn rest(&self) -> Self {
        Self { done: self.done.clone(), retry: true, ..Self::default() }
    }

    /// Whether the application's tables may be written. Otherwise there is only something to note.
    pub fn touches_tables(&self) -> bool {
        !self.rows.rows.is_empty() || self.retry
    }
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied {
    /// Rows inserted, updated or deleted.
    pub rows: u64,
    /// Rows that are set aside now.
    pub quarantined: u64,
    /// Rows that are set aside are still to be tried again: the end of the sync is not recorded until a turn has tried the
    /// last of them.
    pub is_unfinished: bool,
}

/// Applies one turn's work, within the transaction that is open. The log must be settled. `set_aside_before`
/// rows were in quarantine when the transaction began; at the end of the sync every row of the tables `refreshed`
/// has been told. `retrial` says how far trying again has come, `barred` which rows are left out.
pub fn apply(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    state: &mut ReplicaState,
    incoming: &Incoming,
    refreshed: &[String],
    set_aside_before: u64,
    (retrial, barred): (&mut Retrial, &mut Barred),
) -> Result<Applied, SqlError> {
    if let Some(last) = incoming.acked.last() {
        acknowledge(sql, state, *last)?;
        refuse(sql, &incoming.refused)?;
    }
    let mut applier = Applier::new(context.catalog, state.acked, set_aside_before > 0, (retrial, barred));
    // A replica that begins anew has covered something.
    applier.taken_for_the_same = ((state.cursor, state.covered) == (0, 0)).then(BTreeSet::new);
    let is_finished = apply_rows(sql, context, &mut applier, incoming, refreshed)?;
    let applied = applier.applied;
    if set_aside_before > 0 && is_finished {
        collisions::forget_settled(sql)?;
    }
    sql.execute("DELETE FROM main._federation_log", &[])?;
    if let Some(last) = incoming.rows.rows.last() {
        state.resume = state.resume.max(last.seq);
    }
    if let Some(done) = incoming.done.as_ref().filter(|_| is_finished) {
        state.lease = None;
        // The position goes back where another process has synced since this pull began: what it was told may have been
        // overwritten by what is older. What was acknowledged to it may lie above.
        state.covered = if done.cursor < state.cursor { 0 } else { state.acked };
        state.cursor = done.cursor;
        state.resume = done.cursor;
        state.highest = state.highest.max(done.highest);
        bury(sql, context.catalog, state, done.horizon)?;
    }
    // What a pull that is interrupted has brought is seen as well, deletes of unknown rows included.
    context.record(state, true);
    let stamps = incoming.rows.rows.iter().flat_map(|row| &row.writes).map(|write| write.stamp.hlc);
    state.highest = stamps.fold(state.highest, Hlc::max);
    state.save(sql)?;
    // Only where rows were tried can their number be another.
    let quarantined = if incoming.touches_tables() { quarantine::count(sql)? } else { set_aside_before };
    Ok(Applied { rows: applied, quarantined, is_unfinished: !is_finished })
}

/// Brings the rows into their tables, and makes writes of what followed them. Returns whether all that is set aside was
/// tried again that is to be.
fn apply_rows(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    applier: &mut Applier<'_>,
    incoming: &Incoming,
    refreshed: &[String],
) -> Result<bool, SqlError> {
    let retry = incoming.done.is_some() && incoming.touches_tables();
    for header in &incoming.rows.tables {
        registered::note_foreign(sql, context.catalog, header)?;
    }
    let in_doubt = doubt::is_any(sql)?;
    if in_doubt {
        // Before any is applied: they are applied one by one or together, or not at all.
        doubt::confirm(sql, context.catalog, &incoming.rows)?;
    }
    let asked = if incoming.done.is_some() && in_doubt { refreshed } else { &[] };
    let mut touched: Vec<TableHeader> = incoming.rows.tables.clone();
    touched.extend(asked.iter().map(|name| TableHeader { name: name.clone(), columns: Vec::new() }));
    let Suspended { texts, awake, read_tables } =
        triggers::suspend(sql, context, &touched, &incoming.rows, retry)?;
    applier.parents_first = read_tables;
    let mut yielding = Yielding::new(sql, awake);
    let sql = &mut yielding;
    if !incoming.rows.rows.is_empty() {
        applier.apply_all(sql, &incoming.rows)?;
    }
    if let Some(done) = incoming.done.as_ref().filter(|_| !asked.is_empty()) {
        let gone = Gone::of(sql, context.catalog, asked)?;
        gone.delete(sql, context, applier, done.cursor)?;
    }
    let is_finished = !retry || applier.retry(sql, incoming.rows.rows.len())?;
    for table in applier.taken_for_the_same.take().into_iter().flatten() {
        context.note(format!(
            "rows of {table} that were here before the first sync are like rows that another agent began with, in number and \
             content, and were taken for the same: as it should be for databases made from one template. Where they are rows \
             of their own, have agents begin with existingRows: 'new'"
        ));
    }
    for table in std::mem::take(&mut applier.passed_over) {
        context.note(format!(
            "rows of {table} that were here before the first sync have given way to the tenant's, which have the same keys \
             and other values"
        ));
    }
    settle_followed(sql, context, &applier.followed)?;
    for text in texts {
        sql.run(&text)?;
    }
    for (table, reason) in sql.finish()? {
        context.note_refused_by_index(&table, &reason);
    }
    Ok(is_finished)
}
