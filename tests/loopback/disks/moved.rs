//! A hub whose file is deleted, moved or replaced under it.

use std::fs;

use crate::draining::readiness;
use crate::site::Site;

/// Breaks if a hub acknowledges what no file keeps.
#[tokio::test]
async fn a_hub_whose_file_is_gone_acknowledges_nothing_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("hub.db"), folder.path().join("away"));
    let metrics = Some("127.0.0.1:0".into());
    let site = Site::with(path.to_str().unwrap(), |options| options.metrics_listen = metrics).await;
    let agent = site.agent("acme", "a").await;
    agent.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, body)").await;
    agent.run("INSERT INTO notes(body) VALUES('kept')").await;
    assert_eq!(agent.sync().await.pushed, 1);
    for name in ["hub.db", "hub.db-wal"] {
        let (file, away) = (folder.path().join(name), away.join(name));
        fs::create_dir_all(away.parent().unwrap()).unwrap();
        for replacement in [None, Some("another file")] {
            fs::rename(&file, &away).unwrap();
            if let Some(text) = replacement {
                fs::write(&file, text).unwrap();
            }
            agent.run("INSERT INTO notes(body) VALUES('more')").await;
            let said = agent.try_sync().await.expect_err("acknowledged").to_string();
            assert!(said.contains("was deleted, moved or replaced"), "{said}");
            assert_eq!(readiness(&site).await, "HTTP/1.1 503 Service Unavailable");
            fs::rename(&away, &file).unwrap();
            assert!(agent.sync().await.pushed > 0);
        }
    }
}
