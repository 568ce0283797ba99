//! A tenant's rules that span rows: UNIQUE constraints and foreign keys, read from its own definitions by
//! SQLite, in the store's numbers of tables and columns.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::claims::Claims;
use super::key::{KeyDigest, KeyOf, PartsOf, UniqueRule};
use super::proofs::Proofs;
use super::tables;
use crate::model::{CellValue, ColumnIndex, Digest, RowState, Rule, Seq, TableSchema, Value};
use crate::storage::catalog::{Catalog, Key, quote};
use crate::storage::choice::{Choice, SyncOptions};
use crate::storage::driver::{Sql, SqlError};
use crate::storage::fields::Fields;
use crate::storage::hub_store::StoreError;
use crate::storage::scratch::Scratch;
use crate::storage::sqlite_driver::RusqliteSql;
use crate::storage::table_info::{ForeignKey, OnDelete, default_value};
use crate::storage::unique_index::Collation;

/// How many rows are looked at at once under changed rules: the store's thread has others waiting.
const ROWS_AT_ONCE: i64 = 500;

/// The rules of a tenant, as of a version of its definitions.
pub struct TenantRules {
    version: Seq,
    tables: HashMap<i64, Arc<TableRules>>,
    /// The tenant's tables, empty: where keys over expressions are evaluated.
    scratch: Scratch,
    proofs: Proofs,
}

/// The rules that a table is in.
#[derive(Default)]
pub struct TableRules {
    /// Its name.
    pub name: String,
    /// The names of its columns, in the store's order.
    pub columns: Vec<String>,
    /// Those of them that the tenant's text makes.
    pub made: BTreeSet<ColumnIndex>,
    /// The column that numbers its rows, which does not travel.
    pub number: Option<String>,
    /// What must be unique among its rows.
    pub unique: Vec<UniqueRule>,
    /// What its rows reference.
    pub links: Vec<LinkRule>,
    /// Whether another table's rows, or its own, reference it.
    pub is_parent: bool,
    /// Which of its unique keys they do it by.
    pub referenced: BTreeSet<usize>,
    /// Whether a row of it can live on because another one references it, whatever was written to it.
    pub can_be_kept: bool,
    /// Its columns that take no NULL.
    pub required: BTreeSet<ColumnIndex>,
    /// How its columns are merged where two rows are one.
    pub merge: Vec<Rule>,
    /// The digest of all that: rows were looked at under rules with this digest, or must be looked at again.
    pub digest: Option<Digest>,
}

/// A foreign key.
pub struct LinkRule {
    /// The columns here.
    pub columns: Vec<ColumnIndex>,
    /// The table that is referenced.
    pub parent: i64,
    /// Which of the parent's unique keys is referenced; none for its number, which travels as an identity.
    pub key: Option<usize>,
    /// For each part of that key, which of `columns` names it; empty for a number.
    pub order: Vec<usize>,
    /// What becomes of a row whose parent is deleted.
    pub on_delete: OnDelete,
    /// What `SET NULL` and `SET DEFAULT` put into each column; none where they cannot.
    pub replacement: Option<Vec<CellValue>>,
}

impl LinkRule {
    /// Whether a living row keeps its parent: because the reference says so, or because the row is kept itself and cannot be
    /// without the parent.
    pub fn holds(&self, is_kept: bool) -> bool {
        match self.on_delete {
            OnDelete::Refuse => true,
            OnDelete::Cascade => is_kept,
            OnDelete::SetNull | OnDelete::SetDefault => is_kept && self.replacement.is_none(),
        }
    }
}

impl TableRules {
    /// Whether there is nothing to look at when a row changes.
    pub fn is_free(&self) -> bool {
        self.unique.is_empty() && self.links.is_empty() && !self.is_parent
    }

    /// These columns, and those that belong to a foreign key with one of them: half of it means no row.
    pub fn with_links(&self, columns: &[ColumnIndex]) -> BTreeSet<ColumnIndex> {
        let mut all: BTreeSet<ColumnIndex> = columns.iter().copied().collect();
        loop {
            let before = all.len();
            for link in &self.links {
                if link.columns.iter().any(|column| all.contains(column)) {
                    all.extend(&link.columns);
                }
            }
            if all.len() == before {
                return all;
            }
        }
    }
}

