//! The self-check: what a replica holds is compared with what the hub has, found where it differs, and healed.

use federation_hub::model::Value;

use crate::world::{Agent, Hub, pair};

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
