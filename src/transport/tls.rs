//! TLS 1.3, mutual where the hub asks for it, never unverified.
//!
//! rustls on aws-lc-rs. X25519MLKEM768 is offered first (the crate feature `prefer-post-quantum` orders the
//! provider so), which makes the `ClientHello` span two packets; classical X25519 goes with it. The provider is
//! passed explicitly: an addon must not set process-wide defaults in somebody's application.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use quinn::rustls::crypto::{CryptoProvider, aws_lc_rs};
use quinn::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use quinn::rustls::version::TLS13;
use quinn::rustls::{self, RootCertStore};
use thiserror::Error;

use super::limits;
use super::pem::{PemError, PemRole, PemSource};
use crate::protocol::message::ALPN;

/// What an agent shows, and what it trusts.
#[derive(Clone, Debug, Default)]
pub struct AgentTls {
    /// Certificate (with intermediates) and key for mutual TLS; none where the hub asks for none.
    pub identity: Option<(PemSource, PemSource)>,
    /// The CA that the hub's certificate must be signed by; the platform's CAs if none.
    pub ca: Option<PemSource>,
}

/// What a hub shows, and whom it lets in.
#[derive(Clone, Debug)]
pub struct HubTls {
    /// The hub's certificate, with intermediates.
    pub cert: PemSource,
    /// Its private key.
    pub key: PemSource,
    /// The CA that agents' certificates must be signed by; without one the hub asks for no certificate.
    pub client_ca: Option<PemSource>,
    /// Which of their certificates have been revoked, intermediate ones included. If there are lists, each CA needs one:
    /// of a certificate whose CA has none nobody knows whether it is good, and it is refused.
    pub crl: Option<PemSource>,
}

/// Certificates and keys that make no TLS configuration.
#[derive(Debug, Error)]
pub enum TlsConfigError {
    /// A file that cannot be loaded; the message names it.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("the certificate in {cert} and the private key in {key} cannot be used together: {cause}")]
    Identity {
        /// Where the certificate came from.
        cert: String,
        /// Where the key came from.
        key: String,
        /// What the TLS library said.
        cause: rustls::Error,
    },
    /// A CA certificate, or a revocation list, that is none.
    #[error("the CA certificate or revocation list in {source_name} cannot be used: {cause}")]
    Ca {
        /// Where it came from.
        source_name: String,
        /// What the TLS library said.
        cause: String,
    },
    /// The platform has no CA certificates: install them (`ca-certificates`), or pass a CA.
    #[error("this system has no CA certificates to check the hub's with ({0}): install them, or pass caPath")]
    NoPlatformRoots(String),
    /// The TLS library does not support what is needed; a fault of this build.
    #[error("the TLS library lacks TLS 1.3 with AES-128-GCM: {0}")]
    Library(String),
    /// The system gives no randomness, without which nothing is secret.
    #[error("this system gives no randomness")]
    NoRandomness,
}

impl AgentTls {
    /// Loads the files and makes the configuration of a connection.
    pub(super) fn client_config(&self) -> Result<quinn::ClientConfig, TlsConfigError> {
        quic_client_config(self.rustls_config()?)
    }

    /// The TLS part of [`Self::client_config`].
    pub(super) fn rustls_config(&self) -> Result<rustls::ClientConfig, TlsConfigError> {
        let roots = match &self.ca {
            Some(ca) => root_store(ca)?,
            None => platform_roots()?,
        };
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| TlsConfigError::Library(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder
                .with_client_auth_cert(cert.load_certificates(PemRole::Certificate)?, key.load_key()?)
                .map_err(|cause| identity_error(cert, key, cause))?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Each connection proves both certificates anew; a resumed session would outlive a revoked one.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }
}

impl HubTls {
    /// Loads the files and makes the configuration of a hub's endpoint, whose connections may be silent for so long.
    pub(super) fn server_config(&self, idle_timeout_ms: u32) -> Result<quinn::ServerConfig, TlsConfigError> {
        let provider = provider();
        let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| TlsConfigError::Library(error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let roots = Arc::new(root_store(ca)?);
                let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                if let Some(crl) = &self.crl {
                    verifier = verifier.with_crls(crl.load_crls()?);
                }
                let verifier = verifier.build().map_err(|error| match (&error, &self.crl) {
                    (VerifierBuilderError::InvalidCrl(_), Some(crl)) => ca_error(crl, &error),
                    _ => ca_error(ca, &error),
                });
                builder.with_client_cert_verifier(verifier?)
            }
        };
        let mut config = builder
            .with_single_cert(self.cert.load_certificates(PemRole::Certificate)?, self.key.load_key()?)
            .map_err(|cause| identity_error(&self.cert, &self.key, cause))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // No resumption (see the agent's side), so no tickets and no memory of sessions.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let crypto = QuicServerConfig::try_from(config).map_err(|error| library_error(&error))?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        limits::apply_to_hub(&mut config, idle_timeout_ms);
        Ok(config)
    }
}

