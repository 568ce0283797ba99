//! Unique keys of every kind, among few rows and few values.

use proptest::prelude::*;

use crate::cases::{steps, steps_after_old_rows};
use crate::pushes::{Step, config, play};

/// The numbers of the rows that each replica makes. An identity is seldom given twice.
const NUMBERS: usize = 60;

/// Definitions with two columns, `a` and `b`, of which something is unique.
fn keys() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        4 => Just(vec!["t(id INTEGER PRIMARY KEY, a UNIQUE, b, n)"]),
        3 => Just(vec!["t(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE, n)"]),
        3 => Just(vec!["t(id INTEGER PRIMARY KEY, a, b, n, UNIQUE(a, b))"]),
        2 => Just(vec!["t(id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE UNIQUE, b, n)"]),
        1 => Just(vec!["t(id INTEGER PRIMARY KEY, a, b, n)", "UNIQUE INDEX i ON t(lower(a))"]),
        2 => Just(vec!["t(id INTEGER PRIMARY KEY, a, b UNIQUE, n)", "UNIQUE INDEX i ON t(a) WHERE n > 1"]),
    ]
    .prop_map(|parts| {
        let kind = ["TABLE", ""];
        parts.iter().zip(kind).map(|(part, kind)| format!("CREATE {kind} {part}")).collect()
    })
}

/// A statement about one of few rows. A replica makes rows of its own, and changes any.
fn statement(who: usize) -> impl Strategy<Value = (u64, String)> {
    let value = || prop_oneof![1 => Just("NULL"), 4 => Just("'x'"), 4 => Just("'y'"), 3 => Just("'X'"), 2 => Just("'z'")];
    (0..14_u8, 0..NUMBERS, 0..4_usize, value(), value(), 0..4_i64, 1..4_u64).prop_map(
        move |(kind, at, any, a, b, n, later)| {
            let new = NUMBERS * who + at + 1;
            let any = format!("(SELECT id FROM t ORDER BY id LIMIT 1 OFFSET {any})");
            let statement = match kind {
                0..2 => format!("DELETE FROM t WHERE id = {any}"),
                2..4 => format!("UPDATE t SET a = {a} WHERE id = {any}"),
                4..5 => format!("UPDATE t SET b = {b} WHERE id = {any}"),
                5..6 => format!("UPDATE t SET n = {n} WHERE id = {any}"),
                6..7 => format!("UPDATE t SET a = {a}, b = {b} WHERE id = {any}"),
                7..8 => format!("UPDATE OR REPLACE t SET a = {a} WHERE a = {b}"),
                8..9 => format!("INSERT OR REPLACE INTO t VALUES({new}, {a}, {b}, {n})"),
                // One row hands its value on, and may have to take it back.
                9 => "UPDATE t SET a = '~' || a WHERE a IN ('x', 'y', 'z', 'X'); UPDATE t SET a = CASE a WHEN '~x' THEN 'y'
                      WHEN '~y' THEN 'z' WHEN '~z' THEN 'x' ELSE 'X' END WHERE a LIKE '~%'"
                    .to_owned(),
                10 => format!("UPDATE t SET a = {b} WHERE a = {a}; UPDATE t SET a = {a} WHERE id = {any}"),
                _ => format!("INSERT INTO t VALUES({new}, {a}, {b}, {n})"),
            };
            (later, statement)
        },
    )
}

fn old(who: usize) -> impl Strategy<Value = String> {
    let value = || prop::sample::select(vec!["NULL", "'x'", "'y'", "'X'"]);
    (0..NUMBERS, value(), value(), 0..4_i64).prop_map(move |(at, a, b, n)| {
        format!("INSERT INTO t VALUES({}, {a}, {b}, {n})", NUMBERS * who + at + 1)
    })
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<Step>)> {
    let steps = steps_after_old_rows(old, steps(statement, 5, 20));
    // Values that change hands among many rows come in several batches.
    let apart = prop::collection::vec(prop::bool::weighted(0.3), 40);
    let steps = (steps, apart).prop_map(|(steps, apart)| {
        let part = |(step, apart)| match step {
            Step::Push(who, statements) if apart => Step::PushApart(who, statements),
            step => step,
        };
        steps.into_iter().zip(apart.into_iter().cycle()).map(part).collect()
    });
    (keys(), steps)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn who_has_which_unique_key_follows_from_the_rules((schema, steps) in case()) {
        prop_assert_eq!(play(&schema, &steps), Ok(()));
    }
}

