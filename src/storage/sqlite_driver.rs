//! A [`SqlDriver`] over a file that nothing else in this process has open.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use rusqlite::types::{ToSqlOutput, ValueRef as Raw};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};
use thiserror::Error;
use tokio::sync::watch;

use super::driver::{EachRow, Job, Sql, SqlDriver, SqlError, SqlErrorKind, ValueRef};
use crate::model::Value;

/// Statements kept prepared for each database.
const STATEMENTS: usize = 256;

/// Why a path cannot be synced.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Two copies of SQLite in one process do not see each other's locks: a committed row would be lost
    /// (I1). Pass the handle instead of the path.
    #[error(
        "{0} is already open in this process; syncing it through a second connection could lose committed \
         rows. Pass the open database handle to sync() instead of the path, or close the handle first"
    )]
    AlreadyOpen(PathBuf),
    /// The file cannot be opened or created.
    #[error("cannot open the database {0}: {1}")]
    Open(PathBuf, rusqlite::Error),
    /// The thread that would own the database cannot be started.
    #[error("cannot start a thread for the database {0}: {1}")]
    Thread(PathBuf, std::io::Error),
}

/// A database file on a thread of its own; closed when the driver is dropped and its last batch has run.
pub struct SqliteDriver {
    jobs: mpsc::Sender<Job>,
    id: u64,
    /// Ends when the thread has closed the database.
    open: watch::Receiver<()>,
}

impl SqliteDriver {
    /// Opens a file, or creates it, unless this process has it open.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if is_open_in_this_process(path) {
            return Err(OpenError::AlreadyOpen(path.to_owned()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|error| OpenError::Open(path.to_owned(), error))?;
        Self::start(connection).map_err(|error| OpenError::Thread(path.to_owned(), error))
    }

    /// Takes over a connection; for tests and tools.
    pub fn start(connection: Connection) -> std::io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (jobs, queue) = mpsc::channel::<Job>();
        let (is_open, open) = watch::channel(());
        thread::Builder::new().name("federation-database".into()).spawn(move || {
            let mut sql = RusqliteSql::new(connection);
            while let Ok(job) = queue.recv() {
                job(&mut sql);
            }
            drop(sql);
            drop(is_open);
        })?;
        // Odd, so that it never meets the id of a handle, which are even.
        Ok(Self { jobs, id: NEXT.fetch_add(1, Ordering::Relaxed) * 2 + 1, open })
    }

    /// Waits until the driver has been dropped and the file is closed, so that it can be opened again.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.open.clone();
        async move { while open.changed().await.is_ok() {} }
    }
}

impl SqlDriver for SqliteDriver {
    fn submit(&self, job: Job) {
        // The thread ends only when this sender is gone.
        let _ = self.jobs.send(job);
    }

    fn database_id(&self) -> u64 {
        self.id
    }
}

/// [`Sql`] over a rusqlite connection.
pub struct RusqliteSql(Connection);

impl RusqliteSql {
    /// Takes over a connection.
    pub fn new(connection: Connection) -> Self {
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        Self(connection)
    }

    /// The connection.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl Sql for RusqliteSql {
    fn run(&mut self, sql: &str) -> Result<(), SqlError> {
        self.0.execute_batch(sql).map_err(|error| convert(&error))
    }

    fn execute(&mut self, sql: &str, params: &[ValueRef<'_>]) -> Result<u64, SqlError> {
        let mut statement = self.0.prepare_cached(sql).map_err(|error| convert(&error))?;
        let changed = statement.execute(rusqlite::params_from_iter(params));
        changed.map(|count| count as u64).map_err(|error| convert(&error))
    }

    fn query(&mut self, sql: &str, params: &[ValueRef<'_>], each: EachRow<'_>) -> Result<(), SqlError> {
        let mut statement = self.0.prepare_cached(sql).map_err(|error| convert(&error))?;
        let width = statement.column_count();
        let mut rows =
            statement.query(rusqlite::params_from_iter(params)).map_err(|error| convert(&error))?;
        let mut values = Vec::with_capacity(width);
        while let Some(row) = rows.next().map_err(|error| convert(&error))? {
            values.clear();
            for column in 0..width {
                values.push(read(row.get_ref(column).map_err(|error| convert(&error))?));
            }
            each(&mut values)?;
        }
        Ok(())
    }
}

impl ToSql for ValueRef<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Self::Null => Raw::Null,
            Self::Integer(integer) => Raw::Integer(integer),
            Self::Real(real) => Raw::Real(real),
            Self::Text(text) => Raw::Text(text.as_bytes()),
            Self::Blob(blob) => Raw::Blob(blob),
        }))
    }
}

