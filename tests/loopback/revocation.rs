//! What the operator takes back while agents are connected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::ErrorCode;
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::token::Grant;
use federation_hub::engine::token_source::TokenSource;
use federation_hub::model::ReplicaId;
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;
use federation_hub::storage::revocation::{Revocation, Revoked};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::site::{Member, Site};

const PATIENCE: Duration = Duration::from_secs(30);

fn agent(tenant: &str, agent: &str) -> Revoked {
    Revoked::Agent { tenant: tenant.into(), agent: agent.into() }
}

/// An agent whose token has a name.
fn named(site: &Site, tenant: &str, agent: &str, token_id: &str) -> AgentOptions {
    let grant = Grant { token_id: Some(token_id.into()), permissions: None };
    AgentOptions { token: site.token(tenant, agent, &grant), ..site.options(tenant, agent) }
}

/// Three agents of two tenants, all with a row that they share.
async fn members(site: &Site) -> [Member; 3] {
    let mut members = Vec::new();
    for (n, (tenant, name)) in [("acme", "a"), ("acme", "b"), ("globex", "a")].into_iter().enumerate() {
        let member = Member::connect(named(site, tenant, name, &format!("t{n}"))).await;
        member.run("CREATE TABLE notes(id TEXT PRIMARY KEY)").await;
        member.sync().await;
        members.push(member);
    }
    members.try_into().unwrap_or_else(|_| panic!("three"))
}

async fn is_out(member: &Member) {
    let error = member.try_sync().await.expect_err("revoked");
    assert_eq!(error.code, ErrorCode::Unauthenticated, "{error}");
    assert!(error.message.contains("revoked"), "{error}");
}

