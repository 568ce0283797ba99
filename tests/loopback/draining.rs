//! A hub that is told to stop while a sync is under way.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use federation_hub::engine::agent::AgentOptions;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::attacks::raw::{PATIENCE, enter, enter_at, send};
use crate::relay::{Relay, Weather};
use crate::site::{Member, Site};

/// The first line that `/readyz` answers with.
pub async fn readiness(site: &Site) -> String {
    let address = site.hub.metrics_addr().unwrap();
    let ask = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: hub\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer = spawn_blocking(ask).await.unwrap().unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Breaks if a balancer goes on sending agents to a hub that lets nobody in, or if a sync that never ends keeps the hub.
#[tokio::test]
async fn a_hub_that_waits_for_a_sync_to_end_is_not_ready_and_waits_no_longer_than_it_may() {
    let site = Site::with(":memory:", |options| {
        options.drain_timeout_ms = 6_000;
        options.metrics_listen = Some("127.0.0.1:0".into());
    })
    .await;
    assert_eq!(readiness(&site).await, "HTTP/1.1 200 OK");
    let slow = enter(&site).await;
    // A sync of which nothing else comes.
    let _under_way = send(&slow, vec![0, 0, 0x40, 0]).await;
    sleep(Duration::from_secs(1)).await;
    let ((), answer) =
        tokio::join!(async { timeout(PATIENCE, site.hub.stop()).await.expect("it waits for ever") }, async {
            sleep(Duration::from_secs(1)).await;
            readiness(&site).await
        });
    assert_eq!(answer, "HTTP/1.1 503 Service Unavailable");
}

/// Breaks if connections that ask nothing keep an operator's machines from asking.
#[tokio::test]
async fn connections_that_say_nothing_give_way_to_one_that_asks() {
    let site = Site::with(":memory:", |options| options.metrics_listen = Some("127.0.0.1:0".into())).await;
    let address = site.hub.metrics_addr().unwrap();
    for _ in 0..3 {
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(TcpStream::connect(address).unwrap());
        }
        let answer = timeout(PATIENCE, readiness(&site)).await.expect("it waits for those that say nothing");
        assert_eq!(answer, "HTTP/1.1 200 OK");
    }
}

/// Breaks if a hub that stops waits for what an agent that is gone had begun: it was killed, or its network is away.
#[tokio::test]
async fn a_hub_waits_for_no_sync_of_an_agent_that_is_gone() {
    let site = Site::with(":memory:", |options| options.drain_timeout_ms = 3_600_000).await;
    let relay = Relay::before(site.hub.local_addr()).await;
    let gone = enter_at(&site, &relay.endpoint().parse().unwrap()).await;
    let _under_way = send(&gone, vec![0, 0, 0x40, 0]).await;
    sleep(Duration::from_millis(200)).await;
    relay.set(Weather::HOLE);
    timeout(PATIENCE, site.hub.stop()).await.expect("it waits for somebody who is gone");
}

/// Breaks if an agent counts as gone because its network is bad.
#[tokio::test]
async fn a_hub_that_stops_finishes_the_syncs_of_agents_on_bad_networks() {
    let site = Site::with(":memory:", |options| options.drain_timeout_ms = 60_000).await;
    let relay = Relay::before(site.hub.local_addr()).await;
    let options = AgentOptions {
        endpoint: relay.endpoint(),
        request_timeout_ms: 60_000,
        ..site.options("acme", "far")
    };
    let far = Member::connect(options).await;
    far.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, body)").await;
    far.sync().await;
    far.run("INSERT INTO notes(body) VALUES(randomblob(1000000))").await;
    relay.set(Weather { lost: 100, delay: Duration::from_millis(40), ..Weather::FAIR });
    let (report, ()) = tokio::join!(far.sync(), async {
        // Long enough for the sync to begin on a busy machine, and too short for it to end.
        sleep(Duration::from_millis(1_500)).await;
        site.hub.stop().await;
    });
    assert_eq!(report.pushed, 1);
}