impl TenantRules {
    /// Reads the rules, unless `known` are still those of the tenant.
    pub fn of(conn: &Connection, tenant: i64, known: Option<Self>) -> Result<Self, StoreError> {
        let version = conn
            .prepare_cached("SELECT coalesce(max(seq), 0) FROM table_schema WHERE tenant = ?1")?
            .query_row(params![tenant], |row| row.get::<_, i64>(0))?
            .cast_unsigned();
        match known {
            Some(known) if known.version == version => Ok(known),
            known => {
                let proofs = known.map(|known| known.proofs).unwrap_or_default();
                Self::read(tables::all(conn, tenant)?, version, proofs)
            }
        }
    }

    fn read(schemas: Vec<(i64, TableSchema)>, version: Seq, mut proofs: Proofs) -> Result<Self, StoreError> {
        let failed =
            |error: &dyn std::fmt::Display| StoreError::Failed(format!("the tenant's rules: {error}"));
        let mut scratch = Scratch::open()?;
        scratch
            .sql
            .run("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON")
            .map_err(|error| failed(&error))?;
        let (mut tables, mut agreed) = (HashMap::new(), HashMap::new());
        for (id, schema) in schemas {
            // A definition that is not what it claims has no rules; replicas refuse it as well.
            let Some(schema) = proofs.harmless(id, &schema) else { continue };
            if make(&mut scratch, &schema).is_ok() {
                let merge = tables::merge_rules(&schema);
                let rules =
                    TableRules { name: schema.name, columns: schema.columns, ..TableRules::default() };
                let rules = TableRules { merge, ..rules };
                agreed.insert(rules.name.to_lowercase(), schema.agreed);
                tables.insert(id, rules);
            }
        }
        let mut draft = Draft { tables, scratch };
        let options = SyncOptions::default();
        draft.complete(&Choice::new(&options, agreed)).map_err(|error| failed(&error))?;
        drop_indexes(&mut draft.scratch.sql).map_err(|error| failed(&error))?;
        draft.scratch.bound_cost()?;
        let tables = draft.tables.into_iter().map(|(id, rules)| (id, Arc::new(rules))).collect();
        Ok(Self { version, tables, scratch: draft.scratch, proofs })
    }

    /// What the rules would be if a table were defined so: all, or those of that table alone.
    pub fn trial(
        &mut self,
        conn: &Connection,
        tenant: i64,
        (table, schema): (i64, &TableSchema),
        with_others: bool,
    ) -> Result<Self, StoreError> {
        if !with_others {
            return Self::read(vec![(table, schema.clone())], self.version, Proofs::default());
        }
        let mut schemas = tables::all(conn, tenant)?;
        for (id, known) in &mut schemas {
            if *id == table {
                known.clone_from(schema);
            }
        }
        Self::read(schemas, self.version, std::mem::take(&mut self.proofs))
    }

    /// Has the rules be read again.
    pub fn outdate(&mut self) {
        self.version = Seq::MAX;
    }

    /// How many tables there are.
    pub fn len(&self) -> i64 {
        i64::try_from(self.tables.len()).unwrap_or(i64::MAX)
    }

    /// Ends a trial: what it has proved need not be proved again.
    pub fn end_trial(&mut self, trial: Self) {
        self.proofs = trial.proofs;
    }

