//! Rows that a database cannot take although no constraint refuses them: an expression of the schema fails over them.
//! Such a row is set aside, and nothing else is disturbed.

use crate::world::parts::text;
use crate::world::{Agent, pair, settle};
use federation_hub::model::Value;
use rusqlite::functions::FunctionFlags;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER)";
const OTHERS: &str = "CREATE TABLE others(id TEXT PRIMARY KEY, body TEXT)";
const ALL: &str = "SELECT id, meta, n FROM notes ORDER BY id";

/// Schemas of `notes` under which a row with the JSON `{` and the number -2^63 fails, and ordinary rows do not.
const FAILING: [(&str, &str); 11] = [
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER); CREATE INDEX i ON notes(meta ->> 'kind')",
        "malformed JSON",
    ),
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER); CREATE UNIQUE INDEX i ON notes(json_extract(meta, '$.id'))",
        "malformed JSON",
    ),
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER); CREATE INDEX i ON notes(n) WHERE meta ->> 'kind' = 'x'",
        "malformed JSON",
    ),
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER, kind TEXT AS (meta ->> 'kind') STORED)",
        "malformed JSON",
    ),
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER, kind TEXT AS (meta ->> 'kind')); CREATE INDEX i ON notes(kind)",
        "malformed JSON",
    ),
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER, kind TEXT AS (meta ->> 'kind') NOT NULL)",
        "malformed JSON",
    ),
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta CHECK(meta ->> 'kind' IS NOT NULL), n INTEGER)",
        "malformed JSON",
    ),
    ("CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER CHECK(abs(n) >= 0))", "integer overflow"),
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER CHECK(length(hex(zeroblob(iif(n < 0, 2000000000, 1)))) > 0))",
        "too big",
    ),
    ("CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER CHECK(picky(meta) > 0))", "picky"),
    (
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER); CREATE UNIQUE INDEX i ON notes(picky(meta), id)",
        "picky",
    ),
];

/// A function of the application's own that fails.
fn with_picky(agent: &mut Agent) -> &mut Agent {
    let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8;
    let picky = |context: &rusqlite::functions::Context<'_>| {
        let text = context.get::<String>(0)?;
        if text == "{" { Err(rusqlite::Error::UserFunctionError("picky".into())) } else { Ok(1) }
    };
    agent.sql.connection().create_scalar_function("picky", 1, flags, picky).unwrap();
    agent
}

fn reasons(agent: &mut Agent) -> Vec<String> {
    let rows = agent.rows("SELECT DISTINCT reason FROM _federation_quarantine");
    rows.iter().map(|row| format!("{:?}", row[0])).collect()
}

/// Breaks if only what a constraint says is taken for a refusal of the row: one row would end every sync.
#[test]
fn a_row_over_which_an_expression_fails_is_set_aside_and_the_others_arrive() {
    for (schema, reason) in FAILING {
        let (mut hub, mut a, mut b) = pair("");
        a.run(NOTES).run(OTHERS).sync(&mut hub);
        with_picky(&mut b).run(schema).run(OTHERS).sync(&mut hub);
        a.run("INSERT INTO notes VALUES('bad', '{', -9223372036854775808), ('good', '{\"kind\": \"x\", \"id\": 1}', 1)");
        a.run("INSERT INTO others VALUES('o', 'other')").sync(&mut hub);
        assert_eq!(b.sync(&mut hub).quarantined, 1, "{schema}");
        assert!(reasons(&mut b)[0].contains(reason), "{schema}: {:?}", reasons(&mut b));
        assert!(
            b.notices.iter().any(|it| it.contains("notes are set aside") && it.contains(reason)),
            "{:?}",
            b.notices
        );
        assert_eq!(b.rows("SELECT id FROM notes"), [[text("good")]], "{schema}");
        assert_eq!(b.rows("SELECT id FROM others"), [[text("o")]], "{schema}");
        // So is an edit that makes a row one of these; the row stays as it was.
        a.run("UPDATE notes SET meta = '{', n = -9223372036854775808 WHERE id = 'good'").sync(&mut hub);
        assert_eq!(b.sync(&mut hub).quarantined, 2, "{schema}");
        assert_eq!(b.rows("SELECT n FROM notes"), [[Value::Integer(1)]], "{schema}");
        // What can be taken later is tried again.
        a.run("UPDATE notes SET meta = json_object('kind', 'y', 'id', id), n = 2");
        assert_eq!(settle(&mut hub, &mut a, &mut b, ALL).len(), 2, "{schema}");
        assert!(reasons(&mut b).is_empty(), "{schema}");
        a.run("DELETE FROM notes WHERE id = 'bad'");
        assert_eq!(settle(&mut hub, &mut a, &mut b, ALL).len(), 1, "{schema}");
    }
}

