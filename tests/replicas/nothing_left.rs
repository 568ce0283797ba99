//! Nothing left behind: a detached database equals one that never synced.

use crate::world::parts::text;
use crate::world::{Agent, Counts, Fate, Hub, pair, settle};
use federation_hub::model::{Rule, Value};
use federation_hub::storage::attach::release;
use federation_hub::storage::choice::TableOptions;
use federation_hub::storage::detach::detach;
use federation_hub::storage::driver::SqlErrorKind;
use federation_hub::storage::lease::LEASE_MS;

const SCHEMA: &str = "
    CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT UNIQUE, body, updated_at);
    CREATE UNIQUE INDEX by_body ON notes(lower(body)) WHERE body IS NOT NULL;
    CREATE TRIGGER touch AFTER UPDATE OF title ON notes BEGIN
      UPDATE notes SET updated_at = 'touched' WHERE id = NEW.id; END;
    CREATE VIEW titles AS SELECT title FROM notes;
    CREATE TRIGGER rename INSTEAD OF INSERT ON titles BEGIN INSERT INTO notes(title) VALUES(NEW.title); END;
    CREATE VIRTUAL TABLE words USING fts5(word);
    CREATE TABLE log(line);
    INSERT INTO notes(title, body) VALUES('one', 'A'), ('two', 'B'); DELETE FROM notes WHERE title = 'two';";

/// All that a database holds besides its rows, and how far AUTOINCREMENT has come.
fn schema(agent: &mut Agent) -> Vec<Vec<Value>> {
    let mut all = agent.rows("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name");
    all.extend(agent.rows("SELECT * FROM sqlite_sequence ORDER BY name"));
    all
}

#[test]
fn a_detached_database_equals_one_that_never_synced() {
    let (mut hub, mut a, mut b) = pair(SCHEMA);
    let mut never = Agent::new("acme", "never", 3);
    never.run(SCHEMA).run("UPDATE notes SET title = 'uno'").run("INSERT INTO notes(title) VALUES('three')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("ANALYZE").run("UPDATE notes SET title = 'uno'").sync(&mut hub);
    b.run("INSERT INTO notes(title) VALUES('three')").sync(&mut hub);
    a.sync(&mut hub);
    let claim = a.claim();
    detach(&mut a.sql, claim).unwrap();
    assert_eq!(a.rows("SELECT * FROM sqlite_stat1 WHERE tbl LIKE '%federation%'"), Vec::<Vec<Value>>::new());
    a.run("DROP TABLE sqlite_stat1; DROP TABLE sqlite_stat4");
    assert_eq!(schema(&mut a), schema(&mut never));
    for query in [
        "SELECT * FROM notes",
        "SELECT * FROM titles ORDER BY title",
        "SELECT * FROM words",
        "SELECT * FROM log",
    ] {
        assert_eq!(a.rows(query), never.rows(query), "{query}");
    }
    let before = a.rows("PRAGMA schema_version");
    detach(&mut a.sql, claim).unwrap();
    assert_eq!(a.rows("PRAGMA schema_version"), before, "nothing to do, nothing done");
}

#[test]
fn a_detached_database_that_syncs_again_is_a_new_replica() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)");
    a.run("INSERT INTO notes VALUES('x', 'one')");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    let replica = a.rows("SELECT replica FROM _federation_replica");
    let claim = a.claim();
    detach(&mut a.sql, claim).unwrap();
    a.run("UPDATE notes SET title = 'nobody saw it'");
    b.run("UPDATE notes SET title = 'two'").sync(&mut hub);
    // The connection still remembers the database as attached.
    assert_eq!(a.try_collect().unwrap_err().kind, SqlErrorKind::Detached);
    a.reconnect();
    a.sync(&mut hub);
    assert_ne!(a.rows("SELECT replica FROM _federation_replica"), replica);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    assert_eq!(rows, vec![vec![text("x"), text("two")]], "rows that it holds when it is attached are old");
    a.run("INSERT INTO notes VALUES('y', 'back')");
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes").len(), 2);
}

#[test]
fn detaching_waits_for_nobody_inside_a_transaction_and_changes_nothing() {
    let (mut hub, mut a, _) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)");
    a.sync(&mut hub);
    let claim = a.claim();
    a.run("BEGIN").run("INSERT INTO notes VALUES('x', 'one')");
    let refused = detach(&mut a.sql, claim).unwrap_err();
    assert_eq!(refused.kind, SqlErrorKind::Other);
    assert!(refused.message.contains("COMMIT or ROLLBACK"), "{refused}");
    a.run("COMMIT");
    assert_eq!(a.sync(&mut hub), Counts { pushed: 1, ..Counts::default() });
}

