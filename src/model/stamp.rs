//! Stamps: which of two writes came later, agreed on without agreeing on the time.
//!
//! A hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014) keeps close to the wall clock
//! and never contradicts causality: whoever has seen a stamp writes greater ones.

use serde::{Deserialize, Serialize};

use super::ReplicaId;

/// A hybrid logical clock reading: 48 bits of milliseconds since the epoch, then a 16-bit counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The reading of a row that was there before anybody synced: less than any real write.
    pub const ZERO: Self = Self(0);

    /// The first reading within a millisecond. Times before the epoch or past the 48 bits are clamped.
    pub fn from_ms(ms: i64) -> Self {
        let ms = u64::try_from(ms).unwrap_or(0).min((1 << 47) - 1);
        Self(ms << 16)
    }

    /// Milliseconds since the epoch.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The least greater reading. A full counter runs over into the next millisecond.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// When a cell was written, and by whom. The greater stamp wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The clock reading.
    pub hlc: Hlc,
    /// [`ReplicaId::tie_break`] of the writer; 0 in the zero stamp.
    pub replica: u64,
}

impl Stamp {
    /// The stamp of data older than syncing, the same on every replica, so that equal rows stay equal.
    pub const ZERO: Self = Self { hlc: Hlc::ZERO, replica: 0 };
}

/// Makes a replica's stamps: `max(min(wall + offset, hub now), highest seen + 1, own previous + 1)`.
///
/// `wall` is when the write happened, by the clock of the machine; `offset` is how far the hub's clock is
/// ahead of it by what the hub has told; `hub now` keeps a write from the future that was made before the clock was put
/// back.
#[derive(Clone, Copy, Debug)]
pub struct StampSource {
    /// Whose stamps these are.
    pub replica: ReplicaId,
    /// Hub time minus wall time, in ms.
    pub offset_ms: i64,
    /// The hub's time now, as this replica estimates it, in ms since the epoch.
    pub hub_now_ms: i64,
    /// The highest reading seen or made before these writes.
    pub highest: Hlc,
}

impl StampSource {
    /// The stamp of a write that happened at `wall_ms`.
    ///
    /// Writes made between two syncs may share a stamp: they are of one replica, and of two that touch one
    /// cell only the later is ever sent.
    pub fn stamp(&self, wall_ms: i64) -> Stamp {
        let physical = Hlc::from_ms(wall_ms.saturating_add(self.offset_ms).min(self.hub_now_ms));
        Stamp { hlc: physical.max(self.highest.next()), replica: self.replica.tie_break() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(highest: Hlc) -> StampSource {
        StampSource { replica: ReplicaId([1; 16]), offset_ms: 500, hub_now_ms: 2_000, highest }
    }

    #[test]
    fn a_stamp_follows_the_hub_clock_and_never_runs_ahead_of_it() {
        assert_eq!(source(Hlc::ZERO).stamp(1_000).hlc.ms(), 1_500);
        assert_eq!(source(Hlc::ZERO).stamp(9_000_000).hlc.ms(), 2_000);
        assert_eq!(source(Hlc::ZERO).stamp(i64::MIN).hlc, Hlc::ZERO.next());
    }

    #[test]
    fn an_edit_beats_whatever_it_saw_however_wrong_the_clocks() {
        let seen = Hlc::from_ms(50_000);
        assert!(source(seen).stamp(1_000).hlc > seen);
    }
}
