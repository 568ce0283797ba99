//! Applying: what the hub says becomes rows of the application's tables.
//!
//! One bounded turn is one transaction, atomic with the position that records it (I7). It begins by
//! settling the log, so that what the application wrote meanwhile keeps the base it had, and ends by
//! clearing it, so that what was applied is not taken for a write of this replica.

use std::collections::HashMap;

use super::bookkeeping::{ReplicaState, SentBatch, acknowledge};
use super::catalog::{Catalog, Key, Table, quote, quote_list};
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::numbers::Numbers;
use super::quarantine::{self, SetAside};
use super::row_meta::{CellMeta, RowMeta, Tombstone};
use super::rows::{Context, Entry, LocalKey, Sending, key_condition, key_params, merged_cell};
use crate::model::{CellValue, Op, RowUpdate, TableHeader, Value};
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
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied {
    /// Rows inserted, updated or deleted.
    pub rows: u64,
    /// Rows that are set aside now.
    pub quarantined: u64,
}

/// Applies one turn's work, within the transaction that is open. The log must be settled.
pub fn apply(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    state: &mut ReplicaState,
    incoming: Incoming,
) -> Result<Applied, SqlError> {
    if let Some(last) = incoming.acked.last() {
        acknowledge(sql, state, *last)?;
    }
    let set_aside_before = quarantine::count(sql)?;
    let mut applier = Applier {
        catalog: context.catalog,
        acked: state.acked,
        numbers: Numbers::default(),
        check_quarantine: set_aside_before > 0,
        applied: 0,
    };
    let last = incoming.rows.rows.last().map(|row| row.seq);
    let retry = incoming.done.is_some() && (set_aside_before > 0 || last.is_some());
    let suspended = suspend_triggers(sql, context.catalog, &incoming.rows, retry)?;
    for update in incoming.rows.rows {
        let Some(header) = incoming.rows.tables.get(usize::from(update.table)) else {
            return Err(SqlError::corrupt("the hub sent a row of a table that it did not name"));
        };
        applier.apply(sql, SetAside { header: header.clone(), update })?;
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
    if let Some(done) = incoming.done {
        state.cursor = done.cursor;
        state.resume = done.cursor;
        state.highest = state.highest.max(done.highest);
    }
    state.highest = state.highest.max(context.highest);
    state.save(sql)?;
    Ok(Applied { rows: applier.applied, quarantined: quarantine::count(sql)? })
}

/// Takes the application's triggers off the tables that this turn touches (I6), and returns the texts that
/// bring them back. In a transaction, so that nobody ever sees them missing.
fn suspend_triggers(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    rows: &Rows,
    all: bool,
) -> Result<Vec<String>, SqlError> {
    let touched = |table: &&Table| {
        all || rows.tables.iter().any(|header| header.name.eq_ignore_ascii_case(&table.name))
    };
    let mut texts = Vec::new();
    for (name, text) in catalog.tables.iter().filter(touched).flat_map(|table| &table.triggers) {
        sql.run(&format!("DROP TRIGGER main.{}", quote(name)))?;
        texts.push(text.clone());
    }
    Ok(texts)
}

/// What became of one row.
enum Outcome {
    /// It is in its table as it should be.
    Applied,
    /// There was nothing to do.
    Unchanged,
    /// It cannot be applied now, for this reason.
    Refused(String),
}

struct Applier<'a> {
    catalog: &'a Catalog,
    acked: u64,
    numbers: Numbers,
    check_quarantine: bool,
    applied: u64,
}

impl Applier<'_> {
    /// Applies a row, together with what is set aside of it.
    fn apply(&mut self, sql: &mut dyn Sql, row: SetAside) -> Result<(), SqlError> {
        let row = match self.check_quarantine {
            true => match quarantine::take(sql, &row.header.name, row.update.id)? {
                Some(earlier) => earlier.merge(row),
                None => row,
            },
            false => row,
        };
        self.try_row(sql, &row)
    }

    fn try_row(&mut self, sql: &mut dyn Sql, row: &SetAside) -> Result<(), SqlError> {
        match self.apply_row(sql, &row.header, &row.update)? {
            Outcome::Applied => self.applied += 1,
            Outcome::Unchanged => {}
            Outcome::Refused(reason) => {
                quarantine::set_aside(sql, row, &reason)?;
                self.check_quarantine = true;
            }
        }
        Ok(())
    }

    /// Tries what is set aside again, as long as that gets any of it applied.
    fn retry(&mut self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        loop {
            let before = quarantine::count(sql)?;
            for row in quarantine::take_some(sql)? {
                self.try_row(sql, &row)?;
            }
            let after = quarantine::count(sql)?;
            if after == 0 || after >= before {
                return Ok(());
            }
        }
    }

    fn apply_row(
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
            Err(reason) => return self.hold(sql, table, entry, reason),
        };
        meta.seen = update.seq;
        match (entry, is_present, meta.is_alive()) {
            (Some(entry), true, true) => self.update_row(sql, table, entry, meta, &cells),
            (Some(entry), true, false) => self.delete_row(sql, table, entry, meta),
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

    /// Notes that an update of a row that is here could not be applied: what the application writes to it
    /// from now on has not seen that update.
    fn hold(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        entry: Option<Entry>,
        reason: String,
    ) -> Result<Outcome, SqlError> {
        if let Some(mut entry) = entry.filter(|entry| !entry.meta.held) {
            entry.meta.held = true;
            let was = entry.key.clone();
            entry.update(sql, table, &was)?;
        }
        Ok(Outcome::Refused(reason))
    }

    fn update_row(
        &mut self,
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
                return self.hold(sql, table, Some(entry), reason);
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
        entry.meta = RowMeta { held: false, ..meta };
        entry.update(sql, table, &was)?;
        Ok(if changed.is_empty() { Outcome::Unchanged } else { Outcome::Applied })
    }

    fn delete_row(
        &mut self,
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
            return self.hold(sql, table, Some(entry), reason);
        }
        let was = std::mem::replace(&mut entry.key, LocalKey::dead(entry.id));
        entry.meta = RowMeta { held: false, ..meta };
        entry.update(sql, table, &was)?;
        Ok(Outcome::Applied)
    }

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
        let statement = if names.is_empty() {
            format!("INSERT INTO main.{} DEFAULT VALUES", quote(&table.name))
        } else {
            format!(
                "INSERT OR ABORT INTO main.{}({}) VALUES({})",
                quote(&table.name),
                quote_list(names.iter().copied()),
                vec!["?"; names.len()].join(", ")
            )
        };
        if let Some(reason) = refused(sql.execute(&statement, &params))? {
            return Ok(Outcome::Refused(reason));
        }
        let meta = RowMeta { held: false, ..meta };
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

