//! What live replicas declare: each text of a table or an index once, with how many declarations have it, and whether it
//! stands.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::damaged;
use super::tenant::Tenant;
use crate::model::{ReplicaId, Seq, TableSchema};
use crate::protocol::limits::{MAX_DEFINITIONS, MAX_DONE_NOTICES, MAX_SCHEMA_BYTES};
use crate::storage::hub_store::StoreError;

/// Two rows that contradict a definition, each with its position then: as long as they are as they were, they do.
pub type Witness = [(i64, Seq); 2];

/// A text that is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its number.
    pub id: i64,
    /// Whether it makes an index, and not the table.
    pub is_index: bool,
    /// The text.
    pub text: String,
    /// Who declared it first.
    pub agent: String,
    /// How many different declarations have it; 0 if nobody declares it any more.
    pub declarers: i64,
    /// Whether it is the tenant's.
    pub is_standing: bool,
    /// Why it is not, for people; none if there is nothing to be said.
    pub why: Option<String>,
    /// What contradicts it.
    pub witness: Option<Witness>,
    /// Whether it asks less of rows than the text that stands.
    pub is_laxer: bool,
}

const FIELDS: &str = "id, is_index, text, agent, declarers, standing, why, witness, laxer";

impl Definition {
    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        let witness = row.get_ref(7)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
        let witness = witness.map(|it| rmp_serde::from_slice(it).map_err(|_| damaged("a definition")));
        Ok(Self {
            id: row.get(0)?,
            is_index: row.get(1)?,
            text: row.get(2)?,
            agent: row.get(3)?,
            declarers: row.get(4)?,
            is_standing: row.get(5)?,
            why: row.get(6)?,
            witness: witness.transpose()?,
            is_laxer: row.get(8)?,
        })
    }

    /// Whether a live replica declares it.
    pub fn is_declared(&self) -> bool {
        self.declarers > 0
    }

    /// Writes down what was decided about it. What is new of the reason is told to everyone.
    pub fn save(&self, conn: &Connection, tenant: &mut Tenant, is_news: bool) -> Result<(), StoreError> {
        if is_news {
            tenant.seq += 1;
        }
        let told_at = is_news.then_some(tenant.seq.cast_signed());
        let failed = |error: rmp_serde::encode::Error| StoreError::Failed(error.to_string());
        let witness = self.witness.map(|it| rmp_serde::to_vec(&it).map_err(failed)).transpose()?;
        conn.prepare_cached(
            "UPDATE definition SET standing = ?3, why = ?4, witness = ?5, told_at = coalesce(?6, told_at),
                 laxer = ?7
             WHERE tenant = ?1 AND id = ?2",
        )?
        .execute(params![
            tenant.id,
            self.id,
            self.is_standing,
            self.why,
            witness,
            told_at,
            self.is_laxer
        ])?;
        Ok(())
    }
}

/// All definitions of a table that a live replica declares, in the order in which they were first declared.
pub fn of_table(conn: &Connection, tenant: i64, table: i64) -> Result<Vec<Definition>, StoreError> {
    let sql = format!("SELECT {FIELDS} FROM definition WHERE tenant = ?1 AND tbl = ?2 ORDER BY id");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([tenant, table])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Definition::read(row)?);
    }
    Ok(found)
}

/// Notes what a replica declares from now on, in place of what it declared `before`. Returns the tables of which other
/// definitions are declared now.
pub fn declare(
    conn: &Connection,
    tenant: &Tenant,
    replica: ReplicaId,
    before: Option<i64>,
    (tables, agent): (&[(i64, &TableSchema)], &str),
) -> Result<BTreeSet<i64>, StoreError> {
    let digest = digest(tables)?;
    let known: Option<i64> = conn
        .prepare_cached("SELECT id FROM declaration WHERE tenant = ?1 AND digest = ?2")?
        .query_row(params![tenant.id, &digest[..]], |row| row.get(0))
        .optional()?;
    if known.is_some() && known == before || before.is_none() && tables.is_empty() {
        return Ok(BTreeSet::new());
    }
    let mut changed = BTreeSet::new();
    let id = match known {
        Some(id) => id,
        None => make(conn, tenant.id, &digest, (tables, agent), &mut changed)?,
    };
    conn.prepare_cached("UPDATE declaration SET replicas = replicas + 1 WHERE tenant = ?1 AND id = ?2")?
        .execute([tenant.id, id])?;
    conn.prepare_cached("UPDATE replica SET declaration = ?3 WHERE tenant = ?1 AND id = ?2")?
        .execute(params![tenant.id, &replica.0[..], id])?;
    if let Some(before) = before {
        changed.append(&mut release(conn, tenant.id, before)?);
    }
    Ok(changed)
}

