//! Which rows are united, under which identity, and which part again.

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
fn a_row_that_comes_back_stands_for_the_younger_one_with_its_key() {
    let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[])]);
    let mut dave = third(&mut site);
    site.push(&mut alice, &[skill(1, "retry", 5)]);
    site.pull(&mut alice);
    site.pull(&mut dave);
    site.push(&mut alice, &[deleted("skills", 1)]);
    site.push(&mut bob, &[skill(2, "retry", 7)]);
    assert_eq!(site.rows(), [2]);
    site.push(&mut dave, &[("skills", 1, Some(vec![("uses", Value::Integer(9).into())]))]);
    assert_eq!(site.rows(), [1]);
    assert_eq!(cell(&site.view(), 1, "uses"), Some(Value::Integer(9).into()));
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
