//! Agents that ride through a restart of their hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use federation_hub::engine::agent_error::ErrorCode;
use federation_hub::model::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::attacks::raw::{enter, send};
use crate::site::{Member, Site};

/// How many agents there are, unless `FEDERATION_AGENTS` says otherwise.
const AGENTS: usize = 100;
/// How many of them share a tenant: each pulls what all of these write.
const AGENTS_OF_TENANT: usize = 25;
/// How often an agent syncs, in ms, for each agent that there is: together they sync about as often however many they
/// are.
const PAUSE_MS: usize = 2;
const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";
const COUNT: &str = "SELECT count(*) FROM notes";

/// Writes and syncs again and again until it is told to end; returns how many rows it wrote. No sync may fail.
async fn work(
    member: &Member,
    name: usize,
    pause: Duration,
    is_over: &AtomicBool,
    have_synced: &Semaphore,
) -> usize {
    let mut written = 0;
    // Once more after the end, so that nobody's last sync was before the restart.
    let mut is_last = false;
    while !is_last {
        is_last = is_over.load(Ordering::Relaxed);
        member.run(&format!("INSERT INTO notes VALUES('{name} {written}', 'x')")).await;
        written += 1;
        if let Err(error) = member.try_sync().await {
            panic!("agent {name}, sync {written}: {error} ({:?})", error.code);
        }
        if written == 1 {
            have_synced.add_permits(1);
        }
        sleep(pause).await;
    }
    written
}

fn tenant_of(agent: usize) -> String {
    format!("tenant {}", agent / AGENTS_OF_TENANT)
}

#[tokio::test]
async fn no_sync_fails_while_a_hub_is_restarted_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut site = Site::start(directory.path().join("hub.db").to_str().unwrap()).await;
    let agents = std::env::var("FEDERATION_AGENTS").map_or(AGENTS, |count| count.parse().unwrap());
    let pause = Duration::from_millis(u64::try_from(PAUSE_MS * agents).unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let have_synced = Arc::new(Semaphore::new(0));
    let mut workers = JoinSet::new();
    for name in 0..agents {
        let mut options = site.options(&tenant_of(name), &format!("agent {name}"));
        options.request_timeout_ms = 60_000;
        let member = Member::connect(options).await;
        let (is_over, have_synced) = (Arc::clone(&is_over), Arc::clone(&have_synced));
        workers.spawn(async move {
            member.run(NOTES).await;
            work(&member, name, pause, &is_over, &have_synced).await
        });
    }
    // Their first connect waits for five seconds only, which a busy machine may need for the restart.
    tokio::select! {
        all = have_synced.acquire_many(u32::try_from(agents).unwrap()) => drop(all.unwrap()),
        ended = workers.join_next() => panic!("an agent ended early: {ended:?}"),
    }
    site.restart_after(Duration::from_secs(2)).await;
    is_over.store(true, Ordering::Relaxed);
    let written: usize = workers.join_all().await.into_iter().sum();
    let mut kept = 0;
    for first in (0..agents).step_by(AGENTS_OF_TENANT) {
        let reader = site.agent(&tenant_of(first), "reader").await;
        reader.sync().await;
        let [Value::Integer(count)] = reader.rows(COUNT).await[0][..] else { panic!("a count is a number") };
        kept += usize::try_from(count).unwrap();
    }
    assert_eq!(kept, written);
}

#[tokio::test]
async fn a_sync_that_the_hub_does_not_come_back_for_fails_when_its_time_is_over() {
    let site = Site::start(":memory:").await;
    let mut options = site.options("acme", "a");
    options.request_timeout_ms = 1_500;
    let a = Member::connect(options).await;
    a.run(NOTES).await;
    a.sync().await;
    site.hub.stop().await;
    let error = a.try_sync().await.unwrap_err();
    assert!(matches!(error.code, ErrorCode::Unreachable | ErrorCode::Timeout | ErrorCode::Busy), "{error}");
}

#[tokio::test]
async fn a_hub_that_must_stop_at_once_cuts_off_and_the_agents_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let mut site = Site::with(path.to_str().unwrap(), |options| options.drain_timeout_ms = 0).await;
    let a = site.agent("acme", "a").await;
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('large', hex(zeroblob(500000)))").await;
    let (synced, ()) = tokio::join!(a.try_sync(), async {
        sleep(Duration::from_millis(5)).await;
        site.restart().await;
    });
    synced.unwrap();
    a.sync().await;
    let reader = site.agent("acme", "reader").await;
    reader.sync().await;
    assert_eq!(reader.rows(COUNT).await, [[Value::Integer(1)]]);
}

/// Breaks if whoever connects for the first time is turned away by a hub that is being restarted, although it would wait.
#[tokio::test]
async fn a_first_connect_outlasts_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let mut site = Site::with(path.to_str().unwrap(), |options| options.drain_timeout_ms = 1_500).await;
    let slow = enter(&site).await;
    // A sync of which nothing else comes keeps the hub from stopping at once.
    let _under_way = send(&slow, vec![0, 0, 0x40, 0]).await;
    let mut newcomers = JoinSet::new();
    for n in 0..40 {
        let mut options = site.options("acme", &format!("agent {n}"));
        options.connect_timeout_ms = 60_000;
        newcomers.spawn(async move {
            sleep(Duration::from_millis(50 * n)).await;
            Member::connect(options).await
        });
    }
    sleep(Duration::from_millis(200)).await;
    site.restart().await;
    assert_eq!(newcomers.join_all().await.len(), 40);
}
