//! How much one turn does: what a batch holds at most, and that it holds as much as it may.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use crate::clock::Clock;
use crate::hub::Heard;
use crate::world::{Agent, Fate, Hub, pair, settle, turn_time};
use federation_hub::model::{RowChange, Value};
use federation_hub::protocol::frame::MAX_FRAME_BYTES;
use federation_hub::storage::collect::TurnLimits;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";
const TASKS: &str = "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title TEXT)";

/// The rows of each batch that the hub takes from now on.
pub fn batches(hub: &mut Hub) -> Rc<RefCell<Vec<Vec<RowChange>>>> {
    let batches = Rc::new(RefCell::new(Vec::new()));
    let heard = Rc::clone(&batches);
    hub.listener = Some(Box::new(move |_, what| {
        if let Heard::Pushed(push, _) = what {
            heard.borrow_mut().push(push.body.rows.clone());
        }
    }));
    batches
}

/// Syncs so many rows, and counts those of each batch.
fn sizes_of_batches(hub: &mut Hub, agent: &mut Agent, pushed: u64) -> Vec<usize> {
    let batches = batches(hub);
    assert_eq!(agent.sync(hub).pushed, pushed);
    batches.borrow().iter().map(Vec::len).collect()
}

/// A statement that inserts rows with these numbers.
fn insert(into: &str, values: &str, count: usize) -> String {
    format!(
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count})
         INSERT INTO {into} SELECT {values} FROM s"
    )
}

#[test]
fn what_a_turn_does_is_cut_to_the_frames_of_its_hub() {
    let usual = TurnLimits::default();
    assert_eq!((usual.rows, usual.bytes, usual.row_bytes), (250, 1 << 20, 16 << 20));
    let largest = TurnLimits::for_frames_of(u32::try_from(MAX_FRAME_BYTES).unwrap());
    assert_eq!((largest.rows, largest.bytes, largest.row_bytes), (250, 1 << 20, 16 << 20));
    let small = TurnLimits::for_frames_of(2 << 20);
    assert_eq!((small.rows, small.bytes, small.row_bytes), (250, 512 << 10, 1 << 20));
}

/// Breaks if rows that the log names do not count, or those that a look at a table has passed count the other way.
#[test]
fn a_turn_that_settles_the_log_looks_at_so_many_rows_less() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.sync(&mut hub);
    a.limits.rows = 10;
    a.run(&insert("notes", "n, 'note'", 9)).run(TASKS).run(&insert("tasks", "n, 'task'", 30));
    let sizes = sizes_of_batches(&mut hub, &mut a, 39);
    assert!(sizes.iter().all(|size| *size <= 10), "{sizes:?}");
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT count(*) FROM tasks"), [[Value::Integer(30)]]);
}

/// Breaks if rows that have not changed cost a turn nothing: one turn would read a whole table.
#[test]
fn a_turn_stops_after_so_many_rows_of_a_table_that_was_made_again_whether_or_not_they_have_changed() {
    let (mut hub, mut a, _) = pair(NOTES);
    a.run(&insert("notes", "n, 'note'", 30)).sync(&mut hub);
    a.sync(&mut hub);
    a.run("CREATE TABLE other(id TEXT PRIMARY KEY, title TEXT); INSERT INTO other SELECT * FROM notes")
        .run("DROP TABLE notes; ALTER TABLE other RENAME TO notes");
    a.limits.rows = 10;
    a.collect();
    let is_under_way = "SELECT scan IS NOT NULL FROM _federation_table WHERE name = 'notes'";
    assert_eq!(a.rows(is_under_way), [[Value::Integer(1)]]);
    assert_eq!(a.sync(&mut hub).pushed, 0);
    assert_eq!(a.rows(is_under_way), [[Value::Integer(0)]]);
}

