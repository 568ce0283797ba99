//! The agent's half of the self-check: fingerprints of the rows that are really in the application's tables.
//!
//! Each sync looks at a bounded slice and asks the hub what it has there as of this replica's cursor. Rows that
//! may rightly differ are left out: unsent ones, and those of which an update is set aside.

use std::collections::HashMap;

use super::catalog::{Catalog, Column, Table, quote, quote_list};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::Fields;
use super::identity::row_fingerprint;
use super::local_key::LocalKey;
use super::rows::{Entry, Sending, column_list};
use super::table_info::Affinity;
use crate::model::{CellValue, RowId, Value};
use crate::protocol::check::{Fingerprint, Print, Prints, Range};

/// Rows of one range that are looked at, to narrow it down.
const ROWS_OF_RANGE: usize = 256;

/// The parts that a range is split into to find what differs.
pub const PARTS: usize = 8;

/// Rows that are read by one statement.
const ROWS_AT_ONCE: usize = 16;

/// The bytes of rows after which a look reads no more: the application waits meanwhile.
const MAX_BYTES: usize = 1 << 20;

/// The bytes of the largest row that is compared: the hub may have refused a larger one, which then stays as it is.
const MAX_ROW_BYTES: usize = 8 << 20;

/// A range of at most so many rows is fetched, and not split any more.
const ROWS_TO_FETCH: usize = 8;

/// Rows of one table, by their identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The table.
    pub table: String,
    /// The rows come after this one; none: from the first.
    pub after: Option<RowId>,
    /// The last row; none: to the end.
    pub upto: Option<RowId>,
}

impl Bounds {
    /// Whether a row is among them.
    pub fn contains(&self, id: RowId) -> bool {
        self.after.is_none_or(|after| id > after) && self.upto.is_none_or(|upto| id <= upto)
    }
}

/// A range in which something differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Which.
    pub bounds: Bounds,
    /// How many rows of it the bookkeeping knows.
    rows: usize,
}

impl Suspect {
    /// One that is to be fetched, whatever is in it.
    pub fn few(bounds: Bounds) -> Self {
        Self { bounds, rows: 0 }
    }

    /// Whether it is small enough to fetch what the hub has in it.
    pub fn is_small(&self) -> bool {
        self.rows <= ROWS_TO_FETCH
    }
}

/// What a look found of a row that the bookkeeping knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is there.
    Here(Fingerprint),
    /// It should be there, and is not.
    Missing,
    /// It is not there, and should not be.
    Absent,
    /// It may rightly differ from what the hub has.
    LeftOut,
}

/// Rows as they are in the application's table.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Which.
    pub bounds: Bounds,
    /// The table's columns.
    columns: Vec<String>,
    /// What was found, in the order of the identities.
    pub rows: Vec<(RowId, Seen)>,
}

impl Slice {
    /// What was found in a range of a table.
    pub fn of(table: &Table, bounds: Bounds, rows: Vec<(RowId, Seen)>) -> Self {
        let columns = table.columns.iter().filter(|column| column.outgrown.is_none());
        let columns = columns.map(|column| column.name.clone()).collect();
        Self { bounds, columns, rows }
    }

    /// What the hub is asked.
    pub fn range(&self) -> Range {
        let left_out = self.rows.iter().filter(|(_, seen)| *seen == Seen::LeftOut).map(|(id, _)| *id);
        Range {
            table: self.bounds.table.clone(),
            columns: self.columns.clone(),
            after: self.bounds.after,
            upto: self.bounds.upto,
            left_out: left_out.collect(),
        }
    }

    /// Where something is not as the hub has it.
    fn suspects(&self, print: &Print) -> Vec<Suspect> {
        let is_within = |id: &RowId| print.upto.is_none_or(|upto| *id <= upto);
        let rows: Vec<&(RowId, Seen)> = self.rows.iter().filter(|(id, _)| is_within(id)).collect();
        let own: Fingerprint = rows
            .iter()
            .filter_map(|(id, seen)| match seen {
                Seen::Here(print_here) if !print.newer.contains(id) => Some(*print_here),
                _ => None,
            })
            .sum();
        if own == print.sum {
            return Vec::new();
        }
        let upto = print.upto.or(self.bounds.upto);
        let bounds = Bounds { upto, ..self.bounds.clone() };
        let mut suspects = vec![Suspect { bounds, rows: rows.len() }];
        if print.upto.is_some() {
            // The hub has more rows there than this replica: nobody has looked at the rest.
            let bounds = Bounds { after: print.upto, ..self.bounds.clone() };
            suspects.push(Suspect { bounds, rows: self.rows.len() - rows.len() });
        }
        suspects
    }

