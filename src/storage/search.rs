//! Finding what differs: ranges are split until few rows are left, and those are fetched.

use super::heal::Fetched;
use super::look::{Bounds, PARTS, Slice, Suspect, suspects};
use crate::protocol::check::{Check, Prints, Range};
use crate::protocol::limits::MAX_CHECK_RANGES;
use crate::protocol::message::Rows;

/// Exchanges that one sync spends on a search; what is not found then is found by a later one.
const MAX_EXCHANGES: usize = 32;

/// A search under way.
#[derive(Debug, Default)]
pub struct Search {
    suspects: Vec<Suspect>,
    exchanges: usize,
}

/// What a search wants next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To look at parts of these ranges, and to ask the hub what it has there.
    Narrow(Vec<Bounds>),
    /// To fetch what the hub has in these ranges.
    Fetch(Vec<Bounds>),
}

impl Search {
    /// A search that begins with what a look has found.
    pub fn new(slices: &[Slice], prints: &Prints) -> Self {
        Self { suspects: suspects(slices, prints), exchanges: 0 }
    }

    /// What to do next; nothing once all is found.
    pub fn next_step(&mut self) -> Option<Step> {
        if self.exchanges == MAX_EXCHANGES {
            return None;
        }
        self.exchanges += 1;
        let at_once = MAX_CHECK_RANGES / PARTS;
        let is_small = self.suspects.first()?.is_small();
        let mut taken = Vec::new();
        self.suspects.retain(|suspect| {
            let takes = suspect.is_small() == is_small && taken.len() < at_once;
            if takes {
                taken.push(suspect.bounds.clone());
            }
            !takes
        });
        Some(if is_small { Step::Fetch(taken) } else { Step::Narrow(taken) })
    }

    /// Takes in what the hub has in parts of ranges.
    pub fn narrowed(&mut self, parts: &[Slice], prints: &Prints) {
        self.suspects.extend(suspects(parts, prints));
    }

    /// Takes in what the hub has in ranges that were fetched: what there is to heal.
    pub fn fetched(&mut self, ranges: Vec<Bounds>, rows: &Rows, prints: Prints) -> Vec<Fetched> {
        let mut fetched = Vec::new();
        for (bounds, print) in ranges.into_iter().zip(prints) {
            let Some(print) = print else {
                self.suspects.push(Suspect::few(bounds));
                continue;
            };
            if print.upto.is_some() {
                self.suspects.push(Suspect::few(Bounds { after: print.upto, ..bounds.clone() }));
            }
            let bounds = Bounds { upto: print.upto.or(bounds.upto), ..bounds };
            let is_within = |table: u16| {
                let header = rows.tables.get(usize::from(table));
                header.is_some_and(|header| header.name.eq_ignore_ascii_case(&bounds.table))
            };
            let mut own = rows.clone();
            own.rows.retain(|row| is_within(row.table) && bounds.contains(row.id));
            fetched.push(Fetched { bounds, rows: own, newer: print.newer });
        }
        fetched
    }
}

/// What the hub is asked about slices.
pub fn compare(slices: &[Slice]) -> Check {
    Check { ranges: slices.iter().map(Slice::range).collect(), rows: false }
}

/// What the hub is asked to fetch ranges.
pub fn fetch(ranges: &[Bounds]) -> Check {
    let range = |bounds: &Bounds| Range {
        table: bounds.table.clone(),
        columns: Vec::new(),
        after: bounds.after,
        upto: bounds.upto,
        left_out: Vec::new(),
    };
    Check { ranges: ranges.iter().map(range).collect(), rows: true }
}
