//! Drawing what applications write, and when they sync.

use crate::dice::Dice;
use crate::draw_rules;
use crate::features::{Feature, Features};
use crate::schema::{Column, Pool, Reference, Schema, Table, list, quote};
use crate::world::Fate;

/// What happens to an agent.
#[derive(Clone, Debug)]
pub enum Step {
    /// The application runs these statements; those that its database refuses are skipped.
    Write(usize, Vec<String>),
    /// The application runs these statements as one transaction, or none of them.
    Transaction(usize, Vec<String>),
    /// It syncs; between the sending and the applying the application runs these statements.
    Sync(usize, Fate, Vec<String>),
    /// Time passes, in ms.
    Pass(i64),
    /// It says what the rules of columns are, or says nothing of them any more.
    Rules(usize, bool),
}

/// Draws the statements of a template.
pub fn template(dice: &mut Dice, features: &Features, schema: &Schema) -> Vec<String> {
    let mut writer = Writer { dice, features, schema };
    let mut statements = Vec::new();
    for table in &schema.tables {
        for _ in 0..writer.dice.below(4) {
            statements.push(writer.insert(table));
        }
    }
    statements
}

/// Draws what happens.
pub fn steps(dice: &mut Dice, features: &Features, schema: &Schema, agents: usize) -> Vec<Step> {
    let mut writer = Writer { dice, features, schema };
    let mut steps = Vec::new();
    for agent in 0..agents {
        if !(features.has(Feature::Late) && writer.dice.chance(50)) {
            steps.push(Step::Sync(agent, Fate::Complete, Vec::new()));
        }
        let mut first = Vec::new();
        for table in &schema.tables {
            for _ in 0..writer.dice.below(3) {
                first.push(writer.insert(table));
            }
        }
        steps.push(Step::Write(agent, first));
    }
    for _ in 0..10 + writer.dice.below(50) {
        let agent = writer.dice.below(agents);
        steps.push(writer.step(agent));
        if features.has(Feature::LateIndexes) && writer.dice.chance(12) {
            let table = writer.dice.pick(&schema.tables);
            if let Some(statements) = late_index(table, writer.dice.chance(65)) {
                steps.push(Step::Write(agent, statements));
            }
        }
        if features.has(Feature::FailingRows) && writer.dice.chance(20) {
            let table = writer.dice.pick(&schema.tables);
            let (is_made, what) = (writer.dice.chance(70), writer.dice.below(FAILING.len()));
            steps
                .extend(failing_index(table, is_made.then_some(what)).map(|it| Step::Write(agent, vec![it])));
        }
        if features.has(Feature::LateColumns) && writer.dice.chance(8) {
            let (table, column) = (writer.dice.pick(&schema.tables), agent % 2);
            let (on, name) = (quote(&table.name), quote(&format!("late{column}")));
            let mut statements = late_column(table, column);
            statements.push(format!("UPDATE {on} SET {name} = 'of {agent}'"));
            steps.push(Step::Write(agent, statements));
        }
    }
    if features.has(Feature::LateColumns) {
        // In the end all have all columns, so that they can be compared.
        for agent in 0..agents {
            let columns = schema.tables.iter().flat_map(|table| (0..2).flat_map(|at| late_column(table, at)));
            steps.push(Step::Write(agent, columns.collect()));
        }
    }
    steps
}

struct Writer<'a> {
    dice: &'a mut Dice,
    features: &'a Features,
    schema: &'a Schema,
}

