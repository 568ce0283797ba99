//! What a turn did to rows that foreign keys bind, so that what turns out to break one is undone.
//!
//! A turn applies its rows in the order in which they come, and then looks whether each of them has its
//! parents, and whether nobody was left behind. So circles go in as a whole, and a child may come before its
//! parent. What does not fit is taken out again, row by row: a ROLLBACK would end the application's iterators.

use std::collections::HashSet;

use super::catalog::{Catalog, Table};
use super::driver::{Sql, SqlError};
use super::foreign_keys::{deserted_child, missing_parent};
use super::local_key::LocalKey;
use super::numbers::Numbers;
use super::quarantine::ask_again;
use super::row_io::{delete, insert, whole_row};
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending};
use crate::model::{RowId, Value};

/// A row as it was: its bookkeeping, and if it was in its table its hidden rowid and its cells.
pub type Before = (Entry, Option<(Option<i64>, Vec<Value>)>);

/// One change of a row.
#[derive(Clone)]
pub struct Step {
    /// Which item of the turn made it.
    pub item: usize,
    table: i64,
    /// The row.
    id: RowId,
    before: Option<Before>,
    /// Where the row's bookkeeping lies now.
    after: LocalKey,
    /// Steps that were taken together can only be undone together.
    together: usize,
}

/// The changes of one turn that foreign keys may object to.
#[derive(Default)]
pub struct Journal {
    steps: Vec<Step>,
    /// How many steps were ever taken.
    taken: usize,
    /// Which item of the turn is being looked at.
    pub item: Option<usize>,
}

/// A row that was undone, and why.
pub struct Undone {
    /// Which item of the turn had changed it.
    pub item: usize,
    /// The reason.
    pub reason: String,
}

impl Journal {
    /// Looks at a row before it is changed.
    pub fn before(
        sql: &mut dyn Sql,
        table: &Table,
        entry: Option<&Entry>,
    ) -> Result<Option<Before>, SqlError> {
        let Some(entry) = entry else { return Ok(None) };
        let row = if entry.is_present() { Some(whole_row(sql, table, entry)?) } else { None };
        Ok(Some((entry.clone(), row)))
    }

    /// Notes a change, if foreign keys may object to it.
    pub fn note(
        &mut self,
        item: usize,
        (table, id): (&Table, RowId),
        before: Option<Before>,
        after: LocalKey,
    ) {
        if !table.parents.is_empty() || !table.children.is_empty() {
            let together = self.taken;
            self.taken += 1;
            self.steps.push(Step { item, table: table.number, id, before, after, together });
        }
    }

    /// How many changes are noted.
    pub fn count(&self) -> usize {
        self.steps.len()
    }

    /// Forgets changes that have been taken back.
    pub fn truncate(&mut self, count: usize) {
        self.steps.truncate(count);
    }

    /// Notes that the changes after the first `count` stand in each other's way: none of them can be undone
    /// alone.
    pub fn bind(&mut self, count: usize) {
        let Some(together) = self.steps.get(count).map(|step| step.together) else { return };
        self.steps[count..].iter_mut().for_each(|step| step.together = together);
    }

    /// Which steps can only be undone with this one: those that were taken together with it, later ones that changed
    /// the same rows, and so on.
    fn bound_with(&self, at: usize) -> Vec<bool> {
        let mut is_bound = vec![false; self.steps.len()];
        let mut together = HashSet::from([self.steps[at].together]);
        let mut count = 0;
        loop {
            let mut changed = HashSet::new();
            for (step, is_bound) in self.steps.iter().zip(&mut is_bound) {
                let row = (step.table, step.id);
                if *is_bound || together.contains(&step.together) || changed.contains(&row) {
                    *is_bound = true;
                    changed.insert(row);
                    together.insert(step.together);
                }
            }
            let before = std::mem::replace(&mut count, is_bound.iter().filter(|is_bound| **is_bound).count());
            if count == before {
                return is_bound;
            }
        }
    }

    /// Adds a change that an earlier turn has made, as one that this item has.
    pub fn carry_on(&mut self, item: usize, step: Step) {
        let together = self.taken;
        self.taken += 1;
        self.steps.push(Step { item, together, ..step });
    }

    /// The changes that break a foreign key as it is now.
    pub fn objectionable(self, sql: &mut dyn Sql, catalog: &Catalog) -> Result<Vec<Step>, SqlError> {
        let mut found = Vec::new();
        for step in self.steps {
            if step.objection(sql, catalog)?.is_some() {
                found.push(step);
            }
        }
        Ok(found)
    }

