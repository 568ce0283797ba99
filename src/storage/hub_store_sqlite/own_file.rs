//! Whether the store's file is still the one that was opened.
//!
//! A file that is deleted, moved or replaced while it is open can be written as before, and nothing of it is left once it is
//! closed. SQLite does not look; so the store does, before it says that anything is kept.

use std::path::{Path, PathBuf};

use crate::storage::hub_store::StoreError;

/// A file by its path, and by what the system knows it as.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    known: Option<FileId>,
}

/// The files of a store.
#[derive(Debug)]
pub struct OwnFile {
    /// The database, and its log.
    files: [Watched; 2],
}

impl OwnFile {
    /// The files of a database that is open.
    pub fn of(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let watched = |path: PathBuf| Watched { known: id_of(&path), path };
        Self { files: [watched(path.to_owned()), watched(log.into())] }
    }

    /// Fails if one of the files is another one by now, or gone.
    pub fn check(&mut self) -> Result<(), StoreError> {
        for file in &mut self.files {
            let now = id_of(&file.path);
            // The log is made by the first write.
            if file.known.is_none() {
                file.known = now;
            }
            if now != file.known {
                return Err(StoreError::Failed(format!(
                    "{} was deleted, moved or replaced while the hub ran, so that nothing written now would be kept; put \
                     the file back, or stop the hub and start it on the right one",
                    file.path.display()
                )));
            }
        }
        Ok(())
    }
}

/// Device and inode.
#[cfg(unix)]
type FileId = (u64, u64);

/// Windows deletes and replaces no file that is open.
#[cfg(not(unix))]
type FileId = ();

#[cfg(unix)]
fn id_of(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn id_of(_: &Path) -> Option<FileId> {
    None
}
