//! The hub: a store, an endpoint, and the agents in between.
//!
//! A hub has a thread of its own with a current-thread runtime, which lost to a multi-thread one in no
//! measurement, and another for its store ([`super::writer`]). Nothing of it runs on the caller's thread.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use super::audit;
use super::hub_connection::{self, Farewell};
use super::hub_counts::{Counts, HubStats};
use super::hub_limits::HubLimits;
use super::identity::IdentityPolicy;
use super::intake::Decoders;
use super::listen::resolve;
use super::log::{self, LogError, LogOptions};
use super::memory_budget::MemoryBudget;
use super::metrics::HubMetrics;
use super::metrics_server;
use super::reload::{Reloader, reload};
use super::retirement::{self, AttachedReplicas};
use super::revocations::Revocations;
use super::tenants::Tenants;
use super::token::keys::{KeyError, KeySource};
use super::token::{TokenOptions, TokenVerifier};
use super::writer::{StoreCounts, Writer};
use crate::model::ReplicaId;
use crate::protocol::message::Refusal;
use crate::storage::hub_store::StoreError;
use crate::storage::hub_store_sqlite::{OpenStoreError, SqliteHubStore};
use crate::transport::{BindError, Credentials, DEFAULT_PORT, HubEndpoint, HubTls, PemSource};

/// How long [`Hub::stop`] lets syncs finish, in ms: shorter than whoever sends SIGTERM waits before SIGKILL.
pub const DEFAULT_DRAIN_TIMEOUT_MS: u64 = 5_000;

/// How long the hub waits for agents to hear of its end.
const GOODBYE_LIMIT: Duration = Duration::from_secs(1);

/// How long an agent may be silent before it is retired, in ms: a week. One that comes back later starts from a
/// fresh snapshot, and loses nothing of its own.
pub const DEFAULT_AGENT_TTL_MS: u64 = 7 * 24 * 3_600_000;

/// What a hub needs.
#[derive(Clone)]
pub struct HubOptions {
    /// Where to listen: `host:port`, `host` for the default port, port 0 for a free one.
    pub listen: String,
    /// The store's file, or `:memory:`.
    pub data_path: String,
    /// Certificates.
    pub tls: HubTls,
    /// Which tokens let agents in.
    pub tokens: TokenOptions,
    /// What agents' certificates have to name.
    pub identity: IdentityPolicy,
    /// How long an agent may be silent before it is retired, in ms; [`DEFAULT_AGENT_TTL_MS`] unless there is a
    /// reason.
    pub agent_ttl_ms: u64,
    /// What agents can cost.
    pub limits: HubLimits,
    /// The TCP address, `host:port`, on which to tell metrics and whether the hub is ready, in plain HTTP to whoever asks;
    /// none, unless given.
    pub metrics_listen: Option<String>,
    /// The process's log; none, unless given.
    pub log: Option<LogOptions>,
    /// How long [`Hub::stop`] lets syncs finish, in ms; [`DEFAULT_DRAIN_TIMEOUT_MS`] unless there is a reason.
    pub drain_timeout_ms: u64,
}

impl HubOptions {
    /// A hub with these credentials, on a free port of this machine that nobody else reaches, and nothing else
    /// than usual: for tests and measurements.
    pub fn local(credentials: &Credentials, data_path: &str) -> Self {
        let pem = |text: &str| PemSource::Text(text.to_owned());
        let tls = HubTls {
            cert: pem(&credentials.hub_cert_pem),
            key: pem(&credentials.hub_key_pem),
            client_ca: Some(pem(&credentials.ca_cert_pem)),
            crl: None,
        };
        Self {
            listen: "127.0.0.1:0".to_owned(),
            data_path: data_path.to_owned(),
            tls,
            tokens: TokenOptions::of(KeySource::Secret(credentials.jwt_secret.clone())),
            identity: IdentityPolicy::default(),
            agent_ttl_ms: DEFAULT_AGENT_TTL_MS,
            limits: HubLimits::default(),
            metrics_listen: None,
            log: None,
            drain_timeout_ms: DEFAULT_DRAIN_TIMEOUT_MS,
        }
    }
}

