//! Applications that hand out numbers themselves, and the numbers that rows from elsewhere get among theirs.

use crate::identity::{agree, settle};
use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub, pair};
use federation_hub::model::Value;
use federation_hub::storage::choice::TableOptions;
use federation_hub::storage::references::{DeclaredParent, DeclaredReference};

fn number(value: i64) -> Value {
    Value::Integer(value)
}

/// Has agents keep the numbers of some tables apart.
fn apart(agents: &mut [&mut Agent], tables: &[&str]) {
    for agent in agents {
        let options = |name: &&str| TableOptions {
            name: (*name).to_owned(),
            numbers_apart: true,
            ..TableOptions::default()
        };
        agent.options.tables.extend(tables.iter().map(options));
        agent.reconnect();
    }
}

/// As memorix keeps its observations: the next number is in a row of another table, which stays at home, and a number that
/// is taken is written over.
const MEMORIES: &str = "CREATE TABLE memories(id INTEGER PRIMARY KEY, title TEXT NOT NULL);
    CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL); INSERT INTO meta VALUES('next_id', '1');";

fn remember(agent: &mut Agent, title: &str) {
    agent.run(&format!(
        "BEGIN IMMEDIATE;
         INSERT OR REPLACE INTO memories SELECT CAST(value AS INTEGER), '{title}' FROM meta WHERE key = 'next_id';
         UPDATE meta SET value = CAST(value + 1 AS TEXT) WHERE key = 'next_id';
         COMMIT"
    ));
}

/// Two applications that remember in turn, syncing in between: how many memories there are in the end.
fn remembered(hub: &mut Hub, a: &mut Agent, b: &mut Agent) -> usize {
    for agent in [&mut *a, &mut *b] {
        agent.options.exclude = vec!["meta".into()];
    }
    for at in 0..7 {
        remember(a, &format!("of a {at}"));
        a.sync(hub);
        if at < 6 {
            remember(b, &format!("of b {at}"));
        }
        b.sync(hub);
    }
    settle(hub, &mut [a, b]);
    agree(&mut [a, b], "SELECT title FROM memories ORDER BY 1").len()
}

#[test]
fn applications_that_count_by_themselves_lose_nothing() {
    let (mut hub, mut a, mut b) = pair(MEMORIES);
    apart(&mut [&mut a, &mut b], &["memories"]);
    assert_eq!(remembered(&mut hub, &mut a, &mut b), 13);
    for (agent, own) in [(&mut a, 7), (&mut b, 6)] {
        assert_eq!(
            agent.rows("SELECT count(*), max(id) FROM memories WHERE id > 0"),
            [[number(own), number(own)]]
        );
        let others = agent.rows("SELECT max(id), min(id) FROM memories WHERE id < 0");
        assert_eq!(others, [[number(-2), number(own - 14)]]);
    }
    // Without the choice they do.
    let (mut hub, mut a, mut b) = pair(MEMORIES);
    assert!(remembered(&mut hub, &mut a, &mut b) < 13);
}

