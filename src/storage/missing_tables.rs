//! The tenant's tables that are missing here: which of them are made, and which wait until the application has made them.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::bookkeeping::exists;
use super::catalog::Catalog;
use super::choice::{CreateSchema, SyncOptions};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::Fields;
use super::fitting::fitting;
use super::sql_text::in_main;
use super::tenant_tables::unwanted;
use super::told::some_of;
use crate::model::{TableSchema, Value};

/// What the bookkeeping knows of tables that were missing when the hub told of them, by their names in lower case: made once
/// there are any. `held` is the definition of one that waits, and NULL where the table was made.
const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS main._federation_missing(name TEXT PRIMARY KEY, held BLOB) WITHOUT ROWID";

/// Names in one notice.
const MAX_NAMES: usize = 10;

/// What becomes of the tables that a hub has told of, and that are not here.
#[derive(Debug, Default)]
pub struct Missing {
    /// They are made: proved harmless.
    pub make: Vec<TableSchema>,
    /// They wait. One that cannot be made here in any case has no text.
    pub hold: Vec<TableSchema>,
    /// What people should know.
    pub notices: Vec<String>,
}

impl Missing {
    /// Decides it.
    pub fn of(told: &[TableSchema], catalog: Option<&Catalog>, options: &SyncOptions) -> Self {
        let mut missing = Self::default();
        let unwanted = unwanted(told, options);
        for table in told.iter().filter(|table| !table.is_removed()) {
            let is_here = catalog.is_some_and(|it| it.table(&table.name).is_some());
            if is_here || unwanted.contains(&table.name.as_str()) || !options.includes(&table.name) {
                continue;
            }
            match (fitting(table), options.makes(table)) {
                (Ok((table, left_out)), true) => {
                    missing.make.push(table);
                    missing.notices.extend(left_out);
                }
                (Err(why), true) => {
                    missing.notices.push(format!("table {:?} is not made here: {why}", table.name));
                }
                (Ok((table, _)), false) => missing.hold.push(table),
                (Err(_), false) => {
                    let (ddl, indexes) = (String::new(), Vec::new());
                    missing.hold.push(TableSchema { ddl, indexes, ..table.clone() });
                }
            }
        }
        missing
    }

    /// Adds what becomes of tables that the hub has told of besides.
    pub fn add(&mut self, more: Self) {
        self.make.extend(more.make);
        self.hold.extend(more.hold);
        self.notices.extend(more.notices);
    }
}

impl SyncOptions {
    /// Whether a table of the tenant is made where it is missing.
    fn makes(&self, table: &TableSchema) -> bool {
        match self.create_schema {
            CreateSchema::Auto => table.agreed.needs_application.is_none(),
            CreateSchema::Always => true,
            CreateSchema::Never => false,
        }
    }
}

/// What is remembered of tables that were missing.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Those that wait.
    held: HashMap<String, TableSchema>,
    /// Those that were made here from the tenant's definitions.
    pub made: HashSet<String>,
}

impl Remembered {
    /// Reads it.
    pub fn read(sql: &mut dyn Sql) -> Result<Self, SqlError> {
        let mut remembered = Self::default();
        if !exists(sql, "_federation_missing")? {
            return Ok(remembered);
        }
        sql.query("SELECT name, held FROM main._federation_missing", &[], &mut |row| {
            let mut fields = Fields::of(row);
            let name = fields.text()?;
            match fields.value() {
                Value::Blob(bytes) => {
                    let table = rmp_serde::from_slice(&bytes);
                    let table = table.map_err(|error| SqlError::corrupt(error.to_string()))?;
                    remembered.held.insert(name, table);
                }
                _ => {
                    remembered.made.insert(name);
                }
            }
            Ok(())
        })?;
        Ok(remembered)
    }

    /// Whether a table waits until the application has made it.
    pub fn waits_for(&self, table: &str) -> bool {
        self.held.contains_key(&table.to_lowercase())
    }

    /// Forgets what waits and is here by now, and what was made and is not.
    pub fn forget(&self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        if self.held.is_empty() && self.made.is_empty() {
            return Ok(());
        }
        sql.execute(
            "DELETE FROM main._federation_missing AS m WHERE (m.held IS NULL) <> EXISTS \
             (SELECT 1 FROM main.sqlite_master AS t WHERE t.type IN ('table', 'view') AND t.name = m.name COLLATE NOCASE)",
            &[],
        )?;
        Ok(())
    }
}

