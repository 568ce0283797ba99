//! An agent's process: its database, its clock, and its connection to the hub.

use std::rc::Rc;
use std::time::Duration;

use federation_hub::engine::hub_offset::{HubOffset, Reading};
use federation_hub::model::ReplicaId;
use federation_hub::protocol::message::Incarnation;
use federation_hub::storage::attach::release;
use federation_hub::storage::choice::SyncOptions;
use federation_hub::storage::collect::TurnLimits;
use federation_hub::storage::driver::SqlErrorKind;
use federation_hub::storage::lease::{Claim, Holder};
use federation_hub::storage::replica::{CachedCatalog, HubClock, Mint};

use crate::clock::Clock;
use crate::database::Faulty;
use crate::disk::Disk;
use crate::network::{ConnectionId, Network, Packet, StreamId, Turn};
use crate::sync::Sync;
use crate::weather::{Way, Weather};
use crate::world::Agent;

/// What a process is born with.
#[derive(Clone)]
pub struct Birth {
    pub tenant: usize,
    /// What people call it; several processes may bear one name.
    pub name: String,
    /// From which the identities that it makes follow.
    pub seed: u64,
    /// How many rows one turn handles.
    pub turn: usize,
    /// What its application has chosen.
    pub options: SyncOptions,
}

/// A process of an agent.
pub struct Process {
    pub birth: Birth,
    /// Its connection to its database.
    pub agent: Agent,
    pub disk: Rc<Disk>,
    /// What the machine's clock shows.
    pub clock: Clock,
    /// Whether that is another process's machine.
    pub is_guest: bool,
    pub state: Life,
    pub life: u32,
    /// Which connection the last sync used.
    pub session: Option<Session>,
    /// The epoch of the database on that connection, and what is known of its schema.
    pub attached: Option<(u64, Option<CachedCatalog>)>,
    pub sync: Option<Box<Sync>>,
    pub mint: Mint,
    /// Behind which new row of its next turn that applies rows it dies.
    pub dies_applying: Option<usize>,
    /// How many syncs the agent has begun.
    pub counter: u64,
    syncs: u64,
    streams: StreamId,
}

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Up,
    /// It died, and starts again.
    Down,
    /// It never comes back.
    Gone,
}

/// A connection on which the hub has said welcome.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub connection: ConnectionId,
    pub incarnation: Incarnation,
    /// How far the hub's clock is ahead, as far as its answers tell.
    pub offset: HubOffset,
}

impl Process {
    /// A process on a database.
    pub fn new(birth: Birth, disk: Rc<Disk>, clock: Clock) -> Self {
        let agent = Agent::timed(&tenant_name(birth.tenant), &birth.name, birth.seed, clock.clone());
        let mut process = Self {
            mint: mint(birth.seed, 0),
            birth,
            agent,
            disk,
            clock,
            is_guest: false,
            state: Life::Up,
            life: 0,
            session: None,
            attached: None,
            sync: None,
            dies_applying: None,
            counter: 0,
            syncs: 0,
            streams: 0,
        };
        process.start();
        process
    }

    /// Starts it, with what its database holds.
    pub fn start(&mut self) {
        self.life += 1;
        self.state = Life::Up;
        self.agent.sql = Faulty::new(self.disk.open(), &self.clock);
        self.agent.run("PRAGMA foreign_keys = ON");
        let turn = self.birth.turn;
        (self.agent.limits, self.agent.slice) = (TurnLimits { rows: turn, ..TurnLimits::default() }, turn);
        self.agent.options = self.birth.options.clone();
        self.mint = mint(self.birth.seed, self.life);
        self.agent.holder = Holder((self.mint)());
        (self.session, self.attached, self.sync, self.counter) = (None, None, None, 0);
    }

