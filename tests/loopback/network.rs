//! Networks that are slow, lossy, narrow, or gone for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::ErrorCode;
use federation_hub::engine::hub_limits::HubLimits;
use tokio::time::sleep;

use crate::relay::{Relay, Weather};
use crate::renewal::Tokens;
use crate::site::{Member, Site, memory};

const NOTES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body)";
/// A megabyte that does not compress.
const MANY: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                    INSERT INTO notes(body) SELECT randomblob(1000) FROM n";
const BODIES: &str = "SELECT body FROM notes ORDER BY body";

fn options(site: &Site, relay: &Relay, name: &str) -> AgentOptions {
    AgentOptions {
        endpoint: relay.endpoint(),
        connect_timeout_ms: 30_000,
        request_timeout_ms: 60_000,
        ..site.options("acme", name)
    }
}

/// Breaks if a sync takes for lost what is only late.
#[tokio::test]
async fn everything_arrives_however_bad_the_network_is() {
    let bad = [
        ("5 % loss", Weather { lost: 50, ..Weather::FAIR }),
        ("20 % loss", Weather { lost: 200, ..Weather::FAIR }),
        ("300 ms there and back", Weather { delay: Duration::from_millis(150), ..Weather::FAIR }),
        ("a quarter overtaken", Weather { overtaken: 250, ..Weather::FAIR }),
        ("packets of 1,280 bytes", Weather { mtu: 1_280, ..Weather::FAIR }),
    ];
    let site = Site::start(":memory:").await;
    let near = site.agent("acme", "near").await;
    near.run(NOTES).await;
    for (name, weather) in bad {
        let relay = Relay::before(site.hub.local_addr()).await;
        relay.set(weather);
        let far = Member::connect(options(&site, &relay, name)).await;
        far.run(NOTES).await;
        far.sync().await;
        assert_eq!(far.rows(BODIES).await, near.rows(BODIES).await, "{name}");
        far.run(MANY).await;
        assert_eq!(far.sync().await.pushed, 1_000, "{name}");
        assert_eq!(near.sync().await.pulled, 1_000, "{name}");
        assert_eq!(far.rows(BODIES).await, near.rows(BODIES).await, "{name}");
    }
}

#[tokio::test]
async fn a_sync_outlasts_a_hole_in_the_network() {
    let site = Site::start(":memory:").await;
    let relay = Relay::before(site.hub.local_addr()).await;
    let member = Member::connect(options(&site, &relay, "a")).await;
    member.run(NOTES).await;
    member.sync().await;
    member.run(MANY).await;
    relay.set(Weather::HOLE);
    let (report, ()) = tokio::join!(member.sync(), async {
        sleep(Duration::from_secs(4)).await;
        relay.set(Weather::FAIR);
    });
    assert_eq!(report.pushed, 1_000);
}

/// Breaks if an agent takes its connection for alive for ever, or does not make it anew: by then it has been silent for longer
/// than either side bears.
#[tokio::test]
async fn a_hole_that_is_longer_than_connections_live_ends_those_syncs_only_that_may_not_take_so_long() {
    let site = Site::start(":memory:").await;
    let relay = Relay::before(site.hub.local_addr()).await;
    let patient = AgentOptions { connect_timeout_ms: 5_000, ..options(&site, &relay, "patient") };
    let usual = AgentOptions { request_timeout_ms: 20_000, ..options(&site, &relay, "usual") };
    let (patient, usual) = (Member::connect(patient).await, Member::connect(usual).await);
    for member in [&patient, &usual] {
        member.run(NOTES).await;
        member.sync().await;
        member.run(MANY).await;
    }
    relay.set(Weather::HOLE);
    let (report, error, ()) = tokio::join!(patient.sync(), usual.try_sync(), async {
        sleep(Duration::from_secs(33)).await;
        relay.set(Weather::FAIR);
    });
    assert_eq!(report.pushed, 1_000);
    let error = error.unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout, "{error}");
    assert_eq!(usual.sync().await.pushed, 1_000);
    patient.sync().await;
    assert_eq!(patient.rows(BODIES).await, usual.rows(BODIES).await);
}

#[tokio::test]
async fn a_sync_that_nothing_answers_says_so_in_time_and_the_next_one_sends_what_it_did_not() {
    let site = Site::start(":memory:").await;
    let relay = Relay::before(site.hub.local_addr()).await;
    let options = AgentOptions { request_timeout_ms: 4_000, ..options(&site, &relay, "a") };
    let member = Member::connect(options).await;
    member.run(NOTES).await;
    member.sync().await;
    member.run("INSERT INTO notes(body) VALUES('x')").await;
    relay.set(Weather::HOLE);
    let error = member.try_sync().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout, "{error}");
    relay.set(Weather::FAIR);
    assert_eq!(member.sync().await.pushed, 1);
}

#[tokio::test]
async fn where_no_datagram_gets_through_connecting_says_what_to_look_at() {
    let site = Site::start(":memory:").await;
    let relay = Relay::before(site.hub.local_addr()).await;
    relay.set(Weather::HOLE);
    let options = AgentOptions { connect_timeout_ms: 1_000, ..options(&site, &relay, "a") };
    let error = Agent::new(options).connect().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unreachable);
    assert!(error.message.contains("UDP"), "{error}");
}

/// Breaks if the hub does not let connections migrate, or counts the agent's places by where it was.
#[tokio::test]
async fn an_agent_whose_address_changes_goes_on_on_its_connection() {
    let site = Site::start(":memory:").await;
    let relay = Relay::before(site.hub.local_addr()).await;
    relay.set(Weather { delay: Duration::from_millis(20), ..Weather::FAIR });
    let tokens = Tokens::of(&site, 600_000);
    let agent = Agent::new(AgentOptions { token: String::new(), ..options(&site, &relay, "a") });
    let member = Member { agent, database: memory() };
    member.agent.connect_with(Some(tokens.clone())).await.unwrap();
    member.run(NOTES).await;
    for _ in 0..3 {
        member.run(MANY).await;
        let ticket = member.agent.begin_sync().unwrap().authenticated_by(Some(tokens.clone()));
        let (report, ()) = tokio::join!(member.agent.sync(ticket, Arc::clone(&member.database)), async {
            sleep(Duration::from_millis(60)).await;
            relay.move_agents();
        });
        assert_eq!(report.unwrap().pushed, 1_000);
    }
    assert_eq!(tokens.given(), 1, "it has connected once");
}

/// Breaks if a hub keeps the place of an agent whose network is gone for longer than it was told to.
#[tokio::test]
async fn an_agent_that_is_gone_without_a_word_gives_its_place_up() {
    let limits = HubLimits { idle_timeout_ms: 6_000, max_agents: 1, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let relay = Relay::before(site.hub.local_addr()).await;
    let gone = Member::connect(options(&site, &relay, "gone")).await;
    relay.set(Weather::HOLE);
    let since = Instant::now();
    while site.hub.stats().connected_agents > 0 {
        assert!(since.elapsed() < Duration::from_secs(20), "the default is 30 s");
        sleep(Duration::from_millis(50)).await;
    }
    site.agent("acme", "next").await.sync().await;
    drop(gone);
}
