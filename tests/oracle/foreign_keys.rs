//! Foreign keys of every kind, among few rows.

use federation_hub::model::{CellValue, RowId, Value};
use proptest::prelude::*;

use crate::pushes::{Edit, Step, play};

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

fn edit(schema: &[String]) -> impl Strategy<Value = Edit> + use<> {
    // Of which table the rows are that a column references.
    let parent = |table: &str, column: &str| {
        let text = schema.iter().find(|it| it.starts_with(&format!("CREATE TABLE {table}("))).unwrap();
        let clause = text.split(", ").find(|it| it.starts_with(column)).unwrap();
        (clause.contains("NOT NULL"), if clause.contains("REFERENCES p") { 0 } else { 10 })
    };
    let references = [parent("c", "one"), parent("c", "other"), parent("g", "one")];
    let row = |at: u8| -> CellValue { CellValue::Ref(RowId([at; 16])) };
    (0_usize..3, 0..ROWS, 0..10_u8, 0..3_i64, prop::array::uniform3(0..=ROWS), 1..4_u64).prop_map(
        move |(table, at, kind, name, to, later)| {
            let (name, table, row_at) = (Value::Integer(name).into(), ["p", "c", "g"][table], at);
            let reference = |which: usize| -> CellValue {
                let (is_required, first) = references[which];
                match to[which] {
                    ROWS if !is_required => Value::Null.into(),
                    to => row(first + to % ROWS),
                }
            };
            let row = row_at + 10 * ["p", "c", "g"].iter().position(|it| *it == table).unwrap() as u8;
            let cells = match (kind, table) {
                (0..3, _) => None,
                (3..5, _) => Some(vec![("name", name)]),
                (_, "c") => Some(vec![("name", name), ("one", reference(0)), ("other", reference(1))]),
                (_, "g") => Some(vec![("name", name), ("one", reference(2))]),
                _ => Some(vec![("name", name)]),
            };
            Edit { table, row, cells, later }
        },
    )
}

fn case() -> impl Strategy<Value = (Vec<String>, Vec<Step>)> {
    schema().prop_flat_map(|schema| {
        let batch = prop::collection::vec(edit(&schema), 1..4);
        let push = (0..4_usize, prop::collection::vec(batch, 1..2));
        let step = prop_oneof![
            3 => push.prop_map(|(who, batches)| Step::Push(who, batches)),
            2 => (0..4_usize).prop_map(Step::Pull),
        ];
        (Just(schema), prop::collection::vec(step, 1..25))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn what_foreign_keys_make_of_rows_follows_from_the_rules((schema, steps) in case()) {
        prop_assert_eq!(play(&schema, &steps), Ok(()));
    }
}
