//! Unique keys: which rows could not stand beside each other. SQLite is asked, of copies of the tenant's indexes.

use std::collections::BTreeSet;
use std::rc::Rc;

use federation_hub::model::{CellValue, Value};
use rusqlite::{Connection, params_from_iter, types};

use super::raw::Raw;

/// A value of a unique key: no two rows may have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    index: String,
    class: i64,
}

/// What must be unique among a table's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// The columns on which it depends, in lower case.
    pub columns: BTreeSet<String>,
    /// The copy of the table that has no other index than this one, and keeps a row for each key ever seen.
    copy: String,
    /// All columns of the copy.
    all: Vec<String>,
}

/// Where keys are looked up. A key means the same in every clone.
#[derive(Clone)]
pub struct KeyBook(Rc<Connection>);

impl Default for KeyBook {
    fn default() -> Self {
        Self(Rc::new(Connection::open_in_memory().unwrap()))
    }
}

impl KeyBook {
    /// What must be unique in a table of a database, in the order in which SQLite names its indexes.
    pub fn read(&self, sqlite: &Connection, table: &str) -> Vec<Unique> {
        let columns: Vec<(String, String)> = {
            let sql = "SELECT name, type FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid";
            let mut statement = sqlite.prepare(sql).unwrap();
            let rows = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let sql = "SELECT i.name, d.sql FROM pragma_index_list(?1) AS i
             LEFT JOIN sqlite_master AS d ON d.type = 'index' AND d.name = i.name WHERE i.\"unique\" ORDER BY i.seq";
        let mut statement = sqlite.prepare(sql).unwrap();
        let indexes = statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let indexes: Vec<(String, Option<String>)> = indexes.map(Result::unwrap).collect();
        indexes.into_iter().map(|(index, text)| self.copy(sqlite, table, &columns, &index, text)).collect()
    }

    fn copy(
        &self,
        sqlite: &Connection,
        table: &str,
        columns: &[(String, String)],
        index: &str,
        text: Option<String>,
    ) -> Unique {
        let sql = "SELECT name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno";
        let mut statement = sqlite.prepare(sql).unwrap();
        let parts = statement.query_map([index], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let parts: Vec<(Option<String>, String)> = parts.map(Result::unwrap).collect();
        // A constraint has no text of its own, and needs none: its parts are columns.
        let over = text.map_or_else(
            || {
                let part = |(name, collation): &(Option<String>, String)| {
                    format!("{} COLLATE {collation}", quoted(name.as_ref().unwrap()))
                };
                format!("({})", parts.iter().map(part).collect::<Vec<_>>().join(", "))
            },
            |text| text[text.find('(').unwrap()..].to_owned(),
        );
        let named = parts.iter().filter_map(|(name, _)| name.as_deref());
        let words = over.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let read: BTreeSet<String> = named.chain(words).map(str::to_ascii_lowercase).collect();
        let all: Vec<String> = columns.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        let collation = |name: &str| {
            let collates = super::schema::has_nocase(sqlite, table, name);
            if collates { " COLLATE NOCASE" } else { "" }
        };
        let declared =
            columns.iter().map(|(name, kind)| format!("{} {kind}{}", quoted(name), collation(name)));
        let declared = declared.collect::<Vec<_>>().join(", ");
        let copy = quoted(&format!("{table} {index} {declared} {over}").to_ascii_lowercase());
        self.0
            .execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS {copy}(_class INTEGER PRIMARY KEY, {declared});
                 CREATE UNIQUE INDEX IF NOT EXISTS {} ON {copy} {over}",
                quoted(&format!("index of {copy}"))
            ))
            .unwrap();
        Unique { columns: all.iter().filter(|name| read.contains(*name)).cloned().collect(), copy, all }
    }

    /// The key of a row; none if it can stand beside every other one.
    pub fn key(&self, unique: &Unique, row: &Raw) -> Option<Key> {
        self.key_of(unique, &|column| row.cells.get(column).map(|cell| &cell.value))
    }

    /// The key of a row of these values.
    pub fn key_of<'v>(&self, unique: &Unique, value: &dyn Fn(&str) -> Option<&'v CellValue>) -> Option<Key> {
        let places: Vec<&str> = unique.all.iter().map(|_| "?").collect();
        let columns: Vec<String> = unique.all.iter().map(|name| quoted(name)).collect();
        let sql = format!(
            "INSERT INTO {}({}) VALUES({}) ON CONFLICT DO UPDATE SET _class = _class RETURNING _class",
            unique.copy,
            columns.join(", "),
            places.join(", ")
        );
        let insert = || -> i64 {
            let stored = |name: &String| value(name).map_or(types::Value::Null, stored);
            let values = params_from_iter(unique.all.iter().map(stored));
            let mut statement = self.0.prepare_cached(&sql).unwrap();
            // To its end: what returns rows is done only then.
            let classes = statement.query_map(values, |row| row.get(0)).unwrap();
            classes.map(Result::unwrap).last().unwrap()
        };
        let (class, again) = (insert(), insert());
        if class == again {
            return Some(Key { index: unique.copy.clone(), class });
        }
        let sql = format!("DELETE FROM {} WHERE _class IN (?1, ?2)", unique.copy);
        self.0.prepare_cached(&sql).unwrap().execute([class, again]).unwrap();
        None
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn stored(value: &CellValue) -> types::Value {
    match value {
        // Like nothing that an application writes.
        CellValue::Ref(id) => types::Value::Blob([b"reference ", &id.0[..]].concat()),
        CellValue::Plain(Value::Null) => types::Value::Null,
        CellValue::Plain(Value::Integer(integer)) => types::Value::Integer(*integer),
        CellValue::Plain(Value::Real(real)) => types::Value::Real(*real),
        CellValue::Plain(Value::Text(text)) => types::Value::Text(text.clone()),
        CellValue::Plain(Value::Blob(blob)) => types::Value::Blob(blob.clone()),
    }
}
