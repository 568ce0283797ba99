//! Tables that there is no room for: a hub refuses a sync that names too many.

use std::collections::HashMap;

use super::catalog::{Catalog, Table};
use super::choice::Choice;
use super::driver::{Sql, SqlError};
use super::fields::Fields;
use crate::protocol::limits::{MAX_COLUMNS, MAX_SCHEMA_BYTES, MAX_TABLES};

/// The rank of tables that are shared: they come first, and stay so.
const SHARED: u8 = 0;
/// The rank of those that are not shared yet.
pub const UNKNOWN: u8 = 1;
/// The rank of those that the hub has refused: they come last.
const REFUSED: u8 = 2;

/// What to do about a table that there is no room for.
const EXCLUDE: &str = "name those that need not be shared in tables.exclude";

/// The ranks of the tables that the bookkeeping knows, by their names in lower case.
pub fn ranks(sql: &mut dyn Sql) -> Result<HashMap<String, u8>, SqlError> {
    let mut ranks = HashMap::new();
    let statement = "SELECT name, is_out, refused IS NOT NULL FROM main._federation_table";
    sql.query(statement, &[], &mut |row| {
        let mut fields = Fields::of(row);
        let name = fields.text()?.to_ascii_lowercase();
        let (is_out, is_refused) = (fields.integer()? != 0, fields.integer()? != 0);
        let rank = match (is_refused, is_out) {
            (true, _) => REFUSED,
            (false, true) => UNKNOWN,
            (false, false) => SHARED,
        };
        ranks.insert(name, rank);
        Ok(())
    })?;
    Ok(ranks)
}

/// Why a table of too many columns is not shared.
pub fn too_wide() -> String {
    format!("it has more than {MAX_COLUMNS} columns: {EXCLUDE}")
}

impl Catalog {
    /// Leaves out a table that there is no room for. Nobody else's rows are wanted there.
    pub fn leave_out(&mut self, name: String, why: String) {
        self.left_alone.push((name.clone(), why));
        self.excluded.push(name);
    }

    /// Leaves out the tables that are more than a hub takes of one tenant: a sync would be refused as a whole.
    pub fn leave_out_surplus(&mut self, choice: &Choice<'_>) {
        let mut by_rank: Vec<usize> = (0..self.tables.len()).collect();
        by_rank.sort_by_key(|at| choice.rank(&self.tables[*at].name));
        let (mut bytes, mut count, mut surplus) = (0, 0, Vec::new());
        for at in by_rank {
            let table = &self.tables[at];
            let needed = definition_bytes(table);
            if count == MAX_TABLES {
                surplus.push((at, format!("a database shares at most {MAX_TABLES} tables: {EXCLUDE}")));
            } else if bytes + needed > MAX_SCHEMA_BYTES {
                let why =
                    format!("the definitions of a database's tables have at most {MAX_SCHEMA_BYTES} bytes");
                surplus.push((at, format!("{why}: {EXCLUDE}")));
            } else {
                (bytes, count) = (bytes + needed, count + 1);
            }
        }
        surplus.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, why) in surplus {
            let table = self.tables.remove(at);
            self.leave_out(table.name, why);
        }
    }
}

/// About how many bytes a table's definition takes as it travels.
fn definition_bytes(table: &Table) -> usize {
    let names = table.columns.iter().map(|column| &column.name);
    table.ddl.len() + names.chain(&table.indexes).map(|text| text.len() + 5).sum::<usize>()
}
