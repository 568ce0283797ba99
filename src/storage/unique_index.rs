//! What must be unique in a table: constraints of its definition, and unique indexes, partial ones and those
//! over expressions included.

use std::collections::HashMap;

use super::catalog::quote;
use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::generated::{ColumnsOfTables, TableColumns};
use super::sql_text::{Token, first_list, names, span, tokens};

/// A key that SQLite keeps unique, by an index. (A rowid has none: [`read_unique_keys`] does not find it.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueKey {
    /// The name of the index, `sqlite_autoindex_…` for a constraint; empty for a rowid.
    pub index: String,
    /// What it is there for.
    pub origin: KeyOrigin,
    /// Its parts, in order. Two rows collide if all are equal and none is NULL.
    pub parts: Vec<KeyPart>,
    /// The condition of a partial index: only rows for which it is true can collide.
    pub filter: Option<String>,
    /// The columns that decide it: those that parts, filter and generated columns read.
    pub columns: Vec<String>,
    /// The generated columns that it reads, with what each is made of; one that reads another comes after it.
    pub generated: Vec<(String, String)>,
}

/// What a unique index is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// For the PRIMARY KEY.
    PrimaryKey,
    /// For a UNIQUE constraint. SQLite lets nobody drop its columns.
    Constraint,
    /// `CREATE UNIQUE INDEX` made it.
    Index,
}

/// A part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPart {
    /// What is compared.
    pub term: KeyTerm,
    /// How it is compared.
    pub collation: String,
}

/// How SQLite compares texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    /// By their bytes.
    Binary,
    /// Without regard to the case of ASCII letters.
    NoCase,
    /// Without regard to spaces at the end.
    RTrim,
    /// The application's own way: what has the same bytes is the same, and perhaps more.
    Own,
}

impl Collation {
    /// The collation of this name.
    pub fn of(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "BINARY" => Self::Binary,
            "NOCASE" => Self::NoCase,
            "RTRIM" => Self::RTrim,
            _ => Self::Own,
        }
    }
}

/// What a part of a key compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyTerm {
    /// The column of this name.
    Column(String),
    /// An expression over the row's columns, as the definition words it.
    Expression(String),
}

impl UniqueKey {
    /// Whether it compares columns that are written, of all rows, and as any SQLite does.
    pub fn is_plain(&self) -> bool {
        let is_plain = |part: &KeyPart| {
            matches!(part.term, KeyTerm::Column(_)) && Collation::of(&part.collation) != Collation::Own
        };
        self.filter.is_none() && self.generated.is_empty() && self.parts.iter().all(is_plain)
    }

    /// A SELECT of the columns that decide the key, with the generated ones that are made of them.
    pub fn with_generated(&self, select: String) -> String {
        self.generated.iter().fold(select, |row, (name, expression)| {
            format!("SELECT *, ({expression}) AS {} FROM ({row})", quote(name))
        })
    }

    /// An expression that is NULL, and not evaluated, for rows that the index leaves out: it may fail over these.
    pub fn only_inside(&self, expression: &str) -> String {
        match &self.filter {
            Some(filter) => format!("CASE WHEN ({filter}) THEN {expression} END"),
            None => expression.to_owned(),
        }
    }

    /// Whether a REPLACE may take away another row by it than the one whose PRIMARY KEY has the same bytes.
    pub fn can_take_others(&self) -> bool {
        self.origin != KeyOrigin::PrimaryKey || self.parts.iter().any(|part| part.collation != "BINARY")
    }
}

