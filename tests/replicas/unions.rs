//! Two rows that turn out to be one.

use crate::identity::{NO_ROWS, agree, settle, shifted};
use crate::world::parts::text;
use crate::world::{Agent, Fate, pair};
use federation_hub::model::Value;

pub const SKILLS: &str = "
    CREATE TABLE skills(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, uses INTEGER DEFAULT 0, tip TEXT);
    CREATE TABLE links(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES skills ON DELETE CASCADE,
      child INTEGER NOT NULL REFERENCES skills ON DELETE CASCADE, UNIQUE(parent, child));
    CREATE TABLE skill_embeddings(skill_id INTEGER PRIMARY KEY REFERENCES skills(id) ON DELETE CASCADE, e TEXT);";
pub const SKILL_NAMES: &str = "SELECT name, uses, tip FROM skills ORDER BY name";
pub const SKILL_LINKS: &str = "SELECT p.name, c.name FROM links, skills AS p, skills AS c
                           WHERE p.id = parent AND c.id = child ORDER BY 1, 2";

#[test]
fn one_skill_made_twice_is_one_row_that_both_know_by_their_own_number() {
    let (mut hub, mut a, mut b) = shifted(SKILLS, "INSERT INTO skills(name) VALUES('b1'), ('b2')");
    a.run("INSERT INTO skills(name, uses) VALUES('retry', 1), ('a2', 0)");
    a.run("INSERT INTO links(parent, child) VALUES(1, 2)")
        .run("INSERT INTO skill_embeddings VALUES(1, 'of a')");
    b.run("INSERT INTO skills(name, tip) VALUES('retry', 'wait')");
    b.run("INSERT INTO links(parent, child) VALUES(3, 1), (2, 3)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], SKILL_NAMES).len(), 4);
    assert_eq!(agree(&mut [&mut a, &mut b], SKILL_LINKS).len(), 3);
    let number = "SELECT id FROM skills WHERE name = 'retry'";
    assert_eq!(a.rows(number), vec![vec![Value::Integer(1)]]);
    assert_eq!(b.rows(number), vec![vec![Value::Integer(3)]]);
    // It goes on as one row.
    b.run("UPDATE skills SET uses = 7 WHERE id = 3");
    a.run("UPDATE skills SET tip = 'wait longer' WHERE id = 1");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let retry = "SELECT uses, tip FROM skills WHERE name = 'retry'";
    let expected = vec![vec![Value::Integer(7), text("wait longer")]];
    assert_eq!(agree(&mut [&mut a, &mut b], retry), expected);
    let mut late = Agent::new("acme", "late", 9);
    settle(&mut hub, &mut [&mut late]);
    agree(&mut [&mut a, &mut b, &mut late], SKILL_NAMES);
    agree(&mut [&mut a, &mut b, &mut late], SKILL_LINKS);
}

#[test]
fn what_references_two_rows_that_are_one_ends_at_that_one() {
    let (mut hub, mut a, mut b) = shifted(SKILLS, "INSERT INTO skills(name) VALUES('b1'), ('b2')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    // Both link their own `retry` to a skill that both have, and both give it an embedding.
    for (agent, e) in [(&mut a, "of a"), (&mut b, "of b")] {
        agent.run("INSERT INTO skills(name) VALUES('retry')");
        let own = "(SELECT id FROM skills WHERE name = 'retry')";
        agent
            .run(&format!("INSERT INTO links(parent, child) SELECT {own}, id FROM skills WHERE name = 'b1'"));
        agent.run(&format!("INSERT INTO skill_embeddings VALUES({own}, '{e}')"));
    }
    settle(&mut hub, &mut [&mut a, &mut b]);
    agree(&mut [&mut a, &mut b], SKILL_NAMES);
    assert_eq!(agree(&mut [&mut a, &mut b], SKILL_LINKS), vec![vec![text("retry"), text("b1")]]);
    let embeddings = "SELECT name, e FROM skill_embeddings JOIN skills ON id = skill_id";
    assert_eq!(agree(&mut [&mut a, &mut b], embeddings).len(), 1);
}

#[test]
fn a_third_agent_that_had_both_rows_keeps_one() {
    let schema = "CREATE TABLE skills(id INTEGER PRIMARY KEY, name TEXT, tip TEXT);
                  CREATE TABLE uses(id INTEGER PRIMARY KEY, skill INTEGER REFERENCES skills, n INTEGER);";
    let (mut hub, mut a, mut b) = pair(schema);
    let mut c = Agent::new("acme", "c", 7);
    c.run(schema);
    for (agent, n) in [(&mut a, 1), (&mut b, 2)] {
        agent.run("INSERT INTO skills(name) VALUES('retry')");
        agent.run(&format!("INSERT INTO uses(skill, n) VALUES(1, {n})"));
    }
    for agent in [&mut a, &mut b] {
        agent.sync(&mut hub);
        agent.run("CREATE UNIQUE INDEX by_name ON skills(name)");
    }
    settle(&mut hub, &mut [&mut c]);
    settle(&mut hub, &mut [&mut a, &mut b, &mut c]);
    let all = "SELECT name, n FROM skills JOIN uses ON skill = skills.id ORDER BY n";
    assert_eq!(agree(&mut [&mut a, &mut b, &mut c], all).len(), 2);
}

#[test]
fn two_rows_that_were_one_are_two_again_where_their_author_meant_two() {
    let (mut hub, mut a, mut b) = shifted(SKILLS, "INSERT INTO skills(name) VALUES('b1')");
    a.run("INSERT INTO skills(name) VALUES('retry'), ('a2')")
        .run("INSERT INTO links(parent, child) VALUES(1, 2)");
    b.run("INSERT INTO skills(name) VALUES('retry')").run("INSERT INTO links(parent, child) VALUES(2, 1)");
    a.sync(&mut hub);
    b.sync_with(&mut hub, crate::world::Fate::LosesAnswer, &mut |_| {});
    a.sync(&mut hub);
    b.run("UPDATE skills SET name = 'plan' WHERE id = 2");
    settle(&mut hub, &mut [&mut b, &mut a]);
    let names = agree(&mut [&mut a, &mut b], SKILL_NAMES);
    assert_eq!(names.len(), 4);
    let links = vec![vec![text("plan"), text("b1")], vec![text("retry"), text("a2")]];
    assert_eq!(agree(&mut [&mut a, &mut b], SKILL_LINKS), links);
    assert_eq!(b.rows("SELECT id FROM skills WHERE name = 'plan'"), vec![vec![Value::Integer(2)]]);
}

#[test]
fn a_table_that_may_have_one_row_only_has_one_everywhere() {
    let schema =
        "CREATE TABLE settings(id INTEGER PRIMARY KEY, a, b); CREATE UNIQUE INDEX one ON settings((1))";
    let (mut hub, mut a, mut b) = shifted(schema, "SELECT 1");
    a.run("INSERT INTO settings(a) VALUES('of a')");
    b.run("INSERT INTO settings(id, b) VALUES(7, 'of b')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all = "SELECT a, b FROM settings";
    assert_eq!(agree(&mut [&mut a, &mut b], all).len(), 1);
    b.run("INSERT OR REPLACE INTO settings(a) VALUES('new')");
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut a, &mut b], all), vec![vec![text("new"), Value::Null]]);
    a.run("UPDATE settings SET b = 'later'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], all), vec![vec![text("new"), text("later")]]);
}

#[test]
fn of_two_rows_that_are_one_the_row_that_goes_stands_in_the_way_of_no_reference_to_the_other() {
    let schema = "CREATE TABLE t(name TEXT PRIMARY KEY, parent TEXT REFERENCES t);
                  CREATE UNIQUE INDEX one_child ON t(parent COLLATE NOCASE);";
    let (mut hub, mut a, mut b) = pair(schema);
    // `a` and `b` have one parent, in capitals or not; `c` belongs to the one that goes, while its name is taken over.
    a.run("INSERT INTO t VALUES('A', NULL), ('other', NULL), ('a', 'A')").sync(&mut hub);
    a.run("UPDATE t SET name = 'b' WHERE name = 'other'").sync(&mut hub);
    b.run("INSERT INTO t VALUES('a', NULL), ('b', 'a'), ('c', 'b')");
    settle(&mut hub, &mut [&mut b, &mut a]);
    let aside = "SELECT reason FROM _federation_quarantine";
    assert_eq!(agree(&mut [&mut a, &mut b], aside), Vec::<Vec<Value>>::new());
    let all = agree(&mut [&mut a, &mut b], "SELECT name, parent FROM t ORDER BY name");
    assert_eq!(all.iter().map(|row| row[0].clone()).collect::<Vec<_>>(), ["A", "a", "b", "c"].map(text));
}

/// Breaks if a death is taken for known to whoever deleted one of the rows: it was told that what they are together lives.
#[test]
fn two_rows_that_are_one_are_gone_for_whoever_deletes_the_second() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE, of)");
    a.run("INSERT INTO tags(name, of) VALUES('x', 'a')").sync(&mut hub);
    a.run("DELETE FROM tags");
    b.run("INSERT INTO tags(name, of) VALUES('x', 'b')").sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    a.sync(&mut hub);
    // Before it learns that it is the row that was made by `a` as well, its author deletes the one that it made.
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("DELETE FROM tags");
    });
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT of FROM tags"), Vec::<Vec<Value>>::new());
}

