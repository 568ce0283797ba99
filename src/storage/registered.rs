//! `_federation_table`: the tables that the bookkeeping knows, with their numbers and those of their columns.

use std::collections::HashMap;

use super::capture::Discovery;
use super::catalog::{Catalog, Key, Table};
use super::choice::{SyncOptions, TableOptions};
use super::column_origins::Evidence;
use super::doubt;
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::{Fields, integer};
use super::journals;
use super::known_columns::{Circumstances, KnownColumns, PresentColumn, newest};
use super::references::suspects;
use super::rows::{Entry, fingerprints, read_row};
use crate::model::{Agreement, Hlc, Rule, TableHeader, Value};
use crate::protocol::limits::MAX_TABLES;

/// `_federation_table.refresh`: every row is asked for again.
pub const AGAIN: i64 = 1;
/// `_federation_table.refresh`: what was written before has never been here.
const UNSEEN: i64 = 2;

/// A row of `_federation_table`.
pub struct Registered {
    /// The table's number.
    pub number: i64,
    columns: KnownColumns,
    is_numbered: bool,
    rules: String,
    is_out: bool,
}

impl Registered {
    /// Notes that the table has taken the name of a dropped one; says since when it has that name's meaning, if anybody
    /// has told.
    pub fn replace_name(&mut self, over: &Self, agreed: Option<&Agreement>) -> Option<Hlc> {
        self.columns.replace_table(&over.columns, agreed)
    }
}

/// What the bookkeeping knows of a table that is to be shared.
pub enum TakenIn {
    /// It is shared already, or again.
    Known(Registered),
    /// Nothing.
    Unknown,
    /// It was there and was not shared, or its rows were identified in another way.
    Attached,
}

/// Reads them all, by their names in lower case.
pub fn read(sql: &mut dyn Sql) -> Result<HashMap<String, Registered>, SqlError> {
    let mut known = HashMap::new();
    sql.query(
        "SELECT name, tbl, columns, numbered, rules, is_out FROM main._federation_table",
        &[],
        &mut |row| {
            let mut fields = Fields::of(row);
            let (name, number) = (fields.text()?, fields.integer()?);
            let columns = serde_json::from_str(&fields.text()?)
                .map_err(|error| SqlError::corrupt(format!("columns of {name}: {error}")))?;
            let (is_numbered, rules) = (fields.integer()? != 0, fields.text()?);
            let is_out = fields.integer()? != 0;
            known.insert(
                name.to_ascii_lowercase(),
                Registered { number, columns, is_numbered, rules, is_out },
            );
            Ok(())
        },
    )?;
    Ok(known)
}

/// Notes that a table is excluded. What is unsent of it waits until it is shared again.
pub fn leave_out(sql: &mut dyn Sql, name: &str, known: Option<Registered>) -> Result<(), SqlError> {
    let Some(known) = known else {
        sql.execute(
            "INSERT INTO main._federation_table(name, columns, numbered, rules, is_out) VALUES(?, '[]', 0, '[]', 1)",
            &[name.into()],
        )?;
        return Ok(());
    };
    if !known.is_out {
        let number = [known.number.into()];
        sql.execute(
            "UPDATE main._federation_table SET is_out = 1, scan = NULL, scanned = NULL, refresh = 0 WHERE tbl = ?",
            &number,
        )?;
        sql.execute("UPDATE main._federation_row SET batch = NULL WHERE tbl = ? AND batch <= 0", &number)?;
    }
    Ok(())
}

/// Looks at what is known of a table that is to be shared, and brings one that was left out back: all of it is
/// offered to the hub again, because what was unsent when it was left out is not marked any more. What the hub has
/// forgotten since then is gone.
pub fn take_in(sql: &mut dyn Sql, table: &Table, known: Option<Registered>) -> Result<TakenIn, SqlError> {
    let Some(known) = known else { return Ok(TakenIn::Unknown) };
    let is_numbered = matches!(table.key, Key::Number(_));
    let number = [known.number.into()];
    let is_other = !known.columns.is_empty() && known.is_numbered != is_numbered;
    if is_other || (known.is_out && known.columns.is_empty()) {
        for place in ["row", "log", "table"] {
            sql.execute(&format!("DELETE FROM main._federation_{place} WHERE tbl = ?"), &number)?;
        }
        return Ok(TakenIn::Attached);
    }
    if known.is_out {
        sql.execute(
            "UPDATE main._federation_table SET is_out = 0, refresh = ? WHERE tbl = ?",
            &[UNSEEN.into(), known.number.into()],
        )?;
        doubt::begin_with(sql, known.number)?;
        sql.execute("UPDATE main._federation_row SET batch = -1 WHERE tbl = ?", &number)?;
    }
    Ok(TakenIn::Known(known))
}

