//! One stream of an agent that was let in: the loop that joins its exchange to the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::audit;
use super::hub::Shared;
use super::hub_connection::AgentSession;
use super::intake::{Heard, Hearing, Intake, What, begun, heard};
use super::memory_budget::Permit;
use super::tenants::LONGEST_WAIT;
use super::writer::job::Reply;
use crate::model::ReplicaId;
use crate::protocol::close_code::CLOSED;
use crate::protocol::frame;
use crate::protocol::hub_exchange::{HubExchange, Input, Output};
use crate::protocol::hub_request::{PullRequest, StoreRequest};
use crate::protocol::message::{Refusal, Refused, Standing, ToAgent, ToHub};
use crate::storage::hub_store::{Checked, RowSource, Snapshot, StoreError};
use crate::transport::{Connection, FrameReceiver, FrameSender, ReceiveError, SendError};

/// How long an agent whose token has expired may take to come back with another one, in ms, before it retires: its next
/// sync asks for it.
const COMEBACK_MS: i64 = 300_000;

/// An agent that reads a frame slower than this, in bytes per second, after `frame_timeout_ms`, is given up.
const MIN_BYTES_PER_SECOND: usize = 16 << 10;

/// How long one pull may take: it keeps the store from recycling its log. The agent goes on where it was.
const PULL_LIMIT: Duration = Duration::from_secs(600);

/// A connection on which so many messages were refused because they make no sense ends.
const MAX_PROTOCOL_REFUSALS: u32 = 8;

/// How long its last refusal may take to arrive.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);

/// How long a large pull waits for others to end.
const BUSY_LIMIT: Duration = Duration::from_secs(20);

/// How long it waits before it asks again, at first and at last: each time costs the store a chunk.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(640));

/// Why a stream ended before its time.
#[derive(Debug, Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the agent reads too slowly")]
    SlowReader,
}

impl StreamError {
    /// Whether the agent itself is to blame, so that its connection must go.
    pub(super) fn costs_the_connection(&self) -> bool {
        match self {
            Self::Receive(ReceiveError::Frame(_) | ReceiveError::TooSlow) | Self::SlowReader => true,
            Self::Receive(_) | Self::Send(_) => false,
        }
    }
}

/// Sends a message to an agent that has to read it at an acceptable pace.
pub(super) async fn send(
    shared: &Shared,
    sender: &mut FrameSender,
    message: &ToAgent,
) -> Result<(), StreamError> {
    let frame = frame::encode(message).map_err(SendError::from)?;
    let pace = Duration::from_secs((frame.len() / MIN_BYTES_PER_SECOND) as u64);
    let sent = timeout(shared.limits.frame() + pace, sender.send_encoded(frame)).await;
    let bytes = sent.map_err(|_| StreamError::SlowReader)??;
    shared.counts.add_sent(bytes as u64);
    Ok(())
}

/// A stream after the first, and all that it needs.
pub(super) struct Stream {
    shared: Arc<Shared>,
    session: Arc<AgentSession>,
    sender: FrameSender,
    /// Nothing while a message is heard.
    intake: Option<Intake>,
    /// What is to be pulled, once the store has answered.
    pull: Option<PullRequest>,
    /// The replica that the store is attaching.
    attaching: Option<ReplicaId>,
    /// The memory of the message that was heard last.
    permit: Option<Permit>,
    /// How long the tenant's rate has its request wait.
    due: Result<Duration, Refused>,
    /// The memory of what the exchange remembers.
    remembered: Option<Permit>,
}

/// An answer of the store that is awaited, and the memory that the request takes until then.
type Awaited = (oneshot::Receiver<Reply>, Option<Permit>);

/// Serves a stream; closes the connection if the agent misbehaves on it.
pub(super) async fn serve_stream(mut stream: Stream, connection: &Connection) {
    let mut exchange = HubExchange::new(stream.session.claims.may_write);
    let outcome = stream.run(&mut exchange).await;
    stream.session.highest_counter.fetch_max(exchange.counter(), Ordering::Relaxed);
    match outcome {
        Err(error) => {
            let caller = &stream.session.caller;
            tracing::debug!(tenant = caller.tenant, agent = caller.agent, %error, "stream failed");
            if error.costs_the_connection() {
                connection.close(Refusal::Protocol.close_code(), &error.to_string());
            } else {
                stream.sender.reset(CLOSED);
            }
        }
        Ok(()) if stream.session.protocol_refusals.load(Ordering::Relaxed) >= MAX_PROTOCOL_REFUSALS => {
            // Closing drops what is still under way.
            let _ = timeout(LAST_WORD_LIMIT, stream.sender.delivered()).await;
            connection.close(Refusal::Protocol.close_code(), "too many messages that make no sense");
        }
        Ok(()) => {}
    }
}

