//! What stands beside the tables that are shared: virtual tables, also those that cannot be used here, what belongs
//! to them and to vector indexes, and what is broken. None of it travels, and none of it stops what does.

use crate::world::parts::text;
use crate::world::{Agent, Hub, pair, settle};
use federation_hub::model::Value;
use federation_hub::storage::choice::SyncOptions;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";

/// A definition that somebody's SQLite has made, and that this one could not make.
fn plant(agent: &mut Agent, kind: &str, name: &str, on: &str, definition: &str) {
    let definition = definition.replace('\'', "''");
    agent
        .run("PRAGMA writable_schema = ON")
        .run(&format!("INSERT INTO sqlite_master VALUES('{kind}', '{name}', '{on}', 0, '{definition}')"))
        .run("PRAGMA writable_schema = RESET");
}

/// A virtual table, and the ordinary tables that its module has made for it, each with a row of its agent's own.
fn index(agent: &mut Agent, definition: &str, name: &str, parts: &[&str]) {
    plant(agent, "table", name, name, definition);
    for part in parts {
        agent.run(&format!("CREATE TABLE \"{name}_{part}\"(rowid PRIMARY KEY, vectors BLOB NOT NULL)"));
        agent.run(&format!("INSERT INTO \"{name}_{part}\" VALUES(1, hex(randomblob(8)))"));
    }
}

fn count(agent: &mut Agent, table: &str) -> Value {
    agent.rows(&format!("SELECT count(*) FROM \"{table}\"")).swap_remove(0).swap_remove(0)
}

/// Whether the last sync has left a table alone, and why.
fn why_left_alone(agent: &Agent, table: &str) -> Option<String> {
    agent.left_alone().into_iter().find(|(name, _)| name == table).map(|(_, why)| why)
}

/// Syncs both until they hold the same notes.
fn notes(hub: &mut Hub, a: &mut Agent, b: &mut Agent) -> usize {
    settle(hub, a, b, "SELECT * FROM notes ORDER BY id").len()
}

#[test]
fn a_virtual_table_whose_module_is_missing_is_left_alone_with_a_notice() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    for agent in [&mut a, &mut b] {
        index(agent, "CREATE VIRTUAL TABLE vectors USING vec0(e float[3])", "vectors", &[]);
        index(agent, "CREATE VIRTUAL TABLE shapes USING geopolis(name)", "shapes", &[]);
    }
    a.run("INSERT INTO notes VALUES('a', 'of a')");
    b.run("INSERT INTO notes VALUES('b', 'of b')");
    assert_eq!(notes(&mut hub, &mut a, &mut b), 2);
    for (table, module) in [("vectors", "vec0"), ("shapes", "geopolis")] {
        let why = why_left_alone(&a, table).unwrap();
        assert!(why.contains(module) && why.contains("no such module"), "{why}");
    }
    a.run("UPDATE notes SET title = 'edited'").reconnect();
    assert_eq!(notes(&mut hub, &mut a, &mut b), 2);
}

#[test]
fn a_trigger_that_writes_a_virtual_table_which_cannot_be_used_here_sleeps_and_a_notice_says_so() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('a', 'of a')").sync(&mut hub);
    index(&mut b, "CREATE VIRTUAL TABLE \"my vectors\" USING vec0(e float[3])", "my vectors", &[]);
    b.run(
        "CREATE TRIGGER embed AFTER INSERT ON notes BEGIN
           INSERT INTO \"my vectors\"(rowid, e) VALUES(NEW.rowid, NEW.title); END;
         CREATE TRIGGER forget AFTER DELETE ON notes BEGIN DELETE FROM \"My Vectors\" WHERE rowid = OLD.rowid; END;
         CREATE TRIGGER other AFTER UPDATE ON notes BEGIN SELECT 'my vectors'; END;",
    );
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    assert_eq!(b.rows("SELECT * FROM notes"), a.rows("SELECT * FROM notes"));
    a.run("DELETE FROM notes").sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(count(&mut b, "notes"), Value::Integer(0));
    assert_eq!(
        b.rows("SELECT count(*) FROM sqlite_master WHERE name IN ('embed', 'forget', 'other')")[0],
        [Value::Integer(3)]
    );
    let told: Vec<String> = b.catalog_notices();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("my vectors") && told[0].contains("embed of notes, forget of notes"),
        "{told:?}"
    );
}

