//! How far the hub's store has come with tables that a replica declares: it takes them in in pieces, between which
//! others get their turn.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A table that is refused to a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedTable {
    /// The store's number of the table; 0 if it has none.
    pub table: i64,
    /// Its name on the replica.
    pub name: String,
    /// Why, and what to do.
    pub reason: String,
}

/// How far the store has come with a replica's tables. It is of use only together with the request that it began with.
#[derive(Debug, Default)]
pub struct Declaring {
    /// How many pieces there were, this one included.
    pub pieces: usize,
    /// How many of the request's tables are taken in, or refused.
    pub(super) tables: usize,
    /// Those that are refused.
    pub(super) refused: Vec<RefusedTable>,
    /// The numbers of the definitions that the request has.
    pub(super) definitions: BTreeSet<i64>,
    /// Whether it is written down that the replica declares these.
    pub(super) is_noted: bool,
    /// Tables of which it is still to be decided what stands.
    pub(super) unsettled: BTreeSet<i64>,
    /// Definitions that rows were held against, by their tables.
    pub(super) judged: BTreeSet<(i64, String)>,
    /// What looking at rows may still cost, as rows.
    pub(super) spent_rows: i64,
    /// Whether something else stands now, under which rows have to be looked at.
    pub(super) is_changed: bool,
    /// Whether rows are left that have to be looked at for that.
    pub(super) has_rows_left: bool,
}
