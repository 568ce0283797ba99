//! One agent's connection to a hub, from its handshake to its end.
//!
//! Each connection is a task, and so is each of its streams ([`super::hub_stream`]). Whatever an agent does wrong costs it this
//! connection and nobody anything else (I17).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::admission::{Admitted, admit};
use super::audit;
use super::clock::wall_now_ms;
use super::hub::Shared;
use super::hub_stream::{Stream, serve_stream};
use super::memory_budget::ConnectionMemory;
use super::retirement::OwnReplicas;
use super::tenants::Seat;
use super::token::Claims;
use crate::protocol::close_code::{EXPIRED, GOODBYE, REVOKED};
use crate::protocol::hub_request::Caller;
use crate::protocol::message::{Incarnation, Refusal, Refused};
use crate::transport::{ConnectionLost, Handshake};

/// The longest time without a look at the wall clock.
const LONGEST_LOOK_AWAY: Duration = Duration::from_secs(30);

/// Whether an agent was told of the end of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It was, or it ended the connection itself.
    Done,
    /// Not yet.
    Owed,
}

/// Why a session ends.
enum Ending {
    /// The connection is over.
    Lost(ConnectionLost),
    /// The hub stops.
    Stopping,
    /// The agent's token has expired.
    Expired,
    /// Its certificate has.
    CertificateExpired,
    /// The operator has revoked the agent.
    Revoked,
}

impl Ending {
    /// For the audit trail.
    fn reason(&self) -> &'static str {
        match self {
            Self::Lost(ConnectionLost::Closed { code, .. }) if *code == u64::from(GOODBYE) => "goodbye",
            Self::Lost(_) => "lost",
            Self::Stopping => "the hub stops",
            Self::Expired => "the token has expired",
            Self::CertificateExpired => "the certificate has expired",
            Self::Revoked => "revoked",
        }
    }
}

/// Serves a connection from its handshake to its end. Returns early, and says so, if the hub stops before it is known who
/// calls: then nobody was told of it.
pub(super) async fn serve(
    shared: Arc<Shared>,
    handshake: Handshake,
    mut stopping: watch::Receiver<bool>,
) -> Farewell {
    let admitted = tokio::select! {
        admitted = admit(&shared, handshake) => admitted,
        _ = stopping.wait_for(|stop| *stop) => return Farewell::Owed,
    };
    let Some(Admitted { connection, caller, claims, mut revocations, seat, incarnation }) = admitted else {
        return Farewell::Done;
    };
    let _connected = shared.counts.enter();
    let session = Arc::new(AgentSession {
        memory: shared.memory.connection(&caller.tenant),
        replicas: OwnReplicas::new(Arc::clone(&shared.attached), &caller),
        caller,
        address: connection.remote_address(),
        seat,
        claims,
        incarnation,
        highest_counter: AtomicU64::new(0),
        protocol_refusals: AtomicU32::new(0),
    });
    let mut streams = JoinSet::new();
    let token_ends_at_ms = session.claims.expires_at_ms;
    let certificate_ends_at_ms = connection.certificate_ends_at_ms().unwrap_or(i64::MAX);
    let expiry = wall_clock_reaches(token_ends_at_ms.min(certificate_ends_at_ms));
    tokio::pin!(expiry);
    let ending = loop {
        tokio::select! {
            stream = connection.accept() => match stream {
                Ok((sender, mut receiver)) => {
                    receiver.limit_frames(shared.limits.frame_bytes() as usize);
                    let (shared, session) = (Arc::clone(&shared), Arc::clone(&session));
                    let (stream, connection) = (Stream::new(shared, session, sender, receiver), connection.clone());
                    streams.spawn(async move { serve_stream(stream, &connection).await });
                }
                Err(lost) => break Ending::Lost(lost),
            },
            Some(_) = streams.join_next() => {}
            _ = stopping.wait_for(|stop| *stop) => break Ending::Stopping,
            () = &mut expiry => break if certificate_ends_at_ms < token_ends_at_ms {
                Ending::CertificateExpired
            } else {
                Ending::Expired
            },
            // Fails only together with the hub.
            _ = revocations.changed() => if shared.revocations.hold(&session.claims, wall_now_ms()) {
                break Ending::Revoked;
            },
        }
    };
    if matches!(ending, Ending::Stopping) {
        // A hub that stops finishes what has begun. An agent that is gone has nothing to wait for, and what it has pushed
        // is on its way in any case.
        tokio::select! {
            () = async { while streams.join_next().await.is_some() {} } => {}
            () = connection.falls_silent() => {}
        }
    }
    drop(streams);
    match &ending {
        Ending::Lost(_) => {}
        Ending::Stopping => {
            connection.close_heard(Refusal::Stopping.close_code(), "the hub is stopping").await;
        }
        Ending::Expired => connection.close(EXPIRED, "the token has expired"),
        Ending::CertificateExpired => connection.close(EXPIRED, "the agent's certificate has expired"),
        Ending::Revoked => {
            connection.close(REVOKED, "the hub's operator has revoked the agent, or its token");
        }
    }
    audit::ended(connection.remote_address(), &session.claims, ending.reason());
    let counter = session.highest_counter.load(Ordering::Relaxed);
    if matches!(ending, Ending::Lost(ConnectionLost::Closed { code, .. }) if code == u64::from(GOODBYE)) {
        shared.writer.retire(&session.caller, session.replicas.list()).await;
    } else if counter > 0 {
        shared.writer.end_session(&session.caller, counter).await;
    }
    Farewell::Done
}

/// Waits until the wall clock says so. It is looked at now and then, because it may be put forward.
async fn wall_clock_reaches(at_ms: i64) {
    loop {
        let left_ms = at_ms.saturating_sub(wall_now_ms());
        if left_ms <= 0 {
            return;
        }
        sleep(LONGEST_LOOK_AWAY.min(Duration::from_millis(left_ms.unsigned_abs()))).await;
    }
}

/// What the streams of one connection share.
pub(super) struct AgentSession {
    pub(super) caller: Arc<Caller>,
    /// Where it came from.
    pub(super) address: SocketAddr,
    pub(super) seat: Seat,
    /// What the agent's token said.
    pub(super) claims: Claims,
    /// Which incarnation the agent was welcomed with.
    pub(super) incarnation: Incarnation,
    pub(super) highest_counter: AtomicU64,
    /// How often it was refused for what makes no sense.
    pub(super) protocol_refusals: AtomicU32,
    pub(super) memory: Arc<ConnectionMemory>,
    pub(super) replicas: OwnReplicas,
}

impl AgentSession {
    /// Writes down that it was refused for its tenant's quota.
    pub(super) fn over_quota(&self, refused: &Refused) {
        audit::over_quota(self.address, &self.caller, &refused.message);
    }
}
