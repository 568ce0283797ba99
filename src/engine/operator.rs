//! What an operator sees of a running hub's tenants, and removes.
//!
//! Each method asks the store's thread for one small piece after the other, so that agents have their turns in between.

use std::time::Duration;

use thiserror::Error;
use tokio::time::sleep;

use super::audit;
use super::clock::wall_now_ms;
use super::hub::Hub;
use crate::storage::hub_operator::{
    Obeyed, OperatorStore, Order, Removal, Removed, RowCount, TableDetails, TenantDetails, TenantSummary,
};
use crate::storage::hub_store::StoreError;

/// Tenants that are read at a time.
const TENANTS: usize = 64;

/// How often it is tried to empty the log while somebody reads, and how long it is waited in between.
const LOG_ATTEMPTS: (u32, Duration) = (50, Duration::from_millis(100));

/// Why an operator's order was not obeyed.
#[derive(Debug, Error)]
pub enum OperateError {
    /// The hub has stopped: start it first.
    #[error("the hub is not running: start it first")]
    NotRunning,
    /// Nothing was erased: agents of the tenant may connect.
    #[error(
        "tenant {0:?} is not revoked: its agents would offer again all that they hold. Revoke it first, revoke({{ tenantId }}); \
         it may be reinstated afterwards"
    )]
    NotRevoked(String),
    /// The file was made by an earlier release.
    #[error(
        "the hub's file was made by an earlier release, and cannot be made smaller while the hub runs. Its {0} free bytes are \
         used again; to give them back, stop the hub and run: sqlite3 <dataPath> 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'"
    )]
    CannotShrink(u64),
    /// What was ordered holds, and the rest goes when the store can be written again.
    #[error(
        "nobody is told of it any more, and what is left of it in the file goes by itself once this is over: {0}"
    )]
    Unfinished(StoreError),
    /// The order makes no sense to the store, or it failed: nothing has changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A tenant, with what its tables' rows take.
#[derive(Clone, Debug)]
pub struct Described {
    /// The tenant.
    pub tenant: TenantDetails,
    /// What the rows of each of its tables take, in the same order.
    pub counts: Vec<RowCount>,
}

/// A table that was removed.
#[derive(Clone, Debug)]
pub struct DroppedTableReport {
    /// What has gone with it.
    pub removed: Removed,
    /// Tables that reference it: their rows stay.
    pub referenced_by: Vec<String>,
}

/// A tenant that was erased.
#[derive(Clone, Copy, Debug)]
pub struct ErasedReport {
    /// What has gone.
    pub removed: Removed,
    /// By how many bytes the file has become smaller.
    pub compacted: u64,
    /// Whether the log was emptied, which holds what was written until then.
    pub is_log_emptied: bool,
}

