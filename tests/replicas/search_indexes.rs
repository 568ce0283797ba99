//! Search indexes that triggers keep: what a sync brings is found, and the index is as its table.

use federation_hub::model::Value;

use crate::world::parts::text;
use crate::world::{Agent, Hub, pair, settle};

/// The recipe of SQLite's documentation: an index of its own table's rows, kept by three triggers.
const NOTES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, slug TEXT UNIQUE, title TEXT, body TEXT);
    CREATE VIRTUAL TABLE found USING fts5(title, body, content='notes', content_rowid='id', tokenize='porter');
    CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN
      INSERT INTO found(rowid, title, body) VALUES(new.id, new.title, new.body); END;
    CREATE TRIGGER notes_ad AFTER DELETE ON notes BEGIN
      INSERT INTO found(found, rowid, title, body) VALUES('delete', old.id, old.title, old.body); END;
    CREATE TRIGGER notes_au AFTER UPDATE ON notes BEGIN
      INSERT INTO found(found, rowid, title, body) VALUES('delete', old.id, old.title, old.body);
      INSERT INTO found(rowid, title, body) VALUES(new.id, new.title, new.body); END;";

/// The slugs of the notes that a word finds.
fn find(agent: &mut Agent, word: &str) -> Vec<String> {
    let query = format!(
        "SELECT slug FROM notes WHERE id IN (SELECT rowid FROM found WHERE found MATCH '{word}') ORDER BY slug"
    );
    let rows = agent.rows(&query);
    rows.into_iter().map(|row| row.into_iter().next().unwrap()).map(|slug| format!("{slug:?}")).collect()
}

fn is_found(agent: &mut Agent, word: &str, slugs: &[&str]) {
    let expected: Vec<String> = slugs.iter().map(|slug| format!("{:?}", text(slug))).collect();
    assert_eq!(find(agent, word), expected, "{word}");
}

fn check(agent: &mut Agent) {
    agent.run("INSERT INTO found(found, rank) VALUES('integrity-check', 1)");
}

fn triggers(agent: &mut Agent) -> Vec<Vec<Value>> {
    agent.rows("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name")
}

fn notices_of<'a>(agent: &'a Agent, what: &str) -> Vec<&'a String> {
    agent.notices.iter().filter(|notice| notice.contains(what)).collect()
}

#[test]
fn what_a_sync_brings_is_found_and_what_it_takes_is_not() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    let before = triggers(&mut b);
    a.run("INSERT INTO notes(slug, title, body) VALUES('x', 'running', 'apples'), ('y', 'pears', 'walked')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    check(&mut b);
    is_found(&mut b, "run", &["x"]);
    is_found(&mut b, "walk", &["y"]);
    a.run("UPDATE notes SET title = 'quinces' WHERE slug = 'x'").run("DELETE FROM notes WHERE slug = 'y'");
    a.sync(&mut hub);
    b.sync(&mut hub);
    check(&mut b);
    is_found(&mut b, "run", &[]);
    is_found(&mut b, "quince", &["x"]);
    is_found(&mut b, "walk", &[]);
    // The application goes on with such rows.
    b.run("UPDATE notes SET body = 'plums' WHERE slug = 'x'").run("DELETE FROM notes");
    check(&mut b);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    assert!(rows.is_empty());
    check(&mut a);
    // The other three of each table are ours.
    let own = |triggers: Vec<Vec<Value>>| -> Vec<Vec<Value>> {
        triggers.into_iter().filter(|row| format!("{:?}", row[0]).contains("notes_")).collect()
    };
    assert_eq!(own(triggers(&mut b)), own(before));
    assert_eq!(a.notices, Vec::<String>::new());
}

