//! What an application does to its schema between two syncs.

use crate::world::{Agent, Counts, pair, settle, text};
use federation_hub::model::Value;
use federation_hub::storage::migrate;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body)";
const TASKS: &str = "CREATE TABLE tasks(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, done INTEGER)";

/// Changes a schema as `FederationHub.migrate` does.
fn migrated(agent: &mut Agent, statements: &str) {
    let claim = agent.claim();
    migrate::begin(&mut agent.sql, claim).unwrap();
    agent.run(statements);
    migrate::end(&mut agent.sql).unwrap();
}

#[test]
fn what_a_migration_changes_is_found_afterwards() {
    let schema = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body, kind);
         CREATE UNIQUE INDEX by_kind ON notes(kind, title)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO notes VALUES('v', 'zero', 0, 1), ('x', 'one', 1, 1), ('y', 'two', 2, 1), ('z', 'three', 3, 1)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    a.run("UPDATE notes SET body = 'before' WHERE id = 'v'");
    migrated(
        &mut a,
        "DROP INDEX by_kind; ALTER TABLE notes DROP COLUMN kind; UPDATE notes SET body = 'within' WHERE id = 'x';
         DELETE FROM notes WHERE id = 'y'; INSERT INTO notes VALUES('w', 'four', 4)",
    );
    let counts = a.sync(&mut hub);
    assert_eq!((counts.pushed, counts.quarantined), (4, 0), "v, x, y, w");
    assert_eq!(a.sync(&mut hub), Counts::default());
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, body FROM notes ORDER BY id");
    let three = Value::Integer(3);
    let expected = [("v", text("before")), ("w", Value::Integer(4)), ("x", text("within")), ("z", three)];
    assert_eq!(rows, expected.map(|(id, body)| vec![text(id), body]));
    a.run("UPDATE notes SET body = 'captured again' WHERE id = 'z'");
    assert_eq!(a.sync(&mut hub).pushed, 1);
}

#[test]
fn a_table_rebuilt_in_a_migration_keeps_its_rows_and_those_left_out_are_deletes() {
    let (mut hub, mut a, mut b) = pair(TASKS);
    a.run("INSERT INTO tasks(title, done) VALUES('one', 0), ('two', 1), ('three', 0)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM tasks");
    migrated(
        &mut a,
        "CREATE TABLE new(id INTEGER PRIMARY KEY, title TEXT NOT NULL, done INTEGER);
         INSERT INTO new SELECT id, title, done FROM tasks WHERE NOT done;
         DROP TABLE tasks; ALTER TABLE new RENAME TO tasks; UPDATE tasks SET title = 'uno' WHERE id = 1",
    );
    assert_eq!(a.sync(&mut hub).pushed, 2);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, title FROM tasks");
    assert_eq!(rows, [(1, "uno"), (3, "three")].map(|(id, title)| vec![Value::Integer(id), text(title)]));
}

#[test]
fn a_migration_that_dies_in_the_middle_loses_nothing() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    let copy = a.copy();
    a.restore(&copy);
    a.run("INSERT INTO notes VALUES('x', 'one', 1), ('y', 'two', 2)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    let claim = a.claim();
    migrate::begin(&mut a.sql, claim).unwrap();
    a.run("UPDATE notes SET body = 'within' WHERE id = 'x'; DELETE FROM notes WHERE id = 'y'");
    a.reopen();
    assert_eq!(a.sync(&mut hub).pushed, 2);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, body FROM notes ORDER BY id");
    assert_eq!(rows, vec![vec![text("x"), text("within")]]);
}

#[test]
fn a_migration_inside_a_transaction_or_before_the_first_sync() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    migrated(&mut a, "INSERT INTO notes VALUES('x', 'one', 1)");
    a.sync(&mut hub);
    let claim = a.claim();
    a.run("BEGIN");
    let refused = migrate::begin(&mut a.sql, claim).unwrap_err();
    assert!(refused.message.contains("outside of it"), "{refused}");
    a.run("COMMIT");
    migrate::begin(&mut a.sql, claim).unwrap();
    a.run("BEGIN").run("DELETE FROM notes");
    let refused = migrate::end(&mut a.sql).unwrap_err();
    assert!(refused.message.contains("COMMIT or ROLLBACK"), "{refused}");
    a.run("ROLLBACK").run("UPDATE notes SET body = 'kept'");
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes").len(), 1);
    assert_eq!(b.rows("SELECT body FROM notes"), vec![vec![text("kept")]]);
}
