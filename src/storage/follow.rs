//! Rows that reference another by a key which means the same everywhere, and follow it to its new key.
//!
//! Somebody renames a row while somebody else, who does not know yet, makes a row that references it by its
//! old name. At the end of a pull, what here still references the old name gets the new one: a write of this
//! replica like any other, which the others receive.

use super::applier::Applier;
use super::apply_row::set_cells;
use super::catalog::{Key, Table};
use super::context::Context;
use super::driver::{Sql, SqlError, ValueRef};
use super::foreign_keys::{Link, cell, conditions, deserted_child, is_parent_here, read_with_shadows};
use super::journal::Journal;
use super::local_key::LocalKey;
use super::obstacles::obstacles;
use super::quarantine::ask_again;
use super::referrers::keys_where;
use super::row_io::delete;
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending, read_row};
use super::settle::{Origin, settle_row};
use crate::model::{RowId, Value};

/// How far a chain of keys that are foreign keys is followed.
const MAX_DEPTH: usize = 16;

/// A row by its key and its cells.
#[derive(Clone, Copy)]
struct Row<'a> {
    /// The values of its key's columns.
    key: &'a [Value],
    /// Its travelling cells.
    cells: &'a [Value],
}

/// Rows that have followed: their tables' numbers, and their keys.
pub type Followed = Vec<(i64, Vec<Value>)>;

/// A row that has got another key, and what may have to follow it.
#[derive(Clone)]
pub struct Leader {
    /// Which item of the turn has changed it.
    pub item: usize,
    /// Its table's number.
    pub table: i64,
    /// Its key and its cells, as they were.
    pub was: (Vec<Value>, Vec<Value>),
    /// As they are.
    pub is: (Vec<Value>, Vec<Value>),
}