#[test]
fn rows_that_swap_their_values_or_are_one_stay_found() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes(slug, title) VALUES('x', 'apples'), ('y', 'pears'), ('z', 'plums')");
    settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    a.run(
        "UPDATE notes SET slug = '~' WHERE slug = 'x'; UPDATE notes SET slug = 'x' WHERE slug = 'y';
           UPDATE notes SET slug = 'y' WHERE slug = '~'",
    );
    a.run("INSERT INTO notes(slug, title) VALUES('both', 'quinces')");
    b.run("INSERT INTO notes(slug, title) VALUES('other', 'medlars'), ('both', 'figs')");
    settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    for agent in [&mut a, &mut b] {
        check(agent);
        is_found(agent, "apple", &["y"]);
        is_found(agent, "pear", &["x"]);
        is_found(agent, "medlar", &["other"]);
        let both = agent.rows("SELECT title FROM notes WHERE slug = 'both'");
        let is_here = |title: &str| both == [[text(title)]];
        is_found(agent, "quince", if is_here("quinces") { &["both"] } else { &[] });
        is_found(agent, "fig", if is_here("figs") { &["both"] } else { &[] });
    }
}

#[test]
fn rows_that_are_undone_and_come_again_are_found_once_they_are_there() {
    let schema = "CREATE TABLE p(id TEXT PRIMARY KEY);
        CREATE TABLE c(id INTEGER PRIMARY KEY, p TEXT REFERENCES p, word TEXT);
        CREATE VIRTUAL TABLE found USING fts5(word, content='c', content_rowid='id');
        CREATE TRIGGER ai AFTER INSERT ON c BEGIN INSERT INTO found(rowid, word) VALUES(new.id, new.word); END;
        CREATE TRIGGER ad AFTER DELETE ON c BEGIN
          INSERT INTO found(found, rowid, word) VALUES('delete', old.id, old.word); END;
        CREATE TRIGGER au AFTER UPDATE ON c BEGIN
          INSERT INTO found(found, rowid, word) VALUES('delete', old.id, old.word);
          INSERT INTO found(rowid, word) VALUES(new.id, new.word); END;";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO p VALUES('one'), ('two')");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM p");
    // One row a turn: a child comes, and is undone, before its parent does.
    b.slice = 1;
    a.run("INSERT INTO c VALUES(1, 'one', 'apples'), (2, 'two', 'pears')");
    a.sync(&mut hub);
    // Its parent is gone here meanwhile.
    b.run("DELETE FROM p WHERE id = 'two'").sync(&mut hub);
    check(&mut b);
    settle(&mut hub, &mut a, &mut b, "SELECT p, word FROM c ORDER BY word");
    for agent in [&mut a, &mut b] {
        check(agent);
        let found = agent.rows("SELECT count(*) FROM found WHERE found MATCH 'apples'");
        assert_eq!(found, [[Value::Integer(1)]]);
    }
}

