//! References by a key that is edited: they follow the row that had it, until another row has it.

use proptest::prelude::*;

use crate::cases::steps;
use crate::pushes::{Step, config, play, push};

fn schema() -> impl Strategy<Value = Vec<String>> {
    let action = || {
        prop_oneof![
            3 => Just(""),
            3 => Just(" ON DELETE CASCADE"),
            3 => Just(" ON DELETE SET NULL"),
            2 => Just(" ON UPDATE CASCADE"),
        ]
    };
    (action(), action()).prop_map(|(one, other)| {
        vec![
            "CREATE TABLE p(id INTEGER PRIMARY KEY, k TEXT UNIQUE, name)".to_owned(),
            format!("CREATE TABLE c(id INTEGER PRIMARY KEY, name, one TEXT REFERENCES p(k){one})"),
            format!("CREATE TABLE g(g TEXT NOT NULL PRIMARY KEY, name, one TEXT REFERENCES p(k){other})"),
        ]
    })
}

/// A statement about one of few rows. References lead to whatever row has the key, if there is one. Each replica numbers
/// its rows in a way of its own: no two make a row with one identity.
fn statement(who: usize) -> impl Strategy<Value = (u64, String)> {
    let key = || prop::sample::select(vec!["x", "y", "z"]);
    let strategy = (0..15_u8, key(), key(), 1..4_i64, 0..3_i64, 1..4_u64);
    strategy.prop_map(move |(kind, k, to, id, name, later)| {
        let reference = format!("(SELECT k FROM p WHERE k = '{to}')");
        let one = |table| format!("id = (SELECT max(id) FROM {table} WHERE id % 10 = {id})");
        let statement = match kind {
            0..2 => format!("DELETE FROM p WHERE {}", one("p")),
            2 => format!("DELETE FROM c WHERE {}", one("c")),
            3 => format!("UPDATE p SET name = {name} WHERE {}", one("p")),
            4..7 => format!("UPDATE p SET k = '{to}' WHERE {}", one("p")),
            7 => format!("UPDATE c SET one = {reference} WHERE {}", one("c")),
            8 => format!("UPDATE g SET one = {reference}, name = {name} WHERE g = '{k}'"),
            9..11 => format!("INSERT INTO c VALUES({who}{id}, {name}, {reference})"),
            11 => format!("INSERT INTO g VALUES('{k}', {name}, {reference})"),
            _ => format!("INSERT INTO p VALUES({who}{id}, '{k}', {name})"),
        };
        (later, statement)
    })
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<Step>)> {
    (schema(), steps(statement, 6, 25))
}

proptest! {
    #![proptest_config(config())]

    /// Breaks if nobody remembers who had a key, or if references do not show the key which that row has now.
    #[test]
    fn what_a_reference_means_follows_the_row_that_had_the_key((schema, steps) in case()) {
        prop_assert_eq!(play(&schema, &steps), Ok(()));
    }
}

fn tables(action: &str) -> Vec<String> {
    vec![
        "CREATE TABLE p(id INTEGER PRIMARY KEY, k TEXT UNIQUE, name)".to_owned(),
        format!("CREATE TABLE c(id INTEGER PRIMARY KEY, name, one TEXT REFERENCES p(k){action})"),
    ]
}

/// Breaks if a row that becomes one with another takes a key over from one that is dead, and kept by a reference, in
/// a batch that has decided that already.
#[test]
fn a_row_that_becomes_one_with_another_takes_no_key_over_from_one_that_is_kept() {
    let steps = [
        push(3, &[(5, "INSERT INTO p VALUES(31, 'y', 0)"), (3, "INSERT INTO c VALUES(31, 0, 'y')")]),
        push(2, &[(1, "INSERT INTO p VALUES(21, 'x', 0)")]),
        push(3, &[(1, "UPDATE p SET k = 'x'")]),
        push(2, &[(5, "DELETE FROM p"), (3, "INSERT INTO p VALUES(23, 'y', 1)")]),
    ];
    assert_eq!(play(&tables(" ON UPDATE CASCADE"), &steps), Ok(()));
}

/// Breaks if a new row takes the key of one that a row of its own batch brings to life again.
#[test]
fn a_row_that_is_brought_to_life_has_its_key_before_a_new_one() {
    let steps = [
        push(3, &[(1, "INSERT INTO p VALUES(33, 'z', 0)"), (1, "INSERT INTO c VALUES(33, 0, NULL)")]),
        Step::Pull(1),
        Step::Pull(0),
        push(0, &[(2, "DELETE FROM p")]),
        push(3, &[(1, "UPDATE p SET k = 'y'")]),
        push(1, &[(5, "UPDATE c SET one = 'z'"), (2, "INSERT INTO p VALUES(11, 'y', 2)")]),
    ];
    assert_eq!(play(&tables(""), &steps), Ok(()));
}

/// Breaks if a reference that a clause has cut in a row which was made again counts for what the row referenced before.
#[test]
fn a_reference_that_was_cut_in_a_row_that_is_made_again_is_no_reference() {
    let child = (1, "INSERT INTO c VALUES(21, 0, 'z')");
    let steps = [
        push(2, &[(1, "INSERT INTO p VALUES(23, 'z', 0)")]),
        push(2, &[child]),
        push(2, &[(1, "DELETE FROM c"), child, (1, "DELETE FROM p")]),
        push(1, &[(3, "INSERT INTO p VALUES(13, 'z', 1)")]),
    ];
    assert_eq!(play(&tables(" ON DELETE SET NULL"), &steps), Ok(()));
}