/// Breaks if a newcomer that is handed the tenant's definition cannot go on over one row.
#[test]
fn a_new_agent_is_not_stopped_by_rows_that_fail_under_the_tenants_own_definition() {
    for (schema, _) in
        FAILING.iter().filter(|(schema, _)| !schema.contains("picky") && !schema.contains("zeroblob"))
    {
        let (mut hub, mut a, mut b) = pair("");
        a.run(schema).sync(&mut hub);
        // Written elsewhere, under a table of its own that asks less.
        b.run(NOTES)
            .run("INSERT INTO notes VALUES('bad', '{', -9223372036854775808), ('good', '{\"kind\": 1}', 1)");
        b.run(OTHERS).run("INSERT INTO others VALUES('o', 'other')").sync(&mut hub);
        let mut newcomer = Agent::new("acme", "newcomer", 3);
        for agent in [&mut a, &mut newcomer] {
            agent.sync(&mut hub);
            assert!(agent.rows("SELECT id FROM notes").contains(&vec![text("good")]), "{schema}");
            assert_eq!(agent.rows("SELECT id FROM others"), [[text("o")]], "{schema}");
        }
    }
}

/// Breaks if our own triggers look at what the application's index leaves out.
#[test]
fn what_a_partial_index_leaves_out_is_written_and_synced_as_ever() {
    for condition in ["json_valid(meta)", "json_valid(meta) AND n > 0"] {
        let schema =
            format!("{NOTES}; CREATE UNIQUE INDEX i ON notes(json_extract(meta, '$.id')) WHERE {condition}");
        let (mut hub, mut a, mut b) = pair(&schema);
        settle(&mut hub, &mut a, &mut b, ALL);
        a.run("INSERT INTO notes VALUES('bad', '{', 1), ('one', '{\"id\": 1}', 1)");
        a.run("INSERT OR REPLACE INTO notes VALUES('two', '{\"id\": 1}', 1)");
        a.run("UPDATE notes SET meta = '[' WHERE id = 'bad'");
        assert_eq!(settle(&mut hub, &mut a, &mut b, ALL).len(), 2, "{condition}");
        // Values that change places are found beside it.
        a.run("INSERT INTO notes VALUES('three', '{\"id\": 3}', 1)");
        settle(&mut hub, &mut a, &mut b, ALL);
        a.run("UPDATE notes SET meta = '{\"id\": 0}' WHERE id = 'two'");
        a.run("UPDATE notes SET meta = '{\"id\": 1}' WHERE id = 'three'");
        a.run("UPDATE notes SET meta = '{\"id\": 3}' WHERE id = 'two'");
        settle(&mut hub, &mut a, &mut b, ALL);
        assert!(reasons(&mut b).is_empty(), "{condition}: {:?}", reasons(&mut b));
    }
}

