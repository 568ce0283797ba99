//! What agents see of each other through a real hub.

use federation_hub::engine::agent::Agent;
use federation_hub::engine::agent_error::ErrorCode;
use federation_hub::model::Value;

use crate::site::{Site, memory};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body BLOB)";

#[tokio::test]
async fn rows_travel_and_an_idle_sync_is_small() {
    let site = Site::start(":memory:").await;
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('x', 'title', x'00ff')").await;
    assert_eq!(a.sync().await.pushed, 1);
    assert_eq!(b.sync().await.pulled, 1);
    assert_eq!(b.rows("SELECT * FROM notes").await, a.rows("SELECT * FROM notes").await);
    b.sync().await;
    let written = b.rows("SELECT total_changes()").await;
    let idle = b.sync().await;
    assert_eq!((idle.pushed, idle.pulled), (0, 0));
    assert_eq!(b.rows("SELECT total_changes()").await, written, "it writes nothing");
    // About half of it is what the self-check asks: a table, its columns, and from where.
    assert!(idle.bytes_sent < 150 && idle.bytes_received < 100, "{idle:?}");
    assert_eq!(site.hub.stats().connected_agents, 2);
    a.agent.disconnect().await;
    b.agent.disconnect().await;
}

#[tokio::test]
async fn clocks_count_syncs_and_tell_of_agents_heard_of() {
    let site = Site::start(":memory:").await;
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    assert_eq!(a.agent.stats().vector_clock.iter().collect::<Vec<_>>(), vec![("a", 0)]);
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('x', 'title', NULL)").await;
    a.sync().await;
    a.sync().await;
    b.sync().await;
    assert_eq!(b.agent.stats().vector_clock.iter().collect::<Vec<_>>(), vec![("a", 1), ("b", 1)]);
    let beside = Agent::new(site.options("acme", "a"));
    beside.connect().await.unwrap();
    assert_eq!(beside.stats().vector_clock.get("a"), 1, "goes on from what the hub has seen");
    a.agent.disconnect().await;
    assert_eq!(a.agent.stats().vector_clock.get("a"), 2, "survives disconnect");
}

#[tokio::test]
async fn a_large_exchange_comes_through_whole() {
    let site = Site::start(":memory:").await;
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    a.run(NOTES).await;
    a.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO notes SELECT 'n' || i, printf('title %d', i), randomblob(600) FROM n",
    )
    .await;
    a.run("INSERT INTO notes VALUES('big', 'one megabyte', randomblob(1000000))").await;
    assert_eq!(a.sync().await.pushed, 5001);
    assert_eq!(b.sync().await.pulled, 5001);
    let all = "SELECT * FROM notes ORDER BY id";
    assert_eq!(b.rows(all).await, a.rows(all).await);
}

#[tokio::test]
async fn a_stopped_hub_that_comes_back_loses_nothing_and_the_next_sync_reconnects() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let mut site = Site::start(path.to_str().unwrap()).await;
    let a = site.agent("acme", "a").await;
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('x', 'before', NULL)").await;
    a.sync().await;
    site.restart().await;
    a.run("INSERT INTO notes VALUES('y', 'after', NULL)").await;
    assert!(a.agent.is_connected());
    assert_eq!(a.sync().await.pushed, 1);
    let b = site.agent("acme", "b").await;
    assert_eq!(b.sync().await.pulled, 2);
}

#[tokio::test]
async fn two_syncs_at_once_take_turns() {
    let site = Site::start(":memory:").await;
    let a = site.agent("acme", "a").await;
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('x', 'title', NULL)").await;
    let (first, second) = tokio::join!(a.sync(), a.sync());
    assert_eq!((first.pushed, second.pushed), (1, 0));
    assert_eq!(a.agent.stats().vector_clock.get("a"), 2);
}

