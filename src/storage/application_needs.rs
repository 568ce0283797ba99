//! Whether anybody but its application can make the tables of a database. Tables and indexes travel. What an application
//! makes beside them does not, and where it reads off a journal or a version that all is done, or fills an index by
//! triggers from the first row on, it has to make its tables itself.

use super::catalog::{as_number, quote};
use super::choice::SyncOptions;
use super::driver::{Sql, SqlError, SqlErrorKind};
use super::journals;
use super::sql_text::{Token, tokens};
use crate::model::NeedsApplication;

/// Rows of a table of pairs that are looked at.
const PAIRS: usize = 1_000;

/// What of a database decides it.
pub struct Made<'a> {
    /// Its tables, each with the names of its columns.
    pub tables: &'a [(&'a str, Vec<&'a str>)],
    /// The names of its virtual tables.
    pub virtual_tables: &'a [&'a str],
    /// The texts of its triggers, those of views included.
    pub triggers: &'a [&'a str],
}

impl Made<'_> {
    /// Why the application has to make its tables itself, if it has to.
    ///
    /// # Errors
    /// Those of reading the database.
    pub fn needs_application(
        &self,
        sql: &mut dyn Sql,
        options: &SyncOptions,
    ) -> Result<Option<NeedsApplication>, SqlError> {
        for (name, columns) in self.tables {
            if is_journal(sql, name, columns, options)? {
                return Ok(Some(NeedsApplication::Journal((*name).to_owned())));
            }
        }
        let row = sql.query_row("PRAGMA main.user_version", &[])?;
        if row.and_then(|row| as_number(row.first()?)).unwrap_or(0) != 0 {
            return Ok(Some(NeedsApplication::UserVersion));
        }
        Ok(self.filled().map(|name| NeedsApplication::VirtualTable(name.to_owned())))
    }

    /// A virtual table that a trigger names.
    fn filled(&self) -> Option<&str> {
        if self.virtual_tables.is_empty() {
            return None;
        }
        self.triggers.iter().find_map(|text| {
            let tokens = tokens(text).unwrap_or_default();
            let mut names = tokens.iter().filter_map(Token::name);
            names.find_map(|name| {
                self.virtual_tables.iter().copied().find(|it| it.eq_ignore_ascii_case(&name))
            })
        })
    }
}

/// Whether a table says how far its database has been migrated. One that the application names among those that are shared
/// says so of all.
fn is_journal(
    sql: &mut dyn Sql,
    name: &str,
    columns: &[&str],
    options: &SyncOptions,
) -> Result<bool, SqlError> {
    if options.names(name) {
        return Ok(false);
    }
    if journals::tool(name, columns).is_some() || journals::says_version(name, columns) {
        return Ok(true);
    }
    let Some(key) = journals::pairs_key(name, columns) else { return Ok(false) };
    if !options.includes(name) {
        return Ok(true);
    }
    let (name, key) = (quote(name), quote(key));
    let query = format!(
        "SELECT 1 FROM (SELECT {key} AS k FROM main.{name} LIMIT {PAIRS}) WHERE k LIKE '%version%' OR k LIKE '%migrat%'"
    );
    match sql.query_row(&query, &[]) {
        Ok(found) => Ok(found.is_some()),
        // It cannot be read through this connection.
        Err(error) if matches!(error.kind, SqlErrorKind::Other | SqlErrorKind::Statement) => Ok(false),
        Err(error) => Err(error),
    }
}
