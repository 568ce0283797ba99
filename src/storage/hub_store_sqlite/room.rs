//! How many tables and columns a tenant has, what their definitions take, and whether there is room for more.
//!
//! Sizes are judged before anything is compared or tried out: what is too large costs no more than to look at its sizes.

use rusqlite::{Connection, params};

use super::weight::StoreLimits;
use crate::model::TableSchema;
use crate::protocol::limits::{
    MAX_COLUMNS, MAX_KEY_COLUMNS, MAX_NAME_BYTES, MAX_ORIGINS, MAX_SCHEMA_BYTES, MAX_TABLES,
};
use crate::storage::hub_store::StoreError;

/// What to do about a table that there is no room for.
const EXCLUDE: &str = "Exclude tables that need not be shared (tables.exclude)";

/// A part of what a tenant's tables take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: usize,
    /// Bytes of definitions.
    pub bytes: usize,
}

/// What a tenant's tables take, and may take.
pub struct Room {
    max_tables: usize,
    max_columns: usize,
    tables: usize,
    used: Size,
    last_id: i64,
}

impl Room {
    /// Adds up all tables of a tenant: once for everything that is declared together.
    pub fn of(conn: &Connection, tenant: i64, limits: StoreLimits) -> Result<Self, StoreError> {
        let mut room = Self {
            max_tables: limits.tables.min(MAX_TABLES),
            max_columns: limits.columns,
            tables: 0,
            used: Size::default(),
            last_id: 0,
        };
        let mut statement = conn.prepare_cached(
            "SELECT id, octet_length(ddl) + length(columns) + length(indexes) + length(agreed), substr(columns, 1, 5)
             FROM table_schema WHERE tenant = ?1",
        )?;
        let mut rows = statement.query(params![tenant])?;
        while let Some(row) = rows.next()? {
            room.tables += 1;
            room.last_id = room.last_id.max(row.get(0)?);
            room.used.bytes += usize::try_from(row.get::<_, i64>(1)?).unwrap_or(usize::MAX);
            room.used.columns += list_length(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?);
        }
        // A number that a dropped table had is not given again: some of its rows may be there still.
        let dropped = "SELECT coalesce(max(tbl), 0) FROM dropped_table WHERE tenant = ?1";
        let dropped = conn.prepare_cached(dropped)?.query_row(params![tenant], |row| row.get(0))?;
        room.last_id = room.last_id.max(dropped);
        Ok(room)
    }

    /// The number of a table that comes to the others; why there is no room for one, if so.
    pub fn number(&self) -> Result<i64, String> {
        if self.tables >= self.max_tables {
            return Err(format!(
                "the tenant has {} tables already, as many as it may (maxTablesPerTenant). {EXCLUDE}",
                self.tables
            ));
        }
        Ok(self.last_id + 1)
    }

    /// Why there is no room for a table that takes this in place of what it took before, if so.
    pub fn refusal(&self, before: Size, after: Size) -> Option<String> {
        let columns = self.used.columns.saturating_sub(before.columns).saturating_add(after.columns);
        if after.columns > before.columns && columns > self.max_columns {
            return Some(format!(
                "the tenant's tables would have more than {} columns together (maxColumnsPerTenant). {EXCLUDE}",
                self.max_columns
            ));
        }
        let bytes = self.used.bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
        if after.bytes > before.bytes && bytes > MAX_SCHEMA_BYTES {
            return Some(format!(
                "the tenant's table definitions would exceed {MAX_SCHEMA_BYTES} bytes. {EXCLUDE}"
            ));
        }
        None
    }

    /// Notes what a table takes now, in place of what it took before; a new one has a number.
    pub fn take(&mut self, new: Option<i64>, before: Size, after: Size) {
        if let Some(id) = new {
            self.tables += 1;
            self.last_id = self.last_id.max(id);
        }
        let used = &mut self.used;
        used.columns = used.columns.saturating_sub(before.columns).saturating_add(after.columns);
        used.bytes = used.bytes.saturating_sub(before.bytes).saturating_add(after.bytes);
    }
}

/// How many elements a list has that is stored as MessagePack, by its first bytes.
fn list_length(head: &[u8]) -> usize {
    match *head {
        [marker @ 0x90..=0x9f, ..] => usize::from(marker & 0x0f),
        [0xdc, a, b, ..] => usize::from(u16::from_be_bytes([a, b])),
        [0xdd, a, b, c, d] => u32::from_be_bytes([a, b, c, d]) as usize,
        _ => 0,
    }
}

/// Why a declaration is larger than any may be, if it is; without a look at what it says.
pub fn too_large(declared: &TableSchema) -> Option<String> {
    let TableSchema { name, columns, agreed, .. } = declared;
    if columns.len() > MAX_COLUMNS {
        return Some(format!("table {name} has more than {MAX_COLUMNS} columns. {EXCLUDE}"));
    }
    if columns.iter().any(|column| !is_name(column)) {
        return Some(format!("a column name must have 1 to {MAX_NAME_BYTES} bytes"));
    }
    if agreed.key_columns.len() > MAX_KEY_COLUMNS {
        return Some(format!("the PRIMARY KEY of table {name} has more than {MAX_KEY_COLUMNS} columns"));
    }
    let said = agreed.rules.len().max(agreed.references.len());
    let targets: usize = agreed.references.iter().map(|it| it.to.len()).sum();
    if said > MAX_COLUMNS || targets > MAX_COLUMNS || agreed.origins.len() > MAX_ORIGINS {
        return Some(format!(
            "the declaration of table {name} has more rules, references or renamed columns than a table can have columns"
        ));
    }
    None
}

/// Whether a table or a column may be called so.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_counted_by_its_first_bytes() {
        for length in [0, 1, 15, 16, 300, 65_535, 65_536, 70_000] {
            let list = rmp_serde::to_vec(&vec!["column"; length]).unwrap();
            assert_eq!(list_length(&list[..list.len().min(5)]), length);
        }
    }
}
