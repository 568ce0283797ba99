//! What people were told once for this database, and need not be told again.

use std::collections::HashSet;

use super::bookkeeping::exists;
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
    exists(sql, "_federation_told")
}

/// Names for a notice: all of them, or the first `limit` and how many more or `others` there are.
pub fn some_of(names: &[&str], limit: usize, others: &str) -> String {
    let listed = names[..names.len().min(limit)].join(", ");
    match names.len().saturating_sub(limit) {
        0 => listed,
        count => format!("{listed} and {count} {others}"),
    }
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
