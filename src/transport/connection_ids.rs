//! The ids that a hub gives to its connections.

use quinn::{ConnectionId, ConnectionIdGenerator};

/// Bytes of an id: enough that no two of a hub's connections meet.
const ID_BYTES: usize = 8;

/// Random ids, any of which may be a hub's.
///
/// QUIC's stateless reset is an answer to packets of connections that nobody here knows. Quinn's own generator
/// answers only for ids made under its key, which it draws anew in every process: so a restarted hub would
/// drop in silence what its agents send, and they would wait for a timeout. What remains against abuse is
/// quinn's: a reset is shorter than the packet that it answers, and there is one in 20 ms at most.
#[derive(Clone)]
pub(super) struct ConnectionIds(blake3::OutputReader);

impl ConnectionIds {
    /// Ids that nobody can foretell, for one endpoint.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self(blake3::Hasher::new_keyed(&seed).finalize_xof()))
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.0.fill(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
