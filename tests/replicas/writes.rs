//! Every way to write: whatever the application's statement, the others get what it did.

use crate::limits::batches;
use crate::world::parts::text;
use crate::world::{Agent, Counts, Fate, Hub, pair, settle};
use federation_hub::model::{Stamp, Value};

const SKILLS: &str = "CREATE TABLE skills(id TEXT PRIMARY KEY, name TEXT, kind TEXT, gone INTEGER);";

/// Two agents that share these skills: 1 retry, 2 plan, 3 Act.
fn skilled(index: &str) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(&format!("{SKILLS} {index}"));
    a.run(
        "INSERT INTO skills VALUES('1', 'retry', 'x', NULL), ('2', 'plan', 'x', NULL), ('3', 'Act', 'y', 1)",
    );
    a.sync(&mut hub);
    b.sync(&mut hub);
    (hub, a, b)
}

#[test]
fn rows_that_replace_takes_away_by_a_unique_index_are_deletes() {
    let row = |id, name| vec![text(id), text(name)];
    for index in [
        "CREATE UNIQUE INDEX by_name ON skills(name)",
        "CREATE UNIQUE INDEX by_name ON skills(name COLLATE NOCASE, kind)",
        "CREATE UNIQUE INDEX by_name ON skills(lower(name) /* ( */ DESC)",
        "CREATE UNIQUE INDEX by_name ON skills(trim(name, '-''(') COLLATE NOCASE) WHERE gone IS NULL",
    ] {
        let (mut hub, mut a, mut b) = skilled(index);
        a.run("INSERT OR REPLACE INTO skills VALUES('4', 'retry', 'x', NULL)");
        a.run("UPDATE OR REPLACE skills SET name = 'retry' WHERE id = '2'");
        let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, name FROM skills ORDER BY id");
        assert_eq!(rows, vec![row("2", "retry"), row("3", "Act")], "{index}");
        assert_eq!(b.sync(&mut hub), Counts::default(), "{index}");
    }
}

#[test]
fn a_replaced_row_that_has_changed_again_is_found() {
    let (mut hub, mut a, mut b) = skilled("CREATE UNIQUE INDEX by_name ON skills(name)");
    a.run("INSERT OR REPLACE INTO skills VALUES('4', 'retry', 'x', NULL)");
    a.run("UPDATE skills SET name = 'again' WHERE id = '4'");
    a.run("INSERT OR REPLACE INTO skills VALUES('5', 'plan', 'x', NULL)")
        .run("DELETE FROM skills WHERE id = '5'");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, name FROM skills ORDER BY id");
    assert_eq!(rows, vec![vec![text("3"), text("Act")], vec![text("4"), text("again")]]);
}

#[test]
fn a_row_outside_a_partial_index_takes_nothing_away() {
    let (mut hub, mut a, mut b) = skilled("CREATE UNIQUE INDEX by_name ON skills(name) WHERE gone IS NULL");
    a.run("INSERT OR REPLACE INTO skills VALUES('4', 'retry', 'x', 1)");
    assert_eq!(a.sync(&mut hub).pushed, 1);
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT id FROM skills").len(), 4);
}

#[test]
fn a_column_of_a_dropped_index_says_how_it_can_be_dropped() {
    let (mut hub, mut a, mut b) = skilled("CREATE UNIQUE INDEX by_kind ON skills(kind, name)");
    a.run("DROP INDEX by_kind");
    let refused = a.try_run("ALTER TABLE skills DROP COLUMN kind").unwrap_err();
    assert!(refused.message.contains("FederationHub.migrate"), "{refused}");
    a.sync(&mut hub);
    // The sync has seen that the index is gone.
    a.run("ALTER TABLE skills DROP COLUMN kind");
    settle(&mut hub, &mut a, &mut b, "SELECT id, name, gone FROM skills ORDER BY id");
}