/// Indexes of other kinds, each with triggers that keep it.
const KINDS: [(&str, &str); 5] = [
    (
        "contentless, deletes by value",
        "CREATE VIRTUAL TABLE found USING fts5(word, content='');
         CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO found(rowid, word) VALUES(new.id, new.word); END;
         CREATE TRIGGER ad AFTER DELETE ON t BEGIN
           INSERT INTO found(found, rowid, word) VALUES('delete', old.id, old.word); END;
         CREATE TRIGGER au AFTER UPDATE OF word ON t WHEN old.word IS NOT new.word BEGIN
           INSERT INTO found(found, rowid, word) VALUES('delete', old.id, old.word);
           INSERT INTO found(rowid, word) VALUES(new.id, new.word); END;",
    ),
    (
        "contentless, deletes by row",
        "CREATE VIRTUAL TABLE found USING fts5(word, content='', contentless_delete=1, tokenize='trigram');
         CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO found(rowid, word) VALUES(new.id, new.word); END;
         CREATE TRIGGER ad AFTER DELETE ON t BEGIN DELETE FROM found WHERE rowid = old.id; END;
         CREATE TRIGGER au AFTER UPDATE ON t BEGIN
           INSERT OR REPLACE INTO found(rowid, word) VALUES(new.id, new.word); END;",
    ),
    (
        "with a content of its own",
        "CREATE VIRTUAL TABLE found USING fts5(word);
         CREATE TRIGGER ai AFTER INSERT ON t BEGIN REPLACE INTO found(rowid, word) VALUES(new.id, new.word); END;
         CREATE TRIGGER ad BEFORE DELETE ON t BEGIN DELETE FROM found WHERE rowid = old.id; END;
         CREATE TRIGGER au AFTER UPDATE ON t BEGIN UPDATE found SET word = new.word WHERE rowid = old.id; END;",
    ),
    (
        "FTS4",
        "CREATE VIRTUAL TABLE found USING fts4(content='t', word);
         CREATE TRIGGER bu BEFORE UPDATE ON t BEGIN DELETE FROM found WHERE docid = old.id; END;
         CREATE TRIGGER bd BEFORE DELETE ON t BEGIN DELETE FROM found WHERE docid = old.id; END;
         CREATE TRIGGER au AFTER UPDATE ON t BEGIN INSERT INTO found(docid, word) VALUES(new.id, new.word); END;
         CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO found(docid, word) VALUES(new.id, new.word); END;",
    ),
    (
        "TEMP triggers, by way of a view",
        "CREATE VIRTUAL TABLE found USING fts5(word);
         CREATE VIEW index_of AS SELECT rowid AS id, word FROM found;
         CREATE TRIGGER vi INSTEAD OF INSERT ON index_of BEGIN
           INSERT INTO found(rowid, word) VALUES(new.id, new.word); END;
         CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO index_of VALUES(new.id, new.word); END;
         CREATE TEMP TRIGGER ad AFTER DELETE ON t BEGIN DELETE FROM main.found WHERE rowid = old.id; END;
         CREATE TEMP TRIGGER au AFTER UPDATE ON main.t BEGIN
           UPDATE main.found SET word = new.word WHERE rowid = old.id; END;",
    ),
];

#[test]
fn an_index_of_any_kind_is_kept() {
    for (kind, index) in KINDS {
        let schema =
            format!("CREATE TABLE t(id INTEGER PRIMARY KEY, key TEXT UNIQUE, word TEXT, other); {index}");
        let (mut hub, mut a, mut b) = pair(&schema);
        a.run("INSERT INTO t VALUES(1, 'x', 'apples', 0), (2, 'y', 'pears', 0), (3, 'z', 'plums', 0)");
        b.run("INSERT INTO t VALUES(1, 'w', 'figs', 0)");
        settle(&mut hub, &mut a, &mut b, "SELECT key, word FROM t ORDER BY key");
        a.run("UPDATE t SET word = 'quinces' WHERE key = 'x'; UPDATE t SET other = 1; DELETE FROM t WHERE key = 'z';
               UPDATE t SET key = '~' WHERE key = 'x'; UPDATE t SET key = 'x' WHERE key = 'y';
               UPDATE t SET key = 'y' WHERE key = '~'");
        settle(&mut hub, &mut a, &mut b, "SELECT key, word FROM t ORDER BY key");
        for agent in [&mut a, &mut b] {
            for (word, key) in
                [("quinces", "y"), ("pears", "x"), ("figs", "w"), ("apples", ""), ("plums", "")]
            {
                let query = format!(
                    "SELECT key FROM t WHERE id IN (SELECT rowid FROM found WHERE found MATCH '{word}')"
                );
                let expected: Vec<Vec<Value>> =
                    if key.is_empty() { Vec::new() } else { vec![vec![text(key)]] };
                assert_eq!(agent.rows(&query), expected, "{kind}: {word}");
            }
            if !kind.contains("contentless") {
                agent.run("INSERT INTO found(found) VALUES('integrity-check')");
            }
            assert_eq!(agent.notices, Vec::<String>::new(), "{kind}");
        }
    }
}

#[test]
fn places_are_found_in_an_rtree() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, x REAL);
        CREATE VIRTUAL TABLE near USING rtree(id, low, high);
        CREATE TRIGGER ai AFTER INSERT ON t BEGIN INSERT INTO near VALUES(new.id, new.x, new.x + 1); END;
        CREATE TRIGGER ad AFTER DELETE ON t BEGIN DELETE FROM near WHERE id = old.id; END;
        CREATE TRIGGER au AFTER UPDATE OF x ON t BEGIN
          UPDATE near SET low = new.x, high = new.x + 1 WHERE id = old.id; END;";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO t VALUES(1, 'one', 1), (2, 'two', 20)").sync(&mut hub);
    b.run("INSERT INTO t VALUES(1, 'three', 30)");
    settle(&mut hub, &mut a, &mut b, "SELECT name FROM t ORDER BY name");
    a.run("UPDATE t SET x = 40 WHERE name = 'one'; DELETE FROM t WHERE name = 'two'");
    settle(&mut hub, &mut a, &mut b, "SELECT name FROM t ORDER BY name");
    let near = "SELECT name, low FROM t JOIN near USING(id) ORDER BY name";
    assert_eq!(b.rows(near), [[text("one"), Value::Real(40.0)], [text("three"), Value::Real(30.0)]]);
    assert_eq!(b.rows("SELECT rtreecheck('near')"), [[text("ok")]]);
}

