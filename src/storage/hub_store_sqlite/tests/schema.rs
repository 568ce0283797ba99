//! Declarations of tables.

use super::*;

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
