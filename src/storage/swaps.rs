//! Making way: rows that each take a unique value which another of them still holds.
//!
//! SQLite checks each statement by itself, so no order of single writes gets two rows to swap their names, and only one
//! order a chain of renames. When a row is refused, the one in its way is looked up, and what is in that one's way, and so
//! on, to a row that SQLite takes as it is to be; the others follow, from the end of the chain to its beginning. Where the
//! chain comes round to one of its own rows, that row leaves its table until those are written which waited for its
//! values.
//!
//! Rows of one turn make way for each other within it, or stay as they were. Of what is set aside, a chain may be longer
//! than a turn has time for: the next one goes on with it ([`super::retrial`]), and a row that is out of its table is
//! remembered with its update ([`super::parked`]).

use std::rc::Rc;

use super::ahead::{Ahead, Update};
use super::applier::Applier;
use super::apply_row::Outcome;
use super::barred::refusing_first_failure;
use super::catalog::{Key, Table, as_number, quote};
use super::driver::{Sql, SqlError};
use super::follow::Leader;
use super::incoming::Arrival;
use super::journal::{Before, Journal};
use super::local_key::LocalKey;
use super::numbers::{exhausts, is_autoincrement};
use super::obstacles::obstacles;
use super::parked::Parked;
use super::quarantine::{ask_again, find_kept};
use super::row_io::{cannot_be_put_back, delete, insert, whole_row};
use super::row_meta::RowMeta;
use super::rows::Entry;
use crate::model::{RowId, Value};

/// What has been done since a row left its table, to be taken back if that one cannot come back.
#[derive(Default)]
struct Run {
    /// Rows that were applied, each with what it was and whether it counts as one.
    done: Vec<(usize, Option<Before>, bool)>,
    /// Rows that left their table.
    taken_out: Vec<usize>,
    /// How many changes, and how many rows to follow, were noted when the first of them did.
    noted: (usize, usize),
}

/// What is in the way of a row.
enum InWay {
    /// A row that is to be written as well.
    Row(RowId),
    /// One that waits, in the end, for this one.
    Circle(RowId),
    /// Something that stays where it is, or that nobody can tell.
    Blocked,
}

