//! An online backup: a copy of one snapshot, page by page, beside the writer.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::open;
use super::snapshot::ReaderPool;
use crate::storage::backup::{BackupError, BackupSource};

/// Pages copied at a time: a megabyte.
const STEP_PAGES: i32 = 256;

/// Steps after which the copy is brought to the disk, so that no commit's fsync has to wait for all of it.
const STEPS_PER_FSYNC: u32 = 16;

/// The file of a store that is open. Holding it keeps other hubs away from the file.
pub struct FileBackup(pub Arc<ReaderPool>);

impl From<rusqlite::Error> for BackupError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.to_string())
    }
}

impl BackupSource for FileBackup {
    fn copy(&self, path: &Path, go_on: &mut dyn FnMut() -> bool) -> Result<(), BackupError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(BackupError::Exists(path.to_owned()));
        }
        // Under another name until it is whole: nobody must take half a backup for one.
        let mut partial = OsString::from(path);
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let outcome = copy_pages(self.0.path(), &partial, go_on).and_then(|()| publish(&partial, path));
        if outcome.is_err() {
            // Of what could not be written there may be nothing.
            let _ = fs::remove_file(&partial);
        }
        outcome
    }
}

/// Copies the store into a new file, and brings that to the disk.
fn copy_pages(store: &Path, to: &Path, go_on: &mut dyn FnMut() -> bool) -> Result<(), BackupError> {
    let io_error = |source| BackupError::Io { path: to.to_owned(), source };
    let source = open::reader(store)?;
    // The snapshot is held for the whole copy: else each commit of the writer would make it begin again. SQLite takes
    // it at the first read.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")?;
    let file = File::create(to).map_err(io_error)?;
    let mut target = Connection::open(to)?;
    // What a crash leaves of it is no backup anyway, having another name.
    target.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    let backup = Backup::new(&source, &mut target)?;
    let mut steps = 0_u32;
    while backup.step(STEP_PAGES)? != StepResult::Done {
        if !go_on() {
            return Err(BackupError::Stopped);
        }
        steps += 1;
        if steps.is_multiple_of(STEPS_PER_FSYNC) {
            file.sync_data().map_err(io_error)?;
        }
    }
    drop(backup);
    target.close().map_err(|(_, error)| error)?;
    file.sync_all().map_err(io_error)
}

/// Gives a whole copy its name, durably.
fn publish(partial: &Path, path: &Path) -> Result<(), BackupError> {
    let io_error = |source| BackupError::Io { path: path.to_owned(), source };
    fs::rename(partial, path).map_err(io_error)?;
    if cfg!(unix) {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = File::open(directory.unwrap_or(Path::new("."))).map_err(io_error)?;
        directory.sync_all().map_err(io_error)?;
    }
    Ok(())
}
