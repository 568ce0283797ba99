//! Which keys are the same, as SQLite compares them.

use super::*;

const ANY: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE)";

fn integer(value: i64) -> CellValue {
    Value::Integer(value).into()
}

fn real(value: f64) -> CellValue {
    Value::Real(value).into()
}

fn holding(row: u8, value: &CellValue) -> Edit<'static> {
    ("t", row, Some(vec![("v", value.clone())]))
}

#[test]
fn numbers_are_the_same_key_by_what_they_are_worth() {
    let limit = 9_223_372_036_854_775_808.0;
    let same = [
        (integer(7), real(7.0)),
        (integer(0), real(-0.0)),
        (real(0.0), real(-0.0)),
        (integer(-3), real(-3.0)),
        (integer(i64::MIN), real(-limit)),
        (real(0.5), real(0.5)),
    ];
    for (one, other) in &same {
        let (mut site, mut alice, mut bob) = Site::new(&[(ANY, &[])]);
        site.push(&mut alice, &[holding(1, one)]);
        site.push(&mut bob, &[holding(2, other)]);
        assert_eq!(site.rows(), [1], "{one:?} and {other:?}");
    }
    let apart = [
        (integer(0), real(0.5)),
        (integer(1), real(1.5)),
        (integer(-1), real(-1.5)),
        (integer(i64::MAX), real(limit)),
        (integer(1), t("1")),
    ];
    for (one, other) in &apart {
        let (mut site, mut alice, mut bob) = Site::new(&[(ANY, &[])]);
        site.push(&mut alice, &[holding(1, one)]);
        site.push(&mut bob, &[holding(2, other)]);
        assert_eq!(site.rows(), [1, 2], "{one:?} and {other:?}");
    }
}

#[test]
fn a_row_is_in_a_partial_index_where_its_condition_is_no_zero() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, weight)";
    let index = ["CREATE UNIQUE INDEX weighty ON t(v) WHERE weight"];
    for (weight, left) in [
        (integer(2), &[1][..]),
        (real(0.5), &[1]),
        (integer(0), &[1, 2]),
        (real(0.0), &[1, 2]),
        (null(), &[1, 2]),
        (t("light"), &[1, 2]),
        (t("1 kg"), &[1]),
    ] {
        let (mut site, mut alice, mut bob) = Site::new(&[(table, &index)]);
        let row = |row| ("t", row, Some(vec![("v", t("x")), ("weight", weight.clone())]));
        site.push(&mut alice, &[row(1)]);
        site.push(&mut bob, &[row(2)]);
        assert_eq!(site.rows(), left, "{weight:?}");
    }
}

#[test]
fn an_expression_over_a_reference_tells_rows_apart() {
    let places = "CREATE TABLE places(id INTEGER PRIMARY KEY, name)";
    let seats = "CREATE TABLE seats(id INTEGER PRIMARY KEY, place INTEGER REFERENCES places(id))";
    let index = ["CREATE UNIQUE INDEX one_each ON seats(ifnull(place, 0))"];
    let place = |row| ("places", row, Some(vec![("name", t("p"))]));
    let seat = |row, place| ("seats", row, Some(vec![("place", at(place))]));
    let (mut site, mut alice, mut bob) = Site::new(&[(places, &[]), (seats, &index)]);
    site.push(&mut alice, &[place(1), place(2), seat(3, 1)]);
    site.push(&mut bob, &[seat(4, 2), seat(5, 1)]);
    assert_eq!(site.rows(), [1, 2, 3, 4]);
}

