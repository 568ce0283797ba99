//! An agent's end: connects to hubs.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::connection_lost::{ConnectionLost, TlsFailure};
use super::endpoint_address::EndpointAddress;
use super::tls::{AgentTls, TlsConfigError};

/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The head start of an address before the next one is tried as well (RFC 8305, 5): an address that nobody
/// answers at is silent in UDP, and must not cost the whole timeout.
const HEAD_START: Duration = Duration::from_millis(100);

/// Where agents' connections start: one UDP socket for all of them, made at the first. Clones are handles to the same one.
///
/// A socket takes megabytes for what it receives, so that the agents of a process, and the attempts of one that is refused
/// again and again, share one. They share nothing else: each connection has a TLS configuration of its own, with its
/// certificate, its trust and its tokens of address validation, and no session is ever resumed.
#[derive(Clone, Debug, Default)]
pub struct AgentEndpoint {
    socket: Arc<Mutex<Option<Arc<quinn::Endpoint>>>>,
}

/// A connection that did not come about.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Certificates or keys that cannot be used; the message names the file.
    #[error(transparent)]
    Config(#[from] TlsConfigError),
    /// The host's name is unknown, or DNS does not answer: check the spelling and the network.
    #[error("cannot resolve the host name of {endpoint}: {cause}. Check its spelling, and DNS")]
    Resolve {
        /// The endpoint.
        endpoint: EndpointAddress,
        /// What the resolver said.
        cause: String,
    },
    /// Nobody answered. UDP tells no difference between a hub that is down and a blocked port.
    #[error(
        "no answer from {endpoint} within {timeout_ms} ms. Is the hub running there, and does every firewall \
         on the way let UDP port {port} through?", port = endpoint.port()
    )]
    Unreachable {
        /// The endpoint.
        endpoint: EndpointAddress,
        /// How long an answer was waited for, in ms.
        timeout_ms: u128,
    },
    /// There is no route to the address, or it cannot be one: check the endpoint and the network.
    #[error("cannot send to {endpoint}: {cause}")]
    NoRoute {
        /// The endpoint.
        endpoint: EndpointAddress,
        /// What is wrong.
        cause: String,
    },
    /// Hub and agent do not trust each other; the message says what to do.
    #[error("{endpoint}: {failure}")]
    Tls {
        /// The endpoint.
        endpoint: EndpointAddress,
        /// What failed, and the remedy.
        failure: TlsFailure,
    },
    /// Somebody answered, but the connection did not come about.
    #[error("{endpoint}: {lost}")]
    Lost {
        /// The endpoint.
        endpoint: EndpointAddress,
        /// Why.
        lost: ConnectionLost,
    },
    /// This system gives no UDP socket, or has taken it away: too many open files, or a sandbox.
    #[error("no UDP socket can be used: {0}")]
    Socket(io::Error),
}

impl AgentEndpoint {
    /// Does nothing yet: the socket is made by the first [`Self::connect`], and served by the runtime that this one runs
    /// in. If that runtime has ended, the next connection makes another socket.
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects to a hub; must run inside a tokio runtime. All addresses of the name are tried, each a little
    /// after the one before; the first that answers decides. `limit` bounds the whole.
    ///
    /// A hub that refuses this agent's certificate is noticed only at the first use of the connection, as
    /// [`ConnectionLost::Tls`].
    pub async fn connect(
        &self,
        endpoint: &EndpointAddress,
        tls: &AgentTls,
        limit: Duration,
    ) -> Result<Connection, ConnectError> {
        let config = tls.client_config()?;
        self.connect_with(endpoint, config, limit).await
    }

