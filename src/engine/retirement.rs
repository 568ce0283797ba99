//! Agents that are done: which replicas are attached, and the loop that retires those that are not heard of.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::sleep;

use super::clock::wall_now_ms;
use super::hub::Shared;
use super::writer::job::UpkeepJob;
use crate::model::ReplicaId;
use crate::protocol::hub_request::Caller;

/// The longest pause between two rounds of upkeep: how long a tombstone outlives its use, and how far the time that
/// the store keeps may be behind while agents are connected and ask for nothing (see `hub_time`).
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// The shortest one.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// Rounds of upkeep within the time that an agent may be silent.
const ROUNDS_PER_TTL: u64 = 8;

/// Replicas that one connection may have attached; more than an agent remembers.
const MAX_REPLICAS: usize = 128;

/// The replicas of all connections.
#[derive(Debug, Default)]
pub(super) struct AttachedReplicas(Mutex<HashMap<(String, ReplicaId), usize>>);

impl AttachedReplicas {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<(String, ReplicaId), usize>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn snapshot(&self) -> HashSet<(String, ReplicaId)> {
        self.with(|attached| attached.keys().cloned().collect())
    }
}

/// The replicas that one connection has attached, each with the epoch that it got. When it is dropped they count
/// as attached no longer.
pub(super) struct OwnReplicas {
    all: Arc<AttachedReplicas>,
    tenant: String,
    own: Mutex<Vec<(ReplicaId, u64)>>,
}

impl OwnReplicas {
    /// None yet.
    pub(super) fn new(all: Arc<AttachedReplicas>, caller: &Caller) -> Self {
        Self { all, tenant: caller.tenant.clone(), own: Mutex::default() }
    }

    /// One has attached.
    pub(super) fn add(&self, replica: ReplicaId, epoch: u64) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = own.iter_mut().find(|(known, _)| *known == replica) {
            known.1 = epoch;
        } else if own.len() < MAX_REPLICAS {
            own.push((replica, epoch));
            self.all.with(|all| *all.entry((self.tenant.clone(), replica)).or_default() += 1);
        }
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<(ReplicaId, u64)> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for OwnReplicas {
    fn drop(&mut self) {
        let own = std::mem::take(self.own.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.all.with(|all| {
            for (replica, _) in own {
                let key = (std::mem::take(&mut self.tenant), replica);
                if let Some(count) = all.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        all.remove(&key);
                    }
                }
                self.tenant = key.0;
            }
        });
    }
}

/// Does what becomes due with time, in short turns between which the store serves agents, until the hub is gone.
pub(super) async fn upkeep(shared: Weak<Shared>, agent_ttl_ms: u64) {
    let share = Duration::from_millis(agent_ttl_ms / ROUNDS_PER_TTL);
    let pause = share.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let agent_ttl_ms = i64::try_from(agent_ttl_ms).unwrap_or(i64::MAX);
    loop {
        sleep(pause).await;
        loop {
            let Some(shared) = shared.upgrade() else { return };
            let connected = shared.attached.snapshot();
            if !shared.writer.upkeep(UpkeepJob { wall_ms: wall_now_ms(), agent_ttl_ms, connected }).await {
                break;
            }
        }
    }
}