/// Breaks if a column that only the author of the second row knows is told of no more when that row goes, and stays where
/// it was told.
#[test]
fn what_a_row_that_goes_has_added_to_the_other_one_stays_everywhere() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
    let mut c = Agent::new("acme", "c", 9);
    for agent in [&mut b, &mut c] {
        agent.run("CREATE TABLE IF NOT EXISTS tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
        agent.run("ALTER TABLE tags ADD COLUMN colour TEXT DEFAULT 'none'");
    }
    a.run("INSERT INTO tags(name) VALUES('x')").sync(&mut hub);
    b.run("INSERT INTO tags(name, colour) VALUES('x', 'red')").sync_with(
        &mut hub,
        Fate::LosesAnswer,
        &mut |_| {},
    );
    c.sync(&mut hub);
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("DELETE FROM tags");
    });
    settle(&mut hub, &mut [&mut a, &mut b, &mut c]);
    let rows = agree(&mut [&mut b, &mut c], "SELECT name, colour FROM tags");
    assert_eq!(rows, [[text("x"), text("red")]]);
}

/// Breaks if a value that is unique, and free for others, stays where it was told.
#[test]
fn a_unique_value_goes_with_the_row_that_brought_it_and_another_row_can_have_it() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
    let (mut c, mut d) = (Agent::new("acme", "c", 9), Agent::new("acme", "d", 10));
    for agent in [&mut b, &mut c, &mut d] {
        agent.run("CREATE TABLE IF NOT EXISTS tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE)");
        agent.run("ALTER TABLE tags ADD COLUMN colour TEXT; CREATE UNIQUE INDEX colours ON tags(colour)");
    }
    a.run("INSERT INTO tags(name) VALUES('x')").sync(&mut hub);
    b.run("INSERT INTO tags(name, colour) VALUES('x', 'red')").sync_with(
        &mut hub,
        Fate::LosesAnswer,
        &mut |_| {},
    );
    c.sync(&mut hub);
    assert_eq!(c.rows("SELECT colour FROM tags"), [[text("red")]]);
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("DELETE FROM tags");
    });
    b.sync(&mut hub);
    d.run("INSERT INTO tags(name, colour) VALUES('y', 'red')").sync(&mut hub);
    settle(&mut hub, &mut [&mut a, &mut b, &mut c, &mut d]);
    let rows = agree(&mut [&mut b, &mut c, &mut d], "SELECT name, colour FROM tags ORDER BY name");
    assert_eq!(rows, [[text("x"), Value::Null], [text("y"), text("red")]]);
}

