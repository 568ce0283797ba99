//! Full-text indexes that triggers keep, and what must hold of them.

use federation_hub::model::Value;

use crate::checks::Failure;
use crate::dice::Dice;
use crate::features::{Feature, Features};
use crate::schema::{KeyKind, Pool, Schema, Table, list, quote};
use crate::world::Agent;

/// A full-text index of a table.
#[derive(Clone, Debug)]
pub struct Search {
    pub name: String,
    /// The columns of the table that it has.
    pub columns: Vec<String>,
    /// How text is cut into words.
    pub tokenize: String,
    /// What makes it, and the triggers that keep it.
    pub statements: Vec<String>,
}

/// Draws indexes for some of the tables.
pub fn add(dice: &mut Dice, features: &Features, schema: &mut Schema) {
    for table in &mut schema.tables {
        if table.kind != KeyKind::WithoutRowid && dice.chance(75) {
            table.search = index(dice, table);
        }
    }
    // A REPLACE fires the triggers of what it takes away only if triggers are recursive, which not every trigger bears.
    schema.is_recursive = !features.has(Feature::Triggers);
    if !schema.is_recursive {
        for clause in schema.tables.iter_mut().flat_map(|table| &mut table.unique) {
            *clause = clause.replace(" ON CONFLICT REPLACE", "");
        }
    }
}

fn index(dice: &mut Dice, table: &Table) -> Option<Search> {
    let of_use = |pool: Pool| !matches!(pool, Pool::Number | Pool::Clock | Pool::Reference);
    let candidates: Vec<String> =
        table.columns.iter().filter(|column| of_use(column.pool)).map(|column| column.name.clone()).collect();
    let mut columns: Vec<String> = candidates.into_iter().filter(|_| dice.chance(60)).collect();
    columns.truncate(3);
    if columns.is_empty() {
        return None;
    }
    let tokenize = dice.pick(&["", ", tokenize='porter'", ", tokenize='trigram'"]).to_string();
    let (name, on) = (format!("found {}", table.name), quote(&table.name));
    let text = |name: &str| format!("'{}'", name.replace('\'', "''"));
    let (index, all) = (quote(&name), list(&columns));
    let values =
        |row: &str| columns.iter().map(|it| format!("{row}.{}", quote(it))).collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO {index}(rowid, {all}) VALUES(new.rowid, {});", values("new"));
    let by_value =
        format!("INSERT INTO {index}({index}, rowid, {all}) VALUES('delete', old.rowid, {});", values("old"));
    let by_row = format!("DELETE FROM {index} WHERE rowid = old.rowid;");
    let external = format!(", content={}, content_rowid='rowid'", text(&table.name));
    let (content, delete) = match dice.below(4) {
        0 | 1 => (external.as_str(), by_value),
        2 => (", content='', contentless_delete=1", by_row),
        _ => ("", by_row),
    };
    let when = if dice.chance(30) {
        let same: Vec<String> =
            columns.iter().map(|it| format!("old.{0} IS NOT new.{0}", quote(it))).collect();
        format!(" WHEN old.rowid IS NOT new.rowid OR {}", same.join(" OR "))
    } else {
        String::new()
    };
    let trigger = |what: &str| quote(&format!("{what} {name}"));
    let statements = vec![
        format!("CREATE VIRTUAL TABLE {index} USING fts5({all}{content}{tokenize})"),
        format!("CREATE TRIGGER {} AFTER INSERT ON {on} BEGIN {insert} END", trigger("ai")),
        format!("CREATE TRIGGER {} AFTER DELETE ON {on} BEGIN {delete} END", trigger("ad")),
        format!("CREATE TRIGGER {} AFTER UPDATE ON {on}{when} BEGIN {delete} {insert} END", trigger("au")),
    ];
    Some(Search { name, columns, tokenize, statements })
}

/// Fails unless each index of an agent's passes its own check, and has the words of its rows and no others.
pub fn check(agent: &mut Agent, schema: &Schema, name: &str) -> Result<(), Failure> {
    for table in &schema.tables {
        let Some(search) = &table.search else { continue };
        let index = quote(&search.name);
        let check = format!("INSERT INTO {index}({index}, rank) VALUES('integrity-check', 1)");
        agent
            .try_run(&check)
            .map_err(|error| Failure::new("a damaged index", format!("{name}: {}: {error}", search.name)))?;
        let (has, expected) = words(agent, table, search);
        if has != expected {
            let detail = format!("{name}: {} has {has:?} in place of {expected:?}", search.name);
            return Err(Failure::new("an index is not as its table", detail));
        }
    }
    Ok(())
}

/// The words of an index, each with where it stands, and those that it would have if it was made anew.
fn words(agent: &mut Agent, table: &Table, search: &Search) -> (Vec<Vec<Value>>, Vec<Vec<Value>>) {
    let (columns, tokenize) = (list(&search.columns), &search.tokenize);
    agent.run(&format!("CREATE VIRTUAL TABLE temp.anew USING fts5({columns}, content=''{tokenize})"));
    agent.run(&format!(
        "INSERT INTO temp.anew(rowid, {columns}) SELECT rowid, {columns} FROM main.{}",
        quote(&table.name)
    ));
    agent.run("CREATE VIRTUAL TABLE temp.expected USING fts5vocab(temp, anew, instance)");
    agent.run(&format!(
        "CREATE VIRTUAL TABLE temp.has USING fts5vocab(main, {}, instance)",
        quote(&search.name)
    ));
    let mut read = |from: &str| {
        agent.rows(&format!("SELECT term, doc, col, \"offset\" FROM temp.{from} ORDER BY 1, 2, 3, 4"))
    };
    let found = (read("has"), read("expected"));
    agent.run("DROP TABLE temp.has; DROP TABLE temp.expected; DROP TABLE temp.anew");
    found
}
