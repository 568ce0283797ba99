//! What is done to a database without a connection to any hub: detaching it, and changing its schema.

use std::time::Duration;

use super::agent_error::AgentError;
use super::clock::wall_now_ms;
use super::turn::turn;
use crate::storage::detach;
use crate::storage::driver::SqlDriver;
use crate::storage::lease::{Claim, Holder};
use crate::storage::migrate;

/// How long a lock, an iterator or another process's sync is waited for: longer than the lease of a process
/// that died in the middle of one.
const PATIENCE: Duration = Duration::from_secs(15);

/// Removes all bookkeeping. What was not pushed stays in the database, and is no longer known to be unpushed.
pub async fn detach(driver: &dyn SqlDriver) -> Result<(), AgentError> {
    turn(driver, PATIENCE, |sql| detach::detach(sql, claim())).await
}

/// Takes capture away.
pub async fn begin_migration(driver: &dyn SqlDriver) -> Result<(), AgentError> {
    turn(driver, PATIENCE, |sql| migrate::begin(sql, claim())).await
}

/// Brings capture back.
pub async fn end_migration(driver: &dyn SqlDriver) -> Result<(), AgentError> {
    turn(driver, PATIENCE, migrate::end).await
}

/// Asks whether the way is free, and takes no lease; so it need not be told from others like it.
fn claim() -> Claim {
    Claim { holder: Holder([0; 16]), now_ms: wall_now_ms() }
}
