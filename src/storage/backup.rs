//! Copying a hub's store while the hub goes on.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why there is no backup. Nothing is left at the path that was asked for.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The hub has stopped: start it first, or copy its file.
    #[error("the hub is not running: start it first, or copy its file")]
    NotRunning,
    /// The store is in memory. Give the hub a file.
    #[error("a hub whose dataPath is :memory: keeps nothing that could be backed up: give it a file")]
    InMemory,
    /// There is something at the path. Choose another one.
    #[error("{} exists already: a backup overwrites nothing, choose another path", .0.display())]
    Exists(PathBuf),
    /// The hub was stopped meanwhile. Its file is complete now: copy that.
    #[error("the hub was stopped before its backup was complete: its file can be copied now")]
    Stopped,
    /// The file system refused: the directory must exist, be writable, and have room.
    #[error("cannot write {}: {source}; its directory must exist, be writable and have room", path.display())]
    Io {
        /// What could not be written.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The store could not be read, or its copy not be written, as on a full disk.
    #[error("the backup failed: {0}")]
    Store(String),
}

/// What a backup is made from. It blocks; any thread may do it, and the store's own goes on meanwhile.
pub trait BackupSource: Send {
    /// Copies one committed state of the store, as of now or later, to a file that does not exist yet. Of a copy that
    /// is not complete nothing is left. `go_on` is asked after each megabyte or so: it may take its time, and says
    /// whether the copy is still wanted.
    fn copy(&self, path: &Path, go_on: &mut dyn FnMut() -> bool) -> Result<(), BackupError>;
}
