//! Whether two databases are equal up to their local numbers.
//!
//! A number of a numbered table, and every foreign key that leads to it, stands for an *entity*: what counts
//! is which rows mean the same one, not how it is numbered. Entities are told apart by what is said of them
//! (colour refinement); where that leaves several alike, one is singled out and its counterpart searched, so
//! that neither rows of equal content nor symmetric references deceive the comparison.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use federation_hub::model::Value;

use crate::schema::{list, quote};
use crate::world::Agent;

/// The rows of a database.
pub struct Shape {
    rows: Vec<Row>,
    /// For each entity, the first table and column that hold its numbers.
    entities: Vec<Place>,
}

/// A table and a column, in lower case.
type Place = (String, String);

struct Row {
    table: String,
    cells: Vec<Cell>,
    /// As people read it, local numbers included.
    text: String,
}

enum Cell {
    Plain(String),
    Entity(usize),
}

impl Shape {
    /// Reads a database, but for the bookkeeping.
    pub fn read(agent: &mut Agent) -> Self {
        let tables = texts(
            agent,
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_federation\\_%' ESCAPE '\\' \
             ORDER BY name",
        );
        let numbers = Numbers::read(agent, &tables);
        let mut shape = Self { rows: Vec::new(), entities: Vec::new() };
        let mut known: HashMap<(Place, i64), usize> = HashMap::new();
        for table in &tables {
            let columns = columns(agent, table);
            for values in agent.rows(&format!("SELECT {} FROM {}", list(&columns), quote(table))) {
                let text = format!("{table}{values:?}");
                let mut cells = Vec::new();
                for (column, value) in columns.iter().zip(values) {
                    cells.push(match (numbers.root(table, column), value) {
                        (Some(root), Value::Integer(number)) => {
                            let fresh = shape.entities.len();
                            let at = *known.entry((root.clone(), number)).or_insert(fresh);
                            if at == fresh {
                                shape.entities.push(root);
                            }
                            Cell::Entity(at)
                        }
                        (_, value) => Cell::Plain(format!("{value:?}")),
                    });
                }
                shape.rows.push(Row { table: table.clone(), cells, text });
            }
        }
        shape
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// A hash of the rows, local numbers included.
    pub fn digest(&self) -> u64 {
        hash_of(&self.rows.iter().map(|row| &row.text).collect::<Vec<_>>())
    }

    /// Nothing, if this is the other one with other numbers; else the rows by which they differ.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let begin = |shape: &Self| shape.entities.iter().map(hash_of).collect::<Vec<u64>>();
        let (own, others) = (self.refine(begin(self)), other.refine(begin(other)));
        if self.matches(other, &own, &others) {
            return None;
        }
        let here = self.surplus(&own, other, &others);
        let there = other.surplus(&others, self, &own);
        Some(format!("only here: {here:#?}\nonly there: {there:#?}"))
    }

    /// Tells entities apart by the rows that mention them, until that tells no more apart.
    fn refine(&self, mut colours: Vec<u64>) -> Vec<u64> {
        let mut distinct = count_distinct(&colours);
        loop {
            let mut said: Vec<Vec<u64>> = vec![Vec::new(); colours.len()];
            for row in &self.rows {
                let signature = row.signature(&colours);
                for (at, cell) in row.cells.iter().enumerate() {
                    if let Cell::Entity(entity) = cell {
                        said[*entity].push(hash_of(&(signature, at)));
                    }
                }
            }
            for (colour, mut said) in colours.iter_mut().zip(said) {
                said.sort_unstable();
                *colour = hash_of(&(*colour, said));
            }
            let now = count_distinct(&colours);
            if now == distinct {
                return colours;
            }
            distinct = now;
        }
    }

    /// Whether the entities can be paired so that the rows are equal. The colours are refined.
    fn matches(&self, other: &Self, own: &[u64], others: &[u64]) -> bool {
        if self.signatures(own) != other.signatures(others) {
            return false;
        }
        let mut classes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (entity, colour) in own.iter().enumerate() {
            classes.entry(*colour).or_default().push(entity);
        }
        let Some((colour, members)) = classes.iter().find(|(_, members)| members.len() > 1) else {
            return true;
        };
        let singled = self.refine(single_out(own, members[0]));
        let candidates = others.iter().enumerate().filter(|(_, other)| *other == colour);
        for (candidate, _) in candidates {
            if self.matches(other, &singled, &other.refine(single_out(others, candidate))) {
                return true;
            }
        }
        false
    }

    fn signatures(&self, colours: &[u64]) -> Vec<u64> {
        let mut signatures: Vec<u64> = self.rows.iter().map(|row| row.signature(colours)).collect();
        signatures.sort_unstable();
        signatures
    }

    /// The rows that the other one lacks.
    fn surplus(&self, own: &[u64], other: &Self, others: &[u64]) -> Vec<&str> {
        let mut there: HashMap<u64, usize> = HashMap::new();
        for signature in other.signatures(others) {
            *there.entry(signature).or_default() += 1;
        }
        let is_surplus = |row: &&Row| match there.get_mut(&row.signature(own)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        };
        self.rows.iter().filter(is_surplus).map(|row| row.text.as_str()).collect()
    }
}

impl Row {
    fn signature(&self, colours: &[u64]) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.table.to_lowercase().hash(&mut hasher);
        for cell in &self.cells {
            match cell {
                Cell::Plain(text) => text.hash(&mut hasher),
                Cell::Entity(entity) => colours[*entity].hash(&mut hasher),
            }
        }
        hasher.finish()
    }
}