#[test]
fn a_row_whose_new_value_is_taken_has_its_former_one_back_before_an_older_row_takes_it() {
    let schema = ["CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)".to_owned()];
    let push = |who, statements: &[&str]| {
        Step::Push(who, statements.iter().map(|it| (1, (*it).to_owned())).collect())
    };
    let steps = [
        push(0, &["INSERT INTO t VALUES(1, 'older')", "INSERT INTO t VALUES(2, 'former')"]),
        push(1, &["INSERT INTO t VALUES(61, 'taken')"]),
        push(0, &["UPDATE t SET a = 'taken' WHERE id = 2", "UPDATE t SET a = 'former' WHERE id = 1"]),
    ];
    assert_eq!(play(&schema, &steps), Ok(()));
}

/// Breaks if rows that wait for each other in a circle wait for ever, because they come one after the other.
#[test]
fn values_that_go_round_arrive_also_in_several_batches() {
    let schema = ["CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b UNIQUE)".to_owned()];
    let rows = |who: usize, statements: &[&str]| {
        Step::PushApart(who, statements.iter().map(|it| (1, (*it).to_owned())).collect())
    };
    let steps = [
        rows(0, &["INSERT INTO t VALUES(1, 'x', 1), (2, 'y', 2), (3, 'z', 3)"]),
        Step::Pull(1),
        rows(
            1,
            &[
                "UPDATE t SET a = '~' || a, b = -b",
                "UPDATE t SET a = CASE a WHEN '~x' THEN 'y' WHEN '~y' THEN 'z' ELSE 'x' END, b = b + 4",
            ],
        ),
        Step::Pull(0),
    ];
    assert_eq!(play(&schema, &steps), Ok(()));
}

/// Breaks if a row that was withheld together with another one stays so when it leaves that one for a key which is free.
#[test]
fn a_row_that_leaves_a_union_is_asked_again() {
    let schema = ["CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE)".to_owned()];
    let push = |who, statements: &[(u64, &str)]| {
        Step::Push(who, statements.iter().map(|(later, it)| (*later, (*it).to_owned())).collect())
    };
    let steps = [
        push(0, &[(1, "INSERT INTO t VALUES(1, 'x')")]),
        Step::Pull(3),
        push(2, &[(1, "INSERT INTO t VALUES(129, 'x')"), (1, "INSERT INTO t VALUES(130, 'y')")]),
        push(0, &[(1, "INSERT OR REPLACE INTO t VALUES(2, 'x')")]),
        push(3, &[(1, "UPDATE t SET a = 'y' WHERE a = 'x'")]),
        push(2, &[(2, "UPDATE t SET a = 'z' WHERE id = 129"), (3, "INSERT INTO t VALUES(151, 'x')")]),
    ];
    assert_eq!(play(&schema, &steps), Ok(()));
}

/// Breaks if a row that another one was one with wants its key a round later than whoever it has left.
#[test]
fn a_row_that_is_left_as_a_circle_closes_has_its_key_before_the_circle_does() {
    let schema = ["CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b, n)".to_owned()];
    let old = |who, row: &str| Step::Old(who, vec![format!("INSERT INTO t VALUES({row}, NULL, 0)")]);
    let push = |who, statement: &str| Step::Push(who, vec![(1, statement.to_owned())]);
    let steps = [
        old(3, "181, 'x'"),
        old(0, "1, 'x'"),
        old(2, "121, 'X'"),
        push(2, "UPDATE OR REPLACE t SET a = 'x' WHERE a = 'X'"),
        push(3, "UPDATE t SET a = 'X' WHERE id = 181"),
    ];
    assert_eq!(play(&schema, &steps), Ok(()));
}
