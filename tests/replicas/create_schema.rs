//! Which of the tenant's tables are made where they are missing: those of which tables and indexes are the whole story.

use federation_hub::model::Value;
use federation_hub::storage::choice::{CreateSchema, SyncOptions};

use crate::world::parts::text;
use crate::world::{Agent, Hub, settle};

const NOTES: &str = "CREATE TABLE IF NOT EXISTS notes(id TEXT PRIMARY KEY, body TEXT)";
const INDEX: &str = "CREATE VIRTUAL TABLE found USING fts5(body);
    CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN INSERT INTO found VALUES(new.body); END;";

/// What an application makes besides its table, and whether nobody else can make that for it.
const APPLICATIONS: &[(&str, bool)] = &[
    ("", false),
    ("CREATE INDEX by_body ON notes(body)", false),
    ("CREATE VIEW bodies AS SELECT body FROM notes", false),
    ("CREATE TRIGGER t AFTER INSERT ON notes BEGIN UPDATE notes SET body = 1 WHERE 0; END", false),
    // Nothing puts there what a sync brings, whoever made it.
    ("CREATE VIRTUAL TABLE found USING fts5(body)", false),
    ("CREATE TABLE meta(key TEXT PRIMARY KEY, value); INSERT INTO meta VALUES('mood', 'fine')", false),
    ("CREATE TABLE bird_migration(id INTEGER PRIMARY KEY, place)", false),
    ("CREATE TABLE documents(id INTEGER PRIMARY KEY, version, body)", false),
    ("PRAGMA user_version = 3", true),
    ("PRAGMA user_version = -1", true),
    (INDEX, true),
    (
        "CREATE VIRTUAL TABLE found USING rtree(id, low, high); CREATE VIEW v AS SELECT id, body FROM notes;
         CREATE TRIGGER v_ai INSTEAD OF INSERT ON v BEGIN INSERT INTO found VALUES(new.id, 1, 2); END;
         CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN INSERT INTO v VALUES(new.rowid, new.body); END;",
        true,
    ),
    ("CREATE TABLE kysely_migration(name TEXT PRIMARY KEY, timestamp TEXT)", true),
    ("CREATE TABLE journal_lock(\"index\" INTEGER PRIMARY KEY, is_locked)", true),
    ("CREATE TABLE schema_version(version INTEGER)", true),
    ("CREATE TABLE _migrations(name TEXT PRIMARY KEY, applied_at)", true),
    ("CREATE TABLE meta(key TEXT PRIMARY KEY, value); INSERT INTO meta VALUES('schema_version', '4')", true),
];

fn has(agent: &mut Agent, name: &str) -> bool {
    !agent.rows(&format!("SELECT 1 FROM sqlite_master WHERE name = '{name}'")).is_empty()
}

fn empty(name: &str, seed: u64) -> Agent {
    Agent::new("acme", name, seed)
}

/// An agent whose application has made its tables so, and has a note.
fn with(application: &str) -> (Hub, Agent) {
    let (mut hub, mut a) = (Hub::new(), empty("a", 1));
    a.run(NOTES).run(application).run("INSERT INTO notes VALUES('x', 'of a')").sync(&mut hub);
    a.notices.clear();
    (hub, a)
}

#[test]
fn tables_are_made_where_they_are_the_whole_story_and_else_wait_for_their_application() {
    for &(application, waits) in APPLICATIONS {
        let (mut hub, mut a) = with(application);
        let mut b = empty("b", 2);
        for _ in 0..2 {
            assert_eq!(b.sync(&mut hub).quarantined, 0, "{application}");
            b.reconnect();
        }
        assert_eq!(has(&mut b, "notes"), !waits, "{application}");
        let notices: Vec<&String> = b.notices.iter().filter(|it| it.contains("createSchema")).collect();
        assert_eq!(notices.len(), usize::from(waits), "{application}: {:?}", b.notices);
        if !waits {
            continue;
        }
        assert!(notices[0].contains("notes"), "{notices:?}");
        a.run("INSERT INTO notes VALUES('y', 'later of a')").sync(&mut hub);
        b.sync(&mut hub);
        b.run(NOTES).run(application).run("INSERT INTO notes VALUES('z', 'of b')");
        let notes = settle(&mut hub, &mut a, &mut b, "SELECT id, body FROM notes ORDER BY id");
        assert_eq!(notes.len(), 3, "{application}");
    }
}

