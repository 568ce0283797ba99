//! The steps of a sync: what the engine's loop does between two messages, or two turns of a database.

use std::collections::VecDeque;

use federation_hub::engine::hub_offset::{HubOffset, Reading};
use federation_hub::protocol::agent_session::{AgentExchange, ExchangeError, Step};
use federation_hub::protocol::message::{Attach, Attached, Hello, SyncBegin, ToAgent, ToHub, Welcome};
use federation_hub::storage::attach::{Next, Reconciled, TurnError, open, reconcile};
use federation_hub::storage::bookkeeping::ReplicaState;
use federation_hub::storage::collect::TurnLimits;
use federation_hub::storage::held_back::NOTHING;
use federation_hub::storage::missing_tables::Missing;
use federation_hub::storage::replica::{Setting, apply_turn, collect_turn};
use federation_hub::storage::retrial::Retrial;
use federation_hub::storage::search::{Search, compare};

use crate::network::{ConnectionId, Network, Packet};
use crate::process::{Process, Session, tenant_name};
use crate::weather::Way;

use super::{Flow, MAX_ATTACHES, PAUSE_MS, Push, Remedy, Stage, Sync, failed, refused, unexpected};

impl Process {
    /// Takes the next step of the sync that is under way.
    pub fn step(&mut self, own: usize, network: &mut Network) -> Flow {
        let Some(mut sync) = self.sync.take() else { return Flow::Wait };
        let stage = std::mem::replace(&mut sync.stage, Stage::Connect);
        let flow = match stage {
            Stage::Connect => self.connect(&mut sync, own, network),
            Stage::Greeting { connection, asked } => {
                self.greeting(&mut sync, connection, asked, network.queue.now_ms())
            }
            Stage::Open => self.open(&mut sync, network),
            Stage::Attaching { asked } => attaching(&mut sync, asked),
            Stage::Reconcile { asked, attached } => self.reconcile(&mut sync, asked, attached, network),
            Stage::Collect => self.collect(&mut sync, network),
            Stage::Receiving => self.receiving(&mut sync, network.queue.now_ms()),
            Stage::Applying => self.applying(&mut sync, network.queue.now_ms()),
        };
        if !matches!(flow, Flow::Soon(PAUSE_MS)) {
            sync.busy_since_ms = None;
        }
        self.sync = Some(sync);
        flow
    }

    fn connect(&mut self, sync: &mut Sync, own: usize, network: &mut Network) -> Flow {
        let now = self.reading(network.queue.now_ms());
        if self.session.is_some_and(|session| session.offset.has_jumped(now)) {
            self.hang_up(network);
        }
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
        sync.stage = Stage::Greeting { connection, asked: now };
        Flow::Wait
    }

    fn count(&mut self, sync: &mut Sync) {
        if !sync.is_counted {
            self.counter += 1;
            sync.is_counted = true;
        }
    }

