//! What a table is, as far as replicas must agree on it.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{CellValue, Hlc, Rule};

/// How a table's rows get their identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyKind {
    /// `INTEGER PRIMARY KEY`: a number that means something on one replica only; identities are minted.
    Number,
    /// TEXT, BLOB or composite: the identity is the hash of the key at birth.
    Natural,
}

/// A table's definition on its way through the hub to replicas that do not have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The table's name.
    pub name: String,
    /// How its rows are identified.
    pub key: KeyKind,
    /// The columns that travel, in order; the number of a [`KeyKind::Number`] table is not among them.
    pub columns: Vec<String>,
    /// The `CREATE TABLE` text as SQLite keeps it.
    pub ddl: String,
    /// The `CREATE INDEX` texts as SQLite keeps them.
    pub indexes: Vec<String>,
    /// What replicas must agree on besides.
    pub agreed: Agreement,
}

impl TableSchema {
    /// What tells that a table is the tenant's no more: neither text nor columns.
    pub fn is_removed(&self) -> bool {
        self.ddl.is_empty() && self.columns.is_empty()
    }
}

/// What a definition's text does not say, or what is too important to be read out of it. The first declaration
/// of each point stands in its tenant; a replica that declares another one is refused that table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// The columns whose values give a row of a [`KeyKind::Natural`] table its identity, in order.
    pub key_columns: Vec<String>,
    /// Whether the key is an `INTEGER PRIMARY KEY` that is meant the same everywhere.
    pub is_global: bool,
    /// The columns that the application has given a merge rule.
    pub rules: Vec<(String, Rule)>,
    /// The references that no foreign key declares.
    pub references: Vec<AgreedReference>,
    /// Columns whose names have come to stand for what other columns held.
    #[serde(default)]
    pub origins: Vec<Origin>,
    /// Why the table's application has to make it, if nobody else can. The first declaration that says so stands.
    #[serde(default)]
    pub needs_application: Option<NeedsApplication>,
}

/// Why nobody but its application can make a table: the database of whoever declared it has what tables and indexes do not
/// tell of, and the application would take it for made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NeedsApplication {
    /// The journal of a migration tool, of this name.
    Journal(String),
    /// A `PRAGMA user_version` other than 0.
    UserVersion,
    /// A virtual table of this name that triggers fill, and that would lack the rows which come before it is made.
    VirtualTable(String),
}

impl NeedsApplication {
    /// The name in it, if there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Journal(name) | Self::VirtualTable(name) => Some(name),
            Self::UserVersion => None,
        }
    }
}

impl fmt::Display for NeedsApplication {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(name) => write!(formatter, "a migration journal, {name}"),
            Self::UserVersion => write!(formatter, "a PRAGMA user_version"),
            Self::VirtualTable(name) => write!(formatter, "a virtual table that triggers fill, {name}"),
        }
    }
}

/// Since when a column's name stands for what another column held before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The column.
    pub column: String,
    /// How often that has happened to the name, this time included.
    pub generation: u8,
    /// The first name of the column whose content it stands for, as far as whoever declares it knows.
    pub content: String,
    /// What was written to it before then is of its former meaning.
    pub since: Hlc,
}

/// A column whose integers are numbers of rows, although it is no foreign key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreedReference {
    /// The column.
    pub column: String,
    /// The column whose value says of which table; none if there is but one.
    pub by: Option<String>,
    /// The tables, each with the value of `by` that names it; NULL beside the only one.
    pub to: Vec<(CellValue, String)>,
}

/// What is said of columns, by their names as SQLite compares them; of two for one column the first counts.
#[derive(Clone, Debug)]
pub struct ByColumn<T>(HashMap<String, T>);

impl<T> ByColumn<T> {
    fn of<'a>(said: impl DoubleEndedIterator<Item = (&'a str, T)>) -> Self {
        Self(said.rev().map(|(column, what)| (column.to_ascii_lowercase(), what)).collect())
    }

    /// What is said of a column.
    pub fn get(&self, column: &str) -> Option<&T> {
        // Most tables say nothing of any column.
        if self.0.is_empty() { None } else { self.0.get(&column.to_ascii_lowercase()) }
    }
}

impl Agreement {
    /// The rule that is declared for a column.
    pub fn rule(&self, column: &str) -> Option<Rule> {
        self.rules.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map(|(_, rule)| *rule)
    }

    /// The reference that is declared for a column.
    pub fn reference(&self, column: &str) -> Option<&AgreedReference> {
        self.references.iter().find(|it| it.column.eq_ignore_ascii_case(column))
    }

