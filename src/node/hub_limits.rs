//! What agents can cost a hub, as its callers say it.

use std::ops::RangeInclusive;

use napi_derive::napi;

use super::error::CodedError;
use crate::engine::hub_limits::{HubLimits, LEAST_MEMORY_BYTES};
use crate::protocol::frame::MAX_FRAME_BYTES;
use crate::protocol::limits::{MAX_ROW_BYTES, MAX_TABLES};

/// What agents can cost a hub. Over a limit an agent gets `ERR_FEDERATION_BUSY`, where it is the whole hub's, or
/// `ERR_FEDERATION_QUOTA`, where it is its tenant's. Nothing is lost by it: what was not sent stays where it is.
#[napi(object, object_to_js = false)]
#[derive(Clone, Default)]
pub struct FederationHubLimits {
    /// Agents that are connected at once. 16,384 unless given.
    pub max_agents: Option<f64>,
    /// Agents of one tenant that are connected at once. 4,096 unless given.
    pub max_agents_per_tenant: Option<f64>,
    /// Connections at once from one address, or from one IPv6 network of 64 bits; agents behind a NAT share theirs.
    /// 4,096 unless given. From half of them on, newcomers first prove that the address is theirs.
    pub max_connections_per_address: Option<f64>,
    /// Bytes of the store that a tenant's rows, definitions and replicas may take. 10 GiB unless given. Deleted rows that wait until every agent has
    /// heard of it do not count, and may take as many again.
    pub max_stored_bytes_per_tenant: Option<f64>,
    /// Tables that a tenant may have: 1 to 1,000, which it is unless given. What is more stays with its agent, whose report
    /// says so.
    pub max_tables_per_tenant: Option<f64>,
    /// Columns that all tables of a tenant may have together. 20,000 unless given. A table that would bring more stays with
    /// its agent, whose report says so.
    pub max_columns_per_tenant: Option<f64>,
    /// Databases of a tenant's agents that the hub remembers. 65,536 unless given. Beyond them it forgets those that it has
    /// not heard of for the longest, of the agents that have the most: one that comes back after that loses nothing, and
    /// starts from a fresh snapshot.
    pub max_replicas_per_tenant: Option<f64>,
    /// The largest row that is stored, in bytes of its values: 1,024 to 16,777,216 (16 MiB), which it is unless given. A
    /// larger one stays with its agent, whose report says so (`rejected`).
    pub max_row_bytes: Option<f64>,
    /// The largest message that is read from an agent, which is a batch of rows, in bytes: 2 MiB to 17,825,792 (17 MiB),
    /// which it is unless given. A row is at most 1 MiB smaller.
    pub max_batch_bytes: Option<f64>,
    /// Rows that a tenant's agents may push and pull per second, twice as many at once after a rest. 200,000 unless given.
    /// Faster ones are held back for up to 5 s, and then refused.
    pub max_rows_per_second: Option<f64>,
    /// Bytes that they may push and pull per second, likewise: what they pull as it travels, what they push decompressed,
    /// with 16 for each value. 134,217,728 (128 MiB) unless given.
    pub max_bytes_per_second: Option<f64>,
    /// Bytes of memory for what agents send: of each message from its first byte until the hub has answered it, with what
    /// it takes decoded. 339,738,624 (324 MiB) or more, and 536,870,912 (512 MiB) unless given. A tenant's agents may take
    /// as much as stays free for others, which is half of it where nobody else takes any. Others wait for up to 5 s, and
    /// then are refused.
    pub max_memory_bytes: Option<f64>,
    /// How long a connection may be silent before it is dead, in ms: 6,000 to 30,000, and 30,000 unless given. Agents
    /// show every 5 s that they live.
    pub idle_timeout_ms: Option<f64>,
    /// How long a TLS handshake may take, and from there to the agent's greeting, in ms each. 5,000 unless given.
    pub handshake_timeout_ms: Option<f64>,
    /// How long a stream may be silent in the middle of a sync, or a frame not be taken, in ms. 30,000 unless given. A
    /// frame may take longer by a second for each 16 KiB.
    pub frame_timeout_ms: Option<f64>,
}

/// The most of anything that is counted.
const MAX_COUNT: u64 = 1_000_000;

/// The most bytes: a pebibyte.
const MAX_BYTES: u64 = 1 << 50;

/// The longest deadline: ten minutes.
const MAX_DEADLINE_MS: u64 = 600_000;

