//! A schema in parts, so that parts can be left out of it when a failing case is made smaller.

use std::fmt::Write as _;

use crate::draw_search::Search;

/// The tables of an application.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub tables: Vec<Table>,
    /// Whether applications have recursive triggers.
    pub is_recursive: bool,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    /// The columns of its PRIMARY KEY.
    pub key: Vec<String>,
    pub kind: KeyKind,
    pub references: Vec<Reference>,
    /// UNIQUE constraints, as they are written.
    pub unique: Vec<String>,
    /// Statements that make its indexes.
    pub indexes: Vec<String>,
    /// Statements that make its triggers.
    pub triggers: Vec<String>,
    /// Whether applications hand out its numbers themselves, where they say so.
    pub is_apart: bool,
    /// A full-text index of its rows.
    pub search: Option<Search>,
}

/// How a table's rows are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// INTEGER PRIMARY KEY.
    #[default]
    Number,
    /// INTEGER PRIMARY KEY AUTOINCREMENT.
    Autoincrement,
    /// Anything else.
    Natural,
    /// Anything else, in a table WITHOUT ROWID.
    WithoutRowid,
}

impl KeyKind {
    /// Whether the key is a local number.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Number | Self::Autoincrement)
    }
}

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// Its type and its clauses.
    pub clauses: String,
    pub pool: Pool,
    /// Whether an INSERT cannot do without it.
    pub is_required: bool,
}

/// Where a column's values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    Text,
    Integer,
    Real,
    Blob,
    Any,
    /// A part of a long key, mostly its default.
    Part,
    /// The table's own number, seldom written.
    Number,
    /// The clock, through its default.
    Clock,
    /// The parent's key.
    Reference,
    /// Other columns.
    Generated,
    /// Numbers, of which everybody's additions count.
    Sum,
    /// Values of which the greatest is kept.
    Greatest,
    /// Values of which the least is kept.
    Least,
    /// Sets.
    Tags,
}

/// A foreign key.
#[derive(Clone, Debug)]
pub struct Reference {
    pub columns: Vec<String>,
    pub parent: String,
    /// The parent's columns.
    pub to: Vec<String>,
    /// ON DELETE and the like.
    pub clauses: String,
    /// Whether it names the parent's columns.
    pub names_columns: bool,
}

/// A name for SQL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names for SQL.
pub fn list<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

impl Schema {
    /// The table of a name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// The statements that make it.
    pub fn statements(&self) -> Vec<String> {
        let mut statements: Vec<String> = self.tables.iter().map(Table::statement).collect();
        statements.extend(self.tables.iter().flat_map(|table| table.indexes.iter().cloned()));
        statements.extend(self.tables.iter().flat_map(|table| table.triggers.iter().cloned()));
        let indexes = self.tables.iter().filter_map(|table| table.search.as_ref());
        statements.extend(indexes.flat_map(|search| search.statements.iter().cloned()));
        statements
    }

    /// Whether a table's rows are referenced.
    pub fn is_referenced(&self, name: &str) -> bool {
        self.tables.iter().flat_map(|table| &table.references).any(|reference| reference.parent == name)
    }
}

impl Table {
    /// The column of a name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn statement(&self) -> String {
        let mut parts: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                let key = match self.kind {
                    _ if !self.kind.is_number() || self.key != [column.name.clone()] => "",
                    KeyKind::Autoincrement => " PRIMARY KEY AUTOINCREMENT",
                    _ => " PRIMARY KEY",
                };
                format!("{} {}{key}", quote(&column.name), column.clauses)
            })
            .collect();
        if !self.kind.is_number() {
            parts.push(format!("PRIMARY KEY({})", list(&self.key)));
        }
        parts.extend(self.unique.iter().cloned());
        for reference in &self.references {
            let mut part =
                format!("FOREIGN KEY({}) REFERENCES {}", list(&reference.columns), quote(&reference.parent));
            if reference.names_columns {
                write!(part, "({})", list(&reference.to)).unwrap();
            }
            part.push_str(&reference.clauses);
            parts.push(part);
        }
        let end = if self.kind == KeyKind::WithoutRowid { ") WITHOUT ROWID" } else { ")" };
        format!("CREATE TABLE {}(\n  {}{end}", quote(&self.name), parts.join(",\n  "))
    }
}
