//! A tenant's tables: their definitions, and the numbers of their columns.
//!
//! A column's number is its position in the table's list, to which columns are only ever appended. Names are
//! compared as SQLite compares them, without regard to ASCII case.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::damaged;
use super::room::{Room, Size, is_name};
use super::tenant::Tenant;
use super::weight::StoreLimits;
use crate::model::{
    Agreement, ColumnIndex, KeyKind, NeedsApplication, Origin, Rule, Seq, TableHeader, TableSchema,
};
use crate::protocol::limits::{MAX_COLUMNS, MAX_NAME_BYTES, MAX_ORIGINS};
use crate::storage::hub_store::StoreError;

/// The writer of a definition that no replica has declared just so: everyone is told of it.
pub const NOBODY: u64 = 0;

/// Names that belong to SQLite and to an agent's bookkeeping.
const RESERVED_PREFIXES: [&str; 2] = ["sqlite_", "_federation_"];

/// A table, as it is stored.
pub struct Table {
    pub id: i64,
    pub schema: TableSchema,
    seq: Seq,
    writer: u64,
}

const FIELDS: &str = "id, name, numbered, columns, ddl, indexes, agreed, seq, writer";

impl Table {
    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        let list = |index| -> Result<Vec<String>, StoreError> {
            let bytes = row.get_ref(index)?.as_blob().map_err(rusqlite::Error::from)?;
            rmp_serde::from_slice(bytes).map_err(|_| damaged("a table's definition"))
        };
        let key = if row.get(2)? { KeyKind::Number } else { KeyKind::Natural };
        let agreed = row.get_ref(6)?.as_blob().map_err(rusqlite::Error::from)?;
        let schema = TableSchema {
            name: row.get(1)?,
            key,
            columns: list(3)?,
            ddl: row.get(4)?,
            indexes: list(5)?,
            agreed: rmp_serde::from_slice(agreed).map_err(|_| damaged("a table's definition"))?,
        };
        Ok(Self {
            id: row.get(0)?,
            schema,
            seq: row.get::<_, i64>(7)?.cast_unsigned(),
            writer: row.get::<_, i64>(8)?.cast_unsigned(),
        })
    }

    /// The table of this name.
    pub fn find(conn: &Connection, tenant: i64, name: &str) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {FIELDS} FROM table_schema WHERE tenant = ?1 AND name = ?2");
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params![tenant, name])?;
        rows.next()?.map(Self::read).transpose()
    }

    /// The table of this number.
    pub fn by_id(conn: &Connection, tenant: i64, id: i64) -> Result<Option<Self>, StoreError> {
        let sql = format!("SELECT {FIELDS} FROM table_schema WHERE tenant = ?1 AND id = ?2");
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([tenant, id])?;
        rows.next()?.map(Self::read).transpose()
    }

    /// The numbers of a header's columns. Columns that are new get one, if there is room; how much there is is read into
    /// `room` when it is first asked for.
    pub fn resolve(
        &mut self,
        conn: &Connection,
        tenant: &mut Tenant,
        header: &TableHeader,
        (room, limits): (&mut Option<Room>, StoreLimits),
    ) -> Result<Result<Vec<ColumnIndex>, String>, StoreError> {
        let before = self.size();
        let added = match self.add_columns(&header.columns) {
            Ok(added) => added,
            Err(reason) => return Ok(Err(reason)),
        };
        if added {
            let room = match room {
                Some(room) => room,
                None => room.insert(Room::of(conn, tenant.id, limits)?),
            };
            let after = self.size();
            if let Some(reason) = room.refusal(before, after) {
                return Ok(Err(reason));
            }
            self.save(conn, (tenant, Seq::MAX), NOBODY)?;
            room.take(None, before, after);
        }
        let mut places = Places::of(&self.schema.columns);
        let numbered = header.columns.iter().enumerate();
        Ok(Ok(numbered.filter_map(|(hint, name)| places.find(name, hint)).collect()))
    }

    /// Appends columns that are not there yet; says whether there were any.
    fn add_columns(&mut self, columns: &[String]) -> Result<bool, String> {
        let mut places = Places::of(&self.schema.columns);
        let (mut added, mut names) = (Vec::new(), HashSet::new());
        for (hint, column) in columns.iter().enumerate() {
            if places.find(column, hint).is_some() || !names.insert(column.to_ascii_lowercase()) {
                continue;
            }
            if !is_name(column) {
                return Err(format!("a column name must have 1 to {MAX_NAME_BYTES} bytes"));
            }
            if self.schema.columns.len() + added.len() >= MAX_COLUMNS {
                return Err(format!("table {} would have more than {MAX_COLUMNS} columns", self.schema.name));
            }
            added.push(column.clone());
        }
        let is_any = !added.is_empty();
        self.schema.columns.append(&mut added);
        Ok(is_any)
    }

    /// Why a declaration cannot stand beside the tenant's: it says something else, or says it of a column that is in use.
    fn contradiction(
        &self,
        conn: &Connection,
        tenant: &Tenant,
        declared: &TableSchema,
    ) -> Result<Option<String>, StoreError> {
        if let Some(why) = declared.contradiction(&self.schema) {
            return Ok(Some(why));
        }
        match declared.comes_late(&self.schema) {
            Some(why) if self.has_rows(conn, tenant)? => Ok(Some(why)),
            _ => Ok(None),
        }
    }

    /// Whether anything was ever written to the table, as far as the hub remembers.
    fn has_rows(&self, conn: &Connection, tenant: &Tenant) -> Result<bool, StoreError> {
        let mut statement =
            conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM row_state WHERE tenant = ?1 AND tbl = ?2)")?;
        Ok(statement.query_row([tenant.id, self.id], |row| row.get(0))?)
    }

    /// Takes in another declaration of the table, but for its text and its indexes; says whether that changed anything.
    fn extend(&mut self, declared: &TableSchema) -> Result<bool, String> {
        let known = self.schema.columns.len();
        let mut changed = self.add_columns(&declared.columns)?;
        let mut places = Places::of(&self.schema.columns);
        let mut rules = Vec::new();
        let known_rules = self.schema.agreed.rules_by_column();
        for (column, rule) in &declared.agreed.rules {
            if known_rules.get(column).is_none() && places.find(column, 0).is_some() {
                rules.push((column.clone(), *rule));
            }
        }
        let mut references = Vec::new();
        let known_references = self.schema.agreed.references_by_column();
        for reference in &declared.agreed.references {
            if known_references.get(&reference.column).is_none() {
                references.push(reference.clone());
            }
        }
        let said = |column: &str, generation: u8| (column.to_ascii_lowercase(), generation);
        let known_origins = self.schema.agreed.origins.iter().map(|it| said(&it.column, it.generation));
        let mut known_origins: HashSet<(String, u8)> = known_origins.collect();
        let mut origins = Vec::new();
        for origin in &declared.agreed.origins {
            let is_of_table = origin.column.is_empty();
            // The first meaning of a name is that of whoever brought the column.
            let first = if origin.generation == 0 { known } else { 0 };
            let is_sound = (is_of_table
                || places.find(&origin.column, 0).is_some_and(|at| usize::from(at) >= first))
                && origin.content.len() <= MAX_NAME_BYTES
                && known_origins.len() < MAX_ORIGINS;
            if is_sound && known_origins.insert(said(&origin.column, origin.generation)) {
                origins.push(origin.clone());
            }
        }
        let mut names = HashSet::new();
        rules.retain(|(column, _)| names.insert(column.to_ascii_lowercase()));
        names.clear();
        references.retain(|it| names.insert(it.column.to_ascii_lowercase()));
        changed |= !(rules.is_empty() && references.is_empty() && origins.is_empty());
        self.schema.agreed.rules.append(&mut rules);
        self.schema.agreed.references.append(&mut references);
        self.schema.agreed.origins.append(&mut origins);
        let needed = declared.agreed.needs_application.as_ref();
        let is_sound = |it: &&NeedsApplication| it.name().is_none_or(|name| name.len() <= MAX_NAME_BYTES);
        if self.schema.agreed.needs_application.is_none()
            && let Some(needed) = needed.filter(is_sound)
        {
            self.schema.agreed.needs_application = Some(needed.clone());
            changed = true;
        }
        Ok(changed)
    }

    /// Whether a declaration has all of the table's columns.
    fn is_covered_by(&self, declared: &TableSchema) -> bool {
        let mut places = Places::of(&declared.columns);
        self.schema.columns.iter().enumerate().all(|(hint, column)| places.find(column, hint).is_some())
    }

    /// Whether the replica that declared this lacks nothing of the table.
    pub fn is_known_by(&self, declared: &TableSchema) -> bool {
        let (known, agreed) = (&self.schema.agreed, &declared.agreed);
        let indexes: HashSet<&String> = declared.indexes.iter().collect();
        let (rules, references) = (agreed.rules_by_column(), agreed.references_by_column());
        let origins: HashSet<&Origin> = agreed.origins.iter().collect();
        self.is_covered_by(declared)
            && self.schema.indexes.iter().all(|it| indexes.contains(it))
            && known.rules.iter().all(|(column, _)| rules.get(column).is_some())
            && known.references.iter().all(|it| references.get(&it.column).is_some())
            && known.origins.iter().all(|it| origins.contains(it))
            && (known.needs_application.is_none() || agreed.needs_application.is_some())
    }

    /// What it takes of its tenant's room.
    fn size(&self) -> Size {
        Size { columns: self.schema.columns.len(), bytes: self.bytes() }
    }

    fn bytes(&self) -> usize {
        let agreed = &self.schema.agreed;
        let references = agreed.references.iter().flat_map(|it| {
            it.to.iter().map(|(_, table)| table).chain(it.by.as_ref()).chain(std::iter::once(&it.column))
        });
        let names = agreed.key_columns.iter().chain(agreed.rules.iter().map(|(column, _)| column));
        let names =
            names.chain(references).chain(agreed.origins.iter().flat_map(|it| [&it.column, &it.content]));
        let texts = self.schema.columns.iter().chain(&self.schema.indexes).chain(names);
        let needed = agreed.needs_application.as_ref().and_then(NeedsApplication::name).map_or(0, str::len);
        needed + self.schema.ddl.len() + texts.map(|text| text.len() + 5).sum::<usize>()
    }

    /// Writes the table down at a new position, so that every replica but `writer` is told of it. One above `since`, which
    /// nobody has been told of, will do.
    pub fn save(
        &mut self,
        conn: &Connection,
        (tenant, since): (&mut Tenant, Seq),
        writer: u64,
    ) -> Result<(), StoreError> {
        let failed =
            |error: rmp_serde::encode::Error| StoreError::Failed(format!("a table's definition: {error}"));
        let list = |list: &[String]| rmp_serde::to_vec(list).map_err(failed);
        if self.seq <= since {
            tenant.seq += 1;
            self.seq = tenant.seq;
        }
        self.writer = writer;
        conn.prepare_cached(&format!(
            "INSERT INTO table_schema (tenant, {FIELDS}, ddl_columns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0)
             ON CONFLICT (tenant, id) DO UPDATE SET columns = excluded.columns, ddl = excluded.ddl,
                 indexes = excluded.indexes, agreed = excluded.agreed, seq = excluded.seq, writer = excluded.writer"
        ))?
        .execute(params![
            tenant.id,
            self.id,
            self.schema.name,
            self.schema.key == KeyKind::Number,
            list(&self.schema.columns)?,
            self.schema.ddl,
            list(&self.schema.indexes)?,
            rmp_serde::to_vec(&self.schema.agreed).map_err(failed)?,
            self.seq.cast_signed(),
            self.writer.cast_signed(),
        ])?;
        Ok(())
    }
}