#[test]
fn a_virtual_table_that_cannot_be_connected_is_left_alone() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    // Its module is here, and what it was made of is not.
    a.run("CREATE TABLE words(word); CREATE VIRTUAL TABLE found USING fts4(content=words); DROP TABLE words");
    plant(&mut a, "table", "odd", "odd", "CREATE VIRTUAL TABLE odd USING fts5(word, tokenize = 'ours')");
    let copy = a.copy();
    a.restore(&copy);
    a.run("INSERT INTO notes VALUES('a', 'of a')");
    assert_eq!(notes(&mut hub, &mut a, &mut b), 1);
    assert!(why_left_alone(&a, "found").is_some() && why_left_alone(&a, "odd").is_some());
}

#[test]
fn what_is_broken_stops_nothing_else() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    b.run(
        "CREATE TABLE gone(id TEXT PRIMARY KEY, x); CREATE VIEW over_nothing AS SELECT x FROM gone;
         CREATE VIEW over_that AS SELECT * FROM over_nothing;
         CREATE VIEW calls AS SELECT no_such_function(1) AS one;
         CREATE TABLE child(id TEXT PRIMARY KEY, of TEXT REFERENCES gone, with_it TEXT REFERENCES over_nothing(x));
         CREATE TRIGGER into_nothing AFTER INSERT ON notes BEGIN INSERT INTO gone VALUES(NEW.id, 1); END;
         CREATE TRIGGER of_nothing AFTER UPDATE ON notes WHEN nobody.knows BEGIN SELECT no_such_function(); END;
         CREATE TRIGGER instead INSTEAD OF INSERT ON over_nothing BEGIN SELECT 1; END;
         CREATE TRIGGER of_child AFTER INSERT ON child BEGIN DELETE FROM nothing_else; END;",
    );
    b.run("DROP TABLE gone");
    plant(
        &mut b,
        "table",
        "odd",
        "odd",
        "CREATE VIRTUAL TABLE odd USING vec0(this is no definition of any kind)",
    );
    a.run("INSERT INTO notes VALUES('a', 'of a')");
    for agent in [&mut a, &mut b] {
        agent.sync(&mut hub);
    }
    assert_eq!(notes(&mut hub, &mut a, &mut b), 1);
    a.run("UPDATE notes SET title = 'edited'");
    assert_eq!(notes(&mut hub, &mut a, &mut b), 1);
    assert_eq!(b.rows("SELECT title FROM notes"), [[text("edited")]]);
    a.run("DELETE FROM notes");
    assert_eq!(notes(&mut hub, &mut a, &mut b), 0);
}

#[test]
fn what_belongs_to_an_index_is_left_alone_also_where_its_module_is_not_loaded() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    let parts = ["info", "chunks", "rowids", "vector_chunks00", "vector_chunks01", "metadatatext00"];
    for agent in [&mut a, &mut b] {
        index(agent, "CREATE VIRTUAL TABLE v USING vec0(e float[3], f float[3])", "v", &parts);
        index(agent, "CREATE VIRTUAL TABLE s USING \"VSS0\"(e(3))", "s", &["index", "data"]);
    }
    a.run("INSERT INTO notes VALUES('a', 'of a')");
    let query = "SELECT (SELECT vectors FROM v_vector_chunks00), (SELECT vectors FROM v_info), (SELECT vectors FROM s_data)";
    let before = (a.rows(query), b.rows(query));
    assert_eq!(notes(&mut hub, &mut a, &mut b), 1);
    assert_eq!((a.rows(query), b.rows(query)), before);
    for part in parts {
        assert!(why_left_alone(&b, &format!("v_{part}")).is_some(), "{part}");
    }
    let mut c = Agent::new("acme", "c", 3);
    assert_eq!(c.sync(&mut hub).pulled, 1);
    assert_eq!(c.rows("SELECT name FROM sqlite_master WHERE name LIKE 'v%' OR name LIKE 's%data'"), NOTHING);
}

