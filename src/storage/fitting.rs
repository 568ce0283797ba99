//! The definitions of one table, tried out beside each other: what its text makes, and which indexes fit on it.

use std::collections::{BTreeSet, HashSet};

use super::catalog::quote;
use super::cost::Cost;
use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::generated::TableColumns;
use super::scratch::{MAX_DDL_BYTES, Scratch, prove_harmless};
use super::sql_text::{Token, first_list, span, tokens};
use super::table_info::read_foreign_keys;
use super::unique_index::{KeyOrigin, read_unique_keys};
use crate::model::TableSchema;

/// The most indexes of one table that are looked at.
const MAX_INDEXES: usize = 64;

/// A table in a scratch database, and the indexes that fit on it so far.
pub struct Fitting {
    scratch: Scratch,
    table: TableSchema,
    bytes: usize,
    made: Made,
}

/// What the text of a table makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// The names of all its columns, generated ones included.
    pub columns: Vec<String>,
    /// The same, in lower case.
    names: HashSet<String>,
    /// What it asks of rows, besides its key, each in words of its own.
    constraints: BTreeSet<String>,
    /// Columns that take no NULL, and have a default.
    defaulted: BTreeSet<String>,
}

impl Made {
    /// Whether it has a column of this name.
    pub fn has(&self, column: &str) -> bool {
        self.names.contains(&column.to_ascii_lowercase())
    }

    /// Whether it asks something of rows that live under `other`, which that one does not. A column that nobody else
    /// has (`is_new`) may have a default in place of NULL.
    pub fn is_stricter_than(&self, other: &Self, is_new: &dyn Fn(&str) -> bool) -> bool {
        !self.constraints.is_subset(&other.constraints)
            || self.defaulted.iter().any(|column| !other.defaulted.contains(column) && !is_new(column))
    }

    /// Of a database with this one table.
    fn read(sql: &mut dyn Sql, ddl: &str) -> Result<Self, SqlError> {
        let query =
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'";
        let table = &Fields::from(sql.query_row(query, &[])?.unwrap_or_default()).text()?;
        let mut made = Self::default();
        let query = format!("SELECT name, \"notnull\", dflt_value FROM pragma_table_xinfo({})", text(table));
        sql.query(&query, &[], &mut |row| {
            let mut fields = Fields::of(row);
            let (name, is_required, default) =
                (fields.text()?, fields.integer()? != 0, fields.optional_text());
            if is_required && default.is_some() {
                made.defaulted.insert(name.to_lowercase());
            } else if is_required {
                made.constraints.insert(format!("NOT NULL {}", name.to_lowercase()));
            }
            made.names.insert(name.to_ascii_lowercase());
            made.columns.push(name);
            Ok(())
        })?;
        let columns = TableColumns::read(sql)?;
        let keys = read_unique_keys(sql, &columns)?;
        let own = keys.get(table).into_iter().flatten().filter(|key| key.origin != KeyOrigin::Index);
        made.constraints.extend(own.map(|key| format!("UNIQUE {:?}", key.parts).to_lowercase()));
        let references = read_foreign_keys(sql)?;
        for key in references.get(table).into_iter().flatten() {
            let reference = format!("REFERENCES {} {:?}", key.parent, key.columns);
            made.constraints.insert(reference.to_lowercase());
        }
        made.constraints.extend(conditions(ddl));
        Ok(made)
    }
}

