//! What a batch cannot do without: new rows that its own reference, and that would come in a later one.
//!
//! Tables are sent parents first, which says nothing of tables that reference each other. Whoever vanished between two
//! batches would leave rows that wait at everyone for a row that nobody else has.

use super::catalog::{Table, as_number};
use super::collect::add_entry;
use super::composer::Composer;
use super::context::Context;
use super::driver::{Sql, SqlError};
use super::rows::{Entry, Sending, read_row};
use super::scan::Scan;
use super::settle::{Origin, settle_row};
use crate::model::{CellValue, Op, RowId};

/// So many rows are added to a batch at most. A longer chain of new rows, each of which references one that was made later, may
/// come apart.
const MAX_ADDED: usize = 250;

/// Adds the new rows that the rows of a batch reference, and those that these reference, as long as they fit a frame.
pub fn add_prerequisites(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    composer: &mut Composer,
) -> Result<(), SqlError> {
    let most = composer.body.rows.len() + MAX_ADDED;
    let mut at = 0;
    while at < composer.body.rows.len() {
        for (table, id) in referenced(context, composer, at) {
            if composer.body.rows.len() >= most || composer.bytes >= composer.limits.bytes {
                return Ok(());
            }
            add(sql, context, composer, &table, id)?;
        }
        at += 1;
    }
    Ok(())
}

/// The rows that a row of the batch references by their identity, each in the tables where it may be.
fn referenced(context: &Context<'_>, composer: &Composer, at: usize) -> Vec<(String, RowId)> {
    let row = &composer.body.rows[at];
    let header = composer.body.tables.get(usize::from(row.table));
    let Some(table) = header.and_then(|header| context.catalog.table(&header.name)) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for write in &row.writes {
        let Op::Set(cells) = &write.op else { continue };
        for (column, value) in cells {
            let reference = table.columns.get(usize::from(*column)).and_then(|it| it.references.as_ref());
            if let (CellValue::Ref(id), Some(reference)) = (value, reference) {
                rows.extend(reference.parents().into_iter().map(|parent| (parent.to_owned(), *id)));
            }
        }
    }
    rows
}

/// Adds a row, if the hub cannot have it and nothing of it is under way.
fn add(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    composer: &mut Composer,
    table: &str,
    id: RowId,
) -> Result<(), SqlError> {
    let Some(table) = context.catalog.table(table) else { return Ok(()) };
    let Some(entry) = Entry::by_id(sql, table, id)? else { return Ok(()) };
    if entry.meta.is_reserved() {
        // It is in the table, and was not looked at yet.
        let (Some(key), Some(origin)) = (entry.key.values()?, origin(sql, table)?) else { return Ok(()) };
        let row = read_row(sql, table, &key)?;
        let cause = origin.into();
        if let Some(changed) = settle_row(sql, context, table, entry.key, row, &cause, composer.mark)? {
            composer.add(sql, context, table, &changed.entry, changed.row)?;
        }
        return Ok(());
    }
    let is_new = entry.meta.is_new_to_hub(composer.acked) && entry.sending == Sending::Unsent;
    if entry.is_present() && (is_new || entry.sending == Sending::OfferNew) {
        add_entry(sql, context, composer, table, entry)?;
    }
    Ok(())
}

/// How a row came about that was not looked at yet: it was there before, or the log tells of it.
fn origin(sql: &mut dyn Sql, table: &Table) -> Result<Option<Origin>, SqlError> {
    if let Some(scan) = Scan::of(sql, table)? {
        return Ok(Some(scan.origin));
    }
    let last =
        sql.query_row("SELECT max(at) FROM main._federation_log WHERE tbl = ?", &[table.number.into()])?;
    Ok(last.and_then(|row| as_number(row.first()?)).map(Origin::Written))
}
