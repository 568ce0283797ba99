//! One sync of a process, in steps between which anything may happen: the engine's loop, taken apart.
//!
//! ```text
//! Connect ─► Greeting ─► Open ─► Attaching ─► Reconcile ─► Collect… ─► Receiving ⇄ Applying ─► done
//! ```

use std::collections::VecDeque;

use federation_hub::protocol::agent_session::{AgentExchange, ExchangeError, Step};
use federation_hub::protocol::message::{
    Ack, Attach, Attached, Batch, Done, Hello, Refusal, Refused, Rows, SyncBegin, ToAgent, ToHub, Welcome,
};
use federation_hub::storage::apply::Incoming;
use federation_hub::storage::attach::{TurnError, open, reconcile};
use federation_hub::storage::bookkeeping::{ReplicaState, SentBatch};
use federation_hub::storage::driver::{SqlError, SqlErrorKind};
use federation_hub::storage::look::Slice;
use federation_hub::storage::replica::{ApplyExtras, Setting, apply_turn, collect_turn};
use federation_hub::storage::scratch::prove_harmless;
use federation_hub::storage::search::{Search, compare};

use crate::network::{ConnectionId, IDLE_MS, Network, Packet, StreamId};
use crate::process::{Process, Session, tenant_name};
use crate::weather::{Way, Weather};

/// How often a database attaches anew before it is given up.
const MAX_ATTACHES: usize = 3;

/// How long a turn that finds the database busy pauses, in ms.
const PAUSE_MS: i64 = 200;

/// What comes of a step.
#[derive(Debug)]
pub enum Flow {
    /// The next step comes after so many ms.
    Soon(i64),
    /// The next step comes with the next message.
    Wait,
    /// The sync is complete.
    Complete,
    /// The sync has failed, as syncs do.
    Failed(Remedy),
    /// The process died.
    Died,
    /// Something happened that must not.
    Broken(String),
}

/// What the agent itself does about a failure, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    None,
    Reconnect,
    Attach,
}

#[derive(Debug)]
enum Stage {
    Connect,
    Greeting { connection: ConnectionId, asked_at_ms: i64 },
    Open,
    Attaching,
    Reconcile(Attached),
    Collect,
    Receiving,
    Applying,
}

/// What a sync did, in rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub pulled: u64,
    pub pushed: u64,
    pub conflicts: u64,
    pub quarantined: u64,
    pub rejected: u64,
}

/// A sync under way.
pub struct Sync {
    stage: Stage,
    weather: Weather,
    /// Messages of the present stream that were not looked at yet; nothing stands for its end.
    inbox: VecDeque<Option<ToAgent>>,
    stream: StreamId,
    /// Grows with everything that the hub says.
    pub progress: u64,
    /// Whether the one retry was used.
    pub is_retry: bool,
    is_counted: bool,
    attaches: usize,
    busy_since_ms: Option<i64>,
    push: Option<Push>,
    slices: VecDeque<Incoming>,
    /// What the self-check of this sync has looked at.
    look: Vec<Slice>,
    arrived: Arrived,
    is_done: bool,
    pub moved: Moved,
}

/// What the first collecting turn found, and what was sent since.
struct Push {
    exchange: AgentExchange,
    state: ReplicaState,
    under_way: VecDeque<(u64, SentBatch, u64)>,
}

/// What has come and is not applied yet.
#[derive(Default)]
struct Arrived {
    acked: Vec<SentBatch>,
    rows: Rows,
    extras: ApplyExtras,
}

impl Sync {
    /// A sync that begins.
    pub fn new(weather: Weather) -> Self {
        Self {
            stage: Stage::Connect,
            weather,
            inbox: VecDeque::new(),
            stream: 0,
            progress: 0,
            is_retry: false,
            is_counted: false,
            attaches: 0,
            busy_since_ms: None,
            push: None,
            slices: VecDeque::new(),
            look: Vec::new(),
            arrived: Arrived::default(),
            is_done: false,
            moved: Moved::default(),
        }
    }

    /// Begins anew, once. The weather of a second connection is another one.
    pub fn retry(&mut self) {
        let weather = Weather { seed: self.weather.seed.wrapping_add(1), ..Weather::calm(0) };
        let is_counted = self.is_counted;
        *self = Self { is_retry: true, is_counted, ..Self::new(weather) };
    }