impl Stream {
    /// A stream that an agent has opened in its session.
    pub(super) fn new(
        shared: Arc<Shared>,
        session: Arc<AgentSession>,
        sender: FrameSender,
        receiver: FrameReceiver,
    ) -> Self {
        let intake = Some(Intake::new(Arc::clone(&shared), Arc::clone(&session), receiver));
        let (permit, due, remembered) = (None, Ok(Duration::ZERO), None);
        Self { shared, session, sender, intake, pull: None, attaching: None, permit, due, remembered }
    }

    /// Drives an exchange to its end.
    async fn run(&mut self, exchange: &mut HubExchange) -> Result<(), StreamError> {
        let mut answers = VecDeque::<Awaited>::new();
        let mut hearing = None::<Hearing>;
        loop {
            while let Some(output) = exchange.poll() {
                match output {
                    Output::Store(request) => match self.ask(request).await {
                        Ok(answer) => answers.push_back(answer),
                        Err(refused) => exchange.handle(Input::Pushed(Err(refused))),
                    },
                    Output::Send(message) => self.tell(&message).await?,
                    Output::Finish => {
                        // Fails only if the agent no longer listens.
                        let _ = self.sender.finish();
                        return Ok(());
                    }
                }
            }
            tokio::select! {
                biased;
                reply = next_answer(&mut answers) => self.answered(exchange, reply).await?,
                (intake, heard) = heard(&mut hearing) => {
                    self.intake = Some(intake);
                    self.heard(exchange, heard?);
                }
                begun = begun(&mut self.intake), if exchange.wants_message() => {
                    if begun? {
                        let intake = self.intake.take();
                        hearing = intake.map(|it| Box::pin(it.next(exchange.pushes())) as Hearing);
                    } else {
                        exchange.handle(Input::Finished);
                    }
                }
            }
        }
    }

    /// Asks the store, as soon as the tenant's rate allows it.
    async fn ask(&mut self, mut request: StoreRequest) -> Result<Awaited, Refused> {
        match &mut request {
            StoreRequest::Pull(request) => self.pull = Some(request.clone()),
            StoreRequest::Attach(request) => {
                request.token_until_ms = self.session.claims.expires_at_ms.saturating_add(COMEBACK_MS);
                request.incarnation = Some(self.session.incarnation);
                self.attaching = Some(request.replica);
            }
            StoreRequest::Push(request) => {
                let rows = request.body.rows.len();
                self.shared.metrics.pushed(&self.session.caller.tenant, rows);
            }
            StoreRequest::Register(_) | StoreRequest::Check(_) => {}
        }
        self.keep_rate(&request).await?;
        let permit = self.permit.take();
        Ok((self.shared.writer.ask(&self.session.caller, request).await, permit))
    }

    /// Hands over what the store has answered.
    async fn answered(
        &mut self,
        exchange: &mut HubExchange,
        reply: Result<Reply, oneshot::error::RecvError>,
    ) -> Result<(), StreamError> {
        match reply {
            Ok(Reply::Attached(answer)) => {
                if let (Ok(attached), Some(replica)) = (&answer, self.attaching.take())
                    && attached.standing != Standing::Retired
                {
                    self.session.replicas.add(replica, attached.epoch);
                }
                exchange.handle(Input::Attached(answer.map_err(not_attached)));
            }
            Ok(Reply::Registered(answer)) => {
                exchange.handle(Input::Registered(answer.map_err(Refused::from)));
            }
            Ok(Reply::Pushed(answer)) => {
                if let Err(StoreError::Refused(Refusal::Full, reason)) = &answer {
                    audit::over_quota(self.session.address, &self.session.caller, reason);
                }
                exchange.handle(Input::Pushed(answer.map_err(Refused::from)));
            }
            Ok(Reply::Checked(answer)) => {
                let answer = answer.map(|Checked { rows, prints }| (rows, prints));
                exchange.handle(Input::Checked(answer.map_err(Refused::from)));
            }
            Ok(Reply::Pulled(answer)) => self.pulled(exchange, answer).await?,
            Err(_) => exchange.handle(Input::Pulled(Err(stopping()))),
        }
        Ok(())
    }

    /// Hands over what an agent said.
    fn heard(&mut self, exchange: &mut HubExchange, heard: Heard) {
        let Heard { what, permit, due } = heard;
        let mut permit = Some(permit);
        let input = match what {
            What::Message(message) => {
                if matches!(message, ToHub::Sync(_)) {
                    self.remembered = permit.take();
                }
                Input::Message(message)
            }
            What::Batch(batch) => Input::Batch(batch),
            What::NoRoom(refused) => Input::NoRoom(refused),
        };
        (self.permit, self.due) = (permit, due);
        exchange.handle(input);
    }

    /// Waits until the tenant's rate allows another request, and counts its rows. Only batches are refused: an agent hears
    /// what became of those before, and large pulls wait for themselves.
    async fn keep_rate(&mut self, request: &StoreRequest) -> Result<(), Refused> {
        let due = std::mem::replace(&mut self.due, Ok(Duration::ZERO));
        let (wait, rows) = match request {
            StoreRequest::Push(push) => {
                let wait = due.inspect_err(|refused| self.session.over_quota(refused))?;
                (wait, push.body.rows.len() as u64)
            }
            _ => (due.unwrap_or(LONGEST_WAIT), 0),
        };
        // No exchange is for nothing.
        self.session.seat.charge(rows.max(1), 0);
        // A timer sleeps for a millisecond or more even if it is asked for none.
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(())
    }

