//! Tables that the application has renamed, or dropped.
//!
//! A trigger follows its table when that is renamed, and goes with it when it is dropped: so ours tell which of
//! the two happened. For the tenant a new name is a new table, to which this replica offers the rows that it has,
//! with the identities and stamps that they have: whoever else renames it adds the same rows. Agents that know
//! the old name only go on with the old table.
//!
//! The new name may be that of a table which the application has dropped. Whoever gives it to another one has seen the
//! rows that it had, and takes them away: each is deleted as of its last write, so that no edit since is lost. Rows that were
//! written under the name's new meaning, by an agent that made the same change before, are not among them.

use std::collections::HashMap;

use super::capture::InstalledTrigger;
use super::capture_triggers::trigger_name;
use super::catalog::Catalog;
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::Fields;
use super::local_key::LocalKey;
use super::registered::Registered;
use super::row_meta::{Pending, RowMeta, Tombstone};
use super::rows::beginning;
use crate::model::{Agreement, ReplicaId, RowId, Seq, Stamp, Value};

/// Looks which of the tables that are gone have another name now, and gives them that name; returns their old
/// ones. What else is in `known` without being in the catalog was dropped.
pub(super) fn follow(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    known: &mut HashMap<String, Registered>,
    triggers: &HashMap<String, InstalledTrigger>,
    agreed: &HashMap<String, Agreement>,
    resume: Seq,
) -> Result<Vec<String>, SqlError> {
    let gone: Vec<String> = known.keys().filter(|name| catalog.table(name).is_none()).cloned().collect();
    let mut renamed = Vec::new();
    for old in gone {
        let Some(number) = known.get(&old).map(|table| table.number) else { continue };
        let Some(trigger) = triggers.get(&trigger_name(number, "insert")) else { continue };
        let new = trigger.table.to_ascii_lowercase();
        let Some(table) = catalog.table(&new) else { continue };
        if let Some(over) = known.get(&new).map(|over| over.number) {
            if triggers.get(&trigger_name(over, "insert")).is_some() {
                // It is there yet, under whatever name.
                continue;
            }
            let Some(over) = known.remove(&new) else { continue };
            if let Some(renamed) = known.get_mut(&old) {
                replace(sql, &over, renamed, agreed.get(&table.name.to_lowercase()))?;
            }
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

/// Has the rows of a dropped table deleted that another one has taken the name of.
fn replace(
    sql: &mut dyn Sql,
    over: &Registered,
    renamed: &mut Registered,
    agreed: Option<&Agreement>,
) -> Result<(), SqlError> {
    let since = renamed.replace_name(over, agreed);
    let state = sql.query_row("SELECT replica, cursor FROM main._federation_replica", &[])?;
    let mut fields = Fields::from(state.unwrap_or_default());
    let (replica, base) = (fields.bytes(ReplicaId::from_slice)?, fields.unsigned()?);
    for (id, mut meta) in present(sql, over.number)? {
        let highest = meta.highest();
        if since.is_some_and(|since| highest >= since) {
            continue;
        }
        let stamp = Stamp { hlc: highest.next(), replica: replica.tie_break() };
        meta.deleted = Some(Tombstone { stamp, pending: Some(Pending { base, mark: 0, is_effect: false }) });
        meta.cells.clear();
        meta.ruled.clear();
        let state = meta.encode()?;
        sql.execute(
            "INSERT INTO main._federation_row(tbl, k, id, batch, state) SELECT ?, ?, ?, 0, ? WHERE NOT EXISTS (SELECT 1 \
             FROM main._federation_row INDEXED BY _federation_row_id WHERE tbl = ? AND substr(id, 1, 6) = ? AND id = ?)",
            &[
                renamed.number.into(),
                LocalKey::dead(id).as_param(),
                ValueRef::Blob(&id.0),
                ValueRef::Blob(&state),
                renamed.number.into(),
                ValueRef::Blob(beginning(&id.0)),
                ValueRef::Blob(&id.0),
            ],
        )?;
    }
    for place in ["row", "log", "table"] {
        sql.execute(&format!("DELETE FROM main._federation_{place} WHERE tbl = ?"), &[over.number.into()])?;
    }
    Ok(())
}

/// What is remembered of the rows that a table had.
fn present(sql: &mut dyn Sql, table: i64) -> Result<Vec<(RowId, RowMeta)>, SqlError> {
    let mut rows = Vec::new();
    let statement =
        "SELECT id, state FROM main._federation_row WHERE tbl = ? AND NOT (k >= x'00' AND k < x'01')";
    sql.query(statement, &[table.into()], &mut |row| {
        let [Value::Blob(id), Value::Blob(state)] = row else {
            return Err(SqlError::corrupt("_federation_row holds something else"));
        };
        let id = RowId::from_slice(id).ok_or_else(|| SqlError::corrupt("an identity of another length"))?;
        let meta = RowMeta::decode(state)?;
        if !meta.is_reserved() {
            rows.push((id, meta));
        }
        Ok(())
    })?;
    Ok(rows)
}
