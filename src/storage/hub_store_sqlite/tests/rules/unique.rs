//! Unique keys.

use super::*;

#[test]
fn the_same_thing_written_twice_is_one_row_and_references_follow() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (LINKS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 5), skill(9, "other", 0), linked(11, 1, 1)]);
    let ack = site.push(&mut bob, &[skill(2, "retry", 7), linked(12, 2, 2)]);
    assert_eq!(ack.conflicts, 1, "`uses` was written twice");
    assert_eq!(ack.notices.len(), 2, "{:?}", ack.notices);
    let view = site.view();
    assert_eq!(site.rows(), [1, 9, 11], "the links were the same as well");
    assert_eq!(cell(&view, 1, "uses"), Some(Value::Integer(7).into()), "column by column, the later wins");
    assert_eq!(cell(&view, 11, "parent"), Some(at(1)));
    let told = bob.pull(&mut site.store, &[]);
    let united: Vec<_> = told.updates.iter().filter_map(|u| Some((u.id.0[0], u.united?.0[0]))).collect();
    assert_eq!(united, [(2, 1), (12, 11)]);
    let survivor = told.updates.iter().find(|update| update.id.0[0] == 1).unwrap();
    let loser = told.updates.iter().find(|update| update.id.0[0] == 2).unwrap();
    assert!(survivor.whole && loser.seq < survivor.seq);
    site.push(&mut bob, &[renamed(1, "again"), linked(13, 2, 9)]);
    assert_eq!(cell(&site.view(), 1, "name"), Some(t("again")), "who knows of the union renames both");
    assert_eq!(cell(&site.view(), 13, "parent"), Some(at(1)), "both identities stay known");
}

#[test]
fn an_operation_from_below_the_union_acts_on_its_authors_own_row() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    alice.cursor = 1;
    site.push(&mut bob, &[skill(2, "retry", 7)]);
    site.push(&mut alice, &[deleted("skills", 1)]);
    assert_eq!(site.rows(), [1], "the survivor is deleted, and Bob's row goes on under its identity");
    assert_eq!(cell(&site.view(), 1, "uses"), Some(Value::Integer(7).into()));

    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    alice.cursor = 1;
    site.push(&mut bob, &[skill(2, "retry", 7)]);
    site.push(&mut alice, &[renamed(1, "mine")]);
    let view = site.view();
    assert_eq!(cell(&view, 1, "name"), Some(t("mine")), "a change of the key dissolves the union");
    assert_eq!(cell(&view, 2, "name"), Some(t("retry")));
}

#[test]
fn a_rename_onto_a_taken_name_loses_until_the_name_is_free() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "a", 0), skill(2, "b", 0)]);
    site.pull(&mut bob);
    site.push(&mut alice, &[renamed(1, "c")]);
    let ack = site.push(&mut bob, &[renamed(2, "c")]);
    assert!(ack.notices[0].contains("keeps its former name"), "{:?}", ack.notices);
    let view = site.view();
    assert_eq!((cell(&view, 1, "name"), cell(&view, 2, "name")), (Some(t("c")), Some(t("b"))));
    let told = bob.pull(&mut site.store, &[]);
    assert!(told.cells.contains(&(RowId([2; 16]), "name".into(), t("b"))), "its author is told as well");
    site.push(&mut alice, &[deleted("skills", 1)]);
    assert_eq!(cell(&site.view(), 2, "name"), Some(t("c")), "what was written comes true");
}

#[test]
fn values_can_be_swapped_and_handed_on_in_one_push() {
    let (mut site, mut alice, _) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "a", 0), skill(2, "b", 0), skill(3, "c", 0)]);
    let ack = site.push(&mut alice, &[renamed(1, "b"), renamed(2, "a"), renamed(3, "d"), skill(4, "c", 0)]);
    assert_eq!(ack.notices, [] as [String; 0]);
    let view = site.view();
    let names: Vec<_> = (1..=4).filter_map(|row| cell(&view, row, "name")).collect();
    assert_eq!(names, [t("b"), t("a"), t("d"), t("c")]);
}