#[test]
fn a_reference_is_by_the_key_that_it_names() {
    let parent = "CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT, b TEXT, gone, UNIQUE(a, b))";
    let index = [
        "CREATE UNIQUE INDEX each_a ON p(a)",
        "CREATE UNIQUE INDEX each_b ON p(b)",
        "CREATE UNIQUE INDEX some ON p(b) WHERE gone IS NULL",
    ];
    let by_a = "CREATE TABLE by_a(id INTEGER PRIMARY KEY, p TEXT REFERENCES p(a))";
    let by_b = "CREATE TABLE by_b(id INTEGER PRIMARY KEY, p TEXT REFERENCES p(b))";
    let by_both = "CREATE TABLE by_both(id INTEGER PRIMARY KEY, p, q, FOREIGN KEY(p, q) REFERENCES p(a, b))";
    let tables: [(&str, &[&str]); 4] = [(parent, &index), (by_a, &[]), (by_b, &[]), (by_both, &[])];
    let (mut site, mut alice, mut bob) = Site::new(&tables);
    site.push(&mut alice, &[("p", 1, Some(vec![("a", t("a")), ("b", t("b"))]))]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[("p", 1, Some(vec![("a", t("new a")), ("b", t("new b"))]))]);
    let child = |table, row, value| (table, row, Some(vec![("p", t(value))]));
    site.push(&mut bob, &[child("by_a", 2, "a"), child("by_b", 3, "b")]);
    site.push(&mut bob, &[("by_both", 4, Some(vec![("p", t("a")), ("q", t("b"))]))]);
    let view = site.view();
    assert_eq!((cell(&view, 2, "p"), cell(&view, 3, "p")), (Some(t("new a")), Some(t("new b"))));
    assert_eq!((cell(&view, 4, "p"), cell(&view, 4, "q")), (Some(t("new a")), Some(t("new b"))));
}

/// Breaks if what SQLite does not take for a row's parent is taken for it here: the child would be told of, and wait on
/// every replica for ever.
#[test]
fn a_reference_is_by_the_key_that_compares_as_its_column_does() {
    let parent = "CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT, UNIQUE(a))";
    let child = "CREATE TABLE c(id INTEGER PRIMARY KEY, p TEXT REFERENCES p(a) ON DELETE CASCADE)";
    let index = ["CREATE UNIQUE INDEX whatever_its_case ON p(a COLLATE NOCASE)"];
    let (mut site, mut alice, mut bob) = Site::new(&[(parent, &index), (child, &[])]);
    let named = |row, name| ("p", row, Some(vec![("a", t(name))]));
    site.push(&mut alice, &[named(1, "A"), ("c", 2, Some(vec![("p", t("A"))]))]);
    site.pull(&mut bob);
    site.push(&mut bob, &[deleted("p", 1), named(3, "a")]);
    assert_eq!(site.rows(), [3]);
}

const PAIRS: &str = "CREATE TABLE p(id INTEGER PRIMARY KEY, a TEXT, b TEXT, UNIQUE(a, b))";
const BY_BOTH: &str =
    "CREATE TABLE by_both(id INTEGER PRIMARY KEY, p, q, FOREIGN KEY(p, q) REFERENCES p(a, b))";

fn pair(row: u8, a: &str, b: &str) -> Edit<'static> {
    ("p", row, Some(vec![("a", t(a)), ("b", t(b))]))
}

fn by_both(view: &View, row: u8) -> [Option<CellValue>; 2] {
    [cell(view, row, "p"), cell(view, row, "q")]
}

/// A child of which two agents have each written one half of another reference; and the one that was first.
fn halves() -> (Site, Pusher) {
    let (mut site, mut alice, mut bob) = Site::new(&[(PAIRS, &[]), (BY_BOTH, &[])]);
    let child = ("by_both", 4, Some(vec![("p", t("a")), ("q", t("x"))]));
    site.push(&mut alice, &[pair(1, "a", "x"), pair(2, "b", "x"), pair(3, "a", "y"), child]);
    site.pull(&mut alice);
    site.pull(&mut bob);
    site.push(&mut alice, &[("by_both", 4, Some(vec![("p", t("b"))]))]);
    site.push(&mut bob, &[("by_both", 4, Some(vec![("q", t("y"))]))]);
    (site, alice)
}

#[test]
fn halves_of_two_references_mean_what_one_of_them_meant() {
    let (mut site, _) = halves();
    assert_eq!(by_both(&site.view(), 4), [Some(t("b")), Some(t("x"))], "no row is (b, y)");
}

#[test]
fn a_reference_that_was_written_whole_is_left_as_it_is() {
    let (mut site, mut alice, _) = Site::new(&[(PAIRS, &[]), (BY_BOTH, &[])]);
    let child = |p, q| ("by_both", 4, Some(vec![("p", t(p)), ("q", t(q))]));
    site.push(&mut alice, &[pair(1, "a", "x"), child("a", "x")]);
    site.pull(&mut alice);
    site.push(&mut alice, &[child("to", "come")]);
    assert_eq!(by_both(&site.view(), 4), [Some(t("to")), Some(t("come"))]);
}