    /// The tenant's tables, empty.
    pub fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }

    /// Rows that were looked at under other rules than there are now. Of a table of very many it is written down instead that
    /// they are to be looked at, piece by piece ([`left`]).
    pub fn changed(&self, conn: &Connection, tenant: i64) -> Result<BTreeSet<i64>, StoreError> {
        let mut known = HashMap::new();
        let mut statement = conn.prepare_cached("SELECT tbl, digest FROM table_rules WHERE tenant = ?1")?;
        let mut rows = statement.query([tenant])?;
        while let Some(row) = rows.next()? {
            known.insert(row.get::<_, i64>(0)?, Digest(row.get(1)?));
        }
        let mut changed = BTreeSet::new();
        for (table, rules) in &self.tables {
            let Some(digest) = rules.digest.filter(|digest| known.get(table) != Some(digest)) else {
                continue;
            };
            let sql = "SELECT row FROM row_state WHERE tenant = ?1 AND tbl = ?2 LIMIT ?3";
            let mut statement = conn.prepare_cached(sql)?;
            let rows = statement.query_map([tenant, *table, ROWS_AT_ONCE + 1], |row| row.get(0))?;
            let rows: Vec<i64> = rows.collect::<Result<_, _>>()?;
            let is_left = i64::try_from(rows.len()).is_ok_and(|count| count > ROWS_AT_ONCE);
            conn.prepare_cached(
                "INSERT OR REPLACE INTO table_rules (tenant, tbl, digest, left_from) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![tenant, table, &digest.0[..], is_left.then_some(&[][..])])?;
            if !is_left {
                changed.extend(rows);
            }
        }
        Ok(changed)
    }

    /// The names of the other tables with foreign keys to one.
    pub fn referencing(&self, parent: i64) -> Vec<String> {
        let others = self.tables.iter().filter(|(id, _)| **id != parent);
        let mut names: Vec<String> = others
            .filter(|(_, rules)| rules.links.iter().any(|link| link.parent == parent))
            .map(|(_, rules)| rules.name.clone())
            .collect();
        names.sort();
        names
    }

    /// The rules of a table; none if its definition could not be used.
    pub fn table(&self, table: i64) -> Option<Arc<TableRules>> {
        self.tables.get(&table).cloned()
    }

    /// The keys of a row that must be unique, with their places among the table's.
    pub fn keys_of(
        &mut self,
        claims: Claims<'_>,
        table: i64,
        row: &RowState,
        value: &dyn Fn(ColumnIndex) -> Option<CellValue>,
    ) -> Result<Vec<(usize, KeyDigest)>, StoreError> {
        let Some(rules) = self.tables.get(&table) else { return Ok(Vec::new()) };
        let mut keys = Vec::new();
        for (at, unique) in rules.unique.iter().enumerate() {
            let key = claims.present(unique.key_of(&mut self.scratch, rules, row, value))?;
            keys.extend(key.map(|key| (at, key)));
        }
        Ok(keys)
    }

    /// What a row that references by this link holds while it means a row of these values; none if nobody knows.
    pub fn named_by(
        &mut self,
        link: &LinkRule,
        row: &RowState,
        value: &dyn Fn(ColumnIndex) -> Option<CellValue>,
    ) -> Option<Vec<CellValue>> {
        let rules = self.tables.get(&link.parent)?;
        let key = rules.unique.get(link.key?)?;
        let PartsOf::Known(parts) = key.parts_of(&mut self.scratch, rules, row, value) else { return None };
        let part = |at: usize| parts.get(link.order.iter().position(|place| *place == at)?).cloned();
        (0..link.columns.len()).map(part).collect()
    }

    /// What is known of one key of a row.
    pub fn key_of(&mut self, table: i64, key: usize, row: &RowState) -> KeyOf {
        let Some(rules) = self.tables.get(&table) else { return KeyOf::None };
        let value = |column| row.cells.get(&column).map(|cell| cell.value.clone());
        rules.unique.get(key).map_or(KeyOf::None, |it| it.key_of(&mut self.scratch, rules, row, &value))
    }
}

/// Some rows that are still to be looked at under the rules that there are now, and are taken for looked at from here on;
/// none if there are no more.
pub fn left(conn: &Connection, tenant: i64) -> Result<Option<BTreeSet<i64>>, StoreError> {
    let next: Option<(i64, Vec<u8>)> = conn
        .prepare_cached(
            "SELECT tbl, left_from FROM table_rules INDEXED BY rules_left
             WHERE tenant = ?1 AND left_from IS NOT NULL LIMIT 1",
        )?
        .query_row([tenant], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((table, from)) = next else { return Ok(None) };
    let sql = "SELECT row, id FROM row_state WHERE tenant = ?1 AND tbl = ?2 AND id > ?3 ORDER BY id LIMIT ?4";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params![tenant, table, from, ROWS_AT_ONCE])?;
    let (mut found, mut last) = (BTreeSet::new(), None);
    while let Some(row) = rows.next()? {
        found.insert(row.get(0)?);
        last = Some(row.get::<_, Vec<u8>>(1)?);
    }
    conn.prepare_cached("UPDATE table_rules SET left_from = ?3 WHERE tenant = ?1 AND tbl = ?2")?
        .execute(params![tenant, table, last])?;
    Ok(Some(found))
}

/// Whether rows of a tenant are still to be looked at.
pub fn is_anything_left(conn: &Connection, tenant: i64) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS(SELECT 1 FROM table_rules INDEXED BY rules_left WHERE tenant = ?1 AND left_from IS NOT NULL)";
    Ok(conn.prepare_cached(sql)?.query_row([tenant], |row| row.get(0))?)
}

/// A tenant of which rows are still to be looked at.
pub fn tenant_with_rows_left(conn: &Connection) -> Result<Option<String>, StoreError> {
    let sql = "SELECT tenant.name FROM table_rules INDEXED BY rules_left JOIN tenant ON tenant.id = table_rules.tenant
               WHERE left_from IS NOT NULL LIMIT 1";
    Ok(conn.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?)
}

/// Rules that are being read.
struct Draft {
    tables: HashMap<i64, TableRules>,
    scratch: Scratch,
}

