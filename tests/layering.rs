//! Imports run downward only, and each outside crate stays in its place (invariant I3).
//!
//! Breaks when a file names a layer above its own, or a crate outside the places listed here.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

/// The layers, from the bottom up; each may use those named beside it.
const LAYERS: [(&str, &[&str]); 6] = [
    ("model", &[]),
    ("protocol", &["model"]),
    ("storage", &["model", "protocol"]),
    ("transport", &["model", "protocol"]),
    ("engine", &["model", "protocol", "storage", "transport"]),
    ("node", &["model", "protocol", "storage", "transport", "engine"]),
];

/// Crates that belong in one place, as prefixes of paths below `src`.
const PLACES: [(&str, &[&str]); 14] = [
    ("napi", &["node/"]),
    ("napi_derive", &["node/"]),
    ("rusqlite", &["storage/sqlite_driver.rs", "storage/scratch.rs", "storage/hub_store_sqlite"]),
    ("quinn", &["transport/"]),
    ("rustls", &["transport/"]),
    ("rcgen", &["transport/"]),
    ("jsonwebtoken", &["engine/token.rs", "engine/token/"]),
    ("aws_lc_rs", &["engine/token/", "transport/"]),
    ("webpki", &["transport/"]),
    ("getrandom", &["engine/", "node/"]),
    ("prometheus_client", &["engine/"]),
    ("hyper", &["engine/metrics_server.rs"]),
    ("hyper_util", &["engine/metrics_server.rs"]),
    ("tracing_subscriber", &["engine/log.rs"]),
];

/// What reads the world: never in the pure layers.
const IMPURE: [&str; 8] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime::now",
    "Instant::now",
    "std::env",
    "std::fs",
    "std::net",
    "tokio",
];

/// What the compiler cannot vouch for, and who may ask it not to: with a reason, which the lint `unsafe_code` demands.
const UNSAFE: [&str; 3] = ["node/js_driver.rs", "node/js_thread.rs", "node/raw.rs"];

fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    let relative = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
    paths.iter().map(|path| (relative(path), code(&fs::read_to_string(path).unwrap()))).collect()
}

/// The code of a file, without comments and without the tests at its foot.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    code.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// Whether code names a path that begins with this word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
            && after.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

#[test]
fn layers_import_downward_only() {
    for (file, code) in sources() {
        let Some((layer, allowed)) = LAYERS.iter().find(|(layer, _)| file.starts_with(&format!("{layer}/")))
        else {
            continue;
        };
        for (other, _) in LAYERS.iter().filter(|(other, _)| other != layer && !allowed.contains(other)) {
            assert!(!code.contains(&format!("crate::{other}")), "{file} ({layer}) must not use {other}");
        }
    }
}

#[test]
fn each_outside_crate_stays_in_its_place() {
    for (file, code) in sources() {
        for (name, places) in PLACES {
            if !places.iter().any(|place| file.starts_with(place)) {
                let path = format!("{name}::");
                assert!(!names(&code, name) || !code.contains(&path), "{file} must not use {name}");
            }
        }
    }
}

#[test]
fn model_and_protocol_read_no_clock_no_file_no_socket_and_no_randomness() {
    for (file, code) in sources() {
        if file.starts_with("model/") || file.starts_with("protocol/") {
            for word in IMPURE {
                assert!(!names(&code, word), "{file} must not use {word}");
            }
        }
    }
}

#[test]
fn unsafe_code_stays_where_javascript_is_called_and_says_why() {
    for (file, code) in sources() {
        // The lint's own name holds the word too.
        let is_unsafe = names(&code, "unsafe") || code.contains("unsafe_code");
        assert_eq!(is_unsafe, UNSAFE.contains(&file.as_str()), "{file}");
        let why = code.split("#![expect(").nth(1).unwrap_or_default();
        let why = why.split(")]").next().unwrap_or_default();
        assert!(
            !is_unsafe || why.contains("unsafe_code") && why.contains("reason = \""),
            "{file} must say why"
        );
    }
}

#[test]
fn the_test_can_fail() {
    assert!(names("use rusqlite::Connection;", "rusqlite"));
    assert!(names("let now = Instant::now();", "Instant::now"));
    assert!(!names("let my_rusqlite = 1;", "rusqlite"));
}
