//! Rows that arrive out of order, or while the application writes to the same rows.

use crate::identity::{NO_ROWS, agree, settle, shifted};
use crate::world::parts::text;
use crate::world::{Agent, Counts, Fate, Hub, pair};
use federation_hub::model::{Hlc, Op, RowId, RowUpdate, Stamp, TableHeader, Value, Write};
use federation_hub::protocol::message::Rows;
use federation_hub::storage::apply::Incoming;
use federation_hub::storage::references::{DeclaredParent, DeclaredReference};

const NOTES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT)";

/// Two agents of one schema that both know what the first has written.
fn both_know(schema: &str, writes: &str) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(schema);
    a.run(writes);
    settle(&mut hub, &mut [&mut a, &mut b]);
    (hub, a, b)
}

/// Has agents know what `links.target` references.
fn declare_targets(agents: &mut [&mut Agent], parent: &DeclaredParent) {
    for agent in agents {
        let (table, column) = ("links".into(), "target".into());
        agent.options.references = vec![DeclaredReference { table, column, parent: parent.clone() }];
    }
}

/// Syncs, while the application writes something after the hub has answered and before that is applied.
fn sync_while(agent: &mut Agent, hub: &mut Hub, writes: &str) -> Counts {
    agent
        .sync_with(hub, Fate::Complete, &mut |agent| {
            agent.run(writes);
        })
        .unwrap()
}

#[test]
fn a_row_that_is_named_by_table_and_number_gets_the_number_that_was_given_away_before_it_came() {
    // Without AUTOINCREMENT, the number of a row that is gone could be given to one that comes.
    for key in ["INTEGER PRIMARY KEY AUTOINCREMENT", "INTEGER PRIMARY KEY"] {
        links_mean_what_they_meant(key);
    }
}

fn links_mean_what_they_meant(key: &str) {
    let schema = &format!(
        "CREATE TABLE links(kind TEXT, target INTEGER, label TEXT, id TEXT PRIMARY KEY);
         CREATE TABLE facts(id INTEGER PRIMARY KEY, what TEXT);
         CREATE TABLE skills(id {key}, what TEXT);"
    );
    let (mut hub, mut a, mut b) = shifted(schema, "INSERT INTO skills(what) VALUES('b1'), ('b2')");
    let map = vec![(text("fact"), "facts".to_owned()), (text("skill"), "skills".to_owned())];
    declare_targets(&mut [&mut a, &mut b], &DeclaredParent::ByColumn { column: "kind".into(), map });
    a.run("INSERT INTO skills VALUES(1, 'to come'), (2, 'to go')");
    a.run("INSERT INTO links VALUES('skill', 1, 'x', 'first'), ('skill', 2, 'y', 'second')").sync(&mut hub);
    // The skill's last change comes after the link, and what the other link meant never comes.
    a.run("UPDATE skills SET what = 'came' WHERE id = 1")
        .run("DELETE FROM skills WHERE id = 2")
        .sync(&mut hub);
    b.slice = 1;
    settle(&mut hub, &mut [&mut b, &mut a]);
    let links = "SELECT links.id, what FROM links LEFT JOIN skills ON skills.id = target ORDER BY 1";
    let expected = vec![vec![text("first"), text("came")], vec![text("second"), Value::Null]];
    assert_eq!(agree(&mut [&mut b, &mut a], links), expected);
}

#[test]
fn a_number_that_was_given_away_is_no_row_that_could_be_deleted() {
    let schema = "CREATE TABLE links(id TEXT PRIMARY KEY, target INTEGER);
                  CREATE TABLE skills(id INTEGER PRIMARY KEY, what TEXT);";
    let (mut hub, mut a, mut b) = pair(schema);
    declare_targets(&mut [&mut a, &mut b], &DeclaredParent::Table("skills".into()));
    a.run("INSERT INTO skills VALUES(1, 'mine'); INSERT INTO links VALUES('x', 1)").sync(&mut hub);
    a.run("UPDATE skills SET what = 'edited'").sync(&mut hub);
    b.slice = 1;
    b.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
    b.run("INSERT INTO skills SELECT target, 'tried' FROM links; DELETE FROM skills");
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut b, &mut a], "SELECT what FROM skills"), [[text("edited")]]);
}

