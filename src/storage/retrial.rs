//! Trying again what is set aside, in as many turns as that takes.
//!
//! At the end of a pull nothing else is coming: whatever is set aside is tried, and tried once more, as long as that gets
//! any of it applied. A turn tries so many rows; what the next one has to know is kept in memory. If the sync ends before
//! it is through, the pull has not ended either, and the next sync tries everything anew.

use std::collections::{HashMap, HashSet};

use super::driver::{Sql, SqlError};
use super::follow::Leader;
use super::journal::Step;
use super::quarantine::{self, SetAside};
use super::takers::ReferencedKey;
use super::turn_time::TurnTime;
use crate::model::RowId;

/// How many rows are tried together at last: they may need each other.
const TRIED_TOGETHER: usize = 1_000;

/// How many rows a turn tries unless it is told otherwise.
const ROWS_PER_TURN: usize = 250;

/// How far the trying has come.
pub struct Retrial {
    /// Rows that wait for each other.
    pub chain: Chain,
    /// What an earlier turn has applied and foreign keys may object to, once a row is applied that waits in the chain.
    pub carried: Vec<Carried>,
    /// Rows in whose way others stay, of each the number of the table and the identity.
    blocked: HashSet<(i64, RowId)>,
    /// Who is to have keys by which others reference rows.
    takers: HashMap<ReferencedKey, RowId>,
    pass: Option<Pass>,
    /// How many rows a turn may try.
    limit: usize,
    /// How many of them are left; none: as many as there are.
    left: Option<usize>,
    /// How long the turn tries them.
    time: TurnTime,
    /// Whether it has tried none yet.
    is_at_first: bool,
    before: Option<(Vec<Carried>, Option<Pass>)>,
}

impl Default for Retrial {
    fn default() -> Self {
        Self {
            chain: Chain::default(),
            carried: Vec::new(),
            blocked: HashSet::new(),
            takers: HashMap::new(),
            pass: None,
            limit: ROWS_PER_TURN,
            left: None,
            time: TurnTime::ENDLESS,
            is_at_first: true,
            before: None,
        }
    }
}

/// Something that foreign keys may object to.
#[derive(Clone)]
pub struct Carried {
    /// The row that was applied.
    pub row: SetAside,
    /// What was done.
    pub what: Done,
}

/// What was done to a row.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are steps")]
pub enum Done {
    /// It has changed.
    Step(Step),
    /// It has another key, which others may have to follow.
    Leader(Leader),
}

/// One way through all that is set aside, in the order of its places there.
#[derive(Clone, Copy)]
struct Pass {
    kind: Kind,
    /// Up to where the rows have been tried.
    after: i64,
    /// The last place when it began: what is set aside again comes behind it.
    upto: i64,
    /// How many rows were set aside when it began.
    before: u64,
    /// Whether some are referenced by a key that they are to give up.
    has_referenced: bool,
    /// Whether some wait for others, or are waited for, by a foreign key.
    has_bound: bool,
}

/// What is tried in a pass. Each kind comes when the one before it was in vain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A few rows in a turn. A row whose key others reference gives it up only to one that takes it over.
    Narrow,
    /// Others may also be left alone, as far as no row that is set aside is to take them over.
    Leaving,
    /// Or as if there was none.
    LeavingAny,
    /// So many rows together that nothing need be looked at in parts.
    Wide,
}

impl Retrial {
    /// Has turns try rows that are set aside for so long.
    #[must_use]
    pub fn within(time: TurnTime) -> Self {
        Self { time, ..Self::default() }
    }

    /// Begins to count the time of a turn, which may have to begin more than once.
    pub fn restart_time(&mut self) {
        self.time.restart();
    }

    /// Begins a turn.
    pub fn begin_turn(&mut self) {
        (self.left, self.is_at_first) = (None, true);
        self.before = Some((self.carried.clone(), self.pass));
    }

    /// Has turns try about so many rows.
    pub fn set_pace(&mut self, rows: usize) {
        self.limit = rows;
    }

    /// From here on the turn, which has applied so many rows by now, tries no more than there is time for.
    pub fn limit_turn(&mut self, applied: usize) {
        self.left = Some(self.limit.saturating_sub(applied).max(self.limit / 4).max(1));
    }

