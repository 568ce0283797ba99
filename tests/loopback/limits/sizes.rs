//! Rows and batches that are too large for a hub that takes less than usual.

use super::*;

/// Breaks if a row that is too large is stored, if it holds up the others, or if it is lost where it was written.
#[tokio::test]
async fn a_row_that_is_too_large_stays_and_the_others_go_on() {
    let site = limited(HubLimits { max_row_bytes: 10_000, ..HubLimits::default() }).await;
    let (writer, reader) = (site.agent("acme", "writer").await, site.agent("acme", "reader").await);
    writer.run(NOTES).await;
    writer
        .run("INSERT INTO notes VALUES('large', hex(zeroblob(10000))), ('small', hex(zeroblob(1000)))")
        .await;
    let report = writer.sync().await;
    assert_eq!((report.pushed, report.rejected), (1, 1));
    assert!(report.notices.iter().any(|notice| notice.contains("maxRowBytes")), "{report:?}");
    assert_eq!(reader.sync().await.pulled, 1);
    assert_eq!(writer.rows("SELECT count(*) FROM notes").await, [[Value::Integer(2)]]);
}

/// Breaks if agents do not keep to what the hub reads: the connection would be lost again with each sync.
#[tokio::test]
async fn agents_keep_to_the_batches_that_the_hub_takes() {
    let site = limited(HubLimits { max_batch_bytes: 2 << 20, ..HubLimits::default() }).await;
    let writer = site.agent("acme", "writer").await;
    writer.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, body BLOB)").await;
    writer.run("INSERT INTO notes(body) VALUES(randomblob(1500000))").await;
    for _ in 0..6 {
        writer.run("INSERT INTO notes(body) VALUES(randomblob(400000)), (randomblob(1000000))").await;
    }
    let report = writer.sync().await;
    assert_eq!((report.pushed, report.rejected), (12, 1), "{:?}", report.notices);
    assert_eq!(site.agent("acme", "reader").await.sync().await.pulled, 12);
}