/// Why a hub did not start.
#[derive(Debug, Error)]
pub enum HubStartError {
    /// The address to listen on is none, or its name is unknown: pass `host:port`.
    #[error("cannot listen on {listen:?}: {cause}; pass host:port, as in 0.0.0.0:4433")]
    Address {
        /// What was passed.
        listen: String,
        /// What the resolver said.
        cause: io::Error,
    },
    /// The keys that tokens are verified with cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// Certificates are required to name tenants, and none is asked for: pass the CA that signs them.
    #[error("requireCertificateIdentity needs clientCaPath: without it no agent shows a certificate")]
    NoClientCa,
    /// The address for metrics is none, or in use.
    #[error("cannot listen on {listen:?} for metrics: {cause}; pass a free host:port, as in 127.0.0.1:9464")]
    Metrics {
        /// What was passed.
        listen: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The process has another log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// The store was opened, and cannot be read.
    #[error(transparent)]
    Read(StoreError),
    /// The address is in use, or the certificates are no good.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system has no threads, sockets or random numbers left.
    #[error("the system cannot run a hub: {0}")]
    System(#[from] io::Error),
}

/// What all connections of a hub share.
pub(super) struct Shared {
    pub(super) writer: Writer,
    pub(super) tokens: Arc<TokenVerifier>,
    pub(super) identity: IdentityPolicy,
    pub(super) counts: Arc<Counts>,
    pub(super) metrics: HubMetrics,
    pub(super) limits: HubLimits,
    pub(super) tenants: Arc<Tenants>,
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) decoders: Decoders,
    /// The replicas of those that are connected.
    pub(super) attached: Arc<AttachedReplicas>,
    pub(super) revocations: Revocations,
    /// The hub's own, for what others begin.
    pub(super) runtime: Handle,
}

impl Shared {
    /// How the hub is doing.
    pub(super) fn stats(&self) -> HubStats {
        self.counts.stats(self.writer.counts().get())
    }
}

/// A running hub. Dropped, it ends by itself: at once, without waiting for syncs that are under way.
#[derive(Debug)]
pub struct Hub {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    counts: Arc<Counts>,
    store_counts: Arc<StoreCounts>,
    pub(super) stopping: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
    /// Not kept alive by this handle: the hub's thread waits until nobody uses the store.
    shared: Weak<Shared>,
}

/// What the hub's thread reports once it listens.
struct Started {
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    counts: Arc<Counts>,
    store_counts: Arc<StoreCounts>,
    shared: Weak<Shared>,
}

impl Hub {
    /// Opens the store and listens. The future may run on any runtime.
    pub async fn start(options: HubOptions) -> Result<Self, HubStartError> {
        let (stopping, stop) = watch::channel(false);
        let (end, ended) = watch::channel(false);
        let (report, started) = oneshot::channel();
        std::thread::Builder::new().name("federation-hub".to_owned()).spawn(move || {
            if let Err(error) = run(&options, report, stop) {
                tracing::error!(%error, "the hub ended");
            }
            end.send_replace(true);
        })?;
        let gone = || io::Error::other("the hub's thread ended");
        let Started { local_addr, metrics_addr, counts, store_counts, shared } =
            started.await.map_err(|_| gone())??;
        Ok(Self { local_addr, metrics_addr, counts, store_counts, stopping, ended, shared })
    }

    /// What all connections share, while the hub runs.
    pub(super) fn shared(&self) -> Option<Arc<Shared>> {
        self.shared.upgrade()
    }

    /// The address listened on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The TCP address that metrics are read from, with the real port; nothing unless that was asked for.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// How the hub is doing. Cheap.
    pub fn stats(&self) -> HubStats {
        self.counts.stats(self.store_counts.get())
    }

    /// Lets no one in any more, lets syncs that are under way finish for a while, closes all connections
    /// and the store. Returns when the store's file is free again; at once if the hub has ended.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        // Fails only if the thread is gone, which is what is waited for.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
        // The process may end now. Fails only if the runtime ends.
        let _ = tokio::task::spawn_blocking(log::flush).await;
    }
}

/// The hub's thread.
fn run(
    options: &HubOptions,
    report: oneshot::Sender<Result<Started, HubStartError>>,
    stop: watch::Receiver<bool>,
) -> Result<(), io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let mut store_thread = None;
    runtime.block_on(async {
        let reloader = Reloader::new(options);
        let opened = open(options).await;
        let (endpoint, local_addr, shared, metrics) = match opened {
            Ok((endpoint, local_addr, shared, metrics, thread)) => {
                store_thread = Some(thread);
                (endpoint, local_addr, shared, metrics)
            }
            Err(error) => {
                let _ = report.send(Err(error));
                return;
            }
        };
        let metrics_addr = metrics.as_ref().map(|(_, address)| *address);
        let (counts, store_counts) = (Arc::clone(&shared.counts), shared.writer.counts());
        let shared = Arc::new(shared);
        let started =
            Started { local_addr, metrics_addr, counts, store_counts, shared: Arc::downgrade(&shared) };
        // Nobody waits any more: the caller has given the hub up already, and `stop` says so.
        let _ = report.send(Ok(started));
        let scraping = metrics.map(|(listener, _)| {
            tokio::spawn(metrics_server::serve(listener, Arc::downgrade(&shared), stop.clone()))
        });
        tracing::info!(%local_addr, data_path = options.data_path, "the hub listens");
        let upkeep = tokio::spawn(retirement::upkeep(Arc::downgrade(&shared), options.agent_ttl_ms));
        let reloading = tokio::spawn(reload(reloader, Arc::clone(&shared.tokens), Arc::downgrade(&endpoint)));
        accept(&endpoint, &shared, stop, Duration::from_millis(options.drain_timeout_ms)).await;
        upkeep.abort();
        reloading.abort();
        if let Some(scraping) = scraping {
            scraping.abort();
        }
    });
    // Ends the tasks that are left, and with them the last handles to the store.
    runtime.shutdown_timeout(GOODBYE_LIMIT);
    if let Some(thread) = store_thread
        && thread.join().is_err()
    {
        tracing::error!("the store's thread panicked");
    }
    tracing::info!("the hub has stopped");
    Ok(())
}