/// Puts a TLS configuration under QUIC.
pub(super) fn quic_client_config(
    config: rustls::ClientConfig,
) -> Result<quinn::ClientConfig, TlsConfigError> {
    let crypto = QuicClientConfig::try_from(config).map_err(|error| library_error(&error))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(limits::agent_transport()));
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Randomness from where TLS takes its own.
pub(super) fn random_seed() -> Result<[u8; 32], TlsConfigError> {
    let mut seed = [0; 32];
    provider().secure_random.fill(&mut seed).map_err(|_| TlsConfigError::NoRandomness)?;
    Ok(seed)
}

fn root_store(ca: &PemSource) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca.load_certificates(PemRole::Ca)? {
        roots.add(certificate).map_err(|error| ca_error(ca, &error))?;
    }
    Ok(roots)
}

fn platform_roots() -> Result<RootCertStore, TlsConfigError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A platform's store may hold old certificates that rustls cannot read; the others are good.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let cause = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsConfigError::NoPlatformRoots(cause));
    }
    Ok(roots)
}

fn identity_error(cert: &PemSource, key: &PemSource, cause: rustls::Error) -> TlsConfigError {
    TlsConfigError::Identity { cert: cert.to_string(), key: key.to_string(), cause }
}

fn ca_error(ca: &PemSource, cause: &dyn std::error::Error) -> TlsConfigError {
    TlsConfigError::Ca { source_name: ca.to_string(), cause: cause.to_string() }
}

fn library_error(error: &NoInitialCipherSuite) -> TlsConfigError {
    TlsConfigError::Library(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Credentials;

    fn text(pem: &str) -> PemSource {
        PemSource::Text(pem.to_owned())
    }

    #[test]
    fn the_post_quantum_group_is_offered_first() {
        let groups = provider().kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>();
        assert_eq!(groups.first(), Some(&rustls::NamedGroup::X25519MLKEM768), "{groups:?}");
        assert!(groups.contains(&rustls::NamedGroup::X25519));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (mine, other) =
            (Credentials::generate([1; 32]).unwrap(), Credentials::generate([2; 32]).unwrap());
        let tls = HubTls {
            cert: text(&mine.hub_cert_pem),
            key: text(&other.hub_key_pem),
            client_ca: None,
            crl: None,
        };
        assert!(matches!(tls.server_config(30_000), Err(TlsConfigError::Identity { .. })));
        let tls = AgentTls {
            identity: Some((text(&mine.hub_cert_pem), text(&other.hub_key_pem))),
            ca: Some(text(&mine.ca_cert_pem)),
        };
        assert!(matches!(tls.client_config(), Err(TlsConfigError::Identity { .. })));
    }

    #[test]
    fn a_ca_that_is_no_certificate_is_refused() {
        let ca = text("-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
        let tls = AgentTls { identity: None, ca: Some(ca) };
        assert!(matches!(tls.client_config(), Err(TlsConfigError::Ca { .. })));
    }

    #[test]
    fn a_ca_may_be_several() {
        let (one, two) = (Credentials::generate([1; 32]).unwrap(), Credentials::generate([2; 32]).unwrap());
        let bundle = text(&format!("{}{}", one.ca_cert_pem, two.ca_cert_pem));
        assert_eq!(root_store(&bundle).unwrap().len(), 2);
    }
}