#[test]
fn an_index_over_a_row_and_its_parent_sees_the_parent_first() {
    let schema = "CREATE TABLE z_parent(id TEXT PRIMARY KEY, name TEXT);
        CREATE TABLE a_child(id INTEGER PRIMARY KEY, parent TEXT REFERENCES z_parent, word TEXT);
        CREATE VIRTUAL TABLE found USING fts5(name, word);
        CREATE TRIGGER ai AFTER INSERT ON a_child BEGIN INSERT INTO found(rowid, name, word)
          SELECT new.id, name, new.word FROM z_parent WHERE id = new.parent; END;";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO z_parent VALUES('p', 'smith')").run("INSERT INTO a_child VALUES(1, 'p', 'apples')");
    a.sync(&mut hub);
    // The parent is told after its child.
    a.run("UPDATE z_parent SET name = 'jones'").sync(&mut hub);
    b.sync(&mut hub);
    let found = b.rows("SELECT word FROM found WHERE found MATCH 'jones AND apples'");
    assert_eq!(found, [[text("apples")]]);
}

#[test]
fn a_trigger_that_does_something_else_as_well_sleeps_and_is_told_once() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT); CREATE TABLE log(what);
        CREATE VIRTUAL TABLE found USING fts5(word);";
    let others = [
        "INSERT INTO log VALUES('fired'); INSERT INTO found(rowid, word) VALUES(new.id, new.word);",
        "DELETE FROM log; INSERT INTO found(rowid, word) VALUES(new.id, new.word);",
        "SELECT RAISE(ABORT, 'no') WHERE new.word = 'never'; INSERT INTO found VALUES(new.word);",
        "INSERT INTO found VALUES(new.word); SELECT RAISE(IGNORE);",
        "INSERT INTO found VALUES(new.word); SELECT abs(new.id);",
        "INSERT INTO found VALUES(new.word); UPDATE sqlite_sequence SET seq = seq + 1;",
        "INSERT INTO found VALUES(new.word); INSERT INTO by_view VALUES(1);",
    ];
    for other in others {
        let mut hub = Hub::new();
        let (mut a, mut b) = (Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
        a.run("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT)");
        b.bears_damage = true;
        b.run(schema).run("CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
        b.run(
            "CREATE VIEW by_view AS SELECT what FROM log; CREATE TRIGGER v INSTEAD OF INSERT ON by_view
               BEGIN INSERT INTO log VALUES('view'); END",
        );
        b.run(&format!("CREATE TRIGGER both AFTER INSERT ON t BEGIN {other} END"));
        for round in 1..=3 {
            a.run("INSERT INTO t(word) VALUES('apples')").sync(&mut hub);
            b.sync(&mut hub);
            b.reconnect();
            assert_eq!(b.rows("SELECT count(*) FROM t"), [[Value::Integer(round)]], "{other}");
        }
        assert_eq!(b.rows("SELECT count(*) FROM found"), [[Value::Integer(0)]], "{other}");
        assert_eq!(b.rows("SELECT count(*) FROM log"), [[Value::Integer(0)]], "{other}");
        assert_eq!(notices_of(&b, "trigger both").len(), 1, "{other}: {:?}", b.notices);
    }
}

#[test]
fn an_index_that_the_application_feeds_is_told_of_once() {
    let mut hub = Hub::new();
    let (mut a, mut b) = (Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
    a.run("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT); INSERT INTO t(word) VALUES('apples')")
        .sync(&mut hub);
    b.run("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT)");
    b.run("CREATE VIRTUAL TABLE \"by hand\" USING fts5(word)");
    for _ in 0..3 {
        b.sync(&mut hub);
        b.reconnect();
        b.run("CREATE TABLE IF NOT EXISTS more(id INTEGER PRIMARY KEY, v)");
    }
    assert_eq!(notices_of(&b, "by hand").len(), 1, "{:?}", b.notices);
    assert_eq!(a.notices, Vec::<String>::new());
}

#[test]
fn an_index_that_refuses_holds_nothing_up() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes(slug, title) VALUES('x', 'apples'), ('y', 'pears')");
    settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    // What an index without these rows does, as an earlier version left it.
    b.bears_damage = true;
    b.run("INSERT INTO found(found) VALUES('delete-all')");
    a.run("UPDATE notes SET title = 'quinces' WHERE slug = 'x'; DELETE FROM notes WHERE slug = 'y'");
    a.run("INSERT INTO notes(id, slug, title) VALUES(9, 'z', 'plums')");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    assert_eq!(rows.len(), 2);
    is_found(&mut b, "plum", &["z"]);
    assert!(!notices_of(&b, "rebuild").is_empty(), "{:?}", b.notices);
    // Once it is mended, all is well.
    b.run("INSERT INTO found(found) VALUES('rebuild')");
    b.notices.clear();
    a.run("UPDATE notes SET title = 'medlars' WHERE slug = 'z'");
    settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    check(&mut b);
    is_found(&mut b, "quince", &["x"]);
    is_found(&mut b, "medlar", &["z"]);
    assert_eq!(b.notices, Vec::<String>::new());
}

#[test]
fn an_index_that_is_damaged_holds_nothing_up() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes(slug, title) VALUES('x', 'apples'), ('y', 'pears')");
    settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    let before = triggers(&mut b);
    let copy = b.copy();
    b.restore(&copy);
    b.bears_damage = true;
    b.run("UPDATE found_data SET block = x'ff00ff00ff00'");
    a.run("UPDATE notes SET title = 'quinces'");
    for at in 0..300 {
        a.run(&format!("INSERT INTO notes(slug, title) VALUES('n{at}', 'plums')"));
    }
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    assert_eq!(rows.len(), 302);
    assert_eq!(triggers(&mut b), before);
    assert!(!notices_of(&b, "rebuild").is_empty(), "{:?}", b.notices);
}

