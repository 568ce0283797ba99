//! Rows that stand in each other's way leave the table together: what is told of them counts as it does otherwise.

use federation_hub::model::Value;
use federation_hub::storage::row_meta::RowMeta;

use crate::world::{Agent, Hub, pair};

/// What the bookkeeping holds of every row.
fn kept(agent: &mut Agent) -> Vec<RowMeta> {
    let states = agent.rows("SELECT state FROM _federation_row");
    let decode = |row: &Vec<Value>| match &row[0] {
        Value::Blob(state) => RowMeta::decode(state).unwrap(),
        other => panic!("{other:?} is no state"),
    };
    states.iter().map(decode).collect()
}

const SWAP: &str = "UPDATE t SET v = 'tmp' WHERE id = 1; UPDATE t SET v = 'one' WHERE id = 2;
    UPDATE t SET v = 'two' WHERE id = 1;";

#[test]
fn the_hub_is_known_to_have_a_row_that_it_tells_of_in_a_rotation() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT UNIQUE)");
    b.run("INSERT INTO t VALUES(1, 'one'), (2, 'two')");
    b.sync(&mut hub);
    assert!(kept(&mut b).iter().all(|row| row.unshared.is_some()), "nobody has told of them so far");
    a.sync(&mut hub);
    a.run(SWAP);
    a.sync(&mut hub);
    b.sync(&mut hub);
    let query = "SELECT id, v FROM t ORDER BY id";
    assert_eq!(a.rows(query), b.rows(query));
    let kept = kept(&mut b);
    assert_eq!(kept.iter().map(|row| row.unshared).collect::<Vec<_>>(), [None, None]);
    assert!(kept.iter().all(|row| row.seen > 0), "as far as the pull has told of them");
}

#[test]
fn a_rotation_asks_again_for_a_row_that_was_written_while_an_update_of_it_was_set_aside() {
    let (mut hub, mut a, mut b) = pair("");
    a.run("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER, note TEXT)");
    b.run("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER CHECK(n < 10), note TEXT)");
    a.run("INSERT INTO t(id, v, n) VALUES(1, 'one', 1), (2, 'two', 1)");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("UPDATE t SET n = 99 WHERE id = 1");
    a.sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 1);
    b.run("UPDATE t SET note = 'b' WHERE id = 1");
    a.run(SWAP).run("UPDATE t SET n = 2 WHERE id = 1");
    a.sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    assert_eq!(b.rows("SELECT v FROM t ORDER BY id"), a.rows("SELECT v FROM t ORDER BY id"));
    let asked = b.rows("SELECT refresh > 0 FROM _federation_table WHERE name = 't'");
    assert_eq!(asked, [[Value::Integer(1)]], "the hub has not told what it made of both");
    assert!(kept(&mut b).iter().all(|row| !row.held));
}

/// Breaks if the hub ends before every row has got the value that it waited for, because they come in two batches; or if a
/// replica, where more rows hand on their values than leave a table together, does not try again those that wait before it
/// looks who has lost its parent: then what references the first of them is led along to the second, as it
/// is if rows lead others along before those are applied that take their values over.
#[test]
fn values_that_many_rows_hand_on_arrive_at_all_of_them() {
    for slice in [1_000, 100] {
        let (mut hub, mut a, mut b) = pair(
            "CREATE TABLE lines(id TEXT PRIMARY KEY, was INTEGER, place INTEGER UNIQUE);
         CREATE TABLE marks(id TEXT PRIMARY KEY, place INTEGER REFERENCES lines(place))",
        );
        a.run(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 300)
           INSERT INTO lines SELECT printf('%03d', 999 - n), n, n FROM n",
        );
        a.run("INSERT INTO marks SELECT id, place FROM lines").sync(&mut hub);
        b.slice = slice;
        b.sync(&mut hub);
        // A new first line; what is marked is the place, whatever line has it.
        a.run(
            "PRAGMA foreign_keys = OFF; UPDATE lines SET place = -place; UPDATE lines SET place = 1 - place",
        );
        a.run("INSERT INTO lines VALUES('new', 0, 1)").sync(&mut hub);
        b.sync(&mut hub);
        for agent in [&mut a, &mut b] {
            let moved = agent.rows("SELECT count(*), sum(place = was + 1) FROM lines");
            assert_eq!(moved, [[301, 301].map(Value::Integer)]);
            let marked =
                agent.rows("SELECT count(*), sum(marks.place = was) FROM marks JOIN lines USING (id)");
            assert_eq!(marked, [[300, 300].map(Value::Integer)]);
        }
    }
}

/// Rows of a list, each with a place that no other has, and what was there before.
const ITEMS: &str = "CREATE TABLE items(id INTEGER PRIMARY KEY, list INTEGER NOT NULL, pos INTEGER NOT NULL, was INTEGER, UNIQUE(list, pos))";

/// Two agents that have so many of them.
fn listed(count: usize) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(ITEMS);
    a.run(&format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
           INSERT INTO items SELECT n, 1, n, n FROM n"
    ));
    a.sync(&mut hub);
    (b.slice, b.limits.rows) = (100, 250);
    b.sync(&mut hub);
    (hub, a, b)
}

/// Has an application give every row of a list another place.
fn move_all(agent: &mut Agent, place: &str) {
    agent.run(&format!("UPDATE items SET pos = -({place}); UPDATE items SET pos = -pos"));
}

/// Breaks if the hub has rows that wait for each other in a circle wait for ever, where they come in several batches; or if a
/// replica gives up where more rows are in each other's way than come in one turn.
#[test]
fn places_that_change_hands_among_many_rows_arrive_at_all_of_them() {
    for (moved, place) in [
        ("by one, ascending", "pos % 700 + 1"),
        ("by one, descending", "(pos + 698) % 700 + 1"),
        ("turned round", "701 - pos"),
        ("shuffled", "pos * 353 % 701"),
        ("in circles of three", "(pos - 1) / 3 * 3 + pos % 3 + 1 - (pos = 700) * 1"),
    ] {
        let (mut hub, mut a, mut b) = listed(700);
        move_all(&mut a, place);
        a.sync(&mut hub);
        for _ in 0..2 {
            let counts = b.sync(&mut hub);
            assert_eq!(counts.quarantined, 0, "{moved}");
            let query = "SELECT id, list, pos, was FROM items ORDER BY id";
            assert_eq!(a.rows(query), b.rows(query), "{moved}");
            a.sync(&mut hub);
        }
        assert_eq!(b.rows("SELECT count(*) FROM _federation_quarantine"), [[Value::Integer(0)]]);
    }
}
