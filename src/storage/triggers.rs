//! The application's triggers: they fire for its own writes, and not for what is applied here (I6), but for those
//! that do nothing but keep an index in a virtual table: what comes has to be found.

use super::catalog::{Catalog, Table, quote};
use super::context::Context;
use super::driver::{Sql, SqlError};
use super::fields::Fields;
use super::quarantine;
use super::references::Reference;
use super::sql_text::{Token, in_main, tokens};
use super::told;
use super::trigger_effects::{Effect, Trigger, effects};
use super::yielding::Awake;
use crate::model::{TableHeader, Value};
use crate::protocol::message::Rows;

/// What became of the triggers of the tables that a turn touches.
#[derive(Default)]
pub struct Suspended {
    /// The texts that bring back those that were taken off.
    pub texts: Vec<String>,
    /// Those that fire.
    pub awake: Vec<Awake>,
    /// Whether some that fire read other tables: parents have to be there before their children.
    pub read_tables: bool,
}

/// Takes the application's triggers off the tables that this turn touches (I6), among them `tables`, but for those that
/// keep indexes. In a transaction, so that nobody ever sees them missing. `retry` says that rows which are
/// set aside are tried as well.
pub fn suspend(
    sql: &mut dyn Sql,
    context: &mut Context<'_>,
    tables: &[TableHeader],
    rows: &Rows,
    retry: bool,
) -> Result<Suspended, SqlError> {
    let catalog = context.catalog;
    let mut touched: Vec<String> = tables.iter().map(|header| header.name.clone()).collect();
    if retry {
        touched.extend(quarantine::tables(sql)?);
    }
    let mut suspended = Suspended::default();
    if touched.is_empty() {
        return Ok(suspended);
    }
    if retry || rows.rows.iter().any(|row| row.united.is_some()) {
        // What references a row that was united with another, or got another key, is touched as well.
        add_descendants(catalog, &mut touched);
    }
    let is_touched = |table: &str| touched.iter().any(|name| name.eq_ignore_ascii_case(table));
    let mut temporary = temporary(sql, is_touched)?;
    for table in catalog.tables.iter().filter(|table| is_touched(&table.name)) {
        let main = table.triggers.iter().map(|(name, text)| Trigger {
            name: name.clone(),
            text: in_main(text),
            is_temporary: false,
        });
        let (own, rest) = temporary.into_iter().partition(|(name, _)| name.eq_ignore_ascii_case(&table.name));
        temporary = rest;
        let triggers: Vec<Trigger> = main.chain(own.into_iter().map(|(_, trigger)| trigger)).collect();
        if !triggers.is_empty() {
            suspended.add(sql, context, table, triggers)?;
        }
    }
    // What is left is on tables that are not synced.
    Ok(suspended)
}

impl Suspended {
    fn add(
        &mut self,
        sql: &mut dyn Sql,
        context: &mut Context<'_>,
        table: &Table,
        triggers: Vec<Trigger>,
    ) -> Result<(), SqlError> {
        let effects = effects(sql, table, &triggers)?;
        let mut awake = Vec::new();
        for (trigger, effect) in triggers.into_iter().zip(effects) {
            match effect {
                Effect::KeepsIndex { reads_tables } if context.indexes.failure.is_none() => {
                    self.read_tables |= reads_tables;
                    awake.push(trigger);
                    continue;
                }
                Effect::KeepsIndex { .. } => context.note_failed_index(&table.name),
                Effect::LeavesIndex(reason) => {
                    let notice = format!(
                        "trigger {} on {} does not run for rows that a sync brings ({reason}): they are not in the \
                         index that it keeps",
                        trigger.name, table.name
                    );
                    // Of a virtual table that cannot be used here, a notice has told when the tables were read.
                    let is_told = trigger.names_any(&context.catalog.unusable);
                    if !is_told && told::is_news(sql, &notice)? {
                        context.note(notice);
                    }
                }
                Effect::Other => {}
            }
            sql.run(&trigger.drop_statement())?;
            self.texts.push(trigger.text);
        }
        if !awake.is_empty() {
            context.indexes.are_kept = true;
            self.awake.push(Awake::new(&table.name, awake));
        }
        Ok(())
    }
}

/// Adds the tables that reference one of these, and those that reference these, and so on.
fn add_descendants(catalog: &Catalog, tables: &mut Vec<String>) {
    let mut at = 0;
    while let Some(parent) = tables.get(at).cloned() {
        at += 1;
        let references = |table: &&Table| {
            let columns = table.columns.iter().filter_map(|column| column.references.as_ref());
            let parents = table.foreign_keys.iter().map(|key| key.parent.as_str());
            let mut referenced = columns.flat_map(Reference::parents).chain(parents);
            referenced.any(|name| name.eq_ignore_ascii_case(&parent))
        };
        for child in catalog.tables.iter().filter(references) {
            if !tables.iter().any(|name| name.eq_ignore_ascii_case(&child.name)) {
                tables.push(child.name.clone());
            }
        }
    }
}

