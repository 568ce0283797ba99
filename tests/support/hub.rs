//! A hub's store, and the time that its hub sees.

use federation_hub::model::{ReplicaId, Seq};
use federation_hub::protocol::frame::decode_payload;
use federation_hub::protocol::hub_request::{Caller, PullRequest, PushRequest, RegisterRequest};
use federation_hub::protocol::message::{Ack, Batch};
use federation_hub::storage::hub_store::{HubStore, Snapshot, StoreError};
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;

use crate::clock::Clock;

/// A hub's store.
pub struct Hub {
    pub store: SqliteHubStore,
    pub clock: Clock,
    /// Who listens to what it takes in and tells.
    pub listener: Option<Listener>,
}

/// Somebody who listens.
pub type Listener = Box<dyn FnMut(&Caller, Heard<'_>)>;

/// What a listener hears, in the hub's order.
pub enum Heard<'a> {
    /// Tables were declared.
    Registered(&'a RegisterRequest),
    /// A batch was accepted.
    Pushed(&'a PushRequest, &'a Ack),
    /// Everything up to here is told.
    Told(Seq),
}

impl Hub {
    pub fn new() -> Self {
        Self::incarnated(1)
    }

    pub fn incarnated(seed: u8) -> Self {
        let store = SqliteHubStore::open(":memory:", ReplicaId([seed; 16])).unwrap();
        Self { store, clock: Clock::default(), listener: None }
    }

    fn hear(&mut self, caller: &Caller, heard: Heard<'_>) {
        if let Some(listener) = &mut self.listener {
            listener(caller, heard);
        }
    }

    /// Takes declarations of tables, durably.
    pub fn register(&mut self, caller: &Caller, request: &RegisterRequest) -> Result<(), StoreError> {
        self.store.register(caller, request)?;
        self.store.commit().unwrap();
        self.hear(caller, Heard::Registered(request));
        Ok(())
    }

    /// Reads what a replica lacks.
    pub fn snapshot(
        &mut self,
        caller: &Caller,
        request: &PullRequest,
        now_ms: i64,
    ) -> Result<Snapshot, StoreError> {
        let snapshot = self.store.snapshot(caller, request, now_ms)?;
        self.hear(caller, Heard::Told(snapshot.done.cursor));
        Ok(snapshot)
    }

    /// Takes a batch, durably. `counter` counts its agent's syncs.
    pub fn push(
        &mut self,
        caller: &Caller,
        replica: ReplicaId,
        epoch: u64,
        counter: u64,
        batch: &Batch,
    ) -> Result<Ack, StoreError> {
        let request = PushRequest {
            replica,
            epoch,
            counter,
            n: batch.n,
            previous: batch.previous,
            digest: batch.digest(replica),
            body: decode_payload(&batch.body).unwrap(),
        };
        let ack = self.store.push(caller, request.clone(), self.clock.now_ms())?;
        self.store.commit().unwrap();
        self.hear(caller, Heard::Pushed(&request, &ack));
        Ok(ack)
    }
}