    /// Sends a message, and counts what it tells.
    async fn tell(&mut self, message: &ToAgent) -> Result<(), StreamError> {
        self.shared.metrics.told(&self.session.caller.tenant, message);
        if matches!(message, ToAgent::Refused(Refused { reason: Refusal::Protocol, .. })) {
            self.session.protocol_refusals.fetch_add(1, Ordering::Relaxed);
        }
        let before = self.sender.bytes_sent();
        send(&self.shared, &mut self.sender, message).await?;
        let rows = if let ToAgent::Rows(rows) = message { rows.rows.len() as u64 } else { 0 };
        self.session.seat.charge(rows, self.sender.bytes_sent() - before);
        Ok(())
    }

    /// Tells a snapshot, chunk by chunk, as fast as the agent takes it.
    async fn pulled(
        &mut self,
        exchange: &mut HubExchange,
        answer: Result<Box<Snapshot>, StoreError>,
    ) -> Result<(), StreamError> {
        let request = self.pull.take();
        let Snapshot { tables, first, rest, done } = match self.when_ready(request, answer).await {
            Ok(snapshot) => *snapshot,
            Err(refused) => {
                exchange.handle(Input::Pulled(Err(refused)));
                return Ok(());
            }
        };
        self.shared.counts.add_sync();
        self.shared.metrics.synced(&self.session.caller.tenant);
        exchange.handle(Input::PulledTables(tables));
        exchange.handle(Input::PulledRows(first));
        let told = match rest {
            None => Ok(()),
            Some(rest) => self.rest(exchange, rest).await?,
        };
        exchange.handle(Input::Pulled(told.map(|()| done)));
        Ok(())
    }

    /// Asks again while other large pulls occupy the store. A later snapshot does as well.
    async fn when_ready(
        &self,
        request: Option<PullRequest>,
        mut answer: Result<Box<Snapshot>, StoreError>,
    ) -> Result<Box<Snapshot>, Refused> {
        let patience = Instant::now() + BUSY_LIMIT;
        let (mut pause, longest_pause) = BUSY_PAUSE;
        while let (Err(StoreError::Busy), Some(request)) = (&answer, &request)
            && Instant::now() < patience
        {
            sleep(pause).await;
            pause = longest_pause.min(pause * 2);
            let again =
                self.shared.writer.ask(&self.session.caller, StoreRequest::Pull(request.clone())).await;
            answer = match again.await {
                Ok(Reply::Pulled(answer)) => answer,
                _ => return Err(stopping()),
            };
        }
        Ok(answer?)
    }

    /// Tells the rest of a large pull. The next chunk is read, on a thread of its own, while one is sent.
    async fn rest(
        &mut self,
        exchange: &mut HubExchange,
        mut rest: Box<dyn RowSource>,
    ) -> Result<Result<(), Refused>, StreamError> {
        let deadline = Instant::now() + PULL_LIMIT;
        while Instant::now() < deadline {
            let reading = tokio::task::spawn_blocking(move || {
                let chunk = rest.next_chunk();
                (rest, chunk)
            });
            while let Some(output) = exchange.poll() {
                if let Output::Send(message) = output {
                    self.tell(&message).await?;
                }
            }
            match self.session.seat.due().inspect_err(|refused| self.session.over_quota(refused)) {
                Ok(wait) => sleep(wait).await,
                Err(refused) => return Ok(Err(refused)),
            }
            let chunk = match reading.await {
                Ok((source, chunk)) => {
                    rest = source;
                    chunk
                }
                Err(_) => return Ok(Err(stopping())),
            };
            match chunk {
                Ok(Some(rows)) => exchange.handle(Input::PulledRows(rows)),
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error.into())),
            }
        }
        let message = "the pull takes too long: sync again, it goes on where it was";
        Ok(Err(Refused::new(Refusal::Store, message)))
    }
}

/// The oldest answer that is due, whose request takes no more memory then; never, if none is.
async fn next_answer(answers: &mut VecDeque<Awaited>) -> Result<Reply, oneshot::error::RecvError> {
    match answers.front_mut() {
        Some((answer, _)) => {
            let reply = answer.await;
            answers.pop_front();
            reply
        }
        None => std::future::pending().await,
    }
}

/// Without a replica that is attached there is nothing that could go on.
fn not_attached(error: StoreError) -> Refused {
    let refused = Refused::from(error);
    let reason = if refused.reason == Refusal::NoRoom { Refusal::Store } else { refused.reason };
    Refused { reason, ..refused }
}

fn stopping() -> Refused {
    Refused::new(Refusal::Stopping, "the hub is stopping: sync again later")
}
