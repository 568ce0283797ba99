//! How long an agent leaves a hub alone that asked for it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::agent_error::{AgentError, Remedy};

/// The longest pause that a hub can ask for: a wrong one must not silence an agent for good.
const LONGEST_MS: u32 = 300_000;

/// What a hub has asked for last.
#[derive(Debug, Default)]
pub(super) struct Pause(Mutex<Option<(Instant, AgentError)>>);

impl Pause {
    /// Takes note of a failure, if it asks for a pause of everything. `random` spreads agents that were refused
    /// together.
    pub(super) fn note(&self, error: &AgentError, now: Instant, random: u32) {
        if error.retry_after_ms > 0 && error.remedy != Remedy::PullOnly {
            let until = now + with_jitter(error.retry_after_ms, random);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((until, error.clone()));
        }
    }

    /// What is left of the pause at this time.
    fn left(&self, now: Instant) -> Option<(Duration, AgentError)> {
        let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, error) = pause.as_ref()?;
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            *pause = None;
            return None;
        }
        Some((left, error.clone()))
    }

    /// Waits for the end of the pause, or fails as before if that takes longer than the caller would wait.
    pub(super) async fn keep(&self, patience: Duration) -> Result<(), AgentError> {
        let Some((left, error)) = self.left(Instant::now()) else { return Ok(()) };
        if left > patience {
            let message = format!(
                "{}. Not asked again: the hub wants {} ms of rest yet",
                error.message,
                left.as_millis()
            );
            return Err(AgentError { message, remedy: Remedy::None, ..error });
        }
        sleep(left).await;
        Ok(())
    }
}

/// A pause that is half as long again at most: never shorter than asked.
pub(super) fn with_jitter(retry_after_ms: u32, random: u32) -> Duration {
    let ms = u64::from(retry_after_ms.min(LONGEST_MS));
    let spread = (ms / 2 * u64::from(random)) >> 32;
    Duration::from_millis(ms + spread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::agent_error::ErrorCode;

    fn put_off(retry_after_ms: u32) -> AgentError {
        AgentError { retry_after_ms, ..AgentError::new(ErrorCode::Busy, "full") }
    }

    #[test]
    fn jitter_never_shortens_a_pause_and_is_bounded() {
        let ms = Duration::from_millis;
        assert_eq!(with_jitter(1_000, 0), ms(1_000));
        assert_eq!(with_jitter(1_000, 1 << 31), ms(1_250));
        assert_eq!(with_jitter(1_000, u32::MAX), ms(1_499));
        assert_eq!(with_jitter(u32::MAX, 0), ms(300_000));
        assert_eq!(with_jitter(1, u32::MAX), ms(1));
    }

    #[test]
    fn a_pause_ends_with_its_time_and_a_failure_that_asks_for_none_changes_nothing() {
        let (pause, now) = (Pause::default(), Instant::now());
        pause.note(&put_off(1_000), now, 0);
        pause.note(&put_off(0), now, 0);
        pause.note(&AgentError { remedy: Remedy::PullOnly, ..put_off(9_000) }, now, 0);
        let left = |after| pause.left(now + Duration::from_millis(after)).map(|(left, _)| left.as_millis());
        assert_eq!((left(0), left(999), left(1_000), left(0)), (Some(1_000), Some(1), None, None));
    }

    #[tokio::test]
    async fn a_caller_waits_as_long_as_it_may_and_else_is_told_at_once() {
        let pause = Pause::default();
        pause.note(&put_off(60_000), Instant::now(), 0);
        let error = pause.keep(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Busy);
        assert!(error.message.starts_with("full. Not asked again"), "{error}");
        pause.note(&put_off(20), Instant::now(), 0);
        pause.keep(Duration::from_secs(1)).await.unwrap();
        assert!(pause.left(Instant::now()).is_none(), "it has been waited for");
    }
}
