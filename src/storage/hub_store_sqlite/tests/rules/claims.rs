//! What the store remembers of keys and references, so that it looks again at whoever is concerned.

use super::*;
use crate::protocol::limits::MAX_ACK_NOTICES;

const NAMED: &str =
    "CREATE TABLE named(id INTEGER PRIMARY KEY, skill TEXT REFERENCES skills(name) ON DELETE CASCADE)";
const PLACES: &str = "CREATE TABLE places(id INTEGER PRIMARY KEY, name)";
const SEATS: &str = "CREATE TABLE seats(id INTEGER PRIMARY KEY, \
                     place INTEGER REFERENCES places(id) ON DELETE CASCADE, name, UNIQUE(place, name))";

fn named(row: u8, skill: &str) -> Edit<'_> {
    ("named", row, Some(vec![("skill", t(skill))]))
}

fn place(row: u8) -> Edit<'static> {
    ("places", row, Some(vec![("name", t("p"))]))
}

fn seat(row: u8, place: u8, name: &str) -> Edit<'_> {
    ("seats", row, Some(vec![("place", at(place)), ("name", t(name))]))
}

impl Site {
    pub(super) fn count(&self, query: &str) -> i64 {
        self.store.conn.query_row(query, [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn a_reference_by_a_key_that_only_its_author_ever_saw_means_the_row() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (NAMED, &[])]);
    site.push(&mut alice, &[skill(1, "old", 0)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.ms = 100;
    site.push(&mut alice, &[renamed(1, "alice's")]);
    site.ms = 50;
    site.push(&mut bob, &[renamed(1, "bob's"), named(2, "bob's")]);
    let view = site.view();
    assert_eq!(cell(&view, 1, "name"), Some(t("alice's")), "the later rename wins");
    assert_eq!(cell(&view, 2, "skill"), Some(t("alice's")));
}

#[test]
fn a_reference_by_a_key_that_no_row_ever_had_is_left_as_it_is() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (NAMED, &[])]);
    site.push(&mut alice, &[skill(1, "a", 0)]);
    site.push(&mut bob, &[named(2, "to come")]);
    assert_eq!(cell(&site.view(), 2, "skill"), Some(t("to come")));
    site.push(&mut alice, &[renamed(1, "b"), skill(3, "to come", 0)]);
    assert_eq!(cell(&site.view(), 2, "skill"), Some(t("to come")));
    site.pull(&mut alice);
    site.push(&mut alice, &[renamed(3, "came")]);
    assert_eq!(cell(&site.view(), 2, "skill"), Some(t("came")), "from then on it means that row");
}

#[test]
fn a_row_that_fell_back_on_a_parent_goes_when_that_parent_goes() {
    let (mut site, mut alice, mut bob) = Site::new(&[(PLACES, &[]), (SEATS, &[])]);
    site.push(&mut alice, &[place(1), place(2), seat(3, 1, "x"), seat(4, 2, "y")]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[("seats", 4, Some(vec![("name", t("x"))]))]);
    site.push(&mut bob, &[("seats", 3, Some(vec![("place", at(2))]))]);
    assert_eq!(cell(&site.view(), 3, "place"), Some(at(1)), "the other place has an x");
    site.push(&mut alice, &[deleted("places", 1)]);
    assert_eq!(site.rows(), [2, 4]);
}

#[test]
fn who_has_its_key_waits_for_none() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "a", 0), skill(2, "b", 0)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[renamed(1, "c")]);
    site.push(&mut bob, &[renamed(2, "c")]);
    assert_eq!(site.count("SELECT count(*) FROM claim_wait"), 1);
    site.pull(&mut bob);
    site.push(&mut bob, &[renamed(2, "d")]);
    assert_eq!(site.count("SELECT count(*) FROM claim_wait"), 0);
}

#[test]
fn the_index_of_references_holds_no_former_ones() {
    let (mut site, mut alice, _) = Site::new(&[(PLACES, &[]), (SEATS, &[])]);
    site.push(&mut alice, &[place(1), place(2), seat(3, 1, "x")]);
    for place in [2, 1, 2] {
        site.push(&mut alice, &[seat(3, place, "x")]);
        assert_eq!(site.count("SELECT count(*) FROM link"), 1);
    }
}

#[test]
fn what_references_a_key_that_was_written_to_a_dead_row_goes_with_it() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (NAMED, &[])]);
    site.push(&mut alice, &[skill(1, "old", 0)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.ms = 100;
    site.push(&mut alice, &[deleted("skills", 1)]);
    site.ms = 50;
    site.push(&mut bob, &[renamed(1, "bob's"), named(2, "bob's")]);
    assert_eq!(site.rows(), [] as [u8; 0]);
}

#[test]
fn a_reference_by_a_former_key_means_the_row_that_takes_it_next() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (NAMED, &[])]);
    site.push(&mut alice, &[skill(1, "a", 0)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[renamed(1, "b")]);
    site.push(&mut bob, &[named(2, "a")]);
    assert_eq!(cell(&site.view(), 2, "skill"), Some(t("b")));
    site.push(&mut alice, &[skill(3, "a", 0)]);
    assert_eq!(cell(&site.view(), 2, "skill"), Some(t("a")));
}

