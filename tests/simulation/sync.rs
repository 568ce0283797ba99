//! One sync of a process, in steps between which anything may happen: the engine's loop, taken apart.
//!
//! ```text
//! Connect ─► Greeting ─► Open ─► Attaching ─► Reconcile ─► Collect… ─► Receiving ⇄ Applying ─► done
//! ```

mod steps;

use std::collections::VecDeque;

use federation_hub::engine::hub_offset::Reading;
use federation_hub::protocol::agent_session::AgentExchange;
use federation_hub::protocol::message::{Ack, Attached, Batch, Done, Refusal, Refused, Rows, ToAgent, ToHub};
use federation_hub::storage::acknowledged::{Acknowledged, Booking};
use federation_hub::storage::apply::Incoming;
use federation_hub::storage::bookkeeping::{ReplicaState, SentBatch};
use federation_hub::storage::driver::{SqlError, SqlErrorKind};
use federation_hub::storage::look::Slice;
use federation_hub::storage::refused_rows::{Places, RefusedRow};
use federation_hub::storage::replica::ApplyExtras;
use federation_hub::storage::retrial::Retrial;
use federation_hub::storage::turn_time::TurnTime;

use crate::network::{ConnectionId, IDLE_MS, Network, Packet, StreamId};
use crate::process::Session;
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
    Greeting { connection: ConnectionId, asked: Reading },
    Open,
    Attaching { asked: Box<ReplicaState> },
    Reconcile { asked: Box<ReplicaState>, attached: Attached },
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
    /// How long a turn works on rows.
    time: TurnTime,
    /// How far trying again what is set aside has come.
    retrial: Retrial,
    /// What the self-check of this sync has looked at.
    look: Vec<Slice>,
    arrived: Arrived,
    /// Whether it sends nothing before it has been told of everything.
    pulls_first: bool,
    pub moved: Moved,
}

/// What the first collecting turn found, and what was sent since.
struct Push {
    exchange: AgentExchange,
    state: ReplicaState,
    under_way: VecDeque<(u64, SentBatch, Places)>,
    /// When its end was sent.
    ended: Option<Reading>,
    is_done: bool,
}

/// What has come and is not applied yet.
#[derive(Default)]
struct Arrived {
    acknowledged: Acknowledged,
    rows: Rows,
    extras: ApplyExtras,
}

impl Sync {
    /// A sync that begins.
    pub fn new(weather: Weather, time: TurnTime) -> Self {
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
            time,
            retrial: Retrial::within(time),
            look: Vec::new(),
            arrived: Arrived::default(),
            pulls_first: false,
            moved: Moved::default(),
        }
    }

    /// Begins anew, once. The weather of a second connection is another one.
    pub fn retry(&mut self) {
        let weather = Weather { seed: self.weather.seed.wrapping_add(1), ..Weather::calm(0) };
        let is_counted = self.is_counted;
        *self = Self { is_retry: true, is_counted, ..Self::new(weather, self.time) };
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
        matches!(self.stage, Stage::Greeting { .. } | Stage::Attaching { .. } | Stage::Receiving)
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
        SqlErrorKind::Constraint | SqlErrorKind::Statement | SqlErrorKind::Other => {
            Flow::Broken(format!("a turn failed: {error}"))
        }
    }
}

fn refused(refused: &Refused) -> Flow {
    match refused.reason {
        Refusal::Stale => Flow::Failed(Remedy::Attach),
        Refusal::Stopping => Flow::Failed(Remedy::Reconnect),
        Refusal::Store | Refusal::Clock | Refusal::NoRoom => Flow::Failed(Remedy::None),
        // No simulated hub has limits of these kinds.
        Refusal::Busy
        | Refusal::Quota
        | Refusal::Full
        | Refusal::Unauthenticated
        | Refusal::Forbidden
        | Refusal::Protocol => Flow::Broken(format!("the hub refused: {}", refused.message)),
    }
}

fn unexpected(message: Option<ToAgent>) -> Flow {
    match message {
        Some(ToAgent::Refused(why)) => refused(&why),
        None => Flow::Failed(Remedy::Reconnect),
        Some(message) => Flow::Broken(format!("the hub answered something else than was asked: {message:?}")),
    }
}

impl Sync {
    fn send_batch(
        &mut self,
        connection: ConnectionId,
        network: &mut Network,
        sent: SentBatch,
        batch: Batch,
        places: Places,
    ) {
        let Some(push) = &mut self.push else { return };
        push.exchange.sent(batch.n);
        push.under_way.push_back((batch.n, sent, places));
        network.send(connection, Way::ToHub, self.stream, Packet::of(&ToHub::Batch(batch)));
    }

    /// All that was to come has come. What was not to be sent before is sent now.
    fn end(&mut self) -> Flow {
        if !std::mem::take(&mut self.pulls_first) {
            return Flow::Complete;
        }
        (self.push, self.arrived) = (None, Arrived::default());
        self.look.clear();
        self.stage = Stage::Collect;
        Flow::Soon(1)
    }

    fn acknowledged(&mut self, ack: &Ack) {
        let Some((_, sent, places)) = self.push.as_mut().and_then(|push| push.under_way.pop_front()) else {
            return;
        };
        let rejected = ack.rejected.len() as u64;
        self.moved.pushed += (places.len() as u64).saturating_sub(rejected);
        let refused = RefusedRow::of_batch(sent.mark, &places, &ack.rejected);
        self.arrived.acknowledged.add(sent, 0, refused);
        self.moved.rejected += rejected;
        self.moved.conflicts += u64::from(ack.conflicts);
    }

    /// Cuts what has arrived into turns; the last one takes the end.
    fn cut(&mut self, done: Option<&Done>, size: usize) {
        let Rows { tables, rows } = std::mem::take(&mut self.arrived.rows);
        if rows.is_empty() && done.is_none() {
            return;
        }
        while self.arrived.acknowledged.takes_turns() {
            let Booking { acked, refused, .. } = self.arrived.acknowledged.next_turn();
            self.slices.push_back(Incoming { acked, refused, ..Incoming::default() });
        }
        let mut slices: Vec<Vec<_>> = rows.chunks(size).map(<[_]>::to_vec).collect();
        if slices.is_empty() {
            slices.push(Vec::new());
        }
        let last = slices.len() - 1;
        for (at, rows) in slices.into_iter().enumerate() {
            let Booking { acked, refused, .. } = self.arrived.acknowledged.next_turn();
            self.slices.push_back(Incoming {
                acked,
                refused,
                rows: Rows { tables: tables.clone(), rows },
                done: done.filter(|_| at == last).cloned(),
                retry: false,
            });
        }
    }
}

impl Arrived {
    fn is_nothing(&self) -> bool {
        self.acknowledged.is_empty() && self.rows.rows.is_empty() && self.extras.is_empty()
    }
}