impl Fitting {
    /// Begins with the text that makes a table; its indexes are not looked at.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn new(table: &TableSchema) -> Result<Self, String> {
        let table = TableSchema { indexes: Vec::new(), ..table.clone() };
        prove_harmless(&table)?;
        let (scratch, made) = begin(&table)?;
        let bytes = table.ddl.len();
        Ok(Self { scratch, table, bytes, made })
    }

    /// What the text makes.
    pub fn made(&self) -> &Made {
        &self.made
    }

    /// Adds an index.
    ///
    /// # Errors
    /// Why it does not fit, in words.
    pub fn add(&mut self, index: &str) -> Result<(), String> {
        let bytes = self.bytes + index.len();
        if bytes > MAX_DDL_BYTES || self.table.indexes.len() == MAX_INDEXES {
            return Err(format!(
                "a table's definitions have {MAX_DDL_BYTES} bytes, and {MAX_INDEXES} indexes, at most"
            ));
        }
        let mut cost = Cost::of_table(&self.table.ddl)?;
        self.table.indexes.iter().chain([&index.to_owned()]).try_for_each(|index| cost.add(index))?;
        let defined = self.scratch.define_guarded(index);
        let wrong = match defined {
            Err(why) => Some(why),
            Ok(()) => self.surplus(index),
        };
        if let Some(why) = wrong {
            // It may have made something else.
            (self.scratch, _) = begin(&self.table)?;
            for index in &self.table.indexes {
                self.scratch.define_guarded(index)?;
            }
            return Err(why);
        }
        self.bytes = bytes;
        self.table.indexes.push(index.to_owned());
        Ok(())
    }

    /// Why what was defined last is not this index of the table and nothing else, if so.
    fn surplus(&mut self, index: &str) -> Option<String> {
        let (mut own, mut all) = (Vec::new(), 0);
        let read = self.scratch.sql.query(
            "SELECT type, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!'",
            &[],
            &mut |row| {
                let mut fields = Fields::of(row);
                let (kind, table, text) = (fields.text()?, fields.text()?, fields.text()?);
                all += 1;
                if kind == "index" && table.eq_ignore_ascii_case(&self.table.name) {
                    own.push(text);
                }
                Ok(())
            },
        );
        if let Err(error) = read {
            return Some(error.to_string());
        }
        let count = self.table.indexes.len() + 1;
        let is_it = own.len() == count && all == count + 1 && own.iter().any(|text| text == index);
        (!is_it).then(|| "it is not an index of this table alone, as SQLite keeps one".to_owned())
    }

    /// Takes the index back that was added last.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn remove_last(&mut self) -> Result<(), SqlError> {
        if let Some(index) = self.table.indexes.pop() {
            self.bytes -= index.len();
            if let Some(name) = index_name(&index) {
                self.scratch.sql.run(&format!("DROP INDEX {}", quote(&name)))?;
            }
        }
        Ok(())
    }

    /// The table with all that fits on it so far.
    pub fn table(&self) -> &TableSchema {
        &self.table
    }

    /// The table with all that fits on it.
    pub fn into_table(self) -> TableSchema {
        self.table
    }

    /// The text of the table with one more column, defined as another text of the table defines it.
    ///
    /// # Errors
    /// Why it cannot be added, in words.
    pub fn with_column(&self, column: &str, other: &str) -> Result<Self, String> {
        let definition = column_definition(other, column).ok_or("its definition cannot be found")?;
        let (mut scratch, _) = begin(&self.table)?;
        let name = &self.table.name;
        let add = format!("ALTER TABLE {} ADD COLUMN {definition}", quote(name));
        scratch.define(&add)?;
        let query = format!(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = {} COLLATE NOCASE",
            text(name)
        );
        let row = scratch.sql.query_row(&query, &[]).map_err(|error| error.to_string())?;
        let ddl = row.and_then(|row| Fields::from(row).text().ok()).ok_or("it makes no table")?;
        let made = Self::new(&TableSchema { ddl, ..self.table.clone() })?;
        if made.made().has(column) { Ok(made) } else { Err("it makes another column".into()) }
    }
}

fn begin(table: &TableSchema) -> Result<(Scratch, Made), String> {
    let mut scratch = Scratch::open().map_err(|error| error.to_string())?;
    scratch.define_guarded(&table.ddl)?;
    let made = Made::read(&mut scratch.sql, &table.ddl).map_err(|error| error.to_string())?;
    Ok((scratch, made))
}

/// A definition as far as it is harmless, and what is left out of it, in words.
///
/// # Errors
/// The table itself cannot be made, and why.
pub fn fitting(table: &TableSchema) -> Result<(TableSchema, Vec<String>), String> {
    if prove_harmless(table).is_ok() {
        return Ok((table.clone(), Vec::new()));
    }
    let mut fitting = Fitting::new(table)?;
    let mut left_out = Vec::new();
    for index in &table.indexes {
        if let Err(why) = fitting.add(index) {
            left_out.push(format!("an index of table {} is not made here: {why}", table.name));
        }
    }
    Ok((fitting.into_table(), left_out))
}

/// The name of an index, in lower case.
pub fn index_name(index: &str) -> Option<String> {
    let tokens = tokens(index)?;
    let at = tokens.iter().position(|token| token.is("INDEX"))?;
    Some(tokens.get(at + 1)?.name()?.to_lowercase())
}

/// The names in an index that can be columns.
pub fn index_columns(index: &str) -> Vec<String> {
    index.find('(').map(|at| super::sql_text::names(&index[at..])).unwrap_or_default()
}

/// The conditions that a `CREATE TABLE` asks rows to meet, and whether it insists on types.
fn conditions(ddl: &str) -> BTreeSet<String> {
    let tokens = tokens(ddl).unwrap_or_default();
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_check = token.is("CHECK") && tokens.get(at + 1).is_some_and(|next| next.is("("));
        if let Some((parts, _)) = is_check.then(|| first_list(&tokens[at..])).flatten() {
            let words = |part: &&[Token<'_>]| part.iter().map(|it| it.text).collect::<Vec<_>>().join(" ");
            found.insert(format!("CHECK {}", parts.iter().map(words).collect::<Vec<_>>().join(", ")));
        }
    }
    if let Some((_, rest)) = first_list(&tokens)
        && rest.iter().any(|token| token.is("STRICT"))
    {
        found.insert(format!("STRICT {ddl}"));
    }
    found
}