#[test]
fn a_reference_by_two_columns_is_by_no_key_over_one_of_them() {
    for index in ["CREATE UNIQUE INDEX aa ON p(a)", "CREATE UNIQUE INDEX zz ON p(a)"] {
        let (mut site, mut alice, mut bob) = Site::new(&[(PAIRS, &[index]), (BY_BOTH, &[])]);
        site.push(&mut alice, &[pair(1, "a", "x")]);
        site.pull(&mut alice);
        site.pull(&mut bob);
        site.push(&mut alice, &[("p", 1, Some(vec![("b", t("y"))]))]);
        site.push(&mut bob, &[("by_both", 4, Some(vec![("p", t("a")), ("q", t("x"))]))]);
        assert_eq!(by_both(&site.view(), 4), [Some(t("a")), Some(t("y"))], "{index}");
    }
}

/// Breaks if a reference that means no row goes on showing what it meant before, when there is one.
#[test]
fn halves_of_two_references_mean_the_row_that_comes_to_have_both() {
    let (mut site, mut alice) = halves();
    assert_eq!(by_both(&site.view(), 4), [Some(t("b")), Some(t("x"))], "no row is (b, y)");
    site.push(&mut alice, &[pair(5, "b", "y")]);
    assert_eq!(by_both(&site.view(), 4), [Some(t("b")), Some(t("y"))]);
}

/// What is left of two rows that were made apart, with values that differ in their case.
fn left_of(table: &str, index: &str, rest: &[(&'static str, CellValue)], bytes: usize) -> Vec<u8> {
    let (mut site, mut alice, mut bob) = Site::new(&[(table, &[index])]);
    let row = |row, letter: &str| {
        let mut cells = vec![("v", t(&letter.repeat(bytes)))];
        cells.extend_from_slice(rest);
        ("t", row, Some(cells))
    };
    site.push(&mut alice, &[row(1, "A")]);
    site.push(&mut bob, &[row(2, "a")]);
    site.rows()
}

#[test]
fn an_expression_is_evaluated_over_values_of_just_the_most_bytes() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
    let index = "CREATE UNIQUE INDEX whatever_its_case ON t(lower(v))";
    assert_eq!(left_of(table, index, &[], 16 << 10), [1]);
    assert_eq!(left_of(table, index, &[], (16 << 10) + 1), [1, 2], "replicas tell of it");
}

#[test]
fn an_expression_is_evaluated_if_it_takes_just_the_most_bytes() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
    let around = "SELECT CASE WHEN (1) THEN 1 END, (lower(v) || '') FROM \"t\"".len();
    let left = |bytes: usize| {
        let index = format!("CREATE UNIQUE INDEX padded ON t(lower(v) || '{}')", "x".repeat(bytes - around));
        left_of(table, &index, &[], 3)
    };
    assert_eq!(left(4 << 10), [1]);
    assert_eq!(left((4 << 10) + 1), [1, 2], "replicas tell of it");
}

/// Breaks if SQLite is given what no expression asks for and it does not take, or not what one does ask for.
#[test]
fn an_expression_is_evaluated_whatever_else_its_row_holds() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n INTEGER, body TEXT) STRICT";
    let index = "CREATE UNIQUE INDEX whatever_its_case ON t(lower(v))";
    let rest = [("n", integer(7)), ("body", t(&"long".repeat(100_000)))];
    assert_eq!(left_of(table, index, &rest, 3), [1]);
    let (mut site, mut alice, mut bob) = Site::new(&[(table, &[index])]);
    site.push(&mut alice, &[holding(1, &t(&"a".repeat(100)))]);
    site.push(&mut bob, &[holding(2, &t(&"b".repeat(100)))]);
    assert_eq!(site.rows(), [1, 2]);
}

/// Breaks if a row's key is unknown because another index of the tenant cannot hold the row: its agents have no such index.
#[test]
fn an_index_that_cannot_hold_a_row_keeps_no_other_one_from_it() {
    let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, body)";
    let index =
        ["CREATE UNIQUE INDEX lower_v ON t(lower(v))", "CREATE INDEX x ON t(json_extract(body, '$.x'))"];
    let (mut site, mut alice, mut bob) = Site::new(&[(table, &index)]);
    let row = |row, value| ("t", row, Some(vec![("v", t(value)), ("body", t("no JSON"))]));
    site.push(&mut alice, &[row(1, "retry")]);
    site.push(&mut bob, &[row(2, "Retry")]);
    assert_eq!(site.rows(), [1]);
}
