//! One tenant: its tables, and the history of each of its rows.

use std::collections::BTreeMap;

use federation_hub::model::{CellValue, ReplicaId, Rule, Seq, TableSchema};

use super::history::{Entry, History, RowKey, entries};
use super::raw::Raw;
use super::{Accepted, Difference, conflicts};

/// A row as somebody new must be told of it: its cells by column.
pub type Row = BTreeMap<String, CellValue>;

/// One tenant.
#[derive(Clone, Default)]
pub struct Tenant {
    /// Its tables, by their names in lower case, as they were first declared.
    tables: BTreeMap<String, TableSchema>,
    rows: BTreeMap<RowKey, History>,
    /// The last position that anybody was told of.
    read: Seq,
    /// The last batch of each replica.
    last: BTreeMap<ReplicaId, u64>,
}

impl Tenant {
    /// Takes in declarations: the first one of each point stands.
    pub fn declare(&mut self, schema: &[TableSchema]) {
        for declared in schema {
            let Some(table) = self.tables.get_mut(&declared.name.to_ascii_lowercase()) else {
                self.tables.insert(declared.name.to_ascii_lowercase(), declared.clone());
                continue;
            };
            if declared.contradiction(table).is_some() {
                continue;
            }
            for (column, rule) in &declared.agreed.rules {
                if table.agreed.rule(column).is_none() {
                    table.agreed.rules.push((column.clone(), *rule));
                }
            }
            for index in &declared.indexes {
                if !table.indexes.contains(index) {
                    table.indexes.push(index.clone());
                }
            }
        }
    }

    /// Somebody was told of everything up to this position.
    pub fn read(&mut self, cursor: Seq) {
        self.read = self.read.max(cursor);
    }

    /// Takes in a batch.
    pub fn accept(&mut self, batch: &Accepted<'_>) -> Result<(), Difference> {
        let last = self.last.entry(batch.replica).or_default();
        if batch.ack.n <= *last {
            return Ok(());
        }
        *last = batch.ack.n;
        // Nobody can have seen a part of what was accepted since the last snapshot, so that one position
        // does for all of it; and a base is a snapshot's, or that of the row itself in a later one.
        let position = self.read + 1;
        let writer = batch.replica.tie_break();
        let mut conflicts = 0;
        let mut told = Vec::new();
        for (at, change) in (0_u32..).zip(&batch.body.rows) {
            if batch.ack.rejected.iter().any(|(rejected, _)| *rejected == at) {
                continue;
            }
            let header = &batch.body.tables[usize::from(change.table)];
            let key = (header.name.to_ascii_lowercase(), change.id);
            let done: Vec<Entry> =
                change.writes.iter().flat_map(|write| entries(header, write, writer, position)).collect();
            let counted = conflicts::count(&self.raw(&key), &done, &self.rule(&key.0));
            if counted > 0 {
                told.push(format!("{counted} in {key:?}: {done:#?}\n against {:#?}", self.raw(&key)));
            }
            conflicts += counted;
            let history = self.rows.entry(key).or_default();
            history.number = history.number.or(change.number);
            history.entries.extend(done);
        }
        if conflicts == batch.ack.conflicts {
            return Ok(());
        }
        Err(format!(
            "batch {} of {}: the hub counts {} conflicts, and there are {conflicts}: {}\n{:#?}",
            batch.ack.n,
            batch.replica,
            batch.ack.conflicts,
            told.join("\n"),
            batch.body
        ))
    }

    /// The rows that live, as somebody new must be told of them.
    pub fn rows(&self) -> BTreeMap<RowKey, Row> {
        let mut rows = BTreeMap::new();
        for key in self.rows.keys() {
            let raw = self.raw(key);
            if raw.is_alive {
                let cells = raw.cells.into_iter().map(|(column, cell)| (column, cell.value));
                rows.insert(key.clone(), cells.collect());
            }
        }
        rows
    }

    /// A row as its own writes make it.
    fn raw(&self, key: &RowKey) -> Raw {
        self.rows.get(key).map(|history| Raw::of(history, &self.rule(&key.0))).unwrap_or_default()
    }

    /// The rules of a table's columns.
    fn rule(&self, table: &str) -> impl Fn(&str) -> Rule {
        let agreed = self.tables.get(table).map(|table| table.agreed.clone()).unwrap_or_default();
        move |column| agreed.rule(column).unwrap_or_default()
    }
}
