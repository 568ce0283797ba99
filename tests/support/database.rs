//! An agent's database, in which what can go wrong goes wrong on demand.

use federation_hub::model::TableSchema;
use federation_hub::storage::driver::{EachRow, Sql, SqlError, SqlErrorKind, ValueRef};
use federation_hub::storage::sqlite_driver::RusqliteSql;
use rusqlite::Connection;

use crate::clock::Clock;

/// A part of the storage layer that is made ineffective, to see that the tests notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// Nobody learns of foreign keys: they travel as plain numbers.
    References,
    /// The application's triggers stay in place while remote rows are applied.
    TriggerSuppression,
    /// Triggers that keep indexes are not told from others.
    TriggerEffects,
    /// The hub never learns which columns are UNIQUE.
    UniqueArbitration,
}

/// A database on which a statement may find a lock of another connection.
pub struct Faulty {
    sql: RusqliteSql,
    /// Statements until one is refused, which then becomes `None`.
    pub busy_after: Option<usize>,
    /// Statements until the process dies: from then on none runs, not even a ROLLBACK.
    pub dies_after: Option<usize>,
    /// Rows that are put into tables of the application until the process dies, right behind the next one.
    pub dies_after_rows: Option<usize>,
    /// The statements that have run.
    pub statements: Vec<String>,
    /// What does not work.
    pub ablation: Option<Ablation>,
}

impl Faulty {
    /// Takes over a connection, whose SQL is to see this clock's time.
    pub fn new(connection: Connection, clock: &Clock) -> Self {
        clock.rule(&connection);
        let sql = RusqliteSql::new(connection);
        Self {
            sql,
            busy_after: None,
            dies_after: None,
            dies_after_rows: None,
            statements: Vec::new(),
            ablation: None,
        }
    }

    /// The connection, for what an application registers on it.
    pub fn connection(&mut self) -> &mut Connection {
        self.sql.connection()
    }

    fn pass(&mut self, statement: &str) -> Result<(), SqlError> {
        self.statements.push(statement.to_owned());
        if let Some(left) = &mut self.dies_after {
            let Some(fewer) = left.checked_sub(1) else {
                return Err(SqlError { kind: SqlErrorKind::Closed, message: "dead".into() });
            };
            *left = fewer;
        }
        if let Some(left) = self.dies_after_rows
            && statement.starts_with("INSERT")
            && statement.contains(" INTO main.")
        {
            self.dies_after_rows = left.checked_sub(1);
            self.dies_after = if left == 0 { Some(0) } else { self.dies_after };
        }
        // Neither settings nor the end of a transaction wait for locks.
        if statement.starts_with("PRAGMA") || statement == "ROLLBACK" {
            return Ok(());
        }
        match self.busy_after {
            None => Ok(()),
            Some(0) => {
                self.busy_after = None;
                Err(SqlError { kind: SqlErrorKind::Busy, message: "database is locked".into() })
            }
            Some(left) => {
                self.busy_after = Some(left - 1);
                Ok(())
            }
        }
    }

    /// What the hub is told of tables. Knows only texts that have a line for each part.
    pub fn declared(&self, mut tables: Vec<TableSchema>) -> Vec<TableSchema> {
        if self.ablation != Some(Ablation::UniqueArbitration) {
            return tables;
        }
        for table in &mut tables {
            table.indexes.retain(|index| !index.starts_with("CREATE UNIQUE"));
            let parts =
                table.ddl.split_once("(\n  ").and_then(|(head, rest)| Some((head, rest.rsplit_once(')')?)));
            if let Some((head, (parts, end))) = parts {
                let kept: Vec<&str> =
                    parts.split(",\n  ").filter(|part| !part.starts_with("UNIQUE")).collect();
                table.ddl = format!("{head}(\n  {}){end}", kept.join(",\n  "));
            }
        }
        tables
    }

    /// Whether a statement is one of those that an ablation makes ineffective.
    fn is_ablated(&self, statement: &str) -> bool {
        match self.ablation {
            None | Some(Ablation::UniqueArbitration) => false,
            Some(Ablation::References) => statement.contains("pragma_foreign_key_list"),
            Some(Ablation::TriggerEffects) => statement.starts_with("EXPLAIN"),
            Some(Ablation::TriggerSuppression) => {
                let suspends =
                    statement.starts_with("DROP TRIGGER") || statement.starts_with("CREATE TRIGGER");
                suspends && !statement.contains("_federation_")
            }
        }
    }
}

impl Sql for Faulty {
    fn run(&mut self, sql: &str) -> Result<(), SqlError> {
        self.pass(sql)?;
        if self.is_ablated(sql) {
            return Ok(());
        }
        self.sql.run(sql)
    }

    fn execute(&mut self, sql: &str, params: &[ValueRef<'_>]) -> Result<u64, SqlError> {
        self.pass(sql)?;
        self.sql.execute(sql, params)
    }

    fn query(&mut self, sql: &str, params: &[ValueRef<'_>], each: EachRow<'_>) -> Result<(), SqlError> {
        self.pass(sql)?;
        if self.is_ablated(sql) {
            return Ok(());
        }
        self.sql.query(sql, params, each)
    }
}
