//! What an update of the hub means to the row that is here: the pure half of applying.
//!
//! The hub's word is final for every write that it knows. It has merged them, and what it derives from
//! constraints that span rows may take a write back: two rows that were one are two again. So a cell is what the
//! hub says, unless this replica has written to it since, and a row that comes whole comes with the only delete
//! that counts.

use super::catalog::{Column, Table};
use super::driver::{Sql, SqlError};
use super::references::Reference;
use super::renamed_stamps::Meaning;
use super::resolver::Resolver;
use super::row_meta::{CellMeta, Pending, RowMeta, Tombstone};
use super::rows::{Entry, merged_cell, read_row};
use crate::model::{CellValue, KeyKind, Op, RowUpdate, Stamp, TableHeader, Value, Write};

/// A cell that the merge took from the hub.
pub struct Cell {
    /// Its position in the table's columns.
    pub at: usize,
    /// Its value, as it is stored here.
    pub value: Value,
    /// What to remember of it.
    pub meta: CellMeta,
}

/// What is remembered of a row after a merge, and the cells to write.
pub type MergedRow = (RowMeta, Vec<Cell>);

/// An update, the row that it is about, and what both are read with.
pub struct Arrival<'a> {
    /// The row's table here.
    pub table: &'a Table,
    /// The columns that the update names.
    pub header: &'a TableHeader,
    /// The update.
    pub update: &'a RowUpdate,
    /// What is remembered of the row.
    pub entry: Option<&'a Entry>,
    /// The mark of the last batch that the hub knew when it sent the update: one that was set aside may be older than
    /// what the hub has acknowledged since.
    pub acked: u64,
}

