//! Detaching: everything of ours leaves the database, which is then one that never synced.

use super::bookkeeping::{PREFIX, is_installed, lease};
use super::catalog::quote;
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::fields::{Fields, integer};
use super::lease::Claim;
use super::parked::put_back_all;
use super::transaction::{Purpose, transaction};

/// The table in which rows may be that left theirs for a while.
const QUARANTINE: &str = "_federation_quarantine";

/// Removes the bookkeeping. A database without any is left as it is.
///
/// # Errors
/// [`SqlErrorKind::Leased`] while another process syncs the database, and [`SqlErrorKind::Busy`] while a lock
/// or an open iterator is in the way: a later turn may succeed. Any other failure, an open transaction of the
/// application included, is for the caller to mend. Nothing has happened then.
pub fn detach(sql: &mut dyn Sql, claim: Claim) -> Result<(), SqlError> {
    transaction(sql, Purpose::Record, |sql| {
        if is_installed(sql)? {
            claim.check(lease(sql)?.as_ref())?;
        }
        remove(sql)
    })
    .map_err(|error| match error.kind {
        SqlErrorKind::InTransaction => SqlError {
            kind: SqlErrorKind::Other,
            message: "a transaction of the application is open on this handle: COMMIT or ROLLBACK it, then \
                      call detach() again"
                .into(),
        },
        _ => error,
    })
}

/// Removes all that is ours, within the transaction that is open, however much of it is there.
pub fn remove(sql: &mut dyn Sql) -> Result<(), SqlError> {
    // A table takes its own indexes and triggers with it; ours are also on the application's tables.
    for kind in ["trigger", "table"] {
        let names = own_objects(sql, kind)?;
        if names.iter().any(|name| name == QUARANTINE) {
            put_back_all(sql)?;
        }
        for name in names {
            sql.run(&format!("DROP {kind} main.{}", quote(&name)))?;
        }
    }
    Ok(())
}

fn own_objects(sql: &mut dyn Sql, kind: &str) -> Result<Vec<String>, SqlError> {
    let mut names = Vec::new();
    sql.query(
        "SELECT name FROM main.sqlite_master WHERE type = ? AND substr(name, 1, ?) = ?",
        &[kind.into(), integer(PREFIX.len() as u64)?, ValueRef::Text(PREFIX)],
        &mut |row| {
            names.push(Fields::of(row).text()?);
            Ok(())
        },
    )?;
    Ok(names)
}
