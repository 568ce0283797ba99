//! What people were told once for this database, and need not be told again.

use std::collections::HashSet;

use super::driver::{Sql, SqlError};
use super::fields::Fields;

/// Whether a notice was never given before. It counts as given from now on.
pub fn is_news(sql: &mut dyn Sql, notice: &str) -> Result<bool, SqlError> {
    if !is_there(sql)? {
        sql.run("CREATE TABLE main._federation_told(notice TEXT PRIMARY KEY) WITHOUT ROWID")?;
    }
    let told = "INSERT OR IGNORE INTO main._federation_told(notice) VALUES(?)";
    Ok(sql.execute(told, &[notice.into()])? > 0)
}

fn is_there(sql: &mut dyn Sql) -> Result<bool, SqlError> {
    let exists = "SELECT 1 FROM main.sqlite_master WHERE name = '_federation_told'";
    Ok(sql.query_row(exists, &[])?.is_some())
}

/// Remembers exactly these of the notices that begin with `kind`, and gives those that were remembered before. Writes only
/// what differs.
pub fn remember(sql: &mut dyn Sql, kind: &str, now: &[String]) -> Result<HashSet<String>, SqlError> {
    let mut before = HashSet::new();
    if is_there(sql)? {
        // A numbered parameter would be a named one to better-sqlite3.
        let query = "SELECT notice FROM main._federation_told WHERE substr(notice, 1, length(?)) = ?";
        sql.query(query, &[kind.into(), kind.into()], &mut |row| {
            before.insert(Fields::of(row).text()?);
            Ok(())
        })?;
    }
    for notice in now.iter().filter(|notice| !before.contains(*notice)) {
        is_news(sql, notice)?;
    }
    for notice in before.iter().filter(|notice| !now.contains(notice)) {
        sql.execute("DELETE FROM main._federation_told WHERE notice = ?", &[notice.as_str().into()])?;
    }
    Ok(before)
}
