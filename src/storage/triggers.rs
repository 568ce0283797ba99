//! The application's triggers: they fire for its own writes, and never for what is applied here (I6).

use super::catalog::{Catalog, Table, quote};
use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::quarantine;
use super::references::Reference;
use super::sql_text::{Token, in_main, tokens};
use crate::model::{TableHeader, Value};
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
        texts.push(in_main(text));
    }
    for (name, text) in temporary(sql, is_touched)? {
        sql.run(&format!("DROP TRIGGER temp.{}", quote(&name)))?;
        texts.push(text);
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

/// The TEMP triggers on tables: name, and a text that brings it back. The schema version does not count them, so no
/// catalog can hold them. One whose text names its table without a schema was made for a temporary table of that name if
/// there was one, that is, if that was made before it; or else for the main database's, also if that is hidden by now.
fn temporary(
    sql: &mut dyn Sql,
    is_touched: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>, SqlError> {
    let mut found = Vec::new();
    sql.query(
        "SELECT name, tbl_name, sql, (SELECT t.rowid < g.rowid FROM temp.sqlite_master AS t \
         WHERE t.type IN ('table', 'view') AND t.name = g.tbl_name COLLATE NOCASE) \
         FROM temp.sqlite_master AS g WHERE type = 'trigger'",
        &[],
        &mut |row| {
            let mut fields = Fields::of(row);
            let (name, table, text) = (fields.text()?, fields.text()?, fields.text()?);
            if !is_touched(&table) {
                return Ok(());
            }
            let hidden_before = match fields.value() {
                Value::Integer(before) => Some(before != 0),
                _ => None,
            };
            match schema_of_table(&text) {
                Some(schema) if !schema.eq_ignore_ascii_case("main") => {}
                None if hidden_before == Some(true) => {}
                None if hidden_before == Some(false) => found.push((name, as_temporary(&on_main(&text)))),
                _ => found.push((name, as_temporary(&text))),
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// Where a trigger's text names its table: the place of the name's first token.
fn place_of_table(tokens: &[Token<'_>]) -> Option<usize> {
    tokens.iter().skip(3).position(|token| token.is("ON")).map(|on| on + 4)
}

/// The schema that a trigger's text names together with its table.
fn schema_of_table(text: &str) -> Option<String> {
    let tokens = tokens(text)?;
    let at = place_of_table(&tokens)?;
    tokens.get(at + 1).filter(|next| next.is("."))?;
    tokens.get(at)?.name()
}

/// A trigger's text that says of its table that it is the main database's.
fn on_main(text: &str) -> String {
    let tokens = tokens(text).unwrap_or_default();
    match place_of_table(&tokens).and_then(|at| tokens.get(at)) {
        Some(name) => format!("{}main.{}", &text[..name.start], &text[name.start..]),
        None => text.to_owned(),
    }
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
