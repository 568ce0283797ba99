//! Migrations under way: between the beginning of one and its end, no sync of that handle has its turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::error::CodedError;
use super::js_driver::JsDriver;
use super::js_thread::JsThread;
use crate::engine::upkeep::{begin_migration, end_migration};

/// The turns that they keep, by the number of the handle.
static UNDER_WAY: Mutex<BTreeMap<u64, OwnedMutexGuard<()>>> = Mutex::new(BTreeMap::new());

fn under_way() -> MutexGuard<'static, BTreeMap<u64, OwnedMutexGuard<()>>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the sync that is running, takes capture away, and keeps the handle's turn.
pub async fn begin(thread: JsThread, database_id: u64, turn: Arc<AsyncMutex<()>>) -> Result<(), CodedError> {
    let turn = turn.lock_owned().await;
    begin_migration(&JsDriver::new(thread, database_id)).await?;
    under_way().insert(database_id, turn);
    Ok(())
}

/// Brings capture back, and lets the next sync have its turn, whatever became of it.
pub async fn end(thread: JsThread, database_id: u64) -> Result<(), CodedError> {
    let _turn = under_way().remove(&database_id);
    Ok(end_migration(&JsDriver::new(thread, database_id)).await?)
}
