//! Who gets in: a connection's handshake, and its first stream.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::timeout;

use super::clock::wall_now_ms;
use super::hub::Shared;
use super::hub_connection::{StreamError, send};
use super::identity::IdentityError;
use super::token::{Claims, TokenError};
use crate::protocol::frame::{FrameError, MAX_FRAME_BYTES};
use crate::protocol::hub_request::Caller;
use crate::protocol::hub_session::{HubSession, SessionInput, SessionOutput};
use crate::protocol::limits::MAX_HELLO_BYTES;
use crate::protocol::message::{Refusal, Refused, Welcome};
use crate::storage::hub_store::hub_time_ms;
use crate::transport::{Connection, Handshake, ReceiveError};

/// For a last word to arrive before a connection is closed.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);

/// An agent that was let in.
pub(super) struct Admitted {
    pub(super) connection: Connection,
    pub(super) caller: Arc<Caller>,
    /// What its token says.
    pub(super) claims: Claims,
}

/// Lets an agent in, or closes its connection.
pub(super) async fn admit(shared: &Shared, handshake: Handshake) -> Option<Admitted> {
    let address = handshake.remote_address();
    let connection = match handshake.complete(shared.deadlines.handshake).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%address, %error, "handshake failed");
            return None;
        }
    };
    let refused = match timeout(shared.deadlines.hello, greet(shared, &connection)).await {
        Ok(Ok(Ok((caller, claims)))) => {
            tracing::debug!(%address, tenant = caller.tenant, agent = caller.agent, "agent connected");
            return Some(Admitted { connection, caller, claims });
        }
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
) -> Result<Result<(Arc<Caller>, Claims), Refusal>, StreamError> {
    let (mut sender, mut receiver) = connection.accept().await.map_err(ReceiveError::from)?;
    receiver.limit_frames(MAX_HELLO_BYTES);
    let Some(hello) = receiver.next().await? else {
        return Err(ReceiveError::from(FrameError::Truncated).into());
    };
    let mut session = HubSession::default();
    session.handle(SessionInput::Message(hello));
    let mut proved: Result<Claims, NotProved> = Err(TokenError::Missing.into());
    let mut ready = Err(Refusal::Protocol);
    while let Some(output) = session.poll() {
        match output {
            SessionOutput::Verify { token } => {
                proved = prove(shared, connection, &token);
                session.handle(SessionInput::Verified(match &proved {
                    Ok(Claims { tenant_id, agent_id, .. }) => {
                        Ok(Caller { tenant: tenant_id.clone(), agent: agent_id.clone() })
                    }
                    Err(error) => Err(error.to_string()),
                }));
            }
            SessionOutput::Welcome(caller) => {
                let may_write = proved.as_ref().is_ok_and(|claims| claims.may_write);
                session.handle(SessionInput::Welcomed(welcome(shared, caller, may_write).await));
            }
            SessionOutput::Send(message) => send(shared, &mut sender, &message).await?,
            SessionOutput::Ready(caller) => ready = Ok(Arc::new(caller)),
            SessionOutput::Close(reason) => ready = Err(reason),
        }
    }
    sender.finish()?;
    match (ready, proved) {
        (Ok(caller), Ok(claims)) => Ok(Ok((caller, claims))),
        (Err(reason), _) => {
            // Closing drops what is still under way, and the reason should arrive.
            let _ = timeout(LAST_WORD_LIMIT, sender.delivered()).await;
            Ok(Err(reason))
        }
        // The session lets nobody in whose token was not verified.
        (Ok(_), Err(_)) => Ok(Err(Refusal::Unauthenticated)),
    }
}

/// Why it is not proved who calls.
#[derive(Debug, Error)]
enum NotProved {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Who calls, by the token, which the certificate must not contradict.
fn prove(shared: &Shared, connection: &Connection, token: &str) -> Result<Claims, NotProved> {
    let claims = shared.tokens.verify(token, wall_now_ms())?;
    shared.identity.check(connection.certificate_identity(), &claims)?;
    Ok(claims)
}

async fn welcome(shared: &Shared, caller: Caller, may_write: bool) -> Result<Welcome, Refused> {
    let welcomed = shared.writer.welcome(&Arc::new(caller)).await?;
    Ok(Welcome {
        hub_now_ms: hub_time_ms(wall_now_ms(), welcomed.highest),
        incarnation: shared.writer.incarnation(),
        counter: welcomed.counter,
        max_frame_bytes: u32::try_from(MAX_FRAME_BYTES).unwrap_or(u32::MAX),
        may_write,
    })
}
