//! What an application does to its schema between two syncs.

use crate::world::parts::text;
use crate::world::{Agent, Counts, Fate, pair, settle};
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

#[test]
fn a_renamed_column_takes_its_values_along() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 1), ('y', 'two', 2), ('z', NULL, 3)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    a.run("ALTER TABLE notes RENAME COLUMN title TO name");
    assert_eq!(a.sync(&mut hub).pushed, 3);
    assert_eq!(a.sync(&mut hub), Counts::default());
    let mut fresh = Agent::new("acme", "fresh", 3);
    fresh.run("CREATE TABLE notes(id TEXT PRIMARY KEY, name TEXT, body)").sync(&mut hub);
    assert_eq!(fresh.rows("SELECT * FROM notes ORDER BY id"), a.rows("SELECT * FROM notes ORDER BY id"));
    // An agent with the old name neither loses its own column, nor blocks the new one.
    b.run("UPDATE notes SET title = 'by b', body = 'by b' WHERE id = 'x'").sync(&mut hub);
    a.sync(&mut hub);
    assert_eq!(a.rows("SELECT name, body FROM notes WHERE id = 'x'"), vec![vec![text("one"), text("by b")]]);
    // Once it renames the column, the latest write of either name stays.
    a.run("UPDATE notes SET name = 'by a' WHERE id = 'y'").sync(&mut hub);
    b.run("ALTER TABLE notes RENAME COLUMN title TO name");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, name FROM notes ORDER BY id");
    let expected = [("x", text("by b")), ("y", text("by a")), ("z", Value::Null)];
    assert_eq!(rows, expected.map(|(id, name)| vec![text(id), name]));
}

#[test]
fn a_rename_beats_no_write_that_was_made_since() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 1)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    a.run("ALTER TABLE notes RENAME COLUMN title TO name; UPDATE notes SET name = 'edited'").sync(&mut hub);
    // It has not heard of the edit, and renames the column later.
    b.skew_ms = -3_600_000;
    b.run("ALTER TABLE notes RENAME COLUMN title TO name");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT name FROM notes");
    assert_eq!(rows, vec![vec![text("edited")]]);
}

#[test]
fn a_column_that_is_dropped_and_comes_back_clears_nobodys_values() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body)");
    a.run("INSERT INTO notes VALUES('x', 'one', 1), ('y', 'two', 2)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    a.run("ALTER TABLE notes DROP COLUMN title");
    assert_eq!(a.sync(&mut hub), Counts::default());
    a.run("ALTER TABLE notes ADD COLUMN title TEXT").run("UPDATE notes SET body = 'edited'");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, title, body FROM notes ORDER BY id");
    assert_eq!(
        rows,
        [("x", "one"), ("y", "two")].map(|(id, title)| vec![text(id), text(title), text("edited")])
    );
    // Within one sync, and where its place tells that it is another column.
    a.run("ALTER TABLE notes DROP COLUMN body; ALTER TABLE notes ADD COLUMN body");
    a.run("UPDATE notes SET title = 'again'");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, title, body FROM notes ORDER BY id");
    assert_eq!(rows, ["x", "y"].map(|id| vec![text(id), text("again"), text("edited")]));
}

#[test]
fn whoever_renames_a_table_adds_the_same_rows() {
    for schema in [NOTES, "CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, body)"] {
        let (mut hub, mut a, mut b) = pair(schema);
        let mut c = Agent::new("acme", "c", 3);
        a.run("INSERT INTO notes VALUES(1, 'one', 1), (2, 'two', 2), (3, 'three', 3)");
        settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
        c.run(schema).sync(&mut hub);
        a.run("UPDATE notes SET body = 'before' WHERE id = 2").run("DELETE FROM notes WHERE id = 3");
        a.run("ALTER TABLE notes RENAME TO memos").run("UPDATE memos SET title = 'uno' WHERE id = 1");
        a.sync(&mut hub);
        assert_eq!(
            a.rows("SELECT count(*) FROM sqlite_master WHERE name = 'notes'"),
            vec![vec![Value::Integer(0)]]
        );
        b.run("ALTER TABLE notes RENAME TO memos; INSERT INTO memos VALUES(4, 'four', NULL)");
        let rows = settle(&mut hub, &mut a, &mut b, "SELECT title, body FROM memos ORDER BY title");
        let row = |title, body| vec![text(title), body];
        let expected = [row("four", Value::Null), row("two", text("before")), row("uno", Value::Integer(1))];
        assert_eq!(rows, expected, "{schema}");
        assert_eq!(a.sync(&mut hub), Counts::default());
        // Who knows the old name only goes on with it.
        c.sync(&mut hub);
        assert_eq!(c.rows("SELECT title FROM notes ORDER BY id").len(), 3, "{schema}");
        c.run("UPDATE notes SET title = 'old' WHERE id = 1").sync(&mut hub);
        assert_eq!(a.sync(&mut hub).quarantined, 0);
        assert_eq!(
            a.rows("SELECT count(*) FROM sqlite_master WHERE name = 'notes'"),
            vec![vec![Value::Integer(0)]]
        );
    }
}