#[test]
fn a_row_does_not_fall_back_on_a_parent_that_is_gone() {
    let (mut site, mut alice, mut bob) = Site::new(&[(PLACES, &[]), (SEATS, &[])]);
    site.push(&mut alice, &[place(1), place(2), seat(3, 1, "x"), seat(4, 2, "y")]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[("seats", 4, Some(vec![("name", t("x"))]))]);
    let move_out = [("seats", 3, Some(vec![("place", at(2))])), deleted("places", 1)];
    let ack = site.push(&mut bob, &move_out);
    assert!(ack.notices[0].contains("withheld"), "{:?}", ack.notices);
    assert_eq!(site.rows(), [2, 4]);
    site.push(&mut alice, &[deleted("seats", 4)]);
    assert_eq!(cell(&site.view(), 3, "place"), Some(at(2)), "it has what was written once that is free");
}

#[test]
fn a_row_that_references_itself_by_its_key_goes_on_doing_so() {
    let own = "CREATE TABLE own(id INTEGER PRIMARY KEY, name TEXT UNIQUE, me TEXT REFERENCES own(name))";
    let (mut site, mut alice, _) = Site::new(&[(own, &[])]);
    site.push(&mut alice, &[("own", 1, Some(vec![("name", t("a")), ("me", t("a"))]))]);
    site.pull(&mut alice);
    site.push(&mut alice, &[("own", 1, Some(vec![("name", t("b"))]))]);
    assert_eq!(cell(&site.view(), 1, "me"), Some(t("b")));
}

#[test]
fn the_same_is_told_once_however_many_rows_it_is_true_of() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "a", 0), skill(2, "b", 0)]);
    site.pull(&mut bob);
    let ack = site.push(&mut bob, &[skill(3, "a", 0), skill(4, "b", 0)]);
    assert_eq!(ack.notices.len(), 1, "{:?}", ack.notices);
}

#[test]
fn a_reference_by_a_former_key_goes_on_meaning_its_row_when_a_rename_to_it_has_lost() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (NAMED, &[])]);
    site.push(&mut alice, &[skill(1, "a", 0), skill(2, "x", 0)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[renamed(1, "b")]);
    site.ms = 100;
    site.push(&mut alice, &[renamed(2, "y")]);
    site.ms = 50;
    site.push(&mut bob, &[renamed(2, "a")]);
    site.push(&mut alice, &[named(3, "a")]);
    assert_eq!(cell(&site.view(), 3, "skill"), Some(t("b")));
}

#[test]
fn a_reference_to_its_own_key_is_cut_with_the_reference_that_the_key_is_made_of() {
    let own = "CREATE TABLE own(id INTEGER PRIMARY KEY, place INTEGER UNIQUE \
               REFERENCES places(id) ON DELETE SET NULL, me INTEGER REFERENCES own(place))";
    let places = "CREATE TABLE places(id INTEGER PRIMARY KEY, name UNIQUE)";
    let (mut site, mut alice, mut bob) = Site::new(&[(places, &[]), (own, &[])]);
    site.push(&mut alice, &[place(1)]);
    site.push(&mut bob, &[place(2), ("own", 3, Some(vec![("place", at(2)), ("me", at(2))]))]);
    assert_eq!(cell(&site.view(), 3, "me"), Some(at(1)), "the places are one");
    site.pull(&mut alice);
    site.push(&mut alice, &[deleted("places", 1)]);
    let view = site.view();
    assert_eq!((cell(&view, 3, "place"), cell(&view, 3, "me")), (Some(null()), Some(null())));
}

#[test]
fn no_more_is_told_of_one_batch_than_the_limit() {
    let names: Vec<String> = (0..=MAX_ACK_NOTICES).map(|at| format!("t{at}")).collect();
    let ddl: Vec<String> =
        names.iter().map(|name| format!("CREATE TABLE {name}(id INTEGER PRIMARY KEY, a UNIQUE)")).collect();
    let tables: Vec<(&str, &[&str])> = ddl.iter().map(|ddl| (ddl.as_str(), &[][..])).collect();
    let (mut site, mut alice, mut bob) = Site::new(&tables);
    let rows = |row| names.iter().map(|name| (name.as_str(), row, Some(vec![("a", t("same"))]))).collect();
    let (alices, bobs): (Vec<Edit<'_>>, Vec<Edit<'_>>) = (rows(1), rows(2));
    site.push(&mut alice, &alices);
    assert_eq!(site.push(&mut bob, &bobs).notices.len(), MAX_ACK_NOTICES);
}
