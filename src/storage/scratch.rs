//! DDL from the wire is proved harmless before it touches an application's database: it is run in a scratch
//! database that may do nothing but define that one table, and compared with what it should create.

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::catalog::{Catalog, is_internal};
use super::choice::{Choice, SyncOptions};
use super::sqlite_driver::RusqliteSql;
use crate::model::{Agreement, TableSchema};

/// The longest definition that is looked at, in bytes.
const MAX_DDL_BYTES: usize = 64 << 10;

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
    let mut connection = Connection::open_in_memory().map_err(|error| error.to_string())?;
    connection.authorizer(Some(only_definitions)).map_err(|error| error.to_string())?;
    for text in texts() {
        let mut statement = connection.prepare(text).map_err(|error| error.to_string())?;
        statement.execute([]).map_err(|error| error.to_string())?;
    }
    connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(|error| error.to_string())?;
    let mut sql = RusqliteSql::new(connection);
    let options = SyncOptions::default();
    let agreed = [(table.name.to_lowercase(), table.agreed.clone())].into();
    let catalog =
        Catalog::read(&mut sql, &Choice::new(&options, agreed)).map_err(|error| error.to_string())?;
    match &catalog.tables[..] {
        [made] if is_as_claimed(&made.schema(), table) => Ok(()),
        [made] => Err(format!("its definition makes another table than it claims: {:?}", made.schema())),
        _ => Err("its definition makes no table that can be synced".into()),
    }
}

/// Columns that other agents added later are among those claimed, and not in the first definition. Rules and
/// references are in no definition.
fn is_as_claimed(made: &TableSchema, claimed: &TableSchema) -> bool {
    let columns = claimed.columns.clone();
    let Agreement { rules, references, .. } = claimed.agreed.clone();
    let agreed = Agreement { rules, references, ..made.agreed.clone() };
    made.columns.iter().all(|column| columns.contains(column))
        && TableSchema { columns, agreed, ..made.clone() } == *claimed
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
    use crate::model::KeyKind;

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
            "not SQL",
            "",
        ] {
            assert!(prove_harmless(&table(ddl, &[])).is_err(), "{ddl}");
        }
        let trigger = "CREATE TRIGGER evil AFTER INSERT ON notes BEGIN DELETE FROM notes; END";
        assert!(prove_harmless(&table(NOTES, &[trigger])).is_err());
        let reserved = TableSchema { name: "_federation_row".into(), ..table(NOTES, &[]) };
        assert!(prove_harmless(&reserved).is_err());
    }
}
