//! References by keys that applications choose: they mean the same row everywhere, also one that nobody has made yet.

use proptest::prelude::*;

use crate::cases::steps;
use crate::pushes::{Step, config, play, push};

fn clause() -> impl Strategy<Value = String> {
    let action = prop_oneof![
        4 => Just(" ON DELETE CASCADE"),
        3 => Just(" ON DELETE SET NULL"),
        2 => Just(" ON DELETE RESTRICT"),
        2 => Just(""),
    ];
    (prop::bool::weighted(0.3), action).prop_map(|(is_required, action)| {
        format!("{} REFERENCES p(k){action}", if is_required { " NOT NULL" } else { "" })
    })
}

fn schema() -> impl Strategy<Value = Vec<String>> {
    let collation = prop_oneof![3 => Just(""), 1 => Just(" COLLATE NOCASE")];
    (collation, clause(), clause()).prop_map(|(collation, one, other)| {
        vec![
            format!("CREATE TABLE p(k TEXT NOT NULL{collation} PRIMARY KEY, name)"),
            format!("CREATE TABLE c(id INTEGER PRIMARY KEY, name, one TEXT{one})"),
            format!("CREATE TABLE g(g TEXT NOT NULL PRIMARY KEY, name, one TEXT{other})"),
        ]
    })
}

/// A statement about one of few rows. References lead to whatever row has the key, if there is one.
fn statement() -> impl Strategy<Value = (u64, String)> {
    let key = || prop_oneof![4 => Just("'x'"), 4 => Just("'y'"), 1 => Just("'X'")];
    (0..14_u8, key(), key(), 1..4_i64, 0..3_i64, 1..4_u64).prop_map(|(kind, k, to, id, name, later)| {
        let to = format!("(SELECT k FROM p WHERE k = {to})");
        let statement = match kind {
            0..3 => format!("DELETE FROM p WHERE k = {k}"),
            3 => format!("DELETE FROM c WHERE id = {id}"),
            4 => format!("UPDATE p SET name = {name} WHERE k = {k}"),
            5 => format!("UPDATE c SET one = {to} WHERE id = {id}"),
            6 => format!("UPDATE g SET one = {to}, name = {name} WHERE g = {k}"),
            7..9 => format!("INSERT INTO c VALUES({id}, {name}, {to})"),
            9 => format!("INSERT INTO g VALUES({k}, {name}, {to})"),
            12 => format!("DELETE FROM c WHERE one = {k}; DELETE FROM p WHERE k = {k}"),
            13 => format!("PRAGMA foreign_keys = OFF; DELETE FROM p WHERE k = {k}; DELETE FROM c WHERE one = {k}; PRAGMA foreign_keys = ON"),
            _ => format!("INSERT INTO p VALUES({k}, {name})"),
        };
        (later, statement)
    })
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<Step>)> {
    (schema(), steps(|_| statement(), 6, 25))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_becomes_of_references_by_chosen_keys_follows_from_the_rules((schema, steps) in case()) {
        prop_assert_eq!(play(&schema, &steps), Ok(()));
    }
}

const PARENTS: &str = "CREATE TABLE p(k TEXT NOT NULL PRIMARY KEY, name)";

fn parts(on_delete: &str) -> Vec<String> {
    let children = format!(
        "CREATE TABLE c(id INTEGER PRIMARY KEY, name, one TEXT REFERENCES p(k) ON DELETE {on_delete})"
    );
    vec![PARENTS.to_owned(), children]
}

/// Breaks if a delete that is taken for what became of a parent takes along what somebody else has deleted by himself.
#[test]
fn a_child_that_two_have_deleted_does_not_come_back_with_its_parent() {
    for last in
        ["INSERT INTO p VALUES('x', 1)", "INSERT INTO p VALUES('x', 1); INSERT INTO c VALUES(1, 1, 'x')"]
    {
        let steps = [
            push(0, &[(1, "INSERT INTO p VALUES('x', 0)"), (1, "INSERT INTO c VALUES(1, 0, 'x')")]),
            Step::Pull(3),
            push(0, &[(1, "DELETE FROM c WHERE id = 1")]),
            push(3, &[(1, "DELETE FROM c WHERE id = 1")]),
            push(3, &[(3, "DELETE FROM p WHERE k = 'x'")]),
            push(2, &[(20, last)]),
        ];
        assert_eq!(play(&parts("CASCADE"), &steps), Ok(()));
    }
}

