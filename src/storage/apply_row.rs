//! Applying one row: the statements that make it what the hub says.

use super::ahead::Update;
use super::applier::Applier;
use super::catalog::{Key, Table, quote};
use super::driver::{Sql, SqlError, ValueRef};
use super::follow::Leader;
use super::foreign_keys::referencing_child;
use super::incoming::{Arrival, Cell};
use super::journal::Journal;
use super::local_key::LocalKey;
use super::numbers::exhausts;
use super::quarantine::{ask_again, refused};
use super::row_io::{insertion, whole_row};
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending, key_condition, key_params};
use crate::model::{RowUpdate, Value};

/// What became of one row.
pub enum Outcome {
    /// It is in its table as it should be.
    Applied,
    /// There was nothing to do.
    Unchanged,
    /// It cannot be applied now, for this reason.
    Refused(String),
    /// SQLite refuses it, in its words.
    Constraint(String),
    /// Rows that reference it stand in the way, for this reason.
    Referenced(String),
}

impl Applier<'_> {
    /// Applies a row; `item` is its place in the turn. A row that others reference is deleted, or given
    /// another key, only if `leave_children` says so: the journal then decides.
    pub fn apply_row(
        &mut self,
        sql: &mut dyn Sql,
        item: usize,
        (header, update, acked): &Update<'_>,
        leave_children: bool,
    ) -> Result<Outcome, SqlError> {
        let Some(table) = self.catalog.table(&header.name) else {
            if self.catalog.passes_over(&header.name) {
                // Should the application make it, or make it again, the hub is asked for all of it.
                return Ok(Outcome::Unchanged);
            }
            return Ok(Outcome::Refused(format!("this database has no table {}", header.name)));
        };
        if let Some(survivor) = update.united {
            return self.unite(sql, table, update.id, (survivor, update.seq));
        }
        let entry = Entry::by_id(sql, table, update.id)?;
        let is_present = entry.as_ref().is_some_and(Entry::is_present);
        let arrival = Arrival { table, header, update, entry: entry.as_ref(), acked: *acked };
        let (mut meta, cells) = match arrival.merge(sql, &mut self.resolver)? {
            Ok(merged) => merged,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        if entry.as_ref().is_some_and(|entry| is_present && arrival.passes_over(entry, &cells)) {
            self.passed_over.insert(table.name.clone());
        } else if let Some(same) = &mut self.taken_for_the_same
            && entry.as_ref().is_some_and(|entry| arrival.is_shared(entry, &cells))
        {
            same.insert(table.name.clone());
        }
        let is_outdated = meta.told(update, *acked);
        let outcome = match (entry, is_present, meta.is_alive()) {
            (Some(entry), true, true) => {
                self.update_row(sql, item, table, entry, meta, &cells, leave_children)
            }
            (Some(entry), true, false) => self.delete_row(sql, item, table, entry, meta, leave_children),
            (entry, _, true) => self.insert_row(sql, item, table, entry, meta, &cells, update),
            (Some(mut entry), _, false) => {
                entry.meta = meta;
                let was = entry.bury();
                entry.update(sql, table, &was)?;
                Ok(Outcome::Unchanged)
            }
            (None, ..) => Ok(Outcome::Unchanged),
        }?;
        if is_outdated && matches!(outcome, Outcome::Applied | Outcome::Unchanged) {
            ask_again(sql, table)?;
        }
        Ok(outcome)
    }

    /// Makes a row that is not here.
    #[expect(clippy::too_many_arguments, reason = "the row, and what to make of it")]
    fn insert_row(
        &mut self,
        sql: &mut dyn Sql,
        item: usize,
        table: &Table,
        entry: Option<Entry>,
        mut meta: RowMeta,
        cells: &[Cell],
        update: &RowUpdate,
    ) -> Result<Outcome, SqlError> {
        if !update.whole {
            let acked = self.acked;
            let deleted_here = entry.as_ref().and_then(|entry| entry.meta.deleted?.pending);
            if deleted_here.is_some_and(|pending| !pending.is_acked(acked)) {
                // Once the hub knows of the delete and the edit that beats it, it sends the row whole.
                return Ok(Outcome::Unchanged);
            }
            ask_again(sql, table)?;
            return Ok(Outcome::Refused("parts of the row are missing here; it is asked for again".into()));
        }
        let mut names: Vec<&str> = cells.iter().map(|cell| table.columns[cell.at].name.as_str()).collect();
        let mut params: Vec<ValueRef<'_>> = cells.iter().map(|cell| (&cell.value).into()).collect();
        let key = match &table.key {
            Key::Number(column) => {
                let reserved = match entry.as_ref().map(|entry| &entry.key) {
                    Some(LocalKey::Number(number)) => Some(*number),
                    _ => None,
                };
                let number = match reserved {
                    Some(number) => number,
                    None => self.resolver.assign(sql, table, update.id, meta.number, update.number)?,
                };
                names.push(column);
                params.push(number.into());
                LocalKey::Number(number)
            }
            Key::Natural(positions) => {
                let part =
                    |at: &usize| cells.iter().find(|cell| cell.at == *at).map(|cell| cell.value.clone());
                let Some(key) = positions.iter().map(part).collect::<Option<Vec<Value>>>() else {
                    return Ok(Outcome::Refused("its key lacks a column that this database has".into()));
                };
                if let Some(reason) = exhausts(sql, table, &key)? {
                    return Ok(Outcome::Refused(reason));
                }
                LocalKey::of(table, &key)?
            }
        };
        let inserted = sql.execute(&insertion(table, &names), &params);
        if let Some(reason) = refused(sql, inserted)? {
            return Ok(Outcome::Constraint(explained(table, &key, reason)));
        }
        if !table.parents.is_empty() {
            let before = Journal::before(sql, table, entry.as_ref())?;
            self.journal.note(item, (table, update.id), before, key.clone());
        }
        (meta.number, meta.united) = (None, None);
        match entry {
            Some(mut entry) => {
                let was = std::mem::replace(&mut entry.key, key);
                entry.meta = meta;
                entry.update(sql, table, &was)?;
            }
            None => Entry { key, id: update.id, sending: Sending::Clean, meta }.insert(sql, table)?,
        }
        Ok(Outcome::Applied)
    }

    /// Writes the cells of a row that is here, as far as they differ.
    #[expect(clippy::too_many_arguments, reason = "the row, and what to make of it")]
    fn update_row(
        &mut self,
        sql: &mut dyn Sql,
        item: usize,
        table: &Table,
        mut entry: Entry,
        meta: RowMeta,
        cells: &[Cell],
        leave_children: bool,
    ) -> Result<Outcome, SqlError> {
        let Some(key) = entry.key.values()? else {
            return Err(SqlError::corrupt("a present row without key"));
        };
        let different = |cell: &&Cell| {
            entry.meta.cell(cell.meta.column).is_none_or(|known| known.fingerprint != cell.meta.fingerprint)
        };
        let changed: Vec<&Cell> = cells.iter().filter(different).collect();
        let is =
            |what: fn(&super::catalog::Column) -> bool| changed.iter().any(|c| what(&table.columns[c.at]));
        let (moves_references, is_referenced) = (is(|c| c.is_foreign_key), is(|c| c.is_referenced));
        let before =
            if moves_references || is_referenced { Journal::before(sql, table, Some(&entry))? } else { None };
        if is_referenced
            && !leave_children
            && let Some((_, Some((_, row)))) = &before
        {
            let mut new = row.clone();
            for cell in &changed {
                new[cell.at] = cell.value.clone();
            }
            if let Some(link) = referencing_child(sql, table, &key, row, Some(&new))? {
                return Ok(Outcome::Referenced(format!("rows of {} here still reference it", link.child)));
            }
        }
        let new_key = renamed(table, &key, &changed);
        if new_key != key
            && let Some(reason) = exhausts(sql, table, &new_key)?
        {
            return Ok(Outcome::Refused(reason));
        }
        if !changed.is_empty() {
            let cells = changed.iter().map(|cell| (table.columns[cell.at].name.as_str(), &cell.value));
            if let Some(reason) = set_cells(sql, table, &key, cells)? {
                return Ok(Outcome::Constraint(reason));
            }
        }
        let was = entry.key.clone();
        if matches!(table.key, Key::Natural(_)) {
            entry.key = LocalKey::of(table, &new_key)?;
        }
        if let Some(before) = before {
            if let (true, true, true, Some((_, row))) =
                (is_referenced, leave_children, self.is_final, &before.1)
            {
                let mut new = row.clone();
                for cell in &changed {
                    new[cell.at] = cell.value.clone();
                }
                let (was, is) = ((key, row.clone()), (new_key, new));
                self.leaders.push(Leader { item, table: table.number, was, is });
            }
            self.journal.note(item, (table, entry.id), Some(before), entry.key.clone());
        }
        let outcome = if changed.is_empty() { Outcome::Unchanged } else { Outcome::Applied };
        entry.take_over(meta);
        entry.update(sql, table, &was)?;
        Ok(outcome)
    }

    /// Deletes a row that is here.
    fn delete_row(
        &mut self,
        sql: &mut dyn Sql,
        item: usize,
        table: &Table,
        mut entry: Entry,
        meta: RowMeta,
        leave_children: bool,
    ) -> Result<Outcome, SqlError> {
        let Some(key) = entry.key.values()? else {
            return Err(SqlError::corrupt("a present row without key"));
        };
        let mut before = None;
        if !table.children.is_empty() {
            let row = whole_row(sql, table, &entry)?;
            if !leave_children && let Some(link) = referencing_child(sql, table, &key, &row.1, None)? {
                return Ok(Outcome::Referenced(format!("rows of {} here still reference it", link.child)));
            }
            before = Some((entry.clone(), Some(row)));
        }
        let statement = format!("DELETE FROM main.{} WHERE {}", quote(&table.name), key_condition(table));
        let deleted = sql.execute(&statement, &key_params(table, &key));
        if let Some(reason) = refused(sql, deleted)? {
            return Ok(Outcome::Constraint(reason));
        }
        let was = entry.bury();
        entry.meta = RowMeta { number: entry.meta.number, ..meta };
        if before.is_some() {
            self.journal.note(item, (table, entry.id), before, entry.key.clone());
        }
        entry.update(sql, table, &was)?;
        Ok(Outcome::Applied)
    }
}

