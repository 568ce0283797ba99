//! The machine's clocks. The layers below are told the time; this one reads it.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::hub_offset::{AT_ONCE, Reading};

/// How often two clocks are looked at in search of one moment.
const LOOKS: usize = 10;

/// Milliseconds since the epoch, by this machine's clock; 0 before it.
pub fn wall_now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// Both clocks, as they are at one moment.
pub fn reading() -> Reading {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let began = *BEGAN.get_or_init(Instant::now);
    let look = || {
        let running = began.elapsed();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let reading = Reading { wall_us: i64::try_from(wall.as_micros()).unwrap_or(i64::MAX), running };
        (reading, began.elapsed().saturating_sub(running))
    };
    // A thread that has to wait between the two looks again.
    let mut best = look();
    for _ in 1..LOOKS {
        if best.1 <= AT_ONCE {
            break;
        }
        let next = look();
        if next.1 < best.1 {
            best = next;
        }
    }
    best.0
}
