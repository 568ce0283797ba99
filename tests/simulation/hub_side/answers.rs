//! What the hub's store answers, and how that gets to agents.

use federation_hub::engine::writer::job::{Answer, Greeting, Reply};
use federation_hub::model::{ReplicaId, Seq};
use federation_hub::protocol::frame::MAX_FRAME_BYTES;
use federation_hub::protocol::hub_exchange::Input;
use federation_hub::protocol::hub_request::StoreRequest;
use federation_hub::protocol::hub_session::SessionInput;
use federation_hub::protocol::message::{Refused, Welcome};
use federation_hub::storage::hub_store::{Checked, HubStore, StoreError};

use super::{Act, HubSide};
use crate::network::{ConnectionId, StreamId};

/// What an answer is to.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    replica: ReplicaId,
    /// The number of a batch.
    n: u64,
}

impl Asked {
    pub(super) fn of(request: &StoreRequest) -> Self {
        let replica = match request {
            StoreRequest::Attach(request) => request.replica,
            StoreRequest::Register(request) => request.replica,
            StoreRequest::Push(request) => request.replica,
            StoreRequest::Check(request) => request.replica,
            StoreRequest::Pull(request) => request.replica,
        };
        let n = if let StoreRequest::Push(request) = request { request.n } else { 0 };
        Self { replica, n }
    }
}

/// That the hub told somebody something that must have been durable by then.
#[derive(Debug)]
pub enum Promise {
    /// A batch of a tenant's replica was accepted.
    Batch(String, ReplicaId, u64),
    /// The tenant's order came so far.
    Position(String, Seq),
}

impl HubSide {
    /// Notes what an answer promises.
    pub(super) fn note(&mut self, id: ConnectionId, asked: Asked, reply: &Reply) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(caller) = &connection.caller else { return };
        match reply {
            Reply::Attached(Ok(attached)) => {
                connection.replicas.insert(asked.replica, attached.epoch);
            }
            Reply::Pushed(Ok(_)) => {
                self.promises.push(Promise::Batch(caller.tenant.clone(), asked.replica, asked.n));
            }
            Reply::Pulled(Ok(snapshot)) => {
                self.promises.push(Promise::Position(caller.tenant.clone(), snapshot.done.cursor));
            }
            _ => {}
        }
    }

    pub(super) fn welcome(&mut self, id: ConnectionId, answer: Answer<Greeting>) {
        let (Some(store), Some(connection)) = (&self.store, self.connections.get_mut(&id)) else { return };
        let welcome = answer.map(|Greeting { hub_now_ms, counter, incarnation }| Welcome {
            hub_now_ms,
            incarnation: incarnation.unwrap_or(store.incarnation()),
            counter,
            max_frame_bytes: u32::try_from(MAX_FRAME_BYTES).unwrap(),
            may_write: true,
        });
        connection.session.handle(SessionInput::Welcomed(welcome.map_err(Refused::from)));
        self.pump_session(id);
    }

    pub(super) fn answer(&mut self, id: ConnectionId, stream_id: StreamId, reply: Reply) {
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
