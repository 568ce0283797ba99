//! The operator's side of the store, by its transactions.

use super::{SqliteHubStore, operator, removal};
use crate::model::ReplicaId;
use crate::protocol::hub_request::Caller;
use crate::protocol::message::Incarnation;
use crate::storage::hub_operator::{
    Compacted, Obeyed, OperatorStore, Order, Removal, Removed, RowCount, TenantDetails, TenantSummary,
};
use crate::storage::hub_store::StoreError;

/// Pages that are given back at a time: a megabyte.
const PAGES: i64 = 256;

impl SqliteHubStore {
    /// Under which name positions of a tenant are given away.
    pub(super) fn incarnation_of(&self, tenant: &str) -> Incarnation {
        self.renewed.get(tenant).copied().unwrap_or(self.incarnation)
    }

    /// Has positions of a tenant be of another incarnation, so that its replicas declare their tables anew as they do when the
    /// hub was started again.
    fn renew(&mut self, tenant: &str) {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.incarnation_of(tenant).0).update(tenant.as_bytes());
        let mut id = [0; 16];
        hash.finalize_xof().fill(&mut id);
        self.renewed.insert(tenant.to_owned(), ReplicaId(id));
    }

    /// Removes a piece.
    pub(super) fn remove_piece(&mut self, removal: Removal) -> Result<(), StoreError> {
        let piece = self.write(|conn, stats| removal::step(conn, stats, removal))?;
        if let Some(total) = self.removed.get_mut(&removal) {
            total.rows += piece.removed.rows;
            total.bytes += piece.removed.bytes;
        }
        if let Some(tenant) = piece.renewed {
            self.renew(&tenant);
        }
        if piece.is_last && removal.table == 0 {
            self.sightings.remove_all(removal.tenant);
        }
        Ok(())
    }
}

impl OperatorStore for SqliteHubStore {
    fn tenants(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<TenantSummary>, StoreError> {
        operator::tenants(&self.conn, after, limit)
    }

    fn describe(&mut self, tenant: &str) -> Result<TenantDetails, StoreError> {
        operator::describe(&self.conn, &self.sightings, tenant)
    }

    fn count_rows(
        &mut self,
        tenant: &str,
        table: i64,
        after: Option<[u8; 16]>,
    ) -> Result<RowCount, StoreError> {
        operator::count_rows(&self.conn, tenant, table, after)
    }

    fn obey(&mut self, tenant: &str, order: &Order, now_ms: i64) -> Result<Obeyed, StoreError> {
        let caller = Caller { tenant: tenant.to_owned(), agent: String::new() };
        let mut rules = self.rules.remove(tenant);
        let outcome =
            self.write(|conn, stats| operator::obey(conn, (stats, &mut rules), tenant, order, now_ms));
        match order {
            // They may be of tables that are there no more.
            Order::DropTable(_) | Order::Erase => {}
            Order::Readmit(..) | Order::DropDefinition(..) => self.keep_rules(&caller, rules, &outcome),
        }
        if outcome.is_ok() && matches!(order, Order::Erase | Order::Readmit(_, None)) {
            self.renew(tenant);
        }
        if let Ok(Obeyed { removal: Some(removal), .. }) = &outcome {
            self.removed.insert(*removal, Removed::default());
        }
        outcome
    }

    fn remove_some(&mut self, removal: Removal) -> Result<Option<Removed>, StoreError> {
        if !removal::is_under_way(&self.conn, removal)? {
            return Ok(Some(self.removed.remove(&removal).unwrap_or_default()));
        }
        self.remove_piece(removal).map(|()| None)
    }

    fn compact_some(&mut self) -> Result<Compacted, StoreError> {
        let page_bytes: i64 = self.conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let kind: i64 = self.conn.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
        let can_shrink = kind != 0;
        let bytes = |pages: i64| (pages * page_bytes).cast_unsigned();
        let free: i64 = self.conn.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if !can_shrink || free == 0 {
            return Ok(Compacted { bytes: 0, free: bytes(free), can_shrink });
        }
        let (left, before) = self.write(|conn, _| removal::vacuum(conn, PAGES))?;
        Ok(Compacted { bytes: bytes(before.saturating_sub(left)), free: bytes(left), can_shrink })
    }

    fn empty_log(&mut self) -> Result<bool, StoreError> {
        self.check_file()?;
        removal::empty_log(&self.conn)
    }
}
