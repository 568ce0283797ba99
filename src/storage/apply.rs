//! Applying: what the hub says becomes rows of the application's tables.
//!
//! One bounded turn is one transaction, atomic with the position that records it (I7). It begins by
//! settling the log, so that what the application wrote meanwhile keeps the base it had, and ends by
//! clearing it, so that what was applied is not taken for a write of this replica.

use std::collections::{BTreeSet, HashMap};

use super::ahead::{Ahead, Update};
use super::apply_row::Outcome;
use super::bookkeeping::{ReplicaState, SentBatch, acknowledge};
use super::burial::bury;
use super::catalog::Catalog;
use super::collisions;
use super::context::Context;
use super::doubt::{self, Gone};
use super::driver::{Sql, SqlError};
use super::follow::{Followed, Leader, settle_followed};
use super::journal::{Journal, Undone};
use super::quarantine;
use super::refused_rows::{RefusedRow, refuse};
use super::registered;
use super::resolver::Resolver;
use super::swaps::rotate;
use super::triggers::{self, Suspended};
use super::yielding::Yielding;
use crate::model::{Hlc, Op, RowUpdate, TableHeader, Write};
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
}

/// Applies one turn's work, within the transaction that is open. The log must be settled. `set_aside_before`
/// rows were in quarantine when the transaction began; at the end of the sync every row of the tables `refreshed`
/// has been told.
pub fn apply(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    state: &mut ReplicaState,
    incoming: &Incoming,
    refreshed: &[String],
    set_aside_before: u64,
) -> Result<Applied, SqlError> {
    if let Some(last) = incoming.acked.last() {
        acknowledge(sql, state, *last)?;
        refuse(sql, &incoming.refused)?;
    }
    let mut applier = Applier::new(context.catalog, state.acked, set_aside_before > 0);
    let last = incoming.rows.rows.last().map(|row| row.seq);
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
    applier.apply_all(sql, &incoming.rows)?;
    if let Some(done) = incoming.done.as_ref().filter(|_| !asked.is_empty()) {
        let gone = Gone::of(sql, context.catalog, asked)?;
        gone.delete(sql, context, &mut applier, done.cursor)?;
    }
    if retry {
        applier.retry(sql)?;
    }
    if set_aside_before > 0 {
        collisions::forget_settled(sql)?;
    }
    let Applier { applied, followed, passed_over, .. } = applier;
    for table in passed_over {
        context.note(format!(
            "rows of {table} that were here before the first sync have given way to the tenant's, which have the same keys \
             and other values"
        ));
    }
    settle_followed(sql, context, &followed)?;
    for text in texts {
        sql.run(&text)?;
    }
    for (table, reason) in sql.finish()? {
        context.note_refused_by_index(&table, &reason);
    }
    sql.execute("DELETE FROM main._federation_log", &[])?;
    if let Some(last) = last {
        state.resume = state.resume.max(last);
    }
    if let Some(done) = &incoming.done {
        // The position goes back where another process has synced since this pull began: what it was told may have been
        // overwritten by what is older. What was acknowledged to it may lie above.
        state.covered = if done.cursor < state.cursor { 0 } else { state.acked };
        state.cursor = done.cursor;
        state.resume = done.cursor;
        state.highest = state.highest.max(done.highest);
        bury(sql, context.catalog, state, done.horizon)?;
    }
    // What a pull that is interrupted has brought is seen as well, deletes of unknown rows included.
    let stamps = incoming.rows.rows.iter().flat_map(|row| &row.writes).map(|write| write.stamp.hlc);
    state.highest = stamps.fold(state.highest.max(context.highest), Hlc::max);
    state.save(sql)?;
    // Only where rows were tried can their number be another.
    let quarantined = if incoming.touches_tables() { quarantine::count(sql)? } else { set_aside_before };
    Ok(Applied { rows: applied, quarantined })
}

/// How many rows that are set aside are tried again together.
const RETRIED_TOGETHER: u64 = 1_000;

