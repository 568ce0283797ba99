//! Turns on the thread that owns a database.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::agent_error::{AgentError, ErrorCode};
use crate::storage::attach::TurnError;
use crate::storage::driver::{Sql, SqlDriver, SqlError, SqlErrorKind, batch};

/// The first pause before a busy database is asked again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Failures that a later turn may not meet.
pub trait Retry {
    /// How to react.
    fn kind(&self) -> SqlErrorKind;
}

impl Retry for SqlError {
    fn kind(&self) -> SqlErrorKind {
        self.kind
    }
}

impl Retry for TurnError {
    fn kind(&self) -> SqlErrorKind {
        match self {
            Self::Sql(error) => error.kind,
            Self::OtherTenant { .. } => SqlErrorKind::Other,
        }
    }
}

/// Runs a transaction on the database's thread. While the application has a transaction or an iterator open,
/// or another connection holds a lock, later turns of the event loop are waited for, until `patience` ends.
pub async fn turn<T, E, F>(driver: &dyn SqlDriver, patience: Duration, mut work: F) -> Result<T, AgentError>
where
    T: Send + 'static,
    E: Retry + Into<AgentError> + Send + 'static,
    F: FnMut(&mut dyn Sql) -> Result<T, E> + Send + 'static,
{
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let (outcome, unused) = batch(driver, move |sql| (work(sql), work)).await?;
        work = unused;
        let error = match outcome {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let held_by = match error.kind() {
            SqlErrorKind::InTransaction => {
                "a transaction of the application is open on this handle: COMMIT or ROLLBACK it"
            }
            SqlErrorKind::Busy => {
                "another connection holds a lock, or an iterator is open on this handle: finish it"
            }
            SqlErrorKind::Leased => "another process is syncing it: let it finish",
            _ => return Err(error.into()),
        };
        if started.elapsed() >= patience {
            let waited = started.elapsed().as_millis();
            return Err(AgentError::new(
                ErrorCode::Database,
                format!("the database stayed busy for {waited} ms: {held_by}, then sync again"),
            ));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
