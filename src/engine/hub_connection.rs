//! One agent's connection to a hub: the loop that joins its streams to the store.
//!
//! Each connection is a task, and so is each of its streams. Whatever an agent does wrong costs it this
//! connection and nobody anything else (I17).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::clock::wall_now_ms;
use super::hub::Shared;
use super::retirement::OwnReplicas;
use super::writer::{Greeting, Reply};
use crate::protocol::close_code::{CLOSED, GOODBYE};
use crate::protocol::frame::{self, FrameError, MAX_FRAME_BYTES};
use crate::protocol::hub_request::{Caller, PullRequest, StoreRequest};
use crate::protocol::hub_session::{HubExchange, HubSession, Input, Output, SessionInput, SessionOutput};
use crate::protocol::limits::MAX_HELLO_BYTES;
use crate::protocol::message::{Refusal, Refused, Standing, ToAgent, Welcome};
use crate::storage::hub_store::{Checked, RowSource, Snapshot, StoreError};
use crate::transport::{
    Connection, ConnectionLost, FrameReceiver, FrameSender, Handshake, ReceiveError, SendError,
};

/// How long an agent may keep the hub waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// For a stranger to finish the TLS handshake.
    pub(super) handshake: Duration,
    /// For an agent that is through TLS to say who it is, and for the hub to answer.
    pub(super) hello: Duration,
    /// For a stream to stay silent when a message is due, or not to be read when one was sent.
    pub(super) idle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { handshake: seconds(5), hello: seconds(5), idle: seconds(30) }
    }
}

/// For a last word to arrive before a connection is closed.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);

/// An agent that reads a frame slower than this, in bytes per second, after [`Deadlines::idle`], is given up.
const MIN_BYTES_PER_SECOND: usize = 16 << 10;

/// How long one pull may take: it keeps the store from recycling its log. The agent goes on where it was.
const PULL_LIMIT: Duration = Duration::from_secs(600);

/// How long a large pull waits for others to end.
const BUSY_LIMIT: Duration = Duration::from_secs(20);

/// How long it waits before it asks again, at first and at last: each time costs the store a chunk.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(640));

/// Why a stream ended before its time.
#[derive(Debug, Error)]
enum StreamError {
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("the agent reads too slowly")]
    SlowReader,
}

impl StreamError {
    /// Whether the agent itself is to blame, so that its connection must go.
    fn costs_the_connection(&self) -> bool {
        match self {
            Self::Receive(ReceiveError::Frame(_) | ReceiveError::TooSlow) | Self::SlowReader => true,
            Self::Receive(_) | Self::Send(_) => false,
        }
    }
}

/// Serves a connection from its handshake to its end.
pub(super) async fn serve(shared: Arc<Shared>, handshake: Handshake, mut stopping: watch::Receiver<bool>) {
    let address = handshake.remote_address();
    let let_in = tokio::select! {
        let_in = let_in(&shared, handshake) => let_in,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    let Some((connection, caller, token_until_ms)) = let_in else { return };
    let _connected = shared.counts.enter();
    tracing::debug!(%address, tenant = caller.tenant, agent = caller.agent, "agent connected");

    let session = Arc::new(AgentSession {
        replicas: OwnReplicas::new(Arc::clone(&shared.attached), &caller),
        caller,
        token_until_ms,
        highest_counter: AtomicU64::new(0),
    });
    let mut streams = JoinSet::new();
    let lost = loop {
        tokio::select! {
            stream = connection.accept() => match stream {
                Ok((sender, receiver)) => {
                    let (shared, session) = (Arc::clone(&shared), Arc::clone(&session));
                    let (stream, connection) = (Stream { shared, session, sender, receiver }, connection.clone());
                    streams.spawn(async move { serve_stream(stream, &connection).await });
                }
                Err(lost) => break Some(lost),
            },
            Some(_) = streams.join_next() => {}
            _ = stopping.wait_for(|stop| *stop) => break None,
        }
    };
    // A hub that stops finishes what has begun; an agent that is gone has nothing to wait for, and what it
    // has pushed is on its way in any case.
    while lost.is_none() && streams.join_next().await.is_some() {}
    drop(streams);
    connection.close(Refusal::Stopping.close_code(), "the hub is stopping");
    let counter = session.highest_counter.load(Ordering::Relaxed);
    if matches!(lost, Some(ConnectionLost::Closed { code, .. }) if code == u64::from(GOODBYE)) {
        shared.writer.retire(&session.caller, session.replicas.list()).await;
    } else if counter > 0 {
        shared.writer.end_session(&session.caller, counter).await;
    }
}

/// What the streams of one connection share.
struct AgentSession {
    caller: Arc<Caller>,
    /// When the agent's token expires, in ms since the epoch.
    token_until_ms: i64,
    highest_counter: AtomicU64,
    replicas: OwnReplicas,
}

/// Lets the agent in, or closes the connection. Comes with the end of the agent's token, in ms since the epoch.
async fn let_in(shared: &Shared, handshake: Handshake) -> Option<(Connection, Arc<Caller>, i64)> {
    let address = handshake.remote_address();
    let connection = match handshake.complete(shared.deadlines.handshake).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%address, %error, "handshake failed");
            return None;
        }
    };
    let refused = match timeout(shared.deadlines.hello, greet(shared, &connection)).await {
        Ok(Ok(Ok((caller, until_ms)))) => return Some((connection, caller, until_ms)),
        Ok(Ok(Err(reason))) => (reason, "refused: see the stream".to_owned()),
        Ok(Err(error)) if !error.costs_the_connection() => return None,
        Ok(Err(error)) => (Refusal::Protocol, error.to_string()),
        Err(_) => (Refusal::Protocol, "no Hello in time".to_owned()),
    };
    tracing::debug!(%address, reason = refused.1, "agent refused");
    connection.close(refused.0.close_code(), &refused.1);
    None
}

