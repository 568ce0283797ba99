//! The catalog: which tables of a database are synced, and what storage must know of each.
//!
//! Read when SQLite's schema version changes, and cached until it does (I7).

use std::collections::{HashMap, HashSet};

use super::application_needs::Made;
use super::bookkeeping::PREFIX;
use super::choice::{Choice, SyncOptions};
use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::foreign_keys::{Link, Shadow};
use super::generated::TableColumns;
use super::identity::fingerprint;
use super::index_parts::is_vector_index;
use super::journals;
use super::references::Reference;
use super::sql_text::tokens;
use super::surplus;
use super::table_info::{Affinity, ForeignKey, RawColumn, read_columns, read_foreign_keys};
use super::trigger_effects::KnownEffects;
use super::unique_index::{KeyOrigin, KeyPart, KeyTerm, UniqueKey, read_unique_keys};
use super::virtual_tables::{SearchIndexes, VirtualTable};
use crate::model::{Agreement, Hlc, KeyKind, NeedsApplication, Origin, Rule, TableSchema, Value};
use crate::protocol::limits::{MAX_COLUMNS, MAX_KEY_COLUMNS};

/// All that is known of a database's schema.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The tables that are synced, parents before children where foreign keys allow it.
    pub tables: Vec<Table>,
    /// Tables that are not, each with the reason.
    pub left_alone: Vec<(String, String)>,
    /// Those of them that are indexes, or belong to one: nobody else's rows are wanted there.
    pub indexes: Vec<String>,
    /// Tables that were synced, and that the application has dropped or renamed, in lower case: filled in by
    /// `capture`. They are not made again here, and their rows are not wanted, unless the application makes them.
    pub dropped: Vec<String>,
    /// Tables that the application has excluded, and journals that it has not named.
    pub excluded: Vec<String>,
    /// Those of them that are journals, each with the tool whose it is.
    pub journals: Vec<(String, &'static str)>,
    /// What is said of tables and columns that are not here, in words.
    pub notices: Vec<String>,
    /// Why its application has to make the tables that it declares, if nobody else can.
    pub needs_application: Option<NeedsApplication>,
    /// Tables of the tenant that their applications have to make, in lower case.
    pub for_applications: HashSet<String>,
    /// Virtual tables that cannot be used here; the notices name the triggers that write them.
    pub unusable: Vec<String>,
    /// What the application has chosen.
    pub options: SyncOptions,
}

/// A synced table.
#[expect(clippy::struct_excessive_bools, reason = "each says something of the table by itself")]
#[derive(Clone, Debug)]
pub struct Table {
    /// Its number in the bookkeeping; assigned by `capture`, 0 before.
    pub number: i64,
    /// Its name.
    pub name: String,
    /// How a row is found here.
    pub key: Key,
    /// The columns that travel: all but generated ones and the number of a numbered table.
    pub columns: Vec<Column>,
    /// Its definition as SQLite keeps it.
    pub ddl: String,
    /// The definitions of its explicit indexes.
    pub indexes: Vec<String>,
    /// Its foreign keys.
    pub foreign_keys: Vec<ForeignKey>,
    /// By which name its rowid can be reached, if it is no column of its own and none hides it.
    pub hidden_rowid: Option<&'static str>,
    /// What must be unique in it: constraints and unique indexes, a natural PRIMARY KEY included.
    pub unique_keys: Vec<UniqueKey>,
    /// Those of them that can be checked.
    pub parents: Vec<Link>,
    /// Foreign keys of synced tables, this one included, that reference it and can be checked.
    pub children: Vec<Link>,
    /// Generated columns by which rows reference it.
    pub shadows: Vec<Shadow>,
    /// The application's triggers on it, by name.
    pub triggers: Vec<(String, String)>,
    /// What these do, once somebody has had to know.
    pub effects: KnownEffects,
    /// Whether constraints of its own say ON CONFLICT.
    pub resolves_conflicts: bool,
    /// Whether its key is an `INTEGER PRIMARY KEY` that means the same everywhere.
    pub is_global: bool,
    /// Whether rows that come from elsewhere get negative numbers.
    pub numbers_apart: bool,
    /// What this application declares of it besides.
    pub declared: Agreement,
    /// Since when its name stands for it, if it stood for another table before; found by `capture`.
    pub origin: Option<Origin>,
    /// Whether its past has been asked for and has not come yet: what is written here has not seen it.
    pub is_unseen: bool,
}

