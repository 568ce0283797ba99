//! Forged, foreign and outdated tokens.

use std::fs;

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::ErrorCode;
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::token::keys::KeySource;
use federation_hub::engine::token::{Grant, TokenOptions};
use federation_hub::transport::PemSource;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ca::certificate;
use crate::mint::{Issuer, ed25519, p256, rsa};
use crate::site::{Member, Site};

/// A hub, and the agent `a` of `acme`, which uses it while somebody attacks.
struct Attacked {
    site: Site,
    good: Member,
    _files: Option<TempDir>,
}

impl Attacked {
    /// A hub that shares a secret with its issuer.
    async fn with_secret(change: impl FnOnce(&mut TokenOptions)) -> (Self, Issuer) {
        let site = Site::with(":memory:", |options| change(&mut options.tokens)).await;
        let issuer = Issuer::Hs256(site.credentials.jwt_secret.clone().into_bytes());
        let good = site.agent("acme", "a").await;
        (Self { site, good, _files: None }, issuer)
    }

    /// A hub that knows its issuers' public keys only, by `0`, `1` and so on.
    async fn with_keys(issuers: &[Issuer]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let path = files.path().join("jwks.json");
        let keys: Vec<_> = issuers.iter().enumerate().map(|(n, it)| it.jwk(&n.to_string())).collect();
        fs::write(&path, json!({ "keys": keys }).to_string()).unwrap();
        let site =
            Site::with(":memory:", |options| options.tokens = TokenOptions::of(KeySource::Jwks(path))).await;
        let token = issuers[0].token(Some("0"), &claims());
        let good = Member::connect(AgentOptions { token, ..site.options_without_token("acme", "a") }).await;
        Self { site, good, _files: Some(files) }
    }

    /// The hub refuses `a` of `acme` with this token, for this reason, and serves whoever is in.
    async fn refuses(&self, token: String, reason: &str) {
        let what = token.clone();
        // A certificate that names nobody: the token alone has to be found wrong.
        let (cert, key) = certificate(&self.site.credentials, 1, &[]);
        let options = self.site.options_without_token("acme", "a");
        let options = AgentOptions { token, cert: Some(cert), key: Some(key), ..options };
        let error = Agent::new(options).connect().await.expect_err(&what);
        assert_eq!(error.code, ErrorCode::Unauthenticated, "{what}: {error}");
        assert!(error.message.contains(reason), "{what}: {error}");
        assert!(what.is_empty() || !error.message.contains(&what), "the token is repeated: {error}");
        self.good.sync().await;
    }
}

fn claims() -> Value {
    json!({ "tenantId": "acme", "agentId": "a", "exp": seconds(600) })
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn seconds(from_now: i64) -> i64 {
    wall_now_ms() / 1000 + from_now
}

#[tokio::test]
async fn algorithm_confusion_with_the_public_key_as_the_secret() {
    let issuers = [Issuer::Rs256(rsa()), Issuer::Es256(p256()), Issuer::EdDsa(ed25519())];
    let pems = issuers.each_ref().map(Issuer::public_pem);
    let hub = Attacked::with_keys(&issuers).await;
    for (n, (issuer, pem)) in issuers.iter().zip(&pems).enumerate() {
        let jwk = issuer.jwk(&n.to_string()).to_string();
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), jwk.as_bytes()] {
            for forger in [
                Issuer::Hs256(secret.to_vec()),
                Issuer::Hs384(secret.to_vec()),
                Issuer::Hs512(secret.to_vec()),
            ] {
                hub.refuses(forger.token(Some(&n.to_string()), &claims()), "algorithm").await;
            }
        }
    }
    // The same with the key as a PEM file, which tokens need not name.
    for (issuer, pem) in issuers.into_iter().zip(pems) {
        let keys = KeySource::PublicKey(PemSource::Text(pem.clone()));
        let site = Site::with(":memory:", |options| options.tokens = TokenOptions::of(keys)).await;
        let token = issuer.token(None, &claims());
        let good = Member::connect(AgentOptions { token, ..site.options_without_token("acme", "a") }).await;
        let hub = Attacked { site, good, _files: None };
        hub.refuses(Issuer::Hs256(pem.into_bytes()).token(None, &claims()), "algorithm").await;
    }
}

#[tokio::test]
async fn algorithm_none() {
    let (hub, issuer) = Attacked::with_secret(|_| {}).await;
    for none in ["none", "None", "NONE", "nOnE", ""] {
        for header in [json!({ "alg": none }), json!({ "alg": none, "typ": "JWT" })] {
            let signed = issuer.token_under(&header, &claims());
            let (unsigned, _) = signed.rsplit_once('.').unwrap();
            hub.refuses(format!("{unsigned}."), "no JWT that is signed").await;
            hub.refuses(unsigned.to_owned(), "no JWT that is signed").await;
            hub.refuses(signed, "no JWT that is signed").await;
        }
    }
    let good = issuer.token(None, &claims());
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    hub.refuses(format!("{unsigned}."), "signature").await;
}

#[tokio::test]
async fn a_weaker_or_stronger_hash_than_the_hub_asks_for() {
    let (hub, _) = Attacked::with_secret(|tokens| tokens.algorithm = Some("HS384".to_owned())).await;
    let secret = hub.site.credentials.jwt_secret.clone().into_bytes();
    hub.refuses(Issuer::Hs256(secret.clone()).token(None, &claims()), "algorithm").await;
    hub.refuses(Issuer::Hs512(secret).token(None, &claims()), "algorithm").await;
}

