//! Numbers that SQLite gives again: a row that was deleted and one that was inserted under its number are two rows.

use federation_hub::model::Value;

use crate::identity::{agree, settle};
use crate::world::parts::text;
use crate::world::{Agent, Hub, pair};

const TODO: &str = "CREATE TABLE todo(id INTEGER PRIMARY KEY, what TEXT, done INTEGER DEFAULT 0);
    CREATE TABLE remarks(id INTEGER PRIMARY KEY, todo INTEGER REFERENCES todo(id) ON DELETE CASCADE, said TEXT)";

const OPEN: &str = "SELECT what, done FROM todo ORDER BY what";

fn lists(schema: &str) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(schema);
    for agent in [&mut a, &mut b] {
        agent.run("PRAGMA foreign_keys = ON");
    }
    a.run("INSERT INTO todo(what) VALUES('old 1'), ('old 2')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    (hub, a, b)
}

#[test]
fn a_list_that_was_written_anew_is_not_ticked_off_by_who_ticked_the_old_one_off() {
    let insert = "INSERT INTO todo(what) VALUES('new 1'), ('new 2')";
    for anew in [
        format!("DELETE FROM todo; {insert}"),
        format!("BEGIN; DELETE FROM todo WHERE id = 2; DELETE FROM todo WHERE id = 1; {insert}; COMMIT"),
        "DELETE FROM todo; INSERT INTO todo(id, what) VALUES(1, 'new 1'), (2, 'new 2')".to_owned(),
        "DELETE FROM todo; INSERT INTO todo(id, what) VALUES(1, 'new 2'), (7, 'new 1'); UPDATE todo SET id = 2 WHERE id = 7"
            .to_owned(),
        "DELETE FROM todo WHERE id = 1; UPDATE todo SET id = 9; DELETE FROM todo; INSERT INTO todo(id, what) VALUES(1, 'new 1');
         INSERT OR REPLACE INTO todo(id, what) VALUES(2, 'x'), (2, 'new 2')"
            .to_owned(),
    ] {
        let (mut hub, mut a, mut b) = lists(TODO);
        a.run(&anew);
        b.run("UPDATE todo SET done = 1 WHERE what = 'old 1'; INSERT INTO remarks(todo, said) SELECT id, 'well done' FROM todo WHERE what = 'old 1'");
        b.run("INSERT INTO remarks(todo, said) SELECT id, 'never mind' FROM todo WHERE what = 'old 2'");
        settle(&mut hub, &mut [&mut a, &mut b]);
        let open = agree(&mut [&mut a, &mut b], OPEN);
        let new = [[text("new 1"), Value::Integer(0)], [text("new 2"), Value::Integer(0)]];
        assert!(new.iter().all(|row| open.contains(&row.to_vec())), "{anew}: {open:?}");
        let remarked = "SELECT what, said FROM remarks JOIN todo ON todo.id = todo ORDER BY said";
        for row in agree(&mut [&mut a, &mut b], remarked) {
            assert_eq!(row, [text("old 1"), text("well done")], "{anew}");
        }
    }
}

/// Breaks if a row comes back under the number that another row has by now.
#[test]
fn a_deleted_row_that_an_edit_brings_back_gets_another_number_than_the_one_in_its_place() {
    let (mut hub, mut a, mut b) = lists(TODO);
    a.run("DELETE FROM todo; INSERT INTO todo(what) VALUES('new')");
    assert_eq!(a.rows("SELECT id FROM todo"), [[Value::Integer(1)]]);
    // Its edit is later than the delete.
    b.lead_ms = 10_000;
    b.run("UPDATE todo SET what = 'edited' WHERE what = 'old 1'")
        .run("UPDATE todo SET done = 1 WHERE what = 'edited'");
    settle(&mut hub, &mut [&mut b, &mut a]);
    settle(&mut hub, &mut [&mut a, &mut b]);
    let both = agree(&mut [&mut a, &mut b], "SELECT what FROM todo ORDER BY what");
    assert_eq!(both, [[text("edited")], [text("new")]]);
    assert_eq!(a.rows("SELECT id FROM todo WHERE what = 'new'"), [[Value::Integer(1)]]);
}

/// Breaks if REPLACE, UPSERT or UPDATE make another row of one, whether or not SQLite fires triggers for what a REPLACE
/// takes away.
#[test]
fn a_row_that_is_replaced_under_its_number_stays_the_same() {
    for recursive in ["OFF", "ON"] {
        for write in [
            "REPLACE INTO todo(id, what) VALUES(1, 'again')",
            "INSERT OR REPLACE INTO todo(id, what) VALUES(1, 'x'); REPLACE INTO todo(id, what) VALUES(1, 'again')",
            "INSERT INTO todo(id, what) VALUES(1, 'again') ON CONFLICT DO UPDATE SET what = excluded.what",
            "INSERT OR IGNORE INTO todo(id, what) VALUES(1, 'x'); REPLACE INTO todo(id, what) VALUES(1, 'again')",
            "UPDATE todo SET id = 5 WHERE id = 1; REPLACE INTO todo(id, what) VALUES(5, 'again')",
            "UPDATE OR REPLACE todo SET what = 'again' WHERE id = 1",
        ] {
            let (mut hub, mut a, mut b) = lists(TODO);
            a.run(&format!("PRAGMA recursive_triggers = {recursive}")).run(write);
            b.run("INSERT INTO remarks(todo, said) SELECT id, 'hm' FROM todo WHERE what = 'old 1'");
            settle(&mut hub, &mut [&mut b, &mut a]);
            let remarked = "SELECT what, said FROM remarks JOIN todo ON todo.id = todo";
            assert_eq!(
                agree(&mut [&mut a, &mut b], remarked),
                [[text("again"), text("hm")]],
                "{recursive}: {write}"
            );
        }
    }
}