/// How a row is found in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// By a local number, in the column of this name, which is the rowid's if the table has no PRIMARY KEY.
    Number(String),
    /// By these columns, as positions in [`Table::columns`].
    Natural(Vec<usize>),
}

/// A column that travels.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its number in the bookkeeping; assigned by `capture`, 0 before.
    pub number: u16,
    /// The numbers that it had under other names, before it was renamed, the last first; found by `capture`.
    pub was: Vec<u16>,
    /// The number of the column that had its name before it; found by `capture`.
    pub over: Option<u16>,
    /// How often its name has come to stand for what another column held; found by `capture`.
    pub generation: u8,
    /// What was written to the name before then is of its former meaning; found by `capture`.
    pub since: Hlc,
    /// The first name of what it holds; found by `capture`.
    pub content: String,
    /// Since when its name means something else to others, if it does; found by `capture`.
    pub outgrown: Option<Hlc>,
    /// What its integers are numbers of, if they are numbers of rows.
    pub references: Option<Reference>,
    /// The fingerprint of its default: what old rows hold in a column that was added.
    pub default: u64,
    /// What it makes of a number.
    pub affinity: Affinity,
    /// What a REPLACE stores in it in place of NULL, as SQL.
    pub replacement: Option<String>,
    /// Whether it is part of a foreign key that can be checked.
    pub is_foreign_key: bool,
    /// Whether such a foreign key references it.
    pub is_referenced: bool,
    /// How its writes are merged.
    pub rule: Rule,
}

impl Column {
    /// What is to be told of its name, if that has come to stand for what another column held.
    fn origin(&self) -> Option<Origin> {
        let (column, generation, since) = (self.name.clone(), self.generation, self.since);
        let is_renamed = generation == 0 && !self.content.eq_ignore_ascii_case(&column);
        (is_renamed || generation > 0 && since > Hlc::ZERO).then(|| Origin {
            column,
            generation,
            content: self.content.clone(),
            since,
        })
    }

    /// A digest of what its definition makes of it.
    pub fn shape(&self) -> u64 {
        let replacement = self.replacement.as_deref().unwrap_or_default();
        let text = format!("{:?} {} {replacement}", self.affinity, self.default);
        fingerprint(&Value::Text(text))
    }
}

impl Table {
    /// How the table's rows are identified.
    pub fn key_kind(&self) -> KeyKind {
        match self.key {
            Key::Number(_) => KeyKind::Number,
            Key::Natural(_) => KeyKind::Natural,
        }
    }

    /// Whether it has no PRIMARY KEY: its rows are found by a rowid that `VACUUM` may change.
    pub fn is_keyless(&self) -> bool {
        matches!(&self.key, Key::Number(name) if self.hidden_rowid == Some(name.as_str()))
    }

    /// The names of all columns that are written.
    pub fn all_columns(&self) -> Vec<&str> {
        let number = match &self.key {
            Key::Number(column) if !self.is_keyless() => Some(column.as_str()),
            _ => None,
        };
        number.into_iter().chain(self.columns.iter().map(|column| column.name.as_str())).collect()
    }

    /// The names of the key's columns.
    pub fn key_columns(&self) -> Vec<&str> {
        match &self.key {
            Key::Number(column) => vec![column],
            Key::Natural(positions) => positions.iter().map(|&at| self.columns[at].name.as_str()).collect(),
        }
    }

    /// How many columns the key has.
    pub fn key_width(&self) -> usize {
        match &self.key {
            Key::Number(_) => 1,
            Key::Natural(positions) => positions.len(),
        }
    }

