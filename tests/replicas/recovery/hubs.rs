//! Hubs that die, lose everything, or come back from a backup; databases of another tenant (invariants I13, I15,
//! I16).

use std::path::PathBuf;

use super::{MEMORY, NOTES, USES, all_sync, counting, memories, newcomer, titles, uses};
use crate::world::{Agent, Counts, Fate, Hub};
use federation_hub::model::{ReplicaId, Value};
use federation_hub::storage::attach::{TurnError, open};
use federation_hub::storage::detach::detach;
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;
use tempfile::TempDir;

/// A hub whose store is a file.
struct Site {
    directory: TempDir,
    openings: u8,
}

impl Site {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), openings: 0 }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("hub.db")
    }

    /// Starts a hub. Any one before it must be gone.
    fn start(&mut self) -> Hub {
        self.openings += 1;
        let mut hub = Hub::new();
        let identity = ReplicaId([self.openings; 16]);
        hub.store = SqliteHubStore::open(self.path().to_str().unwrap(), identity).unwrap();
        hub
    }

    /// A backup of the store, as SQLite makes it while the hub runs.
    fn backup(&self) -> PathBuf {
        let copy = self.directory.path().join("backup.db");
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        copy
    }

    /// Puts a backup in the store's place, with the hub stopped.
    fn restore(&self, backup: &PathBuf) {
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.path().display()));
        }
        std::fs::copy(backup, self.path()).unwrap();
    }
}

/// Two agents that know one note and one skill, and their hub.
fn sited() -> (Site, Hub, Agent, Agent) {
    let mut site = Site::new();
    let mut hub = site.start();
    let (mut a, mut b) = (newcomer(1), newcomer(2));
    a.run(MEMORY).run("INSERT INTO notes VALUES('x', 'one')").run("INSERT INTO skills VALUES('retry', 10)");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    (site, hub, a, b)
}

fn reconnect(agents: &mut [&mut Agent]) {
    agents.iter_mut().for_each(|agent| agent.reconnect());
}

#[test]
fn a_hub_that_dies_between_commit_and_acknowledgement_counts_once() {
    let (mut site, mut hub, mut a, mut b) = sited();
    a.run("INSERT INTO notes VALUES('y', 'two')").run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    drop(hub);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b]);
    assert_eq!(a.sync(&mut hub).pushed, 0, "the hub has it");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!((titles(&mut b).len(), uses(&mut b)), (2, Value::Integer(11)));
}

#[test]
fn a_hub_that_dies_before_it_commits_has_shown_nothing_and_gets_it_again() {
    let (mut site, mut hub, mut a, mut b) = sited();
    a.run("INSERT INTO notes VALUES('y', 'two')").run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    let (replica, epoch, batch) = a.lost.take().unwrap();
    hub.push_uncommitted("agent 1", replica, epoch, &batch);
    // Anyone beside the store's own thread sees what is durable.
    let reader = rusqlite::Connection::open(site.path()).unwrap();
    let seen: i64 = reader.query_row("SELECT max(seq) FROM row_state", [], |row| row.get(0)).unwrap();
    let shown: i64 = reader.query_row("SELECT seq FROM tenant", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, shown);
    drop(hub);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b]);
    assert_eq!(b.sync(&mut hub), Counts::default());
    assert_eq!(a.sync(&mut hub).pushed, 2);
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!((titles(&mut b).len(), uses(&mut b)), (2, Value::Integer(11)));
}

#[test]
fn a_hub_that_lost_everything_gets_it_back_and_deleted_rows_stay_deleted() {
    let (mut hub, mut a, mut b) = memories();
    a.run("INSERT INTO notes VALUES('gone', '')").sync(&mut hub);
    b.sync(&mut hub);
    b.run("DELETE FROM notes WHERE id = 'gone'").run("INSERT INTO notes VALUES('y', 'two')");
    b.run("UPDATE skills SET uses = uses + 1").sync(&mut hub);
    let mut restored = Hub::incarnated(2);
    reconnect(&mut [&mut a, &mut b]);
    a.run("UPDATE skills SET uses = uses + 2");
    let mut fresh = newcomer(3);
    all_sync(&mut restored, &mut [&mut a, &mut b, &mut fresh]);
    assert_eq!(titles(&mut fresh), ["one", "two"]);
    assert_eq!(uses(&mut fresh), Value::Integer(13));
}
