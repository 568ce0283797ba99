//! The self-check: an agent asks for fingerprints of the rows in a range, and compares them with its own tables.
//!
//! ```text
//! Check [range, …]                    ─►
//!                                     ◄─  Compared [print, …]
//! if a print is not the agent's own: the same of parts of that range, until few rows are left; then
//! Check [range], with rows            ─►
//!                                     ◄─  Rows, Compared
//! ```
//!
//! A range's fingerprint is the sum of those of its rows, so that both sides can leave rows out: the agent those
//! that it has changed or could not apply, the hub those that changed above the agent's cursor.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use super::agent_session::ExchangeError;
use super::message::{Rows, ToAgent};
use crate::model::{ReplicaId, RowId, Seq};

/// A fingerprint of rows: of one row the first 16 bytes of a BLAKE3 hash, of several their sum modulo 2^128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

impl Add for Fingerprint {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Fingerprint {
    fn sum<I: Iterator<Item = Self>>(prints: I) -> Self {
        prints.fold(Self::default(), Add::add)
    }
}

/// As 16 bytes, the most significant first.
impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RowId(self.0.to_be_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RowId::deserialize(deserializer).map(|bytes| Self(u128::from_be_bytes(bytes.0)))
    }
}

/// Asks for the fingerprints of some ranges of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The ranges; at most [`super::limits::MAX_CHECK_RANGES`].
    pub ranges: Vec<Range>,
    /// Whether the rows themselves are wanted as well, whole: those that changed at or below the agent's cursor.
    pub rows: bool,
}

/// Rows of one table, by their identities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The table.
    pub table: String,
    /// The columns that the agent has: others are left out of the fingerprint.
    pub columns: Vec<String>,
    /// The rows come after this one; none: from the first.
    pub after: Option<RowId>,
    /// The last row; none: to the end.
    pub upto: Option<RowId>,
    /// Rows that the agent leaves out; at most [`super::limits::MAX_CHECK_ROWS`].
    pub left_out: Vec<RowId>,
}

/// What the hub has in a range, as of the agent's cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// How far the hub has looked, if that is less than was asked; less than nothing is told as no [`Print`].
    pub upto: Option<RowId>,
    /// The sum of the living rows' fingerprints.
    pub sum: Fingerprint,
    /// Rows that changed above the agent's cursor, and are not in the sum.
    pub newer: Vec<RowId>,
}

/// A [`Check`] as the store is asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRequest {
    /// Who asks.
    pub replica: ReplicaId,
    /// The epoch of its session.
    pub epoch: u64,
    /// Up to where it has merged everything.
    pub cursor: Seq,
    /// What it asks.
    pub check: Check,
}

/// The answer: one print for each range, in order; none for a range that was not looked at.
pub type Prints = Vec<Option<Print>>;

/// The answer to one check on a stream that asks nothing else.
#[derive(Debug)]
pub struct CheckAnswer {
    ranges: usize,
    wants_rows: bool,
    rows: Option<Rows>,
}

impl CheckAnswer {
    /// The answer that is awaited to this check.
    pub fn to(check: &Check) -> Self {
        Self { ranges: check.ranges.len(), wants_rows: check.rows, rows: None }
    }

    /// Takes the hub's next message; returns the answer once it is complete.
    pub fn receive(&mut self, message: ToAgent) -> Result<Option<(Rows, Prints)>, ExchangeError> {
        match message {
            ToAgent::Refused(refused) => Err(ExchangeError::Refused(refused)),
            ToAgent::Rows(rows) if self.wants_rows && self.rows.is_none() => {
                if rows.rows.iter().any(|row| usize::from(row.table) >= rows.tables.len()) {
                    return Err(ExchangeError::OutOfOrder("a row of a table that was not named"));
                }
                self.rows = Some(rows);
                Ok(None)
            }
            ToAgent::Compared(prints) if prints.len() == self.ranges => {
                Ok(Some((self.rows.take().unwrap_or_default(), prints)))
            }
            _ => Err(ExchangeError::OutOfOrder("a message of another part of the conversation")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RowUpdate, TableHeader};
    use crate::protocol::message::{Refusal, Refused};

    /// The answer to a check of two ranges.
    fn awaited(rows: bool) -> CheckAnswer {
        let range = Range { table: "t".into(), columns: vec![], after: None, upto: None, left_out: vec![] };
        CheckAnswer::to(&Check { ranges: vec![range; 2], rows })
    }

    /// One row of the table at this place among the only one that is named.
    fn rows(table: u16) -> Rows {
        let (id, writes) = (RowId([1; 16]), Vec::new());
        let row = RowUpdate { table, id, number: None, seq: 1, whole: true, united: None, writes };
        Rows { tables: vec![TableHeader { name: "t".into(), columns: Vec::new() }], rows: vec![row] }
    }

    fn prints(count: u64) -> Prints {
        let print = |n| Print { upto: None, sum: Fingerprint(n), newer: Vec::new() };
        (1..=count).map(|n| Some(print(n.into()))).collect()
    }

    fn is_out_of_order(answer: &mut CheckAnswer, message: ToAgent) -> bool {
        matches!(answer.receive(message), Err(ExchangeError::OutOfOrder(_)))
    }

    #[test]
    fn an_answer_is_complete_with_a_print_for_each_range() {
        let mut with_rows = awaited(true);
        assert_eq!(with_rows.receive(ToAgent::Rows(rows(0))).unwrap(), None);
        assert_eq!(with_rows.receive(ToAgent::Compared(prints(2))).unwrap(), Some((rows(0), prints(2))));
        for wants_rows in [true, false] {
            let told = awaited(wants_rows).receive(ToAgent::Compared(prints(2))).unwrap();
            assert_eq!(told, Some((Rows::default(), prints(2))), "there may be none");
        }
    }

    #[test]
    fn an_answer_with_another_number_of_prints_is_none() {
        for count in [0, 1, 3] {
            assert!(is_out_of_order(&mut awaited(false), ToAgent::Compared(prints(count))), "{count}");
        }
    }

    /// Breaks if a hub can send rows that nobody asked for, or without end.
    #[test]
    fn rows_come_once_and_only_where_they_were_asked_for() {
        assert!(is_out_of_order(&mut awaited(false), ToAgent::Rows(rows(0))));
        let mut answer = awaited(true);
        assert_eq!(answer.receive(ToAgent::Rows(rows(0))).unwrap(), None);
        assert!(is_out_of_order(&mut answer, ToAgent::Rows(rows(0))));
        assert!(is_out_of_order(&mut awaited(true), ToAgent::Rows(rows(1))), "of a table that was not named");
    }

    #[test]
    fn a_refusal_is_told_as_what_it_is() {
        let refused = Refused::new(Refusal::Stale, "another session");
        let told = awaited(true).receive(ToAgent::Refused(refused.clone()));
        assert!(matches!(told, Err(ExchangeError::Refused(it)) if it == refused));
    }
}