type Opened =
    (Arc<HubEndpoint>, SocketAddr, Shared, Option<(TcpListener, SocketAddr)>, std::thread::JoinHandle<()>);

async fn open(options: &HubOptions) -> Result<Opened, HubStartError> {
    if options.identity.is_required && options.tls.client_ca.is_none() {
        return Err(HubStartError::NoClientCa);
    }
    if let Some(log) = options.log {
        super::log::begin(log)?;
    }
    let tokens = Arc::new(TokenVerifier::new(options.tokens.clone())?);
    let listen = resolve(&options.listen, Some(DEFAULT_PORT))
        .await
        .map_err(|cause| HubStartError::Address { listen: options.listen.clone(), cause })?;
    // Bound before the store is opened: a hub that cannot listen leaves no file behind.
    let (limits, on_refused) = (options.limits, Box::new(audit::crowded_out));
    let endpoint = Arc::new(HubEndpoint::bind_within(listen, &options.tls, limits.endpoint(), on_refused)?);
    let local_addr = endpoint.local_addr()?;
    let metrics = match &options.metrics_listen {
        None => None,
        Some(listen) => Some(
            metrics_server::bind(listen)
                .await
                .map_err(|cause| HubStartError::Metrics { listen: listen.clone(), cause })?,
        ),
    };
    let mut incarnation = [0; 16];
    getrandom::fill(&mut incarnation).map_err(io::Error::from)?;
    let store = SqliteHubStore::open(&options.data_path, ReplicaId(incarnation))?.within(limits.store());
    let (writer, thread) = Writer::start(Box::new(store))?;
    let revocations = Revocations::new(writer.revocations().await.map_err(HubStartError::Read)?);
    let memory = MemoryBudget::new(limits.max_memory_bytes);
    let (counts, attached) = (Arc::new(Counts::new(Arc::clone(&memory))), Arc::default());
    let identity = options.identity.clone();
    let tenants = Tenants::new(limits);
    let hub_metrics = HubMetrics::new(&writer.counts().commits);
    let shared = Shared {
        writer,
        tokens,
        identity,
        counts,
        metrics: hub_metrics,
        limits,
        tenants,
        memory,
        decoders: Decoders::default(),
        attached,
        revocations,
        runtime: Handle::current(),
    };
    Ok((endpoint, local_addr, shared, metrics, thread))
}

/// Lets agents in until the hub is to stop; then lets them finish.
async fn accept(
    endpoint: &HubEndpoint,
    shared: &Arc<Shared>,
    mut stop: watch::Receiver<bool>,
    drain_limit: Duration,
) {
    let mut connections = JoinSet::new();
    let stopping = stop.clone();
    let mut owed = false;
    let is_asked = loop {
        tokio::select! {
            handshake = endpoint.accept() => match handshake {
                Some(handshake) => {
                    connections.spawn(hub_connection::serve(Arc::clone(shared), handshake, stopping.clone()));
                }
                None => break false,
            },
            Some(ended) = connections.join_next() => owed |= matches!(ended, Ok(Farewell::Owed)),
            asked = stop.wait_for(|stop| *stop) => break asked.is_ok(),
        }
    };
    let mut farewells = async || {
        while let Some(ended) = connections.join_next().await {
            owed |= matches!(ended, Ok(Farewell::Owed));
        }
    };
    // Past the limit they are cut off; what they had pushed whole is stored or was never acknowledged.
    let in_time = is_asked && timeout(drain_limit, farewells()).await.is_ok();
    endpoint.close(Refusal::Stopping.close_code(), "the hub is stopping");
    // Agents that have heard of it, or said goodbye themselves, are not waited for: QUIC remembers each for some round trips,
    // and those of one that is gone can be long.
    if owed || !in_time {
        let _ = timeout(GOODBYE_LIMIT, endpoint.wait_idle()).await;
    }
    // For what was said to somebody just now.
    yield_now().await;
}

#[cfg(test)]
mod tests;
