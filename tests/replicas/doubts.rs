//! Rows in doubt: which are, which are not, and what is left of those that are gone.

use std::cell::Cell;
use std::rc::Rc;

use crate::hub::Heard;
use crate::retirement::{collect, forgotten, remembered, retire_all};
use crate::world::parts::text;
use crate::world::{Agent, Fate, pair, settle};
use federation_hub::model::Value;
use federation_hub::storage::collect::MAX_ROW_BYTES;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body)";
const ALL: &str = "SELECT * FROM notes ORDER BY id";
const IDS: &str = "SELECT id FROM notes ORDER BY id";

/// Breaks if whoever gets a new id doubts all that it has: a copy of a large database would fetch all of it.
#[test]
fn a_copy_whose_unsent_edits_saw_all_there_is_doubts_nothing() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'a', 0), ('y', 'a', 0)");
    settle(&mut hub, &mut a, &mut b, ALL);
    b.run("UPDATE notes SET title = 'b' WHERE id = 'x'");
    b.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    let copy = b.copy();
    let mut c = Agent::new("acme", "c", 3);
    c.restore(&copy);
    b.run("UPDATE notes SET title = 'b' WHERE id = 'y'").sync(&mut hub);
    let replica = "SELECT replica FROM _federation_replica";
    c.sync_with(&mut hub, Fate::Complete, &mut |c| {
        assert_ne!(c.rows(replica), b.rows(replica), "it has found out");
        assert_eq!(c.rows("SELECT count(*) FROM _federation_doubt"), [[Value::Integer(0)]]);
        assert_eq!(c.rows("SELECT total(refresh) FROM _federation_table"), [[Value::Real(0.0)]]);
    });
    settle(&mut hub, &mut b, &mut c, ALL);
}

/// Breaks if a replica that was away for long has to be told of everything before it sends, whatever it has.
#[test]
fn whoever_was_away_and_has_no_row_that_may_be_gone_sends_at_once() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    for statement in ["INSERT INTO notes VALUES('x', 'a', 0)", "DELETE FROM notes"] {
        a.run(statement);
        settle(&mut hub, &mut a, &mut b, ALL);
    }
    retire_all(&mut hub);
    for statement in ["INSERT INTO notes VALUES('y', 'a', 0)", "DELETE FROM notes"] {
        a.run(statement).sync(&mut hub);
    }
    collect(&mut hub, &mut [&mut a]);
    b.run("INSERT INTO notes VALUES('own', 'b', 1)");
    let told = Rc::new(Cell::new(0));
    let heard = Rc::clone(&told);
    hub.listener = Some(Box::new(move |_, what| {
        heard.set(heard.get() + u64::from(matches!(what, Heard::Told(_))));
    }));
    assert_eq!(b.sync(&mut hub).pushed, 1);
    assert_eq!(told.get(), 1);
    hub.listener = None;
    assert_eq!(settle(&mut hub, &mut a, &mut b, IDS), [[text("own")]]);
}

#[test]
fn nothing_is_remembered_nor_told_of_a_row_that_went_unchanged() {
    let rows = "INSERT INTO notes VALUES('dies', 'a', 0), ('lives', 'a', 0)";
    let (mut hub, mut a, mut b) = forgotten(NOTES, rows);
    a.run("DELETE FROM notes WHERE id = 'dies'");
    collect(&mut hub, &mut [&mut a]);
    // It hears of this one behind all that the hub has forgotten.
    a.run("INSERT INTO notes VALUES('later', 'a', 0)").sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(b.rows(IDS), [[text("later")], [text("lives")]]);
    assert_eq!(remembered(&mut b).len(), 2, "the rows that live");
    assert_eq!(b.notices, Vec::<String>::new());
}

/// Breaks if the hub's silence on a row counts, although it has refused to hear of it.
#[test]
fn a_row_that_was_too_large_to_be_shared_is_not_taken_for_gone() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.sync(&mut hub);
    b.sync(&mut hub);
    // Its values are no more than a row may have. What names them is too much.
    let bytes = MAX_ROW_BYTES - "large".len() - "b".len() - 8;
    b.run(&format!("INSERT INTO notes VALUES('small', 'b', 0), ('large', 'b', zeroblob({bytes}))"));
    assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT id FROM notes WHERE id = 'small'").len(), 1);
    assert_eq!(a.rows(IDS), [[text("small")]]);
    a.run("INSERT INTO notes VALUES('dies', 'a', 0)");
    settle(&mut hub, &mut a, &mut b, "SELECT id FROM notes WHERE id <> 'large'");
    retire_all(&mut hub);
    a.run("DELETE FROM notes WHERE id = 'dies'").sync(&mut hub);
    collect(&mut hub, &mut [&mut a]);
    b.sync(&mut hub);
    assert_eq!(b.rows(IDS), [[text("large")], [text("small")]]);
}
