//! Local numbers for rows that come from elsewhere.

use std::collections::HashMap;

use super::catalog::{Table, quote};
use super::driver::{Sql, SqlError};
use super::rows::{Entry, LocalKey};
use crate::model::Value;

/// The highest number of each table, as far as this turn has looked.
#[derive(Debug, Default)]
pub struct Numbers(HashMap<i64, i64>);

impl Numbers {
    /// A free number for a new row: the one it was born with if that is free and at most one above the
    /// highest here, else the next one. So no stranger's huge number ever exhausts the range.
    pub fn assign(
        &mut self,
        sql: &mut dyn Sql,
        table: &Table,
        column: &str,
        wish: Option<i64>,
    ) -> Result<i64, SqlError> {
        let highest = match self.0.get(&table.number) {
            Some(highest) => *highest,
            None => highest(sql, table, column)?,
        };
        let number = match wish {
            Some(wish) if wish > 0 && wish <= highest && is_free(sql, table, column, wish)? => wish,
            _ => next(sql, table, column, highest)?,
        };
        self.0.insert(table.number, highest.max(number));
        Ok(number)
    }
}

/// The highest number that is in use here, was in use (AUTOINCREMENT never gives one twice), or is promised
/// to a row that a reference names.
fn highest(sql: &mut dyn Sql, table: &Table, column: &str) -> Result<i64, SqlError> {
    let mut highest = 0;
    let statements = [
        format!("SELECT max({}) FROM main.{}", quote(column), quote(&table.name)),
        format!("SELECT max(k) FROM _federation_row WHERE tbl = {} AND k < x''", table.number),
    ];
    for statement in &statements {
        if let Some([Value::Integer(number)]) = sql.query_row(statement, &[])?.as_deref() {
            highest = highest.max(*number);
        }
    }
    if table.ddl.to_ascii_uppercase().contains("AUTOINCREMENT") {
        let given = sql.query_row(
            "SELECT max(seq) FROM sqlite_sequence WHERE name = ?",
            &[table.name.as_str().into()],
        )?;
        if let Some([Value::Integer(number)]) = given.as_deref() {
            highest = highest.max(*number);
        }
    }
    Ok(highest)
}

fn is_free(sql: &mut dyn Sql, table: &Table, column: &str, number: i64) -> Result<bool, SqlError> {
    if Entry::by_key(sql, table, &LocalKey::Number(number))?.is_some() {
        return Ok(false);
    }
    let statement = format!("SELECT 1 FROM main.{} WHERE {} = ?", quote(&table.name), quote(column));
    Ok(sql.query_row(&statement, &[number.into()])?.is_none())
}

/// The number after the highest; where there is none, the first gap.
fn next(sql: &mut dyn Sql, table: &Table, column: &str, highest: i64) -> Result<i64, SqlError> {
    if let Some(next) = highest.checked_add(1) {
        return Ok(next);
    }
    let (name, column) = (quote(&table.name), quote(column));
    let statement = format!(
        "SELECT coalesce((SELECT a.{column} + 1 FROM main.{name} AS a WHERE a.{column} > 0 \
         AND a.{column} < ? AND NOT EXISTS (SELECT 1 FROM main.{name} AS b WHERE b.{column} = a.{column} + 1) \
         AND NOT EXISTS (SELECT 1 FROM _federation_row WHERE tbl = {} AND k = a.{column} + 1) \
         ORDER BY a.{column} LIMIT 1), 1)",
        table.number
    );
    match sql.query_row(&statement, &[i64::MAX.into()])?.as_deref() {
        Some([Value::Integer(number)]) => Ok(*number),
        _ => Err(SqlError::corrupt(format!("{} has no free number left", table.name))),
    }
}
