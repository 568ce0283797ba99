//! Somebody with a good certificate and a good token who does not speak as agents do.

use std::time::Duration;

use federation_hub::engine::token::Grant;
use federation_hub::protocol::message::{Hello, ToAgent, ToHub};
use federation_hub::transport::{
    AgentEndpoint, AgentTls, Connection, ConnectionLost, EndpointAddress, FrameReceiver, FrameSender,
    PemSource,
};

use tokio::time::timeout;

use crate::site::Site;

/// Long enough for the slowest machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What an attacker trusts and shows.
pub fn tls(site: &Site) -> AgentTls {
    let (cert, key) = site.credentials.issue_agent("attacker", "evil").unwrap();
    AgentTls {
        identity: Some((PemSource::Text(cert), PemSource::Text(key))),
        ca: Some(PemSource::Text(site.credentials.ca_cert_pem.clone())),
    }
}

/// A connection on which nothing was said yet.
pub async fn connect(site: &Site) -> Connection {
    connect_at(site, &EndpointAddress::from(site.hub.local_addr())).await
}

async fn connect_at(site: &Site, address: &EndpointAddress) -> Connection {
    AgentEndpoint::new().connect(address, &tls(site), PATIENCE).await.unwrap()
}

/// A connection that is let in.
pub async fn enter(site: &Site) -> Connection {
    enter_at(site, &EndpointAddress::from(site.hub.local_addr())).await
}

/// As [`enter`], where the hub has another address, as behind a relay.
pub async fn enter_at(site: &Site, address: &EndpointAddress) -> Connection {
    let connection = connect_at(site, address).await;
    let (mut sender, mut receiver) = connection.open().await.unwrap();
    let token = site.token("evil", "attacker", &Grant::default());
    sender
        .send(&ToHub::Hello(Hello { tenant: "evil".into(), agent: "attacker".into(), token }))
        .await
        .unwrap();
    assert!(matches!(receiver.next().await.unwrap(), Some(ToAgent::Welcome(_))));
    connection
}

/// Sends these bytes on a stream of their own, and keeps the stream open.
pub async fn send(connection: &Connection, bytes: Vec<u8>) -> (FrameSender, FrameReceiver) {
    let (mut sender, receiver) = connection.open().await.unwrap();
    sender.send_encoded(bytes).await.unwrap();
    (sender, receiver)
}

/// Waits until the hub has closed the connection as that of one who breaks the protocol.
pub async fn cut_off(connection: &Connection) {
    match timeout(PATIENCE, connection.closed()).await.expect("the hub lets it go on") {
        ConnectionLost::Closed { code: 2, .. } => {}
        other => panic!("{other:?}"),
    }
}
