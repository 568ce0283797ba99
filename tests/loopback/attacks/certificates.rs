//! Certificates that belong to somebody else.

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::{AgentError, ErrorCode};
use federation_hub::engine::identity::IdentityPolicy;
use federation_hub::transport::{Credentials, PemSource};

use crate::ca::{Authority, Pair, certificate, revocation_list};
use crate::site::{Member, Site};

const OWN: &str = "spiffe://trusted.example/tenant/acme/agent/a";

/// Connects as `a` of `acme`, by its own token and some certificate.
async fn connect(site: &Site, (cert, key): Pair) -> Result<Member, AgentError> {
    let options = AgentOptions { cert: Some(cert), key: Some(key), ..site.options("acme", "a") };
    let agent = Agent::new(options);
    agent.connect().await?;
    Ok(Member { agent, database: crate::site::memory() })
}

async fn refused(site: &Site, uris: &[&str], reason: &str) {
    let Err(error) = connect(site, certificate(&site.credentials, 1, uris)).await else {
        panic!("{uris:?} was let in");
    };
    assert_eq!(error.code, ErrorCode::Unauthenticated, "{uris:?}: {error}");
    assert!(error.message.contains(reason), "{uris:?}: {error}");
}

async fn accepted(site: &Site, uris: &[&str]) {
    let member = connect(site, certificate(&site.credentials, 1, uris)).await;
    member.unwrap_or_else(|error| panic!("{uris:?}: {error}")).sync().await;
}

#[tokio::test]
async fn a_token_of_one_tenant_on_a_certificate_of_another() {
    let site = Site::start(":memory:").await;
    for tenant in ["globex", "ACME", "acme%20", "acm%65x", "acme%2Fagent%2Fa", "a"] {
        refused(&site, &[&format!("spiffe://any.example/tenant/{tenant}")], "another tenant").await;
        refused(&site, &[&format!("spiffe://any.example/tenant/{tenant}/agent/a")], "another tenant").await;
    }
    accepted(&site, &["spiffe://any.example/tenant/acme"]).await;
    accepted(&site, &["spiffe://any.example/tenant/acm%65"]).await;
}

#[tokio::test]
async fn a_token_of_one_agent_on_a_certificate_of_another() {
    let site = Site::start(":memory:").await;
    refused(&site, &["spiffe://any.example/tenant/acme/agent/b"], "another agent").await;
    let stolen = site.options("acme", "b");
    let (Some(cert), Some(key)) = (stolen.cert, stolen.key) else { panic!("it has both") };
    let error = connect(&site, (cert, key)).await.err().expect("a stolen certificate");
    assert!(error.message.contains("another agent"), "{error}");
    accepted(&site, &[OWN]).await;
}

#[tokio::test]
async fn a_certificate_that_names_several() {
    let site = Site::start(":memory:").await;
    refused(&site, &[OWN, "spiffe://trusted.example/tenant/globex"], "more than one").await;
    refused(&site, &[OWN, OWN], "more than one").await;
    accepted(&site, &[OWN, "https://acme.example/agents/a"]).await;
}

#[tokio::test]
async fn a_certificate_whose_name_is_malformed() {
    let site = Site::start(":memory:").await;
    for path in [
        "",
        "/",
        "//agent/a",
        "/acme/",
        "/acme/agent",
        "/acme/agent/",
        "/acme/agent/a/b",
        "/acme%",
        "/acme?a",
    ] {
        refused(&site, &[&format!("spiffe://any.example/tenant{path}")], "spiffe://").await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain() {
    let site = Site::with(":memory:", |options| {
        options.identity =
            IdentityPolicy { trust_domain: Some("Trusted.example".into()), is_required: false };
    })
    .await;
    accepted(&site, &[OWN]).await;
    accepted(&site, &[]).await;
    for domain in ["evil.example", "trusted.example.evil", "sub.trusted.example", "trusted.example:443"] {
        refused(&site, &[&format!("spiffe://{domain}/tenant/acme/agent/a")], "trust domain").await;
    }
}

#[tokio::test]
async fn a_certificate_that_names_nobody_where_one_has_to() {
    let lax = Site::start(":memory:").await;
    let strict = Site::with(":memory:", |options| options.identity.is_required = true).await;
    for uris in [&[][..], &["https://acme.example"], &["spiffe://mesh.example/ns/agents/sa/a"]] {
        accepted(&lax, uris).await;
        refused(&strict, uris, "requires a certificate that names").await;
    }
    accepted(&strict, &[OWN]).await;
}

#[tokio::test]
async fn a_revoked_certificate() {
    let credentials = Credentials::generate([7; 32]).unwrap();
    let list = PemSource::Text(revocation_list(&credentials, &[7, 8]));
    let site = Site::of(credentials, ":memory:", |options| options.tls.crl = Some(list)).await;
    for serial in [7, 8] {
        let error =
            connect(&site, certificate(&site.credentials, serial, &[OWN])).await.err().expect("revoked");
        assert_eq!(error.code, ErrorCode::Tls, "{error}");
        assert!(error.message.contains("revoked"), "{error}");
    }
    connect(&site, certificate(&site.credentials, 9, &[OWN])).await.unwrap().sync().await;
}

/// Breaks if a certificate is taken for good of which no list could say that it is not, whichever CA of its chain has none.
#[tokio::test]
async fn a_certificate_of_a_ca_without_a_revocation_list() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let below = root.intermediate("below", 5);
    let pair = |chain: &[&str], (certificate, key): (String, String)| -> Pair {
        (PemSource::Text(certificate + &chain.concat()), PemSource::Text(key))
    };
    let direct = pair(&[], root.certificate(7, &[OWN]));
    let through = pair(&[&below.pem], below.certificate(7, &[OWN]));
    let others = pair(&[], other.certificate(7, &[OWN]));
    let authorities = PemSource::Text([&*root.pem, &other.pem].concat());
    for (lists, who_is_in) in [
        (vec![root.list(&[])], [true, false, false]),
        (vec![below.list(&[])], [false, false, false]),
        (vec![other.list(&[7]), root.list(&[])], [true, false, false]),
        (vec![below.list(&[]), root.list(&[]), other.list(&[])], [true, true, true]),
        (vec![below.list(&[]), root.list(&[5]), other.list(&[])], [true, false, true]),
    ] {
        let site = Site::with(":memory:", |options| {
            options.tls.client_ca = Some(authorities.clone());
            options.tls.crl = Some(PemSource::Text(lists.concat()));
        })
        .await;
        for (pair, is_in) in [&direct, &through, &others].into_iter().zip(who_is_in) {
            match connect(&site, pair.clone()).await {
                Ok(member) => assert!(is_in && member.agent.is_connected()),
                Err(error) => assert!(!is_in && error.code == ErrorCode::Tls, "{error}"),
            }
        }
    }
}
