//! Backups of a hub that goes on, and hubs that are started on them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use federation_hub::storage::backup::BackupError;

use crate::site::Site;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";
const ALL: &str = "SELECT id, title FROM notes ORDER BY id";

/// Nothing but these, beside SQLite's and the hub's own.
fn files(directory: &Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.filter(|it| !it.starts_with("hub.db")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_hub_on_a_backup_gets_back_from_its_agents_what_the_backup_missed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let mut site = Site::start(&path("hub.db")).await;
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('before', 'old'), ('deleted', 'later')").await;
    a.sync().await;
    b.sync().await;
    site.hub.backup(Path::new(&path("backup.db"))).await.unwrap();
    assert_eq!(files(directory.path()), ["backup.db"]);
    a.run("INSERT INTO notes VALUES('of a', 'after'); DELETE FROM notes WHERE id = 'deleted'").await;
    a.sync().await;
    b.run("UPDATE notes SET title = 'new' WHERE id = 'before'").await;
    b.sync().await;
    a.run("INSERT INTO notes VALUES('unsynced', 'yet')").await;

    site.restore(&path("backup.db")).await;
    for member in [&a, &b, &a, &b] {
        member.sync().await;
    }
    let late = site.agent("acme", "late").await;
    late.sync().await;
    let expected = a.rows(ALL).await;
    assert_eq!(expected.len(), 3, "{expected:?}");
    for member in [&b, &late] {
        assert_eq!(member.rows(ALL).await, expected);
    }
    assert!(format!("{expected:?}").contains("\"new\""), "{expected:?}");
}

#[tokio::test]
async fn a_backup_is_one_state_that_was_committed_although_agents_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let mut site = Site::start(&path("hub.db")).await;
    let a = site.agent("acme", "a").await;
    a.run(NOTES).await;
    a.run(
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
           INSERT INTO notes SELECT 'row ' || i, hex(zeroblob(1000)) FROM n",
    )
    .await;
    a.sync().await;
    let is_done = Arc::new(AtomicBool::new(false));
    // Both rows of a pair are of one batch, so a state that was committed has both or neither.
    let writing = {
        let is_done = Arc::clone(&is_done);
        tokio::spawn(async move {
            for n in 0.. {
                if is_done.load(Ordering::Relaxed) && n > 3 {
                    return (a, n);
                }
                a.run(&format!("INSERT INTO notes VALUES('left {n}', 'x'), ('right {n}', 'x')")).await;
                a.sync().await;
            }
            unreachable!("there is always a next number")
        })
    };
    site.hub.backup(Path::new(&path("backup.db"))).await.unwrap();
    is_done.store(true, Ordering::Relaxed);
    let (a, written) = writing.await.unwrap();
    drop(a);

    site.restore(&path("backup.db")).await;
    let reader = site.agent("acme", "reader").await;
    reader.sync().await;
    let count = async |what: &str| {
        let rows = reader.rows(&format!("SELECT id FROM notes WHERE id LIKE '{what} %'")).await;
        rows.len()
    };
    assert_eq!(count("row").await, 3000);
    assert_eq!(count("left").await, count("right").await);
    assert!(count("left").await < written, "a backup is not told what comes after it");
    let intact = rusqlite::Connection::open(path("hub.db")).unwrap();
    let check: String = intact.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn a_backup_that_cannot_be_made_says_why_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let store = path("hub.db").to_str().unwrap().to_owned();
    let site = Site::start(&store).await;
    site.agent("acme", "a").await.sync().await;
    let onto_itself = site.hub.backup(Path::new(&store)).await;
    assert!(matches!(onto_itself, Err(BackupError::Exists(_))), "{onto_itself:?}");
    let nowhere = site.hub.backup(&path("missing").join("backup.db")).await;
    assert!(matches!(nowhere, Err(BackupError::Io { .. })), "{nowhere:?}");
    let a_directory = path("taken");
    std::fs::create_dir(&a_directory).unwrap();
    let taken = site.hub.backup(&a_directory).await;
    assert!(matches!(taken, Err(BackupError::Exists(_))), "{taken:?}");
    assert_eq!(files(directory.path()), ["taken"]);
    site.hub.stop().await;
    let stopped = site.hub.backup(&path("backup.db")).await;
    assert!(matches!(stopped, Err(BackupError::NotRunning)), "{stopped:?}");

    let forgetful = Site::start(":memory:").await;
    let in_memory = forgetful.hub.backup(&path("backup.db")).await;
    assert!(matches!(in_memory, Err(BackupError::InMemory)), "{in_memory:?}");
}

#[tokio::test]
async fn a_hub_that_stops_waits_for_no_backup() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let site = Site::start(&path("hub.db")).await;
    let a = site.agent("acme", "a").await;
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('large', hex(zeroblob(4000000)))").await;
    a.sync().await;
    let partial = path("backup.db");
    let (copied, ()) = tokio::join!(site.hub.backup(Path::new(&partial)), site.hub.stop());
    assert!(matches!(copied, Err(BackupError::Stopped | BackupError::NotRunning)), "{copied:?}");
    assert_eq!(files(directory.path()), Vec::<String>::new());
    // The file is free again.
    Site::start(&path("hub.db")).await;
}
