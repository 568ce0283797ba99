//! What the processes do until they are killed.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::hub::{Hub, HubOptions};
use federation_hub::engine::token::keys::KeySource;
use federation_hub::engine::token::{Grant, TokenOptions};
use federation_hub::model::Value;
use federation_hub::storage::driver::SqlDriver;
use federation_hub::storage::sqlite_driver::SqliteDriver;
use federation_hub::transport::PemSource;
use rusqlite::Connection;

use crate::member;
use crate::place::Place;

const TENANT: &str = "acme";
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY AUTOINCREMENT, author TEXT NOT NULL, n INTEGER NOT NULL,
        body TEXT, UNIQUE(author, n));
    CREATE TABLE IF NOT EXISTS marks(id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes ON DELETE CASCADE,
        mark TEXT)";

/// Plays a part for as long as it is let.
pub fn play(part: &str, place: &Place) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if part == "hub" {
            let hub = start_hub(place).await;
            std::future::pending::<()>().await;
            hub.stop().await;
        } else {
            write_and_sync(place, part).await;
        }
    });
}

pub async fn start_hub(place: &Place) -> Hub {
    let store = place.hub_store();
    let options = HubOptions {
        listen: place.address(),
        ..HubOptions::local(&place.credentials(), store.to_str().unwrap())
    };
    Hub::start(options).await.unwrap()
}

/// An agent with its database, which outlives its process.
pub struct Member {
    agent: Agent,
    database: Arc<dyn SqlDriver>,
}

impl Member {
    pub fn new(place: &Place, name: &str) -> Self {
        Self::patient(place, name, 10_000)
    }

    /// One who bears no progress for so many ms.
    pub fn patient(place: &Place, name: &str, request_timeout_ms: u64) -> Self {
        let credentials = place.credentials();
        let tokens = TokenOptions::of(KeySource::Secret(credentials.jwt_secret.clone()));
        let token = tokens.issue(TENANT, name, wall_now_ms() + 3_600_000, &Grant::default()).unwrap();
        let (cert, key) = credentials.issue_agent(name, TENANT).unwrap();
        let agent = Agent::new(AgentOptions {
            endpoint: format!("quic://{}", place.address()),
            agent_id: name.into(),
            tenant_id: TENANT.into(),
            token,
            enable_mtls: true,
            cert: Some(PemSource::Text(cert)),
            key: Some(PemSource::Text(key)),
            ca: Some(PemSource::Text(credentials.ca_cert_pem.clone())),
            connect_timeout_ms: 2_000,
            request_timeout_ms,
            sync: Arc::default(),
        });
        let connection = Connection::open(place.database(name)).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        Self { agent, database: Arc::new(SqliteDriver::start(connection).unwrap()) }
    }

    pub async fn run(&self, statements: &str) {
        member::run(&*self.database, statements).await;
    }

    pub async fn rows(&self, query: &str) -> Vec<Vec<Value>> {
        member::rows(&*self.database, query).await
    }

    /// Connects, if it is not connected, and syncs. Returns how many rows came and went.
    pub async fn sync(&self) -> Result<u64, String> {
        if !self.agent.is_connected() {
            self.agent.connect().await.map_err(|error| error.to_string())?;
        }
        let ticket = self.agent.begin_sync().map_err(|error| error.to_string())?;
        let report =
            self.agent.sync(ticket, self.database.clone()).await.map_err(|error| error.to_string())?;
        Ok(report.pulled + report.pushed)
    }
}

/// Inserts rows, touches those of others, syncs, and notes down what was acknowledged; and again.
async fn write_and_sync(place: &Place, name: &str) {
    let member = Member::new(place, name);
    member.run(&format!("PRAGMA foreign_keys = ON; {SCHEMA}")).await;
    let mut acknowledged =
        OpenOptions::new().create(true).append(true).open(place.acknowledged(name)).unwrap();
    // What it wrote in an earlier life goes on where that ended.
    sync_at_last(&member).await;
    loop {
        member
            .run(&format!(
                "BEGIN IMMEDIATE;
                 INSERT INTO notes(author, n, body) SELECT '{name}', 1 + coalesce(max(n), 0), hex(randomblob(50))
                 FROM notes WHERE author = '{name}';
                 INSERT INTO marks(note, mark) SELECT id, '{name}' FROM notes ORDER BY id DESC LIMIT 1;
                 UPDATE notes SET body = '{name} ' || body WHERE id = (SELECT id FROM notes ORDER BY random() LIMIT 1);
                 DELETE FROM marks WHERE id IN (SELECT id FROM marks ORDER BY random() LIMIT 1) AND abs(random()) % 4 = 0;
                 COMMIT"
            ))
            .await;
        let last = member.rows(&format!("SELECT max(n) FROM notes WHERE author = '{name}'")).await;
        sync_at_last(&member).await;
        let [Value::Integer(last)] = last[0][..] else { panic!("it has just been written") };
        // One write of one line: a killed process leaves all of it or nothing.
        acknowledged.write_all(format!("{last}\n").as_bytes()).unwrap();
    }
}

/// Syncs, however often that takes while hubs die.
async fn sync_at_last(member: &Member) {
    while member.sync().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
