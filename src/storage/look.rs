//! The agent's half of the self-check: fingerprints of the rows that are really in the application's tables.
//!
//! Each sync looks at a bounded slice and asks the hub what it has there as of this replica's cursor. Rows that
//! may rightly differ are left out: unsent ones, and those of which an update is set aside.

use std::collections::HashMap;

use super::catalog::{Catalog, Table, quote, quote_list};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::Fields;
use super::identity::row_fingerprint;
use super::rows::{Entry, LocalKey, Sending, column_list};
use super::table_info::Affinity;
use crate::model::{CellValue, RowId, Value};
use crate::protocol::check::{Fingerprint, Print, Prints, Range};

/// Rows that one sync looks at.
pub const ROWS_PER_SYNC: usize = 64;

/// Tables that one sync looks at.
const TABLES_PER_SYNC: usize = 8;

/// The parts that a range is split into to find what differs.
pub const PARTS: usize = 8;

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

/// Where the look at a replica's rows stands: it goes through all of them, again and again. Kept in memory, so
/// that a sync that finds nothing writes nothing; and begun anywhere, because many an agent does not live long
/// enough for a whole round.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Which table is next, counted around.
    table: usize,
    after: Option<RowId>,
}

impl Walk {
    /// One that begins at a place that these random bytes choose.
    pub fn starting_at(random: [u8; 16]) -> Self {
        Self { table: usize::from(u16::from_be_bytes([random[14], random[15]])), after: Some(RowId(random)) }
    }

    /// Looks at the next rows. The log must be settled.
    pub fn look(&mut self, sql: &mut dyn Sql, catalog: &Catalog) -> Result<Vec<Slice>, SqlError> {
        let mut slices = Vec::new();
        if catalog.tables.is_empty() {
            return Ok(slices);
        }
        let waiting = waiting_tables(sql)?;
        let (mut left, begun_after) = (ROWS_PER_SYNC, self.after);
        // One more than there are: the first may have been begun in its middle.
        for turn in 0..TABLES_PER_SYNC.min(catalog.tables.len() + 1) {
            let table = &catalog.tables[self.table % catalog.tables.len()];
            let upto = begun_after.filter(|_| turn == catalog.tables.len());
            if turn == catalog.tables.len() && upto.is_none() {
                break;
            }
            if !waiting.contains(&table.number) {
                let bounds = Bounds { table: table.name.clone(), after: self.after, upto };
                let slice = look_at(sql, catalog, table, bounds, left)?;
                left -= slice.rows.len().min(left);
                let upto = slice.bounds.upto;
                slices.push(slice);
                if upto.is_some() {
                    self.after = upto;
                    return Ok(slices);
                }
            }
            (self.table, self.after) = ((self.table + 1) % catalog.tables.len(), None);
            if left == 0 {
                break;
            }
        }
        Ok(slices)
    }
}

/// Tables whose rows are still being looked at, or asked for.
fn waiting_tables(sql: &mut dyn Sql) -> Result<Vec<i64>, SqlError> {
    let mut waiting = Vec::new();
    let statement = "SELECT tbl FROM _federation_table WHERE scan IS NOT NULL OR refresh OR is_out";
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
        parts.extend(look_at(sql, catalog, table, bounds.clone(), ROWS_PER_SYNC)?.split());
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
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries.iter().filter(|entry| is_comparable(entry) && entry.is_present()) {
        keys.extend(entry.key.values()?);
    }
    let here = Here::read(sql, catalog, table, &keys)?;
    let columns: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    let rows = entries.iter().map(|entry| (entry.id, here.seen(table, entry))).collect();
    Ok(Slice { bounds, columns, rows })
}

/// Whether what the hub has of the row is what should be here.
pub fn is_comparable(entry: &Entry) -> bool {
    entry.sending == Sending::Clean && !entry.meta.held
}

/// Rows of one table, as they are, by their keys.
pub struct Here {
    rows: HashMap<LocalKey, Vec<Value>>,
    /// What they hold as it travels; none where a number is no row's that is known.
    travelling: HashMap<LocalKey, Option<Vec<CellValue>>>,
}

impl Here {
    /// Reads the rows that have these keys.
    pub fn read(
        sql: &mut dyn Sql,
        catalog: &Catalog,
        table: &Table,
        keys: &[Vec<Value>],
    ) -> Result<Self, SqlError> {
        let mut here = Self { rows: HashMap::new(), travelling: HashMap::new() };
        if keys.is_empty() {
            return Ok(here);
        }
        let width = table.key_columns().len();
        let identities = Identities::of(catalog, table);
        let mark = format!("({})", vec!["?"; width].join(", "));
        let statement = format!(
            "SELECT {0}, {1}{2} FROM main.{3} AS _federation_t WHERE ({0}) IN (VALUES {4})",
            quote_list(table.key_columns()),
            column_list(table),
            identities.sql(table),
            quote(&table.name),
            vec![mark.as_str(); keys.len()].join(", ")
        );
        let params: Vec<ValueRef<'_>> = keys.iter().flatten().map(ValueRef::from).collect();
        sql.query(&statement, &params, &mut |row| {
            let (key, rest) = row.split_at(width);
            let (cells, parents) = rest.split_at(table.columns.len());
            let key = LocalKey::of(table, key)?;
            here.travelling.insert(key.clone(), identities.travelling(table, cells, parents)?);
            here.rows.insert(key, cells.to_vec());
            Ok(())
        })?;
        Ok(here)
    }

    /// The cells of a row, as they are stored.
    pub fn row(&self, key: &LocalKey) -> Option<&Vec<Value>> {
        self.rows.get(key)
    }

    /// What is to be said of a row.
    pub fn seen(&self, table: &Table, entry: &Entry) -> Seen {
        if !is_comparable(entry) {
            return Seen::LeftOut;
        }
        if !entry.is_present() {
            return Seen::Absent;
        }
        match self.travelling.get(&entry.key) {
            None => Seen::Missing,
            Some(None) => Seen::LeftOut,
            Some(Some(cells)) => Seen::Here(fingerprint(table, entry, cells)),
        }
    }
}

/// A row's fingerprint, over the columns of which the hub has told something, or been told.
fn fingerprint(table: &Table, entry: &Entry, cells: &[CellValue]) -> Fingerprint {
    let known = table.columns.iter().zip(cells).filter(|(it, _)| entry.meta.cell(it.number).is_some());
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
            format!(", (SELECT id FROM _federation_row WHERE tbl = {parent} AND k = {number})")
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
fn number_sql(affinity: Affinity, column: &str) -> String {
    let number = format!("CAST({column} AS INTEGER)");
    let (kind, stored) = match affinity {
        Affinity::Integer => return format!("CASE WHEN typeof({column}) = 'integer' THEN {column} END"),
        Affinity::Text => ("text", format!("CAST({number} AS TEXT) COLLATE BINARY")),
        Affinity::Real => ("real", format!("CAST({number} AS REAL)")),
    };
    format!("CASE WHEN typeof({column}) = '{kind}' AND {stored} = {column} THEN {number} END")
}
