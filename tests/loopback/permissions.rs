//! What a token permits, and with which keys it may be signed.

use std::fs;

use federation_hub::engine::agent::AgentOptions;
use federation_hub::engine::agent_error::ErrorCode;
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::token::keys::{KeyError, KeySource};
use federation_hub::engine::token::{Grant, TokenOptions, TokenVerifier};
use federation_hub::model::Value;
use federation_hub::transport::PemSource;
use serde_json::json;

use crate::mint::{Issuer, ed25519, p256, rsa};
use crate::site::{Member, Site};

const NOTES: &str = "CREATE TABLE IF NOT EXISTS notes(id TEXT PRIMARY KEY, title TEXT)";

fn reader(site: &Site) -> AgentOptions {
    let grant = Grant { permissions: Some(vec!["read".into()]), token_id: None };
    AgentOptions { token: site.token("acme", "reader", &grant), ..site.options("acme", "reader") }
}

async fn titles(member: &Member) -> Vec<Vec<Value>> {
    member.rows("SELECT id, title FROM notes ORDER BY id").await
}

fn row(id: &str, title: &str) -> Vec<Value> {
    vec![Value::Text(id.into()), Value::Text(title.into())]
}

/// Breaks if what a reader writes reaches the hub, is lost, or keeps it from reading.
#[tokio::test]
async fn a_reader_pulls_and_what_it_writes_waits_for_a_token_that_lets_it() {
    let site = Site::start(":memory:").await;
    let writer = site.agent("acme", "writer").await;
    writer.run(NOTES).await;
    writer.run("INSERT INTO notes VALUES('x', 'of the writer')").await;
    writer.sync().await;

    let mut reader = Member::connect(reader(&site)).await;
    assert_eq!(reader.sync().await.pulled, 1);
    reader.run("INSERT INTO notes VALUES('y', 'of the reader')").await;
    writer.run("INSERT INTO notes VALUES('z', 'later')").await;
    writer.sync().await;
    for _ in 0..2 {
        let error = reader.try_sync().await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden, "{error}");
        assert!(error.message.contains("permits no writing"), "{error}");
    }
    assert_eq!(titles(&reader).await.len(), 3, "what others wrote is there all the same");
    assert_eq!(writer.sync().await.pulled, 0);

    reader.agent.disconnect().await;
    let both = Member::connect(site.options("acme", "reader")).await;
    reader.agent = both.agent;
    assert_eq!(reader.sync().await.pushed, 1);
    assert_eq!(writer.sync().await.pulled, 1);
    assert_eq!(titles(&writer).await[1], row("y", "of the reader"));
}

/// Breaks if a schema or template rows that nobody wrote for others are taken for writes.
#[tokio::test]
async fn a_reader_with_tables_of_its_own_syncs_and_defines_nothing() {
    let site = Site::start(":memory:").await;
    let reader = Member::connect(reader(&site)).await;
    reader.run(NOTES).await;
    reader.run("INSERT INTO notes VALUES('template', 'old')").await;
    reader.run("CREATE TABLE own(id TEXT PRIMARY KEY)").await;
    reader.sync().await;

    let writer = site.agent("acme", "writer").await;
    writer.sync().await;
    assert!(writer.rows("SELECT 1 FROM sqlite_master WHERE name IN ('notes', 'own')").await.is_empty());
    writer.run(NOTES).await;
    writer.run("INSERT INTO notes VALUES('x', 'new')").await;
    writer.sync().await;
    assert_eq!(reader.sync().await.pulled, 1);
    assert_eq!(reader.sync().await.pulled, 0);
    assert_eq!(titles(&reader).await, [row("template", "old"), row("x", "new")]);
}

/// Breaks if rows of a table that contradicts the tenant's are told to a reader.
#[tokio::test]
async fn a_reader_is_told_which_of_its_tables_contradict_the_tenants() {
    let site = Site::start(":memory:").await;
    let writer = site.agent("acme", "writer").await;
    writer.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT)").await;
    writer.run("INSERT INTO notes VALUES(1, 'numbered')").await;
    writer.sync().await;
    let reader = Member::connect(reader(&site)).await;
    reader.run(NOTES).await;
    let report = reader.sync().await;
    assert!(report.notices.iter().any(|notice| notice.contains("table notes is not shared")), "{report:?}");
    assert!(titles(&reader).await.is_empty());
    reader.sync().await;
    assert!(titles(&reader).await.is_empty());
}

fn claims() -> serde_json::Value {
    json!({ "tenantId": "acme", "agentId": "a", "exp": wall_now_ms() + 600_000 })
}

fn issuers() -> [Issuer; 4] {
    [Issuer::Rs256(rsa()), Issuer::Ps256(rsa()), Issuer::Es256(p256()), Issuer::EdDsa(ed25519())]
}

