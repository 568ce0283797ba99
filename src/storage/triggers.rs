//! The application's triggers: they fire for its own writes, and never for what is applied here (I6).

use super::catalog::{Catalog, Table, quote};
use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::quarantine;
use super::references::Reference;
use super::sql_text::tokens;
use crate::model::TableHeader;
use crate::protocol::message::Rows;

/// Takes the application's triggers off the tables that this turn touches (I6), among them `tables`, and returns the texts that
/// bring them back. In a transaction, so that nobody ever sees them missing. `retry` says that rows which are
/// set aside are tried as well.
pub fn suspend(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    tables: &[TableHeader],
    rows: &Rows,
    retry: bool,
) -> Result<Vec<String>, SqlError> {
    let mut touched: Vec<String> = tables.iter().map(|header| header.name.clone()).collect();
    if retry {
        touched.extend(quarantine::tables(sql)?);
    }
    if touched.is_empty() {
        return Ok(Vec::new());
    }
    if retry || rows.rows.iter().any(|row| row.united.is_some()) {
        // What references a row that was united with another is touched as well.
        let children = children_of(catalog, &touched);
        touched.extend(children);
    }
    let is_touched = |table: &str| touched.iter().any(|name| name.eq_ignore_ascii_case(table));
    let mut texts = Vec::new();
    let tables = catalog.tables.iter().filter(|table: &&Table| is_touched(&table.name));
    for (name, text) in tables.flat_map(|table| &table.triggers) {
        sql.run(&format!("DROP TRIGGER main.{}", quote(name)))?;
        texts.push(text.clone());
    }
    for (name, text) in temporary(sql, is_touched)? {
        sql.run(&format!("DROP TRIGGER temp.{}", quote(&name)))?;
        texts.push(as_temporary(&text));
    }
    Ok(texts)
}

/// The tables that reference one of these.
fn children_of(catalog: &Catalog, tables: &[String]) -> Vec<String> {
    let references = |table: &&Table| {
        let columns = table.columns.iter().filter_map(|column| column.references.as_ref());
        let parents = table.foreign_keys.iter().map(|key| key.parent.as_str());
        let mut referenced = columns.flat_map(Reference::parents).chain(parents);
        referenced.any(|parent| tables.iter().any(|name| name.eq_ignore_ascii_case(parent)))
    };
    catalog.tables.iter().filter(references).map(|table| table.name.clone()).collect()
}

/// The TEMP triggers on tables: name and text. The schema version does not count them, so no catalog can hold
/// them. One on a temporary table of the same name is among them, and comes to no harm.
fn temporary(
    sql: &mut dyn Sql,
    is_touched: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>, SqlError> {
    let mut found = Vec::new();
    sql.query(
        "SELECT name, tbl_name, sql FROM sqlite_temp_master WHERE type = 'trigger'",
        &[],
        &mut |row| {
            let mut fields = Fields::of(row);
            let (name, table, text) = (fields.text()?, fields.text()?, fields.text()?);
            if is_touched(&table) {
                found.push((name, text));
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// SQLite keeps `CREATE TRIGGER …` of a TEMP trigger, and would make an ordinary one of that, unless the name
/// says `temp.`.
fn as_temporary(text: &str) -> String {
    let is_qualified = tokens(text).is_some_and(|tokens| tokens.get(3).is_some_and(|token| token.is(".")));
    match text.strip_prefix("CREATE ") {
        Some(rest) if !is_qualified => format!("CREATE TEMP {rest}"),
        _ => text.to_owned(),
    }
}
