//! Whether a tenant's rows contradict a definition: whoever is handed it must be able to have them.
//!
//! Each living row is looked at as it is told, once, and only for what the definition asks besides what is ruled on already.
//! The store's thread is everybody's: of a table with more rows than [`MAX_ROWS`] nobody knows.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::claims::Claims;
use super::damaged;
use super::definitions::Witness;
use super::key::{KeyDigest, KeyOf, number_of};
use super::rules::{LinkRule, TableRules, TenantRules};
use crate::model::{CellValue, ColumnIndex, RowId, RowState, Seq, TableSchema, Value};
use crate::storage::catalog::quote;
use crate::storage::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use crate::storage::hub_store::StoreError;
use crate::storage::row_codec;
use crate::storage::scratch::Scratch;
use crate::storage::sql_text::{Token, tokens};

/// Rows that are looked at, at most.
const MAX_ROWS: i64 = 100_000;

/// What comes of looking at the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of them can live under the definition.
    Fits,
    /// Some cannot.
    Contradicted(Option<Witness>),
    /// There are too many rows to look at.
    TooMany,
}

/// What looking at a table's definition costs, as rows do.
const TABLE_COST: i64 = 100;

/// Looks at the rows of a table that is to be defined so; with `values`, at all that it asks of them, and else at its unique
/// keys only. What that costs is taken from a budget, in rows.
pub fn judge(
    conn: &Connection,
    tenant: i64,
    rules: &mut Option<TenantRules>,
    (table, candidate): (i64, &TableSchema),
    (values, budget): (bool, &mut i64),
) -> Result<Verdict, StoreError> {
    let sql = "SELECT count(*) FROM (SELECT 1 FROM row_state WHERE tenant = ?1 AND tbl = ?2 LIMIT ?3)";
    let count: i64 = conn.prepare_cached(sql)?.query_row([tenant, table, MAX_ROWS + 1], |row| row.get(0))?;
    if count == 0 {
        return Ok(Verdict::Fits);
    }
    let mut current = TenantRules::of(conn, tenant, rules.take())?;
    let cost = if values { TABLE_COST.saturating_mul(current.len()) } else { TABLE_COST };
    *budget -= count.saturating_add(cost);
    if count > MAX_ROWS || *budget < 0 {
        *rules = Some(current);
        return Ok(Verdict::TooMany);
    }
    let mut trial = current.trial(conn, tenant, (table, candidate), values)?;
    let verdict = Judge::new(conn, tenant, &current, &trial, (table, candidate), values)
        .and_then(|judge| judge.map_or(Ok(Verdict::Fits), |judge| judge.run(&mut trial)));
    if values {
        current.end_trial(trial);
    }
    *rules = Some(current);
    verdict
}

struct Judge<'a> {
    conn: &'a Connection,
    tenant: i64,
    table: i64,
    rules: std::sync::Arc<TableRules>,
    /// Unique keys that are not ruled on yet.
    keys: Vec<usize>,
    /// References that are not.
    links: Vec<usize>,
    values: Option<ValueJudge>,
    /// An index over which rows may fail.
    index: Option<ValueJudge>,
}

impl<'a> Judge<'a> {
    /// None if there is nothing to look at.
    fn new(
        conn: &'a Connection,
        tenant: i64,
        current: &TenantRules,
        trial: &TenantRules,
        (table, candidate): (i64, &TableSchema),
        values: bool,
    ) -> Result<Option<Self>, StoreError> {
        let Some(rules) = trial.table(table) else { return Ok(None) };
        let known = current.table(table);
        let is_known_key = |signature: &KeyDigest| {
            known.as_ref().is_some_and(|it| it.unique.iter().any(|key| key.signature == *signature))
        };
        let is_known_link = |link: &LinkRule| {
            let same = |it: &LinkRule| it.parent == link.parent && it.columns == link.columns;
            known.as_ref().is_some_and(|known| known.links.iter().any(same))
        };
        let numbers =
            |count: usize, is_new: &dyn Fn(usize) -> bool| (0..count).filter(|at| is_new(*at)).collect();
        let keys: Vec<usize> = numbers(rules.unique.len(), &|at| !is_known_key(&rules.unique[at].signature));
        let links: Vec<usize> = numbers(rules.links.len(), &|at| !is_known_link(&rules.links[at]));
        let index = candidate.indexes.last().filter(|index| !values && can_fail(index));
        if keys.is_empty() && links.is_empty() && index.is_none() && !values {
            return Ok(None);
        }
        let index = index.map(|index| ValueJudge::of_index(&candidate.ddl, index)).transpose()?;
        let values = if values { Some(ValueJudge::new(&candidate.ddl)?) } else { None };
        Ok(Some(Self { conn, tenant, table, rules, keys, links, values, index }))
    }