#[test]
fn however_much_is_written_meanwhile_nothing_of_it_is_lost() {
    let (mut hub, mut a, mut b) = both_know(NOTES, "INSERT INTO notes(title) VALUES('x')");
    b.run("UPDATE notes SET body = 'of b'").sync(&mut hub);
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
                INSERT INTO notes(title) SELECT i FROM n";
    sync_while(&mut a, &mut hub, many);
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT count(*) FROM notes"), [[Value::Integer(2501)]]);
}

#[test]
fn a_delete_made_meanwhile_outlasts_a_row_that_is_told_whole() {
    let (mut hub, mut a, mut b) = both_know(NOTES, "INSERT INTO notes(title) VALUES('x')");
    b.run("UPDATE notes SET body = 'of b'");
    settle(&mut hub, &mut [&mut b, &mut a]);
    a.run("UPDATE _federation_table SET refresh = 1");
    sync_while(&mut a, &mut hub, "DELETE FROM notes");
    assert_eq!(a.rows("SELECT * FROM notes"), NO_ROWS);
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT * FROM notes"), NO_ROWS);
}

#[test]
fn of_two_deletes_the_later_is_kept_and_only_an_untold_one_is_sent() {
    for (lead_ms, sent) in [(0, 1), (50_000, 0)] {
        let (mut hub, mut a, mut b) = both_know(NOTES, "INSERT INTO notes(title) VALUES('x')");
        b.lead_ms = lead_ms;
        b.run("DELETE FROM notes").sync(&mut hub);
        std::thread::sleep(std::time::Duration::from_millis(5));
        sync_while(&mut a, &mut hub, "DELETE FROM notes");
        assert_eq!(a.sync(&mut hub).pushed, sent, "{lead_ms}");
    }
}

#[test]
fn an_edit_that_outlasts_a_delete_made_meanwhile_waits_for_the_rest_of_its_row() {
    let (mut hub, mut a, mut b) = both_know(NOTES, "INSERT INTO notes(title) VALUES('x')");
    b.lead_ms = 50_000;
    b.run("UPDATE notes SET body = 'of b'").sync(&mut hub);
    let counts = sync_while(&mut a, &mut hub, "DELETE FROM notes");
    assert_eq!(counts.quarantined, 0, "the hub will tell all of it once it knows of the delete");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT body FROM notes"), [[text("of b")]]);
}

#[test]
fn a_delete_that_the_hub_derives_is_final_for_all_that_the_hub_knows() {
    let (mut hub, mut a, _) = both_know(NOTES, "INSERT INTO notes(title) VALUES('x')");
    a.run("UPDATE notes SET title = 'y'").sync(&mut hub);
    let Value::Blob(id) = a.rows("SELECT id FROM _federation_row")[0][0].clone() else { unreachable!() };
    // It bears the stamp of another row's delete, which may be older than what this row holds.
    let stamp = Stamp { hlc: Hlc(1), replica: 1 };
    let update = RowUpdate {
        table: 0,
        id: RowId::from_slice(&id).unwrap(),
        number: None,
        seq: 9,
        whole: false,
        united: None,
        writes: vec![Write { stamp, base: 0, op: Op::Delete }],
    };
    let tables = vec![TableHeader { name: "notes".into(), columns: Vec::new() }];
    a.apply(&Incoming { rows: Rows { tables, rows: vec![update] }, ..Incoming::default() });
    assert_eq!(a.rows("SELECT * FROM notes"), NO_ROWS);
}

