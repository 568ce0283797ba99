//! The names that a hub gives its connections, which agents write on every packet.
//!
//! quinn's own generator marks its names with a key of the process, and drops packets whose name lacks the mark
//! without a word. A hub that was killed and started again would do so with every packet of its old
//! connections, and never send the stateless reset that [`super::reset_key`] is for. So these names are merely
//! random: an unknown one is answered with a reset, at most one every 20 ms.

use quinn::{ConnectionId, ConnectionIdGenerator};

/// Bytes of a name: enough that nobody guesses one.
const ID_BYTES: usize = 8;

/// Random names: the key stream of BLAKE3 over a random seed.
#[derive(Clone)]
pub(super) struct ConnectionIds(blake3::OutputReader);

impl ConnectionIds {
    /// Names that follow from a seed, which must be new and random.
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self(blake3::Hasher::new_keyed(seed).finalize_xof())
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
