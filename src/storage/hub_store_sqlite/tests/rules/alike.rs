//! Keys that the store cannot evaluate, and what replicas tell of them.

use super::*;
use crate::protocol::message::Collision;

const NOTES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, kind TEXT UNIQUE)";
const BY_SLUG: &str = "CREATE UNIQUE INDEX by_slug ON notes(slug(title))";

fn note(row: u8, title: &str) -> Edit<'static> {
    ("notes", row, Some(vec![("title", t(title))]))
}

impl Site {
    /// Has somebody tell that two rows collide, as of what it has merged.
    fn tell(&mut self, who: &mut Pusher, index: &str, rows: (u8, u8), base: Seq) {
        let rows = (RowId([rows.0; 16]), RowId([rows.1; 16]));
        let tables = vec![TableHeader { name: "notes".into(), columns: vec![] }];
        let collisions = vec![Collision { table: 0, index: index.into(), rows, base }];
        who.push(&mut self.store, BatchBody { tables, collisions, ..BatchBody::default() });
    }
}

#[test]
fn what_is_known_of_two_pairs_is_known_of_all_four_once_they_meet() {
    let (mut site, mut alice, mut bob) = Site::new(&[(NOTES, &[BY_SLUG])]);
    site.push(&mut alice, &[note(1, "One"), note(2, "Uno")]);
    site.push(&mut bob, &[note(3, "one"), note(4, "uno")]);
    assert_eq!(site.rows(), [1, 2, 3, 4]);
    site.tell(&mut alice, "by_slug", (1, 3), Seq::MAX);
    site.tell(&mut alice, "BY_SLUG", (4, 2), Seq::MAX);
    assert_eq!(site.rows(), [1, 2]);
    site.tell(&mut alice, "by_slug", (2, 1), Seq::MAX);
    assert_eq!(site.rows(), [1], "the second of one author is withheld");
    // Whatever was the key of any of them is the key of all.
    for (row, title) in [(5, "One"), (6, "Uno"), (7, "one"), (8, "uno")] {
        site.push(&mut bob, &[note(row, title)]);
        assert_eq!(site.rows().len(), 1, "{title}");
    }
    site.push(&mut bob, &[note(9, "another")]);
    assert_eq!(site.rows().len(), 2);
}

#[test]
fn nothing_is_believed_that_the_store_can_see_for_itself_or_that_is_past() {
    let (mut site, mut alice, mut bob) = Site::new(&[(NOTES, &[BY_SLUG])]);
    let of_kind = |row, kind| ("notes", row, Some(vec![("title", t("x")), ("kind", t(kind))]));
    site.push(&mut alice, &[of_kind(1, "a")]);
    site.push(&mut bob, &[of_kind(2, "b")]);
    site.pull(&mut alice);
    let seen = alice.cursor;
    site.tell(&mut alice, "sqlite_autoindex_notes_1", (1, 2), Seq::MAX);
    site.tell(&mut alice, "no_such_index", (1, 2), Seq::MAX);
    site.tell(&mut alice, "by_slug", (1, 1), Seq::MAX);
    site.tell(&mut alice, "by_slug", (1, 9), Seq::MAX);
    site.push(&mut bob, &[note(2, "y")]);
    site.tell(&mut alice, "by_slug", (1, 2), seen);
    assert_eq!(site.rows(), [1, 2]);
    site.tell(&mut alice, "by_slug", (1, 2), Seq::MAX);
    assert_eq!(site.rows(), [1]);
}

#[test]
fn a_row_that_is_said_to_collide_with_itself_is_like_no_other() {
    let (mut site, mut alice, mut bob) = Site::new(&[(NOTES, &[BY_SLUG])]);
    site.push(&mut alice, &[note(1, "One")]);
    site.tell(&mut alice, "by_slug", (1, 1), Seq::MAX);
    site.push(&mut bob, &[note(2, "One")]);
    assert_eq!(site.rows(), [1, 2]);
}

#[test]
fn nothing_is_believed_of_rows_that_are_gone() {
    let (mut site, mut alice, mut bob) = Site::new(&[(NOTES, &[BY_SLUG])]);
    site.push(&mut alice, &[note(1, "One")]);
    site.push(&mut bob, &[note(2, "one")]);
    site.push(&mut alice, &[deleted("notes", 1)]);
    site.tell(&mut bob, "by_slug", (1, 2), Seq::MAX);
    site.push(&mut alice, &[note(3, "One")]);
    assert_eq!(site.rows(), [2, 3]);
}

#[test]
fn who_waits_for_a_key_that_turns_out_to_be_another_one_gets_it_when_that_is_free() {
    let (mut site, mut alice, mut bob) = Site::new(&[(NOTES, &[BY_SLUG])]);
    site.push(&mut alice, &[note(1, "One"), note(2, "Uno"), note(6, "six")]);
    site.push(&mut bob, &[note(3, "one"), note(4, "uno")]);
    site.tell(&mut alice, "by_slug", (1, 3), Seq::MAX);
    site.tell(&mut alice, "by_slug", (2, 4), Seq::MAX);
    site.pull(&mut alice);
    site.push(&mut alice, &[note(6, "Uno")]);
    assert_eq!(cell(&site.view(), 6, "title"), Some(t("six")), "the name is taken");
    site.tell(&mut alice, "by_slug", (2, 1), Seq::MAX);
    site.pull(&mut alice);
    site.push(&mut alice, &[deleted("notes", 2), deleted("notes", 1)]);
    assert_eq!(site.rows(), [6]);
    assert_eq!(cell(&site.view(), 6, "title"), Some(t("Uno")));
}
