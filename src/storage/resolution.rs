//! What an application makes of two concurrent writes, written into its table like a write of its own.

use super::catalog::{Catalog, quote};
use super::driver::{Sql, SqlError, ValueRef};
use super::quarantine::refused;
use super::rows::{Entry, key_condition, key_params, read_row};
use super::transaction::{Purpose, transaction};
use crate::model::Value;
use crate::protocol::message::Contested;

/// What follows from two concurrent writes of one cell.
#[derive(Clone, Debug)]
pub struct Resolution {
    /// The writes.
    pub contest: Contested,
    /// What was written here.
    pub local: Value,
    /// What was written elsewhere.
    pub remote: Value,
    /// What is to be written.
    pub value: Value,
}

/// Writes it, with the application's triggers firing and its foreign keys as they are, unless the row is gone or
/// the cell was written again since. The inner error is the refusal of a constraint.
pub fn write(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    resolution: &Resolution,
) -> Result<Result<(), String>, SqlError> {
    let Resolution { contest, local, remote, value } = resolution;
    transaction(sql, Purpose::Record, |sql| {
        let Some(table) = catalog.table(&contest.table) else { return Ok(Ok(())) };
        let Some(at) = table.position(&contest.column) else { return Ok(Ok(())) };
        let Some(entry) = Entry::by_id(sql, table, contest.id)? else { return Ok(Ok(())) };
        let Some(key) = entry.key.values()? else { return Ok(Ok(())) };
        let Some(row) = read_row(sql, table, &key)? else { return Ok(Ok(())) };
        if row[at] == *value || ![local, remote].contains(&&row[at]) {
            return Ok(Ok(()));
        }
        let statement = format!(
            "UPDATE{} main.{} SET {} = ? WHERE {}",
            table.or_abort(),
            quote(&table.name),
            quote(&table.columns[at].name),
            key_condition(table)
        );
        let mut params: Vec<ValueRef<'_>> = vec![value.into()];
        params.extend(key_params(table, &key));
        let updated = sql.execute(&statement, &params);
        Ok(refused(sql, updated)?.map_or(Ok(()), Err))
    })
}
