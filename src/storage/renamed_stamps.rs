//! Stamps of cells whose column has another one's name.
//!
//! A column that is renamed takes its stamps along, so that agents which make the same change one after another write the
//! same cells, and undo nobody's edits. Where its new name had another meaning before, the tenant still has cells of
//! that, and they may be later. So a cell that is carried over there is *marked*: its stamp names, where the replica
//! would stand, the generation of the name and when the value was written, and its clock reading is that of the cell
//! which it replaces, or its own, whichever is greater. It thus beats that cell, and nothing that was later; in
//! particular no delete of the row, and no edit under the name's new meaning.
//!
//! Which meaning a cell is of, its stamp tells: a mark says so; any other one is of the former meaning if it is from
//! before the first replica that changed the name did so, as far as it knew then of the tenant's clock.

use super::catalog::Column;
use crate::model::{Hlc, Stamp};

/// What a column's name stands for.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    generation: u8,
    since: Hlc,
}

/// The first bit of a mark, in the place of a replica's tie-break, which does not have it; 15 bits of generation and 48 of
/// a time follow.
const MARK: u64 = 1 << 63;

const TIME: u64 = (1 << 48) - 1;

impl Meaning {
    /// That of a column's name.
    pub fn of(column: &Column) -> Self {
        Self { generation: column.generation, since: column.since }
    }

    /// Whether the name has never had another meaning.
    pub fn is_first(self) -> bool {
        self.generation == 0
    }

    fn mark(self, ms: u64) -> u64 {
        MARK | u64::from(self.generation) << 48 | ms & TIME
    }

    /// When a cell of this meaning was written, in ms; none if it is of a former one.
    fn written(self, stamp: Stamp) -> Option<u64> {
        if stamp.replica >= MARK {
            return (stamp.replica & !TIME == self.mark(0)).then_some(stamp.replica & TIME);
        }
        (stamp.hlc >= self.since).then_some(stamp.hlc.ms())
    }

    /// The stamp of a value that was written with another one, under another name, where the name had the cell `over`
    /// before it was given to this column. `own` is the tie-break of this replica's stamps: what it wrote itself before
    /// it changed the name is of the former meaning, whenever that was.
    pub fn carry(self, stamp: Stamp, over: Option<Stamp>, own: u64) -> Stamp {
        if self.is_first() {
            return stamp;
        }
        let is_former = |over: &Stamp| over.replica == own || self.written(*over).is_none();
        let ms = if stamp.replica >= MARK { stamp.replica & TIME } else { stamp.hlc.ms() };
        let is_late = stamp.hlc >= self.since && stamp.replica < MARK;
        match over.filter(is_former) {
            Some(over) if over >= stamp => self.above(over, ms),
            _ if is_late => stamp,
            _ => Stamp { hlc: stamp.hlc, replica: self.mark(ms) },
        }
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
        if self.is_first() || own >= told {
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

    const SECOND: Meaning = Meaning { generation: 1, since: Hlc(100 << 16) };

    #[test]
    fn what_is_carried_over_beats_what_the_name_held_and_nothing_that_was_later() {
        let first = Meaning { generation: 0, since: Hlc::ZERO };
        assert_eq!(first.carry(stamp(5, 1), Some(stamp(9, 2)), 7), stamp(5, 1));
        let carried = SECOND.carry(stamp(5, 1), Some(stamp(9, 2)), 7);
        assert!(carried > stamp(9, 2) && carried.hlc == stamp(9, 2).hlc);
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
        let third = Meaning { generation: 2, since: Hlc(200 << 16) };
        let again = third.carry(carried, Some(beaten), 7);
        assert!(again > beaten && third.restamp(again, beaten).is_none());
        assert!(third.restamp(third.carry(stamp(7, 1), None, 7), beaten).is_some());
    }
}
