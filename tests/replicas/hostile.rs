//! What applications, locks and lost connections do to a replica at the worst moment.

use crate::world::parts::text;
use crate::world::{Agent, Counts, Fate, Hub, pair, settle};
use federation_hub::model::Value;
use federation_hub::storage::collect::TurnLimits;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body)";
const TASKS: &str = "CREATE TABLE tasks(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, done INTEGER)";

#[test]
fn a_lock_met_at_any_statement_loses_nothing() {
    let all = "SELECT * FROM notes ORDER BY id";
    for busy_after in 0.. {
        let (mut hub, mut a, mut b) = pair(NOTES);
        a.run("INSERT INTO notes VALUES('x', 'one', 'body'), ('y', 'two', 'body')");
        a.sync(&mut hub);
        b.sync(&mut hub);
        a.run("UPDATE notes SET title = 'new' WHERE id = 'x'").run("DELETE FROM notes WHERE id = 'y'");
        a.sync(&mut hub);
        b.run("UPDATE notes SET body = 'edited'").run("INSERT INTO notes VALUES('z', 'three', 'body')");
        b.sql.busy_after = Some(busy_after);
        b.sync(&mut hub);
        let reached = b.sql.busy_after.take().is_none();
        settle(&mut hub, &mut a, &mut b, all);
        assert_eq!(b.rows("SELECT title FROM notes WHERE id = 'x'"), vec![vec![text("new")]]);
        if !reached {
            return;
        }
    }
}

#[test]
fn writes_in_flight_survive_when_the_log_is_cut_between_the_halves_of_a_move() {
    for touched in 990..1_000 {
        let (mut hub, mut a, mut b) = pair(NOTES);
        a.run("INSERT INTO notes VALUES('x', 'one', 'body')");
        a.sync(&mut hub);
        b.sync(&mut hub);
        a.sync_with(&mut hub, Fate::Complete, &mut |a| {
            a.run(&format!(
                "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {touched})
                 INSERT INTO notes SELECT 'n' || n, 'title', n FROM n"
            ));
            a.run("UPDATE notes SET id = 'y' WHERE id = 'x'")
                .run("UPDATE notes SET title = 'y' WHERE id = 'y'");
            a.run("INSERT INTO notes VALUES('last', 'one', 'body')");
        });
        let rows =
            settle(&mut hub, &mut a, &mut b, "SELECT id, title FROM notes WHERE body = 'body' ORDER BY id");
        assert_eq!(rows, vec![vec![text("last"), text("one")], vec![text("y"), text("y")]], "{touched}");
    }
}

#[test]
fn the_default_of_an_added_column_never_beats_a_write() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 'body')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    for agent in [&mut a, &mut b] {
        agent.run("ALTER TABLE notes ADD COLUMN mood TEXT DEFAULT 'calm'");
        agent.run("ALTER TABLE notes ADD COLUMN weight REAL DEFAULT 1");
    }
    b.run("UPDATE notes SET mood = 'good', weight = 2");
    b.sync(&mut hub);
    a.run("UPDATE notes SET title = 'later'");
    assert_eq!(a.sync(&mut hub).conflicts, 0);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT title, mood, weight FROM notes");
    assert_eq!(rows, vec![vec![text("later"), text("good"), Value::Real(2.0)]]);
}

#[test]
fn an_edit_of_what_an_interrupted_pull_brought_beats_it() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 'body')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    // The hub takes stamps that are a little ahead.
    a.lead_ms = 50_000;
    for statement in [
        "INSERT INTO notes VALUES('gone', '', '')",
        "DELETE FROM notes WHERE id = 'gone'",
        "UPDATE notes SET title = 'seen by b'",
        "INSERT INTO notes VALUES('y', 'two', 'body')",
    ] {
        a.run(statement).sync(&mut hub);
    }
    b.slice = 1;
    b.sync_with(&mut hub, Fate::InterruptedPull(2), &mut |_| {});
    b.run("UPDATE notes SET title = 'b again' WHERE id = 'x'");
    b.run("INSERT INTO notes VALUES('gone', 'back', '')");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, title FROM notes ORDER BY id");
    let row = |id, title| vec![text(id), text(title)];
    assert_eq!(rows, vec![row("gone", "back"), row("x", "b again"), row("y", "two")]);
}