impl Arrival<'_> {
    /// Merges the update into what is remembered of the row: the new memory, and the cells to write. Or why
    /// the update means nothing here yet.
    pub fn merge(
        &self,
        sql: &mut dyn Sql,
        resolver: &mut Resolver<'_>,
    ) -> Result<Result<MergedRow, String>, SqlError> {
        let mut meta = self.entry.map(|entry| entry.meta.clone()).unwrap_or_default();
        let is_present = self.entry.is_some_and(Entry::is_present);
        if !is_present {
            meta.ruled.clear();
        }
        let mut cells = Vec::new();
        let mut waits = None;
        let mut deleted = meta.deleted.filter(|delete| {
            let is_unknown_to_hub = delete.pending.is_some_and(|pending| !pending.is_acked(self.acked));
            !self.update.whole || is_unknown_to_hub
        });
        for write in &self.update.writes {
            let sets = match &write.op {
                Op::Delete | Op::Gone => {
                    if deleted.is_none_or(|delete| delete.stamp < write.stamp) {
                        deleted = Some(Tombstone { stamp: write.stamp, pending: None });
                    }
                    continue;
                }
                Op::Set(sets) | Op::Cut(sets) => sets,
                // The hub tells what became of a value, not what was done to it.
                Op::Adjust(_) => continue,
            };
            for (index, value) in sets {
                let name = self.header.columns.get(usize::from(*index));
                let Some(at) = name.and_then(|name| self.table.position(name)) else {
                    // The hub keeps it until this application's schema has the column.
                    continue;
                };
                let column = &self.table.columns[at];
                if is_present && meta.is_yet_to_be_carried(column.number, &column.was) {
                    // What it holds has not been looked at under this name; then all is asked for again.
                    continue;
                }
                if is_present && Meaning::of(column).is_outgrown_by(write.stamp) {
                    // So it is when this application gives the name its later meaning.
                    continue;
                }
                let local = meta.cell(column.number).filter(|local| self.is_news(local)).copied();
                if is_present && !column.rule.adjusts() && local.is_some_and(|it| it.stamp > write.stamp) {
                    // What it references may be gone here with this very write.
                    continue;
                }
                let value = match value {
                    CellValue::Plain(value) => value.clone(),
                    CellValue::Ref(id) => {
                        let naming = self.naming(sql, resolver, column)?;
                        let named = |sql: &mut dyn Sql| self.named_parent(sql, column, naming);
                        match resolver.stored(sql, column, named, *id)? {
                            Ok(value) => value,
                            Err(reason) => {
                                waits.get_or_insert(reason);
                                Value::Null
                            }
                        }
                    }
                };
                if column.rule.adjusts() {
                    if let Some((value, meta)) = meta.arrive(column, write.stamp, &value, self.acked) {
                        cells.push(Cell { at, value, meta });
                    }
                    continue;
                }
                let remote = merged_cell(column.number, write.stamp, &value);
                if is_present && let Some(own) = self.restamped(&meta, column, &remote) {
                    meta.put(own);
                    continue;
                }
                let wins = local.is_none_or(|local| {
                    (remote.stamp, remote.fingerprint != local.fingerprint) > (local.stamp, false)
                });
                // A row that is not here is made of what the hub has, whatever is remembered of it.
                if wins || !is_present {
                    cells.push(Cell { at, value, meta: remote });
                }
            }
        }
        if !is_present && self.update.whole {
            meta.cells.clear();
        }
        for cell in &cells {
            meta.put(cell.meta);
        }
        if let Some(delete) = deleted.as_mut().filter(|_| self.says_dead()) {
            // What the hub knows lives on only by what it does not know.
            let known = meta.cells.iter().filter(|cell| !self.is_news(cell));
            delete.stamp = known.map(|cell| cell.stamp).fold(delete.stamp, Stamp::max);
        }
        meta.deleted = deleted;
        let is_told_alive = self.update.whole && !self.says_dead();
        if is_told_alive && !meta.is_alive() && deleted.is_some_and(|delete| delete.pending.is_none()) {
            // What it lives by was written to a column that is not here.
            meta.deleted = None;
        }
        // A row that is dead, perhaps with the very parent that is missing here, waits for nothing.
        Ok(match waits.filter(|_| meta.is_alive()) {
            Some(reason) => Err(reason),
            None => Ok((meta, cells)),
        })
    }

    /// Whether the update takes the place of what was here before syncing, and what the hub has not been told of.
    pub fn passes_over(&self, entry: &Entry, cells: &[Cell]) -> bool {
        cells.iter().filter(|cell| cell.meta.stamp == Stamp::ZERO).any(|cell| {
            let local = entry.meta.cell(cell.meta.column).filter(|local| self.is_news(local));
            local.is_some_and(|it| it.stamp == Stamp::ZERO && it.fingerprint != cell.meta.fingerprint)
        })
    }

    /// Whether somebody else began with this row as well, and only its number and content say that it is the same one.
    pub fn is_shared(&self, entry: &Entry, cells: &[Cell]) -> bool {
        let is_old = |write: &Write| write.op != Op::Delete && write.stamp == Stamp::ZERO;
        // What came from elsewhere has nothing of its own that was, or is, to be sent.
        let is_own = |cell: &CellMeta| cell.stamp == Stamp::ZERO && cell.pending.is_some();
        let is_alike = |cell: &Cell| {
            let local = entry.meta.cell(cell.meta.column);
            local.is_none_or(|local| local.fingerprint == cell.meta.fingerprint)
        };
        self.table.key_kind() == KeyKind::Number
            && entry.meta.cells.iter().any(is_own)
            && cells.iter().all(is_alike)
            && self.update.writes.iter().any(is_old)
    }

    /// Whether a cell holds a write that the hub did not know when it sent the update.
    fn is_news(&self, cell: &CellMeta) -> bool {
        cell.is_unknown_to_hub(self.acked)
    }

    /// This replica's cell, as it is sent again, where the hub tells what the column's name stood for before.
    fn restamped(&self, meta: &RowMeta, column: &Column, remote: &CellMeta) -> Option<CellMeta> {
        let own = meta.cell(column.number).filter(|own| own.fingerprint != remote.fingerprint)?;
        let stamp = Meaning::of(column).restamp(own.stamp, remote.stamp).filter(|_| !self.says_dead())?;
        Some(CellMeta {
            stamp,
            pending: Some(Pending { base: self.update.seq, mark: 0, is_effect: false }),
            ..*own
        })
    }

    /// Whether the hub says that the row is dead.
    fn says_dead(&self) -> bool {
        let delete = self.update.writes.iter().find(|write| write.op == Op::Delete);
        delete.is_some_and(|delete| self.update.writes.iter().all(|write| write.stamp <= delete.stamp))
    }

    /// What the update writes to the column that names the table which a column references: a number of a row of its own,
    /// perhaps, which it has here. None if it writes nothing there, or waits for that row.
    fn naming(
        &self,
        sql: &mut dyn Sql,
        resolver: &mut Resolver<'_>,
        column: &Column,
    ) -> Result<Option<Value>, SqlError> {
        let Some(Reference::ByColumn { column: naming, .. }) = &column.references else { return Ok(None) };
        let mut written = None;
        for write in &self.update.writes {
            let (Op::Set(sets) | Op::Cut(sets)) = &write.op else { continue };
            for (index, value) in sets {
                let name = self.header.columns.get(usize::from(*index));
                if name.and_then(|name| self.table.position(name)) == Some(*naming) {
                    written = Some(value);
                }
            }
        }
        Ok(match written {
            Some(CellValue::Plain(value)) => Some(value.clone()),
            // Which of several tables that is a row of, is not asked once more.
            Some(CellValue::Ref(id)) => {
                resolver.stored(sql, &self.table.columns[*naming], |_| Ok(None), *id)?.ok()
            }
            None => None,
        })
    }

    /// The table that the row names as the one that a column references: by what the update writes, or else by what is
    /// here.
    fn named_parent(
        &self,
        sql: &mut dyn Sql,
        column: &Column,
        written: Option<Value>,
    ) -> Result<Option<String>, SqlError> {
        let Some(reference @ Reference::ByColumn { column: naming, .. }) = &column.references else {
            return Ok(None);
        };
        let mut row = vec![Value::Null; self.table.columns.len()];
        if let Some(Some(key)) = self.entry.map(|entry| entry.key.values()).transpose()?
            && let Some(here) = read_row(sql, self.table, &key)?
        {
            row = here;
        }
        if let Some(written) = written {
            row[*naming] = written;
        }
        Ok(reference.parent(&row).map(str::to_owned))
    }
}
