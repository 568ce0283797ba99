//! Tables that the application has renamed, or dropped.
//!
//! A trigger follows its table when that is renamed, and goes with it when it is dropped: so ours tell which of
//! the two happened. For the tenant a new name is a new table, to which this replica offers the rows that it has,
//! with the identities and stamps that they have: whoever else renames it adds the same rows. Agents that know
//! the old name only go on with the old table.

use std::collections::HashMap;

use super::capture::InstalledTrigger;
use super::capture_triggers::trigger_name;
use super::catalog::Catalog;
use super::driver::{Sql, SqlError};
use super::registered::Registered;
use crate::model::Seq;

/// Looks which of the tables that are gone have another name now, and gives them that name; returns their old
/// ones. What else is in `known` without being in the catalog was dropped.
pub(super) fn follow(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    known: &mut HashMap<String, Registered>,
    triggers: &HashMap<String, InstalledTrigger>,
    resume: Seq,
) -> Result<Vec<String>, SqlError> {
    let gone: Vec<String> = known.keys().filter(|name| catalog.table(name).is_none()).cloned().collect();
    let mut renamed = Vec::new();
    for old in gone {
        let Some(number) = known.get(&old).map(|table| table.number) else { continue };
        let Some(trigger) = triggers.get(&trigger_name(number, "insert")) else { continue };
        let new = trigger.table.to_ascii_lowercase();
        if known.contains_key(&new) || catalog.table(&new).is_none() {
            continue;
        }
        sql.execute(
            "UPDATE main._federation_table SET name = ?, refresh = max(refresh, ?) WHERE tbl = ?",
            &[trigger.table.as_str().into(), i64::from(resume > 0).into(), number.into()],
        )?;
        sql.execute("UPDATE main._federation_row SET batch = -2 WHERE tbl = ?", &[number.into()])?;
        // The old name stays known as that of a table which is not wanted here any more.
        sql.execute(
            "INSERT INTO main._federation_table(name, columns) VALUES(?, '[]')",
            &[old.as_str().into()],
        )?;
        if let Some(table) = known.remove(&old) {
            known.insert(new, table);
        }
        renamed.push(old);
    }
    Ok(renamed)
}
