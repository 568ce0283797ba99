//! Certificates, revocation lists and keys that are replaced while agents are connected.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::{AgentError, ErrorCode};
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::token::TokenOptions;
use federation_hub::engine::token::keys::KeySource;
use federation_hub::transport::{Credentials, PemSource};
use serde_json::json;
use tokio::time::sleep;

use crate::ca::{certificate, revocation_list};
use crate::mint::{Issuer, ed25519, p256};
use crate::site::{Member, Site};

const PATIENCE: Duration = Duration::from_secs(30);

/// A hub's files.
struct Files(tempfile::TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Puts a file in place as careful operators do, in one step.
    fn put(&self, name: &str, text: &str) {
        let next = self.path("next");
        fs::write(&next, text).unwrap();
        fs::rename(&next, self.path(name)).unwrap();
    }
}

fn file(path: &Path) -> PemSource {
    PemSource::Path(path.to_owned())
}

async fn connect(options: &AgentOptions) -> Result<(), AgentError> {
    let agent = Agent::new(options.clone());
    agent.connect().await?;
    agent.disconnect().await;
    Ok(())
}

/// Connects again and again, until it is answered so.
async fn until(options: &AgentOptions, expected: Result<(), ErrorCode>) {
    let since = Instant::now();
    loop {
        let outcome = connect(options).await;
        if outcome.as_ref().map_err(|error| error.code).copied() == expected {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{outcome:?} for ever");
        sleep(Duration::from_millis(100)).await;
    }
}

/// An agent that was connected before stays so: nobody reconnects.
async fn syncs_on(member: &Member, site: &Site) {
    assert!(member.agent.is_warm(member.database.database_id()), "its connection is gone");
    member.sync().await;
    assert!(site.hub.stats().connected_agents >= 1);
}

/// Breaks if a renewed certificate needs a restart, costs anybody the connection, or is used while only half of it
/// is there.
#[tokio::test]
async fn a_renewed_certificate_is_shown_to_whoever_connects_then() {
    let files = Files(tempfile::tempdir().unwrap());
    let old = Credentials::generate([7; 32]).unwrap();
    let new = Credentials::generate([8; 32]).unwrap();
    files.put("hub.crt", &old.hub_cert_pem);
    files.put("hub.key", &old.hub_key_pem);
    let (cert, key) = (files.path("hub.crt"), files.path("hub.key"));
    let site = Site::with(":memory:", |options| {
        (options.tls.cert, options.tls.key) = (file(&cert), file(&key));
    })
    .await;
    let trusting = |credentials: &Credentials| AgentOptions {
        ca: Some(PemSource::Text(credentials.ca_cert_pem.clone())),
        ..site.options("acme", "a")
    };
    let (trusts_old, trusts_new) = (trusting(&old), trusting(&new));
    let member = Member::connect(trusts_old.clone()).await;
    member.sync().await;

    files.put("hub.crt", &new.hub_cert_pem);
    sleep(Duration::from_millis(2_500)).await;
    connect(&trusts_old).await.expect("half of a renewal changes nothing");
    files.put("hub.key", &new.hub_key_pem);
    until(&trusts_new, Ok(())).await;
    until(&trusts_old, Err(ErrorCode::Tls)).await;
    syncs_on(&member, &site).await;
}

#[tokio::test]
async fn a_new_revocation_list_holds_for_whoever_connects_then() {
    let files = Files(tempfile::tempdir().unwrap());
    let path = files.path("crl.pem");
    let credentials = Credentials::generate([7; 32]).unwrap();
    files.put("crl.pem", &revocation_list(&credentials, &[]));
    let site = Site::of(credentials, ":memory:", |options| options.tls.crl = Some(file(&path))).await;
    let (cert, key) = certificate(&site.credentials, 7, &[]);
    let options = AgentOptions { cert: Some(cert), key: Some(key), ..site.options("acme", "a") };
    let member = Member::connect(options.clone()).await;
    member.sync().await;
    files.put("crl.pem", &revocation_list(&site.credentials, &[7]));
    until(&options, Err(ErrorCode::Tls)).await;
    syncs_on(&member, &site).await;
    files.put("crl.pem", "no list at all");
    sleep(Duration::from_millis(2_500)).await;
    until(&options, Err(ErrorCode::Tls)).await;
    files.put("crl.pem", &revocation_list(&site.credentials, &[]));
    until(&options, Ok(())).await;
}

#[tokio::test]
async fn a_new_key_set_holds_for_whoever_connects_then() {
    let files = Files(tempfile::tempdir().unwrap());
    let path = files.path("jwks.json");
    let (old, new) = (Issuer::Es256(p256()), Issuer::EdDsa(ed25519()));
    let set = |keys: &[(&Issuer, &str)]| {
        let keys: Vec<_> = keys.iter().map(|(issuer, kid)| issuer.jwk(kid)).collect();
        json!({ "keys": keys }).to_string()
    };
    files.put("jwks.json", &set(&[(&old, "old")]));
    let site =
        Site::with(":memory:", |options| options.tokens = TokenOptions::of(KeySource::Jwks(path))).await;
    let signed_by = |issuer: &Issuer, kid| {
        let claims = json!({ "tenantId": "acme", "agentId": "a", "exp": wall_now_ms() + 600_000 });
        AgentOptions { token: issuer.token(Some(kid), &claims), ..site.options_without_token("acme", "a") }
    };
    let (by_old, by_new) = (signed_by(&old, "old"), signed_by(&new, "new"));
    let member = Member::connect(by_old.clone()).await;
    member.sync().await;
    until(&by_new, Err(ErrorCode::Unauthenticated)).await;
    files.put("jwks.json", &set(&[(&old, "old"), (&new, "new")]));
    until(&by_new, Ok(())).await;
    until(&by_old, Ok(())).await;
    files.put("jwks.json", &set(&[(&new, "new")]));
    until(&by_old, Err(ErrorCode::Unauthenticated)).await;
    syncs_on(&member, &site).await;
}