/// Where columns are, by their names. A table has up to [`MAX_COLUMNS`] of them, and a message names as many.
struct Places<'a> {
    columns: &'a [String],
    /// By the names in lower case; only once a column is not where it is looked for.
    by_name: Option<HashMap<String, usize>>,
}

impl<'a> Places<'a> {
    fn of(columns: &'a [String]) -> Self {
        Self { columns, by_name: None }
    }

    /// A column's number. Most replicas have the columns where the hub has them, so that is tried first.
    fn find(&mut self, column: &str, hint: usize) -> Option<ColumnIndex> {
        let at = if self.columns.get(hint).is_some_and(|known| known == column) {
            hint
        } else {
            let columns = self.columns.iter().enumerate().rev();
            let by_name = || columns.map(|(at, name)| (name.to_ascii_lowercase(), at)).collect();
            *self.by_name.get_or_insert_with(by_name).get(&column.to_ascii_lowercase())?
        };
        ColumnIndex::try_from(at).ok()
    }
}

/// The merge rules of a table's columns, by number; as long as needed.
pub fn merge_rules(schema: &TableSchema) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut places = Places::of(&schema.columns);
    for (column, rule) in &schema.agreed.rules {
        let Some(at) = places.find(column, 0).map(usize::from) else { continue };
        rules.resize(rules.len().max(at + 1), Rule::Lww);
        rules[at] = *rule;
    }
    rules
}

