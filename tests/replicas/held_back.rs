//! What is written where nothing may be sent.

use crate::identity::{agree, settle};
use crate::world::pair;
use crate::world::parts::text;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";

/// Breaks if the time of what is held back is forgotten: what is written after it counts as earlier.
#[test]
fn what_is_held_back_is_earlier_than_what_is_written_after_it() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'first'), ('y', 'first')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert!(!a.holds_back());
    a.lead_ms = 50_000;
    a.run("UPDATE notes SET title = 'held back' WHERE id = 'x'");
    assert!(a.holds_back());
    b.lead_ms = 25_000;
    b.run("UPDATE notes SET title = 'of b' WHERE id = 'y'").sync(&mut hub);
    // Its clock is put back. It has not heard of the other edit.
    a.lead_ms = 0;
    a.run("UPDATE notes SET title = 'after it' WHERE id = 'y'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let titles = agree(&mut [&mut a, &mut b], "SELECT title FROM notes ORDER BY id");
    assert_eq!(titles, [[text("held back")], [text("after it")]]);
}
