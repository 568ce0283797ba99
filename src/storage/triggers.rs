//! The application's triggers: they fire for its own writes, and never for what is applied here (I6).

use super::catalog::{Catalog, Table, quote};
use super::driver::{Sql, SqlError};
use super::quarantine;
use super::references::Reference;
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
    let is_in = |names: &[String], name: &str| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    if retry || rows.rows.iter().any(|row| row.united.is_some()) {
        // What references a row that was united with another is touched as well.
        let references = |table: &&Table| {
            let columns = table.columns.iter().filter_map(|column| column.references.as_ref());
            let parents = table.foreign_keys.iter().map(|key| key.parent.as_str());
            columns.flat_map(Reference::parents).chain(parents).any(|parent| is_in(&touched, parent))
        };
        let children = catalog.tables.iter().filter(references).map(|table| table.name.clone());
        let children: Vec<String> = children.collect();
        touched.extend(children);
    }
    let is_touched = |table: &&Table| is_in(&touched, &table.name);
    let mut texts = Vec::new();
    for (name, text) in catalog.tables.iter().filter(is_touched).flat_map(|table| &table.triggers) {
        sql.run(&format!("DROP TRIGGER main.{}", quote(name)))?;
        texts.push(text.clone());
    }
    Ok(texts)
}