/// The first stream: `Hello` and its answer.
async fn greet(
    shared: &Shared,
    connection: &Connection,
) -> Result<Result<(Arc<Caller>, i64), Refusal>, StreamError> {
    let (mut sender, mut receiver) = connection.accept().await.map_err(ReceiveError::from)?;
    receiver.limit_frames(MAX_HELLO_BYTES);
    let Some(hello) = receiver.next().await? else {
        return Err(ReceiveError::from(FrameError::Truncated).into());
    };
    let mut session = HubSession::default();
    session.handle(SessionInput::Message(hello));
    let mut ready = Ok(None);
    let mut until_ms = 0;
    while let Some(output) = session.poll() {
        match output {
            SessionOutput::Verify { token } => {
                let verified = shared.tokens.verify(&token, wall_now_ms());
                let proved = verified.map(|claims| {
                    until_ms = claims.expires_at_ms;
                    Caller { tenant: claims.tenant_id, agent: claims.agent_id }
                });
                session.handle(SessionInput::Verified(proved.map_err(|error| error.to_string())));
            }
            SessionOutput::Welcome(caller) => {
                session.handle(SessionInput::Welcomed(welcome(shared, caller).await));
            }
            SessionOutput::Send(message) => send(shared, &mut sender, &message).await?,
            SessionOutput::Ready(caller) => ready = Ok(Some(Arc::new(caller))),
            SessionOutput::Close(reason) => ready = Err(reason),
        }
    }
    sender.finish()?;
    match ready {
        Ok(Some(caller)) => Ok(Ok((caller, until_ms))),
        Ok(None) => Ok(Err(Refusal::Protocol)),
        Err(reason) => {
            // Closing drops what is still under way, and the reason should arrive.
            let _ = timeout(LAST_WORD_LIMIT, sender.delivered()).await;
            Ok(Err(reason))
        }
    }
}

async fn welcome(shared: &Shared, caller: Caller) -> Result<Welcome, Refused> {
    let Greeting { hub_now_ms, counter } = shared.writer.welcome(&Arc::new(caller)).await?;
    Ok(Welcome {
        hub_now_ms,
        incarnation: shared.writer.incarnation(),
        counter,
        max_frame_bytes: u32::try_from(MAX_FRAME_BYTES).unwrap_or(u32::MAX),
    })
}

/// Sends a message to an agent that has to read it at an acceptable pace.
async fn send(shared: &Shared, sender: &mut FrameSender, message: &ToAgent) -> Result<(), StreamError> {
    let frame = frame::encode(message).map_err(SendError::from)?;
    let pace = Duration::from_secs((frame.len() / MIN_BYTES_PER_SECOND) as u64);
    let sent = timeout(shared.deadlines.idle + pace, sender.send_encoded(frame)).await;
    let bytes = sent.map_err(|_| StreamError::SlowReader)??;
    shared.counts.add_sent(bytes as u64);
    Ok(())
}

/// A stream after the first, and all that it needs.
struct Stream {
    shared: Arc<Shared>,
    session: Arc<AgentSession>,
    sender: FrameSender,
    receiver: FrameReceiver,
}

/// Serves a stream; closes the connection if the agent misbehaves on it.
async fn serve_stream(mut stream: Stream, connection: &Connection) {
    let mut exchange = HubExchange::default();
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
                                request.token_until_ms = self.session.token_until_ms;
                                attaching = Some(request.replica);
                            }
                            StoreRequest::Register(_) | StoreRequest::Push(_) | StoreRequest::Check(_) => {}
                        }
                        answers.push_back(self.shared.writer.ask(&self.session.caller, request).await);
                    }
                    Output::Send(message) => send(&self.shared, &mut self.sender, &message).await?,
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
                        exchange.handle(Input::Attached(answer.map_err(Refused::from)));
                    }
                    Ok(Reply::Registered(answer)) => {
                        exchange.handle(Input::Registered(answer.map_err(Refused::from)));
                    }
                    Ok(Reply::Pushed(answer)) => exchange.handle(Input::Pushed(answer.map_err(Refused::from))),
                    Ok(Reply::Checked(answer)) => {
                        let answer = answer.map(|Checked { rows, prints }| (rows, prints));
                        exchange.handle(Input::Checked(answer.map_err(Refused::from)));
                    }
                    Ok(Reply::Pulled(answer)) => self.pulled(exchange, pull.take(), answer).await?,
                    Err(_) => exchange.handle(Input::Pulled(Err(stopping()))),
                },
                message = self.receiver.next_within(self.shared.deadlines.idle), if exchange.wants_message() => {
                    exchange.handle(message?.map_or(Input::Finished, Input::Message));
                }
            }
        }
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
                    send(&self.shared, &mut self.sender, &message).await?;
                }
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
        let message = "the pull takes too long: sync again, it goes on where it was".to_owned();
        Ok(Err(Refused { reason: Refusal::Store, message }))
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

fn stopping() -> Refused {
    Refused { reason: Refusal::Stopping, message: "the hub is stopping: sync again later".to_owned() }
}
