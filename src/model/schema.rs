//! What a table is, as far as replicas must agree on it.

use serde::{Deserialize, Serialize};

/// How a table's rows get their identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyKind {
    /// `INTEGER PRIMARY KEY`: a number that means something on one replica only; identities are minted.
    Number,
    /// TEXT, BLOB or composite: the identity is the hash of the key at birth.
    Natural,
}

/// A table's definition on its way through the hub to replicas that do not have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The table's name.
    pub name: String,
    /// How its rows are identified.
    pub key: KeyKind,
    /// The columns that travel, in order; the number of a [`KeyKind::Number`] table is not among them.
    pub columns: Vec<String>,
    /// The `CREATE TABLE` text as SQLite keeps it.
    pub ddl: String,
    /// The `CREATE INDEX` texts as SQLite keeps them.
    pub indexes: Vec<String>,
}
