//! What callers pass, and what the engine takes.

use std::sync::Arc;

use napi::bindgen_prelude::Unknown;
use napi_derive::napi;

use super::error::CodedError;
use crate::engine::agent::AgentOptions;
use crate::engine::hub::{DEFAULT_AGENT_TTL_MS, HubOptions};
use crate::storage::choice::SyncOptions;
use crate::transport::{Credentials, HubTls, PemSource};

const DEFAULT_CONNECT_TIMEOUT_MS: u64 = 5_000;
const DEFAULT_REQUEST_TIMEOUT_MS: u64 = 30_000;

/// The longest timeout: a day. More is a mistake in the unit.
const MAX_TIMEOUT_MS: f64 = 86_400_000.0;

/// The longest time that an agent may be silent: ten years.
const MAX_AGENT_TTL_MS: f64 = 10.0 * 365.0 * 86_400_000.0;

/// How an agent reaches its hub, and as whom.
#[napi(object)]
#[derive(Default)]
pub struct FederationHubConfig<'a> {
    /// The hub's address, `quic://host[:port]`: a name, an IPv4 address, or an IPv6 address in brackets. The
    /// port is 4433 unless given.
    pub endpoint: String,
    /// The agent's name, which must be the `agentId` claim of the token.
    pub agent_id: String,
    /// The tenant whose rows the agent shares, which must be the `tenantId` claim of the token.
    pub tenant_id: String,
    /// The JWT that the hub's operator issued for this agent. It is never logged.
    pub token: String,
    /// Whether the agent shows a certificate of its own (mutual TLS). True unless given. The hub's certificate
    /// is verified in any case; there is no way to turn that off.
    #[napi(js_name = "enableMTLS")]
    pub enable_mtls: Option<bool>,
    /// The file with the agent's certificate, PEM. Unless given, the environment's `FEDERATION_CERT_PATH`.
    pub cert_path: Option<String>,
    /// The file with the agent's private key, PEM. Unless given, the environment's `FEDERATION_KEY_PATH`.
    pub key_path: Option<String>,
    /// The file with the CA that signed the hub's certificate, PEM. Unless given, the environment's
    /// `FEDERATION_CA_PATH`; without mutual TLS it may be absent, and the system's own CAs are used.
    pub ca_path: Option<String>,
    /// The agent's certificate as PEM text, instead of `certPath`.
    pub cert_pem: Option<String>,
    /// The agent's private key as PEM text, instead of `keyPath`.
    pub key_pem: Option<String>,
    /// The CA as PEM text, instead of `caPath`.
    pub ca_pem: Option<String>,
    /// How long connecting, or connecting again, may take, in milliseconds. 5,000 unless given.
    pub connect_timeout_ms: Option<f64>,
    /// How long a sync may make no progress before it is given up, in milliseconds. 30,000 unless given.
    pub request_timeout_ms: Option<f64>,
    /// Which tables are shared, and how: all of them unless given.
    #[napi(ts_type = "FederationTables")]
    pub tables: Option<Unknown<'a>>,
    /// Columns whose integers are numbers of rows, although no foreign key says so.
    #[napi(ts_type = "readonly FederationReference[]")]
    pub references: Option<Unknown<'a>>,
    /// How the rows are taken that a database holds when it is first synced. `'old'` unless given: they give way
    /// to everything that anyone writes, and databases that start from one template share its rows. `'new'`: they
    /// count as written now, and rows with integer keys are new rows.
    #[napi(ts_type = "'old' | 'new'")]
    pub existing_rows: Option<String>,
    /// Whether tables of the tenant that are missing here are made. True unless given. Say false where the
    /// application makes its tables itself with `CREATE TABLE IF NOT EXISTS`, and a newer release of it could meet
    /// the older tables of its tenant: the rows then come once it has made its own.
    pub create_schema: Option<bool>,
    /// Receives what happens: `console`, pino, winston, or anything with their four methods. Silent unless
    /// given.
    #[napi(ts_type = "FederationLogger")]
    pub logger: Option<Unknown<'a>>,
}

