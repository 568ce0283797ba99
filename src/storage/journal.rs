//! What a turn did to rows that foreign keys bind, so that what turns out to break one is undone.
//!
//! A turn applies its rows in the order in which they come, and then looks whether each of them has its
//! parents, and whether nobody was left behind. So circles go in as a whole, and a child may come before its
//! parent. What does not fit is taken out again, row by row: a ROLLBACK would end the application's iterators.

use super::catalog::{Catalog, Table};
use super::driver::{Sql, SqlError};
use super::foreign_keys::{deserted_child, missing_parent};
use super::numbers::Numbers;
use super::quarantine::ask_again;
use super::row_meta::RowMeta;
use super::rows::{Entry, LocalKey, Sending};
use super::swaps::{delete, insert, whole_row};
use crate::model::Value;

/// A row as it was: its bookkeeping, and if it was in its table its hidden rowid and its cells.
pub type Before = (Entry, Option<(Option<i64>, Vec<Value>)>);

/// One change of a row.
struct Step {
    /// Which item of the turn made it.
    item: usize,
    table: i64,
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
    pub fn note(&mut self, item: usize, table: &Table, before: Option<Before>, after: LocalKey) {
        if !table.parents.is_empty() || !table.children.is_empty() {
            let together = self.taken;
            self.taken += 1;
            self.steps.push(Step { item, table: table.number, before, after, together });
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

    /// Undoes what breaks a foreign key, and what that undoing breaks, until nothing does.
    pub fn settle(
        mut self,
        sql: &mut dyn Sql,
        catalog: &Catalog,
        numbers: &Numbers,
    ) -> Result<Vec<Undone>, SqlError> {
        let mut undone: Vec<Undone> = Vec::new();
        loop {
            let before = undone.len();
            let mut at = 0;
            while let Some(step) = self.steps.get(at) {
                let Some(reason) = step.objection(sql, catalog)? else {
                    at += 1;
                    continue;
                };
                let together = step.together;
                at -= self.steps[..at].iter().filter(|step| step.together == together).count();
                let (bound, rest) = self.steps.into_iter().partition(|step| step.together == together);
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

/// Undoes steps that were taken together: what they have made goes before anything comes back.
fn undo(sql: &mut dyn Sql, catalog: &Catalog, numbers: &Numbers, steps: &[Step]) -> Result<(), SqlError> {
    for step in steps {
        let Some(table) = catalog.numbered(step.table) else { continue };
        delete(sql, table, &step.after)?;
        if let Some(now) = Entry::by_key(sql, table, &step.after)? {
            now.forget(sql, table)?;
        }
    }
    for step in steps {
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