    fn run(mut self, trial: &mut TenantRules) -> Result<Verdict, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT row, seq, coalesce(effective, body) FROM row_state
             WHERE tenant = ?1 AND tbl = ?2 AND NOT dead AND NOT withheld AND survivor IS NULL",
        )?;
        let mut rows = statement.query([self.tenant, self.table])?;
        let mut holders: HashMap<KeyDigest, (i64, Seq)> = HashMap::new();
        while let Some(row) = rows.next()? {
            let this = (row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned());
            let body = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let state = row_codec::decode(body).map_err(|_| damaged("a row"))?;
            if !state.is_alive() {
                continue;
            }
            let value = |column: ColumnIndex| state.cells.get(&column).map(|cell| cell.value.clone());
            for at in &self.keys {
                let key = self.rules.unique[*at].key_of(trial.scratch(), &self.rules, &state, &value);
                let (KeyOf::Known(key) | KeyOf::Compared(key)) = key else { continue };
                if let Some(other) = holders.insert(key, this) {
                    return Ok(Verdict::Contradicted(Some([other, this])));
                }
            }
            for at in &self.links {
                if !self.is_met(trial, &self.rules.links[*at], &state)? {
                    return Ok(Verdict::Contradicted(None));
                }
            }
            if self.index.as_mut().is_some_and(|judge| judge.fails(&self.rules, &state)) {
                return Ok(Verdict::Contradicted(Some([this, this])));
            }
            if self.values.as_mut().is_some_and(|judge| judge.refuses(&self.rules, &state)) {
                return Ok(Verdict::Contradicted(None));
            }
        }
        Ok(Verdict::Fits)
    }

    /// Whether what a row references by a link is there.
    fn is_met(&self, trial: &TenantRules, link: &LinkRule, state: &RowState) -> Result<bool, StoreError> {
        let value = |column: &ColumnIndex| {
            let cell = state.cells.get(column).map(|cell| cell.value.clone());
            cell.filter(|value| *value != CellValue::Plain(Value::Null))
        };
        let values: Option<Vec<CellValue>> = link.columns.iter().map(value).collect();
        let Some(values) = values else { return Ok(true) };
        let Some(key) = link.key else {
            let [CellValue::Ref(id)] = values[..] else { return Ok(false) };
            let sql = "SELECT EXISTS(SELECT 1 FROM row_state WHERE tenant = ?1 AND tbl = ?2 AND id = ?3 AND NOT dead)";
            let mut statement = self.conn.prepare_cached(sql)?;
            return Ok(statement.query_row(params![self.tenant, link.parent, &id.0[..]], |row| row.get(0))?);
        };
        let Some(parent) = trial.table(link.parent) else { return Ok(false) };
        let Some(key) = parent.unique.get(key) else { return Ok(false) };
        let KeyOf::Known(digest) = key.digest_of(&link.order, &values) else { return Ok(true) };
        Ok(Claims::new(self.conn, self.tenant).holder(digest)?.is_some())
    }
}

