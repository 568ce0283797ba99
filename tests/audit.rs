//! The audit trail: what is in it, and what is in no log at all.
//!
//! A process of its own, because whoever listens to tracing listens to everything in it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/member.rs"]
mod member;
#[expect(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "loopback/site.rs"]
mod site;

use std::fmt::{Debug, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::audit::TARGET;
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::hub_limits::HubLimits;
use federation_hub::engine::token::{self, Grant};
use federation_hub::storage::revocation::Revoked;
use federation_hub::transport::PemSource;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use site::{Member, Site};

/// A value that is in a row, and nowhere else.
const CELL: &str = "what only a row says";

/// Writes down everything, of every crate, at every level.
struct Everything;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn lines() -> MutexGuard<'static, Vec<String>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }

    // As lines for people have it.
    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("{}:", span.metadata().target()));
        span.record(&mut line);
        lines().push(line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        lines().push(line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{}:", event.metadata().target()));
        event.record(&mut line);
        lines().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The lines of the trail so far.
fn trail() -> Vec<String> {
    lines().iter().filter(|line| line.starts_with(&format!("{TARGET}:"))).cloned().collect()
}

/// Connects, and is refused.
async fn refused(options: AgentOptions) {
    Agent::new(options).connect().await.expect_err("refused");
}

/// What must not be told: the texts, and the bytes as a debugger shows them.
fn assert_silent_about(what: &str, secret: &str) {
    assert!(secret.len() > 8, "{what} is too short to look for");
    let bytes = format!("{:?}", secret.as_bytes());
    let bytes = bytes.trim_matches(['[', ']']);
    for line in lines().iter() {
        assert!(!line.contains(secret) && !line.contains(bytes), "{what} is told in {line}");
    }
}

#[tokio::test]
async fn the_trail_tells_who_came_and_why_not_and_no_log_tells_a_secret() {
    tracing::subscriber::set_global_default(Everything).unwrap();
    let limits =
        HubLimits { max_agents_per_tenant: 2, max_stored_bytes_per_tenant: 4_000, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let grant = Grant { token_id: Some("token 1".into()), permissions: None };
    let good = AgentOptions { token: site.token("acme", "a", &grant), ..site.options("acme", "a") };
    let member = Member::connect(good.clone()).await;
    member.run("CREATE TABLE notes(id TEXT PRIMARY KEY, body)").await;
    member.run(&format!("INSERT INTO notes VALUES('x', '{CELL}')")).await;
    member.sync().await;
    let other = site.agent("acme", "b").await;
    assert_eq!(other.sync().await.pulled, 1);

    refused(site.options("acme", "one too many")).await;
    member.run("INSERT INTO notes VALUES('large', hex(randomblob(5000)))").await;
    member.try_sync().await.expect_err("there is no room");

    let secret = site.credentials.jwt_secret.clone();
    let expired = token::issue(&secret, "acme", "a", wall_now_ms() - 120_000).unwrap();
    let forged = token::issue("the secret of somebody else", "acme", "a", wall_now_ms() + 60_000).unwrap();
    for token in [&expired, &forged] {
        refused(AgentOptions { token: token.clone(), ..good.clone() }).await;
    }
    refused(AgentOptions { enable_mtls: false, ..good.clone() }).await;
    let liar = "a\nevent=\"admitted\" ".repeat(20);
    refused(AgentOptions { agent_id: liar.clone(), ..good.clone() }).await;
    site.hub.revoke(Revoked::Token("token 1".into()), None).await.unwrap();
    member.try_sync().await.expect_err("revoked");
    site.hub.reinstate(Revoked::Token("token 1".into())).await.unwrap();
    other.agent.disconnect().await;
    let gone = async {
        while site.hub.stats().connected_agents > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the hub hears the goodbye");
    site.hub.drop_table("acme", "notes").await.unwrap();
    site.hub.readmit("acme", "notes", None).await.unwrap();
    site.hub.revoke(Revoked::Tenant("acme".into()), None).await.unwrap();
    site.hub.erase_tenant("acme").await.unwrap();
    site.hub.stop().await;

    let trail = trail();
    let count =
        |parts: &[&str]| trail.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
    for (parts, expected) in [
        (&["event=\"admitted\"", "tenant=\"acme\"", "agent=\"a\"", "token_id=\"token 1\""][..], 1),
        (&["event=\"admitted\"", "agent=\"b\"", "may_write=true"], 1),
        (&["event=\"refused\"", "claimed_tenant=\"acme\"", "claimed_agent=\"a\"", "expired"], 1),
        (&["event=\"refused\"", "claimed_agent=\"a\"", "signature is wrong"], 1),
        (&["event=\"refused\"", "certificate"], 1),
        (&["event=\"refused\"", "another tenant or agent"], 1),
        (&["event=\"refused\"", "claimed_agent=\"one too many\"", "maxAgentsPerTenant"], 1),
        (&["event=\"over quota\"", "tenant=\"acme\"", "agent=\"a\"", "maxStoredBytesPerTenant"], 1),
        (&["event=\"revoked\"", "token 1"], 1),
        (&["event=\"refused\"", "revoked"], 1),
        (&["event=\"ended\"", "agent=\"a\"", "reason=\"revoked\""], 1),
        (&["event=\"reinstated\"", "token 1"], 1),
        (&["event=\"ended\"", "agent=\"b\"", "reason=\"goodbye\""], 1),
        (&["event=\"table dropped\"", "tenant=\"acme\"", "table=\"notes\""], 1),
        (&["event=\"table's rows removed\"", "table=\"notes\"", "rows=1"], 1),
        (&["event=\"readmitted\"", "tenant=\"acme\"", "table=\"notes\""], 1),
        (&["event=\"tenant erased\"", "tenant=\"acme\""], 1),
        (&["event=\"tenant's rows removed\"", "tenant=\"acme\"", "rows=0"], 1),
        (&["event=\"compacted\"", "bytes="], 1),
        (&["address="], trail.len() - 9),
    ] {
        assert_eq!(count(parts), expected, "{parts:?} in {trail:#?}");
    }
    assert!(trail.iter().all(|line| !line.contains('\n')), "a stranger has forged a line");

    let (Some(PemSource::Text(agent_key)), Some(PemSource::Text(agent_cert))) = (&good.key, &good.cert)
    else {
        panic!("texts")
    };
    assert_silent_about("a cell", CELL);
    assert_silent_about("the secret", &secret);
    for token in [&good.token, &expired, &forged] {
        for (what, part) in ["header", "claims", "signature"].iter().zip(token.split('.')).skip(1) {
            assert_silent_about(what, part);
        }
    }
    for key in [agent_key, &site.credentials.hub_key_pem, &site.credentials.ca_key_pem] {
        key.lines().filter(|line| line.len() > 20 && !line.starts_with('-')).for_each(|line| {
            assert_silent_about("a key", line);
        });
    }
    assert!(agent_cert.contains("BEGIN CERTIFICATE"), "the test looks at what it thinks");
}
