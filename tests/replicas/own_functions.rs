//! Unique indexes over functions and collations of the application's own, which the hub cannot evaluate.

use crate::identity::{NO_ROWS, agree, settle};
use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub};
use federation_hub::model::Value;
use rusqlite::functions::FunctionFlags;

const NOTES: &str = "
    CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
    CREATE UNIQUE INDEX by_slug ON notes(slug(title));
    CREATE TABLE marks(id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes ON DELETE CASCADE, mark TEXT);";
/// The same by generated columns, one made of the other, which the index reads.
const GENERATED: &str = "
    CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, short TEXT AS (slug(long)) STORED, body TEXT,
        long TEXT GENERATED ALWAYS AS (slug(title) || '') VIRTUAL);
    CREATE UNIQUE INDEX by_slug ON notes(short);
    CREATE TABLE marks(id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes ON DELETE CASCADE, mark TEXT);";
const NOTES_BY_TITLE: &str = "SELECT title, body FROM notes ORDER BY 1, 2";
const MARKS: &str = "SELECT title, mark FROM marks JOIN notes ON notes.id = note ORDER BY mark";

fn slug(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join("-")
}

/// What the application registers on each of its connections.
fn with_functions(agent: &mut Agent) -> &mut Agent {
    let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8;
    let connection = agent.sql.connection();
    let slugged = |context: &rusqlite::functions::Context<'_>| {
        context.get::<Option<String>>(0).map(|text| text.map(|text| slug(&text)))
    };
    connection.create_scalar_function("slug", 1, flags, slugged).unwrap();
    connection.create_collation("LOOSE", |a: &str, b: &str| slug(a).cmp(&slug(b))).unwrap();
    agent
}

fn pair(schema: &str) -> (Hub, Agent, Agent) {
    let (mut a, mut b) = (Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
    for agent in [&mut a, &mut b] {
        with_functions(agent).run("PRAGMA foreign_keys = ON").run(schema);
    }
    (Hub::new(), a, b)
}

#[test]
fn rows_that_only_a_function_takes_for_the_same_are_one_row_everywhere() {
    [NOTES, GENERATED].into_iter().for_each(are_one_row_everywhere);
}

fn are_one_row_everywhere(notes: &str) {
    let (mut hub, mut a, mut b) = pair(notes);
    a.run("INSERT INTO notes(title, body) VALUES('Retry Later', 'of a'), ('other', 'a')");
    a.run("INSERT INTO marks(note, mark) VALUES(1, 'a')");
    b.run("INSERT INTO notes(id, title, body) VALUES(7, 'retry  later', 'of b')");
    b.run("INSERT INTO marks(note, mark) VALUES(7, 'b')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], NOTES_BY_TITLE).len(), 2);
    let marks = agree(&mut [&mut a, &mut b], MARKS);
    assert_eq!(marks.len(), 2);
    assert_eq!(marks[0][0], marks[1][0], "both marks are of the one note");
    // What has been learned holds for rows that come later, too.
    let mut late = Agent::new("acme", "late", 3);
    with_functions(&mut late).run(notes).run("INSERT INTO notes(title) VALUES('Retry Later')");
    late.options.existing_rows_are_old = false;
    late.sync(&mut hub);
    assert_eq!(late.rows("SELECT count(*) FROM notes"), vec![vec![Value::Integer(2)]]);
    settle(&mut hub, &mut [&mut a, &mut b, &mut late]);
    agree(&mut [&mut a, &mut b, &mut late], NOTES_BY_TITLE);
}

#[test]
fn a_rename_that_only_a_function_takes_for_another_name_waits_until_that_is_free() {
    [NOTES, GENERATED].into_iter().for_each(waits_until_that_is_free);
}

fn waits_until_that_is_free(notes: &str) {
    let (mut hub, mut a, mut b) = pair(notes);
    a.run("INSERT INTO notes(title) VALUES('One'), ('Two')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO notes(title, body) VALUES('Three', 'b')");
    b.sync(&mut hub);
    a.run("UPDATE notes SET title = 'THREE' WHERE title = 'One'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let titles = "SELECT title FROM notes ORDER BY title";
    assert_eq!(agree(&mut [&mut a, &mut b], titles), vec![vec![text("Three")], vec![text("Two")]]);
    b.run("UPDATE notes SET title = 'Four' WHERE title = 'Three'");
    settle(&mut hub, &mut [&mut b, &mut a]);
    let expected = vec![vec![text("Four")], vec![text("THREE")], vec![text("Two")]];
    assert_eq!(agree(&mut [&mut a, &mut b], titles), expected);
}

#[test]
fn a_condition_and_a_collation_of_the_applications_own_are_ruled_by_as_well() {
    for index in [
        "CREATE UNIQUE INDEX i ON notes(body) WHERE slug(title) = 'once'",
        "CREATE UNIQUE INDEX i ON notes(body COLLATE LOOSE)",
        "CREATE UNIQUE INDEX i ON notes((body || title) COLLATE LOOSE)",
    ] {
        let schema = format!("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT); {index}");
        let (mut hub, mut a, mut b) = pair(&schema);
        a.run("INSERT INTO notes(title, body) VALUES('Once', 'x y'), ('often', 'q')");
        b.run("INSERT INTO notes(title, body) VALUES('once', 'x y'), ('OFTEN', 'r')");
        settle(&mut hub, &mut [&mut a, &mut b]);
        assert_eq!(agree(&mut [&mut a, &mut b], NOTES_BY_TITLE).len(), 3, "{index}");
    }
}

#[test]
fn a_table_whose_column_compares_in_the_applications_own_way_is_shared_and_referenced() {
    let schema = "
        CREATE TABLE tags(name TEXT COLLATE LOOSE PRIMARY KEY, n INTEGER);
        CREATE TABLE uses(id INTEGER PRIMARY KEY, tag TEXT REFERENCES tags(name) ON DELETE CASCADE ON UPDATE CASCADE);";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO tags VALUES('Slow Start', 1), ('t', 2); INSERT INTO uses VALUES(1, 'Slow Start'), (2, 't')");
    b.run("INSERT INTO tags VALUES('slow start', 3); INSERT INTO uses VALUES(1, 'slow start')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT name, n FROM tags ORDER BY n").len(), 2);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT tag FROM uses ORDER BY tag").len(), 3);
    a.run("DELETE FROM tags WHERE name = 'slow start'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT tag FROM uses"), vec![vec![text("t")]]);
}