#[test]
fn what_refers_to_such_a_row_follows_it() {
    for key in ["INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"] {
        let schema = format!(
            "CREATE TABLE facts(id {key}, what TEXT);
             CREATE TABLE notes(id {key}, fact INTEGER REFERENCES facts(id) ON DELETE CASCADE, loose INTEGER, note TEXT);"
        );
        let (mut hub, mut a, mut b) = pair(&schema);
        apart(&mut [&mut a, &mut b], &["facts", "notes"]);
        for agent in [&mut a, &mut b] {
            let (table, column, parent) =
                ("notes".into(), "loose".into(), DeclaredParent::Table("facts".into()));
            agent.options.references = vec![DeclaredReference { table, column, parent }];
            agent.run("PRAGMA foreign_keys = ON");
        }
        for (agent, name) in [(&mut a, "a"), (&mut b, "b")] {
            agent.run(&format!("INSERT INTO facts VALUES(1, 'of {name}'), (2, 'too, of {name}')"));
            agent.run(&format!("INSERT INTO notes VALUES(1, 1, 2, 'note of {name}')"));
        }
        settle(&mut hub, &mut [&mut a, &mut b]);
        let meant = "SELECT note, f.what, l.what FROM notes LEFT JOIN facts AS f ON f.id = fact
                     LEFT JOIN facts AS l ON l.id = loose ORDER BY 1";
        let of = |name: &str| {
            vec![
                text(&format!("note of {name}")),
                text(&format!("of {name}")),
                text(&format!("too, of {name}")),
            ]
        };
        assert_eq!(agree(&mut [&mut a, &mut b], meant), [of("a"), of("b")], "{key}");
        assert_eq!(
            a.rows("SELECT count(*) FROM notes WHERE id < -1 AND fact < -1 AND loose < -1"),
            [[number(1)]]
        );
        // SQLite's own numbers, and its account of them, go on as if they were not there.
        a.run("INSERT INTO facts(what) VALUES('next')");
        assert_eq!(a.rows("SELECT id FROM facts WHERE what = 'next'"), [[number(3)]], "{key}");
        // A row that the application writes over, or brings back, is the same row under the same number.
        a.run("REPLACE INTO facts SELECT id, 'edited' FROM facts WHERE what = 'too, of b'");
        settle(&mut hub, &mut [&mut a, &mut b]);
        assert_eq!(agree(&mut [&mut a, &mut b], meant)[1][2], text("edited"), "{key}");
        assert_eq!(b.rows("SELECT id FROM facts WHERE what = 'edited'"), [[number(2)]], "{key}");
        assert_eq!(a.rows("SELECT count(*) FROM facts"), [[number(5)]], "{key}");
    }
}

#[test]
fn a_row_whose_number_is_wanted_before_it_comes_gets_one_apart_as_well() {
    for key in ["INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"] {
        let schema = format!(
            "CREATE TABLE links(id TEXT PRIMARY KEY, target INTEGER); CREATE TABLE skills(id {key}, what TEXT);"
        );
        let (mut hub, mut a, mut b) = pair(&schema);
        apart(&mut [&mut b], &["skills"]);
        for agent in [&mut a, &mut b] {
            let (table, column, parent) =
                ("links".into(), "target".into(), DeclaredParent::Table("skills".into()));
            agent.options.references = vec![DeclaredReference { table, column, parent }];
        }
        b.run("INSERT INTO skills(what) VALUES('of b')").sync(&mut hub);
        a.run("INSERT INTO skills VALUES(1, 'meant'); INSERT INTO links VALUES('x', 1)").sync(&mut hub);
        a.run("UPDATE skills SET what = 'edited'").sync(&mut hub);
        b.slice = 1;
        b.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
        assert_eq!(b.rows("SELECT target FROM links"), [[number(-2)]], "{key}");
        settle(&mut hub, &mut [&mut b, &mut a]);
        let meant = "SELECT what FROM links LEFT JOIN skills ON skills.id = target";
        assert_eq!(agree(&mut [&mut a, &mut b], meant), [[text("edited")]], "{key}");
        // The row came under the number that was given away; and the application may write it over.
        b.run("REPLACE INTO skills VALUES(-2, 'replaced')");
        settle(&mut hub, &mut [&mut b, &mut a]);
        assert_eq!(agree(&mut [&mut a, &mut b], meant), [[text("replaced")]], "{key}");
    }
}

/// Breaks if a choice that comes later changes a number which the application has seen.
#[test]
fn rows_that_are_here_keep_their_numbers_when_the_choice_comes() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)");
    a.run("INSERT INTO notes VALUES(5, 'early'), (6, 'gone')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let ids = "SELECT id, title FROM notes ORDER BY title";
    let early = b.rows("SELECT id FROM notes WHERE title = 'early'")[0][0].clone();
    apart(&mut [&mut b], &["notes"]);
    a.run("INSERT INTO notes VALUES(7, 'late'); UPDATE notes SET title = 'edited' WHERE id = 5");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(b.rows(ids)[0], [early, text("edited")]);
    assert_eq!(b.rows("SELECT id FROM notes WHERE title = 'late'"), [[number(-2)]]);
    // One that comes back has the number that it had here.
    let gone = b.rows("SELECT id FROM notes WHERE title = 'gone'")[0][0].clone();
    b.run("DELETE FROM notes WHERE title = 'gone'").sync(&mut hub);
    std::thread::sleep(std::time::Duration::from_millis(3));
    a.run("UPDATE notes SET title = 'gone and back' WHERE id = 6");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT id FROM notes WHERE title = 'gone and back'"), [[gone]]);
    // And without the choice, what comes gets the next one again.
    b.options.tables.clear();
    b.reconnect();
    let next = b.rows("SELECT max(id) + 1 FROM notes");
    a.run("INSERT INTO notes VALUES(99, 'last')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT id FROM notes WHERE title = 'last'"), next);
}

