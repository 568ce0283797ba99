//! Stamps of cells whose column has another one's name.
//!
//! A column that is renamed takes its stamps along, so that agents which make the same change one after another write the
//! same cells, and undo nobody's edits. Where its new name had another meaning before, the tenant still has cells of
//! that, and they may be later. So a cell that is carried over there is *marked*: its stamp names, where the replica
//! would stand, the generation of the name and when the value was written, and its clock reading is that of the cell
//! which it replaces, or its own, whichever is greater. It thus beats that cell, and nothing that was later; in
//! particular no delete of the row, and no edit under the name's new meaning.
//!
//! Which meaning a cell is of, its stamp tells: a mark says so; any other one is of the meaning that the name had at that
//! time, as far as it is known when the first replica that changed it found out. A replica that has not changed it yet marks
//! what it writes, and passes over what is of the later meaning, or two names that exchange their meanings would do so
//! again when it follows.

use std::cmp::Ordering;

use super::catalog::Column;
use crate::model::{Hlc, Stamp};

/// What a column's name stands for.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    generation: u8,
    since: Hlc,
    outgrown: Option<Hlc>,
}

/// The first bit of a mark, in the place of a replica's tie-break, which does not have it; 15 bits of generation and 48 of
/// a time follow.
const MARK: u64 = 1 << 63;

const TIME: u64 = (1 << 48) - 1;

impl Meaning {
    /// That of a column's name.
    pub fn of(column: &Column) -> Self {
        Self { generation: column.generation, since: column.since, outgrown: column.outgrown }
    }

    /// Whether a cell is of a later meaning, which the name has not got here yet.
    pub fn is_outgrown_by(self, told: Stamp) -> bool {
        let is_later = |since| {
            if told.replica < MARK { told.hlc >= since } else { told.replica > self.mark(TIME) }
        };
        self.outgrown.is_some_and(is_later)
    }

    /// Whether the name has never had another meaning.
    pub fn is_first(self) -> bool {
        self.generation == 0
    }

    fn mark(self, ms: u64) -> u64 {
        MARK | u64::from(self.generation) << 48 | ms & TIME
    }

    /// When a cell of this meaning was written, in ms; none if it is of a former one. One of a later meaning was written
    /// later than all: whoever has changed the name once more knows better.
    fn written(self, stamp: Stamp) -> Option<u64> {
        if stamp.replica >= MARK {
            return match (stamp.replica & !TIME).cmp(&self.mark(0)) {
                Ordering::Less => None,
                Ordering::Equal => Some(stamp.replica & TIME),
                Ordering::Greater => Some(u64::MAX),
            };
        }
        if self.outgrown.is_some_and(|since| stamp.hlc >= since) {
            return Some(u64::MAX);
        }
        (stamp.hlc >= self.since).then_some(stamp.hlc.ms())
    }

    /// The stamp of a value that was written with another one, under another name, where the name had the cell `over`
    /// before it was given to this column. `own` is the tie-break of this replica's stamps: what it wrote itself before
    /// it changed the name is of the former meaning, whenever that was.
    pub fn carry(self, stamp: Stamp, over: Option<Stamp>, own: u64) -> Stamp {
        if self.is_first() && self.outgrown.is_none() {
            return stamp;
        }
        let is_former = |over: &Stamp| over.replica == own || self.written(*over).is_none();
        let ms = if stamp.replica >= MARK { stamp.replica & TIME } else { stamp.hlc.ms() };
        let is_late = stamp.hlc >= self.since && stamp.replica < MARK && self.outgrown.is_none();
        match over.filter(is_former) {
            Some(over) if over >= stamp => self.above(over, ms),
            _ if is_late => stamp,
            _ => Stamp { hlc: stamp.hlc, replica: self.mark(ms) },
        }
    }

