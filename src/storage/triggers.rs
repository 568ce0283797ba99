//! The application's triggers: they fire for its own writes, and never for what is applied here (I6).

use super::catalog::{Catalog, Table, quote};
use super::driver::{Sql, SqlError};
use super::quarantine;
use crate::protocol::message::Rows;

/// Takes the application's triggers off the tables that this turn touches (I6), and returns the texts that
/// bring them back. In a transaction, so that nobody ever sees them missing. `retry` says that rows which are
/// set aside are tried as well.
pub fn suspend(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    rows: &Rows,
    retry: bool,
) -> Result<Vec<String>, SqlError> {
    let mut touched: Vec<String> = rows.tables.iter().map(|header| header.name.clone()).collect();
    if retry {
        touched.extend(quarantine::tables(sql)?);
    }
    let is_touched = |table: &&Table| touched.iter().any(|name| name.eq_ignore_ascii_case(&table.name));
    let mut texts = Vec::new();
    for (name, text) in catalog.tables.iter().filter(is_touched).flat_map(|table| &table.triggers) {
        sql.run(&format!("DROP TRIGGER main.{}", quote(name)))?;
        texts.push(text.clone());
    }
    Ok(texts)
}
