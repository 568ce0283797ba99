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
use super::tenants::LONGEST_WAIT;
use super::writer::job::Reply;
use crate::protocol::close_code::CLOSED;
use crate::protocol::frame;
use crate::protocol::hub_exchange::{HubExchange, Input, Output};
use crate::protocol::hub_request::{PullRequest, StoreRequest};
use crate::protocol::message::{Refusal, Refused, Standing, ToAgent};
use crate::storage::hub_store::{Checked, RowSource, Snapshot, StoreError};
use crate::transport::{Connection, FrameReceiver, FrameSender, ReceiveError, SendError};

/// How long an agent whose token has expired may take to come back with another one, in ms, before it retires: its next
/// sync asks for it.
const COMEBACK_MS: i64 = 300_000;

/// An agent that reads a frame slower than this, in bytes per second, after `frame_timeout_ms`, is given up.
const MIN_BYTES_PER_SECOND: usize = 16 << 10;

/// How long one pull may take: it keeps the store from recycling its log. The agent goes on where it was.
const PULL_LIMIT: Duration = Duration::from_secs(600);

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
    receiver: FrameReceiver,
    /// Bytes received that count for the tenant's rate already.
    charged: u64,
}

/// Serves a stream; closes the connection if the agent misbehaves on it.
pub(super) async fn serve_stream(mut stream: Stream, connection: &Connection) {
    let mut exchange = HubExchange::new(stream.session.claims.may_write);
    let outcome = stream.run(&mut exchange).await;
    stream.session.highest_counter.fetch_max(exchange.counter(), Ordering::Relaxed);
    stream.shared.counts.add_received(stream.receiver.bytes_received());
    if let Err(error) = outcome {
        let caller = &stream.session.caller;
        tracing::debug!(tenant = caller.tenant, agent = caller.agent, %error, "stream failed");
        if error.costs_the_connection() {
            connection.close(Refusal::Protocol.close_code(), &error.to_string());
        } else {
            stream.sender.reset(CLOSED);
        }
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
        Self { shared, session, sender, receiver, charged: 0 }
    }

    /// Drives an exchange to its end.
    async fn run(&mut self, exchange: &mut HubExchange) -> Result<(), StreamError> {
        let mut answers = VecDeque::new();
        let (mut pull, mut attaching) = (None, None);
        loop {
            while let Some(output) = exchange.poll() {
                match output {
                    Output::Store(mut request) => {
                        match &mut request {
                            StoreRequest::Pull(request) => pull = Some(request.clone()),
                            StoreRequest::Attach(request) => {
                                request.token_until_ms =
                                    self.session.claims.expires_at_ms.saturating_add(COMEBACK_MS);
                                attaching = Some(request.replica);
                            }
                            StoreRequest::Push(request) => {
                                let rows = request.body.rows.len();
                                self.shared.metrics.pushed(&self.session.caller.tenant, rows);
                            }
                            StoreRequest::Register(_) | StoreRequest::Check(_) => {}
                        }
                        if let Err(refused) = self.keep_rate(&request).await {
                            exchange.handle(Input::Pushed(Err(refused)));
                            continue;
                        }
                        answers.push_back(self.shared.writer.ask(&self.session.caller, request).await);
                    }
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
                reply = next_answer(&mut answers) => match reply {
                    Ok(Reply::Attached(answer)) => {
                        if let (Ok(attached), Some(replica)) = (&answer, attaching.take())
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
                    Ok(Reply::Pulled(answer)) => self.pulled(exchange, pull.take(), answer).await?,
                    Err(_) => exchange.handle(Input::Pulled(Err(stopping()))),
                },
                message = self.receiver.next_within(self.shared.limits.frame()), if exchange.wants_message() => {
                    exchange.handle(message?.map_or(Input::Finished, Input::Message));
                }
            }
        }
    }

    /// Waits until the tenant's rate allows another request, and counts it. Only batches are refused: an agent hears
    /// what became of those before, and large pulls wait for themselves.
    async fn keep_rate(&mut self, request: &StoreRequest) -> Result<(), Refused> {
        let (wait, rows) = match request {
            StoreRequest::Push(push) => (self.due()?, push.body.rows.len() as u64),
            _ => (self.session.seat.due().unwrap_or(LONGEST_WAIT), 0),
        };
        let received = self.receiver.bytes_received();
        let bytes = received - std::mem::replace(&mut self.charged, received);
        // No exchange is for nothing.
        self.session.seat.charge(rows.max(1), bytes);
        // A timer sleeps for a millisecond or more even if it is asked for none.
        if !wait.is_zero() {
            sleep(wait).await;
        }
        Ok(())
    }

    /// How long to wait for the tenant's rate; a refusal is written down.
    fn due(&self) -> Result<Duration, Refused> {
        let AgentSession { address, caller, seat, .. } = &*self.session;
        seat.due().inspect_err(|refused| audit::over_quota(*address, caller, &refused.message))
    }

    /// Sends a message, and counts what it tells.
    async fn tell(&mut self, message: &ToAgent) -> Result<(), StreamError> {
        self.shared.metrics.told(&self.session.caller.tenant, message);
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
        request: Option<PullRequest>,
        answer: Result<Box<Snapshot>, StoreError>,
    ) -> Result<(), StreamError> {
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
            match self.due() {
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

/// The oldest answer that is due; never, if none is.
async fn next_answer(
    answers: &mut VecDeque<oneshot::Receiver<Reply>>,
) -> Result<Reply, oneshot::error::RecvError> {
    match answers.front_mut() {
        Some(answer) => {
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
