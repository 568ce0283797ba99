//! Where an agent gets a token from for each connection, if it has no fixed one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::agent_error::{AgentError, ErrorCode};

/// Whatever gives tokens: a function of the application.
pub trait TokenSource: Send + Sync {
    /// Asks for a token that is good now. An error is why there is none. Whoever drops `answer` has none.
    fn ask(&self, answer: oneshot::Sender<Result<String, String>>);
}

/// Asks for a token, for so long.
pub(super) async fn ask(source: &Arc<dyn TokenSource>, limit: Duration) -> Result<String, AgentError> {
    let (answer, answered) = oneshot::channel();
    source.ask(answer);
    match timeout(limit, answered).await {
        Ok(Ok(Ok(token))) => Ok(token),
        Ok(Ok(Err(why))) => {
            let message = format!("the function that gives tokens failed: {why}");
            Err(AgentError::new(ErrorCode::Unauthenticated, message))
        }
        Ok(Err(_)) => {
            Err(AgentError::new(ErrorCode::Unauthenticated, "the function that gives tokens gave no answer"))
        }
        Err(_) => Err(AgentError::new(
            ErrorCode::Timeout,
            format!(
                "the function that gives tokens gave none within {} ms (connectTimeoutMs)",
                limit.as_millis()
            ),
        )),
    }
}
