//! The self-check: what a replica holds is compared with what the hub has, found where it differs, and healed.

use federation_hub::model::Value;

use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub, pair};

const SCHEMA: &str = "
    CREATE TABLE tasks(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE notes(key TEXT PRIMARY KEY, body TEXT, task INTEGER REFERENCES tasks(id));
    CREATE TABLE tags(note TEXT, tag TEXT, weight REAL, PRIMARY KEY(note, tag)) WITHOUT ROWID;
    CREATE TABLE lines(text);";

/// Two agents that share some rows of each table.
fn shared(rows: usize) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(SCHEMA);
    a.sync(&mut hub);
    b.sync(&mut hub);
    // Numbers that differ here and there.
    b.run("INSERT INTO tasks(name) VALUES('first of b')");
    b.sync(&mut hub);
    a.sync(&mut hub);
    a.run(&format!(
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT {rows})
         INSERT INTO tasks(name) SELECT 'task ' || i FROM n"
    ));
    a.run(
        "INSERT INTO notes SELECT 'note ' || id, 'body', id FROM tasks;
         INSERT INTO tags SELECT key, 'new', 0.5 FROM notes;
         INSERT INTO lines SELECT body || key FROM notes",
    );
    for _ in 0..2 {
        a.sync(&mut hub);
        b.sync(&mut hub);
    }
    (hub, a, b)
}

/// Runs statements that capture does not see.
fn unseen(agent: &mut Agent, statements: &str) {
    agent.bears_damage = true;
    agent.run("PRAGMA foreign_keys = OFF").run(statements).run("DELETE FROM _federation_log");
}

const EVERYTHING: [&str; 4] = [
    "SELECT name FROM tasks ORDER BY name",
    "SELECT key, body, name FROM notes LEFT JOIN tasks ON id = task ORDER BY key",
    "SELECT * FROM tags ORDER BY note, tag",
    "SELECT text FROM lines ORDER BY text",
];

fn contents(agent: &mut Agent) -> Vec<Vec<Vec<Value>>> {
    EVERYTHING.iter().map(|query| agent.rows(query)).collect()
}

/// Syncs that a round through the rows of [`shared`] takes when there is nothing else to do.
const ROUND: usize = 16;

/// Syncs, with nothing to send, until an agent holds this again; returns how many rows were healed.
fn heal(hub: &mut Hub, agent: &mut Agent, wanted: &[Vec<Vec<Value>>]) -> u64 {
    let mut healed = 0;
    for _ in 0..ROUND {
        healed += agent.sync(hub).healed;
        if contents(agent) == wanted {
            return healed;
        }
    }
    panic!("{healed} rows healed within {ROUND} syncs, and {:?}", contents(agent));
}

/// Syncs for a whole round, in which nothing is found.
fn nothing_to_heal(hub: &mut Hub, agent: &mut Agent, wanted: &[Vec<Vec<Value>>]) {
    for _ in 0..ROUND {
        assert_eq!(agent.sync(hub).healed, 0);
    }
    assert_eq!(contents(agent), wanted);
}

#[test]
fn a_changed_cell_is_healed_in_every_kind_of_table() {
    for (damage, rows) in [
        ("UPDATE notes SET body = 'rotten' WHERE key = 'note 3'", 1),
        ("UPDATE notes SET body = CAST(body AS BLOB)", 11),
        ("UPDATE notes SET task = 2 WHERE key = 'note 7'", 1),
        ("UPDATE notes SET task = NULL", 11),
        ("UPDATE tasks SET name = name || ' ' WHERE id = 5", 1),
        ("UPDATE tags SET weight = -0.0 WHERE note = 'note 4'", 1),
        ("UPDATE lines SET text = NULL WHERE rowid = 2", 1),
        ("UPDATE tasks SET name = 'x' WHERE id = 5; UPDATE tags SET weight = 1", 12),
    ] {
        let (mut hub, mut a, mut b) = shared(10);
        let before = contents(&mut a);
        assert_eq!(contents(&mut b), before);
        unseen(&mut a, damage);
        assert_ne!(contents(&mut a), before, "{damage}");
        assert_eq!(heal(&mut hub, &mut a, &before), rows, "{damage}");
        nothing_to_heal(&mut hub, &mut a, &before);
        nothing_to_heal(&mut hub, &mut b, &before);
    }
}

#[test]
fn a_row_that_is_gone_comes_back_under_its_number() {
    for damage in [
        "DELETE FROM notes WHERE key = 'note 3'",
        "DELETE FROM tags",
        "DELETE FROM tasks WHERE id > 7",
        "DELETE FROM lines WHERE rowid = 4",
        "DELETE FROM lines; DELETE FROM tags; DELETE FROM notes; DELETE FROM tasks",
    ] {
        let (mut hub, mut a, mut b) = shared(10);
        let (before, numbers) = (contents(&mut a), a.rows("SELECT id, name FROM tasks ORDER BY id"));
        unseen(&mut a, damage);
        assert!(heal(&mut hub, &mut a, &before) > 0);
        assert_eq!(a.rows("SELECT id, name FROM tasks ORDER BY id"), numbers, "{damage}");
        nothing_to_heal(&mut hub, &mut a, &before);
        nothing_to_heal(&mut hub, &mut b, &before);
    }
}

