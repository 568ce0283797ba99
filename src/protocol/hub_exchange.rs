//! Each stream after the first on the hub's side of the conversation, sans-IO: a [`HubExchange`].
//!
//! Driven as a [`super::hub_session::HubSession`] is: hand over what happened, then do what comes out until nothing
//! does.
//!
//! ```text
//! loop {
//!     while let Some(output) = exchange.poll() { do it }
//!     exchange.handle(the next answer of the store, or, if exchange.wants_message(), the next message)
//! }
//! ```

use std::collections::VecDeque;

use super::check::{CheckRequest, Prints, Range};
use super::hub_request::{AttachRequest, PullRequest, PushRequest, RegisterRequest, StoreRequest};
use super::limits::{
    MAX_BATCHES_IN_FLIGHT, MAX_BYTES_IN_FLIGHT, MAX_CHECK_RANGES, MAX_CHECK_ROWS, MAX_COLUMNS, MAX_TABLES,
};
use super::message::{Ack, Attach, Attached, Done, Refusal, Refused, Rows, SyncBegin, ToAgent, ToHub};
use super::opened_batch::OpenedBatch;
use crate::model::{ReplicaId, TableSchema};

/// What happened to a [`HubExchange`].
#[derive(Clone, Debug)]
pub enum Input {
    /// The agent said something.
    Message(ToHub),
    /// The agent sent a batch, which was opened for [`HubExchange::pushes`], or cannot be.
    Batch(Result<OpenedBatch, Refused>),
    /// The agent said something for which there is no room now.
    NoRoom(Refused),
    /// The agent will say no more on this stream.
    Finished,
    /// The store's answer to [`StoreRequest::Attach`].
    Attached(Result<Attached, Refused>),
    /// The store's answer to [`StoreRequest::Register`].
    Registered(Result<(), Refused>),
    /// The store's answer to [`StoreRequest::Push`].
    Pushed(Result<Ack, Refused>),
    /// The store's answer to [`StoreRequest::Check`].
    Checked(Result<(Rows, Prints), Refused>),
    /// The first part of the store's answer to [`StoreRequest::Pull`].
    PulledTables(Vec<TableSchema>),
    /// Any number of parts after it.
    PulledRows(Rows),
    /// The last part.
    Pulled(Result<Done, Refused>),
}

/// What a [`HubExchange`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask the store this, after everything asked before.
    Store(StoreRequest),
    /// Send this.
    Send(ToAgent),
    /// The stream is done with, once everything is sent.
    Finish,
}

enum State {
    Start,
    Attaching,
    /// Batches may come. Holds what to pull at the end.
    Pushing(PullRequest),
    Pulling,
    Finished,
}

/// One stream of a connection whose agent was let in: an attach, or a sync.
pub struct HubExchange {
    state: State,
    may_write: bool,
    counter: u64,
    /// Tables are being declared: a batch that overtook their failure would have its rows rejected for good.
    is_registering: bool,
    /// The sizes of the batches that the store has not answered yet, in bytes, in order.
    in_flight: VecDeque<usize>,
    /// How many checks the store has not answered yet.
    checks_in_flight: usize,
    outputs: VecDeque<Output>,
}

impl Default for HubExchange {
    fn default() -> Self {
        Self {
            state: State::Start,
            may_write: true,
            counter: 0,
            is_registering: false,
            in_flight: VecDeque::new(),
            checks_in_flight: 0,
            outputs: VecDeque::new(),
        }
    }
}

impl HubExchange {
    /// An exchange with an agent that may write, or may not.
    pub fn new(may_write: bool) -> Self {
        Self { may_write, ..Self::default() }
    }

    /// What to do next; nothing while the exchange waits.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether another message may be read now. While it says no, QUIC's flow control holds the agent back.
    pub fn wants_message(&self) -> bool {
        match self.state {
            State::Start => true,
            State::Pushing(_) => {
                !self.is_registering
                    && self.in_flight.len() + self.checks_in_flight < MAX_BATCHES_IN_FLIGHT
                    && self.in_flight.iter().sum::<usize>() < MAX_BYTES_IN_FLIGHT
            }
            State::Attaching | State::Pulling | State::Finished => false,
        }
    }

    /// Whose batches may come now; nobody's if one would be refused whatever it holds.
    pub fn pushes(&self) -> Option<ReplicaId> {
        match &self.state {
            State::Pushing(pull) if self.may_write => Some(pull.replica),
            _ => None,
        }
    }