impl Writer<'_> {
    fn step(&mut self, agent: usize) -> Step {
        if self.features.has(Feature::LateRules) && self.dice.chance(8) {
            return Step::Rules(agent, self.dice.chance(60));
        }
        match self.dice.below(100) {
            0..10 => Step::Pass(*self.dice.pick(&[1, 2, 1_000])),
            10..35 => {
                let fate = match self.dice.below(10) {
                    _ if !self.features.has(Feature::Losses) => Fate::Complete,
                    // Whoever does not hear that its table is refused takes what it has sent for accepted.
                    _ if self.features.has(Feature::LateRules) => Fate::Complete,
                    0 => Fate::LosesBatch,
                    1 => Fate::LosesAnswer,
                    2 => Fate::InterruptedPull(self.dice.below(4)),
                    3 => Fate::InterruptedRetrial(1 + self.dice.below(3)),
                    _ => Fate::Complete,
                };
                let is_busy = self.features.has(Feature::Meanwhile) && self.dice.chance(30);
                let meanwhile = if is_busy { self.statements() } else { Vec::new() };
                Step::Sync(agent, fate, meanwhile)
            }
            35..50 => Step::Transaction(agent, self.statements()),
            _ => Step::Write(agent, self.statements()),
        }
    }

    fn statements(&mut self) -> Vec<String> {
        let schema = self.schema;
        let mut statements = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let table = self.dice.pick(&schema.tables);
            if self.features.has(Feature::Anew) && self.dice.chance(25) {
                statements.extend(self.anew(table));
                continue;
            }
            let kind = self.dice.below(if self.features.has(Feature::Dense) { 120 } else { 100 });
            match kind {
                0..45 => statements.push(self.insert(table)),
                45..80 => statements.extend(self.update(table)),
                80..88 => statements.extend(swap(table)),
                _ => statements.extend(self.delete(table)),
            }
        }
        statements
    }

    /// An INSERT of any kind.
    fn insert(&mut self, table: &Table) -> String {
        let mut names = Vec::new();
        let mut values = Vec::new();
        for column in &table.columns {
            let percent = match column.pool {
                Pool::Generated => 0,
                Pool::Number => 15,
                Pool::Clock => 10,
                Pool::Part => 20,
                _ if column.is_required => 98,
                _ => 75,
            };
            let is_part_of_reference = column.pool == Pool::Reference;
            if !is_part_of_reference && self.dice.chance(percent) {
                names.push(column.name.clone());
                values.push(self.value(column));
            }
        }
        for reference in &table.references {
            let is_key = reference.columns.iter().any(|column| table.key.contains(column));
            if is_key || self.dice.chance(85) {
                names.extend(reference.columns.iter().cloned());
                values.extend(self.parent(table, reference));
            }
        }
        let verb = if self.may_replace(table) {
            self.dice.weighed(&[(6, "INSERT"), (2, "INSERT OR REPLACE"), (2, "INSERT OR IGNORE")])
        } else {
            self.dice.weighed(&[(8, "INSERT"), (2, "INSERT OR IGNORE")])
        };
        // SQLite does not see that a row which replaces another one, and references it over SET NULL, leads nowhere.
        let references_itself = table.references.iter().any(|reference| reference.parent == table.name);
        let verb = if references_itself { verb.replace("REPLACE", "ABORT") } else { verb.to_owned() };
        let into = quote(&table.name);
        if names.is_empty() {
            return format!("{verb} INTO {into} DEFAULT VALUES");
        }
        let mut statement = format!("{verb} INTO {into}({}) VALUES({})", list(&names), values.join(", "));
        if verb == "INSERT" && self.dice.chance(25) {
            let settable = |name: &&String| !table.key.contains(name);
            let sets: Vec<String> = names
                .iter()
                .filter(settable)
                .map(|name| format!("{0} = excluded.{0}", quote(name)))
                .collect();
            let does_nothing = sets.is_empty() || self.dice.chance(30);
            let sets = format!("UPDATE SET {}", sets.join(", "));
            statement.push_str(" ON CONFLICT DO ");
            statement.push_str(if does_nothing { "NOTHING" } else { &sets });
        }
        statement
    }

    /// An UPDATE of some columns of some rows.
    fn update(&mut self, table: &Table) -> Option<String> {
        let edits_keys = self.features.has(Feature::KeyEdits);
        let may_set = |names: &[String]| edits_keys || !names.iter().any(|name| table.key.contains(name));
        let mut sets = Vec::new();
        for column in &table.columns {
            let is_own = !matches!(column.pool, Pool::Generated | Pool::Reference);
            if is_own && may_set(std::slice::from_ref(&column.name)) && self.dice.chance(35) {
                sets.push(format!("{} = {}", quote(&column.name), self.value(column)));
            }
        }
        for reference in &table.references {
            if may_set(&reference.columns) && self.dice.chance(30) {
                let values = self.parent(table, reference);
                let columns = reference.columns.iter().zip(values);
                sets.extend(columns.map(|(name, value)| format!("{} = {value}", quote(name))));
            }
        }
        if sets.is_empty() {
            return None;
        }
        // SQLite does not see that an UPDATE OR REPLACE leaves a row referencing the one that it has replaced, over SET NULL, or
        // the number that it had itself.
        let references_itself = table.references.iter().any(|reference| reference.parent == table.name);
        let verb = if self.may_replace(table) {
            self.dice.weighed(&[(8, "UPDATE"), (1, "UPDATE OR REPLACE"), (1, "UPDATE OR IGNORE")])
        } else {
            "UPDATE"
        };
        let verb = if references_itself { verb.replace("REPLACE", "ABORT") } else { verb.to_owned() };
        let rows = self.rows(table);
        Some(format!("{verb} {} SET {}{rows}", quote(&table.name), sets.join(", ")))
    }

    fn delete(&mut self, table: &Table) -> Option<String> {
        let is_allowed = if self.schema.is_referenced(&table.name) {
            self.features.has(Feature::Actions)
        } else {
            self.features.has(Feature::Deletes)
        };
        if !is_allowed {
            return None;
        }
        let rows = if self.dice.chance(7) { String::new() } else { self.rows(table) };
        Some(format!("DELETE FROM {}{rows}", quote(&table.name)))
    }

    /// Deletes a row, perhaps with what references it first, and perhaps writes another one under its key.
    fn anew(&mut self, table: &Table) -> Vec<String> {
        let (from, key) = (quote(&table.name), list(&table.key));
        let one = self.one(table, &table.key);
        let mut statements = Vec::new();
        if self.dice.chance(50) {
            for child in &self.schema.tables {
                for reference in child.references.iter().filter(|it| it.parent == table.name) {
                    let parent = self.one(table, &reference.to);
                    let (name, columns) = (quote(&child.name), list(&reference.columns));
                    let is_cut = self.dice.chance(30);
                    let set: Vec<String> =
                        reference.columns.iter().map(|it| format!("{} = NULL", quote(it))).collect();
                    let what = if is_cut {
                        format!("UPDATE {name} SET {}", set.join(", "))
                    } else {
                        format!("DELETE FROM {name}")
                    };
                    statements.push(format!("{what} WHERE ({columns}) IN ({parent})"));
                }
            }
        }
        statements.push(format!("DELETE FROM {from} WHERE ({key}) IN ({one})"));
        if self.dice.chance(60) {
            // A number that SQLite chooses is mostly that of the last row.
            statements.push(self.insert(table));
        }
        statements
    }

    /// Whether a REPLACE takes nothing away that this case does not delete.
    fn may_replace(&self, table: &Table) -> bool {
        if self.features.has(Feature::Search) && !self.schema.is_recursive {
            return false;
        }
        let has_more_keys = !table.unique.is_empty() || !table.indexes.is_empty();
        !has_more_keys
            || if self.schema.is_referenced(&table.name) {
                self.features.has(Feature::Actions)
            } else {
                self.features.has(Feature::Deletes)
            }
    }

    /// Some rows: one of them mostly, those with a value, or all.
    fn rows(&mut self, table: &Table) -> String {
        match self.dice.below(10) {
            0 => String::new(),
            1 | 2 => {
                let column = self.dice.pick(&table.columns);
                let value = match column.pool {
                    Pool::Text | Pool::Integer | Pool::Real | Pool::Blob | Pool::Any => self.value(column),
                    _ => "1".to_owned(),
                };
                format!(" WHERE {} = {value}", quote(&column.name))
            }
            _ => {
                let key = list(&table.key);
                format!(" WHERE ({key}) IN ({})", self.one(table, &table.key))
            }
        }
    }

    /// Selects columns of one of a table's rows.
    fn one(&mut self, table: &Table, columns: &[String]) -> String {
        let (from, key) = (quote(&table.name), list(&table.key));
        let offset = self.dice.below(7);
        format!(
            "SELECT {} FROM {from} ORDER BY {key} LIMIT 1 OFFSET {offset} % max(1, (SELECT count(*) FROM {from}))",
            list(columns)
        )
    }

    /// Values for the columns of a foreign key: those of one of the parents, or NULL.
    fn parent(&mut self, table: &Table, reference: &Reference) -> Vec<String> {
        let is_required = |name: &String| table.column(name).is_some_and(|column| column.is_required);
        let percent = if reference.columns.iter().any(is_required) { 1 } else { 15 };
        let parent = self.schema.table(&reference.parent).filter(|_| !self.dice.chance(percent));
        let Some(parent) = parent else { return vec!["NULL".into(); reference.columns.len()] };
        let offset = self.dice.below(7);
        let (from, key) = (quote(&parent.name), list(&parent.key));
        let select = |column: &String| {
            format!(
                "(SELECT {} FROM {from} ORDER BY {key} LIMIT 1 \
                 OFFSET {offset} % max(1, (SELECT count(*) FROM {from})))",
                quote(column)
            )
        };
        reference.to.iter().map(select).collect()
    }

    /// A value from a column's small pool.
    fn value(&mut self, column: &Column) -> String {
        let is_nullable = !column.is_required && !matches!(column.pool, Pool::Clock | Pool::Part);
        if is_nullable && self.dice.chance(10) {
            return "NULL".into();
        }
        let values: &[&str] = match column.pool {
            Pool::Text => &["'a'", "'b'", "'A'", "'B'", "'ab'", "''", "'long'", "'ß'"],
            Pool::Integer => &["0", "1", "2", "3", "-1"],
            Pool::Real => &["0.0", "1", "2.5", "-0.0", "1e300", "9007199254740993"],
            Pool::Blob => &["x''", "x'00'", "x'00ff'", "x'61'"],
            Pool::Part => &["0", "1", "'1'", "x'31'"],
            Pool::Any => &["1", "1.0", "'1'", "x'31'", "9007199254740993", "'a'", "'A'", "0.1"],
            Pool::Number if self.features.has(Feature::HugeNumbers) => {
                &["1", "2", "3", "7", "100", "-5", "0", "9223372036854775807"]
            }
            Pool::Number => &["1", "2", "3", "7", "100"],
            Pool::Sum | Pool::Greatest | Pool::Least | Pool::Tags => draw_rules::values(column.pool),
            Pool::Clock | Pool::Generated | Pool::Reference => &["5"],
        };
        (*self.dice.pick(values)).to_owned()
    }
}

