//! Tenants that push and pull faster than they may, or as fast as they can.

use super::*;

fn insert(prefix: &str, rows: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO notes SELECT '{prefix}' || i, 'x' FROM n"
    )
}

/// Breaks if rows are not counted, if what is refused is lost, if the agent does not keep away, or if another tenant
/// notices.
#[tokio::test]
async fn who_pushes_too_fast_is_held_back_and_then_refused() {
    let site = limited(HubLimits { max_rows_per_second: 1, ..HubLimits::default() }).await;
    let fast = site.agent("acme", "fast").await;
    fast.run(NOTES).await;
    fast.run(&insert("held back ", 6)).await;
    assert_eq!(fast.sync().await.pushed, 6);
    // However little a turn has time for, one of its batches is more than the rate allows in five seconds.
    fast.run(&insert("refused ", 600)).await;
    let error = fast.try_sync().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Quota, "{error}");
    assert!(error.message.contains("maxRowsPerSecond") && error.retry_after_ms > 5_000, "{error}");
    assert_eq!(fast.rows("SELECT count(*) FROM notes").await, [[Value::Integer(606)]]);

    let other = site.agent("globex", "other").await;
    other.run(NOTES).await;
    other.run(&insert("o", 4)).await;
    assert_eq!(other.sync().await.pushed, 4);
}

#[tokio::test]
async fn bytes_count_as_well_as_rows() {
    let site = limited(HubLimits { max_bytes_per_second: 1_000, ..HubLimits::default() }).await;
    let fast = site.agent("acme", "fast").await;
    fast.run(NOTES).await;
    fast.run("INSERT INTO notes VALUES('large', hex(randomblob(20000)))").await;
    fast.sync().await;
    fast.run("INSERT INTO notes VALUES('small', '')").await;
    let error = fast.try_sync().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Quota, "{error}");
    assert!(error.message.contains("maxBytesPerSecond"), "{error}");
}

/// Breaks if a tenant that floods the hub keeps another one's syncs from succeeding.
#[tokio::test]
async fn a_tenant_that_floods_keeps_no_other_from_syncing() {
    let site = Site::start(":memory:").await;
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..6 {
        let member = site.agent("flood", &format!("flooder {n}")).await;
        flood.spawn(async move {
            member.run(NOTES).await;
            for round in 0_u32.. {
                member.run(&insert(&format!("{n} {round} "), 1_000)).await;
                // Some may be refused for their rate, or time out behind each other: so they should.
                let _ = member.try_sync().await;
            }
        });
    }
    // It is about who is served at all, also where a machine has other things to do.
    let patient =
        |name| Member::connect(AgentOptions { request_timeout_ms: 60_000, ..site.options("acme", name) });
    let (good, reader) = (patient("good").await, patient("reader").await);
    good.run(NOTES).await;
    for n in 0..20 {
        good.run(&format!("INSERT INTO notes VALUES('{n}', 'through')")).await;
        assert_eq!(good.sync().await.pushed, 1);
        assert_eq!(reader.sync().await.pulled, 1);
    }
    flood.shutdown().await;
}
