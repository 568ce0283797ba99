//! A database behind an application's handle, worked on only through that handle (invariant I1).
//!
//! What is called is better-sqlite3's: `exec`, and `prepare` for statements with `reader`, `raw`, `safeIntegers`,
//! `all` and `run`. Handles of other packages come with an adapter of that surface (the folder `handles`), whose
//! errors have better-sqlite3's codes and messages too.
//!
//! Statements stay prepared from sync to sync. They live in a JavaScript array that the wrapper holds in a
//! `WeakMap` under the handle, so that neither keeps the other from being collected; which statement is where
//! in it, a map attached to the array knows.

#![expect(
    unsafe_code,
    reason = "two places trust what Node-API cannot prove: the open scope, an attached type"
)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use napi::bindgen_prelude::Object;
use napi::{Env, JsValue, sys};
use tokio::sync::Mutex as AsyncMutex;

use super::js_thread::{JsThread, Turn};
use super::raw::{BufferLocal, Fault, Local, Scope};
use crate::model::Value;
use crate::storage::driver::{EachRow, Job, Sql, SqlDriver, SqlError, SqlErrorKind, ValueRef};

/// How many statements are kept prepared for one handle; one more, and all are let go.
const MAX_STATEMENTS: usize = 512;

/// How many blob buffers one batch keeps for binding.
const MAX_BUFFERS: usize = 32;

/// A blob longer than this is bound through a buffer of its own, freed with its row.
const MAX_KEPT_BUFFER_BYTES: usize = 64 * 1024;

/// Works on a handle, on its JS thread, while one promise is pending.
///
/// The call that made the [`JsThread`] keeps two objects: the handle, then the array for its statements.
pub struct JsDriver {
    thread: JsThread,
    database_id: u64,
}

impl JsDriver {
    /// A driver over the handle that this thread's call keeps, with the number that [`HandleInfo`] gives.
    pub fn new(thread: JsThread, database_id: u64) -> Self {
        Self { thread, database_id }
    }
}

impl SqlDriver for JsDriver {
    fn submit(&self, job: Job) {
        self.thread.run(move |turn| {
            if let Some(mut sql) = JsSql::new(turn) {
                job(&mut sql);
            }
        });
    }

    fn database_id(&self) -> u64 {
        self.database_id
    }
}

/// What is known of a handle, attached to the array of its statements.
struct Handle {
    id: u64,
    turn: Arc<AsyncMutex<()>>,
    /// Which element of the array a statement is, by its SQL.
    index: HashMap<Box<str>, u32>,
}

/// What a sync has to know of a handle before it begins.
pub struct HandleInfo {
    /// A number that no other handle has, or will have: even.
    pub database_id: u64,
    /// Held during a sync, so that two of one handle, by whichever instances, take turns.
    pub turn: Arc<AsyncMutex<()>>,
}

impl HandleInfo {
    /// Looks it up in the array of the handle's statements.
    pub fn of(env: &Env, statements: &Object<'_>) -> napi::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // SAFETY: we are in a call from JavaScript, so `env` is live on this thread and has a scope open.
        let (scope, statements) = unsafe {
            let scope = Scope::assume(env.raw());
            (scope, Local::assume(statements.raw()))
        };
        if known(scope, statements).is_none() {
            let id = NEXT.fetch_add(2, Ordering::Relaxed);
            let attached =
                scope.attach(statements, Handle { id, turn: Arc::default(), index: HashMap::new() });
            attached.map_err(|_| napi::Error::from_reason("the database cannot be marked as known"))?;
        }
        known(scope, statements)
            .map(|handle| Self { database_id: handle.id, turn: Arc::clone(&handle.turn) })
            .ok_or_else(|| napi::Error::from_reason("the database was marked by something else"))
    }
}

fn known<'s>(scope: Scope<'s>, statements: Local<'s>) -> Option<&'s mut Handle> {
    // SAFETY: the array reaches nobody but this module, which attaches a `Handle` to it and nothing else; one
    // batch runs at a time, and it alone holds the reference.
    unsafe { scope.attached::<Handle>(statements) }
}

/// The handle during one batch.
struct JsSql<'t> {
    scope: Scope<'t>,
    database: Local<'t>,
    statements: Local<'t>,
    index: &'t mut HashMap<Box<str>, u32>,
    null: Local<'t>,
    /// Buffers to bind blobs with, by parameter and length: what is bound is copied, so the next
    /// row can use them again.
    buffers: HashMap<(usize, usize), BufferLocal<'t>>,
}

/// A prepared statement.
#[derive(Clone, Copy)]
struct Statement<'s> {
    object: Local<'s>,
    /// Its method `all` or `run`.
    method: Local<'s>,
    /// Whether it returns rows.
    reads: bool,
}