#[test]
fn every_algorithm_verifies_with_a_pem_file_and_with_a_key_set() {
    let files = tempfile::tempdir().unwrap();
    let (pem, set) = (files.path().join("key.pem"), files.path().join("jwks.json"));
    let issuers = issuers();
    let keys: Vec<_> = issuers.iter().map(|issuer| issuer.jwk(issuer.algorithm())).collect();
    fs::write(&set, json!({ "keys": keys }).to_string()).unwrap();
    let by_set = TokenVerifier::new(TokenOptions::of(KeySource::Jwks(set))).unwrap();
    for issuer in &issuers {
        fs::write(&pem, issuer.public_pem()).unwrap();
        let options = TokenOptions {
            algorithm: Some(issuer.algorithm().to_owned()),
            ..TokenOptions::of(KeySource::PublicKey(PemSource::Path(pem.clone())))
        };
        let by_pem = TokenVerifier::new(options).unwrap();
        let token = issuer.token(Some(issuer.algorithm()), &claims());
        for verifier in [&by_pem, &by_set] {
            let verified = verifier.verify(&token, wall_now_ms()).unwrap();
            assert_eq!((verified.tenant_id.as_str(), verified.agent_id.as_str()), ("acme", "a"));
        }
    }
}

#[test]
fn the_kind_of_a_key_says_what_it_is_for() {
    for issuer in issuers() {
        let pem = || KeySource::PublicKey(PemSource::Text(issuer.public_pem()));
        let plain = TokenVerifier::new(TokenOptions::of(pem())).unwrap();
        let is_default = issuer.algorithm() != "PS256";
        assert_eq!(plain.verify(&issuer.token(None, &claims()), wall_now_ms()).is_ok(), is_default);
        for name in ["HS256", "HS512", "RS256", "ES256", "EdDSA"] {
            let options = TokenOptions { algorithm: Some(name.into()), ..TokenOptions::of(pem()) };
            let is_rsa = issuer.algorithm().ends_with("S256") && issuer.algorithm() != "ES256";
            let fits = name == issuer.algorithm() || (is_rsa && name == "RS256");
            match TokenVerifier::new(options) {
                Ok(_) => assert!(fits, "{name} with a key for {}", issuer.algorithm()),
                Err(error) => assert!(!fits && matches!(error, KeyError::Mismatch { .. }), "{name}: {error}"),
            }
        }
    }
}

#[test]
fn a_key_set_is_loaded_anew_and_a_broken_one_changes_nothing() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("jwks.json");
    let (old, new) = (Issuer::Es256(p256()), Issuer::EdDsa(ed25519()));
    let write = |text: String| fs::write(&path, text).unwrap();
    write(json!({ "keys": [old.jwk("old")] }).to_string());
    let verifier = TokenVerifier::new(TokenOptions::of(KeySource::Jwks(path.clone()))).unwrap();
    let is_good =
        |issuer: &Issuer, kid| verifier.verify(&issuer.token(Some(kid), &claims()), wall_now_ms()).is_ok();
    assert_eq!((is_good(&old, "old"), is_good(&new, "new")), (true, false));
    write(json!({ "keys": [old.jwk("old"), new.jwk("new")] }).to_string());
    verifier.reload().unwrap();
    assert_eq!((is_good(&old, "old"), is_good(&new, "new")), (true, true));
    for broken in ["", "{", "[]", "{\"keys\":[]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"] {
        write(broken.to_owned());
        assert!(matches!(verifier.reload(), Err(KeyError::NotASet(_) | KeyError::NoKey(_))), "{broken}");
        assert_eq!((is_good(&old, "old"), is_good(&new, "new")), (true, true), "{broken}");
    }
    write(json!({ "keys": [{ "kty": "unheard of" }, 7, new.jwk("new")], "more": 1 }).to_string());
    verifier.reload().unwrap();
    assert_eq!((is_good(&old, "old"), is_good(&new, "new")), (false, true));
}

#[test]
fn keys_that_are_not_for_us_are_passed_over() {
    let issuer = Issuer::Rs256(rsa());
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("jwks.json");
    let changed = |name: &str, value: serde_json::Value| {
        let mut jwk = issuer.jwk("k");
        jwk[name] = value;
        jwk
    };
    for (jwk, algorithm) in [
        (changed("use", json!("enc")), None),
        (changed("alg", json!("RSA-OAEP")), None),
        (changed("alg", json!("HS256")), None),
        (changed("alg", json!("ES256")), None),
        (changed("alg", json!(["RS256"])), None),
        (issuer.jwk("k"), Some("PS256")),
    ] {
        fs::write(&path, json!({ "keys": [jwk] }).to_string()).unwrap();
        let keys = KeySource::Jwks(path.clone());
        let options = TokenOptions { algorithm: algorithm.map(Into::into), ..TokenOptions::of(keys) };
        assert!(matches!(TokenVerifier::new(options), Err(KeyError::NoKey(_))), "{jwk}");
    }
    let mut silent = issuer.jwk("k");
    silent.as_object_mut().unwrap().remove("alg");
    fs::write(&path, json!({ "keys": [silent] }).to_string()).unwrap();
    let verifier = TokenVerifier::new(TokenOptions::of(KeySource::Jwks(path))).unwrap();
    verifier.verify(&issuer.token(Some("k"), &claims()), wall_now_ms()).unwrap();
}
