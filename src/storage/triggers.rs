//! The application's triggers: they fire for its own writes, and never for what is applied here (I6).

use super::catalog::{Catalog, quote};
use super::driver::{Sql, SqlError};
use crate::protocol::message::Rows;

/// Takes the application's triggers off the tables that this turn touches (I6), and returns the texts that
/// bring them back. In a transaction, so that nobody ever sees them missing.
pub fn suspend(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    rows: &Rows,
    all: bool,
) -> Result<Vec<String>, SqlError> {
    let touched = |table: &&super::catalog::Table| {
        all || rows.tables.iter().any(|header| header.name.eq_ignore_ascii_case(&table.name))
    };
    let mut texts = Vec::new();
    for (name, text) in catalog.tables.iter().filter(touched).flat_map(|table| &table.triggers) {
        sql.run(&format!("DROP TRIGGER main.{}", quote(name)))?;
        texts.push(text.clone());
    }
    Ok(texts)
}