/// Makes a unique index over a column that has been anything until then, or drops it; a table has one such column.
fn late_index(table: &Table, is_made: bool) -> Option<Vec<String>> {
    let is_plain = |column: &&Column| {
        matches!(column.pool, Pool::Text | Pool::Integer) && !table.key.contains(&column.name)
    };
    let column = table.columns.iter().find(is_plain)?;
    let name = quote(&format!("late {}", table.name));
    Some(vec![if is_made {
        format!("CREATE UNIQUE INDEX {name} ON {}({})", quote(&table.name), quote(&column.name))
    } else {
        format!("DROP INDEX {name}")
    }])
}

/// Indexes over a column, whose expressions fail over one of its values in the pool.
const FAILING: [&str; 6] = [
    "({c} ->> iif({c} = 'b', '$[', '$'))",
    "(json_extract(iif({c} IN ('long', -1), '{', '[1]'), '$[0]'))",
    "(abs(iif({c} IN ('A', 2), -9223372036854775808, 1)))",
    "({c}) WHERE json_extract(iif({c} IN ('ab', 0), 'no', '{}'), '$.x') IS NULL",
    "({c}, abs(CASE {c} WHEN 'a' THEN -9223372036854775808 WHEN 1 THEN -9223372036854775808 END))",
    "(json_array_length(iif({c} IN ('B', 3), ']', '[]')))",
];

