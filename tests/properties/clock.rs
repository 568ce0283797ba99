//! Clocks: comparison is a partial order, merging its least upper bound, and stamps follow causality.

use std::time::Duration;

use federation_hub::engine::hub_offset::{HubOffset, Reading};
use federation_hub::model::{ClockOrder, Hlc, ReplicaId, StampSource, VectorClock};
use proptest::prelude::*;

use crate::arbitrary::vector_clock;

fn at_most(a: &VectorClock, b: &VectorClock) -> bool {
    matches!(a.compare(b), ClockOrder::Equal | ClockOrder::Before)
}

fn merged(a: &VectorClock, b: &VectorClock) -> VectorClock {
    let mut merged = a.clone();
    merged.merge(b);
    merged
}

proptest! {
    #[test]
    fn comparison_is_a_partial_order(a in vector_clock(), b in vector_clock(), c in vector_clock()) {
        prop_assert_eq!(a.compare(&a), ClockOrder::Equal);
        let mirrored = match b.compare(&a) {
            ClockOrder::Before => ClockOrder::After,
            ClockOrder::After => ClockOrder::Before,
            same => same,
        };
        prop_assert_eq!(a.compare(&b), mirrored);
        if at_most(&a, &b) && at_most(&b, &c) {
            prop_assert!(at_most(&a, &c));
        }
        let agents = || a.iter().chain(b.iter()).map(|(agent, _)| agent);
        let same_counts = agents().all(|agent| a.get(agent) == b.get(agent));
        prop_assert_eq!(a.compare(&b) == ClockOrder::Equal, same_counts);
    }

    #[test]
    fn merging_is_the_least_upper_bound(a in vector_clock(), b in vector_clock(), c in vector_clock()) {
        let both = merged(&a, &b);
        prop_assert!(at_most(&a, &both) && at_most(&b, &both));
        if at_most(&a, &c) && at_most(&b, &c) {
            prop_assert!(at_most(&both, &c));
        }
        prop_assert_eq!(&both, &merged(&b, &a));
        prop_assert_eq!(merged(&both, &c), merged(&a, &merged(&b, &c)));
        prop_assert_eq!(&merged(&a, &a), &a);
    }

    #[test]
    fn one_more_is_later_than_before(a in vector_clock(), agent in "[a-e]") {
        let mut more = a.clone();
        prop_assert_eq!(more.increment(&agent), a.get(&agent) + 1);
        prop_assert_eq!(a.compare(&more), ClockOrder::Before);
    }

    /// Breaks if agents whose clocks are right are told apart by how far they are from the hub: of two writes a millisecond
    /// apart, the later one has the later stamp, whatever the delays, there and back, were.
    #[test]
    fn agents_whose_clocks_are_right_keep_the_order_of_their_writes(
        asked_us in 0_i64..1_000_000,
        delays in prop::array::uniform2((0_i64..2_000_000, 0_i64..2_000_000)),
        wrote_ms in 2_000_i64..9_000,
        later_ms in 1_i64..50,
    ) {
        const START_US: i64 = 1_800_000_000_000_000;
        let reading = |us: i64| {
            let running = Duration::from_micros(us.unsigned_abs());
            Reading { wall_us: START_US + us, running }
        };
        let stamp = |agent: u8, wrote_ms: i64| {
            let (there, back) = delays[usize::from(agent)];
            let hub_ms = (START_US + asked_us + there) / 1_000;
            let offset = HubOffset::new(reading(asked_us), reading(asked_us + there + back), hub_ms);
            let clock = offset.clock(reading(9_100_000));
            let replica = ReplicaId([9 - agent; 16]);
            let (offset_ms, hub_now_ms, highest) = (clock.offset_ms, clock.now_ms, Hlc::ZERO);
            StampSource { replica, offset_ms, hub_now_ms, highest }.stamp(START_US / 1_000 + wrote_ms)
        };
        prop_assert!(stamp(0, wrote_ms) < stamp(1, wrote_ms + later_ms));
        prop_assert!(stamp(1, wrote_ms) < stamp(0, wrote_ms + later_ms));
    }

    /// Whatever the wall clock says: a stamp exceeds all that was seen, and exceeds the hub's time only if that did.
    #[test]
    fn a_stamp_follows_what_was_seen_and_never_leads_the_hub(
        wall_ms: i64,
        offset_ms: i64,
        hub_now_ms in 0_i64..(1 << 46),
        seen in 0_u64..(1 << 62),
    ) {
        let (replica, highest) = (ReplicaId([7; 16]), Hlc(seen));
        let made = StampSource { replica, offset_ms, hub_now_ms, highest }.stamp(wall_ms).hlc;
        prop_assert!(made > highest);
        prop_assert!(made <= Hlc::from_ms(hub_now_ms).max(highest.next()));
        let true_ms = wall_ms.saturating_add(offset_ms).min(hub_now_ms);
        prop_assert!(made >= Hlc::from_ms(true_ms), "an honest clock is followed");
    }
}

#[test]
fn a_clock_has_the_entries_that_it_is_made_of() {
    let clock = VectorClock::from_iter([("a", 2), ("b", 0)]);
    assert_eq!(clock.iter().collect::<Vec<_>>(), [("a", 2), ("b", 0)]);
    assert_eq!((clock.get("a"), clock.get("nobody")), (2, 0));
}

#[test]
fn times_out_of_range_are_clamped() {
    assert_eq!(Hlc::from_ms(i64::MAX).ms(), (1 << 47) - 1);
    assert_eq!(Hlc::from_ms(-1), Hlc::ZERO);
    assert_eq!((Hlc::from_ms(7).ms(), Hlc::from_ms(7).next().ms()), (7, 7));
    assert_eq!(Hlc(u64::MAX).next(), Hlc(u64::MAX));
}