    fn greeting(&mut self, sync: &mut Sync, connection: ConnectionId, asked: Reading, now_ms: i64) -> Flow {
        let Some(message) = sync.inbox.pop_front() else {
            sync.stage = Stage::Greeting { connection, asked };
            return Flow::Wait;
        };
        let Some(ToAgent::Welcome(welcome)) = message else { return unexpected(message) };
        let Welcome { hub_now_ms, incarnation, counter, .. } = welcome;
        let offset = HubOffset::new(asked, self.reading(now_ms), hub_now_ms);
        self.session = Some(Session { connection, incarnation, offset });
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
            Ok(state) => {
                let is_new = state.incarnation.is_none();
                self.attach(sync, state, is_new, network)
            }
            Err(TurnError::Sql(error)) => {
                sync.stage = Stage::Open;
                failed(sync, &error, network.queue.now_ms())
            }
            Err(error) => Flow::Broken(error.to_string()),
        }
    }

    fn attach(&mut self, sync: &mut Sync, state: ReplicaState, is_new: bool, network: &mut Network) -> Flow {
        let Some(session) = self.session else { return Flow::Failed(Remedy::Reconnect) };
        sync.inbox.clear();
        sync.stream = self.new_stream();
        sync.attaches += 1;
        let message = ToHub::Attach(Attach { replica: state.replica, cursor: state.cursor, is_new });
        network.send(session.connection, Way::ToHub, sync.stream, Packet::of(&message));
        network.send(session.connection, Way::ToHub, sync.stream, Packet::End);
        sync.stage = Stage::Attaching { asked: Box::new(state) };
        Flow::Wait
    }

    fn reconcile(
        &mut self,
        sync: &mut Sync,
        asked: Box<ReplicaState>,
        attached: Attached,
        network: &mut Network,
    ) -> Flow {
        let Some(session) = self.session else { return Flow::Failed(Remedy::Reconnect) };
        let (tenant, fresh, claim) = (tenant_name(self.birth.tenant), self.fresh_replica(), self.claim());
        let sql = &mut self.agent.sql;
        match reconcile(sql, &tenant, session.incarnation, &asked, &attached, fresh, claim) {
            Ok(Reconciled { next: Next::Sync { pulls_first }, .. }) => {
                sync.pulls_first = pulls_first;
                self.attached = Some((attached.epoch, None));
                sync.stage = Stage::Collect;
                Flow::Soon(1)
            }
            Ok(Reconciled { next: Next::Reconcile, state, .. }) => {
                sync.stage = Stage::Reconcile { asked: Box::new(state), attached };
                Flow::Soon(1)
            }
            // The database is synced by others meanwhile, or the hub is not at rest.
            Ok(_) if sync.attaches >= MAX_ATTACHES => Flow::Failed(Remedy::None),
            Ok(Reconciled { next: Next::Attach { is_new }, state, .. }) => {
                self.attach(sync, state, is_new, network)
            }
            Err(error) => {
                sync.stage = Stage::Reconcile { asked, attached };
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
        let limits = if sync.pulls_first { NOTHING } else { self.agent.limits };
        let limits = TurnLimits { time: self.agent.time, ..limits };
        let turn = collect_turn(&mut self.agent.sql, catalog, setting, limits, &mut self.mint);
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
                schema: turn.schema.map(|(schema, _)| schema),
                refresh: turn.refresh,
            };
            network.send(session.connection, Way::ToHub, sync.stream, Packet::of(&ToHub::Sync(begin)));
            let exchange = AgentExchange::new(state.cursor);
            sync.push =
                Some(Push { exchange, state, under_way: VecDeque::new(), ended: None, is_done: false });
        }
        sync.moved.rejected += turn.collected.rejected.len() as u64;
        if turn.strays > 0 {
            return Flow::Broken(format!("rows that nobody has written differ: {:?}", turn.notices));
        }
        if let Some((sent, batch)) = turn.collected.batch {
            sync.send_batch(session.connection, network, sent, batch, turn.collected.places);
        }
        if turn.collected.more && !sync.pulls_first {
            sync.stage = Stage::Collect;
            return Flow::Soon(1);
        }
        if let Some(push) = sync.push.as_mut().filter(|_| !turn.look.is_empty()) {
            let check = compare(&turn.look);
            push.exchange.asked(check.ranges.len());
            network.send(session.connection, Way::ToHub, sync.stream, Packet::of(&ToHub::Check(check)));
            sync.look = turn.look;
        }
        let ended = self.reading(network.queue.now_ms());
        if let Some(push) = &mut sync.push {
            push.ended = Some(ended);
        }
        network.send(session.connection, Way::ToHub, sync.stream, Packet::of(&ToHub::End));
        network.send(session.connection, Way::ToHub, sync.stream, Packet::End);
        sync.stage = Stage::Receiving;
        Flow::Soon(0)
    }

    fn receiving(&mut self, sync: &mut Sync, now_ms: i64) -> Flow {
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
                    let detail = format!("{:?} here, and {prints:?} at the hub", sync.look);
                    return Flow::Broken(format!("the self-check finds a difference: {detail}"));
                }
            }
            Ok(Step::Tables(tables)) => {
                let known = self.attached.as_ref().and_then(|(_, catalog)| catalog.as_ref());
                let known = known.map(|it| &*it.catalog);
                let missing = Missing::of(&tables, known, &self.birth.options);
                if let Some(why) = missing.notices.first() {
                    return Flow::Broken(format!("a definition is not harmless: {why}"));
                }
                sync.arrived.extras.missing.add(missing);
                sync.arrived.extras.told.extend(tables);
            }
            Ok(Step::Rows(rows)) => {
                sync.cut(None, self.agent.slice);
                sync.arrived.rows = rows;
                sync.stage = Stage::Applying;
            }
            Ok(Step::Done(done)) => {
                let answered = self.reading(now_ms);
                if let (Some(session), Some(ended)) = (&mut self.session, push.ended) {
                    session.offset.renew(HubOffset::new(ended, answered, done.hub_now_ms));
                }
                let is_idle = sync.arrived.is_nothing()
                    && done.cursor == push.state.cursor
                    && done.horizon <= push.state.buried;
                if is_idle {
                    // No turn ends the sync, and attaching has taken the lease.
                    let survives = sync.attaches == 0 || self.give_back();
                    return if survives { sync.end() } else { Flow::Died };
                }
                push.is_done = true;
                sync.cut(Some(&done), self.agent.slice);
                sync.stage = Stage::Applying;
            }
        }
        Flow::Soon(0)
    }

    fn applying(&mut self, sync: &mut Sync, now_ms: i64) -> Flow {
        let Some(incoming) = sync.slices.pop_front() else {
            sync.stage = Stage::Receiving;
            return if sync.push.as_ref().is_some_and(|push| push.is_done) {
                sync.end()
            } else {
                Flow::Soon(0)
            };
        };
        let Some((epoch, catalog)) = self.attached.clone() else { return Flow::Failed(Remedy::Attach) };
        let setting =
            Setting { clock: self.hub_clock(now_ms), claim: self.claim(), options: &self.birth.options };
        let mut incoming = incoming;
        incoming.retry |= incoming.done.is_some() && sync.moved.quarantined > 0;
        if incoming.touches_tables()
            && let Some(after) = self.dies_applying.take()
        {
            self.agent.sql.dies_after_rows = Some(after);
        }
        let extras = &sync.arrived.extras;
        let retrial = &mut sync.retrial;
        retrial.set_pace(self.agent.slice);
        let turn =
            apply_turn(&mut self.agent.sql, catalog, setting, &mut self.mint, extras, &incoming, retrial);
        sync.stage = Stage::Applying;
        match turn {
            Ok(turn) => {
                sync.arrived.extras.told = Vec::new();
                sync.arrived.extras.missing = Missing::default();
                self.attached = Some((epoch, Some(turn.catalog)));
                sync.moved.pulled += turn.applied.rows;
                sync.moved.quarantined = turn.applied.quarantined;
                if turn.applied.is_unfinished {
                    sync.arrived.extras.refreshed = Vec::new();
                    sync.slices.push_front(incoming.rest());
                } else {
                    sync.retrial = Retrial::within(sync.time);
                }
                Flow::Soon(1)
            }
            Err(error) => {
                sync.slices.push_front(incoming);
                failed(sync, &error, now_ms)
            }
        }
    }
}

fn attaching(sync: &mut Sync, asked: Box<ReplicaState>) -> Flow {
    let Some(message) = sync.inbox.pop_front() else {
        sync.stage = Stage::Attaching { asked };
        return Flow::Wait;
    };
    let Some(ToAgent::Attached(attached)) = message else { return unexpected(message) };
    sync.stage = Stage::Reconcile { asked, attached };
    Flow::Soon(0)
}
