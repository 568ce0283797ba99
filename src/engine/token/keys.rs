//! The keys that tokens are verified with, each with the one algorithm that it is for.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use thiserror::Error;

use super::{TokenOptions, jwks};
use crate::transport::{PemError, PemSource, without_mark};

/// The algorithms that there are, by their names in `alg`.
const ALGORITHMS: [(&str, Algorithm); 7] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// The shortest secret, in bytes: as long as what HS256 makes of it (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Where keys come from.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A secret of 32 bytes or more that the hub shares with whoever issues tokens: HS256, HS384, HS512.
    Secret(String),
    /// One public key: RSA of at least 2,048 bits, P-256, or Ed25519.
    PublicKey(PemSource),
    /// A JSON Web Key Set (RFC 7517), in which tokens name their key by `kid`.
    Jwks(PathBuf),
}

/// Shows nothing of a secret.
impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret(..)"),
            Self::PublicKey(source) => f.debug_tuple("PublicKey").field(source).finish(),
            Self::Jwks(path) => f.debug_tuple("Jwks").field(path).finish(),
        }
    }
}

/// Keys that cannot be used. No message repeats any part of one.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A secret that could be guessed: whoever has a token can try secrets until one fits, without asking the hub.
    #[error(
        "the secret for tokens (jwtSecret) has {bytes} bytes, and needs {MIN_SECRET_BYTES} or more: whoever holds a token \
         could find a shorter one by trying, and sign tokens. `openssl rand -hex 32` makes a good one"
    )]
    ShortSecret {
        /// The secret's length.
        bytes: usize,
    },
    /// No such algorithm: choose one of those named.
    #[error("there is no algorithm {0:?} for tokens (jwtAlgorithm), but {all}", all = all_algorithms())]
    UnknownAlgorithm(String),
    /// The key is of another kind than the algorithm wants.
    #[error("the key of {source_name} is not one for {algorithm} (jwtAlgorithm)")]
    Mismatch {
        /// Where the key comes from.
        source_name: String,
        /// The algorithm's name.
        algorithm: String,
    },
    /// The file with the public key is missing, unreadable, or holds something else.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A public key of a kind that is not known here.
    #[error(
        "the public key in {0} is none that tokens can be verified with: RSA (2,048 bits or more), P-256, Ed25519"
    )]
    Kind(String),
    /// The key set is missing or unreadable: correct the path (jwksPath), or the permissions.
    #[error("cannot read the key set from the file {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The file is no key set.
    #[error("the file {} is no JSON Web Key Set: an object with a list `keys`", .0.display())]
    NotASet(PathBuf),
    /// Nothing in the set can verify a token.
    #[error(
        "the key set in {} has no public key for tokens: RSA, P-256 or Ed25519, whose `use` and `alg` allow it",
        .0.display()
    )]
    NoKey(PathBuf),
}

/// A key and what it is for.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name, for tokens to choose it by.
    pub(super) kid: Option<String>,
    /// The only algorithm that it verifies.
    pub(super) algorithm: Algorithm,
    pub(super) verifying: DecodingKey,
}

/// The keys of a hub, at least one.
#[derive(Debug)]
pub(super) struct Keys {
    all: Vec<Key>,
    /// Whether tokens choose among them by name. The only key there is needs none.
    are_named: bool,
}

impl Keys {
    /// Loads them.
    pub(super) fn load(options: &TokenOptions) -> Result<Self, KeyError> {
        let wanted = options.algorithm.as_deref().map(algorithm_of).transpose()?;
        match &options.keys {
            KeySource::Secret(secret) if secret.len() < MIN_SECRET_BYTES => {
                Err(KeyError::ShortSecret { bytes: secret.len() })
            }
            KeySource::Secret(secret) => {
                Self::one("jwtSecret", wanted, DecodingKey::from_secret(secret.as_bytes()))
            }
            KeySource::PublicKey(source) => {
                let key = source.load_public_key()?;
                let key = of_public_key(&key).ok_or_else(|| KeyError::Kind(source.to_string()))?;
                Self::one(&source.to_string(), wanted, key)
            }
            KeySource::Jwks(path) => {
                let text =
                    std::fs::read(path).map_err(|cause| KeyError::Read { path: path.clone(), cause })?;
                let all = jwks::read(&without_mark(Cow::Owned(text)), wanted)
                    .ok_or_else(|| KeyError::NotASet(path.clone()))?;
                if all.is_empty() {
                    return Err(KeyError::NoKey(path.clone()));
                }
                Ok(Self { all, are_named: true })
            }
        }
    }

    fn one(source: &str, wanted: Option<Algorithm>, key: DecodingKey) -> Result<Self, KeyError> {
        let algorithm = wanted.unwrap_or_else(|| default_of(key.family()));
        if algorithm.family() != key.family() {
            let algorithm = name_of(algorithm).to_owned();
            return Err(KeyError::Mismatch { source_name: source.to_owned(), algorithm });
        }
        Ok(Self { all: vec![Key { kid: None, algorithm, verifying: key }], are_named: false })
    }

    /// The key that a token names. One that names none means the only key.
    pub(super) fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match (kid, self.all.as_slice()) {
            (Some(kid), all) if self.are_named => all.iter().find(|key| key.kid.as_deref() == Some(kid)),
            (_, [only]) => Some(only),
            _ => None,
        }
    }
}

/// The algorithm of this name, if it is one of ours.
pub(super) fn algorithm_of(name: &str) -> Result<Algorithm, KeyError> {
    let found = ALGORITHMS.iter().find(|(known, _)| *known == name);
    found.map(|(_, algorithm)| *algorithm).ok_or_else(|| KeyError::UnknownAlgorithm(name.to_owned()))
}

fn name_of(algorithm: Algorithm) -> &'static str {
    ALGORITHMS.iter().find(|(_, known)| *known == algorithm).map_or("this algorithm", |(name, _)| *name)
}

fn all_algorithms() -> String {
    ALGORITHMS.map(|(name, _)| name).join(", ")
}

/// What keys of a family are for unless somebody says otherwise.
pub(super) fn default_of(family: AlgorithmFamily) -> Algorithm {
    match family {
        AlgorithmFamily::Hmac => Algorithm::HS256,
        AlgorithmFamily::Rsa => Algorithm::RS256,
        AlgorithmFamily::Ec => Algorithm::ES256,
        AlgorithmFamily::Ed => Algorithm::EdDSA,
    }
}

/// A key from its DER form (`SubjectPublicKeyInfo`), which the cryptography takes as it is.
fn of_public_key(der: &[u8]) -> Option<DecodingKey> {
    type Kind = (&'static dyn VerificationAlgorithm, fn(&[u8]) -> DecodingKey);
    let kinds: [Kind; 3] = [
        (&RSA_PKCS1_2048_8192_SHA256, DecodingKey::from_rsa_der),
        (&ECDSA_P256_SHA256_FIXED, DecodingKey::from_ec_der),
        (&ED25519, DecodingKey::from_ed_der),
    ];
    let kind = kinds.into_iter().find(|(kind, _)| ParsedPublicKey::new(*kind, der).is_ok());
    kind.map(|(_, make)| make(der))
}
