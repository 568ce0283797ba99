//! The hub: its conversations as the protocol's state machines, its groups as the engine's, and its store in a
//! file that outlives it.

mod answers;

use answers::Asked;
pub use answers::Promise;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use federation_hub::engine::hub_time::HubTime;
use federation_hub::engine::writer::group::run_group;
use federation_hub::engine::writer::job::{Answer, Greeting, Job, Reply, UpkeepJob};
use federation_hub::model::{ReplicaId, Seq};
use federation_hub::protocol::hub_exchange::{HubExchange, Input, Output};
use federation_hub::protocol::hub_request::Caller;
use federation_hub::protocol::hub_session::{HubSession, SessionInput, SessionOutput};
use federation_hub::protocol::message::{Done, Incarnation, ToAgent, ToHub};
use federation_hub::storage::hub_store::{HubStore, RowSource};
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;
use rusqlite::Connection as Sqlite;
use tempfile::TempDir;
use tokio::sync::oneshot::Receiver;

use crate::case::YEAR_MS;
use crate::clock::Clock;
use crate::network::{ConnectionId, Packet, StreamId, decode};
use crate::power::Power;
use crate::store::{Accepted, Mortal};

/// What the hub wants done.
#[derive(Debug)]
pub enum Act {
    /// Send this.
    Send(ConnectionId, StreamId, Packet),
    /// Let the store work soon.
    Group,
    /// Read on for a large pull.
    ReadOn(ConnectionId, StreamId),
}

/// A hub and its file.
pub struct HubSide {
    power: Power,
    directory: TempDir,
    store: Option<Mortal<SqliteHubStore>>,
    /// What the machine's clock shows.
    pub clock: Clock,
    time: HubTime,
    /// How long the hub has been running.
    running: Duration,
    /// How often it was started.
    pub life: u32,
    connections: BTreeMap<ConnectionId, Connection>,
    jobs: Vec<(Job, Waiting)>,
    acts: Vec<Act>,
    promises: Vec<Promise>,
    /// How long a replica may be silent, in ms.
    agent_ttl_ms: i64,
}

/// An agent's connection, as the hub has it.
#[derive(Default)]
struct Connection {
    session: HubSession,
    caller: Option<Arc<Caller>>,
    streams: BTreeMap<StreamId, Stream>,
    counter: u64,
    /// The replicas that attached, each with its epoch.
    replicas: BTreeMap<ReplicaId, u64>,
}

#[derive(Default)]
struct Stream {
    exchange: HubExchange,
    inbox: VecDeque<Option<ToHub>>,
    rest: Option<(Box<dyn RowSource>, Done)>,
}

/// Who waits for an answer of the store.
enum Waiting {
    Stream(ConnectionId, StreamId, Asked, Receiver<Reply>),
    Upkeep(Receiver<bool>),
    Session(ConnectionId, Receiver<Answer<Greeting>>),
    Nobody,
}

/// An answer of the store.
enum Answered {
    Stream(ConnectionId, StreamId, Asked, Reply),
    Upkeep(bool),
    Session(ConnectionId, Answer<Greeting>),
}

impl Waiting {
    fn take(&mut self) -> Option<Answered> {
        match self {
            Self::Stream(connection, stream, asked, receiver) => {
                Some(Answered::Stream(*connection, *stream, *asked, receiver.try_recv().ok()?))
            }
            Self::Upkeep(receiver) => Some(Answered::Upkeep(receiver.try_recv().ok()?)),
            Self::Session(connection, receiver) => {
                Some(Answered::Session(*connection, receiver.try_recv().ok()?))
            }
            Self::Nobody => None,
        }
    }
}