#[test]
fn ways_to_write_all_arrive() {
    for recursive in ["OFF", "ON"] {
        let schema = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body);
             CREATE TABLE parents(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
             CREATE TABLE children(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents ON DELETE CASCADE
               ON UPDATE CASCADE, title TEXT)";
        let (mut hub, mut a, mut b) = pair(schema);
        for agent in [&mut a, &mut b] {
            agent.run(&format!("PRAGMA recursive_triggers = {recursive}; PRAGMA foreign_keys = ON"));
        }
        a.run("INSERT INTO notes VALUES('x', 'one', 1), ('y', 'two', 2), ('z', 'three', 3)");
        a.run("INSERT INTO parents VALUES(1, 'p1'), (2, 'p2')");
        a.run("INSERT INTO children(parent, title) VALUES(1, 'c1'), (1, 'c2'), (2, 'c3')");
        settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
        a.run("INSERT OR IGNORE INTO notes VALUES('x', 'ignored', 0), ('v', 'new', 0)");
        a.run("INSERT OR REPLACE INTO notes VALUES('x', 'replaced', 0)");
        a.run(
            "INSERT INTO notes VALUES('y', 'upsert', 0) ON CONFLICT(id) DO UPDATE SET title = excluded.title",
        );
        a.run("UPDATE notes SET id = 'w' WHERE id = 'z'");
        a.run("DELETE FROM parents WHERE name = 'p1'");
        a.run("INSERT OR REPLACE INTO parents VALUES(9, 'p2')");
        a.run("WITH t(id) AS (SELECT 'u') REPLACE INTO notes(id, title) SELECT id, 'from a query' FROM t");
        let queries = [
            "SELECT * FROM notes ORDER BY id",
            "SELECT name FROM parents ORDER BY name",
            "SELECT c.title, p.name FROM children AS c LEFT JOIN parents AS p ON p.id = c.parent ORDER BY 1",
        ];
        for query in queries {
            settle(&mut hub, &mut a, &mut b, query);
        }
        assert_eq!(a.rows("SELECT title FROM notes WHERE id = 'y'"), vec![vec![text("upsert")]]);
        a.run("DELETE FROM notes");
        settle(&mut hub, &mut a, &mut b, queries[0]);
        assert_eq!(b.rows("SELECT count(*) FROM notes"), vec![vec![Value::Integer(0)]]);
    }
}

#[test]
fn swaps_and_chains_of_unique_values_and_of_keys_arrive() {
    // Where AS names are unique by a constraint, an index, an expression; where the key itself is swapped.
    for (schema, swapped) in [
        ("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT UNIQUE)", "v"),
        (
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE UNIQUE INDEX i ON t(lower(v)) WHERE v <> ''",
            "v",
        ),
        ("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT NOT NULL COLLATE NOCASE UNIQUE)", "v"),
        ("CREATE TABLE t(v TEXT PRIMARY KEY, id TEXT)", "v"),
        ("CREATE TABLE t(v TEXT, id TEXT, PRIMARY KEY(v, id)) WITHOUT ROWID", "v"),
    ] {
        for slice in [1, 2, 100] {
            let (mut hub, mut a, mut b) = pair(schema);
            a.run("INSERT INTO t(id, v) VALUES(1, 'one'), (2, 'two'), (3, 'three'), (4, 'four')");
            a.sync(&mut hub);
            b.sync(&mut hub);
            b.slice = slice;
            let query = "SELECT id, v FROM t ORDER BY id";
            for statements in [
                // A swap, a chain whose end is free, a rotation, and a row that goes to make room.
                ["1, 'tmp'", "2, 'one'", "1, 'two'"].as_slice(),
                ["4, 'five'", "3, 'four'", "1, 'three'"].as_slice(),
                ["1, 'tmp'", "2, 'three'", "4, 'one'", "3, 'five'", "1, 'four'"].as_slice(),
            ] {
                for statement in statements {
                    let (id, value) = statement.split_once(", ").unwrap();
                    a.run(&format!("UPDATE t SET {swapped} = {value} WHERE id = {id}"));
                }
                a.sync(&mut hub);
                assert_eq!(b.sync(&mut hub).quarantined, 0, "{schema} {slice} {statements:?}");
                assert_eq!(a.rows(query), b.rows(query), "{schema} {slice}");
            }
            a.run("DELETE FROM t WHERE id = 1").run("UPDATE t SET v = 'four' WHERE id = 2");
            a.run("INSERT INTO t(id, v) VALUES(9, 'three'), (10, 'two')");
            a.sync(&mut hub);
            assert_eq!(b.sync(&mut hub).quarantined, 0, "{schema} {slice}");
            assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT v FROM t ORDER BY v").len(), 5);
        }
    }
}

