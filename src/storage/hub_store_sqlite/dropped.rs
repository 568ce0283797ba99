//! What the hub's operator has removed: names of tables, and texts that stand no more.
//!
//! A table's name is free once its rows are gone. Whoever has the table as it was would bring it back with its next
//! declaration, because every replica makes the tenant's tables; so its texts are remembered and refused until the operator
//! readmits them. A replica that has not heard of the removal is refused once in any case: what it has of the table it
//! counts as shared, and it offers all of a table only when that was refused and is not any more.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::damaged;
use super::tenant::Tenant;
use crate::model::{Agreement, KeyKind, Seq, TableSchema};
use crate::storage::hub_operator::DroppedTable;
use crate::storage::hub_store::StoreError;

/// Names of one tenant that are remembered; the oldest are forgotten first.
const MAX_NAMES: i64 = 10_000;

/// The position of a removal that is not done yet.
const UNDER_WAY: i64 = -1;

/// Why a table is refused to whoever has not heard that it was removed, or as long as it is being removed.
const UNHEARD: &str = "the hub's operator has removed it. Its rows stay here; whether it can be shared again, the next syncs \
                       tell";

/// Why a table is refused to whoever has it as it was.
const AS_IT_WAS: &str = "the hub's operator has removed it, as it is defined here. Its rows stay here: exclude, rename or drop \
                         the table, or have the operator readmit it (server.readmit)";

/// What a text is known by.
pub type TextDigest = [u8; 32];

/// What a text is known by.
pub fn digest(text: &str) -> TextDigest {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// Remembers that a table is being removed, which had these texts.
pub fn note_table(
    conn: &Connection,
    tenant: i64,
    (name, table): (&str, i64),
    texts: &[TextDigest],
    at_ms: i64,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO dropped_table VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![tenant, name, table, UNDER_WAY, at_ms, texts.concat()])?;
    conn.prepare_cached(
        "DELETE FROM dropped_table WHERE tenant = ?1 AND name IN (
             SELECT name FROM dropped_table WHERE tenant = ?1 AND seq >= 0 ORDER BY seq DESC LIMIT -1 OFFSET ?2)",
    )?
    .execute([tenant, MAX_NAMES])?;
    Ok(())
}

/// Notes at which position the last row of a table has gone. Its name is free from then on.
pub fn note_end(conn: &Connection, tenant: i64, table: i64, position: Seq) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE dropped_table SET seq = ?3 WHERE tenant = ?1 AND tbl = ?2")?
        .execute(params![tenant, table, position.cast_signed()])?;
    Ok(())
}

/// Has the texts of a table taken again. Says whether they were refused.
pub fn readmit(conn: &Connection, tenant: i64, name: &str) -> Result<bool, StoreError> {
    let sql = "UPDATE dropped_table SET texts = NULL WHERE tenant = ?1 AND name = ?2 AND texts IS NOT NULL";
    Ok(conn.prepare_cached(sql)?.execute(params![tenant, name])? > 0)
}

/// The tables that were removed, the last first.
pub fn tables(conn: &Connection, tenant: i64) -> Result<Vec<DroppedTable>, StoreError> {
    let sql =
        "SELECT name, at_ms, texts IS NULL FROM dropped_table WHERE tenant = ?1 ORDER BY at_ms DESC, name";
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_map([tenant], |row| {
        Ok(DroppedTable { name: row.get(0)?, at_ms: row.get(1)?, is_readmitted: row.get(2)? })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Why a declaration is not taken because of what was removed.
pub fn objection(
    conn: &Connection,
    tenant: &Tenant,
    declared: &TableSchema,
    cursor: Seq,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT seq, texts FROM dropped_table WHERE tenant = ?1 AND name = ?2";
    let found: Option<(i64, Option<Vec<u8>>)> = conn
        .prepare_cached(sql)?
        .query_row(params![tenant.id, declared.name], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((seq, texts)) = found else { return Ok(None) };
    if seq < 0 || (1..seq.cast_unsigned()).contains(&cursor) {
        return Ok(Some(UNHEARD.to_owned()));
    }
    let digest = digest(&declared.ddl);
    let is_as_it_was = texts.is_some_and(|it| it.chunks_exact(digest.len()).any(|it| it == digest));
    Ok(is_as_it_was.then(|| AS_IT_WAS.to_owned()))
}

/// Tables that were removed above a reader's cursor, and have not come back: definitions without text and columns.
pub fn told_since(conn: &Connection, tenant: i64, cursor: Seq) -> Result<Vec<TableSchema>, StoreError> {
    if cursor == 0 {
        return Ok(Vec::new());
    }
    let sql = "SELECT name FROM dropped_table AS gone WHERE tenant = ?1 AND seq > ?2 AND NOT EXISTS (
                   SELECT 1 FROM table_schema AS back WHERE back.tenant = ?1 AND back.name = gone.name)";
    let mut statement = conn.prepare_cached(sql)?;
    let names = statement.query_map(params![tenant, cursor.cast_signed()], |row| row.get(0))?;
    let removed = |name: String| TableSchema {
        name,
        key: KeyKind::Natural,
        columns: Vec::new(),
        ddl: String::new(),
        indexes: Vec::new(),
        agreed: Agreement::default(),
    };
    Ok(names.map(|name| name.map(removed)).collect::<Result<_, _>>()?)
}

/// The numbers of tables of which rows are left that nobody is told of any more.
pub fn under_way(conn: &Connection, tenant: i64) -> Result<Vec<i64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT tbl FROM removal WHERE tenant = ?1")?;
    let tables = statement.query_map([tenant], |row| row.get(0))?;
    Ok(tables.collect::<Result<_, _>>()?)
}

/// Whether a table of this name was removed.
pub fn is_dropped(conn: &Connection, tenant: i64, name: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM dropped_table WHERE tenant = ?1 AND name = ?2)";
    Ok(conn.prepare_cached(sql)?.query_row(params![tenant, name], |row| row.get(0))?)
}

/// Remembers a text of a table that stands no more.
pub fn note_definition(
    conn: &Connection,
    (tenant, table): (i64, i64),
    (name, text): (&str, &str),
    at_ms: i64,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO dropped_definition VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![tenant, table, &digest(text)[..], name, at_ms])?;
    Ok(())
}

/// Lets what was removed of a table under this name stand again. Says whether there was anything.
pub fn readmit_definition(
    conn: &Connection,
    tenant: i64,
    table: i64,
    name: &str,
) -> Result<bool, StoreError> {
    let sql = "DELETE FROM dropped_definition WHERE tenant = ?1 AND tbl = ?2 AND name = ?3";
    Ok(conn.prepare_cached(sql)?.execute(params![tenant, table, name])? > 0)
}

/// Texts of a table that stand no more.
pub fn definitions(conn: &Connection, tenant: i64, table: i64) -> Result<HashSet<TextDigest>, StoreError> {
    let sql = "SELECT digest FROM dropped_definition WHERE tenant = ?1 AND tbl = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([tenant, table])?;
    let mut found = HashSet::new();
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        found.insert(bytes.try_into().map_err(|_| damaged("what was removed of a table"))?);
    }
    Ok(found)
}
