//! Backups of a hub that is running.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::audit;
use super::hub::Hub;
use crate::storage::backup::BackupError;

/// What is left to the others after each megabyte, so that no commit waits for long.
const PAUSE: Duration = Duration::from_millis(1);

impl Hub {
    /// Copies the store to a file that does not exist yet, while agents go on. It holds everything that was
    /// acknowledged before the call. A hub that is started on it is this one as it was then: agents offer it again what
    /// they have.
    pub async fn backup(&self, path: &Path) -> Result<(), BackupError> {
        let shared = self.shared().ok_or(BackupError::NotRunning)?;
        let source = shared.writer.backup_source().await.ok_or(BackupError::InMemory)?;
        let runtime = shared.runtime.clone();
        // The hub's end waits for nobody who holds this.
        drop(shared);
        let stopping = self.stopping.subscribe();
        let path = path.to_owned();
        let copying = runtime.spawn_blocking(move || {
            let copied = source.copy(&path, &mut || {
                thread::sleep(PAUSE);
                // Without a sender the hub was dropped, and ends as well.
                stopping.has_changed().is_ok() && !*stopping.borrow()
            });
            copied.map(|()| path)
        });
        let copied: PathBuf = copying.await.map_err(|_| BackupError::Stopped)??;
        audit::backed_up(&copied);
        Ok(())
    }
}