/// Where a hub listens, where it keeps its rows, and whom it lets in.
#[napi(object, object_to_js = false)]
pub struct FederationHubServerOptions {
    /// The UDP address to listen on, `host:port`, such as `0.0.0.0:4433` or `[::]:4433`. With port 0 the system
    /// chooses one, which `endpoint` tells.
    pub listen: String,
    /// The hub's SQLite file, created unless it exists; or `:memory:`, which forgets everything on `stop()`.
    pub data_path: String,
    /// The file with the hub's certificate, PEM.
    pub cert_path: Option<String>,
    /// The hub's certificate as PEM text, instead of `certPath`.
    pub cert_pem: Option<String>,
    /// The file with the hub's private key, PEM.
    pub key_path: Option<String>,
    /// The hub's private key as PEM text, instead of `keyPath`.
    pub key_pem: Option<String>,
    /// The file with the CA that signs agents' certificates, PEM. Without one, agents need no certificate, and
    /// their token alone lets them in.
    pub client_ca_path: Option<String>,
    /// The CA that signs agents' certificates as PEM text, instead of `clientCaPath`.
    pub client_ca_pem: Option<String>,
    /// The secret that tokens are signed with (JWT, HS256).
    pub jwt_secret: Option<String>,
    /// How long an agent may be silent before the hub retires it, in ms; a week unless given. One that comes back
    /// later loses nothing of its own, and gets a fresh snapshot. An agent that says goodbye with `disconnect()`
    /// retires at once, and one whose token has expired when it is not connected.
    pub agent_ttl: Option<f64>,
    /// Credentials from `FederationHubServer.generateCredentials()`: they stand in for whichever of
    /// certificate, key, CA and secret is not given, and let `agentConfig()` issue certificates and tokens.
    pub credentials: Option<HubCredentials>,
}

/// All that a throwaway hub proves itself with, and issues certificates and tokens from. Plain texts: store
/// them, and start the hub again with the same ones. Whoever has them can pose as any agent.
#[napi(object)]
#[derive(Clone)]
pub struct HubCredentials {
    /// The certificate of the CA that signs both sides' certificates, PEM.
    pub ca_cert_pem: String,
    /// The CA's private key, PEM.
    pub ca_key_pem: String,
    /// The hub's certificate, for `localhost`, `127.0.0.1` and `::1`, PEM.
    pub hub_cert_pem: String,
    /// The hub's private key, PEM.
    pub hub_key_pem: String,
    /// The secret that tokens are signed with.
    pub jwt_secret: String,
}

impl From<Credentials> for HubCredentials {
    fn from(credentials: Credentials) -> Self {
        let Credentials { ca_cert_pem, ca_key_pem, hub_cert_pem, hub_key_pem, jwt_secret } = credentials;
        Self { ca_cert_pem, ca_key_pem, hub_cert_pem, hub_key_pem, jwt_secret }
    }
}

impl From<HubCredentials> for Credentials {
    fn from(credentials: HubCredentials) -> Self {
        let HubCredentials { ca_cert_pem, ca_key_pem, hub_cert_pem, hub_key_pem, jwt_secret } = credentials;
        Self { ca_cert_pem, ca_key_pem, hub_cert_pem, hub_key_pem, jwt_secret }
    }
}

/// For whom `agentConfig()` issues a certificate and a token.
#[napi(object, object_to_js = false)]
pub struct AgentConfigOptions {
    /// The agent's name.
    pub agent_id: String,
    /// The tenant whose rows it shares.
    pub tenant_id: String,
    /// How long the token is valid, in milliseconds. A day unless given; negative makes one that has expired.
    pub expires_in_ms: Option<f64>,
}

/// Reads an agent's configuration. The environment has been merged into the paths by then.
pub fn agent_options(config: FederationHubConfig<'_>, sync: SyncOptions) -> Result<AgentOptions, CodedError> {
    Ok(AgentOptions {
        connect_timeout_ms: timeout_ms(
            "connectTimeoutMs",
            config.connect_timeout_ms,
            DEFAULT_CONNECT_TIMEOUT_MS,
        )?,
        request_timeout_ms: timeout_ms(
            "requestTimeoutMs",
            config.request_timeout_ms,
            DEFAULT_REQUEST_TIMEOUT_MS,
        )?,
        endpoint: config.endpoint,
        agent_id: config.agent_id,
        tenant_id: config.tenant_id,
        token: config.token,
        enable_mtls: config.enable_mtls.unwrap_or(true),
        cert: pem_source(config.cert_pem, config.cert_path),
        key: pem_source(config.key_pem, config.key_path),
        ca: pem_source(config.ca_pem, config.ca_path),
        sync: Arc::new(sync),
    })
}

