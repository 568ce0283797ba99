//! What an agent makes of being told that two of its rows are one.

use crate::identity::{NO_ROWS, settle};
use crate::world::parts::text;
use crate::world::{Agent, Hub, pair};
use federation_hub::model::{Hlc, Op, RowId, RowUpdate, Stamp, TableHeader, Value, Write};
use federation_hub::protocol::message::Rows;
use federation_hub::storage::apply::Incoming;

/// The identity of a row of `notes`, named by its number or by the text of its key.
fn identity(agent: &mut Agent, key: &str) -> RowId {
    let query = format!(
        "SELECT id FROM _federation_row WHERE (k = {key} OR instr(k, CAST({key} AS BLOB)) > 1)
         AND tbl = (SELECT tbl FROM _federation_table WHERE name = 'notes')"
    );
    match &agent.rows(&query)[0][0] {
        Value::Blob(id) => RowId::from_slice(id).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Tells an agent that one row of `notes` is another. The hub knows nothing of that.
fn unite(agent: &mut Agent, lost: RowId, survivor: RowId) {
    let header = TableHeader { name: "notes".into(), columns: vec!["title".into()] };
    let (seq, united, writes) = (1, Some(survivor), Vec::new());
    let update = RowUpdate { table: 0, id: lost, number: None, seq, whole: false, united, writes };
    let rows = Rows { tables: vec![header], rows: vec![update] };
    agent.apply(&Incoming { rows, ..Incoming::default() });
    agent.bears_damage = true;
}

/// Tells it of two rows that are here.
fn unite_present(agent: &mut Agent, lost: &str, survivor: &str) {
    let (lost, survivor) = (identity(agent, lost), identity(agent, survivor));
    unite(agent, lost, survivor);
}

/// Two agents of one schema that both know what the first has written.
fn both_know(schema: &str, writes: &str) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(schema);
    a.run(writes);
    settle(&mut hub, &mut [&mut a, &mut b]);
    (hub, a, b)
}

/// The tables that the hub is to be asked for again.
const ASKED_FOR: &str = "SELECT name FROM _federation_table WHERE refresh > 0";

#[test]
fn of_two_rows_here_that_are_one_the_survivor_gets_what_references_the_other_and_its_unsent_edits() {
    let schema = "
        CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
        CREATE TABLE tags(id INTEGER PRIMARY KEY, note INTEGER REFERENCES notes, label TEXT);
        CREATE TABLE bodies(note INTEGER PRIMARY KEY REFERENCES notes ON DELETE CASCADE, text TEXT);
        CREATE TABLE bits(id INTEGER PRIMARY KEY, body INTEGER REFERENCES bodies(note));
        CREATE TRIGGER watch AFTER UPDATE ON tags BEGIN UPDATE notes SET body = 'fired'; END;";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO notes(title) VALUES('lost'), ('other'), ('kept')");
    a.run("INSERT INTO tags(note, label) VALUES(1, 'x'), (2, 'y')")
        .run("INSERT INTO bodies VALUES(1, 'long')");
    a.run("INSERT INTO bits(body) VALUES(1)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("UPDATE notes SET body = 'unsent' WHERE title = 'lost'");
    unite_present(&mut a, "1", "3");
    assert_eq!(a.rows(ASKED_FOR), NO_ROWS, "numbers are this database's own");
    assert_eq!(
        a.rows("SELECT id, title, body FROM notes"),
        vec![
            vec![Value::Integer(2), text("other"), Value::Null],
            vec![Value::Integer(3), text("kept"), text("unsent")]
        ]
    );
    assert_eq!(
        a.rows("SELECT note FROM tags ORDER BY label"),
        vec![vec![Value::Integer(3)], vec![Value::Integer(2)]]
    );
    assert_eq!(a.rows("SELECT note FROM bodies"), vec![vec![Value::Integer(3)]]);
    assert_eq!(a.rows("SELECT body FROM bits"), vec![vec![Value::Integer(3)]]);
    assert_eq!(a.rows("PRAGMA foreign_key_check"), NO_ROWS);
    let counts = a.sync(&mut hub);
    assert_eq!(counts.pushed, 1, "what was moved is no write; the edit is one, of the survivor");
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT body FROM notes WHERE title = 'kept'"), vec![vec![text("unsent")]]);
}

#[test]
fn an_edit_under_way_of_a_row_that_is_another_is_sent_as_that_ones() {
    let schema = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT)";
    let (mut hub, mut a, mut b) = both_know(schema, "INSERT INTO notes(title) VALUES('lost'), ('kept')");
    a.run("UPDATE notes SET body = 'under way' WHERE id = 1").collect();
    unite_present(&mut a, "1", "2");
    // The batch never arrived. The edit must not be taken for one that went with it.
    a.reconnect();
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT body FROM notes WHERE title = 'kept'"), [[text("under way")]]);
}

