//! Whole rows of the application's tables: read, taken out, and put in under the place that they had.

use super::catalog::{Key, Table, as_number, quote, quote_list};
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::foreign_keys::columns_with_shadows;
use super::local_key::LocalKey;
use super::quarantine::refused;
use super::rows::{Entry, key_condition, key_params};
use crate::model::Value;

/// A row as it is: rowid (of a table that hides it) and cells.
pub fn whole_row(
    sql: &mut dyn Sql,
    table: &Table,
    entry: &Entry,
) -> Result<(Option<i64>, Vec<Value>), SqlError> {
    let key = entry.key.values()?.unwrap_or_default();
    let statement = format!(
        "SELECT {}, {} FROM main.{} WHERE {}",
        table.hidden_rowid.map_or("NULL", |name| name),
        columns_with_shadows(table),
        quote(&table.name),
        key_condition(table)
    );
    let row = sql.query_row(&statement, &key_params(table, &key))?;
    let mut row = row.ok_or_else(|| SqlError::corrupt("a present row is not there"))?;
    let cells = row.split_off(1);
    Ok((as_number(&row[0]), cells))
}

/// Takes a row out of its table.
pub fn delete(sql: &mut dyn Sql, table: &Table, key: &LocalKey) -> Result<(), SqlError> {
    let Some(key) = key.values()? else { return Ok(()) };
    let statement = format!("DELETE FROM main.{} WHERE {}", quote(&table.name), key_condition(table));
    sql.execute(&statement, &key_params(table, &key))?;
    Ok(())
}

/// The statement that inserts a row with these columns.
pub fn insertion(table: &Table, names: &[&str]) -> String {
    format!(
        "INSERT{} INTO main.{}({}) VALUES({})",
        table.or_abort(),
        quote(&table.name),
        quote_list(names.iter().copied()),
        vec!["?"; names.len()].join(", ")
    )
}

/// Inserts a row under the number, or the hidden rowid, that it had. Returns whether SQLite has taken it.
pub fn insert(
    sql: &mut dyn Sql,
    table: &Table,
    key: &LocalKey,
    rowid: Option<i64>,
    row: &[Value],
) -> Result<bool, SqlError> {
    let mut names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let mut params: Vec<ValueRef<'_>> = row.iter().take(names.len()).map(ValueRef::from).collect();
    match (&table.key, key, table.hidden_rowid, rowid) {
        (Key::Number(column), LocalKey::Number(number), ..) => {
            names.push(column);
            params.push((*number).into());
        }
        (_, _, Some(name), Some(rowid)) => {
            names.push(name);
            params.push(rowid.into());
        }
        _ => {}
    }
    let inserted = sql.execute(&insertion(table, &names), &params);
    Ok(refused(sql, inserted)?.is_none())
}

/// What was taken out for a row, and is refused now: the turn runs again without that row.
pub fn cannot_be_put_back() -> SqlError {
    let message = "what is in its way cannot be taken out and put back".into();
    SqlError { kind: SqlErrorKind::Statement, message }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::catalog::Catalog;
    use crate::storage::choice::{Choice, SyncOptions};
    use crate::storage::sqlite_driver::RusqliteSql;

    #[test]
    fn only_what_is_said_of_the_row_is_a_refusal() {
        let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
        sql.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL CHECK(abs(v) >= 0)); BEGIN").unwrap();
        let options = SyncOptions::default();
        let choice = Choice::new(&options, std::collections::HashMap::new());
        let catalog = Catalog::read(&mut sql, &choice).unwrap();
        let table = catalog.table("t").unwrap();
        let mut insert_one = |value| insert(&mut sql, table, &LocalKey::Number(1), None, &[value]);
        assert!(!insert_one(Value::Null).unwrap());
        assert!(!insert_one(Value::Integer(i64::MIN)).unwrap());
        // What the database cannot do is no reason to set a row aside.
        sql.run("PRAGMA query_only = ON").unwrap();
        insert(&mut sql, table, &LocalKey::Number(1), None, &[Value::Integer(1)]).unwrap_err();
    }
}
