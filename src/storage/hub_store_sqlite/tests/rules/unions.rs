//! Which rows are united, under which identity, and which part again.

use super::super::retire::{count, upkeep};
use super::*;

const DAVE: ReplicaId = ReplicaId([0xda; 16]);

fn third(site: &mut Site) -> Pusher {
    Pusher::attach(&mut site.store, "acme", "dave", DAVE)
}

#[test]
fn who_had_seen_the_key_did_not_write_the_same_thing_twice() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    bob.pull(&mut site.store, &[]);
    let ack = site.push(&mut bob, &[skill(2, "retry", 7)]);
    assert!(ack.notices[0].contains("withheld"), "{:?}", ack.notices);
    assert_eq!(cell(&site.view(), 1, "uses"), Some(Value::Integer(5).into()));
}

#[test]
fn a_row_that_comes_back_goes_on_as_the_younger_one_with_its_key() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    let mut dave = third(&mut site);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    site.pull(&mut alice);
    site.pull(&mut dave);
    site.push(&mut alice, &[deleted("skills", 1)]);
    site.push(&mut bob, &[skill(2, "retry", 7)]);
    assert_eq!(site.rows(), [2]);
    site.push(&mut dave, &[("skills", 1, Some(vec![("uses", Value::Integer(9).into())]))]);
    assert_eq!(site.rows(), [2]);
    assert_eq!(cell(&site.view(), 2, "uses"), Some(Value::Integer(9).into()));
}

#[test]
fn one_of_three_united_rows_parts_with_its_key_and_the_others_stay_one() {
    for renamer in [2, 3] {
        let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
        let mut dave = third(&mut site);
        site.push(&mut alice, &[skill(1, "retry", 1)]);
        site.push(&mut bob, &[skill(2, "retry", 2)]);
        site.push(&mut dave, &[skill(3, "retry", 3)]);
        assert_eq!(site.rows(), [1]);
        let author = if renamer == 2 { &mut bob } else { &mut dave };
        site.push(author, &[renamed(renamer, "mine")]);
        let view = site.view();
        assert_eq!(site.rows(), [1, renamer]);
        assert_eq!(cell(&view, 1, "name"), Some(t("retry")));
        assert_eq!(cell(&view, 1, "uses"), Some(Value::Integer(5 - i64::from(renamer)).into()));
        assert_eq!(cell(&view, renamer, "name"), Some(t("mine")));
    }
}

#[test]
fn when_the_eldest_of_three_leaves_the_others_go_on_as_the_elder_of_them() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    let mut dave = third(&mut site);
    site.push(&mut alice, &[skill(1, "retry", 1)]);
    site.push(&mut bob, &[skill(2, "retry", 2)]);
    site.push(&mut dave, &[skill(3, "retry", 3)]);
    site.push(&mut alice, &[renamed(1, "mine")]);
    let view = site.view();
    assert_eq!(site.rows(), [1, 2]);
    assert_eq!((cell(&view, 1, "name"), cell(&view, 2, "name")), (Some(t("mine")), Some(t("retry"))));
    assert_eq!(cell(&view, 2, "uses"), Some(Value::Integer(3).into()));
}

#[test]
fn who_withdraws_its_row_gets_what_the_others_keep_whole_once() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    alice.cursor = 1;
    site.push(&mut bob, &[skill(2, "retry", 7)]);
    let since = bob.pull(&mut site.store, &[]).cursor;
    site.push(&mut alice, &[deleted("skills", 1)]);
    alice.cursor = since;
    let is_whole = |told: &Pulled| told.updates.iter().find(|it| it.id.0[0] == 1).map(|it| it.whole);
    let told = alice.pull(&mut site.store, &[]);
    assert_eq!(is_whole(&told), Some(true), "it has dropped the row");
    site.push(&mut bob, &[("skills", 1, Some(vec![("uses", Value::Integer(9).into())]))]);
    assert_eq!(is_whole(&alice.pull(&mut site.store, &[])), Some(false), "and has it by now");
}

