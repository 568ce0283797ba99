//! A connection: streams, and its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use quinn::rustls::pki_types::CertificateDer;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::certificate_identity::{CertificateIdentity, CertificateIdentityError};
use super::connection_lost::ConnectionLost;
use super::limits::CONNECTION_WINDOW;
use super::places::Place;
use super::stream::{FrameReceiver, FrameSender};

/// Turns of the runtime in which a goodbye leaves: one is enough, as each connection is a task of its own.
const GOODBYE_TURNS: usize = 2;

/// How often the other side is asked for a sign of life before its silence means that it is gone.
const PROBES: u32 = 10;

/// How long each sign of life may take at least; on a slow network it is two round trips.
const PROBE_WAIT: Duration = Duration::from_millis(100);

/// How long the other side may take to answer a goodbye, at least and at most; between them, three round trips.
const GOODBYE_WAIT: (Duration, Duration) = (Duration::from_millis(30), Duration::from_secs(1));

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

    /// As [`Self::close`]. Returns when the other side has heard of it: QUIC answers the end of a connection with a last
    /// packet. Or when it has been silent for so long that it is gone.
    pub async fn close_heard(&self, code: u32, reason: &str) {
        let before = self.datagrams();
        self.close(code, reason);
        let (least, most) = GOODBYE_WAIT;
        let end = Instant::now() + (self.quic.rtt() * 3).clamp(least, most);
        let mut pause = Duration::from_millis(1);
        while self.datagrams() == before && Instant::now() < end {
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// Waits until the other side gives no sign of life, though it is asked for one again and again: its process was
    /// killed, or its network is gone. Whoever merely computes answers, since QUIC runs beside.
    pub async fn falls_silent(&self) {
        let (mut heard, mut unanswered, mut window) = (self.datagrams(), 0, CONNECTION_WINDOW);
        while unanswered < PROBES {
            // A larger window is news that QUIC has acknowledged. One byte more is nothing else.
            window += 1;
            self.quic.set_receive_window(VarInt::from_u32(window));
            sleep(PROBE_WAIT.max(self.quic.rtt() * 2)).await;
            let now = self.datagrams();
            unanswered = if now == heard { unanswered + 1 } else { 0 };
            heard = now;
        }
    }

    /// How many datagrams have come from the other side.
    fn datagrams(&self) -> u64 {
        self.quic.stats().udp_rx.datagrams
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

    /// When the certificate ends that the other side proved to hold the key of, in ms since the epoch; none without one.
    pub fn certificate_ends_at_ms(&self) -> Option<i64> {
        let certificate = self.peer_certificate()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        // It is good until the end of its last second (RFC 5280, section 4.1.2.5).
        Some(certificate.validity().not_after.timestamp().saturating_add(1).saturating_mul(1_000))
    }

    /// The certificate (DER) that the other side proved to hold the key of.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let identity = self.quic.peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.first().map(|certificate| certificate.to_vec())
    }
}
