//! Keys that one row takes over from another one, while rows reference them.

use crate::identity::{NO_ROWS, agree, settle};
use crate::world::pair;
use federation_hub::model::Value;

fn texts(values: &[&str]) -> Vec<Vec<Value>> {
    values.iter().map(|value| vec![Value::Text((*value).to_owned())]).collect()
}

/// Breaks if what references the renamed tag is taken for what references the deleted one, and keeps it.
#[test]
fn a_tag_takes_over_the_name_of_one_that_is_deleted_in_the_same_sync() {
    let schema = "PRAGMA foreign_keys = ON; CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n);
        CREATE TABLE notes(id INTEGER PRIMARY KEY, tag TEXT REFERENCES tags(name) ON UPDATE CASCADE)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO tags(name, n) VALUES('a', 1), ('b', 2); INSERT INTO notes(tag) VALUES('a')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("DELETE FROM tags WHERE name = 'b'; UPDATE tags SET name = 'b' WHERE name = 'a'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let tags = agree(&mut [&mut a, &mut b], "SELECT name FROM tags WHERE n = 1");
    assert_eq!(tags, texts(&["b"]));
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT 1 FROM tags WHERE n = 2"), NO_ROWS);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT tag FROM notes"), texts(&["b"]));
}

/// Breaks if a row that another agent hangs on a tag keeps the tag that was replaced, and the new one is withheld.
#[test]
fn a_tag_is_replaced_while_another_agent_uses_its_name() {
    let schema =
        "PRAGMA foreign_keys = ON; CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE, color);
        CREATE TABLE notes(id INTEGER PRIMARY KEY, tag TEXT REFERENCES tags(name))";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO tags(name, color) VALUES('x', 'red')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO notes(tag) VALUES('x')");
    b.sync(&mut hub);
    a.run(
        "INSERT INTO tags(id, name, color) VALUES(7, 'y', 'blue'); DELETE FROM tags WHERE name = 'x';
           UPDATE tags SET name = 'x' WHERE name = 'y'",
    );
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT color FROM tags"), texts(&["blue"]));
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT tag FROM notes"), texts(&["x"]));
}

/// Breaks if a tag that went with its group is one that its author may still have meant.
#[test]
fn a_tag_takes_over_the_name_of_one_that_goes_with_its_group() {
    let schema = "PRAGMA foreign_keys = ON; CREATE TABLE groups(id INTEGER PRIMARY KEY, name);
        CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE, of REFERENCES groups(id) ON DELETE CASCADE);
        CREATE TABLE notes(id INTEGER PRIMARY KEY, tag TEXT REFERENCES tags(name) ON UPDATE CASCADE)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO groups VALUES(1, 'one'), (2, 'two'); INSERT INTO tags(name, of) VALUES('a', 1), ('b', 2);
           INSERT INTO notes(tag) VALUES('a')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("DELETE FROM groups WHERE id = 2; UPDATE tags SET name = 'b' WHERE name = 'a'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT name FROM groups"), texts(&["one"]));
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT name FROM tags"), texts(&["b"]));
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT tag FROM notes"), texts(&["b"]));
}

/// Breaks if a tag that goes with its group counts as one that takes a name over: whoever uses the name keeps both.
#[test]
fn a_tag_that_goes_with_its_group_takes_over_nothing() {
    let schema = "PRAGMA foreign_keys = ON; CREATE TABLE groups(id INTEGER PRIMARY KEY, name);
        CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE, color, of REFERENCES groups(id) ON DELETE CASCADE);
        CREATE TABLE notes(id INTEGER PRIMARY KEY, tag TEXT REFERENCES tags(name))";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO groups VALUES(1, 'one'); INSERT INTO tags(name, color, of) VALUES('y', 'blue', 1)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO tags(name, color) VALUES('x', 'red')").sync(&mut hub);
    // It has wanted that name ever since.
    a.run("UPDATE tags SET name = 'x' WHERE name = 'y'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO notes(tag) VALUES('x')").sync(&mut hub);
    a.run("DELETE FROM tags WHERE name = 'x'; DELETE FROM groups");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT color FROM tags"), texts(&["red"]));
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT name FROM groups"), NO_ROWS);
}

/// Breaks if references follow a tag to a name that it did not get.
#[test]
fn what_references_a_tag_that_keeps_its_former_name_shows_that_name() {
    let schema = "PRAGMA foreign_keys = ON; CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE, n);
        CREATE TABLE notes(id INTEGER PRIMARY KEY, tag TEXT REFERENCES tags(name) ON UPDATE CASCADE)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO tags(name, n) VALUES('o', 1), ('w', 2)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("UPDATE tags SET name = 't' WHERE n = 1").sync(&mut hub);
    b.run("INSERT INTO notes(tag) VALUES('o'); UPDATE tags SET name = 'x' WHERE n = 2").sync(&mut hub);
    a.run("UPDATE tags SET name = 'x' WHERE n = 1");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT name FROM tags ORDER BY n"), texts(&["t", "x"]));
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT tag FROM notes"), texts(&["t"]));
}

/// Breaks if references follow a key that is itself a reference only where that one was looked at first.
#[test]
fn a_reference_to_a_key_that_is_a_reference_follows_both() {
    let schema = "PRAGMA foreign_keys = ON; CREATE TABLE people(name TEXT PRIMARY KEY);
        CREATE TABLE members(name TEXT PRIMARY KEY REFERENCES people(name) ON UPDATE CASCADE);
        CREATE TABLE notes(id INTEGER PRIMARY KEY, by TEXT REFERENCES members(name) ON UPDATE CASCADE)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO people VALUES('p')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO notes(by) VALUES(NULL)").sync(&mut hub);
    b.run("INSERT INTO members VALUES('p'); UPDATE notes SET by = 'p'").sync(&mut hub);
    a.run("UPDATE people SET name = 'q'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT name FROM members"), texts(&["q"]));
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT by FROM notes"), texts(&["q"]));
}
