//! Applying: what the hub says becomes rows of the application's tables.
//!
//! One bounded turn is one transaction, atomic with the position that records it (I7). It begins by
//! settling the log, so that what the application wrote meanwhile keeps the base it had, and ends by
//! clearing it, so that what was applied is not taken for a write of this replica.

use std::borrow::Cow;

use super::ahead::{Ahead, Update};
use super::bookkeeping::{ReplicaState, SentBatch, acknowledge};
use super::catalog::{Catalog, Key, Table, quote, quote_list};
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::incoming::{Cell, merge};
use super::numbers::Numbers;
use super::quarantine::{self, SetAside};
use super::row_meta::RowMeta;
use super::rows::{Context, Entry, LocalKey, Sending, key_condition, key_params};
use super::swaps::rotate;
use super::triggers;
use crate::model::{Hlc, RowId, RowUpdate, TableHeader, Value};
use crate::protocol::message::{Done, Rows};

/// What one turn applies.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Batches that the hub has acknowledged, in order.
    pub acked: Vec<SentBatch>,
    /// Rows.
    pub rows: Rows,
    /// The end of the sync.
    pub done: Option<Done>,
    /// Rows were set aside before: at the end of the sync they are tried again.
    pub retry: bool,
}

impl Incoming {
    /// Whether the application's tables may be written. Otherwise there is only something to note.
    pub fn touches_tables(&self) -> bool {
        !self.rows.rows.is_empty() || self.retry
    }
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied {
    /// Rows inserted, updated or deleted.
    pub rows: u64,
    /// Rows that are set aside now.
    pub quarantined: u64,
}

/// Applies one turn's work, within the transaction that is open. The log must be settled. `set_aside_before`
/// rows were in quarantine when the transaction began.
pub fn apply(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    state: &mut ReplicaState,
    incoming: &Incoming,
    set_aside_before: u64,
) -> Result<Applied, SqlError> {
    if let Some(last) = incoming.acked.last() {
        acknowledge(sql, state, *last)?;
    }
    let mut applier = Applier {
        catalog: context.catalog,
        acked: state.acked,
        numbers: Numbers::default(),
        check_quarantine: set_aside_before > 0,
        applied: 0,
    };
    let last = incoming.rows.rows.last().map(|row| row.seq);
    let retry = incoming.done.is_some() && incoming.touches_tables();
    let suspended = triggers::suspend(sql, context.catalog, &incoming.rows, retry)?;
    let Some(mut ahead) = Ahead::of(&incoming.rows) else {
        return Err(SqlError::corrupt("the hub sent a row of a table that it did not name"));
    };
    for at in 0..ahead.count() {
        if let Some(update) = ahead.take(at) {
            applier.apply(sql, update, &mut ahead)?;
        }
    }
    if retry {
        applier.retry(sql)?;
    }
    for text in suspended {
        sql.run(&text)?;
    }
    sql.execute("DELETE FROM _federation_log", &[])?;
    if let Some(last) = last {
        state.resume = state.resume.max(last);
    }
    if let Some(done) = &incoming.done {
        state.cursor = done.cursor;
        state.resume = done.cursor;
        state.highest = state.highest.max(done.highest);
    }
    // What a pull that is interrupted has brought is seen as well, deletes of unknown rows included.
    let stamps = incoming.rows.rows.iter().flat_map(|row| &row.writes).map(|write| write.stamp.hlc);
    state.highest = stamps.fold(state.highest.max(context.highest), Hlc::max);
    state.save(sql)?;
    // Only where rows were tried can their number be another.
    let quarantined = if incoming.touches_tables() { quarantine::count(sql)? } else { set_aside_before };
    Ok(Applied { rows: applier.applied, quarantined })
}

/// What became of one row.
pub enum Outcome {
    /// It is in its table as it should be.
    Applied,
    /// There was nothing to do.
    Unchanged,
    /// It cannot be applied now, for this reason.
    Refused(String),
}

/// Applies the rows of one turn.
pub struct Applier<'a> {
    /// The tables.
    pub catalog: &'a Catalog,
    /// Rows inserted, updated or deleted.
    pub applied: u64,
    acked: u64,
    numbers: Numbers,
    check_quarantine: bool,
}

