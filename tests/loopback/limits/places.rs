//! Agents for which there is no place.

use super::*;

#[tokio::test]
async fn a_tenant_has_so_many_agents_and_another_one_its_own() {
    let site = limited(HubLimits { max_agents_per_tenant: 1, ..HubLimits::default() }).await;
    let first = site.agent("acme", "first").await;
    let error = refused(site.options("acme", "second")).await;
    assert_eq!(error.code, ErrorCode::Quota, "{error}");
    assert!(error.message.contains("maxAgentsPerTenant") && error.retry_after_ms > 0, "{error}");
    let other = site.agent("globex", "other").await;
    for member in [&first, &other] {
        member.run(NOTES).await;
        member.run("INSERT INTO notes VALUES('x', 'from a connected agent')").await;
        assert_eq!(member.sync().await.pushed, 1);
    }
    first.agent.disconnect().await;
    until_connected(&site, 1).await;
    site.agent("acme", "second").await;
}

#[tokio::test]
async fn a_hub_has_so_many_agents() {
    let site = limited(HubLimits { max_agents: 1, ..HubLimits::default() }).await;
    let first = site.agent("acme", "first").await;
    let error = refused(site.options("globex", "second")).await;
    assert_eq!(error.code, ErrorCode::Busy, "{error}");
    assert!(error.message.contains("maxAgents") && error.retry_after_ms > 0, "{error}");
    first.agent.disconnect().await;
    until_connected(&site, 0).await;
    site.agent("globex", "second").await;
}

/// Breaks if addresses are not counted, if nobody has to prove his, or if a connection keeps its place for good.
#[tokio::test]
async fn an_address_has_so_many_connections() {
    let site = limited(HubLimits { max_connections_per_address: 2, ..HubLimits::default() }).await;
    let (first, second) = (site.agent("acme", "first").await, site.agent("globex", "second").await);
    let error = refused(site.options("acme", "third")).await;
    assert_eq!(error.code, ErrorCode::Busy, "{error}");
    assert!(error.message.contains("accepts no connections") && error.retry_after_ms > 0, "{error}");
    second.run(NOTES).await;
    second.sync().await;
    first.agent.disconnect().await;
    until_connected(&site, 1).await;
    let third = loop {
        // The hub forgets a connection only once its last packets cannot be under way any more.
        let agent = Agent::new(site.options("acme", "third"));
        if agent.connect().await.is_ok() {
            break agent;
        }
    };
    assert!(third.is_connected());
}

/// Breaks if an agent that was put off asks again at once, or gives up for good.
#[tokio::test]
async fn an_agent_that_was_put_off_leaves_the_hub_alone_for_so_long() {
    let mut site = limited(HubLimits { max_agents_per_tenant: 1, ..HubLimits::default() }).await;
    let first = site.agent("acme", "first").await;
    let impatient = Agent::new(AgentOptions { connect_timeout_ms: 500, ..site.options("acme", "second") });
    let told = impatient.connect().await.unwrap_err();
    let again = impatient.connect().await.unwrap_err();
    assert_eq!((told.code, again.code), (ErrorCode::Quota, ErrorCode::Quota));
    assert!(
        again.message.contains("Not asked again") && !told.message.contains("Not asked again"),
        "{again}"
    );

    let patient = Agent::new(site.options("acme", "third"));
    assert_eq!(patient.connect().await.unwrap_err().code, ErrorCode::Quota);
    first.agent.disconnect().await;
    until_connected(&site, 0).await;
    patient.connect().await.unwrap();

    // The same holds for a sync that has to connect anew.
    let member = Member { agent: patient, database: crate::site::memory() };
    member.run(NOTES).await;
    member.sync().await;
    site.restart().await;
    let taker = site.agent("acme", "taker").await;
    member.run("INSERT INTO notes VALUES('x', 'kept')").await;
    assert_eq!(member.try_sync().await.unwrap_err().code, ErrorCode::Quota);
    taker.agent.disconnect().await;
    until_connected(&site, 0).await;
    assert_eq!(member.sync().await.pushed, 1);
}
