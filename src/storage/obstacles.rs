//! Which rows are in a row's way: those that hold a unique key of it.

use super::catalog::{Table, quote, quote_list};
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::unique_index::{KeyPart, KeyTerm, UniqueKey};
use crate::model::Value;

/// The keys of the rows that hold one of those unique keys of this row that `counts` picks, each with the index.
pub fn obstacles<'t>(
    sql: &mut dyn Sql,
    table: &'t Table,
    row: &[Value],
    counts: impl Fn(&UniqueKey) -> bool,
) -> Result<Vec<(&'t UniqueKey, Vec<Value>)>, SqlError> {
    let mut found = Vec::new();
    for unique in table.unique_keys.iter().filter(|unique| counts(unique)) {
        // What a column is made of may be unreadable; SQLite's refusal then stands.
        let Some(values) = values_of(table, unique, row) else { continue };
        // What the index leaves out, its expressions may fail over: the condition comes first.
        let filter = unique.filter.iter().map(|filter| format!("({filter}) AND {}", of_row(filter)));
        let parts = unique.parts.iter().map(|part| equal(unique, part));
        let conditions: Vec<String> = filter.chain(parts).collect();
        // Numbered parameters would need no WITH, but better-sqlite3 takes them for named ones. The NULL is for
        // the index over a constant, which reads no column.
        let mut bound: Vec<String> =
            unique.columns.iter().map(|name| format!("? AS {}", quote(name))).collect();
        bound.push("NULL".to_owned());
        // A generated column has no value before the row is written.
        let own = unique.with_generated(format!("SELECT {}", bound.join(", ")));
        let statement = format!(
            "WITH _federation_row AS ({own}) SELECT {} FROM main.{} WHERE {}",
            quote_list(table.key_columns()),
            quote(&table.name),
            conditions.join(" AND ")
        );
        let looked = sql.query(&statement, &values, &mut |key| {
            found.push((unique, key.to_vec()));
            Ok(())
        });
        match looked {
            // Nobody can tell what has the same key as a row over which the key fails.
            Err(error) if error.kind == SqlErrorKind::Statement => {}
            outcome => outcome?,
        }
    }
    Ok(found)
}

/// The values of the columns that a unique key reads, in the order of its columns.
fn values_of<'a>(table: &Table, unique: &UniqueKey, row: &'a [Value]) -> Option<Vec<ValueRef<'a>>> {
    let value = |name: &String| {
        let at = table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))?;
        Some(ValueRef::from(row.get(at)?))
    };
    unique.columns.iter().map(value).collect()
}

fn equal(unique: &UniqueKey, part: &KeyPart) -> String {
    let (own, other) = match &part.term {
        KeyTerm::Column(column) => (quote(column), of_row(&unique.only_inside(&quote(column)))),
        KeyTerm::Expression(expression) => {
            (format!("({expression})"), of_row(&unique.only_inside(expression)))
        }
    };
    format!("{own} = {other} COLLATE {}", quote(&part.collation))
}

/// An expression over the bound values of the key's columns.
fn of_row(expression: &str) -> String {
    format!("(SELECT {expression} FROM _federation_row)")
}
