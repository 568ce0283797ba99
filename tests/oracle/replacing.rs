//! Rows that are stored by REPLACE, by DELETE and INSERT, or by UPSERT: the same thing, made again and again.

use proptest::prelude::*;

use crate::cases::steps;
use crate::pushes::{Step, config, play, push};

/// The numbers of the rows that each replica makes. An identity is seldom given twice.
const NUMBERS: usize = 60;

/// Tables whose rows are known by `k`, or by `k` and `l`, and hold `v` and `w`.
const SCHEMAS: [&str; 4] = [
    "t(id INTEGER PRIMARY KEY, k UNIQUE, l, v, w)",
    "t(id INTEGER PRIMARY KEY, k, l, v, w, UNIQUE(k, l))",
    "t(id TEXT NOT NULL PRIMARY KEY, k, l, v, w, UNIQUE(k, l))",
    "t(id TEXT NOT NULL PRIMARY KEY, k UNIQUE, l UNIQUE, v, w)",
];

/// A statement that stores something; `is_text` says what ids are. Few texts are used, and often again.
fn statement(who: usize, is_text: bool) -> impl Strategy<Value = (u64, String)> {
    let key = || prop_oneof![6 => Just("'x'"), 3 => Just("'y'"), 1 => Just("NULL")];
    (0..16_u8, 0..NUMBERS, 0..4_usize, key(), key(), 0..9_i64, 1..4_u64).prop_map(
        move |(kind, at, any, k, l, v, later)| {
            let id = if is_text {
                format!("'{}'", ["a", "b", "c", "d", "e"][at % 5])
            } else {
                (NUMBERS * who + at + 1).to_string()
            };
            let row = format!("({id}, {k}, {l}, {v}, {v})");
            let any = format!("rowid = (SELECT rowid FROM t ORDER BY id LIMIT 1 OFFSET {any})");
            let statement = match kind {
                0 => format!("DELETE FROM t WHERE {any}"),
                1 => "DELETE FROM t".to_owned(),
                2..4 => format!("UPDATE t SET v = {v} WHERE {any}"),
                4 => format!("UPDATE t SET k = {k} WHERE {any}"),
                5 => format!("UPDATE OR REPLACE t SET k = {k}, l = {l} WHERE {any}"),
                6..9 => format!("DELETE FROM t WHERE k = {k}; INSERT OR IGNORE INTO t VALUES{row}"),
                9..11 => format!("INSERT INTO t VALUES{row} ON CONFLICT DO UPDATE SET w = {v}"),
                _ => format!("REPLACE INTO t VALUES{row}"),
            };
            (later, statement)
        },
    )
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<Step>)> {
    prop::sample::select(SCHEMAS.to_vec()).prop_flat_map(|table| {
        let is_text = table.contains("TEXT");
        let steps = steps(move |who| statement(who, is_text), 4, 24);
        steps.prop_map(move |steps| (vec![format!("CREATE TABLE {table}")], steps))
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_becomes_of_rows_that_are_replaced_follows_from_the_rules((schema, steps) in case()) {
        prop_assert_eq!(play(&schema, &steps), Ok(()));
    }
}

/// Breaks if the row that somebody deleted with all that was one with it is brought back by what he had not seen of it.
#[test]
fn an_edit_that_is_older_than_a_delete_of_the_one_row_brings_no_part_of_it_back() {
    let schema = ["CREATE TABLE t(id INTEGER PRIMARY KEY, k UNIQUE, l, v, w)".to_owned()];
    let steps = [
        push(0, &[(1, "INSERT INTO t VALUES(1, 'x', 0, 0, 0)")]),
        Step::Pull(2),
        push(1, &[(2, "INSERT INTO t VALUES(61, 'x', 0, 1, 1)")]),
        push(0, &[(2, "DELETE FROM t")]),
        Step::Pull(3),
        push(3, &[(5, "DELETE FROM t")]),
        push(2, &[(4, "UPDATE t SET v = 4")]),
    ];
    assert_eq!(play(&schema, &steps), Ok(()));
}
