//! Numbers and what references them, on replicas that number their rows differently.

use std::fmt::Write as _;

use crate::unions::{SKILL_LINKS, SKILL_NAMES, SKILLS};
use crate::world::parts::text;
use crate::world::{Agent, Hub, pair};
use federation_hub::model::{ReplicaId, Value};
use federation_hub::storage::attach::open;
use federation_hub::storage::collect::TurnLimits;

pub const NO_ROWS: Vec<Vec<Value>> = Vec::new();

/// Syncs everyone until nothing moves any more.
pub fn settle(hub: &mut Hub, agents: &mut [&mut Agent]) {
    for _ in 0..3 {
        for agent in &mut *agents {
            agent.sync(hub);
        }
    }
}

/// All agree on a query that leaves numbers out, and nothing dangles or is set aside anywhere.
pub fn agree(agents: &mut [&mut Agent], query: &str) -> Vec<Vec<Value>> {
    let first = agents[0].rows(query);
    for agent in &mut *agents {
        assert_eq!(agent.rows(query), first);
        assert_eq!(agent.rows("PRAGMA foreign_key_check"), NO_ROWS);
        assert_eq!(agent.rows("SELECT tbl, reason FROM _federation_quarantine"), NO_ROWS);
    }
    first
}

/// A pair whose second agent has used up some numbers, so that no number means the same row on both.
pub fn shifted(schema: &str, shifts: &str) -> (Hub, Agent, Agent) {
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

#[test]
fn a_child_written_while_its_parents_delete_arrives_is_not_orphaned() {
    for (action, is_kept) in [("RESTRICT", true), ("CASCADE", false), ("SET NULL", true)] {
        let schema = format!(
            "CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT);
             CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p ON DELETE {action}, name TEXT);"
        );
        let (mut hub, mut a, mut b) = shifted(&schema, "INSERT INTO p(name) VALUES('b1')");
        a.run("INSERT INTO p(name) VALUES('of a')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        a.run("DELETE FROM p WHERE name = 'of a'");
        a.sync(&mut hub);
        b.sync_with(&mut hub, crate::world::Fate::Complete, &mut |b| {
            b.run("INSERT INTO c(p, name) SELECT id, 'in flight' FROM p WHERE name = 'of a'");
        });
        assert_eq!(b.rows("PRAGMA foreign_key_check"), NO_ROWS, "{action}");
        assert_eq!(b.rows("SELECT count(*) FROM c"), vec![vec![Value::Integer(1)]], "{action}");
        settle(&mut hub, &mut [&mut b, &mut a]);
        let all = "SELECT c.name, p.name FROM c LEFT JOIN p ON p.id = c.p";
        assert_eq!(agree(&mut [&mut a, &mut b], all).len(), usize::from(is_kept), "{action}");
    }
}

#[test]
fn a_parent_that_outlives_its_delete_comes_back_under_its_number() {
    let schema = "
        CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p ON DELETE RESTRICT);";
    let (mut hub, mut a, mut b) = shifted(schema, "INSERT INTO p(name) VALUES('b1'), ('b2'), ('b3')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("INSERT INTO p(id, name) VALUES(70, 'kept'), (80, 'last')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let number = "SELECT id FROM p WHERE name = 'kept'";
    let before = b.rows(number);
    assert_ne!(before, a.rows(number), "it has a number of its own here");
    a.run("INSERT INTO c(p) SELECT id FROM p WHERE name = 'kept'");
    b.run("DELETE FROM p WHERE name <> 'b1'");
    a.sync(&mut hub);
    settle(&mut hub, &mut [&mut b, &mut a]);
    let all = "SELECT p.name FROM c JOIN p ON p.id = c.p";
    assert_eq!(agree(&mut [&mut a, &mut b], all), vec![vec![text("kept")]]);
    assert_eq!(b.rows(number), before);
}

#[test]
fn a_stranger_with_the_highest_number_of_all_poisons_nobody() {
    for kind in ["INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"] {
        let schema = format!("CREATE TABLE t(id {kind}, name TEXT)");
        let (mut hub, mut a, mut b) = pair(&schema);
        a.run("INSERT INTO t VALUES(9223372036854775807, 'huge'), (5000000000, 'large')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        b.run("INSERT INTO t(name) VALUES('small')");
        assert_eq!(b.rows("SELECT max(id) FROM t"), vec![vec![Value::Integer(3)]], "{kind}");
        settle(&mut hub, &mut [&mut b, &mut a]);
        agree(&mut [&mut a, &mut b], "SELECT name FROM t ORDER BY name");
        assert_eq!(a.rows("SELECT id FROM t WHERE name = 'small'"), vec![vec![Value::Integer(3)]]);
        b.run("INSERT INTO t(name) VALUES('next')");
        settle(&mut hub, &mut [&mut b, &mut a]);
        assert_eq!(a.rows("SELECT id FROM t WHERE name = 'next'"), vec![vec![Value::Integer(4)]]);
    }
}

#[test]
fn a_template_of_fifty_rows_is_fifty_rows_whoever_starts_from_it() {
    // Nothing is UNIQUE, so that nothing but its identity makes a row one.
    let mut template = SKILLS.replace(", UNIQUE(parent, child)", "").replace(" UNIQUE", "");
    for n in 1..=50 {
        write!(template, "INSERT INTO skills(name) VALUES('s{n}');").unwrap();
        if n > 1 {
            write!(template, "INSERT INTO links(parent, child) VALUES({n}, {});", n - 1).unwrap();
        }
    }
    let mut hub = Hub::new();
    let mut agents: Vec<Agent> = (0..12).map(|n| Agent::new("acme", &format!("a{n}"), n + 1)).collect();
    for (n, agent) in agents.iter_mut().enumerate() {
        agent.run(&template);
        // The first sync fixes what the rows are, however far it gets.
        agent.limits = TurnLimits { rows: 3, ..TurnLimits::default() };
        agent.sync_with(&mut hub, crate::world::Fate::LosesBatch, &mut |_| {});
        agent.run(&format!("UPDATE skills SET uses = {n} WHERE id >= {}", n + 1));
    }
    let mut all: Vec<&mut Agent> = agents.iter_mut().collect();
    settle(&mut hub, &mut all);
    assert_eq!(agree(&mut all, SKILL_NAMES).len(), 50);
    assert_eq!(agree(&mut all, SKILL_LINKS).len(), 49);
}

#[test]
fn a_row_of_a_template_is_that_row_although_it_is_edited_before_the_first_sync_has_come_to_it() {
    let (mut hub, mut a, mut b) = pair(
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT); INSERT INTO notes(title) VALUES('of all')",
    );
    let (fresh, claim) = (ReplicaId([9; 16]), a.claim());
    open(&mut a.sql, "acme", fresh, claim, &a.options).unwrap();
    a.run("UPDATE notes SET title = 'edited'");
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT title FROM notes"), [[text("edited")]]);
}

#[test]
fn a_child_made_meanwhile_follows_its_parent_to_its_new_name() {
    let schema = "
        CREATE TABLE p(id INTEGER PRIMARY KEY, code TEXT UNIQUE);
        CREATE TABLE c(code TEXT REFERENCES p(code) ON UPDATE CASCADE, n INTEGER, PRIMARY KEY(code, n));
        CREATE TABLE d(id INTEGER PRIMARY KEY, code TEXT, n INTEGER,
          FOREIGN KEY(code, n) REFERENCES c ON UPDATE CASCADE);";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO p(code) VALUES('old')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("UPDATE p SET code = 'new'");
    b.run("INSERT INTO c VALUES('old', 1)").run("INSERT INTO d(code, n) VALUES('old', 1)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all = "SELECT p.code, c.code, d.code FROM p JOIN c USING (code) JOIN d USING (code)";
    assert_eq!(agree(&mut [&mut a, &mut b], all), vec![vec![text("new"), text("new"), text("new")]]);
    assert_eq!(a.rows("SELECT count(*) FROM c"), vec![vec![Value::Integer(1)]]);
}

#[test]
fn a_reference_to_a_number_that_another_row_took_is_another_reference() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT);
                  CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p);";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO p VALUES(1, 'one'), (2, 'two')").run("INSERT INTO c(p) VALUES(2)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("UPDATE OR REPLACE p SET id = 2 WHERE id = 1");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all = "SELECT p.name FROM c JOIN p ON p.id = c.p";
    assert_eq!(agree(&mut [&mut a, &mut b], all), vec![vec![text("one")]]);
    assert_eq!(a.rows("SELECT id FROM p"), vec![vec![Value::Integer(2)]]);
}