    /// `OR ABORT`, for a statement that writes the table, if anything but that could come of a conflict. It overrules what
    /// triggers say in their own statements, and those that keep indexes may say REPLACE.
    pub fn or_abort(&self) -> &'static str {
        if self.resolves_conflicts { " OR ABORT" } else { "" }
    }

    /// The natural key of a table, if it is the rowid: then no index among these keeps it unique.
    fn rowid_key(&self, indexes: &[UniqueKey]) -> Option<UniqueKey> {
        let is_natural = matches!(self.key, Key::Natural(_));
        let has_index = indexes.iter().any(|key| key.origin == KeyOrigin::PrimaryKey);
        let columns: Vec<String> = self.key_columns().into_iter().map(str::to_owned).collect();
        let part =
            |name: &String| KeyPart { term: KeyTerm::Column(name.clone()), collation: "BINARY".into() };
        (is_natural && !has_index).then(|| UniqueKey {
            index: String::new(),
            origin: KeyOrigin::PrimaryKey,
            parts: columns.iter().map(part).collect(),
            filter: None,
            columns,
            generated: Vec::new(),
        })
    }

    /// The definition as it travels.
    pub fn schema(&self) -> TableSchema {
        TableSchema {
            name: self.name.clone(),
            key: self.key_kind(),
            columns: self.columns.iter().map(|column| column.name.clone()).collect(),
            ddl: self.ddl.clone(),
            indexes: self.indexes.clone(),
            agreed: Agreement {
                key_columns: match self.key {
                    Key::Number(_) => Vec::new(),
                    Key::Natural(_) => self.key_columns().into_iter().map(str::to_owned).collect(),
                },
                is_global: self.is_global,
                origins: self.columns.iter().filter_map(Column::origin).chain(self.origin.clone()).collect(),
                ..self.declared.clone()
            },
        }
    }
}

impl Catalog {
    /// The table of a name, as SQLite compares names.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// The table of a bookkeeping number.
    pub fn numbered(&self, number: i64) -> Option<&Table> {
        self.tables.iter().find(|table| table.number == number)
    }

    /// How many columns the longest key has.
    pub fn key_width(&self) -> usize {
        self.tables.iter().map(Table::key_width).max().unwrap_or(1)
    }

    /// The application's triggers on tables that are shared: table, name and text.
    fn triggers(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.tables.iter().flat_map(|table| {
            let own = table.triggers.iter();
            own.map(|(name, text)| (table.name.as_str(), name.as_str(), text.as_str()))
        })
    }

    /// The definitions as they travel.
    pub fn schemas(&self) -> Vec<TableSchema> {
        self.tables.iter().map(Table::schema).collect()
    }

    /// Reads the schema, as far as it is chosen.
    pub fn read(sql: &mut dyn Sql, choice: &Choice<'_>) -> Result<Self, SqlError> {
        let mut objects = Objects::read(sql)?;
        let columns = read_columns(sql)?;
        let made = TableColumns::read(sql)?;
        let mut unique_keys = read_unique_keys(sql, &made)?;
        let mut foreign_keys = read_foreign_keys(sql)?;
        let mut catalog = Self { options: choice.options().clone(), ..Self::default() };
        catalog.left_alone.extend(objects.views.drain(..).map(|view| (view, "a view".to_owned())));
        for table in &objects.search.virtual_tables {
            if choice.includes(&table.name) {
                catalog.indexes.push(table.name.clone());
                catalog.left_alone.push((table.name.clone(), table.reason()));
            } else {
                catalog.excluded.push(table.name.clone());
            }
        }
        catalog.needs_application = objects.needs_application(sql, &columns, choice.options())?;
        for (name, ddl) in std::mem::take(&mut objects.tables) {
            let own = columns.get(&name).map_or(&[][..], Vec::as_slice);
            let unique_keys = unique_keys.remove(&name).unwrap_or_default();
            let foreign_keys = foreign_keys.remove(&name).unwrap_or_default();
            if !choice.includes(&name) {
                catalog.excluded.push(name);
                continue;
            }
            let names: Vec<&str> = own.iter().map(|column| column.name.as_str()).collect();
            let tool = journals::tool(&name, &names);
            if let Some(tool) = tool.filter(|_| !choice.options().names(&name)) {
                catalog.journals.push((name.clone(), tool));
                catalog.excluded.push(name);
                continue;
            }
            if let Some(why) = objects.search.why_part(&name, choice.options()) {
                catalog.indexes.push(name.clone());
                catalog.left_alone.push((name, why));
                continue;
            }
            if own.iter().filter(|column| !column.is_generated).count() > MAX_COLUMNS {
                catalog.leave_out(name, surplus::too_wide());
                continue;
            }
            match objects.table(&name, ddl, own, foreign_keys, choice.is_global(&name)) {
                Ok(table) => {
                    let rowid_key = table.rowid_key(&unique_keys);
                    let unique_keys = rowid_key.into_iter().chain(unique_keys).collect();
                    catalog.tables.push(Table { unique_keys, ..table });
                }
                Err(why) => catalog.left_alone.push((name, why)),
            }
        }
        catalog.leave_out_surplus(choice);
        catalog.link();
        catalog.link_rows(&columns, &made);
        choice.complete(&mut catalog);
        for table in objects.search.virtual_tables {
            catalog.notices.extend(table.out_of_date(catalog.triggers()));
            catalog.unusable.extend(table.fault.map(|_| table.name));
        }
        catalog.parents_first();
        Ok(catalog)
    }

