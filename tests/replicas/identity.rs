//! Numbers and what references them, on replicas that number their rows differently.

use crate::world::{Agent, Hub, pair, text};
use federation_hub::model::Value;

const NO_ROWS: Vec<Vec<Value>> = Vec::new();

/// Syncs everyone until nothing moves any more.
fn settle(hub: &mut Hub, agents: &mut [&mut Agent]) {
    for _ in 0..3 {
        for agent in &mut *agents {
            agent.sync(hub);
        }
    }
}

/// All agree on a query that leaves numbers out, and nothing dangles or is set aside anywhere.
fn agree(agents: &mut [&mut Agent], query: &str) -> Vec<Vec<Value>> {
    let first = agents[0].rows(query);
    for agent in &mut *agents {
        assert_eq!(agent.rows(query), first);
        assert_eq!(agent.rows("PRAGMA foreign_key_check"), NO_ROWS);
        assert_eq!(agent.rows("SELECT tbl, reason FROM _federation_quarantine"), NO_ROWS);
    }
    first
}

/// A pair whose second agent has used up some numbers, so that no number means the same row on both.
fn shifted(schema: &str, shifts: &str) -> (Hub, Agent, Agent) {
    let (hub, mut a, mut b) = pair(schema);
    a.run("PRAGMA foreign_keys = ON");
    b.run("PRAGMA foreign_keys = ON").run(shifts);
    (hub, a, b)
}

const EPISODES: &str = "
    CREATE TABLE episodes(id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT);
    CREATE TABLE episode_embeddings(episode_id INTEGER PRIMARY KEY, embedding BLOB,
      FOREIGN KEY(episode_id) REFERENCES episodes(id) ON DELETE CASCADE ON UPDATE CASCADE);
    CREATE TABLE chunks(id INTEGER PRIMARY KEY, embedding INTEGER REFERENCES episode_embeddings, part TEXT);";

#[test]
fn a_key_that_is_a_foreign_key_is_the_row_it_references() {
    let (mut hub, mut a, mut b) =
        shifted(EPISODES, "INSERT INTO episodes(task) VALUES('b1'), ('b2'), ('b3')");
    for agent in [&mut a, &mut b] {
        agent.run("INSERT INTO episodes(task) VALUES('last')");
        agent.run("INSERT INTO episode_embeddings SELECT id, CAST(task AS BLOB) FROM episodes");
        agent.run("INSERT INTO chunks(embedding, part) SELECT episode_id, 'p' FROM episode_embeddings");
    }
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all = "SELECT task, CAST(e.embedding AS TEXT), part FROM episodes
               LEFT JOIN episode_embeddings AS e ON e.episode_id = episodes.id
               LEFT JOIN chunks ON chunks.embedding = e.episode_id ORDER BY task";
    assert_eq!(agree(&mut [&mut a, &mut b], all).len(), 5);
    assert_eq!(
        a.rows(
            "SELECT count(*) FROM episodes AS e, episode_embeddings AS m WHERE m.episode_id = e.id \
                AND CAST(m.embedding AS TEXT) = e.task"
        ),
        vec![vec![Value::Integer(5)]]
    );
    // The key can be edited as well, and its own children follow it.
    b.run("PRAGMA foreign_keys = OFF");
    b.run("INSERT INTO episodes(task) VALUES('spare')");
    b.run("UPDATE chunks SET embedding = (SELECT max(id) FROM episodes) WHERE embedding = 2");
    b.run("UPDATE episode_embeddings SET episode_id = (SELECT max(id) FROM episodes) WHERE episode_id = 2");
    settle(&mut hub, &mut [&mut b, &mut a]);
    let moved = "SELECT task FROM episodes, chunks, episode_embeddings AS e
                 WHERE chunks.embedding = e.episode_id AND episodes.id = e.episode_id
                 AND e.embedding = CAST('b2' AS BLOB)";
    assert_eq!(agree(&mut [&mut a, &mut b], moved), vec![vec![text("spare")]]);
}

