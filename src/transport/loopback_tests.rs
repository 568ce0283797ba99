//! Agents and hubs over real UDP on the loopback interface, good ones and bad ones.

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

#[tokio::test]
async fn messages_of_every_size_come_back_over_mutual_tls() {
    let hub = TestHub::mutual();
    let connection = hub.good_agent().await;
    assert_eq!(connection.remote_address().port(), hub.socket.port());
    assert!(connection.peer_certificate().is_some());
    for bytes in [0, 1, 1200, 5000, 16 << 20] {
        assert_echo(&connection, &message(bytes)).await;
    }
    // Larger than every window: noise does not compress.
    let mut noise = vec![0; 16 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let large = ToHub::Batch(Batch { n: 1, previous: crate::model::Digest::ZERO, body: noise });
    assert_echo(&connection, &large).await;
}

#[tokio::test]
async fn one_socket_serves_connections_to_several_hubs() {
    let (one, two) = (TestHub::mutual(), TestHub::mutual());
    let endpoint = AgentEndpoint::new();
    let to_one = endpoint.connect(&one.address, &one.agent_tls(), PATIENCE).await.unwrap();
    let to_two = endpoint.connect(&two.address, &two.agent_tls(), PATIENCE).await.unwrap();
    let (a, b) = (message(1), message(2));
    tokio::join!(assert_echo(&to_one, &a), assert_echo(&to_two, &b));
    endpoint.close(0, "bye").await;
    assert_eq!(to_one.closed().await, ConnectionLost::ClosedHere);
    let again = endpoint.connect(&one.address, &one.agent_tls(), PATIENCE).await.unwrap();
    assert_echo(&again, &message(3)).await;
}

/// A hub without a loop, and a connection to it from both ends.
async fn pair(
    credentials: &Credentials,
    identity: Option<(PemSource, PemSource)>,
) -> (HubEndpoint, Connection, Connection) {
    let ca = Some(text(&credentials.ca_cert_pem));
    let (cert, key) = (text(&credentials.hub_cert_pem), text(&credentials.hub_key_pem));
    let client_ca = identity.is_some().then(|| text(&credentials.ca_cert_pem));
    let hub = HubEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &HubTls { cert, key, client_ca }).unwrap();
    let address = hub.local_addr().unwrap().into();
    let endpoint = AgentEndpoint::new();
    let tls = AgentTls { identity, ca };
    let accept = async { hub.accept().await.unwrap().complete(PATIENCE).await.unwrap() };
    let (agent, accepted) = tokio::join!(endpoint.connect(&address, &tls, PATIENCE), accept);
    (hub, agent.unwrap(), accepted)
}

#[tokio::test]
async fn the_hub_learns_the_certificate_of_its_agent() {
    let credentials = Credentials::generate([7; 32]).unwrap();
    let (cert, key) = credentials.issue_agent("agent", "tenant").unwrap();
    let expected = text(&cert).load_certificates(PemRole::Certificate).unwrap();
    let identity = Some((PemSource::Text(cert), PemSource::Text(key)));
    let (_hub, _agent, accepted) = pair(&credentials, identity).await;
    assert_eq!(accepted.peer_certificate().as_deref(), Some(&*expected[0]));
    let (_hub, _agent, accepted) = pair(&credentials, None).await;
    assert_eq!(accepted.peer_certificate(), None);
}

#[tokio::test]
async fn an_agent_refuses_a_hub_of_another_ca() {
    let hub = TestHub::mutual();
    let stranger = Credentials::generate([8; 32]).unwrap();
    let tls = AgentTls { ca: Some(text(&stranger.ca_cert_pem)), ..hub.agent_tls() };
    let error = hub.connect(&tls).await.unwrap_err();
    let ConnectError::Tls { failure, .. } = &error else { panic!("{error:?}") };
    assert_eq!(failure.judge, Judge::Here);
    assert!(error.to_string().contains("caPath"), "{error}");
}

#[tokio::test]
async fn an_agent_refuses_a_hub_whose_certificate_names_another_host() {
    let hub = TestHub::start(Ipv4Addr::new(127, 0, 0, 2), true).unwrap();
    let error = hub.connect(&hub.agent_tls()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("127.0.0.2") && error.contains("localhost"), "{error}");
}

