//! The hub's time, which never goes back, whatever becomes of the machine's clock.
//!
//! Agents stamp their writes by it, and the hub refuses stamps from too far ahead of it. So if it went back with
//! the machine's clock, the hub would refuse what agents had stamped a moment before, until its clock got there
//! again.

use std::time::Duration;

/// The hub's time is kept in its store when it is this far ahead of what is there, in ms. A hub that starts with a
/// clock that went back begins at the time that was kept: what agents have stamped since then, and in the 30 s until
/// they miss the hub that died, must be within what a stamp may be ahead.
pub const KEEP_TIME_MS: i64 = 5_000;

/// The hub's time while it runs.
#[derive(Clone, Copy, Debug)]
pub struct HubTime {
    /// When it last agreed with the machine's clock, by both.
    set: (i64, Duration),
}

impl HubTime {
    /// The time of a hub that starts now. `kept_ms` is what its store kept, in ms since the epoch.
    pub fn new(kept_ms: i64) -> Self {
        Self { set: (kept_ms, Duration::ZERO) }
    }

    /// The time, in ms since the epoch: the machine's (`wall_ms`), or, where that went back, what it showed before and
    /// what has passed since. `running` says how long the hub has been running, by a clock that does not jump.
    pub fn read(&mut self, wall_ms: i64, running: Duration) -> i64 {
        let (set_ms, at) = self.set;
        let passed_ms = i64::try_from(running.saturating_sub(at).as_millis()).unwrap_or(i64::MAX);
        let now_ms = set_ms.saturating_add(passed_ms);
        if wall_ms <= now_ms {
            return now_ms;
        }
        self.set = (wall_ms, running);
        wall_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_machines_clock_forwards_only() {
        let mut time = HubTime::new(500);
        let second = Duration::from_secs(1);
        assert_eq!(time.read(10_000, second), 10_000);
        assert_eq!(time.read(90_000, second), 90_000, "a jump ahead");
        assert_eq!(time.read(11_000, 2 * second), 91_000, "and back: it goes on");
        assert_eq!(time.read(12_000, 3 * second), 92_000);
        assert_eq!(time.read(95_000, 4 * second), 95_000, "until the clock gets there");
    }

    #[test]
    fn a_hub_that_starts_with_a_wrong_clock_goes_on_where_it_was() {
        assert_eq!(HubTime::new(70_000).read(5, Duration::from_secs(1)), 71_000);
    }

    #[test]
    fn parts_of_a_millisecond_add_up() {
        let mut time = HubTime::new(1_000);
        for step in 1..=10 {
            time.read(0, Duration::from_micros(700 * step));
        }
        assert_eq!(time.read(0, Duration::from_millis(7)), 1_007);
    }
}
