//! Rows that wait for each other's unique keys in a circle.
//!
//! A circle of values that is longer than a batch comes in several. Each of them loses: the values that its rows are to
//! get are still those of rows which a later batch moves. With the last batch every row waits for a key that the next
//! one falls back on, so that none would ever be free. All of them are then asked together what they want.

use std::collections::{BTreeSet, VecDeque};

use super::Deriver;
use crate::storage::hub_store::StoreError;

/// Rows that were found from one, and those whose neighbours were not looked at yet.
struct Search {
    found: BTreeSet<i64>,
    open: VecDeque<i64>,
}

impl Search {
    fn from(row: i64) -> Self {
        Self { found: BTreeSet::from([row]), open: VecDeque::from([row]) }
    }

    fn add(&mut self, row: i64) {
        if self.found.insert(row) {
            self.open.push_back(row);
        }
    }
}

/// What is known of rows that were looked at.
#[derive(Default)]
struct Known {
    /// What they wait for is held by rows that wait for nothing, or those wait for such a row, and so on.
    blocked: BTreeSet<i64>,
    /// Nobody waits for them who is waited for by them in turn.
    uncircled: BTreeSet<i64>,
}

impl Deriver<'_> {
    /// The rows of the circles that are closed by rows which have lost a key in this batch, to be asked again together,
    /// each at most once in a batch.
    pub(super) fn close_circles(&mut self) -> Result<BTreeSet<i64>, StoreError> {
        let (mut known, mut circles) = (Known::default(), BTreeSet::new());
        for row in std::mem::take(&mut self.lost) {
            circles.extend(self.circle_through(row, &mut known)?);
        }
        circles.retain(|row| self.admitted.insert(*row));
        for row in circles.clone() {
            self.ask_again(row)?;
        }
        // Rows that were one with one of them want their keys at the same time.
        circles.append(&mut self.parted);
        Ok(circles)
    }

    /// The circle that a row is in, with whatever else its rows wait for.
    ///
    /// The search goes to those that the row waits for, and to those that wait for it, in turns: so it costs no more than
    /// twice the shorter side, and what the batches of one long circle cost together does not grow with its square.
    fn circle_through(&mut self, row: i64, known: &mut Known) -> Result<BTreeSet<i64>, StoreError> {
        if known.blocked.contains(&row) || known.uncircled.contains(&row) {
            return Ok(BTreeSet::new());
        }
        let (mut holders, mut waiters) = (Search::from(row), Search::from(row));
        // Whether each of them has waited for one key so far.
        let mut is_plain = true;
        let mut is_closed = false;
        while let Some(no) = holders.open.pop_front() {
            let keys = self.claims.waited_for_by(no)?;
            is_plain &= keys.len() < 2;
            let (mut is_blocked, mut is_tail) = (keys.is_empty(), false);
            for key in keys {
                let Some(holder) = self.claims.holder(key)? else { continue };
                is_closed |= holder == row;
                is_blocked |= known.blocked.contains(&holder);
                is_tail |= known.uncircled.contains(&holder);
                holders.add(holder);
            }
            // Where each waits for one key, what holds for one holds for all that lead to it.
            let found = if is_blocked { &mut known.blocked } else { &mut known.uncircled };
            if is_blocked || is_plain && is_tail {
                found.append(&mut waiters.found);
                if is_plain {
                    found.append(&mut holders.found);
                }
                return Ok(BTreeSet::new());
            }
            let Some(no) = waiters.open.pop_front() else {
                found.append(&mut waiters.found);
                return Ok(BTreeSet::new());
            };
            for key in self.claims.held_by(no)? {
                for waiter in self.claims.waiting(key)? {
                    waiters.add(waiter);
                }
            }
        }
        known.uncircled.extend(&holders.found);
        Ok(if is_closed { holders.found } else { BTreeSet::new() })
    }
}