impl Applier<'_> {
    /// Applies a row, together with what is set aside of it.
    fn apply<'b>(
        &mut self,
        sql: &mut dyn Sql,
        update: Update<'b>,
        ahead: &mut Ahead<'b>,
    ) -> Result<(), SqlError> {
        let earlier =
            if self.check_quarantine { quarantine::take(sql, &update.0.name, update.1.id)? } else { None };
        match earlier {
            Some(earlier) => {
                let (header, update) = (update.0.into_owned(), update.1.into_owned());
                let whole = earlier.merge(SetAside { header, update });
                self.try_row(sql, (Cow::Owned(whole.header), Cow::Owned(whole.update)), ahead)
            }
            None => self.try_row(sql, update, ahead),
        }
    }

    fn try_row<'b>(
        &mut self,
        sql: &mut dyn Sql,
        update: Update<'b>,
        ahead: &mut Ahead<'b>,
    ) -> Result<(), SqlError> {
        match self.apply_row(sql, &update.0, &update.1)? {
            Outcome::Applied => self.applied += 1,
            Outcome::Unchanged => {}
            Outcome::Refused(reason) => {
                if rotate(self, sql, &update, ahead)? {
                    return Ok(());
                }
                let (header, update) = update;
                quarantine::set_aside(sql, &header, &update, &reason)?;
                if let Some(table) = self.catalog.table(&header.name) {
                    hold(sql, table, update.id)?;
                }
                self.check_quarantine = true;
            }
        }
        Ok(())
    }

    /// Tries what is set aside again, as long as that gets any of it applied.
    fn retry(&mut self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        loop {
            let before = quarantine::count(sql)?;
            let mut ahead = Ahead::again(quarantine::take_some(sql)?);
            for at in 0..ahead.count() {
                if let Some(update) = ahead.take(at) {
                    self.try_row(sql, update, &mut ahead)?;
                }
            }
            let after = quarantine::count(sql)?;
            if after == 0 || after >= before {
                return Ok(());
            }
        }
    }

    /// Applies one row, if nothing stands in its way.
    pub fn apply_row(
        &mut self,
        sql: &mut dyn Sql,
        header: &TableHeader,
        update: &RowUpdate,
    ) -> Result<Outcome, SqlError> {
        let Some(table) = self.catalog.table(&header.name) else {
            return Ok(Outcome::Refused(format!("this database has no table {}", header.name)));
        };
        let entry = Entry::by_id(sql, table, update.id)?;
        let is_present = entry.as_ref().is_some_and(Entry::is_present);
        let (mut meta, cells) = match merge(sql, self.catalog, table, header, update, entry.as_ref())? {
            Ok(merged) => merged,
            Err(reason) => return Ok(Outcome::Refused(reason)),
        };
        (meta.seen, meta.held) = (update.seq, false);
        match (entry, is_present, meta.is_alive()) {
            (Some(entry), true, true) => update_row(sql, table, entry, meta, &cells),
            (Some(entry), true, false) => delete_row(sql, table, entry, meta),
            (entry, _, true) => self.insert_row(sql, table, entry, meta, &cells, update),
            (Some(mut entry), _, false) => {
                entry.meta = meta;
                let was = std::mem::replace(&mut entry.key, LocalKey::dead(entry.id));
                entry.update(sql, table, &was)?;
                Ok(Outcome::Unchanged)
            }
            (None, ..) => Ok(Outcome::Unchanged),
        }
    }

    /// Makes a row that is not here.
    fn insert_row(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        entry: Option<Entry>,
        meta: RowMeta,
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
            sql.execute("UPDATE _federation_table SET refresh = 1 WHERE tbl = ?", &[table.number.into()])?;
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
                    None => self.numbers.assign(sql, table, column, update.number)?,
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
                LocalKey::of(table, &key)?
            }
        };
        let statement = format!(
            "INSERT OR ABORT INTO main.{}({}) VALUES({})",
            quote(&table.name),
            quote_list(names.iter().copied()),
            vec!["?"; names.len()].join(", ")
        );
        if let Some(reason) = refused(sql.execute(&statement, &params))? {
            return Ok(Outcome::Refused(reason));
        }
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
}