#[test]
fn what_a_table_itself_refuses_is_set_aside_as_ever() {
    let (mut hub, mut a, mut b) = pair("");
    a.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, slug TEXT, title TEXT, body TEXT)");
    b.run(&NOTES.replace("title TEXT,", "title TEXT CHECK(title <> 'never'),"));
    a.run("INSERT INTO notes(slug, title) VALUES('x', 'never'), ('y', 'pears')").sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 1);
    check(&mut b);
    is_found(&mut b, "pear", &["y"]);
    a.run("UPDATE notes SET title = 'apples' WHERE slug = 'x'").sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    check(&mut b);
    is_found(&mut b, "apple", &["x"]);
}

#[test]
fn what_is_healed_is_found_as_well() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes(slug, title) VALUES('x', 'apples'), ('y', 'pears')");
    settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    // A write that capture has not seen; the index has.
    b.bears_damage = true;
    b.run("UPDATE notes SET title = 'quinces' WHERE slug = 'x'").run("DELETE FROM _federation_log");
    settle(&mut hub, &mut a, &mut b, "SELECT slug, title FROM notes ORDER BY slug");
    for _ in 0..20 {
        b.reconnect();
        b.sync(&mut hub);
    }
    check(&mut b);
    is_found(&mut b, "apple", &["x"]);
    is_found(&mut b, "quince", &[]);
}