/// The TEMP triggers on tables, each with the name of its table and a text that brings it back. The schema version does not
/// count them, so no catalog can hold them. One whose text names its table without a schema was made for a temporary table
/// of that name if there was one, that is, if that was made before it; or else for the main database's, also if that is
/// hidden by now.
fn temporary(
    sql: &mut dyn Sql,
    is_touched: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Trigger)>, SqlError> {
    let made = |name, text| Trigger { name, text, is_temporary: true };
    let mut found = Vec::new();
    sql.query(
        "SELECT name, tbl_name, sql, (SELECT t.rowid < g.rowid FROM temp.sqlite_master AS t \
         WHERE t.type IN ('table', 'view') AND t.name = g.tbl_name COLLATE NOCASE) \
         FROM temp.sqlite_master AS g WHERE type = 'trigger'",
        &[],
        &mut |row| {
            let mut fields = Fields::of(row);
            let (name, table, text) = (fields.text()?, fields.text()?, fields.text()?);
            if !is_touched(&table) {
                return Ok(());
            }
            let hidden_before = match fields.value() {
                Value::Integer(before) => Some(before != 0),
                _ => None,
            };
            match schema_of_table(&text) {
                Some(schema) if !schema.eq_ignore_ascii_case("main") => {}
                None if hidden_before == Some(true) => {}
                None if hidden_before == Some(false) => {
                    found.push((table, made(name, as_temporary(&on_main(&text)))));
                }
                _ => found.push((table, made(name, as_temporary(&text)))),
            }
            Ok(())
        },
    )?;
    Ok(found)
}

/// Where a trigger's text names its table: the place of the name's first token.
fn place_of_table(tokens: &[Token<'_>]) -> Option<usize> {
    tokens.iter().skip(3).position(|token| token.is("ON")).map(|on| on + 4)
}

/// The schema that a trigger's text names together with its table.
fn schema_of_table(text: &str) -> Option<String> {
    let tokens = tokens(text)?;
    let at = place_of_table(&tokens)?;
    tokens.get(at + 1).filter(|next| next.is("."))?;
    tokens.get(at)?.name()
}

/// A trigger's text that says of its table that it is the main database's.
fn on_main(text: &str) -> String {
    let tokens = tokens(text).unwrap_or_default();
    match place_of_table(&tokens).and_then(|at| tokens.get(at)) {
        Some(name) => format!("{}main.{}", &text[..name.start], &text[name.start..]),
        None => text.to_owned(),
    }
}

/// SQLite keeps `CREATE TRIGGER …` of a TEMP trigger, and would make an ordinary one of that, unless the name
/// says `temp.`.
fn as_temporary(text: &str) -> String {
    let is_qualified = tokens(text).is_some_and(|tokens| tokens.get(3).is_some_and(|token| token.is(".")));
    match text.strip_prefix("CREATE ") {
        Some(rest) if !is_qualified => format!("CREATE TEMP {rest}"),
        _ => text.to_owned(),
    }
}

/// Modules whose virtual tables are indexes of what other tables hold, more often than not.
const INDEXES: [&str; 8] = ["fts3", "fts4", "fts5", "rtree", "rtree_i32", "geopoly", "vec0", "vss0"];

/// Tells, once for each database, which indexes no trigger keeps.
pub fn tell_unkept(sql: &mut dyn Sql) -> Result<Vec<String>, SqlError> {
    let mut indexes = Vec::new();
    sql.query(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE %'",
        &[],
        &mut |row| {
            let mut fields = Fields::of(row);
            let (name, text) = (fields.text()?, fields.text()?);
            let tokens = tokens(&text).unwrap_or_default();
            let module = tokens.iter().skip_while(|token| !token.is("USING")).nth(1);
            let module = module.and_then(Token::name).unwrap_or_default();
            if INDEXES.iter().any(|index| module.eq_ignore_ascii_case(index)) {
                indexes.push(name);
            }
            Ok(())
        },
    )?;
    for schema in ["main.sqlite_master", "sqlite_temp_master"] {
        if indexes.is_empty() {
            break;
        }
        sql.query(&format!("SELECT sql FROM {schema} WHERE type = 'trigger'"), &[], &mut |row| {
            let text = Fields::of(row).text()?;
            let names: Vec<String> =
                tokens(&text).unwrap_or_default().iter().filter_map(Token::name).collect();
            indexes.retain(|index| !names.iter().any(|name| name.eq_ignore_ascii_case(index)));
            Ok(())
        })?;
    }
    let mut notices = Vec::new();
    for index in indexes {
        let notice = format!(
            "no trigger keeps the index {}: rows that a sync brings are not in it until the application adds them",
            quote(&index)
        );
        if told::is_news(sql, &notice)? {
            notices.push(notice);
        }
    }
    Ok(notices)
}