    /// Whether a message of this stream is for this sync.
    pub fn listens_to(&self, connection: ConnectionId, stream: StreamId, session: Option<&Session>) -> bool {
        match self.stage {
            Stage::Greeting { connection: greeting, .. } => greeting == connection && stream == 0,
            _ => session.is_some_and(|it| it.connection == connection) && stream == self.stream,
        }
    }

    /// Whether it stands or falls with this connection.
    pub fn uses(&self, connection: ConnectionId, session: Option<&Session>) -> bool {
        match self.stage {
            Stage::Greeting { connection: greeting, .. } => greeting == connection,
            Stage::Connect => false,
            _ => session.is_some_and(|it| it.connection == connection),
        }
    }

    /// The connection that it waits on.
    pub fn connection(&self, session: Option<&Session>) -> Option<ConnectionId> {
        match self.stage {
            Stage::Greeting { connection, .. } => Some(connection),
            _ => session.map(|it| it.connection),
        }
    }

    /// A message arrives. Says whether the sync was waiting for it.
    pub fn arrive(&mut self, message: Option<ToAgent>) -> bool {
        self.progress += 1;
        self.inbox.push_back(message);
        matches!(self.stage, Stage::Greeting { .. } | Stage::Attaching | Stage::Receiving)
    }
}

/// A failed turn, in the engine's terms.
fn failed(sync: &mut Sync, error: &SqlError, now_ms: i64) -> Flow {
    match error.kind {
        SqlErrorKind::Busy | SqlErrorKind::Leased | SqlErrorKind::InTransaction => {
            let since_ms = *sync.busy_since_ms.get_or_insert(now_ms);
            if now_ms - since_ms > IDLE_MS { Flow::Failed(Remedy::None) } else { Flow::Soon(PAUSE_MS) }
        }
        SqlErrorKind::Closed => Flow::Died,
        SqlErrorKind::Detached | SqlErrorKind::Unsettled => Flow::Failed(Remedy::Attach),
        SqlErrorKind::Constraint | SqlErrorKind::Other => Flow::Broken(format!("a turn failed: {error}")),
    }
}

fn refused(refused: &Refused) -> Flow {
    match refused.reason {
        Refusal::Stale => Flow::Failed(Remedy::Attach),
        Refusal::Stopping => Flow::Failed(Remedy::Reconnect),
        Refusal::Store | Refusal::Clock => Flow::Failed(Remedy::None),
        Refusal::Unauthenticated | Refusal::Forbidden | Refusal::Protocol => {
            Flow::Broken(format!("the hub refused: {}", refused.message))
        }
    }
}

fn unexpected(message: Option<ToAgent>) -> Flow {
    match message {
        Some(ToAgent::Refused(why)) => refused(&why),
        None => Flow::Failed(Remedy::Reconnect),
        Some(message) => Flow::Broken(format!("the hub answered something else than was asked: {message:?}")),
    }
}

impl Process {
    /// Takes the next step of the sync that is under way.
    pub fn step(&mut self, own: usize, network: &mut Network) -> Flow {
        let Some(mut sync) = self.sync.take() else { return Flow::Wait };
        let stage = std::mem::replace(&mut sync.stage, Stage::Connect);
        let flow = match stage {
            Stage::Connect => self.connect(&mut sync, own, network),
            Stage::Greeting { connection, asked_at_ms } => {
                self.greeting(&mut sync, connection, asked_at_ms, network.queue.now_ms())
            }
            Stage::Open => self.open(&mut sync, network),
            Stage::Attaching => attaching(&mut sync),
            Stage::Reconcile(attached) => self.reconcile(&mut sync, attached, network),
            Stage::Collect => self.collect(&mut sync, network),
            Stage::Receiving => self.receiving(&mut sync),
            Stage::Applying => self.applying(&mut sync, network.queue.now_ms()),
        };
        if !matches!(flow, Flow::Soon(PAUSE_MS)) {
            sync.busy_since_ms = None;
        }
        self.sync = Some(sync);
        flow
    }