    /// Orders parents before children, so that a first scan meets a parent before the rows that mean it.
    /// Within a cycle the order is that of the names.
    fn parents_first(&mut self) {
        let mut waiting = std::mem::take(&mut self.tables);
        waiting.sort_by(|a, b| a.name.cmp(&b.name));
        while !waiting.is_empty() {
            let waits = |table: &Table| {
                let referenced = table.columns.iter().filter_map(|column| column.references.as_ref());
                let keys = table.foreign_keys.iter().map(|key| key.parent.as_str());
                referenced.flat_map(Reference::parents).chain(keys).any(|parent| {
                    !parent.eq_ignore_ascii_case(&table.name)
                        && waiting.iter().any(|other| other.name.eq_ignore_ascii_case(parent))
                })
            };
            let next = waiting.iter().position(|table| !waits(table)).unwrap_or(0);
            self.tables.push(waiting.remove(next));
        }
    }
}

/// What `sqlite_master` holds, sorted by kind.
#[derive(Default)]
struct Objects {
    tables: Vec<(String, String)>,
    indexes: Vec<(String, String)>,
    triggers: Vec<(String, String, String)>,
    /// Tables whose key has an index of its own: an `INTEGER PRIMARY KEY DESC` is no alias of the rowid.
    key_indexes: Vec<String>,
    search: SearchIndexes,
    views: Vec<String>,
    without_rowid: Vec<String>,
}

impl Objects {
    fn read(sql: &mut dyn Sql) -> Result<Self, SqlError> {
        let mut objects = Self::default();
        let mut virtual_tables = Vec::new();
        let statement = "SELECT type, name, tbl_name, sql, coalesce(rootpage, 0) FROM main.sqlite_master";
        sql.query(statement, &[], &mut |row| {
            let mut fields = Fields::of(row);
            let (kind, name, table) = (fields.text()?, fields.text()?, fields.text()?);
            let Some(text) = fields.optional_text() else { return Ok(()) };
            if is_internal(&name) || is_internal(&table) {
                return Ok(());
            }
            match kind.as_str() {
                // It has no page of its own.
                "table" if fields.integer()? == 0 => virtual_tables.push((name, text)),
                "table" => objects.tables.push((name, text)),
                "view" => objects.views.push(name),
                "index" => {
                    if is_vector_index(&text) {
                        objects.search.vector_indexes.push(name);
                    }
                    objects.indexes.push((table, text));
                }
                "trigger" => objects.triggers.push((table, name, text)),
                _ => {}
            }
            Ok(())
        })?;
        sql.query("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'", &[], &mut |row| {
            let mut fields = Fields::of(row);
            let (name, kind, without_rowid) = (fields.text()?, fields.text()?, fields.integer()?);
            if kind == "shadow" {
                objects.search.shadows.push(name);
            } else if without_rowid != 0 {
                objects.without_rowid.push(name);
            }
            Ok(())
        })?;
        for (name, text) in virtual_tables {
            objects.search.virtual_tables.push(VirtualTable::look_at(sql, name, &text)?);
        }
        sql.query(
            "SELECT m.name FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS i \
             WHERE m.type = 'table' AND i.origin = 'pk'",
            &[],
            &mut |row| {
                objects.key_indexes.push(Fields::of(row).text()?);
                Ok(())
            },
        )?;
        Ok(objects)
    }

    /// Why the application has to make its tables itself, if it has to.
    fn needs_application(
        &self,
        sql: &mut dyn Sql,
        columns: &HashMap<String, Vec<RawColumn>>,
        options: &SyncOptions,
    ) -> Result<Option<NeedsApplication>, SqlError> {
        let names = |name: &String| {
            columns.get(name).into_iter().flatten().map(|column| column.name.as_str()).collect()
        };
        let tables: Vec<_> = self.tables.iter().map(|(name, _)| (name.as_str(), names(name))).collect();
        let virtual_tables: Vec<_> = self.search.virtual_tables.iter().map(|it| it.name.as_str()).collect();
        let triggers: Vec<_> = self.triggers.iter().map(|(.., text)| text.as_str()).collect();
        Made { tables: &tables, virtual_tables: &virtual_tables, triggers: &triggers }
            .needs_application(sql, options)
    }

