//! A test that runs once more in a process of its own, for what holds for a whole process.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Tells the process where it is to work.
const PLACE: &str = "FEDERATION_TEST_PLACE";

/// Where to work, in the process that [`again`] started.
pub fn place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// Runs a command; says whether it went well.
pub fn works(command: &[&str]) -> bool {
    Command::new(command[0]).args(&command[1..]).output().is_ok_and(|output| output.status.success())
}

/// Runs this test, and no other, by a launcher that ends with what it is to run.
pub async fn again(test: &'static str, launcher: &[&str], place: &Path) {
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(PLACE, place);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told =
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{launcher:?}: {told}");
}