async fn connected(site: &Site, count: u64) {
    let since = Instant::now();
    while site.hub.stats().connected_agents != count {
        assert!(since.elapsed() < PATIENCE, "{} are connected", site.hub.stats().connected_agents);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn revoking_ends_the_sessions_that_are_meant_and_no_other() {
    for (whom, out) in [
        (agent("acme", "a"), [true, false, false]),
        (Revoked::Tenant("acme".into()), [true, true, false]),
        (Revoked::Token("t2".into()), [false, false, true]),
        (Revoked::Tenant("a".into()), [false; 3]),
        (agent("acme", "acme"), [false; 3]),
        (Revoked::Token("acme".into()), [false; 3]),
    ] {
        let site = Site::start(":memory:").await;
        let members = members(&site).await;
        site.hub.revoke(whom.clone(), None).await.unwrap();
        connected(&site, out.iter().filter(|is_out| !**is_out).count() as u64).await;
        for (member, expected) in members.iter().zip(out) {
            if expected { is_out(member).await } else { drop(member.sync().await) }
        }
        assert!(site.hub.reinstate(whom.clone()).await.unwrap());
        assert!(!site.hub.reinstate(whom).await.unwrap());
        for member in &members {
            member.sync().await;
        }
    }
}

/// Breaks if a session that waits, and asks the hub nothing, is not ended too.
#[tokio::test]
async fn a_session_that_is_silent_ends_as_well() {
    let site = Site::start(":memory:").await;
    let members = members(&site).await;
    site.hub.revoke(Revoked::Tenant("acme".into()), None).await.unwrap();
    timeout(PATIENCE, async {
        while members[0].agent.is_warm(members[0].database.database_id()) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the agent learns of it");
}

#[tokio::test]
async fn a_revocation_survives_restarts_until_it_is_taken_back_or_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let mut site = Site::start(path.to_str().unwrap()).await;
    let [a, b, other] = members(&site).await;
    let hour = wall_now_ms() + 3_600_000;
    site.hub.revoke(agent("acme", "a"), None).await.unwrap();
    site.hub.revoke(Revoked::Token("t1".into()), Some(hour)).await.unwrap();
    site.hub.revoke(Revoked::Tenant("globex".into()), Some(wall_now_ms() - 1)).await.unwrap();
    for _ in 0..2 {
        let all = site.hub.revocations();
        let found: Vec<_> = all.iter().map(|it| (it.whom.clone(), it.until_ms)).collect();
        assert_eq!(found, [(agent("acme", "a"), None), (Revoked::Token("t1".into()), Some(hour))]);
        is_out(&a).await;
        is_out(&b).await;
        other.sync().await;
        site.restart().await;
    }
    assert!(site.hub.reinstate(agent("acme", "a")).await.unwrap());
    site.restart().await;
    a.sync().await;
    is_out(&b).await;
    site.hub.stop().await;
    assert!(site.hub.revoke(agent("acme", "a"), None).await.is_err(), "nobody is there to do it");
    assert!(site.hub.revocations().is_empty());
}

/// Breaks if the revocation of a token is forgotten at the token's `exp`, after which the hub takes it for its leeway.
#[tokio::test]
async fn a_revoked_token_is_refused_for_as_long_as_it_would_be_taken() {
    let site = Site::with(":memory:", |options| options.tokens.leeway_ms = Some(3_600_000)).await;
    let [_, b, _] = members(&site).await;
    let expired = wall_now_ms() - 1;
    site.hub.revoke(Revoked::Token("t1".into()), Some(expired)).await.unwrap();
    is_out(&b).await;
    assert_eq!(site.hub.revocations()[0].until_ms, Some(expired + 3_600_000));
}

/// Gives a token of another name each time.
struct Fresh(Site, AtomicUsize);

impl TokenSource for Fresh {
    fn ask(&self, answer: oneshot::Sender<Result<String, String>>) {
        let n = self.1.fetch_add(1, Ordering::Relaxed);
        let grant = Grant { token_id: Some(format!("fresh {n}")), permissions: None };
        answer.send(Ok(self.0.token("acme", "a", &grant))).unwrap();
    }
}

/// Breaks if what is said last holds in the store and not in memory, or the other way round.
#[tokio::test]
async fn of_two_words_that_are_not_waited_for_the_later_one_holds_before_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(folder.path().join("hub.db").to_str().unwrap()).await;
    for round in 0..20 {
        let whom = agent("acme", "a");
        let is_revoked_last = round % 2 == 0;
        if is_revoked_last {
            site.hub.revoke(whom.clone(), None).await.unwrap();
            let (reinstated, revoked) =
                tokio::join!(site.hub.reinstate(whom.clone()), site.hub.revoke(whom.clone(), None));
            assert!(reinstated.unwrap());
            revoked.unwrap();
        } else {
            let (revoked, reinstated) =
                tokio::join!(site.hub.revoke(whom.clone(), None), site.hub.reinstate(whom.clone()));
            revoked.unwrap();
            assert!(reinstated.unwrap());
        }
        let expected = usize::from(is_revoked_last);
        assert_eq!(site.hub.revocations().len(), expected, "round {round}");
        if round >= 18 {
            site.restart().await;
            assert_eq!(site.hub.revocations().len(), expected, "after a restart");
        }
    }
}

#[tokio::test]
async fn an_agent_with_a_new_token_in_place_of_a_revoked_one_goes_on() {
    let fresh = Arc::new(Fresh(Site::start(":memory:").await, AtomicUsize::new(0)));
    let member = Member {
        agent: Agent::new(fresh.0.options_without_token("acme", "a")),
        database: crate::site::memory(),
    };
    member.agent.connect_with(Some(fresh.clone())).await.unwrap();
    fresh.0.hub.revoke(Revoked::Token("fresh 0".into()), None).await.unwrap();
    let ticket = member.agent.begin_sync().unwrap().authenticated_by(Some(fresh.clone()));
    member.agent.sync(ticket, member.database.clone()).await.unwrap();
    assert_eq!(fresh.1.load(Ordering::Relaxed), 2);
}

/// Breaks if one of very many is not found, if they are gone after a restart, or if a hub that holds so many takes no more.
#[tokio::test]
async fn a_hundred_thousand_revocations_hold_and_keep_nobody_else_out() {
    const MANY: usize = 99_990;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db").to_str().unwrap().to_owned();
    let mut store = SqliteHubStore::open(&path, ReplicaId([1; 16])).unwrap();
    for n in 0..MANY {
        let whom = match n % 3 {
            0 => agent("acme", &format!("agent {n}")),
            1 => Revoked::Token(format!("token {n}")),
            _ => Revoked::Tenant(format!("tenant {n}")),
        };
        store.revoke(&Revocation { whom, at_ms: 0, until_ms: None }).unwrap();
    }
    store.commit().unwrap();
    drop(store);
    let mut site = Site::start(&path).await;
    for _ in 0..2 {
        assert_eq!(site.hub.revocations().len(), MANY);
        for n in [0, 1, 2, 50_000, 50_001, 50_002, MANY - 3, MANY - 2, MANY - 1] {
            let options = match n % 3 {
                0 => site.options("acme", &format!("agent {n}")),
                1 => named(&site, "acme", "good", &format!("token {n}")),
                _ => site.options(&format!("tenant {n}"), "good"),
            };
            let error = Agent::new(options).connect().await.expect_err("revoked");
            assert_eq!(error.code, ErrorCode::Unauthenticated, "{n}: {error}");
        }
        let good = Member::connect(named(&site, "acme", "good", "token 0")).await;
        good.sync().await;
        site.hub.revoke(agent("acme", "good"), None).await.unwrap();
        is_out(&good).await;
        assert!(site.hub.reinstate(agent("acme", "good")).await.unwrap());
        good.sync().await;
        site.restart().await;
    }
}