    fn connect(&mut self, sync: &mut Sync, own: usize, network: &mut Network) -> Flow {
        if self.session.is_some() {
            self.count(sync);
            sync.stage = if self.attached.is_some() { Stage::Collect } else { Stage::Open };
            return Flow::Soon(0);
        }
        let connection = network.open(own, sync.weather);
        let (tenant, agent) = (tenant_name(self.birth.tenant), self.birth.name.clone());
        let hello = Hello { token: format!("{tenant}\n{agent}"), tenant, agent };
        network.send(connection, Way::ToHub, 0, Packet::of(&ToHub::Hello(hello)));
        network.send(connection, Way::ToHub, 0, Packet::End);
        sync.stage = Stage::Greeting { connection, asked_at_ms: self.clock.now_ms() };
        Flow::Wait
    }

    fn count(&mut self, sync: &mut Sync) {
        if !sync.is_counted {
            self.counter += 1;
            sync.is_counted = true;
        }
    }

    fn greeting(&mut self, sync: &mut Sync, connection: ConnectionId, asked_at_ms: i64, now_ms: i64) -> Flow {
        let Some(message) = sync.inbox.pop_front() else {
            sync.stage = Stage::Greeting { connection, asked_at_ms };
            return Flow::Wait;
        };
        let Some(ToAgent::Welcome(welcome)) = message else { return unexpected(message) };
        let Welcome { hub_now_ms, incarnation, counter, .. } = welcome;
        let wall_ms = asked_at_ms + (self.clock.now_ms() - asked_at_ms) / 2;
        let (offset_ms, hub_time) = (hub_now_ms - wall_ms, (hub_now_ms, now_ms));
        self.session = Some(Session { connection, incarnation, offset_ms, hub_time });
        self.attached = None;
        if self.counter == 0 {
            self.counter = counter;
        }
        self.count(sync);
        sync.stage = Stage::Open;
        Flow::Soon(0)
    }

    fn open(&mut self, sync: &mut Sync, network: &mut Network) -> Flow {
        let (tenant, fresh, claim) = (tenant_name(self.birth.tenant), self.fresh_replica(), self.claim());
        match open(&mut self.agent.sql, &tenant, fresh, claim, &self.birth.options) {
            Ok(state) => self.attach(sync, &state, state.incarnation.is_none(), network),
            Err(TurnError::Sql(error)) => {
                sync.stage = Stage::Open;
                failed(sync, &error, network.queue.now_ms())
            }
            Err(error) => Flow::Broken(error.to_string()),
        }
    }

    fn attach(&mut self, sync: &mut Sync, state: &ReplicaState, is_new: bool, network: &mut Network) -> Flow {
        let Some(session) = self.session else { return Flow::Failed(Remedy::Reconnect) };
        sync.inbox.clear();
        sync.stream = self.new_stream();
        sync.attaches += 1;
        let message = ToHub::Attach(Attach { replica: state.replica, cursor: state.cursor, is_new });
        network.send(session.connection, Way::ToHub, sync.stream, Packet::of(&message));
        network.send(session.connection, Way::ToHub, sync.stream, Packet::End);
        sync.stage = Stage::Attaching;
        Flow::Wait
    }

    fn reconcile(&mut self, sync: &mut Sync, attached: Attached, network: &mut Network) -> Flow {
        let Some(session) = self.session else { return Flow::Failed(Remedy::Reconnect) };
        let (tenant, fresh, claim) = (tenant_name(self.birth.tenant), self.fresh_replica(), self.claim());
        let sql = &mut self.agent.sql;
        match reconcile(sql, &tenant, session.incarnation, &attached, fresh, claim) {
            Ok(reconciled) if !reconciled.renewed => {
                self.attached = Some((attached.epoch, None));
                sync.stage = Stage::Collect;
                Flow::Soon(1)
            }
            // The database is synced by others meanwhile, or the hub is not at rest.
            Ok(_) if sync.attaches >= MAX_ATTACHES => Flow::Failed(Remedy::None),
            Ok(reconciled) => self.attach(sync, &reconciled.state, true, network),
            Err(error) => {
                sync.stage = Stage::Reconcile(attached);
                failed(sync, &error, network.queue.now_ms())
            }
        }
    }

