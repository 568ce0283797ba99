//! Foreign keys of every kind, among few rows.

use proptest::prelude::*;

use crate::cases::steps;
use crate::pushes::{Step, config, play};

/// The rows of each table.
const ROWS: u8 = 3;

fn clauses() -> impl Strategy<Value = String> {
    let action = prop_oneof![
        4 => Just(" ON DELETE CASCADE"),
        3 => Just(" ON DELETE SET NULL"),
        1 => Just(" ON DELETE SET DEFAULT"),
        2 => Just(" ON DELETE RESTRICT"),
        2 => Just(""),
    ];
    (prop::bool::weighted(0.3), prop_oneof!["p", "c"], action).prop_map(|(is_required, parent, action)| {
        let required = if is_required { " NOT NULL" } else { "" };
        format!("INTEGER{required} REFERENCES {parent}(id){action}")
    })
}

fn schema() -> impl Strategy<Value = Vec<String>> {
    prop::array::uniform3(clauses()).prop_map(|[one, other, last]| {
        vec![
            "CREATE TABLE p(id INTEGER PRIMARY KEY, name)".to_owned(),
            format!("CREATE TABLE c(id INTEGER PRIMARY KEY, name, one {one}, other {other})"),
            format!("CREATE TABLE g(id INTEGER PRIMARY KEY, name, one {last})"),
        ]
    })
}

/// A statement about one of few rows. References lead to whatever row has the number, if there is one.
fn statement() -> impl Strategy<Value = (u64, String)> {
    let name = 0..3_i64;
    (0_usize..3, 0..ROWS, 0..12_u8, name, prop::array::uniform2(0..=ROWS), 1..4_u64).prop_map(
        |(table, at, kind, name, to, later)| {
            let row = 10 * table + usize::from(at) + 1;
            let to = to.map(|at| match at {
                0 => "NULL".to_owned(),
                at => format!("(SELECT {at} + id / 10 * 10 FROM (SELECT id FROM p UNION SELECT id FROM c) WHERE id % 10 = {at})"),
            });
            let table = ["p", "c", "g"][table];
            let (columns, values) = match table {
                "p" => ("name", vec![name.to_string()]),
                "c" => ("name, one, other", vec![name.to_string(), to[0].clone(), to[1].clone()]),
                _ => ("name, one", vec![name.to_string(), to[0].clone()]),
            };
            let statement = match kind {
                0..3 => format!("DELETE FROM {table} WHERE id = {row}"),
                3..5 => format!("UPDATE {table} SET name = {name} WHERE id = {row}"),
                5..7 => {
                    format!("UPDATE {table} SET ({columns}) = (SELECT {}) WHERE id = {row}", values.join(", "))
                }
                // Children that are deleted themselves, before their parent or, without enforcement, behind it.
                10 => format!(
                    "DELETE FROM c WHERE one = {row}; DELETE FROM g WHERE one = {row}; DELETE FROM {table} WHERE id = {row}"
                ),
                11 => format!(
                    "PRAGMA foreign_keys = OFF; DELETE FROM {table} WHERE id = {row}; DELETE FROM c WHERE one = {row}; \
                     UPDATE g SET one = NULL WHERE one = {row}; PRAGMA foreign_keys = ON"
                ),
                _ => format!("INSERT INTO {table}(id, {columns}) VALUES({row}, {})", values.join(", ")),
            };
            (later, statement)
        },
    )
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<Step>)> {
    (schema(), steps(|_| statement(), 6, 25))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_foreign_keys_make_of_rows_follows_from_the_rules((schema, steps) in case()) {
        prop_assert_eq!(play(&schema, &steps), Ok(()));
    }
}

/// Pushes and pulls of replicas, by what somebody would write down.
fn assert_agree(child: &str, steps: &[(usize, &[&str])]) {
    let schema = [
        "CREATE TABLE p(id INTEGER PRIMARY KEY, name)".to_owned(),
        format!("CREATE TABLE c(id INTEGER PRIMARY KEY, name, p INTEGER REFERENCES {child})"),
    ];
    let step = |(who, statements): &(usize, &[&str])| match statements {
        [] => Step::Pull(*who),
        _ => Step::Push(*who, statements.iter().map(|it| (1, (*it).to_owned())).collect()),
    };
    let steps: Vec<Step> = steps.iter().map(step).collect();
    assert_eq!(play(&schema, &steps), Ok(()), "{child}");
}

