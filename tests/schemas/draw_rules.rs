//! Drawing columns that have a merge rule, and what else an application says of its tables.

use federation_hub::model::Rule;
use federation_hub::storage::choice::TableOptions;

use crate::dice::Dice;
use crate::schema::{Column, Pool, Schema, Table};

/// Gives some tables columns with rules.
pub fn add(dice: &mut Dice, schema: &mut Schema) {
    for table in &mut schema.tables {
        let choices: [(&str, &[&str], Pool); 4] = [
            // Not INTEGER: such a column turns a sum that is 0.0 into 0.
            ("uses", &["DEFAULT 0", "NOT NULL DEFAULT 0", "REAL", ""], Pool::Sum),
            ("best", &["", "INTEGER", "REAL DEFAULT 0.5"], Pool::Greatest),
            ("least", &["", "TEXT", "INTEGER DEFAULT 7"], Pool::Least),
            ("tags", &["TEXT DEFAULT '[]'", "TEXT", "TEXT NOT NULL DEFAULT '[]'"], Pool::Tags),
        ];
        for (name, clauses, pool) in choices {
            if dice.chance(50) {
                let clauses = (*dice.pick(clauses)).to_owned();
                let is_required = clauses.contains("NOT NULL");
                table.columns.push(Column { name: name.into(), clauses, pool, is_required });
            }
        }
    }
}

/// Gives tables columns for which some agent may declare a rule that chooses.
pub fn add_late(dice: &mut Dice, schema: &mut Schema) {
    for table in &mut schema.tables {
        for (name, pool) in [("most", Pool::Greatest), ("fewest", Pool::Least)] {
            if dice.chance(70) {
                let clauses = (*dice.pick(&["", "INTEGER", "REAL DEFAULT 0.5"])).to_owned();
                table.columns.push(Column { name: name.into(), clauses, pool, is_required: false });
            }
        }
    }
}

/// Says of some tables that applications hand out their numbers.
pub fn add_apart(dice: &mut Dice, schema: &mut Schema) {
    for table in &mut schema.tables {
        table.is_apart = dice.chance(60);
    }
}

/// The values of a column with a rule.
pub fn values(pool: Pool) -> &'static [&'static str] {
    match pool {
        Pool::Sum => &["0", "1", "5", "-3", "2.5", "9223372036854775807", "'x'"],
        Pool::Greatest | Pool::Least => &["0", "1", "1.0", "7", "-2.5", "'a'", "'A'", "x'00'"],
        _ => &["'[]'", "'[1]'", "'[1,2]'", "'[2,\"a\"]'", "'[\"b\",null,true]'", "'none'"],
    }
}

/// What an application says of the rules, and of numbers if it hands out any itself.
pub fn options(schema: &Schema, is_apart: bool) -> Vec<TableOptions> {
    let of_table = |table: &Table| {
        let rule = |column: &Column| {
            let rule = match column.pool {
                Pool::Sum => Rule::Counter,
                Pool::Greatest => Rule::Max,
                Pool::Least => Rule::Min,
                Pool::Tags => Rule::Set,
                _ => return None,
            };
            Some((column.name.clone(), rule))
        };
        let rules = table.columns.iter().filter_map(rule).collect();
        let numbers_apart = is_apart && table.is_apart;
        TableOptions { name: table.name.clone(), rules, numbers_apart, ..TableOptions::default() }
    };
    schema.tables.iter().map(of_table).collect()
}