#[test]
fn a_part_of_a_composite_foreign_key_is_translated() {
    let schema = "
        CREATE TABLE agents(id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE sessions(agent INTEGER REFERENCES agents(id), label TEXT, PRIMARY KEY(agent, label));
        CREATE TABLE turns(id INTEGER PRIMARY KEY, who INTEGER, label TEXT, said TEXT,
          FOREIGN KEY(who, label) REFERENCES sessions(agent, label));
        CREATE TABLE marks(id INTEGER PRIMARY KEY, who INTEGER, label TEXT,
          FOREIGN KEY(who, label) REFERENCES sessions);";
    let (mut hub, mut a, mut b) = shifted(schema, "INSERT INTO agents(name) VALUES('b0'), ('b1')");
    for (agent, name) in [(&mut a, "a"), (&mut b, "b")] {
        agent.run(&format!("INSERT INTO agents(name) VALUES('{name}')"));
        agent.run("INSERT INTO sessions SELECT max(id), 'main' FROM agents");
        agent
            .run(&format!("INSERT INTO turns(who, label, said) SELECT agent, label, '{name}' FROM sessions"));
        agent.run("INSERT INTO marks(who, label) SELECT agent, label FROM sessions");
    }
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all = "SELECT name, said FROM turns JOIN agents ON agents.id = who JOIN marks USING (who, label)
               ORDER BY name";
    let expected = vec![vec![text("a"), text("a")], vec![text("b"), text("b")]];
    assert_eq!(agree(&mut [&mut a, &mut b], all), expected);
}

#[test]
fn a_reference_to_a_unique_integer_that_is_no_key_is_a_plain_value() {
    let schema = "
        CREATE TABLE tools(id INTEGER PRIMARY KEY, code INTEGER UNIQUE);
        CREATE TABLE calls(id INTEGER PRIMARY KEY, code INTEGER REFERENCES tools(code));";
    let (mut hub, mut a, mut b) = shifted(schema, "INSERT INTO tools(code) VALUES(7)");
    a.run("INSERT INTO tools(code) VALUES(100)").run("INSERT INTO calls(code) VALUES(100)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all = "SELECT code FROM calls";
    assert_eq!(agree(&mut [&mut a, &mut b], all), vec![vec![Value::Integer(100)]]);
}

#[test]
fn references_within_a_table_and_in_a_circle_arrive_whatever_comes_first() {
    let schema = "
        CREATE TABLE nodes(id INTEGER PRIMARY KEY, up INTEGER REFERENCES nodes(id), name TEXT);
        CREATE TABLE heads(id INTEGER PRIMARY KEY, best INTEGER NOT NULL REFERENCES versions(id)
          DEFERRABLE INITIALLY DEFERRED, name TEXT);
        CREATE TABLE versions(id INTEGER PRIMARY KEY, head INTEGER NOT NULL REFERENCES heads(id)
          DEFERRABLE INITIALLY DEFERRED, name TEXT);";
    let (mut hub, mut a, mut b) = shifted(schema, "INSERT INTO nodes(name) VALUES('b1'), ('b2')");
    a.run("INSERT INTO nodes(id, name) VALUES(1, 'root'), (2, 'child'), (3, 'self')");
    a.run("UPDATE nodes SET up = 1 WHERE id = 2").run("UPDATE nodes SET up = 3 WHERE id = 3");
    a.sync(&mut hub);
    // Now the parent's last change comes after the child's.
    a.run("UPDATE nodes SET name = 'root, edited' WHERE id = 1");
    a.run("BEGIN").run("INSERT INTO heads VALUES(1, 5, 'head')");
    a.run("INSERT INTO versions VALUES(5, 1, 'version')").run("COMMIT");
    a.sync(&mut hub);
    let mut late = Agent::new("acme", "late", 9);
    late.slice = 2;
    settle(&mut hub, &mut [&mut a, &mut b, &mut late]);
    let tree = "SELECT c.name, p.name FROM nodes AS c JOIN nodes AS p ON p.id = c.up ORDER BY 1";
    let expected = vec![vec![text("child"), text("root, edited")], vec![text("self"), text("self")]];
    assert_eq!(agree(&mut [&mut a, &mut b, &mut late], tree), expected);
    let circle =
        "SELECT h.name, v.name FROM heads AS h JOIN versions AS v ON v.id = h.best AND h.id = v.head";
    let expected = vec![vec![text("head"), text("version")]];
    assert_eq!(agree(&mut [&mut a, &mut b, &mut late], circle), expected);
}

#[test]
fn a_number_that_is_stored_as_text_is_still_a_reference() {
    let schema = "
        CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT);
        CREATE TABLE tags(id INTEGER PRIMARY KEY, note VARCHAR REFERENCES notes(id), label TEXT);";
    let (mut hub, mut a, mut b) = shifted(schema, "INSERT INTO notes(title) VALUES('b1'), ('b2')");
    a.run("INSERT INTO notes VALUES(1, 'of a')").run("INSERT INTO tags VALUES(1, 1, 'x')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all = "SELECT title, label, typeof(note) FROM tags JOIN notes ON notes.id = note";
    let expected = vec![vec![text("of a"), text("x"), text("text")]];
    assert_eq!(agree(&mut [&mut a, &mut b], all), expected);
    b.run("UPDATE tags SET note = note");
    assert_eq!(b.sync(&mut hub).pushed, 0, "what was applied is what is stored");
}

#[test]
fn equal_numbers_in_two_databases_that_grew_apart_are_no_equal_rows() {
    let (mut hub, mut a, mut b) = pair(
        "CREATE TABLE nodes(id INTEGER PRIMARY KEY, name TEXT);
         CREATE TABLE edges(id INTEGER PRIMARY KEY, a INTEGER REFERENCES nodes, b INTEGER REFERENCES nodes);",
    );
    for (agent, name) in [(&mut a, "a"), (&mut b, "b")] {
        agent.run(&format!("INSERT INTO nodes VALUES(1, '{name}1'), (2, '{name}2')"));
        agent.run("INSERT INTO edges VALUES(1, 1, 2)");
    }
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all =
        "SELECT p.name, q.name FROM edges, nodes AS p, nodes AS q WHERE p.id = a AND q.id = b ORDER BY 1";
    let expected = vec![vec![text("a1"), text("a2")], vec![text("b1"), text("b2")]];
    assert_eq!(agree(&mut [&mut a, &mut b], all), expected);
}