/// Breaks if an INSERT that came to nothing makes the next DELETE and INSERT of that number a REPLACE.
#[test]
fn a_delete_and_an_insert_after_an_insert_that_was_ignored_are_two_rows() {
    for recursive in ["OFF", "ON"] {
        for insert in ["INSERT INTO todo(id, what) VALUES(2, 'new')", "INSERT INTO todo(what) VALUES('new')"]
        {
            for before in [
                "INSERT OR IGNORE INTO todo(id, what) VALUES(2, 'x')",
                "INSERT INTO todo(id, what) VALUES(2, 'x') ON CONFLICT DO NOTHING",
                "REPLACE INTO todo(id, what) VALUES(2, 'x')",
                "INSERT INTO todo(id) VALUES(2) ON CONFLICT DO UPDATE SET done = 2",
            ] {
                let (mut hub, mut a, mut b) = lists(TODO);
                a.run(&format!("PRAGMA recursive_triggers = {recursive}")).run(before);
                a.run("DELETE FROM todo WHERE id = 2").run(insert);
                b.run("UPDATE todo SET done = 1 WHERE what = 'old 2'");
                settle(&mut hub, &mut [&mut b, &mut a]);
                let new = agree(&mut [&mut a, &mut b], "SELECT done FROM todo WHERE what = 'new'");
                assert_eq!(new, [[Value::Integer(0)]], "{recursive}: {before}; {insert}");
            }
        }
    }
}

#[test]
fn rows_of_tables_without_a_key_are_other_rows_under_the_same_rowid_as_well() {
    for key in ["", "id INTEGER PRIMARY KEY AUTOINCREMENT, "] {
        let (mut hub, mut a, mut b) = pair(&format!("CREATE TABLE lines({key}text, n DEFAULT 0)"));
        a.run("INSERT INTO lines(text) VALUES('old')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        a.run("DELETE FROM lines; INSERT INTO lines(rowid, text) VALUES(1, 'new')");
        b.run("UPDATE lines SET n = 1");
        settle(&mut hub, &mut [&mut b, &mut a]);
        let new = agree(&mut [&mut a, &mut b], "SELECT n FROM lines WHERE text = 'new'");
        assert_eq!(new, [[Value::Integer(0)]], "{key}");
    }
}

/// Breaks if a reference that the application wrote again, by the same number, goes on meaning the row that is gone.
#[test]
fn a_reference_by_a_number_that_was_given_again_means_the_new_row() {
    for foreign_keys in ["ON", "OFF"] {
        let (mut hub, mut a, mut b) = lists(TODO);
        a.run("INSERT INTO remarks(todo, said) VALUES(1, 'hm')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        a.run(&format!("PRAGMA foreign_keys = {foreign_keys}"));
        a.run("UPDATE remarks SET todo = NULL; DELETE FROM todo WHERE id = 1; INSERT INTO todo(id, what) VALUES(1, 'new')");
        a.run("UPDATE remarks SET todo = 1");
        settle(&mut hub, &mut [&mut a, &mut b]);
        let remarked = "SELECT what, said FROM remarks JOIN todo ON todo.id = todo";
        assert_eq!(agree(&mut [&mut a, &mut b], remarked), [[text("new"), text("hm")]]);
    }
}

/// Breaks if what is compared, and not captured, makes another row of one: nobody has seen it deleted.
#[test]
fn a_table_that_was_rebuilt_keeps_its_rows_but_for_those_that_were_deleted_before() {
    let (mut hub, mut a, mut b) =
        lists("CREATE TABLE todo(id INTEGER PRIMARY KEY, what TEXT, done INTEGER DEFAULT 0)");
    a.run("DELETE FROM todo WHERE id = 2; INSERT INTO todo(id, what) VALUES(2, 'new 2')");
    a.run("CREATE TABLE t(id INTEGER PRIMARY KEY, what TEXT, done INTEGER DEFAULT 0); INSERT INTO t SELECT * FROM todo")
        .run("DROP TABLE todo; ALTER TABLE t RENAME TO todo");
    b.run("UPDATE todo SET done = 1");
    settle(&mut hub, &mut [&mut b, &mut a]);
    let done =
        agree(&mut [&mut a, &mut b], "SELECT what, done FROM todo WHERE what <> 'old 2' ORDER BY what");
    assert_eq!(done, [[text("new 2"), Value::Integer(0)], [text("old 1"), Value::Integer(1)]]);
}

#[test]
fn a_database_of_an_earlier_layout_goes_on() {
    let (mut hub, mut a, mut b) = lists(TODO);
    a.run(
        "UPDATE _federation_replica SET layout = 3; DROP INDEX _federation_log_keys; DROP INDEX _federation_log_replacing;
         ALTER TABLE _federation_log DROP COLUMN effect_of;
         ALTER TABLE _federation_replica DROP COLUMN half_settled;
         CREATE INDEX _federation_log_move ON _federation_log(seq) WHERE op IN (1, 2)",
    );
    a.reconnect();
    a.sync(&mut hub);
    a.run("DELETE FROM todo; INSERT INTO todo(what) VALUES('new')");
    b.run("UPDATE todo SET done = 1");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let new = agree(&mut [&mut a, &mut b], "SELECT done FROM todo WHERE what = 'new'");
    assert_eq!(new, [[Value::Integer(0)]]);
}