/// Remembers tables that wait, and tells of those of which it has not told.
pub fn hold(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    tables: &[TableSchema],
    notices: &mut Vec<String>,
) -> Result<(), SqlError> {
    let waiting: Vec<&TableSchema> = tables.iter().filter(|table| !is_here(catalog, &table.name)).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    sql.run(TABLE)?;
    let before = Remembered::read(sql)?;
    for table in &waiting {
        let held = rmp_serde::to_vec(table).map_err(|error| SqlError::corrupt(error.to_string()))?;
        let name = table.name.to_lowercase();
        sql.execute(
            "INSERT OR REPLACE INTO main._federation_missing(name, held) VALUES(?, ?)",
            &[name.as_str().into(), ValueRef::Blob(&held)],
        )?;
    }
    let mut news: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for table in waiting.iter().filter(|table| !before.waits_for(&table.name)) {
        news.entry(why(table, catalog.options.create_schema)).or_default().push(&table.name);
    }
    notices.extend(news.iter().map(|(why, names)| waiting_notice(names, why)));
    Ok(())
}

/// Forgets tables that wait, and that are the tenant's no more.
pub fn forget_removed(sql: &mut dyn Sql, told: &[TableSchema]) -> Result<(), SqlError> {
    let mut removed = told.iter().filter(|table| table.is_removed()).peekable();
    if removed.peek().is_none() || !exists(sql, "_federation_missing")? {
        return Ok(());
    }
    for table in removed {
        let name = table.name.to_lowercase();
        sql.execute(
            "DELETE FROM main._federation_missing WHERE name = ? AND held IS NOT NULL",
            &[name.as_str().into()],
        )?;
    }
    Ok(())
}

/// Why a table waits, and what to do about it.
fn why(table: &TableSchema, create_schema: CreateSchema) -> String {
    match &table.agreed.needs_application {
        Some(needed) if create_schema == CreateSchema::Auto => format!(
            "The application that declared them has {needed}, and would not make all that it needs if it found them here. Open \
             this database with that application, then sync again: until then their rows wait at the hub. \
             (createSchema: true makes them all the same.)"
        ),
        _ => {
            "createSchema is false: their rows wait at the hub until the application has made them".to_owned()
        }
    }
}

fn waiting_notice(names: &[&str], why: &str) -> String {
    format!("tables of this tenant are not made here: {}. {why}", some_of(names, MAX_NAMES, "more"))
}

fn is_here(catalog: &Catalog, name: &str) -> bool {
    catalog.table(name).is_some()
        || catalog.left_alone.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))
        || catalog.is_unwanted(name)
}

/// Makes tables that are missing here; says whether any was made. An index that cannot be made here is left out, with a
/// notice: the rows matter more.
pub fn make(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    tables: &[TableSchema],
    notices: &mut Vec<String>,
) -> Result<bool, SqlError> {
    let mut made = false;
    for table in tables.iter().filter(|table| !is_here(catalog, &table.name)) {
        made |= make_one(sql, table, notices)?;
    }
    Ok(made)
}

/// Makes tables that wait, where the application has chosen otherwise since.
pub fn make_held(
    sql: &mut dyn Sql,
    options: &SyncOptions,
    notices: &mut Vec<String>,
) -> Result<(), SqlError> {
    for table in Remembered::read(sql)?.held.into_values() {
        let exists = "SELECT 1 FROM main.sqlite_master WHERE name = ? COLLATE NOCASE";
        let is_wanted = options.makes(&table) && options.includes(&table.name) && !table.ddl.is_empty();
        if is_wanted && sql.query_row(exists, &[table.name.as_str().into()])?.is_none() {
            make_one(sql, &table, notices)?;
        }
    }
    Ok(())
}

fn make_one(sql: &mut dyn Sql, table: &TableSchema, notices: &mut Vec<String>) -> Result<bool, SqlError> {
    if let Err(error) = sql.run(&in_main(&table.ddl)) {
        notices.push(format!("table {} of this tenant cannot be made here: {error}", table.name));
        return Ok(false);
    }
    for index in &table.indexes {
        if let Err(error) = sql.run(&in_main(index)) {
            notices.push(format!("an index of table {} cannot be made here: {error}", table.name));
        }
    }
    sql.run(TABLE)?;
    let name = table.name.to_lowercase();
    sql.execute(
        "INSERT OR REPLACE INTO main._federation_missing(name, held) VALUES(?, NULL)",
        &[name.as_str().into()],
    )?;
    Ok(true)
}
