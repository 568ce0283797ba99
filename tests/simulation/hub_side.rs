//! The hub: its conversations as the protocol's state machines, its groups as the engine's, and its store in a
//! file that outlives it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use federation_hub::engine::writer::{Answer, Job, Reply, run_group};
use federation_hub::model::ReplicaId;
use federation_hub::protocol::frame::MAX_FRAME_BYTES;
use federation_hub::protocol::hub_request::Caller;
use federation_hub::protocol::hub_session::{
    HubExchange, HubSession, Input, Output, SessionInput, SessionOutput,
};
use federation_hub::protocol::message::{Done, Refused, ToAgent, ToHub, Welcome};
use federation_hub::storage::hub_store::{Checked, RowSource, StoreError, Welcomed, hub_time_ms};
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;
use rusqlite::Connection as Sqlite;
use tempfile::TempDir;
use tokio::sync::oneshot::Receiver;

use crate::clock::Clock;
use crate::network::{ConnectionId, Packet, StreamId, decode};
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
    directory: TempDir,
    store: Option<Mortal<SqliteHubStore>>,
    pub clock: Clock,
    /// How often it was started.
    pub life: u32,
    connections: BTreeMap<ConnectionId, Connection>,
    jobs: Vec<(Job, Waiting)>,
    acts: Vec<Act>,
}

/// An agent's connection, as the hub has it.
#[derive(Default)]
struct Connection {
    session: HubSession,
    caller: Option<Arc<Caller>>,
    streams: BTreeMap<StreamId, Stream>,
    counter: u64,
}

#[derive(Default)]
struct Stream {
    exchange: HubExchange,
    inbox: VecDeque<Option<ToHub>>,
    rest: Option<(Box<dyn RowSource>, Done)>,
}

/// Who waits for an answer of the store.
enum Waiting {
    Stream(ConnectionId, StreamId, Receiver<Reply>),
    Session(ConnectionId, Receiver<Answer<Welcomed>>),
    Nobody,
}

/// An answer of the store.
enum Answered {
    Stream(ConnectionId, StreamId, Reply),
    Session(ConnectionId, Answer<Welcomed>),
}

impl Waiting {
    fn take(&mut self) -> Option<Answered> {
        match self {
            Self::Stream(connection, stream, receiver) => {
                Some(Answered::Stream(*connection, *stream, receiver.try_recv().ok()?))
            }
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
        let mut hub = Self {
            directory: directory.unwrap(),
            store: None,
            clock,
            life: 0,
            connections: BTreeMap::new(),
            jobs: Vec::new(),
            acts: Vec::new(),
        };
        hub.start();
        hub
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("hub.db")
    }

    /// Starts it with what its file holds.
    pub fn start(&mut self) {
        self.life += 1;
        let incarnation = ReplicaId(u128::from(self.life).to_be_bytes());
        let path = self.path();
        let store = SqliteHubStore::open(path.to_str().unwrap(), incarnation).unwrap();
        self.store = Some(Mortal::new(store));
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.store.is_some()
    }

    /// Ends it without a word: what was not committed has not happened.
    pub fn crash(&mut self) {
        // Readers hold the lock on the file.
        self.connections.clear();
        self.jobs.clear();
        self.acts.clear();
        self.store = None;
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
            Packet::Closed => self.close(id),
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

    fn close(&mut self, id: ConnectionId) {
        let Some(Connection { caller: Some(caller), counter, .. }) = self.connections.remove(&id) else {
            return;
        };
        if counter > 0 {
            self.jobs.push((Job::end_session(&caller, counter).0, Waiting::Nobody));
            self.acts.push(Act::Group);
        }
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
                        let (job, answer) = Job::ask(caller, request);
                        self.jobs.push((job, Waiting::Stream(id, stream_id, answer)));
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
        run_group(store, &mut group, self.clock.now_ms());
        let is_dead = store.is_dead();
        let answered: Vec<Answered> = if is_dead {
            escaped.lock().unwrap().drain(..).take(heard).collect()
        } else {
            waiting.lock().unwrap().iter_mut().filter_map(Waiting::take).collect()
        };
        for answered in answered {
            match answered {
                Answered::Session(id, answer) => self.welcome(id, answer),
                Answered::Stream(id, stream, reply) => self.answer(id, stream, reply),
            }
        }
        !is_dead
    }

    fn welcome(&mut self, id: ConnectionId, answer: Answer<Welcomed>) {
        let (Some(store), Some(connection)) = (&self.store, self.connections.get_mut(&id)) else { return };
        let welcome = answer.map(|welcomed| Welcome {
            hub_now_ms: hub_time_ms(self.clock.now_ms(), welcomed.highest),
            incarnation: federation_hub::storage::hub_store::HubStore::incarnation(store),
            counter: welcomed.counter,
            max_frame_bytes: u32::try_from(MAX_FRAME_BYTES).unwrap(),
            may_write: true,
        });
        connection.session.handle(SessionInput::Welcomed(welcome.map_err(Refused::from)));
        self.pump_session(id);
    }

    fn answer(&mut self, id: ConnectionId, stream_id: StreamId, reply: Reply) {
        let found = self.connections.get_mut(&id).and_then(|it| it.streams.get_mut(&stream_id));
        let Some(stream) = found else { return };
        match reply {
            Reply::Attached(answer) => stream.exchange.handle(Input::Attached(answer.map_err(Refused::from))),
            Reply::Registered(answer) => {
                stream.exchange.handle(Input::Registered(answer.map_err(Refused::from)));
            }
            Reply::Pushed(answer) => stream.exchange.handle(Input::Pushed(answer.map_err(Refused::from))),
            Reply::Checked(answer) => {
                let answer = answer.map(|Checked { rows, prints }| (rows, prints));
                stream.exchange.handle(Input::Checked(answer.map_err(Refused::from)));
            }
            Reply::Pulled(Err(error)) => stream.exchange.handle(Input::Pulled(Err(error.into()))),
            Reply::Pulled(Ok(snapshot)) => {
                stream.exchange.handle(Input::PulledTables(snapshot.tables));
                stream.exchange.handle(Input::PulledRows(snapshot.first));
                match snapshot.rest {
                    None => stream.exchange.handle(Input::Pulled(Ok(snapshot.done))),
                    Some(rest) => {
                        stream.rest = Some((rest, snapshot.done));
                        self.acts.push(Act::ReadOn(id, stream_id));
                    }
                }
            }
        }
        self.pump(id, stream_id);
    }

    /// Tells the next chunk of a large pull.
    pub fn read_on(&mut self, id: ConnectionId, stream_id: StreamId) {
        let found = self.connections.get_mut(&id).and_then(|it| it.streams.get_mut(&stream_id));
        let Some(stream) = found else { return };
        let Some((mut rest, done)) = stream.rest.take() else { return };
        match rest.next_chunk() {
            Ok(Some(rows)) => {
                stream.exchange.handle(Input::PulledRows(rows));
                stream.rest = Some((rest, done));
                self.acts.push(Act::ReadOn(id, stream_id));
            }
            Ok(None) => stream.exchange.handle(Input::Pulled(Ok(done))),
            Err(error) => stream.exchange.handle(Input::Pulled(Err(StoreError::into(error)))),
        }
        self.pump(id, stream_id);
    }
}