impl Draft {
    fn complete(&mut self, choice: &Choice<'_>) -> Result<(), SqlError> {
        let catalog = Catalog::read(&mut self.scratch.sql, choice)?;
        let declared = Declarations::read(&mut self.scratch.sql)?;
        for rules in self.tables.values_mut() {
            rules.number = catalog.table(&rules.name).and_then(|table| match &table.key {
                Key::Number(column) => Some(column.clone()),
                Key::Natural(_) => None,
            });
            let keys = catalog.table(&rules.name).map(|table| table.unique_keys.clone());
            let keys = keys.unwrap_or_default();
            rules.unique = keys.iter().filter_map(|key| UniqueRule::new(rules, key)).collect();
            let is_required = |name: &str| declared.of(&rules.name, name).is_some_and(|it| it.is_required);
            let names = (0..).zip(&rules.columns).filter(|(_, name)| is_required(name));
            rules.required = names.map(|(column, _)| column).collect();
            let made = catalog.table(&rules.name).map_or(&[][..], |table| &table.columns);
            let made: HashSet<String> = made.iter().map(|column| column.name.to_ascii_lowercase()).collect();
            let is_made = |name: &str| made.contains(&name.to_ascii_lowercase());
            let names = (0..).zip(&rules.columns).filter(|(_, name)| is_made(name));
            rules.made = names.map(|(column, _)| column).collect();
        }
        let ids: Vec<i64> = self.tables.keys().copied().collect();
        for id in ids {
            let Some(table) = self.tables.get(&id).and_then(|rules| catalog.table(&rules.name)) else {
                continue;
            };
            let links: Vec<LinkRule> =
                table.foreign_keys.iter().filter_map(|key| self.link(id, &catalog, key, &declared)).collect();
            for link in &links {
                if let Some(parent) = self.tables.get_mut(&link.parent) {
                    parent.is_parent = true;
                    parent.referenced.extend(link.key);
                }
            }
            if let Some(rules) = self.tables.get_mut(&id) {
                rules.links = links;
            }
        }
        self.note_kept();
        let digests: Vec<(i64, Digest)> =
            self.tables.iter().map(|(id, rules)| (*id, self.digest(rules))).collect();
        for (id, digest) in digests {
            if let Some(rules) = self.tables.get_mut(&id) {
                rules.digest = Some(digest);
            }
        }
        Ok(())
    }

    /// Notes of which tables rows can be kept: by a reference that refuses their delete, or by a row that is kept itself and
    /// cannot be without them.
    fn note_kept(&mut self) {
        loop {
            let links = self.tables.values().flat_map(|rules| rules.links.iter().map(move |it| (it, rules)));
            let keeping = links.filter(|(link, rules)| link.holds(rules.can_be_kept));
            let kept: Vec<i64> = keeping.map(|(link, _)| link.parent).collect();
            let tables = kept.into_iter().filter(|id| self.tables.get(id).is_some_and(|it| !it.can_be_kept));
            let Some(id) = tables.min() else { return };
            if let Some(rules) = self.tables.get_mut(&id) {
                rules.can_be_kept = true;
            }
        }
    }

    fn link(
        &self,
        table: i64,
        catalog: &Catalog,
        key: &ForeignKey,
        declared: &Declarations,
    ) -> Option<LinkRule> {
        let rules = self.tables.get(&table)?;
        let (parent, parent_rules) =
            self.tables.iter().find(|(_, other)| other.name.eq_ignore_ascii_case(&key.parent))?;
        let parent_table = catalog.table(&key.parent)?;
        let columns: Vec<ColumnIndex> =
            key.columns.iter().map(|(from, _)| rules.column(from)).collect::<Option<_>>()?;
        let named: Option<Vec<&str>> = key.columns.iter().map(|(_, to)| to.as_deref()).collect();
        let targets = named.unwrap_or_else(|| parent_table.key_columns());
        let is_number = |name: &str| match &parent_table.key {
            Key::Number(number) => number.eq_ignore_ascii_case(name),
            Key::Natural(_) => false,
        };
        let (key_at, order) = if let [target] = targets[..]
            && is_number(target)
        {
            (None, Vec::new())
        } else {
            let keys = parent_rules.unique.iter().enumerate();
            let mut fitting = keys.filter_map(|(at, key)| Some((at, key.order_of(&targets)?)));
            let first = fitting.next()?;
            let collation = |column: &str| declared.collation(&parent_rules.name, column);
            let names = |at: usize| parent_rules.unique[at].compares_as(&collation);
            let named = if names(first.0) { None } else { fitting.find(|(at, _)| names(*at)) };
            let (at, order) = named.unwrap_or(first);
            (Some(at), order)
        };
        let replacement = key
            .columns
            .iter()
            .map(|(column, _)| declared.replacement(&rules.name, column, key.on_delete))
            // A number that a definition names means another row on each replica.
            .map(|value| value.filter(|value| key_at.is_some() || *value == Value::Null.into()))
            .collect();
        Some(LinkRule { columns, parent: *parent, key: key_at, order, on_delete: key.on_delete, replacement })
    }

