//! What clauses of foreign keys do in a database, told from what statements do: SQLite does it between the triggers that
//! run before the delete of a parent and those that run after it.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::TableSchema;
use rusqlite::{Connection, types};

use crate::local::Place;

/// Has a database note when deletes begin and end, and what is updated.
pub fn listen(sqlite: &Connection, tables: &[TableSchema]) {
    sqlite.execute_batch("CREATE TEMP TABLE heard(n INTEGER PRIMARY KEY, what, tbl, row)").unwrap();
    for (at, table) in tables.iter().enumerate() {
        for (when, row) in [("BEFORE DELETE", "OLD"), ("AFTER DELETE", "OLD"), ("AFTER UPDATE", "NEW")] {
            let name = format!("{when} {at}");
            let sql = format!(
                "CREATE TEMP TRIGGER \"{name}\" {when} ON main.{} BEGIN \
                 INSERT INTO heard(what, tbl, row) VALUES('{when}', {at}, {row}.rowid); END",
                table.name
            );
            sqlite.execute_batch(&sql).unwrap();
        }
    }
}

/// Forgets what was noted.
pub fn forget(sqlite: &Connection) {
    sqlite.execute_batch("DELETE FROM temp.heard").unwrap();
}

/// What no statement has said.
#[derive(Default)]
pub struct Effects {
    /// Rows that went with a row that they referenced.
    pub gone: BTreeSet<Place>,
    /// Rows that were updated as others were deleted: the tables of these.
    cut: BTreeMap<Place, BTreeSet<u16>>,
}

impl Effects {
    /// What was noted.
    pub fn heard(sqlite: &Connection, tables: &[TableSchema]) -> Self {
        let mut statement = sqlite.prepare("SELECT what, tbl, row FROM temp.heard ORDER BY n").unwrap();
        let heard = statement
            .query_map([], |row| Ok((row.get::<_, String>(0)?, (row.get(1)?, row.get(2)?))))
            .unwrap()
            .collect::<Result<Vec<(String, Place)>, _>>()
            .unwrap();
        let mut effects = Self::default();
        for (at, (what, place)) in heard.iter().enumerate() {
            let begun: Vec<usize> = (0..at)
                .filter(|begun| heard[*begun].0 == "BEFORE DELETE")
                .filter(|begun| {
                    let parent = heard[*begun].1;
                    let is_end = |(what, place): &(String, Place)| what == "AFTER DELETE" && *place == parent;
                    heard[begun + 1..].iter().position(is_end).is_some_and(|end| begun + 1 + end > at)
                })
                .collect();
            let parents = begun.into_iter().map(|begun| heard[begun].1.0);
            match what.as_str() {
                "AFTER DELETE" => {
                    let mut parents = parents.filter(|parent| {
                        clauses(sqlite, tables, place.0).iter().any(|it| it.0 == *parent && it.2 == "CASCADE")
                    });
                    // What was said of the row before does not count.
                    if parents.next().is_some() {
                        effects.gone.insert(*place);
                    } else {
                        effects.gone.remove(place);
                    }
                }
                "AFTER UPDATE" => effects.cut.entry(*place).or_default().extend(parents),
                _ => {}
            }
        }
        effects
    }

    /// Whether a clause has put a value in a column of a row.
    pub fn has_cut(
        &self,
        sqlite: &Connection,
        place: Place,
        tables: &[TableSchema],
        at: usize,
        value: &types::Value,
    ) -> bool {
        let Some(parents) = self.cut.get(&place) else { return false };
        let name = &tables[usize::from(place.0)].columns[at];
        clauses(sqlite, tables, place.0).into_iter().any(|(parent, column, clause)| {
            let is_put = match clause.as_str() {
                "SET NULL" => *value == types::Value::Null,
                "SET DEFAULT" => *value == default(sqlite, &tables[usize::from(place.0)].name, name),
                _ => false,
            };
            column == *name && parents.contains(&parent) && is_put
        })
    }
}

/// The foreign keys of a table: the one that is referenced, the column, and the clause.
fn clauses(sqlite: &Connection, tables: &[TableSchema], table: u16) -> Vec<(u16, String, String)> {
    let sql = "SELECT \"table\", \"from\", on_delete FROM pragma_foreign_key_list(?1)";
    let mut statement = sqlite.prepare_cached(sql).unwrap();
    let read = |row: &rusqlite::Row<'_>| {
        let parent: String = row.get(0)?;
        let at = tables.iter().position(|table| table.name == parent).unwrap();
        Ok((u16::try_from(at).unwrap(), row.get(1)?, row.get(2)?))
    };
    statement.query_map([&tables[usize::from(table)].name], read).unwrap().map(Result::unwrap).collect()
}

fn default(sqlite: &Connection, table: &str, column: &str) -> types::Value {
    let sql = "SELECT dflt_value FROM pragma_table_info(?1) WHERE name = ?2";
    let text: Option<String> = sqlite.query_row(sql, [table, column], |row| row.get(0)).unwrap();
    sqlite.query_row(&format!("SELECT {}", text.unwrap_or("NULL".into())), [], |row| row.get(0)).unwrap()
}