#[test]
fn an_edited_key_of_a_row_that_is_another_becomes_that_ones() {
    let schema = "CREATE TABLE notes(title TEXT PRIMARY KEY, body TEXT)";
    let (mut hub, mut a, mut b) = both_know(schema, "INSERT INTO notes(title) VALUES('lost'), ('kept')");
    a.run("UPDATE notes SET title = 'renamed', body = 'edited' WHERE title = 'lost'");
    a.collect();
    unite_present(&mut a, "'renamed'", "'kept'");
    let all = "SELECT title, body FROM notes WHERE title <> 'lost'";
    assert_eq!(a.rows(all), [[text("renamed"), text("edited")]]);
    // It is found under its new key from now on: what is written to it is an edit of it, and no other row.
    a.run("UPDATE notes SET body = 'again'").reconnect();
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(b.rows(all), [[text("renamed"), text("again")]]);
}

#[test]
fn what_was_repointed_is_no_write_when_the_row_is_edited_later() {
    let schema = "
        CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
        CREATE TABLE tags(id INTEGER PRIMARY KEY, note INTEGER REFERENCES notes, label TEXT);";
    let (mut hub, mut a, mut b) = both_know(
        schema,
        "INSERT INTO notes(title) VALUES('lost'), ('other'), ('kept'); INSERT INTO tags VALUES(1, 1, 'x')",
    );
    unite_present(&mut a, "1", "3");
    b.run("UPDATE tags SET note = 2");
    b.sync(&mut hub);
    a.run("UPDATE tags SET label = 'later'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        assert_eq!(agent.rows("SELECT note, label FROM tags"), [[Value::Integer(2), text("later")]]);
    }
}

#[test]
fn references_by_a_plain_key_follow_to_the_one_row_as_far_as_they_meant_the_other() {
    let schema = "
        CREATE TABLE notes(id INTEGER PRIMARY KEY, code TEXT UNIQUE, shelf TEXT, place TEXT, UNIQUE(shelf, place));
        CREATE TABLE uses(id INTEGER PRIMARY KEY, code TEXT REFERENCES notes(code));
        CREATE TABLE hints(id INTEGER PRIMARY KEY, code TEXT REFERENCES notes(code));
        CREATE TABLE loans(id INTEGER PRIMARY KEY, shelf TEXT, place TEXT,
          FOREIGN KEY(shelf, place) REFERENCES notes(shelf, place));";
    let (_, mut a, _) = both_know(
        schema,
        "INSERT INTO notes VALUES(1, 'x', 'old', 'a'), (2, 'y', 'new', NULL), (3, 'z', 'old', 'b');
         INSERT INTO uses(code) VALUES('x'), ('z'); INSERT INTO hints(code) VALUES('z'); INSERT INTO loans(shelf, place) VALUES('old', 'b');",
    );
    unite_present(&mut a, "1", "2");
    assert_eq!(a.rows("SELECT code FROM uses ORDER BY id"), [[text("y")], [text("z")]]);
    // Half of the survivor's key is still to come. What means a third row goes on meaning it.
    assert_eq!(a.rows("SELECT shelf, place FROM loans"), [[text("old"), text("b")]]);
    // Only the hub knows what the codes mean that have changed.
    assert_eq!(a.rows(ASKED_FOR), [[text("uses")]]);
}