/// Breaks if a turn goes on with rows of the log, of a first look at a table, or of those that wait, once its time is over.
#[test]
fn a_turn_takes_no_other_row_once_its_time_is_over() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    (a.time, b.time) = (turn_time(2), turn_time(2));
    a.run(&insert("notes", "n, 'old'", 20));
    let short = |sizes: Vec<usize>| sizes.len() >= 5 && sizes.iter().all(|size| *size <= 4);
    let sizes = sizes_of_batches(&mut hub, &mut a, 20);
    assert!(short(sizes.clone()), "of a first look: {sizes:?}");
    a.run("UPDATE notes SET title = 'new'");
    let sizes = sizes_of_batches(&mut hub, &mut a, 20);
    assert!(short(sizes.clone()), "of the log: {sizes:?}");
    a.run("UPDATE notes SET title = 'newest'");
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    let sizes = sizes_of_batches(&mut hub, &mut a, 20);
    assert!(short(sizes.clone()), "of what waits: {sizes:?}");
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT count(*) FROM notes WHERE title = 'newest'"), [[Value::Integer(20)]]);
}

/// Breaks if what the first turns of a sync have stamped makes what the later ones settle newer than it is.
#[test]
fn of_many_writes_each_is_as_old_as_it_is_also_where_several_turns_settle_them() {
    let (mut hub, clock) = (Hub::new(), Clock::standing_at(1_800_000_000_000));
    hub.clock = clock.clone();
    let [mut a, mut b] = ["a", "b"].map(|name| Agent::timed("acme", name, name.len() as u64, clock.clone()));
    (a.run(NOTES).limits.bytes, b.run(NOTES).limits.bytes) = (1, 1);
    a.run("INSERT INTO notes VALUES('first', 'a'), ('contested', 'a')");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes");
    clock.pass(10);
    a.run("UPDATE notes SET title = 'early' WHERE id = 'first'");
    a.run("UPDATE notes SET title = 'earlier' WHERE id = 'contested'");
    clock.pass(10);
    b.run("UPDATE notes SET title = 'later' WHERE id = 'contested'");
    clock.pass(10);
    a.run("UPDATE notes SET title = 'latest' WHERE id = 'first'");
    let title = "SELECT title FROM notes WHERE id = 'contested'";
    assert_eq!(settle(&mut hub, &mut a, &mut b, title), [[Value::Text("later".into())]]);
}

/// Breaks if what is left of one table ends a batch that has room for that of another.
#[test]
fn what_was_lost_of_two_tables_goes_again_in_one_batch() {
    let (mut hub, mut a, _) = pair(&format!("{NOTES}; {TASKS}"));
    a.sync(&mut hub);
    a.run("INSERT INTO notes VALUES('x', 'note')").run("INSERT INTO tasks VALUES(1, 'task')");
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    assert_eq!(sizes_of_batches(&mut hub, &mut a, 2).len(), 1);
}

/// Breaks if only rows that have waited are counted by their bytes: 250 rows that were just written made a batch that no
/// frame holds, and the sync failed.
#[test]
fn a_batch_of_rows_that_were_just_written_ends_once_it_has_its_bytes() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body BLOB)");
    a.sync(&mut hub);
    a.limits.bytes = 10_000;
    a.run(&insert("notes", "n, 'one', zeroblob(1000)", 40));
    // Rows of later batches are named before and behind those of earlier ones.
    a.run("UPDATE notes SET title = 'two'").run("DELETE FROM notes WHERE id IN ('7', '30')");
    let sizes = sizes_of_batches(&mut hub, &mut a, 38);
    assert!(sizes.iter().all(|size| *size <= 10), "{sizes:?}");
    b.sync(&mut hub);
    let all = "SELECT * FROM notes ORDER BY id";
    assert_eq!(a.rows(all), b.rows(all));
    assert_eq!(a.sync(&mut hub).pushed, 0);
}

/// Breaks if the log forgets a row with which a batch did not go on.
#[test]
fn rows_that_were_written_once_go_with_one_batch_or_the_next() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body BLOB)");
    a.sync(&mut hub);
    a.limits.bytes = 10_000;
    a.run(&insert("notes", "n, 'one', zeroblob(1000)", 40));
    let sizes = sizes_of_batches(&mut hub, &mut a, 40);
    assert!(sizes.len() >= 4, "{sizes:?}");
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT count(*) FROM notes"), a.rows("SELECT count(*) FROM notes"));
}