/// How a `CREATE TABLE` defines a column.
fn column_definition(ddl: &str, column: &str) -> Option<String> {
    let tokens = tokens(ddl)?;
    let (parts, _) = first_list(&tokens)?;
    let is_it = |part: &&&[Token<'_>]| {
        part.first().and_then(Token::name).is_some_and(|name| name.eq_ignore_ascii_case(column))
    };
    Some(span(ddl, parts.iter().find(is_it)?)?.to_owned())
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Agreement, KeyKind};

    fn table(columns: &[&str], rest: &str) -> TableSchema {
        TableSchema {
            name: "t".into(),
            key: KeyKind::Natural,
            columns: columns.iter().map(|&column| column.into()).collect(),
            ddl: format!("CREATE TABLE t(id TEXT PRIMARY KEY{rest})"),
            indexes: Vec::new(),
            agreed: Agreement { key_columns: vec!["id".into()], ..Agreement::default() },
        }
    }

    #[test]
    fn what_does_not_fit_switches_off_nothing_else() {
        let indexes = [
            "CREATE UNIQUE INDEX one ON t(a)",
            "CREATE INDEX two ON t(missing)",
            "CREATE INDEX one ON t(a, id)",
            "DROP TABLE t",
            "CREATE TABLE other(x)",
            "CREATE TRIGGER evil AFTER INSERT ON t BEGIN DELETE FROM t; END",
            "CREATE INDEX IF NOT EXISTS three ON t(a)",
            "garbage",
            "",
            // What is constant in it would be evaluated as the index is made.
            "CREATE INDEX five ON t(a) WHERE instr(zeroblob(400000000), zeroblob(200000000) || 'x')",
            "CREATE INDEX four ON t(lower(a)) WHERE a > 'x'",
        ];
        let mut all = table(&["id", "a"], ", a");
        all.indexes = indexes.iter().map(|&index| index.into()).collect();
        let (fits, left_out) = fitting(&all).unwrap();
        assert_eq!(fits.indexes, [indexes[0], indexes[10]]);
        assert_eq!(left_out.len(), 9, "{left_out:?}");
        assert_eq!(prove_harmless(&fits), Ok(()));
        all.ddl = "CREATE TABLE t(id TEXT PRIMARY KEY, b)".into();
        assert!(fitting(&all).is_err());
    }

    #[test]
    fn a_text_is_stricter_by_what_it_asks_of_rows() {
        let columns = ["id", "a", "b"];
        let made = |rest: &str| Fitting::new(&table(&columns, rest)).unwrap().made().clone();
        let plain = made(", a, b");
        let nothing = |_: &str| false;
        for strict in [
            ", a NOT NULL, b",
            ", a NOT NULL DEFAULT 1, b",
            ", a CHECK(a > 1), b",
            ", a UNIQUE, b",
            ", a REFERENCES p, b",
            ", a, b, CHECK(a < b)",
        ] {
            let strict = made(strict);
            assert!(strict.is_stricter_than(&plain, &nothing));
            assert!(!plain.is_stricter_than(&strict, &nothing));
            assert!(!strict.is_stricter_than(&strict, &nothing));
        }
        assert!(!made(", a NOT NULL DEFAULT 1, b").is_stricter_than(&plain, &|column| column == "a"));
        assert!(!made(",\n a TEXT, b DEFAULT 'CHECK(0)'").is_stricter_than(&plain, &nothing));
        assert!(!made(", a CHECK ( a>1 ), b").is_stricter_than(&made(", a CHECK(a > 1), b"), &nothing));
    }

    #[test]
    fn a_column_is_added_as_another_text_defines_it() {
        let one = Fitting::new(&table(&["id", "a", "b"], ", a")).unwrap();
        let other = "CREATE TABLE t(id TEXT PRIMARY KEY, \"B\" TEXT DEFAULT (',') /* , */, c)";
        let both = one.with_column("b", other).unwrap().into_table();
        assert_eq!(both.ddl, "CREATE TABLE t(id TEXT PRIMARY KEY, a, \"B\" TEXT DEFAULT (','))");
        assert!(one.with_column("z", other).is_err());
        assert!(one.with_column("id", other).is_err());
    }

    #[test]
    fn an_index_is_named_and_reads_columns() {
        let index = "CREATE UNIQUE INDEX \"By Name\" ON t(lower(a), \"b\") WHERE c > 'd'";
        assert_eq!(index_name(index).as_deref(), Some("by name"));
        let columns = index_columns(index);
        assert!(["a", "b", "c"].iter().all(|it| columns.contains(&(*it).to_owned())), "{columns:?}");
        assert_eq!(index_name("CREATE INDEX"), None);
    }
}
