//! Agents and hubs over real UDP on the loopback interface, good ones and bad ones.

mod hostile;
mod reach;
mod streams;
mod trust;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use quinn::rustls;

use super::tls::quic_client_config;
use super::*;
use crate::protocol::frame::{FrameError, MAX_FRAME_BYTES, encode};
use crate::protocol::message::{Attach, Batch, ToHub};

/// Long enough for the slowest machine; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a test's hub saw of a stream.
#[derive(Debug)]
enum Seen {
    Message(ToHub),
    End,
    Failed(ReceiveError),
}

struct TestHub {
    credentials: Credentials,
    address: EndpointAddress,
    socket: SocketAddr,
    seen: tokio::sync::mpsc::UnboundedReceiver<Seen>,
}

fn text(pem: &str) -> PemSource {
    PemSource::Text(pem.to_owned())
}

impl TestHub {
    /// A hub that echoes every message, and reports what it saw.
    fn start(listen: impl Into<std::net::IpAddr>, mutual: bool) -> Result<Self, BindError> {
        let credentials = Credentials::generate([7; 32]).unwrap();
        let tls = HubTls {
            cert: text(&credentials.hub_cert_pem),
            key: text(&credentials.hub_key_pem),
            client_ca: mutual.then(|| text(&credentials.ca_cert_pem)),
            crl: None,
        };
        let endpoint = HubEndpoint::bind((listen.into(), 0).into(), &tls)?;
        let socket = endpoint.local_addr().unwrap();
        let (report, seen) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(handshake) = endpoint.accept().await {
                let report = report.clone();
                tokio::spawn(async move {
                    let Ok(connection) = handshake.complete(PATIENCE).await else { return };
                    while let Ok((sender, receiver)) = connection.accept().await {
                        tokio::spawn(echo(sender, receiver, connection.clone(), report.clone()));
                    }
                });
            }
        });
        Ok(Self { credentials, address: socket.into(), socket, seen })
    }

    fn mutual() -> Self {
        Self::start(Ipv4Addr::LOCALHOST, true).unwrap()
    }

    fn agent_tls(&self) -> AgentTls {
        let (cert, key) = self.credentials.issue_agent("agent", "tenant").unwrap();
        AgentTls {
            identity: Some((PemSource::Text(cert), PemSource::Text(key))),
            ca: Some(text(&self.credentials.ca_cert_pem)),
        }
    }

    async fn connect(&self, tls: &AgentTls) -> Result<Connection, ConnectError> {
        AgentEndpoint::new().connect(&self.address, tls, PATIENCE).await
    }

    async fn good_agent(&self) -> Connection {
        self.connect(&self.agent_tls()).await.unwrap()
    }

    /// What the hub saw first of a stream that carried these bytes.
    async fn sees(&mut self, bytes: Vec<u8>) -> Seen {
        let connection = self.good_agent().await;
        let (mut sender, mut receiver) = connection.open().await.unwrap();
        sender.send_encoded(bytes).await.unwrap();
        sender.finish().unwrap();
        let seen = self.seen.recv().await.unwrap();
        if let Seen::Failed(_) = seen {
            let end = receiver.next::<ToHub>().await.unwrap_err();
            assert!(matches!(end, ReceiveError::Lost(ConnectionLost::Closed { code: 9, .. })), "{end:?}");
        }
        seen
    }
}

/// Echoes a stream's messages. Who sends something else loses the connection, as in a real hub.
async fn echo(
    mut sender: FrameSender,
    mut receiver: FrameReceiver,
    connection: Connection,
    report: tokio::sync::mpsc::UnboundedSender<Seen>,
) {
    loop {
        let seen = match receiver.next_within::<ToHub>(PATIENCE).await {
            Ok(Some(message)) => {
                let _ = sender.send(&message).await;
                Seen::Message(message)
            }
            Ok(None) => Seen::End,
            Err(error) => {
                connection.close(9, &error.to_string());
                Seen::Failed(error)
            }
        };
        let goes_on = matches!(seen, Seen::Message(_));
        let _ = report.send(seen);
        if !goes_on {
            return;
        }
    }
}

fn message(bytes: usize) -> ToHub {
    ToHub::Batch(Batch { n: 1, previous: crate::model::Digest::ZERO, body: vec![b'x'; bytes] })
}

async fn assert_echo(connection: &Connection, message: &ToHub) {
    let (mut sender, mut receiver) = connection.open().await.unwrap();
    let sent = sender.send(message).await.unwrap();
    sender.finish().unwrap();
    assert_eq!(receiver.next_within::<ToHub>(PATIENCE).await.unwrap().as_ref(), Some(message));
    assert!(receiver.next_within::<ToHub>(PATIENCE).await.unwrap().is_none());
    assert_eq!((sender.bytes_sent(), receiver.bytes_received()), (sent as u64, sent as u64));
}

/// A hub without a loop, and a connection to it from both ends.
async fn pair(
    credentials: &Credentials,
    identity: Option<(PemSource, PemSource)>,
) -> (HubEndpoint, Connection, Connection) {
    let ca = Some(text(&credentials.ca_cert_pem));
    let (cert, key) = (text(&credentials.hub_cert_pem), text(&credentials.hub_key_pem));
    let client_ca = identity.is_some().then(|| text(&credentials.ca_cert_pem));
    let hub = HubEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &HubTls { cert, key, client_ca, crl: None })
        .unwrap();
    let address = hub.local_addr().unwrap().into();
    let endpoint = AgentEndpoint::new();
    let tls = AgentTls { identity, ca };
    let accept = async { hub.accept().await.unwrap().complete(PATIENCE).await.unwrap() };
    let (agent, accepted) = tokio::join!(endpoint.connect(&address, &tls, PATIENCE), accept);
    (hub, agent.unwrap(), accepted)
}

/// Two ends of a stream, without an echo between them.
async fn pipe() -> (Connection, Connection, FrameSender, FrameReceiver) {
    let (_, agent, hub) = pair(&Credentials::generate([7; 32]).unwrap(), None).await;
    let (mut sender, _) = agent.open().await.unwrap();
    // A stream shows with its first bytes.
    sender.send(&ToHub::End).await.unwrap();
    let (_, mut receiver) = hub.accept().await.unwrap();
    assert_eq!(receiver.next::<ToHub>().await.unwrap(), Some(ToHub::End));
    (agent, hub, sender, receiver)
}