/// Breaks if a sync ends once what has waited is sent, whatever the log still names.
#[test]
fn a_sync_that_catches_up_goes_on_to_the_end_of_the_log() {
    let (mut hub, mut a, _) = pair(NOTES);
    a.sync(&mut hub);
    a.run("INSERT INTO notes VALUES('x', 'lost')");
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    a.limits.rows = 10;
    for at in 0..25 {
        a.run(&format!("UPDATE notes SET title = '{at}'"));
    }
    a.run("INSERT INTO notes VALUES('y', 'last')").sync(&mut hub);
    assert_eq!(a.sync(&mut hub).pushed, 0);
}

/// Breaks if a batch takes along whatever its rows lead to: a long enough chain would make one that no frame holds. And if
/// what it takes along may be in it already.
#[test]
fn a_batch_takes_along_no_row_twice_and_at_most_so_many_as_its_own_reference() {
    let (mut hub, mut a, mut b) =
        pair("CREATE TABLE items(id INTEGER PRIMARY KEY, next INTEGER REFERENCES items(id))");
    a.sync(&mut hub);
    a.limits.rows = 10;
    a.run(&insert("items", "n, CASE WHEN n < 300 THEN n + 1 END", 300));
    let batches = batches(&mut hub);
    assert_eq!(a.sync(&mut hub).pushed, 300);
    for batch in batches.borrow().iter() {
        assert!(batch.len() <= 10 + 250, "{}", batch.len());
        assert_eq!(batch.iter().map(|row| row.id).collect::<HashSet<_>>().len(), batch.len());
    }
    assert_eq!(b.sync(&mut hub).quarantined, 0);
    assert_eq!(b.rows("SELECT count(*), count(next) FROM items"), [[300, 299].map(Value::Integer)]);
}

/// Breaks if as many rows as a batch may take along are taken whatever bytes they have.
#[test]
fn a_batch_that_is_full_takes_no_row_along() {
    let (mut hub, mut a, _) =
        pair("CREATE TABLE items(id INTEGER PRIMARY KEY, next INTEGER REFERENCES items(id), body BLOB)");
    a.sync(&mut hub);
    (a.limits.rows, a.limits.bytes) = (10, 10_000);
    a.run(&insert("items", "n, CASE WHEN n < 40 THEN n + 1 END, zeroblob(1000)", 40));
    let sizes = sizes_of_batches(&mut hub, &mut a, 40);
    assert!(sizes.iter().all(|size| *size <= 10), "{sizes:?}");
}

/// Breaks if what has waited is counted by its rows alone.
#[test]
fn a_batch_of_rows_that_have_waited_ends_once_it_has_its_bytes() {
    let (mut hub, mut a, _) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, body BLOB)");
    a.sync(&mut hub);
    a.run(&insert("notes", "n, zeroblob(1000)", 40));
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    a.limits.bytes = 10_000;
    let sizes = sizes_of_batches(&mut hub, &mut a, 40);
    assert!(sizes.iter().all(|size| *size <= 10), "{sizes:?}");
}

#[test]
fn a_row_of_just_the_largest_size_is_sent_and_no_larger_one() {
    let (mut hub, mut a, _) = pair(NOTES);
    let batches = batches(&mut hub);
    a.run("INSERT INTO notes VALUES('a', 'of one size')").sync(&mut hub);
    let bytes = batches.borrow()[0][0].heap_bytes();
    for (row, limit, pushed) in [('b', bytes, 1), ('c', bytes - 1, 0), ('d', bytes / 2, 0)] {
        a.limits.row_bytes = limit;
        a.run(&format!("INSERT INTO notes VALUES('{row}', 'of one size')"));
        assert_eq!(a.sync(&mut hub).pushed, pushed, "{limit}");
    }
}

/// Breaks if each cell travels with a stamp of its own.
#[test]
fn cells_that_were_written_together_travel_as_one_write() {
    let (mut hub, mut a, _) = pair("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body, tags)");
    let batches = batches(&mut hub);
    a.run("INSERT INTO notes VALUES('x', 'title', 1, 2)").sync(&mut hub);
    a.run("UPDATE notes SET title = 'other', body = 2, tags = 3").sync(&mut hub);
    let writes: Vec<usize> = batches.borrow().iter().flatten().map(|row| row.writes.len()).collect();
    assert_eq!(writes, [1, 1]);
}
