//! A disk that fills up under a hub, and is given room again.
//!
//! The hub runs in a process of its own: on a file system of some megabytes, mounted where no other process sees it, so
//! that nothing is left of it whatever happens; and, also where nobody may mount, under a limit on how long its files may
//! get, which is refused as a quota is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use federation_hub::engine::agent_error::{AgentError, ErrorCode};
use federation_hub::model::Value;

use super::process::{again, place, works};
use crate::site::{Member, Site};

/// Mounts a file system at `$0`, and runs the rest.
const MOUNT: &str = "mount -t tmpfs -o size=16m tmpfs \"$0\" && exec \"$@\"";

/// Lets no file get longer than 3 MiB, which is an error and no signal, and runs the rest.
const LIMIT: [&str; 4] = ["sh", "-c", "trap '' XFSZ; exec prlimit --fsize=3145728: \"$@\"", "sh"];

const ALL: &str = "SELECT name FROM notes ORDER BY name";

/// The first of some ways to get a disk of its own that this machine permits.
fn launcher(folder: &str) -> Vec<&str> {
    let mounted = [vec!["unshare", "--mount"], vec!["unshare", "--map-root-user", "--mount"]];
    let mut launchers =
        mounted.into_iter().map(|unshare| [unshare, vec!["sh", "-c", MOUNT, folder]].concat());
    launchers.find(|it| works(&[&it[..], &["true"]].concat())).unwrap_or_else(|| LIMIT.to_vec())
}

/// Less than the large row that waits takes, in bytes.
const LITTLE: usize = 256 << 10;

/// A disk with little room, to which some can be added.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One with so many MiB to begin with; of a file's length, three.
    fn at(place: &Path, free: usize) -> Self {
        let disk = Self(place.to_owned());
        if disk.is_mounted() {
            fs::write(disk.0.join("a little ballast"), vec![0; LITTLE]).unwrap();
            fs::write(disk.0.join("ballast"), vec![0; ((16 - free) << 20) - LITTLE]).unwrap();
        }
        disk
    }

    fn is_mounted(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        device(&self.0) != device(self.0.parent().unwrap())
    }

    fn make_room(&self, ballast: &str, limit: &str) {
        if self.is_mounted() {
            fs::remove_file(self.0.join(ballast)).unwrap();
        } else {
            let process = std::process::id().to_string();
            assert!(works(&["prlimit", "--pid", &process, &format!("--fsize={limit}:")]));
        }
    }

    fn make_little_room(&self) {
        self.make_room("a little ballast", "3407872");
    }

    fn make_much_room(&self) {
        self.make_room("ballast", "unlimited");
    }
}

async fn add(member: &Member, name: &str, bytes: usize) {
    member.run(&format!("INSERT INTO notes VALUES('{name}', randomblob({bytes}))")).await;
}

fn assert_no_room(error: &AgentError) {
    assert_eq!(error.code, ErrorCode::Busy, "{error}");
    assert!(error.message.contains("the hub's disk is full") && error.retry_after_ms > 0, "{error:?}");
}

async fn names(member: &Member) -> Vec<Value> {
    member.rows(ALL).await.into_iter().flatten().collect()
}

/// Adds rows, and syncs each of them, until one is refused. Says how many were acknowledged.
async fn fill(writer: &Member) -> usize {
    for n in 0..200 {
        add(writer, &format!("large {n:03}"), 100_000).await;
        if let Err(error) = writer.try_sync().await {
            assert_no_room(&error);
            return n;
        }
    }
    panic!("the disk never gets full");
}

async fn fills_and_is_given_room(place: &Path, free: usize) {
    let (disk, path) = (SmallDisk::at(place, free), place.join("hub.db"));
    let mut site = Site::start(path.to_str().unwrap()).await;
    let (writer, other) = (site.agent("acme", "writer").await, site.agent("acme", "other").await);
    writer.run("CREATE TABLE notes(name TEXT PRIMARY KEY, body BLOB)").await;
    for member in [&writer, &other, &other] {
        member.sync().await;
    }
    let acknowledged = fill(&writer).await;
    assert!(acknowledged > 10, "{acknowledged}");
    add(&writer, "very large", 1_500_000).await;

    // What is stored can be read, and nothing else is there.
    other.sync().await;
    assert_eq!(names(&other).await, names(&writer).await[..acknowledged]);
    // What others write goes on where there is room for that. Not if the log is due to be copied: that takes what there is.
    if free == 3 {
        disk.make_little_room();
        add(&other, "another", 1_000).await;
        assert_eq!(other.sync().await.pushed, 1);
    }
    for _ in 0..2 {
        assert_no_room(&writer.try_sync().await.unwrap_err());
        if free == 3 {
            assert_eq!(writer.rows("SELECT 1 FROM notes WHERE name = 'another'").await.len(), 1);
        }
        // Until the writer may offer its rows again.
        tokio::time::sleep(Duration::from_secs(3)).await;
    }

    disk.make_much_room();
    assert_eq!(writer.sync().await.pushed, 2, "by itself");
    other.sync().await;
    let all = names(&writer).await;
    assert!(all.len() >= acknowledged + 2);
    assert_eq!(names(&other).await, all);
    site.restart().await;
    let late = site.agent("acme", "late").await;
    late.sync().await;
    assert_eq!(names(&late).await, all);
    site.hub.stop().await;
    let store = rusqlite::Connection::open(path).unwrap();
    let check: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

/// Runs a test on a disk of its own, with so many MiB free.
async fn on_a_disk(test: &'static str, free: usize, is_mounted: bool) {
    if let Some(place) = place() {
        return fills_and_is_given_room(&place, free).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let launcher = if is_mounted { launcher(folder.path().to_str().unwrap()) } else { LIMIT.to_vec() };
    again(test, &launcher, folder.path()).await;
}

/// Breaks if something is acknowledged that is not stored, if a full disk keeps agents from reading or is not told as
/// what it is, or if somebody has to start the hub anew.
#[tokio::test]
async fn a_disk_that_is_full_refuses_writes_until_there_is_room() {
    on_a_disk("disks::full::a_disk_that_is_full_refuses_writes_until_there_is_room", 3, true).await;
}

/// Breaks as the one above, where it is the copying of the log to the file that fills the disk.
#[tokio::test]
async fn a_disk_that_the_log_cannot_be_emptied_on_refuses_writes_until_there_is_room() {
    const TEST: &str =
        "disks::full::a_disk_that_the_log_cannot_be_emptied_on_refuses_writes_until_there_is_room";
    on_a_disk(TEST, 6, true).await;
}

/// Breaks as the first one, for what is refused as a quota is.
#[tokio::test]
async fn a_limit_on_files_refuses_writes_until_it_is_raised() {
    on_a_disk("disks::full::a_limit_on_files_refuses_writes_until_it_is_raised", 3, false).await;
}
