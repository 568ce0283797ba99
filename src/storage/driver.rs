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
    /// What a table's definition is evaluated with is not there on this connection, or refuses the row: the table
    /// cannot be written here, and others can.
    Missing,
    /// Another process is syncing the database: a later turn may succeed.
    Leased,
    /// The bookkeeping is gone: somebody has detached the database. Attached anew, it is another replica.
    Detached,
    /// Another process's sync of the database ended before the hub had answered: the hub must be asked first what
    /// it has accepted, which attaching does.
    Unsettled,
    /// The handle is closed.
    Closed,
    /// Anything else.
    Other,
}

impl SqlErrorKind {
    /// What SQLite says, whatever code it gives it, of functions, collations and modules that an application has on
    /// connections of its own; and what libsql's vector indexes say of what they cannot take.
    const MISSING: [&'static str; 5] = [
        "no such function: ",
        "unknown function: ",
        "no such collation sequence: ",
        "no such module: ",
        "vector index(",
    ];

    /// The kind of an error that no code tells apart from others.
    pub fn by_message(message: &str) -> Self {
        let is_missing = Self::MISSING.iter().any(|start| message.starts_with(start));
        if is_missing { Self::Missing } else { Self::Other }
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
