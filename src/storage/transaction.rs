//! A top-level transaction of our own (I2), in which the application's settings are put back afterwards.

use super::driver::{Sql, SqlError, SqlErrorKind};
use crate::model::Value;

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read the application's tables and write bookkeeping. Takes the write lock only if it writes.
    Collect,
    /// To write bookkeeping.
    Record,
    /// To write the application's tables: from the start with the write lock, and with foreign keys
    /// unenforced, because a cascade here could delete a child written while the sync was in flight (I7).
    Apply,
}

/// Runs `work` in a transaction: committed if it succeeds, rolled back if it fails.
///
/// # Errors
/// [`SqlErrorKind::InTransaction`] if the application has a transaction open, and [`SqlErrorKind::Busy`] if
/// another connection holds a lock or an iterator is open on the handle: nothing has happened, and a later
/// turn of the event loop may succeed.
pub fn transaction<T>(
    sql: &mut dyn Sql,
    purpose: Purpose,
    work: impl FnOnce(&mut dyn Sql) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    match purpose {
        Purpose::Collect => whole(sql, "BEGIN", work),
        Purpose::Record => without_waiting(sql, |sql| whole(sql, "BEGIN IMMEDIATE", work)),
        // SQLite prepares every statement anew after this pragma: it is not for turns without rows.
        Purpose::Apply => with_pragma(sql, "foreign_keys", |sql| {
            without_waiting(sql, |sql| whole(sql, "BEGIN IMMEDIATE", work))
        }),
    }
}

/// Runs `work` without waiting for locks: better-sqlite3 waits 5 s by default, with the application frozen.
pub fn without_waiting<T>(
    sql: &mut dyn Sql,
    work: impl FnOnce(&mut dyn Sql) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    with_pragma(sql, "busy_timeout", work)
}

/// Whether the transaction is still open: some failures end it.
pub fn is_in_transaction(sql: &mut dyn Sql) -> bool {
    if let Err(error) = sql.run("BEGIN") {
        return error.kind == SqlErrorKind::InTransaction;
    }
    // Nothing can be done if that fails: the caller has an error to report as it is.
    let _ = sql.run("ROLLBACK");
    false
}

/// Sets a pragma to 0 around `work`.
fn with_pragma<T>(
    sql: &mut dyn Sql,
    name: &str,
    work: impl FnOnce(&mut dyn Sql) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    let before = match sql.query_row(&format!("PRAGMA {name}"), &[])?.as_deref() {
        Some([Value::Integer(before)]) => *before,
        _ => 0,
    };
    if before == 0 {
        return work(sql);
    }
    sql.run(&format!("PRAGMA {name} = 0"))?;
    let outcome = work(sql);
    let restored = sql.run(&format!("PRAGMA {name} = {before}"));
    let value = outcome?;
    restored?;
    Ok(value)
}

fn whole<T>(
    sql: &mut dyn Sql,
    begin: &str,
    work: impl FnOnce(&mut dyn Sql) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    sql.run(begin)?;
    let outcome = work(sql).and_then(|value| sql.run("COMMIT").map(|()| value));
    if outcome.as_ref().is_err_and(|error| error.kind != SqlErrorKind::Closed) {
        // If the failure has ended the transaction already, there is nothing to roll back.
        let _ = sql.run("ROLLBACK");
    }
    outcome
}
