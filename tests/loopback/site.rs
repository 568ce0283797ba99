//! A hub on a free port, and agents with databases of their own.

use std::sync::Arc;

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::hub::{DEFAULT_AGENT_TTL_MS, Hub, HubOptions};
use federation_hub::engine::sync::SyncReport;
use federation_hub::engine::token;
use federation_hub::model::Value;
use federation_hub::storage::driver::{SqlDriver, batch};
use federation_hub::storage::sqlite_driver::SqliteDriver;
use federation_hub::transport::{Credentials, HubTls, PemSource};
use rusqlite::Connection;

pub struct Site {
    pub credentials: Credentials,
    pub hub: Hub,
    data_path: String,
    agent_ttl_ms: u64,
}

impl Site {
    pub async fn start(data_path: &str) -> Self {
        Self::forgetting(data_path, DEFAULT_AGENT_TTL_MS).await
    }

    /// A hub that retires agents which are silent for so long.
    pub async fn forgetting(data_path: &str, agent_ttl_ms: u64) -> Self {
        let credentials = Credentials::generate([7; 32]).unwrap();
        let hub = start_hub(&credentials, data_path, "127.0.0.1:0", agent_ttl_ms).await;
        Self { credentials, hub, data_path: data_path.into(), agent_ttl_ms }
    }

    /// Stops the hub, and starts it again on the same port and file.
    pub async fn restart(&mut self) {
        let address = self.hub.local_addr().to_string();
        self.hub.stop().await;
        self.hub = start_hub(&self.credentials, &self.data_path, &address, self.agent_ttl_ms).await;
    }

    pub fn options(&self, tenant: &str, agent: &str) -> AgentOptions {
        let (cert, key) = self.credentials.issue_agent(agent, tenant).unwrap();
        let hour = wall_now_ms() + 3_600_000;
        AgentOptions {
            endpoint: format!("quic://{}", self.hub.local_addr()),
            agent_id: agent.into(),
            tenant_id: tenant.into(),
            token: token::issue(&self.credentials.jwt_secret, tenant, agent, hour).unwrap(),
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
        let agent = Agent::new(self.options(tenant, name));
        agent.connect().await.unwrap();
        Member { agent, database: memory() }
    }
}

async fn start_hub(credentials: &Credentials, data_path: &str, listen: &str, agent_ttl_ms: u64) -> Hub {
    let tls = HubTls {
        cert: PemSource::Text(credentials.hub_cert_pem.clone()),
        key: PemSource::Text(credentials.hub_key_pem.clone()),
        client_ca: Some(PemSource::Text(credentials.ca_cert_pem.clone())),
    };
    let options = HubOptions {
        listen: listen.into(),
        data_path: data_path.into(),
        tls,
        jwt_secret: credentials.jwt_secret.clone(),
        agent_ttl_ms,
    };
    Hub::start(options).await.unwrap()
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
    pub async fn run(&self, statements: &str) {
        let statements = statements.to_owned();
        batch(&*self.database, move |sql| sql.run(&statements)).await.unwrap().unwrap();
    }

    pub async fn rows(&self, query: &str) -> Vec<Vec<Value>> {
        let query = query.to_owned();
        let read = batch(&*self.database, move |sql| {
            let mut rows = Vec::new();
            sql.query(&query, &[], &mut |row| {
                rows.push(row.to_vec());
                Ok(())
            })
            .map(|()| rows)
        });
        read.await.unwrap().unwrap()
    }

    pub async fn sync(&self) -> SyncReport {
        let ticket = self.agent.begin_sync().unwrap();
        self.agent.sync(ticket, self.database.clone()).await.unwrap()
    }
}