#[tokio::test]
async fn many_agents_push_at_once_and_all_end_with_all() {
    let site = Site::start(":memory:").await;
    let mut agents = Vec::new();
    for at in 0..20 {
        let agent = site.agent("acme", &format!("agent {at}")).await;
        agent.run(NOTES).await;
        agent.run(&format!("INSERT INTO notes VALUES('n{at}', 'by {at}', NULL)")).await;
        agents.push(agent);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for agent in agents {
        tasks.spawn(async move {
            agent.sync().await;
            agent
        });
    }
    for agent in tasks.join_all().await {
        agent.sync().await;
        assert_eq!(agent.rows("SELECT count(*) FROM notes").await, vec![vec![Value::Integer(20)]]);
    }
}

#[tokio::test]
async fn tenants_see_nothing_of_each_other() {
    let site = Site::start(":memory:").await;
    let (a, stranger) = (site.agent("acme", "a").await, site.agent("globex", "a").await);
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('x', 'secret', NULL)").await;
    a.sync().await;
    assert_eq!(stranger.sync().await.pulled, 0);
    assert!(stranger.rows("SELECT 1 FROM sqlite_master WHERE name = 'notes'").await.is_empty());
    let ticket = stranger.agent.begin_sync().unwrap();
    let error = stranger.agent.sync(ticket, a.database.clone()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Database, "a database belongs to one tenant: {error}");
}

#[tokio::test]
async fn a_table_that_cannot_be_shared_and_rows_that_do_not_fit_are_named_with_the_reason() {
    let site = Site::start(":memory:").await;
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    a.run("CREATE VIEW one AS SELECT 1; CREATE VIEW two AS SELECT 2; CREATE VIRTUAL TABLE words USING fts5(word)").await;
    a.run("CREATE TABLE scratch(rowid, oid, _rowid_)").await;
    let report = a.sync().await;
    let told = |part: &str| report.notices.iter().any(|notice| notice.contains(part));
    assert_eq!(report.notices.len(), 3, "{:?}", report.notices);
    assert!(told("one, two (a view)") && told("words, words_data"), "{:?}", report.notices);
    assert!(told("scratch") && told("no PRIMARY KEY"), "{:?}", report.notices);
    assert_eq!(a.sync().await.notices, Vec::<String>::new(), "once is enough");
    a.run("CREATE TABLE skills(id TEXT PRIMARY KEY, name TEXT CHECK(length(name) < 6))").await;
    a.sync().await;
    b.run("CREATE TABLE skills(id TEXT PRIMARY KEY, name TEXT)").await;
    b.run("INSERT INTO skills VALUES('b', 'too long')").await;
    b.sync().await;
    let report = a.sync().await;
    assert_eq!(report.quarantined, 1);
    let told = |part: &str| report.notices.iter().any(|it| it.contains("skills") && it.contains(part));
    assert!(told("CHECK") && told("not handed to newcomers"), "{report:?}");
}

#[tokio::test]
async fn one_thing_written_by_two_agents_becomes_one_row_and_is_reported() {
    let site = Site::start(":memory:").await;
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    for (agent, uses) in [(&a, 1), (&b, 2)] {
        agent.run("CREATE TABLE skills(id INTEGER PRIMARY KEY, name TEXT UNIQUE, uses INTEGER)").await;
        agent.run(&format!("INSERT INTO skills(name, uses) VALUES('retry', {uses})")).await;
    }
    a.sync().await;
    let report = b.sync().await;
    assert_eq!(report.conflicts, 1, "{report:?}");
    assert!(report.notices[0].contains("one row now"), "{report:?}");
    assert!(report.notices[1].contains("told of first stands"), "{report:?}");
    a.sync().await;
    for agent in [&a, &b] {
        assert_eq!(agent.rows("SELECT uses FROM skills").await, [[Value::Integer(1)]]);
    }
}

#[tokio::test]
async fn before_connect_and_after_disconnect_a_sync_is_refused_with_the_known_words() {
    let site = Site::start(":memory:").await;
    let agent = Agent::new(site.options("acme", "a"));
    assert_eq!(agent.begin_sync().unwrap_err().to_string(), "Not connected to federation hub");
    agent.disconnect().await;
    agent.connect().await.unwrap();
    let ticket = agent.begin_sync().unwrap();
    agent.sync(ticket, memory()).await.unwrap();
    agent.disconnect().await;
    assert_eq!(agent.begin_sync().unwrap_err().code, ErrorCode::NotConnected);
}