/// The key that a row has once these cells are written.
fn renamed(table: &Table, key: &[Value], changed: &[&Cell]) -> Vec<Value> {
    let mut new_key = key.to_vec();
    let Key::Natural(positions) = &table.key else { return new_key };
    for cell in changed {
        if let Some(part) = positions.iter().position(|&position| position == cell.at) {
            new_key[part] = cell.value.clone();
        }
    }
    new_key
}

/// Writes cells of a row, by the names of their columns. Returns why they are refused, if they are.
pub fn set_cells<'a>(
    sql: &mut dyn Sql,
    table: &Table,
    key: &[Value],
    cells: impl IntoIterator<Item = (&'a str, &'a Value)>,
) -> Result<Option<String>, SqlError> {
    let (names, mut params): (Vec<String>, Vec<ValueRef<'_>>) = cells
        .into_iter()
        .map(|(name, value)| (format!("{} = ?", quote(name)), ValueRef::from(value)))
        .unzip();
    params.extend(key_params(table, key));
    let statement = format!(
        "UPDATE{} main.{} SET {} WHERE {}",
        table.or_abort(),
        quote(&table.name),
        names.join(", "),
        key_condition(table)
    );
    let updated = sql.execute(&statement, &params);
    refused(sql, updated)
}

/// Why a row cannot be made, with what may have made its CHECK fail.
fn explained(table: &Table, key: &LocalKey, reason: String) -> String {
    let is_negative = matches!(key, LocalKey::Number(number) if *number < 0);
    if table.numbers_apart && is_negative && reason.contains("CHECK") {
        format!(
            "{reason}; if that is for the row's number, which tables.{}.numbers 'apart' makes negative: have the CHECK take \
             such numbers, or leave 'apart' out",
            table.name
        )
    } else {
        reason
    }
}
