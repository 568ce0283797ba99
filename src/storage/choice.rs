//! What an application may choose: which tables are shared, and how; everything has a default.
//!
//! A choice is what this application says ([`SyncOptions`]), and where it says nothing, what the tenant has
//! agreed on.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::catalog::{Catalog, Key, Table};
use super::one_row;
use super::references::{DeclaredParent, DeclaredReference};
use super::surplus;
use crate::model::{Agreement, Rule};

/// What an application says.
#[derive(Clone, Debug)]
pub struct SyncOptions {
    /// Patterns of the tables that are shared; none means all.
    pub include: Option<Vec<String>>,
    /// Patterns of the tables that are not.
    pub exclude: Vec<String>,
    /// What holds for single tables.
    pub tables: Vec<TableOptions>,
    /// References that no foreign key declares.
    pub references: Vec<DeclaredReference>,
    /// Whether rows that a database holds when it is first attached are older than every write (I5). Otherwise
    /// they are writes of now.
    pub existing_rows_are_old: bool,
    /// Whether tables of the tenant that are missing here are made.
    pub create_schema: CreateSchema,
}

/// Whether tables of the tenant that are missing in a database are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CreateSchema {
    /// Those of which tables and indexes are the whole story. Of the others an application would believe that it has
    /// made all.
    #[default]
    Auto,
    /// All of them.
    Always,
    /// None: the application makes them.
    Never,
}

impl Default for SyncOptions {
    fn default() -> Self {
        Self {
            include: None,
            exclude: Vec::new(),
            tables: Vec::new(),
            references: Vec::new(),
            existing_rows_are_old: true,
            create_schema: CreateSchema::Auto,
        }
    }
}

/// What holds for a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableOptions {
    /// Its name.
    pub name: String,
    /// Whether its `INTEGER PRIMARY KEY` means the same everywhere.
    pub is_global: bool,
    /// Whether rows that come from elsewhere get numbers that no application hands out.
    pub numbers_apart: bool,
    /// Columns, with the rules by which their writes are merged.
    pub rules: Vec<(String, Rule)>,
}

impl SyncOptions {
    /// Whether a table is shared.
    pub fn includes(&self, table: &str) -> bool {
        let matches = |patterns: &Vec<String>| patterns.iter().any(|pattern| is_match(pattern, table));
        self.include.as_ref().is_none_or(matches) && !matches(&self.exclude)
    }

    /// Whether the application has named a table among those that it shares, by more than saying: all.
    pub fn names(&self, table: &str) -> bool {
        let says_something = |pattern: &&String| pattern.chars().any(|it| it != '*');
        let mut patterns = self.include.iter().flatten().filter(says_something);
        patterns.any(|pattern| is_match(pattern, table)) && self.includes(table)
    }

    /// The rule that the application gives a column.
    pub fn rule(&self, table: &str, column: &str) -> Option<Rule> {
        let rules = &self.table(table)?.rules;
        rules.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map(|(_, rule)| *rule)
    }

    fn table(&self, name: &str) -> Option<&TableOptions> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }
}

/// Whether a name matches a pattern: `*` is any text, `?` one character, and case means nothing, as in SQLite.
pub fn is_match(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.to_lowercase().chars().collect(), name.to_lowercase().chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stood, and where its text began: the only place to go back to.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some('*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(it), _) if *it == '?' || *it == name[n] => (p, n) = (p + 1, n + 1),
            (_, Some((at, from))) => {
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|it| *it == '*')
}

/// What holds in one database: what the application says, else what the tenant has agreed on.
#[derive(Debug)]
pub struct Choice<'a> {
    options: &'a SyncOptions,
    /// By the tables' names in lower case.
    tenant: HashMap<String, Agreement>,
    /// Which tables come first where there is no room for all; see [`Self::ranked`].
    ranks: HashMap<String, u8>,
    /// Tables that were made here from the tenant's definitions, by such names.
    made: HashSet<String>,
}

