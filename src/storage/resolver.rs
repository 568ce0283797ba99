//! From identities that come from elsewhere to numbers here.

use std::collections::HashMap;

use super::catalog::{Catalog, Column, Table};
use super::driver::{Sql, SqlError};
use super::local_key::LocalKey;
use super::numbers::Numbers;
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending};
use crate::model::{RowId, Value};

/// How many unions one identity is followed through.
const MAX_UNIONS: usize = 16;

/// What one turn knows of numbers.
pub struct Resolver<'a> {
    catalog: &'a Catalog,
    /// Gives out numbers.
    pub numbers: Numbers<'a>,
    /// The rows that this turn brings, with the numbers that they were born with.
    coming: HashMap<RowId, Option<i64>>,
    /// Numbers of rows that this turn has yet to make.
    promised: HashMap<(i64, RowId), i64>,
    /// Whether the pull is at its end: a row that is known as one with another is that.
    pub is_final: bool,
}

impl<'a> Resolver<'a> {
    /// One that knows of nothing yet.
    pub fn new(catalog: &'a Catalog) -> Self {
        let (coming, promised) = (HashMap::new(), HashMap::new());
        Self { catalog, numbers: Numbers::new(catalog), coming, promised, is_final: false }
    }

    /// Takes note of the rows that are coming.
    pub fn expect(&mut self, rows: impl IntoIterator<Item = (RowId, Option<i64>)>) {
        self.coming.extend(rows);
    }

    /// The number for a row that is made now.
    pub fn assign(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        id: RowId,
        own: Option<i64>,
        wish: Option<i64>,
    ) -> Result<i64, SqlError> {
        match self.promised.get(&(table.number, id)) {
            Some(number) => Ok(*number),
            None => self.numbers.assign(sql, table, own, wish),
        }
    }

    /// The value that a column stores for the row that it references; `named` is the table that the row names,
    /// if that is for another column of it to say. Or why there is none yet.
    pub fn stored(
        &mut self,
        sql: &mut dyn Sql,
        column: &Column,
        named: impl FnOnce(&mut dyn Sql) -> Result<Option<String>, SqlError>,
        id: RowId,
    ) -> Result<Result<Value, String>, SqlError> {
        let Some(reference) = &column.references else {
            return Ok(Err("it references a row, through a column that is no foreign key here".into()));
        };
        let parents = reference.parents();
        for parent in parents.iter().filter_map(|name| self.catalog.table(name)) {
            let itself = if self.coming.contains_key(&id) { Entry::by_id(sql, parent, id)? } else { None };
            if let Some(entry) = itself.map_or_else(|| known(sql, parent, id), |it| Ok(Some(it)))? {
                if entry.id != id && !self.is_final {
                    // The hub names rows by what they are now: this one may be about to be parted.
                    return Ok(Err(waits(&parents)));
                }
                let number = self.number(sql, parent, id, Some(entry), column.is_foreign_key)?;
                return Ok(number
                    .map(|number| column.affinity.stored(number))
                    .ok_or_else(|| waits(&parents)));
            }
        }
        let parent = match &parents[..] {
            [only] => self.catalog.table(only),
            _ => named(sql)?.and_then(|name| self.catalog.table(&name)),
        };
        let number = match parent {
            Some(parent) => self.number(sql, parent, id, None, column.is_foreign_key)?,
            None => None,
        };
        Ok(number.map(|number| column.affinity.stored(number)).ok_or_else(|| waits(&parents)))
    }

    /// A row's number: the one that it has, or the one that it is to have. A foreign key gets none for a row
    /// that is neither here nor coming in this turn.
    fn number(
        &mut self,
        sql: &mut dyn Sql,
        parent: &Table,
        id: RowId,
        entry: Option<Entry>,
        is_foreign_key: bool,
    ) -> Result<Option<i64>, SqlError> {
        let place = (parent.number, entry.as_ref().map_or(id, |entry| entry.id));
        if let Some(number) = self.promised.get(&place) {
            return Ok(Some(*number));
        }
        let coming = self.coming.get(&place.1).copied();
        if let Some(Entry { key: LocalKey::Number(number), .. }) = &entry {
            let usable = !is_foreign_key || coming.is_some() || entry.as_ref().is_some_and(Entry::is_present);
            return Ok(usable.then_some(*number));
        }
        let own = entry.as_ref().and_then(|entry| entry.meta.number);
        if is_foreign_key {
            let Some(wish) = coming else { return Ok(None) };
            let number = self.numbers.promise(sql, parent, own, wish)?;
            self.promised.insert(place, number);
            return Ok(Some(number));
        }
        if let Some(own) = own
            && self.numbers.is_unused(sql, parent, own)?
        {
            return Ok(Some(own));
        }
        // Nothing promises that the row exists: its number is fixed now, whatever becomes of it.
        let number = match coming {
            Some(wish) => self.numbers.assign(sql, parent, None, wish)?,
            None => self.numbers.reserve(sql, parent)?,
        };
        if let Some(mut dead) = entry {
            dead.meta.number = Some(number);
            let was = dead.key.clone();
            dead.update(sql, parent, &was)?;
        } else {
            let (key, meta) = (LocalKey::Number(number), RowMeta::default());
            Entry { key, id, sending: Sending::Clean, meta }.insert(sql, parent)?;
        }
        Ok(Some(number))
    }
}

fn waits(parents: &[&str]) -> String {
    format!("it waits for the row of {} that it references", parents.join(" or "))
}

/// The bookkeeping of a row, or of the one that it was united with.
fn known(sql: &mut dyn Sql, table: &Table, id: RowId) -> Result<Option<Entry>, SqlError> {
    let mut entry = Entry::by_id(sql, table, id)?;
    for _ in 0..MAX_UNIONS {
        let Some(survivor) = entry.as_ref().and_then(|entry| entry.meta.united) else { break };
        match Entry::by_id(sql, table, survivor)? {
            Some(united) => entry = Some(united),
            None => break,
        }
    }
    Ok(entry)
}
