//! Who gets in: a connection's handshake, and its first stream.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use super::audit;
use super::clock::wall_now_ms;
use super::hub::Shared;
use super::hub_stream::{StreamError, send};
use super::identity::IdentityError;
use super::revocations::Changes;
use super::tenants::Seat;
use super::token::{Claims, TokenError};
use super::writer::job::Greeting;
use crate::protocol::frame::FrameError;
use crate::protocol::hub_request::Caller;
use crate::protocol::hub_session::{HubSession, SessionInput, SessionOutput};
use crate::protocol::limits::MAX_HELLO_BYTES;
use crate::protocol::message::{Hello, Incarnation, Refusal, Refused, ToAgent, ToHub, Welcome};
use crate::transport::{Connection, FrameSender, Handshake, ReceiveError};

/// For a last word to arrive before a connection is closed.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);

/// An agent that was let in.
pub(super) struct Admitted {
    pub(super) connection: Connection,
    pub(super) caller: Arc<Caller>,
    /// What its token says.
    pub(super) claims: Claims,
    /// Hears of everything that was revoked since the token was verified.
    pub(super) revocations: Changes,
    /// Its place among its tenant's agents.
    pub(super) seat: Seat,
    /// Which incarnation it was welcomed with.
    pub(super) incarnation: Incarnation,
}

/// Lets an agent in, or closes its connection.
pub(super) async fn admit(shared: &Shared, handshake: Handshake) -> Option<Admitted> {
    let address = handshake.remote_address();
    let connection = match handshake.complete(shared.limits.handshake()).await {
        Ok(connection) => connection,
        Err(error) => {
            audit::refused(address, None, &error.to_string());
            return None;
        }
    };
    let revocations = shared.revocations.changes();
    let mut claimed = None;
    let greeting = timeout(shared.limits.handshake(), greet(shared, &connection, &mut claimed)).await;
    let (refusal, reason, sender) = match greeting {
        Ok(Ok((Ok((caller, claims, seat, incarnation)), _))) => {
            audit::admitted(address, &claims);
            return Some(Admitted { connection, caller, claims, revocations, seat, incarnation });
        }
        Ok(Ok((Err(Refused { reason, message, .. }), sender))) => (reason, message, Some(sender)),
        Ok(Err(error)) if !error.costs_the_connection() => return None,
        Ok(Err(error)) => (Refusal::Protocol, error.to_string(), None),
        Err(_) => (Refusal::Protocol, "no Hello in time".to_owned(), None),
    };
    let claimed = claimed.as_ref().map(|caller: &Caller| (caller.tenant.as_str(), caller.agent.as_str()));
    shared.metrics.refused(refusal);
    audit::refused(address, claimed, &reason);
    if let Some(mut sender) = sender {
        // Closing drops what is still under way, and the reason should arrive.
        let _ = timeout(LAST_WORD_LIMIT, sender.delivered()).await;
    }
    connection.close(refusal.close_code(), &reason);
    None
}

/// Whether a stranger is let in, and as whom.
type Judgement = Result<(Arc<Caller>, Claims, Seat, Incarnation), Refused>;

/// The first stream: `Hello` and its answer, which is on its way. Notes who the agent claims to be.
async fn greet(
    shared: &Shared,
    connection: &Connection,
    claimed: &mut Option<Caller>,
) -> Result<(Judgement, FrameSender), StreamError> {
    let (mut sender, mut receiver) = connection.accept().await.map_err(ReceiveError::from)?;
    receiver.limit_frames(MAX_HELLO_BYTES);
    let Some(hello) = receiver.next().await? else {
        return Err(ReceiveError::from(FrameError::Truncated).into());
    };
    if let ToHub::Hello(Hello { tenant, agent, .. }) = &hello {
        *claimed = Some(Caller { tenant: tenant.clone(), agent: agent.clone() });
    }
    let mut session = HubSession::default();
    session.handle(SessionInput::Message(hello));
    let (mut proved, mut seat, mut incarnation) = (None, None, None);
    let mut let_in = Err(Refused::new(Refusal::Protocol, "it said nothing"));
    while let Some(output) = session.poll() {
        match output {
            SessionOutput::Verify { token } => {
                let verified = prove(shared, connection, &token);
                session.handle(SessionInput::Verified(match &verified {
                    Ok(Claims { tenant_id, agent_id, .. }) => {
                        Ok(Caller { tenant: tenant_id.clone(), agent: agent_id.clone() })
                    }
                    Err(error) => Err(error.to_string()),
                }));
                proved = verified.ok();
            }
            SessionOutput::Welcome(caller) => {
                let may_write = proved.as_ref().is_some_and(|claims| claims.may_write);
                let welcomed = match shared.tenants.admit(&caller.tenant) {
                    Ok(taken) => {
                        seat = Some(taken);
                        welcome(shared, caller, may_write).await
                    }
                    Err(refused) => Err(refused),
                };
                incarnation = welcomed.as_ref().ok().map(|it| it.incarnation);
                session.handle(SessionInput::Welcomed(welcomed));
            }
            SessionOutput::Send(message) => {
                send(shared, &mut sender, &message).await?;
                if let ToAgent::Refused(refused) = message {
                    let_in = Err(refused);
                }
            }
            // The session lets nobody in whose token was not verified.
            SessionOutput::Ready(caller) => {
                if let (Some(claims), Some(seat), Some(incarnation)) =
                    (proved.take(), seat.take(), incarnation)
                {
                    let_in = Ok((Arc::new(caller), claims, seat, incarnation));
                }
            }
            SessionOutput::Close(_) => {}
        }
    }
    sender.finish()?;
    Ok((let_in, sender))
}

/// Why it is not proved who calls.
#[derive(Debug, Error)]
enum NotProved {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the hub's operator has revoked this tenant, this agent, or its token")]
    Revoked,
}

/// Who calls, by the token, which the certificate must not contradict.
fn prove(shared: &Shared, connection: &Connection, token: &str) -> Result<Claims, NotProved> {
    let now_ms = wall_now_ms();
    let claims = shared.tokens.verify(token, now_ms)?;
    shared.identity.check(connection.certificate_identity(), &claims)?;
    if shared.revocations.hold(&claims, now_ms) {
        return Err(NotProved::Revoked);
    }
    Ok(claims)
}

async fn welcome(shared: &Shared, caller: Caller, may_write: bool) -> Result<Welcome, Refused> {
    let Greeting { hub_now_ms, counter, incarnation } = shared.writer.welcome(&Arc::new(caller)).await?;
    Ok(Welcome {
        hub_now_ms,
        incarnation: incarnation.unwrap_or(shared.writer.incarnation()),
        counter,
        max_frame_bytes: shared.limits.frame_bytes(),
        may_write,
    })
}
