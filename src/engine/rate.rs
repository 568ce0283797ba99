//! How much a tenant may do per second. Pure: whoever asks says what time it is.
//!
//! Two leaky buckets, of rows and of bytes. What has happened is charged when it is known, so that a message larger than
//! the whole bucket passes as any other; who comes after it waits until that is paid. So no crate for rate limiting fits:
//! they refuse, for good, what does not fit the bucket.

use std::time::Duration;

/// How much may be done at once after a rest: what the rate allows in this time.
const BURST: Duration = Duration::from_secs(2);

/// A bucket that leaks at some rate.
#[derive(Clone, Debug)]
struct Bucket {
    per_second: u64,
    /// When it is empty, since an origin of the caller's.
    empty_at: Duration,
}

impl Bucket {
    fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1), empty_at: Duration::ZERO }
    }

    /// How long to wait until there is room in it.
    fn wait(&self, now: Duration) -> Duration {
        self.empty_at.saturating_sub(BURST).saturating_sub(now)
    }

    fn charge(&mut self, now: Duration, amount: u64) {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second);
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.empty_at = self.empty_at.max(now).saturating_add(lasts);
    }
}

/// What one tenant has done lately.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    rows: Bucket,
    bytes: Bucket,
}

impl Rate {
    /// Nothing yet; so many rows and bytes per second.
    pub(super) fn new(rows_per_second: u64, bytes_per_second: u64) -> Self {
        Self { rows: Bucket::new(rows_per_second), bytes: Bucket::new(bytes_per_second) }
    }

    /// How long to wait before anything else is done. Times are since an origin of the caller's.
    pub(super) fn wait(&self, now: Duration) -> Duration {
        self.rows.wait(now).max(self.bytes.wait(now))
    }

    /// Takes note of what is being done. However much it is, only who comes later waits for it.
    pub(super) fn charge(&mut self, now: Duration, rows: u64, bytes: u64) {
        self.rows.charge(now, rows);
        self.bytes.charge(now, bytes);
    }

    /// Whether it is as if nothing had been done.
    pub(super) fn is_rested(&self, now: Duration) -> bool {
        self.rows.empty_at <= now && self.bytes.empty_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let mut rate = Rate::new(1_000, 1_000_000);
        rate.charge(ms(0), 2_000, 0);
        assert_eq!(rate.wait(ms(0)), ms(0), "two seconds' worth at once");
        rate.charge(ms(0), 500, 0);
        assert_eq!(rate.wait(ms(0)), ms(500));
        assert_eq!(rate.wait(ms(400)), ms(100));
        rate.charge(ms(500), 0, 5_000_000);
        assert_eq!(rate.wait(ms(500)), ms(3_000), "whichever is longer");
        assert!(!rate.is_rested(ms(5_000)) && rate.is_rested(ms(5_500)));
    }

    #[test]
    fn numbers_that_nobody_can_have_change_nothing_but_the_wait() {
        let mut rate = Rate::new(0, 1);
        rate.charge(ms(1), u64::MAX, u64::MAX);
        rate.charge(Duration::MAX, u64::MAX, 1);
        assert_eq!(rate.wait(Duration::MAX), ms(0));
    }

    proptest! {
        /// Whoever waits as told never does more than the burst, the rate, and the one thing that it had begun.
        #[test]
        fn who_waits_as_told_keeps_the_rate(
            per_second in 1_u64..5_000,
            steps in prop::collection::vec((0_u64..3_000, 0_u64..10_000), 1..60)
        ) {
            let mut rate = Rate::new(per_second, u64::MAX);
            let (mut now, mut done) = (Duration::ZERO, 0_u64);
            for (pause_ms, rows) in steps {
                now += ms(pause_ms);
                now += rate.wait(now);
                let allowed = u128::from(per_second) * (now + BURST).as_nanos() / 1_000_000_000;
                // Each charge is rounded down to a whole nanosecond.
                prop_assert!(u128::from(done) <= allowed + 1, "{done} of {allowed} at {now:?}");
                rate.charge(now, rows, 0);
                done += rows;
            }
        }

        /// Nobody waits longer than what was done takes.
        #[test]
        fn nobody_waits_for_what_was_not_done(
            per_second in 1_u64..5_000,
            charges in prop::collection::vec((0_u64..3_000, 0_u64..10_000), 1..60)
        ) {
            let mut rate = Rate::new(per_second, u64::MAX);
            let (mut now, mut done) = (Duration::ZERO, 0_u128);
            for (pause_ms, rows) in charges {
                now += ms(pause_ms);
                rate.charge(now, rows, 0);
                done += u128::from(rows);
                let takes = done * 1_000_000_000 / u128::from(per_second);
                prop_assert!(rate.wait(now).as_nanos() <= takes);
            }
        }
    }
}