#[test]
fn the_search_of_an_application_that_makes_its_tables_later_has_what_was_there_before() {
    let (mut hub, _) = with(INDEX);
    let mut b = empty("b", 2);
    b.sync(&mut hub);
    b.run(NOTES).run(INDEX).sync(&mut hub);
    assert_eq!(b.rows("SELECT body FROM found WHERE found MATCH 'of'"), [[text("of a")]]);
}

/// Breaks if only what an agent declared first counts: an application's first release had no journal, or it was synced in
/// the middle of its first migration.
#[test]
fn what_a_later_declaration_adds_counts_for_whoever_comes_next() {
    let (mut hub, mut a) = with("");
    let mut b = empty("b", 2);
    b.sync(&mut hub);
    assert!(has(&mut b, "notes"));
    a.run("PRAGMA user_version = 1; CREATE TABLE tags(id TEXT PRIMARY KEY, name)").sync(&mut hub);
    let mut c = empty("c", 3);
    c.sync(&mut hub);
    assert!(!has(&mut c, "notes") && !has(&mut c, "tags"));
    b.sync(&mut hub);
    assert!(has(&mut b, "notes") && !has(&mut b, "tags"));
}

#[test]
fn tables_of_others_are_made_beside_those_that_wait() {
    let (mut hub, _) = with("PRAGMA user_version = 1");
    let mut b = empty("b", 2);
    b.run("CREATE TABLE tasks(id TEXT PRIMARY KEY, title)").run("INSERT INTO tasks VALUES('t', 'of b')");
    b.sync(&mut hub);
    let mut c = empty("c", 3);
    c.sync(&mut hub);
    assert!(has(&mut c, "tasks") && !has(&mut c, "notes") && !has(&mut b, "notes"));
    assert_eq!(c.rows("SELECT title FROM tasks"), [[text("of b")]]);
}

/// Breaks if agents that go by what the tenant's applications need do not stand up for it.
#[test]
fn a_hub_that_lost_everything_hears_it_from_whoever_has_made_the_tables_all_the_same() {
    let (mut hub, _) = with("PRAGMA user_version = 1");
    let mut b = empty("b", 2);
    b.run(NOTES);
    for _ in 0..2 {
        b.sync(&mut hub);
    }
    let mut hub = Hub::incarnated(2);
    b.reconnect();
    b.sync(&mut hub);
    let mut c = empty("c", 3);
    c.sync(&mut hub);
    assert!(!has(&mut c, "notes"));
}

/// An application that shares its journal has said that it means the same everywhere.
#[test]
fn a_journal_that_is_named_travels_with_the_tables() {
    let including = || {
        let include = Some(vec!["*".to_owned(), "kysely_*".to_owned()]);
        SyncOptions { include, ..SyncOptions::default() }
    };
    let (mut hub, mut a, mut b) = (Hub::new(), empty("a", 1), empty("b", 2));
    (a.options, b.options) = (including(), including());
    a.run(NOTES).run("CREATE TABLE kysely_migration(name TEXT PRIMARY KEY, timestamp TEXT)").sync(&mut hub);
    b.sync(&mut hub);
    assert!(has(&mut b, "notes") && has(&mut b, "kysely_migration"));
}

/// Breaks if excluding a journal, as a notice asks, hides it.
#[test]
fn a_journal_that_is_excluded_is_one_all_the_same() {
    for journal in ["kysely_migration(name TEXT PRIMARY KEY)", "app_meta(key TEXT PRIMARY KEY, value)"] {
        let (mut hub, mut a, mut b) = (Hub::new(), empty("a", 1), empty("b", 2));
        a.options.exclude = vec!["kysely_*".into(), "app_*".into()];
        a.run(NOTES).run(&format!("CREATE TABLE {journal}")).sync(&mut hub);
        b.sync(&mut hub);
        assert!(!has(&mut b, "notes"), "{journal}");
    }
}

