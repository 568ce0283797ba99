//! Two agents of a tenant that goes on with its work.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::parts::Member;
use crate::place::Place;

/// It is about who is served at all, also in a build without optimization and where a machine has other things to do.
const PATIENCE_MS: u64 = 60_000;

/// Agents in a thread of their own.
pub struct Users {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
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

    /// Whether one of their syncs has failed.
    pub fn have_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends them; panics if any of their syncs has failed.
    pub fn finish(self) -> String {
        self.is_over.store(true, Ordering::Relaxed);
        let mut syncs = self.thread.join().expect("a sync of somebody else has failed");
        syncs.sort_unstable();
        let ms = |share: usize| syncs[(syncs.len() * share / 100).min(syncs.len() - 1)].as_secs_f64() * 1e3;
        format!(
            "{} syncs of others meanwhile, all of which succeeded: p50 {:.1} ms, p99 {:.1} ms, {:.1} ms at most",
            syncs.len(),
            ms(50),
            ms(99),
            ms(100)
        )
    }
}

/// Returns how long each sync took.
async fn work(place: &Place, is_over: &AtomicBool) -> Vec<Duration> {
    let member = |name| Member::patient(place, name, PATIENCE_MS);
    let (writer, reader) = (member("writer"), member("reader"));
    writer.run("CREATE TABLE work(id INTEGER PRIMARY KEY, done TEXT)").await;
    let mut took = Vec::new();
    while !is_over.load(Ordering::Relaxed) || took.is_empty() {
        writer.run(&format!("INSERT INTO work(done) VALUES('round {}')", took.len())).await;
        for member in [&writer, &reader] {
            let began = Instant::now();
            assert_eq!(member.sync().await.unwrap(), 1);
            took.push(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let all = "SELECT id, done FROM work ORDER BY id";
    assert_eq!(writer.rows(all).await, reader.rows(all).await);
    took
}