fn read(raw: Raw<'_>) -> Value {
    match raw {
        Raw::Null => Value::Null,
        Raw::Integer(integer) => Value::Integer(integer),
        Raw::Real(real) => Value::Real(real),
        // Text that is no UTF-8 has no exact form in JavaScript either; it is read as SQLite's JavaScript
        // bindings read it.
        Raw::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        Raw::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

fn convert(error: &rusqlite::Error) -> SqlError {
    let message = error.to_string();
    let kind = match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
            SqlErrorKind::of(family(error.code), &message)
        }
        // The statement was used in a way that SQLite has never heard of: a fault of ours.
        _ => SqlErrorKind::Other,
    };
    SqlError { kind, message }
}

/// SQLite's name of a result code, as far as anything depends on it.
fn family(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InternalMalfunction => "SQLITE_INTERNAL",
        ErrorCode::PermissionDenied => "SQLITE_PERM",
        ErrorCode::OperationAborted => "SQLITE_ABORT",
        ErrorCode::DatabaseBusy => "SQLITE_BUSY",
        ErrorCode::DatabaseLocked => "SQLITE_LOCKED",
        ErrorCode::OutOfMemory => "SQLITE_NOMEM",
        ErrorCode::ReadOnly => "SQLITE_READONLY",
        ErrorCode::OperationInterrupted => "SQLITE_INTERRUPT",
        ErrorCode::SystemIoFailure => "SQLITE_IOERR",
        ErrorCode::DatabaseCorrupt => "SQLITE_CORRUPT",
        ErrorCode::DiskFull => "SQLITE_FULL",
        ErrorCode::CannotOpen => "SQLITE_CANTOPEN",
        ErrorCode::FileLockingProtocolFailed => "SQLITE_PROTOCOL",
        ErrorCode::SchemaChanged => "SQLITE_SCHEMA",
        ErrorCode::ConstraintViolation => "SQLITE_CONSTRAINT",
        ErrorCode::TypeMismatch => "SQLITE_MISMATCH",
        ErrorCode::ApiMisuse => "SQLITE_MISUSE",
        ErrorCode::NoLargeFileSupport => "SQLITE_NOLFS",
        ErrorCode::NotADatabase => "SQLITE_NOTADB",
        _ => "SQLITE_ERROR",
    }
}

/// Whether a descriptor of this process refers to the file, by inode: a look that opens nothing, because
/// closing any descriptor of a file drops this process's locks on it.
#[cfg(target_os = "linux")]
fn is_open_in_this_process(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let Ok(file) = std::fs::metadata(path) else { return false };
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else { return false };
    descriptors
        .flatten()
        .filter_map(|entry| std::fs::metadata(entry.path()).ok())
        .any(|open| open.is_file() && (open.dev(), open.ino()) == (file.dev(), file.ino()))
}

/// Elsewhere only what this library has opened itself could be known; the documentation warns instead.
#[cfg(not(target_os = "linux"))]
fn is_open_in_this_process(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_open_here_is_refused_until_it_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.db");
        let handle = Connection::open(&path).unwrap();
        handle.execute_batch("CREATE TABLE t(a)").unwrap();
        assert!(matches!(SqliteDriver::open(&path), Err(OpenError::AlreadyOpen(_))));
        drop(handle);
        assert!(SqliteDriver::open(&path).is_ok());
    }

    #[test]
    fn values_are_bound_and_read_exactly() {
        let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
        for value in [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(1.0),
            Value::Text("a\0b".into()),
            Value::Blob(vec![]),
        ] {
            let row = sql.query_row("SELECT ?1, typeof(?1)", &[(&value).into()]).unwrap().unwrap();
            assert_eq!(row[0], value);
        }
    }
}