    fn collect(&mut self, sync: &mut Sync, network: &mut Network) -> Flow {
        let (Some(session), Some((epoch, catalog))) = (self.session, self.attached.clone()) else {
            return Flow::Failed(Remedy::Reconnect);
        };
        let clock = self.hub_clock(network.queue.now_ms());
        let setting = Setting { clock, claim: self.claim(), options: &self.birth.options };
        let turn = collect_turn(&mut self.agent.sql, catalog, setting, self.agent.limits, &mut self.mint);
        let turn = match turn {
            Ok(turn) => turn,
            Err(error) => {
                sync.stage = Stage::Collect;
                return failed(sync, &error, network.queue.now_ms());
            }
        };
        self.attached = Some((epoch, Some(turn.catalog)));
        if sync.push.is_none() {
            sync.moved.quarantined = turn.quarantined;
            sync.inbox.clear();
            sync.stream = self.new_stream();
            sync.arrived.extras.refreshed.clone_from(&turn.refresh);
            sync.arrived.extras.schema_digest = turn.schema.as_ref().map(|(_, digest)| *digest);
            let state = turn.state;
            let begin = SyncBegin {
                replica: state.replica,
                epoch,
                cursor: state.cursor,
                resume: state.resume,
                counter: self.counter,
                schema: turn.schema.map(|(schema, _)| schema).unwrap_or_default(),
                refresh: turn.refresh,
            };
            network.send(session.connection, Way::ToHub, sync.stream, Packet::of(&ToHub::Sync(begin)));
            let exchange = AgentExchange::new(state.cursor);
            sync.push = Some(Push { exchange, state, under_way: VecDeque::new() });
        }
        sync.moved.rejected += turn.collected.rejected.len() as u64;
        if turn.strays > 0 {
            return Flow::Broken(format!("rows that nobody has written differ: {:?}", turn.notices));
        }
        if let Some((sent, batch)) = turn.collected.batch {
            sync.send_batch(session.connection, network, sent, batch, turn.collected.rows);
        }
        if turn.collected.more {
            sync.stage = Stage::Collect;
            return Flow::Soon(1);
        }
        if let Some(push) = sync.push.as_mut().filter(|_| !turn.look.is_empty()) {
            let check = compare(&turn.look);
            push.exchange.asked(check.ranges.len());
            network.send(session.connection, Way::ToHub, sync.stream, Packet::of(&ToHub::Check(check)));
            sync.look = turn.look;
        }
        network.send(session.connection, Way::ToHub, sync.stream, Packet::of(&ToHub::End));
        network.send(session.connection, Way::ToHub, sync.stream, Packet::End);
        sync.stage = Stage::Receiving;
        Flow::Soon(0)
    }

    fn receiving(&mut self, sync: &mut Sync) -> Flow {
        let Some(message) = sync.inbox.pop_front() else {
            sync.stage = Stage::Receiving;
            return Flow::Wait;
        };
        let Some(message) = message else { return Flow::Failed(Remedy::Reconnect) };
        let Some(push) = &mut sync.push else { return Flow::Broken("an answer to nothing".into()) };
        sync.stage = Stage::Receiving;
        match push.exchange.receive(message) {
            Err(ExchangeError::Refused(why)) => return refused(&why),
            Err(error) => return Flow::Broken(error.to_string()),
            Ok(Step::Acked(ack)) => sync.acknowledged(&ack),
            Ok(Step::Compared(prints)) => {
                // Nothing damages a database here, so that nothing may be found to be damaged.
                if Search::new(&sync.look, &prints).next_step().is_some() {
                    return Flow::Broken("the self-check finds a difference".into());
                }
            }
            Ok(Step::Tables(tables)) => {
                let known = self.attached.as_ref().and_then(|(_, catalog)| catalog.as_ref());
                for table in &tables {
                    if known.is_none_or(|it| it.catalog.table(&table.name).is_none()) {
                        if let Err(why) = prove_harmless(table) {
                            return Flow::Broken(format!("{} is not harmless: {why}", table.name));
                        }
                        sync.arrived.extras.tables.push(table.clone());
                    }
                }
                sync.arrived.extras.told.extend(tables);
            }
            Ok(Step::Rows(rows)) => {
                sync.cut(None, self.agent.slice);
                sync.arrived.rows = rows;
                sync.stage = Stage::Applying;
            }
            Ok(Step::Done(done)) => {
                let is_idle = sync.arrived.is_nothing()
                    && done.cursor == push.state.cursor
                    && done.horizon <= push.state.buried;
                if is_idle {
                    return Flow::Complete;
                }
                sync.cut(Some(&done), self.agent.slice);
                sync.is_done = true;
                sync.stage = Stage::Applying;
            }
        }
        Flow::Soon(0)
    }

