//! The network: connections of ordered streams, each of which can be slow, or fall silent for good.

use std::collections::BTreeMap;

use federation_hub::protocol::frame::{self, LENGTH_BYTES};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dice::Dice;
use crate::queue::Queue;
use crate::weather::{Way, Weather};

/// After how long a silent connection is given up, in ms.
pub const IDLE_MS: i64 = 30_000;

/// A connection, as both sides number it.
pub type ConnectionId = u64;

/// A stream of a connection.
pub type StreamId = u64;

/// What travels.
#[derive(Clone, Debug)]
pub enum Packet {
    /// A frame, length and all.
    Frame(Vec<u8>),
    /// Nothing more on this stream.
    End,
    /// The connection is over.
    Closed,
    /// It is, and its replicas with it.
    Goodbye,
}

impl Packet {
    /// A message as it travels.
    pub fn of<M: Serialize>(message: &M) -> Self {
        Self::Frame(frame::encode(message).unwrap())
    }
}

/// Reads a frame as a receiver does.
pub fn decode<M: DeserializeOwned>(frame: &[u8]) -> M {
    let (prefix, rest) = frame.split_first_chunk::<LENGTH_BYTES>().unwrap();
    assert_eq!(frame::decode_length(*prefix).unwrap(), rest.len());
    frame::decode(rest).unwrap()
}

/// What is going to happen.
#[derive(Debug)]
pub enum Event {
    /// A process goes on with its sync; of this life, and this sync of it.
    Process(usize, Turn),
    /// A process has waited for long.
    Patience(usize, Turn, u64),
    /// A process that died is started again.
    Restart(usize, u32),
    /// Something arrives at the hub.
    ToHub(ConnectionId, StreamId, Packet),
    /// Something arrives at an agent.
    ToAgent(ConnectionId, StreamId, Packet),
    /// The hub's store works; in this life of the hub.
    Group(u32),
    /// The hub reads on for a large pull; in this life of the hub.
    ReadOn(u32, ConnectionId, StreamId),
    /// The hub starts again.
    RestartHub(u32),
}

/// One sync of one life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub life: u32,
    pub sync: u64,
}

struct Link {
    process: usize,
    weather: Weather,
    dice: Dice,
    /// When the last packet of each stream arrives: those behind it do not overtake it.
    last_ms: BTreeMap<(bool, StreamId), i64>,
}

/// All connections, and all that is going to happen.
pub struct Network {
    pub queue: Queue<Event>,
    links: BTreeMap<ConnectionId, Link>,
    next: ConnectionId,
    /// Until when a process is cut off, in each direction: what is sent meanwhile arrives afterwards.
    cut_off: BTreeMap<(usize, bool), i64>,
    /// What the processes sent on their last streams, for replays, and when they began.
    sent: Vec<(ConnectionId, StreamId, i64, Vec<Packet>)>,
    /// Packets that got lost.
    pub lost: u64,
}

/// How many streams are remembered for replays.
const REMEMBERED: usize = 12;

impl Network {
    /// No connections, at this time.
    pub fn new(now_ms: i64) -> Self {
        Self {
            queue: Queue::new(now_ms),
            links: BTreeMap::new(),
            next: 1,
            cut_off: BTreeMap::new(),
            sent: Vec::new(),
            lost: 0,
        }
    }

    /// Opens a connection of a process.
    pub fn open(&mut self, process: usize, weather: Weather) -> ConnectionId {
        let id = self.next;
        self.next += 1;
        let dice = Dice::new(weather.seed);
        self.links.insert(id, Link { process, weather, dice, last_ms: BTreeMap::new() });
        id
    }

    /// Whose connection it is.
    pub fn process(&self, connection: ConnectionId) -> Option<usize> {
        self.links.get(&connection).map(|link| link.process)
    }

    /// Changes the weather of a connection that is already there.
    pub fn set_weather(&mut self, connection: ConnectionId, weather: Weather) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.dice = Dice::new(weather.seed);
            link.weather = weather;
        }
    }

    /// Whether a connection will never again get anything through in one of its directions.
    pub fn is_silent(&self, connection: ConnectionId) -> bool {
        self.links
            .get(&connection)
            .is_none_or(|link| link.weather.to_hub == Some(0) || link.weather.to_agent == Some(0))
    }

    /// Cuts a process off for a while.
    pub fn cut_off(&mut self, process: usize, way: Way, ms: i64) {
        let until_ms = self.queue.now_ms() + ms;
        self.cut_off.insert((process, way == Way::ToHub), until_ms);
    }

    /// Ends all partitions, and has all connections deliver what is sent from now on. Those that have lost
    /// something stay silent: they are given up as their ends find out.
    pub fn calm_down(&mut self) {
        self.cut_off.clear();
        for link in self.links.values_mut() {
            link.weather.delay_ms = 5;
            for left in [&mut link.weather.to_hub, &mut link.weather.to_agent] {
                *left = left.filter(|left| *left == 0);
            }
        }
    }

    /// Sends something, which may arrive.
    pub fn send(&mut self, connection: ConnectionId, way: Way, stream: StreamId, packet: Packet) {
        let now_ms = self.queue.now_ms();
        let is_to_hub = way == Way::ToHub;
        if is_to_hub {
            self.remember(connection, stream, &packet);
        }
        let Some(link) = self.links.get_mut(&connection) else { return };
        match link.weather.left(way) {
            Some(0) => {
                self.lost += 1;
                return;
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let delay_ms = i64::try_from(link.dice.below(link.weather.delay_ms + 1)).unwrap();
        let sent_ms = self.cut_off.get(&(link.process, is_to_hub)).map_or(now_ms, |until| now_ms.max(*until));
        let last_ms = link.last_ms.entry((is_to_hub, stream)).or_insert(0);
        *last_ms = (*last_ms).max(sent_ms + delay_ms);
        let event = match way {
            Way::ToHub => Event::ToHub(connection, stream, packet),
            Way::ToAgent => Event::ToAgent(connection, stream, packet),
        };
        self.queue.at(*last_ms, event);
    }

    fn remember(&mut self, connection: ConnectionId, stream: StreamId, packet: &Packet) {
        if stream == 0 {
            return;
        }
        match self.sent.iter_mut().find(|(of, on, ..)| (*of, *on) == (connection, stream)) {
            Some((.., packets)) => packets.push(packet.clone()),
            None => self.sent.push((connection, stream, self.queue.now_ms(), vec![packet.clone()])),
        }
        if self.sent.len() > REMEMBERED {
            self.sent.remove(0);
        }
    }

    /// What was sent on one of the last streams, with its connection, and when the stream began.
    pub fn sent(&self, which: usize) -> Option<(ConnectionId, i64, Vec<Packet>)> {
        let (connection, _, began_ms, packets) = self.sent.get(which % self.sent.len().max(1))?;
        Some((*connection, *began_ms, packets.clone()))
    }

    /// Forgets a connection: whatever is sent on it from now on gets lost.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.links.remove(&connection);
    }
}
