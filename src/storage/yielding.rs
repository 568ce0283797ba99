//! Triggers that keep indexes give way: an index that cannot take a row keeps it out of itself, and not out of its table.

use super::catalog::quote;
use super::driver::{EachRow, Sql, SqlError, SqlErrorKind, ValueRef};
use super::transaction::is_in_transaction;
use super::trigger_effects::Trigger;

/// How often the indexes of a table may refuse a row within one turn; then its triggers sleep until the turn's end.
const MAX_REFUSALS: usize = 8;

/// What keeps the indexes of a table.
pub struct Awake {
    table: String,
    /// The table as it stands in statements.
    place: String,
    triggers: Vec<Trigger>,
    refusals: usize,
    /// How often the table refused a row by itself, as it turned out.
    in_vain: usize,
    is_asleep: bool,
}

impl Awake {
    /// Triggers that fire for what is applied to a table.
    pub fn new(table: &str, triggers: Vec<Trigger>) -> Self {
        let place = format!("main.{}", quote(table));
        Self { table: table.to_owned(), place, triggers, refusals: 0, in_vain: 0, is_asleep: false }
    }

    /// Whether a statement is about the table.
    fn is_in(&self, statement: &str) -> bool {
        statement
            .match_indices(&self.place)
            .any(|(at, place)| !statement[at + place.len()..].starts_with('"'))
    }

    /// Whether it was a constraint of the table's own that refused the row.
    fn is_to_blame(&self, error: &SqlError) -> bool {
        let said = |what: &str| error.message.contains(what);
        error.kind == SqlErrorKind::Constraint
            && (said(&format!("constraint failed: {}.", self.table))
                || said("CHECK constraint failed")
                || said("constraint failed: index ")
                || said("datatype mismatch")
                || said("cannot store "))
    }

    /// Whether the row may go in without the indexes. Where several did not, an expression of the table's own fails.
    fn may_give_way(&self, error: &SqlError) -> bool {
        !self.is_to_blame(error) && self.in_vain < MAX_REFUSALS
    }

    fn sleep(&mut self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        for trigger in &self.triggers {
            sql.run(&trigger.drop_statement())?;
        }
        self.is_asleep = true;
        Ok(())
    }

    fn wake(&mut self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        for trigger in &self.triggers {
            sql.run(&trigger.text)?;
        }
        self.is_asleep = false;
        Ok(())
    }
}

/// The database, while rows are applied to it.
pub struct Yielding<'a> {
    sql: &'a mut dyn Sql,
    awake: Vec<Awake>,
    /// Tables of which rows are not in an index, each with the first reason.
    refused: Vec<(String, String)>,
}

impl<'a> Yielding<'a> {
    /// The database, with the triggers that fire.
    pub fn new(sql: &'a mut dyn Sql, awake: Vec<Awake>) -> Self {
        Self { sql, awake, refused: Vec::new() }
    }

    /// Wakes what sleeps. Returns the tables of which rows are not in an index, each with a reason.
    pub fn finish(&mut self) -> Result<Vec<(String, String)>, SqlError> {
        for awake in self.awake.iter_mut().filter(|awake| awake.is_asleep) {
            awake.wake(self.sql)?;
        }
        Ok(std::mem::take(&mut self.refused))
    }

    /// Runs a statement that has failed once more, without the indexes of its table.
    fn without_indexes(
        &mut self,
        statement: &str,
        params: &[ValueRef<'_>],
        error: SqlError,
    ) -> Result<u64, SqlError> {
        let may_be_index =
            matches!(error.kind, SqlErrorKind::Constraint | SqlErrorKind::Statement | SqlErrorKind::Other);
        let awake = self.awake.iter_mut().filter(|awake| may_be_index && !awake.is_asleep);
        let Some(awake) =
            awake.into_iter().find(|awake| awake.is_in(statement) && awake.may_give_way(&error))
        else {
            return Err(error);
        };
        // What is done to triggers must not outlive the transaction.
        if !is_in_transaction(self.sql) {
            return Err(error);
        }
        awake.sleep(self.sql)?;
        let outcome = self.sql.execute(statement, params);
        if outcome.is_err() {
            awake.in_vain += 1;
        } else {
            awake.refusals += 1;
            if self.refused.iter().all(|(table, _)| *table != awake.table) {
                self.refused.push((awake.table.clone(), error.message));
            }
        }
        if outcome.is_err() || awake.refusals < MAX_REFUSALS {
            awake.wake(self.sql)?;
        }
        outcome
    }
}

impl Sql for Yielding<'_> {
    fn run(&mut self, sql: &str) -> Result<(), SqlError> {
        self.sql.run(sql)
    }

    fn execute(&mut self, sql: &str, params: &[ValueRef<'_>]) -> Result<u64, SqlError> {
        match self.sql.execute(sql, params) {
            Err(error) if !self.awake.is_empty() => self.without_indexes(sql, params, error),
            outcome => outcome,
        }
    }

    fn query(&mut self, sql: &str, params: &[ValueRef<'_>], each: EachRow<'_>) -> Result<(), SqlError> {
        self.sql.query(sql, params, each)
    }
}

/// Runs a turn that applies rows. If it fails although it could do without the indexes that it kept, it runs once
/// more without them: a damaged index may tell so as late as at the COMMIT. `turn` is given why that is, and says whether
/// it kept any.
pub fn despite_indexes<T>(
    sql: &mut dyn Sql,
    mut turn: impl FnMut(&mut dyn Sql, &mut Indexes) -> Result<T, SqlError>,
) -> Result<T, SqlError> {
    let mut indexes = Indexes::default();
    match turn(sql, &mut indexes) {
        Err(error)
            if indexes.are_kept
                && matches!(
                    error.kind,
                    SqlErrorKind::Constraint | SqlErrorKind::Statement | SqlErrorKind::Other
                ) =>
        {
            turn(sql, &mut Indexes { failure: Some(error.message), are_kept: false })
        }
        outcome => outcome,
    }
}

/// How a turn does with the indexes that triggers keep.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    /// Why they are not kept, if so.
    pub failure: Option<String>,
    /// Whether the turn keeps some.
    pub are_kept: bool,
}
