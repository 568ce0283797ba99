//! A tenant whose rows take as much of the store as they may.

use super::*;

/// With room for the definitions and replicas of two agents.
const LIMIT: u64 = 5_000;

async fn full() -> (Site, Member) {
    let site = limited(HubLimits { max_stored_bytes_per_tenant: LIMIT, ..HubLimits::default() }).await;
    let writer = site.agent("acme", "writer").await;
    writer.run(NOTES).await;
    writer.run(&format!("INSERT INTO notes VALUES('old', '{}')", "x".repeat(3_000))).await;
    assert_eq!(writer.sync().await.pushed, 1);
    (site, writer)
}

fn more(id: &str) -> String {
    format!("INSERT INTO notes VALUES('{id}', '{}')", "y".repeat(2_000))
}

/// Breaks if the limit is not kept, if what was written is lost, if others' writes do not arrive, or if deleting helps
/// nobody.
#[tokio::test]
async fn what_there_is_no_room_for_stays_here_and_what_others_wrote_arrives() {
    let (site, writer) = full().await;
    let other = site.agent("acme", "other").await;
    other.sync().await;
    other.run("INSERT INTO notes VALUES('small', 'of the other')").await;
    other.sync().await;

    writer.run(&more("much")).await;
    for _ in 0..2 {
        let error = writer.try_sync().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Quota, "{error}");
        assert!(
            error.message.contains("maxStoredBytesPerTenant") && error.message.contains("delete rows"),
            "{error}"
        );
        assert_eq!(writer.rows("SELECT 1 FROM notes WHERE id = 'small'").await.len(), 1, "reading goes on");
    }
    assert_eq!(writer.rows("SELECT 1 FROM notes WHERE id = 'much'").await.len(), 1, "it is not lost");
    assert_eq!(other.sync().await.pulled, 0);
    let elsewhere = site.agent("globex", "elsewhere").await;
    elsewhere.run(NOTES).await;
    elsewhere.run(&more("much")).await;
    assert_eq!(elsewhere.sync().await.pushed, 1, "another tenant has room of its own");

    other.run("DELETE FROM notes WHERE id = 'old'").await;
    other.sync().await;
    writer.agent.disconnect().await;
    writer.agent.connect().await.unwrap();
    assert_eq!(writer.sync().await.pushed, 1);
    assert_eq!(other.sync().await.pulled, 1);
}

/// Breaks if rows that were there before the first sync are left out without a word.
#[tokio::test]
async fn a_memory_that_there_is_no_room_for_is_told_of() {
    let site = limited(HubLimits { max_stored_bytes_per_tenant: LIMIT, ..HubLimits::default() }).await;
    let writer = site.agent("acme", "writer").await;
    writer.run(NOTES).await;
    writer.run(&format!("INSERT INTO notes VALUES('old', '{}')", "x".repeat(5_000))).await;
    for _ in 0..2 {
        assert_eq!(writer.try_sync().await.unwrap_err().code, ErrorCode::Quota);
    }
}

/// Breaks if a tenant that is full can only be helped by its operator.
#[tokio::test]
async fn one_sync_that_makes_room_and_takes_it_is_accepted() {
    let (_site, writer) = full().await;
    writer.run(&more("much")).await;
    assert_eq!(writer.try_sync().await.unwrap_err().code, ErrorCode::Quota);
    writer.run("DELETE FROM notes WHERE id = 'old'").await;
    writer.agent.disconnect().await;
    writer.agent.connect().await.unwrap();
    assert_eq!(writer.sync().await.pushed, 2);
}
