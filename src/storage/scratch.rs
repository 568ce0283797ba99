//! Databases in which definitions are tried out, and no application's rows are.
//!
//! DDL from the wire is proved harmless before it touches an application's database: it is run in a scratch
//! database that may do nothing but define that one table, and compared with what it should create.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::Null;

use super::catalog::{Catalog, is_internal};
use super::choice::{Choice, SyncOptions};
use super::cost::Cost;
use super::generated::written_out;
use super::sqlite_driver::RusqliteSql;
use crate::model::TableSchema;

/// The longest definition that is looked at, in bytes.
pub const MAX_DDL_BYTES: usize = 64 << 10;

/// How long the generated columns of a table may be when all are written out ([`written_out`]).
const MAX_WRITTEN_OUT: u64 = 10_000;

/// The functions and collations of an application's own that one scratch database stands in for, at most.
const MAX_STAND_INS: usize = 1_000;

/// SQLite's own functions, with their numbers of arguments, that can cost out of all proportion to what they are given: the
/// product of two lengths, or whatever length a number says.
const COSTLY: [(&str, i32); 12] = [
    ("format", -1),
    ("glob", 2),
    ("instr", 2),
    ("like", 2),
    ("like", 3),
    ("ltrim", 2),
    ("printf", -1),
    ("replace", 3),
    ("rtrim", 2),
    ("trim", 2),
    ("unhex", 2),
    ("zeroblob", 1),
];

/// The longest value that may come up where an expression is evaluated at others' cost, in bytes.
const MAX_VALUE_BYTES: i32 = 1 << 18;

/// The longest program that such an expression may be translated to, in instructions.
const MAX_INSTRUCTIONS: i32 = 100_000;

/// A database in memory that takes definitions which name functions and collations of an application's own. In
/// the place of such a function stands one that is NULL and tells that it was asked; such a collation compares
/// bytes.
pub struct Scratch {
    /// The database.
    pub sql: RusqliteSql,
    /// Whether a stand-in was asked since somebody looked.
    was_asked: Arc<AtomicBool>,
    stand_ins: usize,
}

impl Scratch {
    /// An empty one.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn open() -> Result<Self, rusqlite::Error> {
        let connection = Connection::open_in_memory()?;
        connection.collation_needed(|connection, name| connection.create_collation(name, str::cmp))?;
        let sql = RusqliteSql::new(connection);
        Ok(Self { sql, was_asked: Arc::default(), stand_ins: 0 })
    }

    /// Runs one statement that defines something.
    ///
    /// # Errors
    /// What SQLite says of it, in words.
    pub fn define(&mut self, text: &str) -> Result<(), String> {
        loop {
            let outcome = self.sql.connection().prepare(text).and_then(|mut statement| statement.execute([]));
            let Err(error) = outcome else { return Ok(()) };
            match missing_function(&error) {
                Some(name) if self.stand_ins < MAX_STAND_INS => {
                    self.stand_in_for(name).map_err(|error| error.to_string())?;
                }
                _ => return Err(error.to_string()),
            }
        }
    }

    /// Runs one statement that may define a table or an index, and nothing else.
    ///
    /// # Errors
    /// What SQLite says of it, in words; it may have defined another one than was meant.
    pub fn define_guarded(&mut self, text: &str) -> Result<(), String> {
        let guard = |scratch: &mut Self, guard: Option<fn(AuthContext<'_>) -> Authorization>| {
            scratch.sql.connection().authorizer(guard).map_err(|error| error.to_string())
        };
        guard(self, Some(only_definitions))?;
        let outcome = self.define(text);
        guard(self, None)?;
        outcome
    }

    /// Bounds what an expression can cost, in which strangers may have written anything: functions of SQLite's whose cost is
    /// out of proportion are stood in for like an application's own.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn bound_cost(&mut self) -> Result<(), rusqlite::Error> {
        self.sql.connection().set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)?;
        self.sql.connection().set_limit(Limit::SQLITE_LIMIT_VDBE_OP, MAX_INSTRUCTIONS)?;
        COSTLY.iter().try_for_each(|(function, arguments)| self.take_the_place_of(function, *arguments))
    }

    fn stand_in_for(&mut self, function: &str) -> Result<(), rusqlite::Error> {
        self.stand_ins += 1;
        self.take_the_place_of(function, -1)
    }

    fn take_the_place_of(&mut self, function: &str, arguments: i32) -> Result<(), rusqlite::Error> {
        let was_asked = Arc::clone(&self.was_asked);
        // An index may be over this only; and SQLite holds other functions back from a definition.
        let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
        self.sql.connection().create_scalar_function(function, arguments, flags, move |_| {
            was_asked.store(true, Ordering::Relaxed);
            Ok(Null)
        })
    }

    /// What comes of some work; none if it asked a function of an application's own.
    pub fn evaluate<T>(&mut self, work: impl FnOnce(&mut RusqliteSql) -> T) -> Option<T> {
        self.was_asked.store(false, Ordering::Relaxed);
        let outcome = work(&mut self.sql);
        (!self.was_asked.load(Ordering::Relaxed)).then_some(outcome)
    }
}