    /// Ends a turn, which the database may have refused to commit.
    pub fn end_turn(&mut self, is_committed: bool) {
        self.left = None;
        let Some((carried, pass)) = self.before.take() else { return };
        if is_committed {
            self.chain.commit();
        } else {
            self.chain.roll_back();
            (self.carried, self.pass) = (carried, pass);
            self.blocked.clear();
        }
    }

    /// The rows to try next; none if there is no sense in trying any again.
    pub fn next(&mut self, sql: &mut dyn Sql) -> Result<Option<Vec<(i64, SetAside)>>, SqlError> {
        loop {
            if let Some(pass) = &mut self.pass {
                let limit = match pass.kind {
                    Kind::Wide => TRIED_TOGETHER,
                    _ => self.left.unwrap_or(TRIED_TOGETHER),
                };
                let rows = quarantine::between(sql, (pass.after, pass.upto), limit)?;
                if let Some((last, _)) = rows.last() {
                    pass.after = *last;
                    return Ok(Some(rows));
                }
            }
            let set_aside = quarantine::count(sql)?;
            let next = match self.pass {
                _ if set_aside == 0 => None,
                Some(pass) if set_aside >= pass.before => pass.after_it(),
                _ if set_aside <= self.limit as u64 => Some(Kind::Wide),
                _ => Some(Kind::Narrow),
            };
            let Some(kind) = next else {
                self.pass = None;
                return Ok(None);
            };
            if kind == Kind::Narrow {
                self.takers.clear();
            }
            self.blocked.clear();
            let (upto, before) = (quarantine::last_place(sql)?, set_aside);
            self.pass = Some(Pass { kind, after: 0, upto, before, has_referenced: false, has_bound: false });
        }
    }

    /// A row that was taken from this place has not been tried.
    pub fn not_tried(&mut self, place: i64) {
        if let Some(pass) = &mut self.pass {
            pass.after = pass.after.min(place - 1);
        }
    }

    /// A row waits for another one by a foreign key, or is referenced.
    pub fn note_bound(&mut self, is_referenced: bool) {
        if let Some(pass) = &mut self.pass {
            (pass.has_bound, pass.has_referenced) = (true, pass.has_referenced || is_referenced);
        }
    }

    /// Whether rows give up keys that others reference even if nobody here takes those over; if not even one that is set
    /// aside may, says so too.
    pub fn leaves_children(&self) -> (bool, bool) {
        match self.pass.map(|pass| pass.kind) {
            Some(Kind::Narrow) => (false, false),
            Some(Kind::Leaving) => (true, true),
            Some(Kind::LeavingAny | Kind::Wide) | None => (true, false),
        }
    }

    /// Notes that a row is to have a key by which others reference its table.
    pub fn note_taker(&mut self, key: ReferencedKey, row: RowId) {
        self.takers.insert(key, row);
    }

    /// The row that is to have a key, as far as anybody has noted it.
    pub fn taker(&self, key: &ReferencedKey) -> Option<RowId> {
        self.takers.get(key).copied()
    }

