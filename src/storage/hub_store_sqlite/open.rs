//! Opening a hub's file: proving that it is one, that no other hub uses it, and making it where there is
//! none.

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, MAIN_DB};
use thiserror::Error;

use super::counting::COUNTING;
use super::migrations::{self, FIRST_LAYOUT, LAYOUT};
use crate::storage::hub_store::StoreStats;

/// "FEDH": what makes a SQLite file a hub's.
const APPLICATION_ID: u32 = 0x4645_4448;

/// Statements kept prepared on each connection.
pub const STATEMENT_CACHE: usize = 64;

/// How long a connection waits for a lock that another connection of this hub holds for a moment.
pub const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// `body` is what was written to a row, `effective` what readers are told instead where rules that span rows
/// say so; `survivor` is the identity of the row that it was united with. `claim` says which row holds a unique
/// key (`former_claim`, which one had it last), `link` which row references which; both are derived, under the rules whose digest `table_rules` keeps, but for the rows of a table
/// that come after `left_from`.
///
/// `other_seq` is the last position at which someone other than `writer` (the row's last one) changed it, or
/// from which every reader needs the whole row: a replica is not told of rows that only it has changed.
/// All of that is in the index, so that rows that are not told are not read. `dead` rows, and such as are one with
/// another one, wait to be collected; up to a tenant's `horizon` some have been, and up to `swept` all that could be.
/// `died` is where a row died by its own writes, or 0.
///
/// `kept_bytes` and `replicas` of a tenant are counted by triggers ([`super::counting`]).
///
/// `replica` and `agent` have a row for each live one, and `retired` the names of the last that went; what is
/// older than `forgotten` is not among them. `hub_time` is one line: the latest time that was kept.
///
/// `table_schema` has what stands; `definition` has each text that a live replica declares, and whether it is `standing`, or
/// `why` not. A `declaration` is a list of them that some `replicas` declare alike, so that one more of a thousand that are
/// alike costs one line. One without `replicas` has what a replica holds that is not through with declaring its tables. A replica's is NULL if it has declared nothing, and 0 if it did so in an earlier layout.
///
/// `dropped_table` has names of tables that the operator has removed, at which position, and digests of the `texts` that are
/// not taken again (NULL once they are); `dropped_definition` has those that do not stand, whoever declares them. A `removal`
/// is a table whose rows are being deleted, or a tenant whose everything is (`tbl` 0): nobody is told of these rows any more.
const SCHEMA: &str = "
    CREATE TABLE tenant (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        seq INTEGER NOT NULL DEFAULT 0,
        highest INTEGER NOT NULL DEFAULT 0,
        rows INTEGER NOT NULL DEFAULT 0,
        live_bytes INTEGER NOT NULL DEFAULT 0,
        dead_bytes INTEGER NOT NULL DEFAULT 0,
        kept_bytes INTEGER NOT NULL DEFAULT 0,
        replicas INTEGER NOT NULL DEFAULT 0,
        horizon INTEGER NOT NULL DEFAULT 0,
        swept INTEGER NOT NULL DEFAULT 0,
        forgotten INTEGER NOT NULL DEFAULT -1
    ) STRICT;
    CREATE TABLE hub_time (
        kept_ms INTEGER NOT NULL
    ) STRICT;
    INSERT INTO hub_time VALUES (0);
    CREATE TABLE incarnation (
        tenant INTEGER NOT NULL,
        n INTEGER NOT NULL,
        id BLOB NOT NULL,
        began INTEGER NOT NULL,
        PRIMARY KEY (tenant, n)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE table_schema (
        tenant INTEGER NOT NULL,
        id INTEGER NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        numbered INTEGER NOT NULL,
        columns BLOB NOT NULL,
        ddl TEXT NOT NULL,
        ddl_columns INTEGER NOT NULL,
        indexes BLOB NOT NULL,
        agreed BLOB NOT NULL,
        seq INTEGER NOT NULL,
        writer INTEGER NOT NULL,
        PRIMARY KEY (tenant, id),
        UNIQUE (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE replica (
        tenant INTEGER NOT NULL,
        id BLOB NOT NULL,
        agent TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        n INTEGER NOT NULL DEFAULT 0,
        digest BLOB,
        push_counter INTEGER NOT NULL DEFAULT -1,
        refused BLOB,
        rejected BLOB,
        cursor INTEGER NOT NULL DEFAULT 0,
        seen_ms INTEGER NOT NULL,
        token_until_ms INTEGER NOT NULL,
        declaration INTEGER,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX replica_by_agent ON replica (tenant, agent);
    CREATE INDEX replica_by_age ON replica (seen_ms);
    CREATE INDEX replica_by_token ON replica (token_until_ms);
    CREATE TABLE agent (
        tenant INTEGER NOT NULL,
        name TEXT NOT NULL,
        counter INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX agent_by_seq ON agent (tenant, seq);
    CREATE TABLE retired (
        tenant INTEGER NOT NULL,
        name TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX retired_by_seq ON retired (tenant, seq);
    CREATE TABLE row_state (
        row INTEGER PRIMARY KEY,
        tenant INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        id BLOB NOT NULL,
        seq INTEGER NOT NULL,
        writer INTEGER NOT NULL,
        other_seq INTEGER NOT NULL,
        born INTEGER NOT NULL,
        author INTEGER NOT NULL,
        base INTEGER NOT NULL,
        survivor BLOB,
        united_at INTEGER NOT NULL,
        withheld INTEGER NOT NULL,
        dead INTEGER NOT NULL,
        body BLOB NOT NULL,
        effective BLOB,
        died INTEGER NOT NULL DEFAULT 0,
        UNIQUE (tenant, tbl, id)
    ) STRICT;
    CREATE INDEX row_by_seq ON row_state (tenant, seq, tbl, writer, other_seq);
    CREATE INDEX dead_row ON row_state (tenant, seq) WHERE dead;
    CREATE INDEX row_by_survivor ON row_state (tenant, survivor, tbl) WHERE survivor IS NOT NULL;
    CREATE INDEX united_row ON row_state (tenant, id, survivor) WHERE survivor IS NOT NULL;
    CREATE TABLE claim (
        tenant INTEGER NOT NULL,
        digest BLOB NOT NULL,
        row INTEGER NOT NULL,
        by_birth INTEGER NOT NULL,
        PRIMARY KEY (tenant, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX claim_by_row ON claim (row);
    CREATE TABLE former_claim (
        tenant INTEGER NOT NULL,
        digest BLOB NOT NULL,
        row INTEGER NOT NULL,
        PRIMARY KEY (tenant, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX former_claim_by_row ON former_claim (row);
    CREATE TABLE claim_wait (
        tenant INTEGER NOT NULL,
        digest BLOB NOT NULL,
        row INTEGER NOT NULL,
        PRIMARY KEY (tenant, digest, row)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX claim_wait_by_row ON claim_wait (row);
    CREATE TABLE alike (
        tenant INTEGER NOT NULL,
        digest BLOB NOT NULL,
        same BLOB NOT NULL,
        PRIMARY KEY (tenant, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX alike_by_same ON alike (tenant, same);
    CREATE TABLE link (
        tenant INTEGER NOT NULL,
        target BLOB NOT NULL,
        row INTEGER NOT NULL,
        PRIMARY KEY (tenant, target, row)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX link_by_row ON link (row);
    CREATE TABLE revocation (
        kind INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        name TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        until_ms INTEGER,
        PRIMARY KEY (kind, tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE definition (
        tenant INTEGER NOT NULL,
        id INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        is_index INTEGER NOT NULL,
        text TEXT NOT NULL,
        agent TEXT NOT NULL,
        declarers INTEGER NOT NULL,
        standing INTEGER NOT NULL,
        why TEXT,
        told_at INTEGER NOT NULL,
        witness BLOB,
        laxer INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX definition_by_table ON definition (tenant, tbl);
    CREATE INDEX definition_left_out ON definition (tenant, told_at) WHERE why IS NOT NULL;
    CREATE TABLE declaration (
        tenant INTEGER NOT NULL,
        id INTEGER NOT NULL,
        digest BLOB NOT NULL,
        replicas INTEGER NOT NULL,
        definitions BLOB NOT NULL,
        PRIMARY KEY (tenant, id),
        UNIQUE (tenant, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE table_rules (
        tenant INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        digest BLOB NOT NULL,
        left_from BLOB,
        PRIMARY KEY (tenant, tbl)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE dropped_table (
        tenant INTEGER NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        tbl INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        texts BLOB,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE dropped_definition (
        tenant INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        digest BLOB NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        at_ms INTEGER NOT NULL,
        PRIMARY KEY (tenant, tbl, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE removal (
        tenant INTEGER NOT NULL,
        tbl INTEGER NOT NULL,
        PRIMARY KEY (tenant, tbl)
    ) STRICT, WITHOUT ROWID;
";

/// Why a hub's store could not be opened. The file is as it was.
#[derive(Debug, Error)]
pub enum OpenStoreError {
    /// Another hub has the file open. Stop it, or give this one a file of its own.
    #[error("{} is in use by another hub: stop that one, or choose another data path", .0.display())]
    Locked(PathBuf),
    /// The file is something else. Choose another path.
    #[error("{} is not a hub's file: choose another data path", .0.display())]
    Foreign(PathBuf),
    /// Parts of the file are missing, or were overwritten. Restore it, or begin a new one.
    #[error("{} is truncated or damaged ({found}): restore it from a backup, or choose another data path, and the agents fill it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        found: rusqlite::Error,
    },
    /// The file is gone or empty, but not its log, which a new file would destroy. Put the file back, or remove the log.
    #[error("{} is missing or empty, while there are changes to it in {}: put the file back, or remove that one to begin anew", .0.display(), log_of(.0).display())]
    LogAlone(PathBuf),
    /// The file, or its directory, cannot be written. Permit it, or choose another path.
    #[error("{} cannot be written: let the hub write to the file and its directory, or choose another data path", .0.display())]
    ReadOnly(PathBuf),
    /// A later version of this library wrote the file. Upgrade.
    #[error("{} was written by a later version (layout {found}, this one knows {LAYOUT}): upgrade", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// A version before the first release wrote the file. Begin a new one: agents offer again what they hold.
    #[error("{} was written by a version before the first release (layout {found}, this one knows {LAYOUT}): choose another data path, and the agents fill it again", path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// The file system refused. The directory must exist and be writable.
    #[error("cannot open {}: {source}; its directory must exist and be writable", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// SQLite could not work with the file: the disk is full, for example.
    #[error("cannot open {}: {source}", path.display())]
    Sql {
        /// The file, or `:memory:`.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenStoreError {
    fn of_layout(path: &Path, found: u32) -> Self {
        let path = path.to_owned();
        if found > LAYOUT { Self::Newer { path, found } } else { Self::Older { path, found } }
    }

    /// What SQLite's word means for the file.
    pub fn of_sql(path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged { path, found: source }
            }
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly(path)
            }
            _ => Self::Sql { path, source },
        }
    }
}

/// Opens a file store, and holds a lock on it that dies with the process.
pub fn file(path: &Path) -> Result<(Connection, File), OpenStoreError> {
    // Whoever has a lock file has a hub, whose file not even its header may be read of: to close a file gives up all
    // locks that the process has on it.
    let lock = if lock_of(path).exists() { Some(lock(path)?) } else { None };
    let is_new = check_header(path)?;
    if is_new && std::fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0) {
        return Err(OpenStoreError::LogAlone(path.to_owned()));
    }
    let lock = lock.map_or_else(|| self::lock(path), Ok)?;
    let failed = |error| OpenStoreError::of_sql(path, error);
    let mut conn = Connection::open(path).map_err(failed)?;
    // SQLite opens for reading what it may not write, without a word.
    if conn.is_readonly(MAIN_DB).map_err(failed)? {
        return Err(OpenStoreError::ReadOnly(path.to_owned()));
    }
    match prepare(&mut conn).map_err(failed)? {
        LAYOUT => Ok((conn, lock)),
        found => Err(OpenStoreError::of_layout(path, found)),
    }
}

/// Makes or migrates what is there; says which layout that is, and leaves one alone that it cannot lead anywhere.
fn prepare(conn: &mut Connection) -> Result<u32, rusqlite::Error> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // The layout is made in rollback-journal mode, so that the application id is in the file itself, not
    // only in a WAL, from the first moment on.
    create_if_empty(conn)?;
    let found: u32 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if !(FIRST_LAYOUT..=LAYOUT).contains(&found) {
        return Ok(found);
    }
    if found < LAYOUT {
        migrations::migrate(conn, found)?;
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    configure(conn)?;
    Ok(LAYOUT)
}

/// Opens a store in memory.
pub fn memory() -> Result<Connection, rusqlite::Error> {
    let mut conn = Connection::open_in_memory()?;
    create_if_empty(&mut conn)?;
    configure(&conn)?;
    Ok(conn)
}

/// Opens one more connection to a file store, for reading.
pub fn reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(conn)
}

/// Counts what is there. Every tenant keeps its own count, so this reads no rows.
pub fn stats(conn: &Connection) -> Result<StoreStats, rusqlite::Error> {
    let sql = "SELECT count(*), coalesce(sum(rows), 0) FROM tenant";
    let (tenants, rows): (i64, i64) = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(StoreStats { tenants: tenants.cast_unsigned(), rows: rows.cast_unsigned() })
}

/// The time that was kept last, in ms since the epoch.
pub fn kept_time_ms(conn: &Connection) -> Result<i64, rusqlite::Error> {
    conn.query_row("SELECT kept_ms FROM hub_time", [], |row| row.get(0))
}

fn configure(conn: &Connection) -> Result<(), rusqlite::Error> {
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    // What is deleted from a page is overwritten in it, which costs nothing; a page that is freed is overwritten where an
    // operator's word frees it.
    conn.pragma_update_and_check(None, "secure_delete", "FAST", |_| Ok(()))?;
    conn.pragma_update(None, "cache_size", -65_536)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    Ok(())
}

/// Reads the header without SQLite, which may change a file merely by opening it. Says whether there is nothing yet.
fn check_header(path: &Path) -> Result<bool, OpenStoreError> {
    let io_error = |source| OpenStoreError::Io { path: path.to_owned(), source };
    let mut header = Vec::with_capacity(100);
    match File::open(path) {
        Ok(file) => file.take(100).read_to_end(&mut header).map_err(io_error)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(io_error(error)),
    };
    if header.is_empty() {
        return Ok(true);
    }
    let number_at = |offset: usize| {
        header.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    };
    // Offsets of the file format: user_version at 60, application_id at 68.
    if !header.starts_with(b"SQLite format 3\0") || number_at(68) != Some(APPLICATION_ID) {
        return Err(OpenStoreError::Foreign(path.to_owned()));
    }
    match number_at(60) {
        Some(found) if found > LAYOUT => Err(OpenStoreError::Newer { path: path.to_owned(), found }),
        _ => Ok(false),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// SQLite's write-ahead log.
fn log_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

fn lock_of(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

/// Locks a file beside the store. SQLite's own locks would not keep a second hub out: they are shared in WAL
/// mode, and belong to a process.
fn lock(path: &Path) -> Result<File, OpenStoreError> {
    let lock_path = lock_of(path);
    let io_error = |source| OpenStoreError::Io { path: lock_path.clone(), source };
    let file = File::options().write(true).create(true).truncate(false).open(&lock_path).map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenStoreError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error(error)),
    }
}

fn create_if_empty(conn: &mut Connection) -> Result<(), rusqlite::Error> {
    let transaction = conn.transaction()?;
    // It takes effect in a file that has no page yet; another one stays as it is, and cannot be made smaller in pieces.
    transaction.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let existing: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if existing == 0 {
        transaction.execute_batch(SCHEMA)?;
        transaction.execute_batch(COUNTING)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", LAYOUT)?;
    }
    transaction.commit()
}