#[test]
fn a_trigger_that_writes_a_table_with_an_index_of_its_own_is_no_index() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT); CREATE TABLE log(id INTEGER PRIMARY KEY, what);
        CREATE VIRTUAL TABLE found USING fts5(what);
        CREATE TRIGGER logs AFTER INSERT ON t BEGIN INSERT INTO log(what) VALUES(new.word); END;
        CREATE TRIGGER finds AFTER INSERT ON log BEGIN INSERT INTO found(rowid, what) VALUES(new.id, new.what); END;";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO t(word) VALUES('apples')");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT what FROM log");
    assert_eq!(rows, [[text("apples")]]);
    assert_eq!(b.rows("SELECT what FROM found WHERE found MATCH 'apples'"), rows);
    assert_eq!(b.notices, Vec::<String>::new());
}

#[test]
fn a_trigger_that_lacks_something_here_keeps_no_other_from_running() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT)");
    b.run(
        "CREATE VIRTUAL TABLE found USING fts5(word); CREATE VIRTUAL TABLE alike USING fts5(word);
         CREATE TRIGGER lacks AFTER INSERT ON t BEGIN INSERT INTO alike VALUES(sounds_like(new.word)); END;
         CREATE TRIGGER logs AFTER INSERT ON t BEGIN SELECT sounds_like(new.word); END;
         CREATE TRIGGER keeps AFTER INSERT ON t BEGIN INSERT INTO found(rowid, word) VALUES(new.id, new.word); END;",
    );
    b.bears_damage = true;
    let before = triggers(&mut b);
    for round in 1..=2 {
        a.run("INSERT INTO t(word) VALUES('apples')").sync(&mut hub);
        b.sync(&mut hub);
        assert_eq!(
            b.rows("SELECT count(*) FROM found WHERE found MATCH 'apples'"),
            [[Value::Integer(round)]]
        );
    }
    assert_eq!(notices_of(&b, "sounds_like").len(), 1, "{:?}", b.notices);
    assert_eq!(notices_of(&b, "trigger lacks").len(), 1, "{:?}", b.notices);
    // Once the application has what it takes, it runs.
    let sounds_like = |context: &rusqlite::functions::Context<'_>| context.get::<String>(0);
    let flags = rusqlite::functions::FunctionFlags::SQLITE_UTF8;
    b.sql.connection().create_scalar_function("sounds_like", 1, flags, sounds_like).unwrap();
    a.run("INSERT INTO t(word) VALUES('pears')").sync(&mut hub);
    b.sync(&mut hub);
    for index in ["found", "alike"] {
        let found = b.rows(&format!("SELECT count(*) FROM {index} WHERE {index} MATCH 'pears'"));
        assert_eq!(found, [[Value::Integer(1)]], "{index}");
    }
    let ours = |row: &Vec<Value>| !format!("{:?}", row[0]).contains("_federation_");
    let after: Vec<Vec<Value>> = triggers(&mut b).into_iter().filter(ours).collect();
    assert_eq!(after, before);
}

#[test]
fn temp_triggers_may_come_and_go() {
    let (mut hub, mut a, mut b) = pair(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT); CREATE VIRTUAL TABLE found USING fts5(word);
         CREATE TABLE seen(id INTEGER PRIMARY KEY, what);",
    );
    b.run("CREATE TRIGGER logs AFTER INSERT ON t BEGIN INSERT INTO seen(what) VALUES('main'); END");
    let temporary = "CREATE TEMP TRIGGER keeps AFTER INSERT ON t
        BEGIN INSERT INTO main.found(rowid, word) VALUES(new.id, new.word); END";
    for (round, statement) in [temporary, "DROP TRIGGER keeps", temporary].into_iter().enumerate() {
        b.run(statement);
        a.run("INSERT INTO t(word) VALUES('apples')").sync(&mut hub);
        b.sync(&mut hub);
        let expected = [1, 1, 2][round];
        assert_eq!(b.rows("SELECT count(*) FROM found"), [[Value::Integer(expected)]], "{round}");
    }
    assert_eq!(b.rows("SELECT * FROM seen"), Vec::<Vec<Value>>::new());
}