impl HubSide {
    /// A hub with an empty store.
    pub fn new(clock: Clock) -> Self {
        // A file system in memory, where there is one: a crash is simulated, and nothing depends on the disk.
        let memory = PathBuf::from("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let directory = directory.unwrap();
        let mut hub = Self {
            power: Power::of(directory.path()),
            directory,
            store: None,
            clock,
            time: HubTime::new(0),
            running: Duration::ZERO,
            life: 0,
            connections: BTreeMap::new(),
            jobs: Vec::new(),
            acts: Vec::new(),
            promises: Vec::new(),
            agent_ttl_ms: YEAR_MS,
        };
        hub.start();
        hub
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("hub.db")
    }

    /// Which opening of the store this is.
    pub fn incarnation(&self) -> Incarnation {
        ReplicaId(u128::from(self.life).to_be_bytes())
    }

    /// Starts it with what its file holds.
    pub fn start(&mut self) {
        self.life += 1;
        let path = self.path();
        let store = SqliteHubStore::open(path.to_str().unwrap(), self.incarnation()).unwrap();
        (self.time, self.running) = (HubTime::new(store.kept_time_ms()), Duration::ZERO);
        self.store = Some(Mortal::new(store));
    }

    /// Time passes.
    pub fn pass(&mut self, ms: i64) {
        self.clock.pass(ms);
        self.running += Duration::from_millis(ms.unsigned_abs());
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.store.is_some()
    }

    /// Ends it without a word, and its machine with it: what was not synced to the disk has not happened. Returns
    /// how many writes that were.
    pub fn crash(&mut self) -> usize {
        self.power.cut();
        // Readers hold the lock on the file.
        self.connections.clear();
        self.jobs.clear();
        self.acts.clear();
        self.store = None;
        self.power.restore()
    }

    /// Has it die within so many operations of its store.
    pub fn die_after(&mut self, operations: usize) {
        if let Some(store) = &mut self.store {
            store.dies_after = Some(operations);
        }
    }

    /// Has an operation of its store fail, that many operations from now, or lets all of them succeed.
    pub fn fail_after(&mut self, operations: Option<usize>) {
        if let Some(store) = &mut self.store {
            store.fails_after = operations;
            if operations.is_none() {
                store.dies_after = None;
            }
        }
    }

    /// What its file holds, for a backup.
    pub fn copy(&self) -> Vec<u8> {
        let mut copy = Sqlite::open(self.path()).unwrap();
        copy.serialize("main").unwrap().to_vec()
    }

    /// Replaces the file of a hub that does not run, as the README says it is done.
    pub fn restore(&mut self, copy: &[u8]) {
        assert!(!self.is_up());
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(self.directory.path().join(format!("hub.db{suffix}")));
        }
        std::fs::write(self.path(), copy).unwrap();
    }

    /// What is to be done.
    pub fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// What it has promised.
    pub fn take_promises(&mut self) -> Vec<Promise> {
        std::mem::take(&mut self.promises)
    }

    /// A number of a tenant from the hub's file, as far as it is durable.
    fn number(&self, sql: &str, tenant: &str) -> i64 {
        let file = Sqlite::open(self.path()).unwrap();
        file.query_row(sql, [tenant], |row| row.get(0)).unwrap()
    }

    /// How many lines of a table are a tenant's.
    pub fn count(&self, table: &str, condition: &str, tenant: &str) -> i64 {
        let own = "tenant = (SELECT id FROM tenant WHERE name = ?1)";
        self.number(&format!("SELECT count(*) FROM {table} WHERE {own} AND {condition}"), tenant)
    }

    /// How far a tenant's order has come.
    pub fn position(&self, tenant: &str) -> Seq {
        self.number("SELECT coalesce(max(seq), 0) FROM tenant WHERE name = ?1", tenant).cast_unsigned()
    }

    /// Batches that became durable, in the hub's order.
    pub fn take_accepted(&mut self) -> Vec<Accepted> {
        self.store.as_mut().map(|store| std::mem::take(&mut store.accepted)).unwrap_or_default()
    }

    /// Something arrives.
    pub fn arrive(&mut self, id: ConnectionId, stream: StreamId, packet: Packet) {
        if !self.is_up() {
            return;
        }
        match packet {
            Packet::Closed => self.close(id, false),
            Packet::Goodbye => self.close(id, true),
            Packet::Frame(frame) if stream == 0 => self.greet(id, decode(&frame)),
            Packet::End if stream == 0 => {}
            Packet::Frame(_) | Packet::End => {
                let Some(connection) = self.connections.get_mut(&id).filter(|it| it.caller.is_some()) else {
                    // A connection of an earlier life, or one that was refused: a stateless reset.
                    self.acts.push(Act::Send(id, stream, Packet::Closed));
                    return;
                };
                let message = if let Packet::Frame(frame) = packet { Some(decode(&frame)) } else { None };
                connection.streams.entry(stream).or_default().inbox.push_back(message);
                self.pump(id, stream);
            }
        }
    }

