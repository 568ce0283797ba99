//! Local numbers for rows that come from elsewhere.

use std::collections::{HashMap, HashSet};

use super::bookkeeping::exists;
use super::catalog::{Catalog, Key, Table, as_number, quote};
use super::driver::{Sql, SqlError};
use super::local_key::LocalKey;
use super::referrers::dangling;
use super::rows::Entry;
use super::sql_text::tokens;
use crate::model::Value;

/// Numbers given out by one turn.
#[derive(Debug)]
pub struct Numbers<'a> {
    catalog: &'a Catalog,
    tables: HashMap<i64, Given>,
    /// Numbers that this turn has promised to rows that it has yet to make, by table.
    promised: HashSet<(i64, i64)>,
    /// Numbers that no row has and that rows here refer to all the same, by table: a row that came under one of them
    /// would be taken for the row that was meant.
    meant: HashMap<i64, HashSet<i64>>,
}

/// How far the numbers of a table go.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// The highest number that is or was in use.
    highest: i64,
    /// What `sqlite_sequence` said before this turn, if the table is `AUTOINCREMENT`.
    sequence: Option<i64>,
    /// Where the search for a gap goes on, once the highest number of all is taken.
    gap: i64,
    /// How far those go that no application hands out, once one has been asked for.
    lowest: Option<i64>,
    /// Where the search for a gap among these goes on, once the lowest number of all is taken.
    gap_below: i64,
}

/// The first of the numbers that no application hands out; the others are below it. Not -1: in a trigger that runs before an
/// INSERT that is a number which SQLite has yet to choose, so that a REPLACE of that row could not be told from another one.
const FIRST_APART: i64 = -2;

impl<'a> Numbers<'a> {
    /// None given yet.
    pub fn new(catalog: &'a Catalog) -> Self {
        let (tables, promised, meant) = (HashMap::new(), HashSet::new(), HashMap::new());
        Self { catalog, tables, promised, meant }
    }

    /// A free number for a row. The one that it had here before, if that is free; the one it was born with
    /// elsewhere if that is free and not above the highest here; else the next one. So no stranger's huge
    /// number ever exhausts the range. Where the application hands out numbers itself (`numbers: 'apart'`), one that it
    /// does not hand out.
    pub fn assign(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        own: Option<i64>,
        wish: Option<i64>,
    ) -> Result<i64, SqlError> {
        let given = self.given(sql, table)?;
        // `AUTOINCREMENT` never gives a number twice: below the sequence one may be a deleted row's. Where the
        // sequence is at its end, gaps are all that there is.
        let never_given = given.sequence.and_then(|given| given.checked_add(1)).unwrap_or(1);
        let wish = wish.filter(|wish| (never_given..=given.highest).contains(wish));
        // What is left of a row that comes back may well refer to it.
        if let Some(own) = own
            && self.is_unused(sql, table, own)?
        {
            self.raise(table, own);
            return Ok(own);
        }
        if table.numbers_apart {
            return self.apart(sql, table);
        }
        if let Some(wish) = wish
            && self.is_free(sql, table, wish)?
        {
            self.raise(table, wish);
            return Ok(wish);
        }
        self.next(sql, table)
    }

    /// As [`Self::assign`], for a row that this turn has yet to make.
    pub fn promise(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        own: Option<i64>,
        wish: Option<i64>,
    ) -> Result<i64, SqlError> {
        let number = self.assign(sql, table, own, wish)?;
        self.promised.insert((table.number, number));
        Ok(number)
    }

    /// A number for a row that is referenced here and may never come. The application must not get it for a
    /// row of its own: `AUTOINCREMENT` skips what its sequence has passed, and other tables never choose a
    /// negative number.
    pub fn reserve(&mut self, sql: &mut dyn Sql, table: &Table) -> Result<i64, SqlError> {
        if let Some(sequence) = self.given(sql, table)?.sequence.filter(|_| !table.numbers_apart) {
            let number = self.next(sql, table)?;
            set_sequence(sql, table, number.max(sequence))?;
            return Ok(number);
        }
        self.apart(sql, table)
    }