/// Breaks if a row of this agent's own is read by an expression of the schema.
#[test]
fn a_row_whose_generated_column_fails_is_sent_by_whoever_has_it() {
    let schema = "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER); CREATE TABLE keyless(meta);
                  CREATE TABLE numbered(id INTEGER PRIMARY KEY, meta)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO notes(id, meta) VALUES('bad', '{'), ('gone', '{'); INSERT INTO keyless VALUES('{')");
    a.run("INSERT INTO numbered(meta) VALUES('{')");
    // SQLite computes such a column for what is there only when it is read.
    for table in ["notes", "keyless", "numbered"] {
        a.run(&format!("ALTER TABLE {table} ADD COLUMN kind AS (meta ->> 'kind')"));
    }
    a.run("DELETE FROM notes WHERE id = 'gone'");
    for table in ["notes", "keyless", "numbered"] {
        settle(&mut hub, &mut a, &mut b, &format!("SELECT meta FROM {table}"));
        assert_eq!(b.rows(&format!("SELECT meta FROM {table}")).len(), 1);
    }
    // No UPDATE of it goes through there; a DELETE does.
    b.run("UPDATE notes SET n = 1; DELETE FROM keyless; DELETE FROM numbered").sync(&mut hub);
    assert_eq!(a.sync(&mut hub).quarantined, 1);
    assert!(a.rows("SELECT meta FROM keyless UNION ALL SELECT meta FROM numbered").is_empty());
    b.run("UPDATE notes SET meta = '{}'");
    settle(&mut hub, &mut a, &mut b, "SELECT meta, n FROM notes");
}

/// Breaks if a foreign key over a generated column ends the sync where that column fails for some other row.
#[test]
fn a_reference_by_a_generated_column_that_fails_for_another_row_stops_nothing() {
    let schema = "CREATE TABLE parents(id TEXT PRIMARY KEY, body TEXT);
                  CREATE TABLE children(id TEXT PRIMARY KEY, meta)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO parents VALUES('p', 'one'), ('q', 'two'), ('r', 'three')");
    a.run(
        "INSERT INTO children VALUES('bad', '{'), ('c', '{\"parent\": \"p\"}'), ('d', '{\"parent\": \"q\"}')",
    );
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM children ORDER BY id");
    for agent in [&mut a, &mut b] {
        agent
            .run("ALTER TABLE children ADD COLUMN parent TEXT AS (meta ->> 'parent') REFERENCES parents(id)");
    }
    a.run(OTHERS).run("INSERT INTO others VALUES('o', 'other')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("PRAGMA foreign_keys = OFF; DELETE FROM parents WHERE id = 'r'; UPDATE parents SET id = 's' WHERE id = 'q'");
    a.run("INSERT INTO others VALUES('p', 'other'); UPDATE parents SET body = 'changed'").sync(&mut hub);
    b.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT count(*) FROM others"), [[Value::Integer(2)]]);
    assert_eq!(b.rows("SELECT body FROM parents WHERE id = 'p'"), [[text("changed")]]);
}

/// Breaks if the hub evaluates a tenant's expression without expecting it to fail.
#[test]
fn the_hub_takes_rows_over_which_a_unique_key_fails() {
    let unique = "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER);
                  CREATE UNIQUE INDEX i ON notes(json_extract(meta, '$.id'))";
    let (mut hub, mut a, mut b) = pair("");
    a.run(unique).sync(&mut hub);
    a.run("INSERT INTO notes VALUES('same', '{\"id\": 1}', 2)");
    b.run(NOTES).run("INSERT INTO notes VALUES('bad', '{', 1), ('one', '{\"id\": 1}', 1), ('too', '{', 1)");
    assert_eq!(b.sync(&mut hub).pushed, 3);
    assert_eq!(a.sync(&mut hub).quarantined, 2);
    for _ in 0..2 {
        a.sync(&mut hub);
        b.sync(&mut hub);
    }
    // What can be evaluated is ruled on as ever: it is one row.
    assert_eq!(b.rows("SELECT count(*) FROM notes"), [[Value::Integer(3)]]);
}

/// Breaks if a failure behind the first of several statements for a row ends the sync: the turn is run again without it.
#[test]
fn a_failure_in_the_middle_of_what_is_done_for_a_row_sets_that_row_aside() {
    let schema = "CREATE TABLE notes(id TEXT PRIMARY KEY, meta UNIQUE, n INTEGER)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO notes VALUES('1', 'x', 0), ('2', 'y', 0), ('3', 'z', 0)");
    settle(&mut hub, &mut a, &mut b, ALL);
    // Deleting fails for one of the rows that change places.
    let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8;
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_failing = calls.clone();
    let moody = move |_: &rusqlite::functions::Context<'_>| {
        if is_failing.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(rusqlite::Error::UserFunctionError("moody".into()));
        }
        Ok(1)
    };
    b.sql.connection().create_scalar_function("moody", 1, flags, moody).unwrap();
    b.run("CREATE INDEX i ON notes(moody(id)) WHERE id < '3'").sync(&mut hub);
    a.run("UPDATE notes SET meta = '~' WHERE id = '1'; UPDATE notes SET meta = 'x' WHERE id = '2'");
    a.run("UPDATE notes SET meta = 'y' WHERE id = '1'; UPDATE notes SET n = 1 WHERE id = '3'");
    a.run("INSERT INTO notes VALUES('4', 'w', 1)").sync(&mut hub);
    calls.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(b.sync(&mut hub).quarantined, 2, "{:?}", reasons(&mut b));
    assert_eq!(
        b.rows("SELECT id, n FROM notes WHERE n = 1 ORDER BY id"),
        [[text("3"), Value::Integer(1)], [text("4"), Value::Integer(1)]]
    );
    calls.store(false, std::sync::atomic::Ordering::Relaxed);
    settle(&mut hub, &mut a, &mut b, ALL);
    assert!(reasons(&mut b).is_empty());
}

