//! What an application may choose: which tables are shared, how their rows are identified, what becomes of rows
//! that were there before, and who makes the tables.

use crate::world::parts::text;
use crate::world::{Agent, Hub, pair, settle};
use federation_hub::model::{Hlc, Rule, Value};
use federation_hub::protocol::message::Done;
use federation_hub::storage::apply::Incoming;
use federation_hub::storage::choice::{CreateSchema, SyncOptions, TableOptions};
use federation_hub::storage::references::{DeclaredParent, DeclaredReference};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body)";
const TASKS: &str = "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title TEXT)";
const TITLES: &str = "SELECT id, title FROM tasks ORDER BY id, title";

fn excluding(pattern: &str) -> SyncOptions {
    SyncOptions { exclude: vec![pattern.into()], ..SyncOptions::default() }
}

fn table(name: &str, is_global: bool, rules: &[(&str, Rule)]) -> SyncOptions {
    let rules = rules.iter().map(|(column, rule)| ((*column).into(), *rule)).collect();
    let tables = vec![TableOptions { name: name.into(), is_global, rules, ..TableOptions::default() }];
    SyncOptions { tables, ..SyncOptions::default() }
}

fn number(value: i64) -> Value {
    Value::Integer(value)
}

/// Syncs with other options from now on, as after a restart.
fn choose(agent: &mut Agent, options: SyncOptions) {
    agent.options = options;
    agent.reconnect();
}

#[test]
fn an_excluded_table_is_neither_sent_nor_received_and_has_no_triggers() {
    let (mut hub, mut a, mut b) = pair(&format!("{NOTES}; {TASKS}"));
    a.options = excluding("task?");
    a.run("INSERT INTO tasks VALUES(1, 'of a')").run("INSERT INTO notes VALUES('x', 'of a', 1)");
    b.run("INSERT INTO tasks VALUES(2, 'of b')");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    assert_eq!(a.rows(TITLES), vec![vec![number(1), text("of a")]]);
    assert_eq!(b.rows(TITLES), vec![vec![number(2), text("of b")]]);
    let triggers = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'tasks'";
    assert_eq!(a.rows(triggers), vec![vec![number(0)]]);
    assert_eq!(a.sync(&mut hub).quarantined, 0, "rows of excluded tables wait nowhere");
}

#[test]
fn a_table_that_is_included_later_receives_its_past_and_sends_its_rows() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.options = excluding("notes");
    a.run("INSERT INTO notes VALUES('a', 'before', 1)");
    b.run("INSERT INTO notes VALUES('b', 'past', 2)");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.sync(&mut hub);
    choose(&mut a, SyncOptions::default());
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT id FROM notes ORDER BY id").len(), 2);
}

#[test]
fn a_table_that_is_excluded_for_a_while_loses_nothing_on_either_side() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 1), ('y', 'two', 2)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    // Found, and not sent, when the table is excluded.
    a.run("UPDATE notes SET title = 'unsent' WHERE id = 'y'").collect();
    choose(&mut a, excluding("notes"));
    a.sync(&mut hub);
    a.run("UPDATE notes SET body = 'while out' WHERE id = 'x'");
    b.run("UPDATE notes SET title = 'meanwhile' WHERE id = 'x'");
    b.sync(&mut hub);
    a.sync(&mut hub);
    assert_eq!(a.rows("SELECT title FROM notes WHERE id = 'x'"), vec![vec![text("one")]]);
    choose(&mut a, SyncOptions::default());
    let all = settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    assert_eq!(all[0], vec![text("x"), text("meanwhile"), text("while out")]);
    assert_eq!(all[1], vec![text("y"), text("unsent"), number(2)]);
}

#[test]
fn a_write_that_has_not_seen_the_past_of_its_table_is_in_conflict_with_it() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'one', 1)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    choose(&mut a, excluding("notes"));
    a.sync(&mut hub);
    b.run("UPDATE notes SET title = 'of b'");
    b.sync(&mut hub);
    a.sync(&mut hub);
    choose(&mut a, SyncOptions::default());
    a.run("UPDATE notes SET title = 'of a'");
    assert_eq!(a.sync(&mut hub).conflicts, 1);
}