/// The function that SQLite has never heard of, if that is what it complains of.
fn missing_function(error: &rusqlite::Error) -> Option<&str> {
    let message = match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg,
        rusqlite::Error::SqliteFailure(_, Some(message)) => message,
        _ => return None,
    };
    message.strip_prefix("no such function: ")
}

/// Checks that the definition makes exactly the table that it claims, and its indexes, and nothing else.
///
/// # Errors
/// What is wrong with it, in words; the table is then not made, and its rows are set aside.
pub fn prove_harmless(table: &TableSchema) -> Result<(), String> {
    let texts = || std::iter::once(&table.ddl).chain(&table.indexes);
    if is_internal(&table.name) {
        return Err(format!("the name {:?} is reserved", table.name));
    }
    if texts().map(String::len).sum::<usize>() > MAX_DDL_BYTES {
        return Err(format!("its definition exceeds {MAX_DDL_BYTES} bytes"));
    }
    if written_out(&table.ddl) > MAX_WRITTEN_OUT {
        return Err("its generated columns are made of one another too often".into());
    }
    // SQLite evaluates what is constant in an index even as it makes that in an empty table.
    let mut cost = Cost::of_table(&table.ddl)?;
    table.indexes.iter().try_for_each(|index| cost.add(index))?;
    let mut scratch = Scratch::open().map_err(|error| error.to_string())?;
    texts().try_for_each(|text| scratch.define_guarded(text))?;
    // Whatever it may look like, somebody shares it.
    let include = Some(vec!["*".to_owned(), table.name.clone()]);
    let options = SyncOptions { include, ..SyncOptions::default() };
    let agreed = [(table.name.to_lowercase(), table.agreed.clone())].into();
    let catalog =
        Catalog::read(&mut scratch.sql, &Choice::new(&options, agreed)).map_err(|error| error.to_string())?;
    match &catalog.tables[..] {
        [made] if is_as_claimed(&made.schema(), table) => Ok(()),
        [made] => Err(format!("its definition makes another table than it claims: {:?}", made.schema())),
        _ => Err("its definition makes no table that can be synced".into()),
    }
}

/// Columns that other agents added later are among those claimed, and not in the first definition. Rules,
/// references and origins are in no definition. Names are the same in either case, as they are to SQLite.
fn is_as_claimed(made: &TableSchema, claimed: &TableSchema) -> bool {
    let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>();
    let columns: HashSet<String> = lower(&claimed.columns).into_iter().collect();
    let has_its_key = lower(&made.agreed.key_columns) == lower(&claimed.agreed.key_columns);
    lower(&made.columns).iter().all(|column| columns.contains(column))
        && has_its_key
        && made.name.eq_ignore_ascii_case(&claimed.name)
        && made.agreed.is_global == claimed.agreed.is_global
        && (made.key, &made.ddl, &made.indexes) == (claimed.key, &claimed.ddl, &claimed.indexes)
}

