//! Which numbers a database gives to rows that come from elsewhere, and to those that are only referred to.

use crate::identity::{agree, settle};
use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub, pair};
use federation_hub::model::Value;
use federation_hub::storage::choice::TableOptions;
use federation_hub::storage::references::{DeclaredParent, DeclaredReference};

fn number(value: i64) -> Value {
    Value::Integer(value)
}

/// Breaks if a number that is taken is given again, or if none is found although there are some: a stranger's row has
/// made the highest one of all unusable.
#[test]
fn where_the_highest_number_of_all_is_taken_rows_get_those_that_are_free() {
    for key in ["INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"] {
        let (mut hub, mut a, mut b) = pair(&format!("CREATE TABLE notes(id {key}, title TEXT)"));
        b.run(&format!("INSERT INTO notes VALUES(1, 'first'), ({}, 'last')", i64::MAX));
        a.run("INSERT INTO notes VALUES(1, 'x')").sync(&mut hub);
        b.sync(&mut hub);
        assert_eq!(b.rows("SELECT id FROM notes WHERE title = 'x'"), [[number(2)]], "{key}");
        a.run("INSERT INTO notes VALUES(2, 'y')").sync(&mut hub);
        b.sync(&mut hub);
        assert_eq!(b.rows("SELECT id FROM notes WHERE title = 'y'"), [[number(3)]], "{key}");
        settle(&mut hub, &mut [&mut a, &mut b]);
        assert_eq!(agree(&mut [&mut a, &mut b], "SELECT title FROM notes ORDER BY title").len(), 4);
    }
}

/// Breaks if the word alone makes a table one whose numbers are never given twice: SQLite keeps no account of them.
#[test]
fn a_comment_that_speaks_of_autoincrement_changes_nothing() {
    let schema = "CREATE TABLE notes(id INTEGER PRIMARY KEY /* without AUTOINCREMENT */, title TEXT)";
    let (mut hub, mut a, mut b) = pair(schema);
    b.run("INSERT INTO notes(title) VALUES('here')");
    a.run("INSERT INTO notes(title) VALUES('x')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT title FROM notes ORDER BY 1").len(), 2);
}

/// Two agents of whom `b` has a link that means a skill which has not come yet: the rest of its pull got lost.
fn linked_ahead(key: &str, before: &str) -> (Hub, Agent, Agent) {
    let schema = format!(
        "CREATE TABLE links(id TEXT PRIMARY KEY, target INTEGER);
         CREATE TABLE others(id INTEGER PRIMARY KEY AUTOINCREMENT);
         CREATE TABLE skills(id {key}, what TEXT);"
    );
    let (mut hub, mut a, mut b) = pair(&schema);
    for agent in [&mut a, &mut b] {
        let (table, column) = ("links".into(), "target".into());
        let parent = DeclaredParent::Table("skills".into());
        agent.options.references = vec![DeclaredReference { table, column, parent }];
    }
    b.run(before).sync(&mut hub);
    a.run("INSERT INTO skills VALUES(1, 'meant'); INSERT INTO links VALUES('x', 1)").sync(&mut hub);
    a.run("UPDATE skills SET what = 'edited'").sync(&mut hub);
    b.slice = 1;
    b.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
    assert_eq!(b.rows("SELECT count(*) FROM links"), [[number(1)]]);
    (hub, a, b)
}

/// Breaks if the number of a row that is only referred to is one that SQLite gives: the link would mean the new row.
#[test]
fn a_number_that_is_only_referred_to_is_given_to_no_row_of_the_applications() {
    for key in ["INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"] {
        for before in ["", "INSERT INTO skills(what) VALUES('before')"] {
            let (mut hub, mut a, mut b) = linked_ahead(key, before);
            b.run("INSERT INTO skills(what) VALUES('own')");
            let meant = "SELECT what FROM links LEFT JOIN skills ON skills.id = target";
            assert_eq!(b.rows(meant), [[Value::Null]], "{key}, {before}");
            settle(&mut hub, &mut [&mut b, &mut a]);
            assert_eq!(agree(&mut [&mut a, &mut b], meant), [[text("edited")]], "{key}, {before}");
        }
    }
}