#[test]
fn a_reference_to_what_was_deleted_meanwhile_is_undone_and_the_row_is_as_it_was() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, code TEXT UNIQUE);
                  CREATE TABLE c(id INTEGER PRIMARY KEY, code TEXT REFERENCES p(code), label TEXT);";
    let (mut hub, mut a, mut b) = both_know(
        schema,
        "INSERT INTO p(code) VALUES('x'), ('y'); INSERT INTO c(code, label) VALUES('x', 'l'), ('x', 'm')",
    );
    b.run("UPDATE c SET code = 'y'").sync(&mut hub);
    let counts = sync_while(&mut a, &mut hub, "DELETE FROM p WHERE code = 'y'");
    assert_eq!(
        a.rows("SELECT code, label FROM c ORDER BY id"),
        [[text("x"), text("l")], [text("x"), text("m")]]
    );
    assert_eq!(a.rows("PRAGMA foreign_key_check"), NO_ROWS);
    assert_eq!((counts.pulled, counts.quarantined), (0, 2), "both are tried again");
    settle(&mut hub, &mut [&mut a, &mut b]);
    agree(&mut [&mut a, &mut b], "SELECT c.code, p.code FROM c LEFT JOIN p USING(code)");
}

#[test]
fn a_row_that_others_bring_back_has_the_number_that_it_had_here() {
    let (mut hub, mut a, mut b) = shifted(NOTES, "INSERT INTO notes(title) VALUES('b1'), ('b2')");
    let mut late = Agent::new("acme", "late", 9);
    late.run(NOTES);
    a.run("INSERT INTO notes(title) VALUES('x')");
    settle(&mut hub, &mut [&mut a, &mut b, &mut late]);
    b.run("INSERT INTO notes(title) VALUES('b3')");
    let number = "SELECT id FROM notes WHERE title = 'x'";
    let before = b.rows(number);
    assert_ne!(before, a.rows(number));
    a.run("DELETE FROM notes WHERE title = 'x'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(b.rows(number), NO_ROWS);
    // It has not heard of the delete, and its edit is later.
    std::thread::sleep(std::time::Duration::from_millis(5));
    late.run("UPDATE notes SET body = 'edited' WHERE title = 'x'");
    settle(&mut hub, &mut [&mut late, &mut b, &mut a]);
    assert_eq!(b.rows(number), before, "the application may hold it");
}

#[test]
fn rows_that_wait_for_each_other_across_many_turns_come_in_one_sync() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, up INTEGER REFERENCES t)";
    let (mut hub, mut a, mut b) = pair(schema);
    // More than are tried again together wait for one row, and that one for the last.
    a.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2600)
         INSERT INTO t SELECT i, CASE WHEN i <= 1500 THEN 1501 WHEN i = 1501 THEN 2600 END FROM n",
    );
    a.sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    assert_eq!(agree(&mut [&mut a, &mut b], "SELECT count(*) FROM t"), [[Value::Integer(2600)]]);
}

#[test]
fn a_number_that_the_application_gives_again_means_the_new_row_everywhere() {
    let schema = "CREATE TABLE links(id TEXT PRIMARY KEY, target INTEGER, label TEXT);
                  CREATE TABLE skills(id INTEGER PRIMARY KEY, what TEXT);";
    let (mut hub, mut a, mut b) = pair(schema);
    declare_targets(&mut [&mut a, &mut b], &DeclaredParent::Table("skills".into()));
    b.run("INSERT INTO skills(what) VALUES('of b')").sync(&mut hub);
    a.run("INSERT INTO skills VALUES(1, 'old'); INSERT INTO links VALUES('x', 1, 'l')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    // The last time, the link is sent again: that it means another row is seen when its label is on its way.
    let edit = "UPDATE links SET label = 'edited'";
    // The second time, the old row's delete goes with the new row.
    let cases = [("first", true, "", 2), ("second", false, "", 3), ("third", true, edit, 3)];
    for (new, told, edit, pushed) in cases {
        a.run("DELETE FROM skills WHERE id = 1");
        if told {
            settle(&mut hub, &mut [&mut a, &mut b]);
        }
        a.run(&format!("INSERT INTO skills VALUES(1, '{new}')")).run(edit);
        assert_eq!(a.sync(&mut hub).pushed, pushed, "{new}");
        settle(&mut hub, &mut [&mut a, &mut b]);
        let links = "SELECT links.id, what FROM links LEFT JOIN skills ON skills.id = target";
        assert_eq!(agree(&mut [&mut a, &mut b], links), [[text("x"), text(new)]]);
    }
}

const KINDS: &str = "
    CREATE TABLE kinds(name TEXT PRIMARY KEY);
    CREATE TABLE notes(title TEXT PRIMARY KEY, kind TEXT REFERENCES kinds ON UPDATE CASCADE);";

/// Breaks if what is set aside is tried again in the middle of a pull, as if nothing else were coming: the note would follow
/// its kind then, by a write that is later than the one that is still to come.
#[test]
fn before_the_end_of_a_pull_no_row_follows_another_to_its_new_key() {
    let known = "INSERT INTO kinds VALUES('old'), ('other'); INSERT INTO notes VALUES('n', 'old')";
    let (mut hub, mut a, mut b) = both_know(KINDS, known);
    a.run("UPDATE kinds SET name = 'new' WHERE name = 'old'").sync(&mut hub);
    a.run("UPDATE notes SET kind = 'other'").sync(&mut hub);
    b.slice = 1;
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut b, &mut a], "SELECT kind FROM notes"), [[text("other")]]);
}