impl<'a> Choice<'a> {
    /// What the application says, and what the tenant has agreed on of each table.
    pub fn new(options: &'a SyncOptions, tenant: HashMap<String, Agreement>) -> Self {
        Self { options, tenant, ranks: HashMap::new(), made: HashSet::new() }
    }

    /// Where there is no room for all tables, those of a lower rank come first; by their names in lower case.
    #[must_use]
    pub fn ranked(self, ranks: HashMap<String, u8>) -> Self {
        Self { ranks, ..self }
    }

    /// The rank of a table among those that are shared if there is room.
    pub fn rank(&self, table: &str) -> u8 {
        self.ranks.get(&table.to_ascii_lowercase()).copied().unwrap_or(surplus::UNKNOWN)
    }

    /// The same where some tables, by their names in lower case, were made from the tenant's definitions: what else the
    /// database has says nothing of them.
    #[must_use]
    pub fn with_made(self, made: HashSet<String>) -> Self {
        Self { made, ..self }
    }

    /// What the application says.
    pub fn options(&self) -> &'a SyncOptions {
        self.options
    }

    /// Whether a table is shared.
    pub fn includes(&self, table: &str) -> bool {
        self.options.includes(table)
    }

    /// Whether a table's `INTEGER PRIMARY KEY` means the same everywhere.
    pub fn is_global(&self, table: &str) -> bool {
        self.options.table(table).is_some_and(|it| it.is_global)
            || self.agreed(table).is_some_and(|it| it.is_global)
    }

    fn agreed(&self, table: &str) -> Option<&Agreement> {
        self.tenant.get(&table.to_lowercase())
    }

    /// Gives tables their rules, and columns what they reference; notes what is said of things that are not here.
    pub fn complete(&self, catalog: &mut Catalog) {
        let needing = self.tenant.iter().filter(|(_, agreed)| agreed.needs_application.is_some());
        catalog.for_applications = needing.map(|(name, _)| name.clone()).collect();
        for table in &mut catalog.tables {
            if self.options.table(&table.name).is_some_and(|it| it.is_global) && !table.is_global {
                catalog.notices.push(format!(
                    "tables.{}.identity is 'primaryKey', and the table has no INTEGER PRIMARY KEY of its own: it \
                     is identified as it would be without",
                    table.name
                ));
            }
            if self.options.table(&table.name).is_some_and(|it| it.numbers_apart) {
                table.numbers_apart = matches!(table.key, Key::Number(_));
                catalog.notices.extend(why_none_apart(table));
            }
            catalog.notices.extend(one_row::advice(table));
            let said = self.options.table(&table.name).map(|it| it.rules.as_slice()).unwrap_or_default();
            let agreed = self.agreed(&table.name).map(|it| it.rules.as_slice()).unwrap_or_default();
            for (column, rule) in agreed.iter().chain(said) {
                if let Err(why) = give_rule(table, column, *rule)
                    && said.iter().any(|(name, _)| name == column)
                {
                    catalog.notices.push(why);
                }
            }
            // What the tenant has agreed on is declared as well: a hub that lost everything hears it from whoever comes first.
            let is_said = |column: &str| said.iter().any(|(name, _)| name.eq_ignore_ascii_case(column));
            let unsaid = agreed.iter().filter(|(column, _)| !is_said(column));
            let is_here = |(column, _): &&(String, Rule)| {
                table.columns.iter().any(|own| own.name.eq_ignore_ascii_case(column))
            };
            let rules = said.iter().chain(unsaid.filter(is_here)).cloned().collect();
            let agreed = self.agreed(&table.name).and_then(|it| it.needs_application.as_ref());
            let own = catalog
                .needs_application
                .as_ref()
                .filter(|_| !self.made.contains(&table.name.to_lowercase()));
            let needs_application = own.or(agreed).cloned();
            table.declared = Agreement { rules, needs_application, ..Agreement::default() };
        }
        let mut astray = Vec::new();
        for table in &catalog.tables {
            for key in &table.foreign_keys {
                if catalog.excluded.iter().any(|name| name.eq_ignore_ascii_case(&key.parent)) {
                    astray.push(format!(
                        "table {} references {}, which is excluded: its references travel as they are, and may \
                         mean other rows elsewhere",
                        table.name, key.parent
                    ));
                }
            }
        }
        catalog.notices.append(&mut astray);
        for name in self.unknown_tables(catalog) {
            catalog.notices.push(format!("the options name a table {name}, and there is none here"));
        }
        self.declare_references(catalog);
    }

    /// Tables that the options name, each once, and that are not here.
    fn unknown_tables(&self, catalog: &Catalog) -> Vec<&'a str> {
        let lists = self.options.include.iter().flatten().chain(&self.options.exclude);
        let plain = lists.filter(|pattern| !pattern.contains(['*', '?']));
        let named = plain.map(String::as_str).chain(self.options.tables.iter().map(|it| it.name.as_str()));
        let is_here = |name: &&str| {
            let others = catalog.excluded.iter().chain(catalog.left_alone.iter().map(|(name, _)| name));
            catalog.table(name).is_some() || others.into_iter().any(|it| it.eq_ignore_ascii_case(name))
        };
        let mut unknown: Vec<&str> = named.filter(|name| !is_here(name)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    fn declare_references(&self, catalog: &mut Catalog) {
        let is_said = |one: &DeclaredReference| {
            let same = |other: &DeclaredReference| {
                other.table.eq_ignore_ascii_case(&one.table) && other.column.eq_ignore_ascii_case(&one.column)
            };
            self.options.references.iter().any(same)
        };
        let agreed: Vec<DeclaredReference> = catalog
            .tables
            .iter()
            .filter_map(|table| self.agreed(&table.name).map(|agreed| (table, agreed)))
            .flat_map(|(table, agreed)| agreed.references.iter().map(|it| (table.name.as_str(), it).into()))
            .filter(|one| !is_said(one))
            .collect();
        // What the tenant has agreed on need not all be here.
        let _ = catalog.declare_references(&agreed);
        for table in &mut catalog.tables {
            let known = self.agreed(&table.name).map(|it| it.references.as_slice()).unwrap_or_default();
            let is_here =
                |column: &str| table.columns.iter().any(|own| own.name.eq_ignore_ascii_case(column));
            let is_said = |column: &str| {
                let of_table =
                    self.options.references.iter().filter(|it| it.table.eq_ignore_ascii_case(&table.name));
                of_table.into_iter().any(|it| it.column.eq_ignore_ascii_case(column))
            };
            let unsaid = known.iter().filter(|it| is_here(&it.column) && !is_said(&it.column)).cloned();
            table.declared.references.extend(unsaid.collect::<Vec<_>>());
        }
        let wrong = catalog.declare_references(&self.options.references);
        let doubtful = catalog.named_by_local_numbers(&self.options.references);
        catalog.notices.extend(wrong.into_iter().chain(doubtful).map(|why| format!("references: {why}")));
        for one in &self.options.references {
            if let Some(table) = catalog.tables.iter_mut().find(|it| it.name.eq_ignore_ascii_case(&one.table))
            {
                table.declared.references.push(one.into());
            }
        }
    }
}

