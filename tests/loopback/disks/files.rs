//! Files that a hub cannot be started on: each is named, with what to do, and left as it is.

use std::fs;
use std::path::{Path, PathBuf};

use super::refusal;
use crate::site::Site;

/// A store with some rows, whose hub has stopped.
async fn store(path: &Path) {
    let site = Site::start(path.to_str().unwrap()).await;
    let agent = site.agent("acme", "a").await;
    agent.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, body BLOB)").await;
    agent.run("INSERT INTO notes(body) VALUES(zeroblob(100000)), (zeroblob(100000))").await;
    assert_eq!(agent.sync().await.pushed, 2);
    site.hub.stop().await;
}

/// A copy of a store of which only so many bytes are there.
fn cut(store: &Path, bytes: usize) -> PathBuf {
    let path = store.with_file_name(format!("cut at {bytes}.db"));
    fs::write(&path, &fs::read(store).unwrap()[..bytes]).unwrap();
    path
}

/// Breaks if a hub starts on a file that is none of its own, changes it, or does not say which one it is and what helps.
#[tokio::test]
async fn a_file_that_is_no_whole_store_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("hub.db");
    store(&whole).await;
    let length = usize::try_from(fs::metadata(&whole).unwrap().len()).unwrap();
    let text = folder.path().join("notes.txt");
    fs::write(&text, "SQLite is great").unwrap();
    let app = folder.path().join("app.db");
    rusqlite::Connection::open(&app).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    let newer = folder.path().join("newer.db");
    fs::copy(&whole, &newer).unwrap();
    rusqlite::Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 1000").unwrap();
    for (path, remedy) in [
        (text, "choose another data path"),
        (app, "choose another data path"),
        (newer, "upgrade"),
        (cut(&whole, 60), "choose another data path"),
        (cut(&whole, 5_000), "restore it from a backup"),
        (cut(&whole, length / 2), "restore it from a backup"),
        (cut(&whole, length - 4_096), "restore it from a backup"),
    ] {
        let before = fs::read(&path).unwrap();
        let said = refusal(&path).await;
        assert!(said.contains(path.to_str().unwrap()) && said.contains(remedy), "{said}");
        assert_eq!(fs::read(&path).unwrap(), before, "{}", path.display());
    }
    let folder_itself = refusal(folder.path()).await;
    assert!(folder_itself.contains(folder.path().to_str().unwrap()), "{folder_itself}");
    let nowhere = folder.path().join("missing/hub.db");
    let said = refusal(&nowhere).await;
    assert!(said.contains("missing/hub.db") && said.contains("its directory must exist"), "{said}");
    // The one that is whole is none the worse for its neighbours.
    Site::start(whole.to_str().unwrap()).await;
}

/// Breaks if a hub begins a new file beside the log of one that was lost: SQLite removes that log, and with it what was
/// acknowledged.
#[tokio::test]
async fn a_log_whose_file_is_gone_is_not_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.db");
    let running = Site::start(path.to_str().unwrap()).await;
    let agent = running.agent("acme", "a").await;
    agent.run("CREATE TABLE notes(id TEXT PRIMARY KEY)").await;
    agent.sync().await;
    let log = fs::read(folder.path().join("hub.db-wal")).unwrap();
    assert!(!log.is_empty());
    let lost = folder.path().join("lost.db");
    let its_log = folder.path().join("lost.db-wal");
    fs::write(&its_log, &log).unwrap();
    for empty in [false, true] {
        if empty {
            fs::write(&lost, "").unwrap();
        }
        let said = refusal(&lost).await;
        assert!(said.contains("lost.db-wal") && said.contains("put the file back"), "{said}");
        assert_eq!(fs::read(&its_log).unwrap(), log);
    }
    fs::remove_file(its_log).unwrap();
    Site::start(lost.to_str().unwrap()).await;
}

/// Breaks if two hubs may have one file, by whatever name, or if one that tries takes the first one's locks away, so that
/// other processes no longer see that the file is in use.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_second_hub_is_kept_out_of_a_file_whatever_it_calls_it() {
    use std::os::unix::fs::MetadataExt;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hub.db");
    let first = Site::start(path.to_str().unwrap()).await;
    let agent = first.agent("acme", "a").await;
    agent.run("CREATE TABLE notes(id TEXT PRIMARY KEY)").await;
    agent.sync().await;
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let inode = format!(":{} ", fs::metadata(&path).unwrap().ino());
    let locks = || {
        let all = fs::read_to_string("/proc/locks").unwrap();
        all.lines().filter(|line| line.contains(" POSIX ") && line.contains(&inode)).count()
    };
    assert_eq!(locks(), 1);
    for name in [&path, &link] {
        let said = refusal(name).await;
        assert!(said.contains("in use by another hub"), "{said}");
        assert_eq!(locks(), 1, "{}", name.display());
    }
    agent.run("INSERT INTO notes VALUES('one')").await;
    assert_eq!(agent.sync().await.pushed, 1);
}