const FAMILY: &[&str] = &["INSERT INTO p VALUES(1, 'p')", "INSERT INTO c VALUES(11, 'c', 1)"];

#[test]
fn a_row_that_references_itself_can_be_deleted() {
    assert_agree(
        "c(id) ON DELETE CASCADE",
        &[(0, &["INSERT INTO c VALUES(11, 'c', 11)"]), (0, &["DELETE FROM c"])],
    );
}

#[test]
fn a_parent_that_an_edit_brings_back_brings_its_children_back() {
    let late = &["UPDATE p SET name = 1", "UPDATE p SET name = 2", "UPDATE p SET name = 3"];
    assert_agree("p(id) ON DELETE CASCADE", &[(0, FAMILY), (1, &[]), (1, late), (0, &["DELETE FROM p"])]);
    assert_agree("p(id) ON DELETE SET NULL", &[(0, FAMILY), (1, &[]), (1, late), (0, &["DELETE FROM p"])]);
}

#[test]
fn a_child_that_somebody_deleted_stays_deleted_when_its_parent_comes_back() {
    let late = &["UPDATE p SET name = 1", "UPDATE p SET name = 2", "UPDATE p SET name = 3"];
    let steps: &[(usize, &[&str])] = &[
        (0, FAMILY),
        (1, &[]),
        (2, &[]),
        (2, &["DELETE FROM c"]),
        (0, &["UPDATE p SET name = 4", "DELETE FROM p"]),
        (1, late),
    ];
    assert_agree("p(id) ON DELETE CASCADE", steps);
}

#[test]
fn a_reference_that_a_delete_cut_is_no_write() {
    let steps: &[(usize, &[&str])] = &[
        (0, FAMILY),
        (1, &[]),
        (2, &[]),
        (0, &["DELETE FROM p"]),
        (1, &["INSERT INTO p VALUES(2, 'other')", "UPDATE c SET p = 2"]),
        (2, &["DELETE FROM p"]),
    ];
    assert_agree("p(id) ON DELETE SET NULL", steps);
}

#[test]
fn a_delete_in_its_own_right_of_a_row_that_somebody_gave_a_parent_which_goes_as_well() {
    let steps: &[(usize, &[&str])] = &[
        (0, &["INSERT INTO c VALUES(11, 'c', NULL)"]),
        (0, &["INSERT INTO c VALUES(13, 'c', NULL)"]),
        (1, &[]),
        (2, &[]),
        (0, &["DELETE FROM c WHERE id = 11"]),
        (1, &["UPDATE c SET p = 11 WHERE id = 13"]),
        (2, &["DELETE FROM c WHERE id = 13", "DELETE FROM c WHERE id = 11"]),
    ];
    assert_agree("c(id) ON DELETE CASCADE", steps);
}

#[test]
fn a_delete_that_an_earlier_batch_brought_is_its_parents_as_well() {
    let steps: &[(usize, &[&str])] = &[
        (2, &["INSERT INTO c VALUES(12, 'c', NULL)", "INSERT INTO c VALUES(13, 'g', NULL)"]),
        (3, &[]),
        (3, &["DELETE FROM c WHERE id = 13"]),
        (2, &["UPDATE c SET p = 12 WHERE id = 13"]),
        (3, &["DELETE FROM c WHERE id = 12"]),
        (2, &["DELETE FROM c WHERE id = 12", "INSERT INTO c VALUES(13, 'again', NULL)"]),
    ];
    for clause in ["CASCADE", "SET NULL", "RESTRICT"] {
        assert_agree(&format!("c(id) ON DELETE {clause}"), steps);
    }
}

#[test]
fn a_reference_that_was_cut_before_its_parent_was_deleted_is_a_write() {
    let steps: &[(usize, &[&str])] = &[
        (0, FAMILY),
        (0, &["UPDATE c SET p = NULL"]),
        (0, &["DELETE FROM p"]),
        (0, &["INSERT INTO p VALUES(1, 'again')"]),
    ];
    assert_agree("p(id) ON DELETE SET NULL", steps);
}