#[test]
fn an_idle_sync_does_nothing_for_excluded_tables() {
    let (mut hub, mut a, _) = pair(&format!("{NOTES}; {TASKS}"));
    a.run("INSERT INTO tasks VALUES(1, 'one')");
    a.sync(&mut hub);
    a.run("UPDATE tasks SET title = 'two'").collect();
    choose(&mut a, excluding("tasks"));
    a.sync(&mut hub);
    a.sync(&mut hub);
    a.sql.statements.clear();
    a.sync(&mut hub);
    let end = a.sql.statements.iter().position(|statement| statement == "COMMIT");
    assert_eq!(end, Some(2), "{:?}", a.sql.statements);
}

#[test]
fn a_number_that_is_meant_globally_is_the_same_row_everywhere() {
    let (mut hub, mut a, mut b) = pair(TASKS);
    for (agent, title) in [(&mut a, "of a"), (&mut b, "of b")] {
        agent.options = table("tasks", true, &[]);
        agent.sync(&mut hub);
        agent.run(&format!("INSERT INTO tasks VALUES(7, '{title}')"));
    }
    let rows = settle(&mut hub, &mut a, &mut b, TITLES);
    assert_eq!(rows, vec![vec![number(7), text("of b")]]);
    a.run("UPDATE tasks SET id = 9000000000 WHERE id = 7");
    assert_eq!(settle(&mut hub, &mut a, &mut b, TITLES)[0][0], number(9_000_000_000));
}