impl Applier<'_> {
    /// Applies a row that was refused, the one at the place `at`, after those that are in its way. Where that does not
    /// go, it is still ahead.
    pub fn make_way(&mut self, sql: &mut dyn Sql, at: usize, ahead: &mut Ahead<'_>) -> Result<(), SqlError> {
        let Some(refused) = ahead.get(at) else { return Ok(()) };
        let Some(table) = self.catalog.table(&refused.0.name) else { return Ok(()) };
        if self.retrial.is_blocked(table.number, refused.1.id) {
            return Ok(());
        }
        self.retrial.chain.begin(&refused.0.name, refused.1.id);
        self.follow_chain(sql, ahead, true)
    }

    /// Goes on with the chain, whose last row `is_refused` or not tried yet, as long as the turn has time.
    pub fn follow_chain(
        &mut self,
        sql: &mut dyn Sql,
        ahead: &mut Ahead<'_>,
        mut is_refused: bool,
    ) -> Result<(), SqlError> {
        let (name, catalog) = (self.retrial.chain.table().to_owned(), self.catalog);
        let Some(table) = catalog.table(&name) else {
            self.retrial.block_chain(0);
            return Ok(());
        };
        let (mut run, noted) = (Run::default(), self.journal.count());
        while let Some(id) = self.retrial.chain.last() {
            if !self.retrial.spend() {
                break;
            }
            let Some(at) = self.pending(sql, &name, id, ahead)? else {
                self.retrial.chain.pop();
                continue;
            };
            self.barred.item = Some(at);
            if !std::mem::take(&mut is_refused) {
                match self.try_member(sql, table, at, ahead, &mut run)? {
                    Outcome::Applied | Outcome::Unchanged => {
                        self.retrial.chain.pop();
                        continue;
                    }
                    Outcome::Constraint(_) => {}
                    Outcome::Refused(_) | Outcome::Referenced(_) => {
                        self.give_up(sql, table, ahead, &run)?;
                        break;
                    }
                }
            }
            match self.in_way(sql, table, at, ahead)? {
                InWay::Row(next) => self.retrial.chain.push(next),
                InWay::Circle(first) => self.open_circle(sql, table, (first, id), ahead, &mut run)?,
                InWay::Blocked => {
                    self.give_up(sql, table, ahead, &run)?;
                    break;
                }
            }
        }
        self.journal.bind(noted);
        Ok(())
    }

    /// Where a row is that is still to be applied: among those of this turn, or else, once nothing else is coming, among
    /// those that are set aside.
    fn pending(
        &mut self,
        sql: &mut dyn Sql,
        table: &str,
        id: RowId,
        ahead: &mut Ahead<'_>,
    ) -> Result<Option<usize>, SqlError> {
        match ahead.look_up(table, id) {
            Some((at, is_ahead)) => Ok(is_ahead.then_some(at)),
            None if self.is_final => Ok(find_kept(sql, table, id)?.map(|kept| ahead.add_kept(kept))),
            None => Ok(None),
        }
    }

    /// Tries a row of the chain.
    fn try_member(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        at: usize,
        ahead: &mut Ahead<'_>,
        run: &mut Run,
    ) -> Result<Outcome, SqlError> {
        let Some(row) = ahead.get(at) else { return Ok(Outcome::Unchanged) };
        if let Some(why) = self.barred.why(&row.0, row.1.id) {
            return Ok(Outcome::Refused(why.to_owned()));
        }
        let is_bound = !table.parents.is_empty() || !table.children.is_empty();
        let is_noted = row.1.united.is_none() && (is_bound || !run.taken_out.is_empty());
        let before = match (is_noted, ahead.parked(at)) {
            (false, _) => None,
            (true, Some(parked)) => parked_before(sql, table, row.1.id, parked)?,
            (true, None) => {
                let entry = Entry::by_id(sql, table, row.1.id)?;
                Journal::before(sql, table, entry.as_ref())?
            }
        };
        let noted = self.journal.count();
        let outcome = self.apply_ahead(sql, at, ahead, true)?;
        let is_applied = matches!(outcome, Outcome::Applied);
        if !is_applied && !matches!(outcome, Outcome::Unchanged) {
            return Ok(outcome);
        }
        self.applied += u64::from(is_applied);
        ahead.done(at);
        if !is_noted {
            return Ok(outcome);
        }
        if !run.taken_out.is_empty() {
            run.done.push((at, before.clone(), is_applied));
        }
        // By itself it may need no note; what makes room for it may have to come back.
        if is_applied
            && is_bound
            && self.journal.count() == noted
            && let Some(now) = Entry::by_id(sql, table, row.1.id)?
        {
            self.journal.note(at, (table, now.id), before, now.key);
        }
        Ok(outcome)
    }

    /// What is in the way of a row: of several, one that does not wait for it comes first.
    fn in_way(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        at: usize,
        ahead: &mut Ahead<'_>,
    ) -> Result<InWay, SqlError> {
        let Some(row) = ahead.get(at) else { return Ok(InWay::Blocked) };
        let member = Member::of(self, sql, table, &row, ahead.parked(at))?;
        let Some(target) = member.and_then(|member| member.target) else { return Ok(InWay::Blocked) };
        let (mut next, mut circle) = (None, None);
        for (_, key) in obstacles(sql, table, &target, |_| true)? {
            let Some(other) = Entry::by_key(sql, table, &LocalKey::of(table, &key)?)? else {
                return Ok(InWay::Blocked);
            };
            if other.id == row.1.id {
                continue;
            }
            if self.retrial.is_blocked(table.number, other.id)
                || self.barred.why(&row.0, other.id).is_some()
                || self.pending(sql, &row.0.name, other.id, ahead)?.is_none()
            {
                return Ok(InWay::Blocked);
            }
            let found = if self.retrial.chain.contains(other.id) { &mut circle } else { &mut next };
            found.get_or_insert(other.id);
        }
        Ok(next.map(InWay::Row).or(circle.map(InWay::Circle)).unwrap_or(InWay::Blocked))
    }

    /// Takes one row of a circle out of its table: the first, which holds what the last of the chain is to get; or that
    /// one, if the application could give the first one's number to a row of its own meanwhile.
    fn open_circle(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        (first, last): (RowId, RowId),
        ahead: &mut Ahead<'_>,
        run: &mut Run,
    ) -> Result<(), SqlError> {
        let name = self.retrial.chain.table().to_owned();
        let mut goes = first;
        if let Some(entry) = Entry::by_id(sql, table, first)?
            && first != last
            && is_highest(sql, table, &entry.key)?
            && Entry::by_id(sql, table, last)?.is_some_and(|entry| entry.is_present())
        {
            self.retrial.chain.move_last_before(first);
            goes = last;
        }
        let (at, entry) = (self.pending(sql, &name, goes, ahead)?, Entry::by_id(sql, table, goes)?);
        let (Some(at), Some(entry)) = (at, entry.filter(Entry::is_present)) else {
            return Err(SqlError::corrupt("a row that is in the way of another is not there"));
        };
        if run.taken_out.is_empty() {
            run.noted = (self.journal.count(), self.leaders.len());
        }
        self.barred.item = Some(at);
        ahead.park(at, Some(Parked::take_out(sql, table, &entry)?));
        run.taken_out.push(at);
        Ok(())
    }

    /// Something stays in the way of the chain. What this turn has taken out of the table goes back as it was, with all
    /// that was done since.
    fn give_up(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        ahead: &mut Ahead<'_>,
        run: &Run,
    ) -> Result<(), SqlError> {
        let is_out = |at: &usize| ahead.parked(*at).is_some() && ahead.get(*at).is_some();
        if run.taken_out.iter().any(is_out) {
            self.journal.truncate(run.noted.0);
            self.leaders.truncate(run.noted.1);
            self.take_back(sql, table, ahead, run)?;
        }
        self.retrial.block_chain(table.number);
        Ok(())
    }

    fn take_back(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        ahead: &mut Ahead<'_>,
        run: &Run,
    ) -> Result<(), SqlError> {
        for (at, before, is_applied) in &run.done {
            self.barred.item = Some(*at);
            ahead.undone(*at);
            self.applied = self.applied.saturating_sub(u64::from(*is_applied));
            let Some(row) = ahead.get(*at) else { continue };
            let Some(now) = Entry::by_id(sql, table, row.1.id)? else { continue };
            if now.is_present() {
                delete(sql, table, &now.key)?;
            }
            match before {
                Some((entry, _)) => {
                    let laid = Entry { key: LocalKey::dead(entry.id), ..entry.clone() };
                    laid.update(sql, table, &now.key)?;
                }
                None => now.forget(sql, table)?,
            }
        }
        for (at, before, _) in &run.done {
            self.barred.item = Some(*at);
            let Some((entry, row)) = before else { continue };
            let Some((rowid, cells)) = row else {
                entry.update(sql, table, &LocalKey::dead(entry.id))?;
                continue;
            };
            if !insert(sql, table, &entry.key, *rowid, cells)? {
                return Err(cannot_be_put_back());
            }
            entry.update(sql, table, &LocalKey::dead(entry.id))?;
        }
        for &at in &run.taken_out {
            self.barred.item = Some(at);
            let Some(row) = ahead.get(at) else { continue };
            if let Some(parked) = ahead.parked(at)
                && !parked.put_back(sql, table, row.1.id)?
            {
                return Err(cannot_be_put_back());
            }
            ahead.park(at, None);
        }
        Ok(())
    }

    /// Applies a row, which may be out of its table. What fails before anything was done for it refuses it.
    pub fn apply_ahead(
        &mut self,
        sql: &mut dyn Sql,
        at: usize,
        ahead: &mut Ahead<'_>,
        leave_children: bool,
    ) -> Result<Outcome, SqlError> {
        let Some(row) = ahead.get(at) else { return Ok(Outcome::Unchanged) };
        self.barred.item = Some(at);
        refusing_first_failure(sql, |sql| {
            if let Some(parked) = ahead.parked(at).cloned()
                && let Some(table) = self.catalog.table(&row.0.name)
            {
                if let Some(outcome) = self.come_back(sql, at, table, &row, &parked)? {
                    return Ok(outcome);
                }
                // The application has made a row in its place.
                ahead.park(at, None);
            }
            self.apply_row(sql, at, &row, leave_children)
        })
    }

    /// Puts a row that is out of its table back, as it is to be. None if that is another row now.
    fn come_back(
        &mut self,
        sql: &mut dyn Sql,
        at: usize,
        table: &Table,
        row: &Rc<Update<'_>>,
        parked: &Parked,
    ) -> Result<Option<Outcome>, SqlError> {
        let Some((before, Some((rowid, cells)))) = parked_before(sql, table, row.1.id, parked)? else {
            return Ok(None);
        };
        let laid = LocalKey::dead(before.id);
        let Some(member) = Member::of(self, sql, table, row, Some(parked))? else {
            return Ok(Some(Outcome::Refused("it waits for a row that it references".into())));
        };
        let mut entry = before.clone();
        entry.take_over(member.meta);
        let has_number = parked.let_number_go(sql, table, before.id)?;
        if let Some(target) = &member.target {
            match &table.key {
                Key::Number(_) if has_number => {}
                Key::Number(_) => {
                    // The application has given it to a row of its own.
                    entry.key = LocalKey::Number(self.resolver.assign(sql, table, before.id, None, None)?);
                }
                Key::Natural(positions) => {
                    let key: Vec<Value> = positions.iter().map(|&at| target[at].clone()).collect();
                    entry.key = LocalKey::of(table, &key)?;
                }
            }
            let free = free_rowid(sql, table, rowid)?;
            if !insert(sql, table, &entry.key, free, target)? {
                if has_number {
                    parked.keep_number(sql, table, before.id)?;
                }
                return Ok(Some(Outcome::Constraint("it waits for a unique value that others hold".into())));
            }
        } else {
            entry.bury();
        }
        entry.update(sql, table, &laid)?;
        if member.is_outdated {
            ask_again(sql, table)?;
        }
        if let (true, Some(target), Some(key)) = (self.is_final, member.target, before.key.values()?) {
            // What references it by a key that no row has any more is to follow it to its new one.
            let is = (entry.key.values()?.unwrap_or_default(), target);
            self.leaders.push(Leader { item: at, table: table.number, was: (key, cells.clone()), is });
        }
        self.journal.note(at, (table, entry.id), Some((before, Some((rowid, cells)))), entry.key);
        Ok(Some(Outcome::Applied))
    }
}