    /// Counts a row that is tried. Returns whether the turn has time for it: always for the first, and for rows that have
    /// come together, which may need each other; it is their number that bounds the turn.
    pub fn spend(&mut self) -> bool {
        let is_first = std::mem::replace(&mut self.is_at_first, false);
        if self.left.is_some() && self.time.is_over() && !is_first && !self.is_wide() {
            self.left = Some(0);
            return false;
        }
        match &mut self.left {
            Some(0) => self.is_wide(),
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    fn is_wide(&self) -> bool {
        self.pass.is_some_and(|pass| pass.kind == Kind::Wide)
    }

    /// Whether the turn has no more time.
    pub fn is_spent(&self) -> bool {
        self.left == Some(0) && !self.is_wide()
    }

    /// Whether something stays in a row's way.
    pub fn is_blocked(&self, table: i64, id: RowId) -> bool {
        self.blocked.contains(&(table, id))
    }

    /// Something stays in the way of all rows of the chain, which ends.
    pub fn block_chain(&mut self, table: i64) {
        self.blocked.extend(self.chain.all().map(|id| (table, id)));
        self.chain.clear();
    }

    /// What was in the way of rows may be so no more.
    pub fn unblock(&mut self) {
        self.blocked.clear();
    }
}

impl Pass {
    /// What comes after it, if it was in vain.
    fn after_it(self) -> Option<Kind> {
        match self.kind {
            Kind::Narrow if self.has_referenced => Some(Kind::Leaving),
            Kind::Leaving => Some(Kind::LeavingAny),
            Kind::Narrow | Kind::LeavingAny if self.has_bound => Some(Kind::Wide),
            _ => None,
        }
    }
}

/// Rows of one table of which each holds a unique value that the one before it is to get.
///
/// It may be as long as the table; so what a turn does to it can be taken back without a copy of it.
#[derive(Default)]
pub struct Chain {
    /// The name of the table.
    table: String,
    /// The rows as the last turn left them.
    rows: Vec<RowId>,
    /// How many of these are left, beginning with the first.
    kept: usize,
    /// Those that came behind them.
    added: Vec<RowId>,
    members: HashSet<RowId>,
}

impl Chain {
    /// Begins with a row.
    pub fn begin(&mut self, table: &str, row: RowId) {
        self.clear();
        table.clone_into(&mut self.table);
        self.push(row);
    }

    /// The name of its table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.kept == 0 && self.added.is_empty()
    }

    /// Its last row.
    pub fn last(&self) -> Option<RowId> {
        self.added.last().or_else(|| self.rows[..self.kept].last()).copied()
    }

    /// Adds a row.
    pub fn push(&mut self, row: RowId) {
        self.members.insert(row);
        self.added.push(row);
    }

    /// Takes the last row away.
    pub fn pop(&mut self) {
        let row = self.added.pop().or_else(|| {
            self.kept = self.kept.checked_sub(1)?;
            self.rows.get(self.kept).copied()
        });
        if let Some(row) = row {
            self.members.remove(&row);
        }
    }

    /// Whether a row is in it.
    pub fn contains(&self, row: RowId) -> bool {
        self.members.contains(&row)
    }

    /// Puts its last row before another one.
    pub fn move_last_before(&mut self, row: RowId) {
        let all: Vec<RowId> = self.all().collect();
        let Some(at) = all.iter().position(|other| *other == row) else { return };
        self.kept = self.kept.min(at);
        self.added = all[self.kept..].to_vec();
        self.added[at - self.kept..].rotate_right(1);
    }

    fn all(&self) -> impl Iterator<Item = RowId> {
        self.rows[..self.kept].iter().chain(&self.added).copied()
    }

    fn clear(&mut self) {
        (self.kept, self.added) = (0, Vec::new());
        self.members.clear();
    }

    fn commit(&mut self) {
        self.rows.truncate(self.kept);
        self.rows.append(&mut self.added);
        self.kept = self.rows.len();
    }

    fn roll_back(&mut self) {
        self.added.clear();
        self.kept = self.rows.len();
        self.members = self.rows.iter().copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(of: u8) -> RowId {
        RowId([of; 16])
    }

    fn chain(rows: &[u8]) -> Chain {
        let mut chain = Chain::default();
        chain.begin("t", row(rows[0]));
        rows[1..].iter().for_each(|of| chain.push(row(*of)));
        chain
    }

    fn rows(chain: &Chain) -> Vec<u8> {
        chain.all().map(|row| row.0[0]).collect()
    }

    #[test]
    fn a_turn_that_is_not_committed_leaves_the_chain_as_it_was() {
        let mut chain = chain(&[1, 2, 3]);
        chain.commit();
        chain.pop();
        chain.pop();
        chain.push(row(4));
        assert_eq!((rows(&chain), chain.contains(row(2)), chain.contains(row(4))), (vec![1, 4], false, true));
        chain.roll_back();
        assert_eq!(
            (rows(&chain), chain.contains(row(2)), chain.contains(row(4))),
            (vec![1, 2, 3], true, false)
        );
        chain.pop();
        chain.push(row(5));
        chain.commit();
        assert_eq!((rows(&chain), chain.last()), (vec![1, 2, 5], Some(row(5))));
        chain.clear();
        assert!(chain.is_empty() && !chain.contains(row(1)));
    }

    #[test]
    fn the_last_row_of_a_chain_can_wait_for_those_that_come_round_to_it() {
        let mut chain = chain(&[1, 2]);
        chain.commit();
        chain.push(row(3));
        chain.push(row(4));
        chain.move_last_before(row(2));
        assert_eq!(rows(&chain), [1, 4, 2, 3]);
        chain.commit();
        chain.move_last_before(row(2));
        assert_eq!(rows(&chain), [1, 4, 3, 2]);
        chain.roll_back();
        assert_eq!(rows(&chain), [1, 4, 2, 3]);
    }
}
