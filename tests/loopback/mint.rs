//! Issuers of tokens: every algorithm, and any header that somebody might forge.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// What signs.
pub enum Issuer {
    Hs256(Vec<u8>),
    Hs384(Vec<u8>),
    Hs512(Vec<u8>),
    Rs256(RsaKeyPair),
    Ps256(RsaKeyPair),
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

pub fn rsa() -> RsaKeyPair {
    RsaKeyPair::generate(KeySize::Rsa2048).unwrap()
}

pub fn p256() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

pub fn ed25519() -> Ed25519KeyPair {
    Ed25519KeyPair::generate().unwrap()
}

impl Issuer {
    /// The algorithm's name.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Hs384(_) => "HS384",
            Self::Hs512(_) => "HS512",
            Self::Rs256(_) => "RS256",
            Self::Ps256(_) => "PS256",
            Self::Es256(_) => "ES256",
            Self::EdDsa(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let mac =
            |algorithm, key: &[u8]| hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec();
        match self {
            Self::Hs256(secret) => mac(hmac::HMAC_SHA256, secret),
            Self::Hs384(secret) => mac(hmac::HMAC_SHA384, secret),
            Self::Hs512(secret) => mac(hmac::HMAC_SHA512, secret),
            Self::Rs256(pair) | Self::Ps256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                if matches!(self, Self::Rs256(_)) {
                    pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                } else {
                    pair.sign(&RSA_PSS_SHA256, &random, message, &mut signature).unwrap();
                }
                signature
            }
            Self::Es256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token whose header names what it is signed with, and perhaps the key.
    pub fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({ "typ": "JWT", "alg": self.algorithm() });
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        self.token_under(&header, claims)
    }

    /// A token under any header.
    pub fn token_under(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", url_safe(header.to_string()), url_safe(claims.to_string()));
        format!("{signed}.{}", url_safe(self.sign(signed.as_bytes())))
    }

    /// The public key as PEM.
    pub fn public_pem(&self) -> String {
        let der: Vec<u8> = match self {
            Self::Rs256(pair) | Self::Ps256(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Es256(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::EdDsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Hs256(_) | Self::Hs384(_) | Self::Hs512(_) => panic!("a secret has no public key"),
        };
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    /// The public key as a member of a key set.
    pub fn jwk(&self, kid: &str) -> Value {
        let mut jwk = match self {
            Self::Rs256(pair) | Self::Ps256(pair) => {
                let key = pair.public_key();
                let part = |number: &[u8]| url_safe(number);
                json!({
                    "kty": "RSA",
                    "n": part(key.modulus().big_endian_without_leading_zero()),
                    "e": part(key.exponent().big_endian_without_leading_zero()),
                })
            }
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": url_safe(&point[1..33]), "y": url_safe(&point[33..]) })
            }
            Self::EdDsa(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": url_safe(pair.public_key().as_ref()) })
            }
            Self::Hs256(secret) | Self::Hs384(secret) | Self::Hs512(secret) => {
                json!({ "kty": "oct", "k": url_safe(secret) })
            }
        };
        (jwk["kid"], jwk["alg"], jwk["use"]) = (json!(kid), json!(self.algorithm()), json!("sig"));
        jwk
    }
}

fn url_safe(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