#[test]
fn a_dropped_table_stays_away_until_the_application_makes_it_again() {
    let (mut hub, mut a, mut b) = pair(&format!("{NOTES};{TASKS}"));
    a.run("INSERT INTO notes VALUES('x', 'one', 1)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    a.run("UPDATE notes SET title = 'lost with its table'").run("DROP TABLE notes");
    // Whose definition changes is told of again.
    b.run("ALTER TABLE notes ADD COLUMN mood; INSERT INTO notes(id, title) VALUES('y', 'two')")
        .sync(&mut hub);
    for _ in 0..2 {
        let counts = a.sync(&mut hub);
        assert_eq!((counts.pushed, counts.quarantined), (0, 0));
        a.reconnect();
    }
    assert!(a.try_run("SELECT * FROM notes").is_err());
    a.run(NOTES);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, title FROM notes ORDER BY id");
    assert_eq!(rows, [("x", "one"), ("y", "two")].map(|row| vec![text(row.0), text(row.1)]));
}

#[test]
fn a_row_that_was_edited_before_its_table_was_dropped_was_not_deleted() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 1), ('y', 'two', 2), ('z', 'three', 3)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    a.run("UPDATE notes SET title = 'edited' WHERE id = 'x'").run("DELETE FROM notes WHERE id > 'x'");
    a.run("INSERT INTO notes VALUES('z', 'again', 3)").run("DROP TABLE notes").run(NOTES);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id FROM notes ORDER BY id");
    assert_eq!(rows, ["x", "z"].map(|id| vec![text(id)]));
}

#[test]
fn a_table_that_is_copied_and_kept_under_another_name_is_two_tables() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 1), ('y', 'two', 2)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    a.run("ALTER TABLE notes RENAME TO backup")
        .run("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT NOT NULL, body)");
    a.run("INSERT INTO notes SELECT id, upper(title), body FROM backup");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, title FROM notes ORDER BY id");
    assert_eq!(rows, [("x", "ONE"), ("y", "TWO")].map(|row| vec![text(row.0), text(row.1)]));
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM backup ORDER BY id");
}

#[test]
fn what_changes_no_row_pushes_none() {
    let (mut hub, mut a, mut b) = pair(&format!("{NOTES};{TASKS}"));
    a.run("INSERT INTO notes VALUES('x', 'one', 1)").run("INSERT INTO tasks(title) VALUES('a'), ('b')");
    a.run("DELETE FROM tasks WHERE title = 'a'");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    for change in [
        "VACUUM",
        "CREATE INDEX by_title ON notes(title)",
        "CREATE UNIQUE INDEX by_body ON notes(body)",
        "ALTER TABLE tasks ADD COLUMN mood TEXT DEFAULT 'calm'",
        "DROP INDEX by_body",
        "ALTER TABLE tasks DROP COLUMN done",
        "REINDEX; ANALYZE",
    ] {
        a.run(change);
        assert_eq!(a.sync(&mut hub), Counts::default(), "{change}");
        a.run("UPDATE notes SET body = body + 1");
        assert_eq!(a.sync(&mut hub).pushed, 1, "{change}");
    }
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
}

/// Breaks if a row that was under way to the hub as its table was made anew, and is gone from that, is neither asked for nor
/// deleted.
#[test]
fn a_row_that_was_under_way_as_its_table_was_made_anew_and_is_gone_is_asked_for() {
    for (key, has_synced) in [
        ("id INTEGER PRIMARY KEY", true),
        ("id TEXT PRIMARY KEY", true),
        ("id INTEGER PRIMARY KEY", false),
        ("id TEXT PRIMARY KEY", false),
    ] {
        let schema = format!("CREATE TABLE t({key}, body TEXT)");
        let (mut hub, mut a, mut b) = pair(&schema);
        if has_synced {
            a.sync(&mut hub);
        }
        b.sync(&mut hub);
        a.run("INSERT INTO t VALUES(1, 'one'), (2, 'two')");
        a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
        a.run(&format!(
            "CREATE TABLE n({key}, body TEXT); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t"
        ));
        a.run("DELETE FROM t WHERE id = 1").sync(&mut hub);
        a.sync(&mut hub);
        settle(&mut hub, &mut a, &mut b, "SELECT body FROM t ORDER BY body");
    }
}