/// What a row is and is to be.
struct Member {
    /// The row as it is to be; none if it is to be gone.
    target: Option<Vec<Value>>,
    meta: RowMeta,
    /// Whether the hub is to be asked for the table again.
    is_outdated: bool,
}

impl Member {
    /// None if the update means nothing here as yet.
    fn of(
        applier: &mut Applier<'_>,
        sql: &mut dyn Sql,
        table: &Table,
        update: &Rc<Update<'_>>,
        parked: Option<&Parked>,
    ) -> Result<Option<Self>, SqlError> {
        let now = Entry::by_id(sql, table, update.1.id)?;
        let was = match parked {
            Some(parked) => parked_before(sql, table, update.1.id, parked)?,
            None => None,
        };
        let (before, row) = match (was, now) {
            (Some((before, row)), _) => (Some(before), row),
            (None, Some(entry)) if entry.is_present() => {
                let row = whole_row(sql, table, &entry)?;
                (Some(entry), Some(row))
            }
            (None, now) => (now, None),
        };
        let arrival =
            Arrival { table, header: &update.0, update: &update.1, entry: before.as_ref(), acked: update.2 };
        let Ok((mut meta, cells)) = arrival.merge(sql, &mut applier.resolver)? else { return Ok(None) };
        let is_outdated = meta.told(&update.1, update.2);
        let target = meta.is_alive().then(|| {
            let mut target = row.map_or_else(|| vec![Value::Null; table.columns.len()], |(_, cells)| cells);
            for cell in cells {
                target[cell.at] = cell.value;
            }
            target
        });
        if let (Key::Natural(positions), Some(target)) = (&table.key, &target) {
            let key: Vec<Value> = positions.iter().map(|&at| target[at].clone()).collect();
            if exhausts(sql, table, &key)?.is_some() {
                return Ok(None);
            }
        }
        Ok(Some(Self { target, meta, is_outdated }))
    }
}

