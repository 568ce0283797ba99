//! Finding a hub, and what is said when there is none.

use super::*;

#[tokio::test]
async fn one_socket_serves_connections_to_several_hubs() {
    let (one, two) = (TestHub::mutual(), TestHub::mutual());
    let endpoint = AgentEndpoint::new();
    let to_one = endpoint.connect(&one.address, &one.agent_tls(), PATIENCE).await.unwrap();
    let to_two = endpoint.connect(&two.address, &two.agent_tls(), PATIENCE).await.unwrap();
    let (a, b) = (message(1), message(2));
    tokio::join!(assert_echo(&to_one, &a), assert_echo(&to_two, &b));
    // Whoever says goodbye ends no connection but its own.
    to_one.say_goodbye(0, "bye").await;
    assert_eq!(to_one.closed().await, ConnectionLost::ClosedHere);
    assert_echo(&to_two, &message(3)).await;
    let again = endpoint.clone().connect(&one.address, &one.agent_tls(), PATIENCE).await.unwrap();
    assert_echo(&again, &message(4)).await;
}

#[tokio::test]
async fn one_socket_lends_nobody_anothers_certificate_or_trust() {
    let (hub, other) = (TestHub::mutual(), TestHub::mutual());
    let endpoint = AgentEndpoint::new();
    let known = endpoint.connect(&hub.address, &hub.agent_tls(), PATIENCE).await.unwrap();
    assert_echo(&known, &message(1)).await;
    let nameless = AgentTls { identity: None, ..hub.agent_tls() };
    let refused = endpoint.connect(&hub.address, &nameless, PATIENCE).await;
    let lost = match refused {
        Ok(connection) => connection.closed().await,
        Err(ConnectError::Lost { lost, .. }) => lost,
        Err(error) => panic!("{error:?}"),
    };
    assert!(matches!(lost, ConnectionLost::Tls(_)), "{lost:?}");
    let stranger = endpoint.connect(&hub.address, &other.agent_tls(), PATIENCE).await;
    assert!(matches!(stranger, Err(ConnectError::Tls { .. })), "{stranger:?}");
    assert_echo(&known, &message(2)).await;
}

#[test]
fn a_socket_whose_runtime_has_ended_is_made_anew() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let listening = std::thread::spawn(move || {
        runtime().block_on(async {
            let hub = TestHub::mutual();
            tell.send((hub.address.clone(), hub.agent_tls())).unwrap();
            let _ = stopped.await;
        });
    });
    let (address, tls) = told.recv().unwrap();
    let endpoint = AgentEndpoint::new();
    for size in 1..=3 {
        runtime().block_on(async {
            let connection = endpoint.connect(&address, &tls, PATIENCE).await.unwrap();
            assert_echo(&connection, &message(size)).await;
        });
    }
    stop.send(()).unwrap();
    listening.join().unwrap();
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
    let error = HubEndpoint::bind(hub.socket, &HubTls { cert, key, client_ca: None, crl: None }).unwrap_err();
    assert!(matches!(error, BindError::InUse(address) if address == hub.socket), "{error:?}");
}
