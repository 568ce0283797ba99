//! What a hub counts while agents come and go, and tells whoever wants to know how it is doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::memory_budget::MemoryBudget;
use crate::storage::hub_store::StoreStats;

/// How a hub is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HubStats {
    /// Agents that are connected and let in.
    pub connected_agents: u64,
    /// Tenants that the store holds.
    pub tenants: u64,
    /// Live rows of all tenants.
    pub rows: u64,
    /// Seconds since the start.
    pub uptime_seconds: f64,
    /// Syncs answered since the start.
    pub syncs: u64,
    /// Bytes of frames sent to agents that were let in.
    pub bytes_sent: u64,
    /// Bytes of frames received from them.
    pub bytes_received: u64,
    /// Bytes of memory that is taken for what agents send.
    pub memory_bytes: u64,
    /// The most that was ever taken.
    pub memory_peak_bytes: u64,
}

/// What is counted while agents come and go.
#[derive(Debug)]
pub(super) struct Counts {
    started: Instant,
    connected: AtomicU64,
    syncs: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    memory: Arc<MemoryBudget>,
}

impl Counts {
    /// Nothing counted yet; memory is taken from this budget.
    pub(super) fn new(memory: Arc<MemoryBudget>) -> Self {
        let (connected, syncs, sent, received) = Default::default();
        Self { started: Instant::now(), connected, syncs, sent, received, memory }
    }

    /// How a hub is doing whose store holds so much.
    pub(super) fn stats(&self, store: StoreStats) -> HubStats {
        HubStats {
            connected_agents: self.connected.load(Ordering::Relaxed),
            tenants: store.tenants,
            rows: store.rows,
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            syncs: self.syncs.load(Ordering::Relaxed),
            bytes_sent: self.sent.load(Ordering::Relaxed),
            bytes_received: self.received.load(Ordering::Relaxed),
            memory_bytes: self.memory.held(),
            memory_peak_bytes: self.memory.peak(),
        }
    }

    /// Counts an agent for as long as the result lives.
    pub(super) fn enter(self: &Arc<Self>) -> Connected {
        self.connected.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }

    pub(super) fn add_sync(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// An agent that is let in.
pub(super) struct Connected(Arc<Counts>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}
