//! What a reference by a key shows, and keeps, where the key is another row's by now, or was to be.

use super::*;

const NAMED: &str =
    "CREATE TABLE named(id INTEGER PRIMARY KEY, skill TEXT REFERENCES skills(name) ON DELETE CASCADE)";

/// Breaks if a reference follows a key that is itself a reference only as far as that one has followed by then: nobody
/// looks at it again, because the row in between has had no key that it lets go of.
#[test]
fn a_reference_to_a_row_that_it_keeps_shows_the_key_that_this_row_follows() {
    let people = "CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT UNIQUE)";
    let members = "CREATE TABLE members(id INTEGER PRIMARY KEY, name TEXT UNIQUE REFERENCES people(name))";
    let notes = "CREATE TABLE notes(id INTEGER PRIMARY KEY, by TEXT REFERENCES members(name))";
    let (mut site, mut alice, mut bob) = Site::new(&[(people, &[]), (members, &[]), (notes, &[])]);
    let person = |name| ("people", 1, Some(vec![("name", t(name))]));
    let note = |by| ("notes", 2, Some(vec![("by", by)]));
    // The note comes first wherever rows are looked at in their order.
    site.push(&mut alice, &[person("p"), note(null()), ("members", 3, Some(vec![("name", t("p"))]))]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[deleted("members", 3)]);
    site.push(&mut alice, &[person("q")]);
    site.push(&mut bob, &[note(t("p"))]);
    let view = site.view();
    assert_eq!((cell(&view, 3, "name"), cell(&view, 2, "by")), (Some(t("q")), Some(t("q"))));
}

/// Breaks if a reference that came with the rename is not looked at again when the row has its former key back.
#[test]
fn a_reference_by_a_former_key_that_comes_with_a_rename_which_loses_shows_what_the_row_has() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (NAMED, &[])]);
    site.push(&mut alice, &[skill(1, "old", 0), skill(2, "taken", 0)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[renamed(1, "new")]);
    site.push(&mut bob, &[("named", 3, Some(vec![("skill", t("old"))])), renamed(1, "taken")]);
    let view = site.view();
    assert_eq!((cell(&view, 1, "name"), cell(&view, 3, "skill")), (Some(t("new")), Some(t("new"))));
}

/// Breaks if what was taken to mean a new row goes on meaning it when that is withheld.
#[test]
fn a_reference_follows_the_row_that_had_its_key_if_the_one_that_wants_it_is_withheld() {
    let coded = "CREATE TABLE coded(id INTEGER PRIMARY KEY, name TEXT UNIQUE, code TEXT UNIQUE)";
    let uses = "CREATE TABLE uses(id INTEGER PRIMARY KEY, of TEXT REFERENCES coded(name))";
    let (mut site, mut alice, _) = Site::new(&[(coded, &[]), (uses, &[])]);
    let row = |row, name, code| ("coded", row, Some(vec![("name", t(name)), ("code", t(code))]));
    let using = ("uses", 3, Some(vec![("of", t("former"))]));
    site.push(&mut alice, &[row(1, "former", "a"), row(2, "other", "b"), using]);
    site.pull(&mut alice);
    site.push(&mut alice, &[("coded", 1, Some(vec![("name", t("present"))]))]);
    assert_eq!(cell(&site.view(), 3, "of"), Some(t("present")));
    site.pull(&mut alice);
    // Its code is taken, and so it has no name either.
    site.push(&mut alice, &[row(4, "former", "b")]);
    assert_eq!(site.rows(), [1, 2, 3]);
    assert_eq!(cell(&site.view(), 3, "of"), Some(t("present")));
}

/// Breaks if whoever wants a key that a living row has is taken to have it: what keeps that row, and its group, alive
/// would let go of both.
#[test]
fn a_row_that_wants_a_taken_key_does_not_take_it_from_one_that_lives_by_its_references() {
    let groups = "CREATE TABLE groups(id INTEGER PRIMARY KEY, name)";
    let tags = "CREATE TABLE tags(id INTEGER PRIMARY KEY, name TEXT UNIQUE, \
                of INTEGER REFERENCES groups(id) ON DELETE CASCADE)";
    let notes = "CREATE TABLE notes(id INTEGER PRIMARY KEY, tag TEXT REFERENCES tags(name))";
    let (mut site, mut alice, mut bob) = Site::new(&[(groups, &[]), (tags, &[]), (notes, &[])]);
    let tag = ("tags", 2, Some(vec![("name", t("x")), ("of", at(1))]));
    site.push(&mut alice, &[("groups", 1, Some(vec![("name", t("g"))])), tag]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut bob, &[("notes", 3, Some(vec![("tag", t("x"))]))]);
    site.push(&mut alice, &[deleted("groups", 1)]);
    assert_eq!(site.rows(), [1, 2, 3], "the note keeps its tag, and that its group");
    site.pull(&mut bob);
    let ack = site.push(&mut bob, &[("tags", 4, Some(vec![("name", t("x"))]))]);
    assert!(ack.notices[0].contains("withheld"), "{:?}", ack.notices);
    assert_eq!(site.rows(), [1, 2, 3]);
}

/// Breaks if what a clause puts into a row's key counts as what the row was made with.
#[test]
fn a_row_whose_key_is_its_references_default_was_not_made_with_that_key() {
    let parents = "CREATE TABLE p(id INTEGER PRIMARY KEY, k TEXT UNIQUE)";
    let children = "CREATE TABLE c(id INTEGER PRIMARY KEY, \
                    p TEXT DEFAULT 'd' UNIQUE REFERENCES p(k) ON DELETE SET DEFAULT)";
    let (mut site, mut alice, mut bob) = Site::new(&[(parents, &[]), (children, &[])]);
    let parent = |row, k| ("p", row, Some(vec![("k", t(k))]));
    let child = |row, p| ("c", row, Some(vec![("p", t(p))]));
    site.push(&mut alice, &[parent(1, "x"), parent(2, "d"), child(3, "x")]);
    site.pull(&mut alice);
    site.push(&mut alice, &[deleted("p", 1)]);
    assert_eq!(cell(&site.view(), 3, "p"), Some(t("d")));
    let ack = site.push(&mut bob, &[child(4, "d")]);
    assert!(ack.notices[0].contains("withheld"), "{:?}", ack.notices);
    assert_eq!(site.rows(), [2, 3]);
}
