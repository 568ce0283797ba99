//! The key of stateless resets (RFC 9000, 10.3).
//!
//! A hub that was killed and started again knows nothing of its old connections. A stateless reset tells an
//! agent so at its first packet, which would otherwise wait for a timeout; but the agent believes it only if
//! the new process derives the same tokens as the old one did. So the key comes from the hub's private key.

use quinn::crypto::{CryptoError, HmacKey};
use quinn::rustls::pki_types::PrivateKeyDer;

/// Separates this use of the private key from every other.
const CONTEXT: &str = "federation-hub 2026-11 stateless reset key";

/// Bytes of a MAC.
const MAC_BYTES: usize = 32;

/// BLAKE3 in its keyed mode, which is a MAC.
pub(super) struct ResetKey([u8; 32]);

impl ResetKey {
    pub(super) fn derive(key: &PrivateKeyDer<'_>) -> Self {
        Self(blake3::derive_key(CONTEXT, key.secret_der()))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mac = blake3::keyed_hash(&self.0, data);
        signature_out.copy_from_slice(&mac.as_bytes()[..signature_out.len().min(MAC_BYTES)]);
    }

    fn signature_len(&self) -> usize {
        MAC_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        // Compared as hashes, which blake3 does in constant time.
        let given: [u8; MAC_BYTES] = signature.try_into().map_err(|_| CryptoError)?;
        if blake3::keyed_hash(&self.0, data) == blake3::Hash::from(given) { Ok(()) } else { Err(CryptoError) }
    }
}
