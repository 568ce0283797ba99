//! Healing: rows that are not as the hub has them, though nobody changed them as far as capture knows.
//!
//! ```text
//! Walk::look ─► hub ─► suspects ─► look_turn (parts) ─► hub ─► … ─► hub's rows ─► heal_turn
//! ```
//!
//! What the hub has is put back over what is here. A row that only this replica has is nobody's loss to keep: it is
//! offered to the hub again, under the stamps that it has.

use std::collections::{HashMap, HashSet};

use super::apply::{Incoming, apply};
use super::barred::{Barred, despite_failures};
use super::bookkeeping::{ReplicaState, probe, schema_version};
use super::catalog::{Catalog, Table};
use super::driver::{Sql, SqlError};
use super::identity::row_fingerprint;
use super::look::{Bounds, Here, Seen, Slice, is_comparable, look_at_parts};
use super::replica::{CachedCatalog, Mint, Setting, context, settle_all};
use super::retrial::Retrial;
use super::row_meta::{CellMeta, RowMeta};
use super::rows::{Entry, Sending, fingerprints};
use super::transaction::{Purpose, transaction, without_waiting};
use super::yielding::Indexes;
use crate::model::{CellValue, Op, RowId, RowUpdate, Seq, TableHeader, Value};
use crate::protocol::check::Fingerprint;
use crate::protocol::message::Rows;

/// What the hub has in a range.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Which range: as far as the hub has looked.
    pub bounds: Bounds,
    /// The rows in it, whole, the dead among them.
    pub rows: Rows,
    /// Rows that changed above this replica's cursor.
    pub newer: Vec<RowId>,
}

/// What a healing turn did.
#[derive(Debug, Default)]
pub struct Healed {
    /// Rows that are as the hub has them now, or are offered to it.
    pub rows: u64,
    /// Rows that are set aside now, if that was counted.
    pub quarantined: Option<u64>,
    /// What people should know.
    pub notices: Vec<String>,
    /// The catalog, which the next turn wants back.
    pub catalog: Option<CachedCatalog>,
}

/// Whether the database is still as it was when the hub was asked: with the catalog that was cached, and the cursor.
fn is_as_asked(probe_version: i64, state: &ReplicaState, cached: &CachedCatalog, cursor: Seq) -> bool {
    probe_version == cached.schema_version && state.cursor == cursor
}

/// Looks at parts of ranges in which something differs, to narrow them down. Finds nothing if the database was
/// changed meanwhile: a later sync looks again.
pub fn look_turn(
    sql: &mut dyn Sql,
    cached: &CachedCatalog,
    setting: Setting<'_>,
    cursor: Seq,
    ranges: &[Bounds],
) -> Result<Vec<Slice>, SqlError> {
    without_waiting(sql, |sql| {
        transaction(sql, Purpose::Collect, |sql| {
            let probe = probe(sql)?;
            setting.claim.check(probe.state.lease.as_ref())?;
            let is_settled = sql.query_row("SELECT 1 FROM main._federation_log", &[])?.is_none();
            if !is_settled || !is_as_asked(probe.schema_version, &probe.state, cached, cursor) {
                return Ok(Vec::new());
            }
            look_at_parts(sql, &cached.catalog, ranges)
        })
    })
}

/// Makes the rows of a range what the hub has, but for what was changed here since.
pub fn heal_turn(
    sql: &mut dyn Sql,
    cached: &CachedCatalog,
    setting: Setting<'_>,
    mint: &mut Mint,
    cursor: Seq,
    fetched: &Fetched,
) -> Result<Healed, SqlError> {
    despite_failures(sql, |sql, indexes, barred| {
        heal(sql, cached, setting, mint, cursor, fetched, (indexes, barred))
    })
}

fn heal(
    sql: &mut dyn Sql,
    cached: &CachedCatalog,
    setting: Setting<'_>,
    mint: &mut Mint,
    cursor: Seq,
    fetched: &Fetched,
    (indexes, barred): (&mut Indexes, &mut Barred),
) -> Result<Healed, SqlError> {
    transaction(sql, Purpose::Apply, |sql| {
        let probe = probe(sql)?;
        let mut state = probe.state;
        setting.claim.check(state.lease.as_ref())?;
        let Some(table) = cached.catalog.table(&fetched.bounds.table) else { return Ok(Healed::default()) };
        if !is_as_asked(probe.schema_version, &state, cached, cursor) {
            return Ok(Healed::default());
        }
        let mut context = context(&cached.catalog, &state, setting.clock, mint);
        context.indexes.clone_from(indexes);
        settle_all(sql, &mut context)?;
        let mut patient = Patient::examine(sql, &cached.catalog, table, fetched)?;
        let (differing, offered) = patient.prepare(sql)?;
        let tables = fetched.rows.tables.clone();
        let incoming = Incoming { rows: Rows { tables, rows: differing.clone() }, ..Incoming::default() };
        let (before, trials) = (probe.quarantined, (&mut Retrial::default(), barred));
        let applied = apply(sql, &mut context, &mut state, &incoming, &[], before, trials);
        indexes.clone_from(&context.indexes);
        let applied = applied?;
        let after = Patient::examine(sql, &cached.catalog, table, fetched)?;
        let mut healed =
            Healed { notices: context.notices, quarantined: Some(applied.quarantined), ..Healed::default() };
        let restored = differing.iter().filter(|update| !after.differs(update)).count() as u64;
        healed.rows = restored + offered;
        if restored > 0 {
            healed.notices.push(format!(
                "table {}: rows that differed from the hub's without having been written here were healed",
                table.name
            ));
        }
        if offered > 0 {
            healed.notices.push(format!(
                "table {}: rows that the hub does not have are offered to it again",
                table.name
            ));
        }
        if restored < differing.len() as u64 {
            healed.notices.push(format!(
                "table {}: rows differ from the hub's and cannot be made like them: this database stores other \
                 values than it is given",
                table.name
            ));
        }
        // Triggers that were suspended and are back have changed the version, but not the catalog.
        let mut catalog = cached.clone();
        catalog.schema_version = schema_version(sql)?;
        healed.catalog = Some(catalog);
        Ok(healed)
    })
}