    /// A table that can be synced, or why it cannot.
    fn table(
        &self,
        name: &str,
        ddl: String,
        columns: &[RawColumn],
        foreign_keys: Vec<ForeignKey>,
        is_global: bool,
    ) -> Result<Table, String> {
        let mut key: Vec<&RawColumn> = columns.iter().filter(|column| column.key_position > 0).collect();
        key.sort_by_key(|column| column.key_position);
        let has_rowid = !self.without_rowid.iter().any(|other| other == name);
        let has_key_index = self.key_indexes.iter().any(|other| other == name);
        // The column is the rowid, by another name.
        let rowid =
            key.first().filter(|only| key.len() == 1 && only.is_integer && has_rowid && !has_key_index);
        // A key that is another row's number is no number of its own: it is what it references.
        let is_foreign = |only: &RawColumn| {
            foreign_keys.iter().any(|key| {
                !key.parent.eq_ignore_ascii_case(name)
                    && key.columns.iter().any(|(from, _)| from.eq_ignore_ascii_case(&only.name))
            })
        };
        let own_number = rowid.filter(|only| !is_foreign(only)).map(|only| only.name.clone());
        let is_global = is_global && own_number.is_some();
        let number = own_number.filter(|_| !is_global);
        if key.len() > MAX_KEY_COLUMNS {
            return Err(format!("its PRIMARY KEY has more than {MAX_KEY_COLUMNS} columns"));
        }
        let hidden_rowid = hidden_rowid(columns).filter(|_| has_rowid && rowid.is_none());
        let number = match (key.is_empty(), hidden_rowid) {
            (true, Some(name)) => Some(name.to_owned()),
            (true, None) => {
                let why = "it has no PRIMARY KEY, and columns named rowid, _rowid_ and oid hide what tells its rows apart";
                return Err(why.into());
            }
            (false, _) => number,
        };
        let travelling: Vec<Column> = columns
            .iter()
            .filter(|column| !column.is_generated && Some(&column.name) != number.as_ref())
            .map(|column| Column {
                name: column.name.clone(),
                number: 0,
                was: Vec::new(),
                over: None,
                generation: 0,
                since: Hlc::ZERO,
                content: String::new(),
                outgrown: None,
                references: None,
                default: column.default,
                affinity: column.affinity,
                replacement: column.replacement.clone(),
                is_foreign_key: false,
                is_referenced: false,
                rule: Rule::Lww,
            })
            .collect();
        if travelling.is_empty() {
            return Err("it has no column besides its number, which means nothing elsewhere".into());
        }
        let position = |column: &&RawColumn| travelling.iter().position(|c| c.name == column.name);
        let key = if let Some(number) = number {
            Key::Number(number)
        } else {
            let positions: Option<Vec<usize>> = key.iter().map(position).collect();
            Key::Natural(positions.ok_or("its PRIMARY KEY holds a generated column")?)
        };
        let own = |(table, text): &(String, String)| (table == name).then(|| text.clone());
        let triggers = self.triggers.iter().filter(|(table, ..)| table.eq_ignore_ascii_case(name));
        // A text that cannot be read might.
        let resolves_conflicts =
            tokens(&ddl).is_none_or(|tokens| tokens.iter().any(|token| token.is("CONFLICT")));
        Ok(Table {
            number: 0,
            name: name.to_owned(),
            key,
            columns: travelling,
            ddl,
            indexes: self.indexes.iter().filter_map(own).collect(),
            foreign_keys,
            hidden_rowid,
            unique_keys: Vec::new(),
            parents: Vec::new(),
            children: Vec::new(),
            shadows: Vec::new(),
            triggers: triggers.map(|(_, trigger, text)| (trigger.clone(), text.clone())).collect(),
            effects: KnownEffects::default(),
            resolves_conflicts,
            is_global,
            numbers_apart: false,
            declared: Agreement::default(),
            is_unseen: false,
            origin: None,
        })
    }
}

/// The first of the rowid's names that no column has taken.
fn hidden_rowid(columns: &[RawColumn]) -> Option<&'static str> {
    let is_taken = |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !is_taken(name))
}

/// SQLite's own objects and ours.
pub fn is_internal(name: &str) -> bool {
    let begins =
        |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    begins("sqlite_") || begins(PREFIX)
}

/// A name quoted for SQL.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names quoted and separated by commas.
pub fn quote_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// The number of a row, read back.
pub fn as_number(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}