/// Whether two rows are as they were when they contradicted something.
pub fn is_as_it_was(conn: &Connection, tenant: i64, witness: &Witness) -> Result<bool, StoreError> {
    for (row, seq) in witness {
        let found: Option<i64> = conn
            .prepare_cached("SELECT seq FROM row_state WHERE row = ?1 AND tenant = ?2")?
            .query_row([*row, tenant], |row| row.get(0))
            .optional()?;
        if found.map(i64::cast_unsigned) != Some(*seq) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there may be rows over which an index of SQLite's own functions fails.
pub fn can_fail(index: &str) -> bool {
    let Some(tokens) = tokens(index) else { return false };
    let is_failing = |name: &str| name.starts_with("json") || name == "abs";
    let arrow = |pair: &[Token<'_>]| pair[0].is("-") && pair[1].is(">") && pair[0].end() == pair[1].start;
    let call = |pair: &[Token<'_>]| {
        pair[1].is("(") && pair[0].name().is_some_and(|name| is_failing(&name.to_lowercase()))
    };
    tokens.windows(2).any(|pair| arrow(pair) || call(pair))
}

/// A table in which rows are tried one by one.
pub struct ValueJudge(Scratch);

impl ValueJudge {
    /// One of this text, which is proved.
    pub fn new(ddl: &str) -> Result<Self, StoreError> {
        let failed =
            |error: &dyn std::fmt::Display| StoreError::Failed(format!("a table's definition: {error}"));
        let mut scratch = Scratch::open()?;
        scratch.sql.run("PRAGMA foreign_keys = OFF").map_err(|error| failed(&error))?;
        scratch.define(ddl).map_err(|error| failed(&error))?;
        scratch.bound_cost()?;
        Ok(Self(scratch))
    }

    /// One with this index, which fits on it, and without CHECK.
    fn of_index(ddl: &str, index: &str) -> Result<Self, StoreError> {
        let failed = |error: String| StoreError::Failed(format!("an index's definition: {error}"));
        let mut judge = Self::new(ddl)?;
        judge.0.define(index).map_err(failed)?;
        let unchecked = judge.0.sql.run("PRAGMA ignore_check_constraints = ON");
        unchecked.map_err(|error| failed(error.message))?;
        Ok(judge)
    }

    /// Whether the table refuses a row for what it is by itself. What cannot be evaluated here refuses nothing.
    pub fn refuses(&mut self, table: &TableRules, state: &RowState) -> bool {
        match self.refusal(table, state) {
            Some(refusal) => refusal.kind == SqlErrorKind::Constraint || is_failure(&refusal),
            None => false,
        }
    }

    /// Whether an expression fails over a row.
    fn fails(&mut self, table: &TableRules, state: &RowState) -> bool {
        self.refusal(table, state).is_some_and(|refusal| is_failure(&refusal))
    }

    /// What SQLite says as it refuses a row; none if it takes it, or cannot be asked here.
    fn refusal(&mut self, table: &TableRules, state: &RowState) -> Option<SqlError> {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        if let (Some(name), Some(number)) = (&table.number, state.number) {
            names.push(quote(name));
            values.push(Value::Integer(number));
        }
        for (column, name) in (0..).zip(&table.columns).filter(|(column, _)| table.made.contains(column)) {
            let Some(cell) = state.cells.get(&column) else { continue };
            names.push(quote(name));
            values.push(match &cell.value {
                CellValue::Plain(value) => value.clone(),
                CellValue::Ref(RowId(id)) => Value::Integer(number_of(RowId(*id))),
            });
        }
        let (name, marks) = (quote(&table.name), vec!["?"; names.len()].join(", "));
        let insert = format!("INSERT INTO {name}({}) VALUES({marks})", names.join(", "));
        let params: Vec<ValueRef<'_>> = values.iter().map(ValueRef::from).collect();
        let outcome = self.0.evaluate(|sql| {
            let outcome = sql.execute(&insert, &params);
            let _ = sql.execute(&format!("DELETE FROM {name}"), &[]);
            outcome
        });
        outcome?.err()
    }
}

/// Whether an expression has failed, as it would at an agent. That a value is too long here says nothing: the limit is ours.
fn is_failure(refusal: &SqlError) -> bool {
    refusal.kind == SqlErrorKind::Statement && !refusal.message.contains("too big")
}