/// What an application fills its tables with when it makes them, each agent alike, gives way as it does where it was there
/// before the first sync.
#[test]
fn what_an_application_makes_its_tables_with_is_old_whether_it_syncs_before_or_after() {
    let application = "PRAGMA user_version = 1;
        CREATE TABLE settings(name TEXT PRIMARY KEY, value); INSERT INTO settings VALUES('theme', 'light');
        CREATE TABLE roles(id INTEGER PRIMARY KEY, name); INSERT INTO roles VALUES(1, 'admin'), (2, 'guest')";
    for syncs_first in [false, true] {
        let (mut hub, mut a, mut b) = (Hub::new(), empty("a", 1), empty("b", 2));
        a.run(application).sync(&mut hub);
        a.run("UPDATE settings SET value = 'dark'").sync(&mut hub);
        if syncs_first {
            b.sync(&mut hub);
        }
        b.run(application);
        let settings = settle(&mut hub, &mut a, &mut b, "SELECT value FROM settings");
        assert_eq!(settings, [[text("dark")]], "{syncs_first}");
        let roles = settle(&mut hub, &mut a, &mut b, "SELECT name FROM roles ORDER BY name");
        assert_eq!(roles, [[text("admin")], [text("guest")]], "{syncs_first}");
    }
}

#[test]
fn rows_that_wait_disturb_no_sync_of_other_tables() {
    let (mut hub, mut a) = with("PRAGMA user_version = 1; CREATE TABLE tasks(id INTEGER PRIMARY KEY, title)");
    let mut b = empty("b", 2);
    b.run("CREATE TABLE tasks(id INTEGER PRIMARY KEY, title)");
    for round in 0..3 {
        a.run(&format!("INSERT INTO notes VALUES('n{round}', 'x'); INSERT INTO tasks(title) VALUES('of a')"));
        b.run("INSERT INTO tasks(title) VALUES('of b')");
        settle(&mut hub, &mut a, &mut b, "SELECT title FROM tasks ORDER BY title");
    }
    assert_eq!(b.rows("SELECT count(*) FROM tasks"), [[Value::Integer(6)]]);
    assert!(!has(&mut b, "notes"));
}

/// Breaks if the notice's advice does not help whoever follows it.
#[test]
fn tables_that_wait_are_made_once_the_application_says_so() {
    for before in [CreateSchema::Auto, CreateSchema::Never] {
        let (mut hub, mut a) = with("PRAGMA user_version = 1; CREATE INDEX by_body ON notes(body)");
        let mut b = empty("b", 2);
        b.options.create_schema = before;
        b.sync(&mut hub);
        a.run("INSERT INTO notes VALUES('y', 'later')").sync(&mut hub);
        b.sync(&mut hub);
        b.options.create_schema = CreateSchema::Always;
        b.reconnect();
        let notes = settle(&mut hub, &mut a, &mut b, "SELECT id FROM notes ORDER BY id");
        assert_eq!(notes, [[text("x")], [text("y")]]);
        assert!(has(&mut b, "by_body"));
    }
}

/// Breaks if one agent's journal keeps everybody's tables from newcomers.
#[test]
fn a_journal_says_nothing_of_tables_that_were_made_from_the_tenants_definitions() {
    let (mut hub, _) = with("");
    let mut b = empty("b", 2);
    b.sync(&mut hub);
    b.run(
        "CREATE TABLE tags(id TEXT PRIMARY KEY, name); CREATE TABLE kysely_migration(name TEXT PRIMARY KEY)",
    );
    b.sync(&mut hub);
    let mut c = empty("c", 3);
    c.sync(&mut hub);
    assert!(has(&mut c, "notes") && !has(&mut c, "tags"));
}
