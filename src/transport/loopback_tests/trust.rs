//! Who lets whom in, and what the one left outside is told.

use super::*;

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

/// Breaks if the hub resumes sessions: an agent could then send early data, which anybody who has recorded it could
/// send again.
#[tokio::test]
async fn no_early_data_can_be_replayed_because_none_is_taken() {
    let hub = TestHub::mutual();
    let mut config = hub.agent_tls().rustls_config().unwrap();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    config.enable_early_data = true;
    let config = quic_client_config(config).unwrap();
    let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    for _ in 0..3 {
        let connecting = endpoint.connect_with(config.clone(), hub.socket, "localhost").unwrap();
        let Err(connecting) = connecting.into_0rtt() else {
            panic!("the hub has given a ticket for early data")
        };
        assert_echo(&Connection::new(connecting.await.unwrap()), &message(1)).await;
    }
}