#[test]
fn an_agent_without_the_function_has_the_table_and_what_the_others_found() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    let mut plain = Agent::new("acme", "plain", 3);
    a.run("INSERT INTO notes(title) VALUES('First')").run("INSERT INTO marks(note, mark) VALUES(1, 'm')");
    a.sync(&mut hub);
    plain.sync(&mut hub);
    assert_eq!(plain.rows(MARKS), vec![vec![text("First"), text("m")]]);
    let left_out = |notice: &String| notice.contains("an index of table notes cannot be made here");
    assert_eq!(plain.notices.iter().filter(|notice| left_out(notice)).count(), 1, "{:?}", plain.notices);
    plain.run("INSERT INTO notes(title, body) VALUES('FIRST', 'plain')");
    settle(&mut hub, &mut [&mut plain, &mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b, &mut plain], NOTES_BY_TITLE).len(), 1);
    // Foreign keys hold for the table although one of its indexes means nothing to the hub.
    b.run("DELETE FROM notes");
    settle(&mut hub, &mut [&mut b, &mut plain, &mut a]);
    agree(&mut [&mut a, &mut b, &mut plain], "SELECT mark FROM marks");
    assert_eq!(plain.rows("SELECT mark FROM marks"), NO_ROWS);
}

#[test]
fn what_was_told_in_a_batch_that_got_lost_is_told_again_and_then_never() {
    for fate in [Fate::LosesBatch, Fate::LosesAnswer] {
        // Nobody but b can tell.
        let (mut hub, mut a, mut b) = (Hub::new(), Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
        with_functions(&mut b).run(NOTES);
        a.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT)");
        a.run("INSERT INTO notes(title, body) VALUES('Same', 'a')").sync(&mut hub);
        b.run("INSERT INTO notes(title, body) VALUES('same', 'b')").sync(&mut hub);
        b.sync_with(&mut hub, fate, &mut |_| {});
        settle(&mut hub, &mut [&mut b, &mut a]);
        assert_eq!(agree(&mut [&mut a, &mut b], NOTES_BY_TITLE).len(), 1, "{fate:?}");
        for agent in [&mut a, &mut b] {
            assert_eq!(agent.rows("SELECT * FROM _federation_collision"), NO_ROWS);
            agent.sql.statements.clear();
            agent.collect();
            assert!(agent.sql.statements.len() <= 3, "{:?}", agent.sql.statements);
        }
    }
}

#[test]
fn a_row_that_the_application_is_writing_is_told_of_once_the_hub_knows_it() {
    let (mut hub, mut plain, mut b) =
        (Hub::new(), Agent::new("acme", "plain", 1), Agent::new("acme", "b", 2));
    with_functions(&mut b).run(NOTES).run("INSERT INTO notes(title, body) VALUES('mine', 'b')");
    b.sync(&mut hub);
    plain.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT)");
    plain.run("INSERT INTO notes(title, body) VALUES('Same', 'plain')").sync(&mut hub);
    let rename = |b: &mut Agent| {
        b.run("UPDATE notes SET title = 'same'");
    };
    b.sync_with(&mut hub, Fate::Complete, &mut { rename });
    for _ in 0..2 {
        settle(&mut hub, &mut [&mut b, &mut plain]);
    }
    assert_eq!(agree(&mut [&mut b, &mut plain], NOTES_BY_TITLE).len(), 1);
}