    /// The stamp of a value that was written under the name as it is now, although perhaps before this replica found out
    /// that it has changed.
    pub fn write(self, stamp: Stamp) -> Stamp {
        if self.outgrown.is_none() && stamp.hlc >= self.since {
            return stamp;
        }
        Stamp { hlc: stamp.hlc, replica: self.mark(stamp.hlc.ms()) }
    }

    /// The least stamp of a value of this time that beats another one.
    fn above(self, other: Stamp, ms: u64) -> Stamp {
        let replica = self.mark(ms);
        let hlc = if replica > other.replica { other.hlc } else { other.hlc.next() };
        Stamp { hlc, replica }
    }

    /// The stamp with which a cell of this replica's beats what the hub tells in its place, if that is of a former meaning,
    /// or was written earlier.
    pub fn restamp(self, own: Stamp, told: Stamp) -> Option<Stamp> {
        if self.is_first() || self.outgrown.is_some() || own >= told {
            return None;
        }
        let ms = self.written(own)?;
        (self.written(told) < Some(ms)).then(|| self.above(told, ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ms: i64, replica: u64) -> Stamp {
        Stamp { hlc: Hlc::from_ms(ms), replica }
    }

    const SECOND: Meaning = Meaning { generation: 1, since: Hlc(100 << 16), outgrown: None };

    #[test]
    fn what_is_carried_over_beats_what_the_name_held_and_nothing_that_was_later() {
        let first = Meaning { generation: 0, since: Hlc::ZERO, outgrown: None };
        assert_eq!(first.carry(stamp(5, 1), Some(stamp(9, 2)), 7), stamp(5, 1));
        let carried = SECOND.carry(stamp(5, 1), Some(stamp(9, 2)), 7);
        assert!(carried > stamp(9, 2) && carried.hlc == stamp(9, 2).hlc);
        // Whoever has the name in its first meaning yet, passes over it.
        let old = Meaning { outgrown: Some(SECOND.since), ..first };
        assert!(old.is_outgrown_by(carried) && old.is_outgrown_by(stamp(100, 1)));
        assert!(!old.is_outgrown_by(stamp(99, 1)) && !SECOND.is_outgrown_by(carried));
        let written = old.write(stamp(120, 1));
        assert!(!old.is_outgrown_by(written) && SECOND.restamp(carried, written).is_some());
        // Whoever had another value of the name, or none, writes what can be compared.
        let later = SECOND.carry(stamp(6, 1), Some(stamp(8, 2)), 7);
        assert_eq!(SECOND.restamp(carried, later), None);
        assert!(later < carried && SECOND.restamp(later, carried).unwrap() > carried);
        // What was written under the new name stands, unless this replica wrote it under the old one.
        assert_eq!(SECOND.carry(stamp(5, 1), Some(stamp(101, 2)), 7).hlc, Hlc::from_ms(5));
        assert!(SECOND.carry(stamp(101, 7), Some(stamp(101, 7)), 7) > stamp(101, 7));
        assert_eq!(SECOND.carry(stamp(102, 1), Some(stamp(9, 2)), 7), stamp(102, 1));
    }

    #[test]
    fn what_the_hub_tells_of_the_former_meaning_is_beaten() {
        let carried = SECOND.carry(stamp(5, 1), None, 7);
        let beaten = SECOND.restamp(carried, stamp(20, 3)).unwrap();
        assert!(beaten > stamp(20, 3) && beaten.hlc == stamp(20, 3).hlc);
        assert_eq!(SECOND.restamp(carried, stamp(100, 3)), None);
        assert_eq!(SECOND.restamp(stamp(120, 1), stamp(130, 3)), None);
        // A third meaning.
        let third = Meaning { generation: 2, since: Hlc(200 << 16), outgrown: None };
        let again = third.carry(carried, Some(beaten), 7);
        assert!(again > beaten && third.restamp(again, beaten).is_none());
        assert!(third.restamp(third.carry(stamp(7, 1), None, 7), beaten).is_some());
        // Whoever has the second one only, leaves it at that.
        assert_eq!(SECOND.restamp(carried, again), None);
    }
}
