//! What people were told once for this database, and need not be told again.

use super::driver::{Sql, SqlError};

/// Whether a notice was never given before. It counts as given from now on.
pub fn is_news(sql: &mut dyn Sql, notice: &str) -> Result<bool, SqlError> {
    let exists = "SELECT 1 FROM main.sqlite_master WHERE name = '_federation_told'";
    if sql.query_row(exists, &[])?.is_none() {
        sql.run("CREATE TABLE main._federation_told(notice TEXT PRIMARY KEY) WITHOUT ROWID")?;
    }
    let told = "INSERT OR IGNORE INTO main._federation_told(notice) VALUES(?)";
    Ok(sql.execute(told, &[notice.into()])? > 0)
}