impl<'t> JsSql<'t> {
    fn new(turn: &Turn<'t>) -> Option<Self> {
        let scope = turn.scope();
        let (database, statements) = (turn.kept(0)?, turn.kept(1)?);
        let null = scope.null().ok()?;
        let index = &mut known(scope, statements)?.index;
        Some(Self { scope, database, statements, index, null, buffers: HashMap::new() })
    }

    fn statement<'n>(&mut self, scope: Scope<'n>, sql: &str) -> Result<Statement<'n>, SqlError> {
        let found = match self.index.get(sql) {
            Some(at) => Ok(*at),
            None => self.prepare(scope, sql),
        };
        found
            .and_then(|at| {
                Ok(Statement {
                    object: scope.element(self.statements, at)?,
                    method: scope.element(self.statements, at + 1)?,
                    reads: scope.as_bool(scope.element(self.statements, at + 2)?)?,
                })
            })
            .map_err(|fault| sql_error(scope, &fault))
    }

    /// Prepares a statement and keeps it: the statement, its method, and whether it reads, side by side.
    fn prepare<'n>(&mut self, scope: Scope<'n>, sql: &str) -> Result<u32, Fault<'n>> {
        if self.index.len() >= MAX_STATEMENTS {
            self.index.clear();
            scope.set(self.statements, c"length", scope.number(0.0)?)?;
        }
        let prepare = scope.get(self.database, c"prepare")?;
        let object = scope.call(self.database, prepare, &[scope.string(sql)?])?;
        let reads = scope.get(object, c"reader")?;
        let method = if scope.as_bool(reads)? {
            let on = [scope.boolean(true)?];
            scope.call(object, scope.get(object, c"raw")?, &on)?;
            scope.call(object, scope.get(object, c"safeIntegers")?, &on)?;
            scope.get(object, c"all")?
        } else {
            scope.get(object, c"run")?
        };
        let at = scope.length(self.statements)?;
        for (place, value) in (at..).zip([object, method, reads]) {
            scope.set_element(self.statements, place, value)?;
        }
        self.index.insert(sql.into(), at);
        Ok(at)
    }

    /// Makes sure that there is a buffer for each blob, in the batch's own scope.
    fn reserve_buffers(&mut self, params: &[ValueRef<'_>]) {
        for (place, param) in params.iter().enumerate() {
            let ValueRef::Blob(bytes) = param else { continue };
            let key = (place, bytes.len());
            if bytes.len() <= MAX_KEPT_BUFFER_BYTES
                && self.buffers.len() < MAX_BUFFERS
                && !self.buffers.contains_key(&key)
                && let Ok(buffer) = self.scope.buffer(bytes.len())
            {
                self.buffers.insert(key, buffer);
            }
        }
    }

    fn bind<'n>(&self, scope: Scope<'n>, place: usize, param: ValueRef<'_>) -> Result<Local<'n>, Fault<'n>>
    where
        't: 'n,
    {
        match param {
            ValueRef::Null => Ok(self.null),
            ValueRef::Integer(integer) => scope.bigint(integer),
            ValueRef::Real(real) => scope.number(real),
            ValueRef::Text(text) => scope.string(text),
            ValueRef::Blob(bytes) => Ok(match self.buffers.get(&(place, bytes.len())) {
                Some(buffer) => buffer.fill(bytes),
                None => scope.buffer(bytes.len())?.fill(bytes),
            }),
        }
    }

    /// Runs a kept statement and returns what it returned: an array of rows, or `run`'s report.
    fn call<'n>(
        &mut self,
        scope: Scope<'n>,
        sql: &str,
        params: &[ValueRef<'_>],
    ) -> Result<(Statement<'n>, Local<'n>), SqlError>
    where
        't: 'n,
    {
        let statement = self.statement(scope, sql)?;
        let args: Result<Vec<_>, _> =
            params.iter().enumerate().map(|(place, param)| self.bind(scope, place, *param)).collect();
        args.and_then(|args| scope.call(statement.object, statement.method, &args))
            .map(|outcome| (statement, outcome))
            .map_err(|fault| sql_error(scope, &fault))
    }
}

