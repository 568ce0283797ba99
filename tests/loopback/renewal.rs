//! Tokens that run out while their agents live.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::{AgentError, ErrorCode};
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::sync_report::SyncReport;
use federation_hub::engine::token_source::TokenSource;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::ca::short_lived;
use crate::mint::Issuer;
use crate::site::{Member, Site, memory};

const PATIENCE: Duration = Duration::from_secs(60);

/// Gives tokens that live for so long, in ms, and counts them.
pub struct Tokens {
    issuer: Issuer,
    life_ms: i64,
    given: AtomicUsize,
}

impl Tokens {
    pub fn of(site: &Site, life_ms: i64) -> Arc<Self> {
        let issuer = Issuer::Hs256(site.credentials.jwt_secret.clone().into_bytes());
        Arc::new(Self { issuer, life_ms, given: AtomicUsize::new(0) })
    }

    fn token(&self) -> String {
        let exp = wall_now_ms() + self.life_ms;
        self.issuer.token(None, &json!({ "tenantId": "acme", "agentId": "a", "exp": exp }))
    }

    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }
}

impl TokenSource for Tokens {
    fn ask(&self, answer: oneshot::Sender<Result<String, String>>) {
        self.given.fetch_add(1, Ordering::Relaxed);
        answer.send(Ok(self.token())).unwrap();
    }
}

/// What a broken application does.
struct Useless(Option<&'static str>);

impl TokenSource for Useless {
    fn ask(&self, answer: oneshot::Sender<Result<String, String>>) {
        if let Some(why) = self.0 {
            answer.send(Err(why.to_owned())).unwrap();
        }
    }
}

async fn sync(member: &Member, tokens: &Arc<Tokens>) -> Result<SyncReport, AgentError> {
    let ticket = member.agent.begin_sync().unwrap().authenticated_by(Some(tokens.clone()));
    member.agent.sync(ticket, member.database.clone()).await
}

async fn until(what: impl Fn() -> bool) {
    let since = Instant::now();
    while !what() {
        assert!(since.elapsed() < PATIENCE, "nothing happens");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Breaks if a session outlives its token, or if the agent's caller learns of its end.
#[tokio::test]
async fn an_agent_with_a_function_for_tokens_goes_on_when_one_expires() {
    let site = Site::start(":memory:").await;
    let other = site.agent("acme", "b").await;
    let tokens = Tokens::of(&site, 2_000);
    let member = Member { agent: Agent::new(site.options_without_token("acme", "a")), database: memory() };
    member.agent.connect_with(Some(tokens.clone())).await.unwrap();
    member.run("CREATE TABLE notes(id INTEGER PRIMARY KEY, body)").await;
    let (mut rows, since) = (0, Instant::now());
    while tokens.given() < 3 {
        assert!(since.elapsed() < PATIENCE, "no session ends");
        member.run("INSERT INTO notes(body) VALUES('more')").await;
        assert_eq!(sync(&member, &tokens).await.unwrap().pushed, 1);
        rows += 1;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(other.sync().await.pulled, rows);
    let idle = tokens.given();
    until(|| site.hub.stats().connected_agents == 1).await;
    assert_eq!(tokens.given(), idle, "nobody asks for a token that no sync needs");
    sync(&member, &tokens).await.unwrap();
}

#[tokio::test]
async fn an_agent_with_a_fixed_token_is_told_that_it_has_expired() {
    let site = Site::start(":memory:").await;
    let token = Tokens::of(&site, 1_500).token();
    let member = Member::connect(AgentOptions { token, ..site.options_without_token("acme", "a") }).await;
    member.sync().await;
    until(|| site.hub.stats().connected_agents == 0).await;
    let error = member.try_sync().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unauthenticated, "{error}");
    assert!(error.message.contains("expired"), "{error}");
}

/// Breaks if a certificate counts only when its agent connects.
#[tokio::test]
async fn a_session_ends_with_its_certificate() {
    let site = Site::start(":memory:").await;
    let last_second = u64::try_from(wall_now_ms()).unwrap() / 1000 + 2;
    let (cert, key) = short_lived(&site.credentials, last_second);
    let options = AgentOptions { cert: Some(cert), key: Some(key), ..site.options("acme", "a") };
    let member = Member::connect(options).await;
    member.sync().await;
    until(|| site.hub.stats().connected_agents == 0).await;
    assert!(wall_now_ms() >= i64::try_from(last_second).unwrap() * 1000, "not before its time");
    let error = member.try_sync().await.unwrap_err();
    assert!(error.message.contains("certificate") && error.message.contains("expired"), "{error}");
}

#[tokio::test]
async fn a_function_that_gives_no_token_is_named_as_the_reason() {
    let site = Site::start(":memory:").await;
    let options = AgentOptions { connect_timeout_ms: 500, ..site.options_without_token("acme", "a") };
    let agent = Agent::new(options);
    let broken = agent.connect_with(Some(Arc::new(Useless(Some("no network"))))).await.unwrap_err();
    assert_eq!(broken.code, ErrorCode::Unauthenticated);
    assert!(broken.message.contains("no network"), "{broken}");
    let silent = agent.connect_with(Some(Arc::new(Useless(None)))).await.unwrap_err();
    assert_eq!(silent.code, ErrorCode::Unauthenticated);
    assert!(silent.message.contains("no answer"), "{silent}");
    assert!(!agent.is_connected());
}

/// Breaks if an agent retires between the end of its token and the sync that asks for another one.
#[tokio::test]
async fn an_agent_whose_token_has_expired_has_time_to_come_back_as_who_it_was() {
    let site = Site::forgetting(":memory:", 10_000).await;
    let tokens = Tokens::of(&site, 1_500);
    let member = Member { agent: Agent::new(site.options_without_token("acme", "a")), database: memory() };
    member.agent.connect_with(Some(tokens.clone())).await.unwrap();
    member.run("CREATE TABLE notes(id TEXT PRIMARY KEY)").await;
    sync(&member, &tokens).await.unwrap();
    let replica = member.rows("SELECT replica FROM _federation_replica").await;
    until(|| site.hub.stats().connected_agents == 0).await;
    // Two rounds of upkeep.
    sleep(Duration::from_secs(3)).await;
    sync(&member, &tokens).await.unwrap();
    assert_eq!(member.rows("SELECT replica FROM _federation_replica").await, replica);
}