/// Takes in a declaration, but for its text and its indexes. One that contradicts the table's first, or exceeds a limit,
/// has no effect: the inner error says why. Else it tells the table's number. It is not too large ([`super::room::too_large`]).
pub fn declare(
    conn: &Connection,
    (tenant, room): (&mut Tenant, &mut Room),
    declared: &TableSchema,
    writer: u64,
) -> Result<Result<i64, String>, StoreError> {
    let found = match Table::find(conn, tenant.id, &declared.name)? {
        Some(table) => match table.contradiction(conn, tenant, declared)? {
            None => Ok(table),
            Some(why) => Err(why),
        },
        None => new_table(room, declared),
    };
    let mut table = match found {
        Ok(table) => table,
        Err(why) => return Ok(Err(why)),
    };
    let is_new = table.seq == 0;
    let before = if is_new { Size::default() } else { table.size() };
    let changed = match table.extend(declared) {
        Ok(changed) => changed,
        Err(why) => return Ok(Err(why)),
    };
    // Texts and indexes that may stand soon take room as well, before they are tried out.
    let mut after = table.size();
    after.bytes += texts_besides(&table.schema, declared);
    if let Some(why) = room.refusal(before, after) {
        return Ok(Err(why));
    }
    if !(is_new || changed) {
        return Ok(Ok(table.id));
    }
    let writer = if table.is_known_by(declared) { writer } else { NOBODY };
    table.save(conn, (tenant, Seq::MAX), writer)?;
    room.take(is_new.then_some(table.id), before, after);
    Ok(Ok(table.id))
}

