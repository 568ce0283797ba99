//! Two agents of a tenant that goes on with its work.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::parts::Member;
use crate::place::Place;

/// Agents in a thread of their own.
pub struct Users {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Users {
    /// Lets one write and the other one read, until [`Self::finish`]. A sync that fails ends their thread.
    pub fn start(folder: &Path) -> Self {
        let (is_over, folder) = (Arc::new(AtomicBool::new(false)), folder.to_owned());
        let thread = std::thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work(&Place::new(&folder), &is_over))
            }
        });
        Self { is_over, thread }
    }

    /// Ends them; panics if any of their syncs has failed.
    pub fn finish(self) -> String {
        self.is_over.store(true, Ordering::Relaxed);
        let syncs = self.thread.join().expect("a sync of somebody else has failed");
        format!("{syncs} syncs of others meanwhile, all of which succeeded")
    }
}

async fn work(place: &Place, is_over: &AtomicBool) -> u64 {
    let (writer, reader) = (Member::new(place, "writer"), Member::new(place, "reader"));
    writer.run("CREATE TABLE work(id INTEGER PRIMARY KEY, done TEXT)").await;
    let mut rounds = 0;
    while !is_over.load(Ordering::Relaxed) || rounds == 0 {
        writer.run(&format!("INSERT INTO work(done) VALUES('round {rounds}')")).await;
        assert_eq!(writer.sync().await.unwrap(), 1);
        assert_eq!(reader.sync().await.unwrap(), 1);
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let all = "SELECT id, done FROM work ORDER BY id";
    assert_eq!(writer.rows(all).await, reader.rows(all).await);
    2 * rounds
}
