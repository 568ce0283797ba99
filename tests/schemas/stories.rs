//! What random cases once found, told as short stories.

use federation_hub::model::Value;

use crate::world::{Agent, Fate, Hub};

/// Agents whose databases have this schema, with foreign keys enforced.
fn agents(count: u64, schema: &str) -> (Hub, Vec<Agent>) {
    let agent = |at| {
        let mut agent = Agent::new("acme", &format!("agent {at}"), at + 1);
        agent.run("PRAGMA foreign_keys = ON").run(schema);
        agent
    };
    (Hub::new(), (0..count).map(agent).collect())
}

#[test]
fn rows_older_than_syncing_that_mean_different_parents_are_different_rows() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title);
         CREATE TABLE steps(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id), what)",
    );
    for (agent, title) in agents.iter_mut().zip(["a", "b"]) {
        agent
            .run(&format!("INSERT INTO tasks VALUES(1, '{title}'); INSERT INTO steps VALUES(1, 1, 'begin')"));
    }
    for _ in 0..2 {
        for agent in &mut agents {
            agent.sync(&mut hub);
        }
    }
    for agent in &mut agents {
        let rows =
            agent.rows("SELECT title, what FROM tasks LEFT JOIN steps ON task = tasks.id ORDER BY title");
        let row = |title: &str| vec![Value::Text(title.into()), Value::Text("begin".into())];
        assert_eq!(rows, vec![row("a"), row("b")]);
    }
}

#[test]
fn a_row_that_references_itself_and_rows_that_reference_each_other_arrive() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE a(id INTEGER PRIMARY KEY, b INTEGER REFERENCES b(id) DEFERRABLE INITIALLY DEFERRED, what);
         CREATE TABLE b(id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id));
         CREATE TABLE people(id INTEGER PRIMARY KEY, boss INTEGER REFERENCES people(id))",
    );
    let first = &mut agents[0];
    first.run("INSERT INTO people VALUES(1, 1), (2, 3), (3, 2)");
    first.run("BEGIN; INSERT INTO a VALUES(1, 1, 'x'); INSERT INTO b VALUES(1, 1); COMMIT");
    first.sync(&mut hub);
    let second = &mut agents[1];
    let counts = second.sync_with(&mut hub, Fate::Complete, &mut |_| {}).unwrap();
    assert_eq!((counts.pulled, counts.quarantined), (5, 0));
    assert_eq!(second.rows("PRAGMA foreign_key_check"), Vec::<Vec<Value>>::new());
    let bosses = "SELECT count(*) FROM people AS p JOIN people AS q ON q.id = p.boss WHERE q.boss = p.id";
    assert_eq!(second.rows(bosses), [[Value::Integer(3)]]);
}

#[test]
fn a_row_that_dies_with_a_parent_that_is_gone_here_waits_for_nothing() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title);
         CREATE TABLE steps(id INTEGER PRIMARY KEY, task INTEGER NOT NULL REFERENCES tasks(id) ON DELETE CASCADE)",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO tasks VALUES(1, 'a')").sync(&mut hub);
    b.sync(&mut hub);
    a.run("DELETE FROM tasks").sync(&mut hub);
    b.run("INSERT INTO steps(task) SELECT id FROM tasks").sync(&mut hub);
    assert_eq!(a.sync(&mut hub).quarantined, 0);
    b.sync(&mut hub);
    for agent in [a, b] {
        assert_eq!(
            agent.rows("SELECT id FROM tasks UNION ALL SELECT id FROM steps"),
            Vec::<Vec<Value>>::new()
        );
    }
}

#[test]
fn a_reference_that_was_cut_comes_back_with_the_parent_on_the_replica_that_cut_it() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title);
         CREATE TABLE steps(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id) ON DELETE RESTRICT);
         CREATE TABLE notes(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id) ON DELETE SET NULL)",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO tasks VALUES(1, 'a'); INSERT INTO notes VALUES(1, 1)").sync(&mut hub);
    b.sync(&mut hub);
    b.run("INSERT INTO steps VALUES(1, 1)").sync(&mut hub);
    a.run("DELETE FROM tasks").sync(&mut hub);
    b.sync(&mut hub);
    for agent in [a, b] {
        let titles = "SELECT title FROM notes JOIN tasks ON tasks.id = notes.task";
        assert_eq!(
            agent.rows(titles),
            [[Value::Text("a".into())]],
            "the step keeps the task, for the note too"
        );
    }
}