#[test]
fn a_row_deleted_by_a_move_and_inserted_again_lives() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 'body'), ('y', 'two', 'body')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.skew_ms = 3_600_000;
    a.run("DELETE FROM notes WHERE id = 'y'").run("UPDATE notes SET id = 'y'");
    a.run("UPDATE notes SET id = 'z'").run("INSERT INTO notes VALUES('y', 'again', 'body')");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, title FROM notes ORDER BY id");
    assert_eq!(rows, vec![vec![text("y"), text("again")], vec![text("z"), text("one")]]);
}

#[test]
fn the_unsent_rows_of_a_dropped_table_hold_nobody_up() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.limits = TurnLimits { rows: 3, ..TurnLimits::default() };
    a.run("CREATE TABLE bin(id TEXT PRIMARY KEY)");
    a.run("INSERT INTO bin VALUES('1'), ('2'), ('3'), ('4')").run("INSERT INTO notes VALUES('x', 'one', 1)");
    a.sync(&mut hub);
    a.run("DROP TABLE bin").reconnect();
    let mut restored = Hub::incarnated(2);
    b.run("INSERT INTO notes VALUES('y', 'two', 2)");
    settle(&mut restored, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    assert_eq!(b.rows("SELECT count(*) FROM notes"), vec![vec![Value::Integer(2)]]);
}

#[test]
fn a_write_that_lost_before_it_was_sent_does_not_end_the_push() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 'body'), ('y', 'two', 'body')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    b.limits.rows = 1;
    b.skew_ms = 3_600_000;
    a.run("UPDATE notes SET title = 'later' WHERE id = 'x'").sync(&mut hub);
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("UPDATE notes SET title = 'in flight'");
    });
    assert_eq!(b.sync(&mut hub).pushed, 1);
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
}

#[test]
fn rows_that_replace_takes_away_are_deletes() {
    let schema = "CREATE TABLE skills(id TEXT PRIMARY KEY, name TEXT UNIQUE, uses INTEGER);
                  CREATE TABLE tools(id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE, b, UNIQUE(a, b))";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO skills VALUES('1', 'retry', 0), ('2', 'plan', 0)");
    a.run("INSERT INTO tools(a, b) VALUES('x', 1), ('y', 1)");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT OR REPLACE INTO skills VALUES('3', 'retry', 1)");
    a.run("UPDATE OR REPLACE skills SET name = 'retry' WHERE id = '2'");
    a.run("INSERT OR REPLACE INTO tools(a, b) VALUES('X', 1)");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT * FROM skills ORDER BY id");
    assert_eq!(rows, vec![vec![text("2"), text("retry"), Value::Integer(0)]]);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT a, b FROM tools ORDER BY a");
    assert_eq!(rows, vec![vec![text("X"), Value::Integer(1)], vec![text("y"), Value::Integer(1)]]);
    assert_eq!(b.sync(&mut hub), Counts::default());
}

#[test]
fn names_may_hold_anything() {
    let schema = "CREATE TABLE \"order \"\"% by\"(\"50%\" TEXT, \"select\" INTEGER, \"va'l\"\"ue\" TEXT,
                  PRIMARY KEY(\"50%\", \"select\"))";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO \"order \"\"% by\" VALUES('x', 1, 'one')");
    a.sync(&mut hub);
    a.run("UPDATE \"order \"\"% by\" SET \"50%\" = 'y', \"select\" = -9223372036854775808");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT * FROM \"order \"\"% by\"");
    assert_eq!(rows, vec![vec![text("y"), Value::Integer(i64::MIN), text("one")]]);
}

#[test]
fn tables_whose_names_differ_in_case_are_one_table() {
    let (mut hub, mut a, mut b) = (Hub::new(), Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
    a.run(NOTES).run("INSERT INTO notes VALUES('x', 'one', 'body')");
    b.run("CREATE TABLE Notes(ID TEXT PRIMARY KEY, Title TEXT, body)");
    b.run("INSERT INTO Notes VALUES('x', 'one', 'body')");
    assert_eq!(a.sync(&mut hub).quarantined + b.sync(&mut hub).quarantined, 0);
    b.run("UPDATE Notes SET Title = 'two'");
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes").len(), 1);
}

#[test]
fn a_row_whose_key_becomes_null_leaves_and_comes_back() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 'body'), (NULL, 'never shared', '')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("UPDATE notes SET id = NULL WHERE id = 'x'");
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT * FROM notes"), Vec::<Vec<Value>>::new());
    a.run("UPDATE notes SET id = 'z' WHERE title = 'one'");
    let shared = settle(&mut hub, &mut a, &mut b, "SELECT id, title FROM notes WHERE id IS NOT NULL");
    assert_eq!(shared, vec![vec![text("z"), text("one")]]);
}

