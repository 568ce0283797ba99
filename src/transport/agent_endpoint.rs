//! An agent's end: connects to hubs.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quinn::VarInt;
use thiserror::Error;
use tokio::task::{JoinSet, yield_now};
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

/// Turns of the runtime in which goodbyes leave: one is enough, as each connection is a task of its own.
const GOODBYE_TURNS: usize = 2;

/// Where an agent's connections start: one UDP socket for all of them, made at the first.
#[derive(Debug, Default)]
pub struct AgentEndpoint {
    socket: Mutex<Option<quinn::Endpoint>>,
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
    /// This system gives no UDP socket: too many open files, or a sandbox.
    #[error("cannot open a UDP socket: {0}")]
    Socket(io::Error),
}

impl AgentEndpoint {
    /// Does nothing yet: the socket is made by the first [`Self::connect`].
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
        let socket = self.socket().map_err(ConnectError::Socket)?;
        let attempt = async {
            let addresses = resolve(endpoint).await?;
            race(&socket, endpoint, &addresses, &config).await
        };
        let unreachable =
            || ConnectError::Unreachable { endpoint: endpoint.clone(), timeout_ms: limit.as_millis() };
        match timeout(limit, attempt).await {
            Ok(Err(ConnectError::Lost { lost: ConnectionLost::TimedOut, .. })) | Err(_) => Err(unreachable()),
            Ok(outcome) => outcome,
        }
    }

    /// Closes all connections with `code` and `reason`. When this returns on a single-threaded runtime, the
    /// hubs' last packets have left; QUIC's waiting for stragglers goes on in the background, as long as the
    /// runtime lives. Afterwards [`Self::connect`] starts with a new socket.
    pub async fn close(&self, code: u32, reason: &str) {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(socket) = socket {
            socket.close(VarInt::from_u32(code), reason.as_bytes());
            // Lets the connections' tasks, which were just woken, send. Waiting for the endpoint to be idle
            // would cost three timeouts (100 ms), and an agent's disconnect as much.
            for _ in 0..GOODBYE_TURNS {
                yield_now().await;
            }
        }
    }

    fn socket(&self) -> io::Result<quinn::Endpoint> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = &*socket {
            return Ok(socket.clone());
        }
        // An IPv6 socket reaches IPv4 hosts too, where the system has IPv6 at all.
        let made = quinn::Endpoint::client((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| quinn::Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))?;
        Ok(socket.insert(made).clone())
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
        Err(error) => return Err(ConnectError::NoRoute { endpoint, cause: error.to_string() }),
    };
    match connecting.await.map_err(ConnectionLost::from) {
        Ok(connection) => Ok(Connection::new(connection)),
        Err(ConnectionLost::Tls(failure)) => Err(ConnectError::Tls { endpoint, failure }),
        Err(lost) => Err(ConnectError::Lost { endpoint, lost }),
    }
}
