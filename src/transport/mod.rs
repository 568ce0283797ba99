//! QUIC: endpoints, TLS, and streams of frames. The only place that knows quinn and rustls.
//!
//! ```text
//! AgentEndpoint::connect ──► Connection ◄── Handshake::complete ◄── HubEndpoint::accept
//!                                │
//!                     open / accept a stream
//!                                │
//!                   FrameSender, FrameReceiver ──► messages of `protocol`
//! ```
//!
//! Whatever comes from the network is bounded here before it is allocated (invariant I17): the handshakes
//! under way, the streams of a connection, the bytes in flight, the length of a frame, the time that a frame
//! takes. Both sides always verify: there is no way to turn certificate verification off.

mod agent_endpoint;
mod certificate_identity;
mod connection;
mod connection_ids;
mod connection_lost;
mod credentials;
mod endpoint_address;
mod hub_endpoint;
mod limits;
#[cfg(test)]
mod loopback_tests;
mod pem;
mod places;
mod reset_key;
mod stream;
mod tls;

pub use agent_endpoint::{AgentEndpoint, ConnectError};
pub use certificate_identity::{CertificateIdentity, CertificateIdentityError};
pub use connection::Connection;
pub use connection_lost::{ConnectionLost, Judge, TlsFailure};
pub use credentials::{Credentials, CredentialsError};
pub use endpoint_address::{DEFAULT_PORT, EndpointAddress, EndpointAddressError};
pub use hub_endpoint::{BindError, EndpointLimits, Handshake, HandshakeError, HubEndpoint, OnRefused};
pub use pem::{PemError, PemRole, PemSource, without_mark};
pub use places::TooMany;
pub use stream::{FrameMemory, FrameReceiver, FrameSender, ReceiveError, SendError};
pub use tls::{AgentTls, HubTls, TlsConfigError};
