//! What live replicas declare: each text of a table or an index once, with how many declarations have it, and whether it
//! stands.

use std::collections::{BTreeSet, HashMap};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::damaged;
use super::tenant::Tenant;
use crate::model::{ReplicaId, Seq, TableSchema};
use crate::protocol::limits::{MAX_DEFINITIONS, MAX_DONE_NOTICES, MAX_SCHEMA_BYTES, MAX_TEXTS};
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

/// Notes what replicas declare, table by table. What nobody else declares is *held* by the replica until all of its tables are
/// taken in, so that nothing is forgotten of a declaration that takes several pieces.
pub struct Notes<'a> {
    conn: &'a Connection,
    tenant: i64,
    agent: &'a str,
    /// The number of the next definition, and the bytes of those that do not stand; read when they are asked for.
    next: Option<(i64, i64)>,
    held: BTreeSet<i64>,
}

/// What a table's declaration comes to.
pub struct Noted {
    /// The numbers of its definitions.
    pub ids: BTreeSet<i64>,
    /// Whether it is to be decided anew what stands of the table.
    pub is_news: bool,
}

impl<'a> Notes<'a> {
    /// Begins.
    pub fn new(conn: &'a Connection, tenant: i64, agent: &'a str) -> Self {
        Self { conn, tenant, agent, next: None, held: BTreeSet::new() }
    }

    /// Notes the text and the indexes of a table, as far as there is room for them.
    pub fn note(&mut self, table: i64, schema: &TableSchema) -> Result<Noted, StoreError> {
        let known = of_table(self.conn, self.tenant, table)?;
        let by_text: HashMap<(bool, &str), &Definition> =
            known.iter().map(|it| ((it.is_index, it.text.as_str()), it)).collect();
        let mut texts = known.iter().filter(|it| !it.is_index).count();
        let mut room = MAX_DEFINITIONS.saturating_sub(known.len());
        let mut noted = Noted { ids: BTreeSet::new(), is_news: false };
        let indexes = schema.indexes.iter().take(MAX_DEFINITIONS).map(|it| (true, it));
        for (is_index, text) in std::iter::once((false, &schema.ddl)).chain(indexes) {
            if let Some(found) = by_text.get(&(is_index, text.as_str())) {
                noted.ids.insert(found.id);
                if found.declarers == 0 {
                    self.count(found.id)?;
                    noted.is_news = true;
                }
                continue;
            }
            if room == 0 || !is_index && texts >= MAX_TEXTS {
                continue;
            }
            if let Some(id) = self.insert(table, is_index, text)? {
                (room, texts) = (room - 1, texts + usize::from(!is_index));
                noted.ids.insert(id);
                noted.is_news = true;
            }
        }
        Ok(noted)
    }

    /// Adds a definition that nobody has declared yet; nothing if there is no room for it.
    fn insert(&mut self, table: i64, is_index: bool, text: &str) -> Result<Option<i64>, StoreError> {
        let (id, bytes) = match self.next {
            Some(next) => next,
            None => self
                .conn
                .prepare_cached(
                    "SELECT coalesce(max(id), 0) + 1,
                         coalesce(sum(length(CAST(text AS BLOB))) FILTER (WHERE NOT standing), 0)
                     FROM definition WHERE tenant = ?1",
                )?
                .query_row([self.tenant], |row| Ok((row.get(0)?, row.get(1)?)))?,
        };
        let bytes = bytes.saturating_add(i64::try_from(text.len()).unwrap_or(i64::MAX));
        if usize::try_from(bytes).is_ok_and(|bytes| bytes > MAX_SCHEMA_BYTES) {
            self.next = Some((id, bytes));
            return Ok(None);
        }
        self.conn
            .prepare_cached(
                "INSERT INTO definition (tenant, id, tbl, is_index, text, agent, declarers, standing, told_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, 0, 0)",
            )?
            .execute(params![self.tenant, id, table, is_index, text, self.agent])?;
        self.next = Some((id + 1, bytes));
        self.held.insert(id);
        Ok(Some(id))
    }

    /// Counts the replica as one that declares this.
    fn count(&mut self, id: i64) -> Result<(), StoreError> {
        if self.held.insert(id) {
            add_declarer(self.conn, self.tenant, id)?;
        }
        Ok(())
    }

    /// Writes down what the replica holds besides what it has held before.
    pub fn hold(self, replica: ReplicaId) -> Result<(), StoreError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let digest = digest_of_hold(replica);
        let mut ids = self.held;
        if let Some(id) = find_declaration(self.conn, self.tenant, &digest)? {
            ids.append(&mut list(self.conn, self.tenant, id)?);
            let sql = "UPDATE declaration SET definitions = ?3 WHERE tenant = ?1 AND id = ?2";
            self.conn.prepare_cached(sql)?.execute(params![self.tenant, id, encode(&ids)?])?;
        } else {
            insert_declaration(self.conn, self.tenant, &digest, &ids)?;
        }
        Ok(())
    }
}