/// Reads a hub's limits.
pub fn hub_limits(given: Option<FederationHubLimits>) -> Result<HubLimits, CodedError> {
    let mut limits = HubLimits::default();
    let Some(given) = given else { return Ok(limits) };
    let (count, deadline) = (1..=MAX_COUNT, 1..=MAX_DEADLINE_MS);
    for (name, given, limit, bounds) in [
        ("maxAgents", given.max_agents, &mut limits.max_agents, &count),
        ("maxAgentsPerTenant", given.max_agents_per_tenant, &mut limits.max_agents_per_tenant, &count),
        (
            "maxConnectionsPerAddress",
            given.max_connections_per_address,
            &mut limits.max_connections_per_address,
            &count,
        ),
        (
            "maxStoredBytesPerTenant",
            given.max_stored_bytes_per_tenant,
            &mut limits.max_stored_bytes_per_tenant,
            &(1..=MAX_BYTES),
        ),
        (
            "maxTablesPerTenant",
            given.max_tables_per_tenant,
            &mut limits.max_tables_per_tenant,
            &(1..=MAX_TABLES as u64),
        ),
        ("maxColumnsPerTenant", given.max_columns_per_tenant, &mut limits.max_columns_per_tenant, &count),
        ("maxReplicasPerTenant", given.max_replicas_per_tenant, &mut limits.max_replicas_per_tenant, &count),
        ("maxRowBytes", given.max_row_bytes, &mut limits.max_row_bytes, &(1 << 10..=MAX_ROW_BYTES as u64)),
        (
            "maxBatchBytes",
            given.max_batch_bytes,
            &mut limits.max_batch_bytes,
            &(2 << 20..=MAX_FRAME_BYTES as u64),
        ),
        ("maxRowsPerSecond", given.max_rows_per_second, &mut limits.max_rows_per_second, &(1..=MAX_BYTES)),
        ("maxBytesPerSecond", given.max_bytes_per_second, &mut limits.max_bytes_per_second, &(1..=MAX_BYTES)),
        (
            "maxMemoryBytes",
            given.max_memory_bytes,
            &mut limits.max_memory_bytes,
            &(LEAST_MEMORY_BYTES..=MAX_BYTES),
        ),
        ("idleTimeoutMs", given.idle_timeout_ms, &mut limits.idle_timeout_ms, &(6_000..=30_000)),
        ("handshakeTimeoutMs", given.handshake_timeout_ms, &mut limits.handshake_timeout_ms, &deadline),
        ("frameTimeoutMs", given.frame_timeout_ms, &mut limits.frame_timeout_ms, &deadline),
    ] {
        if let Some(given) = given {
            *limit = number(name, given, bounds)?;
        }
    }
    Ok(limits)
}

/// A whole number within bounds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "all bounds are whole numbers below 2^53"
)]
fn number(name: &str, given: f64, bounds: &RangeInclusive<u64>) -> Result<u64, CodedError> {
    let (least, most) = (*bounds.start(), *bounds.end());
    if given.fract() != 0.0 || !(least as f64..=most as f64).contains(&given) {
        return Err(CodedError::config(format!(
            "limits.{name} is {given}: it must be a whole number between {least} and {most}"
        )));
    }
    Ok(given as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_takes_its_default() {
        assert_eq!(hub_limits(None).unwrap(), HubLimits::default());
        let given = FederationHubLimits { max_agents: Some(7.0), ..FederationHubLimits::default() };
        let expected = HubLimits { max_agents: 7, ..HubLimits::default() };
        assert_eq!(hub_limits(Some(given)).unwrap(), expected);
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_refused_by_name() {
        for given in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY, 1e18] {
            let limits = FederationHubLimits { max_agents: Some(given), ..FederationHubLimits::default() };
            let error = hub_limits(Some(limits)).unwrap_err();
            assert!(error.message.contains("limits.maxAgents is"), "{}", error.message);
        }
        let limits =
            FederationHubLimits { max_memory_bytes: Some(339_738_623.0), ..FederationHubLimits::default() };
        assert!(hub_limits(Some(limits)).unwrap_err().message.contains("339738624"));
        let limits = FederationHubLimits { idle_timeout_ms: Some(5_000.0), ..FederationHubLimits::default() };
        assert!(hub_limits(Some(limits)).unwrap_err().message.contains("6000"));
    }
}
