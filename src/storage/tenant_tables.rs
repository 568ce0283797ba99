//! What the tenant has agreed on of each table, as far as no definition's text says it: remembered here, so that
//! an application that says nothing of a table goes by it, also if it makes that table much later.

use std::collections::HashMap;

use super::catalog::Catalog;
use super::choice::SyncOptions;
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::Fields;
use super::index_parts;
use super::journals;
use super::registered;
use crate::model::{Agreement, TableSchema, Value};

/// The bookkeeping table.
pub const TABLE: &str =
    "CREATE TABLE main._federation_tenant(name TEXT PRIMARY KEY, agreed BLOB NOT NULL) WITHOUT ROWID";

/// Remembers definitions that the hub has told; says whether any of that is news.
pub fn remember(sql: &mut dyn Sql, told: &[TableSchema]) -> Result<bool, SqlError> {
    let mut news = false;
    for table in told {
        let name = table.name.to_lowercase();
        let name = ValueRef::Text(&name);
        if table.agreed.says_nothing() {
            news |= sql.execute("DELETE FROM main._federation_tenant WHERE name = ?", &[name])? > 0;
            continue;
        }
        let agreed =
            rmp_serde::to_vec(&table.agreed).map_err(|error| SqlError::corrupt(error.to_string()))?;
        news |= sql.execute(
            "INSERT INTO main._federation_tenant(name, agreed) VALUES(?, ?) \
             ON CONFLICT DO UPDATE SET agreed = excluded.agreed WHERE agreed <> excluded.agreed",
            &[name, ValueRef::Blob(&agreed)],
        )? > 0;
    }
    Ok(news)
}

/// What is remembered, by the tables' names in lower case.
pub fn read(sql: &mut dyn Sql) -> Result<HashMap<String, Agreement>, SqlError> {
    let mut agreed = HashMap::new();
    sql.query("SELECT name, agreed FROM main._federation_tenant", &[], &mut |row| {
        let mut fields = Fields::of(row);
        let (name, Value::Blob(bytes)) = (fields.text()?, fields.value()) else {
            return Err(SqlError::corrupt("_federation_tenant holds something else"));
        };
        let one = rmp_serde::from_slice(&bytes).map_err(|error| SqlError::corrupt(error.to_string()))?;
        agreed.insert(name, one);
        Ok(())
    })?;
    Ok(agreed)
}

/// Those of the tenant's tables that are not made here, and whose rows are not wanted: parts of others' indexes, and
/// journals that the application does not name. They were shared before anybody knew them for such, or by an agent whose
/// application named them.
pub fn unwanted<'t>(told: &'t [TableSchema], options: &SyncOptions) -> Vec<&'t str> {
    let journals =
        told.iter().filter(|table| journals::tool_of(table).is_some() && !options.names(&table.name));
    index_parts::among(told).into_iter().chain(journals.map(|table| table.name.as_str())).collect()
}

/// Remembers which of the tables that the hub has told of are not wanted here, as long as the application does not
/// make them itself; says whether any of that is news.
pub fn decline(sql: &mut dyn Sql, catalog: &Catalog, told: &[TableSchema]) -> Result<bool, SqlError> {
    let names = unwanted(told, &catalog.options);
    let mut news = false;
    if names.is_empty() {
        return Ok(news);
    }
    let known = registered::read(sql)?;
    for name in names {
        let is_here = catalog.table(name).is_some() || known.contains_key(&name.to_ascii_lowercase());
        if !is_here {
            registered::leave_out(sql, name, None)?;
            news = true;
        }
    }
    Ok(news)
}