#[test]
fn a_column_added_after_an_interrupted_first_pull_gets_its_past() {
    let (mut hub, mut a, mut b) = pair("");
    a.run(NOTES).run("INSERT INTO notes VALUES('x', 'one', 'body'), ('y', 'two', 'body')");
    a.sync(&mut hub);
    b.run("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)");
    b.slice = 1;
    b.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
    b.run("ALTER TABLE notes ADD COLUMN body");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
}

#[test]
fn rows_that_went_with_a_dropped_table_come_back_from_the_hub() {
    for schema in [NOTES, "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body)"] {
        let (mut hub, mut a, mut b) = pair(schema);
        a.run("INSERT INTO notes VALUES(1, 'one', 'body'), (2, 'two', 'body'), (3, 'three', '')");
        a.sync(&mut hub);
        b.sync(&mut hub);
        a.run("DELETE FROM notes WHERE title = 'three'").run("DROP TABLE notes").run(schema);
        a.run("INSERT INTO notes VALUES(1, 'edited', 'body')");
        b.run("UPDATE notes SET body = 'also edited' WHERE title = 'two'");
        let rows = settle(&mut hub, &mut a, &mut b, "SELECT title, body FROM notes ORDER BY title");
        let expected = [["edited", "body"], ["two", "also edited"]].map(|row| row.map(text).to_vec());
        assert_eq!(rows, expected, "{schema}");
        assert_eq!(a.sync(&mut hub), Counts::default());
    }
}

#[test]
fn a_rebuilt_table_keeps_its_rows_and_pushes_only_what_differs() {
    let (mut hub, mut a, mut b) = pair(TASKS);
    a.run("INSERT INTO tasks(title, done) VALUES('one', 0), ('two', 0)");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run(
        "CREATE TABLE new(id INTEGER PRIMARY KEY, title TEXT, done INTEGER, mood TEXT);
           INSERT INTO new SELECT id, title, done + (id = 2), NULL FROM tasks;
           DROP TABLE tasks; ALTER TABLE new RENAME TO tasks",
    );
    assert_eq!(a.sync(&mut hub).pushed, 1);
    settle(&mut hub, &mut a, &mut b, "SELECT title, done FROM tasks ORDER BY id");
}

#[test]
fn a_write_that_has_not_seen_what_is_set_aside_is_in_conflict_with_it() {
    let (mut hub, mut a, mut b) = (Hub::new(), Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
    a.run("CREATE TABLE skills(id TEXT PRIMARY KEY, name TEXT, uses)");
    b.run("CREATE TABLE skills(id TEXT PRIMARY KEY, name TEXT CHECK(name <> 'retry'), uses)");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO skills VALUES('x', 'retry', 1)");
    a.sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 1);
    b.run("INSERT INTO skills VALUES('x', 'plan', 2)");
    b.skew_ms = 1_000;
    assert_eq!(b.sync(&mut hub).conflicts, 2, "name and uses of x");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM skills ORDER BY id");
}

#[test]
fn rows_that_stay_set_aside_do_not_keep_others_from_being_tried_again() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE teams(id TEXT PRIMARY KEY)");
    let skills = "CREATE TABLE skills(id TEXT PRIMARY KEY, team TEXT REFERENCES teams(id))";
    a.run("CREATE TABLE skills(id TEXT PRIMARY KEY, team TEXT)");
    b.run(skills).run("CREATE TABLE bin(rowid, oid, _rowid_)");
    a.run("CREATE TABLE bin(id TEXT PRIMARY KEY)");
    a.run(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 600)
           INSERT INTO bin SELECT n FROM n",
    );
    a.run("INSERT INTO skills VALUES('x', 'red')");
    a.sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 601);
    b.run("INSERT INTO teams VALUES('red')").sync(&mut hub);
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM skills ORDER BY id");
}