/// Writes the cells of a row that is here, as far as they differ.
fn update_row(
    sql: &mut dyn Sql,
    table: &Table,
    mut entry: Entry,
    meta: RowMeta,
    cells: &[Cell],
) -> Result<Outcome, SqlError> {
    let Some(key) = entry.key.values()? else {
        return Err(SqlError::corrupt("a present row without key"));
    };
    let different = |cell: &&Cell| {
        entry.meta.cell(cell.meta.column).is_none_or(|known| known.fingerprint != cell.meta.fingerprint)
    };
    let changed: Vec<&Cell> = cells.iter().filter(different).collect();
    if !changed.is_empty() {
        let assignments: Vec<String> =
            changed.iter().map(|cell| format!("{} = ?", quote(&table.columns[cell.at].name))).collect();
        let mut params: Vec<ValueRef<'_>> = changed.iter().map(|cell| (&cell.value).into()).collect();
        params.extend(key_params(table, &key));
        let statement = format!(
            "UPDATE OR ABORT main.{} SET {} WHERE {}",
            quote(&table.name),
            assignments.join(", "),
            key_condition(table)
        );
        if let Some(reason) = refused(sql.execute(&statement, &params))? {
            return Ok(Outcome::Refused(reason));
        }
    }
    let was = entry.key.clone();
    if let Key::Natural(positions) = &table.key {
        let mut key = key;
        for cell in &changed {
            if let Some(part) = positions.iter().position(|&position| position == cell.at) {
                key[part] = cell.value.clone();
            }
        }
        entry.key = LocalKey::of(table, &key)?;
    }
    entry.meta = meta;
    entry.update(sql, table, &was)?;
    Ok(if changed.is_empty() { Outcome::Unchanged } else { Outcome::Applied })
}

/// Deletes a row that is here.
fn delete_row(
    sql: &mut dyn Sql,
    table: &Table,
    mut entry: Entry,
    meta: RowMeta,
) -> Result<Outcome, SqlError> {
    let Some(key) = entry.key.values()? else {
        return Err(SqlError::corrupt("a present row without key"));
    };
    let statement = format!("DELETE FROM main.{} WHERE {}", quote(&table.name), key_condition(table));
    if let Some(reason) = refused(sql.execute(&statement, &key_params(table, &key)))? {
        return Ok(Outcome::Refused(reason));
    }
    let was = std::mem::replace(&mut entry.key, LocalKey::dead(entry.id));
    entry.meta = meta;
    entry.update(sql, table, &was)?;
    Ok(Outcome::Applied)
}

/// Notes that an update of a row could not be applied: what the application writes to it from now on has
/// not seen that update. The row need not be here: the application can make one with its key.
fn hold(sql: &mut dyn Sql, table: &Table, id: RowId) -> Result<(), SqlError> {
    match Entry::by_id(sql, table, id)? {
        Some(entry) if entry.meta.held => Ok(()),
        Some(mut entry) => {
            entry.meta.held = true;
            let was = entry.key.clone();
            entry.update(sql, table, &was)
        }
        None => {
            let meta = RowMeta { held: true, ..RowMeta::default() };
            Entry { key: LocalKey::dead(id), id, sending: Sending::Clean, meta }.insert(sql, table)
        }
    }
}

/// A constraint's refusal of a row, in words; other failures end the turn.
fn refused(outcome: Result<u64, SqlError>) -> Result<Option<String>, SqlError> {
    match outcome {
        Ok(_) => Ok(None),
        Err(error) if error.kind == SqlErrorKind::Constraint => Ok(Some(error.message)),
        Err(error) => Err(error),
    }
}