/// What an update makes of its row here; none if the row is to be gone, or the update means nothing as yet.
pub fn target(
    applier: &mut Applier<'_>,
    sql: &mut dyn Sql,
    table: &Table,
    update: &Rc<Update<'_>>,
    parked: Option<&Parked>,
) -> Result<Option<Vec<Value>>, SqlError> {
    Ok(Member::of(applier, sql, table, update, parked)?.and_then(|member| member.target))
}

/// What a row that is out of its table was; none if it is not out of it any more.
fn parked_before(
    sql: &mut dyn Sql,
    table: &Table,
    id: RowId,
    parked: &Parked,
) -> Result<Option<Before>, SqlError> {
    let now = Entry::by_id(sql, table, id)?;
    let Some(entry) = now.and_then(|now| parked.entry(&now)) else { return Ok(None) };
    Ok(Some((entry, Some(parked.row(table)?))))
}

/// Whether SQLite would give a row's number to the next one that is made, were it not there.
fn is_highest(sql: &mut dyn Sql, table: &Table, key: &LocalKey) -> Result<bool, SqlError> {
    let (Key::Number(column), LocalKey::Number(number)) = (&table.key, key) else { return Ok(false) };
    if is_autoincrement(table) {
        return Ok(false);
    }
    let statement = format!("SELECT max({}) FROM main.{}", quote(column), quote(&table.name));
    let highest = sql.query_row(&statement, &[])?;
    Ok(highest.and_then(|row| as_number(&row[0])) == Some(*number))
}

/// The hidden rowid that a row had, unless another one has it by now.
fn free_rowid(sql: &mut dyn Sql, table: &Table, rowid: Option<i64>) -> Result<Option<i64>, SqlError> {
    let (Some(name), Some(number)) = (table.hidden_rowid, rowid) else { return Ok(rowid) };
    let statement = format!("SELECT 1 FROM main.{} WHERE {name} = ?", quote(&table.name));
    let is_taken = sql.query_row(&statement, &[number.into()])?.is_some();
    Ok(rowid.filter(|_| !is_taken))
}