    fn digest(&self, rules: &TableRules) -> Digest {
        let mut hash = blake3::Hasher::new();
        for unique in &rules.unique {
            hash.update(&unique.signature.0);
        }
        for link in &rules.links {
            hash.update(&link.parent.to_be_bytes());
            for column in &link.columns {
                hash.update(&column.to_be_bytes());
            }
            let key = link.key.and_then(|at| self.tables.get(&link.parent)?.unique.get(at));
            hash.update(key.map_or(&[0][..], |key| &key.signature.0));
            hash.update(format!("{:?}{:?}", link.on_delete, link.replacement).as_bytes());
        }
        if !rules.merge.is_empty() {
            hash.update(format!("{:?}", rules.merge).as_bytes());
        }
        Digest(*hash.finalize().as_bytes())
    }
}

impl TableRules {
    /// The number of a column.
    pub fn column(&self, name: &str) -> Option<ColumnIndex> {
        let at = self.columns.iter().position(|column| column.eq_ignore_ascii_case(name))?;
        ColumnIndex::try_from(at).ok()
    }
}

fn make(scratch: &mut Scratch, schema: &TableSchema) -> Result<(), String> {
    scratch.define(&schema.ddl)?;
    for index in &schema.indexes {
        // One that does not fit beside the others is no rule.
        let _ = scratch.define(index);
    }
    Ok(())
}

/// Drops the indexes: a row that is inserted for one key must not have all others evaluated.
fn drop_indexes(sql: &mut dyn Sql) -> Result<(), SqlError> {
    let mut names = Vec::new();
    sql.query("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL", &[], &mut |row| {
        names.push(Fields::of(row).text()?);
        Ok(())
    })?;
    names.iter().try_for_each(|name| sql.run(&format!("DROP INDEX {}", quote(name))))
}

/// What is declared of columns by themselves.
struct Declarations(HashMap<(String, String), Declaration>);

struct Declaration {
    is_required: bool,
    default: Value,
    collation: Collation,
}

impl Declarations {
    fn read(sql: &mut RusqliteSql) -> Result<Self, SqlError> {
        let mut columns = Vec::new();
        sql.query(
            "SELECT m.name, x.name, x.\"notnull\" OR x.pk, x.dflt_value, x.type FROM main.sqlite_master AS m, \
             pragma_table_xinfo(m.name) AS x WHERE m.type = 'table'",
            &[],
            &mut |row| {
                let mut fields = Fields::of(row);
                let name = (fields.text()?.to_lowercase(), fields.text()?.to_lowercase());
                columns.push((name, fields.integer()? != 0, fields.optional_text(), fields.text()?));
                Ok(())
            },
        )?;
        let mut declared = HashMap::new();
        for (name, is_required, default, kind) in columns {
            let default = default.map_or(Value::Null, |text| default_value(sql, &text, &kind));
            let said = sql.connection().column_metadata(Some("main"), &*name.0, &*name.1);
            let collation =
                said.ok().and_then(|(_, collation, ..)| collation?.to_str().ok().map(Collation::of));
            let collation = collation.unwrap_or(Collation::Binary);
            declared.insert(name, Declaration { is_required, default, collation });
        }
        Ok(Self(declared))
    }

    /// What the column shows when its parent is dead; none if it can show nothing else, or nothing is to replace it.
    fn replacement(&self, table: &str, column: &str, action: OnDelete) -> Option<CellValue> {
        if !matches!(action, OnDelete::SetNull | OnDelete::SetDefault) {
            return None;
        }
        let Declaration { is_required, default, .. } = self.of(table, column)?;
        let value = if action == OnDelete::SetDefault { default.clone() } else { Value::Null };
        (!is_required || value != Value::Null).then_some(value.into())
    }

    /// How the column is compared where nothing else is said.
    fn collation(&self, table: &str, column: &str) -> Option<Collation> {
        self.of(table, column).map(|it| it.collation)
    }

    fn of(&self, table: &str, column: &str) -> Option<&Declaration> {
        self.0.get(&(table.to_lowercase(), column.to_lowercase()))
    }
}