#[test]
fn a_table_without_a_key_is_numbered_so_too() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE lines(line TEXT)");
    apart(&mut [&mut a, &mut b], &["lines"]);
    a.run("INSERT INTO lines VALUES('a')");
    b.run("INSERT INTO lines VALUES('b')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT line FROM lines ORDER BY line").len(), 2);
    assert_eq!(a.rows("SELECT rowid FROM lines WHERE line = 'b'"), [[number(-2)]]);
    // VACUUM may number them anew; they stay the same rows.
    a.run("VACUUM; UPDATE lines SET line = 'B' WHERE line = 'b'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(
        agree(&mut [&mut a, &mut b], "SELECT line FROM lines ORDER BY line"),
        [[text("B")], [text("a")]]
    );
}

#[test]
fn a_check_that_takes_no_such_number_sets_the_row_aside_and_says_why() {
    let (mut hub, mut a, mut b) =
        pair("CREATE TABLE notes(id INTEGER PRIMARY KEY CHECK(id > 0), title TEXT)");
    apart(&mut [&mut b], &["notes"]);
    a.run("INSERT INTO notes VALUES(1, 'of a')");
    b.run("INSERT INTO notes VALUES(1, 'of b')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT title FROM notes"), [[text("of b")]]);
    let Value::Text(why) = b.rows("SELECT reason FROM _federation_quarantine")[0][0].clone() else {
        panic!()
    };
    assert!(why.contains("id > 0") && why.contains("tables.notes.numbers 'apart'"), "{why}");
    // Once the choice is taken back, it comes.
    b.options.tables.clear();
    b.reconnect();
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT title FROM notes ORDER BY 1").len(), 2);
}

#[test]
fn where_no_row_has_a_number_of_its_own_the_choice_has_no_effect_and_a_notice_says_so() {
    let schema = "CREATE TABLE codes(id INTEGER PRIMARY KEY, v) WITHOUT ROWID;
                  CREATE TABLE names(name TEXT PRIMARY KEY, v); CREATE TABLE settings(id INTEGER PRIMARY KEY, v)";
    let (mut hub, mut a, mut b) = pair(schema);
    let settings = TableOptions { name: "settings".into(), is_global: true, ..TableOptions::default() };
    a.options.tables.push(settings);
    apart(&mut [&mut b], &["codes", "names", "settings"]);
    for agent in [&mut a, &mut b] {
        agent.run("INSERT INTO codes VALUES(1, 1); INSERT INTO names VALUES('x', 1)");
    }
    a.run("INSERT INTO settings VALUES(1, 1)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.reconnect();
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all =
        "SELECT id, v FROM codes UNION ALL SELECT name, v FROM names UNION ALL SELECT id, v FROM settings";
    assert_eq!(agree(&mut [&mut a, &mut b], all).len(), 3);
    let notices = b.catalog_notices();
    for (table, why) in
        [("codes", "no numbers"), ("names", "no numbers"), ("settings", "mean the same everywhere")]
    {
        let is_it =
            |notice: &&String| notice.contains(&format!("tables.{table}.numbers")) && notice.contains(why);
        assert_eq!(notices.iter().filter(is_it).count(), 1, "{notices:?}");
    }
}

/// Breaks if a number is looked for without end where the lowest of all is taken.
#[test]
fn where_the_lowest_number_of_all_is_taken_rows_get_those_that_are_free() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)");
    apart(&mut [&mut b], &["notes"]);
    b.run(&format!(
        "INSERT INTO notes VALUES({}, 'lowest'), (-2, 'own'), (-3, 'own'), (-5, 'own')",
        i64::MIN
    ));
    a.run("INSERT INTO notes VALUES(1, 'x'), (2, 'y')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let rows = b.rows("SELECT id FROM notes WHERE title IN ('x', 'y') ORDER BY id DESC");
    assert_eq!(rows, [[number(-4)], [number(-6)]]);
}