    fn close(&mut self, id: ConnectionId, is_goodbye: bool) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let Connection { caller: Some(caller), counter, replicas, .. } = connection else { return };
        let job = if is_goodbye {
            Job::retire(&caller, replicas.into_iter().collect()).0
        } else if counter > 0 {
            Job::end_session(&caller, counter).0
        } else {
            return;
        };
        self.jobs.push((job, Waiting::Nobody));
        self.acts.push(Act::Group);
    }

    /// Has the store do what became due with time. A replica may be silent for so long, in ms.
    pub fn upkeep(&mut self, agent_ttl_ms: i64) {
        if !self.is_up() {
            return;
        }
        self.agent_ttl_ms = agent_ttl_ms;
        let mut connected = HashSet::new();
        for connection in self.connections.values() {
            if let Some(caller) = &connection.caller {
                connected.extend(connection.replicas.keys().map(|replica| (caller.tenant.clone(), *replica)));
            }
        }
        let job = UpkeepJob { wall_ms: self.clock.now_ms(), agent_ttl_ms, connected };
        let (job, more) = Job::upkeep(job);
        self.jobs.push((job, Waiting::Upkeep(more)));
        self.acts.push(Act::Group);
    }

    fn greet(&mut self, id: ConnectionId, hello: ToHub) {
        let connection = self.connections.entry(id).or_default();
        connection.session.handle(SessionInput::Message(hello));
        self.pump_session(id);
    }

    fn pump_session(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        while let Some(output) = connection.session.poll() {
            match output {
                SessionOutput::Verify { token } => {
                    let (tenant, agent) = token.split_once('\n').unwrap();
                    let caller = Caller { tenant: tenant.to_owned(), agent: agent.to_owned() };
                    connection.session.handle(SessionInput::Verified(Ok(caller)));
                }
                SessionOutput::Welcome(caller) => {
                    let (job, answer) = Job::welcome(&Arc::new(caller));
                    self.jobs.push((job, Waiting::Session(id, answer)));
                    self.acts.push(Act::Group);
                }
                SessionOutput::Send(message) => self.acts.push(Act::Send(id, 0, Packet::of(&message))),
                SessionOutput::Ready(caller) => connection.caller = Some(Arc::new(caller)),
                SessionOutput::Close(_) => self.acts.push(Act::Send(id, 0, Packet::Closed)),
            }
        }
    }

    fn pump(&mut self, id: ConnectionId, stream_id: StreamId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (Some(stream), Some(caller)) = (connection.streams.get_mut(&stream_id), &connection.caller)
        else {
            return;
        };
        loop {
            while let Some(output) = stream.exchange.poll() {
                match output {
                    Output::Store(request) => {
                        let asked = Asked::of(&request);
                        let (job, answer) = Job::ask(caller, request);
                        self.jobs.push((job, Waiting::Stream(id, stream_id, asked, answer)));
                        self.acts.push(Act::Group);
                    }
                    Output::Send(message) => {
                        self.acts.push(Act::Send(id, stream_id, Packet::of::<ToAgent>(&message)));
                    }
                    Output::Finish => {
                        connection.counter = connection.counter.max(stream.exchange.counter());
                        self.acts.push(Act::Send(id, stream_id, Packet::End));
                        connection.streams.remove(&stream_id);
                        return;
                    }
                }
            }
            let message = if stream.exchange.wants_message() { stream.inbox.pop_front() } else { None };
            match message {
                Some(message) => stream.exchange.handle(message.map_or(Input::Finished, Input::Message)),
                None => return,
            }
        }
    }

    /// The store works. Says whether the hub lives on; of a hub that died, `heard` answers were on their way.
    pub fn group(&mut self, heard: usize) -> bool {
        let Some(store) = &mut self.store else { return false };
        let (mut group, waiting): (Vec<Job>, Vec<Waiting>) = self.jobs.drain(..).unzip();
        let waiting = Arc::new(Mutex::new(waiting));
        let escaped = Arc::new(Mutex::new(Vec::new()));
        let (all, before_death) = (Arc::clone(&waiting), Arc::clone(&escaped));
        store.at_death = Some(Box::new(move || {
            let answered = all.lock().unwrap().iter_mut().filter_map(Waiting::take).collect();
            *before_death.lock().unwrap() = answered;
        }));
        run_group(store, &mut group, self.time.read(self.clock.now_ms(), self.running));
        let is_dead = store.is_dead();
        let answered: Vec<Answered> = if is_dead {
            escaped.lock().unwrap().drain(..).take(heard).collect()
        } else {
            waiting.lock().unwrap().iter_mut().filter_map(Waiting::take).collect()
        };
        for answered in answered {
            match answered {
                Answered::Session(id, answer) => self.welcome(id, answer),
                Answered::Stream(id, stream, asked, reply) => {
                    self.note(id, asked, &reply);
                    self.answer(id, stream, reply);
                }
                Answered::Upkeep(more) => {
                    if more {
                        self.upkeep(self.agent_ttl_ms);
                    }
                }
            }
        }
        !is_dead
    }
}