impl Applier<'_> {
    /// Has what references rows that have other keys now follow them, once all are applied that may have taken those
    /// over. As long as rows wait in a chain, returns those leaders whose former keys one of them may take over.
    pub fn follow_leaders(&mut self, sql: &mut dyn Sql) -> Result<Vec<Leader>, SqlError> {
        let is_complete = self.retrial.chain.is_empty();
        let mut later = Vec::new();
        for leader in std::mem::take(&mut self.leaders) {
            let Leader { item, table, was, is } = &leader;
            let Some(table) = self.catalog.numbered(*table) else { continue };
            self.barred.item = Some(*item);
            if !is_complete && deserted_child(sql, table, &was.0, &was.1)?.is_some() {
                later.push(leader);
                continue;
            }
            let rows = (Row { key: &was.0, cells: &was.1 }, Row { key: &is.0, cells: &is.1 });
            self.follow(sql, *item, table, rows, 0)?;
        }
        Ok(later)
    }

    /// Has what references a row as it was reference it as it is. Where a constraint does not let it, the
    /// journal will object.
    fn follow(
        &mut self,
        sql: &mut dyn Sql,
        item: usize,
        table: &Table,
        (old, new): (Row<'_>, Row<'_>),
        depth: usize,
    ) -> Result<(), SqlError> {
        // What the row's generated columns are by now only SQLite knows.
        let present = if table.shadows.is_empty() { None } else { read_with_shadows(sql, table, new.key)? };
        let new = Row { cells: present.as_deref().unwrap_or(new.cells), ..new };
        for link in &table.children {
            let cells = |row: Row<'_>| -> Option<Vec<Value>> {
                let cells = link.columns.iter().map(|(_, to)| cell(table, row.key, row.cells, to).cloned());
                cells.collect::<Option<Vec<Value>>>().filter(|cells| !cells.contains(&Value::Null))
            };
            let (Some(was), Some(now)) = (cells(old), cells(new)) else { continue };
            let Some(child) = self.catalog.table(&link.child).filter(|_| was != now) else { continue };
            // Where another row has taken over what it was, that one is meant.
            if is_parent_here(sql, link, &was.iter().map(ValueRef::from).collect::<Vec<_>>())? {
                continue;
            }
            for key in referencing(sql, child, link, &was)? {
                self.lead(sql, item, child, link, &key, &now, depth)?;
            }
        }
        Ok(())
    }

    /// Has one row follow.
    #[expect(clippy::too_many_arguments, reason = "the row, and where it is led to")]
    fn lead(
        &mut self,
        sql: &mut dyn Sql,
        item: usize,
        table: &Table,
        link: &Link,
        key: &[Value],
        now: &[Value],
        depth: usize,
    ) -> Result<(), SqlError> {
        if key.contains(&Value::Null) || depth >= MAX_DEPTH {
            return Ok(());
        }
        let Some(mut entry) = Entry::by_key(sql, table, &LocalKey::of(table, key)?)? else { return Ok(()) };
        let before = Journal::before(sql, table, Some(&entry))?;
        let Some(old) = read_with_shadows(sql, table, key)? else { return Ok(()) };
        let mut new = old.clone();
        for ((from, _), value) in link.columns.iter().zip(now) {
            if let Some(at) = table.position(from) {
                new[at] = value.clone();
            }
        }
        let cells = || link.columns.iter().map(|(from, _)| from.as_str()).zip(now);
        let is_refused = set_cells(sql, table, key, cells())?.is_some();
        if is_refused
            && !(self.displace(sql, item, table, (entry.id, &new))?
                && set_cells(sql, table, key, cells())?.is_none())
        {
            return Ok(());
        }
        let new_key = match &table.key {
            Key::Number(_) => key.to_vec(),
            Key::Natural(positions) => positions.iter().map(|&at| new[at].clone()).collect(),
        };
        let was = std::mem::replace(&mut entry.key, LocalKey::of(table, &new_key)?);
        entry.update(sql, table, &was)?;
        self.journal.note(item, (table, entry.id), before, entry.key);
        let rows = (Row { key, cells: &old }, Row { key: &new_key, cells: &new });
        self.follow(sql, item, table, rows, depth + 1)?;
        self.followed.push((table.number, new_key));
        Ok(())
    }

    /// Takes rows out of their table that hold a unique key which a row gets as it follows. The hub has told of them, and
    /// nothing here has changed them since; once it has heard what followed, it rules on both, and is asked for them again.
    /// Returns whether no row is in the way any more.
    fn displace(
        &mut self,
        sql: &mut dyn Sql,
        item: usize,
        table: &Table,
        (id, row): (RowId, &[Value]),
    ) -> Result<bool, SqlError> {
        let mut in_the_way = Vec::new();
        for (_, key) in obstacles(sql, table, row, |_| true)? {
            match Entry::by_key(sql, table, &LocalKey::of(table, &key)?)? {
                Some(entry) if entry.id == id => {}
                Some(entry) if entry.sending == Sending::Clean => in_the_way.push(entry),
                _ => return Ok(false),
            }
        }
        for entry in &in_the_way {
            let before = Journal::before(sql, table, Some(entry))?;
            delete(sql, table, &entry.key)?;
            let key = LocalKey::dead(entry.id);
            let reserved = Entry { key, id: entry.id, sending: Sending::Clean, meta: RowMeta::default() };
            reserved.update(sql, table, &entry.key)?;
            self.journal.note(item, (table, entry.id), before, reserved.key);
            ask_again(sql, table)?;
        }
        Ok(!in_the_way.is_empty())
    }
}

/// Makes writes of what followed.
pub fn settle_followed(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    followed: &Followed,
) -> Result<(), SqlError> {
    let now = Origin::Written(context.stamps.hub_now_ms.saturating_sub(context.stamps.offset_ms)).into();
    for (table, key) in followed {
        let Some(table) = context.catalog.numbered(*table) else { continue };
        if let Some(row) = read_row(sql, table, key)? {
            settle_row(sql, context, table, LocalKey::of(table, key)?, Some(row), &now, 0)?;
        }
    }
    Ok(())
}

fn referencing(
    sql: &mut dyn Sql,
    child: &Table,
    link: &Link,
    values: &[Value],
) -> Result<Vec<Vec<Value>>, SqlError> {
    let condition = conditions(link.columns.iter().map(|(from, _)| from));
    keys_where(sql, child, &condition, &values.iter().map(ValueRef::from).collect::<Vec<_>>())
}
