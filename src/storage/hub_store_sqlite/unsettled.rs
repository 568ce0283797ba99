//! Tables of which it is still to be decided what stands, because their turn was up.
//!
//! It is kept in memory. What is lost of it with the hub is found again as its file is opened, as far as nobody declares a
//! definition any more; the rest is decided when somebody declares the table.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

/// The tables, by the names of their tenants.
#[derive(Default)]
pub struct Unsettled(BTreeMap<String, BTreeSet<i64>>);

impl Unsettled {
    /// Reads of which tables definitions are remembered that nobody declares.
    pub fn read(conn: &Connection) -> Result<Self, rusqlite::Error> {
        let mut unsettled = Self::default();
        let mut statement = conn.prepare(
            "SELECT DISTINCT tenant.name, definition.tbl FROM definition INDEXED BY definition_undeclared
             JOIN tenant ON tenant.id = definition.tenant WHERE declarers = 0",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            unsettled.0.entry(row.get(0)?).or_default().insert(row.get(1)?);
        }
        Ok(unsettled)
    }

    /// Adds tables of a tenant.
    pub fn add(&mut self, tenant: &str, tables: BTreeSet<i64>) {
        if !tables.is_empty() {
            self.0.entry(tenant.to_owned()).or_default().extend(tables);
        }
    }

    /// Takes all tables of one tenant out; those that are not settled then are added again.
    pub fn take_one(&mut self) -> Option<(String, BTreeSet<i64>)> {
        self.0.pop_first()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
