//! Damaged datagrams, beside those of a connection that is alive.
//!
//! Somebody between an agent and the hub passes on what they send each other, and sends the hub damaged copies of it: from
//! the agent's own address, whose connection they may hit, and from others.

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use federation_hub::protocol::frame;

use crate::damage::damage;
use crate::messages::{Fates, talk};
use crate::place::Place;
use crate::{honest, invited};

/// Damaged copies for each datagram of the agent's.
const COPIES: usize = 24;

/// Datagrams that are kept to be damaged.
const KEPT: usize = 1_000;

/// Addresses that copies come from, besides the agent's.
const STRANGERS: usize = 7;

/// Datagrams that are sent at once: the socket of a hub on loopback holds about four times as many.
const AT_ONCE: usize = 32;

/// Streams of a connection, until there is another one.
const STREAMS: usize = 20;

/// Who stands between.
struct Relay {
    hub: SocketAddr,
    /// Towards the agent.
    near: UdpSocket,
    /// Towards the hub, as the agent.
    far: UdpSocket,
    agent: Mutex<Option<SocketAddr>>,
    sent: AtomicU64,
    wanted: u64,
    is_over: AtomicBool,
}

impl Relay {
    fn new(hub: SocketAddr, wanted: u64) -> Arc<Self> {
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        let (agent, sent, is_over) = Default::default();
        Arc::new(Self { hub, near: socket(), far: socket(), agent, sent, wanted, is_over })
    }

    fn is_enough(&self) -> bool {
        self.sent.load(Ordering::Relaxed) >= self.wanted
    }

    /// Passes on what the hub sends.
    fn back(&self) {
        let mut packet = [0; 2_000];
        while !self.is_over.load(Ordering::Relaxed) {
            let Ok((length, _)) = self.far.recv_from(&mut packet) else { continue };
            if let Some(agent) = *self.agent.lock().unwrap() {
                let _ = self.near.send_to(&packet[..length], agent);
            }
        }
    }

    /// Passes on what the agent sends, with damaged copies.
    fn forth(&self, dice: &mut fastrand::Rng) {
        let strangers: Vec<UdpSocket> =
            (0..STRANGERS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut kept = VecDeque::with_capacity(KEPT);
        let mut packet = [0; 2_000];
        while !self.is_over.load(Ordering::Relaxed) {
            let Ok((length, agent)) = self.near.recv_from(&mut packet) else { continue };
            *self.agent.lock().unwrap() = Some(agent);
            let packet = &packet[..length];
            let _ = self.far.send_to(packet, self.hub);
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(packet.to_vec());
            for _ in 0..COPIES {
                if self.is_enough() {
                    break;
                }
                let any = |dice: &mut fastrand::Rng| dice.usize(..kept.len());
                let mut copy = if dice.bool() { packet.to_vec() } else { kept[any(dice)].clone() };
                damage(&mut copy, &kept[any(dice)], dice);
                let from = strangers.get(dice.usize(..2 * STRANGERS)).unwrap_or(&self.far);
                // A full buffer drops it, as a network would.
                let _ = from.send_to(&copy, self.hub);
                if self.sent.fetch_add(1, Ordering::Relaxed).is_multiple_of(AT_ONCE as u64) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
        }
    }
}

/// How many datagrams the system had no room for in the hub's socket; nothing where it does not say.
fn dropped(hub: SocketAddr) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/udp").ok()?;
    let port = format!(":{:04X}", hub.port());
    let line =
        table.lines().find(|line| line.split_whitespace().nth(1).is_some_and(|it| it.ends_with(&port)))?;
    line.split_whitespace().last()?.parse().ok()
}

/// Sends so many damaged datagrams.
pub async fn send(place: &Place, datagrams: u64, seed: u64) -> String {
    let hub: SocketAddr = place.address().parse().unwrap();
    let relay = Relay::new(hub, datagrams);
    let threads = [
        std::thread::spawn({
            let relay = Arc::clone(&relay);
            move || relay.back()
        }),
        std::thread::spawn({
            let (relay, mut dice) = (Arc::clone(&relay), fastrand::Rng::with_seed(seed));
            move || relay.forth(&mut dice)
        }),
    ];
    let mut agent = invited::attacker(place, relay.near.local_addr().unwrap().into(), 100);
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut connections, mut streams, mut lost) = (0, 0, 0);
    while !relay.is_enough() {
        let connection = agent.enter().await;
        connections += 1;
        for _ in 0..STREAMS {
            let frames =
                honest::script(&agent, &mut dice).iter().map(|it| frame::encode(it).unwrap()).collect();
            streams += 1;
            if talk(&connection, frames, &mut Fates::default()).await.is_lost {
                lost += 1;
                break;
            }
        }
        connection.close(0, "done");
    }
    relay.is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(lost, 0, "a connection was lost to what others sent");
    let sent = relay.sent.load(Ordering::Relaxed);
    let dropped = dropped(hub).map_or("unknown".to_owned(), |it| it.to_string());
    format!(
        "{sent} damaged datagrams ({dropped} in all found the hub's socket full), beside {connections} connections with {streams} streams, none of which was lost"
    )
}