/// Breaks if a write here that was lost with its row keeps the hub's older value of that cell out: the row would come back
/// without any.
#[test]
fn a_row_that_comes_back_has_the_hubs_value_of_a_cell_that_was_written_here_before_it_went() {
    let mut c = Agent::new("acme", "c", 3);
    c.run(NOTES);
    let (mut hub, mut a, mut b) = both_know(NOTES, "INSERT INTO notes VALUES(1, 'title', 'body')");
    c.sync(&mut hub);
    c.lead_ms = 10_000;
    c.run("DELETE FROM notes").sync(&mut hub);
    sync_while(&mut b, &mut hub, "UPDATE notes SET title = 'lost'");
    assert_eq!(b.rows("SELECT * FROM notes"), NO_ROWS);
    // Later than the delete, which it has not seen.
    a.lead_ms = 20_000;
    a.run("UPDATE notes SET body = 'kept'").sync(&mut hub);
    settle(&mut hub, &mut [&mut a, &mut b, &mut c]);
    for agent in [&mut a, &mut b, &mut c] {
        assert_eq!(agent.rows("SELECT title, body FROM notes"), [[text("title"), text("kept")]]);
    }
}

/// Breaks if a row that follows here is not written: where the tenant's definition, which was there first, knows of no
/// reference, the hub leads nobody.
#[test]
fn what_follows_by_a_reference_that_only_this_database_knows_of_is_told_to_the_others() {
    let (mut hub, mut a, mut b) = (Hub::new(), Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
    a.run(&KINDS.replace("REFERENCES kinds ON UPDATE CASCADE", "")).sync(&mut hub);
    b.run(KINDS);
    a.run("INSERT INTO kinds VALUES('old'); INSERT INTO notes VALUES('n', 'old')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("UPDATE kinds SET name = 'new'").sync(&mut hub);
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    assert_eq!(b.rows("SELECT kind FROM notes"), [[text("new")]]);
    settle(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(agree(&mut [&mut b, &mut a], "SELECT kind FROM notes"), [[text("new")]]);
}

/// Breaks if people are told of rows that only wait for the rest of the pull.
#[test]
fn nobody_is_told_of_rows_that_wait_for_others_of_one_pull() {
    let schema = "CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT);
                  CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p)";
    let (mut hub, mut a, mut b) = pair(schema);
    b.sync(&mut hub);
    a.run("INSERT INTO p VALUES(1, 'x'); INSERT INTO c VALUES(1, 1)").sync(&mut hub);
    a.run("UPDATE p SET name = 'y'").sync(&mut hub);
    b.slice = 1;
    b.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
    assert_eq!(b.rows("SELECT count(*) FROM _federation_quarantine"), [[Value::Integer(1)]]);
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    assert_eq!(b.notices, Vec::<String>::new());
}
