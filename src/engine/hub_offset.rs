//! How far the hub's clock is ahead of this machine's, as far as the hub's answers tell.
//!
//! The hub reads its clock somewhere between a question and its answer, so each answer gives an interval, and several
//! give what these have in common. As long as nothing contradicts it, both clocks are taken for the same one: a
//! correction that may be nothing but its own error would only confuse agents whose clocks are right.

use std::time::Duration;

use crate::storage::replica::HubClock;

/// How far two clocks may drift apart, in millionths of the time: what a clock is slewed by at most, twice.
const DRIFT_PPM: i64 = 1_000;

/// By how much the wall clock must depart from one that does not jump to have jumped, in µs. Less comes of reading one
/// after the other.
const JUMP_US: i64 = 50_000;

/// Two clocks are read at once if it takes no longer than this.
pub const AT_ONCE: Duration = Duration::from_micros(100);

/// A look at this machine's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock, in µs since the epoch.
    pub wall_us: i64,
    /// A clock that does not jump; since when, is all the same.
    pub running: Duration,
}

/// How far the hub's clock is ahead of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubOffset {
    /// Between this and `most_us`, when the clocks showed `at`.
    least_us: i64,
    most_us: i64,
    at: Reading,
}

impl HubOffset {
    /// What an answer tells that came between these readings, and for which the hub read its clock in between.
    pub fn new(asked: Reading, answered: Reading, hub_now_ms: i64) -> Self {
        let asked_us =
            answered.wall_us.saturating_sub(micros(answered.running.saturating_sub(asked.running)));
        let hub_us = hub_now_ms.saturating_mul(1_000);
        let read_us = micros(AT_ONCE);
        Self {
            least_us: hub_us.saturating_sub(answered.wall_us).saturating_sub(read_us),
            // The hub tells whole milliseconds.
            most_us: hub_us.saturating_add(1_000 + read_us).saturating_sub(asked_us),
            at: answered,
        }
    }

    /// Takes in what a later answer tells. What was known before is less sure by now; if both cannot be true, a clock has
    /// jumped, and the answer is.
    pub fn renew(&mut self, later: Self) {
        let (step, drift) = (self.step(later.at), self.drift(later.at));
        let least = self.least_us.saturating_sub(drift).saturating_sub(step.max(0));
        let most = self.most_us.saturating_add(drift).saturating_sub(step.min(0));
        let (least, most) = (least.max(later.least_us), most.min(later.most_us));
        let agrees = least <= most && !self.has_jumped(later.at);
        *self = if agrees { Self { least_us: least, most_us: most, at: later.at } } else { later };
    }

    /// Whether this machine's wall clock was put forward or back since the hub's last answer, or the machine slept. Then
    /// the hub is to be asked for its time before anything is stamped by it.
    pub fn has_jumped(&self, now: Reading) -> bool {
        self.step(now).saturating_abs() > JUMP_US.saturating_add(self.drift(now))
    }

    /// The hub's clock now.
    pub fn clock(&self, now: Reading) -> HubClock {
        let step = if self.has_jumped(now) { self.step(now) } else { 0 };
        let (least, most) = (self.least_us.saturating_sub(step), self.most_us.saturating_sub(step));
        let offset_us =
            if least <= 0 && most >= 0 { 0 } else { least.saturating_add(most.saturating_sub(least) / 2) };
        let offset_ms = offset_us.saturating_add(500).div_euclid(1_000);
        HubClock { offset_ms, now_ms: now.wall_us.div_euclid(1_000).saturating_add(offset_ms) }
    }

    /// By how much the wall clock has moved on more than the time that has passed.
    fn step(&self, now: Reading) -> i64 {
        now.wall_us.saturating_sub(self.at.wall_us).saturating_sub(self.passed(now))
    }

    fn drift(&self, now: Reading) -> i64 {
        self.passed(now) / (1_000_000 / DRIFT_PPM)
    }

