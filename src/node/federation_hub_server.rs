//! `FederationHubServer`: a hub inside a Node process, off its JS thread.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;
use tokio::sync::Mutex as AsyncMutex;

use super::error::{CodedError, Thrown};
use super::federation_hub::number;
use super::hub_options::{AgentConfigOptions, FederationHubServerOptions, HubCredentials, hub_options};
use super::js_thread;
use super::options::FederationHubConfig;
use super::revocation::{HubRevocation, RevocationTarget, revoked};
use crate::engine::clock::wall_now_ms;
use crate::engine::hub::{Hub, HubOptions};
use crate::engine::revocations::RevokeError;
use crate::engine::token::keys::KeySource;
use crate::engine::token::{Grant, TokenOptions};
use crate::storage::backup::BackupError;
use crate::transport::Credentials;

const DEFAULT_TOKEN_LIFE_MS: f64 = 86_400_000.0;

/// What a hub is busy with.
#[napi(object, object_from_js = false)]
pub struct HubStats {
    /// Agents with a live connection.
    pub connected_agents: f64,
    /// Tenants that have rows here.
    pub tenants: f64,
    /// Live rows of all tenants.
    pub rows: f64,
    /// Seconds since `start()`.
    pub uptime: f64,
    /// Syncs answered since `start()`.
    pub syncs: f64,
    /// Bytes sent to agents since `start()`.
    pub bytes_sent: f64,
    /// Bytes received from agents since `start()`.
    pub bytes_received: f64,
}

/// A hub inside this Node process, off its JS thread.
///
/// ```ts
/// const server = new FederationHubServer({
///   listen: '0.0.0.0:4433', dataPath: 'hub.db', certPath, keyPath, clientCaPath, jwtSecret,
/// });
/// await server.start();
/// console.log(server.endpoint);
/// await server.stop();
/// ```
///
/// A running hub keeps the process alive; one made by `ephemeral()` does not.
#[napi]
pub struct FederationHubServer {
    options: Result<HubOptions, CodedError>,
    credentials: Option<HubCredentials>,
    /// Held while starting or stopping, so that the two take turns.
    lifecycle: Arc<AsyncMutex<()>>,
    pub(super) running: Arc<Mutex<Option<Arc<Hub>>>>,
}

#[napi]
impl FederationHubServer {
    /// Remembers the options; reads no file and opens no socket. What is wrong with them, `start()` tells.
    #[napi(constructor)]
    pub fn new(options: FederationHubServerOptions) -> Self {
        let options_credentials = options.credentials.clone();
        let options = hub_options(options);
        // The secret that tokens are verified with, which may have been given beside the credentials.
        let credentials = options_credentials.map(|own| match &options {
            Ok(HubOptions { tokens: TokenOptions { keys: KeySource::Secret(secret), .. }, .. }) => {
                HubCredentials { jwt_secret: secret.clone(), ..own }
            }
            _ => own,
        });
        Self { options, credentials, lifecycle: Arc::default(), running: Arc::default() }
    }