/// A cell that the merge took from the hub.
struct Cell {
    /// Its position in the table's columns.
    at: usize,
    value: Value,
    meta: CellMeta,
}

/// Merges an update into what is remembered of the row: the new memory, and the cells to write. Or why the
/// update means nothing here.
fn merge(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    table: &Table,
    header: &TableHeader,
    update: &RowUpdate,
    entry: Option<&Entry>,
) -> Result<Result<(RowMeta, Vec<Cell>), String>, SqlError> {
    let mut meta = entry.map(|entry| entry.meta.clone()).unwrap_or_default();
    let is_present = entry.is_some_and(Entry::is_present);
    let mut cells = Vec::new();
    let mut deleted = meta.deleted;
    for write in &update.writes {
        let sets = match &write.op {
            Op::Delete => {
                if deleted.is_none_or(|delete| delete.stamp < write.stamp) {
                    deleted = Some(Tombstone { stamp: write.stamp, pending: None });
                }
                continue;
            }
            Op::Set(sets) => sets,
        };
        for (index, value) in sets {
            let name = header.columns.get(usize::from(*index));
            let Some(at) = name.and_then(|name| position(table, name)) else {
                // The hub keeps it until this application's schema has the column.
                continue;
            };
            let column = &table.columns[at];
            let value = match incoming(sql, catalog, column.references.as_deref(), value)? {
                Ok(value) => value,
                Err(reason) => return Ok(Err(reason)),
            };
            let remote = merged_cell(column.number, write.stamp, &value);
            let wins = meta.cell(column.number).is_none_or(|local| {
                (remote.stamp, remote.fingerprint != local.fingerprint) > (local.stamp, false)
            });
            // A row that is not here is made of what the hub has, whatever is remembered of it.
            if wins || !is_present {
                cells.push(Cell { at, value, meta: remote });
            }
        }
    }
    if !is_present && update.whole {
        meta.cells.clear();
    }
    meta.deleted = deleted;
    cells.iter().for_each(|cell| meta.put(cell.meta));
    Ok(Ok((meta, cells)))
}

fn position(table: &Table, name: &str) -> Option<usize> {
    table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
}

/// A value as it is stored here: the identity of a parent row becomes its number here.
fn incoming(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    references: Option<&str>,
    value: &CellValue,
) -> Result<Result<Value, String>, SqlError> {
    let id = match value {
        CellValue::Plain(value) => return Ok(Ok(value.clone())),
        CellValue::Ref(id) => *id,
    };
    let Some(parent) = references.and_then(|name| catalog.table(name)) else {
        return Ok(Err("it references a row, through a column that is no foreign key here".into()));
    };
    Ok(match Entry::by_id(sql, parent, id)?.map(|entry| entry.key) {
        Some(LocalKey::Number(number)) => Ok(Value::Integer(number)),
        _ => Err(format!("it waits for the row of {} that it references", parent.name)),
    })
}

/// A constraint's refusal of a row, in words; other failures end the turn.
fn refused(outcome: Result<u64, SqlError>) -> Result<Option<String>, SqlError> {
    match outcome {
        Ok(_) => Ok(None),
        Err(error) if error.kind == SqlErrorKind::Constraint => Ok(Some(error.message)),
        Err(error) => Err(error),
    }
}

/// The tables that a `Rows` message names and this catalog lacks.
pub fn unknown_tables(catalog: &Catalog, rows: &Rows) -> HashMap<String, usize> {
    let mut unknown = HashMap::new();
    for header in rows.tables.iter().filter(|header| catalog.table(&header.name).is_none()) {
        *unknown.entry(header.name.clone()).or_insert(0) += 1;
    }
    unknown
}
