//! Throwaway credentials, so that a hub for tests and demonstrations needs no files.

use std::fmt;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::certificate_identity::uri_of;

/// Who answers for the names in throwaway certificates.
const TRUST_DOMAIN: &str = "federation-hub";

/// A CA of its own, a hub's certificate for this machine, and a secret for tokens. Keep it, and a hub can be
/// started again that the same agents trust.
///
/// The certificates are ECDSA P-256 and valid until 4096: whoever wants them to expire throws the CA away.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The certificate of the CA that signs both sides' certificates, as PEM.
    pub ca_cert_pem: String,
    /// The CA's private key, as PEM.
    pub ca_key_pem: String,
    /// The hub's certificate, for `localhost`, `127.0.0.1` and `::1`, as PEM.
    pub hub_cert_pem: String,
    /// The hub's private key, as PEM.
    pub hub_key_pem: String,
    /// The secret that tokens are signed with: 64 hexadecimal digits.
    pub jwt_secret: String,
}

/// Shows nothing: what is printed ends in a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Certificates that could not be made: the stored CA key is damaged, or the system gives no randomness.
#[derive(Debug, Error)]
#[error("cannot issue a certificate: {0}")]
pub struct CredentialsError(#[from] rcgen::Error);

impl Credentials {
    /// New credentials. `secret` must come from the system's randomness: who knows it can sign tokens.
    pub fn generate(secret: [u8; 32]) -> Result<Self, CredentialsError> {
        let ca_key = new_key()?;
        let ca_cert = ca_params().self_signed(&ca_key)?;
        let ca_key_pem = ca_key.serialize_pem();
        let issuer = Issuer::new(ca_params(), ca_key);
        let mut params = leaf_params("federation hub", ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
            SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
        ];
        let hub_key = new_key()?;
        let hub_cert = params.signed_by(&hub_key, &issuer)?;
        Ok(Self {
            ca_cert_pem: ca_cert.pem(),
            ca_key_pem,
            hub_cert_pem: hub_cert.pem(),
            hub_key_pem: hub_key.serialize_pem(),
            jwt_secret: secret.iter().fold(String::new(), |mut hex, byte| {
                // Writing to a String cannot fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            }),
        })
    }

    /// A certificate and its key (both PEM) for an agent, which its token has to be of as well. What the agent may
    /// do depends on the token alone (I16).
    pub fn issue_agent(&self, agent_id: &str, tenant_id: &str) -> Result<(String, String), CredentialsError> {
        // The CA's name and constraints are always the same, so the key is all that has to be kept.
        let issuer = Issuer::new(ca_params(), KeyPair::from_pem(&self.ca_key_pem)?);
        let mut params = leaf_params(agent_id, ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name.push(DnType::OrganizationName, tenant_id);
        params.subject_alt_names = vec![SanType::URI(uri_of(TRUST_DOMAIN, tenant_id, agent_id).try_into()?)];
        let key = new_key()?;
        let cert = params.signed_by(&key, &issuer)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("federation-hub throwaway CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(common_name: &str, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_survive_being_stored() {
        let credentials = Credentials::generate([0xa5; 32]).unwrap();
        assert_eq!(credentials.jwt_secret, "a5".repeat(32));
        let stored = serde_json::to_string(&credentials).unwrap();
        let restored: Credentials = serde_json::from_str(&stored).unwrap();
        assert_eq!(restored, credentials);
        restored.issue_agent("agent", "tenant").unwrap();
    }

    #[test]
    fn any_name_can_be_certified() {
        let credentials = Credentials::generate([0; 32]).unwrap();
        for name in ["", "eph-acme-1700000000000", "Ärger & Söhne, 株式会社", &"x".repeat(500)] {
            credentials.issue_agent(name, name).unwrap();
        }
    }

    #[test]
    fn a_damaged_ca_key_is_an_error_and_never_shown() {
        let credentials =
            Credentials { ca_key_pem: "damaged".into(), ..Credentials::generate([0; 32]).unwrap() };
        let error = credentials.issue_agent("agent", "tenant").unwrap_err();
        assert!(!format!("{error}{credentials:?}").contains("damaged"), "{error}");
    }
}
