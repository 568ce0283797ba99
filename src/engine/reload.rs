//! Certificates, revocation lists and keys that change while the hub runs: loaded anew, for whoever connects then.
//!
//! Files are looked at every second, because what replaces them (a renewal, a mounted secret) tells nobody. What
//! does not load, say because only half of it has been replaced yet, is tried again at the next look; until it loads,
//! what was loaded before is good.

use std::fs::{self, Metadata};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

use super::audit;
use super::hub::HubOptions;
use super::token::TokenVerifier;
use super::token::keys::KeySource;
use crate::transport::{HubEndpoint, HubTls, PemSource};

/// How often files are looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// By what a file's contents are known; nothing if there is none.
type Look = Option<(Option<SystemTime>, u64, u64)>;

/// Files that are used together.
struct Watched {
    files: Vec<PathBuf>,
    seen: Vec<Look>,
    /// Why they could not be loaded the last time, so that it is said once.
    failure: Option<String>,
}

impl Watched {
    fn new(sources: impl IntoIterator<Item = PathBuf>) -> Self {
        let files: Vec<PathBuf> = sources.into_iter().collect();
        Self { seen: files.iter().map(look).collect(), files, failure: None }
    }

    /// Loads them if they have changed since they were last loaded. Says whether it did.
    fn load_if_changed<E: std::fmt::Display>(&mut self, load: impl FnOnce() -> Result<(), E>) -> bool {
        // Looked at before they are loaded: what changes meanwhile is loaded the next time.
        let found: Vec<Look> = self.files.iter().map(look).collect();
        if found == self.seen {
            return false;
        }
        match load() {
            Ok(()) => {
                (self.seen, self.failure) = (found, None);
                true
            }
            Err(error) => {
                let failure = Some(error.to_string());
                if failure != self.failure {
                    tracing::warn!(%error, "changed files cannot be used; what was loaded before is used on");
                    self.failure = failure;
                }
                false
            }
        }
    }
}

fn look(path: &PathBuf) -> Look {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok(), metadata.len(), file_number(&metadata)))
}

/// Tells a file from the one that was moved into its place.
#[cfg(unix)]
fn file_number(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn file_number(_: &Metadata) -> u64 {
    0
}

fn file_of(source: &PemSource) -> Option<PathBuf> {
    match source {
        PemSource::Path(path) => Some(path.clone()),
        PemSource::Text(_) => None,
    }
}

/// The files that a hub proves itself with, and checks agents' certificates with.
fn tls_files(tls: &HubTls) -> Watched {
    let sources = [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref(), tls.crl.as_ref()];
    Watched::new(sources.into_iter().flatten().filter_map(file_of))
}

/// The files that tokens are verified with.
fn key_files(keys: &KeySource) -> Watched {
    Watched::new(match keys {
        KeySource::Secret(_) => None,
        KeySource::PublicKey(source) => file_of(source),
        KeySource::Jwks(path) => Some(path.clone()),
    })
}

/// What is looked at for a hub. Made before anything is loaded, so that no change is missed.
pub(super) struct Reloader {
    tls: Watched,
    keys: Watched,
    options: HubOptions,
}

impl Reloader {
    pub(super) fn new(options: &HubOptions) -> Self {
        let (tls, keys) = (tls_files(&options.tls), key_files(&options.tokens.keys));
        Self { tls, keys, options: options.clone() }
    }

    fn look(&mut self, tokens: &TokenVerifier, endpoint: &HubEndpoint) {
        if self.tls.load_if_changed(|| endpoint.reload(&self.options.tls)) {
            audit::reloaded("certificates");
        }
        if self.keys.load_if_changed(|| tokens.reload()) {
            audit::reloaded("keys for tokens");
        }
    }
}

/// Looks for changes until the endpoint is gone.
pub(super) async fn reload(mut reloader: Reloader, tokens: Arc<TokenVerifier>, endpoint: Weak<HubEndpoint>) {
    if reloader.tls.files.is_empty() && reloader.keys.files.is_empty() {
        return;
    }
    loop {
        sleep(PAUSE).await;
        let Some(endpoint) = endpoint.upgrade() else { return };
        let tokens = Arc::clone(&tokens);
        // On a thread of its own: a file system may be slow, and agents wait for this one.
        let looked = tokio::task::spawn_blocking(move || {
            reloader.look(&tokens, &endpoint);
            reloader
        });
        match looked.await {
            Ok(used) => reloader = used,
            Err(_) => return,
        }
    }
}
