//! Datagrams, as many as one sender can send.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::slowloris::first_packets;
use crate::site::Site;

/// Datagrams that are sent at least.
const AT_LEAST: usize = 20_000;

/// Datagrams that are sent at once: the socket of a hub on loopback holds about twice as many.
const AT_ONCE: usize = 64;

/// Breaks if a hub that is flooded with first packets, damaged ones, replayed ones and garbage does not serve an agent
/// that is connected, or lets nobody in.
#[tokio::test]
async fn a_datagram_flood_from_a_bounded_sender() {
    let site = Site::start(":memory:").await;
    let good = site.agent("acme", "good").await;
    good.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)").await;
    let packets = first_packets(&site, 64).await;
    let (hub, is_enough) = (site.hub.local_addr(), Arc::new(AtomicBool::new(false)));
    let flood = std::thread::spawn({
        let is_enough = Arc::clone(&is_enough);
        move || {
            let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut random = fastrand::Rng::with_seed(7);
            let mut sent = 0_usize;
            while sent < AT_LEAST || !is_enough.load(Ordering::Relaxed) {
                let mut packet = packets[random.usize(..packets.len())].clone();
                match random.u8(..4) {
                    0 => {}
                    1 => packet[random.usize(..50)] ^= 1 << random.u8(..8),
                    2 => packet.truncate(random.usize(..1_500)),
                    _ => random.fill(&mut packet),
                }
                // A full buffer drops it, as a network would.
                let _ = stranger.send_to(&packet, hub);
                sent += 1;
                if sent.is_multiple_of(AT_ONCE) {
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
            sent
        }
    });
    for n in 0..20 {
        good.run(&format!("INSERT INTO notes(title) VALUES('{n}')")).await;
        assert_eq!(good.sync().await.pushed, 1);
    }
    let late = site.agent("acme", "late").await;
    assert_eq!(late.sync().await.pulled, 20);
    is_enough.store(true, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || flood.join().unwrap()).await.unwrap();
    assert_eq!(good.sync().await.pulled, 0);
    assert_eq!(site.hub.stats().connected_agents, 2);
}