    /// Parts of it, of about the same size.
    fn split(self) -> Vec<Self> {
        let size = self.rows.len().div_ceil(PARTS).max(1);
        let mut after = self.bounds.after;
        let mut parts: Vec<Self> = Vec::with_capacity(PARTS);
        for rows in self.rows.chunks(size) {
            let upto = rows.last().map(|(id, _)| *id);
            let bounds = Bounds { table: self.bounds.table.clone(), after, upto };
            parts.push(Self { bounds, columns: self.columns.clone(), rows: rows.to_vec() });
            after = upto;
        }
        match parts.last_mut() {
            Some(last) => last.bounds.upto = self.bounds.upto,
            None => parts.push(self),
        }
        parts
    }
}

/// Where something is not as the hub has it.
pub fn suspects(slices: &[Slice], prints: &Prints) -> Vec<Suspect> {
    let compared = slices.iter().zip(prints);
    compared.filter_map(|(slice, print)| Some(slice.suspects(print.as_ref()?))).flatten().collect()
}

/// Tables whose rows are still being looked at, or asked for, or are not shared.
pub fn waiting_tables(sql: &mut dyn Sql) -> Result<Vec<i64>, SqlError> {
    let mut waiting = Vec::new();
    let statement = "SELECT tbl FROM main._federation_table WHERE scan IS NOT NULL OR refresh OR is_out OR refused IS NOT NULL";
    sql.query(statement, &[], &mut |row| {
        waiting.push(Fields::of(row).integer()?);
        Ok(())
    })?;
    Ok(waiting)
}

/// Looks at parts of ranges. Those of tables that are not here any more, or wait for something, are passed over.
pub fn look_at_parts(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    ranges: &[Bounds],
) -> Result<Vec<Slice>, SqlError> {
    let waiting = waiting_tables(sql)?;
    let mut parts = Vec::new();
    for bounds in ranges {
        let Some(table) = catalog.table(&bounds.table).filter(|table| !waiting.contains(&table.number))
        else {
            continue;
        };
        parts.extend(look_at(sql, catalog, table, bounds.clone(), ROWS_OF_RANGE)?.split());
    }
    Ok(parts)
}

/// Looks at the first `limit` rows of a range; the slice says how far that is.
pub fn look_at(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    table: &Table,
    mut bounds: Bounds,
    limit: usize,
) -> Result<Slice, SqlError> {
    let entries = Entry::in_range(sql, table, bounds.after, bounds.upto, limit as u64)?;
    if entries.len() == limit {
        bounds.upto = entries.last().map(|entry| entry.id).or(bounds.upto);
    }
    let mut rows = Vec::with_capacity(entries.len());
    let mut bytes = 0;
    for together in entries.chunks(ROWS_AT_ONCE) {
        if bytes > MAX_BYTES {
            bounds.upto = rows.last().map(|(id, _)| *id);
            break;
        }
        let mut keys = Vec::with_capacity(together.len());
        for entry in together.iter().filter(|entry| is_comparable(entry) && entry.is_present()) {
            keys.extend(entry.key.values()?);
        }
        let here = Here::read(sql, catalog, table, &keys)?;
        bytes += here.heap_bytes();
        rows.extend(together.iter().map(|entry| (entry.id, here.seen(entry))));
    }
    Ok(Slice::of(table, bounds, rows))
}

/// Whether what the hub has of the row is what should be here.
pub fn is_comparable(entry: &Entry) -> bool {
    entry.sending == Sending::Clean && !entry.meta.held
}

/// Rows of one table, as they are, by their keys.
pub struct Here<'a> {
    table: &'a Table,
    identities: Identities,
    rows: HashMap<LocalKey, Vec<Value>>,
    /// What they hold as it travels; none where a number is no row's that is known, or the row is too large.
    travelling: HashMap<LocalKey, Option<Vec<CellValue>>>,
}

impl<'a> Here<'a> {
    /// No row yet.
    pub fn new(catalog: &Catalog, table: &'a Table) -> Self {
        let identities = Identities::of(catalog, table);
        Self { table, identities, rows: HashMap::new(), travelling: HashMap::new() }
    }

    /// Reads the rows that have these keys.
    pub fn read(
        sql: &mut dyn Sql,
        catalog: &Catalog,
        table: &'a Table,
        keys: &[Vec<Value>],
    ) -> Result<Self, SqlError> {
        let mut here = Self::new(catalog, table);
        if keys.is_empty() {
            return Ok(here);
        }
        let statement = here.select("", "", keys.len());
        let params: Vec<ValueRef<'_>> = keys.iter().flatten().map(ValueRef::from).collect();
        sql.query(&statement, &params, &mut |row| here.take(row))?;
        Ok(here)
    }

    /// A SELECT that finds rows by so many keys, with other columns before and after those that [`Self::take`] wants.
    pub fn select(&self, before: &str, after: &str, keys: usize) -> String {
        let columns = self.table.key_columns();
        let mark = format!("({})", vec!["?"; columns.len()].join(", "));
        format!(
            "SELECT {before}{0}, {1}{2}{after} FROM main.{3} AS _federation_t WHERE ({0}) IN (VALUES {4})",
            quote_list(columns),
            column_list(self.table),
            self.identities.sql(self.table),
            quote(&self.table.name),
            vec![mark.as_str(); keys].join(", ")
        )
    }

