//! What can go wrong for an agent, and what to do about it.

use thiserror::Error;

use super::runtime::RuntimeError;
use crate::protocol::agent_session::ExchangeError;
use crate::protocol::close_code::{EXPIRED, REVOKED};
use crate::protocol::message::{Refusal, Refused};
use crate::storage::attach::TurnError;
use crate::storage::driver::{DriverGone, SqlError, SqlErrorKind};
use crate::transport::{ConnectError, ConnectionLost, EndpointAddressError, ReceiveError, SendError};

/// What kind of failure it was. Each has one code in JavaScript.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// `sync` before `connect`, or after `disconnect`.
    NotConnected,
    /// An option is missing or wrong.
    Config,
    /// No hub answers at the endpoint.
    Unreachable,
    /// Agent and hub do not trust each other's certificates, or do not speak the same version.
    Tls,
    /// The hub refuses the token.
    Unauthenticated,
    /// The token does not permit it.
    Forbidden,
    /// The hub answered, and then stayed silent for too long.
    Timeout,
    /// The agent's database cannot be read or written.
    Database,
    /// Hub and agent do not understand each other.
    Protocol,
    /// The hub cannot serve at present.
    Busy,
    /// The agent's tenant has reached a limit of its own.
    Quota,
    /// A fault of this library.
    Internal,
}

/// A failed operation of an agent. Nothing is lost by it: the next sync sends what this one did not.
#[derive(Clone, Debug, Error)]
#[error("{message}")]
pub struct AgentError {
    /// What kind of failure it was.
    pub code: ErrorCode,
    /// What was wrong, and what to do.
    pub message: String,
    /// How long the hub wants to be left alone, in ms; 0 if it said nothing of the kind.
    pub retry_after_ms: u32,
    /// Whether a new connection may mend it at once.
    pub(super) remedy: Remedy,
}

/// What the agent itself can do about a failure, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing.
    None,
    /// Connect anew.
    Reconnect,
    /// Connect later, if there was a connection: the hub may be about to be started anew.
    ConnectLater,
    /// Attach the database anew.
    Attach,
    /// Pull, and send nothing for a while.
    PullOnly,
}

/// How long an agent leaves a hub alone that had no place for it, in ms, if it did not hear how long it should.
const UNTOLD_RETRY_MS: u32 = 2_000;

/// How long an agent leaves a hub alone that stops, in ms: until it can have closed its file.
const RESTART_MS: u32 = 200;

impl AgentError {
    /// A failure that the agent itself cannot mend.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: 0, remedy: Remedy::None }
    }

    /// The hub had no place, and there was no time to say for how long.
    fn crowded_out(code: ErrorCode, message: String) -> Self {
        Self { retry_after_ms: UNTOLD_RETRY_MS, ..Self::new(code, message) }
    }

    /// `sync` before `connect`: the text that callers of the former class compare with.
    pub fn not_connected() -> Self {
        Self::new(ErrorCode::NotConnected, "Not connected to federation hub")
    }

    /// Something was written here under a token that permits no writing.
    pub fn held_back() -> Self {
        Self::new(
            ErrorCode::Forbidden,
            "this agent's token permits no writing: what was written here is not sent, and waits for a token that \
             does. What others wrote has been applied",
        )
    }

    /// The hub stayed silent, or took nothing, for too long.
    pub fn timeout(limit_ms: u64) -> Self {
        let message = format!(
            "the hub made no progress for {limit_ms} ms (requestTimeoutMs). Nothing is lost: the next sync \
             sends it again; if the network is slow, raise requestTimeoutMs"
        );
        Self::new(ErrorCode::Timeout, message)
    }

    /// The hub stops, probably to be started anew.
    fn stopping(message: impl Into<String>) -> Self {
        Self { retry_after_ms: RESTART_MS, ..Self::reconnect(ErrorCode::Busy, message) }
    }

    /// A hub that let the agent connect, and did not answer its greeting: it may be about to stop.
    pub(super) fn silent_greeting(message: &str) -> Self {
        Self { remedy: Remedy::ConnectLater, ..Self::new(ErrorCode::Timeout, message) }
    }

    fn reconnect(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { remedy: Remedy::Reconnect, ..Self::new(code, message) }
    }
}

