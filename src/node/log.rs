//! What a hub logs, as its callers say it.

use tracing::level_filters::LevelFilter;

use super::error::CodedError;
use crate::engine::log::{LogFormat, LogOptions};

/// Reads `log` and `logLevel`.
pub fn log_options(log: Option<&str>, level: Option<&str>) -> Result<Option<LogOptions>, CodedError> {
    let level = match level {
        Some("error") => LevelFilter::ERROR,
        Some("warn") => LevelFilter::WARN,
        None | Some("info") => LevelFilter::INFO,
        Some("debug") => LevelFilter::DEBUG,
        Some(_) => return Err(CodedError::config("logLevel must be 'error', 'warn', 'info' or 'debug'")),
    };
    let format = match log {
        None | Some("off") => return Ok(None),
        Some("human") => LogFormat::Human,
        Some("json") => LogFormat::Json,
        Some(_) => return Err(CodedError::config("log must be 'off', 'human' or 'json'")),
    };
    Ok(Some(LogOptions { format, level }))
}