    fn applying(&mut self, sync: &mut Sync, now_ms: i64) -> Flow {
        let Some(incoming) = sync.slices.pop_front() else {
            sync.stage = Stage::Receiving;
            return if sync.is_done { Flow::Complete } else { Flow::Soon(0) };
        };
        let Some((epoch, catalog)) = self.attached.clone() else { return Flow::Failed(Remedy::Attach) };
        let setting =
            Setting { clock: self.hub_clock(now_ms), claim: self.claim(), options: &self.birth.options };
        let mut incoming = incoming;
        incoming.retry = incoming.done.is_some() && sync.moved.quarantined > 0;
        if incoming.touches_tables()
            && let Some(after) = self.dies_applying.take()
        {
            self.agent.sql.dies_after = Some(after);
        }
        let extras = &sync.arrived.extras;
        let turn = apply_turn(&mut self.agent.sql, catalog, setting, &mut self.mint, extras, &incoming);
        sync.stage = Stage::Applying;
        match turn {
            Ok(turn) => {
                (sync.arrived.extras.told, sync.arrived.extras.tables) = (Vec::new(), Vec::new());
                self.attached = Some((epoch, Some(turn.catalog)));
                sync.moved.pulled += turn.applied.rows;
                sync.moved.quarantined = turn.applied.quarantined;
                Flow::Soon(1)
            }
            Err(error) => {
                sync.slices.push_front(incoming);
                failed(sync, &error, now_ms)
            }
        }
    }
}

fn attaching(sync: &mut Sync) -> Flow {
    let Some(message) = sync.inbox.pop_front() else {
        sync.stage = Stage::Attaching;
        return Flow::Wait;
    };
    let Some(ToAgent::Attached(attached)) = message else { return unexpected(message) };
    sync.stage = Stage::Reconcile(attached);
    Flow::Soon(0)
}

impl Sync {
    fn send_batch(
        &mut self,
        connection: ConnectionId,
        network: &mut Network,
        sent: SentBatch,
        batch: Batch,
        rows: u64,
    ) {
        let Some(push) = &mut self.push else { return };
        push.exchange.sent(batch.n);
        push.under_way.push_back((batch.n, sent, rows));
        network.send(connection, Way::ToHub, self.stream, Packet::of(&ToHub::Batch(batch)));
    }

    fn acknowledged(&mut self, ack: &Ack) {
        let Some((_, sent, rows)) = self.push.as_mut().and_then(|push| push.under_way.pop_front()) else {
            return;
        };
        let rejected = ack.rejected.len() as u64;
        self.moved.pushed += rows.saturating_sub(rejected);
        self.moved.rejected += rejected;
        self.moved.conflicts += u64::from(ack.conflicts);
        self.arrived.acked.push(sent);
    }

    /// Cuts what has arrived into turns; the last one takes the end.
    fn cut(&mut self, done: Option<&Done>, size: usize) {
        let Rows { tables, rows } = std::mem::take(&mut self.arrived.rows);
        if rows.is_empty() && done.is_none() {
            return;
        }
        let mut slices: Vec<Vec<_>> = rows.chunks(size).map(<[_]>::to_vec).collect();
        if slices.is_empty() {
            slices.push(Vec::new());
        }
        let last = slices.len() - 1;
        for (at, rows) in slices.into_iter().enumerate() {
            self.slices.push_back(Incoming {
                acked: std::mem::take(&mut self.arrived.acked),
                rows: Rows { tables: tables.clone(), rows },
                done: done.filter(|_| at == last).cloned(),
                retry: false,
            });
        }
    }
}

impl Arrived {
    fn is_nothing(&self) -> bool {
        self.acked.is_empty() && self.rows.rows.is_empty() && self.extras.is_empty()
    }
}