    /// Makes credentials for a throwaway hub: a CA of its own, a certificate for this machine, and a secret.
    #[napi(ts_return_type = "Promise<HubCredentials>")]
    pub fn generate_credentials(env: &Env) -> napi::Result<PromiseRaw<'_, HubCredentials>> {
        js_thread::promise(env, &[], |_| async move {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret)
                .map_err(|error| CodedError::internal(format!("the system gives no randomness: {error}")))?;
            let credentials = Credentials::generate(secret);
            credentials.map(HubCredentials::from).map_err(|error| CodedError::internal(error.to_string()))
        })
    }

    /// Opens the store and begins to listen. Does nothing when the hub is running.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn start<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let (options, lifecycle, running) =
            (self.options.clone(), Arc::clone(&self.lifecycle), Arc::clone(&self.running));
        js_thread::promise(env, &[], |_| async move {
            let _turn = lifecycle.lock().await;
            if current(&running).is_none() {
                let hub = Hub::start(options?).await?;
                *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(hub));
            }
            Ok(())
        })
    }

    /// Where agents reach the hub, `quic://host:port`, with the real port; before `start()`, the address that
    /// it was told to listen on. A hub that listens on all addresses shows the loopback one.
    #[napi(getter)]
    pub fn endpoint(&self) -> String {
        match (current(&self.running), &self.options) {
            (Some(hub), _) => format!("quic://{}", reachable(hub.local_addr())),
            (None, Ok(options)) => format!("quic://{}", options.listen),
            (None, Err(_)) => String::new(),
        }
    }

    /// Where metrics are read from, `http://host:port`; null unless the hub runs and has `metricsListen`.
    #[napi(getter)]
    pub fn metrics_endpoint(&self) -> Option<String> {
        let address = current(&self.running)?.metrics_addr()?;
        Some(format!("http://{}", reachable(address)))
    }

    /// What the hub is busy with; all zeros when it is not running.
    #[napi]
    pub fn get_stats(&self) -> HubStats {
        let stats = current(&self.running).map(|hub| hub.stats()).unwrap_or_default();
        HubStats {
            connected_agents: number(stats.connected_agents),
            tenants: number(stats.tenants),
            rows: number(stats.rows),
            uptime: stats.uptime_seconds,
            syncs: number(stats.syncs),
            bytes_sent: number(stats.bytes_sent),
            bytes_received: number(stats.bytes_received),
        }
    }

    /// Lets somebody in no more: a tenant, one of its agents, or whoever has a token. Sessions that are open end at
    /// once. It is remembered in the hub's store until `reinstate()`, or until `expiresAt`.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn revoke<'env>(
        &self,
        env: &'env Env,
        target: RevocationTarget,
    ) -> napi::Result<PromiseRaw<'env, ()>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            let (whom, until_ms) = revoked(target, wall_now_ms())?;
            Ok(hub.ok_or(RevokeError::NotRunning)?.revoke(whom, until_ms).await?)
        })
    }

    /// Takes a revocation back. Resolves to whether there was one.
    #[napi(ts_return_type = "Promise<boolean>")]
    pub fn reinstate<'env>(
        &self,
        env: &'env Env,
        target: RevocationTarget,
    ) -> napi::Result<PromiseRaw<'env, bool>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            let whom = RevocationTarget { expires_at: None, ..target };
            let (whom, _) = revoked(whom, wall_now_ms())?;
            Ok(hub.ok_or(RevokeError::NotRunning)?.reinstate(whom).await?)
        })
    }

    /// The revocations that hold; none when the hub is not running.
    #[napi]
    pub fn revocations(&self) -> Vec<HubRevocation> {
        let all = current(&self.running).map(|hub| hub.revocations());
        all.into_iter().flatten().map(HubRevocation::from).collect()
    }

    /// Copies the hub's store to a file that does not exist yet, while agents go on. A hub that is started on it
    /// (`dataPath`) is this one as it was then, and agents offer it again what they hold. Rejects with
    /// `ERR_FEDERATION_BACKUP` if the file cannot be written; of a backup that is not complete nothing is left.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn backup<'env>(&self, env: &'env Env, path: String) -> napi::Result<PromiseRaw<'env, ()>> {
        let hub = current(&self.running);
        js_thread::promise(env, &[], |_| async move {
            Ok(hub.ok_or(BackupError::NotRunning)?.backup(Path::new(&path)).await?)
        })
    }

    /// Stops listening, closes every connection and then the store. Does nothing when the hub is not running.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn stop<'env>(&self, env: &'env Env) -> napi::Result<PromiseRaw<'env, ()>> {
        let (lifecycle, running) = (Arc::clone(&self.lifecycle), Arc::clone(&self.running));
        js_thread::promise(env, &[], |_| async move {
            let _turn = lifecycle.lock().await;
            let hub = running.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(hub) = hub {
                hub.stop().await;
            }
            Ok(())
        })
    }

    /// The credentials that the hub was made with, to start it again with the same ones; null if it was made
    /// without.
    #[napi(getter)]
    pub fn credentials(&self) -> Option<HubCredentials> {
        self.credentials.clone()
    }

    /// Issues a certificate and a token for an agent: a complete `FederationHubConfig`, plain data that can be
    /// sent to another process. Only a hub that was made with `credentials` can, as `ephemeral()` ones are.
    #[napi(ts_return_type = "FederationHubConfig & { token: string }")]
    pub fn agent_config(&self, options: AgentConfigOptions) -> Result<FederationHubConfig<'static>, Thrown> {
        let Some(own) = self.credentials.clone() else {
            return Err(CodedError::config(
                "agentConfig() needs the CA's key: make the hub with ephemeral(), or with the option credentials",
            )
            .into());
        };
        let AgentConfigOptions { agent_id, tenant_id, expires_in_ms, permissions, token_id, token } = options;
        #[expect(clippy::cast_possible_truncation, reason = "a cast saturates: too far away is far away")]
        let life_ms = expires_in_ms.unwrap_or(DEFAULT_TOKEN_LIFE_MS) as i64;
        let expires_at_ms = wall_now_ms().saturating_add(life_ms);
        let token = match token {
            Some(token) => token,
            None => self
                .options
                .clone()?
                .tokens
                .issue(&tenant_id, &agent_id, expires_at_ms, &Grant { permissions, token_id })
                .map_err(|error| CodedError::config(error.to_string()))?,
        };
        let ca_pem = own.ca_cert_pem.clone();
        let (cert_pem, key_pem) = Credentials::from(own)
            .issue_agent(&agent_id, &tenant_id)
            .map_err(|error| CodedError::internal(error.to_string()))?;
        Ok(FederationHubConfig {
            endpoint: self.endpoint(),
            agent_id,
            tenant_id,
            token,
            enable_mtls: Some(true),
            cert_pem: Some(cert_pem),
            key_pem: Some(key_pem),
            ca_pem: Some(ca_pem),
            ..FederationHubConfig::default()
        })
    }
}

pub(super) fn current(running: &Mutex<Option<Arc<Hub>>>) -> Option<Arc<Hub>> {
    running.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// An address that a socket on this machine can send to.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let mut address = listening;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    address
}