/// Breaks if an update that was set aside for a moment is taken for older than what the hub knew when it sent it.
#[test]
fn a_parent_that_shows_an_older_row_s_key_is_followed_by_its_child() {
    let schema = "CREATE TABLE names(name TEXT NOT NULL PRIMARY KEY, at REAL UNIQUE) WITHOUT ROWID;
                  CREATE TABLE uses(id INTEGER PRIMARY KEY, name TEXT NOT NULL REFERENCES names ON DELETE RESTRICT)";
    let (mut hub, mut a, mut c) = pair(schema);
    for agent in [&mut a, &mut c] {
        agent.sync(&mut hub);
    }
    a.run("INSERT INTO names VALUES('b', 0.5)");
    for agent in [&mut a, &mut c] {
        agent.sync(&mut hub);
    }
    // What was there before the first sync is older than everything, and one with the other row.
    let mut b = Agent::new("acme", "old", 3);
    b.run(schema).run("INSERT INTO names VALUES('long', 0.5)").sync(&mut hub);
    c.run("DELETE FROM names").sync(&mut hub);
    a.slice = 1;
    a.run("INSERT INTO uses VALUES(1, 'b')");
    assert_eq!(a.sync(&mut hub).quarantined, 0);
    settle(&mut hub, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(agree(&mut [&mut a, &mut b, &mut c], "SELECT name FROM uses"), [[text("long")]]);
    assert_eq!(agree(&mut [&mut a, &mut b, &mut c], "SELECT name FROM names"), [[text("long")]]);
}

/// Breaks if rows that are one by a key which is made of a reference stay one when the rows that they reference part: what
/// references one of them by that key would wait for it for ever.
#[test]
fn rows_that_are_one_by_what_they_reference_part_with_it() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
                  CREATE TABLE o(id INTEGER PRIMARY KEY REFERENCES t, about TEXT);
                  CREATE TABLE n(id INTEGER PRIMARY KEY REFERENCES o, note TEXT)";
    let (mut hub, mut a, mut b) = pair(schema);
    b.sync(&mut hub);
    b.run("INSERT INTO t VALUES(1, 'one'); INSERT INTO o VALUES(1, 'b')").sync(&mut hub);
    a.run("INSERT INTO t VALUES(1, 'one'); INSERT INTO o VALUES(1, 'a'); INSERT INTO n VALUES(1, 'a')");
    b.run("UPDATE t SET name = 'two'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        assert_eq!(agent.rows("SELECT * FROM _federation_quarantine"), NO_ROWS);
        let whole = "SELECT t.name, o.about, n.note FROM t JOIN o USING(id) LEFT JOIN n USING(id) ORDER BY 1";
        let one = [text("one"), text("a"), text("a")];
        assert_eq!(agent.rows(whole), [one, [text("two"), text("b"), Value::Null]]);
    }
}