/// Breaks if what one agent makes of its own table keeps newcomers from rows of the tenant.
#[test]
fn an_expression_that_fails_over_the_tenants_rows_stays_its_declarers_own() {
    let index =
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER); CREATE INDEX i ON notes(meta ->> 'kind')";
    let unique = "CREATE TABLE notes(id TEXT PRIMARY KEY, meta, n INTEGER);
                  CREATE UNIQUE INDEX i ON notes(json_extract(meta, '$.id'))";
    let check =
        "CREATE TABLE notes(id TEXT PRIMARY KEY, meta CHECK(json_extract(meta, '$.id') > 0), n INTEGER)";
    for schema in [index, unique, check] {
        let (mut hub, mut a, mut b) = pair("");
        a.run(NOTES).run("INSERT INTO notes VALUES('bad', '{', 1), ('one', '{\"id\": 1}', 1)").sync(&mut hub);
        b.run(schema);
        assert_eq!(b.sync(&mut hub).quarantined, 1, "{schema}");
        // The text that stands is sound, and nobody looks at another one.
        let told = b.notices.iter().any(|it| it.contains("rows of this tenant contradict it"));
        assert_eq!(told, schema != check, "{:?}", b.notices);
        let mut newcomer = Agent::new("acme", "newcomer", 3);
        assert_eq!(newcomer.sync(&mut hub).quarantined, 0, "{schema}");
        assert_eq!(newcomer.rows(ALL).len(), 2, "{schema}");
        // Once nothing fails any more, newcomers have it; but for a text, one that is sound stays.
        a.run("UPDATE notes SET meta = '{\"id\": 2}' WHERE id = 'bad'").sync(&mut hub);
        b.sync(&mut hub);
        b.run("UPDATE notes SET n = 2").sync(&mut hub);
        let mut later = Agent::new("acme", "later", 4);
        assert_eq!(later.sync(&mut hub).quarantined, 0);
        let found = later.rows("SELECT count(*) FROM sqlite_master WHERE name = 'i'");
        assert_eq!(found, [[Value::Integer(i64::from(schema != check))]], "{schema}");
    }
}
