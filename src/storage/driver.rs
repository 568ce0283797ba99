//! The narrow waist between storage and whatever holds the database.
//!
//! A [`SqlDriver`]'s unit is a whole batch: the application's JavaScript can run between two calls, but never
//! inside one. Storage opens its own transaction in each batch (invariant I2).

use thiserror::Error;
use tokio::sync::oneshot;

use crate::model::Value;

/// A value to bind, borrowed.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// NULL.
    Null,
    /// A 64-bit integer; a driver must not turn it into a double.
    Integer(i64),
    /// A double; a driver must not turn `1.0` into an integer.
    Real(f64),
    /// Text.
    Text(&'a str),
    /// A blob, possibly empty (which is not NULL).
    Blob(&'a [u8]),
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Integer(integer) => Self::Integer(*integer),
            Value::Real(real) => Self::Real(*real),
            Value::Text(text) => Self::Text(text),
            Value::Blob(blob) => Self::Blob(blob),
        }
    }
}

impl From<i64> for ValueRef<'_> {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl<'a> From<&'a str> for ValueRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for ValueRef<'a> {
    fn from(blob: &'a [u8]) -> Self {
        Self::Blob(blob)
    }
}

/// What kind of failure a statement met, as far as storage reacts to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlErrorKind {
    /// Another connection holds a lock, or an iterator is open on the handle: a later turn may succeed.
    Busy,
    /// BEGIN inside a transaction that the application has open: a later turn may succeed.
    InTransaction,
    /// A constraint of the application's schema (or a RAISE of its triggers) refused the row.
    Constraint,
    /// The statement itself failed: an expression of the schema has no value for the row, a value is too long, or a
    /// function, collation or module is not there on this connection. Other rows or tables can be written.
    Statement,
    /// Another process is syncing the database: a later turn may succeed.
    Leased,
    /// The bookkeeping is gone: somebody has detached the database. Attached anew, it is another replica.
    Detached,
    /// Another process's sync of the database ended before the hub had answered: the hub must be asked first what
    /// it has accepted, which attaching does.
    Unsettled,
    /// The handle is closed.
    Closed,
    /// Anything else: the disk, the file, memory, the connection, or a fault of ours.
    Other,
}

impl SqlErrorKind {
    /// The families of SQLite's result codes that say nothing of the statement: the disk, the file, memory or the
    /// connection failed.
    const OF_THE_DATABASE: [&'static str; 14] = [
        "SQLITE_INTERNAL",
        "SQLITE_PERM",
        "SQLITE_ABORT",
        "SQLITE_NOMEM",
        "SQLITE_READONLY",
        "SQLITE_INTERRUPT",
        "SQLITE_IOERR",
        "SQLITE_CORRUPT",
        "SQLITE_FULL",
        "SQLITE_CANTOPEN",
        "SQLITE_MISUSE",
        "SQLITE_NOLFS",
        "SQLITE_FORMAT",
        "SQLITE_NOTADB",
    ];

    /// What SQLite says of these, for drivers that give no codes.
    const WORDS_OF_THE_DATABASE: [&'static str; 13] = [
        "out of memory",
        "attempt to write a readonly database",
        "interrupted",
        "disk I/O error",
        "database disk image is malformed",
        "database corruption",
        "database or disk is full",
        "unable to open database file",
        "locking protocol",
        "database schema has changed",
        "bad parameter or other API misuse",
        "callback requested query abort",
        "file is not a database",
    ];

    /// The kind of an error by the name of SQLite's result code, extended or not, and by what was said. An unknown code is
    /// taken for the statement's: functions of an application's throw whatever they like.
    pub fn of(code: &str, message: &str) -> Self {
        let is = |family: &str| {
            code.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        };
        // The last two are what other connections that write, or change the schema, make of a statement again and again.
        if ["SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_SCHEMA"].into_iter().any(is) {
            Self::Busy
        } else if is("SQLITE_CONSTRAINT") || is("SQLITE_MISMATCH") {
            Self::Constraint
        } else if message.contains("cannot start a transaction within a transaction") {
            Self::InTransaction
        } else if Self::OF_THE_DATABASE.into_iter().any(is)
            || Self::WORDS_OF_THE_DATABASE.iter().any(|words| message.starts_with(words))
        {
            Self::Other
        } else {
            Self::Statement
        }
    }
}

/// A statement that failed. The statement had no effect; the transaction is still open.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct SqlError {
    /// How to react.
    pub kind: SqlErrorKind,
    /// What SQLite said.
    pub message: String,
}

impl SqlError {
    /// An error of our own making: something in the bookkeeping that cannot be.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self { kind: SqlErrorKind::Other, message: format!("federation bookkeeping: {}", what.into()) }
    }
}

/// Receives the rows of a query. The values may be taken out of the slice.
pub type EachRow<'a> = &'a mut dyn FnMut(&mut [Value]) -> Result<(), SqlError>;

/// A connection during one batch.
pub trait Sql {
    /// Runs one statement that returns nothing and is not worth keeping: DDL, transaction control, pragmas.
    fn run(&mut self, sql: &str) -> Result<(), SqlError>;

    /// Runs a statement, kept prepared for next time; returns how many rows it changed itself.
    fn execute(&mut self, sql: &str, params: &[ValueRef<'_>]) -> Result<u64, SqlError>;

    /// Runs a query, kept prepared for next time, and hands over each row.
    fn query(&mut self, sql: &str, params: &[ValueRef<'_>], each: EachRow<'_>) -> Result<(), SqlError>;

    /// The first row of a query.
    fn query_row(&mut self, sql: &str, params: &[ValueRef<'_>]) -> Result<Option<Vec<Value>>, SqlError> {
        let mut first = None;
        self.query(sql, params, &mut |row| {
            if first.is_none() {
                first = Some(row.iter_mut().map(|value| std::mem::replace(value, Value::Null)).collect());
            }
            Ok(())
        })?;
        Ok(first)
    }
}

/// Work for the thread that owns the database.
pub type Job = Box<dyn FnOnce(&mut dyn Sql) + Send>;

/// Whatever holds the database: an application's handle on the JS thread, or a file of our own.
pub trait SqlDriver: Send + Sync + 'static {
    /// Runs the job, whole, on the thread that owns the database, in a later turn of it. A job that can no
    /// longer run is dropped.
    fn submit(&self, job: Job);

    /// Names the database as long as it is open, so that what is known of it can be kept between two syncs.
    fn database_id(&self) -> u64;
}

/// The thread that owns the database is gone, or has closed it for good.
#[derive(Clone, Copy, Debug, Error)]
#[error("the database's thread has ended")]
pub struct DriverGone;

/// Runs one batch and waits for what it returns.
pub async fn batch<T: Send + 'static>(
    driver: &dyn SqlDriver,
    work: impl FnOnce(&mut dyn Sql) -> T + Send + 'static,
) -> Result<T, DriverGone> {
    let (done, outcome) = oneshot::channel();
    driver.submit(Box::new(move |sql| {
        // Nobody waits any more only when the sync was given up: the batch has still run whole.
        let _ = done.send(work(sql));
    }));
    outcome.await.map_err(|_| DriverGone)
}