impl From<RuntimeError> for AgentError {
    fn from(error: RuntimeError) -> Self {
        Self::new(ErrorCode::Internal, error.to_string())
    }
}

impl From<EndpointAddressError> for AgentError {
    fn from(error: EndpointAddressError) -> Self {
        Self::new(ErrorCode::Config, error.to_string())
    }
}

impl From<ConnectError> for AgentError {
    fn from(error: ConnectError) -> Self {
        if matches!(error, ConnectError::Lost { lost: ConnectionLost::Refused, .. }) {
            // Somebody is there, and too full for another one, or about to stop: it may do so only for a moment.
            let refused = Self::crowded_out(ErrorCode::Busy, error.to_string());
            return Self { remedy: Remedy::Reconnect, ..refused };
        }
        let code = match &error {
            ConnectError::Config(_) => ErrorCode::Config,
            ConnectError::Tls { .. } | ConnectError::Lost { lost: ConnectionLost::Tls(_), .. } => {
                ErrorCode::Tls
            }
            ConnectError::Socket(_) => ErrorCode::Internal,
            ConnectError::Lost { lost: ConnectionLost::Protocol(_), .. } => ErrorCode::Protocol,
            ConnectError::Resolve { .. }
            | ConnectError::Unreachable { .. }
            | ConnectError::NoRoute { .. }
            | ConnectError::Lost { .. } => ErrorCode::Unreachable,
        };
        let remedy = if code == ErrorCode::Unreachable { Remedy::ConnectLater } else { Remedy::None };
        Self { remedy, ..Self::new(code, error.to_string()) }
    }
}

impl From<ConnectionLost> for AgentError {
    fn from(lost: ConnectionLost) -> Self {
        if let ConnectionLost::Closed { code, reason } = &lost
            && let Some(code) = crowded_out(*code)
        {
            return Self::crowded_out(code, format!("the hub refused: {reason}"));
        }
        if matches!(&lost, ConnectionLost::Closed { code, .. } if *code == u64::from(Refusal::Stopping.close_code()))
        {
            return Self::stopping("the hub is stopping");
        }
        match lost {
            ConnectionLost::Tls(_) => Self::new(ErrorCode::Tls, lost.to_string()),
            ConnectionLost::Protocol(_) => Self::new(ErrorCode::Protocol, lost.to_string()),
            ConnectionLost::Closed { code, ref reason } if ends_a_token(code) => {
                Self::reconnect(ErrorCode::Unauthenticated, format!("the hub ended the session: {reason}"))
            }
            _ => {
                Self::reconnect(ErrorCode::Unreachable, format!("the connection to the hub was lost: {lost}"))
            }
        }
    }
}

/// What it is called if a connection was closed for lack of room.
fn crowded_out(code: u64) -> Option<ErrorCode> {
    match Refusal::from_close_code(code)? {
        Refusal::Busy => Some(ErrorCode::Busy),
        Refusal::Quota => Some(ErrorCode::Quota),
        _ => None,
    }
}

/// Whether a connection was closed because of its token: another one may do.
fn ends_a_token(code: u64) -> bool {
    code == u64::from(EXPIRED) || code == u64::from(REVOKED)
}

impl From<SendError> for AgentError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Lost(lost) => lost.into(),
            SendError::Stopped(_) | SendError::Finished => {
                Self::reconnect(ErrorCode::Protocol, format!("the hub broke off the sync: {error}"))
            }
            SendError::Frame(_) => Self::new(ErrorCode::Internal, error.to_string()),
        }
    }
}

