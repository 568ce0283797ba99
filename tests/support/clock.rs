//! The time of a simulated world.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

/// What everyone's clocks show: the machine's time, or a time that only the test moves, so that a run can be
/// repeated.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// A clock that stands at this time, in ms since the epoch.
    pub fn standing_at(now_ms: i64) -> Self {
        Self(Some(Arc::new(AtomicI64::new(now_ms))))
    }

    /// Moves a simulated clock on.
    pub fn pass(&self, ms: i64) {
        if let Some(now) = &self.0 {
            now.fetch_add(ms, Ordering::Relaxed);
        }
    }

    /// The time, in ms since the epoch.
    pub fn now_ms(&self) -> i64 {
        if let Some(now) = &self.0 {
            return now.load(Ordering::Relaxed);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_millis()).unwrap()
    }

    /// Has a connection's SQL see this time, if it is simulated.
    pub fn rule(&self, connection: &Connection) {
        let Some(now) = &self.0 else { return };
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
        let shared = now.clone();
        connection
            .create_scalar_function("julianday", 1, flags, move |_| {
                #[expect(clippy::cast_precision_loss, reason = "a time of this century")]
                Ok(shared.load(Ordering::Relaxed) as f64 / 86_400_000.0 + 2_440_587.5)
            })
            .unwrap();
        let shared = now.clone();
        connection
            .create_scalar_function("current_timestamp", 0, flags, move |_| {
                Ok(format!("at {}", shared.load(Ordering::Relaxed)))
            })
            .unwrap();
    }
}
