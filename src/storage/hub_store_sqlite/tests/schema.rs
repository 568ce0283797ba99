//! Declarations of tables.

use super::*;
use crate::protocol::limits::MAX_KEY_COLUMNS;

#[test]
fn columns_of_two_agents_come_together() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.pull(&mut store, &[]);
    bob.pull(&mut store, &[]);
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &["title", "body", "mood"])]);
    bob.register(&mut store, vec![schema("notes", KeyKind::Natural, &["Body", "title", "score"])]);
    bob.set(&mut store, 0, 1, &[("score", Value::Integer(3)), ("title", text("t"))]);

    let told = alice.pull(&mut store, &[]);
    assert_eq!(told.tables[0].columns, ["title", "body", "mood", "score"]);
    assert_eq!(
        told.tables[0].ddl, "CREATE TABLE notes (title, body, mood, score, PRIMARY KEY(title))",
        "the text has every column, and none is in it twice"
    );
    assert_eq!(told.cells[0].1, "title");
    assert_eq!(told.cells[1], (RowId([1; 16]), "score".into(), Value::Integer(3).into()));
    assert_eq!(bob.pull(&mut store, &[]).tables.len(), 1, "who declared less than there is, is told as well");

    let all = ["title", "body", "mood", "score"];
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &all)]);
    assert_eq!(alice.pull(&mut store, &[]).tables, [], "who declared all there is, is not told");
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &all)]);
    assert_eq!(bob.pull(&mut store, &[]).tables, [], "the same declaration again is no change");
}

#[test]
fn a_column_that_only_a_batch_names_is_kept() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("t")), ("later", Value::Integer(1))]);
    let pulled = bob.pull(&mut store, &[]);
    assert_eq!(pulled.tables[0].columns, ["title", "body", "later"]);
    assert_eq!(pulled.cells[1].1, "later");
    let ack = alice.set(&mut store, 0, 1, &[(&"x".repeat(300), Value::Null)]);
    assert!(ack.rejected[0].1.contains("column name"), "{ack:?}");
}

#[test]
fn a_key_of_more_columns_than_the_limit_is_refused_and_other_tables_go_on() {
    let mut store = store();
    let (mut alice, bob) = two_agents(&mut store);
    let names: Vec<String> = (0..=MAX_KEY_COLUMNS).map(|at| format!("c{at}")).collect();
    let mut long = schema("long", KeyKind::Natural, &names.iter().map(String::as_str).collect::<Vec<_>>());
    long.agreed.key_columns = names.clone();
    alice.register(&mut store, vec![long.clone(), schema("notes", KeyKind::Natural, &["title", "body"])]);
    let refused = store.snapshot(&alice.caller, &alice.pull_request(&[]), NOW_MS).unwrap().done.refused;
    assert!(refused[0].0 == "long" && refused[0].1.contains("more than 255 columns"), "{refused:?}");
    assert_eq!(alice.set(&mut store, 0, 1, &[("title", text("t"))]).rejected, []);
    // One of just so many is shared.
    long.agreed.key_columns.pop();
    bob.register(&mut store, vec![long]);
    assert_eq!(alice.pull(&mut store, &[]).tables.last().unwrap().name, "long");
}

#[test]
fn new_indexes_reach_the_others() {
    let mut store = store();
    let (alice, mut bob) = two_agents(&mut store);
    bob.pull(&mut store, &[]);
    let mut declared = schema("notes", KeyKind::Natural, &["title", "body"]);
    declared.indexes.push("CREATE INDEX i ON notes(title)".into());
    alice.register(&mut store, vec![declared.clone()]);
    assert_eq!(bob.pull(&mut store, &[]).tables, [declared]);
}

#[test]
fn numbers_travel_with_rows_of_numbered_tables_only() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.register(&mut store, vec![schema("log", KeyKind::Number, &["line"])]);
    let mut body = alice.body("log", 0, 1, &[("line", text("a"))]);
    body.rows[0].number = Some(7);
    assert_eq!(alice.push(&mut store, body.clone()).rejected, []);
    assert_eq!(bob.pull(&mut store, &[]).updates[0].number, Some(7));

    // Bob has a table of that name with a TEXT key, and one named `notes` with a numbered one.
    bob.register(&mut store, vec![schema("log", KeyKind::Natural, &["line"])]);
    let unnumbered = bob.body("log", 0, 2, &[("line", text("b"))]);
    assert!(bob.push(&mut store, unnumbered).rejected[0].1.contains("INTEGER PRIMARY KEY"));
    let mut numbered = bob.body("notes", 0, 3, &[("title", text("b"))]);
    numbered.rows[0].number = Some(1);
    assert!(bob.push(&mut store, numbered).rejected[0].1.contains("TEXT"));
    assert_eq!(store.stats().rows, 1);
}

/// What a pull tells of definitions that do not stand.
fn news(who: &Pusher, store: &mut SqliteHubStore) -> Vec<String> {
    store.snapshot(&who.caller, &who.pull_request(&[]), NOW_MS).unwrap().done.notices
}

