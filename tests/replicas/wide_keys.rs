//! Keys of many columns.

use std::fmt::Write as _;

use crate::identity::{agree, settle, shifted};
use crate::world::parts::text;
use crate::world::{Agent, pair};
use federation_hub::model::Value;

/// The names of a key's columns.
fn names(width: usize) -> Vec<String> {
    (0..width).map(|at| format!("part_{at}")).collect()
}

/// A table with a key of so many columns, and one column besides.
fn wide(width: usize, end: &str) -> String {
    let names = names(width);
    let columns: String = names.iter().fold(String::new(), |mut columns, name| {
        write!(columns, "{name} NOT NULL, ").unwrap();
        columns
    });
    format!("CREATE TABLE wide({columns}v, PRIMARY KEY({})){end};", names.join(", "))
}

/// A row of it, of which the last part of the key is this.
fn row(width: usize, last: &str, v: &str) -> String {
    let values: Vec<String> = (1..width).map(|at| format!("'{at}'")).collect();
    format!("({}, {last}, {v})", values.join(", "))
}

fn number(value: i64) -> Value {
    Value::Integer(value)
}

#[test]
fn a_key_of_any_number_of_columns_is_a_key() {
    for (width, end) in [(5, ""), (5, " WITHOUT ROWID"), (16, ""), (16, " WITHOUT ROWID"), (255, "")] {
        let (mut hub, mut a, mut b) = pair(&wide(width, end));
        let last = format!("part_{}", width - 1);
        let insert = |last: &str, v: &str| format!("INSERT INTO wide VALUES{}", row(width, last, v));
        a.run(&insert("1", "'of a'")).run(&insert("2", "'of a'"));
        b.run(&insert("1.5", "'of b'")).run(&insert("x'02'", "NULL"));
        settle(&mut hub, &mut [&mut a, &mut b]);
        let all = format!("SELECT {last}, v FROM wide ORDER BY 1");
        assert_eq!(agree(&mut [&mut a, &mut b], &all).len(), 4, "{width}{end}");
        // The same key written twice is one row.
        a.run(&insert("3", "'first'")).sync(&mut hub);
        std::thread::sleep(std::time::Duration::from_millis(3));
        b.run(&insert("3", "'second'")).run(&format!("DELETE FROM wide WHERE {last} = 1"));
        settle(&mut hub, &mut [&mut b, &mut a]);
        assert_eq!(agree(&mut [&mut a, &mut b], &all).len(), 4, "{width}{end}");
        assert_eq!(a.rows(&format!("SELECT v FROM wide WHERE {last} = 3")), [[text("second")]]);
        // A key can be edited, and given to another row with it.
        b.run(&format!("UPDATE wide SET {last} = 4 WHERE {last} = 3"));
        a.run(&format!("UPDATE wide SET v = 'edited' WHERE {last} = 3"))
            .run(&format!("REPLACE INTO wide VALUES{}", row(width, "2", "'replaced'")));
        settle(&mut hub, &mut [&mut b, &mut a]);
        let rows = agree(
            &mut [&mut a, &mut b],
            &format!("SELECT {last}, v FROM wide WHERE {last} IN (2, 4) ORDER BY 1"),
        );
        assert_eq!(rows, [[number(2), text("replaced")], [number(4), text("edited")]], "{width}{end}");
        // Somebody who comes later has it all.
        let mut newcomer = Agent::new("acme", "newcomer", 9);
        newcomer.sync(&mut hub);
        assert_eq!(newcomer.rows(&all), a.rows(&all));
        // And the self-check finds its way from the bookkeeping to the rows.
        assert!(a.looked_at > 0);
    }
}

#[test]
fn a_key_that_differs_in_one_part_is_another_one_whichever_it_is() {
    let width = 16;
    let (mut hub, mut a, mut b) = pair(&wide(width, ""));
    for at in 0..width {
        let values: Vec<&str> = (0..width).map(|other| if other == at { "'other'" } else { "0" }).collect();
        let agent = if at % 2 == 0 { &mut a } else { &mut b };
        agent.run(&format!("INSERT INTO wide VALUES({}, {at})", values.join(", ")));
    }
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT v FROM wide ORDER BY v").len(), width);
    a.run("DELETE FROM wide WHERE v % 3 = 0");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT v FROM wide ORDER BY v").len(), 10);
}

/// A parent whose key has parts of every kind, the number of another row among them, and children of it.
fn family(width: usize, clause: &str) -> String {
    let names = names(width);
    let (mut columns, mut own) = (String::new(), String::new());
    for name in &names[1..] {
        write!(columns, "{name} TEXT NOT NULL, ").unwrap();
        write!(own, "{name} TEXT, ").unwrap();
    }
    let (first, list) = (&names[0], names.join(", "));
    format!(
        "CREATE TABLE agents(id INTEGER PRIMARY KEY, name TEXT);
         CREATE TABLE wide({first} INTEGER NOT NULL REFERENCES agents(id), {columns}v, PRIMARY KEY({list}));
         CREATE TABLE children(id INTEGER PRIMARY KEY, {first} INTEGER, {own}what TEXT,
           FOREIGN KEY({list}) REFERENCES wide({list}) {clause});"
    )
}