/// The rows of one turn, on their way into their tables.
pub struct Applier<'a> {
    /// The tables.
    pub catalog: &'a Catalog,
    /// The mark of the last acknowledged batch.
    pub acked: u64,
    /// Finds numbers.
    pub resolver: Resolver<'a>,
    /// What foreign keys may object to.
    pub journal: Journal,
    /// Rows inserted, updated or deleted.
    pub applied: u64,
    /// Whether the pull is at its end: nothing else is coming.
    pub is_final: bool,
    /// Rows that got another key at the end of a pull, which others may have to follow.
    pub leaders: Vec<Leader>,
    /// Rows that followed another to its new key.
    pub followed: Followed,
    /// Tables of which rows that were here before syncing, and that nobody has been told of, gave way to the tenant's.
    pub passed_over: BTreeSet<String>,
    check_quarantine: bool,
    /// Whether rows go in behind their parents, and out before them.
    parents_first: bool,
}

impl<'a> Applier<'a> {
    fn new(catalog: &'a Catalog, acked: u64, check_quarantine: bool) -> Self {
        let (resolver, journal) = (Resolver::new(catalog), Journal::default());
        let (is_final, leaders, followed, passed_over) =
            (false, Vec::new(), Followed::new(), BTreeSet::new());
        let (applied, parents_first) = (0, false);
        Self {
            catalog,
            acked,
            resolver,
            journal,
            applied,
            is_final,
            leaders,
            followed,
            passed_over,
            check_quarantine,
            parents_first,
        }
    }

    /// Applies rows, each together with what is set aside of it.
    fn apply_all(&mut self, sql: &mut dyn Sql, rows: &Rows) -> Result<(), SqlError> {
        let check = self.check_quarantine;
        let ahead = Ahead::of(rows, self.acked, |header, id| {
            if check { quarantine::take(sql, &header.name, id) } else { Ok(None) }
        })?;
        self.apply_together(sql, ahead)
    }

    /// Applies what is set aside, as long as that gets any of it applied.
    fn retry(&mut self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        (self.is_final, self.resolver.is_final) = (true, true);
        loop {
            let before = quarantine::count(sql)?;
            let mut left = before;
            while left > 0 {
                let rows = quarantine::take_some(sql, left.min(RETRIED_TOGETHER))?;
                if rows.is_empty() {
                    break;
                }
                left = left.saturating_sub(rows.len() as u64);
                self.apply_together(sql, Ahead::again(rows))?;
            }
            let after = quarantine::count(sql)?;
            if after == 0 || after >= before {
                return Ok(());
            }
        }
    }

    /// Applies rows that may need each other, in any order; sets aside what cannot be applied.
    pub fn apply_together(&mut self, sql: &mut dyn Sql, mut ahead: Ahead<'_>) -> Result<(), SqlError> {
        let by_themselves = ahead.all().filter(|(_, (_, update, _))| update.united.is_none());
        self.resolver.expect(by_themselves.map(|(_, (_, update, _))| (update.id, update.number)));
        // What two rows are one of comes before what is said of that one; and what goes makes room.
        let tables = self.order_of_tables();
        let place = |header: &TableHeader, rank: Rank| {
            let place = tables.get(&header.name.to_lowercase()).copied().unwrap_or(0);
            if rank == Rank::Delete { -place } else { place }
        };
        let order_of = |(at, (header, update, _)): (usize, &Update<'_>)| {
            let rank = rank(update);
            (rank, if tables.is_empty() { 0 } else { place(header, rank) }, at)
        };
        let mut order: Vec<(Rank, i64, usize)> = ahead.all().map(order_of).collect();
        order.sort_unstable();
        let order = order.into_iter().map(|(.., at)| at).collect();
        let mut refused = self.attempt(sql, &mut ahead, order, false)?;
        loop {
            let before = refused.len();
            refused = self.attempt_again(sql, &mut ahead, refused)?;
            self.follow_leaders(sql)?;
            let undone =
                std::mem::take(&mut self.journal).settle(sql, self.catalog, &self.resolver.numbers)?;
            self.applied = self.applied.saturating_sub(undone.len() as u64);
            for Undone { item, reason } in undone {
                ahead.undone(item);
                refused.push((item, Refusal::Waits(reason)));
            }
            if refused.is_empty() || refused.len() >= before {
                break;
            }
        }
        for (at, Refusal::Waits(reason) | Refusal::Referenced(reason)) in refused {
            let Some(row) = ahead.get(at) else { continue };
            let (header, update, acked) = (&row.0, &row.1, row.2);
            if let Some(table) = self.catalog.table(&header.name) {
                collisions::note(self, sql, table, &row, at)?;
                quarantine::hold(sql, table, update.id)?;
            }
            quarantine::set_aside(sql, (header, update, acked), &reason)?;
            self.check_quarantine = true;
        }
        Ok(())
    }