#[test]
fn the_columns_of_a_foreign_key_are_one_write() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE places(x, y, PRIMARY KEY(x, y));
         CREATE TABLE pins(id TEXT PRIMARY KEY, x, y, FOREIGN KEY(x, y) REFERENCES places(x, y))",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO places VALUES(1, 1), (1, 2), (2, 1); INSERT INTO pins VALUES('pin', 1, 1)")
        .sync(&mut hub);
    b.sync(&mut hub);
    a.run("UPDATE pins SET x = 1, y = 2").sync(&mut hub);
    b.run("UPDATE pins SET x = 2, y = 1").sync(&mut hub);
    assert_eq!(a.sync(&mut hub).quarantined, 0);
    let place = "SELECT x, y FROM pins JOIN places USING(x, y)";
    assert_eq!(a.rows(place), [[Value::Integer(2), Value::Integer(1)]], "there is no place 2, 2");
    assert_eq!(a.rows(place), b.rows(place));
}

#[test]
fn a_row_that_went_with_its_parent_comes_back_with_it() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title);
         CREATE TABLE steps(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id) ON DELETE RESTRICT);
         CREATE TABLE notes(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id) ON DELETE CASCADE)",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO tasks VALUES(1, 'a'); INSERT INTO notes VALUES(1, 1)").sync(&mut hub);
    b.sync(&mut hub);
    b.run("INSERT INTO steps VALUES(1, 1)").sync(&mut hub);
    a.run("DELETE FROM tasks").sync(&mut hub);
    b.sync(&mut hub);
    for agent in [a, b] {
        let titles = "SELECT title FROM notes JOIN tasks ON tasks.id = notes.task";
        assert_eq!(
            agent.rows(titles),
            [[Value::Text("a".into())]],
            "the step keeps the task, and so the note"
        );
    }
}

#[test]
fn a_row_that_references_its_parent_twice_comes_back_with_it() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title);
         CREATE TABLE notes(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id) ON DELETE CASCADE,
           also INTEGER REFERENCES tasks(id))",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO tasks VALUES(1, 'a'); INSERT INTO notes VALUES(1, 1, 1)").sync(&mut hub);
    b.sync(&mut hub);
    a.run("DELETE FROM tasks").sync(&mut hub);
    b.sync(&mut hub);
    a.sync(&mut hub);
    let rows = "SELECT title FROM notes JOIN tasks ON tasks.id = notes.task";
    assert_eq!(a.rows(rows), b.rows(rows));
    assert_eq!(a.rows("SELECT title FROM tasks"), b.rows("SELECT title FROM tasks"));
}

#[test]
fn a_move_that_the_log_names_late_is_followed_before_what_it_carried_along() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title);
         CREATE TABLE steps(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id) ON UPDATE CASCADE)",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO tasks VALUES(1, 'a'); INSERT INTO steps VALUES(1, 1), (2, 1), (3, 1)").sync(&mut hub);
    b.sync(&mut hub);
    a.limits.rows = 1;
    a.run("UPDATE tasks SET id = 7").sync(&mut hub);
    b.sync(&mut hub);
    let titles = "SELECT count(*) FROM steps JOIN tasks ON tasks.id = task WHERE title = 'a'";
    for agent in [a, b] {
        assert_eq!(agent.rows(titles), [[Value::Integer(3)]]);
    }
}

#[test]
fn a_number_that_changes_hands_means_another_row_to_what_references_it() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title);
         CREATE TABLE steps(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id))",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO tasks VALUES(1, 'one'), (2, 'two'); INSERT INTO steps VALUES(1, 2)").sync(&mut hub);
    b.sync(&mut hub);
    a.run("UPDATE OR REPLACE tasks SET id = 2 WHERE id = 1").sync(&mut hub);
    b.sync(&mut hub);
    let tasks = "SELECT title, steps.id FROM tasks LEFT JOIN steps ON task = tasks.id";
    for agent in [a, b] {
        assert_eq!(agent.rows(tasks), [[Value::Text("one".into()), Value::Integer(1)]]);
    }
}

