//! Applying rows that may need each other: in which order, how often, and what becomes of those that cannot be applied.

use std::collections::{BTreeSet, HashMap};

use super::ahead::{Ahead, Update};
use super::apply_row::Outcome;
use super::barred::Barred;
use super::catalog::Catalog;
use super::collisions;
use super::driver::{Sql, SqlError};
use super::follow::{Followed, Leader};
use super::journal::{Journal, Undone};
use super::quarantine;
use super::resolver::Resolver;
use super::retrial::{Carried, Done, Retrial};
use crate::model::{Op, RowUpdate, TableHeader, Write};
use crate::protocol::message::Rows;

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
    /// Tables with numbers of which rows that were here before syncing are rows that another agent began with; looked for
    /// only until the replica has been told of everything once.
    pub taken_for_the_same: Option<BTreeSet<String>>,
    /// Rows that are left out.
    pub barred: &'a mut Barred,
    /// How far trying again what is set aside has come.
    pub retrial: &'a mut Retrial,
    /// Whether rows go in behind their parents, and out before them.
    pub parents_first: bool,
    check_quarantine: bool,
}

impl<'a> Applier<'a> {
    /// One that has no row yet. The hub has acknowledged the batches up to the mark `acked`; `check_quarantine` says that
    /// rows may be set aside.
    pub fn new(
        catalog: &'a Catalog,
        acked: u64,
        check_quarantine: bool,
        (retrial, barred): (&'a mut Retrial, &'a mut Barred),
    ) -> Self {
        let (resolver, journal) = (Resolver::new(catalog), Journal::default());
        let (leaders, followed) = (Vec::new(), Followed::new());
        let (passed_over, taken_for_the_same) = (BTreeSet::new(), None);
        let (applied, is_final, parents_first) = (0, false, false);
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
            taken_for_the_same,
            barred,
            retrial,
            parents_first,
            check_quarantine,
        }
    }

    /// Applies rows, each together with what is set aside of it.
    pub fn apply_all(&mut self, sql: &mut dyn Sql, rows: &Rows) -> Result<(), SqlError> {
        let check = self.check_quarantine;
        let ahead = Ahead::of(rows, self.acked, |header, id| {
            if check { quarantine::take(sql, &header.name, id) } else { Ok(None) }
        })?;
        self.apply_together(sql, ahead)
    }

    /// Applies what is set aside, as long as that gets any of it applied and the turn has time, which has `applied` so many
    /// rows by now. Returns whether that is all.
    pub fn retry(&mut self, sql: &mut dyn Sql, applied: usize) -> Result<bool, SqlError> {
        (self.is_final, self.resolver.is_final) = (true, true);
        self.retrial.limit_turn(applied);
        loop {
            if !self.retrial.chain.is_empty() {
                self.apply_together(sql, Ahead::default())?;
            }
            if !self.retrial.chain.is_empty() || self.retrial.is_spent() {
                return Ok(false);
            }
            match self.retrial.next(sql)? {
                Some(rows) => self.apply_together(sql, Ahead::kept(rows))?,
                None => return Ok(true),
            }
        }
    }

    /// Applies rows that may need each other, in any order; sets aside what cannot be applied. A chain that an earlier
    /// turn has left comes first.
    pub fn apply_together(&mut self, sql: &mut dyn Sql, mut ahead: Ahead<'_>) -> Result<(), SqlError> {
        let outcome = self.bring_in(sql, &mut ahead);
        if let Err(error) = &outcome
            && let Some((table, id)) = self.barred.item.and_then(|item| ahead.name_of(item))
        {
            self.barred.blame(error, table, id);
        }
        self.barred.item = None;
        outcome
    }

    fn bring_in(&mut self, sql: &mut dyn Sql, ahead: &mut Ahead<'_>) -> Result<(), SqlError> {
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
        let order: Vec<usize> = order.into_iter().map(|(.., at)| at).collect();
        self.carry_on(ahead);
        if !self.retrial.chain.is_empty() {
            self.follow_chain(sql, ahead, false)?;
        }
        let mut refused = self.attempt(sql, ahead, order, Attempt::First)?;
        loop {
            let before = refused.len();
            if self.retrial.chain.is_empty() {
                refused = self.attempt_again(sql, ahead, refused)?;
            }
            let undone = self.settle(sql, ahead)?;
            refused.extend(undone);
            if refused.is_empty() || refused.len() >= before || !self.retrial.chain.is_empty() {
                break;
            }
        }
        for (at, refusal) in refused {
            let Some(row) = ahead.get(at) else { continue };
            let reason = match (refusal, ahead.place_in_quarantine(at)) {
                (Refusal::NotTried, Some(place)) => {
                    self.retrial.not_tried(place);
                    continue;
                }
                (Refusal::NotTried, None) => "it waits for others".to_owned(),
                (Refusal::Held(reason), _) => reason,
                (Refusal::Waits(reason), _) => {
                    self.retrial.note_bound(false);
                    reason
                }
                (Refusal::Referenced(reason), _) => {
                    self.retrial.note_bound(true);
                    reason
                }
            };
            let (header, update, acked) = (&row.0, &row.1, row.2);
            self.barred.item = Some(at);
            if let Some(table) = self.catalog.table(&header.name) {
                // What failed in the middle may fail here as well.
                if self.barred.why(header, update.id).is_none() {
                    collisions::note(self, sql, table, &row, ahead.parked(at))?;
                }
                quarantine::hold(sql, table, update.id)?;
            }
            quarantine::set_aside(sql, (header, update, acked), ahead.parked(at), &reason)?;
            self.check_quarantine = true;
        }
        self.leave(sql, ahead)
    }

    /// Has what earlier turns did, and what is to be looked at again, count as this turn's.
    fn carry_on(&mut self, ahead: &mut Ahead<'_>) {
        for Carried { row, what } in std::mem::take(&mut self.retrial.carried) {
            let item = ahead.add_applied(row);
            match what {
                Done::Step(step) => self.journal.carry_on(item, step),
                Done::Leader(leader) => self.leaders.push(Leader { item, ..leader }),
            }
        }
    }

    /// Looks at what foreign keys have to say, and undoes what they object to; as long as a chain waits for the next turn,
    /// leaves that to it. Returns what was undone.
    fn settle(
        &mut self,
        sql: &mut dyn Sql,
        ahead: &mut Ahead<'_>,
    ) -> Result<Vec<(usize, Refusal)>, SqlError> {
        let leaders = self.follow_leaders(sql)?;
        let mut journal = std::mem::take(&mut self.journal);
        if self.retrial.chain.is_empty() {
            let undone = journal.settle(sql, self.catalog, &self.resolver.numbers);
            self.barred.item = journal.item;
            let undone = undone?;
            self.applied = self.applied.saturating_sub(undone.len() as u64);
            let refusal = |Undone { item, reason }| {
                ahead.undone(item);
                (item, Refusal::Waits(reason))
            };
            return Ok(undone.into_iter().map(refusal).collect());
        }
        let steps = journal.objectionable(sql, self.catalog)?;
        let steps = steps.into_iter().map(|step| (step.item, Done::Step(step)));
        let leaders = leaders.into_iter().map(|leader| (leader.item, Done::Leader(leader)));
        let carried =
            steps.chain(leaders).filter_map(|(item, what)| Some(Carried { row: ahead.copy(item)?, what }));
        self.retrial.carried.extend(carried);
        Ok(Vec::new())
    }

    /// Has quarantine know what has left it, and which rows are out of their tables until another turn.
    fn leave(&mut self, sql: &mut dyn Sql, ahead: &Ahead<'_>) -> Result<(), SqlError> {
        for (header, update, _) in ahead.settled() {
            quarantine::remove(sql, &header.name, update.id)?;
        }
        for ((header, update, acked), parked) in ahead.taken_out() {
            let Some(table) = self.catalog.table(&header.name) else { continue };
            parked.keep_number(sql, table, update.id)?;
            let reason = "others are to have its values before it gets its new ones";
            quarantine::set_aside(sql, (header, update, *acked), Some(parked), reason)?;
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
            refused = self.attempt(sql, ahead, again, Attempt::Again)?;
        }
        let (referenced, waiting): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|(_, refusal)| matches!(refusal, Refusal::Referenced(_)));
        let places = |refused: &[(usize, Refusal)]| refused.iter().map(|(at, _)| *at).collect::<Vec<_>>();
        let (referenced, taken) = self.without_takers(sql, ahead, referenced)?;
        let waiting: Vec<_> = waiting.into_iter().chain(taken).collect();
        let left = self.attempt(sql, ahead, places(&referenced), Attempt::LeavingChildren)?;
        if left.len() == referenced.len() {
            return Ok(left.into_iter().chain(waiting).collect());
        }
        // What references them may only have waited for their new keys.
        let waiting = self.attempt(sql, ahead, places(&waiting), Attempt::Again)?;
        Ok(left.into_iter().chain(waiting).collect())
    }

    /// Tries the rows at these places. Returns those that were refused, which stay ahead.
    fn attempt(
        &mut self,
        sql: &mut dyn Sql,
        ahead: &mut Ahead<'_>,
        order: Vec<usize>,
        attempt: Attempt,
    ) -> Result<Vec<(usize, Refusal)>, SqlError> {
        let mut refused = Vec::new();
        if !self.is_final {
            self.retrial.unblock();
        }
        for at in order {
            let Some(row) = ahead.get(at) else { continue };
            if !self.retrial.chain.is_empty() || attempt == Attempt::First && !self.retrial.spend() {
                refused.push((at, Refusal::NotTried));
                continue;
            }
            if let Some(why) = self.barred.why(&row.0, row.1.id) {
                refused.push((at, Refusal::Held(why.to_owned())));
                continue;
            }
            match self.apply_ahead(sql, at, ahead, attempt == Attempt::LeavingChildren)? {
                Outcome::Applied => {
                    self.applied += 1;
                    ahead.done(at);
                }
                Outcome::Unchanged => ahead.done(at),
                Outcome::Referenced(reason) => refused.push((at, Refusal::Referenced(reason))),
                Outcome::Refused(reason) => refused.push((at, Refusal::Waits(reason))),
                Outcome::Constraint(reason) => {
                    self.make_way(sql, at, ahead)?;
                    let is_waiting = !self.retrial.chain.is_empty();
                    refused.push((at, if is_waiting { Refusal::NotTried } else { Refusal::Held(reason) }));
                }
            }
        }
        refused.retain(|(at, _)| ahead.get(*at).is_some());
        Ok(refused)
    }
}

/// How rows are tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// For the first time.
    First,
    /// Because others have been applied since.
    Again,
    /// As a last resort: what others reference is changed all the same.
    LeavingChildren,
}

/// Why a row was not applied.
pub enum Refusal {
    /// A constraint refuses it.
    Held(String),
    /// It waits for a row that it references, or for something else that is missing.
    Waits(String),
    /// Others reference it.
    Referenced(String),
    /// The turn had no time for it.
    NotTried,
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