#[test]
fn rows_that_reference_each_other_are_deleted_together() {
    let schema = "
        CREATE TABLE h(id INTEGER PRIMARY KEY, v INTEGER NOT NULL REFERENCES v DEFERRABLE INITIALLY DEFERRED);
        CREATE TABLE v(id INTEGER PRIMARY KEY, h INTEGER NOT NULL REFERENCES h DEFERRABLE INITIALLY DEFERRED);";
    let (mut hub, mut a, mut b) = shifted(schema, "SELECT 1");
    a.run("BEGIN").run("INSERT INTO h VALUES(1, 9)").run("INSERT INTO v VALUES(9, 1)").run("COMMIT");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT count(*) FROM h, v"), vec![vec![Value::Integer(1)]]);
    b.run("BEGIN").run("DELETE FROM h").run("DELETE FROM v").run("COMMIT");
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT * FROM h, v"), NO_ROWS);
}

#[test]
fn an_idle_sync_costs_three_statements_however_the_tables_hang_together() {
    let (mut hub, mut a, mut b) =
        shifted(&format!("{EPISODES}{SKILLS}"), "INSERT INTO episodes(task) VALUES('x')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.sql.statements.clear();
    a.collect();
    assert!(a.sql.statements.len() <= 3, "{:?}", a.sql.statements);
}

/// The statements that applying one row takes.
fn statements_for_one_row(schema: &str, write: &str) -> usize {
    let (mut hub, mut a, mut b) = pair(schema);
    settle(&mut hub, &mut [&mut a, &mut b]);
    let mut of = |rows: usize| {
        for _ in 0..rows {
            a.run(write);
        }
        a.sync(&mut hub);
        b.sql.statements.clear();
        b.sync(&mut hub);
        b.sql.statements.len()
    };
    of(1);
    let (few, many) = (of(1), of(11));
    (many - few) / 10
}

#[test]
fn a_row_that_nothing_references_costs_no_check() {
    let plain = "CREATE TABLE t(id INTEGER PRIMARY KEY, p INTEGER)";
    let insert = "INSERT INTO t(p) VALUES(NULL)";
    let alone = statements_for_one_row(plain, insert);
    let bound = statements_for_one_row(
        &format!("{plain}; CREATE TABLE c(t INTEGER PRIMARY KEY REFERENCES t)"),
        insert,
    );
    assert_eq!(alone, bound, "a parent that is made is checked by nothing");
    let child = "CREATE TABLE t(id INTEGER PRIMARY KEY, p INTEGER REFERENCES t)";
    assert_eq!(statements_for_one_row(child, insert), alone + 1);
}