#[test]
fn a_delete_that_did_not_see_the_union_leaves_the_other_row() {
    let (mut hub, mut agents) = agents(2, "CREATE TABLE skills(id INTEGER PRIMARY KEY, name UNIQUE, why)");
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO skills VALUES(1, 'retry', 'a')");
    b.run("INSERT INTO skills VALUES(1, 'retry', 'b')").sync(&mut hub);
    a.sync(&mut hub);
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("DELETE FROM skills");
    });
    for _ in 0..2 {
        b.sync(&mut hub);
        a.sync(&mut hub);
    }
    assert_eq!(a.rows("SELECT why FROM skills"), [[Value::Text("a".into())]]);
    assert_eq!(a.rows("SELECT * FROM skills"), b.rows("SELECT * FROM skills"));
}

#[test]
fn numbers_that_are_exchanged_mean_the_other_rows_to_what_references_them() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title);
         CREATE TABLE steps(id INTEGER PRIMARY KEY, what,
           task INTEGER REFERENCES tasks(id) DEFERRABLE INITIALLY DEFERRED)",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO tasks VALUES(1, 'one'), (2, 'two'); INSERT INTO steps VALUES(1, 'begin', 1)")
        .sync(&mut hub);
    b.sync(&mut hub);
    a.run("BEGIN; UPDATE tasks SET id = 9 WHERE id = 1; UPDATE tasks SET id = 1 WHERE id = 2;");
    a.run("UPDATE tasks SET id = 2 WHERE id = 9; COMMIT").sync(&mut hub);
    b.sync(&mut hub);
    for agent in [a, b] {
        let titles = "SELECT title FROM steps JOIN tasks ON tasks.id = task";
        assert_eq!(agent.rows(titles), [[Value::Text("two".into())]]);
    }
}

#[test]
fn a_row_that_keeps_alive_what_it_replaced_is_that_row() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, first INTEGER REFERENCES steps(id) ON DELETE CASCADE);
         CREATE TABLE steps(id INTEGER PRIMARY KEY,
           task INTEGER NOT NULL UNIQUE REFERENCES tasks(id) ON DELETE RESTRICT)",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO tasks VALUES(1, NULL); INSERT INTO steps VALUES(1, 1)").sync(&mut hub);
    b.sync(&mut hub);
    a.run("UPDATE tasks SET first = 1").sync(&mut hub);
    // The new step keeps the task, and the task the old step, which has the new one's key.
    b.run("INSERT OR REPLACE INTO steps(task) VALUES(1)").sync(&mut hub);
    for _ in 0..2 {
        a.sync(&mut hub);
        b.sync(&mut hub);
    }
    for agent in [a, b] {
        let rows =
            "SELECT tasks.id FROM tasks JOIN steps ON steps.task = tasks.id AND tasks.first = steps.id";
        assert_eq!(agent.rows(rows), [[Value::Integer(1)]]);
        assert_eq!(agent.rows("SELECT count(*) FROM steps"), [[Value::Integer(1)]]);
        assert_eq!(agent.rows("SELECT reason FROM _federation_quarantine"), Vec::<Vec<Value>>::new());
    }
}

#[test]
fn what_references_a_row_by_its_key_follows_it_through_an_exchange_of_keys() {
    let (mut hub, mut agents) = agents(
        4,
        "CREATE TABLE skills(name TEXT PRIMARY KEY COLLATE NOCASE, code TEXT UNIQUE);
         CREATE TABLE uses(id TEXT PRIMARY KEY, code TEXT REFERENCES skills(code))",
    );
    let [a, b, c, d] = &mut agents[..] else { unreachable!() };
    d.slice = 1;
    d.sync(&mut hub);
    d.run("INSERT INTO skills VALUES('B', 'deploy'); INSERT INTO uses VALUES('use', 'deploy')");
    c.run("INSERT INTO skills VALUES('A', '')").sync(&mut hub);
    d.sync(&mut hub);
    // The two skills are one, by the code of one and the name of the other, and A is free.
    a.run("INSERT INTO skills VALUES('b', '')").sync(&mut hub);
    b.run("INSERT INTO skills VALUES('a', 'a')").sync(&mut hub);
    for _ in 0..2 {
        for agent in &mut agents {
            assert_eq!(agent.sync(&mut hub).quarantined, 0);
        }
    }
    for agent in &mut agents {
        let rows = "SELECT name, (SELECT count(*) FROM uses WHERE code = skills.code) FROM skills ORDER BY 1";
        let row = |name: &str, uses| vec![Value::Text(name.into()), Value::Integer(uses)];
        assert_eq!(agent.rows(rows), [row("A", 0), row("B", 1)]);
    }
}