/// Breaks if a row that a foreign key takes out again leaves its number behind as one that was given.
#[test]
fn a_row_that_was_taken_out_again_uses_up_no_number() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, code TEXT UNIQUE);
                  CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, code TEXT REFERENCES p(code))";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO p(code) VALUES('x'), ('y'); INSERT INTO c(code) VALUES('x')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO c(code) VALUES('y')").sync(&mut hub);
    let counts = a.sync_with(&mut hub, Fate::Complete, &mut |a| {
        a.run("DELETE FROM p WHERE code = 'y'");
    });
    assert_eq!(counts.unwrap().quarantined, 1);
    assert_eq!(a.rows("SELECT seq FROM sqlite_sequence WHERE name = 'c'"), [[number(1)]]);
    a.run("INSERT INTO c(code) VALUES('x')");
    assert_eq!(a.rows("SELECT id FROM c ORDER BY id"), [[number(1)], [number(2)]]);
    settle(&mut hub, &mut [&mut a, &mut b]);
    agree(&mut [&mut a, &mut b], "SELECT c.code, p.code FROM c LEFT JOIN p USING(code) ORDER BY 1");
}

/// Two agents whose `settings` are numbered alike everywhere.
fn numbered_alike(key: &str) -> (Hub, Agent, Agent) {
    let (hub, mut a, mut b) = pair(&format!("CREATE TABLE settings(id {key}, v)"));
    for agent in [&mut a, &mut b] {
        let settings = TableOptions { name: "settings".into(), is_global: true, ..TableOptions::default() };
        agent.options.tables.push(settings);
    }
    (hub, a, b)
}

/// Breaks if a number that means the same everywhere is taken over although no row could be made behind it.
#[test]
fn no_strangers_number_ends_an_autoincrement_table_of_which_the_numbers_mean_the_same_everywhere() {
    for last in [i64::MAX, i64::MAX - 1, i64::MAX - 5] {
        let (mut hub, mut a, mut b) = numbered_alike("INTEGER PRIMARY KEY AUTOINCREMENT");
        b.run("INSERT INTO settings(v) VALUES('b 1')");
        a.run("INSERT INTO settings(id, v) VALUES(7, 'a 7'), (9, 'a 9')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        a.run(&format!(
            "INSERT INTO settings VALUES({last}, 'last'); UPDATE settings SET id = {last} - 1 WHERE id = 9"
        ));
        a.sync(&mut hub);
        for at in 0..20 {
            b.sync(&mut hub);
            b.run(&format!("INSERT INTO settings(v) VALUES('b {at}')"));
        }
        let counts = b.sync(&mut hub);
        assert_eq!(counts.quarantined, 2, "{last}");
        let told =
            b.notices.iter().any(|notice| notice.contains("is AUTOINCREMENT: give the row a smaller one"));
        assert!(told, "{:?}", b.notices);
        assert_eq!(b.rows("SELECT count(*) FROM settings"), [[number(23)]]);
        // Once they have smaller numbers, they come; and so they do if they are gone.
        a.run(&format!("UPDATE settings SET id = 8 WHERE id = {last}; DELETE FROM settings WHERE v = 'a 9'"));
        settle(&mut hub, &mut [&mut a, &mut b]);
        assert_eq!(b.sync(&mut hub).quarantined, 0);
        let rows = agree(&mut [&mut a, &mut b], "SELECT id, v FROM settings ORDER BY id");
        assert_eq!(rows[2], [number(8), text("last")], "{last}");
    }
}

/// Breaks if such a number is refused although the application has used the highest one itself, or can go on without.
#[test]
fn a_last_number_is_taken_over_where_it_ends_nothing() {
    let plain = "INTEGER PRIMARY KEY /* not AUTOINCREMENT */";
    for (key, own) in [(plain, 5), ("INTEGER PRIMARY KEY AUTOINCREMENT", i64::MAX)] {
        let (mut hub, mut a, mut b) = numbered_alike(key);
        b.run(&format!("INSERT INTO settings VALUES({own}, 'own')"));
        a.run(&format!("INSERT INTO settings VALUES({}, 'last but one')", i64::MAX - 1));
        settle(&mut hub, &mut [&mut a, &mut b]);
        assert_eq!(b.rows("SELECT count(*) FROM settings"), [[number(2)]], "{key}");
        if own == 5 {
            b.run("INSERT INTO settings(v) VALUES('next')").run("INSERT INTO settings(v) VALUES('and next')");
        }
    }
}
