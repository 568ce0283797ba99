//! Which columns hold local numbers, and of which table's rows: foreign keys say it, or the application does.
//!
//! A number means something on one replica only. So a column whose values are numbers of rows travels as those
//! rows' identities. The *domain* of a column is the numbered table that its values are numbers of; it is
//! inherited along foreign keys, because a key can itself be a foreign key (`episode_embeddings.episode_id`),
//! and so can a part of a composite one.

use std::collections::HashMap;

use super::catalog::{Catalog, Key, Table};
use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::table_info::Affinity;
use crate::model::{Value, whole};

/// What a column's integers are numbers of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Rows of this table.
    Table(String),
    /// Rows of a table that another column of the row names.
    ByColumn {
        /// The position of that column in [`Table::columns`].
        column: usize,
        /// Which of its values names which table, as the column stores them. A row with another value references nothing.
        map: Vec<(Value, String)>,
    },
}

/// A reference that no foreign key declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredReference {
    /// The table of the column.
    pub table: String,
    /// The column.
    pub column: String,
    /// What it references.
    pub parent: DeclaredParent,
}

/// What a declared reference references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclaredParent {
    /// Rows of this table.
    Table(String),
    /// Rows of a table that another column of the row names.
    ByColumn {
        /// That column.
        column: String,
        /// Which of its values names which table, in any form that the column would make the same of.
        map: Vec<(Value, String)>,
    },
}

/// The values that a column of this affinity may hold of one that an application names: a configuration has nothing but
/// texts, and a column of numbers stores a number in place of one. Columns without a type keep either.
fn forms(affinity: Affinity, named: &Value) -> Vec<Value> {
    let number = match named {
        Value::Text(text) => numeric(text),
        Value::Integer(_) | Value::Real(_) => Some(named.clone()),
        Value::Null | Value::Blob(_) => None,
    };
    let text = match named {
        Value::Integer(number) => Value::Text(number.to_string()),
        other => other.clone(),
    };
    match (affinity, number) {
        (Affinity::Real, Some(Value::Integer(number))) => vec![affinity.stored(number)],
        (Affinity::Real, Some(number)) => vec![number],
        (Affinity::Integer, Some(number)) => vec![number, text],
        (Affinity::Text, _) | (_, None) => vec![text],
    }
}

/// The number that a column of numbers stores in place of a text, if the text is one.
fn numeric(text: &str) -> Option<Value> {
    let text = text.trim_matches(|it: char| it.is_ascii_whitespace());
    if !text.bytes().all(|it| it.is_ascii_digit() || b"+-.eE".contains(&it)) {
        return None;
    }
    if let Ok(integer) = text.parse() {
        return Some(Value::Integer(integer));
    }
    let real: f64 = text.parse().ok()?;
    Some(whole(real).map_or(Value::Real(real), Value::Integer))
}

impl Reference {
    /// The table that a row's column references, if it is a number; `row` has a table's travelling columns.
    pub fn parent(&self, row: &[Value]) -> Option<&str> {
        match self {
            Self::Table(table) => Some(table),
            Self::ByColumn { column, map } => {
                let named = row.get(*column)?;
                map.iter().find(|(value, _)| value == named).map(|(_, table)| table.as_str())
            }
        }
    }

    /// The tables that may be referenced, each once.
    pub fn parents(&self) -> Vec<&str> {
        match self {
            Self::Table(table) => vec![table],
            Self::ByColumn { map, .. } => {
                let mut parents: Vec<&str> = Vec::new();
                for (_, table) in map {
                    if !parents.contains(&table.as_str()) {
                        parents.push(table);
                    }
                }
                parents
            }
        }
    }
}

impl Table {
    /// The position of a column, as SQLite compares names.
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|own| own.name.eq_ignore_ascii_case(column))
    }
}

/// A column, by its table's and its own name in lower case.
type ColumnName = (String, String);

fn column_name(table: &str, column: &str) -> ColumnName {
    (table.to_lowercase(), column.to_lowercase())
}

impl Catalog {
    /// Marks the columns whose values are local numbers, as far as foreign keys tell. To be called again
    /// when the kind of a table's key has been changed.
    pub fn link(&mut self) {
        let mut domains: HashMap<ColumnName, String> = HashMap::new();
        for table in &self.tables {
            if let Key::Number(column) = &table.key {
                domains.insert(column_name(&table.name, column), table.name.clone());
            }
        }
        let links = self.links();
        // Each round hands the domains on by one foreign key; there are no longer chains than links.
        for _ in 0..=links.len() {
            let mut changed = false;
            for (child, parent) in &links {
                if !domains.contains_key(child)
                    && let Some(domain) = domains.get(parent).cloned()
                {
                    changed |= domains.insert(child.clone(), domain).is_none();
                }
            }
            if !changed {
                break;
            }
        }
        for table in &mut self.tables {
            let name = table.name.clone();
            for column in &mut table.columns {
                let domain = domains.get(&column_name(&name, &column.name));
                column.references = domain.cloned().map(Reference::Table);
            }
        }
    }

