//! What a simulated sync is described with.

use federation_hub::model::Value;
use federation_hub::protocol::message::Rows;
use federation_hub::storage::driver::{SqlError, SqlErrorKind};

/// How far a sync gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// To its end.
    Complete,
    /// The batch never arrives.
    LosesBatch,
    /// So many batches arrive, and the next one never does.
    LosesBatchAfter(usize),
    /// The hub has the batch, and its answer never arrives.
    LosesAnswer,
    /// This many turns of the answer are applied, and the rest never arrives.
    InterruptedPull(usize),
    /// All of the answer is applied, and the process dies after this many turns that try again what is set aside.
    InterruptedRetrial(usize),
}

/// What a sync did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub pulled: u64,
    pub pushed: u64,
    pub conflicts: u64,
    pub quarantined: u64,
    pub rejected: u64,
    pub healed: u64,
}

impl Counts {
    /// What this one and the next one did together.
    pub fn and(self, then: Self) -> Self {
        Self {
            pulled: self.pulled + then.pulled,
            pushed: self.pushed + then.pushed,
            conflicts: self.conflicts + then.conflicts,
            quarantined: then.quarantined,
            rejected: self.rejected + then.rejected,
            healed: self.healed + then.healed,
        }
    }
}

/// Runs a turn, and once more each time that it finds the database busy: what the engine does.
pub fn until_free<T>(mut turn: impl FnMut() -> Result<T, SqlError>) -> T {
    loop {
        match turn() {
            Ok(value) => return value,
            Err(error) => assert_eq!(error.kind, SqlErrorKind::Busy, "{error}"),
        }
    }
}

/// A text value.
pub fn text(value: &str) -> Value {
    Value::Text(value.into())
}

/// The rows of an answer, as the turns that apply them get them; the last turn may have none.
pub fn cut(chunks: Vec<Rows>, size: usize) -> Vec<Rows> {
    let mut slices = Vec::new();
    for chunk in chunks {
        for rows in chunk.rows.chunks(size) {
            slices.push(Rows { tables: chunk.tables.clone(), rows: rows.to_vec() });
        }
    }
    if slices.is_empty() {
        slices.push(Rows::default());
    }
    slices
}

/// Whether people are told of something that a test may bring about.
pub fn is_usual(notice: &str) -> bool {
    const USUAL: [&str; 6] = [
        "set aside",
        "as its merge rule",
        "deleted while",
        "an index of table",
        "before the first sync",
        "not made here",
    ];
    USUAL.iter().any(|usual| notice.contains(usual))
}