    /// Ends it without a word: what was not committed has not happened.
    pub fn die(&mut self) {
        // The connection to the database is closed, which takes back what it has not committed.
        self.agent.sql = Faulty::new(rusqlite::Connection::open_in_memory().unwrap(), &self.clock);
        (self.session, self.attached, self.sync) = (None, None, None);
        self.state = Life::Down;
        self.life += 1;
    }

    /// Goes on with another database.
    pub fn adopt(&mut self, disk: Rc<Disk>) {
        self.disk = disk;
        self.start();
    }

    /// Begins a sync, unless one runs.
    pub fn begin_sync(&mut self, weather: Weather, network: &mut Network) -> bool {
        if self.state != Life::Up || self.sync.is_some() {
            return false;
        }
        self.syncs += 1;
        self.agent.sql.statements.clear();
        if let Some(session) = &self.session {
            network.set_weather(session.connection, weather);
        }
        self.sync = Some(Box::new(Sync::new(weather, self.agent.time)));
        true
    }

    /// The present sync of the present life.
    pub fn turn(&self) -> Turn {
        Turn { life: self.life, sync: self.syncs }
    }

    /// A stream of the present connection that was not used before.
    pub fn new_stream(&mut self) -> StreamId {
        self.streams += 1;
        self.streams
    }

    /// Who works on the database, and when, by this machine's clock.
    pub fn claim(&self) -> Claim {
        Claim { holder: self.agent.holder, now_ms: self.clock.now_ms() }
    }

    /// The hub's clock, as far as this side can tell; `now_ms` is the true time.
    pub fn hub_clock(&self, now_ms: i64) -> HubClock {
        self.session.unwrap().offset.clock(self.reading(now_ms))
    }

    /// This machine's clocks, when the true time is `now_ms`.
    pub fn reading(&self, now_ms: i64) -> Reading {
        let running = Duration::from_millis(now_ms.unsigned_abs());
        Reading { wall_us: self.clock.now_ms() * 1_000, running }
    }

    /// A random id, in case that the database needs one.
    pub fn fresh_replica(&mut self) -> ReplicaId {
        ReplicaId((self.mint)())
    }

    /// Gives up the connection.
    pub fn hang_up(&mut self, network: &mut Network) {
        if let Some(session) = self.session.take() {
            network.send(session.connection, Way::ToHub, 0, Packet::Closed);
        }
        self.attached = None;
    }

    /// Disconnects: with a goodbye, if no sync has left anything uncertain.
    pub fn say_goodbye(&mut self, network: &mut Network) {
        if let Some(session) = self.session.take() {
            let packet = if self.attached.is_some() { Packet::Goodbye } else { Packet::Closed };
            network.send(session.connection, Way::ToHub, 0, packet);
        }
        self.attached = None;
    }

    /// After a sync that failed: the next one asks the hub anew what it has accepted. Says whether the process
    /// has survived.
    pub fn clean_up(&mut self) -> bool {
        self.attached = None;
        self.give_back()
    }

    /// Gives the lease back, if it has one. Says whether the process has survived.
    pub fn give_back(&mut self) -> bool {
        let claim = self.claim();
        let released = release(&mut self.agent.sql, claim);
        !released.is_err_and(|error| error.kind == SqlErrorKind::Closed)
    }
}

/// A tenant's name, in the token and in all that its agents write.
pub fn tenant_name(tenant: usize) -> String {
    ["acme-corp", "zeta-gmbh", "omega-oy"][tenant].to_owned()
}

/// The name of another tenant that is among these bytes.
pub fn foreign(bytes: &[u8], own: usize, tenants: usize) -> Option<String> {
    let others = (0..tenants).filter(|other| *other != own).map(tenant_name);
    others.into_iter().find(|other| bytes.windows(other.len()).any(|window| window == other.as_bytes()))
}

fn mint(seed: u64, life: u32) -> Mint {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes()).update(&life.to_be_bytes());
    let mut stretched = hasher.finalize_xof();
    Box::new(move || {
        let mut bytes = [0; 16];
        stretched.fill(&mut bytes);
        bytes
    })
}