    /// A number that no application hands out: the one below the lowest; where there is none, the first gap below 0.
    fn apart(&mut self, sql: &mut dyn Sql, table: &Table) -> Result<i64, SqlError> {
        let mut given = self.given(sql, table)?;
        let mut lowest = match given.lowest {
            Some(lowest) => lowest,
            None => lowest_number(sql, table)?,
        };
        let number = loop {
            let number = if let Some(next) = lowest.checked_sub(1) {
                lowest = next;
                next
            } else {
                given.gap_below = first_gap(sql, table, given.gap_below, false)?;
                given.gap_below
            };
            if self.is_free(sql, table, number)? {
                break number;
            }
        };
        given.lowest = Some(lowest);
        self.tables.insert(table.number, given);
        Ok(number)
    }

    /// Puts the sequences of `AUTOINCREMENT` tables back to what their rows ask for, after rows that were made
    /// have been taken out again.
    pub fn put_back(&self, sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
        let Some(Given { sequence: Some(before), .. }) = self.tables.get(&table.number) else {
            return Ok(());
        };
        let highest = highest_row(sql, table)?;
        set_sequence(sql, table, highest.max(*before))
    }

    fn given(&mut self, sql: &mut dyn Sql, table: &Table) -> Result<Given, SqlError> {
        if let Some(given) = self.tables.get(&table.number) {
            return Ok(*given);
        }
        let sequence = sequence(sql, table)?;
        let highest = highest_row(sql, table)?.max(sequence.unwrap_or(0));
        let given = Given { highest, sequence, gap: 0, lowest: None, gap_below: FIRST_APART + 1 };
        self.tables.insert(table.number, given);
        Ok(given)
    }

    fn raise(&mut self, table: &Table, number: i64) {
        if let Some(given) = self.tables.get_mut(&table.number) {
            given.highest = given.highest.max(number);
        }
    }

    /// The number after the highest; where there is none, the first gap.
    fn next(&mut self, sql: &mut dyn Sql, table: &Table) -> Result<i64, SqlError> {
        let mut given = self.given(sql, table)?;
        let number = loop {
            let number = if let Some(next) = given.highest.checked_add(1) {
                given.highest = next;
                next
            } else {
                given.gap = first_gap(sql, table, given.gap, true)?;
                given.gap
            };
            if self.is_free(sql, table, number)? {
                break number;
            }
        };
        self.tables.insert(table.number, given);
        Ok(number)
    }

    /// Whether nothing has to do with the number.
    fn is_free(&mut self, sql: &mut dyn Sql, table: &Table, number: i64) -> Result<bool, SqlError> {
        Ok(self.is_unused(sql, table, number)? && !self.is_meant(sql, table, number)?)
    }

    fn is_meant(&mut self, sql: &mut dyn Sql, table: &Table, number: i64) -> Result<bool, SqlError> {
        if let Some(meant) = self.meant.get(&table.number) {
            return Ok(meant.contains(&number));
        }
        let meant = dangling(sql, self.catalog, table)?;
        let is_meant = meant.contains(&number);
        self.meant.insert(table.number, meant);
        Ok(is_meant)
    }

    /// Whether no row has the number, and none is to get it.
    pub fn is_unused(&self, sql: &mut dyn Sql, table: &Table, number: i64) -> Result<bool, SqlError> {
        if self.promised.contains(&(table.number, number))
            || Entry::by_key(sql, table, &LocalKey::Number(number))?.is_some()
        {
            return Ok(false);
        }
        let statement =
            format!("SELECT 1 FROM main.{} WHERE {} = ?", quote(&table.name), number_column(table)?);
        Ok(sql.query_row(&statement, &[number.into()])?.is_none())
    }
}

/// Numbers that are left to an `AUTOINCREMENT` table at the least, whatever rows come from elsewhere.
const ROOM: i64 = 1 << 32;

/// Why a row that comes under this key, which means the same everywhere, is not put into its table: `AUTOINCREMENT` goes
/// on from the highest number that the table ever had, and makes no row at all behind the highest of all. Where the
/// application has gone so far itself, nothing is left to be kept.
pub fn exhausts(sql: &mut dyn Sql, table: &Table, key: &[Value]) -> Result<Option<String>, SqlError> {
    let [Value::Integer(number)] = key else { return Ok(None) };
    let last = i64::MAX - ROOM;
    if *number <= last || matches!(table.key, Key::Number(_)) || !is_autoincrement(table) {
        return Ok(None);
    }
    let statement = format!("SELECT max({}) FROM main.{}", quote(table.key_columns()[0]), quote(&table.name));
    let row = sql.query_row(&statement, &[])?;
    let highest = row.and_then(|row| as_number(&row[0])).max(sequence(sql, table)?);
    Ok(highest.is_none_or(|highest| highest <= last).then(|| {
        format!(
            "its number {number} would leave no numbers for new rows of {}, which is AUTOINCREMENT: give the row a smaller \
             one, or make the table without AUTOINCREMENT",
            table.name
        )
    }))
}

