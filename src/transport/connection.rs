//! A connection: streams, and its end.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::VarInt;
use quinn::rustls::pki_types::CertificateDer;
use tokio::task::yield_now;

use super::certificate_identity::{CertificateIdentity, CertificateIdentityError};
use super::connection_lost::ConnectionLost;
use super::places::Place;
use super::stream::{FrameReceiver, FrameSender};

/// Turns of the runtime in which a goodbye leaves: one is enough, as each connection is a task of its own.
const GOODBYE_TURNS: usize = 2;

/// A connection between an agent and a hub. Clones are handles to the same connection, which ends when it is
/// closed, lost, or when its last handle and stream are dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    quic: quinn::Connection,
    /// A hub's connections have one each.
    _place: Option<Arc<Place>>,
}

impl Connection {
    pub(super) fn new(connection: quinn::Connection) -> Self {
        Self { quic: connection, _place: None }
    }

    /// Keeps a place for as long as a handle lives.
    pub(super) fn at(self, place: Place) -> Self {
        Self { _place: Some(Arc::new(place)), ..self }
    }

    /// Opens a stream; waits while as many are open as the other side allows. The other side sees the stream
    /// with the first frame sent on it.
    pub async fn open(&self) -> Result<(FrameSender, FrameReceiver), ConnectionLost> {
        let (sender, receiver) = self.quic.open_bi().await?;
        Ok((FrameSender::new(sender), FrameReceiver::new(receiver)))
    }

    /// The next stream that the other side opens.
    pub async fn accept(&self) -> Result<(FrameSender, FrameReceiver), ConnectionLost> {
        let (sender, receiver) = self.quic.accept_bi().await?;
        Ok((FrameSender::new(sender), FrameReceiver::new(receiver)))
    }

    /// Closes the connection at once: what is not yet delivered is dropped, and streams fail with
    /// [`ConnectionLost`]. The other side gets `code` and as much of `reason` as fits a packet. A last word
    /// on a stream arrives only if [`FrameSender::delivered`] was awaited before.
    pub fn close(&self, code: u32, reason: &str) {
        self.quic.close(VarInt::from_u32(code), reason.as_bytes());
    }

    /// As [`Self::close`]. When this returns on a single-threaded runtime, the other side's last packet has left; QUIC's
    /// waiting for stragglers goes on in the background.
    pub async fn say_goodbye(&self, code: u32, reason: &str) {
        self.close(code, reason);
        // Lets the connection's task, which was just woken, send. Waiting until the connection is drained would cost three
        // timeouts (100 ms), and an agent's disconnect as much.
        for _ in 0..GOODBYE_TURNS {
            yield_now().await;
        }
    }

    /// Waits for the end of the connection, and says why.
    pub async fn closed(&self) -> ConnectionLost {
        self.quic.closed().await.into()
    }

    /// Why the connection ended, if it has.
    pub fn close_reason(&self) -> Option<ConnectionLost> {
        self.quic.close_reason().map(Into::into)
    }

    /// The other side's address as seen here; it can change while the connection lives.
    pub fn remote_address(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Whom the certificate names that the other side proved to hold the key of; none without a certificate, or
    /// without such a name in it.
    pub fn certificate_identity(&self) -> Result<Option<CertificateIdentity>, CertificateIdentityError> {
        match self.peer_certificate() {
            None => Ok(None),
            Some(certificate) => CertificateIdentity::of(&CertificateDer::from(certificate)),
        }
    }

    /// The certificate (DER) that the other side proved to hold the key of.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let identity = self.quic.peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.first().map(|certificate| certificate.to_vec())
    }
}
