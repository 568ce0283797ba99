//! What SQLite says of the disk.

use rusqlite::ffi::{
    SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE,
    SQLITE_READONLY,
};

use crate::storage::hub_store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if takes_nothing(&error) { Self::NoRoom(error.to_string()) } else { Self::Failed(error.to_string()) }
    }
}

/// Whether the disk refused to be written. SQLite calls it full only where the system says ENOSPC to a write: a quota, a
/// limit on the size of files, and a file system that turned read-only are input or output errors to it.
fn takes_nothing(error: &rusqlite::Error) -> bool {
    let Some(code) = error.sqlite_error().map(|error| error.extended_code) else { return false };
    let writing = [SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_SHMSIZE];
    writing.contains(&code) || [SQLITE_FULL, SQLITE_READONLY].contains(&(code & 0xff))
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi::{Error, SQLITE_CORRUPT, SQLITE_IOERR_READ, SQLITE_READONLY_DBMOVED};

    use super::*;

    #[test]
    fn a_disk_that_takes_nothing_is_told_from_a_file_that_is_damaged() {
        let told = |code| StoreError::from(rusqlite::Error::SqliteFailure(Error::new(code), None));
        for code in [SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC, SQLITE_READONLY_DBMOVED] {
            assert!(matches!(told(code), StoreError::NoRoom(_)), "{code}");
        }
        for code in [SQLITE_CORRUPT, SQLITE_IOERR_READ] {
            assert!(matches!(told(code), StoreError::Failed(_)), "{code}");
        }
    }
}
