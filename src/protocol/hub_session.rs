//! The hub's side of the conversation, sans-IO.
//!
//! A [`HubSession`] is the first stream of a connection: it lets an agent in, or not. A [`HubExchange`] is
//! each stream after that. Both are driven alike: hand over what happened, then do what comes out until
//! nothing does.
//!
//! ```text
//! loop {
//!     while let Some(output) = exchange.poll() { do it }
//!     exchange.handle(the next answer of the store, or, if exchange.wants_message(), the next message)
//! }
//! ```

use std::collections::VecDeque;

use super::frame;
use super::hub_request::{Caller, PullRequest, PushRequest, RegisterRequest, StoreRequest};
use super::limits::{MAX_BATCHES_IN_FLIGHT, MAX_BYTES_IN_FLIGHT, MAX_ID_BYTES, MAX_TABLES};
use super::message::{
    Ack, Attached, Batch, BatchBody, Done, Hello, Refusal, Refused, Rows, SyncBegin, ToAgent, ToHub, Welcome,
};
use crate::model::{Op, ReplicaId, TableSchema};

fn refused(reason: Refusal, message: impl Into<String>) -> Refused {
    Refused { reason, message: message.into() }
}

/// What happened to a [`HubSession`].
#[derive(Clone, Debug)]
pub enum SessionInput {
    /// The agent said something.
    Message(ToHub),
    /// The token was verified: whom it speaks for, or why it is no good.
    Verified(Result<Caller, String>),
    /// The store has found the caller.
    Welcomed(Result<Welcome, Refused>),
}

/// What a [`HubSession`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Verify this token.
    Verify {
        /// The JWT.
        token: String,
    },
    /// Ask the store for what a [`Welcome`] says.
    Welcome(Caller),
    /// Send this.
    Send(ToAgent),
    /// The agent is in: its other streams may be read.
    Ready(Caller),
    /// Close the connection, once everything is sent.
    Close(Refusal),
}

enum SessionState {
    AwaitHello,
    Verifying(Caller),
    Welcoming(Caller),
    Ready,
    Closed,
}

/// The first stream of a connection. Nothing but a `Hello` is read before the token was verified.
pub struct HubSession {
    state: SessionState,
    outputs: VecDeque<SessionOutput>,
}

impl Default for HubSession {
    fn default() -> Self {
        Self { state: SessionState::AwaitHello, outputs: VecDeque::new() }
    }
}

impl HubSession {
    /// What to do next; nothing while the session waits.
    pub fn poll(&mut self) -> Option<SessionOutput> {
        self.outputs.pop_front()
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: SessionInput) {
        let state = std::mem::replace(&mut self.state, SessionState::Closed);
        self.state = match (state, input) {
            (SessionState::AwaitHello, SessionInput::Message(ToHub::Hello(hello))) => self.hello(hello),
            (SessionState::Verifying(caller), SessionInput::Verified(Ok(proved))) if proved == caller => {
                self.outputs.push_back(SessionOutput::Welcome(caller.clone()));
                SessionState::Welcoming(caller)
            }
            (SessionState::Verifying(_), SessionInput::Verified(Ok(_))) => self.refuse(refused(
                Refusal::Unauthenticated,
                "the token is of another tenant or agent: use the one that was issued for this agent",
            )),
            (SessionState::Verifying(_), SessionInput::Verified(Err(reason))) => {
                self.refuse(refused(Refusal::Unauthenticated, reason))
            }
            (SessionState::Welcoming(caller), SessionInput::Welcomed(Ok(welcome))) => {
                self.outputs.push_back(SessionOutput::Send(ToAgent::Welcome(welcome)));
                self.outputs.push_back(SessionOutput::Ready(caller));
                SessionState::Ready
            }
            (SessionState::Welcoming(_), SessionInput::Welcomed(Err(why))) => self.refuse(why),
            (SessionState::Closed, _) => SessionState::Closed,
            _ => self.refuse(refused(Refusal::Protocol, "a connection's first stream is for one Hello")),
        };
    }

