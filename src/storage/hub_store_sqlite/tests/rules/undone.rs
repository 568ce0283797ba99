//! What foreign keys did where a parent was deleted, told apart from what its author wrote.

use super::*;

const PARENTS: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, name)";

/// Parents 1 and 4, and a child 2 of the first, which both agents have.
fn family(clause: &str) -> (Site, Pusher, Pusher) {
    let child = format!(
        "CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id) ON DELETE {clause}, name)"
    );
    let refusing = "CREATE TABLE r(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id))";
    let (mut site, mut alice, mut bob) = Site::new(&[(PARENTS, &[]), (&child, &[]), (refusing, &[])]);
    let child = ("c", 2, Some(vec![("p", at(1)), ("name", t("c"))]));
    site.push(&mut alice, &[parent(1, "p"), parent(4, "other"), child]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    (site, alice, bob)
}

fn parent(row: u8, name: &str) -> Edit<'_> {
    ("p", row, Some(vec![("name", t(name))]))
}

/// Several things that are done to one row: its table, the row, and each with its time in milliseconds.
type Deeds<'a> = (&'a str, u8, &'a [(i64, Op)]);

fn batch(who: &Pusher, rows: &[Deeds<'_>]) -> BatchBody {
    let mut body = BatchBody::default();
    for (table, (name, row, ops)) in (0..).zip(rows) {
        let columns = if *name == "c" { vec!["name".into(), "p".into()] } else { vec!["name".into()] };
        body.tables.push(TableHeader { name: (*name).into(), columns });
        let writes = ops.iter().flat_map(|(ms, op)| who.write(*ms, op.clone())).collect();
        let (id, number) = (RowId([*row; 16]), Some(i64::from(*row)));
        body.rows.push(RowChange { table, id, number, is_new: true, writes });
    }
    body
}

impl Site {
    /// Pushes batches within one sync.
    fn push_batches(&mut self, who: &mut Pusher, batches: &[&[Deeds<'_>]]) {
        let counter = who.last.0 + 1;
        for rows in batches {
            let mut request = who.request(batch(who, rows));
            request.counter = counter;
            who.last = (request.n, request.digest);
            self.store.push(&who.caller, request, NOW_MS).unwrap();
            self.store.commit().unwrap();
        }
    }
}

fn name(value: &str) -> Op {
    Op::Set(vec![(0, t(value))])
}

#[test]
fn what_was_written_before_the_delete_comes_back_with_the_row() {
    // A stamp that a delete shares with an edit is no sign of a row that was made again.
    for deleted_at in [10, 11] {
        let (mut site, mut alice, mut bob) = family("CASCADE");
        let ops = [(10, name("edited")), (deleted_at, Op::Delete)];
        let gone = [(10, name("edited")), (deleted_at, Op::Gone)];
        let body = batch(&alice, &[("p", 1, &ops), ("c", 2, &gone)]);
        alice.push(&mut site.store, body);
        assert_eq!(site.rows(), [4]);
        site.ms = 20;
        site.push(&mut bob, &[parent(1, "bob's")]);
        let view = site.view();
        assert_eq!(cell(&view, 1, "name"), Some(t("bob's")));
        assert_eq!(cell(&view, 2, "name"), Some(t("edited")));
    }
}

#[test]
fn a_parent_that_was_made_again_does_not_bring_its_children_back() {
    let (mut site, mut alice, _) = family("CASCADE");
    let made_again = [(10, Op::Delete), (11, name("again"))];
    let body = batch(&alice, &[("p", 1, &made_again), ("c", 2, &[(10, Op::Gone)])]);
    alice.push(&mut site.store, body);
    assert_eq!(site.rows(), [1, 4]);
}

#[test]
fn what_was_written_beside_a_reference_that_was_cut_stays() {
    let (mut site, mut alice, mut bob) = family("SET NULL");
    // The columns of a batch of these rows are the name and the reference.
    let child = [(9, name("edited")), (10, Op::Cut(vec![(1, null())]))];
    let mut body = batch(&alice, &[("c", 2, &child), ("p", 1, &[(10, Op::Delete)])]);
    // The hub has the row, and this edits it.
    body.rows[0].is_new = false;
    alice.push(&mut site.store, body);
    site.ms = 20;
    site.push(&mut bob, &[parent(1, "bob's")]);
    let view = site.view();
    assert_eq!((cell(&view, 2, "p"), cell(&view, 2, "name")), (Some(at(1)), Some(t("edited"))));
}

#[test]
fn a_child_that_was_given_another_parent_first_was_not_cut_loose() {
    let (mut site, mut alice, _) = family("SET NULL");
    site.push(&mut alice, &[("c", 2, Some(vec![("p", at(4))])), deleted("p", 1)]);
    assert_eq!(cell(&site.view(), 2, "p"), Some(at(4)));
}

#[test]
fn a_child_that_is_deleted_after_its_parent_was_kept_has_not_gone_with_it() {
    let (mut site, mut alice, mut bob) = family("CASCADE");
    site.push(&mut bob, &[("r", 3, Some(vec![("p", at(1))]))]);
    site.push_with_effects(&mut alice, &[deleted("p", 1), deleted("c", 2)], &[2]);
    assert_eq!(site.rows(), [1, 2, 3, 4], "what refuses keeps the parent, and that its child");
    site.pull(&mut alice);
    site.push(&mut alice, &[deleted("c", 2)]);
    assert_eq!(site.rows(), [1, 3, 4]);
}

#[test]
fn what_was_deleted_itself_stays_that_whatever_else_the_push_deletes() {
    let (child, parents) =
        (&[("c", 2, &[(10, Op::Delete)][..])][..], &[("p", 1, &[(10, Op::Delete)][..])][..]);
    for batches in [[child, parents], [parents, child]] {
        let (mut site, mut alice, mut bob) = family("CASCADE");
        site.push_batches(&mut alice, &batches);
        assert_eq!(site.rows(), [4]);
        site.ms = 20;
        site.push(&mut bob, &[parent(1, "bob's")]);
        assert_eq!(site.rows(), [1, 4]);
    }
}

/// Breaks if a mark is believed whatever the hub knows: the row referenced something else for a while.
#[test]
fn what_went_with_a_row_that_it_did_not_reference_as_far_as_the_hub_knows_is_deleted() {
    let (mut site, mut alice, mut bob) = family("CASCADE");
    site.push_with_effects(&mut alice, &[deleted("p", 4), deleted("c", 2)], &[2]);
    assert_eq!(site.rows(), [1]);
    site.push(&mut bob, &[parent(4, "bob's")]);
    assert_eq!(site.rows(), [1, 4]);
}

#[test]
fn a_child_that_was_given_another_parent_keeps_it_whatever_else_of_it_is_null() {
    let (mut site, mut alice, _) = family("SET NULL");
    let moved = ("c", 2, Some(vec![("p", at(4)), ("name", null())]));
    site.push_with_effects(&mut alice, &[moved, deleted("p", 1)], &[2]);
    let view = site.view();
    assert_eq!((cell(&view, 2, "p"), cell(&view, 2, "name")), (Some(at(4)), Some(null())));
}

#[test]
fn a_parent_that_somebodys_edit_has_kept_keeps_what_went_with_it_in_a_later_batch() {
    let (mut site, mut alice, mut bob) = family("CASCADE");
    site.ms = 20;
    site.push(&mut bob, &[parent(1, "bob's")]);
    site.push_batches(&mut alice, &[&[("p", 1, &[(10, Op::Delete)])], &[("c", 2, &[(10, Op::Gone)])]]);
    assert_eq!(site.rows(), [1, 2, 4]);
}

#[test]
fn an_edit_of_a_parent_in_the_push_that_deletes_it_does_not_part_it_from_its_children() {
    let (mut site, mut alice, mut bob) = family("CASCADE");
    let parents: &[&[Deeds<'_>]] = &[
        &[("p", 1, &[(10, name("edited"))])],
        &[("p", 1, &[(11, Op::Delete)])],
        &[("c", 2, &[(11, Op::Gone)])],
    ];
    site.push_batches(&mut alice, parents);
    assert_eq!(site.rows(), [4]);
    site.ms = 20;
    site.push(&mut bob, &[parent(1, "bob's")]);
    assert_eq!(site.rows(), [1, 2, 4]);
}

#[test]
fn a_child_that_is_deleted_after_its_parent_was_made_again_stays_deleted() {
    let (mut site, mut alice, _) = family("CASCADE");
    let batches: &[&[Deeds<'_>]] = &[
        &[("p", 1, &[(10, Op::Delete)])],
        &[("p", 1, &[(11, name("again"))])],
        &[("c", 2, &[(12, Op::Gone)])],
    ];
    site.push_batches(&mut alice, batches);
    assert_eq!(site.rows(), [1, 4]);
}

#[test]
fn a_delete_of_an_earlier_push_that_an_edit_outlived_takes_no_child_of_this_one_with_it() {
    let (mut site, mut alice, mut bob) = family("CASCADE");
    site.ms = 20;
    site.push(&mut bob, &[parent(4, "bob's")]);
    site.ms = 10;
    site.push(&mut alice, &[deleted("p", 4)]);
    site.pull(&mut alice);
    let moved = Op::Set(vec![(1, at(4))]);
    site.push_batches(&mut alice, &[&[("c", 2, &[(30, moved)])], &[("c", 2, &[(31, Op::Gone)])]]);
    assert_eq!(site.rows(), [1, 4]);
}
