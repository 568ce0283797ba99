//! What is forgotten once the hub has forgotten it, and what is not.

use crate::identity::{NO_ROWS, settle};
use crate::retirement::upkeep;
use crate::world::{Fate, pair};
use federation_hub::model::Value;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";

/// Breaks if a delete that nobody knows of is forgotten with those that everybody knows of.
#[test]
fn a_delete_made_while_the_hub_tells_what_it_has_forgotten_is_sent() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'a'), ('y', 'a')");
    settle(&mut hub, &mut [&mut a, &mut b]);
    a.run("DELETE FROM notes WHERE id = 'x'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    upkeep(&mut hub, 0);
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("DELETE FROM notes WHERE id = 'y'");
    });
    assert_eq!(
        b.rows("SELECT count(*) FROM _federation_row"),
        [[Value::Integer(1)]],
        "it has buried the other one"
    );
    assert_eq!(b.sync(&mut hub).pushed, 1);
    a.sync(&mut hub);
    assert_eq!(a.rows("SELECT * FROM notes"), NO_ROWS);
}