#[test]
fn references_by_a_key_of_many_columns_lead_to_the_row_that_has_it() {
    for width in [5, 16] {
        let schema = family(width, "ON DELETE CASCADE ON UPDATE CASCADE");
        let (mut hub, mut a, mut b) = shifted(&schema, "INSERT INTO agents(name) VALUES('b1'), ('b2')");
        let (names, last) = (names(width), format!("part_{}", width - 1));
        let rest: Vec<String> = (1..width).map(|at| format!("'{at}'")).collect();
        for (agent, name) in [(&mut a, "of a"), (&mut b, "of b")] {
            agent.run(&format!("INSERT INTO agents(name) VALUES('{name}')"));
            agent.run(&format!(
                "INSERT INTO wide SELECT id, {}, name FROM agents WHERE name = '{name}'",
                rest.join(", ")
            ));
            agent.run(&format!("INSERT INTO children({0}, what) SELECT {0}, v FROM wide", names.join(", ")));
        }
        settle(&mut hub, &mut [&mut a, &mut b]);
        let meant = format!(
            "SELECT what, v, name FROM children LEFT JOIN wide USING({}) LEFT JOIN agents ON agents.id = part_0 ORDER BY 1",
            names.join(", ")
        );
        let own = |name: &str| vec![text(name), text(name), text(name)];
        assert_eq!(agree(&mut [&mut a, &mut b], &meant), [own("of a"), own("of b")], "{width}");
        // They follow an edit of the key, also where a child was made meanwhile.
        a.run(&format!("UPDATE wide SET {last} = 'moved' WHERE v = 'of a'"));
        b.run(&format!(
            "INSERT INTO children({0}, what) SELECT {0}, 'made' FROM wide WHERE v = 'of a'",
            names.join(", ")
        ));
        settle(&mut hub, &mut [&mut b, &mut a]);
        let rows = agree(&mut [&mut a, &mut b], &meant);
        assert_eq!(rows[0], [text("made"), text("of a"), text("of a")], "{width}");
        // And go with the row.
        b.run("DELETE FROM wide WHERE v = 'of a'");
        settle(&mut hub, &mut [&mut b, &mut a]);
        assert_eq!(agree(&mut [&mut a, &mut b], &meant), [own("of b")], "{width}");
    }
}

#[test]
fn a_unique_key_of_many_columns_makes_one_row_of_two() {
    let width = 16;
    let names = names(width);
    let schema = format!(
        "CREATE TABLE wide(id INTEGER PRIMARY KEY, {0}, v TEXT, UNIQUE({0}));
         CREATE TABLE children(id INTEGER PRIMARY KEY, of INTEGER REFERENCES wide(id), what TEXT);",
        names.join(", ")
    );
    let (mut hub, mut a, mut b) = shifted(&schema, "");
    let values: Vec<String> = (0..width).map(|at| format!("'{at}'")).collect();
    for (agent, what) in [(&mut a, "a"), (&mut b, "b")] {
        agent.run(&format!(
            "INSERT INTO wide({}, v) VALUES({}, 'of {what}')",
            names.join(", "),
            values.join(", ")
        ));
        agent.run(&format!("INSERT INTO children(of, what) VALUES(1, '{what}')"));
    }
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT count(*) FROM wide"), [[number(1)]]);
    let both = agree(&mut [&mut a, &mut b], "SELECT what FROM children JOIN wide ON of = wide.id ORDER BY 1");
    assert_eq!(both, [[text("a")], [text("b")]]);
}

/// Breaks if the log has no room for keys of a table that comes later, or that gets a longer key.
#[test]
fn a_table_with_a_longer_key_may_come_at_any_time() {
    let narrow = "CREATE TABLE narrow(a, b, c, d, v, PRIMARY KEY(a, b, c, d));
                  CREATE VIEW broken AS SELECT gone FROM narrow; INSERT INTO narrow VALUES(1, 2, 3, 4, 'before')";
    let (mut hub, mut a, mut b) = pair(narrow);
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("INSERT INTO narrow VALUES(1, 2, 3, 5, 'meanwhile')").run(&wide(5, ""));
    a.run(&format!("INSERT INTO wide VALUES{}", row(5, "'x'", "1")));
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run(&format!("UPDATE wide SET v = 2; INSERT INTO wide VALUES{}", row(5, "'y'", "1")));
    b.run("DROP TABLE narrow").run(&wide(9, "").replace("wide", "wider"));
    b.run(&format!("INSERT INTO wider VALUES{}", row(9, "'x'", "1")));
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.run("DELETE FROM wider").run("DELETE FROM wide WHERE part_4 = 'x'");
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT part_4, v FROM wide"), [[text("y"), number(1)]]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT count(*) FROM wider"), [[number(0)]]);
    assert_eq!(a.rows("SELECT count(*) FROM narrow"), [[number(2)]]);
}

#[test]
fn a_table_whose_key_is_longer_than_the_limit_stays_where_it_is() {
    let (mut hub, mut a, mut b) = pair(&format!("{} CREATE TABLE notes(id TEXT PRIMARY KEY)", wide(256, "")));
    a.run(&format!("INSERT INTO wide VALUES{}; INSERT INTO notes VALUES('n')", row(256, "1", "1")));
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(a.left_alone(), [("wide".to_owned(), "its PRIMARY KEY has more than 255 columns".to_owned())]);
    assert_eq!(b.rows("SELECT count(*) FROM wide"), [[number(0)]]);
    assert_eq!(b.rows("SELECT count(*) FROM notes"), [[number(1)]]);
}
