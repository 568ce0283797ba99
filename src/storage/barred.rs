//! Rows that a turn leaves out because something failed in the middle of what is done for them.
//!
//! Where the first statement for a row fails, the row is set aside and the turn goes on. Where a later one does, what the
//! earlier ones did cannot be taken back one by one. The turn is rolled back and runs again without that row.

use std::collections::HashMap;

use super::apply_row::Outcome;
use super::driver::{EachRow, Sql, SqlError, SqlErrorKind, ValueRef};
use super::quarantine::refused;
use super::yielding::{Indexes, despite_indexes};
use crate::model::{RowId, TableHeader};

/// The rows that are left out of a turn, each with the reason.
#[derive(Debug, Default)]
pub struct Barred {
    /// By the table's name in lower case and the identity.
    rows: HashMap<(String, RowId), String>,
    /// For which item of the turn something is being done.
    pub item: Option<usize>,
}

impl Barred {
    /// Why a row is left out, if it is.
    pub fn why(&self, header: &TableHeader, id: RowId) -> Option<&str> {
        if self.rows.is_empty() {
            return None;
        }
        self.rows.get(&(header.name.to_lowercase(), id)).map(String::as_str)
    }

    /// Leaves out the row of which something has failed, if it was a statement that failed, and not the database.
    pub fn blame(&mut self, error: &SqlError, table: &str, id: RowId) {
        if error.kind == SqlErrorKind::Statement {
            self.rows.entry((table.to_lowercase(), id)).or_insert_with(|| error.message.clone());
        }
    }
}

/// Runs a turn that applies rows without what fails in it: the indexes that triggers keep ([`despite_indexes`]), and rows.
///
/// # Errors
/// Those of the turn for which neither is to blame.
pub fn despite_failures<T>(
    sql: &mut dyn Sql,
    mut turn: impl FnMut(&mut dyn Sql, &mut Indexes, &mut Barred) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    despite_indexes(sql, |sql, indexes| despite_rows(|barred| turn(sql, indexes, barred)))
}

/// Runs a turn that applies rows, again and again, each time without one more row, until nothing fails in the middle of
/// one.
///
/// # Errors
/// Those of the turn for which no row is to blame.
fn despite_rows<T>(mut turn: impl FnMut(&mut Barred) -> Result<T, SqlError>) -> Result<T, SqlError> {
    let mut barred = Barred::default();
    loop {
        let before = barred.rows.len();
        match turn(&mut barred) {
            Err(_) if barred.rows.len() > before => {}
            outcome => return outcome,
        }
    }
}

/// Does something for one row. What fails before anything was written refuses the row.
///
/// # Errors
/// Those of the database, and what fails later.
pub fn refusing_first_failure(
    sql: &mut dyn Sql,
    work: impl FnOnce(&mut dyn Sql) -> Result<Outcome, SqlError>,
) -> Result<Outcome, SqlError> {
    let mut watched = Watched { sql, has_written: false };
    match work(&mut watched) {
        Err(error) if !watched.has_written => {
            let reason = refused(sql, Err::<(), _>(error))?;
            Ok(reason.map_or(Outcome::Unchanged, Outcome::Refused))
        }
        outcome => outcome,
    }
}

/// The database, while something is done for one row.
struct Watched<'a> {
    sql: &'a mut dyn Sql,
    has_written: bool,
}

impl Sql for Watched<'_> {
    fn run(&mut self, sql: &str) -> Result<(), SqlError> {
        self.sql.run(sql).inspect(|()| self.has_written = true)
    }

    fn execute(&mut self, sql: &str, params: &[ValueRef<'_>]) -> Result<u64, SqlError> {
        self.sql.execute(sql, params).inspect(|_| self.has_written = true)
    }

    fn query(&mut self, sql: &str, params: &[ValueRef<'_>], each: EachRow<'_>) -> Result<(), SqlError> {
        self.sql.query(sql, params, each)
    }
}
