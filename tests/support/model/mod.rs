//! What a tenant's rows must be: an independent, obvious and slow model of the hub.
//!
//! It keeps every accepted write, in the hub's order, and works the rows out from the first one each time that it
//! is asked, by the rules of `docs/protocol.md` (section 7) and of nothing else: no code of the hub's store is
//! called here. It reads no clock, no database of the hub's and no bookkeeping.
//!
//! ```text
//! registered | accepted | read    what the hub heard, in its order
//! check                           does what the hub tells of all rows follow from that?
//! ```
//!
//! `accepted` also says how many conflicts the batch must have had. A model can be cloned, as a hub's store can
//! be copied: a hub that is restored from a backup goes on with the model of that time.

mod claims;
mod conflicts;
mod decision;
mod history;
mod living;
mod local_effects;
mod number;
mod raw;
mod rules;
mod schema;
mod standing;
mod tenant;
pub mod told;
mod unions;
mod unique;
mod uniting;
mod view;

use std::collections::BTreeMap;

use federation_hub::model::{ReplicaId, Seq, TableSchema};
use federation_hub::protocol::message::{Ack, BatchBody, Rows};

use tenant::Tenant;

/// Where hub and model differ, for a person.
pub type Difference = String;

/// All that a hub has accepted.
#[derive(Clone, Default)]
pub struct Model {
    tenants: BTreeMap<String, Tenant>,
}

/// A batch that a hub has accepted.
pub struct Accepted<'a> {
    /// Whose.
    pub replica: ReplicaId,
    /// The count of the sync that it was part of: batches of one sync are one push.
    pub sync: u64,
    /// The changes.
    pub body: &'a BatchBody,
    /// What the hub said to it.
    pub ack: &'a Ack,
}

impl Model {
    /// The hub has taken in a replica's declarations of tables.
    pub fn registered(&mut self, tenant: &str, replica: ReplicaId, schema: &[TableSchema]) {
        self.tenants.entry(tenant.to_owned()).or_default().declare(replica, schema);
    }

    /// The hub has accepted a batch. Call it in the hub's order; a batch that was accepted before does nothing.
    /// An error tells a number of conflicts that is not as it must be.
    pub fn accepted(&mut self, tenant: &str, batch: &Accepted<'_>) -> Result<(), Difference> {
        self.tenants.entry(tenant.to_owned()).or_default().accept(batch)
    }

    /// Somebody was told of everything up to this position: writes based on it have seen all that was accepted
    /// before. Call it for each snapshot that is read, interrupted ones included.
    pub fn read(&mut self, tenant: &str, cursor: Seq) {
        self.tenants.entry(tenant.to_owned()).or_default().read(cursor);
    }

    /// Compares with what the hub tells somebody who asks for every row whole.
    pub fn check(&self, tenant: &str, told: &[Rows]) -> Result<(), Difference> {
        let nothing = Tenant::default();
        told::compare(self.tenants.get(tenant).unwrap_or(&nothing), told)
    }
}
