//! The machine's clocks. The layers below are told the time; this one reads it.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::hub_offset::{AT_ONCE, Reading};
use crate::storage::turn_time::TurnTime;

/// How often two clocks are looked at in search of one moment.
const LOOKS: usize = 10;

/// Milliseconds since the epoch, by this machine's clock; 0 before it.
pub fn wall_now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// How long a turn works on rows: with what comes before and behind, the application waits for about 10 ms.
const TURN: Duration = Duration::from_millis(4);

/// See [`TURN`].
pub fn turn_time() -> TurnTime {
    TurnTime::of(running, TURN)
}

/// Since this was first asked for.
fn running() -> Duration {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
}

/// Both clocks, as they are at one moment.
pub fn reading() -> Reading {
    let look = || {
        let began = Instant::now();
        let running = running();
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