impl Catalog {
    /// Whether rows of a table that is not here are passed over. Nothing is lost by that: when the application
    /// has made the table, or shares it, its past is asked for.
    pub fn passes_over(&self, table: &str) -> bool {
        let is_left = match self.options.create_schema {
            CreateSchema::Auto => self.for_applications.contains(&table.to_lowercase()),
            CreateSchema::Always => false,
            CreateSchema::Never => true,
        };
        is_left || self.is_unwanted(table)
    }

    /// Whether a table is none that is to be here, or none of the tenant's.
    pub fn is_unwanted(&self, table: &str) -> bool {
        let is_it = |name: &String| name.eq_ignore_ascii_case(table);
        !self.options.includes(table)
            || self.dropped.iter().chain(&self.excluded).chain(&self.indexes).any(is_it)
    }
}

/// Why `numbers: 'apart'` has no effect on a table, if it has none.
fn why_none_apart(table: &Table) -> Option<String> {
    let why = match (&table.key, table.is_global) {
        (Key::Number(_), _) => return None,
        (Key::Natural(_), true) => {
            "its numbers mean the same everywhere in this tenant (identity 'primaryKey')"
        }
        (Key::Natural(_), false) => {
            "its rows have no numbers of their own: their PRIMARY KEY means the same everywhere"
        }
    };
    Some(format!("tables.{}.numbers is 'apart', and that has no effect: {why}", table.name))
}

