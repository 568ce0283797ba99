//! Composing: what changed of rows becomes the body of a batch.

use std::collections::HashMap;

use super::catalog::{Catalog, Table};
use super::collect::TurnLimits;
use super::collisions::{self, Found};
use super::context::Context;
use super::driver::{Sql, SqlError};
use super::local_key::LocalKey;
use super::outgoing::outgoing;
use super::refused_rows::{Places, RefusedRow};
use super::rows::Entry;
use crate::model::{ColumnIndex, Op, RowChange, Seq, TableHeader, Value, Write};
use crate::protocol::message::{BatchBody, Collision};

/// Gathers the rows of a batch.
pub struct Composer {
    /// The mark of the batch; 0 if none is composed.
    pub mark: u64,
    /// The mark of the last acknowledged batch.
    pub acked: u64,
    /// How much the turn does.
    pub limits: TurnLimits,
    /// The batch.
    pub body: BatchBody,
    /// The bytes of its values.
    pub bytes: usize,
    /// Rows that cannot be sent, each with the reason.
    pub rejected: Vec<String>,
    /// Those rows.
    pub refused: Vec<RefusedRow>,
    /// Where the rows of the batch are here.
    pub rows: Places,
    places: HashMap<i64, u16>,
}

impl Composer {
    /// Begins a batch after the one with the mark `acked`.
    pub fn new(mark: u64, acked: u64, limits: TurnLimits) -> Self {
        Self {
            mark,
            acked,
            limits,
            body: BatchBody::default(),
            places: HashMap::new(),
            bytes: 0,
            rejected: Vec::new(),
            refused: Vec::new(),
            rows: Places::new(),
        }
    }

    /// Adds what of a row is in this batch.
    pub fn add(
        &mut self,
        sql: &mut dyn Sql,
        context: &mut Context<'_>,
        table: &Table,
        entry: &Entry,
        row: Option<Vec<Value>>,
    ) -> Result<(), SqlError> {
        let mut change = RowChange {
            table: self.place(table)?,
            id: entry.id,
            number: match entry.key {
                LocalKey::Number(number) => Some(number),
                _ => None,
            },
            is_new: entry.meta.is_new_to_hub(self.acked),
            writes: Vec::new(),
        };
        if let Some(deleted) = entry.meta.deleted
            && let Some(pending) = deleted.pending.filter(|pending| pending.mark == self.mark)
        {
            let op = if pending.is_effect { Op::Gone } else { Op::Delete };
            change.writes.push(Write { stamp: deleted.stamp, base: pending.base, op });
        }
        if let Some(row) = row {
            self.add_cells(sql, context, table, entry, &row, &mut change.writes)?;
            self.add_adjustments(table, entry, &mut change.writes);
        }
        let (bytes, most) = (change.heap_bytes(), self.limits.row_bytes);
        if bytes > most {
            self.refused.push(RefusedRow { mark: self.mark, table: table.number, id: entry.id });
            self.rejected.push(format!(
                "a row of {} is not shared: its {bytes} bytes exceed the limit of {most}",
                table.name
            ));
        } else if !change.writes.is_empty() {
            self.bytes += bytes;
            self.body.rows.push(change);
            self.rows.push((table.number, entry.id));
        }
        Ok(())
    }

    fn add_cells(
        &self,
        sql: &mut dyn Sql,
        context: &mut Context<'_>,
        table: &Table,
        entry: &Entry,
        row: &[Value],
        writes: &mut Vec<Write>,
    ) -> Result<(), SqlError> {
        for (at, column) in table.columns.iter().enumerate() {
            let index = ColumnIndex::try_from(at)
                .map_err(|_| SqlError::corrupt(format!("{} has too many columns", table.name)))?;
            let Some(cell) = entry.meta.cell(column.number) else { continue };
            let Some(pending) = cell.pending.filter(|pending| pending.mark == self.mark) else { continue };
            let value = outgoing(sql, context, table, row, at)?;
            let same = |write: &&mut Write| {
                let is_cut = matches!(write.op, Op::Cut(_));
                write.stamp == cell.stamp
                    && write.base == pending.base
                    && is_cut == pending.is_effect
                    && !write.op.is_delete()
            };
            let present = writes.iter_mut().find(same).map(|write| &mut write.op);
            if let Some(Op::Set(cells) | Op::Cut(cells)) = present {
                cells.push((index, value));
            } else {
                let cells = vec![(index, value)];
                let op = if pending.is_effect { Op::Cut(cells) } else { Op::Set(cells) };
                writes.push(Write { stamp: cell.stamp, base: pending.base, op });
            }
        }
        Ok(())
    }

    /// Adds what this replica did to cells whose rule asks for that.
    fn add_adjustments(&self, table: &Table, entry: &Entry, writes: &mut Vec<Write>) {
        for (column, pending) in entry.meta.adjustments(self.mark) {
            let at = table.columns.iter().position(|own| own.number == column);
            let (Some(at), Some(cell)) =
                (at.and_then(|at| ColumnIndex::try_from(at).ok()), entry.meta.cell(column))
            else {
                continue;
            };
            let op = Op::Adjust(vec![(at, pending.what.clone())]);
            writes.push(Write { stamp: cell.stamp, base: pending.base, op });
        }
    }

    fn place(&mut self, table: &Table) -> Result<u16, SqlError> {
        if let Some(place) = self.places.get(&table.number) {
            return Ok(*place);
        }
        let place = u16::try_from(self.body.tables.len())
            .map_err(|_| SqlError::corrupt("more tables than a batch can name"))?;
        let columns = table.columns.iter().map(|column| column.name.clone()).collect();
        self.body.tables.push(TableHeader { name: table.name.clone(), columns });
        self.places.insert(table.number, place);
        Ok(place)
    }

    /// Adds the collisions that are to be told of.
    pub fn add_collisions(
        &mut self,
        sql: &mut dyn Sql,
        catalog: &Catalog,
        base: Seq,
    ) -> Result<(), SqlError> {
        for Found { table, rows, index, .. } in collisions::take(sql, catalog)? {
            let Some(table) = catalog.numbered(table) else { continue };
            let table = self.place(table)?;
            self.body.collisions.push(Collision { table, index, rows, base });
        }
        Ok(())
    }

    /// Whether the turn takes no other row: none fits into the batch, or its time is over.
    pub fn is_full(&mut self) -> bool {
        let limits = &mut self.limits;
        self.body.rows.len() >= limits.rows || self.bytes >= limits.bytes || limits.time.is_over()
    }
}