impl From<ReceiveError> for AgentError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Lost(lost) => lost.into(),
            ReceiveError::Frame(_) => Self::new(
                ErrorCode::Protocol,
                format!(
                    "the hub sent something that is no message: {error}. Bring hub and agent to one release"
                ),
            ),
            // Only a hub runs out of memory for frames.
            ReceiveError::Reset(_)
            | ReceiveError::TooSlow
            | ReceiveError::NoMemory
            | ReceiveError::Stopped => {
                Self::reconnect(ErrorCode::Protocol, format!("the hub broke off the sync: {error}"))
            }
        }
    }
}

impl From<Refused> for AgentError {
    fn from(refused: Refused) -> Self {
        let (code, remedy) = match refused.reason {
            Refusal::Unauthenticated => (ErrorCode::Unauthenticated, Remedy::None),
            Refusal::Forbidden => (ErrorCode::Forbidden, Remedy::None),
            Refusal::Protocol | Refusal::Clock => (ErrorCode::Protocol, Remedy::None),
            Refusal::Stale => (ErrorCode::Protocol, Remedy::Attach),
            Refusal::Store | Refusal::Busy => (ErrorCode::Busy, Remedy::None),
            Refusal::Stopping => (ErrorCode::Busy, Remedy::Reconnect),
            Refusal::Quota => (ErrorCode::Quota, Remedy::None),
            Refusal::Full => (ErrorCode::Quota, Remedy::PullOnly),
            Refusal::NoRoom => (ErrorCode::Busy, Remedy::PullOnly),
        };
        let Refused { message, retry_after_ms, .. } = refused;
        if remedy == Remedy::Reconnect && retry_after_ms == 0 {
            return Self::stopping(format!("the hub refused: {message}"));
        }
        Self { code, message: format!("the hub refused: {message}"), retry_after_ms, remedy }
    }
}

impl From<ExchangeError> for AgentError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused(refused) => refused.into(),
            ExchangeError::OutOfOrder(_) => Self::new(ErrorCode::Protocol, error.to_string()),
        }
    }
}

/// What SQLite says, among other things, when a handle or a file permits no writing.
const READ_ONLY: &str = "attempt to write a readonly database";

/// Whether SQLite misses one of our tables or indexes, or finds it other than it was made.
fn is_dismantled(message: &str) -> bool {
    let missing =
        ["no such table: main._federation_", "no such table: _federation_", "no such index: _federation_"];
    missing.iter().any(|text| message.contains(text)) || message.contains("_federation_replica is empty")
}

impl From<SqlError> for AgentError {
    fn from(error: SqlError) -> Self {
        if matches!(error.kind, SqlErrorKind::Detached | SqlErrorKind::Unsettled) {
            let message = format!("{error}; sync it again to attach it anew");
            return Self { remedy: Remedy::Attach, ..Self::new(ErrorCode::Database, message) };
        }
        let message = match error.kind {
            SqlErrorKind::Closed => format!(
                "the database was closed during the sync ({error}). Nothing is lost; await sync() before closing \
                 it"
            ),
            _ if error.message.contains(READ_ONLY) => format!(
                "the agent's database is read-only ({error}), and a sync writes what others wrote, and its own \
                 bookkeeping: open it for writing, and see that the file and its folder are writable"
            ),
            _ if is_dismantled(&error.message) => format!(
                "something of what syncing keeps in this database was removed or changed by other hands ({error}): call \
                 FederationHub.detach(database), which removes the rest and no row of yours, and sync again. The \
                 database is then a new replica, as at its first sync (existingRows)"
            ),
            _ => format!("the agent's database: {error}"),
        };
        Self::new(ErrorCode::Database, message)
    }
}

impl From<TurnError> for AgentError {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::Sql(error) => error.into(),
            TurnError::OtherTenant { .. } => Self::new(ErrorCode::Database, error.to_string()),
        }
    }
}

impl From<DriverGone> for AgentError {
    fn from(error: DriverGone) -> Self {
        Self::new(ErrorCode::Database, error.to_string())
    }
}
