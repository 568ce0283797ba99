//! What an agent's callers pass, and what the engine takes.

use std::ops::RangeInclusive;
use std::sync::Arc;

use napi::bindgen_prelude::Unknown;
use napi_derive::napi;

use super::error::CodedError;
use crate::engine::agent::AgentOptions;
use crate::storage::choice::SyncOptions;
use crate::transport::PemSource;

const DEFAULT_CONNECT_TIMEOUT_MS: u64 = 5_000;
const DEFAULT_REQUEST_TIMEOUT_MS: u64 = 30_000;

/// The longest timeout: a day. More is a mistake in the unit.
const MAX_TIMEOUT_MS: f64 = 86_400_000.0;

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
    /// The JWT that the hub's operator issued for this agent, or a function that gives one, which is called for each
    /// connection: at `connect()`, and whenever a sync has to restore it, as after the token before has expired. It
    /// has `connectTimeoutMs` to answer. No token is ever logged.
    #[napi(ts_type = "string | (() => string | Promise<string>)")]
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
    /// Whether tables of the tenant that are missing here are made. `'auto'` unless given: those of which tables and indexes
    /// are the whole story. Where the application that declared them has a migration journal, a `PRAGMA user_version`, or
    /// virtual tables that triggers fill, an application that finds the tables here would not make the rest: their rows
    /// come once it has made its own, and a notice says so. `true`: all of them. `false`: none, as where a newer release of
    /// the application could meet the older tables of its tenant.
    #[napi(ts_type = "boolean | 'auto'")]
    pub create_schema: Option<Unknown<'a>>,
    /// Receives what happens: `console`, pino, winston, or anything with their four methods. Silent unless
    /// given.
    #[napi(ts_type = "FederationLogger")]
    pub logger: Option<Unknown<'a>>,
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

/// Where a certificate or a key comes from: its text, or else its file.
pub fn pem_source(text: Option<String>, path: Option<String>) -> Option<PemSource> {
    text.map(PemSource::Text).or_else(|| path.map(|path| PemSource::Path(path.into())))
}

fn timeout_ms(name: &str, given: Option<f64>, default: u64) -> Result<u64, CodedError> {
    given.map_or(Ok(default), |given| milliseconds(name, given, 1.0..=MAX_TIMEOUT_MS))
}

/// A number of milliseconds within bounds.
pub fn milliseconds(name: &str, given: f64, bounds: RangeInclusive<f64>) -> Result<u64, CodedError> {
    if !bounds.contains(&given) {
        let (least, most) = (bounds.start(), bounds.end());
        return Err(CodedError::config(format!(
            "{name} is {given}: it must be a number of milliseconds between {least} and {most}"
        )));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded, and never negative"
    )]
    Ok(given as u64)
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
