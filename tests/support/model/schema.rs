//! What a tenant's definitions say of keys, as SQLite reads them.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::{KeyKind, TableSchema, Value};
use rusqlite::{Connection, Row};

use super::unique::{KeyBook, Unique};

/// What happens to a row whose parent is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDelete {
    /// RESTRICT and NO ACTION: nothing may.
    Keep,
    /// CASCADE.
    Cascade,
    /// SET NULL.
    SetNull,
    /// SET DEFAULT.
    SetDefault,
}

/// A foreign key. All names are in lower case.
#[derive(Clone, Debug)]
pub struct ForeignKey {
    /// The table that has it.
    pub child: String,
    /// The table that it leads to.
    pub parent: String,
    /// Its columns, each with the parent's column, or none where that is a number of the parent's own.
    pub columns: Vec<(String, Option<String>)>,
    /// What happens.
    pub on_delete: OnDelete,
}

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Whether it can be NULL.
    pub is_nullable: bool,
    /// The value of its DEFAULT.
    pub default: Value,
    /// Whether it compares text without case.
    pub ignores_case: bool,
}

/// A tenant's definitions.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// All foreign keys.
    pub keys: Vec<ForeignKey>,
    /// Columns, by table and name.
    pub columns: BTreeMap<(String, String), Column>,
    /// What must be unique, by table, in the order in which SQLite names the indexes.
    pub unique: BTreeMap<String, Vec<Unique>>,
}

impl Schema {
    /// Has SQLite read the definitions.
    pub fn read(tables: &BTreeMap<String, TableSchema>, keys: &KeyBook) -> Self {
        let sqlite = Connection::open_in_memory().unwrap();
        for table in tables.values() {
            sqlite.execute_batch(&table.ddl).unwrap();
            for index in &table.indexes {
                // One that does not fit beside the others is none.
                let _ = sqlite.execute_batch(index);
            }
        }
        let mut schema = Self::default();
        for table in tables.values() {
            schema.read_columns(&sqlite, &table.name);
            schema.unique.insert(table.name.to_ascii_lowercase(), keys.read(&sqlite, &table.name));
        }
        for table in tables.values() {
            schema.read_keys(&sqlite, &table.name, tables);
        }
        schema
    }

    fn read_columns(&mut self, sqlite: &Connection, table: &str) {
        let sql = "SELECT name, \"notnull\", pk, dflt_value FROM pragma_table_xinfo(?1) WHERE hidden <> 1";
        let is_without_rowid: bool =
            one(sqlite, "SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1", table);
        for (name, is_not_null, pk, default) in rows(sqlite, sql, table, |row| {
            (text(row, 0), row.get::<_, bool>(1).unwrap(), row.get::<_, i64>(2).unwrap(), row.get(3).unwrap())
        }) {
            let default: Option<String> = default;
            let default = default.map_or(Value::Null, |default| evaluate(sqlite, &default));
            let ignores_case = has_nocase(sqlite, table, &name);
            let is_nullable = !(is_not_null || is_without_rowid && pk > 0);
            self.columns.insert(
                (table.to_ascii_lowercase(), name.to_ascii_lowercase()),
                Column { is_nullable, default, ignores_case },
            );
        }
    }

    fn read_keys(&mut self, sqlite: &Connection, table: &str, tables: &BTreeMap<String, TableSchema>) {
        let sql = "SELECT id, \"table\", \"from\", \"to\", on_delete, seq FROM pragma_foreign_key_list(?1)
             ORDER BY id, seq";
        let mut keys: BTreeMap<i64, ForeignKey> = BTreeMap::new();
        for (id, parent, from, to, action, seq) in rows(sqlite, sql, table, |row| {
            let to: Option<String> = row.get(3).unwrap();
            (
                row.get::<_, i64>(0).unwrap(),
                text(row, 1),
                text(row, 2),
                to,
                text(row, 4),
                row.get::<_, i64>(5).unwrap(),
            )
        }) {
            let Some(parent) = tables.get(&parent.to_ascii_lowercase()) else { continue };
            let to = to.unwrap_or_else(|| key_column(sqlite, &parent.name, seq)).to_ascii_lowercase();
            // What does not travel is the number of the row.
            let travels = parent.columns.iter().any(|column| column.eq_ignore_ascii_case(&to));
            assert!(travels || parent.key == KeyKind::Number);
            let key = keys.entry(id).or_insert_with(|| ForeignKey {
                child: table.to_ascii_lowercase(),
                parent: parent.name.to_ascii_lowercase(),
                columns: Vec::new(),
                on_delete: match action.as_str() {
                    "CASCADE" => OnDelete::Cascade,
                    "SET NULL" => OnDelete::SetNull,
                    "SET DEFAULT" => OnDelete::SetDefault,
                    _ => OnDelete::Keep,
                },
            });
            key.columns.push((from.to_ascii_lowercase(), travels.then_some(to)));
        }
        self.keys.extend(keys.into_values());
    }

    /// These columns, and those of foreign keys that share one with them: half of it means no row.
    pub fn with_references(&self, table: &str, columns: &BTreeSet<String>) -> BTreeSet<String> {
        let mut all = columns.clone();
        loop {
            let keys = self.keys.iter().filter(|key| key.child == table);
            let touched = keys.filter(|key| key.columns.iter().any(|(column, _)| all.contains(column)));
            let more: Vec<String> = touched.flat_map(|key| &key.columns).map(|(it, _)| it.clone()).collect();
            let before = all.len();
            all.extend(more);
            if all.len() == before {
                return all;
            }
        }
    }

    /// A column of a table.
    pub fn column(&self, table: &str, column: &str) -> &Column {
        &self.columns[&(table.to_owned(), column.to_owned())]
    }
}

/// Whether a column's own collation is NOCASE: asked of SQLite by comparing a value of it.
pub fn has_nocase(sqlite: &Connection, table: &str, column: &str) -> bool {
    let name = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let (column, table) = (name(column), name(table));
    // A subquery's column keeps its collation, whatever is compared.
    let sql = format!("SELECT max({column} = 'A') FROM (SELECT {column} FROM {table} UNION ALL SELECT 'a')");
    sqlite.query_row(&sql, [], |row| row.get::<_, Option<bool>>(0)).unwrap().unwrap_or_default()
}

/// The column of a table's PRIMARY KEY at this place.
fn key_column(sqlite: &Connection, table: &str, at: i64) -> String {
    let sql = format!("SELECT name FROM pragma_table_info(?1) WHERE pk = {}", at + 1);
    one(sqlite, &sql, table)
}

fn rows<T>(sqlite: &Connection, sql: &str, table: &str, read: impl Fn(&Row<'_>) -> T) -> Vec<T> {
    let mut statement = sqlite.prepare(sql).unwrap();
    let rows = statement.query_map([table], |row| Ok(read(row))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn one<T: rusqlite::types::FromSql>(sqlite: &Connection, sql: &str, table: &str) -> T {
    sqlite.query_row(sql, [table], |row| row.get(0)).unwrap()
}

fn text(row: &Row<'_>, at: usize) -> String {
    row.get(at).unwrap()
}

fn evaluate(sqlite: &Connection, expression: &str) -> Value {
    let value = sqlite.query_row(&format!("SELECT {expression}"), [], |row| row.get(0)).unwrap();
    match value {
        rusqlite::types::Value::Null => Value::Null,
        rusqlite::types::Value::Integer(integer) => Value::Integer(integer),
        rusqlite::types::Value::Real(real) => Value::Real(real),
        rusqlite::types::Value::Text(text) => Value::Text(text),
        rusqlite::types::Value::Blob(blob) => Value::Blob(blob),
    }
}
