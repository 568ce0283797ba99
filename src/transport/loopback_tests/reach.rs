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
    endpoint.close(0, "bye").await;
    assert_eq!(to_one.closed().await, ConnectionLost::ClosedHere);
    let again = endpoint.connect(&one.address, &one.agent_tls(), PATIENCE).await.unwrap();
    assert_echo(&again, &message(3)).await;
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