/// Numbers a table that the bookkeeping does not know, and its columns.
pub fn register(
    sql: &mut dyn Sql,
    table: &mut Table,
    agreed: Option<&Agreement>,
    discovery: Discovery,
    wants_past: bool,
) -> Result<(), SqlError> {
    let mut columns = KnownColumns::default();
    let circumstances = Circumstances { is_rebuilt: false, agreed, has_heard: wants_past, now: None };
    columns.follow(&present(table), &Evidence::default(), &circumstances);
    let scan = match discovery {
        Discovery::Old => ValueRef::Text("old"),
        Discovery::New => ValueRef::Text("new"),
        Discovery::Made => ValueRef::Null,
    };
    sql.execute(
        "INSERT INTO main._federation_table(name, columns, scan, refresh, numbered, rules) VALUES(?, ?, ?, ?, ?, ?)",
        &[
            table.name.as_str().into(),
            columns_json(&columns)?.as_str().into(),
            scan,
            (if wants_past { UNSEEN } else { 0 }).into(),
            i64::from(matches!(table.key, Key::Number(_))).into(),
            adjusting(table)?.as_str().into(),
        ],
    )?;
    let number = sql
        .query_row("SELECT tbl FROM main._federation_table WHERE name = ?", &[table.name.as_str().into()])?;
    table.number = Fields::from(number.unwrap_or_default()).integer()?;
    number_columns(table, &columns, agreed)
}

/// Takes over the numbers of a table that the bookkeeping knows; columns that are new to it get new ones. Their
/// past is asked for, and that of columns whose rule needs the last synced value.
pub fn adopt(
    sql: &mut dyn Sql,
    table: &mut Table,
    registered: Registered,
    (agreed, hub_now): (Option<&Agreement>, Option<Hlc>),
    is_rebuilt: bool,
    wants_past: bool,
) -> Result<(), SqlError> {
    table.number = registered.number;
    let mut columns = registered.columns;
    let is_moved = columns.is_moved(&present(table), is_rebuilt);
    let evidence = if is_moved { look_for_evidence(sql, table, &columns)? } else { Evidence::default() };
    let mut now = None;
    if let Some(hub_now) = hub_now.filter(|_| is_moved || columns.is_undated()) {
        let row = sql.query_row("SELECT highest FROM main._federation_replica", &[])?;
        let highest = Hlc(Fields::from(row.unwrap_or_default()).unsigned()?);
        now = Some(hub_now.max(highest.next()));
    }
    let circumstances = Circumstances { is_rebuilt, agreed, has_heard: wants_past, now };
    let found = columns.follow(&present(table), &evidence, &circumstances);
    let rules = adjusting(table)?;
    let is_ruled_anew = rules != registered.rules;
    if found.changed || is_ruled_anew {
        let is_numbered = matches!(table.key, Key::Number(_));
        sql.execute(
            "UPDATE main._federation_table SET columns = ?, rules = ?, numbered = ?, refresh = max(refresh, ?) \
             WHERE tbl = ?",
            &[
                columns_json(&columns)?.as_str().into(),
                rules.as_str().into(),
                i64::from(is_numbered).into(),
                (if wants_past && (found.added || is_ruled_anew) { AGAIN } else { 0 }).into(),
                registered.number.into(),
            ],
        )?;
    }
    if found.moved {
        // What a renamed column holds becomes cells of the new name; what differs besides is the change's write.
        sql.execute(
            "UPDATE main._federation_table SET scan = 'renamed', scanned = NULL WHERE tbl = ? AND scan IS NULL",
            &[registered.number.into()],
        )?;
    }
    number_columns(table, &columns, agreed)
}

/// The columns whose rule looks at what a write did, as they are remembered.
fn adjusting(table: &Table) -> Result<String, SqlError> {
    let ruled = table.columns.iter().filter(|column| column.rule.adjusts());
    let ruled: Vec<(&str, Rule)> = ruled.map(|column| (column.name.as_str(), column.rule)).collect();
    serde_json::to_string(&ruled).map_err(|error| SqlError::corrupt(error.to_string()))
}

/// Remembers which columns the hub has told of that a table here never had: whoever names another column like one of them
/// gives the name another meaning.
pub fn note_foreign(sql: &mut dyn Sql, catalog: &Catalog, told: &TableHeader) -> Result<(), SqlError> {
    let Some(table) = catalog.table(&told.name) else { return Ok(()) };
    let foreign: Vec<String> =
        told.columns.iter().filter(|column| table.position(column).is_none()).cloned().collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let row =
        sql.query_row("SELECT columns FROM main._federation_table WHERE tbl = ?", &[table.number.into()])?;
    let mut columns: KnownColumns = serde_json::from_str(&Fields::from(row.unwrap_or_default()).text()?)
        .map_err(|error| SqlError::corrupt(error.to_string()))?;
    if columns.note_foreign(&foreign) {
        sql.execute(
            "UPDATE main._federation_table SET columns = ? WHERE tbl = ?",
            &[columns_json(&columns)?.as_str().into(), table.number.into()],
        )?;
    }
    Ok(())
}