#[test]
fn who_has_seen_just_the_union_writes_to_all_that_are_one() {
    for (seen, uses) in [(3, 7), (4, 9)] {
        let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
        site.push(&mut alice, &[skill(1, "retry", 5)]);
        site.push(&mut bob, &[skill(2, "retry", 7)]);
        // First came the table, then a row, then the other one, then the union.
        alice.cursor = seen;
        site.push(&mut alice, &[("skills", 1, Some(vec![("uses", Value::Integer(9).into())]))]);
        site.push(&mut bob, &[renamed(2, "mine")]);
        assert_eq!(cell(&site.view(), 2, "uses"), Some(Value::Integer(uses).into()), "{seen}");
    }
}

#[test]
fn who_knew_of_the_union_makes_a_new_row_of_the_former_identity() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    site.push(&mut bob, &[skill(2, "retry", 7)]);
    site.pull(&mut bob);
    let ack = site.push(&mut bob, &[skill(2, "retry", 9)]);
    assert!(ack.notices[0].contains("withheld"), "{:?}", ack.notices);
    site.push(&mut bob, &[renamed(1, "again")]);
    let view = site.view();
    assert_eq!((cell(&view, 1, "name"), cell(&view, 2, "name")), (Some(t("again")), Some(t("retry"))));
}

#[test]
fn what_a_row_leaves_behind_by_being_made_again_is_what_was_written_to_it() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    site.push(&mut bob, &[skill(2, "retry", 7)]);
    assert_eq!(cell(&site.view(), 1, "uses"), Some(Value::Integer(7).into()));
    site.pull(&mut bob);
    // Who knows that its row is another one by now has made a new row of that identity.
    site.push(&mut bob, &[skill(2, "retry", 9)]);
    assert_eq!(cell(&site.view(), 1, "uses"), Some(Value::Integer(5).into()));
}

/// Notes of several columns; one of them is a counter.
const NOTES: &str =
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, name TEXT UNIQUE, body, uses, n INTEGER UNIQUE)";

fn note(row: u8, body: &str, uses: i64) -> Edit<'_> {
    let uses = Value::Integer(uses).into();
    ("notes", row, Some(vec![("name", t("same")), ("body", t(body)), ("uses", uses)]))
}

fn notes() -> (Site, Pusher, Pusher) {
    let (mut site, alice, bob) = Site::new(&[]);
    let mut schema = declared(NOTES, &[]);
    schema.agreed.rules = vec![("uses".into(), Rule::Counter)];
    alice.register(&mut site.store, vec![schema]);
    (site, alice, bob)
}

#[test]
fn of_rows_that_become_one_the_cells_that_differ_and_can_lose_are_in_conflict() {
    for (body, conflicts) in [("of alice", 0), ("of bob", 1)] {
        let (mut site, mut alice, mut bob) = notes();
        site.push(&mut alice, &[note(1, "of alice", 1)]);
        assert_eq!(site.push(&mut bob, &[note(2, body, 2)]).conflicts, conflicts);
    }
}

#[test]
fn what_the_author_of_a_row_wrote_to_the_other_one_itself_is_in_no_conflict_with_it() {
    let (mut site, mut alice, mut bob) = notes();
    site.push(&mut alice, &[note(1, "of alice", 1)]);
    // It has the row, of a pull that is not over.
    site.push(&mut bob, &[("notes", 1, Some(vec![("body", t("edited"))]))]);
    assert_eq!(site.push(&mut bob, &[note(2, "of bob", 1)]).conflicts, 0);
}