#[test]
fn what_references_a_key_that_another_row_has_taken_over_means_that_one() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE skills(name TEXT PRIMARY KEY, code TEXT UNIQUE);
         CREATE TABLE uses(id TEXT PRIMARY KEY,
           code TEXT REFERENCES skills(code) DEFERRABLE INITIALLY DEFERRED)",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    b.slice = 1;
    a.run("INSERT INTO skills VALUES('A', 'a'), ('B', 'b'); INSERT INTO uses VALUES('use', 'a')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("BEGIN; UPDATE skills SET code = 'c' WHERE name = 'A'; UPDATE skills SET code = 'a' WHERE name = 'B';");
    a.run("UPDATE skills SET code = 'b' WHERE name = 'A'; COMMIT").sync(&mut hub);
    b.sync(&mut hub);
    for agent in [a, b] {
        let used = "SELECT name FROM uses JOIN skills USING(code)";
        assert_eq!(agent.rows(used), [[Value::Text("B".into())]]);
    }
}

#[test]
fn a_row_made_with_the_key_of_one_that_is_another_now_is_a_row_of_its_own() {
    let (mut hub, mut agents) = agents(4, "CREATE TABLE skills(name TEXT PRIMARY KEY COLLATE NOCASE, why)");
    let [a, b, c, d] = &mut agents[..] else { unreachable!() };
    a.run("INSERT INTO skills VALUES('B', 'a')").sync(&mut hub);
    b.run("INSERT INTO skills VALUES('b', 'b')").sync(&mut hub);
    a.sync(&mut hub);
    a.run("UPDATE skills SET why = 'later'").sync(&mut hub);
    // It hears that b is B, and of B only after it has made a row b itself.
    c.slice = 1;
    c.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
    c.run("INSERT INTO skills VALUES('b', 'c')");
    for agent in [c, a, b, d] {
        assert_eq!(agent.sync(&mut hub).quarantined, 0);
        assert_eq!(agent.rows("SELECT count(*) FROM skills"), [[Value::Integer(1)]]);
    }
}

#[test]
fn what_references_a_row_of_a_union_is_what_the_hub_says_once_another_row_has_its_key() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE skills(name TEXT PRIMARY KEY, code TEXT UNIQUE);
         CREATE TABLE uses(id INTEGER PRIMARY KEY, skill TEXT REFERENCES skills(name))",
    );
    let [a, b] = &mut agents[..] else { unreachable!() };
    a.sync(&mut hub);
    a.run("INSERT INTO skills VALUES('B', 'deploy')");
    b.run("INSERT INTO skills VALUES('A', 'deploy'); INSERT INTO uses VALUES(1, 'A')").sync(&mut hub);
    b.run("UPDATE skills SET code = ''");
    // Its B is A, which it does not have under that name, and makes.
    a.sync(&mut hub);
    a.run("INSERT INTO skills VALUES('A', 'long')");
    for _ in 0..3 {
        a.sync(&mut hub);
        b.sync(&mut hub);
    }
    let used = "SELECT skill FROM uses";
    assert_eq!(a.rows(used), b.rows(used));
    assert_eq!(a.rows("SELECT * FROM skills ORDER BY 1"), b.rows("SELECT * FROM skills ORDER BY 1"));
}

/// Breaks if a reference that this replica has replaced since is looked for: its row may be gone with that write.
#[test]
fn what_a_row_references_no_longer_here_is_not_waited_for() {
    let (mut hub, mut agents) = agents(
        2,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name UNIQUE, color, loop REFERENCES t(id) ON DELETE SET DEFAULT)",
    );
    // What is written after the first sync beats what was there before.
    agents[0].sync(&mut hub);
    agents[1].run("INSERT INTO t(name) VALUES('a')").sync(&mut hub);
    agents[0].run("INSERT INTO t(name) VALUES('1'); INSERT INTO t(name, color, loop) VALUES('a', 'red', 1)");
    // The hub tells that the two named `a` are one, which references the row that goes meanwhile.
    agents[0].sync_with(&mut hub, Fate::Complete, &mut |agent| {
        agent.run("DELETE FROM t WHERE name = '1'");
    });
    for _ in 0..2 {
        for agent in &mut agents {
            agent.sync(&mut hub);
        }
    }
    for agent in &mut agents {
        let rows = agent.rows("SELECT name, color, loop FROM t");
        assert_eq!(rows, [[Value::Text("a".into()), Value::Text("red".into()), Value::Null]]);
        assert_eq!(agent.rows("SELECT reason FROM _federation_quarantine"), Vec::<Vec<Value>>::new());
    }
}
