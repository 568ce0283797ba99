//! Columns that have a merge rule, in rows that come, go, and become one.

use proptest::prelude::*;

use crate::cases::{one_of, steps, steps_after_old_rows};
use crate::pushes::{Step, config, play};

/// The numbers of the rows that each replica makes. An identity is seldom given twice.
const NUMBERS: usize = 60;

const SCHEMAS: [&str; 3] = [
    "t(id INTEGER PRIMARY KEY, a UNIQUE, uses, tags, best, least)",
    "t(id INTEGER PRIMARY KEY, a, uses DEFAULT 0, tags, best, least, UNIQUE(a, best))",
    "t(id INTEGER PRIMARY KEY, a, uses, tags, best, least)",
];

/// A new value for each of the columns, now and then of a kind that the rule makes nothing of.
fn values() -> impl Strategy<Value = [String; 4]> {
    let number = || prop_oneof![4 => (-2..5_i64).prop_map(|it| it.to_string()), 1 => Just("0.5".to_owned()), 1 => Just("NULL".to_owned())];
    let uses = prop_oneof![3 => number(), 6 => (1..4_i64).prop_map(|it| format!("uses + {it}")), 1 => Just("'x'".to_owned())];
    let set = ["'[]'", "'[1]'", "'[1,2]'", "'[\"a\",2]'", "'none'", "NULL"];
    (uses, prop::sample::select(set.to_vec()), number(), number())
        .prop_map(|(uses, tags, best, least)| [uses, tags.to_owned(), best, least])
}

fn statement(who: usize) -> impl Strategy<Value = (u64, String)> {
    let key = prop_oneof![Just("'x'"), Just("'y'"), Just("'z'"), Just("NULL")];
    (0..12_u8, 0..NUMBERS, 0..4_usize, key, values(), 1..4_u64).prop_map(
        move |(kind, at, any, a, [uses, tags, best, least], later)| {
            let new = NUMBERS * who + at + 1;
            let any = format!("(SELECT id FROM t ORDER BY id LIMIT 1 OFFSET {any})");
            let statement = match kind {
                0..2 => format!("DELETE FROM t WHERE id = {any}"),
                2..5 => format!("UPDATE t SET uses = {uses} WHERE id = {any}"),
                5 => format!("UPDATE t SET tags = {tags} WHERE id = {any}"),
                6 => format!("UPDATE t SET best = {best}, least = {least} WHERE id = {any}"),
                7 => format!("UPDATE t SET a = {a} WHERE id = {any}"),
                _ => {
                    let uses = uses.replace("uses +", "");
                    format!("INSERT INTO t VALUES({new}, {a}, {uses}, {tags}, {best}, {least})")
                }
            };
            (later, statement)
        },
    )
}

fn old(who: usize) -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec!["'x'", "'y'", "NULL"]);
    (0..NUMBERS, key, values()).prop_map(move |(at, a, [uses, tags, best, least])| {
        let (new, uses) = (NUMBERS * who + at + 1, uses.replace("uses +", ""));
        format!("INSERT INTO t VALUES({new}, {a}, {uses}, {tags}, {best}, {least})")
    })
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<Step>)> {
    (one_of(&SCHEMAS), steps_after_old_rows(old, steps(statement, 5, 20)))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_rules_make_of_rows_that_become_one_follows_from_all_that_was_done((schema, steps) in case()) {
        prop_assert_eq!(play(&schema, &steps), Ok(()));
    }
}

const ONE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, uses, tags, best, least)";

/// Breaks if what a rule made of a value that changed nothing is taken for somebody's work, once rows are one.
#[test]
fn a_delete_of_two_rows_that_are_one_is_in_conflict_with_neither_if_nothing_came_of_what_it_has_not_seen() {
    let steps = [
        Step::Push(0, vec![(1, "INSERT INTO t VALUES(9, 'x', 0, '[]', 0, 0)".into())]),
        Step::Push(1, vec![(1, "INSERT INTO t VALUES(61, 'x', 0, '[]', 0, 0)".into())]),
        Step::Pull(1),
        Step::Push(0, vec![(1, "UPDATE t SET best = NULL, least = 0.5".into())]),
        Step::Push(1, vec![(1, "DELETE FROM t".into())]),
    ];
    assert_eq!(play(&[ONE.into()], &steps), Ok(()));
}

/// Breaks if the stamp under which a sum is told, which is above all that was added, counts as one under which somebody
/// wrote.
#[test]
fn a_delete_that_is_later_than_all_that_was_added_is_later_than_the_sum() {
    let steps = [
        Step::Push(2, vec![(1, "INSERT INTO t VALUES(121, 'x', 0, '[]', 0, 0)".into())]),
        Step::Pull(3),
        Step::Pull(1),
        Step::Push(2, vec![(6, "UPDATE t SET uses = 1".into())]),
        Step::Push(3, vec![(2, "UPDATE t SET uses = uses + 2".into())]),
        Step::Push(1, vec![(7, "DELETE FROM t".into())]),
        Step::Pull(1),
    ];
    assert_eq!(play(&[ONE.into()], &steps), Ok(()));
}