/// The rows of a range, here and at the hub.
struct Patient<'a> {
    table: &'a Table,
    fetched: &'a Fetched,
    entries: HashMap<RowId, Entry>,
    here: Here<'a>,
}

impl<'a> Patient<'a> {
    fn examine(
        sql: &mut dyn Sql,
        catalog: &Catalog,
        table: &'a Table,
        fetched: &'a Fetched,
    ) -> Result<Self, SqlError> {
        let Bounds { after, upto, .. } = fetched.bounds;
        let entries = Entry::in_range(sql, table, after, upto, u64::from(u32::MAX))?;
        let mut keys = Vec::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| entry.is_present()) {
            keys.extend(entry.key.values()?);
        }
        let here = Here::read(sql, catalog, table, &keys)?;
        let entries = entries.into_iter().map(|entry| (entry.id, entry)).collect();
        Ok(Self { table, fetched, entries, here })
    }

    /// Makes the bookkeeping say what is really here, so that applying what the hub has makes a difference. Returns
    /// that, and how many rows are offered to the hub.
    fn prepare(&mut self, sql: &mut dyn Sql) -> Result<(Vec<RowUpdate>, u64), SqlError> {
        let updates = &self.fetched.rows.rows;
        let differing: Vec<RowUpdate> =
            updates.iter().filter(|update| self.differs(update)).cloned().collect();
        for update in &differing {
            let Some(entry) = self.entries.get_mut(&update.id) else { continue };
            let was = entry.key.clone();
            match self.here.row(&entry.key) {
                Some(row) if entry.is_present() => remember(&mut entry.meta, self.table, row),
                _ if entry.is_present() => entry.meta = RowMeta::default(),
                _ => continue,
            }
            entry.update(sql, self.table, &was)?;
        }
        let mut known: HashSet<RowId> = updates.iter().map(|update| update.id).collect();
        known.extend(&self.fetched.newer);
        let mut offered = 0;
        for entry in self.entries.values_mut() {
            let is_here = matches!(self.here.seen(entry), Seen::Here(_));
            if is_here && !known.contains(&entry.id) {
                entry.sending = Sending::Offer;
                let was = entry.key.clone();
                entry.update(sql, self.table, &was)?;
                offered += 1;
            }
        }
        Ok((differing, offered))
    }

    /// Whether a row is not what the hub has, and should be.
    fn differs(&self, update: &RowUpdate) -> bool {
        let Some(entry) = self.entries.get(&update.id) else { return is_alive(update) };
        if !is_comparable(entry) {
            return false;
        }
        if update.united.is_some() {
            return entry.is_present();
        }
        match self.here.seen(entry) {
            Seen::LeftOut => false,
            Seen::Here(print) => !is_alive(update) || self.print_of(entry, update) != print,
            Seen::Missing | Seen::Absent => is_alive(update),
        }
    }

    /// The fingerprint that the row would have here.
    fn print_of(&self, entry: &Entry, update: &RowUpdate) -> Fingerprint {
        let Some(header) = self.fetched.rows.tables.get(usize::from(update.table)) else {
            return Fingerprint::default();
        };
        let mut cells: Vec<(String, &CellValue)> = Vec::new();
        for (name, value) in cells_of(header, update) {
            let Some(at) = self.table.position(name) else { continue };
            if self.table.columns[at].outgrown.is_some() {
                continue;
            }
            cells.push((self.table.columns[at].name.to_ascii_lowercase(), value));
        }
        cells.sort_by(|a, b| a.0.cmp(&b.0));
        row_fingerprint(entry.id, cells.iter().map(|(name, value)| (name.as_str(), *value)))
    }
}

/// The cells of a row that the hub tells whole.
fn cells_of<'a>(
    header: &'a TableHeader,
    update: &'a RowUpdate,
) -> impl Iterator<Item = (&'a str, &'a CellValue)> {
    let sets = update.writes.iter().filter_map(|write| match &write.op {
        Op::Set(cells) | Op::Cut(cells) => Some(cells),
        Op::Delete | Op::Gone | Op::Adjust(_) => None,
    });
    sets.flatten().filter_map(|(at, value)| Some((header.columns.get(usize::from(*at))?.as_str(), value)))
}

/// Whether the hub says that the row lives: one of its cells is newer than its delete.
fn is_alive(update: &RowUpdate) -> bool {
    let newest = |is_delete: bool| {
        let writes = update.writes.iter().filter(|write| matches!(write.op, Op::Delete) == is_delete);
        writes.map(|write| write.stamp).max()
    };
    newest(false) > newest(true)
}

/// Has a row's memory hold the fingerprints of what is there.
fn remember(meta: &mut RowMeta, table: &Table, row: &[Value]) {
    for (column, fingerprint) in fingerprints(table, row) {
        if let Some(cell) = meta.cell(column.number).copied() {
            meta.put(CellMeta { fingerprint, ..cell });
        }
    }
}