    fn hello(&mut self, Hello { tenant, agent, token }: Hello) -> SessionState {
        let named = |name: &str| !name.is_empty() && name.len() <= MAX_ID_BYTES;
        if !named(&tenant) || !named(&agent) {
            let message = format!("the tenant's and the agent's name must have 1 to {MAX_ID_BYTES} bytes");
            return self.refuse(refused(Refusal::Protocol, message));
        }
        self.outputs.push_back(SessionOutput::Verify { token });
        SessionState::Verifying(Caller { tenant, agent })
    }

    fn refuse(&mut self, why: Refused) -> SessionState {
        let reason = why.reason;
        self.outputs.push_back(SessionOutput::Send(ToAgent::Refused(why)));
        self.outputs.push_back(SessionOutput::Close(reason));
        SessionState::Closed
    }
}

/// What happened to a [`HubExchange`].
#[derive(Clone, Debug)]
pub enum Input {
    /// The agent said something.
    Message(ToHub),
    /// The agent will say no more on this stream.
    Finished,
    /// The store's answer to [`StoreRequest::Attach`].
    Attached(Result<Attached, Refused>),
    /// The store's answer to [`StoreRequest::Register`].
    Registered(Result<(), Refused>),
    /// The store's answer to [`StoreRequest::Push`].
    Pushed(Result<Ack, Refused>),
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

/// The replica that a sync is about.
#[derive(Clone, Copy)]
struct Origin {
    replica: ReplicaId,
    epoch: u64,
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
    counter: u64,
    /// The sizes of the batches that the store has not answered yet, in bytes, in order.
    in_flight: VecDeque<usize>,
    outputs: VecDeque<Output>,
}

impl Default for HubExchange {
    fn default() -> Self {
        Self { state: State::Start, counter: 0, in_flight: VecDeque::new(), outputs: VecDeque::new() }
    }
}

impl HubExchange {
    /// What to do next; nothing while the exchange waits.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether another message may be read now. While it says no, QUIC's flow control holds the agent back.
    pub fn wants_message(&self) -> bool {
        match self.state {
            State::Start => true,
            State::Pushing(_) => {
                self.in_flight.len() < MAX_BATCHES_IN_FLIGHT
                    && self.in_flight.iter().sum::<usize>() < MAX_BYTES_IN_FLIGHT
            }
            State::Attaching | State::Pulling | State::Finished => false,
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
            Input::Registered(outcome) => outcome,
            Input::Pushed(outcome) => outcome.map(|ack| {
                self.in_flight.pop_front();
                self.send(ToAgent::Ack(ack));
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
            (State::Start, ToHub::Attach(attach)) => {
                self.state = State::Attaching;
                self.ask(StoreRequest::Attach(attach.replica));
                Ok(())
            }
            (State::Start, ToHub::Sync(begin)) => self.begin(begin),
            (State::Pushing(pull), ToHub::Batch(batch)) => {
                let origin = Origin { replica: pull.replica, epoch: pull.epoch };
                self.batch(origin, &batch)
            }
            (State::Pushing(_), ToHub::End) => {
                if let State::Pushing(pull) = std::mem::replace(&mut self.state, State::Pulling) {
                    self.ask(StoreRequest::Pull(pull));
                }
                Ok(())
            }
            _ => Err(refused(
                Refusal::Protocol,
                "out of order: a stream is one Attach, or a Sync, its batches, and End",
            )),
        }
    }

    fn begin(&mut self, begin: SyncBegin) -> Result<(), Refused> {
        let SyncBegin { replica, epoch, cursor, resume, counter, schema, refresh } = begin;
        if schema.len() > MAX_TABLES || refresh.len() > MAX_TABLES {
            return Err(refused(Refusal::Protocol, format!("a sync names at most {MAX_TABLES} tables")));
        }
        // The store keeps counts in 63 bits. An honest agent never gets there.
        if resume < cursor || i64::try_from(counter).is_err() || i64::try_from(resume).is_err() {
            return Err(refused(Refusal::Protocol, "a sync's numbers contradict each other"));
        }
        self.counter = counter;
        if !schema.is_empty() {
            self.ask(StoreRequest::Register(RegisterRequest { replica, epoch, schema }));
        }
        self.state = State::Pushing(PullRequest { replica, epoch, cursor, resume, refresh });
        Ok(())
    }

    fn batch(&mut self, origin: Origin, batch: &Batch) -> Result<(), Refused> {
        let body: BatchBody = frame::decode_payload(&batch.body)
            .map_err(|error| refused(Refusal::Protocol, format!("batch {}: {error}", batch.n)))?;
        if batch.n == 0 || i64::try_from(batch.n).is_err() || !is_consistent(&body) {
            return Err(refused(
                Refusal::Protocol,
                format!("batch {} names a table or a column that its headers do not", batch.n),
            ));
        }
        self.in_flight.push_back(batch.body.len());
        let push = PushRequest {
            replica: origin.replica,
            epoch: origin.epoch,
            counter: self.counter,
            n: batch.n,
            previous: batch.previous,
            digest: batch.digest(origin.replica),
            body,
        };
        self.ask(StoreRequest::Push(push));
        Ok(())
    }
}

/// Whether the headers hold every table and column that the rows name.
fn is_consistent(body: &BatchBody) -> bool {
    body.rows.iter().all(|row| {
        let Some(header) = body.tables.get(usize::from(row.table)) else { return false };
        row.writes.iter().all(|write| match &write.op {
            Op::Set(cells) => cells.iter().all(|(column, _)| usize::from(*column) < header.columns.len()),
            Op::Delete => true,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Hlc, KeyKind, RowChange, RowId, Stamp, TableHeader, Value, Write};

    fn caller(agent: &str) -> Caller {
        Caller { tenant: "acme".into(), agent: agent.into() }
    }

    fn hello() -> SessionInput {
        SessionInput::Message(ToHub::Hello(Hello {
            tenant: "acme".into(),
            agent: "a".into(),
            token: "jwt".into(),
        }))
    }

    fn reason_of(session: &mut HubSession) -> Refusal {
        let Some(SessionOutput::Send(ToAgent::Refused(why))) = session.poll() else { panic!("not refused") };
        assert_eq!(session.poll(), Some(SessionOutput::Close(why.reason)));
        assert_eq!(session.poll(), None);
        why.reason
    }

    #[test]
    fn an_agent_is_let_in_by_its_own_token_only() {
        let mut session = HubSession::default();
        session.handle(hello());
        assert_eq!(session.poll(), Some(SessionOutput::Verify { token: "jwt".into() }));
        session.handle(SessionInput::Verified(Ok(caller("a"))));
        assert_eq!(session.poll(), Some(SessionOutput::Welcome(caller("a"))));
        let welcome =
            Welcome { hub_now_ms: 1, incarnation: ReplicaId([1; 16]), counter: 0, max_frame_bytes: 9 };
        session.handle(SessionInput::Welcomed(Ok(welcome.clone())));
        assert_eq!(session.poll(), Some(SessionOutput::Send(ToAgent::Welcome(welcome))));
        assert_eq!(session.poll(), Some(SessionOutput::Ready(caller("a"))));

        for proof in [Ok(caller("b")), Err("expired".to_owned())] {
            let mut session = HubSession::default();
            session.handle(hello());
            session.poll();
            session.handle(SessionInput::Verified(proof));
            assert_eq!(reason_of(&mut session), Refusal::Unauthenticated);
        }
    }

    #[test]
    fn nothing_is_read_before_hello_and_no_second_hello() {
        let mut session = HubSession::default();
        session.handle(SessionInput::Message(ToHub::End));
        assert_eq!(reason_of(&mut session), Refusal::Protocol);
        session.handle(hello());
        assert_eq!(session.poll(), None, "a closed session does nothing");

        let mut session = HubSession::default();
        session.handle(hello());
        session.poll();
        session.handle(hello());
        assert_eq!(reason_of(&mut session), Refusal::Protocol);
    }

    const REPLICA: ReplicaId = ReplicaId([3; 16]);

    fn begin() -> SyncBegin {
        let schema = Vec::new();
        SyncBegin {
            replica: REPLICA,
            epoch: 2,
            cursor: 5,
            resume: 6,
            counter: 7,
            schema,
            refresh: Vec::new(),
        }
    }

    fn batch(n: u64, body: &BatchBody) -> ToHub {
        let body = rmp_serde::to_vec(body).unwrap();
        ToHub::Batch(Batch { n, previous: Digest::ZERO, body })
    }

    fn refusal(exchange: &mut HubExchange) -> Refusal {
        let Some(Output::Send(ToAgent::Refused(why))) = exchange.poll() else { panic!("not refused") };
        assert_eq!(exchange.poll(), Some(Output::Finish));
        assert!(!exchange.wants_message());
        why.reason
    }

    fn after(messages: impl IntoIterator<Item = ToHub>) -> HubExchange {
        let mut exchange = HubExchange::default();
        for message in messages {
            exchange.handle(Input::Message(message));
        }
        exchange
    }

    #[test]
    fn a_sync_asks_the_store_in_order_and_ends_with_done() {
        let table = TableSchema {
            name: "t".into(),
            key: KeyKind::Natural,
            columns: vec![],
            ddl: String::new(),
            indexes: vec![],
        };
        let begin = SyncBegin { schema: vec![table.clone()], ..begin() };
        let mut exchange = after([ToHub::Sync(begin), batch(1, &BatchBody::default()), ToHub::End]);
        assert!(matches!(exchange.poll(), Some(Output::Store(StoreRequest::Register(_)))));
        let Some(Output::Store(StoreRequest::Push(push))) = exchange.poll() else { panic!("no push") };
        assert_eq!((push.n, push.epoch, push.counter), (1, 2, 7));
        let Some(Output::Store(StoreRequest::Pull(pull))) = exchange.poll() else { panic!("no pull") };
        assert_eq!((pull.cursor, pull.resume), (5, 6));
        assert!(!exchange.wants_message());

        exchange.handle(Input::Registered(Ok(())));
        let ack = Ack { n: 1, conflicts: 0, rejected: vec![] };
        exchange.handle(Input::Pushed(Ok(ack.clone())));
        exchange.handle(Input::PulledTables(vec![table.clone()]));
        exchange.handle(Input::PulledRows(Rows::default()));
        let done = Done { cursor: 9, highest: Hlc(1), hub_now_ms: 2, clock: vec![] };
        exchange.handle(Input::Pulled(Ok(done.clone())));
        let sent: Vec<Output> = std::iter::from_fn(|| exchange.poll()).collect();
        let expected = [ToAgent::Ack(ack), ToAgent::Tables(vec![table]), ToAgent::Done(done)];
        let mut expected: Vec<Output> = expected.map(Output::Send).into();
        expected.push(Output::Finish);
        assert_eq!(sent, expected, "an empty list of rows is not sent");
    }

    #[test]
    fn an_attach_is_the_whole_of_its_stream() {
        let attach = || ToHub::Attach(crate::protocol::message::Attach { replica: REPLICA });
        let mut exchange = after([attach()]);
        assert_eq!(exchange.poll(), Some(Output::Store(StoreRequest::Attach(REPLICA))));
        assert!(!exchange.wants_message());
        exchange.handle(Input::Attached(Ok(Attached { epoch: 1, last: None })));
        assert!(matches!(exchange.poll(), Some(Output::Send(ToAgent::Attached(_)))));
        assert_eq!(exchange.poll(), Some(Output::Finish));

        let mut twice = after([attach(), attach()]);
        twice.poll();
        assert_eq!(refusal(&mut twice), Refusal::Protocol);
    }

    #[test]
    fn whatever_is_out_of_order_is_refused() {
        let hello = ToHub::Hello(Hello { tenant: "acme".into(), agent: "a".into(), token: String::new() });
        for first in [hello.clone(), batch(1, &BatchBody::default()), ToHub::End] {
            assert_eq!(refusal(&mut after([first])), Refusal::Protocol);
        }
        for second in [hello, ToHub::Sync(begin())] {
            assert_eq!(refusal(&mut after([ToHub::Sync(begin()), second])), Refusal::Protocol);
        }
    }

    #[test]
    fn a_body_that_is_damaged_or_points_outside_its_headers_is_refused() {
        let garbage = ToHub::Batch(Batch { n: 1, previous: Digest::ZERO, body: vec![0xc1] });
        assert_eq!(refusal(&mut after([ToHub::Sync(begin()), garbage])), Refusal::Protocol);
        let row = |table, column| {
            let op = Op::Set(vec![(column, Value::Null.into())]);
            let writes = vec![Write { stamp: Stamp::ZERO, base: 0, op }];
            RowChange { table, id: RowId([0; 16]), number: None, writes }
        };
        let tables = vec![TableHeader { name: "t".into(), columns: vec!["c".into()] }];
        for (row, good) in [(row(0, 0), true), (row(1, 0), false), (row(0, 1), false)] {
            let body = BatchBody { tables: tables.clone(), rows: vec![row] };
            let mut exchange = after([ToHub::Sync(begin()), batch(1, &body)]);
            if good {
                assert!(matches!(exchange.poll(), Some(Output::Store(StoreRequest::Push(_)))));
            } else {
                assert_eq!(refusal(&mut exchange), Refusal::Protocol);
            }
        }
    }

    #[test]
    fn numbers_and_lists_have_bounds() {
        let begins = [
            SyncBegin { resume: 4, ..begin() },
            SyncBegin { resume: u64::MAX, ..begin() },
            SyncBegin { counter: u64::MAX, ..begin() },
            SyncBegin { refresh: vec![String::new(); MAX_TABLES + 1], ..begin() },
        ];
        for begin in begins {
            assert_eq!(refusal(&mut after([ToHub::Sync(begin)])), Refusal::Protocol);
        }
        let zero = after([ToHub::Sync(begin()), batch(0, &BatchBody::default())]);
        assert_eq!(refusal(&mut { zero }), Refusal::Protocol);
    }

    #[test]
    fn batches_that_the_store_has_not_answered_hold_the_agent_back() {
        let mut exchange = after([ToHub::Sync(begin())]);
        for n in 1..=MAX_BATCHES_IN_FLIGHT {
            assert!(exchange.wants_message());
            exchange.handle(Input::Message(batch(u64::try_from(n).unwrap(), &BatchBody::default())));
        }
        assert!(!exchange.wants_message());
        exchange.handle(Input::Pushed(Ok(Ack { n: 1, conflicts: 0, rejected: vec![] })));
        assert!(exchange.wants_message());
    }

    #[test]
    fn a_refusal_of_the_store_ends_the_stream_and_later_answers_are_dropped() {
        let mut exchange = after([ToHub::Sync(begin()), batch(1, &BatchBody::default()), ToHub::End]);
        while exchange.poll().is_some() {}
        exchange.handle(Input::Pushed(Err(refused(Refusal::Clock, "too far ahead"))));
        assert_eq!(refusal(&mut exchange), Refusal::Clock);
        exchange.handle(Input::Pulled(Ok(Done { cursor: 9, highest: Hlc(1), hub_now_ms: 2, clock: vec![] })));
        assert_eq!(exchange.poll(), None);
    }

    #[test]
    fn an_agent_that_gives_up_gets_no_answer() {
        let mut exchange = after([ToHub::Sync(begin())]);
        exchange.handle(Input::Finished);
        assert_eq!(exchange.poll(), Some(Output::Finish));
        let mut pulling = after([ToHub::Sync(begin()), ToHub::End]);
        pulling.poll();
        pulling.handle(Input::Finished);
        assert_eq!(pulling.poll(), None, "the end of an agent's words is expected after End");
    }
}
