//! Agents that say goodbye, and agents that are never heard of again.

use std::time::{Duration, Instant};

use federation_hub::engine::agent::Agent;
use federation_hub::model::Value;
use tokio::time::sleep;

use crate::site::{Member, Site};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";
const PATIENCE: Duration = Duration::from_secs(20);

async fn replica_of(member: &Member) -> Vec<Vec<Value>> {
    member.rows("SELECT replica FROM _federation_replica").await
}

/// Waits until the hub knows nothing of an agent of this name.
async fn forgotten(site: &Site, name: &str) {
    let since = Instant::now();
    loop {
        let asking = Agent::new(site.options("acme", name));
        asking.connect().await.unwrap();
        if asking.stats().vector_clock.get(name) == 0 {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{name} is still known");
        sleep(Duration::from_millis(20)).await;
    }
}

/// An agent with a row that it has shared, known to another one.
async fn known(site: &Site) -> (Member, Member) {
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('x', 'of a')").await;
    a.sync().await;
    b.sync().await;
    assert_eq!(b.agent.stats().vector_clock.get("a"), 1);
    (a, b)
}

#[tokio::test]
async fn whoever_says_goodbye_is_forgotten_by_all_and_may_come_back() {
    let site = Site::start(":memory:").await;
    let (a, b) = known(&site).await;
    let before = replica_of(&a).await;
    a.run("INSERT INTO notes VALUES('y', 'unsent')").await;
    a.agent.disconnect().await;
    forgotten(&site, "a").await;
    let c = site.agent("acme", "c").await;
    c.sync().await;
    c.run("INSERT INTO notes VALUES('z', 'of c')").await;
    c.sync().await;
    b.sync().await;
    assert_eq!(b.agent.stats().vector_clock.iter().collect::<Vec<_>>(), vec![("b", 2), ("c", 2)]);
    a.agent.connect().await.unwrap();
    let back = a.sync().await;
    assert_eq!((back.pushed, back.pulled), (1, 1), "it goes on where it was");
    assert_ne!(replica_of(&a).await, before);
    b.sync().await;
    assert_eq!(b.agent.stats().vector_clock.get("a"), 2);
}

/// Breaks if the end of a connection is taken for a goodbye, or if a goodbye is said too early: nobody could tell
/// any more what of a batch has arrived.
#[tokio::test]
async fn whoever_is_cut_off_is_not_forgotten() {
    let site = Site::start(":memory:").await;
    let (a, _) = known(&site).await;
    let (before, database) = (replica_of(&a).await, a.database.clone());
    drop(a);
    sleep(Duration::from_millis(50)).await;
    let agent = Agent::new(site.options("acme", "a"));
    agent.connect().await.unwrap();
    let again = Member { agent, database };
    again.sync().await;
    assert_eq!(replica_of(&again).await, before);
}

#[tokio::test]
async fn whoever_is_silent_for_too_long_retires_and_loses_nothing_of_its_own() {
    let site = Site::forgetting(":memory:", 400).await;
    let (a, b) = known(&site).await;
    let (before, database) = (replica_of(&a).await, a.database.clone());
    a.run("INSERT INTO notes VALUES('y', 'unsent')").await;
    drop(a);
    forgotten(&site, "a").await;
    b.run("DELETE FROM notes").await;
    b.sync().await;
    let agent = Agent::new(site.options("acme", "a"));
    agent.connect().await.unwrap();
    let again = Member { agent, database };
    let deadline = Instant::now() + PATIENCE;
    again.sync().await;
    while again.rows("SELECT id FROM notes").await != b.rows("SELECT id FROM notes").await {
        assert!(Instant::now() < deadline);
        b.sync().await;
        again.sync().await;
    }
    assert_eq!(b.rows("SELECT id FROM notes").await, vec![vec![Value::Text("y".into())]]);
    assert_ne!(replica_of(&again).await, before);
}

/// Breaks if an agent that is behind sends its rows before it has heard what is gone, or leaves them to another sync.
#[tokio::test]
async fn whoever_is_behind_sends_in_one_sync_what_its_rows_reference() {
    let site = Site::forgetting(":memory:", 400).await;
    let (a, b) = known(&site).await;
    let steps = "CREATE TABLE steps(id INTEGER PRIMARY KEY, note TEXT NOT NULL REFERENCES notes)";
    a.run(steps).await;
    a.sync().await;
    b.sync().await;
    let database = a.database.clone();
    a.run("INSERT INTO steps VALUES(1, 'x')").await;
    drop(a);
    forgotten(&site, "a").await;
    b.run("DELETE FROM notes").await;
    let deadline = Instant::now() + PATIENCE;
    // Until the hub has told that it remembers the delete no more.
    while b.rows("SELECT 1 FROM _federation_replica WHERE buried > 0").await.is_empty() {
        assert!(Instant::now() < deadline, "the hub still knows what was deleted");
        b.sync().await;
        sleep(Duration::from_millis(20)).await;
    }
    let agent = Agent::new(site.options("acme", "a"));
    agent.connect().await.unwrap();
    let again = Member { agent, database };
    let report = again.sync().await;
    assert_eq!((report.pushed, report.rejected, report.quarantined), (2, 0, 0));
    let c = site.agent("acme", "c").await;
    let report = c.sync().await;
    assert_eq!((report.pulled, report.quarantined), (2, 0));
    assert_eq!(
        c.rows("SELECT notes.title FROM steps, notes WHERE note = notes.id").await,
        again.rows("SELECT title FROM notes").await
    );
}
