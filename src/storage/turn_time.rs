//! How long a turn holds its thread.

use std::time::Duration;

/// Time that has passed since any fixed moment; never less than at an earlier call.
pub type Monotonic = fn() -> Duration;

/// Tells a turn that works on rows one by one when it has to leave the rest to the next turn.
///
/// The time runs from the first row on: what comes before it cannot be left to another turn. The first row is always
/// worked on, so every turn gets on.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnTime {
    /// The clock, and how long a turn lasts; none: it has no end.
    clock: Option<(Monotonic, Duration)>,
    ends: Option<Duration>,
}

impl TurnTime {
    /// Of turns that have no end.
    pub const ENDLESS: Self = Self { clock: None, ends: None };

    /// Of turns that work on rows for so long.
    #[must_use]
    pub fn of(now: Monotonic, lasts: Duration) -> Self {
        Self { clock: Some((now, lasts)), ends: None }
    }

    /// A new turn begins.
    pub fn restart(&mut self) {
        self.ends = None;
    }

    /// Whether the turn has no time for the row that comes next. The first call of a turn begins its time.
    pub fn is_over(&mut self) -> bool {
        let Some((now, lasts)) = self.clock else { return false };
        let now = now();
        now >= *self.ends.get_or_insert(now + lasts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    static NOW_MS: AtomicU64 = AtomicU64::new(50);

    fn now() -> Duration {
        Duration::from_millis(NOW_MS.load(Ordering::Relaxed))
    }

    #[test]
    fn the_time_of_a_turn_runs_from_its_first_row() {
        let mut time = TurnTime::of(now, Duration::from_millis(5));
        NOW_MS.store(100, Ordering::Relaxed);
        assert!(!time.is_over());
        NOW_MS.store(104, Ordering::Relaxed);
        assert!(!time.is_over());
        NOW_MS.store(105, Ordering::Relaxed);
        assert!(time.is_over());
        time.restart();
        assert!(!time.is_over(), "that is the first row of the next turn");
    }
}
