//! The one table from what went wrong to `err.code`.

use std::io;

use crate::engine::agent_error::{AgentError, ErrorCode};
use crate::engine::hub::HubStartError;
use crate::engine::operator::OperateError;
use crate::engine::revocations::RevokeError;
use crate::storage::backup::BackupError;
use crate::storage::hub_store::StoreError;

/// Something was asked of a hub that does not run.
const NOT_RUNNING: &str = "ERR_FEDERATION_NOT_RUNNING";

/// A failure on its way to a rejected promise: the code that programs branch on, and the message that people
/// read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodedError {
    /// One of the `ERR_FEDERATION_*` codes of the documented table.
    pub code: &'static str,
    /// What happened, and what to do about it.
    pub message: String,
    /// How long to leave the hub alone, in ms; 0 if that would not help.
    pub retry_after_ms: u32,
}

impl CodedError {
    fn new(code: &'static str, message: String) -> Self {
        Self { code, message, retry_after_ms: 0 }
    }

    /// An option that is missing or wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(code(ErrorCode::Config), message.into())
    }

    /// A database that cannot be synced.
    pub fn database(message: impl Into<String>) -> Self {
        Self::new(code(ErrorCode::Database), message.into())
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(code(ErrorCode::Internal), message.into())
    }
}

impl From<AgentError> for CodedError {
    fn from(error: AgentError) -> Self {
        Self { retry_after_ms: error.retry_after_ms, ..Self::new(code(error.code), error.message) }
    }
}

impl From<HubStartError> for CodedError {
    fn from(error: HubStartError) -> Self {
        let code = match &error {
            HubStartError::Metrics { cause, .. } if cause.kind() == io::ErrorKind::InvalidInput => {
                code(ErrorCode::Config)
            }
            HubStartError::Address { .. }
            | HubStartError::Keys(_)
            | HubStartError::NoClientCa
            | HubStartError::Log(_) => code(ErrorCode::Config),
            HubStartError::Store(_)
            | HubStartError::Read(_)
            | HubStartError::Bind(_)
            | HubStartError::Metrics { .. }
            | HubStartError::System(_) => "ERR_FEDERATION_HUB_START",
        };
        Self::new(code, error.to_string())
    }
}

impl From<RevokeError> for CodedError {
    fn from(error: RevokeError) -> Self {
        let code = match error {
            RevokeError::NotRunning => NOT_RUNNING,
            RevokeError::NotStored(_) | RevokeError::Store(_) => code(ErrorCode::Busy),
        };
        Self::new(code, error.to_string())
    }
}

impl From<OperateError> for CodedError {
    fn from(error: OperateError) -> Self {
        let code = match &error {
            OperateError::NotRunning => NOT_RUNNING,
            OperateError::NotRevoked(_)
            | OperateError::CannotShrink(_)
            | OperateError::Store(StoreError::Refused(..)) => code(ErrorCode::Config),
            OperateError::Unfinished(_) | OperateError::Store(_) => code(ErrorCode::Busy),
        };
        Self::new(code, error.to_string())
    }
}

impl From<BackupError> for CodedError {
    fn from(error: BackupError) -> Self {
        let code = match error {
            BackupError::NotRunning => NOT_RUNNING,
            BackupError::InMemory | BackupError::Exists(_) => code(ErrorCode::Config),
            BackupError::Stopped | BackupError::Io { .. } | BackupError::Store(_) => "ERR_FEDERATION_BACKUP",
        };
        Self::new(code, error.to_string())
    }
}

/// What a method that answers at once fails with: napi throws it with its code.
pub type Thrown = napi::Error<&'static str>;

impl From<CodedError> for Thrown {
    fn from(error: CodedError) -> Self {
        Self::new(error.code, error.message)
    }
}

fn code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NotConnected => "ERR_FEDERATION_NOT_CONNECTED",
        ErrorCode::Config => "ERR_FEDERATION_CONFIG",
        ErrorCode::Unreachable => "ERR_FEDERATION_UNREACHABLE",
        ErrorCode::Tls => "ERR_FEDERATION_TLS",
        ErrorCode::Unauthenticated => "ERR_FEDERATION_UNAUTHENTICATED",
        ErrorCode::Forbidden => "ERR_FEDERATION_FORBIDDEN",
        ErrorCode::Timeout => "ERR_FEDERATION_TIMEOUT",
        ErrorCode::Database => "ERR_FEDERATION_DATABASE",
        ErrorCode::Protocol => "ERR_FEDERATION_PROTOCOL",
        ErrorCode::Busy => "ERR_FEDERATION_BUSY",
        ErrorCode::Quota => "ERR_FEDERATION_QUOTA",
        ErrorCode::Internal => "ERR_FEDERATION_INTERNAL",
    }
}