/// Reads a hub's options.
pub fn hub_options(options: FederationHubServerOptions) -> Result<HubOptions, CodedError> {
    let own = options.credentials;
    let text =
        |field: fn(&HubCredentials) -> &String| own.as_ref().map(|own| PemSource::Text(field(own).clone()));
    let cert = pem_source(options.cert_pem, options.cert_path).or_else(|| text(|own| &own.hub_cert_pem));
    let key = pem_source(options.key_pem, options.key_path).or_else(|| text(|own| &own.hub_key_pem));
    let client_ca =
        pem_source(options.client_ca_pem, options.client_ca_path).or_else(|| text(|own| &own.ca_cert_pem));
    let jwt_secret = options.jwt_secret.or_else(|| own.as_ref().map(|own| own.jwt_secret.clone()));
    Ok(HubOptions {
        listen: options.listen,
        data_path: options.data_path,
        tls: HubTls {
            cert: cert
                .ok_or_else(|| CodedError::config("the hub has no certificate: pass certPath or certPem"))?,
            key: key
                .ok_or_else(|| CodedError::config("the hub has no private key: pass keyPath or keyPem"))?,
            client_ca,
        },
        jwt_secret: jwt_secret
            .ok_or_else(|| CodedError::config("the hub cannot verify tokens: pass jwtSecret"))?,
        agent_ttl_ms: agent_ttl_ms(options.agent_ttl)?,
    })
}

fn pem_source(text: Option<String>, path: Option<String>) -> Option<PemSource> {
    text.map(PemSource::Text).or_else(|| path.map(|path| PemSource::Path(path.into())))
}

fn agent_ttl_ms(given: Option<f64>) -> Result<u64, CodedError> {
    match given {
        None => Ok(DEFAULT_AGENT_TTL_MS),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within 1 and the maximum"
        )]
        Some(given) if (1.0..=MAX_AGENT_TTL_MS).contains(&given) => Ok(given as u64),
        Some(given) => Err(CodedError::config(format!(
            "agentTtl is {given}: it must be a number of milliseconds between 1 and {MAX_AGENT_TTL_MS}"
        ))),
    }
}

fn timeout_ms(name: &str, given: Option<f64>, default: u64) -> Result<u64, CodedError> {
    match given {
        None => Ok(default),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 1 and a day")]
        Some(given) if (1.0..=MAX_TIMEOUT_MS).contains(&given) => Ok(given as u64),
        Some(given) => Err(CodedError::config(format!(
            "{name} is {given}: it must be a number of milliseconds between 1 and {MAX_TIMEOUT_MS}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> FederationHubConfig<'static> {
        FederationHubConfig {
            endpoint: "quic://hub.example.com".into(),
            cert_path: Some("agent.crt".into()),
            ..FederationHubConfig::default()
        }
    }

    #[test]
    fn what_is_not_given_takes_its_default() {
        let options = agent_options(config(), SyncOptions::default()).unwrap();
        assert!(options.enable_mtls);
        assert_eq!((options.connect_timeout_ms, options.request_timeout_ms), (5_000, 30_000));
        assert_eq!(options.cert, Some(PemSource::Path("agent.crt".into())));
    }

    #[test]
    fn text_comes_before_a_path() {
        let options = agent_options(
            FederationHubConfig { key_pem: Some("PEM".into()), ..config() },
            SyncOptions::default(),
        )
        .unwrap();
        assert_eq!(options.key, Some(PemSource::Text("PEM".into())));
    }

    #[test]
    fn a_timeout_that_makes_no_sense_is_refused_by_name() {
        for given in [0.0, -1.0, 0.5, f64::NAN, f64::INFINITY, 1e12] {
            let refused = agent_options(
                FederationHubConfig { request_timeout_ms: Some(given), ..config() },
                SyncOptions::default(),
            );
            assert!(refused.unwrap_err().message.contains("requestTimeoutMs"));
        }
    }
}
