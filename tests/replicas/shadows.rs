//! Names that mean something else than the main database's tables: TEMP tables and views, and attached databases.

use crate::world::parts::text;
use crate::world::{Agent, Counts, Hub, pair, settle};
use federation_hub::model::Value;
use federation_hub::storage::detach::detach;
use federation_hub::storage::migrate;

const SCHEMA: &str = "
    CREATE TABLE authors(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, mood);
    CREATE TABLE notes(id TEXT PRIMARY KEY, author INTEGER REFERENCES authors ON DELETE CASCADE, title, body,
      loud GENERATED ALWAYS AS (upper(title)));
    CREATE UNIQUE INDEX by_title ON notes(title) WHERE title <> '';
    CREATE TABLE loose(what, of INTEGER REFERENCES authors);
    CREATE TABLE fired(what);
    CREATE TRIGGER loud AFTER INSERT ON notes BEGIN INSERT INTO fired VALUES(NEW.id); END";
const NOTES: &str = "SELECT n.id, a.name, a.mood, n.title, n.body FROM main.notes n \
                     LEFT JOIN main.authors a ON a.id = n.author ORDER BY n.id";

/// What hides the tables, ours included.
fn shadows() -> Vec<String> {
    let ours = "CREATE TEMP TABLE _federation_log(x); CREATE TEMP TABLE _federation_row(x);
         CREATE TEMP TABLE _federation_table(x); CREATE TEMP TABLE _federation_replica(x);
         CREATE TEMP VIEW _federation_batch AS SELECT 1 AS y; CREATE TEMP TABLE _federation_quarantine(x);
         CREATE TEMP TABLE _federation_tenant(x); CREATE TEMP TABLE _federation_doubt(x);
         CREATE TEMP TABLE _federation_collision(x); CREATE TEMP TABLE _federation_vacuum(x)";
    let tables = ["authors", "notes", "loose", "fired"];
    let each = |what: &str| tables.map(|name| what.replace('?', name)).join(";");
    vec![
        each("CREATE TEMP TABLE ?(id)"),
        each("CREATE TEMP TABLE ?(id INTEGER PRIMARY KEY AUTOINCREMENT, name, mood, author, title, body, more, what, of)"),
        each("CREATE TEMP VIEW ? AS SELECT 1 AS id, 'x' AS name"),
        format!("CREATE TEMP TABLE other(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO other VALUES(9); {ours}"),
        format!("ATTACH ':memory:' AS side; {}", each("CREATE TABLE side.?(id)")),
        "ATTACH ':memory:' AS side; CREATE TABLE side._federation_replica(x); CREATE TABLE side.only_there(id TEXT PRIMARY KEY)"
            .to_owned(),
        "CREATE TEMP TABLE notes(id, title); CREATE TEMP TRIGGER t AFTER INSERT ON main.notes BEGIN SELECT 1; END;
         CREATE TEMP TRIGGER u AFTER INSERT ON temp.notes BEGIN SELECT RAISE(ABORT, 'no'); END"
            .to_owned(),
    ]
}

fn write(agent: &mut Agent, name: &str) {
    agent.run(&format!(
        "INSERT INTO main.authors(name, mood) VALUES('{name}', 'calm');
         INSERT INTO main.notes(id, author, title) SELECT '{name} 1', id, '{name} one' FROM main.authors WHERE name = '{name}';
         INSERT INTO main.notes(id, author, title) SELECT '{name} 2', id, '{name} two' FROM main.authors WHERE name = '{name}';
         UPDATE main.notes SET body = 'edited' WHERE id = '{name} 1';
         INSERT INTO main.loose SELECT '{name}', id FROM main.authors"
    ));
}

fn everyone(hub: &mut Hub, a: &mut Agent, b: &mut Agent) -> Vec<Vec<Value>> {
    settle(hub, a, b, "SELECT what, name FROM main.loose LEFT JOIN main.authors ON id = of ORDER BY 1, 2");
    settle(hub, a, b, NOTES)
}