/// The unique keys of each table of `main`, by the table's name; `columns` are those tables' columns.
///
/// A key whose definition cannot be read is left out; there is none that SQLite accepts.
pub fn read_unique_keys(
    sql: &mut dyn Sql,
    columns: &ColumnsOfTables,
) -> Result<HashMap<String, Vec<UniqueKey>>, SqlError> {
    let mut keys: HashMap<String, Vec<UniqueKey>> = HashMap::new();
    // Which columns an expression reads, and its text, no pragma tells.
    let mut texts: HashMap<String, String> = HashMap::new();
    sql.query(
        "SELECT m.name, i.name, i.origin, x.name, x.coll, d.sql FROM main.sqlite_master AS m, \
         pragma_index_list(m.name, 'main') AS i, pragma_index_xinfo(i.name, 'main') AS x \
         LEFT JOIN main.sqlite_master AS d ON d.type = 'index' AND d.name = i.name \
         WHERE m.type = 'table' AND i.\"unique\" AND x.key ORDER BY m.name, i.seq, x.seqno",
        &[],
        &mut |row| {
            let mut fields = Fields::of(row);
            let (table, index, origin) = (fields.text()?, fields.text()?, fields.text()?);
            let (column, collation, text) = (fields.optional_text(), fields.text()?, fields.optional_text());
            let own = keys.entry(table).or_default();
            if own.last().is_none_or(|key| key.index != index) {
                texts.extend(text.map(|text| (index.clone(), text)));
                let origin = match origin.as_str() {
                    "pk" => KeyOrigin::PrimaryKey,
                    "u" => KeyOrigin::Constraint,
                    _ => KeyOrigin::Index,
                };
                own.push(UniqueKey {
                    index,
                    origin,
                    parts: Vec::new(),
                    filter: None,
                    columns: Vec::new(),
                    generated: Vec::new(),
                });
            }
            if let Some(key) = own.last_mut() {
                key.columns.extend(column.clone());
                let term = column.map_or(KeyTerm::Expression(String::new()), KeyTerm::Column);
                key.parts.push(KeyPart { term, collation });
            }
            Ok(())
        },
    )?;
    for (table, own) in &mut keys {
        let Some(columns) = columns.get(table) else { continue };
        own.retain_mut(|key| complete(key, texts.remove(&key.index).as_deref(), columns));
    }
    Ok(keys)
}

/// Adds what the definition of the index, if it has one, and those of generated columns tell. Returns whether the
/// index could be read.
fn complete(key: &mut UniqueKey, text: Option<&str>, columns: &TableColumns) -> bool {
    let mut read: Vec<String> = std::mem::take(&mut key.columns);
    if let Some(text) = text {
        let Some(definition) = Definition::read(text) else { return false };
        if definition.parts.len() != key.parts.len() {
            return false;
        }
        for (part, text) in key.parts.iter_mut().zip(&definition.parts) {
            if let KeyTerm::Expression(expression) = &mut part.term {
                (*text).clone_into(expression);
                read.extend(names(text));
            }
        }
        read.extend(definition.filter.iter().flat_map(|filter| names(filter)));
        key.filter = definition.filter.map(str::to_owned);
    }
    (key.columns, key.generated) = columns.behind(&read);
    true
}

/// The part of a `CREATE UNIQUE INDEX` that says what is unique.
#[derive(Debug, PartialEq, Eq)]
struct Definition<'a> {
    /// Columns and expressions, without ASC and DESC.
    parts: Vec<&'a str>,
    filter: Option<&'a str>,
}

impl<'a> Definition<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let tokens = tokens(text)?;
        // `CREATE UNIQUE INDEX name ON table (`: SQLite keeps no schema and no IF NOT EXISTS, but both names
        // can be words that mean something elsewhere.
        let (parts, rest) = first_list(&tokens)?;
        let parts = parts.into_iter().map(|tokens| part(text, tokens)).collect::<Option<_>>()?;
        let filter = match rest {
            [] => None,
            [word, condition @ ..] if word.is("WHERE") => Some(span(text, condition)?),
            _ => return None,
        };
        Some(Self { parts, filter })
    }
}