#[test]
fn a_swap_that_cannot_be_leaves_every_row_as_it_was() {
    let schema = "CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER)";
    let (mut hub, mut a, mut b) = pair("");
    a.run(schema);
    b.run("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER CHECK(n < 10))");
    a.run("INSERT INTO t VALUES(1, 'one', 1), (2, 'two', 1), (3, 'three', 1)");
    a.sync(&mut hub);
    b.sync(&mut hub);
    let before = b.rows("SELECT rowid, * FROM t ORDER BY id");
    a.run(
        "UPDATE t SET v = 'tmp' WHERE id = 1; UPDATE t SET v = 'one' WHERE id = 2;
           UPDATE t SET v = 'two', n = 99 WHERE id = 1; UPDATE t SET n = 2 WHERE id = 3",
    );
    a.sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 2);
    assert_eq!(b.rows("SELECT rowid, * FROM t WHERE id < 3 ORDER BY id"), before[..2]);
    assert_eq!(b.rows("SELECT n FROM t WHERE id = 3"), vec![vec![Value::Integer(2)]]);
    a.run("UPDATE t SET n = 3 WHERE id = 1");
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT * FROM t ORDER BY id").len(), 3);
    assert_eq!(b.rows("SELECT rowid, id FROM t ORDER BY id")[1], before[1][..2], "hidden numbers stay");
}

#[test]
fn a_key_that_is_edited_again_and_again_is_one_row_however_long_the_log() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)");
    a.run("INSERT INTO notes VALUES('n0', 'one')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.limits.rows = 7;
    for n in 0..30 {
        a.run(&format!("UPDATE notes SET id = 'n{}' WHERE id = 'n{n}'", n + 1));
    }
    b.run("UPDATE notes SET title = 'edited meanwhile'");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    assert_eq!(rows, vec![vec![text("n30"), text("edited meanwhile")]]);
}

#[test]
fn a_key_that_is_edited_to_and_fro_stays_one_row_however_long_the_log() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)");
    a.run("INSERT INTO notes VALUES('to', 'one')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    b.run("UPDATE notes SET title = 'edited meanwhile'");
    std::thread::sleep(std::time::Duration::from_millis(5));
    a.limits.rows = 7;
    for _ in 0..15 {
        a.run("UPDATE notes SET id = 'fro'; UPDATE notes SET id = 'to'");
    }
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    assert_eq!(rows, vec![vec![text("to"), text("edited meanwhile")]]);
}

#[test]
fn keys_that_cannot_be_exchanged_here_are_as_they_were() {
    let (mut hub, mut a, mut b) = pair("");
    a.run("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER)");
    b.run("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER CHECK(n < 10))");
    a.run("INSERT INTO t VALUES('x', 'one', 1), ('y', 'two', 2), ('z', 'three', 3)").sync(&mut hub);
    b.sync(&mut hub);
    let rows = "SELECT id, v, n FROM t ORDER BY n";
    let before = b.rows(rows);
    // Two exchange their keys; the third, which has to give one of them its other value, is refused at last.
    a.run(
        "UPDATE t SET id = 'tmp' WHERE n = 1; UPDATE t SET id = 'x' WHERE n = 2; UPDATE t SET v = 'tmp' WHERE n = 3;
         UPDATE t SET id = 'y', v = 'three' WHERE n = 1; UPDATE t SET v = 'one', n = 99 WHERE n = 3",
    );
    a.sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 3);
    assert_eq!(b.rows(rows), before);
    a.run("UPDATE t SET n = 3 WHERE n = 99").sync(&mut hub);
    assert_eq!(b.sync(&mut hub).pulled, 3);
    assert_eq!(settle(&mut hub, &mut a, &mut b, rows).len(), 3);
    assert_eq!(b.sync(&mut hub).pushed, 0);
}

#[test]
fn whoever_vanishes_between_two_batches_leaves_no_row_that_waits_for_one_that_nobody_has() {
    // In the order of the alphabet, and of their numbers, children come first.
    let schema = "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent,
                    place TEXT NOT NULL REFERENCES place(name));
                  CREATE TABLE parent(id INTEGER PRIMARY KEY, what TEXT);
                  CREATE TABLE place(name TEXT PRIMARY KEY);";
    let arrived = |count: usize| {
        let (mut hub, mut a, mut b) = pair(schema);
        a.limits.rows = 1;
        a.run("INSERT INTO parent(what) VALUES('p1'), ('p2'); INSERT INTO place VALUES('here'), ('there')");
        a.run("INSERT INTO child(parent, place) VALUES(1, 'there')");
        // The look at what is there has begun, when the application writes more.
        a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
        a.run("INSERT INTO child(parent, place) VALUES(2, 'there'); INSERT INTO parent(what) VALUES('p3')");
        a.run("INSERT INTO child(parent, place) VALUES(3, 'here')");
        let is_whole = a.sync_with(&mut hub, Fate::LosesBatchAfter(count), &mut |_| {}).is_some();
        assert_eq!(b.sync(&mut hub).quarantined, 0, "after {count} batches");
        (
            is_whole,
            b.rows("SELECT 1 FROM child UNION ALL SELECT 1 FROM parent UNION ALL SELECT 1 FROM place").len(),
        )
    };
    let arrived: Vec<(bool, usize)> = (0..9).map(arrived).collect();
    let rows_after = |count: usize| (count == 8, count);
    assert_eq!(arrived, (0..9).map(rows_after).collect::<Vec<_>>());
}