#[test]
fn of_rows_that_become_one_what_was_there_before_every_write_is_in_conflict_with_its_like_only() {
    for (alices_ms, bobs_ms, conflicts) in [(0, 0, 1), (1, 0, 0), (0, 1, 1), (1, 1, 1)] {
        let (mut site, mut alice, mut bob) = notes();
        for (who, row, body, ms, conflicts) in
            [(&mut alice, 1, "of alice", alices_ms, 0), (&mut bob, 2, "of bob", bobs_ms, conflicts)]
        {
            let cells = [("name", text("same")), ("body", text(body))];
            let mut body = who.body("notes", ms, row, &cells);
            body.rows[0].number = Some(i64::from(row));
            if ms == 0 {
                body.rows[0].writes[0].stamp = Stamp::ZERO;
            }
            assert_eq!(who.push(&mut site.store, body).conflicts, conflicts, "{alices_ms} {bobs_ms}");
        }
    }
}

#[test]
fn a_new_row_that_one_which_was_withheld_turns_out_to_be_is_in_conflict_with_it() {
    let (mut site, mut alice, mut bob) = notes();
    let numbered = |row, name, n: i64, body| {
        ("notes", row, Some(vec![("name", t(name)), ("n", Value::Integer(n).into()), ("body", t(body))]))
    };
    site.push(&mut alice, &[numbered(1, "mine", 1, "a")]);
    site.push(&mut alice, &[("notes", 1, Some(vec![("name", t("taken"))]))]);
    site.push(&mut bob, &[numbered(2, "taken", 2, "of bob")]);
    assert_eq!(site.rows(), [1], "its name is taken");
    let freed = ("notes", 1, Some(vec![("name", t("other"))]));
    let new = ("notes", 3, Some(vec![("n", Value::Integer(2).into()), ("body", t("of alice"))]));
    let ack = site.push(&mut alice, &[freed, new]);
    assert_eq!((site.rows(), ack.conflicts), (vec![1, 3], 1));
}

#[test]
fn a_row_that_was_withheld_and_then_lost_its_parent_comes_back_with_it() {
    let parents = "CREATE TABLE p(id INTEGER PRIMARY KEY, name)";
    let children =
        "CREATE TABLE c(id INTEGER PRIMARY KEY, k UNIQUE, p INTEGER REFERENCES p(id) ON DELETE CASCADE)";
    let (mut site, mut alice, mut bob) = Site::new(&[(parents, &[]), (children, &[])]);
    site.push(&mut alice, &[("p", 1, Some(vec![("name", t("p"))])), ("c", 3, Some(vec![("k", t("mine"))]))]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[("c", 3, Some(vec![("k", t("taken"))]))]);
    site.push(&mut bob, &[("c", 2, Some(vec![("k", t("taken")), ("p", at(1))]))]);
    assert_eq!(site.rows(), [1, 3]);
    // What frees its key takes its parent.
    site.push(&mut alice, &[deleted("c", 3), deleted("p", 1)]);
    assert_eq!(site.rows(), [] as [u8; 0]);
    site.push(&mut bob, &[("p", 1, Some(vec![("name", t("edited"))]))]);
    assert_eq!(site.rows(), [1, 2]);
}

/// Breaks if the key that a row was written with is looked for where its parent's key is another one by now: the row is
/// then reported as withheld, before it is found to be one with the other.
#[test]
fn a_row_written_twice_is_no_loser_because_its_parent_was_renamed_with_it() {
    let (mut site, mut alice, mut bob) = Site::new(&[
        ("CREATE TABLE p(id INTEGER PRIMARY KEY, k TEXT UNIQUE)", &[]),
        ("CREATE TABLE c(id INTEGER PRIMARY KEY, one TEXT UNIQUE REFERENCES p(k))", &[]),
    ]);
    let parent = |k| ("p", 1, Some(vec![("k", t(k))]));
    let child = |row| ("c", row, Some(vec![("one", t("x"))]));
    site.push(&mut alice, &[parent("x"), child(11)]);
    let ack = site.push(&mut bob, &[parent("y"), child(12)]);
    assert!(
        matches!(&ack.notices[..], [notice] if notice.contains("made by another agent")),
        "{:?}",
        ack.notices
    );
    assert_eq!(cell(&site.view(), 11, "one"), Some(t("y")));
    assert_eq!(site.rows(), [1, 11]);
}

