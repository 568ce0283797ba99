//! Foreign keys.

use super::*;

/// Tables for a parent, a child and a grandchild.
fn family(child: &str, grandchild: &str) -> (Site, Pusher, Pusher) {
    let child = format!("CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id) {child})");
    let grandchild =
        format!("CREATE TABLE g(id INTEGER PRIMARY KEY, c INTEGER REFERENCES c(id) {grandchild})");
    let p = "CREATE TABLE p(id INTEGER PRIMARY KEY, name)";
    let (mut site, mut alice, mut bob) = Site::new(&[(p, &[]), (&child, &[]), (&grandchild, &[])]);
    site.push(&mut alice, &[("p", 1, Some(vec![("name", t("p"))])), of("c", 2, "p", 1)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    (site, alice, bob)
}

fn of<'a>(table: &'a str, row: u8, column: &'a str, parent: u8) -> Edit<'a> {
    (table, row, Some(vec![(column, at(parent))]))
}

#[test]
fn a_child_of_a_parent_that_was_deleted_meanwhile_goes_by_its_clause() {
    let cases: [(&str, &[u8]); 5] = [
        ("ON DELETE CASCADE", &[]),
        ("ON DELETE SET NULL", &[2, 3]),
        ("ON DELETE SET DEFAULT", &[2, 3]),
        ("ON DELETE RESTRICT", &[1, 2, 3]),
        ("", &[1, 2, 3]),
    ];
    for (clause, left) in cases {
        let (mut site, mut alice, mut bob) = family(clause, "");
        let ack = site.push(&mut alice, &[deleted("p", 1)]);
        let late = site.push(&mut bob, &[of("c", 3, "p", 1)]);
        assert_eq!(site.rows(), left, "{clause}");
        assert_eq!((ack.conflicts, late.conflicts), (0, 0), "what is derived is no conflict");
        if left.len() == 2 {
            assert_eq!(cell(&site.view(), 3, "p"), Some(null()));
        }
        if left.len() == 3 {
            let told = alice.pull(&mut site.store, &[]);
            assert!(told.updates.iter().any(|u| u.id.0[0] == 1 && u.whole), "the deleter gets it back whole");
        }
    }
}

#[test]
fn what_cannot_be_null_dies_with_its_parent() {
    let (mut site, mut alice, mut bob) = Site::new(&[
        ("CREATE TABLE p(id INTEGER PRIMARY KEY, name)", &[]),
        (
            "CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER NOT NULL REFERENCES p(id) ON DELETE SET NULL)",
            &[],
        ),
    ]);
    site.push(&mut alice, &[("p", 1, Some(vec![("name", t("p"))]))]);
    site.pull(&mut bob);
    site.push(&mut alice, &[deleted("p", 1)]);
    site.push(&mut bob, &[of("c", 2, "p", 1)]);
    assert_eq!(site.rows(), [] as [u8; 0]);
}

/// A grandchild that refuses keeps the child, which cannot be without the parent.
#[test]
fn a_refusal_below_a_cascade_keeps_the_whole_line() {
    let (mut site, mut alice, mut bob) = family("ON DELETE CASCADE", "ON DELETE RESTRICT");
    site.push_with_effects(&mut alice, &[deleted("p", 1), deleted("c", 2)], &[2]);
    site.push(&mut bob, &[of("g", 3, "c", 2)]);
    assert_eq!(site.rows(), [1, 2, 3]);
    site.pull(&mut bob);
    site.push(&mut bob, &[deleted("g", 3)]);
    assert_eq!(site.rows(), [] as [u8; 0], "and when it goes, so do they");
}

#[test]
fn what_a_cascade_took_comes_back_with_the_parent() {
    let (mut site, mut alice, mut bob) = family("ON DELETE CASCADE", "");
    let ack = site.push_with_effects(&mut alice, &[deleted("c", 2), deleted("p", 1)], &[2]);
    assert_eq!((site.rows(), ack.conflicts), (vec![], 0));
    site.push(&mut bob, &[("p", 1, Some(vec![("name", t("edited"))]))]);
    assert_eq!(site.rows(), [1, 2], "the edit wins, and its cascaded children are back");
    let told = alice.pull(&mut site.store, &[]);
    assert!(told.updates.iter().any(|u| u.id.0[0] == 2 && u.whole), "{told:?}");
}

#[test]
fn what_was_cut_loose_is_tied_again_with_the_parent() {
    let (mut site, mut alice, mut bob) = family("ON DELETE SET NULL", "");
    let cut = ("c", 2, Some(vec![("p", null())]));
    site.push_with_effects(&mut alice, &[cut, deleted("p", 1)], &[2]);
    assert_eq!(cell(&site.view(), 2, "p"), Some(null()));
    site.push(&mut bob, &[("p", 1, Some(vec![("name", t("edited"))]))]);
    assert_eq!(cell(&site.view(), 2, "p"), Some(at(1)));
}

#[test]
fn circles_live_and_die_together() {
    let a = "CREATE TABLE a(id INTEGER PRIMARY KEY, b INTEGER REFERENCES b(id) ON DELETE CASCADE)";
    let b = "CREATE TABLE b(id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id) ON DELETE CASCADE)";
    let (mut site, mut alice, mut bob) = Site::new(&[(a, &[]), (b, &[])]);
    site.push(&mut alice, &[of("a", 1, "b", 2), of("b", 2, "a", 1)]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut bob, &[of("a", 3, "b", 2)]);
    assert_eq!(site.rows(), [1, 2, 3]);
    site.push(&mut alice, &[deleted("a", 1)]);
    assert_eq!(site.rows(), [] as [u8; 0]);
}

#[test]
fn a_reference_by_key_follows_a_row_whose_key_was_changed() {
    let (mut site, mut alice, mut bob) = Site::new(&[
        ("CREATE TABLE s(name TEXT PRIMARY KEY, x)", &[]),
        ("CREATE TABLE e(id INTEGER PRIMARY KEY, s TEXT REFERENCES s(name) ON DELETE CASCADE)", &[]),
    ]);
    let id = natural_row_id("s", [&t("old")]);
    let change = |who: &Pusher, ms, op| BatchBody {
        tables: vec![TableHeader { name: "s".into(), columns: vec!["name".into()] }],
        rows: vec![RowChange { table: 0, id, number: None, is_new: true, writes: who.write(ms, op) }],
        ..BatchBody::default()
    };
    let body = change(&alice, 1, Op::Set(vec![(0, t("old"))]));
    alice.push(&mut site.store, body);
    site.pull(&mut alice);
    site.pull(&mut bob);
    let body = change(&alice, 2, Op::Set(vec![(0, t("new"))]));
    alice.push(&mut site.store, body);
    site.push(&mut bob, &[("e", 1, Some(vec![("s", t("old"))]))]);
    assert_eq!(cell(&site.view(), 1, "s"), Some(t("new")));
    site.pull(&mut alice);
    let body = change(&alice, 3, Op::Delete);
    alice.push(&mut site.store, body);
    assert_eq!(cell(&site.view(), 1, "s"), None, "and dies with it");
}

#[test]
fn what_lived_by_a_reference_alone_goes_when_that_means_another_row() {
    for elsewhere in [at(4), null()] {
        let (mut site, mut alice, mut bob) = family("ON DELETE RESTRICT", "");
        site.push(&mut alice, &[("p", 4, Some(vec![("name", t("other"))])), deleted("p", 1)]);
        assert_eq!(site.rows(), [1, 2, 4]);
        site.pull(&mut bob);
        site.push(&mut bob, &[("c", 2, Some(vec![("p", elsewhere)]))]);
        assert_eq!(site.rows(), [2, 4]);
    }
}

#[test]
fn a_circle_is_kept_by_a_reference_from_outside() {
    let a = "CREATE TABLE a(id INTEGER PRIMARY KEY, b INTEGER REFERENCES b(id))";
    let b = "CREATE TABLE b(id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id))";
    let (mut site, mut alice, mut bob) = Site::new(&[(a, &[]), (b, &[])]);
    site.push(&mut alice, &[of("a", 1, "b", 2), of("b", 2, "a", 1)]);
    site.pull(&mut alice);
    site.push(&mut bob, &[of("a", 3, "b", 2)]);
    site.push(&mut alice, &[deleted("a", 1), deleted("b", 2)]);
    assert_eq!(site.rows(), [1, 2, 3]);
    site.pull(&mut bob);
    site.push(&mut bob, &[deleted("a", 3)]);
    assert_eq!(site.rows(), [] as [u8; 0], "dead rows keep nobody");
}

/// Breaks if SET NULL takes a column's default, or SET DEFAULT none.
#[test]
fn set_null_and_set_default_replace_a_reference_by_what_they_say() {
    let child = |action: &str| {
        format!(
            "CREATE TABLE c(id INTEGER PRIMARY KEY, s TEXT DEFAULT 'none' REFERENCES skills(name) ON DELETE {action})"
        )
    };
    for (action, shown) in [("SET NULL", null()), ("SET DEFAULT", t("none"))] {
        let child = child(action);
        let (mut site, mut alice, mut bob) = Site::new(&[(SKILLS, &[]), (&child, &[])]);
        site.push(&mut alice, &[skill(1, "retry", 0), skill(2, "none", 0)]);
        site.pull(&mut alice);
        site.pull(&mut bob);
        site.push(&mut alice, &[deleted("skills", 1)]);
        site.push(&mut bob, &[("c", 3, Some(vec![("s", t("retry"))]))]);
        assert_eq!(cell(&site.view(), 3, "s"), Some(shown), "{action}");
    }
}
