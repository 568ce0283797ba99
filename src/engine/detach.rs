//! Detaching a database from its hub, without a connection to any.

use std::time::Duration;

use super::agent_error::AgentError;
use super::clock::wall_now_ms;
use super::turn::turn;
use crate::storage::driver::SqlDriver;
use crate::storage::lease::{Claim, Holder};

/// How long a lock, an iterator or another process's sync is waited for: longer than the lease of a process
/// that died in the middle of one.
const PATIENCE: Duration = Duration::from_secs(15);

/// Removes all bookkeeping. What was not pushed stays in the database, and is not known to be unpushed any more.
pub async fn detach(driver: &dyn SqlDriver) -> Result<(), AgentError> {
    turn(driver, PATIENCE, |sql| {
        // It only asks whether the way is free, so it need not be told from others like it.
        let claim = Claim { holder: Holder([0; 16]), now_ms: wall_now_ms() };
        crate::storage::detach::detach(sql, claim)
    })
    .await
}
