//! Generated columns that must be unique: what they are made of is ruled on.

use crate::identity::{agree, settle};
use crate::world::parts::text;
use crate::world::{Agent, Hub, pair};
use federation_hub::model::Value;

const NOTES: [&str; 3] = [
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT, short TEXT AS (lower(title)) UNIQUE)",
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT, short TEXT AS (lower(title)) STORED);
     CREATE UNIQUE INDEX by_short ON notes(short) WHERE short <> 'draft'",
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, short TEXT AS (substr(long, 2)), body TEXT,
        long AS ('-' || lower(title)) STORED); CREATE UNIQUE INDEX by_short ON notes(short || '')",
];
const NOTES_BY_TITLE: &str = "SELECT title, body, short FROM notes ORDER BY 1, 2";

fn on_each(story: impl Fn(Hub, Agent, Agent)) {
    for schema in NOTES {
        let (hub, a, b) = pair(schema);
        story(hub, a, b);
    }
}

#[test]
fn rows_that_were_made_apart_are_one_row() {
    on_each(|mut hub, mut a, mut b| {
        a.run("INSERT INTO notes(title, body) VALUES('Retry', 'of a'), ('other', 'a')");
        b.run("INSERT INTO notes(title) VALUES('x'), ('retry')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        let rows = agree(&mut [&mut a, &mut b], NOTES_BY_TITLE);
        assert_eq!(rows.len(), 3, "{rows:?}");
    });
}

#[test]
fn a_rename_onto_a_taken_name_waits_until_that_is_free() {
    on_each(|mut hub, mut a, mut b| {
        a.run("INSERT INTO notes(title) VALUES('One'), ('Two')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        b.run("INSERT INTO notes(title) VALUES('Three')").sync(&mut hub);
        a.run("UPDATE notes SET title = 'THREE' WHERE title = 'One'");
        settle(&mut hub, &mut [&mut a, &mut b]);
        let titles = "SELECT title FROM notes ORDER BY title";
        // The row is told apart by its birth: it goes on under the name that it had.
        let expected = vec![vec![text("One")], vec![text("Three")], vec![text("Two")]];
        assert_eq!(agree(&mut [&mut a, &mut b], titles), expected);
        b.run("UPDATE notes SET title = 'Four' WHERE title = 'Three'");
        settle(&mut hub, &mut [&mut b, &mut a]);
        let expected = vec![vec![text("Four")], vec![text("THREE")], vec![text("Two")]];
        assert_eq!(agree(&mut [&mut a, &mut b], titles), expected);
    });
}

#[test]
fn values_that_are_swapped_arrive() {
    on_each(|mut hub, mut a, mut b| {
        a.run("INSERT INTO notes(title, body) VALUES('one', '1'), ('two', '2')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        for (title, body) in [("-", 1), ("ONE", 2), ("TWO", 1)] {
            a.run(&format!("UPDATE notes SET title = '{title}' WHERE body = '{body}'"));
        }
        settle(&mut hub, &mut [&mut a, &mut b]);
        let rows = agree(&mut [&mut a, &mut b], "SELECT title FROM notes ORDER BY body");
        assert_eq!(rows, vec![vec![text("TWO")], vec![text("ONE")]]);
    });
}

#[test]
fn a_row_that_a_replace_takes_away_is_gone_everywhere() {
    on_each(|mut hub, mut a, mut b| {
        a.run("INSERT INTO notes(title, body) VALUES('one', '1'), ('two', '2'), ('three', '3')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        b.run("INSERT OR REPLACE INTO notes(title, body) VALUES('ONE', 'new')");
        b.run("UPDATE OR REPLACE notes SET title = 'TWO' WHERE body = '3'");
        settle(&mut hub, &mut [&mut b, &mut a]);
        let bodies = agree(&mut [&mut a, &mut b], "SELECT body FROM notes ORDER BY body");
        assert_eq!(bodies, vec![vec![text("3")], vec![text("new")]]);
        assert_eq!(hub_rows(&mut hub), vec![vec![Value::Integer(2)]]);
    });
}

/// What an agent that comes later has.
fn hub_rows(hub: &mut Hub) -> Vec<Vec<Value>> {
    let mut late = Agent::new("acme", "late", 9);
    late.sync(hub);
    late.rows("SELECT count(*) FROM notes")
}