/// What was chosen when the tables were looked at last, as far as it matters to the bookkeeping.
pub fn remembered(sql: &mut dyn Sql) -> Result<SyncOptions, SqlError> {
    let mut options = SyncOptions::default();
    // What is shared may be so because the application named it.
    let include = options.include.insert(vec!["*".to_owned()]);
    for (name, known) in read(sql)? {
        if known.is_out {
            options.exclude.push(name);
            continue;
        }
        let rules =
            serde_json::from_str(&known.rules).map_err(|error| SqlError::corrupt(error.to_string()))?;
        if !known.columns.is_empty() {
            include.push(name.clone());
            options.tables.push(TableOptions {
                name,
                is_global: !known.is_numbered,
                rules,
                ..TableOptions::default()
            });
        }
    }
    Ok(options)
}

/// Marks the tables whose past has been asked for and has not come.
pub fn mark_unseen(sql: &mut dyn Sql, catalog: &mut Catalog) -> Result<(), SqlError> {
    let mut unseen = Vec::new();
    sql.query("SELECT tbl FROM main._federation_table WHERE refresh = ?", &[UNSEEN.into()], &mut |row| {
        unseen.extend(row.first().and_then(|value| match value {
            Value::Integer(number) => Some(*number),
            _ => None,
        }));
        Ok(())
    })?;
    for table in &mut catalog.tables {
        table.is_unseen = unseen.contains(&table.number);
    }
    Ok(())
}

/// The tables of which every row is asked for.
pub fn to_refresh(sql: &mut dyn Sql) -> Result<Vec<String>, SqlError> {
    let mut tables = Vec::new();
    // A sync asks for so many; the others have their turn in the next one.
    let statement = "SELECT name FROM main._federation_table WHERE refresh ORDER BY name LIMIT ?";
    sql.query(statement, &[integer(MAX_TABLES as u64)?], &mut |row| {
        if let Value::Text(name) = &row[0] {
            tables.push(name.clone());
        }
        Ok(())
    })?;
    Ok(tables)
}

/// What `_federation_table.suspects` holds of a journal that stays at home, once that was told.
const AT_HOME: &str = "journal";
/// What it ends with, behind columns, where the table is likely a journal.
const LIKELY: &str = " journal?";

/// Tells, once for each database, which columns look like references that nothing declares, and which tables are
/// journals of migration tools, or look so.
pub fn tell_suspects(sql: &mut dyn Sql, catalog: &Catalog) -> Result<Vec<String>, SqlError> {
    let suspects = suspects(sql, catalog)?;
    let mut told = HashMap::new();
    sql.query("SELECT name, suspects FROM main._federation_table", &[], &mut |row| {
        let mut fields = Fields::of(row);
        told.insert(fields.text()?.to_ascii_lowercase(), fields.text()?);
        Ok(())
    })?;
    let mut is_news = |sql: &mut dyn Sql, table: &str, now: &str| -> Result<Option<String>, SqlError> {
        let before = told.remove(&table.to_ascii_lowercase()).filter(|before| before != now);
        if before.is_some() {
            sql.execute(
                "UPDATE main._federation_table SET suspects = ? WHERE name = ? COLLATE NOCASE",
                &[now.into(), table.into()],
            )?;
        }
        Ok(before)
    };
    let (mut columns, mut likely, mut at_home) = (Vec::new(), Vec::new(), Vec::new());
    for table in &catalog.tables {
        let prefix = format!("{}.", table.name);
        let own: Vec<&str> =
            suspects.iter().filter(|it| it.starts_with(&prefix)).map(String::as_str).collect();
        let own = own.join(", ");
        let is_likely = journals::is_likely(&table.name, &table.all_columns());
        let now = if is_likely { format!("{own}{LIKELY}") } else { own.clone() };
        let Some(before) = is_news(sql, &table.name, &now)? else { continue };
        if is_likely && !before.ends_with(LIKELY) && !catalog.options.names(&table.name) {
            likely.push(table.name.as_str());
        }
        if !own.is_empty() && own != before.trim_end_matches(LIKELY) {
            columns.push(own);
        }
    }
    for (name, tool) in &catalog.journals {
        if is_news(sql, name, AT_HOME)?.is_some() {
            at_home.push((name.as_str(), *tool));
        }
    }
    let columns = (!columns.is_empty()).then(|| {
        format!(
            "these columns are named like references, and no foreign key says what they reference: {}. If they \
             hold numbers of rows, declare them with the option `references`: numbers mean other rows elsewhere",
            columns.join(", ")
        )
    });
    let journals = [journals::at_home(&at_home), journals::perhaps(&likely)];
    Ok(columns.into_iter().chain(journals.into_iter().flatten()).collect())
}