#[test]
fn what_references_a_row_whose_batch_was_lost_goes_after_it() {
    let schema = "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent);
                  CREATE TABLE parent(id INTEGER PRIMARY KEY, what TEXT);";
    let (mut hub, mut a, mut b) = pair(schema);
    a.sync(&mut hub);
    a.limits.rows = 1;
    a.run("INSERT INTO parent(what) VALUES('p1')").sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    a.run("INSERT INTO child(parent) VALUES(1)");
    a.sync_with(&mut hub, Fate::LosesBatchAfter(1), &mut |_| {});
    assert_eq!(b.sync(&mut hub), Counts { pulled: 1, ..Counts::default() });
}

/// Breaks if a batch leaves to a later one what its own rows reference.
#[test]
fn whoever_vanishes_between_two_batches_of_tables_in_a_circle_leaves_no_row_that_waits() {
    let schema = "CREATE TABLE one(id INTEGER PRIMARY KEY, other INTEGER REFERENCES two);
                  CREATE TABLE two(id INTEGER PRIMARY KEY, other INTEGER REFERENCES one);";
    let arrived = |is_old: bool, count: usize| {
        let (mut hub, mut a, mut b) = pair(schema);
        a.limits.rows = 1;
        if !is_old {
            a.sync(&mut hub);
        }
        a.run("INSERT INTO one VALUES(1, NULL), (2, NULL); INSERT INTO two VALUES(1, 1), (2, 2)");
        a.run("UPDATE one SET other = 2 WHERE id = 1; INSERT INTO two VALUES(3, NULL)");
        let is_whole = a.sync_with(&mut hub, Fate::LosesBatchAfter(count), &mut |_| {}).is_some();
        assert_eq!(b.sync(&mut hub).quarantined, 0, "old: {is_old}, after {count} batches");
        (is_whole, b.rows("SELECT 1 FROM one UNION ALL SELECT 1 FROM two").len())
    };
    for is_old in [true, false] {
        // The first row needs the two that it leads to; the others come alone.
        let arrived: Vec<(bool, usize)> = (0..4).map(|count| arrived(is_old, count)).collect();
        assert_eq!(arrived, [(false, 0), (false, 3), (false, 4), (true, 5)], "old: {is_old}");
    }
}

/// Breaks if the time of what was sent is forgotten where no answer came: after the machine's clock was put right, what
/// is written later would be earlier.
#[test]
fn what_is_written_after_a_lost_answer_has_a_later_stamp_although_the_clock_went_back() {
    let (mut hub, mut a, _) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)");
    a.sync(&mut hub);
    let batches = batches(&mut hub);
    a.lead_ms = 30_000;
    a.run("INSERT INTO notes VALUES('x', 'one')");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    a.lead_ms = 0;
    a.run("INSERT INTO notes VALUES('y', 'two')").sync(&mut hub);
    let batches = batches.borrow();
    let writes = batches.iter().flatten().flat_map(|row| &row.writes);
    let stamps: Vec<Stamp> = writes.map(|write| write.stamp).collect();
    assert!(stamps.len() == 2 && stamps[0] < stamps[1], "{stamps:?}");
}

/// Breaks if a turn that finds nothing writes down where it stands: the first sync of each connection would wait for whoever
/// writes.
#[test]
fn a_turn_that_finds_nothing_does_not_write_down_where_it_stands() {
    let (mut hub, mut a, _) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)");
    a.run("INSERT INTO notes VALUES('x', 'one')").sync(&mut hub);
    a.sync(&mut hub);
    a.reconnect();
    a.sql.statements.clear();
    a.sync_with(&mut hub, Fate::Complete, &mut |a| {
        let written = a.sql.statements.iter().find(|it| it.starts_with("UPDATE _federation_replica"));
        assert_eq!(written, None);
    });
}
