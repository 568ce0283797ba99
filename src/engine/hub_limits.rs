//! What agents can cost a hub: every limit with its default.

use std::time::Duration;

pub use super::memory_budget::LEAST_MEMORY_BYTES;
use crate::protocol::frame::MAX_FRAME_BYTES;
use crate::protocol::limits::{MAX_ROW_BYTES, MAX_TABLES};
use crate::storage::hub_store_sqlite::StoreLimits;
use crate::transport::EndpointLimits;

/// Connections beyond [`HubLimits::max_agents`]: room for those that are about to be told that there is none.
const GREETING_ROOM: u64 = 1_024;

/// What agents can cost a hub. Over a limit they are told so, and nothing is lost: what an agent could not send stays
/// where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// Agents that are connected at once.
    pub max_agents: u64,
    /// Agents of one tenant that are connected at once.
    pub max_agents_per_tenant: u64,
    /// Connections at once from one address, or from one IPv6 network of 64 bits.
    pub max_connections_per_address: u64,
    /// Bytes of the store that a tenant's rows, definitions and replicas may take. Deleted rows that wait until every agent has heard of it do
    /// not count, and may take as many again.
    pub max_stored_bytes_per_tenant: u64,
    /// Tables that a tenant may have. Never beyond [`MAX_TABLES`].
    pub max_tables_per_tenant: u64,
    /// Columns that all tables of a tenant may have together.
    pub max_columns_per_tenant: u64,
    /// Replicas of a tenant that are remembered. Beyond them those retire that were heard of the longest ago, of the agents
    /// that have the most.
    pub max_replicas_per_tenant: u64,
    /// The largest row that is stored, in bytes of its values. Never beyond [`MAX_ROW_BYTES`], nor what leaves a batch
    /// 1 MiB for the rest.
    pub max_row_bytes: u64,
    /// The largest message that is read from an agent, in bytes: a batch of rows. Never beyond [`MAX_FRAME_BYTES`].
    pub max_batch_bytes: u64,
    /// Rows that a tenant's agents may push and pull per second, twice as many at once after a rest. Faster ones are
    /// held back for up to 5 s, then refused.
    pub max_rows_per_second: u64,
    /// Bytes that they may, likewise: those of messages to agents as they travel, those from agents decompressed, with 16 for
    /// each value of a batch.
    pub max_bytes_per_second: u64,
    /// Bytes of memory for what agents send, from the first byte of a message until the store has answered it, with what it
    /// takes once it is decoded. A tenant may take as much as stays free for the others: half of it, if it is alone; a
    /// connection three quarters of that. Whoever finds none is held back for up to 5 s, then refused. Never below
    /// [`LEAST_MEMORY_BYTES`].
    pub max_memory_bytes: u64,
    /// How long a connection may be silent, in ms. Never longer than an agent's own 30 s; agents show every 5 s
    /// that they live.
    pub idle_timeout_ms: u64,
    /// How long the TLS handshake may take, and from there to the greeting, in ms each.
    pub handshake_timeout_ms: u64,
    /// How long a stream may be silent when a message is due, or not be read when one was sent, in ms. A frame may take
    /// longer by a second for each 16 KiB.
    pub frame_timeout_ms: u64,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            max_agents: 16_384,
            max_agents_per_tenant: 4_096,
            max_connections_per_address: 4_096,
            max_stored_bytes_per_tenant: StoreLimits::default().tenant_bytes,
            max_tables_per_tenant: StoreLimits::default().tables as u64,
            max_columns_per_tenant: StoreLimits::default().columns as u64,
            max_replicas_per_tenant: StoreLimits::default().replicas as u64,
            max_row_bytes: MAX_ROW_BYTES as u64,
            max_batch_bytes: MAX_FRAME_BYTES as u64,
            max_rows_per_second: 200_000,
            max_bytes_per_second: 128 << 20,
            max_memory_bytes: 512 << 20,
            idle_timeout_ms: 30_000,
            handshake_timeout_ms: 5_000,
            frame_timeout_ms: 30_000,
        }
    }
}

impl HubLimits {
    /// The endpoint's part.
    pub(super) fn endpoint(&self) -> EndpointLimits {
        EndpointLimits {
            connections: self.max_agents.saturating_add(GREETING_ROOM),
            connections_per_address: self.max_connections_per_address,
            idle_timeout_ms: u32::try_from(self.idle_timeout_ms).unwrap_or(u32::MAX),
        }
    }

    /// The store's part.
    pub(super) fn store(&self) -> StoreLimits {
        let in_batch = self.max_batch_bytes.saturating_sub(1 << 20);
        let count = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        StoreLimits {
            tenant_bytes: self.max_stored_bytes_per_tenant,
            row_bytes: count(self.max_row_bytes.min(in_batch)).min(MAX_ROW_BYTES),
            tables: count(self.max_tables_per_tenant).min(MAX_TABLES),
            columns: count(self.max_columns_per_tenant),
            replicas: count(self.max_replicas_per_tenant),
        }
    }

    /// The largest frame that is read, in bytes.
    pub(super) fn frame_bytes(&self) -> u32 {
        u32::try_from(self.max_batch_bytes.min(MAX_FRAME_BYTES as u64)).unwrap_or(u32::MAX)
    }

    /// See [`Self::handshake_timeout_ms`].
    pub(super) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    /// See [`Self::frame_timeout_ms`].
    pub(super) fn frame(&self) -> Duration {
        Duration::from_millis(self.frame_timeout_ms)
    }
}