/// The tables of what a replica holds because it did not come to the end of an earlier declaration.
pub fn held_tables(conn: &Connection, tenant: i64, replica: ReplicaId) -> Result<BTreeSet<i64>, StoreError> {
    let Some(id) = find_declaration(conn, tenant, &digest_of_hold(replica))? else {
        return Ok(BTreeSet::new());
    };
    let mut tables = BTreeSet::new();
    let sql = "SELECT tbl FROM definition WHERE tenant = ?1 AND id = ?2";
    for id in list(conn, tenant, id)? {
        let table: Option<i64> =
            conn.prepare_cached(sql)?.query_row([tenant, id], |row| row.get(0)).optional()?;
        tables.extend(table);
    }
    Ok(tables)
}

/// Gives up what a replica holds. Returns the tables of which definitions are declared by nobody now.
pub fn drop_hold(conn: &Connection, tenant: i64, replica: ReplicaId) -> Result<BTreeSet<i64>, StoreError> {
    match find_declaration(conn, tenant, &digest_of_hold(replica))? {
        Some(id) => end_declaration(conn, tenant, id),
        None => Ok(BTreeSet::new()),
    }
}

/// Writes down that a replica declares these from now on, in place of what it declared `before`, and holds nothing any more.
/// Returns the tables of which other definitions are declared now; nothing if one of these has gone meanwhile, and the
/// replica's tables are to be taken in anew.
pub fn declare(
    conn: &Connection,
    tenant: &Tenant,
    replica: ReplicaId,
    before: Option<i64>,
    ids: &BTreeSet<i64>,
) -> Result<Option<BTreeSet<i64>>, StoreError> {
    let digest = *blake3::hash(&encode(ids)?).as_bytes();
    let known = find_declaration(conn, tenant.id, &digest)?;
    if known.is_none() {
        let sql = "SELECT EXISTS(SELECT 1 FROM definition WHERE tenant = ?1 AND id = ?2)";
        for id in ids {
            if !conn.prepare_cached(sql)?.query_row([tenant.id, *id], |row| row.get::<_, bool>(0))? {
                return Ok(None);
            }
        }
    }
    if known.is_some() && known == before || before.is_none() && ids.is_empty() {
        return Ok(Some(drop_hold(conn, tenant.id, replica)?));
    }
    let id = if let Some(id) = known {
        id
    } else {
        for id in ids {
            add_declarer(conn, tenant.id, *id)?;
        }
        insert_declaration(conn, tenant.id, &digest, ids)?
    };
    conn.prepare_cached("UPDATE declaration SET replicas = replicas + 1 WHERE tenant = ?1 AND id = ?2")?
        .execute([tenant.id, id])?;
    conn.prepare_cached("UPDATE replica SET declaration = ?3 WHERE tenant = ?1 AND id = ?2")?
        .execute(params![tenant.id, &replica.0[..], id])?;
    let mut changed = drop_hold(conn, tenant.id, replica)?;
    if let Some(before) = before {
        changed.append(&mut release(conn, tenant.id, before)?);
    }
    Ok(Some(changed))
}

fn add_declarer(conn: &Connection, tenant: i64, id: i64) -> Result<(), StoreError> {
    let sql = "UPDATE definition SET declarers = declarers + 1 WHERE tenant = ?1 AND id = ?2";
    conn.prepare_cached(sql)?.execute([tenant, id])?;
    Ok(())
}

/// What stands for the definitions that a replica holds, among the digests of declarations.
fn digest_of_hold(replica: ReplicaId) -> [u8; 32] {
    *blake3::Hasher::new().update(b"held by").update(&replica.0).finalize().as_bytes()
}

fn encode(ids: &BTreeSet<i64>) -> Result<Vec<u8>, StoreError> {
    rmp_serde::to_vec(ids).map_err(|error| StoreError::Failed(error.to_string()))
}

fn find_declaration(conn: &Connection, tenant: i64, digest: &[u8; 32]) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT id FROM declaration WHERE tenant = ?1 AND digest = ?2";
    let mut statement = conn.prepare_cached(sql)?;
    Ok(statement.query_row(params![tenant, &digest[..]], |row| row.get(0)).optional()?)
}

fn insert_declaration(
    conn: &Connection,
    tenant: i64,
    digest: &[u8; 32],
    ids: &BTreeSet<i64>,
) -> Result<i64, StoreError> {
    let id: i64 = conn
        .prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM declaration WHERE tenant = ?1")?
        .query_row([tenant], |row| row.get(0))?;
    conn.prepare_cached(
        "INSERT INTO declaration (tenant, id, digest, replicas, definitions) VALUES (?1, ?2, ?3, 0, ?4)",
    )?
    .execute(params![tenant, id, &digest[..], encode(ids)?])?;
    Ok(id)
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
    if left == Some(0) { end_declaration(conn, tenant, declaration) } else { Ok(BTreeSet::new()) }
}

/// Forgets a declaration that no replica has any more. Returns the tables of which definitions are declared by nobody now.
fn end_declaration(conn: &Connection, tenant: i64, declaration: i64) -> Result<BTreeSet<i64>, StoreError> {
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
