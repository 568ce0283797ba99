//! Values as they travel: a number of another row becomes that row's identity, and identities are made of such
//! values.

use super::catalog::Table;
use super::context::Context;
use super::driver::{Sql, SqlError};
use super::identity::{natural_row_id, old_row_id};
use super::local_key::LocalKey;
use super::references::Reference;
use super::row_meta::RowMeta;
use super::rows::{Entry, Sending, read_row};
use crate::model::{CellValue, RowId, Value};

/// One of a row's values as it travels: a number of another row becomes that row's identity.
pub fn outgoing(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    table: &Table,
    row: &[Value],
    at: usize,
) -> Result<CellValue, SqlError> {
    let value = row[at].clone();
    let column = &table.columns[at];
    let parent = column.references.as_ref().and_then(|reference| reference.parent(row));
    let (Some(parent), Some(number)) = (parent, column.affinity.number(&value)) else {
        return Ok(value.into());
    };
    let Some(parent) = context.catalog.table(parent) else { return Ok(value.into()) };
    let key = LocalKey::Number(number);
    if let Some(entry) = Entry::by_key(sql, parent, &key)? {
        return Ok(CellValue::Ref(entry.id));
    }
    // The parent has not been seen yet, or does not exist: its identity is fixed now, and its number with
    // it. A row older than syncing has the identity that every replica gives it.
    let scan =
        sql.query_row("SELECT scan FROM main._federation_table WHERE tbl = ?", &[parent.number.into()])?;
    let is_old = matches!(scan.as_deref(), Some([Value::Text(scan)]) if scan == "old");
    let content = if is_old { read_row(sql, parent, &[Value::Integer(number)])? } else { None };
    let id = match content {
        Some(content) => old_id(sql, context, parent, number, &content)?,
        None => RowId((context.mint)()),
    };
    Entry { key, id, sending: Sending::Clean, meta: RowMeta::default() }.insert(sql, parent)?;
    Ok(CellValue::Ref(id))
}

/// The identity of a numbered row that is older than syncing. References to tables that come before its own
/// count as what they reference, so that this ends; others as their number.
pub fn old_id(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    table: &Table,
    number: i64,
    row: &[Value],
) -> Result<RowId, SqlError> {
    let place = |name: &str| context.catalog.tables.iter().position(|it| it.name.eq_ignore_ascii_case(name));
    let own = place(&table.name);
    let is_before = |reference: &Reference| {
        reference.parent(row).and_then(place).is_some_and(|parent| Some(parent) < own)
    };
    let before: Vec<bool> =
        table.columns.iter().map(|column| column.references.as_ref().is_some_and(is_before)).collect();
    let mut content = Vec::with_capacity(row.len());
    for (at, is_before) in before.into_iter().enumerate() {
        content.push(if is_before {
            old_reference(sql, context, table, row, at)?
        } else {
            row[at].clone().into()
        });
    }
    Ok(old_row_id(&table.name, number, &content))
}

/// A reference of an old row; one to a row that does not exist is a number like any other.
fn old_reference(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    table: &Table,
    row: &[Value],
    at: usize,
) -> Result<CellValue, SqlError> {
    let column = &table.columns[at];
    let parent = column.references.as_ref().and_then(|reference| reference.parent(row));
    let parent = parent.and_then(|parent| context.catalog.table(parent));
    let (Some(parent), Some(number)) = (parent, column.affinity.number(&row[at])) else {
        return Ok(row[at].clone().into());
    };
    match read_row(sql, parent, &[Value::Integer(number)])? {
        Some(_) => outgoing(sql, context, table, row, at),
        None => Ok(row[at].clone().into()),
    }
}

/// The identity of a row with a natural key.
pub fn natural_id(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    table: &Table,
    positions: &[usize],
    row: &[Value],
) -> Result<RowId, SqlError> {
    let mut key: Vec<CellValue> = Vec::with_capacity(positions.len());
    for &position in positions {
        key.push(outgoing(sql, context, table, row, position)?);
    }
    Ok(natural_row_id(&table.name, &key))
}