/// Breaks if rows that are one are merged by a rule that comes when they are there.
#[test]
fn a_rule_that_is_declared_later_changes_nothing_of_rows_that_are_one() {
    let skills = "CREATE TABLE skills(id INTEGER PRIMARY KEY, name TEXT UNIQUE, uses, best)";
    let (mut site, mut alice, mut bob) = Site::new(&[(skills, &[])]);
    let mut schema = declared(skills, &[]);
    schema.agreed.rules = vec![("best".into(), Rule::Max)];
    alice.register(&mut site.store, vec![schema.clone()]);
    site.push(&mut alice, &[skill(1, "retry", 3)]);
    site.push(&mut bob, &[skill(2, "retry", 4)]);
    assert_eq!(cell(&site.view(), 1, "uses"), Some(Value::Integer(4).into()));
    schema.agreed.rules.push(("uses".into(), Rule::Counter));
    alice.register(&mut site.store, vec![schema]);
    site.push(&mut bob, &[skill(9, "other", 1)]);
    assert_eq!(cell(&site.view(), 1, "uses"), Some(Value::Integer(4).into()));
}

/// Breaks if rows that are one keep each other from going.
#[test]
fn rows_that_are_one_are_collected_together() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 1)]);
    site.push(&mut bob, &[skill(2, "retry", 2)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[deleted("skills", 1)]);
    for _ in 0..2 {
        site.pull(&mut alice);
        site.pull(&mut bob);
    }
    upkeep(&mut site.store, 0, &[]);
    assert_eq!(count(&site.store, "row_state"), 0);
}

/// Breaks if what is kept of rows that are one stays for ever, if one that a replica has not heard of goes, or if folding
/// tells anything.
#[test]
fn rows_that_are_one_are_one_row_once_everybody_knows_it() {
    for is_deleted in [false, true] {
        let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
        site.push(&mut alice, &[skill(1, "retry", 1)]);
        site.pull(&mut alice);
        site.push(&mut bob, &[skill(2, "retry", 2)]);
        if is_deleted {
            site.push(&mut alice, &[deleted("skills", 1)]);
        }
        site.pull(&mut bob);
        upkeep(&mut site.store, 0, &[]);
        assert_eq!(count(&site.store, "row_state"), 2, "one has not heard of it");
        for _ in 0..2 {
            site.pull(&mut alice);
            site.pull(&mut bob);
        }
        upkeep(&mut site.store, 0, &[]);
        assert_eq!(count(&site.store, "row_state"), 1);
        assert!(bob.pull(&mut site.store, &[]).updates.is_empty());
        site.push(&mut alice, &[("skills", 1, Some(vec![("uses", Value::Integer(3).into())]))]);
        let view = site.view();
        assert_eq!(cell(&view, 1, "name"), Some(t("retry")));
        assert_eq!(cell(&view, 1, "uses"), Some(Value::Integer(3).into()));
        site.push(&mut bob, &[deleted("skills", 1)]);
        assert_eq!(site.rows(), [] as [u8; 0]);
    }
}

/// Breaks if a row that another one references by its own identity goes.
#[test]
fn a_row_that_is_one_with_another_stays_while_it_is_referenced() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (LINKS, &[])]);
    site.push(&mut alice, &[skill(1, "retry", 1)]);
    site.push(&mut bob, &[skill(2, "retry", 2), linked(12, 2, 2)]);
    for _ in 0..2 {
        site.pull(&mut alice);
        site.pull(&mut bob);
    }
    upkeep(&mut site.store, 0, &[]);
    assert_eq!(count(&site.store, "row_state"), 3);
    assert_eq!(cell(&site.view(), 12, "parent"), Some(at(1)));
}