#[test]
fn a_table_of_numbers_alone_is_left_alone() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE ids(id INTEGER PRIMARY KEY, twice AS (id * 2))");
    a.run("INSERT INTO ids VALUES(7)");
    assert_eq!(a.sync(&mut hub), Counts::default());
    assert_eq!(b.sync(&mut hub), Counts::default());
}

#[test]
fn an_idle_sync_is_three_statements() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 'body')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    // One who has pushed, and one who has pulled.
    for agent in [&mut a, &mut b] {
        agent.sql.statements.clear();
        agent.collect();
        assert_eq!(agent.sql.statements.len(), 3, "{:?}", agent.sql.statements);
    }
}

#[test]
fn where_a_reader_can_be_made_to_wait_the_application_is_not_frozen() {
    let (mut hub, mut a, _) = pair(NOTES);
    // A copy lies in a file, which the agent goes on with.
    let copy = a.copy();
    a.restore(&copy);
    for (journal, waits) in [("WAL", false), ("DELETE", true), ("MEMORY", true)] {
        a.run(&format!("PRAGMA journal_mode = {journal}"));
        a.run("PRAGMA busy_timeout = 5000");
        a.reconnect();
        a.sync(&mut hub);
        a.sync(&mut hub);
        a.sql.statements.clear();
        a.collect();
        let begin = a.sql.statements.iter().position(|statement| statement == "BEGIN").unwrap();
        let zero = a.sql.statements.iter().position(|statement| statement == "PRAGMA busy_timeout = 0");
        assert_eq!(zero.is_some_and(|at| at < begin), waits, "{journal}: {:?}", a.sql.statements);
        assert_eq!(a.rows("PRAGMA busy_timeout"), vec![vec![Value::Integer(5000)]], "put back");
    }
}

#[test]
fn what_an_interrupted_pull_brought_counts_as_seen() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 'body'), ('y', 'two', 'body')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("UPDATE notes SET title = 'by a'");
    a.sync(&mut hub);
    b.slice = 1;
    b.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
    assert_eq!(b.rows("SELECT resume > cursor FROM _federation_replica"), vec![vec![Value::Integer(1)]]);
    b.run("UPDATE notes SET title = 'by b'");
    assert_eq!(b.sync(&mut hub).conflicts, 1, "y had not come yet");
}

#[test]
fn positions_of_a_lost_hub_are_no_base_for_another() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('w', '', ''), ('x', 'one', 'body')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    let mut restored = Hub::incarnated(2);
    a.reconnect();
    b.reconnect();
    a.run("UPDATE notes SET title = 'by a' WHERE id = 'x'");
    b.run("UPDATE notes SET title = 'by b' WHERE id = 'x'");
    a.sync(&mut restored);
    assert_eq!(b.sync(&mut restored).conflicts, 1);
}

#[test]
fn a_strangers_number_is_granted_only_within_the_local_range() {
    let (mut hub, mut a, mut b) = pair(TASKS);
    a.run("INSERT INTO tasks(id, title) VALUES(-7, 'low'), (9223372036854775807, 'high'), (1, 'one')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT max(id) < 4, min(id) > 0 FROM tasks"), vec![vec![Value::Integer(1); 2]]);
    b.run("INSERT INTO tasks(title) VALUES('own')").sync(&mut hub);
    // Where the range is exhausted, a gap is taken.
    settle(&mut hub, &mut a, &mut b, "SELECT title FROM tasks ORDER BY title");
}

#[test]
fn an_edit_that_lost_to_a_delete_makes_no_row_where_there_never_was_one() {
    for edit in ["title = 'lost'", "id = 'z', title = 'lost', body = 'lost'"] {
        let (mut hub, mut a, mut b) = pair(NOTES);
        a.run("INSERT INTO notes VALUES('x', 'one', 'body')");
        a.sync(&mut hub);
        b.sync(&mut hub);
        a.skew_ms = 3_600_000;
        a.run(&format!("UPDATE notes SET {edit}"));
        b.run("DELETE FROM notes");
        b.run("INSERT INTO notes VALUES('y', 'two', 'body')").sync(&mut hub);
        let mut fresh = Agent::new("acme", "fresh", 3);
        fresh.sync(&mut hub);
        a.sync(&mut hub);
        assert_eq!(fresh.sync(&mut hub), Counts::default(), "{edit}");
        assert_eq!(
            settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes"),
            fresh.rows("SELECT * FROM notes")
        );
    }
}