const NOTHING: &[Vec<Value>] = &[];

/// Breaks if whatever begins like a virtual table counts as a part of it.
#[test]
fn a_table_that_is_merely_named_after_an_index_is_shared() {
    let schema = format!(
        "{NOTES}; CREATE VIRTUAL TABLE words USING fts5(word); CREATE TABLE words_archive(id TEXT PRIMARY KEY, word);
         CREATE TABLE words_chunks(id TEXT PRIMARY KEY, word); CREATE TABLE i_shadow(id TEXT PRIMARY KEY, word)"
    );
    let (mut hub, mut a, mut b) = pair(&schema);
    for table in ["words_archive", "words_chunks", "i_shadow"] {
        a.run(&format!("INSERT INTO {table} VALUES('x', 'y')"));
    }
    a.run("INSERT INTO words VALUES('of a')").sync(&mut hub);
    b.sync(&mut hub);
    for table in ["words_archive", "words_chunks", "i_shadow"] {
        assert_eq!(count(&mut b, table), Value::Integer(1), "{table}");
    }
    assert_eq!(b.rows("SELECT word FROM words"), NOTHING);
}

#[test]
fn what_may_belong_to_an_index_of_an_unknown_kind_is_shared_when_it_is_named() {
    let schema = "CREATE TABLE graph_edges(id TEXT PRIMARY KEY, what)";
    let (mut hub, mut a, mut b) = pair(schema);
    for agent in [&mut a, &mut b] {
        index(agent, "CREATE VIRTUAL TABLE graph USING ours(x)", "graph", &[]);
    }
    a.run("INSERT INTO graph_edges VALUES('e', 'of a')").sync(&mut hub);
    let why = why_left_alone(&a, "graph_edges").unwrap();
    assert!(why.contains("ours") && why.contains("tables.include"), "{why}");
    for agent in [&mut a, &mut b] {
        agent.options =
            SyncOptions { include: Some(vec!["*".into(), "graph_edges".into()]), ..SyncOptions::default() };
        agent.reconnect();
    }
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT what FROM graph_edges"), [[text("of a")]]);
    assert!(why_left_alone(&a, "graph").is_some());
}

/// An agent of an earlier release shares what belongs to its indexes.
fn earlier(agent: &mut Agent) {
    agent.run(
        "CREATE TABLE v_info(key TEXT PRIMARY KEY, value ANY);
         CREATE TABLE v_vector_chunks00(rowid PRIMARY KEY, vectors BLOB NOT NULL);
         INSERT INTO v_info VALUES('version', 1); INSERT INTO v_vector_chunks00 VALUES(1, x'01');
         CREATE TABLE v_notes(id TEXT PRIMARY KEY, note); INSERT INTO v_notes VALUES('n', 'shared')",
    );
}

/// Breaks if a tenant that has such tables hands them to whoever makes the index itself, which then finds them in its way.
#[test]
fn parts_that_a_tenant_has_are_not_made_and_their_rows_are_passed_over() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    earlier(&mut a);
    a.sync(&mut hub);
    // This one has the index, under the same name.
    index(&mut b, "CREATE VIRTUAL TABLE v USING vec0(e float[3])", "v", &["vector_chunks00"]);
    let mut c = Agent::new("acme", "c", 3);
    for agent in [&mut b, &mut c] {
        assert_eq!(agent.sync(&mut hub).quarantined, 0);
        assert_eq!(agent.rows("SELECT note FROM v_notes"), [[text("shared")]]);
    }
    let parts = "SELECT name FROM sqlite_master WHERE name IN ('v_info', 'v_vector_chunks00')";
    assert_eq!(c.rows(parts), NOTHING);
    // Rows that come later, too.
    a.run("UPDATE v_vector_chunks00 SET vectors = x'02'").sync(&mut hub);
    for agent in [&mut b, &mut c] {
        assert_eq!(agent.sync(&mut hub).quarantined, 0);
        agent.reconnect();
        assert_eq!(agent.sync(&mut hub).quarantined, 0);
    }
    assert_eq!(c.rows(parts), NOTHING);
}
