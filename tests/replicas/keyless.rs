//! Tables without a PRIMARY KEY, and rows without a key.

use crate::world::parts::text;
use crate::world::{Agent, Counts, Hub, pair, settle};
use federation_hub::model::Value;

const LINES: &str = "CREATE TABLE lines(line TEXT, n)";

/// The lines that both hold, in order.
fn lines(hub: &mut Hub, a: &mut Agent, b: &mut Agent) -> Vec<String> {
    let rows = settle(hub, a, b, "SELECT line, n FROM lines ORDER BY line, n");
    let line = |row: Vec<Value>| match &row[0] {
        Value::Text(line) => line.clone(),
        other => format!("{other:?}"),
    };
    rows.into_iter().map(line).collect()
}

#[test]
fn rows_without_a_key_are_shared_and_equal_ones_are_as_many_as_there_are() {
    let (mut hub, mut a, mut b) = pair(LINES);
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO lines VALUES('x', 1), ('x', 1), ('y', 2)");
    b.run("INSERT INTO lines VALUES('x', 1), ('z', 3)");
    assert_eq!(lines(&mut hub, &mut a, &mut b), ["x", "x", "x", "y", "z"]);
    a.run("UPDATE lines SET line = 'edited' WHERE line = 'z'");
    b.run("DELETE FROM lines WHERE rowid = (SELECT min(rowid) FROM lines WHERE line = 'x')");
    b.run("UPDATE lines SET oid = 77 WHERE line = 'y'");
    assert_eq!(lines(&mut hub, &mut a, &mut b), ["edited", "x", "x", "y"]);
    a.run("DELETE FROM lines");
    assert_eq!(lines(&mut hub, &mut a, &mut b), Vec::<String>::new());
    let mut fresh = Agent::new("acme", "fresh", 3);
    a.run("INSERT INTO lines VALUES('last', NULL)").sync(&mut hub);
    fresh.sync(&mut hub);
    assert_eq!(fresh.rows("SELECT * FROM lines"), vec![vec![text("last"), Value::Null]]);
}

#[test]
fn a_vacuum_changes_no_row_whatever_was_written_before_it() {
    for schema in [LINES, "CREATE TABLE lines(line TEXT, n); CREATE INDEX by_line ON lines(line)"] {
        let (mut hub, mut a, mut b) = pair(schema);
        a.run("INSERT INTO lines VALUES('gone', 0), ('a', 1), ('b', 2), ('b', 2), ('c', 3), ('d', 4)");
        a.run("DELETE FROM lines WHERE line = 'gone'");
        lines(&mut hub, &mut a, &mut b);
        a.run("VACUUM");
        assert_eq!(a.sync(&mut hub), Counts::default(), "{schema}");
        a.run("DELETE FROM lines WHERE line = 'a'").run("UPDATE lines SET n = 33 WHERE line = 'c'");
        a.run("INSERT INTO lines VALUES('e', 5)").run("VACUUM").run("INSERT INTO lines VALUES('f', 6)");
        b.run("UPDATE lines SET line = 'dd' WHERE line = 'd'");
        let counts = a.sync(&mut hub);
        assert_eq!((counts.pushed, counts.conflicts), (4, 0), "{schema}");
        assert_eq!(lines(&mut hub, &mut a, &mut b), ["b", "b", "c", "dd", "e", "f"], "{schema}");
        a.run("UPDATE lines SET n = 7 WHERE line = 'f'");
        assert_eq!(a.sync(&mut hub).pushed, 1, "{schema}");
        assert_eq!(b.sync(&mut hub).pulled, 1, "{schema}");
    }
}

#[test]
fn a_vacuum_while_a_sync_is_in_flight_loses_nothing() {
    let (mut hub, mut a, mut b) = pair(LINES);
    a.run("INSERT INTO lines VALUES('gone', 0), ('a', 1), ('b', 2); DELETE FROM lines WHERE n = 0");
    lines(&mut hub, &mut a, &mut b);
    b.run("UPDATE lines SET line = 'bb' WHERE line = 'b'").sync(&mut hub);
    a.sync_with(&mut hub, crate::world::Fate::Complete, &mut |a| {
        a.run("INSERT INTO lines VALUES('c', 3)")
            .run("VACUUM")
            .run("UPDATE lines SET n = 11 WHERE line = 'a'");
    });
    assert_eq!(lines(&mut hub, &mut a, &mut b), ["a", "bb", "c"]);
    assert_eq!(b.rows("SELECT n FROM lines WHERE line = 'a'"), vec![vec![Value::Integer(11)]]);
}

#[test]
fn a_name_of_the_rowid_that_is_left_is_found() {
    let schema = "CREATE TABLE lines(line TEXT, n, RowId TEXT, \"_rowid_\");
         CREATE TABLE hidden(rowid, oid, _rowid_); INSERT INTO hidden VALUES(1, 2, 3)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO lines VALUES('x', 1, 'one', 2), ('x', 1, 'one', 2)");
    assert_eq!(lines(&mut hub, &mut a, &mut b), ["x", "x"]);
    a.run("UPDATE lines SET rowid = 'two' WHERE oid = 2");
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT rowid FROM lines ORDER BY rowid").len(), 2);
    let left_alone = a.left_alone();
    assert_eq!(left_alone.len(), 1, "{left_alone:?}");
    assert!(left_alone[0].1.contains("hide"), "{left_alone:?}");
}

#[test]
fn rows_whose_key_holds_a_null_stay_and_are_told_of() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(a TEXT, b TEXT, PRIMARY KEY(a, b))");
    a.run("INSERT INTO notes VALUES('x', NULL), ('x', 'y')");
    a.sync(&mut hub);
    assert_eq!(a.told.len(), 1, "{:?}", a.told);
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT * FROM notes"), vec![vec![text("x"), text("y")]]);
    a.told.clear();
    a.sync(&mut hub);
    assert_eq!(a.told, Vec::<String>::new());
    a.run("INSERT INTO notes VALUES(NULL, NULL)").sync(&mut hub);
    assert!(a.told[0].contains("notes whose PRIMARY KEY holds a NULL"), "{:?}", a.told);
}

#[test]
fn views_and_virtual_tables_with_their_shadows_are_left_alone() {
    let schema = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT);
         CREATE VIEW titles AS SELECT title FROM notes;
         CREATE VIRTUAL TABLE words USING fts5(title, content = 'notes');
         CREATE VIRTUAL TABLE places USING rtree(id, x0, x1);
         CREATE TRIGGER into_words AFTER INSERT ON notes BEGIN
           INSERT INTO words(rowid, title) VALUES(NEW.rowid, NEW.title); END";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO notes VALUES('x', 'one')").run("INSERT INTO places VALUES(1, 0, 1)");
    assert_eq!(a.sync(&mut hub).pushed, 1);
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes").len(), 1);
    assert_eq!(b.rows("SELECT count(*) FROM places"), vec![vec![Value::Integer(0)]]);
    let mut names: Vec<String> = a.left_alone().into_iter().map(|(name, _)| name).collect();
    names.sort();
    let is_apart = |name: &String| ["words", "places", "titles"].iter().any(|start| name.starts_with(start));
    assert!(names.iter().all(is_apart) && names.contains(&"titles".into()), "{names:?}");
    assert!(names.contains(&"words".into()) && names.contains(&"words_data".into()), "{names:?}");
}