/// With TLS 1.3 the agent's handshake is over before the hub has seen its certificate.
async fn refusal(hub: &TestHub, tls: &AgentTls) -> TlsFailure {
    let lost = match hub.connect(tls).await {
        Err(ConnectError::Tls { failure, .. }) => return failure,
        Err(error) => panic!("{error:?}"),
        Ok(connection) => match connection.open().await {
            Err(lost) => lost,
            Ok((mut sender, mut receiver)) => {
                let _ = sender.send(&message(1)).await;
                match receiver.next_within::<ToHub>(PATIENCE).await {
                    Err(ReceiveError::Lost(lost)) => lost,
                    other => panic!("{other:?}"),
                }
            }
        },
    };
    let ConnectionLost::Tls(failure) = lost else { panic!("{lost:?}") };
    failure
}

#[tokio::test]
async fn a_hub_refuses_an_agent_without_a_certificate() {
    let hub = TestHub::mutual();
    let failure = refusal(&hub, &AgentTls { identity: None, ..hub.agent_tls() }).await;
    assert_eq!(failure.judge, Judge::There);
    assert!(failure.remedy().contains("certPath"), "{failure}");
}

#[tokio::test]
async fn a_hub_refuses_an_agent_of_another_ca_or_with_a_certificate_for_another_purpose() {
    let hub = TestHub::mutual();
    let (cert, key) = Credentials::generate([8; 32]).unwrap().issue_agent("agent", "tenant").unwrap();
    let identity = Some((PemSource::Text(cert), PemSource::Text(key)));
    let failure = refusal(&hub, &AgentTls { identity, ..hub.agent_tls() }).await;
    assert_eq!(failure.judge, Judge::There);
    assert!(failure.remedy().contains("clientCaPath"), "{failure}");
    let credentials = &hub.credentials;
    let identity = Some((text(&credentials.hub_cert_pem), text(&credentials.hub_key_pem)));
    let failure = refusal(&hub, &AgentTls { identity, ..hub.agent_tls() }).await;
    assert!(failure.remedy().contains("purpose"), "{failure}");
}

#[tokio::test]
async fn without_mutual_tls_the_hub_is_still_verified() {
    let hub = TestHub::start(Ipv4Addr::LOCALHOST, false).unwrap();
    let anonymous = AgentTls { identity: None, ..hub.agent_tls() };
    assert_echo(&hub.connect(&anonymous).await.unwrap(), &message(1)).await;
    let stranger = Credentials::generate([8; 32]).unwrap();
    let tls = AgentTls { identity: None, ca: Some(text(&stranger.ca_cert_pem)) };
    assert!(matches!(hub.connect(&tls).await, Err(ConnectError::Tls { .. })));
}

async fn connect_with_rustls(
    hub: &TestHub,
    change: impl FnOnce(&mut rustls::ClientConfig),
) -> Result<Connection, ConnectError> {
    let mut config = hub.agent_tls().rustls_config().unwrap();
    change(&mut config);
    let config = quic_client_config(config).unwrap();
    AgentEndpoint::new().connect_with(&hub.address, config, PATIENCE).await
}

#[tokio::test]
async fn another_alpn_is_an_incompatible_version() {
    let hub = TestHub::mutual();
    let good = hub.good_agent().await;
    for alpn in [vec![b"federation-hub/999".to_vec()], vec![b"h3".to_vec()], vec![]] {
        let error = connect_with_rustls(&hub, |config| config.alpn_protocols = alpn).await.unwrap_err();
        assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains("incompatible versions"), "{error}");
    }
    assert_echo(&good, &message(1)).await;
}