#[test]
fn two_processes_take_turns_and_one_that_died_does_not_keep_the_other_waiting_for_ever() {
    let mut hub = Hub::new();
    let mut a = Agent::new("acme", "a", 1);
    let empty = a.copy();
    a.restore(&empty);
    a.run("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)");
    a.sync(&mut hub);
    let mut b = a.beside("b", 2);
    assert_eq!(b.sync(&mut hub), Counts::default());
    assert_eq!(a.try_collect(), Ok(()));
    assert_eq!(b.try_collect(), Ok(()), "who has nothing under way stops nobody");
    a.run("INSERT INTO notes VALUES('x', 'one')");
    // It sends a batch, and dies.
    a.reconnect();
    b.run("DELETE FROM notes").run("INSERT INTO notes VALUES('y', 'two')");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    let kinds = |b: &mut Agent| {
        let claim = b.claim();
        [b.try_collect().map_err(|error| error.kind), detach(&mut b.sql, claim).map_err(|error| error.kind)]
    };
    assert_eq!(kinds(&mut b), [Err(SqlErrorKind::Leased); 2]);
    b.later_ms = LEASE_MS - 1_000;
    assert_eq!(kinds(&mut b), [Err(SqlErrorKind::Leased); 2]);
    b.later_ms = LEASE_MS;
    let refused = b.try_collect().unwrap_err();
    assert_eq!(
        refused.kind,
        SqlErrorKind::Unsettled,
        "the hub is asked first what has arrived of that batch"
    );
    b.reconnect();
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT lease_holder FROM _federation_replica"), vec![vec![Value::Null]]);
    // The first one lives after all.
    a.reconnect();
    assert_eq!(a.sync(&mut hub), Counts::default());
    let mut c = Agent::new("acme", "c", 3);
    c.sync(&mut hub);
    assert_eq!(c.rows("SELECT id FROM notes"), vec![vec![text("y")]]);
}

#[test]
fn a_sync_that_failed_gives_back_its_own_lease_only() {
    let (mut hub, mut a) = (Hub::new(), Agent::new("acme", "a", 1));
    let empty = a.copy();
    a.restore(&empty);
    a.run("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)").sync(&mut hub);
    let mut b = a.beside("b", 2);
    b.sync(&mut hub);
    a.run("INSERT INTO notes VALUES('x', 'one')");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    for (held_by_a, next) in [(false, SqlErrorKind::Leased), (true, SqlErrorKind::Unsettled)] {
        let claim = if held_by_a { a.claim() } else { b.claim() };
        release(&mut b.sql, claim).unwrap();
        assert_eq!(b.try_collect().unwrap_err().kind, next, "{held_by_a}");
    }
}

/// The hub's answer to one process tells of a past that the other has gone on from.
///
/// Judged by it, what the other had pushed was what a hub had forgotten: it was offered whole, as if it were nobody's, and
/// the additions in it were lost; of a hub that knew more than the database had known, it was a copy, with the same end.
#[test]
fn an_answer_from_before_another_process_has_synced_is_asked_for_again() {
    for has_synced in [false, true] {
        let (mut hub, mut a) = (Hub::new(), Agent::new("acme", "a", 1));
        let empty = a.copy();
        a.restore(&empty);
        let rules = vec![("n".to_owned(), Rule::Counter)];
        let table = TableOptions { name: "counts".into(), rules, ..TableOptions::default() };
        a.options.tables = vec![table];
        a.run("CREATE TABLE counts(id TEXT PRIMARY KEY, n INTEGER); INSERT INTO counts VALUES('x', 0)");
        let mut b = a.beside("b", 2);
        b.options = a.options.clone();
        if has_synced {
            a.sync(&mut hub);
            a.reconnect();
        }
        a.meanwhile = Some(Box::new(move |hub| {
            for _ in 0..2 {
                b.run("UPDATE counts SET n = n + 1").sync(hub);
            }
            b.run("UPDATE counts SET n = n + 1");
        }));
        assert_eq!(a.sync(&mut hub).pushed, 1, "{has_synced}");
        assert_eq!(a.notices, Vec::<String>::new(), "{has_synced}");
        let mut c = Agent::new("acme", "c", 3);
        c.sync(&mut hub);
        assert_eq!(c.rows("SELECT n FROM counts"), vec![vec![Value::Integer(3)]], "{has_synced}");
    }
}