#[test]
fn garbage_among_definitions_is_refused_to_its_declarer_and_handed_to_nobody() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    let good = "CREATE INDEX good ON notes(body)";
    let mut declared = schema("notes", KeyKind::Natural, &["title", "body"]);
    declared.indexes = ["garbage", "DROP TABLE notes", good, "CREATE INDEX bad ON notes(missing)"]
        .map(str::to_owned)
        .to_vec();
    alice.register(&mut store, vec![declared]);
    assert_eq!(news(&alice, &mut store).len(), 3);
    alice.pull(&mut store, &[]);
    assert_eq!(news(&alice, &mut store), [""; 0], "told once");
    assert_eq!(bob.pull(&mut store, &[]).tables[0].indexes, [good]);
    let evil = TableSchema {
        ddl: "CREATE VIEW todo AS SELECT 1".into(),
        ..schema("todo", KeyKind::Number, &["what"])
    };
    alice.register(&mut store, vec![evil.clone()]);
    assert!(news(&alice, &mut store)[0].contains("todo"));
    let mut body = alice.body("todo", 0, 1, &[("what", text("a"))]);
    body.rows[0].number = Some(1);
    assert_eq!(alice.push(&mut store, body).rejected, [], "its rows are shared all the same");
    assert_eq!(bob.pull(&mut store, &[]).tables.last().unwrap().ddl, "");
    let todo = schema("todo", KeyKind::Number, &["what"]);
    bob.register(&mut store, vec![todo.clone()]);
    alice.register(&mut store, vec![evil]);
    assert_eq!(alice.pull(&mut store, &[]).tables.last().unwrap().ddl, todo.ddl, "somebody has a better one");
}

#[test]
fn an_index_waits_for_its_column() {
    let mut store = store();
    let alice = Pusher::attach(&mut store, "acme", "alice", ALICE);
    let mut bob = Pusher::attach(&mut store, "acme", "bob", BOB);
    // A column with a condition that rows contradict, and its index.
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &["title"])]);
    let mut alice = alice;
    alice.set(&mut store, 0, 1, &[("title", text("t"))]);
    let mut longer = schema("notes", KeyKind::Natural, &["title", "mood"]);
    longer.ddl = "CREATE TABLE notes (title, mood NOT NULL, PRIMARY KEY(title))".into();
    longer.indexes = vec!["CREATE INDEX by_mood ON notes(\"mood\")".into()];
    bob.register(&mut store, vec![longer]);
    let told = &alice.pull(&mut store, &[]).tables[0];
    assert_eq!(told.columns, ["title", "mood"]);
    assert_eq!(
        (told.ddl.as_str(), &told.indexes[..]),
        ("CREATE TABLE notes (title, PRIMARY KEY(title))", &[][..])
    );
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &["title", "mood"])]);
    let told = &bob.pull(&mut store, &[]).tables[0];
    assert_eq!(told.ddl, "CREATE TABLE notes (title, mood, PRIMARY KEY(title))");
    assert_eq!(told.indexes, ["CREATE INDEX by_mood ON notes(\"mood\")"]);
}

/// Breaks if one of a thousand replicas that declare alike costs a line for each of its definitions.
#[test]
fn replicas_that_declare_alike_share_what_is_kept_of_it() {
    let mut store = store();
    let mut declared = schema("notes", KeyKind::Natural, &["title", "body"]);
    declared.indexes.push("CREATE INDEX i ON notes(body)".into());
    let replicas: Vec<Pusher> = (1..20)
        .map(|at| Pusher::attach(&mut store, "acme", &format!("agent {at}"), ReplicaId([at; 16])))
        .collect();
    for replica in &replicas {
        replica.register(&mut store, vec![declared.clone()]);
    }
    let count = |store: &SqliteHubStore, table: &str| -> i64 {
        store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count(&store, "declaration"), count(&store, "definition")), (1, 2));
    for replica in &replicas {
        store.retire(&replica.caller, &[(replica.replica, replica.epoch)]).unwrap();
    }
    store.commit().unwrap();
    assert_eq!((count(&store, "declaration"), count(&store, "definition")), (0, 0));
    let mut late = Pusher::attach(&mut store, "acme", "late", ReplicaId([99; 16]));
    assert_eq!(late.pull(&mut store, &[]).tables, [declared]);
}

#[test]
fn a_replica_of_which_an_earlier_layout_knew_nothing_keeps_what_stands() {
    let mut store = store();
    let (alice, bob) = two_agents(&mut store);
    let plain = schema("notes", KeyKind::Natural, &["title", "body"]);
    let mut indexed = plain.clone();
    indexed.indexes.push("CREATE INDEX i ON notes(body)".into());
    alice.register(&mut store, vec![indexed.clone()]);
    store
        .conn
        .execute_batch("DELETE FROM definition; DELETE FROM declaration; UPDATE replica SET declaration = 0")
        .unwrap();
    bob.register(&mut store, vec![plain.clone()]);
    let mut carol = Pusher::attach(&mut store, "acme", "carol", ReplicaId([0xc0; 16]));
    assert_eq!(carol.pull(&mut store, &[]).tables, [indexed], "alice may have it");
    alice.register(&mut store, vec![plain.clone()]);
    assert_eq!(carol.pull(&mut store, &[]).tables, [plain], "she has not");
}
