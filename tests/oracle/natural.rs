//! Keys that applications choose, and change: the same one chosen twice is one row, and to change it is an edit.

use proptest::prelude::*;

use crate::cases::{one_of, steps, steps_after_old_rows};
use crate::pushes::{Step, config, play};

const SCHEMAS: [&str; 5] = [
    "t(k TEXT NOT NULL PRIMARY KEY, a, n)",
    "t(k TEXT NOT NULL PRIMARY KEY, a UNIQUE, n)",
    "t(k TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, a, n)",
    "t(k TEXT NOT NULL, a NOT NULL, n, PRIMARY KEY(k, a))",
    "t(k TEXT NOT NULL, a NOT NULL, n UNIQUE, PRIMARY KEY(k, a))",
];

fn statement() -> impl Strategy<Value = (u64, String)> {
    let text = || prop_oneof![4 => Just("'x'"), 4 => Just("'y'"), 2 => Just("'X'"), 2 => Just("'z'")];
    (0..12_u8, 0..4_usize, text(), text(), 0..4_i64, 1..4_u64).prop_map(|(kind, any, k, a, n, later)| {
        let any = format!("rowid = (SELECT rowid FROM t ORDER BY k, a LIMIT 1 OFFSET {any})");
        let statement = match kind {
            0..2 => format!("DELETE FROM t WHERE {any}"),
            2..4 => format!("UPDATE t SET k = {k} WHERE {any}"),
            4 => format!("UPDATE t SET a = {a} WHERE {any}"),
            5 => format!("UPDATE t SET n = {n} WHERE {any}"),
            6 => format!("UPDATE OR REPLACE t SET k = {k}, n = {n} WHERE {any}"),
            7 => format!("UPDATE t SET k = 'w' WHERE k = {k}; UPDATE t SET k = {k} WHERE {any}"),
            8 => format!("INSERT OR REPLACE INTO t VALUES({k}, {a}, {n})"),
            _ => format!("INSERT INTO t VALUES({k}, {a}, {n})"),
        };
        (later, statement)
    })
}

fn old() -> impl Strategy<Value = String> {
    let text = || prop::sample::select(vec!["'x'", "'y'", "'X'"]);
    (text(), text(), 0..4_i64).prop_map(|(k, a, n)| format!("INSERT INTO t VALUES({k}, {a}, {n})"))
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<Step>)> {
    (one_of(&SCHEMAS), steps_after_old_rows(|_| old(), steps(|_| statement(), 5, 20)))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_becomes_of_chosen_keys_follows_from_the_rules((schema, steps) in case()) {
        prop_assert_eq!(play(&schema, &steps), Ok(()));
    }
}

#[test]
fn what_is_deleted_and_made_again_in_one_push_is_counted_once_each() {
    let schema = "CREATE TABLE t(k TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, a, n)".to_owned();
    let insert = |k: &str, n| format!("INSERT OR REPLACE INTO t VALUES('{k}', 'x', {n})");
    let steps = [
        Step::Push(0, vec![(2, insert("X", 0))]),
        Step::Push(1, vec![(1, insert("x", 0))]),
        Step::Pull(1),
        Step::Push(0, vec![(1, insert("x", 0))]),
        Step::Push(1, vec![(1, "DELETE FROM t".into()), (1, insert("x", 1))]),
    ];
    assert_eq!(play(&[schema], &steps), Ok(()));
}

/// Breaks if a row that waits for a value, and that another row leaves, has it before the one that was written.
#[test]
fn a_row_that_is_written_has_a_value_before_one_that_has_waited_for_it() {
    let schema = "CREATE TABLE t(k TEXT NOT NULL PRIMARY KEY, a UNIQUE, n)".to_owned();
    let insert = |k: &str, a: &str| format!("INSERT OR REPLACE INTO t VALUES('{k}', '{a}', 0)");
    let steps = [
        Step::Push(0, vec![(1, insert("z", "z"))]),
        Step::Push(0, vec![(1, insert("X", "y"))]),
        Step::Push(1, vec![(1, insert("y", "z")), (1, insert("z", "y"))]),
        Step::Pull(1),
        Step::Push(1, vec![(3, insert("y", "y"))]),
    ];
    assert_eq!(play(&[schema], &steps), Ok(()));
}

/// Breaks if a row that a new one leaves, and that shows its former key again, has that before the new one.
#[test]
fn a_row_that_is_made_anew_has_a_key_before_the_one_that_it_was_one_with() {
    let schema = "CREATE TABLE t(k TEXT NOT NULL PRIMARY KEY, a UNIQUE, n)".to_owned();
    let steps = [
        Step::Push(0, vec![(1, "INSERT INTO t VALUES('X', 'y', 0)".into())]),
        Step::Push(
            1,
            vec![(1, "INSERT INTO t VALUES('y', 'y', 0)".into()), (1, "UPDATE t SET k = 'w'".into())],
        ),
        Step::Pull(2),
        Step::Push(
            2,
            vec![
                (1, "INSERT INTO t VALUES('y', 'X', 0)".into()),
                (1, "UPDATE t SET k = 'X' WHERE k = 'y'".into()),
            ],
        ),
    ];
    assert_eq!(play(&[schema], &steps), Ok(()));
}

/// Breaks if a row that is made again beside others which it was one with is as old as it was before.
#[test]
fn a_row_that_is_made_again_is_new_whatever_its_delete_is_to() {
    let schema = "CREATE TABLE t(k TEXT NOT NULL, a NOT NULL, n UNIQUE, PRIMARY KEY(k, a))".to_owned();
    let insert = |values: &str| format!("INSERT OR REPLACE INTO t VALUES({values})");
    let steps = [
        Step::Old(2, vec!["INSERT INTO t VALUES('x', 'x', 3)".into()]),
        Step::Old(1, vec!["INSERT INTO t VALUES('X', 'y', 3)".into()]),
        Step::Old(3, vec!["INSERT INTO t VALUES('X', 'x', 0)".into()]),
        Step::Pull(0),
        Step::Pull(2),
        Step::Push(1, vec![(1, insert("'x', 'x', 1")), (1, insert("'x', 'y', 3"))]),
        Step::Push(
            0,
            vec![
                (
                    1,
                    "DELETE FROM t WHERE rowid = (SELECT rowid FROM t ORDER BY k, a LIMIT 1 OFFSET 1)".into(),
                ),
                (1, insert("'x', 'x', 3")),
            ],
        ),
    ];
    assert_eq!(play(&[schema], &steps), Ok(()));
}