    fn passed(&self, now: Reading) -> i64 {
        micros(now.running.saturating_sub(self.at.running))
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_US: i64 = 1_800_000_000_000_000;

    /// A machine whose wall clock is `behind_us` behind the hub's, in a world where the time is that of its steady clock.
    #[derive(Clone, Copy, Debug)]
    struct Machine {
        behind_us: i64,
    }

    impl Machine {
        fn at(self, us: i64) -> Reading {
            let running = Duration::from_micros(us.unsigned_abs());
            Reading { wall_us: START_US + us - self.behind_us, running }
        }

        /// The hub's answer to a question of that time, which took so long there, and back.
        fn ask(self, us: i64, there: i64, back: i64) -> HubOffset {
            let hub_ms = (START_US + us + there).div_euclid(1_000);
            HubOffset::new(self.at(us), self.at(us + there + back), hub_ms)
        }
    }

    proptest! {
        /// Breaks if a delay of one direction is taken for a difference of the clocks.
        #[test]
        fn a_clock_that_is_right_is_never_corrected(
            answers in prop::collection::vec((0_i64..10_000_000_000, 0_i64..3_000_000, 0_i64..3_000_000), 1..6),
        ) {
            let machine = Machine { behind_us: 0 };
            let mut at = 0;
            let mut offset: Option<HubOffset> = None;
            for (pause, there, back) in answers {
                at += pause;
                let answer = machine.ask(at, there, back);
                at += there + back;
                offset.get_or_insert(answer).renew(answer);
                let clock = offset.unwrap().clock(machine.at(at));
                prop_assert_eq!(clock.offset_ms, 0);
                prop_assert_eq!(clock.now_ms, (START_US + at).div_euclid(1_000));
            }
        }

        /// However late the answers: what is applied differs from the truth by no more than the quickest of them took.
        #[test]
        fn a_correction_is_never_worse_than_what_is_known(
            behind_us in -5_000_000_i64..5_000_000,
            answers in prop::collection::vec((0_i64..3_000_000, 0_i64..3_000_000), 1..6),
        ) {
            let machine = Machine { behind_us };
            let mut at = 0;
            let mut offset: Option<HubOffset> = None;
            let mut known_us = i64::MAX;
            for (there, back) in answers {
                let answer = machine.ask(at, there, back);
                at += there + back;
                offset.get_or_insert(answer).renew(answer);
                // What was known before is less sure by as much as the clocks may have drifted since.
                known_us = (known_us.saturating_add(2 * (there + back) / 1_000)).min(there + back + 1_200);
                let error_us = offset.unwrap().clock(machine.at(at)).offset_ms * 1_000 - behind_us;
                prop_assert!(error_us.abs() <= known_us + 1_000, "{error_us} {known_us}");
            }
        }

        /// A clock that drifts is followed, however sure the first answer was.
        #[test]
        fn drift_is_followed(ppm in -400_i64..400, hours in 1_i64..48) {
            let machine = |us: i64| Machine { behind_us: us / 1_000_000 * ppm };
            let mut offset = machine(0).ask(0, 50, 50);
            for minute in 1..hours * 60 {
                let at = minute * 60_000_000;
                offset.renew(machine(at).ask(at, 2_000, 2_000));
                let error_us = offset.clock(machine(at).at(at + 4_000)).offset_ms * 1_000 - at / 1_000_000 * ppm;
                prop_assert!(error_us.abs() <= 5_000 + 1_000, "{error_us}");
            }
        }

        /// Breaks if a clock that is set goes on being corrected by what it was before.
        #[test]
        fn a_jump_is_noticed_and_what_the_hub_says_next_counts(
            jump_us in prop_oneof![-9_000_000_000_i64..-1_200_000, 1_200_000_i64..9_000_000_000],
            after_us in 0_i64..600_000_000,
        ) {
            let (before, after) = (Machine { behind_us: 0 }, Machine { behind_us: -jump_us });
            let mut offset = before.ask(0, 2_000, 3_000);
            prop_assert!(!offset.has_jumped(before.at(after_us + 5_000)));
            let now = after.at(after_us + 5_000);
            prop_assert!(offset.has_jumped(now));
            let hub_ms = (START_US + after_us + 5_000).div_euclid(1_000);
            prop_assert!((offset.clock(now).now_ms - hub_ms).abs() <= 6, "what has passed since counts meanwhile");
            offset.renew(after.ask(after_us + 5_000, 2_000, 3_000));
            let now = after.at(after_us + 10_000);
            prop_assert!(!offset.has_jumped(now));
            prop_assert!((offset.clock(now).now_ms - hub_ms - 5).abs() <= 6);
        }
    }

    /// Breaks if a clock that was set while the question was under way makes the answer look like another one.
    #[test]
    fn a_jump_between_question_and_answer_is_no_part_of_the_answer() {
        let (before, after) = (Machine { behind_us: 7_000_000 }, Machine { behind_us: 0 });
        let hub_ms = (START_US + 2_000).div_euclid(1_000);
        let offset = HubOffset::new(before.at(0), after.at(4_000), hub_ms);
        assert_eq!(offset.clock(after.at(5_000)).offset_ms, 0);
    }

    /// Two clocks are read one after the other, and a thread may have to wait in between.
    #[test]
    fn a_slow_look_at_the_clocks_is_no_jump() {
        let machine = Machine { behind_us: 0 };
        let offset = machine.ask(0, 100, 100);
        let mut late = machine.at(10_000_000);
        late.wall_us -= 5_000;
        assert!(!offset.has_jumped(late));
        assert_eq!(offset.clock(late).offset_ms, 0);
    }

    #[test]
    fn clocks_at_the_ends_of_time_overflow_nothing() {
        for wall_us in [i64::MIN, 0, i64::MAX] {
            for hub_ms in [i64::MIN, 0, i64::MAX] {
                let reading = Reading { wall_us, running: Duration::MAX };
                let mut offset = HubOffset::new(reading, reading, hub_ms);
                offset.renew(HubOffset::new(Reading { running: Duration::ZERO, ..reading }, reading, 5));
                offset.clock(Reading { wall_us: 0, running: Duration::ZERO });
                offset.clock(reading);
            }
        }
    }
}