#[test]
fn a_row_that_capture_missed_is_sent() {
    let (mut hub, mut a, mut b) = shared(100);
    unseen(
        &mut a,
        "INSERT INTO tasks(name) VALUES('stray'); INSERT INTO tags VALUES('stray', 'x', 1.5);
         INSERT INTO notes(key, task) SELECT 'stray', max(id) FROM tasks; INSERT INTO notes VALUES(NULL, '', NULL)",
    );
    let mut found = 0;
    for round in 0..40 {
        // A sync that is idle does not look for such rows.
        a.run(&format!("UPDATE lines SET text = '{round}' WHERE rowid = 1"));
        found += a.sync(&mut hub).healed;
    }
    assert_eq!(found, 3);
    a.run("DELETE FROM notes WHERE key IS NULL");
    a.sync(&mut hub);
    b.sync(&mut hub);
    let wanted = contents(&mut a);
    assert!(wanted[1].iter().any(|note| note[0] == text("stray") && note[2] == text("stray")));
    assert_eq!(contents(&mut b), wanted);
}

#[test]
fn what_is_unsent_is_not_taken_for_damage() {
    let (mut hub, mut a, mut b) = shared(10);
    a.run("UPDATE notes SET body = 'written'; DELETE FROM tags WHERE note = 'note 3'; UPDATE tasks SET name = 'x' WHERE id = 3");
    b.run("UPDATE notes SET body = 'too'; DELETE FROM lines; INSERT INTO tags VALUES('more', 'm', 2)");
    for _ in 0..ROUND {
        // Refused differences are a panic in the helper.
        a.sync(&mut hub);
        b.sync(&mut hub);
    }
    let both = contents(&mut a);
    assert_eq!(contents(&mut b), both);
}

#[test]
fn damage_to_a_row_that_was_written_since_leaves_what_was_written() {
    let (mut hub, mut a, mut b) = shared(10);
    unseen(&mut a, "UPDATE notes SET body = 'rotten' WHERE key = 'note 3'");
    a.run("UPDATE notes SET task = NULL WHERE key = 'note 3'");
    for _ in 0..ROUND {
        a.sync(&mut hub);
    }
    b.sync(&mut hub);
    // The whole row was looked at when capture saw the write: nobody can tell the two apart.
    let row = "SELECT body, task FROM notes WHERE key = 'note 3'";
    assert_eq!(a.rows(row), [[text("rotten"), Value::Null]]);
    assert_eq!(b.rows(row), a.rows(row));
}

#[test]
fn a_difference_is_located_in_a_logarithm_of_exchanges() {
    let (mut hub, mut a, _) = shared(1_000);
    let before = contents(&mut a);
    unseen(&mut a, "UPDATE notes SET body = 'rotten' WHERE key = 'note 503'");
    a.reconnect();
    let (exchanges, mut healed) = (a.exchanges, 0);
    let mut syncs = 0;
    while healed == 0 {
        a.reconnect();
        healed = a.sync(&mut hub).healed;
        syncs += 1;
        assert!(syncs < 500);
    }
    assert_eq!(healed, 1);
    assert!(a.exchanges - exchanges <= syncs + 3, "one for each look, and three for the difference");
    assert_eq!(contents(&mut a), before);
}

#[test]
fn a_sync_looks_at_a_bounded_number_of_rows() {
    let (mut hub, mut a, _) = shared(1_000);
    for expected in [64, 8] {
        let before = a.looked_at;
        a.reconnect();
        a.sync(&mut hub);
        assert!(a.looked_at - before <= 64);
        let before = a.looked_at;
        for _ in 0..50 {
            a.sync(&mut hub);
        }
        assert!(a.looked_at - before <= 50 * 8);
        assert!(a.looked_at - before >= 40 * 8, "{expected}: {}", a.looked_at - before);
    }
}

#[test]
fn what_is_written_while_a_sync_heals_stays() {
    let (mut hub, mut a, mut b) = shared(10);
    unseen(&mut a, "UPDATE notes SET body = 'rotten' WHERE key = 'note 3'");
    for _ in 0..ROUND {
        a.sync_with(&mut hub, Fate::Complete, &mut |a| {
            a.run("UPDATE notes SET body = body || '!' WHERE key <> 'note 3'");
        });
    }
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert!(!a.notices.iter().any(|notice| notice.contains("cannot be made")), "{:?}", a.notices);
    let written = text(&format!("body{}", "!".repeat(ROUND)));
    for note in b.rows("SELECT key, body FROM notes") {
        assert_eq!(note[1], if note[0] == text("note 3") { text("body") } else { written.clone() });
    }
    assert_eq!(contents(&mut a), contents(&mut b));
}

/// Breaks if a replica that has been told of nothing yet asks whether it has what the hub has.
#[test]
fn before_anything_has_come_nothing_is_compared() {
    let (mut hub, mut a, _) = pair(SCHEMA);
    a.run("INSERT INTO tags VALUES('x', 'new', 0.5)");
    a.sync(&mut hub);
    assert_eq!((a.looked_at, a.exchanges), (0, 0));
    for _ in 0..ROUND {
        a.sync(&mut hub);
    }
    assert!(a.looked_at > 0);
}
