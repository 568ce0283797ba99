//! The way through a replica's rows that the self-check takes, a few rows in each sync.
//!
//! A sync that has something to do *looks*: it reads what the bookkeeping knows of some rows, then these rows. A sync
//! that has nothing to do only *glances*: in the one statement that tells it so it reads what the bookkeeping knows
//! of some rows, the rows themselves, and the keys by which the next glance will find the following ones. (A
//! natural key is encoded in the bookkeeping, so that SQL alone cannot go from there to the row.)

use super::bookkeeping::{PROBE_COLUMNS, Probe, probe, probe_sql};
use super::catalog::{Catalog, Table};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
use super::local_key::LocalKey;
use super::look::{Bounds, Here, Seen, Slice, is_comparable, look_at};
use super::rows::{Entry, beginning};
use super::strays::capture_strays;
use crate::model::{RowId, Value};

/// Rows that one look takes in.
const ROWS_PER_LOOK: usize = 64;

/// Tables that one look takes in.
const TABLES_PER_LOOK: usize = 8;

/// Rows that one glance takes in.
const ROWS_PER_GLANCE: usize = 8;

/// The bytes of rows from which on a glance takes in fewer of them: the application waits meanwhile.
const GLANCE_BYTES: usize = 256 << 10;

/// SQLite's limit of columns, with room for what is read besides.
const MAX_WIDTH: usize = 1_900;

/// Where the look at a replica's rows stands: it goes through all of them, again and again. Kept in memory, so
/// that a sync that finds nothing writes nothing; and begun anywhere, because many an agent does not live long
/// enough for a whole round.
#[derive(Clone, Debug)]
pub struct Walk {
    /// Which table is next, counted around.
    table: usize,
    /// The last row of it that was looked at.
    after: Option<RowId>,
    /// The keys of the rows behind that, as the last glance saw them.
    keys: Vec<Vec<Value>>,
    /// Whether these are the last ones of the table.
    is_end: bool,
    /// How many rows the next glance takes in: fewer where they are large.
    size: usize,
    /// Where the look for rows that the bookkeeping does not know stands: which table, and its last key.
    strays: (usize, Option<Vec<Value>>),
}

impl Walk {
    /// One that begins at a place that these random bytes choose.
    pub fn starting_at(random: [u8; 16]) -> Self {
        let table = usize::from(u16::from_be_bytes([random[14], random[15]]));
        let (after, strays) = (Some(RowId(random)), (table, None));
        Self { table, after, keys: Vec::new(), is_end: false, size: ROWS_PER_GLANCE, strays }
    }