/// What the hub's refusals of tables make of the bookkeeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotedRefusals {
    /// Whether the catalog is to be read anew.
    pub has_changed: bool,
    /// Whether there is a reason that was not told before: the tables are declared once more, since the hub refuses a table
    /// that its operator has removed until it has said so once.
    pub is_news: bool,
}

/// Notes which tables the hub does not take. Those that it takes again are offered whole, and asked for.
pub fn note_refused(
    sql: &mut dyn Sql,
    catalog: &Catalog,
    refused: &[(String, String)],
) -> Result<NotedRefusals, SqlError> {
    let mut before = Vec::new();
    let statement = "SELECT name, refused FROM main._federation_table WHERE refused IS NOT NULL";
    sql.query(statement, &[], &mut |row| {
        let mut fields = Fields::of(row);
        before.push((fields.text()?, fields.text()?));
        Ok(())
    })?;
    let mut noted = NotedRefusals::default();
    for table in &catalog.tables {
        let is = |name: &String| name.eq_ignore_ascii_case(&table.name);
        let now = refused.iter().find(|(name, _)| is(name)).map(|(_, reason)| reason.as_str());
        let told = before.iter().find(|(name, _)| is(name)).map(|(_, reason)| reason.as_str());
        match (told, now) {
            (told, Some(reason)) if told != Some(reason) => {
                sql.execute(
                    "UPDATE main._federation_table SET refused = ? WHERE tbl = ?",
                    &[reason.into(), table.number.into()],
                )?;
                // Others may have its place among those that there is room for.
                noted.has_changed |= told.is_none();
                noted.is_news = true;
            }
            (Some(_), None) => {
                sql.execute(
                    "UPDATE main._federation_table SET refused = NULL, refresh = ? WHERE tbl = ?",
                    &[UNSEEN.into(), table.number.into()],
                )?;
                sql.execute(
                    "UPDATE main._federation_row SET batch = -2 WHERE tbl = ?",
                    &[table.number.into()],
                )?;
                noted.has_changed = true;
            }
            _ => {}
        }
    }
    Ok(noted)
}

fn present(table: &Table) -> Vec<PresentColumn<'_>> {
    table.columns.iter().map(|column| PresentColumn { name: &column.name, shape: column.shape() }).collect()
}

/// Rows that are looked at to find out what became of a table's columns.
const ROWS_OF_EVIDENCE: i64 = 100;

/// Compares a few rows with what was synced of them.
fn look_for_evidence(sql: &mut dyn Sql, table: &Table, known: &KnownColumns) -> Result<Evidence, SqlError> {
    let live = known.live_numbers();
    let defaults = table.columns.iter().map(|column| column.default).collect();
    let mut evidence = Evidence { rows: Vec::new(), defaults };
    for entry in Entry::some_clean(sql, table, ROWS_OF_EVIDENCE)? {
        let key = entry.key.values()?.filter(|_| entry.is_present());
        let Some(row) = key.map(|key| read_row(sql, table, &key)).transpose()?.flatten() else { continue };
        let before = live.iter().map(|number| entry.meta.cell(*number).map(|cell| cell.fingerprint));
        let now = fingerprints(table, &row).map(|(_, fingerprint)| fingerprint);
        evidence.rows.push((before.collect(), now.collect()));
    }
    Ok(evidence)
}

fn number_columns(
    table: &mut Table,
    known: &KnownColumns,
    agreed: Option<&Agreement>,
) -> Result<(), SqlError> {
    table.origin = known.table_origin();
    for (place, column) in table.columns.iter_mut().enumerate() {
        column.number = known
            .number(place)
            .ok_or_else(|| SqlError::corrupt(format!("column {} has no number", column.name)))?;
        (column.was, column.over) = (known.was(column.number), known.over(column.number));
        (column.generation, column.since) = known.origin(column.number);
        let newest = newest(agreed, &column.name).filter(|it| it.generation > column.generation);
        column.outgrown = newest.map(|it| it.since);
        known.content(usize::from(column.number)).clone_into(&mut column.content);
    }
    Ok(())
}

fn columns_json(columns: &KnownColumns) -> Result<String, SqlError> {
    serde_json::to_string(columns).map_err(|error| SqlError::corrupt(error.to_string()))
}
