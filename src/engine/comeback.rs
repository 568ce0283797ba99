//! How an agent comes back to a hub that is started anew.
//!
//! A connection that was lost may be restored at once, or when the hub is back: a sync tries for as long as its caller
//! would wait for it to make progress. Agents that were told together that the hub stops come back spread out.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::agent_error::{AgentError, Remedy};
use super::pause::with_jitter;

/// The pause before the second attempt is of this length at most; each further one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause: whoever restarts a hub does not want to wait for its agents.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A sync's attempts to restore a connection.
#[derive(Debug)]
pub(super) struct Comeback {
    deadline: Instant,
    tried: u32,
    /// Whether there was a connection, which this sync has to restore.
    is_lost: bool,
}

impl Comeback {
    /// A sync that begins now. `is_lost` says that the agent's connection is over already.
    pub(super) fn new(patience: Duration, is_lost: bool) -> Self {
        Self { deadline: Instant::now() + patience, tried: 0, is_lost }
    }

    /// How long the next attempt to connect may take, if it may take so long at most.
    pub(super) fn limit(&self, longest: Duration) -> Duration {
        if self.is_lost {
            longest.min(self.deadline.saturating_duration_since(Instant::now()))
        } else {
            longest
        }
    }

    /// Whether to try again after this failure, on a new connection; waits until it is time to. `random` spreads
    /// agents that lost theirs together.
    pub(super) async fn is_due(&mut self, error: &AgentError, random: u32) -> bool {
        let Some(pause) = self.pause(error, random) else { return false };
        if Instant::now() + pause >= self.deadline {
            return false;
        }
        sleep(pause).await;
        true
    }

    /// How long to wait before the next attempt; nothing if that would not help.
    fn pause(&mut self, error: &AgentError, random: u32) -> Option<Duration> {
        match error.remedy {
            Remedy::Reconnect => {}
            // Without a connection that was lost, whoever wants to connect decides himself how often.
            Remedy::ConnectLater if self.is_lost => {}
            _ => return None,
        }
        self.is_lost = true;
        let tried = self.tried;
        self.tried += 1;
        if error.retry_after_ms > 0 {
            return Some(with_jitter(error.retry_after_ms, random));
        }
        if tried == 0 && error.remedy == Remedy::Reconnect {
            return Some(Duration::ZERO);
        }
        let longest = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(tried.min(8)));
        Some(longest / 2 + (longest / 2).mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::agent_error::ErrorCode;

    fn error(remedy: Remedy, retry_after_ms: u32) -> AgentError {
        AgentError { retry_after_ms, remedy, ..AgentError::new(ErrorCode::Unreachable, "gone") }
    }

    fn comeback(is_lost: bool) -> Comeback {
        Comeback::new(Duration::from_secs(60), is_lost)
    }

    #[test]
    fn the_first_attempt_is_made_at_once_and_further_ones_after_longer_and_longer_pauses() {
        let mut back = comeback(false);
        let lost = error(Remedy::Reconnect, 0);
        assert_eq!(back.pause(&lost, 0), Some(Duration::ZERO));
        let later = error(Remedy::ConnectLater, 0);
        let pauses: Vec<_> = (0..5).map(|_| back.pause(&later, 0).unwrap().as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1_000, 1_000, 1_000]);
        assert_eq!(back.pause(&later, u32::MAX), Some(LONGEST_PAUSE), "spread");
    }

    #[test]
    fn a_hub_that_says_when_to_come_back_is_not_asked_before() {
        let mut back = comeback(false);
        let told = error(Remedy::Reconnect, 400);
        assert_eq!(back.pause(&told, 0), Some(Duration::from_millis(400)));
        assert!(back.pause(&told, u32::MAX) > Some(Duration::from_millis(400)));
    }

    #[test]
    fn nothing_is_tried_again_that_was_never_connected_or_is_not_a_matter_of_the_connection() {
        assert_eq!(comeback(false).pause(&error(Remedy::ConnectLater, 0), 0), None);
        assert!(comeback(true).pause(&error(Remedy::ConnectLater, 0), 0).is_some());
        for remedy in [Remedy::None, Remedy::Attach, Remedy::PullOnly] {
            assert_eq!(comeback(true).pause(&error(remedy, 0), 0), None);
        }
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_the_caller_would() {
        let mut back = Comeback::new(Duration::from_secs(1), false);
        assert!(!back.is_due(&error(Remedy::Reconnect, 5_000), 0).await);
        assert!(back.is_due(&error(Remedy::Reconnect, 1), 0).await);
        assert!(back.limit(Duration::from_secs(9)) <= Duration::from_secs(1));
        assert_eq!(comeback(false).limit(Duration::from_secs(9)), Duration::from_secs(9));
    }
}