impl Sql for JsSql<'_> {
    fn run(&mut self, sql: &str) -> Result<(), SqlError> {
        let database = self.database;
        self.scope.nested(|scope, _| {
            let ran = scope
                .get(database, c"exec")
                .and_then(|exec| scope.call(database, exec, &[scope.string(sql)?]));
            ran.map(drop).map_err(|fault| sql_error(scope, &fault))
        })
    }

    fn execute(&mut self, sql: &str, params: &[ValueRef<'_>]) -> Result<u64, SqlError> {
        self.reserve_buffers(params);
        self.scope.nested(|scope, _| {
            let (statement, outcome) = self.call(scope, sql, params)?;
            if statement.reads {
                // INSERT … RETURNING and the like: a row came back for each that was changed.
                return scope.length(outcome).map(u64::from).map_err(|fault| sql_error(scope, &fault));
            }
            let changes = scope.get(outcome, c"changes").and_then(|changes| scope.as_u32(changes));
            changes.map(u64::from).map_err(|fault| sql_error(scope, &fault))
        })
    }

    fn query(&mut self, sql: &str, params: &[ValueRef<'_>], each: EachRow<'_>) -> Result<(), SqlError> {
        self.reserve_buffers(params);
        self.scope.nested(|scope, _| {
            let (statement, rows) = self.call(scope, sql, params)?;
            if !statement.reads {
                return Ok(());
            }
            let count = scope.length(rows).map_err(|fault| sql_error(scope, &fault))?;
            let mut values = Vec::new();
            for place in 0..count {
                values.clear();
                scope.nested(|scope, _| {
                    read_row(scope, rows, place, &mut values).map_err(|fault| sql_error(scope, &fault))
                })?;
                each(&mut values)?;
            }
            Ok(())
        })
    }
}

fn read_row<'n>(
    scope: Scope<'n>,
    rows: Local<'_>,
    place: u32,
    into: &mut Vec<Value>,
) -> Result<(), Fault<'n>> {
    let row = scope.element(rows, place)?;
    for column in 0..scope.length(row)? {
        into.push(scope.as_value(scope.element(row, column)?)?);
    }
    Ok(())
}

/// What the handle threw, as far as storage reacts to it.
fn sql_error(scope: Scope<'_>, fault: &Fault<'_>) -> SqlError {
    let thrown = match fault {
        Fault::Thrown(thrown) => thrown,
        Fault::Refused(status) => {
            let message = refused(*status);
            return SqlError { kind: SqlErrorKind::Other, message };
        }
    };
    // A getter of a strange object may throw in turn; then there is nothing more to learn.
    let text = |name| scope.get(*thrown, name).and_then(|value| scope.as_string(value)).ok();
    let message =
        text(c"message").unwrap_or_else(|| "the database threw something that is no error".to_owned());
    SqlError { kind: error_kind(text(c"code").as_deref().unwrap_or_default(), &message), message }
}

/// Why Node-API refused to go on with what the handle gave, or at all.
fn refused(status: sys::napi_status) -> String {
    let what = match status {
        sys::Status::napi_array_expected => "an array of rows",
        sys::Status::napi_object_expected => "an object",
        sys::Status::napi_function_expected => "a method",
        sys::Status::napi_boolean_expected => "whether a statement reads",
        sys::Status::napi_number_expected => "how many rows were changed",
        _ => return format!("Node.js refused a call (status {status}): the database's thread is ending"),
    };
    format!("the handle did not give {what} as a synchronous SQLite driver does (status {status})")
}

fn error_kind(code: &str, message: &str) -> SqlErrorKind {
    if message.ends_with("busy executing a query") {
        SqlErrorKind::Busy
    } else if message == "The database connection is not open" {
        SqlErrorKind::Closed
    } else {
        SqlErrorKind::of(code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_better_sqlite3_throws_maps_to_how_storage_reacts() {
        let cases = [
            ("SQLITE_BUSY", "database is locked", SqlErrorKind::Busy),
            ("SQLITE_BUSY_SNAPSHOT", "database is locked", SqlErrorKind::Busy),
            ("SQLITE_LOCKED_SHAREDCACHE", "database table is locked", SqlErrorKind::Busy),
            ("SQLITE_PROTOCOL", "locking protocol", SqlErrorKind::Busy),
            ("SQLITE_SCHEMA", "database schema has changed", SqlErrorKind::Busy),
            ("", "This database connection is busy executing a query", SqlErrorKind::Busy),
            ("SQLITE_CONSTRAINT_TRIGGER", "not on Sundays", SqlErrorKind::Constraint),
            ("SQLITE_ERROR", "cannot start a transaction within a transaction", SqlErrorKind::InTransaction),
            ("", "The database connection is not open", SqlErrorKind::Closed),
            ("SQLITE_MISMATCH", "datatype mismatch", SqlErrorKind::Constraint),
            ("SQLITE_ERROR", "unknown function: slug()", SqlErrorKind::Statement),
            ("SQLITE_ERROR", "malformed JSON", SqlErrorKind::Statement),
            ("SQLITE_TOOBIG", "string or blob too big", SqlErrorKind::Statement),
            ("", "no such module: vec0", SqlErrorKind::Statement),
            ("ERR_OF_THEIRS", "a function of the application's threw this", SqlErrorKind::Statement),
            ("SQLITE_BUSYBODY", "?", SqlErrorKind::Statement),
            ("SQLITE_FULL", "database or disk is full", SqlErrorKind::Other),
            ("SQLITE_IOERR_WRITE", "disk I/O error", SqlErrorKind::Other),
            ("SQLITE_CORRUPT_INDEX", "?", SqlErrorKind::Other),
            ("", "out of memory", SqlErrorKind::Other),
            ("", "attempt to write a readonly database", SqlErrorKind::Other),
        ];
        for (code, message, kind) in cases {
            assert_eq!(error_kind(code, message), kind, "{code} {message}");
        }
    }
}
