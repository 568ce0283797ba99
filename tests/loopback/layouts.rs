//! Stores that earlier releases have written.

use std::fs;
use std::path::{Path, PathBuf};

use federation_hub::model::Value;

use crate::site::{Member, Site};

/// A file of each layout that was released, and of those since, `hub_store_layout_<n>.db`: three episodes and their skills were pushed, then
/// an episode was deleted, with its skill, and another one edited.
fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read_dir(directory).unwrap().map(|it| it.unwrap().path()).collect()
}

async fn told(member: &Member) -> Vec<Vec<Value>> {
    member
        .rows(
            "SELECT skills.name, task, code, hex(data) FROM skills JOIN episodes ON episodes.id = skills.episode
             ORDER BY skills.name",
        )
        .await
}

#[tokio::test]
async fn a_store_of_every_layout_is_opened_and_served() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    for fixture in fixtures {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hub.db");
        fs::copy(&fixture, &path).unwrap();
        let site = Site::start(path.to_str().unwrap()).await;
        assert_eq!(site.hub.stats().rows, 4, "{}", fixture.display());
        let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
        a.sync().await;
        let text = |text: &str| Value::Text(text.into());
        let expected = [
            vec![text("s1"), text("kept"), text("c1"), text("00FF")],
            vec![text("s3"), text("edited by bob"), Value::Null, text("")],
        ];
        assert_eq!(told(&a).await, expected, "{}", fixture.display());
        a.run("UPDATE episodes SET task = 'by a' WHERE task = 'kept'; DELETE FROM skills WHERE name = 's3'")
            .await;
        assert_eq!(a.sync().await.pushed, 2);
        b.sync().await;
        assert_eq!(told(&b).await, [vec![text("s1"), text("by a"), text("c1"), text("00FF")]]);
    }
}
