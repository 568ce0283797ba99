//! Two rows that turn out to be one, written twice: the hub says under which identity both go on.

use super::apply::Applier;
use super::apply_row::{Outcome, set_cells};
use super::catalog::{Key, Table};
use super::driver::{Sql, SqlError};
use super::foreign_keys::{cell, read_with_shadows};
use super::identity::fingerprint;
use super::quarantine::ask_again;
use super::referrers::Referrers;
use super::row_meta::{CellMeta, Pending, RowMeta};
use super::rows::{Entry, LocalKey, Sending, read_row};
use super::swaps::delete;
use crate::model::{RowId, Seq, Value};

/// A change of a reference: rows that hold one get another.
struct Repoint<'a> {
    referrers: Referrers<'a>,
    /// What they get, by the positions of columns.
    new: Vec<(usize, Value)>,
}

/// What became of it.
enum Repointed {
    /// So many rows hold another reference.
    Rows(usize),
    /// A constraint does not let it, for this reason.
    Refused(String),
}

impl Applier<'_> {
    /// Lets the row `loser` go on as `survivor`. What is here keeps its number; if both are here, the loser's
    /// goes, and what references it references the survivor.
    pub fn unite(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        loser: RowId,
        (survivor, position): (RowId, Seq),
    ) -> Result<Outcome, SqlError> {
        let Some(mut lost) = Entry::by_id(sql, table, loser)? else {
            // The application may yet make a row with the key that this identity came from. That is a row of its
            // own then, also if the pull breaks off before the survivor has come.
            if matches!(table.key, Key::Natural(_)) {
                alias(sql, table, loser, survivor)?;
            }
            return Ok(Outcome::Unchanged);
        };
        if lost.id == survivor {
            return Ok(Outcome::Unchanged);
        }
        if matches!(lost.key, LocalKey::Dead(_)) {
            // Deleted here: if the hub has yet to hear of it, it was this row that was deleted.
            (lost.meta.united, lost.meta.held) = (Some(survivor), false);
            let was = lost.key.clone();
            lost.update(sql, table, &was)?;
            return Ok(Outcome::Unchanged);
        }
        // What is unsent of it is a write to the one row now, by somebody who knows that it is one.
        lost.meta.raise_bases(position);
        lost.meta.unshared = None;
        let Some(known) = Entry::by_id(sql, table, survivor)? else {
            adopt(sql, table, lost, survivor)?;
            return Ok(Outcome::Unchanged);
        };
        if matches!(known.key, LocalKey::Dead(_)) {
            let pending = known.meta.deleted.and_then(|delete| delete.pending);
            if pending.is_some_and(|pending| !pending.is_acked(self.acked)) {
                return Ok(Outcome::Refused(
                    "the row that it is was deleted here, which the hub has yet to hear".into(),
                ));
            }
            known.forget(sql, table)?;
            adopt(sql, table, lost, survivor)?;
            return Ok(Outcome::Unchanged);
        }
        if !known.is_present() {
            if let Some(reason) = self.repoint_row(sql, table, &known, &lost)? {
                return Ok(Outcome::Refused(reason));
            }
            known.forget(sql, table)?;
            adopt(sql, table, lost, survivor)?;
            return Ok(Outcome::Unchanged);
        }
        self.absorb(sql, table, &lost, known)
    }

    /// Both are here: one remains.
    fn absorb(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        lost: &Entry,
        mut known: Entry,
    ) -> Result<Outcome, SqlError> {
        if let Some(reason) = self.repoint_row(sql, table, lost, &known)? {
            return Ok(Outcome::Refused(reason));
        }
        let mut moved: Vec<(&str, Value)> = Vec::new();
        let was_present = lost.is_present();
        if let (true, Some(key)) = (was_present, lost.key.values()?) {
            let row = read_row(sql, table, &key)?.unwrap_or_default();
            for (column, value) in table.columns.iter().zip(row) {
                let Some(cell) = lost.meta.cell(column.number) else { continue };
                let Some(pending) = cell.pending.filter(|pending| !pending.is_acked(self.acked)) else {
                    continue;
                };
                if known.meta.cell(column.number).is_none_or(|own| own.stamp < cell.stamp) {
                    // It belongs to the one row now, and is sent as that row's.
                    known.meta.put(CellMeta { pending: Some(Pending { mark: 0, ..pending }), ..*cell });
                    moved.push((&column.name, value));
                }
            }
            delete(sql, table, &lost.key)?;
        }
        lost.forget(sql, table)?;
        alias(sql, table, lost.id, known.id)?;
        if let (false, Some(key)) = (moved.is_empty(), known.key.values()?) {
            let was = known.key.clone();
            let cells = moved.iter().map(|(name, value)| (*name, value));
            if set_cells(sql, table, &key, cells)?.is_none() {
                if let Key::Natural(positions) = &table.key {
                    let mut key = key;
                    for (part, &at) in positions.iter().enumerate() {
                        let own = moved.iter().find(|(name, _)| *name == table.columns[at].name);
                        if let Some((_, value)) = own {
                            key[part] = value.clone();
                        }
                    }
                    known.key = LocalKey::of(table, &key)?;
                }
                known.sending = Sending::Unsent;
                known.update(sql, table, &was)?;
            }
        }
        Ok(if was_present { Outcome::Applied } else { Outcome::Unchanged })
    }

    /// Has what references one row reference another. Returns why a constraint does not let it, if so: the
    /// referencing rows are then one as well, or one of them gives way, and the hub says which.
    fn repoint_row(
        &self,
        sql: &mut dyn Sql,
        table: &Table,
        from: &Entry,
        to: &Entry,
    ) -> Result<Option<String>, SqlError> {
        let mut changes = Vec::new();
        if let (LocalKey::Number(old), LocalKey::Number(new)) = (&from.key, &to.key) {
            for referrers in Referrers::all(self.catalog, table, *old) {
                let new = referrers.table.columns[referrers.at].affinity.stored(*new);
                changes.push(Repoint { new: vec![(referrers.at, new)], referrers });
            }
        }
        let by_number = changes.len();
        changes.extend(self.plain_references(sql, table, from, to)?);
        for (at, change) in changes.iter().enumerate() {
            match change.run(sql)? {
                Repointed::Refused(reason) => return Ok(Some(reason)),
                // What they show holds until the row that they reference is told. Another row may have its present
                // key by then, so that only the hub knows what they mean.
                Repointed::Rows(1..) if at >= by_number => ask_again(sql, change.referrers.table)?,
                Repointed::Rows(_) => {}
            }
        }
        Ok(None)
    }

    /// References by columns that mean the same everywhere.
    fn plain_references(
        &self,
        sql: &mut dyn Sql,
        table: &Table,
        from: &Entry,
        to: &Entry,
    ) -> Result<Vec<Repoint<'_>>, SqlError> {
        let mut changes = Vec::new();
        if table.children.is_empty() {
            return Ok(changes);
        }
        let (Some(old_key), Some(new_key)) = (from.key.values()?, to.key.values()?) else {
            return Ok(changes);
        };
        let (Some(old), Some(new)) =
            (read_with_shadows(sql, table, &old_key)?, read_with_shadows(sql, table, &new_key)?)
        else {
            return Ok(changes);
        };
        for link in &table.children {
            let Some(child) = self.catalog.table(&link.child) else { continue };
            let mut only = Vec::new();
            let mut now = Vec::new();
            for (from, to) in &link.columns {
                let at = child.position(from).filter(|&at| child.columns[at].references.is_none());
                let cells = (cell(table, &old_key, &old, to), cell(table, &new_key, &new, to));
                // What the row is to hold there may be still to come; a reference to NULL would be none.
                let cells = (cells.0, cells.1.filter(|new| **new != Value::Null));
                if let (Some(at), (Some(old), Some(new))) = (at, cells) {
                    only.push((at, old.clone()));
                    now.push((at, new.clone()));
                }
            }
            if only.len() == link.columns.len()
                && only != now
                && let Some((at, value)) = only.pop()
            {
                changes.push(Repoint { referrers: Referrers { table: child, at, value, only }, new: now });
            }
        }
        Ok(changes)
    }
}

