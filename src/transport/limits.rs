//! How much a connection may cost (invariant I17), and how its death is noticed.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, ServerConfig, TransportConfig, VarInt};

/// After this long without a word a connection is dead, in ms: so a hub notices agents that were killed.
pub(super) const IDLE_TIMEOUT_MS: u32 = 30_000;

/// How often an agent that has nothing to say shows that it lives. Five lost packets do not end a connection,
/// and no NAT forgets it (the shortest UDP mappings in use last 20 s).
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Streams that an agent may have open at once: one for each database that syncs, and the greeting.
const MAX_STREAMS: u32 = 8;

/// Bytes of a stream that are taken before somebody reads them: 20 MB/s over a round trip of 50 ms.
const STREAM_WINDOW: u32 = 1 << 20;

/// Bytes of a connection that are taken before somebody reads them.
pub(super) const CONNECTION_WINDOW: u32 = 2 << 20;

/// Bytes that are kept until the other side has acknowledged them.
const SEND_WINDOW: u64 = 4 << 20;

/// Handshakes that wait for the hub's accept loop; the rest is dropped, and comes again by retransmission.
const MAX_INCOMING: usize = 4096;

/// Bytes kept of one handshake that waits: the second packet of a post-quantum `ClientHello`, and some.
const INCOMING_BYTES: u64 = 16 << 10;

/// Bytes kept of all handshakes that wait.
const INCOMING_BYTES_TOTAL: u64 = 16 << 20;

/// Bounds for an agent's connection.
pub(super) fn agent_transport() -> TransportConfig {
    let mut transport = common(IDLE_TIMEOUT_MS);
    // The hub answers on the agent's streams and opens none.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    transport
}

/// Bounds for a hub's endpoint and all its connections.
pub(super) fn apply_to_hub(config: &mut ServerConfig, idle_timeout_ms: u32) {
    let mut transport = common(idle_timeout_ms);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS));
    config.transport_config(Arc::new(transport));
    config.max_incoming(MAX_INCOMING);
    config.incoming_buffer_size(INCOMING_BYTES);
    config.incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
}

fn common(idle_timeout_ms: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_timeout_ms))));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.datagram_receive_buffer_size(None);
    transport.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    transport.receive_window(VarInt::from_u32(CONNECTION_WINDOW));
    transport.send_window(SEND_WINDOW);
    transport
}
