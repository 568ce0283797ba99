//! Turns that end early, as they do at a slow machine.

use std::cell::Cell;
use std::time::Duration;

use federation_hub::storage::turn_time::TurnTime;

thread_local! {
    static LOOKS: Cell<u64> = const { Cell::new(0) };
}

/// A clock on which a millisecond passes with each look.
fn ticking() -> Duration {
    let looks = LOOKS.get() + 1;
    LOOKS.set(looks);
    Duration::from_millis(looks)
}

/// Turns that take two rows or so, or a few, or many, or what there is.
pub fn turn_time(seed: u64) -> TurnTime {
    match seed % 4 {
        0 => TurnTime::ENDLESS,
        1 => TurnTime::of(ticking, Duration::from_millis(8)),
        2 => TurnTime::of(ticking, Duration::from_millis(3)),
        _ => TurnTime::of(ticking, Duration::from_millis(40)),
    }
}