#[test]
fn what_hides_a_table_from_the_application_hides_it_from_no_sync() {
    for shadow in shadows() {
        // Before its first sync, and later.
        for is_first in [true, false] {
            let (mut hub, mut a, mut b) = pair(SCHEMA);
            write(&mut a, "a");
            if !is_first {
                everyone(&mut hub, &mut a, &mut b);
            }
            b.run(&shadow);
            write(&mut b, "b");
            assert_eq!(everyone(&mut hub, &mut a, &mut b).len(), 4, "{shadow}");
            a.run("DELETE FROM notes WHERE id = 'a 2'; UPDATE notes SET title = 'a one!' WHERE id = 'a 1'");
            b.run("REPLACE INTO main.notes(id, title) VALUES('b 3', 'b two')");
            everyone(&mut hub, &mut a, &mut b);
            // A swap of unique values, and DDL.
            a.run("UPDATE notes SET title = '' WHERE id = 'a 1'; UPDATE notes SET title = 'a one!' WHERE id = 'b 1'");
            a.run("UPDATE notes SET title = 'b one' WHERE id = 'a 1'; ALTER TABLE notes ADD COLUMN more");
            b.run("ALTER TABLE main.notes ADD COLUMN more; CREATE INDEX main.by_body ON notes(body)");
            b.run("UPDATE main.notes SET more = id");
            everyone(&mut hub, &mut a, &mut b);
            let rows = settle(&mut hub, &mut a, &mut b, "SELECT id, more FROM main.notes ORDER BY id");
            let expected = ["a 1", "b 1", "b 3"].map(|id| vec![text(id), text(id)]);
            assert_eq!(rows, expected, "{shadow}");
            b.run("DELETE FROM main.loose; DELETE FROM main.authors WHERE name = 'a'");
            everyone(&mut hub, &mut a, &mut b);
            b.reconnect();
            assert_eq!(b.sync(&mut hub), Counts::default(), "{shadow}");
        }
    }
}

#[test]
fn tables_and_indexes_of_the_tenant_are_made_in_the_main_database() {
    for shadow in shadows().into_iter().filter(|shadow| !shadow.contains("ON main")) {
        let (mut hub, mut a, _) = pair(SCHEMA);
        write(&mut a, "a");
        a.sync(&mut hub);
        let mut fresh = Agent::new("acme", "fresh", 3);
        fresh.run(&shadow);
        fresh.sync(&mut hub);
        assert_eq!(fresh.rows(NOTES), a.rows(NOTES), "{shadow}");
        let indexes = "SELECT name FROM main.sqlite_master WHERE type = 'index' AND name LIKE 'by%'";
        assert_eq!(fresh.rows(indexes), vec![vec![text("by_title")]], "{shadow}");
        write(&mut fresh, "fresh");
        everyone(&mut hub, &mut a, &mut fresh);
    }
}

#[test]
fn a_database_with_shadows_is_detached_and_migrated() {
    for shadow in shadows() {
        let (mut hub, mut a, mut b) = pair(SCHEMA);
        write(&mut a, "a");
        everyone(&mut hub, &mut a, &mut b);
        b.run(&shadow);
        let temporary = "SELECT type, name, sql FROM temp.sqlite_master ORDER BY name";
        let before = b.rows(temporary);
        let claim = b.claim();
        migrate::begin(&mut b.sql, claim).unwrap();
        b.run("DELETE FROM main.notes WHERE id = 'a 1'");
        migrate::end(&mut b.sql).unwrap();
        assert_eq!(everyone(&mut hub, &mut a, &mut b).len(), 1, "{shadow}");
        detach(&mut b.sql, claim).unwrap();
        let ours = "SELECT count(*) FROM main.sqlite_master WHERE name LIKE '\\_federation%' ESCAPE '\\'";
        assert_eq!(b.rows(ours), vec![vec![Value::Integer(0)]], "{shadow}");
        assert_eq!(b.rows(temporary), before, "{shadow}");
    }
}

#[test]
fn a_temporary_trigger_stays_on_the_table_that_it_was_made_for() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title)");
    b.run(
        "CREATE TEMP TABLE seen(what); CREATE TEMP TRIGGER real AFTER INSERT ON notes BEGIN INSERT INTO seen VALUES('real'); END;
         CREATE TEMP TABLE notes(id, title);
         CREATE TEMP TRIGGER hiding AFTER INSERT ON notes BEGIN INSERT INTO seen VALUES('hiding'); END",
    );
    for id in ["x", "y"] {
        a.run(&format!("INSERT INTO notes VALUES('{id}', 'one')"));
        settle(&mut hub, &mut a, &mut b, "SELECT * FROM main.notes ORDER BY id");
        assert_eq!(b.rows("SELECT * FROM seen"), Vec::<Vec<Value>>::new());
    }
    b.run("INSERT INTO main.notes VALUES('z', 'two')");
    assert_eq!(b.rows("SELECT what FROM seen"), vec![vec![text("real")]]);
    b.run("INSERT INTO notes VALUES('z', 'two')");
    assert_eq!(b.rows("SELECT what FROM seen"), ["real", "hiding"].map(|what| vec![text(what)]));
}