/// One column or expression, without its order.
fn part<'a>(text: &'a str, tokens: &[Token<'_>]) -> Option<&'a str> {
    match tokens {
        [expression @ .., order] if order.is("ASC") || order.is("DESC") => span(text, expression),
        expression => span(text, expression),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::sqlite_driver::RusqliteSql;

    fn keys(schema: &str, table: &str) -> Vec<UniqueKey> {
        let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
        sql.run(schema).unwrap();
        let columns = TableColumns::read(&mut sql).unwrap();
        read_unique_keys(&mut sql, &columns).unwrap().remove(table).unwrap_or_default()
    }

    fn column(name: &str, collation: &str) -> KeyPart {
        KeyPart { term: KeyTerm::Column(name.into()), collation: collation.into() }
    }

    fn expression(text: &str, collation: &str) -> KeyPart {
        KeyPart { term: KeyTerm::Expression(text.into()), collation: collation.into() }
    }

    #[test]
    fn constraints_and_keys_are_told_apart() {
        let found = keys(
            "CREATE TABLE t(a TEXT COLLATE NOCASE, b, c UNIQUE, PRIMARY KEY(b, a)) WITHOUT ROWID;
             CREATE INDEX plain ON t(c)",
            "t",
        );
        let origins: Vec<_> = found.iter().map(|key| (key.origin, key.parts.clone())).collect();
        assert!(origins.contains(&(KeyOrigin::Constraint, vec![column("c", "BINARY")])), "{origins:?}");
        let primary = (KeyOrigin::PrimaryKey, vec![column("b", "BINARY"), column("a", "NOCASE")]);
        assert!(origins.contains(&primary), "{origins:?}");
        assert_eq!(origins.len(), 2);
        assert_eq!(keys("CREATE TABLE t(id INTEGER PRIMARY KEY)", "t"), []);
    }

    #[test]
    fn an_index_over_expressions_is_read_with_its_condition() {
        let found = keys(
            "CREATE TABLE \"a (table\"(id INTEGER PRIMARY KEY, \"na,me\" TEXT, coalesce TEXT, gone, kind);
             CREATE UNIQUE INDEX IF NOT EXISTS main.\"by (name\" ON \"a (table\" ( -- one, two (
                ifnull(\"na,me\" || ')' /* , */, 'it''s') COLLATE NOCASE DESC, kind COLLATE RTRIM asc,
                coalesce((kind), 1)
             ) WHERE gone IS NULL AND kind IN ('x', 'y') -- the end",
            "a (table",
        );
        let [key] = &found[..] else { panic!("{found:?}") };
        assert_eq!(key.index, "by (name");
        assert_eq!(key.origin, KeyOrigin::Index);
        assert_eq!(
            key.parts,
            [
                expression("ifnull(\"na,me\" || ')' /* , */, 'it''s') COLLATE NOCASE", "NOCASE"),
                column("kind", "RTRIM"),
                expression("coalesce((kind), 1)", "BINARY"),
            ]
        );
        assert_eq!(key.filter.as_deref(), Some("gone IS NULL AND kind IN ('x', 'y')"));
        assert_eq!(key.columns, ["kind", "na,me", "gone"], "`coalesce` is a function here");
    }

    #[test]
    fn the_parts_of_several_indexes_stay_apart() {
        let found = keys(
            "CREATE TABLE t(a, b); CREATE UNIQUE INDEX x ON t(a, b); CREATE UNIQUE INDEX y ON t(b) WHERE a > 0;
             CREATE UNIQUE INDEX z ON t(\"a\", abs(b))",
            "t",
        );
        let by_name = |name: &str| found.iter().find(|key| key.index == name).unwrap();
        assert_eq!(by_name("x").parts, [column("a", "BINARY"), column("b", "BINARY")]);
        assert_eq!(by_name("y").columns, ["b", "a"]);
        assert_eq!(by_name("z").parts, [column("a", "BINARY"), expression("abs(b)", "BINARY")]);
    }

    #[test]
    fn what_is_no_definition_is_not_read() {
        for text in
            ["", "(", "CREATE UNIQUE INDEX i ON t(a", "CREATE UNIQUE INDEX i ON t(a) WHAT", "i(,)", "')"]
        {
            assert_eq!(Definition::read(text), None, "{text}");
        }
    }
}