    /// Undoes what breaks a foreign key, and what that undoing breaks, until nothing does.
    pub fn settle(
        &mut self,
        sql: &mut dyn Sql,
        catalog: &Catalog,
        numbers: &Numbers<'_>,
    ) -> Result<Vec<Undone>, SqlError> {
        let mut undone: Vec<Undone> = Vec::new();
        loop {
            let before = undone.len();
            let mut at = 0;
            while let Some(step) = self.steps.get(at) {
                self.item = Some(step.item);
                let Some(reason) = step.objection(sql, catalog)? else {
                    at += 1;
                    continue;
                };
                let is_bound = self.bound_with(at);
                at -= is_bound[..at].iter().filter(|is_bound| **is_bound).count();
                let mut marks = is_bound.into_iter();
                let steps = std::mem::take(&mut self.steps).into_iter();
                let (bound, rest) = steps.partition(|_| marks.next().is_some_and(|is_bound| is_bound));
                self.steps = rest;
                undo(sql, catalog, numbers, &bound)?;
                for Step { item, .. } in bound {
                    if undone.iter().all(|known| known.item != item) {
                        undone.push(Undone { item, reason: reason.clone() });
                    }
                }
            }
            if undone.len() == before {
                return Ok(undone);
            }
        }
    }
}

/// Undoes steps: what they have made goes before anything comes back, and each row comes back as it was before
/// the first of them.
fn undo(sql: &mut dyn Sql, catalog: &Catalog, numbers: &Numbers<'_>, steps: &[Step]) -> Result<(), SqlError> {
    let mut rows = HashSet::new();
    let first: Vec<&Step> = steps.iter().filter(|step| rows.insert((step.table, step.id))).collect();
    for step in &first {
        let Some(table) = catalog.numbered(step.table) else { continue };
        let known = Entry::by_id(sql, table, step.id)?.filter(|known| known.meta.united.is_none());
        let now = match known {
            Some(known) => Some(known),
            None => Entry::by_key(sql, table, &step.after)?,
        };
        if let Some(now) = now {
            delete(sql, table, &now.key)?;
            now.forget(sql, table)?;
        }
    }
    for step in first {
        let Some(table) = catalog.numbered(step.table) else { continue };
        step.restore(sql, table)?;
        numbers.put_back(sql, table)?;
    }
    Ok(())
}

impl Step {
    /// Why the row cannot be as it is now.
    fn objection(&self, sql: &mut dyn Sql, catalog: &Catalog) -> Result<Option<String>, SqlError> {
        let Some(table) = catalog.numbered(self.table) else { return Ok(None) };
        if let Some(key) = self.after.values()?
            && let Some(link) = missing_parent(sql, table, &key)?
        {
            return Ok(Some(format!("it waits for the row of {} that it references", link.parent)));
        }
        if let Some((entry, Some((_, row)))) = &self.before
            && let Some(key) = entry.key.values()?
            && let Some(link) = deserted_child(sql, table, &key, row)?
        {
            return Ok(Some(format!("rows of {} here still reference it", link.child)));
        }
        Ok(None)
    }

    fn restore(&self, sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
        if let Some((entry, row)) = &self.before {
            if let Some((rowid, cells)) = row
                && !insert(sql, table, &entry.key, *rowid, cells)?
            {
                // Another row of this turn has taken a value of it. What the row was cannot be had here, and
                // is asked for again.
                ask_again(sql, table)?;
                let is_taken = Entry::by_key(sql, table, &entry.key)?.is_some();
                let key = if is_taken { LocalKey::dead(entry.id) } else { entry.key.clone() };
                let reserved = Entry { key, id: entry.id, sending: Sending::Clean, meta: RowMeta::default() };
                return reserved.insert(sql, table);
            }
            entry.insert(sql, table)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::choice::{Choice, SyncOptions};
    use crate::storage::sqlite_driver::RusqliteSql;

    #[test]
    fn steps_that_stand_in_each_others_way_are_undone_with_whatever_touched_one_of_their_rows() {
        let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
        sql.run("CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE c(id TEXT PRIMARY KEY, p INTEGER REFERENCES p)")
            .unwrap();
        let options = SyncOptions::default();
        let choice = Choice::new(&options, std::collections::HashMap::new());
        let catalog = Catalog::read(&mut sql, &choice).unwrap();
        let table = catalog.table("c").unwrap();
        let mut journal = Journal::default();
        let note = |journal: &mut Journal, row: u8| {
            let id = RowId([row; 16]);
            journal.note(usize::from(row), (table, id), None, LocalKey::dead(id));
        };
        note(&mut journal, 1);
        note(&mut journal, 7);
        let before = journal.count();
        // A swap that failed leaves nothing; one that did not is one step.
        note(&mut journal, 8);
        journal.truncate(before);
        note(&mut journal, 2);
        note(&mut journal, 1);
        journal.bind(before);
        // To take the first row back as it was, the swap has to go, and with it the other row of it.
        assert_eq!(journal.bound_with(0), [true, false, true, true]);
        assert_eq!(journal.bound_with(1), [false, true, false, false]);
    }
}