/// Lets a statement define tables and indexes, and compute; no trigger, no view, no attached file, no rows.
fn only_definitions(context: AuthContext<'_>) -> Authorization {
    let is_schema = |name: &str| matches!(name, "sqlite_master" | "sqlite_sequence");
    match context.action {
        AuthAction::CreateTable { .. }
        | AuthAction::CreateIndex { .. }
        | AuthAction::Reindex { .. }
        | AuthAction::Read { .. }
        | AuthAction::Function { .. } => Authorization::Allow,
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
            if is_schema(table_name) =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Agreement, KeyKind};
    use crate::storage::driver::Sql;

    fn table(ddl: &str, indexes: &[&str]) -> TableSchema {
        TableSchema {
            name: "notes".into(),
            key: KeyKind::Natural,
            columns: vec!["id".into(), "title".into()],
            ddl: ddl.into(),
            indexes: indexes.iter().map(|&index| index.into()).collect(),
            agreed: Agreement { key_columns: vec!["id".into()], ..Agreement::default() },
        }
    }

    const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT DEFAULT (datetime('now')))";

    #[test]
    fn an_ordinary_table_with_its_indexes_passes() {
        let indexes = ["CREATE UNIQUE INDEX by_title ON notes(lower(title)) WHERE title IS NOT NULL"];
        assert_eq!(prove_harmless(&table(NOTES, &indexes)), Ok(()));
    }

    #[test]
    fn functions_and_collations_of_an_applications_own_are_stood_in_for() {
        let ddl = "CREATE TABLE notes(id TEXT COLLATE own PRIMARY KEY, title TEXT CHECK(ours(title) > 1))";
        let indexes = ["CREATE UNIQUE INDEX by_title ON notes(slug(title, 'x')) WHERE ours(id)"];
        assert_eq!(prove_harmless(&table(ddl, &indexes)), Ok(()));
    }

    #[test]
    fn a_stand_in_tells_that_it_was_asked() {
        let mut scratch = Scratch::open().unwrap();
        scratch.define("CREATE TABLE t(a, b AS (ours(a)))").unwrap();
        let mut ask = |text: &str| scratch.evaluate(|sql| sql.query_row(text, &[]).unwrap());
        assert!(ask("SELECT ours(1)").is_none());
        assert!(ask("SELECT abs(1)").is_some());
    }

    /// Breaks if whoever may write a definition can keep a thread busy with it that others wait for.
    #[test]
    fn functions_that_cost_more_than_they_are_given_are_left_to_whoever_asks() {
        let mut scratch = Scratch::open().unwrap();
        scratch.bound_cost().unwrap();
        let mut ask = |text: &str| {
            scratch
                .evaluate(|sql| sql.query_row(&format!("SELECT {text}"), &[]).map(Option::unwrap_or_default))
        };
        for costly in [
            "instr('ab', 'b')",
            "replace('a', 'b', 'c')",
            "printf('%9d', 1)",
            "format('%9d', 1)",
            "zeroblob(9)",
            "'a' LIKE 'b'",
            "'a' NOT LIKE 'b' ESCAPE 'c'",
            "'a' GLOB 'b'",
            "trim('a', 'b')",
            "ltrim('a', 'b')",
            "rtrim('a', 'b')",
            "unhex('00 00', ' ')",
        ] {
            assert!(ask(costly).is_none(), "{costly}");
        }
        for cheap in ["lower('A')", "trim(' a ')", "coalesce(NULL, 1)", "substr('abc', 2)", "1 IN (1, 2)"] {
            assert!(ask(cheap).is_some_and(|answer| answer.is_ok()), "{cheap}");
        }
        let long = format!("{}'0123456789'{}", "hex(".repeat(20), ")".repeat(20));
        assert!(ask(&long).is_some_and(|answer| answer.is_err()));
    }

    #[test]
    fn a_database_stands_in_for_so_many_functions_only() {
        let mut scratch = Scratch::open().unwrap();
        let asking = |from: usize, to: usize| {
            let calls: Vec<String> = (from..to).map(|n| format!("ours{n}(1)")).collect();
            format!("CREATE TABLE t{from} AS SELECT 1 AS a WHERE {}", calls.join(" OR "))
        };
        for from in (0..MAX_STAND_INS).step_by(500) {
            scratch.define(&asking(from, from + 500)).unwrap();
        }
        assert!(scratch.define(&asking(MAX_STAND_INS, MAX_STAND_INS + 1)).is_err());
    }

    #[test]
    fn a_global_number_and_rules_pass_and_another_key_does_not() {
        let ddl = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)";
        let mut global = table(ddl, &[]);
        global.agreed.is_global = true;
        global.agreed.rules = vec![("title".into(), crate::model::Rule::Max)];
        assert_eq!(prove_harmless(&global), Ok(()));
        global.agreed.key_columns = vec!["title".into()];
        assert!(prove_harmless(&global).is_err());
    }

    #[test]
    fn whatever_does_more_than_define_the_table_is_refused() {
        for ddl in [
            "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT); DROP TABLE secrets",
            "CREATE TABLE other(id TEXT PRIMARY KEY, title TEXT)",
            "CREATE TABLE notes AS SELECT 1 AS id, 2 AS title",
            "CREATE TEMP TABLE notes(id TEXT PRIMARY KEY, title TEXT)",
            "CREATE VIEW notes AS SELECT 1 AS id, 2 AS title",
            "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, extra)",
            "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)",
            "ATTACH '/tmp/x' AS x",
            "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT CHECK(instr(zeroblob(4e8), title) = 0))",
            "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT DEFAULT (hex(randomblob(400000000))))",
            "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, g AS (printf('%*d', 400000000, 1)) STORED)",
            "not SQL",
            "",
        ] {
            assert!(prove_harmless(&table(ddl, &[])).is_err(), "{ddl}");
        }
        let doubled: Vec<_> = (1..60).map(|n| format!(", g{n} AS (g{0} || g{0})", n - 1)).collect();
        let chain =
            format!("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, g0 AS (title){})", doubled.concat());
        assert!(prove_harmless(&table(&chain, &[])).unwrap_err().contains("generated columns"));
        let trigger = "CREATE TRIGGER evil AFTER INSERT ON notes BEGIN DELETE FROM notes; END";
        assert!(prove_harmless(&table(NOTES, &[trigger])).is_err());
        let reserved = TableSchema { name: "_federation_row".into(), ..table(NOTES, &[]) };
        assert!(prove_harmless(&reserved).is_err());
    }
}
