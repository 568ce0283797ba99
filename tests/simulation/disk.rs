//! Databases of agents, which survive the processes that work on them.

use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags};

/// A database in memory that any number of connections share, with the locks of a file.
pub struct Disk {
    uri: String,
    /// Keeps the database while no process has it open, and reads it for copies.
    keeper: Connection,
}

impl Disk {
    /// An empty database.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let uri = format!("file:/simulated-{}?vfs=memdb", NEXT.fetch_add(1, Ordering::Relaxed));
        let keeper = connect(&uri);
        Self { uri, keeper }
    }

    /// One more connection to it.
    pub fn open(&self) -> Connection {
        connect(&self.uri)
    }

    /// A copy of what is committed, byte for byte. Nothing while a transaction keeps readers out.
    pub fn copy(&self) -> Option<Self> {
        let mut copy = Self::new();
        let backup = Backup::new(&self.keeper, &mut copy.keeper).unwrap();
        let is_whole = matches!(backup.step(-1), Ok(rusqlite::backup::StepResult::Done));
        drop(backup);
        is_whole.then_some(copy)
    }

    /// All of its bytes, free pages included.
    pub fn bytes(&self) -> Vec<u8> {
        self.open().serialize("main").unwrap().to_vec()
    }
}

fn connect(uri: &str) -> Connection {
    Connection::open_with_flags(uri, OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI).unwrap()
}
