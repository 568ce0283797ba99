//! JSON Web Key Sets (RFC 7517): which of their keys can verify tokens, and with which algorithm.
//!
//! What is not for us is passed over, as the standard asks: keys of other kinds, for encryption, for algorithms
//! that are not ours. Symmetric keys are passed over as well: who may read the set could sign tokens.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::keys::{Key, algorithm_of, default_of};

/// Keys of one set that are looked at.
const MAX_KEYS: usize = 256;

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The usable keys of a set, those for `wanted` if that is given; nothing if the text is no set.
pub(super) fn read(text: &[u8], wanted: Option<Algorithm>) -> Option<Vec<Key>> {
    let Set { keys } = serde_json::from_slice(text).ok()?;
    Some(keys.iter().take(MAX_KEYS).filter_map(|value| key(value, wanted)).collect())
}

fn key(value: &Value, wanted: Option<Algorithm>) -> Option<Key> {
    let jwk = Jwk::deserialize(value).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let family = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
        AlgorithmParameters::EllipticCurve(it) if it.curve == EllipticCurve::P256 => AlgorithmFamily::Ec,
        AlgorithmParameters::OctetKeyPair(it) if it.curve == EllipticCurve::Ed25519 => AlgorithmFamily::Ed,
        _ => return None,
    };
    let algorithm = match value.get("alg") {
        None => wanted.unwrap_or_else(|| default_of(family)),
        Some(name) => algorithm_of(name.as_str()?).ok()?,
    };
    if algorithm.family() != family || wanted.is_some_and(|wanted| wanted != algorithm) {
        return None;
    }
    let verifying = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { kid: jwk.common.key_id, algorithm, verifying })
}