#[test]
fn values_that_change_places_in_several_pushes_end_as_they_were_written() {
    for order in [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [2, 4, 1, 5, 3]] {
        let (mut site, mut alice, _) = Site::new(&[(SKILLS, &[])]);
        let names = ["a", "b", "c", "d", "e"];
        for (row, name) in (1..).zip(names) {
            site.push(&mut alice, &[skill(row, name, 0)]);
        }
        for row in order {
            let name = names[usize::from(row) % names.len()];
            site.push(&mut alice, &[renamed(row, name)]);
        }
        let view = site.view();
        let got: Vec<_> = (1..=5).filter_map(|row| cell(&view, row, "name")).collect();
        assert_eq!(got, ["b", "c", "d", "e", "a"].map(t), "{order:?}");
        assert_eq!(site.count("SELECT count(*) FROM claim_wait"), 0);
    }
}

#[test]
fn a_row_whose_key_was_taken_by_a_rename_is_withheld_until_it_is_free() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "a", 0)]);
    site.push(&mut alice, &[renamed(1, "b")]);
    let ack = site.push(&mut bob, &[skill(2, "b", 0)]);
    assert!(ack.notices[0].contains("withheld"), "{:?}", ack.notices);
    assert_eq!(site.rows(), [1]);
    site.push(&mut alice, &[renamed(1, "c")]);
    assert_eq!(site.rows(), [1, 2]);
}

#[test]
fn a_row_that_two_survivors_claim_goes_with_the_first() {
    let two = "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE)";
    let row = |row: u8, a: &str, b: &str| ("t", row, Some(vec![("a", t(a)), ("b", t(b))]));
    let (mut site, mut alice, mut bob) = Site::new(&[(two, &[])]);
    site.push(&mut alice, &[row(1, "x", "p"), row(2, "y", "q")]);
    site.push(&mut bob, &[row(3, "x", "q")]);
    let view = site.view();
    assert_eq!(site.rows(), [1, 2]);
    assert_eq!(cell(&view, 1, "b"), Some(t("p")), "what was last accepted");
    assert_eq!(cell(&view, 2, "b"), Some(t("q")));
}

#[test]
fn keys_are_what_sqlite_takes_them_for() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, kind TEXT, gone INTEGER, \
                 UNIQUE(name, kind))";
    let indexes = ["CREATE UNIQUE INDEX one_each ON t(lower(trim(kind))) WHERE gone IS NULL"];
    let row = |row: u8, name: CellValue, kind: &str, gone: CellValue| {
        ("t", row, Some(vec![("name", name), ("kind", t(kind)), ("gone", gone)]))
    };
    let one = || CellValue::from(Value::Integer(1));
    let (mut site, mut alice, mut bob) = Site::new(&[(table, &indexes)]);
    site.push(&mut alice, &[row(1, t("Retry"), "a", one()), row(2, null(), "b", one())]);
    site.push(&mut bob, &[row(3, t("rETRY"), "a", one()), row(4, null(), "b", one())]);
    assert_eq!(site.rows(), [1, 2, 4], "NOCASE collides, NULL never does");
    site.push(&mut alice, &[row(5, t("p"), "Main ", null())]);
    site.push(&mut bob, &[row(6, t("q"), " main", null()), row(7, t("r"), "main", one())]);
    assert_eq!(site.rows(), [1, 2, 4, 5, 7], "an expression collides, but not outside of a partial index");
}

#[test]
fn an_index_that_comes_later_waits_for_whoever_declares_it_to_make_room() {
    let plain = "CREATE TABLE skills(id INTEGER PRIMARY KEY, name TEXT, uses)";
    let (mut site, mut alice, mut bob) = Site::new(&[(plain, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    site.push(&mut bob, &[skill(2, "retry", 7)]);
    assert_eq!(site.rows(), [1, 2]);
    bob.register(&mut site.store, vec![declared(plain, &["CREATE UNIQUE INDEX by_name ON skills(name)"])]);
    site.push(&mut bob, &[skill(3, "other", 0)]);
    site.push(&mut alice, &[skill(4, "other", 0), deleted("skills", 1)]);
    assert_eq!(site.rows(), [2, 3, 4], "nobody rules on it");
    site.push(&mut bob, &[deleted("skills", 3)]);
    site.push(&mut alice, &[skill(5, "retry", 0)]);
    assert_eq!(site.rows(), [2, 4]);
}
