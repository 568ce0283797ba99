//! What became of the messages of each kind, and how long that took.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Attach,
    Declare,
    Refresh,
    Rows,
    WideRows,
    HugeCells,
    ManyWrites,
    Deletes,
    Chains,
    Collisions,
    Undeclared,
    Extremes,
    Check,
    End,
    OutOfOrder,
}

impl Kind {
    pub const ALL: [Self; 15] = [
        Self::Attach,
        Self::Declare,
        Self::Refresh,
        Self::Rows,
        Self::WideRows,
        Self::HugeCells,
        Self::ManyWrites,
        Self::Deletes,
        Self::Chains,
        Self::Collisions,
        Self::Undeclared,
        Self::Extremes,
        Self::Check,
        Self::End,
        Self::OutOfOrder,
    ];
}

/// What the hub did with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Did what it asks, all of it or a part.
    Accepted,
    /// Said no, to all of it.
    Refused,
    /// Said not now: the tenant's share, or the hub, is used up.
    PutOff,
    /// Ended the connection.
    CutOff,
}

/// One kind's.
#[derive(Clone, Debug, Default)]
struct Line {
    accepted: u64,
    refused: u64,
    put_off: u64,
    cut_off: u64,
    took: Vec<Duration>,
    /// What the slowest one was.
    slowest: (Duration, String),
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<Kind, Line>);

impl Tally {
    pub fn note(&mut self, kind: Kind, fate: Fate, took: Duration, told: String) {
        let line = self.0.entry(kind).or_default();
        *match fate {
            Fate::Accepted => &mut line.accepted,
            Fate::Refused => &mut line.refused,
            Fate::PutOff => &mut line.put_off,
            Fate::CutOff => &mut line.cut_off,
        } += 1;
        line.took.push(took);
        if took > line.slowest.0 {
            line.slowest = (took, told);
        }
    }

    pub fn add(&mut self, other: Self) {
        for (kind, mut line) in other.0 {
            let sum = self.0.entry(kind).or_default();
            sum.accepted += line.accepted;
            sum.refused += line.refused;
            sum.put_off += line.put_off;
            sum.cut_off += line.cut_off;
            sum.took.append(&mut line.took);
            if line.slowest.0 > sum.slowest.0 {
                sum.slowest = line.slowest;
            }
        }
    }

    pub fn count(&self) -> usize {
        self.0.values().map(|line| line.took.len()).sum()
    }

    /// Panics unless some of each kind were accepted, and some refused: or what is sent is nothing that a hub has to do with.
    pub fn is_of_both(&self) {
        for kind in Kind::ALL {
            let Line { accepted, refused, .. } = self.0.get(&kind).cloned().unwrap_or_default();
            assert!(accepted > 0, "no message of kind {kind:?} was ever accepted");
            assert!(refused > 0, "no message of kind {kind:?} was ever refused");
        }
    }
}

/// A table, and the slowest of each kind.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["sent", "accepted", "refused", "put off", "cut off", "p50 ms", "p99 ms", "most ms"];
        write!(f, "{:12}", "kind")?;
        columns.iter().try_for_each(|column| write!(f, "{column:>10}"))?;
        for (kind, line) in &self.0 {
            let mut took = line.took.clone();
            took.sort_unstable();
            let ms =
                |share: usize| took.get(took.len() * share / 100).map_or(0.0, |it| it.as_secs_f64() * 1e3);
            write!(f, "\n{:12}", format!("{kind:?}"))?;
            let counts = [took.len() as u64, line.accepted, line.refused, line.put_off, line.cut_off];
            counts.iter().try_for_each(|count| write!(f, "{count:>10}"))?;
            [ms(50), ms(99), line.slowest.0.as_secs_f64() * 1e3]
                .iter()
                .try_for_each(|ms| write!(f, "{ms:>10.1}"))?;
        }
        for (kind, line) in &self.0 {
            write!(f, "\nslowest {kind:?}: {:.2} s, {}", line.slowest.0.as_secs_f64(), line.slowest.1)?;
        }
        Ok(())
    }
}
