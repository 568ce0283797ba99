//! Applications that hand out numbers themselves: no sync may bring a row under a number that one of them could hand out.

use std::collections::{HashMap, HashSet};

use federation_hub::model::Value;

use crate::checks::Failure;
use crate::schema::{Pool, Schema, Table, quote};
use crate::world::Agent;

/// The numbers that one agent's application has had, by table.
#[derive(Default)]
pub struct Had(HashMap<String, HashSet<i64>>);

impl Had {
    /// Notes the numbers that are there while the application alone has written.
    pub fn note(&mut self, agent: &mut Agent, schema: &Schema) {
        for table in schema.tables.iter().filter(|table| has_choice(table)) {
            self.0.entry(table.name.clone()).or_default().extend(numbers(agent, table));
        }
    }

    /// Fails if a sync has brought a row under a number that the application could hand out, and never had.
    pub fn check(&self, agent: &mut Agent, schema: &Schema) -> Result<(), Failure> {
        for table in schema.tables.iter().filter(|table| has_choice(table)) {
            let had = self.0.get(&table.name);
            let is_strange = |number: &i64| *number >= -1 && had.is_none_or(|had| !had.contains(number));
            if let Some(number) = numbers(agent, table).into_iter().find(is_strange) {
                return Err(Failure::new(
                    "not apart",
                    format!("a row of {} came under {number}", table.name),
                ));
            }
        }
        Ok(())
    }
}

/// Whether a table has numbers of its own that are to be kept apart.
fn has_choice(table: &Table) -> bool {
    let is_own = |name: &String| table.column(name).is_some_and(|column| column.pool == Pool::Number);
    table.is_apart && table.kind.is_number() && table.key.iter().all(is_own)
}

fn numbers(agent: &mut Agent, table: &Table) -> Vec<i64> {
    let rows = agent.rows(&format!("SELECT {} FROM {}", quote(&table.key[0]), quote(&table.name)));
    let number = |row: Vec<Value>| match row.first() {
        Some(Value::Integer(number)) => Some(*number),
        _ => None,
    };
    rows.into_iter().filter_map(number).collect()
}
