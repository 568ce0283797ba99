//! How many bytes of the store a tenant's rows take, and whether there is room for more.

use crate::protocol::limits::{MAX_ROW_BYTES, MAX_TABLES};
use crate::protocol::message::Refusal;
use crate::storage::hub_store::StoreError;

/// What a row costs besides what it holds, in bytes: its identity, and its places in the indexes.
pub const ROW_OVERHEAD: u64 = 160;

/// What a tenant may store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of a tenant's rows. Rows that are deleted, and wait until everybody has heard of it, do not count; they may
    /// take as many again.
    pub tenant_bytes: u64,
    /// The largest row, in bytes of its values.
    pub row_bytes: usize,
    /// Tables that a tenant may have; never more than [`MAX_TABLES`].
    pub tables: usize,
    /// Columns that all tables of a tenant may have together.
    pub columns: usize,
    /// Replicas of a tenant that are remembered.
    pub replicas: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            tenant_bytes: 10 << 30,
            row_bytes: MAX_ROW_BYTES,
            tables: MAX_TABLES,
            columns: 20_000,
            replicas: 65_536,
        }
    }
}

/// The bytes of some rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Of those that live, or are withheld.
    pub live: u64,
    /// Of those that are dead, or one with another one.
    pub dead: u64,
}

impl Weight {
    /// One row's, whose states have so many bytes.
    pub fn of(bytes: usize, is_dead: bool) -> Self {
        let bytes = ROW_OVERHEAD + bytes as u64;
        if is_dead { Self { live: 0, dead: bytes } } else { Self { live: bytes, dead: 0 } }
    }

    /// This one, with something more and something less.
    pub fn changed(self, more: Self, less: Self) -> Self {
        Self {
            live: self.live.saturating_add(more.live).saturating_sub(less.live),
            dead: self.dead.saturating_add(more.dead).saturating_sub(less.dead),
        }
    }

    fn in_all(self) -> u64 {
        self.live.saturating_add(self.dead)
    }

    /// Refuses a batch for which there is no room: one that made this of what there was before. What frees room is taken
    /// however full it is, and so is what only deletes.
    /// `kept` is what definitions and replicas take besides.
    pub fn check(
        self,
        before: Self,
        kept: u64,
        limits: StoreLimits,
        only_deletes: bool,
    ) -> Result<(), StoreError> {
        let tenant_bytes = limits.tenant_bytes.saturating_sub(kept);
        let is_full = self.live > tenant_bytes && self.live > before.live;
        let is_littered = self.in_all() > tenant_bytes.saturating_mul(2) && self.in_all() > before.in_all();
        if !is_full && (!is_littered || only_deletes) {
            return Ok(());
        }
        let what = if is_full { "rows" } else { "rows, with deleted ones that some agent has not heard of," };
        let message = format!(
            "this tenant's {what} would take {} bytes of the hub's store, and may take {tenant_bytes}, which is what \
             definitions and replicas leave of {} (maxStoredBytesPerTenant): delete rows, or have the hub's operator raise the limit. What is written here \
             stays here until there is room; what others wrote is pulled as ever",
            if is_full { self.live } else { self.in_all() },
            limits.tenant_bytes
        );
        Err(StoreError::Refused(Refusal::Full, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: (u64, u64), after: (u64, u64), only_deletes: bool) -> bool {
        let weight = |(live, dead)| Weight { live, dead };
        weight(after)
            .check(
                weight(before),
                10,
                StoreLimits { tenant_bytes: 110, ..StoreLimits::default() },
                only_deletes,
            )
            .is_ok()
    }

    #[test]
    fn room_is_judged_by_what_a_batch_makes_of_it() {
        assert!(check((90, 0), (100, 0), false));
        assert!(!check((90, 0), (101, 0), false));
        assert!(check((150, 0), (150, 0), false), "it adds nothing");
        assert!(check((150, 0), (110, 30), false), "it frees some, though not enough");
        assert!(check((100, 0), (60, 90), false), "room that deletes make is there at once");
        assert!(!check((60, 140), (61, 140), false), "but not for ever more of them");
        assert!(check((60, 140), (0, 201), true), "a delete is always taken");
    }
}
