//! Two rows that turn out to be one, written twice: the hub says under which identity both go on.

use super::applier::Applier;
use super::apply_row::{Outcome, set_cells};
use super::catalog::{Key, Table};
use super::driver::{Sql, SqlError};
use super::foreign_keys::{cell, read_with_shadows};
use super::local_key::LocalKey;
use super::referrers::Referrers;
use super::repoint::{Repoint, run_all};
use super::row_io::{cannot_be_put_back, delete, insert, whole_row};
use super::row_meta::{CellMeta, Pending, RowMeta};
use super::rows::{Entry, Sending};
use crate::model::{RowId, Seq, Value};

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
                alias(sql, table, loser, (survivor, position))?;
            }
            return Ok(Outcome::Unchanged);
        };
        if lost.id == survivor {
            return Ok(Outcome::Unchanged);
        }
        if matches!(lost.key, LocalKey::Dead(_)) {
            // Deleted here: if the hub has yet to hear of it, it was this row that was deleted.
            (lost.meta.united, lost.meta.held, lost.meta.seen) = (Some(survivor), false, position);
            let was = lost.key.clone();
            lost.update(sql, table, &was)?;
            return Ok(Outcome::Unchanged);
        }
        // What is unsent of it is a write to the one row now, by somebody who knows that it is one.
        lost.meta.raise_bases(position);
        lost.meta.unshared = None;
        let Some(known) = Entry::by_id(sql, table, survivor)? else {
            adopt(sql, table, lost, (survivor, position))?;
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
            adopt(sql, table, lost, (survivor, position))?;
            return Ok(Outcome::Unchanged);
        }
        if !known.is_present() {
            let references = self.references(sql, table, &known, &lost)?;
            if let Some(reason) = run_all(sql, &references)? {
                return Ok(Outcome::Refused(reason));
            }
            known.forget(sql, table)?;
            adopt(sql, table, lost, (survivor, position))?;
            return Ok(Outcome::Unchanged);
        }
        self.absorb(sql, table, (&lost, known), position)
    }

    /// Both are here: one remains.
    fn absorb(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        (lost, mut known): (&Entry, Entry),
        position: Seq,
    ) -> Result<Outcome, SqlError> {
        let references = self.references(sql, table, lost, &known)?;
        let mut moved: Vec<(&str, Value)> = Vec::new();
        let gone = if lost.is_present() { Some(whole_row(sql, table, lost)?) } else { None };
        if let Some((_, row)) = &gone {
            for (column, value) in table.columns.iter().zip(row) {
                let Some(cell) = lost.meta.cell(column.number) else { continue };
                let Some(pending) = cell.pending.filter(|pending| !pending.is_acked(self.acked)) else {
                    continue;
                };
                if known.meta.cell(column.number).is_none_or(|own| own.stamp < cell.stamp) {
                    // It belongs to the one row now, and is sent as that row's.
                    known.meta.put(CellMeta { pending: Some(Pending { mark: 0, ..pending }), ..*cell });
                    moved.push((&column.name, value.clone()));
                }
            }
            // It goes first: a unique value that it holds may be that of a row which references it.
            delete(sql, table, &lost.key)?;
        }
        if let Some(reason) = run_all(sql, &references)? {
            if let Some((rowid, row)) = &gone
                && !insert(sql, table, &lost.key, *rowid, row)?
            {
                return Err(cannot_be_put_back());
            }
            return Ok(Outcome::Refused(reason));
        }
        lost.forget(sql, table)?;
        alias(sql, table, lost.id, (known.id, position))?;
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
        Ok(if gone.is_some() { Outcome::Applied } else { Outcome::Unchanged })
    }

    /// What references one row, and is to reference another.
    fn references(
        &self,
        sql: &mut dyn Sql,
        table: &Table,
        from: &Entry,
        to: &Entry,
    ) -> Result<Vec<Repoint<'_>>, SqlError> {
        let mut changes = Vec::new();
        if let (LocalKey::Number(old), LocalKey::Number(new)) = (&from.key, &to.key) {
            for referrers in Referrers::all(self.catalog, table, *old) {
                let new = referrers.table.columns[referrers.at].affinity.stored(*new);
                changes.push(Repoint { new: vec![(referrers.at, new)], referrers, by_number: true });
            }
        }
        changes.extend(self.plain_references(sql, table, from, to)?);
        Ok(changes)
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
                let referrers = Referrers { table: child, at, value, only };
                changes.push(Repoint { referrers, new: now, by_number: false });
            }
        }
        Ok(changes)
    }
}

/// What is remembered of a row becomes what is remembered of the one that it is.
fn adopt(
    sql: &mut dyn Sql,
    table: &Table,
    mut lost: Entry,
    (survivor, position): (RowId, Seq),
) -> Result<(), SqlError> {
    let was = lost.id;
    lost.forget(sql, table)?;
    (lost.id, lost.meta.held) = (survivor, false);
    lost.insert(sql, table)?;
    alias(sql, table, was, (survivor, position))
}

/// Remembers that references to one row mean another, as the hub said at this position.
fn alias(
    sql: &mut dyn Sql,
    table: &Table,
    lost: RowId,
    (survivor, position): (RowId, Seq),
) -> Result<(), SqlError> {
    let meta = RowMeta { united: Some(survivor), seen: position, ..RowMeta::default() };
    Entry { key: LocalKey::dead(lost), id: lost, sending: Sending::Clean, meta }.insert(sql, table)
}