    /// How many columns [`Self::take`] wants.
    pub fn width(&self) -> usize {
        self.table.key_columns().len() + self.table.columns.len() + self.identities.parents.len()
    }

    /// Takes a row that [`Self::select`] has found.
    pub fn take(&mut self, row: &[Value]) -> Result<(), SqlError> {
        let (key, rest) = row.split_at(self.table.key_columns().len());
        let (cells, parents) = rest.split_at(self.table.columns.len());
        let key = LocalKey::of(self.table, key)?;
        let bytes: usize = cells.iter().map(Value::heap_bytes).sum();
        let travelling = self.identities.travelling(self.table, cells, parents)?;
        self.travelling.insert(key.clone(), travelling.filter(|_| bytes <= MAX_ROW_BYTES));
        self.rows.insert(key, cells.to_vec());
        Ok(())
    }

    /// What the rows take.
    pub fn heap_bytes(&self) -> usize {
        self.rows.values().flatten().map(Value::heap_bytes).sum()
    }

    /// The cells of a row, as they are stored.
    pub fn row(&self, key: &LocalKey) -> Option<&Vec<Value>> {
        self.rows.get(key)
    }

    /// What is to be said of a row.
    pub fn seen(&self, entry: &Entry) -> Seen {
        if !is_comparable(entry) {
            return Seen::LeftOut;
        }
        if !entry.is_present() {
            return Seen::Absent;
        }
        match self.travelling.get(&entry.key) {
            None => Seen::Missing,
            Some(None) => Seen::LeftOut,
            Some(Some(cells)) => Seen::Here(fingerprint(self.table, entry, cells)),
        }
    }
}

/// A row's fingerprint, over the columns of which the hub has told something, or been told.
fn fingerprint(table: &Table, entry: &Entry, cells: &[CellValue]) -> Fingerprint {
    let is_known = |it: &Column| it.outgrown.is_none() && entry.meta.cell(it.number).is_some();
    let known = table.columns.iter().zip(cells).filter(|(it, _)| is_known(it));
    let mut cells: Vec<(String, &CellValue)> =
        known.map(|(column, value)| (column.name.to_ascii_lowercase(), value)).collect();
    cells.sort_by(|a, b| a.0.cmp(&b.0));
    row_fingerprint(entry.id, cells.iter().map(|(name, value)| (name.as_str(), *value)))
}

/// The identities of the rows that a table's rows reference, read together with them.
struct Identities {
    /// For each, the column that holds the number, and the table whose number it is: its name and its own number.
    parents: Vec<(usize, String, i64)>,
}

impl Identities {
    fn of(catalog: &Catalog, table: &Table) -> Self {
        let mut parents = Vec::new();
        for (at, column) in table.columns.iter().enumerate() {
            let Some(reference) = &column.references else { continue };
            for name in reference.parents() {
                parents.extend(catalog.table(name).map(|parent| (at, name.to_owned(), parent.number)));
            }
        }
        Self { parents }
    }

    /// Further columns of a SELECT.
    fn sql(&self, table: &Table) -> String {
        let column = |(at, _, parent): &(usize, String, i64)| {
            let column = &table.columns[*at];
            let number = number_sql(column.affinity, &format!("_federation_t.{}", quote(&column.name)));
            format!(", (SELECT id FROM main._federation_row WHERE tbl = {parent} AND k = {number})")
        };
        self.parents.iter().map(column).collect()
    }

    /// A row's cells as they travel; none if it references a row that is not known.
    fn travelling(
        &self,
        table: &Table,
        cells: &[Value],
        parents: &[Value],
    ) -> Result<Option<Vec<CellValue>>, SqlError> {
        let mut travelling: Vec<CellValue> = cells.iter().cloned().map(Into::into).collect();
        for ((at, name, _), found) in self.parents.iter().zip(parents) {
            let column = &table.columns[*at];
            let is_meant =
                column.references.as_ref().and_then(|reference| reference.parent(cells)) == Some(name);
            if !is_meant || column.affinity.number(&cells[*at]).is_none() {
                continue;
            }
            let Value::Blob(id) = found else { return Ok(None) };
            let id =
                RowId::from_slice(id).ok_or_else(|| SqlError::corrupt("an identity of another length"))?;
            travelling[*at] = CellValue::Ref(id);
        }
        Ok(Some(travelling))
    }
}

/// The number that a column holds, or NULL: what [`Affinity::number`] says. A CASE has no affinity of its own, which
/// would keep SQLite from using the index.
pub fn number_sql(affinity: Affinity, column: &str) -> String {
    let number = format!("CAST({column} AS INTEGER)");
    let (kind, stored) = match affinity {
        Affinity::Integer => return format!("CASE WHEN typeof({column}) = 'integer' THEN {column} END"),
        Affinity::Text => ("text", format!("CAST({number} AS TEXT) COLLATE BINARY")),
        Affinity::Real => ("real", format!("CAST({number} AS REAL)")),
    };
    format!("CASE WHEN typeof({column}) = '{kind}' AND {stored} = {column} THEN {number} END")
}