/// Gives a column its rule, or says why it cannot have one.
fn give_rule(table: &mut Table, column: &str, rule: Rule) -> Result<(), String> {
    let name = table.name.clone();
    let is_key = table.key_columns().iter().any(|own| own.eq_ignore_ascii_case(column));
    let Some(own) = table.columns.iter_mut().find(|own| own.name.eq_ignore_ascii_case(column)) else {
        return Err(format!("the options name a column {name}.{column}, and there is none that is shared"));
    };
    if rule != Rule::Lww && (is_key || own.references.is_some()) {
        return Err(format!(
            "the merge rule of {name}.{column} is not heeded: the column is part of a key, and a key's later \
             write wins"
        ));
    }
    own.rule = rule;
    Ok(())
}

impl From<&DeclaredReference> for crate::model::AgreedReference {
    fn from(declared: &DeclaredReference) -> Self {
        let (by, to) = match &declared.parent {
            DeclaredParent::Table(table) => (None, vec![(crate::model::Value::Null.into(), table.clone())]),
            DeclaredParent::ByColumn { column, map } => (
                Some(column.clone()),
                map.iter().map(|(value, table)| (value.clone().into(), table.clone())).collect(),
            ),
        };
        Self { column: declared.column.clone(), by, to }
    }
}

impl From<(&str, &crate::model::AgreedReference)> for DeclaredReference {
    fn from((table, agreed): (&str, &crate::model::AgreedReference)) -> Self {
        let plain = |value: &crate::model::CellValue| match value {
            crate::model::CellValue::Plain(value) => Some(value.clone()),
            crate::model::CellValue::Ref(_) => None,
        };
        let parent = match &agreed.by {
            None => {
                DeclaredParent::Table(agreed.to.first().map(|(_, table)| table.clone()).unwrap_or_default())
            }
            Some(column) => DeclaredParent::ByColumn {
                column: column.clone(),
                map: agreed.to.iter().filter_map(|(value, to)| Some((plain(value)?, to.clone()))).collect(),
            },
        };
        Self { table: table.to_owned(), column: agreed.column.clone(), parent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_sqlite_compares_names() {
        for (pattern, name) in [
            ("cache_*", "Cache_of"),
            ("*", ""),
            ("a?c", "abc"),
            ("*_*_x", "a_b_c_x"),
            ("t", "T"),
            ("*a", "aba"),
        ] {
            assert!(is_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("cache_*", "cach"), ("a?c", "ac"), ("", "a"), ("*a", "ab"), ("t", "tt")] {
            assert!(!is_match(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_is_excluded_is_not_included() {
        let options = SyncOptions {
            include: Some(vec!["notes*".into()]),
            exclude: vec!["notes_old".into()],
            ..SyncOptions::default()
        };
        assert!(options.includes("notes") && !options.includes("notes_old") && !options.includes("tasks"));
        assert!(SyncOptions::default().includes("anything"));
    }

    #[test]
    fn whoever_includes_everything_has_named_nothing() {
        let including = |patterns: &[&str]| SyncOptions {
            include: Some(patterns.iter().map(|&it| it.to_owned()).collect()),
            exclude: vec!["notes_old".into()],
            ..SyncOptions::default()
        };
        assert!(!including(&["*", "**"]).names("notes") && !SyncOptions::default().names("notes"));
        assert!(including(&["*", "Notes"]).names("notes") && including(&["n*s"]).names("notes"));
        assert!(!including(&["notes_old"]).names("notes_old"));
    }
}
