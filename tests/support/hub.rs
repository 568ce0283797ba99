//! A hub's store, and the time that its hub sees.

use federation_hub::model::ReplicaId;
use federation_hub::protocol::frame::decode_payload;
use federation_hub::protocol::hub_request::{Caller, PushRequest};
use federation_hub::protocol::message::{Ack, Batch};
use federation_hub::storage::hub_store::{HubStore, StoreError};
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;

use crate::clock::Clock;

/// A hub's store.
pub struct Hub {
    pub store: SqliteHubStore,
    pub clock: Clock,
}

impl Hub {
    pub fn new() -> Self {
        Self::incarnated(1)
    }

    pub fn incarnated(seed: u8) -> Self {
        let store = SqliteHubStore::open(":memory:", ReplicaId([seed; 16])).unwrap();
        Self { store, clock: Clock::default() }
    }

    /// Takes a batch, durably.
    pub fn push(
        &mut self,
        caller: &Caller,
        replica: ReplicaId,
        epoch: u64,
        batch: &Batch,
    ) -> Result<Ack, StoreError> {
        let request = PushRequest {
            replica,
            epoch,
            counter: 1,
            n: batch.n,
            previous: batch.previous,
            digest: batch.digest(replica),
            body: decode_payload(&batch.body).unwrap(),
        };
        let ack = self.store.push(caller, request, self.clock.now_ms())?;
        self.store.commit().unwrap();
        Ok(ack)
    }
}
