//! Whoever is not let in, and whatever a stranger sends: it costs its own connection, and an agent beside it
//! goes on syncing (invariants I16, I17).

use std::net::UdpSocket;

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::{AgentError, ErrorCode};
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::token;

use crate::site::Site;

async fn refused(options: AgentOptions) -> AgentError {
    Agent::new(options).connect().await.expect_err("must not be let in")
}

#[tokio::test]
async fn a_token_must_be_signed_in_date_and_of_this_tenant_and_agent() {
    let site = Site::start(":memory:").await;
    let good = site.options("acme", "a");
    let secret = &site.credentials.jwt_secret;
    let hour = wall_now_ms() + 3_600_000;
    let unsigned = "eyJhbGciOiJub25lIn0.eyJ0ZW5hbnRJZCI6ImFjbWUiLCJhZ2VudElkIjoiYSIsImV4cCI6OTk5OTk5OTk5OX0.";
    for (what, token) in [
        ("none", String::new()),
        ("alg: none", unsigned.into()),
        ("another secret", token::issue("another secret", "acme", "a", hour).unwrap()),
        ("expired", token::issue(secret, "acme", "a", wall_now_ms() - 120_000).unwrap()),
        ("another tenant", token::issue(secret, "globex", "a", hour).unwrap()),
        ("another agent", token::issue(secret, "acme", "b", hour).unwrap()),
    ] {
        let error = refused(AgentOptions { token, ..good.clone() }).await;
        assert_eq!(error.code, ErrorCode::Unauthenticated, "{what}: {error}");
    }
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let (site, other) = (Site::start(":memory:").await, Site::start(":memory:").await);
    let (good, foreign) = (site.options("acme", "a"), other.options("acme", "a"));
    let distrusts_hub = refused(AgentOptions { ca: foreign.ca.clone(), ..good.clone() }).await;
    assert_eq!(distrusts_hub.code, ErrorCode::Tls, "{distrusts_hub}");
    let distrusted =
        refused(AgentOptions { cert: foreign.cert.clone(), key: foreign.key.clone(), ..good.clone() }).await;
    assert_eq!(distrusted.code, ErrorCode::Tls, "{distrusted}");
    let bare = refused(AgentOptions { enable_mtls: false, ..good.clone() }).await;
    assert_eq!(bare.code, ErrorCode::Tls, "{bare}");
    let incomplete = refused(AgentOptions { key: None, ..good }).await;
    assert_eq!(incomplete.code, ErrorCode::Config);
    assert!(incomplete.message.contains("keyPath") && !incomplete.message.contains("certPath"));
}

#[tokio::test]
async fn an_endpoint_that_is_none_and_a_hub_that_is_not_there_are_told_apart() {
    let site = Site::start(":memory:").await;
    let good = site.options("acme", "a");
    let wrong = refused(AgentOptions { endpoint: "https://hub.example.com".into(), ..good.clone() }).await;
    assert_eq!(wrong.code, ErrorCode::Config);
    assert!(wrong.message.contains("quic://"), "{wrong}");
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("quic://{}", nobody.local_addr().unwrap());
    let silent = refused(AgentOptions { endpoint, connect_timeout_ms: 300, ..good }).await;
    assert_eq!(silent.code, ErrorCode::Unreachable, "{silent}");
}

#[tokio::test]
async fn garbage_datagrams_do_not_disturb_an_agent() {
    let site = Site::start(":memory:").await;
    let agent = site.agent("acme", "a").await;
    agent.run("CREATE TABLE notes(id TEXT PRIMARY KEY)").await;
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0_u8..20 {
        for length in [0, 1, 21, 600, 1200, 1400] {
            let garbage: Vec<u8> =
                (0..=255).cycle().take(length).map(|byte: u8| byte.wrapping_mul(31) ^ round).collect();
            stranger.send_to(&garbage, site.hub.local_addr()).unwrap();
        }
        agent.run(&format!("INSERT INTO notes VALUES('{round}')")).await;
        assert_eq!(agent.sync().await.pushed, 1);
    }
}
