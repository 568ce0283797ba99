//! What agents can cost: each limit, what the one who exceeds it is told, and that nobody else notices.

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::{AgentError, ErrorCode};
use federation_hub::engine::hub_limits::HubLimits;
use federation_hub::model::Value;

use crate::site::{Member, Site};

mod places;
mod rates;
mod sizes;
mod stored_bytes;
mod tables;

const NOTES: &str = "CREATE TABLE IF NOT EXISTS notes(id TEXT PRIMARY KEY, title TEXT)";

async fn limited(limits: HubLimits) -> Site {
    Site::with(":memory:", |options| options.limits = limits).await
}

async fn refused(options: AgentOptions) -> AgentError {
    Agent::new(options).connect().await.expect_err("there must be no place")
}

/// Waits until the hub has noticed that agents are gone.
async fn until_connected(site: &Site, agents: u64) {
    while site.hub.stats().connected_agents != agents {
        tokio::task::yield_now().await;
    }
}