#[tokio::test]
async fn garbage_datagrams_disturb_nobody() {
    let hub = TestHub::mutual();
    let good = hub.good_agent().await;
    let stranger = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut noise = blake3::Hasher::new().finalize_xof();
    for round in 0..200 {
        let mut datagram = vec![0; 1 + round * 7 % 1400];
        noise.fill(&mut datagram);
        // Headers of every kind: long and short, with and without the fixed bit.
        datagram[0] = u8::try_from(round).unwrap();
        stranger.send_to(&datagram, hub.socket).await.unwrap();
        if round % 50 == 0 {
            assert_echo(&good, &message(round)).await;
        }
    }
    assert_echo(&good, &message(1)).await;
    assert_echo(&hub.good_agent().await, &message(1)).await;
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_keeps_nobody_out() {
    let hub = TestHub::mutual();
    // An agent that sends its first packets and then nothing.
    let silent = hub.agent_tls().client_config().unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let connecting = endpoint.connect_with(silent, hub.socket, "localhost").unwrap();
    assert_echo(&hub.good_agent().await, &message(1)).await;
    drop(connecting);
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let credentials = Credentials::generate([7; 32]).unwrap();
    let (cert, key) = (text(&credentials.hub_cert_pem), text(&credentials.hub_key_pem));
    let tls = HubTls { cert, key, client_ca: None };
    let hub = HubEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &tls).unwrap();
    let endpoint = AgentEndpoint::new();
    let agent = AgentTls { identity: None, ca: Some(text(&credentials.ca_cert_pem)) };
    let address = hub.local_addr().unwrap().into();
    let connect = endpoint.connect(&address, &agent, PATIENCE);
    let refuse = async { hub.accept().await.unwrap().complete(Duration::ZERO).await.unwrap_err() };
    let (_, error) = tokio::join!(connect, refuse);
    assert!(matches!(error, HandshakeError::TooSlow), "{error:?}");
}

#[tokio::test]
async fn bad_frames_cost_their_own_connection() {
    let mut hub = TestHub::mutual();
    let good = hub.good_agent().await;
    let attach = ToHub::Attach(Attach { replica: crate::model::ReplicaId([1; 16]) });
    let whole = encode(&attach).unwrap();
    let claim = u32::try_from(MAX_FRAME_BYTES + 1).unwrap().to_be_bytes();
    for (bytes, expected) in [
        (vec![0xff; 4], FrameError::TooLarge(u32::MAX as usize)),
        (claim.to_vec(), FrameError::TooLarge(MAX_FRAME_BYTES + 1)),
        (vec![0; 4], FrameError::Truncated),
        (vec![0; 3], FrameError::Truncated),
        (whole[..whole.len() - 1].to_vec(), FrameError::Truncated),
        (b"\0\0\0\x02\x07\xc0".to_vec(), FrameError::UnknownEncoding(7)),
    ] {
        let seen = hub.sees(bytes).await;
        let Seen::Failed(ReceiveError::Frame(error)) = seen else { panic!("{seen:?}") };
        assert_eq!(error.to_string(), expected.to_string());
    }
    let seen = hub.sees(b"GET / HTTP/1.1\r\n\r\n".to_vec()).await;
    assert!(matches!(seen, Seen::Failed(ReceiveError::Frame(FrameError::TooLarge(_)))), "{seen:?}");
    let seen = hub.sees(b"\0\0\0\x02\0\xc0".to_vec()).await;
    assert!(matches!(seen, Seen::Failed(ReceiveError::Frame(FrameError::Decode(_)))), "{seen:?}");
    assert!(matches!(hub.sees(whole).await, Seen::Message(message) if message == attach));
    assert!(matches!(hub.seen.recv().await, Some(Seen::End)));
    assert_echo(&good, &message(1)).await;
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

#[tokio::test]
async fn a_claim_costs_no_memory_and_a_trickle_ends() {
    let (_agent, _hub, mut sender, mut receiver) = pipe().await;
    let claim = u32::try_from(MAX_FRAME_BYTES).unwrap().to_be_bytes();
    sender.send_encoded([&claim[..], &[0, 1, 2]].concat()).await.unwrap();
    let error = receiver.next_within::<ToHub>(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, ReceiveError::TooSlow), "{error:?}");
    assert!(receiver.buffered_bytes() < 1024, "{}", receiver.buffered_bytes());
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let (_agent, _hub, mut sender, mut receiver) = pipe().await;
    let message = message(3000);
    for part in encode(&message).unwrap().chunks(1000) {
        sender.send_encoded(part.to_vec()).await.unwrap();
        // Whether the bytes are here by now or not, the call is given up.
        let early = tokio::time::timeout(Duration::ZERO, receiver.next::<ToHub>()).await;
        if let Ok(early) = early {
            assert_eq!(early.unwrap(), Some(message));
            return;
        }
    }
    assert_eq!(receiver.next::<ToHub>().await.unwrap(), Some(message));
}