    /// All rules by their columns: whoever asks for many columns looks each of them up at once.
    pub fn rules_by_column(&self) -> ByColumn<Rule> {
        ByColumn::of(self.rules.iter().map(|(column, rule)| (column.as_str(), *rule)))
    }

    /// All references by their columns.
    pub fn references_by_column(&self) -> ByColumn<&AgreedReference> {
        ByColumn::of(self.references.iter().map(|it| (it.column.as_str(), it)))
    }

    /// Since when a column's name has its meaning of this generation.
    pub fn origin(&self, column: &str, generation: u8) -> Option<&Origin> {
        let is_it = |it: &&Origin| it.generation == generation && it.column.eq_ignore_ascii_case(column);
        self.origins.iter().find(is_it)
    }

    /// Whether there is nothing in it but what the definition's text says as well.
    pub fn says_nothing(&self) -> bool {
        !self.is_global
            && self.rules.is_empty()
            && self.references.is_empty()
            && self.origins.is_empty()
            && self.needs_application.is_none()
    }
}

impl TableSchema {
    /// Why a declaration comes too late where the table is in use, in words that say what to do: it gives a rule or a
    /// reference to a column that the tenant has known without one. What was written to it was meant to stand, or to be a
    /// number, and would not any more.
    pub fn comes_late(&self, first: &Self) -> Option<String> {
        let name = &self.name;
        if self.agreed.rules.is_empty() && self.agreed.references.is_empty() {
            return None;
        }
        let columns: HashSet<String> = first.columns.iter().map(|it| it.to_ascii_lowercase()).collect();
        let is_known = |column: &String| columns.contains(&column.to_ascii_lowercase());
        let rules = first.agreed.rules_by_column();
        let rule = self
            .agreed
            .rules
            .iter()
            .find(|(column, rule)| !rule.loses() && rules.get(column).is_none() && is_known(column));
        if let Some((column, rule)) = rule {
            return Some(format!(
                "column {column} of table {name} is in use in this tenant without a merge rule, that is by {there}, and has the \
                 rule {here} on this replica: declare {there}, or nothing, or give the values a new column that has the rule \
                 from the start",
                there = Rule::Lww.name(),
                here = rule.name()
            ));
        }
        let known = first.agreed.references_by_column();
        let mut references = self.agreed.references.iter().map(|it| &it.column);
        let column = references.find(|column| known.get(column).is_none() && is_known(column))?;
        Some(format!(
            "column {column} of table {name} is in use in this tenant as plain numbers, and references other tables on this \
             replica: declare no reference, or give the values a new column that references from the start"
        ))
    }

    /// Why two declarations of one table cannot both stand, in words that say what to do.
    pub fn contradiction(&self, first: &Self) -> Option<String> {
        let name = &self.name;
        let kind = |table: &Self| match table.key {
            KeyKind::Number => "an INTEGER PRIMARY KEY, of which each replica has its own numbers",
            KeyKind::Natural if table.agreed.is_global => {
                "an INTEGER PRIMARY KEY, whose numbers mean the same everywhere"
            }
            KeyKind::Natural => "a TEXT, BLOB or composite one",
        };
        if self.key != first.key || self.agreed.is_global != first.agreed.is_global {
            return Some(format!(
                "the key of table {name} is {} in this tenant, and {} on this replica: give it the same PRIMARY KEY \
                 and the same identity (tables.{name}.identity), or rename it",
                kind(first),
                kind(self)
            ));
        }
        let (here, there) = (&self.agreed.key_columns, &first.agreed.key_columns);
        let same =
            here.len() == there.len() && here.iter().zip(there).all(|(a, b)| a.eq_ignore_ascii_case(b));
        if !same {
            return Some(format!(
                "the PRIMARY KEY of table {name} is ({}) in this tenant, and ({}) on this replica: give it the \
                 same one, or rename the table",
                there.join(", "),
                here.join(", ")
            ));
        }
        let declared = first.agreed.rules_by_column();
        let rules = self.agreed.rules.iter().find_map(|(column, here)| {
            let there = declared.get(column)?;
            (there != here).then_some((column, there.name(), here.name()))
        });
        if let Some((column, there, here)) = rules {
            return Some(format!(
                "the merge rule of column {column} of table {name} is {there} in this tenant, and {here} on this \
                 replica: declare {there}, or nothing"
            ));
        }
        let declared = first.agreed.references_by_column();
        let differs = |here: &&AgreedReference| declared.get(&here.column).is_some_and(|there| there != here);
        let reference = self.agreed.references.iter().find(differs)?;
        Some(format!(
            "column {} of table {name} references other tables in this tenant than on this replica: declare the \
             same references, or none",
            reference.column
        ))
    }
}