fn digest(tables: &[(i64, &TableSchema)]) -> Result<[u8; 32], StoreError> {
    let bytes = rmp_serde::to_vec(tables).map_err(|error| StoreError::Failed(error.to_string()))?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// Notes a declaration that nobody has made just so.
fn make(
    conn: &Connection,
    tenant: i64,
    digest: &[u8; 32],
    (tables, agent): (&[(i64, &TableSchema)], &str),
    changed: &mut BTreeSet<i64>,
) -> Result<i64, StoreError> {
    let next = |sql: &str| -> Result<i64, StoreError> {
        Ok(conn.prepare_cached(sql)?.query_row([tenant], |row| row.get(0))?)
    };
    let mut fresh = next("SELECT coalesce(max(id), 0) + 1 FROM definition WHERE tenant = ?1")?;
    let mut bytes = next(
        "SELECT coalesce(sum(length(CAST(text AS BLOB))), 0) FROM definition WHERE tenant = ?1 AND NOT standing",
    )?;
    let mut ids = BTreeSet::new();
    for (table, schema) in tables {
        let known = of_table(conn, tenant, *table)?;
        let mut room = MAX_DEFINITIONS.saturating_sub(known.len());
        let texts = std::iter::once((false, &schema.ddl)).chain(schema.indexes.iter().map(|it| (true, it)));
        for (is_index, text) in texts {
            let found = known.iter().find(|it| it.is_index == is_index && it.text == *text);
            if let Some(found) = found {
                if found.declarers == 0 {
                    changed.insert(*table);
                }
                ids.insert(found.id);
            } else if room > 0 && is_room_for(text, &mut bytes) {
                conn.prepare_cached(
                    "INSERT INTO definition (tenant, id, tbl, is_index, text, agent, declarers, standing, told_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, 0)",
                )?
                .execute(params![tenant, fresh, table, is_index, text, agent])?;
                ids.insert(fresh);
                changed.insert(*table);
                (fresh, room) = (fresh + 1, room - 1);
            }
        }
    }
    for id in &ids {
        conn.prepare_cached("UPDATE definition SET declarers = declarers + 1 WHERE tenant = ?1 AND id = ?2")?
            .execute([tenant, *id])?;
    }
    let id = next("SELECT coalesce(max(id), 0) + 1 FROM declaration WHERE tenant = ?1")?;
    let list = rmp_serde::to_vec(&ids).map_err(|error| StoreError::Failed(error.to_string()))?;
    conn.prepare_cached(
        "INSERT INTO declaration (tenant, id, digest, replicas, definitions) VALUES (?1, ?2, ?3, 0, ?4)",
    )?
    .execute(params![tenant, id, &digest[..], list])?;
    Ok(id)
}

/// Whether there is room for another text that does not stand, beside so many bytes of others.
fn is_room_for(text: &str, bytes: &mut i64) -> bool {
    *bytes = bytes.saturating_add(i64::try_from(text.len()).unwrap_or(i64::MAX));
    usize::try_from(*bytes).is_ok_and(|bytes| bytes <= MAX_SCHEMA_BYTES)
}

/// One replica less declares this. Returns the tables of which definitions are declared by nobody now.
pub fn release(conn: &Connection, tenant: i64, declaration: i64) -> Result<BTreeSet<i64>, StoreError> {
    if declaration == 0 {
        // Of the others somebody knows by now, perhaps, what all of them declare.
        return if has_unknown_replicas(conn, tenant)? {
            Ok(BTreeSet::new())
        } else {
            all_tables(conn, tenant)
        };
    }
    let left: Option<i64> = conn
        .prepare_cached(
            "UPDATE declaration SET replicas = replicas - 1 WHERE tenant = ?1 AND id = ?2 RETURNING replicas",
        )?
        .query_row([tenant, declaration], |row| row.get(0))
        .optional()?;
    if left != Some(0) {
        return Ok(BTreeSet::new());
    }
    let ids = list(conn, tenant, declaration)?;
    conn.prepare_cached("DELETE FROM declaration WHERE tenant = ?1 AND id = ?2")?
        .execute([tenant, declaration])?;
    let mut changed = BTreeSet::new();
    for id in ids {
        let left: Option<(i64, i64)> = conn
            .prepare_cached(
                "UPDATE definition SET declarers = declarers - 1 WHERE tenant = ?1 AND id = ?2
                 RETURNING tbl, declarers",
            )?
            .query_row([tenant, id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((table, 0)) = left {
            changed.insert(table);
        }
    }
    Ok(changed)
}

fn all_tables(conn: &Connection, tenant: i64) -> Result<BTreeSet<i64>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT id FROM table_schema WHERE tenant = ?1")?;
    let tables = statement.query_map([tenant], |row| row.get(0))?;
    Ok(tables.collect::<Result<_, _>>()?)
}

/// The definitions of a declaration.
pub fn list(conn: &Connection, tenant: i64, declaration: i64) -> Result<BTreeSet<i64>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT definitions FROM declaration WHERE tenant = ?1 AND id = ?2")?;
    let mut rows = statement.query([tenant, declaration])?;
    let Some(row) = rows.next()? else { return Ok(BTreeSet::new()) };
    let bytes = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
    rmp_serde::from_slice(bytes).map_err(|_| damaged("a declaration"))
}

/// Forgets definitions of a table that nobody declares. What stands of it goes on standing in its `table_schema`.
pub fn forget_undeclared(conn: &Connection, tenant: i64, table: i64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM definition WHERE tenant = ?1 AND tbl = ?2 AND declarers = 0")?
        .execute([tenant, table])?;
    Ok(())
}

/// Forgets all definitions of a table, whoever declares them: their numbers are others' from then on.
pub fn forget_table(conn: &Connection, tenant: i64, table: i64) -> Result<(), StoreError> {
    let gone: BTreeSet<i64> = of_table(conn, tenant, table)?.into_iter().map(|it| it.id).collect();
    let mut statement = conn.prepare_cached("SELECT id FROM declaration WHERE tenant = ?1")?;
    let declarations: Vec<i64> =
        statement.query_map([tenant], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for declaration in declarations {
        let mut ids = list(conn, tenant, declaration)?;
        let before = ids.len();
        ids.retain(|id| !gone.contains(id));
        if ids.len() == before {
            continue;
        }
        let list = rmp_serde::to_vec(&ids).map_err(|error| StoreError::Failed(error.to_string()))?;
        conn.prepare_cached("UPDATE declaration SET definitions = ?3 WHERE tenant = ?1 AND id = ?2")?
            .execute(params![tenant, declaration, list])?;
    }
    conn.prepare_cached("DELETE FROM definition WHERE tenant = ?1 AND tbl = ?2")?.execute([tenant, table])?;
    Ok(())
}

/// Whether there are replicas of which nobody knows what they declare.
pub fn has_unknown_replicas(conn: &Connection, tenant: i64) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS(SELECT 1 FROM replica WHERE tenant = ?1 AND declaration = 0)";
    Ok(conn.prepare_cached(sql)?.query_row([tenant], |row| row.get(0))?)
}

/// What is to be told of definitions that are not the tenant's, above a reader's cursor.
pub fn news_since(conn: &Connection, tenant: i64, cursor: Seq) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT why FROM definition WHERE tenant = ?1 AND told_at > ?2 AND why IS NOT NULL
               ORDER BY told_at LIMIT ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let limit = i64::try_from(MAX_DONE_NOTICES).unwrap_or(i64::MAX);
    let news = statement.query_map(params![tenant, cursor.cast_signed(), limit], |row| row.get(0))?;
    Ok(news.collect::<Result<_, _>>()?)
}