/// Makes an index whose expression fails over some rows, or drops the one that a table has.
pub fn failing_index(table: &Table, what: Option<usize>) -> Option<String> {
    let is_plain = |column: &&Column| matches!(column.pool, Pool::Text | Pool::Integer);
    let column = quote(&table.columns.iter().find(is_plain)?.name);
    let (name, on) = (quote(&format!("fails {}", table.name)), quote(&table.name));
    Some(match what {
        Some(what) => format!("CREATE INDEX {name} ON {on}{}", FAILING[what].replace("{c}", &column)),
        None => format!("DROP INDEX IF EXISTS {name}"),
    })
}

/// Adds one of two columns, and an index of it.
fn late_column(table: &Table, column: usize) -> Vec<String> {
    let (on, name) = (quote(&table.name), quote(&format!("late{column}")));
    let index = quote(&format!("by late{column} {}", table.name));
    vec![format!("ALTER TABLE {on} ADD COLUMN {name} TEXT"), format!("CREATE INDEX {index} ON {on}({name})")]
}

/// Exchanges the values of a column between two rows, by way of a third value.
fn swap(table: &Table) -> Vec<String> {
    let is_plain = |column: &&Column| column.pool == Pool::Text && !table.key.contains(&column.name);
    let Some(column) = table.columns.iter().find(is_plain) else { return Vec::new() };
    let (on, column) = (quote(&table.name), quote(&column.name));
    ["'a' THEN '~'", "'b' THEN 'a'", "'~' THEN 'b'"]
        .iter()
        .map(|case| {
            let from = case.split(' ').next().unwrap_or_default();
            format!("UPDATE {on} SET {column} = CASE {column} WHEN {case} END WHERE {column} = {from}")
        })
        .collect()
}