#[test]
fn what_was_in_the_way_in_the_middle_of_a_pull_only_is_not_told() {
    let (mut hub, mut plain, mut c) =
        (Hub::new(), Agent::new("acme", "plain", 1), Agent::new("acme", "c", 2));
    with_functions(&mut c).run(NOTES).run("INSERT INTO notes(title, body) VALUES('Same', '1'), ('x', '2')");
    c.slice = 1;
    settle(&mut hub, &mut [&mut c, &mut plain]);
    for write in [
        "INSERT INTO notes(title, body) VALUES('same', '3')",
        "UPDATE notes SET title = 'other' WHERE body = '1'",
        "UPDATE notes SET title = 'SAME' WHERE body = '2'",
    ] {
        plain.run(write).sync(&mut hub);
    }
    settle(&mut hub, &mut [&mut c, &mut plain]);
    let rows = agree(&mut [&mut c, &mut plain], NOTES_BY_TITLE);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.contains(&vec![text("other"), text("1")]), "{rows:?}");
}

/// Breaks if it is told before the pull is at its end: the hub does not believe it of rows that it has not told of, and
/// what was told once is not told again.
#[test]
fn what_is_in_the_way_when_a_pull_breaks_off_is_told_once_a_pull_has_come_to_its_end() {
    let (mut hub, _, mut b) = pair(NOTES);
    b.slice = 1;
    b.run("INSERT INTO notes(title, body) VALUES('Same', '1')");
    b.sync(&mut hub);
    let mut plain = Agent::new("acme", "plain", 3);
    plain.sync(&mut hub);
    plain.run("INSERT INTO notes(title, body) VALUES('same', '2'), ('last', '3')").sync(&mut hub);
    b.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
    assert_eq!(b.rows("SELECT count(*) FROM _federation_quarantine"), [[Value::Integer(1)]]);
    settle(&mut hub, &mut [&mut b, &mut plain]);
    assert_eq!(agree(&mut [&mut b, &mut plain], NOTES_BY_TITLE).len(), 2);
}

#[test]
fn rows_that_were_changed_since_are_not_taken_for_the_same() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes(title, body) VALUES('Same', 'a')").sync(&mut hub);
    b.run("INSERT INTO notes(title, body) VALUES('same', 'b')").sync(&mut hub);
    // What b is about to tell is past by the time it tells.
    a.run("UPDATE notes SET title = 'another' WHERE body = 'a'").sync(&mut hub);
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut a, &mut b], NOTES_BY_TITLE).len(), 2);
    // A row of its own title collides with neither.
    b.run("UPDATE notes SET title = 'third' WHERE body = 'b'");
    a.run("INSERT INTO notes(title) VALUES('fourth')");
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut a, &mut b], NOTES_BY_TITLE).len(), 3);
}

/// Breaks if a table that needs what only the application's own connection has, a function or a collation, keeps
/// others from being synced through another connection.
#[test]
fn a_table_that_cannot_be_written_here_stops_no_other() {
    for (kind, index) in [
        ("", "slug(word)"),
        ("", "word COLLATE loose"),
        ("UNIQUE", "slug(word)"),
        ("UNIQUE", "word COLLATE loose"),
    ] {
        let (mut hub, mut a, mut b) = pair(
            "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT); CREATE TABLE words(id TEXT PRIMARY KEY, word TEXT)",
        );
        b.run(&format!("CREATE {kind} INDEX by_word ON words({index})"));
        let without = b.copy();
        b.restore(&without);
        a.run("INSERT INTO words VALUES('w', 'one')").run("INSERT INTO notes VALUES('a', 'of a')");
        a.sync(&mut hub);
        let counts = b.sync(&mut hub);
        assert_eq!((counts.pulled, counts.quarantined), (1, 1), "{index}");
        a.run("UPDATE words SET word = 'two'").run("UPDATE notes SET title = 'edited'").sync(&mut hub);
        b.sync(&mut hub);
        assert_eq!(b.rows("SELECT title FROM notes"), [[text("edited")]]);
        b.run("DROP INDEX by_word").reconnect();
        a.run("DELETE FROM notes").sync(&mut hub);
        b.sync(&mut hub);
        assert_eq!(b.rows("SELECT word FROM words"), [[text("two")]], "{index}");
    }
}