    /// The agent's own clock entry, as the sync named it; 0 if it has not.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input) {
        if matches!(self.state, State::Finished) {
            return;
        }
        let outcome = match input {
            Input::Message(message) => self.message(message),
            Input::Batch(batch) => batch.and_then(|batch| self.batch(batch)),
            Input::NoRoom(refused) => Err(refused),
            // An agent that gives up says no goodbye; what it had sent whole is accepted.
            Input::Finished => {
                if matches!(self.state, State::Start | State::Pushing(_)) {
                    self.finish();
                }
                Ok(())
            }
            Input::Attached(outcome) => outcome.map(|attached| {
                self.send(ToAgent::Attached(attached));
                self.finish();
            }),
            Input::Registered(outcome) => {
                self.is_registering = false;
                outcome
            }
            Input::Pushed(outcome) => outcome.map(|ack| {
                self.in_flight.pop_front();
                self.send(ToAgent::Ack(ack));
            }),
            Input::Checked(outcome) => outcome.map(|(rows, prints)| {
                self.checks_in_flight = self.checks_in_flight.saturating_sub(1);
                if !rows.rows.is_empty() {
                    self.send(ToAgent::Rows(rows));
                }
                self.send(ToAgent::Compared(prints));
            }),
            Input::PulledTables(tables) => {
                if !tables.is_empty() {
                    self.send(ToAgent::Tables(tables));
                }
                Ok(())
            }
            Input::PulledRows(rows) => {
                if !rows.rows.is_empty() {
                    self.send(ToAgent::Rows(rows));
                }
                Ok(())
            }
            Input::Pulled(outcome) => outcome.map(|done| {
                self.send(ToAgent::Done(done));
                self.finish();
            }),
        };
        if let Err(why) = outcome {
            self.send(ToAgent::Refused(why));
            self.finish();
        }
    }

    fn send(&mut self, message: ToAgent) {
        self.outputs.push_back(Output::Send(message));
    }

    fn ask(&mut self, request: StoreRequest) {
        self.outputs.push_back(Output::Store(request));
    }

    fn finish(&mut self) {
        self.state = State::Finished;
        self.outputs.push_back(Output::Finish);
    }

    fn message(&mut self, message: ToHub) -> Result<(), Refused> {
        match (&mut self.state, message) {
            (State::Start, ToHub::Attach(Attach { replica, cursor, is_new })) => {
                if i64::try_from(cursor).is_err() {
                    return Err(Refused::new(Refusal::Protocol, "a cursor has at most 63 bits"));
                }
                // Whoever verified the token knows better.
                let token_until_ms = i64::MAX;
                let attach = AttachRequest { replica, cursor, is_new, token_until_ms, incarnation: None };
                self.state = State::Attaching;
                self.ask(StoreRequest::Attach(attach));
                Ok(())
            }
            (State::Start, ToHub::Sync(begin)) => self.begin(begin),
            (State::Pushing(pull), ToHub::Batch(batch)) => {
                if !self.may_write {
                    return Err(Refused::new(Refusal::Forbidden, "the token permits no writing"));
                }
                let batch = OpenedBatch::open(&batch, pull.replica)?;
                self.batch(batch)
            }
            (State::Pushing(pull), ToHub::Check(check)) => {
                let request =
                    CheckRequest { replica: pull.replica, epoch: pull.epoch, cursor: pull.cursor, check };
                self.check(request)
            }
            (State::Pushing(_), ToHub::End) => {
                if let State::Pushing(pull) = std::mem::replace(&mut self.state, State::Pulling) {
                    self.ask(StoreRequest::Pull(pull));
                }
                Ok(())
            }
            _ => Err(out_of_order()),
        }
    }

    fn begin(&mut self, begin: SyncBegin) -> Result<(), Refused> {
        let SyncBegin { replica, epoch, cursor, resume, counter, schema, refresh } = begin;
        if schema.as_ref().map_or(0, Vec::len) > MAX_TABLES || refresh.len() > MAX_TABLES {
            return Err(Refused::new(Refusal::Protocol, format!("a sync names at most {MAX_TABLES} tables")));
        }
        // The store keeps counts in 63 bits. An honest agent never gets there.
        if resume < cursor || i64::try_from(counter).is_err() || i64::try_from(resume).is_err() {
            return Err(Refused::new(Refusal::Protocol, "a sync's numbers contradict each other"));
        }
        self.counter = counter;
        if let Some(schema) = schema {
            self.is_registering = true;
            let may_define = self.may_write;
            self.ask(StoreRequest::Register(RegisterRequest { replica, epoch, cursor, schema, may_define }));
        }
        self.state = State::Pushing(PullRequest { replica, epoch, cursor, resume, refresh });
        Ok(())
    }

    fn check(&mut self, request: CheckRequest) -> Result<(), Refused> {
        let ranges = &request.check.ranges;
        let is_bounded =
            |range: &Range| range.columns.len() <= MAX_COLUMNS && range.left_out.len() <= MAX_CHECK_ROWS;
        if ranges.len() > MAX_CHECK_RANGES || !ranges.iter().all(is_bounded) {
            return Err(Refused::new(Refusal::Protocol, "a check asks for too much"));
        }
        self.checks_in_flight += 1;
        self.ask(StoreRequest::Check(request));
        Ok(())
    }

    fn batch(&mut self, batch: OpenedBatch) -> Result<(), Refused> {
        let State::Pushing(PullRequest { replica, epoch, .. }) = self.state else {
            return Err(out_of_order());
        };
        let OpenedBatch { n, previous, digest, body, bytes } = batch;
        self.in_flight.push_back(bytes);
        let counter = self.counter;
        self.ask(StoreRequest::Push(PushRequest { replica, epoch, counter, n, previous, digest, body }));
        Ok(())
    }
}

fn out_of_order() -> Refused {
    Refused::new(Refusal::Protocol, "out of order: a stream is one Attach, or a Sync, its batches, and End")
}

#[cfg(test)]
mod tests;