    /// The pairs of columns that foreign keys make equal.
    fn links(&self) -> Vec<(ColumnName, ColumnName)> {
        let mut links = Vec::new();
        for table in &self.tables {
            for key in &table.foreign_keys {
                let parent_key = self.table(&key.parent).map(Table::key_columns).unwrap_or_default();
                for (at, (from, to)) in key.columns.iter().enumerate() {
                    if let Some(to) = to.as_deref().or_else(|| parent_key.get(at).copied()) {
                        links.push((column_name(&table.name, from), column_name(&key.parent, to)));
                    }
                }
            }
        }
        links
    }

    /// Takes in references that no foreign key declares. Returns what is wrong with those that mean nothing
    /// here, in words.
    pub fn declare_references(&mut self, declared: &[DeclaredReference]) -> Vec<String> {
        declared.iter().filter_map(|one| self.declare(one).err()).collect()
    }

    fn declare(&mut self, declared: &DeclaredReference) -> Result<(), String> {
        let DeclaredReference { table: name, column, parent } = declared;
        let named = match parent {
            DeclaredParent::Table(table) => vec![table],
            DeclaredParent::ByColumn { map, .. } => map.iter().map(|(_, table)| table).collect(),
        };
        for parent in named {
            let is_numbered = self.table(parent).is_some_and(|parent| matches!(parent.key, Key::Number(_)));
            if !is_numbered {
                return Err(format!(
                    "{name}.{column} cannot reference {parent}: there is no such table with a key of its own \
                     numbers"
                ));
            }
        }
        let table = self.tables.iter_mut().find(|table| table.name.eq_ignore_ascii_case(name));
        let Some(table) = table else { return Err(format!("there is no table {name} that could reference")) };
        let missing = |column: &str| format!("there is no column {name}.{column} that could reference");
        let at = table.position(column).ok_or_else(|| missing(column))?;
        table.columns[at].references = Some(match parent {
            DeclaredParent::Table(table) => Reference::Table(table.clone()),
            DeclaredParent::ByColumn { column, map } => {
                let naming = table.position(column).ok_or_else(|| missing(column))?;
                let mut stored: Vec<(Value, String)> = Vec::new();
                for (named, parent) in map {
                    for value in forms(table.columns[naming].affinity, named) {
                        if stored.iter().all(|(known, _)| *known != value) {
                            stored.push((value, parent.clone()));
                        }
                    }
                }
                Reference::ByColumn { column: naming, map: stored }
            }
        });
        Ok(())
    }

    /// References whose table is named by a number that is another one elsewhere, in words that say what to do.
    pub fn named_by_local_numbers(&self, declared: &[DeclaredReference]) -> Vec<String> {
        let advice = |one: &DeclaredReference| {
            let DeclaredParent::ByColumn { column: by, .. } = &one.parent else { return None };
            let table = self.table(&one.table)?;
            let parents = table.columns[table.position(by)?].references.as_ref()?.parents().join(" or ");
            Some(format!(
                "{name}.{by} names the tables that {name}.{column} references by numbers of rows of {parents}, of which \
                 each agent has its own: give {parents} identity 'primaryKey', so that they name the same everywhere",
                name = one.table,
                column = one.column
            ))
        };
        declared.iter().filter_map(advice).collect()
    }
}

