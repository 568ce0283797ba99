//! Rows in doubt: those that are here, and that the hub may have forgotten because they were deleted.
//!
//! A replica that was away for so long that tombstones above its cursor are gone asks for every row, and what it is
//! not told of is gone. The same holds for a table that the application had excluded. A row that the hub never had,
//! perhaps because it is too large to be shared, is not in doubt.

use super::ahead::Ahead;
use super::applier::Applier;
use super::catalog::{Catalog, Table};
use super::context::Context;
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::Fields;
use super::quarantine::{self, SetAside};
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending};
use crate::model::{Op, RowId, RowUpdate, Seq, Stamp, TableHeader, Value, Write};
use crate::protocol::message::Rows;

/// The rows in doubt.
pub const TABLE: &str = "CREATE TABLE main._federation_doubt(tbl INTEGER NOT NULL, id BLOB NOT NULL, \
                         PRIMARY KEY(tbl, id)) WITHOUT ROWID";

/// Rows that are in their table: those that are not lie under `x'00' || id`.
const PRESENT: &str = "NOT (typeof(k) = 'blob' AND k >= x'00' AND k < x'01')";

/// Puts every row that the hub had into doubt, and has it asked for all there is. What was set aside is told
/// again, or gone as well. `acked` is the mark of the last acknowledged batch.
pub fn begin(sql: &mut dyn Sql, acked: u64) -> Result<(), SqlError> {
    sql.execute(
        &format!(
            "INSERT OR IGNORE INTO main._federation_doubt SELECT tbl, id FROM main._federation_row \
             WHERE batch IS NOT -2 AND {PRESENT} \
             AND tbl IN (SELECT tbl FROM main._federation_table WHERE NOT is_out AND refused IS NULL)"
        ),
        &[],
    )?;
    spare_new(sql, "batch IS NOT NULL", &[], acked)?;
    sql.execute(
        "UPDATE main._federation_table SET refresh = max(refresh, 1) WHERE NOT is_out AND \
         (tbl IN (SELECT tbl FROM main._federation_doubt) OR name IN (SELECT tbl FROM main._federation_quarantine))",
        &[],
    )?;
    sql.execute("DELETE FROM main._federation_quarantine", &[])?;
    Ok(())
}

/// Whether writes to rows that the hub had are not sent, and did not see all that this replica has by now. Such a row may have
/// outlived a delete, of which the hub kept the tombstone for the sake of the cursor that was last reported; under another
/// id, none was. (An adjustment outlives nothing.)
pub fn has_late_writes(sql: &mut dyn Sql, cursor: Seq, acked: u64) -> Result<bool, SqlError> {
    let mut any = false;
    let statement = format!("SELECT state FROM main._federation_row WHERE batch IS NOT NULL AND {PRESENT}");
    sql.query(&statement, &[], &mut |row| {
        let [Value::Blob(state)] = row else {
            return Err(SqlError::corrupt("_federation_row holds no state"));
        };
        let meta = RowMeta::decode(state)?;
        any |= !meta.is_new_to_hub(acked) && meta.has_write_from_before(cursor, acked);
        Ok(())
    })?;
    Ok(any)
}

/// Puts the rows of one table into doubt, of which every row is asked for.
pub fn begin_with(sql: &mut dyn Sql, table: i64) -> Result<(), SqlError> {
    sql.execute(
        &format!(
            "INSERT OR IGNORE INTO main._federation_doubt SELECT tbl, id FROM main._federation_row WHERE tbl = ? AND {PRESENT}"
        ),
        &[table.into()],
    )?;
    // What was under way when the table was left out is acknowledged, or the hub is asked.
    spare_new(sql, "tbl = ?", &[table.into()], u64::MAX)
}

