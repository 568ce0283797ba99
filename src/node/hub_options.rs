//! What a hub's callers pass, and what the engine takes.

use napi_derive::napi;

use super::error::CodedError;
use super::hub_limits::{FederationHubLimits, hub_limits};
use super::log::log_options;
use super::options::{milliseconds, pem_source};
use crate::engine::hub::{DEFAULT_AGENT_TTL_MS, DEFAULT_DRAIN_TIMEOUT_MS, HubOptions};
use crate::engine::identity::IdentityPolicy;
use crate::engine::token::TokenOptions;
use crate::engine::token::keys::KeySource;
use crate::transport::{Credentials, HubTls, PemSource};

/// The longest time that an agent may be silent: ten years.
const MAX_AGENT_TTL_MS: f64 = 10.0 * 365.0 * 86_400_000.0;

/// The longest time that a hub may take to stop: an hour.
const MAX_DRAIN_MS: f64 = 3_600_000.0;

/// The most that two clocks may differ: a day. More is a mistake in the unit.
const MAX_LEEWAY_MS: f64 = 86_400_000.0;

/// Where a hub listens, where it keeps its rows, and whom it lets in.
#[napi(object, object_to_js = false)]
pub struct FederationHubServerOptions {
    /// The UDP address to listen on, `host:port`, such as `0.0.0.0:4433` or `[::]:4433`. With port 0 the system
    /// chooses one, which `endpoint` tells.
    pub listen: String,
    /// The hub's SQLite file, created unless it exists; or `:memory:`, which forgets everything on `stop()`.
    pub data_path: String,
    /// The file with the hub's certificate, PEM. This one, `keyPath`, `clientCaPath` and `crlPath` are read again when
    /// they change, for agents that connect then.
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
    /// The file with the lists of certificates that were revoked, PEM. Each CA needs one, those above it but for the
    /// root's own included: certificates of one without a list are refused as well. It keeps revoked certificates from
    /// connecting; `revoke()` ends sessions.
    pub crl_path: Option<String>,
    /// Those lists as PEM text, instead of `crlPath`.
    pub crl_pem: Option<String>,
    /// The trust domain of agents' certificates: a certificate that names a tenant, with the URI
    /// `spiffe://<trust domain>/tenant/<tenantId>[/agent/<agentId>]`, must be of this one. Any, unless given.
    pub trust_domain: Option<String>,
    /// Whether every agent's certificate must name its tenant so. False unless given: then one that does must
    /// match the token all the same.
    pub require_certificate_identity: Option<bool>,
    /// The secret that tokens are signed with, 32 bytes or more: HS256, or as `jwtAlgorithm` says. One of `jwtSecret`,
    /// `jwtPublicKeyPath`, `jwtPublicKeyPem` and `jwksPath` is needed.
    pub jwt_secret: Option<String>,
    /// The file with the public key that tokens are verified with, PEM: RSA, P-256 or Ed25519. Read again when it
    /// changes.
    pub jwt_public_key_path: Option<String>,
    /// That key as PEM text, instead of `jwtPublicKeyPath`.
    pub jwt_public_key_pem: Option<String>,
    /// The file with the public keys that tokens are verified with, a JSON Web Key Set, in which tokens name theirs
    /// by `kid`. Read again when it changes.
    pub jwks_path: Option<String>,
    /// The only algorithm that tokens may be signed with. Unless given, the key says: HS256 for a secret, RS256 for
    /// RSA, ES256 for P-256, `EdDSA` for Ed25519, and in a key set each key's own `alg`. A token never says.
    #[napi(ts_type = "'HS256' | 'HS384' | 'HS512' | 'RS256' | 'PS256' | 'ES256' | 'EdDSA'")]
    pub jwt_algorithm: Option<String>,
    /// What a token's `iss` must be. Anything, unless given.
    pub jwt_issuer: Option<String>,
    /// What a token's `aud` must be, or have among others. Anything, unless given.
    pub jwt_audience: Option<String>,
    /// How far the issuer's clock may be off, in milliseconds: so long before its `nbf` and `iat`, and after its
    /// `exp`, a token is taken. Unless given, 60,000 before and 0 after.
    pub jwt_leeway_ms: Option<f64>,
    /// How long an agent may be silent before the hub retires it, in ms; a week unless given. One that comes back
    /// later loses nothing of its own, and gets a fresh snapshot. An agent that says goodbye with `disconnect()`
    /// retires at once, and one that is not connected five minutes after its token has expired.
    pub agent_ttl: Option<f64>,
    /// What agents can cost the hub. The defaults, unless given.
    pub limits: Option<FederationHubLimits>,
    /// A TCP address, `host:port`, on which the hub tells whoever asks, in plain HTTP, its `/metrics` in Prometheus'
    /// format, `/healthz` and `/readyz`: one that agents cannot reach. None unless given; with port 0 the system chooses
    /// one, which `metricsEndpoint` tells.
    pub metrics_listen: Option<String>,
    /// Whether the process logs to standard error what happens in the hub, and the audit trail: who was let in, refused
    /// or revoked. `'human'` for people, `'json'` for an object in each line; `'off'` unless given. A process has one log,
    /// which goes on to its end. No token, key or row is ever logged.
    #[napi(ts_type = "'off' | 'human' | 'json'")]
    pub log: Option<String>,
    /// The least important that is logged; the audit trail is in any case. `'info'` unless given.
    #[napi(ts_type = "'error' | 'warn' | 'info' | 'debug'")]
    pub log_level: Option<String>,
    /// How long `stop()` lets syncs that are under way finish, in ms; 5,000 unless given. Agents that are cut off, or
    /// come while the hub is away, come back by themselves: their `sync()` waits for the hub for `requestTimeoutMs`.
    pub drain_timeout_ms: Option<f64>,
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
    /// What the token permits. Both unless given; without `'read'` it lets nobody in.
    #[napi(ts_type = "readonly ('read' | 'write')[]")]
    pub permissions: Option<Vec<String>>,
    /// The token's own name (`jti`), by which it can be revoked. None unless given.
    pub token_id: Option<String>,
    /// The token, where the hub verifies tokens that somebody else signs. Issued unless given.
    pub token: Option<String>,
}