/// What is remembered of a row becomes what is remembered of the one that it is.
fn adopt(sql: &mut dyn Sql, table: &Table, mut lost: Entry, survivor: RowId) -> Result<(), SqlError> {
    let was = lost.id;
    lost.forget(sql, table)?;
    (lost.id, lost.meta.held) = (survivor, false);
    lost.insert(sql, table)?;
    alias(sql, table, was, survivor)
}

/// Remembers that references to one row mean another.
fn alias(sql: &mut dyn Sql, table: &Table, lost: RowId, survivor: RowId) -> Result<(), SqlError> {
    let meta = RowMeta { united: Some(survivor), ..RowMeta::default() };
    Entry { key: LocalKey::dead(lost), id: lost, sending: Sending::Clean, meta }.insert(sql, table)
}

impl Repoint<'_> {
    /// Changes the rows, and what is remembered of them: it is no write.
    fn run(&self, sql: &mut dyn Sql) -> Result<Repointed, SqlError> {
        let table = self.referrers.table;
        let keys = self.referrers.keys(sql)?;
        for key in &keys {
            let cells = self.new.iter().map(|(at, value)| (table.columns[*at].name.as_str(), value));
            if let Some(reason) = set_cells(sql, table, key, cells)? {
                return Ok(Repointed::Refused(reason));
            }
            self.remember(sql, key)?;
        }
        Ok(Repointed::Rows(keys.len()))
    }

    fn remember(&self, sql: &mut dyn Sql, key: &[Value]) -> Result<(), SqlError> {
        if key.contains(&Value::Null) {
            return Ok(());
        }
        let table = self.referrers.table;
        let was = LocalKey::of(table, key)?;
        let Some(mut entry) = Entry::by_key(sql, table, &was)? else { return Ok(()) };
        let mut new_key = key.to_vec();
        for (at, value) in &self.new {
            if let Some(cell) = entry.meta.cell(table.columns[*at].number).copied() {
                entry.meta.put(CellMeta { fingerprint: fingerprint(value), ..cell });
            }
            if let Key::Natural(positions) = &table.key
                && let Some(part) = positions.iter().position(|position| position == at)
            {
                new_key[part] = value.clone();
            }
        }
        entry.key = LocalKey::of(table, &new_key)?;
        entry.update(sql, table, &was)
    }
}