/// Takes rows that the hub never had out of doubt, of those that a condition selects.
fn spare_new(
    sql: &mut dyn Sql,
    condition: &str,
    params: &[ValueRef<'_>],
    acked: u64,
) -> Result<(), SqlError> {
    let mut new = Vec::new();
    let statement =
        format!("SELECT tbl, id, state FROM main._federation_row WHERE {condition} AND {PRESENT}");
    sql.query(&statement, params, &mut |row| {
        let [table, id, Value::Blob(state)] = row else {
            return Err(SqlError::corrupt("_federation_row holds no state"));
        };
        if RowMeta::decode(state)?.is_new_to_hub(acked) {
            new.push((table.clone(), id.clone()));
        }
        Ok(())
    })?;
    for (table, id) in new {
        sql.execute(
            "DELETE FROM main._federation_doubt WHERE tbl = ? AND id = ?",
            &[(&table).into(), (&id).into()],
        )?;
    }
    Ok(())
}

/// Whether any rows are in doubt.
pub fn is_any(sql: &mut dyn Sql) -> Result<bool, SqlError> {
    Ok(sql.query_row("SELECT 1 FROM main._federation_doubt LIMIT 1", &[])?.is_some())
}

/// The hub has told of these rows.
pub fn confirm(sql: &mut dyn Sql, catalog: &Catalog, told: &Rows) -> Result<(), SqlError> {
    for update in &told.rows {
        let header = told.tables.get(usize::from(update.table));
        let Some(table) = header.and_then(|header| catalog.table(&header.name)) else { continue };
        sql.execute(
            "DELETE FROM main._federation_doubt WHERE tbl = ? AND id = ?",
            &[table.number.into(), ValueRef::Blob(&update.id.0)],
        )?;
    }
    Ok(())
}

/// Rows that the hub has told nothing of, although it was asked for all of their tables.
#[derive(Default)]
pub struct Gone(Vec<(TableHeader, Entry)>);

impl Gone {
    /// Those of the tables in `asked`, all of whose rows have been told. Nothing is in doubt there any more.
    pub fn of(sql: &mut dyn Sql, catalog: &Catalog, asked: &[String]) -> Result<Self, SqlError> {
        let mut gone = Vec::new();
        for table in asked.iter().filter_map(|name| catalog.table(name)) {
            let mut ids = Vec::new();
            let number = [table.number.into()];
            sql.query("SELECT id FROM main._federation_doubt WHERE tbl = ?", &number, &mut |row| {
                ids.push(Fields::of(row).bytes(RowId::from_slice)?);
                Ok(())
            })?;
            sql.execute("DELETE FROM main._federation_doubt WHERE tbl = ?", &number)?;
            for id in ids {
                let Some(entry) = Entry::by_id(sql, table, id)?.filter(Entry::is_present) else { continue };
                gone.push((TableHeader { name: table.name.clone(), columns: Vec::new() }, entry));
            }
        }
        Ok(Self(gone))
    }

    /// Deletes them. One that a row of this replica references, which the hub may not have yet, stays and is
    /// offered as a new one.
    pub fn delete(
        self,
        sql: &mut dyn Sql,
        context: &mut Context<'_>,
        applier: &mut Applier<'_>,
        position: Seq,
    ) -> Result<(), SqlError> {
        let mut updates = Vec::with_capacity(self.0.len());
        for (header, entry) in &self.0 {
            let Some(table) = applier.catalog.table(&header.name) else { continue };
            if forget_writes(sql, table, entry, applier.acked)? {
                context.note(format!(
                    "rows of {} that were changed here had been deleted while this agent was away: the changes \
                     have lost to that",
                    table.name
                ));
            }
            let update = delete_of(entry, position);
            updates.push(SetAside { header: header.clone(), update, acked: applier.acked, parked: None });
        }
        applier.apply_together(sql, Ahead::again(updates))?;
        for (header, entry) in self.0 {
            let Some(table) = applier.catalog.table(&header.name) else { continue };
            let is_refused = quarantine::take(sql, &header.name, entry.id)?.is_some();
            let Some(mut known) = Entry::by_id(sql, table, entry.id)? else { continue };
            if is_refused {
                known.sending = Sending::OfferNew;
                known.meta.held = false;
                let was = known.key.clone();
                known.update(sql, table, &was)?;
            } else if !known.is_present() {
                known.forget(sql, table)?;
            }
        }
        Ok(())
    }
}

/// Has a row's writes count as known, so that the delete beats them. Says whether any was not.
fn forget_writes(sql: &mut dyn Sql, table: &Table, entry: &Entry, acked: u64) -> Result<bool, SqlError> {
    let mut entry = entry.clone();
    let was_changed = entry.meta.cells.iter().any(|cell| cell.is_unknown_to_hub(acked));
    entry.meta.cells.iter_mut().for_each(|cell| cell.pending = None);
    entry.meta.ruled.iter_mut().for_each(|cell| cell.pending.clear());
    entry.sending = Sending::Clean;
    let was = entry.key.clone();
    entry.update(sql, table, &was)?;
    Ok(was_changed)
}

fn delete_of(entry: &Entry, position: Seq) -> RowUpdate {
    let stamp = entry.meta.cells.iter().map(|cell| cell.stamp).max().unwrap_or(Stamp::ZERO);
    let writes = vec![Write { stamp, base: position, op: Op::Delete }];
    RowUpdate { table: 0, id: entry.id, number: None, seq: position, whole: true, united: None, writes }
}