/// Reads a hub's options.
pub fn hub_options(options: FederationHubServerOptions) -> Result<HubOptions, CodedError> {
    let own = options.credentials.clone();
    // What is wrong with certificates is told first.
    let tokens = token_options(&options, own.as_ref());
    let text =
        |field: fn(&HubCredentials) -> &String| own.as_ref().map(|own| PemSource::Text(field(own).clone()));
    let cert = pem_source(options.cert_pem, options.cert_path).or_else(|| text(|own| &own.hub_cert_pem));
    let key = pem_source(options.key_pem, options.key_path).or_else(|| text(|own| &own.hub_key_pem));
    let client_ca =
        pem_source(options.client_ca_pem, options.client_ca_path).or_else(|| text(|own| &own.ca_cert_pem));
    Ok(HubOptions {
        listen: options.listen,
        data_path: options.data_path,
        tls: HubTls {
            cert: cert
                .ok_or_else(|| CodedError::config("the hub has no certificate: pass certPath or certPem"))?,
            key: key
                .ok_or_else(|| CodedError::config("the hub has no private key: pass keyPath or keyPem"))?,
            client_ca,
            crl: pem_source(options.crl_pem, options.crl_path),
        },
        identity: IdentityPolicy {
            trust_domain: options.trust_domain,
            is_required: options.require_certificate_identity.unwrap_or(false),
        },
        tokens: tokens?,
        agent_ttl_ms: options.agent_ttl.map_or(Ok(DEFAULT_AGENT_TTL_MS), |given| {
            milliseconds("agentTtl", given, 1.0..=MAX_AGENT_TTL_MS)
        })?,
        limits: hub_limits(options.limits)?,
        metrics_listen: options.metrics_listen,
        log: log_options(options.log.as_deref(), options.log_level.as_deref())?,
        drain_timeout_ms: options.drain_timeout_ms.map_or(Ok(DEFAULT_DRAIN_TIMEOUT_MS), |given| {
            milliseconds("drainTimeoutMs", given, 0.0..=MAX_DRAIN_MS)
        })?,
    })
}

/// Which tokens the hub takes. A throwaway secret stands in only where nothing else is given.
fn token_options(
    options: &FederationHubServerOptions,
    own: Option<&HubCredentials>,
) -> Result<TokenOptions, CodedError> {
    let public_key = pem_source(options.jwt_public_key_pem.clone(), options.jwt_public_key_path.clone());
    let given = [
        options.jwt_secret.clone().map(KeySource::Secret),
        public_key.map(KeySource::PublicKey),
        options.jwks_path.clone().map(|path| KeySource::Jwks(path.into())),
    ];
    let mut given = given.into_iter().flatten();
    let keys = given.next().or_else(|| own.map(|own| KeySource::Secret(own.jwt_secret.clone())));
    if given.next().is_some() {
        return Err(CodedError::config(
            "pass one of jwtSecret, jwtPublicKeyPath (or jwtPublicKeyPem) and jwksPath: tokens are verified one way",
        ));
    }
    let leeway_ms =
        options.jwt_leeway_ms.map(|given| milliseconds("jwtLeewayMs", given, 0.0..=MAX_LEEWAY_MS));
    Ok(TokenOptions {
        keys: keys.ok_or_else(|| {
            CodedError::config("the hub cannot verify tokens: pass jwtSecret, jwtPublicKeyPath or jwksPath")
        })?,
        algorithm: options.jwt_algorithm.clone(),
        issuer: options.jwt_issuer.clone(),
        audience: options.jwt_audience.clone(),
        leeway_ms: leeway_ms.transpose()?.map(u64::cast_signed),
    })
}