    /// Looks at the next rows. The log must be settled.
    pub fn look(
        &mut self,
        sql: &mut dyn Sql,
        catalog: &Catalog,
        waiting: &[i64],
    ) -> Result<Vec<Slice>, SqlError> {
        let mut slices = Vec::new();
        (self.keys, self.is_end) = (Vec::new(), false);
        if catalog.tables.is_empty() {
            return Ok(slices);
        }
        let (mut left, begun_after) = (ROWS_PER_LOOK, self.after);
        // One more than there are: the first may have been begun in its middle.
        for turn in 0..TABLES_PER_LOOK.min(catalog.tables.len() + 1) {
            let table = &catalog.tables[self.table % catalog.tables.len()];
            let upto = begun_after.filter(|_| turn == catalog.tables.len());
            if turn == catalog.tables.len() && upto.is_none() {
                break;
            }
            if !waiting.contains(&table.number) && !is_too_wide(catalog, table) {
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

impl Walk {
    /// Looks for rows that the bookkeeping does not know, and captures them. Returns how many there are, and in
    /// which table. The log must be settled.
    pub fn capture_strays<'a>(
        &mut self,
        sql: &mut dyn Sql,
        catalog: &'a Catalog,
        waiting: &[i64],
    ) -> Result<Option<(u64, &'a Table)>, SqlError> {
        let (at, after) = &self.strays;
        let Some(table) = catalog.tables.get(at % catalog.tables.len().max(1)) else { return Ok(None) };
        if waiting.contains(&table.number) {
            self.strays = (at.wrapping_add(1), None);
            return Ok(None);
        }
        let strays = capture_strays(sql, table, after.as_ref())?;
        self.strays = match strays.last {
            Some(last) => (*at, Some(last)),
            None => (at.wrapping_add(1), None),
        };
        Ok((strays.captured > 0).then_some((strays.captured, table)))
    }
}

/// Whether a table's rows are too wide to be read together with what they reference.
fn is_too_wide(catalog: &Catalog, table: &Table) -> bool {
    Here::new(catalog, table).width() > MAX_WIDTH
}

impl Walk {
    /// The table that is next, and the one after it.
    fn current<'a>(&self, catalog: &'a Catalog) -> Option<(&'a Table, &'a Table)> {
        let table = |at: usize| &catalog.tables[at % catalog.tables.len()];
        let is_empty = catalog.tables.is_empty();
        (!is_empty).then(|| (table(self.table), table(self.table + 1)))
    }

    /// Probes the replica, and glances at some rows in the same statement. What is seen of them means something only
    /// if the log is settled and the catalog of the present schema.
    pub fn glance(&self, sql: &mut dyn Sql, catalog: &Catalog) -> Result<(Probe, Option<Glanced>), SqlError> {
        let Some((table, next)) = self.current(catalog) else { return Ok((probe(sql)?, None)) };
        if is_too_wide(catalog, table) {
            let walk = self.beyond(Vec::new(), false);
            return Ok((probe(sql)?, Some(Glanced { look: Vec::new(), walk })));
        }
        let mut glance = Glance {
            here: Here::new(catalog, table),
            probe: None,
            entries: Vec::new(),
            next_keys: Vec::new(),
            next_rows: 0,
        };
        let read = glance.read(sql, self, table, next);
        let Some(probe) = glance.probe.take().filter(|_| read.is_ok()) else {
            // The table is not what it was any more, or the bookkeeping is gone: the probe alone says which.
            return Ok((probe(sql)?, None));
        };
        let glanced = self.judge(table, glance)?;
        Ok((probe, Some(glanced)))
    }

    /// What a glance means, and where the next one goes.
    fn judge(&self, table: &Table, glance: Glance<'_>) -> Result<Glanced, SqlError> {
        let Glance { here, entries, next_keys, next_rows, .. } = glance;
        let mut expected = Vec::new();
        let mut rows = Vec::with_capacity(entries.len());
        let mut is_prepared = true;
        for entry in &entries {
            let mut seen = here.seen(entry);
            if is_comparable(entry) && entry.is_present() {
                let key = entry.key.values()?.unwrap_or_default();
                if !self.keys.contains(&key) {
                    // Nobody has looked for it.
                    (seen, is_prepared) = (Seen::LeftOut, false);
                }
                expected.push(key);
            }
            rows.push((entry.id, seen));
        }
        let is_end = entries.len() < self.size;
        if !is_prepared && self.keys.is_empty() {
            let walk = Self { keys: expected, is_end, ..self.clone() };
            return Ok(Glanced { look: Vec::new(), walk });
        }
        let upto = entries.last().map(|entry| entry.id).filter(|_| !is_end);
        let size = if here.heap_bytes() > GLANCE_BYTES { self.size.div_ceil(2) } else { self.size };
        let is_next_end = next_rows < size;
        let keys = if is_end == self.is_end { next_keys } else { Vec::new() };
        let walk = if is_end {
            self.beyond(keys, is_next_end)
        } else {
            Self { after: upto, keys, is_end: is_next_end, size, ..self.clone() }
        };
        let bounds = Bounds { table: table.name.clone(), after: self.after, upto };
        Ok(Glanced { look: vec![Slice::of(table, bounds, rows)], walk })
    }

    /// Goes on from where a glance has come, if there was one; what it has seen.
    pub fn go_on(&mut self, glanced: Option<Glanced>) -> Vec<Slice> {
        let Some(Glanced { look, walk }) = glanced else { return Vec::new() };
        *self = walk;
        look
    }

    /// The beginning of the next table.
    fn beyond(&self, keys: Vec<Vec<Value>>, is_end: bool) -> Self {
        let strays = self.strays.clone();
        Self { table: self.table.wrapping_add(1), after: None, keys, is_end, size: ROWS_PER_GLANCE, strays }
    }
}

/// What a glance has seen, and where the next one goes.
#[derive(Debug)]
pub struct Glanced {
    /// Rows as they are; nothing if the way to them had to be found first.
    pub look: Vec<Slice>,
    /// The walk from here on.
    pub walk: Walk,
}

/// What one statement has read.
struct Glance<'a> {
    here: Here<'a>,
    probe: Option<Probe>,
    entries: Vec<Entry>,
    next_keys: Vec<Vec<Value>>,
    /// How many rows these are the keys of, the dead among them.
    next_rows: usize,
}

/// What the first column of a glance says of a row; of the probe it is SQLite's schema version.
mod part {
    pub const ENTRY: i64 = -1;
    pub const NEXT_KEY: i64 = -2;
    pub const ROW: i64 = -3;
}

impl Glance<'_> {
    fn read(&mut self, sql: &mut dyn Sql, walk: &Walk, table: &Table, next: &Table) -> Result<(), SqlError> {
        let after = walk.after.as_ref().map_or(&[][..], |id| &id.0[..]);
        let (rows, keys) = (integer(walk.size as u64)?, integer(ROWS_PER_GLANCE as u64)?);
        let (next_table, next_after, offset) =
            if walk.is_end { (next.number, &[][..], 0.into()) } else { (table.number, after, rows) };
        let mut params =
            vec![table.number.into(), ValueRef::Blob(beginning(after)), ValueRef::Blob(after), rows];
        params.extend([
            next_table.into(),
            ValueRef::Blob(beginning(next_after)),
            ValueRef::Blob(next_after),
            keys,
            offset,
        ]);
        let width = table.key_columns().len();
        let keys = walk.keys.iter().flatten().map(ValueRef::from).chain(std::iter::repeat(ValueRef::Null));
        params.extend(keys.take(ROWS_PER_GLANCE * width));
        let width = self.here.width();
        let statement = self.statement();
        sql.query(&statement, &params, &mut |row| {
            match row[0] {
                Value::Integer(part::ENTRY) => self.entries.push(Entry::read(&mut row[1..5])?),
                Value::Integer(part::NEXT_KEY) => {
                    self.next_keys.extend(LocalKey::read(&mut row[1])?.values()?);
                    self.next_rows += 1;
                }
                Value::Integer(part::ROW) => self.here.take(&row[1..=width])?,
                _ => self.probe = Some(Probe::read(&mut Fields::of(&mut row[..PROBE_COLUMNS]))?),
            }
            Ok(())
        })
    }

    fn statement(&self) -> String {
        let own = self.here.width() + 1;
        let width = own.max(PROBE_COLUMNS);
        let pad = |columns: usize| ", NULL".repeat(width - columns);
        let entries = "main._federation_row INDEXED BY _federation_row_id WHERE tbl = ? \
                       AND substr(id, 1, 6) >= ? AND id > ? ORDER BY substr(id, 1, 6), id LIMIT ?";
        format!(
            "{} UNION ALL SELECT * FROM (SELECT {}, k, id, batch, state{} FROM {entries}) \
             UNION ALL SELECT * FROM (SELECT {}, k{} FROM {entries} OFFSET ?) UNION ALL {}",
            probe_sql(&pad(PROBE_COLUMNS)),
            part::ENTRY,
            pad(5),
            part::NEXT_KEY,
            pad(2),
            self.here.select(&format!("{}, ", part::ROW), &pad(own), ROWS_PER_GLANCE),
        )
    }
}