    /// As [`Self::connect`], with a configuration that is already made.
    pub(super) async fn connect_with(
        &self,
        endpoint: &EndpointAddress,
        config: quinn::ClientConfig,
        limit: Duration,
    ) -> Result<Connection, ConnectError> {
        let attempt = async {
            let addresses = resolve(endpoint).await?;
            let socket = self.socket().map_err(ConnectError::Socket)?;
            match race(&socket, endpoint, &addresses, &config).await {
                // Whoever served it has ended: with its runtime, or because the system took the socket away.
                Err(ConnectError::Socket(_)) => {
                    self.forget(&socket);
                    let socket = self.socket().map_err(ConnectError::Socket)?;
                    race(&socket, endpoint, &addresses, &config).await
                }
                outcome => outcome,
            }
        };
        let unreachable =
            || ConnectError::Unreachable { endpoint: endpoint.clone(), timeout_ms: limit.as_millis() };
        match timeout(limit, attempt).await {
            Ok(Err(ConnectError::Lost { lost: ConnectionLost::TimedOut, .. })) | Err(_) => Err(unreachable()),
            Ok(outcome) => outcome,
        }
    }

    fn socket(&self) -> io::Result<Arc<quinn::Endpoint>> {
        let mut socket = self.lock();
        if let Some(socket) = &*socket {
            return Ok(Arc::clone(socket));
        }
        // An IPv6 socket reaches IPv4 hosts too, where the system has IPv6 at all.
        let made = quinn::Endpoint::client((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))?;
        Ok(Arc::clone(socket.insert(Arc::new(made))))
    }

    /// Has the next connection make another socket, unless somebody has made one already.
    fn forget(&self, broken: &Arc<quinn::Endpoint>) {
        self.lock().take_if(|socket| Arc::ptr_eq(socket, broken));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<quinn::Endpoint>>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn resolve(endpoint: &EndpointAddress) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Some(ip) = endpoint.ip() {
        return Ok(vec![SocketAddr::new(ip, endpoint.port())]);
    }
    let failed = |cause: String| ConnectError::Resolve { endpoint: endpoint.clone(), cause };
    let found = tokio::net::lookup_host((endpoint.host(), endpoint.port())).await;
    let addresses: Vec<_> = found.map_err(|error| failed(error.to_string()))?.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(failed("the name has no address".to_owned()));
    }
    Ok(addresses)
}

/// Tries the addresses, staggered. An answer ends the race, even a bad one: who answers under the hub's name
/// without being the hub is a fault to show, not one to search past.
async fn race(
    socket: &quinn::Endpoint,
    endpoint: &EndpointAddress,
    addresses: &[SocketAddr],
    config: &quinn::ClientConfig,
) -> Result<Connection, ConnectError> {
    let mut attempts = JoinSet::new();
    for (head_start, address) in (0_u32..).map(|n| HEAD_START * n).zip(addresses.iter().copied()) {
        let (socket, endpoint, config) = (socket.clone(), endpoint.clone(), config.clone());
        attempts.spawn(async move {
            sleep(head_start).await;
            attempt(&socket, endpoint, address, config).await
        });
    }
    let mut failure = None;
    while let Some(outcome) = attempts.join_next().await {
        match outcome {
            Ok(Err(
                error @ (ConnectError::NoRoute { .. }
                | ConnectError::Lost { lost: ConnectionLost::TimedOut, .. }),
            )) => failure = Some(error),
            Ok(decided) => return decided,
            // An attempt that was cancelled: the runtime is ending.
            Err(_) => {}
        }
    }
    Err(failure.unwrap_or_else(|| ConnectError::Lost {
        endpoint: endpoint.clone(),
        lost: ConnectionLost::ClosedHere,
    }))
}

async fn attempt(
    socket: &quinn::Endpoint,
    endpoint: EndpointAddress,
    address: SocketAddr,
    config: quinn::ClientConfig,
) -> Result<Connection, ConnectError> {
    let connecting = match socket.connect_with(config, address, endpoint.host()) {
        Ok(connecting) => connecting,
        Err(error @ quinn::ConnectError::EndpointStopping) => {
            return Err(ConnectError::Socket(io::Error::other(error)));
        }
        Err(error) => return Err(ConnectError::NoRoute { endpoint, cause: error.to_string() }),
    };
    match connecting.await.map_err(ConnectionLost::from) {
        Ok(connection) => Ok(Connection::new(connection)),
        Err(ConnectionLost::Tls(failure)) => Err(ConnectError::Tls { endpoint, failure }),
        Err(lost) => Err(ConnectError::Lost { endpoint, lost }),
    }
}