/// Breaks if nobody knows any more that a row was made again once another one's writes have won over all that its
/// maker wrote.
#[test]
fn a_reference_that_is_set_to_null_beside_a_parent_that_was_deleted_and_made_again_is_a_write() {
    let schema = [
        PARENTS.to_owned(),
        "CREATE TABLE g(g TEXT NOT NULL PRIMARY KEY, name, one TEXT REFERENCES p(k) ON DELETE SET NULL)"
            .to_owned(),
    ];
    let steps = [
        push(3, &[(1, "INSERT INTO p VALUES('x', 0)"), (1, "DELETE FROM p")]),
        push(3, &[(1, "INSERT INTO p VALUES('x', 1)"), (1, "INSERT INTO g VALUES('y', 2, 'x')")]),
        push(2, &[(9, "INSERT INTO p VALUES('x', 0)")]),
        push(3, &[(1, "UPDATE g SET one = NULL")]),
    ];
    assert_eq!(play(&schema, &steps), Ok(()));
}

/// Breaks if of a row that two batches of one push have deleted, and its parent, the first batch's delete stays.
#[test]
fn a_child_that_was_deleted_twice_before_its_parent_went_with_it() {
    let steps = [
        push(0, &[(1, "INSERT INTO c VALUES(1, 0, NULL)")]),
        push(1, &[(1, "INSERT INTO p VALUES('y', 0)"), (1, "INSERT INTO c VALUES(1, 0, 'y')")]),
        push(1, &[(1, "DELETE FROM c")]),
        push(1, &[(1, "INSERT INTO c VALUES(1, 0, NULL)"), (1, "DELETE FROM c"), (1, "DELETE FROM p")]),
        push(0, &[(2, "DELETE FROM c")]),
    ];
    assert_eq!(play(&parts("CASCADE"), &steps), Ok(()));
}

/// Breaks if a delete is looked at again in a batch that has nothing to do with it: somebody else may have referenced
/// the parent in that row since.
#[test]
fn a_row_that_was_deleted_by_itself_stays_that_when_somebody_references_the_parent_in_it() {
    let mut schema = parts("CASCADE");
    schema.push(
        "CREATE TABLE g(g TEXT NOT NULL PRIMARY KEY, one TEXT REFERENCES p(k) ON DELETE RESTRICT)".into(),
    );
    let steps = [
        push(0, &[(4, "INSERT INTO g VALUES('y', NULL)"), (1, "INSERT INTO p VALUES('y', 0)")]),
        push(1, &[(1, "INSERT INTO c VALUES(3, 0, NULL)")]),
        Step::Pull(1),
        push(1, &[(1, "DELETE FROM c WHERE id = 3"), (1, "DELETE FROM p WHERE k = 'y'")]),
        push(0, &[(1, "INSERT INTO c VALUES(3, 0, 'y')")]),
        push(0, &[(1, "UPDATE g SET one = 'y'")]),
        push(1, &[(1, "INSERT INTO c VALUES(1, 0, NULL)")]),
    ];
    assert_eq!(play(&schema, &steps), Ok(()));
}

/// Breaks if hub and model remember different deletes of a row that three have deleted.
#[test]
fn of_three_deletes_of_a_parent_two_are_remembered() {
    let steps = [
        push(2, &[(1, "INSERT INTO p VALUES('x', 0)")]),
        Step::Pull(0),
        push(1, &[(1, "INSERT INTO p VALUES('x', 0)"), (1, "DELETE FROM p")]),
        push(0, &[(1, "DELETE FROM p")]),
        push(2, &[(1, "DELETE FROM p")]),
        push(1, &[(1, "INSERT INTO p VALUES('x', 0)"), (1, "INSERT INTO c VALUES(1, 0, 'x')")]),
        push(0, &[(7, "INSERT INTO c VALUES(1, 1, NULL)")]),
    ];
    assert_eq!(play(&parts("SET NULL"), &steps), Ok(()));
}
