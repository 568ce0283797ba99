//! A hub on a free port, and agents with databases of their own.

use std::sync::Arc;
use std::time::Duration;

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::agent_error::AgentError;
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::hub::{Hub, HubOptions};
use federation_hub::engine::sync_report::SyncReport;
use federation_hub::engine::token::Grant;
use federation_hub::model::Value;
use federation_hub::storage::driver::SqlDriver;
use federation_hub::storage::sqlite_driver::SqliteDriver;
use federation_hub::transport::{Credentials, PemSource};
use rusqlite::Connection;
use tokio::time::sleep;

use crate::member;

pub struct Site {
    pub credentials: Credentials,
    pub hub: Hub,
    options: HubOptions,
}

impl Site {
    pub async fn start(data_path: &str) -> Self {
        Self::with(data_path, |_| {}).await
    }

    /// A hub that retires agents which are silent for so long.
    pub async fn forgetting(data_path: &str, agent_ttl_ms: u64) -> Self {
        Self::with(data_path, |options| options.agent_ttl_ms = agent_ttl_ms).await
    }

    /// A hub with other options than usual.
    pub async fn with(data_path: &str, change: impl FnOnce(&mut HubOptions)) -> Self {
        Self::of(Credentials::generate([7; 32]).unwrap(), data_path, change).await
    }

    /// A hub of this CA, with other options than usual.
    pub async fn of(credentials: Credentials, data_path: &str, change: impl FnOnce(&mut HubOptions)) -> Self {
        let mut options = HubOptions::local(&credentials, data_path);
        change(&mut options);
        let hub = Hub::start(options.clone()).await.unwrap();
        Self { credentials, hub, options }
    }

    /// Stops the hub, and starts it again on the same port with another file, as whoever restores a backup does.
    pub async fn restore(&mut self, data_path: &str) {
        data_path.clone_into(&mut self.options.data_path);
        self.restart().await;
    }

    /// Stops the hub, and starts it again on the same port and file.
    pub async fn restart(&mut self) {
        self.restart_after(Duration::ZERO).await;
    }

    /// As [`Self::restart`]; nobody is there for so long.
    pub async fn restart_after(&mut self, pause: Duration) {
        self.options.listen = self.hub.local_addr().to_string();
        self.hub.stop().await;
        sleep(pause).await;
        self.hub = Hub::start(self.options.clone()).await.unwrap();
    }

    pub fn options(&self, tenant: &str, agent: &str) -> AgentOptions {
        let token = self.token(tenant, agent, &Grant::default());
        AgentOptions { token, ..self.options_without_token(tenant, agent) }
    }

    /// For agents whose token somebody else signs.
    pub fn options_without_token(&self, tenant: &str, agent: &str) -> AgentOptions {
        let (cert, key) = self.credentials.issue_agent(agent, tenant).unwrap();
        AgentOptions {
            endpoint: format!("quic://{}", self.hub.local_addr()),
            agent_id: agent.into(),
            tenant_id: tenant.into(),
            token: String::new(),
            enable_mtls: true,
            cert: Some(PemSource::Text(cert)),
            key: Some(PemSource::Text(key)),
            ca: Some(PemSource::Text(self.credentials.ca_cert_pem.clone())),
            connect_timeout_ms: 5_000,
            request_timeout_ms: 10_000,
            sync: std::sync::Arc::default(),
        }
    }

    pub async fn agent(&self, tenant: &str, name: &str) -> Member {
        Member::connect(self.options(tenant, name)).await
    }

    /// A token of this hub's for an hour, with what it says besides.
    pub fn token(&self, tenant: &str, agent: &str, grant: &Grant) -> String {
        self.options.tokens.issue(tenant, agent, wall_now_ms() + 3_600_000, grant).unwrap()
    }
}

pub fn memory() -> Arc<dyn SqlDriver> {
    Arc::new(SqliteDriver::start(Connection::open_in_memory().unwrap()).unwrap())
}

/// An agent with its database.
pub struct Member {
    pub agent: Agent,
    pub database: Arc<dyn SqlDriver>,
}

impl Member {
    pub async fn connect(options: AgentOptions) -> Self {
        let agent = Agent::new(options);
        agent.connect().await.unwrap();
        Self { agent, database: memory() }
    }

    pub async fn run(&self, statements: &str) {
        member::run(&*self.database, statements).await;
    }

    pub async fn rows(&self, query: &str) -> Vec<Vec<Value>> {
        member::rows(&*self.database, query).await
    }

    pub async fn sync(&self) -> SyncReport {
        self.try_sync().await.unwrap()
    }

    pub async fn try_sync(&self) -> Result<SyncReport, AgentError> {
        let ticket = self.agent.begin_sync().unwrap();
        self.agent.sync(ticket, self.database.clone()).await
    }
}