/// Columns that look like references which nothing declares: named like `…_id`, declared INTEGER. As
/// `table.column`.
pub fn suspects(sql: &mut dyn Sql, catalog: &Catalog) -> Result<Vec<String>, SqlError> {
    let mut suspects = Vec::new();
    for table in &catalog.tables {
        let key = table.key_columns();
        let statement = "SELECT name FROM pragma_table_xinfo(?, 'main') WHERE lower(name) LIKE '%\\_id' ESCAPE '\\' \
                         AND upper(type) LIKE '%INT%' ORDER BY cid";
        sql.query(statement, &[table.name.as_str().into()], &mut |row| {
            let name = Fields::of(row).text()?;
            let is_foreign_key = table
                .foreign_keys
                .iter()
                .any(|foreign| foreign.columns.iter().any(|(from, _)| from.eq_ignore_ascii_case(&name)));
            let column = table.position(&name).map(|at| &table.columns[at]);
            let is_declared = column.is_some_and(|column| column.references.is_some());
            // A key of one's own is named `…_id` more often than not.
            let is_key = key.iter().any(|own| own.eq_ignore_ascii_case(&name));
            if !is_foreign_key && !is_declared && !is_key {
                suspects.push(format!("{}.{name}", table.name));
            }
            Ok(())
        })?;
    }
    Ok(suspects)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::storage::choice::{Choice, SyncOptions};
    use crate::storage::sqlite_driver::RusqliteSql;

    const SCHEMA: &str = "
        CREATE TABLE memories(memory_id INTEGER PRIMARY KEY, text);
        CREATE TABLE skills(id INTEGER PRIMARY KEY, name);
        CREATE TABLE scores(id INTEGER PRIMARY KEY, kind TEXT, memory_id INTEGER, session_id TEXT,
          skill_id INTEGER REFERENCES skills, next_id INTEGER);
        CREATE TABLE embeddings(skill INTEGER PRIMARY KEY REFERENCES skills, e);
        CREATE TABLE parts(id TEXT PRIMARY KEY, of INTEGER, at, FOREIGN KEY(of, at) REFERENCES embeddings(skill, e));";

    fn catalog() -> (RusqliteSql, Catalog) {
        let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
        sql.run(SCHEMA).unwrap();
        let options = SyncOptions::default();
        let catalog = Catalog::read(&mut sql, &Choice::new(&options, HashMap::new())).unwrap();
        (sql, catalog)
    }

    fn reference<'a>(catalog: &'a Catalog, table: &str, column: &str) -> Option<&'a Reference> {
        let table = catalog.table(table).unwrap();
        table.columns[table.position(column).unwrap()].references.as_ref()
    }

    #[test]
    fn a_domain_is_inherited_along_foreign_keys() {
        let (_, catalog) = catalog();
        let skills = Reference::Table("skills".into());
        assert_eq!(reference(&catalog, "scores", "skill_id"), Some(&skills));
        assert_eq!(reference(&catalog, "embeddings", "skill"), Some(&skills), "the key itself");
        assert_eq!(reference(&catalog, "parts", "of"), Some(&skills));
        assert_eq!(reference(&catalog, "parts", "at"), None);
        assert!(matches!(catalog.table("embeddings").unwrap().key, Key::Natural(_)));
    }

    #[test]
    fn a_reference_can_be_declared_by_the_value_of_another_column() {
        let (_, mut catalog) = catalog();
        let map = vec![
            (Value::Text("memory".into()), "memories".to_owned()),
            (Value::Text("skill".into()), "SKILLS".to_owned()),
        ];
        let by_kind = DeclaredParent::ByColumn { column: "KIND".into(), map };
        let declared = |column: &str, parent| DeclaredReference {
            table: "Scores".into(),
            column: column.into(),
            parent,
        };
        assert_eq!(catalog.declare_references(&[declared("memory_id", by_kind)]), Vec::<String>::new());
        let scores = catalog.table("scores").unwrap();
        let reference = reference(&catalog, "scores", "memory_id").unwrap();
        let parent = |kind: &str| {
            let mut row = vec![Value::Null; scores.columns.len()];
            row[scores.position("kind").unwrap()] = Value::Text(kind.into());
            reference.parent(&row).map(str::to_owned)
        };
        assert_eq!(parent("memory").as_deref(), Some("memories"));
        assert_eq!(parent("skill").as_deref(), Some("SKILLS"));
        assert_eq!(parent("other"), None);
        let nowhere = [
            declared("memory_id", DeclaredParent::Table("parts".into())),
            declared("nothing", DeclaredParent::Table("skills".into())),
            declared("memory_id", DeclaredParent::ByColumn { column: "no".into(), map: vec![] }),
        ];
        assert_eq!(catalog.declare_references(&nowhere).len(), 3);
    }

    #[test]
    fn columns_that_look_like_references_are_named_unless_something_declares_them() {
        let (mut sql, mut catalog) = catalog();
        assert_eq!(suspects(&mut sql, &catalog).unwrap(), ["scores.memory_id", "scores.next_id"]);
        let declared = DeclaredReference {
            table: "scores".into(),
            column: "next_id".into(),
            parent: DeclaredParent::Table("scores".into()),
        };
        catalog.declare_references(&[declared]);
        assert_eq!(suspects(&mut sql, &catalog).unwrap(), ["scores.memory_id"]);
    }
}
