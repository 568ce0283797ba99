//! Whoever begins and never ends.

use std::net::UdpSocket;
use std::time::Duration;

use federation_hub::engine::hub_limits::HubLimits;
use federation_hub::transport::{AgentEndpoint, EndpointAddress, FrameSender};
use tokio::task::JoinSet;

use super::raw::{connect, cut_off, enter, send, tls};
use crate::site::Site;

/// First packets of so many handshakes, each of an agent of its own.
pub async fn first_packets(site: &Site, count: usize) -> Vec<Vec<u8>> {
    let catcher = UdpSocket::bind("127.0.0.1:0").unwrap();
    catcher.set_nonblocking(true).unwrap();
    let catcher = tokio::net::UdpSocket::from_std(catcher).unwrap();
    let address = EndpointAddress::from(catcher.local_addr().unwrap());
    let tls = tls(site);
    let mut caught = Vec::new();
    while caught.len() < count {
        let mut agents = JoinSet::new();
        for _ in 0..16 {
            let (address, tls) = (address.clone(), tls.clone());
            agents.spawn(async move {
                AgentEndpoint::new().connect(&address, &tls, Duration::from_secs(10)).await.map(drop)
            });
        }
        let mut senders = Vec::new();
        while senders.len() < 16 {
            let mut packet = vec![0; 1_500];
            let (length, sender) = catcher.recv_from(&mut packet).await.unwrap();
            packet.truncate(length);
            if !senders.contains(&sender) {
                senders.push(sender);
                caught.push(packet);
            }
        }
        agents.shutdown().await;
    }
    caught
}

/// Breaks if handshakes that nobody finishes fill the hub, or all the places of an address.
#[tokio::test]
async fn slowloris_on_the_handshake() {
    let limits = HubLimits { max_connections_per_address: 64, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let packets = first_packets(&site, 320).await;
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    for packet in &packets {
        stranger.send_to(packet, site.hub.local_addr()).unwrap();
    }
    for n in 0..3 {
        let good = site.agent("acme", &format!("good {n}")).await;
        good.run("CREATE TABLE IF NOT EXISTS notes(id TEXT PRIMARY KEY)").await;
        good.run(&format!("INSERT INTO notes VALUES('{n}')")).await;
        assert_eq!(good.sync().await.pushed, 1);
    }
}

/// Never silent for long, and never done.
async fn dribble(mut sender: FrameSender) {
    while sender.send_encoded(vec![0]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn slowloris_before_the_greeting() {
    let limits = HubLimits { handshake_timeout_ms: 700, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let good = site.agent("acme", "good").await;
    let silent = connect(&site).await;
    let half = connect(&site).await;
    let _half = send(&half, vec![0, 0, 1]).await;
    let trickle = connect(&site).await;
    let (sender, _receiver) = send(&trickle, vec![0, 0, 0x10, 0]).await;
    let trickling = tokio::spawn(dribble(sender));
    for connection in [silent, half, trickle] {
        cut_off(&connection).await;
        good.sync().await;
    }
    trickling.await.unwrap();
}

#[tokio::test]
async fn slowloris_on_a_stream() {
    let limits = HubLimits { frame_timeout_ms: 700, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let good = site.agent("acme", "good").await;
    let silent = enter(&site).await;
    let _silent = send(&silent, vec![0]).await;
    let trickle = enter(&site).await;
    let (sender, _receiver) = send(&trickle, vec![0, 0, 0x40, 0]).await;
    let trickling = tokio::spawn(dribble(sender));
    for connection in [silent, trickle] {
        cut_off(&connection).await;
        good.sync().await;
    }
    trickling.await.unwrap();
}