/// Which columns hold local numbers: those of numbered tables, and the foreign keys that lead to them.
struct Numbers {
    /// For each column of a foreign key, or of a number, another one that holds the same numbers.
    same: HashMap<Place, Place>,
    numbered: Vec<Place>,
}

impl Numbers {
    fn read(agent: &mut Agent, tables: &[String]) -> Self {
        let mut numbers = Self { same: HashMap::new(), numbered: Vec::new() };
        for table in tables {
            // A lone INTEGER key is an alias of the rowid, unless the table has none, or an index for it.
            let key = texts(
                agent,
                &format!(
                    "SELECT x.name FROM pragma_table_info({0}) AS x, pragma_table_list AS l \
                     WHERE l.schema = 'main' AND l.name = {0} AND l.wr = 0 AND x.pk = 1 AND upper(x.type) = 'INTEGER' \
                     AND (SELECT max(pk) FROM pragma_table_info({0})) = 1 \
                     AND NOT EXISTS (SELECT 1 FROM pragma_index_list({0}) WHERE origin = 'pk')",
                    text(table)
                ),
            );
            numbers.numbered.extend(key.iter().map(|column| place(table, column)));
        }
        for table in tables {
            for row in agent.rows(&format!(
                "SELECT f.\"table\", f.\"from\", coalesce(f.\"to\", (SELECT name FROM pragma_table_info(f.\"table\") \
                 WHERE pk = f.seq + 1)) FROM pragma_foreign_key_list({}) AS f",
                text(table)
            )) {
                let [Value::Text(parent), Value::Text(from), Value::Text(to)] = &row[..] else { continue };
                let (child, parent) = (numbers.find(&place(table, from)), numbers.find(&place(parent, to)));
                if child != parent {
                    // The lesser one leads, so that the result does not depend on the order.
                    numbers.same.insert(child.clone().max(parent.clone()), child.min(parent));
                }
            }
        }
        numbers
    }

    fn find(&self, place: &Place) -> Place {
        let mut at = place;
        while let Some(next) = self.same.get(at) {
            at = next;
        }
        at.clone()
    }

    /// What stands for all columns that hold the same numbers as this one, if it holds local numbers.
    fn root(&self, table: &str, column: &str) -> Option<Place> {
        let root = self.find(&place(table, column));
        self.numbered.iter().any(|numbered| self.find(numbered) == root).then_some(root)
    }
}

fn place(table: &str, column: &str) -> Place {
    (table.to_lowercase(), column.to_lowercase())
}

fn columns(agent: &mut Agent, table: &str) -> Vec<String> {
    let hidden = "SELECT name FROM pragma_table_xinfo";
    texts(agent, &format!("{hidden}({}) WHERE hidden <> 1 ORDER BY name", text(table)))
}

fn texts(agent: &mut Agent, query: &str) -> Vec<String> {
    let rows = agent.rows(query).into_iter();
    rows.filter_map(
        |row| if let Some(Value::Text(text)) = row.into_iter().next() { Some(text) } else { None },
    )
    .collect()
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn count_distinct(colours: &[u64]) -> usize {
    let mut colours = colours.to_vec();
    colours.sort_unstable();
    colours.dedup();
    colours.len()
}

fn single_out(colours: &[u64], entity: usize) -> Vec<u64> {
    let mut colours = colours.to_vec();
    colours[entity] = hash_of(&("singled out", colours[entity]));
    colours
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = "CREATE TABLE v(id INTEGER PRIMARY KEY, what);
        CREATE TABLE e(a INTEGER REFERENCES v, b INTEGER REFERENCES v(id), PRIMARY KEY(a, b));";

    fn shape(rows: &str) -> Shape {
        let mut agent = Agent::new("acme", "a", 1);
        agent.run(SCHEMA).run(rows);
        Shape::read(&mut agent)
    }

    #[test]
    fn numbers_do_not_count_and_what_they_connect_does() {
        let one = shape("INSERT INTO v VALUES(1, 'x'), (2, 'y'); INSERT INTO e VALUES(1, 2)");
        let renumbered = shape("INSERT INTO v VALUES(9, 'x'), (5, 'y'); INSERT INTO e VALUES(9, 5)");
        let turned = shape("INSERT INTO v VALUES(1, 'x'), (2, 'y'); INSERT INTO e VALUES(2, 1)");
        assert_eq!(one.difference(&renumbered), None);
        assert!(one.difference(&turned).is_some());
    }

    #[test]
    fn rows_of_equal_content_do_not_deceive() {
        let vertices = "INSERT INTO v(what) VALUES(1), (1), (1), (1), (1), (1);";
        let six = shape(&format!("{vertices} INSERT INTO e VALUES(1,2),(2,3),(3,4),(4,5),(5,6),(6,1)"));
        let again = shape(&format!("{vertices} INSERT INTO e VALUES(1,3),(3,5),(5,2),(2,4),(4,6),(6,1)"));
        let threes = shape(&format!("{vertices} INSERT INTO e VALUES(1,2),(2,3),(3,1),(4,5),(5,6),(6,4)"));
        assert_eq!(six.difference(&again), None);
        assert!(six.difference(&threes).is_some(), "a ring of six is not two rings of three");
        let five = shape("INSERT INTO v(what) VALUES(1), (1), (1), (1), (1)");
        assert!(five.difference(&shape(vertices)).is_some(), "a row more is a difference");
    }
}