/// How many bytes a declaration's text and indexes would take besides those that stand.
fn texts_besides(stands: &TableSchema, declared: &TableSchema) -> usize {
    let known: HashSet<&String> = stands.indexes.iter().collect();
    let indexes = declared.indexes.iter().filter(|it| !known.contains(it)).map(|it| it.len() + 5);
    declared.ddl.len().saturating_sub(stands.ddl.len()) + indexes.sum::<usize>()
}

/// As [`declare`], without effect in any case.
pub fn compare(
    conn: &Connection,
    tenant: &Tenant,
    declared: &TableSchema,
) -> Result<Result<i64, String>, StoreError> {
    let Some(table) = Table::find(conn, tenant.id, &declared.name)? else { return Ok(Ok(0)) };
    Ok(table.contradiction(conn, tenant, declared)?.map_or(Ok(table.id), Err))
}

/// A table without columns yet, or why there is no room for one more, or its name may not be taken.
fn new_table(room: &Room, declared: &TableSchema) -> Result<Table, String> {
    let lower = declared.name.to_ascii_lowercase();
    if !is_name(&declared.name) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(format!(
            "a table's name must have 1 to {MAX_NAME_BYTES} bytes, and not begin as SQLite's own and ours do"
        ));
    }
    let id = room.number()?;
    // Before its columns are compared with each other.
    let least = declared.columns.iter().map(|it| it.len() + 5).sum::<usize>() + declared.ddl.len();
    let size = Size { columns: declared.columns.len(), bytes: least };
    if let Some(why) = room.refusal(Size::default(), size) {
        return Err(why);
    }
    let schema = TableSchema {
        columns: Vec::new(),
        ddl: String::new(),
        indexes: Vec::new(),
        agreed: Agreement {
            rules: Vec::new(),
            references: Vec::new(),
            origins: Vec::new(),
            needs_application: None,
            ..declared.agreed.clone()
        },
        ..declared.clone()
    };
    Ok(Table { id, schema, seq: 0, writer: NOBODY })
}

/// Definitions that changed above a reader's cursor, other than by the reader itself, in the order of their
/// first declaration (parents first, as applications create them).
pub fn changed_since(
    conn: &Connection,
    tenant: &Tenant,
    cursor: Seq,
    reader: u64,
) -> Result<Vec<TableSchema>, StoreError> {
    let sql = format!(
        "SELECT {FIELDS} FROM table_schema WHERE tenant = ?1 AND seq > ?2 AND writer <> ?3 ORDER BY id"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query(params![tenant.id, cursor.cast_signed(), reader.cast_signed()])?;
    let mut changed = Vec::new();
    while let Some(row) = rows.next()? {
        changed.push(Table::read(row)?.schema);
    }
    Ok(changed)
}

/// All definitions of a tenant, in the order of their first declaration.
pub fn all(conn: &Connection, tenant: i64) -> Result<Vec<(i64, TableSchema)>, StoreError> {
    let sql = format!("SELECT {FIELDS} FROM table_schema WHERE tenant = ?1 ORDER BY id");
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([tenant])?;
    let mut tables = Vec::new();
    while let Some(row) = rows.next()? {
        let table = Table::read(row)?;
        tables.push((table.id, table.schema));
    }
    Ok(tables)
}

/// The indexes that stand on each table that has any.
pub fn indexes(conn: &Connection, tenant: i64) -> Result<Vec<(i64, Vec<String>)>, StoreError> {
    // One byte is an empty list.
    let sql = "SELECT id, indexes FROM table_schema WHERE tenant = ?1 AND length(indexes) > 1 ORDER BY id";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([tenant])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let bytes = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
        let indexes = rmp_serde::from_slice(bytes).map_err(|_| damaged("a table's definition"))?;
        found.push((row.get(0)?, indexes));
    }
    Ok(found)
}

/// The number of the table of this name.
pub fn id_of(conn: &Connection, tenant: &Tenant, name: &str) -> Result<Option<i64>, StoreError> {
    let id = conn
        .prepare_cached("SELECT id FROM table_schema WHERE tenant = ?1 AND name = ?2")?
        .query_row(params![tenant.id, name], |row| row.get(0))
        .optional()?;
    Ok(id)
}