/// Whether SQLite keeps account of the numbers that the table has given.
pub fn is_autoincrement(table: &Table) -> bool {
    tokens(&table.ddl).is_some_and(|tokens| tokens.iter().any(|token| token.is("AUTOINCREMENT")))
}

fn number_column(table: &Table) -> Result<String, SqlError> {
    match &table.key {
        Key::Number(column) => Ok(quote(column)),
        Key::Natural(_) => Err(SqlError::corrupt(format!("{} has no numbers of its own", table.name))),
    }
}

fn highest_row(sql: &mut dyn Sql, table: &Table) -> Result<i64, SqlError> {
    let statement = format!("SELECT max({}) FROM main.{}", number_column(table)?, quote(&table.name));
    let row = sql.query_row(&statement, &[])?;
    Ok(row.and_then(|row| as_number(&row[0])).unwrap_or(0).max(0))
}

/// The lowest number of a row that is here or known of, if it is one that no application hands out.
fn lowest_number(sql: &mut dyn Sql, table: &Table) -> Result<i64, SqlError> {
    let statement = format!(
        "SELECT min((SELECT coalesce(min({}), 0) FROM main.{}), \
         (SELECT coalesce(min(k), 0) FROM main._federation_row WHERE tbl = ? AND k < 0))",
        number_column(table)?,
        quote(&table.name)
    );
    let row = sql.query_row(&statement, &[table.number.into()])?;
    Ok(row.and_then(|row| as_number(&row[0])).unwrap_or(0).min(FIRST_APART + 1))
}

/// The highest number that `AUTOINCREMENT` has given, 0 if none yet; nothing for other tables.
fn sequence(sql: &mut dyn Sql, table: &Table) -> Result<Option<i64>, SqlError> {
    // SQLite makes `sqlite_sequence` with the first such table; the word alone may be a comment.
    if !table.ddl.to_ascii_uppercase().contains("AUTOINCREMENT") || !exists(sql, "sqlite_sequence")? {
        return Ok(None);
    }
    let given = sql.query_row(
        "SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?",
        &[table.name.as_str().into()],
    )?;
    Ok(Some(given.and_then(|row| as_number(&row[0])).unwrap_or(0)))
}

fn set_sequence(sql: &mut dyn Sql, table: &Table, to: i64) -> Result<(), SqlError> {
    let name = table.name.as_str();
    let set =
        sql.execute("UPDATE main.sqlite_sequence SET seq = ? WHERE name = ?", &[to.into(), name.into()])?;
    if set == 0 {
        sql.execute("INSERT INTO main.sqlite_sequence(name, seq) VALUES(?, ?)", &[name.into(), to.into()])?;
    }
    Ok(())
}

/// The first number that no row has, above `after` or below it.
fn first_gap(sql: &mut dyn Sql, table: &Table, after: i64, is_upward: bool) -> Result<i64, SqlError> {
    let (name, column) = (quote(&table.name), number_column(table)?);
    let (step, (from, to), order, end) =
        if is_upward { ("+", (">=", "<"), "ASC", i64::MAX) } else { ("-", ("<=", ">"), "DESC", i64::MIN) };
    let next = if is_upward { after.saturating_add(1) } else { after.saturating_sub(1) };
    let taken = format!("SELECT 1 FROM main.{name} WHERE {column} = ?");
    if sql.query_row(&taken, &[next.into()])?.is_none() {
        return Ok(next);
    }
    let statement = format!(
        "SELECT a.{column} {step} 1 FROM main.{name} AS a WHERE a.{column} {from} ? AND a.{column} {to} ? \
         AND NOT EXISTS(SELECT 1 FROM main.{name} AS b WHERE b.{column} = a.{column} {step} 1) \
         ORDER BY a.{column} {order} LIMIT 1"
    );
    let gap = sql.query_row(&statement, &[next.into(), end.into()])?;
    gap.and_then(|row| as_number(&row[0]))
        .ok_or_else(|| SqlError::corrupt(format!("{} has no free number left", table.name)))
}
