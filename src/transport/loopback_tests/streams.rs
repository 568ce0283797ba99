//! Messages, and the ends of streams and connections.

use super::*;

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

#[test]
fn an_agent_says_goodbye_even_if_its_runtime_ends_at_once() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hub_runtime = runtime();
    let credentials = Credentials::generate([7; 32]).unwrap();
    let tls = HubTls {
        cert: text(&credentials.hub_cert_pem),
        key: text(&credentials.hub_key_pem),
        client_ca: None,
        crl: None,
    };
    let listening = hub_runtime.block_on(async { HubEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &tls) });
    let hub = listening.unwrap();
    let address = hub.local_addr().unwrap().into();
    let agent = std::thread::spawn(move || {
        runtime().block_on(async {
            let tls = AgentTls { identity: None, ca: Some(text(&credentials.ca_cert_pem)) };
            let endpoint = AgentEndpoint::new();
            let connection = endpoint.connect(&address, &tls, PATIENCE).await.unwrap();
            connection.say_goodbye(3, "goodbye").await;
        });
    });
    let lost = hub_runtime.block_on(async {
        match hub.accept().await.unwrap().complete(PATIENCE).await {
            Ok(connection) => connection.closed().await,
            Err(HandshakeError::Lost(lost)) => lost,
            Err(error) => panic!("{error:?}"),
        }
    });
    assert_eq!(lost, ConnectionLost::Closed { code: 3, reason: "goodbye".into() });
    agent.join().unwrap();
}

#[test]
fn a_hub_that_was_killed_and_started_again_resets_the_connections_it_forgot() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let credentials = Credentials::generate([7; 32]).unwrap();
    let (hub_runtime, agent_runtime) = (runtime(), runtime());
    let (hub, agent, accepted) = hub_runtime.block_on(async {
        let (cert, key) = (text(&credentials.hub_cert_pem), text(&credentials.hub_key_pem));
        let tls = HubTls { cert, key, client_ca: None, crl: None };
        let hub = HubEndpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &tls).unwrap();
        let address = hub.local_addr().unwrap().into();
        let ca = Some(text(&credentials.ca_cert_pem));
        let connect = agent_runtime.spawn(async move {
            AgentEndpoint::new().connect(&address, &AgentTls { identity: None, ca }, PATIENCE).await
        });
        let driver = std::thread::spawn(move || {
            let connected = agent_runtime.block_on(connect).unwrap().unwrap();
            (agent_runtime, connected)
        });
        let accepted = hub.accept().await.unwrap().complete(PATIENCE).await.unwrap();
        (hub, driver, accepted)
    });
    let (agent_runtime, connection) = agent.join().unwrap();
    let socket = hub.local_addr().unwrap();
    // Killed: not a packet more leaves.
    drop(hub_runtime);
    drop((hub, accepted));
    let hub_runtime = runtime();
    let (cert, key) = (text(&credentials.hub_cert_pem), text(&credentials.hub_key_pem));
    let tls = HubTls { cert, key, client_ca: None, crl: None };
    let again = hub_runtime.block_on(async { HubEndpoint::bind(socket, &tls) }).unwrap();
    std::thread::spawn(move || hub_runtime.block_on(async { again.accept().await.is_none() }));
    let lost = agent_runtime.block_on(async {
        let (mut sender, _receiver) = connection.open().await.unwrap();
        sender.send(&message(100)).await.unwrap();
        connection.closed().await
    });
    assert_eq!(lost, ConnectionLost::Reset);
}
