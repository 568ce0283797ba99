//! What a hub's operator sees of the tenants, and removes.
//!
//! An [`Order`] takes effect at once and for good: whatever it removes is told to nobody from its commit on. What is left of
//! it in the file goes in pieces ([`OperatorStore::remove_some`]), between which others have their turns.

use super::hub_store::StoreError;
use crate::model::Hlc;

/// A tenant, as far as it is known without a look at its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSummary {
    /// Its name.
    pub name: String,
    /// Its live rows.
    pub rows: u64,
    /// What all its rows take, deleted ones included, in bytes.
    pub bytes: u64,
    /// Agents that have not retired.
    pub agents: u64,
    /// Their databases.
    pub replicas: u64,
}

/// Everything about a tenant but what its rows take by table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantDetails {
    /// What is known without a look at its rows.
    pub summary: TenantSummary,
    /// What its deleted rows take, of the bytes of all.
    pub dead_bytes: u64,
    /// The highest clock reading among its stamps.
    pub highest: Hlc,
    /// Its tables, in the order of their first declaration.
    pub tables: Vec<TableDetails>,
    /// Its agents, those that were heard of last first; at most [`MAX_AGENTS_TOLD`].
    pub agents: Vec<AgentDetails>,
    /// Tables that an operator has removed, the last first.
    pub dropped: Vec<DroppedTable>,
}

/// How many agents are told of one tenant.
pub const MAX_AGENTS_TOLD: usize = 10_000;

/// A table of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableDetails {
    /// Its number in the store.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its columns, but for one that numbers its rows.
    pub columns: Vec<String>,
    /// What agents declare of it, and what stands although nobody declares it any more.
    pub definitions: Vec<DefinitionDetails>,
}

/// A text that defines a table or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionDetails {
    /// The index's name, or the table's.
    pub name: String,
    /// Whether it makes an index, and not the table.
    pub is_index: bool,
    /// The text.
    pub text: String,
    /// Who declared it first; none if nobody declares it any more.
    pub agent: Option<String>,
    /// How many databases of those that are known declare it.
    pub replicas: u64,
    /// Whether it is the tenant's.
    pub is_standing: bool,
    /// Whether an operator has removed it, so that it stands no more.
    pub is_dropped: bool,
    /// Why it does not stand, if there is something to be said.
    pub why: Option<String>,
}

/// An agent of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentDetails {
    /// Its name.
    pub name: String,
    /// Its databases.
    pub replicas: u64,
    /// When one of them was heard of last, in ms since the epoch.
    pub seen_ms: i64,
}

/// A table that an operator has removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTable {
    /// Its name.
    pub name: String,
    /// When, in ms since the epoch.
    pub at_ms: i64,
    /// Whether those who have it as it was may share it again.
    pub is_readmitted: bool,
}

/// Rows of one table that were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCount {
    /// Those that live.
    pub rows: u64,
    /// What all take, deleted ones included, in bytes.
    pub bytes: u64,
    /// Behind which row to go on; none if all are counted.
    pub next: Option<[u8; 16]>,
}

/// What an operator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A table goes, with its rows.
    DropTable(String),
    /// Those who have a removed table as it was may share it again, or what was removed of a table may stand again.
    Readmit(String, Option<String>),
    /// Definitions of a table stand no more: the index of this name, or the text, if it is the table's name.
    DropDefinition(String, String),
    /// Everything of the tenant goes.
    Erase,
}

/// What an order has done by its commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obeyed {
    /// What has to be removed in pieces.
    pub removal: Option<Removal>,
    /// Tables with foreign keys to the one that was removed.
    pub referenced_by: Vec<String>,
    /// The texts that stand no more.
    pub texts: Vec<String>,
}

/// Rows on their way out: a tenant's number in the store, and a table's, or 0 for everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Removal {
    /// The tenant.
    pub tenant: i64,
    /// The table.
    pub table: i64,
}

/// What has gone of a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Rows that lived.
    pub rows: u64,
    /// What all rows took, deleted ones included, in bytes.
    pub bytes: u64,
}

/// What one piece of compacting did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the file that are free no more, because they are no more of the file.
    pub bytes: u64,
    /// Bytes within the file that are free.
    pub free: u64,
    /// Whether the file can be made smaller while the hub runs.
    pub can_shrink: bool,
}

/// The operator's side of a store. Reading happens between a commit and the next write; the rest is pending until the commit.
pub trait OperatorStore {
    /// Up to `limit` tenants with names above this one, by name.
    fn tenants(&mut self, after: Option<&str>, limit: usize) -> Result<Vec<TenantSummary>, StoreError>;

    /// A tenant; the refusal of one that is not known says which ones are called alike.
    fn describe(&mut self, tenant: &str) -> Result<TenantDetails, StoreError>;

    /// Counts some rows of a table. None if the tenant or the table has gone.
    fn count_rows(
        &mut self,
        tenant: &str,
        table: i64,
        after: Option<[u8; 16]>,
    ) -> Result<RowCount, StoreError>;

    /// Does what is ordered. `now_ms` is the hub's time, in ms since the epoch.
    fn obey(&mut self, tenant: &str, order: &Order, now_ms: i64) -> Result<Obeyed, StoreError>;

    /// Removes a bounded part of this removal, or says what has gone of it if nothing is left. When a table has gone, positions
    /// of the tenant are of another incarnation.
    fn remove_some(&mut self, removal: Removal) -> Result<Option<Removed>, StoreError>;

    /// Gives a bounded part of the file's free pages back.
    fn compact_some(&mut self) -> Result<Compacted, StoreError>;

    /// Brings the log into the file and empties it; says whether that was possible, which it is not while somebody reads.
    /// Called between a commit and the next write.
    fn empty_log(&mut self) -> Result<bool, StoreError>;
}