#[tokio::test]
async fn a_receiver_can_limit_frames_before_it_trusts() {
    let (_agent, _hub, mut sender, mut receiver) = pipe().await;
    receiver.limit_frames(4096);
    // Compressed it is small enough, what it holds is not.
    sender.send(&message(8192)).await.unwrap();
    let error = receiver.next::<ToHub>().await.unwrap_err();
    assert!(matches!(error, ReceiveError::Frame(FrameError::TooLarge(_))), "{error:?}");
}

#[tokio::test]
async fn ends_of_streams_and_connections_are_told_apart() {
    let (_agent, _hub, mut sender, mut receiver) = pipe().await;
    sender.reset(5);
    assert!(matches!(receiver.next::<ToHub>().await, Err(ReceiveError::Reset(5))));
    assert!(matches!(sender.send(&ToHub::End).await, Err(SendError::Finished)));

    let (agent, _hub, mut sender, mut receiver) = pipe().await;
    receiver.stop(6);
    assert!(matches!(sender.delivered().await, Err(SendError::Stopped(6))));
    assert!(matches!(sender.send(&ToHub::End).await, Err(SendError::Stopped(6))));
    assert_eq!(agent.close_reason(), None);

    let (agent, hub, mut sender, mut receiver) = pipe().await;
    sender.send(&message(1)).await.unwrap();
    sender.finish().unwrap();
    sender.delivered().await.unwrap();
    assert_eq!(receiver.next::<ToHub>().await.unwrap(), Some(message(1)));
    hub.close(7, "enough");
    let closed = ConnectionLost::Closed { code: 7, reason: "enough".into() };
    assert_eq!(agent.closed().await, closed);
    assert_eq!(agent.close_reason(), Some(closed));
    assert_eq!(hub.closed().await, ConnectionLost::ClosedHere);
    let error = receiver.next::<ToHub>().await;
    assert!(matches!(error, Ok(None) | Err(ReceiveError::Lost(ConnectionLost::ClosedHere))), "{error:?}");
}

#[tokio::test]
async fn a_hub_that_stops_says_so() {
    let credentials = Credentials::generate([7; 32]).unwrap();
    let (hub, agent, accepted) = pair(&credentials, None).await;
    hub.close(8, "stopping");
    assert_eq!(agent.closed().await, ConnectionLost::Closed { code: 8, reason: "stopping".into() });
    assert_eq!(accepted.closed().await, ConnectionLost::ClosedHere);
    assert!(hub.accept().await.is_none());
    hub.wait_idle().await;
}

#[tokio::test]
async fn a_name_is_resolved_and_every_address_of_it_tried() {
    // `localhost` is ::1 as well on most systems, where this hub does not listen.
    let hub = TestHub::mutual();
    let address = EndpointAddress::parse(&format!("quic://localhost:{}", hub.socket.port())).unwrap();
    let connection = AgentEndpoint::new().connect(&address, &hub.agent_tls(), PATIENCE).await.unwrap();
    assert_echo(&connection, &message(1)).await;
}

#[tokio::test]
async fn an_unknown_name_is_not_a_hub_that_is_down() {
    let hub = TestHub::mutual();
    let address = EndpointAddress::parse("quic://no-such-host.invalid").unwrap();
    let error = AgentEndpoint::new().connect(&address, &hub.agent_tls(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_answering_is_unreachable_and_says_what_to_check() {
    let hub = TestHub::mutual();
    let silent = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = EndpointAddress::from(silent.local_addr().unwrap());
    let limit = Duration::from_millis(50);
    let error = AgentEndpoint::new().connect(&address, &hub.agent_tls(), limit).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { timeout_ms: 50, .. }), "{error:?}");
    assert!(error.to_string().contains("UDP"), "{error}");
}

#[tokio::test]
async fn ipv6_where_there_is_any() {
    let Ok(hub) = TestHub::start(Ipv6Addr::LOCALHOST, true) else { return };
    assert_echo(&hub.good_agent().await, &message(1)).await;
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let hub = TestHub::mutual();
    let (cert, key) = (text(&hub.credentials.hub_cert_pem), text(&hub.credentials.hub_key_pem));
    let error = HubEndpoint::bind(hub.socket, &HubTls { cert, key, client_ca: None }).unwrap_err();
    assert!(matches!(error, BindError::InUse(address) if address == hub.socket), "{error:?}");
}