    /// Where each table stands, by its name in lower case; nothing if rows are applied as they come.
    fn order_of_tables(&self) -> HashMap<String, i64> {
        let tables = self.catalog.tables.iter().filter(|_| self.parents_first);
        tables.zip(0..).map(|(table, at)| (table.name.to_lowercase(), at)).collect()
    }

    /// Tries rows that were refused, as long as that gets any of them applied; at last also those that others
    /// reference, which may be deleted all together.
    fn attempt_again(
        &mut self,
        sql: &mut dyn Sql,
        ahead: &mut Ahead<'_>,
        mut refused: Vec<(usize, Refusal)>,
    ) -> Result<Vec<(usize, Refusal)>, SqlError> {
        let mut before = usize::MAX;
        while !refused.is_empty() && refused.len() < before {
            before = refused.len();
            let again = refused.into_iter().map(|(at, _)| at).collect();
            refused = self.attempt(sql, ahead, again, false)?;
        }
        let (referenced, waiting): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|(_, refusal)| matches!(refusal, Refusal::Referenced(_)));
        let places = |refused: &[(usize, Refusal)]| refused.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        let left = self.attempt(sql, ahead, places(&referenced), true)?;
        if left.len() == referenced.len() {
            return Ok(left.into_iter().chain(waiting).collect());
        }
        // What references them may only have waited for their new keys.
        let waiting = self.attempt(sql, ahead, places(&waiting), false)?;
        Ok(left.into_iter().chain(waiting).collect())
    }

    /// Tries the rows at these places. Returns those that were refused, which stay ahead.
    fn attempt(
        &mut self,
        sql: &mut dyn Sql,
        ahead: &mut Ahead<'_>,
        order: Vec<usize>,
        leave_children: bool,
    ) -> Result<Vec<(usize, Refusal)>, SqlError> {
        let mut refused = Vec::new();
        for at in order {
            let Some(row) = ahead.get(at) else { continue };
            match self.apply_row(sql, at, &row, leave_children)? {
                Outcome::Applied => {
                    self.applied += 1;
                    ahead.done(at);
                }
                Outcome::Unchanged => ahead.done(at),
                Outcome::Referenced(reason) => refused.push((at, Refusal::Referenced(reason))),
                Outcome::Constraint(_) if rotate(self, sql, at, &row, ahead)? => {}
                Outcome::Constraint(reason) | Outcome::Refused(reason) => {
                    refused.push((at, Refusal::Waits(reason)));
                }
            }
        }
        Ok(refused)
    }
}

/// Why a row was not applied.
enum Refusal {
    /// Something is missing, or in the way.
    Waits(String),
    /// Others reference it.
    Referenced(String),
}

/// What is applied before what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Union,
    Delete,
    Rest,
}

fn rank(update: &RowUpdate) -> Rank {
    let deletes = |write: &Write| matches!(write.op, Op::Delete);
    match update.united {
        Some(_) => Rank::Union,
        None if update.writes.iter().any(deletes) => Rank::Delete,
        None => Rank::Rest,
    }
}
