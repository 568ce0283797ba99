//! References that are to mean another row than they did.

use super::apply_row::set_cells;
use super::catalog::{Key, Table};
use super::driver::{Sql, SqlError};
use super::identity::fingerprint;
use super::local_key::LocalKey;
use super::quarantine::ask_again;
use super::referrers::Referrers;
use super::row_io::cannot_be_put_back;
use super::row_meta::CellMeta;
use super::rows::Entry;
use crate::model::Value;

/// A change of a reference: rows that hold one get another.
pub struct Repoint<'a> {
    pub referrers: Referrers<'a>,
    /// What they get, by the positions of columns.
    pub new: Vec<(usize, Value)>,
    /// Whether they hold a number, which means something here only.
    pub by_number: bool,
}

/// A row that holds another reference now.
struct Moved<'a> {
    table: &'a Table,
    /// The values of its key's columns, as they are now.
    key: Vec<Value>,
    /// What is remembered of it, as it was.
    before: Option<Entry>,
    /// What it held, by the positions of columns.
    held: Vec<(usize, Value)>,
}

/// Changes references. Returns why a constraint does not let them change, if so, and has changed none then: the
/// referencing rows are one as well, or one of them gives way, and the hub says which.
///
/// # Errors
/// SQLite's.
pub fn run_all(sql: &mut dyn Sql, changes: &[Repoint<'_>]) -> Result<Option<String>, SqlError> {
    let mut moved = Vec::new();
    for change in changes {
        let before = moved.len();
        if let Some(reason) = change.run(sql, &mut moved)? {
            while let Some(row) = moved.pop() {
                row.take_back(sql)?;
            }
            return Ok(Some(reason));
        }
        // What they show holds until the row that they reference is told. Another row may have its present key by
        // then, so that only the hub knows what they mean.
        if moved.len() > before && !change.by_number {
            ask_again(sql, change.referrers.table)?;
        }
    }
    Ok(None)
}

impl<'a> Repoint<'a> {
    /// Changes the rows, and what is remembered of them: it is no write.
    fn run(&self, sql: &mut dyn Sql, moved: &mut Vec<Moved<'a>>) -> Result<Option<String>, SqlError> {
        let table = self.referrers.table;
        for key in self.referrers.keys(sql)? {
            if let Some(reason) = set(sql, table, &key, &self.new)? {
                return Ok(Some(reason));
            }
            let before = if key.contains(&Value::Null) {
                None
            } else {
                Entry::by_key(sql, table, &LocalKey::of(table, &key)?)?
            };
            let key = self.new_key(&key);
            if let Some(before) = &before {
                self.remember(sql, before, &key)?;
            }
            moved.push(Moved { table, key, before, held: self.referrers.held() });
        }
        Ok(None)
    }

    /// The key that a row has with its new reference.
    fn new_key(&self, key: &[Value]) -> Vec<Value> {
        let mut new_key = key.to_vec();
        if let Key::Natural(positions) = &self.referrers.table.key {
            for (at, value) in &self.new {
                if let Some(part) = positions.iter().position(|position| position == at) {
                    new_key[part] = value.clone();
                }
            }
        }
        new_key
    }

    fn remember(&self, sql: &mut dyn Sql, before: &Entry, key: &[Value]) -> Result<(), SqlError> {
        let table = self.referrers.table;
        let mut entry = Entry { key: LocalKey::of(table, key)?, ..before.clone() };
        for (at, value) in &self.new {
            if let Some(cell) = entry.meta.cell(table.columns[*at].number).copied() {
                entry.meta.put(CellMeta { fingerprint: fingerprint(value), ..cell });
            }
        }
        entry.update(sql, table, &before.key)
    }
}

impl Moved<'_> {
    fn take_back(self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        if set(sql, self.table, &self.key, &self.held)?.is_some() {
            return Err(cannot_be_put_back());
        }
        match self.before {
            Some(before) => before.update(sql, self.table, &LocalKey::of(self.table, &self.key)?),
            None => Ok(()),
        }
    }
}

/// Writes cells of a row, by the positions of their columns.
fn set(
    sql: &mut dyn Sql,
    table: &Table,
    key: &[Value],
    cells: &[(usize, Value)],
) -> Result<Option<String>, SqlError> {
    set_cells(sql, table, key, cells.iter().map(|(at, value)| (table.columns[*at].name.as_str(), value)))
}
