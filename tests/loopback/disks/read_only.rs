//! Files and directories that may not be written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::process::{again, place, works};
use super::refusal;
use crate::site::Site;

const TEST: &str = "disks::read_only::what_may_not_be_written_is_named_before_anybody_is_let_in";

/// Takes from an administrator what lets him write where nobody may.
const LAUNCHER: [&str; 3] = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"];

/// Breaks if a hub starts that could not store anything, or that does not say which file it is.
#[tokio::test]
async fn what_may_not_be_written_is_named_before_anybody_is_let_in() {
    let Some(place) = place() else {
        let folder = tempfile::tempdir().unwrap();
        let launcher = if works(&["sh", "-c", "test \"$(id -u)\" = 0"]) { &LAUNCHER[..] } else { &["env"] };
        return again(TEST, launcher, folder.path()).await;
    };
    let path = place.join("hub.db");
    Site::start(path.to_str().unwrap()).await.hub.stop().await;
    let before = fs::read(&path).unwrap();
    let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (file, folder) in [(0o400, 0o700), (0o600, 0o500), (0o400, 0o500)] {
        allow(&path, file);
        allow(&place, folder);
        let said = refusal(&path).await;
        allow(&place, 0o700);
        assert!(said.contains("hub.db") && said.contains("write"), "{file:o} in {folder:o}: {said}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    allow(&path, 0o600);
    Site::start(path.to_str().unwrap()).await;
}