impl Hub {
    /// The tenants that the hub knows, by name.
    pub async fn tenants(&self) -> Result<Vec<TenantSummary>, OperateError> {
        let mut all = Vec::<TenantSummary>::new();
        loop {
            let after = all.last().map(|it| it.name.clone());
            let more = self.look(move |store| store.tenants(after.as_deref(), TENANTS)).await?;
            let is_last = more.len() < TENANTS;
            all.extend(more);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Everything about a tenant. Its rows are counted while agents go on, so that sums may differ by what they do meanwhile.
    pub async fn describe(&self, tenant: &str) -> Result<Described, OperateError> {
        let name = tenant.to_owned();
        let details = self.look(move |store| store.describe(&name)).await?;
        let mut counts = Vec::with_capacity(details.tables.len());
        for TableDetails { id, .. } in &details.tables {
            let (id, mut total) = (*id, RowCount::default());
            loop {
                let (name, after) = (tenant.to_owned(), total.next);
                let count = self.look(move |store| store.count_rows(&name, id, after)).await?;
                (total.rows, total.bytes) = (total.rows + count.rows, total.bytes + count.bytes);
                total.next = count.next;
                if count.next.is_none() {
                    break;
                }
            }
            counts.push(total);
        }
        Ok(Described { tenant: details, counts })
    }

    /// Removes a table of a tenant, with its rows. Returns when nothing is left of it.
    pub async fn drop_table(&self, tenant: &str, table: &str) -> Result<DroppedTableReport, OperateError> {
        let Obeyed { removal, referenced_by, .. } =
            self.order(tenant, Order::DropTable(table.to_owned())).await?;
        let what = Some((table, None));
        audit::removed("table dropped", tenant, what, None);
        let removed = self.remove(removal).await?;
        audit::removed("table's rows removed", tenant, what, Some(removed));
        Ok(DroppedTableReport { removed, referenced_by })
    }

    /// Has a definition of a table stand no more: that of the index of this name, or the table's text if it is the table's
    /// name. Returns the texts.
    pub async fn drop_definition(
        &self,
        tenant: &str,
        table: &str,
        name: &str,
    ) -> Result<Vec<String>, OperateError> {
        let order = Order::DropDefinition(table.to_owned(), name.to_owned());
        let Obeyed { texts, .. } = self.order(tenant, order).await?;
        audit::removed("definition dropped", tenant, Some((table, Some(name))), None);
        Ok(texts)
    }

    /// Lets those share a removed table again who have it as it was, or a definition stand again.
    pub async fn readmit(&self, tenant: &str, table: &str, name: Option<&str>) -> Result<(), OperateError> {
        let order = Order::Readmit(table.to_owned(), name.map(str::to_owned));
        self.order(tenant, order).await?;
        audit::removed("readmitted", tenant, Some((table, name)), None);
        Ok(())
    }

    /// Removes everything of a tenant, which has to be revoked. Returns when nothing is left.
    pub async fn erase_tenant(&self, tenant: &str) -> Result<ErasedReport, OperateError> {
        let shared = self.shared().ok_or(OperateError::NotRunning)?;
        if !shared.revocations.hold_tenant(tenant, wall_now_ms()) {
            // Whoever mistypes a name hears of that first.
            let name = tenant.to_owned();
            self.look(move |store| store.describe(&name)).await?;
            return Err(OperateError::NotRevoked(tenant.to_owned()));
        }
        drop(shared);
        let Obeyed { removal, .. } = self.order(tenant, Order::Erase).await?;
        audit::removed("tenant erased", tenant, None, None);
        let removed = self.remove(removal).await?;
        audit::removed("tenant's rows removed", tenant, None, Some(removed));
        let compacted = match self.compact().await {
            // What was freed is overwritten all the same.
            Err(OperateError::CannotShrink(_)) => 0,
            compacted => compacted?,
        };
        let is_log_emptied = self.empty_log().await?;
        Ok(ErasedReport { removed, compacted, is_log_emptied })
    }

    /// Gives the file's free pages back. Returns by how many bytes it has become smaller.
    pub async fn compact(&self) -> Result<u64, OperateError> {
        let mut bytes = 0;
        loop {
            let piece = self.change(|store, _| store.compact_some()).await?;
            bytes += piece.bytes;
            if !piece.can_shrink && piece.free > 0 {
                return Err(OperateError::CannotShrink(piece.free));
            }
            // A piece that gives nothing back leaves what it cannot.
            if piece.free == 0 || piece.bytes == 0 {
                break;
            }
        }
        // The file ends where it did until the log is in it.
        self.empty_log().await?;
        audit::compacted(bytes);
        Ok(bytes)
    }

    /// Empties the store's log into its file; says whether that was possible.
    async fn empty_log(&self) -> Result<bool, OperateError> {
        let (attempts, pause) = LOG_ATTEMPTS;
        for _ in 0..attempts {
            if self.look(|store| store.empty_log()).await? {
                return Ok(true);
            }
            sleep(pause).await;
        }
        Ok(false)
    }

    async fn order(&self, tenant: &str, order: Order) -> Result<Obeyed, OperateError> {
        let tenant = tenant.to_owned();
        self.change(move |store, now_ms| store.obey(&tenant, &order, now_ms)).await
    }

    /// Removes, piece by piece, what an order has left behind.
    async fn remove(&self, removal: Option<Removal>) -> Result<Removed, OperateError> {
        let Some(removal) = removal else { return Ok(Removed::default()) };
        loop {
            match self.change(move |store, _| store.remove_some(removal)).await {
                Ok(Some(removed)) => return Ok(removed),
                Ok(None) => {}
                Err(OperateError::Store(error)) => return Err(OperateError::Unfinished(error)),
                Err(OperateError::NotRunning) => {
                    let stopped = "the hub was stopped, and goes on when it is started";
                    return Err(OperateError::Unfinished(StoreError::Failed(stopped.to_owned())));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn OperatorStore, i64) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, OperateError> {
        let writer = self.shared().ok_or(OperateError::NotRunning)?.writer.clone();
        Ok(writer.change(work).await?)
    }

    async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn OperatorStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, OperateError> {
        let writer = self.shared().ok_or(OperateError::NotRunning)?.writer.clone();
        Ok(writer.look(work).await?)
    }
}
