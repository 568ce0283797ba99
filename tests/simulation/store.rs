//! A hub's store that dies in the middle of its work.

use federation_hub::model::ReplicaId;
use federation_hub::protocol::check::CheckRequest;
use federation_hub::protocol::hub_request::{
    AttachRequest, Caller, PullRequest, PushRequest, RegisterRequest,
};
use federation_hub::protocol::message::{Ack, Attached, Incarnation};
use federation_hub::storage::declaring::Declaring;
use federation_hub::storage::hub_store::{
    Checked, HubStore, Snapshot, StoreError, StoreStats, Upkeep, Welcomed,
};
use federation_hub::storage::revocation::{Revocation, Revoked};

/// A batch that has become durable for the first time.
pub struct Accepted {
    /// Who pushed it.
    pub caller: Caller,
    /// The batch.
    pub push: PushRequest,
    /// What the hub answers.
    pub ack: Ack,
}

/// A store, and how long it lives.
pub struct Mortal<S> {
    store: S,
    /// Operations until the process dies: from then on nothing happens, and what was not committed has not.
    pub dies_after: Option<usize>,
    /// Operations until one fails; commits do not, since what is behind this could not take them back.
    pub fails_after: Option<usize>,
    /// What is done at the moment of death.
    pub at_death: Option<Box<dyn FnOnce() + Send>>,
    /// Batches that are durable, in the hub's order.
    pub accepted: Vec<Accepted>,
    pending: Vec<Accepted>,
    is_dead: bool,
}

impl<S: HubStore> Mortal<S> {
    /// A store that lives for ever.
    pub fn new(store: S) -> Self {
        Self {
            store,
            dies_after: None,
            fails_after: None,
            at_death: None,
            accepted: Vec::new(),
            pending: Vec::new(),
            is_dead: false,
        }
    }

    /// Whether its process has died.
    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    fn live(&mut self) -> Result<&mut S, StoreError> {
        if self.dies_after == Some(0) && !self.is_dead {
            self.is_dead = true;
            self.at_death.take().into_iter().for_each(|at_death| at_death());
        }
        if self.is_dead {
            return Err(StoreError::Failed("dead".into()));
        }
        self.dies_after = self.dies_after.map(|left| left - 1);
        Ok(&mut self.store)
    }

    fn work(&mut self) -> Result<&mut S, StoreError> {
        let failing = self.fails_after;
        self.fails_after = failing.and_then(|left| left.checked_sub(1));
        let store = self.live()?;
        if failing == Some(0) {
            return Err(StoreError::NoRoom("the disk is full".into()));
        }
        Ok(store)
    }
}

impl<S: HubStore> HubStore for Mortal<S> {
    fn incarnation(&self) -> Incarnation {
        self.store.incarnation()
    }

    fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn attach(
        &mut self,
        caller: &Caller,
        request: &AttachRequest,
        now_ms: i64,
    ) -> Result<Attached, StoreError> {
        self.work()?.attach(caller, request, now_ms)
    }

    fn retire(&mut self, caller: &Caller, replicas: &[(ReplicaId, u64)]) -> Result<(), StoreError> {
        self.work()?.retire(caller, replicas)
    }

    fn upkeep(&mut self, upkeep: &Upkeep<'_>) -> Result<bool, StoreError> {
        self.work()?.upkeep(upkeep)
    }

    fn revoke(&mut self, revocation: &Revocation) -> Result<(), StoreError> {
        self.work()?.revoke(revocation)
    }

    fn reinstate(&mut self, whom: &Revoked) -> Result<bool, StoreError> {
        self.work()?.reinstate(whom)
    }

    fn revocations(&mut self, now_ms: i64) -> Result<Vec<Revocation>, StoreError> {
        self.work()?.revocations(now_ms)
    }

    fn declare(
        &mut self,
        caller: &Caller,
        request: &RegisterRequest,
        state: &mut Declaring,
    ) -> Result<bool, StoreError> {
        self.work()?.declare(caller, request, state)
    }

    fn push(&mut self, caller: &Caller, request: PushRequest, now_ms: i64) -> Result<Ack, StoreError> {
        let push = request.clone();
        let ack = self.work()?.push(caller, request, now_ms)?;
        self.pending.push(Accepted { caller: caller.clone(), push, ack: ack.clone() });
        Ok(ack)
    }

    fn end_session(&mut self, caller: &Caller, counter: u64) -> Result<(), StoreError> {
        self.work()?.end_session(caller, counter)
    }

    fn kept_time_ms(&self) -> i64 {
        self.store.kept_time_ms()
    }

    fn keep_time(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.work()?.keep_time(now_ms)
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.live()?.commit()?;
        self.accepted.append(&mut self.pending);
        Ok(())
    }

    fn welcome(&mut self, caller: &Caller) -> Result<Welcomed, StoreError> {
        self.work()?.welcome(caller)
    }

    fn check(&mut self, caller: &Caller, request: &CheckRequest) -> Result<Checked, StoreError> {
        self.work()?.check(caller, request)
    }

    fn snapshot(
        &mut self,
        caller: &Caller,
        request: &PullRequest,
        now_ms: i64,
    ) -> Result<Snapshot, StoreError> {
        self.work()?.snapshot(caller, request, now_ms)
    }
}