#[test]
fn where_one_reference_cannot_change_yet_none_does() {
    let schema = "
        CREATE TABLE notes(id INTEGER PRIMARY KEY, code TEXT UNIQUE);
        CREATE TABLE uses(code TEXT PRIMARY KEY REFERENCES notes(code), n INTEGER);
        CREATE TABLE pins(id INTEGER PRIMARY KEY, note INTEGER UNIQUE REFERENCES notes);
        CREATE TABLE shelves(id INTEGER PRIMARY KEY, note INTEGER REFERENCES notes);
        CREATE TABLE boxes(id INTEGER PRIMARY KEY, code TEXT UNIQUE REFERENCES notes(code));";
    let (_, mut a, _) = both_know(
        schema,
        "INSERT INTO notes VALUES(1, 'x'), (2, 'y'); INSERT INTO uses VALUES('x', 1);
         INSERT INTO shelves(note) VALUES(1); INSERT INTO pins(note) VALUES(1);
         INSERT INTO boxes(code) VALUES('x'), ('y')",
    );
    let everything = ["notes", "uses", "pins", "shelves", "boxes", "_federation_row WHERE tbl > 1"]
        .map(|table| format!("SELECT * FROM {table} ORDER BY 1, 2"));
    let before = everything.clone().map(|query| a.rows(&query));
    unite_present(&mut a, "1", "2");
    assert_eq!(
        a.rows("SELECT reason FROM _federation_quarantine"),
        [[text("UNIQUE constraint failed: boxes.code")]]
    );
    assert_eq!(everything.map(|query| a.rows(&query)), before);
}

#[test]
fn a_union_with_a_row_that_was_deleted_here_waits_until_the_hub_has_heard_of_that() {
    let schema = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)";
    let (mut hub, mut a, mut b) = both_know(schema, "INSERT INTO notes(title) VALUES('lost'), ('kept')");
    let (lost, kept) = (identity(&mut a, "1"), identity(&mut a, "2"));
    let set_aside = "SELECT count(*) FROM _federation_quarantine";
    a.run("DELETE FROM notes WHERE id = 2").collect();
    unite(&mut a, lost, kept);
    assert_eq!(a.rows(set_aside), [[Value::Integer(1)]], "it would bring back what is to go");

    b.run("DELETE FROM notes WHERE id = 2").sync(&mut hub);
    unite(&mut b, lost, kept);
    assert_eq!(b.rows(set_aside), [[Value::Integer(0)]]);
    assert_eq!(identity(&mut b, "1"), kept, "what is here goes on as the one row");
}

/// Breaks if what is said of the one row comes before what says that a row here is that one: where no unique index tells, it
/// would be made a second time, and the row here would go with its number.
#[test]
fn a_row_here_keeps_its_number_where_the_one_that_it_is_comes_before_the_news() {
    let schema = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT)";
    let (_hub, mut a, _) = both_know(schema, "INSERT INTO notes VALUES(5, 'here', 'of a')");
    let (lost, survivor) = (identity(&mut a, "5"), RowId([7; 16]));
    let stamp = Stamp { hlc: Hlc::from_ms(1), replica: 9 };
    let cells = vec![(0, text("here").into()), (1, text("of both").into())];
    let told = |id, seq, united: Option<RowId>, writes| {
        let whole = united.is_none();
        RowUpdate { table: 0, id, number: Some(5), seq, whole, united, writes }
    };
    let writes = vec![Write { stamp, base: 3, op: Op::Set(cells) }];
    let rows = vec![told(survivor, 3, None, writes), told(lost, 4, Some(survivor), Vec::new())];
    let tables = vec![TableHeader { name: "notes".into(), columns: vec!["title".into(), "body".into()] }];
    a.apply(&Incoming { rows: Rows { tables, rows }, ..Incoming::default() });
    a.bears_damage = true;
    assert_eq!(a.rows("SELECT id, title FROM notes"), [[Value::Integer(5), text("here")]]);
}
