//! What a hub makes of its file, and of the disk below it.

mod files;
#[cfg(target_os = "linux")]
mod full;
#[cfg(unix)]
mod moved;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod read_only;

use std::path::Path;

use federation_hub::engine::hub::{Hub, HubOptions};
use federation_hub::transport::Credentials;

/// What a hub says that cannot start on this file.
async fn refusal(path: &Path) -> String {
    let options = HubOptions::local(&Credentials::generate([7; 32]).unwrap(), path.to_str().unwrap());
    Hub::start(options).await.expect_err("must not start").to_string()
}
