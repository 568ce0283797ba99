//! A network between agents and a hub: a relay of UDP datagrams that loses, delays and reorders them, has holes, and
//! changes the address that the hub sees.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Bytes of the headers of IPv4 and UDP, which a network's MTU counts.
const HEADERS: usize = 28;
/// How much later a datagram comes that others overtake.
const LATE: Duration = Duration::from_millis(30);

/// What the network does to datagrams, in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Of a thousand, how many are lost.
    pub lost: u64,
    /// Of a thousand, how many are overtaken.
    pub overtaken: u64,
    /// How long one takes.
    pub delay: Duration,
    /// Bytes of the largest packet that gets through.
    pub mtu: usize,
}

impl Weather {
    /// Everything arrives at once.
    pub const FAIR: Self = Self { lost: 0, overtaken: 0, delay: Duration::ZERO, mtu: 65_535 };
    /// Nothing arrives.
    pub const HOLE: Self = Self { lost: 1_000, ..Self::FAIR };
}

/// A relay before one hub.
pub struct Relay {
    network: Arc<Network>,
    address: SocketAddr,
    front: JoinHandle<()>,
}

struct Network {
    hub: SocketAddr,
    weather: Mutex<Weather>,
    /// Datagrams that have been looked at; decides what becomes of the next.
    seen: Mutex<u64>,
    /// As whom the hub sees each agent.
    faces: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
}

impl Relay {
    /// Relays to this hub, in fair weather.
    pub async fn before(hub: SocketAddr) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let network = Arc::new(Network {
            hub,
            weather: Mutex::new(Weather::FAIR),
            seen: Mutex::new(0),
            faces: Mutex::default(),
        });
        let front = tokio::spawn(network.clone().relay(front));
        Self { network, address, front }
    }

    /// What agents take for the hub.
    pub fn endpoint(&self) -> String {
        format!("quic://{}", self.address)
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        *self.network.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// Has the hub see every agent at another address from now on, as after a change of the network or of a NAT's mind.
    pub fn move_agents(&self) {
        self.network.faces.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.front.abort();
    }
}

impl Network {
    async fn relay(self: Arc<Self>, front: Arc<UdpSocket>) {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, agent)) = front.recv_from(&mut buffer).await {
            let face = self.face(agent, &front).await;
            self.carry(&buffer[..length], face, self.hub);
        }
    }

    /// As whom the hub sees an agent; what it answers there goes back.
    async fn face(self: &Arc<Self>, agent: SocketAddr, front: &Arc<UdpSocket>) -> Arc<UdpSocket> {
        let known = self.faces.lock().unwrap_or_else(PoisonError::into_inner).get(&agent).cloned();
        if let Some(face) = known {
            return face;
        }
        let face = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        self.faces.lock().unwrap_or_else(PoisonError::into_inner).insert(agent, face.clone());
        let (network, back, front) = (self.clone(), face.clone(), front.clone());
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, _)) = back.recv_from(&mut buffer).await {
                network.carry(&buffer[..length], front.clone(), agent);
            }
        });
        face
    }

    fn carry(&self, datagram: &[u8], from: Arc<UdpSocket>, to: SocketAddr) {
        let weather = *self.weather.lock().unwrap_or_else(PoisonError::into_inner);
        let dice = self.roll();
        if dice % 1_000 < weather.lost || datagram.len() + HEADERS > weather.mtu {
            return;
        }
        let is_overtaken = (dice / 1_000) % 1_000 < weather.overtaken;
        let delay = weather.delay + if is_overtaken { LATE } else { Duration::ZERO };
        let datagram = datagram.to_vec();
        tokio::spawn(async move {
            sleep(delay).await;
            // A socket that is gone loses it.
            let _ = from.send_to(&datagram, to).await;
        });
    }

    /// The same numbers in every run.
    fn roll(&self) -> u64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen += 1;
        let hash = blake3::hash(&seen.to_le_bytes());
        u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap())
    }
}
