//! A change of the schema with capture out of the way.
//!
//! Between [`begin`] and [`end`] no trigger of ours is there to stand in the way of a statement, and none notes
//! what is written. So every table is marked to be compared, row by row, with what was synced of it; the next
//! sync does that.

use super::bookkeeping::{is_installed, lead_here, lease, probe};
use super::capture::{Discovery, installed_triggers, refresh};
use super::catalog::quote;
use super::driver::{Sql, SqlError, SqlErrorKind};
use super::lease::Claim;
use super::registered;
use super::transaction::{Purpose, transaction};

/// Takes capture away. A database that never synced is left as it is.
///
/// # Errors
/// [`SqlErrorKind::Leased`] while another process syncs the database, and [`SqlErrorKind::Busy`] while a lock
/// or an open iterator is in the way: a later turn may succeed. Nothing has happened then.
pub fn begin(sql: &mut dyn Sql, claim: Claim) -> Result<(), SqlError> {
    let begun = transaction(sql, Purpose::Record, |sql| {
        if !is_installed(sql)? {
            return Ok(());
        }
        // None is taken: a sync of another process would bring capture back too early, and do no harm by it.
        claim.check(lease(sql)?.as_ref())?;
        // Before anything is written, so that a crash in the middle loses nothing either.
        sql.execute(
            "UPDATE main._federation_table SET scanned = NULL, \
             scan = CASE WHEN scan IN ('old', 'new') THEN scan ELSE 'changed' END WHERE NOT is_out",
            &[],
        )?;
        for name in installed_triggers(sql)?.into_keys() {
            sql.run(&format!("DROP TRIGGER main.{}", quote(&name)))?;
        }
        Ok(())
    });
    begun.map_err(|error| in_transaction(error, "call migrate() outside of it: its function may open one"))
}

/// Brings capture back, on the schema as it is now.
///
/// # Errors
/// As those of [`begin`]. If it fails, the next sync does its work.
pub fn end(sql: &mut dyn Sql) -> Result<(), SqlError> {
    let ended = transaction(sql, Purpose::Record, |sql| {
        if !is_installed(sql)? {
            return Ok(());
        }
        lead_here(sql)?;
        let resume = probe(sql)?.state.resume;
        // What was chosen at the last sync holds until the next one says otherwise.
        let options = registered::remembered(sql)?;
        refresh(sql, &options, Discovery::New, resume, None).map(drop)
    });
    ended.map_err(|error| in_transaction(error, "the function that migrate() ran must COMMIT or ROLLBACK it"))
}

/// Nobody but the caller can end a transaction that it has open: to wait for that would be in vain.
fn in_transaction(error: SqlError, remedy: &str) -> SqlError {
    match error.kind {
        SqlErrorKind::InTransaction => SqlError {
            kind: SqlErrorKind::Other,
            message: format!("a transaction is open on this handle: {remedy}"),
        },
        _ => error,
    }
}