#[test]
fn whoever_says_nothing_of_a_key_goes_by_what_the_tenant_has_agreed_on() {
    let mut hub = Hub::new();
    let (mut a, mut b, mut c) =
        (Agent::new("acme", "a", 1), Agent::new("acme", "b", 2), Agent::new("acme", "c", 3));
    a.options = table("tasks", true, &[]);
    a.run(TASKS).run("INSERT INTO tasks VALUES(7, 'of a')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(b.rows(TITLES), a.rows(TITLES), "made from the tenant's schema");
    b.run("UPDATE tasks SET title = 'of b'");
    // This one has the table already, and learns how it is meant.
    c.bears_rejection = true;
    c.run(TASKS).run("INSERT INTO tasks VALUES(8, 'of c')");
    for _ in 0..3 {
        b.sync(&mut hub);
        c.sync(&mut hub);
        a.sync(&mut hub);
    }
    let expected = vec![vec![number(7), text("of b")], vec![number(8), text("of c")]];
    for agent in [&mut a, &mut b, &mut c] {
        assert_eq!(agent.rows(TITLES), expected);
    }
}

#[test]
fn a_contradiction_is_one_error_that_names_the_table_and_the_rest_goes_on() {
    let (mut hub, mut a, mut b) = pair(&format!("{NOTES}; {TASKS}"));
    a.run("INSERT INTO tasks VALUES(1, 'of a')");
    a.sync(&mut hub);
    b.options = table("tasks", true, &[]);
    b.bears_rejection = true;
    b.run("INSERT INTO tasks VALUES(1, 'of b'), (2, 'more')").run("INSERT INTO notes VALUES('x', 'of b', 1)");
    let counts = b.sync(&mut hub);
    assert_eq!((counts.rejected, counts.quarantined), (2, 0));
    b.notices.dedup();
    assert_eq!(b.notices.len(), 1, "{:?}", b.notices);
    assert!(b.notices[0].contains("table tasks"), "{:?}", b.notices);
    a.sync(&mut hub);
    assert_eq!(a.rows("SELECT title FROM notes"), vec![vec![text("of b")]]);
    assert_eq!(a.rows("SELECT count(*) FROM tasks"), vec![vec![number(1)]]);
    b.sync(&mut hub);
    assert_eq!(b.notices.len(), 2, "said by every sync, as long as it lasts");
    choose(&mut b, SyncOptions::default());
    for _ in 0..2 {
        b.sync(&mut hub);
        a.sync(&mut hub);
    }
    assert_eq!(
        b.rows("SELECT title FROM tasks ORDER BY title"),
        a.rows("SELECT title FROM tasks ORDER BY title")
    );
    assert_eq!(
        a.rows("SELECT count(*) FROM tasks"),
        vec![vec![number(3)]],
        "and all is well once it is mended"
    );
}

#[test]
fn another_primary_key_and_another_rule_are_refused_by_name() {
    let mut hub = Hub::new();
    let (mut a, mut b) = (Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
    a.options = table("scores", false, &[("points", Rule::Counter)]);
    a.run("CREATE TABLE scores(id TEXT PRIMARY KEY, points); CREATE TABLE links(a TEXT, b TEXT, PRIMARY KEY(a, b))");
    a.sync(&mut hub);
    b.options = table("scores", false, &[("points", Rule::Max)]);
    b.run("CREATE TABLE scores(id TEXT PRIMARY KEY, points); CREATE TABLE links(a TEXT PRIMARY KEY, b TEXT)");
    b.sync(&mut hub);
    assert_eq!(b.notices.len(), 2, "{:?}", b.notices);
    let about = |what: &str| b.notices.iter().find(|notice| notice.contains(what)).unwrap().clone();
    assert!(about("table links").contains("(a, b)"));
    assert!(about("column points of table scores").contains("counter"));
}

#[test]
fn what_was_refused_is_exchanged_once_the_contradiction_is_mended() {
    const SCORES: &str = "CREATE TABLE scores(id TEXT PRIMARY KEY, points)";
    let (mut hub, mut a, mut b) = pair(SCORES);
    a.options = table("scores", false, &[("points", Rule::Counter)]);
    b.options = table("scores", false, &[("points", Rule::Max)]);
    b.bears_rejection = true;
    a.run("INSERT INTO scores VALUES('a', 1)").sync(&mut hub);
    b.run("INSERT INTO scores VALUES('b', 2)");
    assert_eq!(b.sync(&mut hub).rejected, 1);
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT id FROM scores"), vec![vec![text("b")]]);
    choose(&mut b, SyncOptions::default());
    // The first sync declares, and learns that all is well.
    b.sync(&mut hub);
    let all = settle(&mut hub, &mut a, &mut b, "SELECT * FROM scores ORDER BY id");
    assert_eq!(all, vec![vec![text("a"), number(1)], vec![text("b"), number(2)]]);
}

/// Breaks if only who declares notes what is refused. One that may only read does not, and its rows of such a table would
/// count as gone once it has been away for too long.
#[test]
fn a_refusal_is_noted_by_who_declares_nothing() {
    let (mut hub, mut a, _) = pair(NOTES);
    a.sync(&mut hub);
    let done = Done {
        cursor: 9,
        highest: Hlc::ZERO,
        hub_now_ms: 0,
        clock: Vec::new(),
        retired: None,
        horizon: 0,
        refused: vec![("notes".into(), "another key".into())],
        notices: vec![],
    };
    a.apply(&Incoming { done: Some(done), ..Incoming::default() });
    assert_eq!(a.rows("SELECT refused FROM _federation_table"), [[text("another key")]]);
}

/// Breaks if a table counts as seen before its past has come, or as unseen once it has.
#[test]
fn what_is_written_to_a_table_that_was_refused_is_in_conflict_with_what_had_not_come() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE scores(id TEXT PRIMARY KEY, points, note)");
    a.options = table("scores", false, &[("points", Rule::Max)]);
    b.options = table("scores", false, &[("points", Rule::Min)]);
    a.run("INSERT INTO scores VALUES('x', 1, 'of a'), ('y', 1, 'of a')").sync(&mut hub);
    b.sync(&mut hub);
    choose(&mut b, SyncOptions::default());
    // It learns that all is well, and has yet to ask for the rows.
    assert_eq!(b.sync(&mut hub).pulled, 0);
    b.run("INSERT INTO scores VALUES('x', 1, 'of b')");
    assert_eq!(b.sync(&mut hub).conflicts, 1, "it had seen nothing of that row");
    b.run("UPDATE scores SET note = 'edited' WHERE id = 'y'");
    assert_eq!(b.sync(&mut hub).conflicts, 0, "it had seen that one");
    let notes = settle(&mut hub, &mut a, &mut b, "SELECT note FROM scores ORDER BY id");
    assert_eq!(notes, [[text("of b")], [text("edited")]]);
}

#[test]
fn rows_that_were_there_before_are_old_or_new_as_the_application_says() {
    for is_old in [true, false] {
        let template = format!("{TASKS}; INSERT INTO tasks VALUES(1, 'one'), (2, 'two')");
        let (mut hub, mut a, mut b) = pair(&template);
        for agent in [&mut a, &mut b] {
            agent.options = SyncOptions { existing_rows_are_old: is_old, ..SyncOptions::default() };
        }
        let rows = settle(&mut hub, &mut a, &mut b, "SELECT title FROM tasks ORDER BY title");
        assert_eq!(rows.len(), if is_old { 2 } else { 4 });
    }
    let (mut hub, mut a, mut b) = pair(&format!("{NOTES}; INSERT INTO notes VALUES('x', 'here', 1)"));
    b.run("UPDATE notes SET title = 'there'");
    a.options.existing_rows_are_old = false;
    a.sync(&mut hub);
    b.sync(&mut hub);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT title FROM notes");
    assert_eq!(rows, vec![vec![text("here")]], "a row that counts as a write beats an old one");
}

#[test]
fn a_newer_application_meets_older_tables_in_both_orders() {
    const NEWER: &str =
        "CREATE TABLE IF NOT EXISTS notes(id TEXT PRIMARY KEY, title TEXT, body, mood TEXT DEFAULT 'fine')";
    for comes_first in [true, false] {
        let mut hub = Hub::new();
        let (mut old, mut new) = (Agent::new("acme", "old", 1), Agent::new("acme", "new", 2));
        old.run(NOTES).run("INSERT INTO notes VALUES('x', 'of old', 1)");
        new.options.create_schema = CreateSchema::Never;
        if comes_first {
            new.run(NEWER).run("INSERT INTO notes VALUES('y', 'of new', 2, 'good')");
            new.sync(&mut hub);
        }
        old.sync(&mut hub);
        new.sync(&mut hub);
        if !comes_first {
            let tables = new.rows("SELECT name FROM sqlite_master WHERE name = 'notes'");
            assert_eq!(tables, Vec::<Vec<Value>>::new(), "the application has not made it yet");
            assert_eq!(new.sync(&mut hub).quarantined, 0);
            new.run(NEWER).run("INSERT INTO notes VALUES('y', 'of new', 2, 'good')");
        }
        settle(&mut hub, &mut old, &mut new, "SELECT id, title, body FROM notes ORDER BY id");
        let moods = new.rows("SELECT id, mood FROM notes ORDER BY id");
        assert_eq!(moods, vec![vec![text("x"), text("fine")], vec![text("y"), text("good")]]);
        // The old application edits, and loses nothing of what it does not know; then it migrates.
        old.run("UPDATE notes SET title = 'edited' WHERE id = 'y'");
        settle(&mut hub, &mut old, &mut new, "SELECT id, title, body FROM notes ORDER BY id");
        assert_eq!(new.rows("SELECT mood FROM notes WHERE id = 'y'"), vec![vec![text("good")]]);
        old.run("ALTER TABLE notes ADD COLUMN mood TEXT DEFAULT 'fine'");
        settle(&mut hub, &mut old, &mut new, "SELECT * FROM notes ORDER BY id");
    }
}

#[test]
fn what_the_options_name_and_nobody_has_is_told() {
    let (mut hub, mut a, _) = pair(NOTES);
    a.options = table("notes", false, &[("bdoy", Rule::Max), ("id", Rule::Max)]);
    a.options.exclude = vec!["chache".into(), "tmp_*".into()];
    a.sync(&mut hub);
    let notices = a.catalog_notices();
    assert_eq!(notices.len(), 3, "{notices:?}");
    for name in ["notes.bdoy", "notes.id", "chache"] {
        assert!(notices.iter().any(|notice| notice.contains(name)), "{name}: {notices:?}");
    }
}

#[test]
fn columns_that_look_like_references_are_named_once() {
    let (mut hub, mut a, _) = pair(
        "CREATE TABLE memories(id INTEGER PRIMARY KEY, what); CREATE TABLE scores(id TEXT PRIMARY KEY, memory_id INTEGER)",
    );
    a.sync(&mut hub);
    a.reconnect();
    a.sync(&mut hub);
    assert_eq!(a.notices.len(), 1, "{:?}", a.notices);
    assert!(a.notices[0].contains("scores.memory_id"), "{:?}", a.notices);
}

#[test]
fn declared_references_belong_to_the_tenant() {
    const SCHEMA: &str = "CREATE TABLE memories(id INTEGER PRIMARY KEY, what); \
                          CREATE TABLE scores(id TEXT PRIMARY KEY, memory_id INTEGER)";
    let (mut hub, mut a, mut b) = pair(SCHEMA);
    let reference = |to: &str| DeclaredReference {
        table: "scores".into(),
        column: "memory_id".into(),
        parent: DeclaredParent::Table(to.into()),
    };
    a.options.references = vec![reference("memories")];
    a.sync(&mut hub);
    b.sync(&mut hub);
    b.run("INSERT INTO memories VALUES(1, 'of b')").sync(&mut hub);
    a.run("INSERT INTO memories VALUES(1, 'of a')").run("INSERT INTO scores VALUES('s', 1)");
    let what = "SELECT what FROM scores JOIN memories ON memories.id = memory_id";
    assert_eq!(settle(&mut hub, &mut a, &mut b, what), vec![vec![text("of a")]]);
    let mut c = Agent::new("acme", "c", 3);
    c.run(SCHEMA).run("CREATE TABLE skills(id INTEGER PRIMARY KEY, what)");
    c.options.references = vec![reference("skills")];
    c.sync(&mut hub);
    assert!(c.notices.iter().any(|it| it.contains("column memory_id of table scores")), "{:?}", c.notices);
}

/// Breaks if a reference that is declared when the column is in use is taken: what was sent before would be numbers of one
/// replica for ever, and each self-check would find that they mean other rows.
#[test]
fn a_reference_of_a_column_in_use_is_refused_and_all_is_well_once_it_is_mended() {
    let schema = "CREATE TABLE memories(id INTEGER PRIMARY KEY, what TEXT);
                  CREATE TABLE scores(id TEXT PRIMARY KEY, memory_id INTEGER)";
    let reference = || {
        let (table, column) = ("scores".to_owned(), "memory_id".to_owned());
        let references =
            vec![DeclaredReference { table, column, parent: DeclaredParent::Table("memories".into()) }];
        SyncOptions { references, ..SyncOptions::default() }
    };
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO memories VALUES(1, 'of a'); INSERT INTO scores VALUES('x', 1)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM scores");
    choose(&mut a, reference());
    a.bears_rejection = true;
    a.run("INSERT INTO scores VALUES('y', 1)");
    for _ in 0..3 {
        a.notices.clear();
        assert_eq!(a.sync(&mut hub).healed, 0);
        assert!(
            a.notices.iter().any(|it| it.contains("column memory_id of table scores")),
            "{:?}",
            a.notices
        );
    }
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT id FROM scores"), [[text("x")]]);
    choose(&mut a, SyncOptions::default());
    a.sync(&mut hub);
    let scores = settle(&mut hub, &mut a, &mut b, "SELECT id FROM scores ORDER BY id");
    assert_eq!(scores, [[text("x")], [text("y")]]);
}

/// Breaks if agents that go by the tenant's references do not stand up for them, and a hub that lost everything hears of the
/// column without one first.
#[test]
fn references_that_were_agreed_on_outlast_the_hub() {
    let schema = "CREATE TABLE memories(id INTEGER PRIMARY KEY, what TEXT);
                  CREATE TABLE scores(id TEXT PRIMARY KEY, memory_id INTEGER)";
    let (mut hub, mut a, mut b) = pair(schema);
    let (table, column) = ("scores".to_owned(), "memory_id".to_owned());
    b.options.references =
        vec![DeclaredReference { table, column, parent: DeclaredParent::Table("memories".into()) }];
    b.run("INSERT INTO memories VALUES(1, 'of b')").sync(&mut hub);
    a.sync(&mut hub);
    a.run("INSERT INTO memories(what) VALUES('of a')");
    a.run("INSERT INTO scores SELECT 'x', id FROM memories WHERE what = 'of a'");
    let what = "SELECT what FROM scores JOIN memories ON memories.id = memory_id";
    assert_eq!(settle(&mut hub, &mut a, &mut b, what), [[text("of a")]]);
    let mut restored = Hub::incarnated(2);
    a.reconnect();
    b.reconnect();
    assert_eq!(settle(&mut restored, &mut a, &mut b, what), [[text("of a")]]);
    assert_eq!(b.notices, Vec::<String>::new());
}