#[tokio::test]
async fn an_rsa_signature_of_the_other_padding() {
    let pair = rsa();
    let hub = Attacked::with_keys(&[Issuer::Rs256(pair)]).await;
    let forger = Issuer::Ps256(rsa());
    hub.refuses(forger.token(Some("0"), &claims()), "algorithm").await;
    let header = json!({ "alg": "RS256", "kid": "0" });
    hub.refuses(forger.token_under(&header, &claims()), "signature").await;
}

#[tokio::test]
async fn a_key_that_the_token_brings_along() {
    let hub = Attacked::with_keys(&[Issuer::Es256(p256())]).await;
    let forger = Issuer::Es256(p256());
    for extra in ["jwk", "jku", "x5c", "x5u"] {
        let mut header = json!({ "alg": "ES256", "kid": "0" });
        header[extra] = match extra {
            "jwk" => forger.jwk("0"),
            "x5c" => json!(["MIIB"]),
            _ => json!("https://attacker.example/keys"),
        };
        hub.refuses(forger.token_under(&header, &claims()), "signature").await;
    }
}

#[tokio::test]
async fn a_token_that_has_expired() {
    let (hub, issuer) = Attacked::with_secret(|_| {}).await;
    for exp in [json!(seconds(-1)), json!(seconds(-1) * 1000), json!(0), json!(-1), json!(1e3), json!(-1e300)]
    {
        hub.refuses(issuer.token(None, &claims_with("exp", exp)), "expired").await;
    }
    for exp in [json!(null), json!("9999999999"), json!(true)] {
        hub.refuses(issuer.token(None, &claims_with("exp", exp)), "`exp`").await;
    }
}

#[tokio::test]
async fn a_token_that_is_not_valid_yet() {
    let (hub, issuer) = Attacked::with_secret(|_| {}).await;
    for name in ["nbf", "iat"] {
        for at in [json!(seconds(120)), json!(seconds(120) * 1000)] {
            hub.refuses(issuer.token(None, &claims_with(name, at)), "not valid yet").await;
        }
    }
}

#[tokio::test]
async fn a_token_for_another_audience() {
    let (hub, issuer) = Attacked::with_secret(|tokens| tokens.audience = Some("hub".to_owned())).await;
    for aud in
        [json!("mail"), json!(["mail", "calendar"]), json!(["hub2"]), json!(null), json!({ "hub": true })]
    {
        hub.refuses(issuer.token(None, &claims_with("aud", aud)), "(aud)").await;
    }
    hub.refuses(issuer.token(None, &claims()), "(aud)").await;
}

#[tokio::test]
async fn a_token_of_another_issuer() {
    let (hub, issuer) =
        Attacked::with_secret(|tokens| tokens.issuer = Some("https://id.acme.example".into())).await;
    for iss in [json!("https://id.acme.example.evil"), json!(["https://id.acme.example"]), json!(null)] {
        hub.refuses(issuer.token(None, &claims_with("iss", iss)), "(iss)").await;
    }
}

#[tokio::test]
async fn a_token_of_another_tenant() {
    let (hub, issuer) = Attacked::with_secret(|_| {}).await;
    for tenant in ["globex", "Acme", "acme ", "acme\0", "a"] {
        hub.refuses(issuer.token(None, &claims_with("tenantId", json!(tenant))), "another tenant").await;
    }
    for tenant in [json!(null), json!(["acme"]), json!({ "acme": 1 }), json!("")] {
        hub.refuses(issuer.token(None, &claims_with("tenantId", tenant)), "`tenantId`").await;
    }
}

#[tokio::test]
async fn agent_id_spoofing() {
    let (hub, issuer) = Attacked::with_secret(|_| {}).await;
    for agent in ["b", "A", "a ", "a/b"] {
        hub.refuses(issuer.token(None, &claims_with("agentId", json!(agent))), "another tenant or agent")
            .await;
    }
}

#[tokio::test]
async fn an_unknown_kid() {
    let issuers = [Issuer::Rs256(rsa()), Issuer::EdDsa(ed25519())];
    let hub = Attacked::with_keys(&issuers).await;
    for kid in [Some("2"), Some("../0"), Some("0 "), Some("' OR 1=1 --"), Some(""), None] {
        hub.refuses(issuers[0].token(kid, &claims()), "(kid)").await;
    }
    // The other issuer's key, by its name.
    hub.refuses(issuers[0].token(Some("1"), &claims()), "algorithm").await;
    let forged = json!({ "alg": "EdDSA", "kid": "1" });
    hub.refuses(issuers[0].token_under(&forged, &claims()), "signature").await;
}

#[tokio::test]
async fn a_symmetric_key_in_a_published_key_set() {
    let leaked = Issuer::Hs256(b"whoever reads the key set knows this".to_vec());
    let hub = Attacked::with_keys(&[Issuer::Es256(p256()), leaked]).await;
    let leaked = Issuer::Hs256(b"whoever reads the key set knows this".to_vec());
    hub.refuses(leaked.token(Some("1"), &claims()), "(kid)").await;
    hub.refuses(leaked.token(Some("0"), &claims()), "algorithm").await;
}

#[tokio::test]
async fn permissions_that_are_none() {
    let (hub, issuer) = Attacked::with_secret(|_| {}).await;
    hub.refuses(issuer.token(None, &claims_with("permissions", json!(["write"]))), "\"read\"").await;
    hub.refuses(issuer.token(None, &claims_with("permissions", json!([]))), "\"read\"").await;
    hub.refuses(issuer.token(None, &claims_with("permissions", json!("read"))), "`permissions`").await;
    let grant = Grant { permissions: Some(vec!["write".into()]), token_id: None };
    hub.refuses(hub.site.token("acme", "a", &grant), "\"read\"").await;
}
