//! A hub's end: lets agents connect.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hkdf;
use quinn::VarInt;
use quinn::crypto::HandshakeTokenKey;
use thiserror::Error;
use tokio::time::timeout;

use super::connection::Connection;
use super::connection_ids::ConnectionIds;
use super::connection_lost::ConnectionLost;
use super::limits::IDLE_TIMEOUT_MS;
use super::places::{Judgement, Place, Places, TooMany};
use super::reset_key::ResetKey;
use super::tls::{HubTls, TlsConfigError, random_seed};

/// From this many unfinished handshakes on, strangers first prove that their address is theirs (a Retry packet,
/// one more round trip): senders of forged addresses then cost no key exchange.
const RETRY_FROM_HANDSHAKES: usize = 256;

/// Unfinished handshakes at once; further ones are refused until some are done.
const MAX_HANDSHAKES: usize = 4096;

/// How many connections a hub takes, and how long one may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Connections at once, those included that are being made. Further ones are refused.
    pub connections: u64,
    /// Connections at once from one address, or from one IPv6 network of 64 bits. Further ones are refused.
    pub connections_per_address: u64,
    /// After this long without a word a connection is dead, in ms. Never longer than an agent's own 30 s.
    pub idle_timeout_ms: u32,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self { connections: 16_384, connections_per_address: 4_096, idle_timeout_ms: IDLE_TIMEOUT_MS }
    }
}

/// Hears of refused connections: where they came from, and why; once for each time that the limit is reached.
pub type OnRefused = Box<dyn Fn(SocketAddr, TooMany) + Send + Sync>;

/// Where a hub listens.
pub struct HubEndpoint {
    endpoint: quinn::Endpoint,
    /// What Retry packets are signed with; it outlives certificates, so that nobody is sent back twice.
    token_key: Arc<dyn HandshakeTokenKey>,
    /// One reference, and another for each [`Handshake`].
    handshakes: Arc<()>,
    places: Arc<Places>,
    limits: EndpointLimits,
    on_refused: OnRefused,
}

/// A hub that cannot listen.
#[derive(Debug, Error)]
pub enum BindError {
    /// Certificates or keys that cannot be used; the message names the file.
    #[error(transparent)]
    Config(#[from] TlsConfigError),
    /// Another process listens there: stop it, or choose another port (0 finds a free one).
    #[error("UDP address {0} is already in use: stop what listens there, or choose another port")]
    InUse(SocketAddr),
    /// The address is not of this machine, or may not be listened on.
    #[error("cannot listen on UDP address {address}: {cause}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// A connection that is being made. It costs nothing but itself however slow the agent is: run
/// [`Self::complete`] in a task of its own.
#[derive(Debug)]
pub struct Handshake {
    incoming: quinn::Incoming,
    remote_address: SocketAddr,
    place: Place,
    _counted: Arc<()>,
}

/// A handshake that failed: a matter of the agent's, or a stranger's.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the handshake was not finished in time")]
    TooSlow,
    /// It was refused, on one of the two sides.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
}

/// Shows nothing of the key.
impl fmt::Debug for HubEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubEndpoint").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl HubEndpoint {
    /// Listens on a UDP address; must run inside a tokio runtime. Port 0 finds a free one.
    pub fn bind(listen: SocketAddr, tls: &HubTls) -> Result<Self, BindError> {
        Self::bind_within(listen, tls, EndpointLimits::default(), Box::new(|_, _| {}))
    }

    /// As [`Self::bind`], with other limits than usual.
    pub fn bind_within(
        listen: SocketAddr,
        tls: &HubTls,
        limits: EndpointLimits,
        on_refused: OnRefused,
    ) -> Result<Self, BindError> {
        let token_key: Arc<dyn HandshakeTokenKey> =
            Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&random_seed()?));
        let mut config = tls.server_config(limits.idle_timeout_ms)?;
        config.token_key(Arc::clone(&token_key));
        let reset_key = ResetKey::derive(&tls.key.load_key().map_err(TlsConfigError::from)?);
        let socket = std::net::UdpSocket::bind(listen).map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(listen),
            _ => BindError::Socket { address: listen, cause },
        })?;
        let mut endpoint_config = quinn::EndpointConfig::new(Arc::new(reset_key));
        let connection_ids = ConnectionIds::new(&random_seed()?);
        endpoint_config.cid_generator(move || Box::new(connection_ids.clone()));
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(endpoint_config, Some(config), socket, runtime)
            .map_err(|cause| BindError::Socket { address: listen, cause })?;
        let places = Places::new(limits.connections, limits.connections_per_address);
        Ok(Self { endpoint, token_key, handshakes: Arc::new(()), places, limits, on_refused })
    }

    /// Loads certificates, keys and revocation lists anew, for connections that are made from now on. After an
    /// error everything is as before. Nobody who is connected notices.
    pub fn reload(&self, tls: &HubTls) -> Result<(), TlsConfigError> {
        let mut config = tls.server_config(self.limits.idle_timeout_ms)?;
        config.token_key(Arc::clone(&self.token_key));
        self.endpoint.set_server_config(Some(config));
        Ok(())
    }

    /// The address listened on, with the real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next connection somebody wants to make; `None` once the endpoint is closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Handshake> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let unfinished = Arc::strong_count(&self.handshakes) - 1;
            let (remote_address, is_proven) =
                (incoming.remote_address(), incoming.remote_address_validated());
            if unfinished >= MAX_HANDSHAKES {
                incoming.refuse();
                continue;
            }
            if unfinished >= RETRY_FROM_HANDSHAKES && !is_proven {
                send_back(incoming);
                continue;
            }
            match self.places.take(remote_address.ip(), is_proven) {
                Judgement::Place(place) => {
                    let counted = Arc::clone(&self.handshakes);
                    return Some(Handshake { incoming, remote_address, place, _counted: counted });
                }
                Judgement::Prove => send_back(incoming),
                Judgement::Refuse(why, is_first) => {
                    incoming.refuse();
                    if is_first {
                        (self.on_refused)(remote_address, why);
                    }
                }
            }
        }
    }

    /// Accepts nobody any more and closes every connection; each agent gets `code` and `reason`.
    pub fn close(&self, code: u32, reason: &str) {
        self.endpoint.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// After [`Self::close`]: waits until the agents have heard of it, or should have.
    pub async fn wait_idle(&self) {
        self.endpoint.wait_idle().await;
    }
}

/// Has a stranger prove that the address is his: he comes back with what was sent there.
fn send_back(incoming: quinn::Incoming) {
    // Fails only for one that has proven it.
    let _ = incoming.retry();
}

impl Handshake {
    /// Where it comes from. Anybody can write any address on a packet: it is proven by completion only.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote_address
    }

    /// Whether it is proven before that, because the hub had so many connections that it asked.
    pub fn is_address_proven(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Finishes the handshake, certificates verified, within `limit`. The connection has its place for as long as any
    /// handle to it lives.
    pub async fn complete(self, limit: Duration) -> Result<Connection, HandshakeError> {
        let connecting = self.incoming.accept().map_err(ConnectionLost::from)?;
        match timeout(limit, connecting).await {
            Ok(Ok(connection)) => Ok(Connection::new(connection).at(self.place)),
            Ok(Err(error)) => Err(HandshakeError::Lost(error.into())),
            Err(_) => Err(HandshakeError::TooSlow),
        }
    }
}
