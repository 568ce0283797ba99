//! An agent that was let in and is hostile, for `npm run bench -- hostile`.
//!
//! ```text
//! hostile           reads a line of JSON on stdin: what an agent of its tenant is configured with, and the hub's metricsEndpoint;
//!                   says `ready`; then reads commands:
//!   <attack> <s>    attacks for so many seconds
//! ```
//!
//! Each command is answered by one line of JSON on stdout: the bytes that were sent, how many messages (or whatever the attack is
//! made of) they were, and how many of those the hub refused. An empty stdin ends it.

#[path = "../tests/mutated/attacker.rs"]
mod attacker;
#[path = "hostile/attacks.rs"]
mod attacks;
#[path = "hostile/messages.rs"]
mod messages;

use std::error::Error;
use std::io::BufRead;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attacker::Attacker;
use attacks::{Attack, Cost};
use federation_hub::protocol::message::Hello;
use federation_hub::transport::{AgentTls, EndpointAddress, PemSource};
use serde::Deserialize;
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a hub gives its agents, by the names that JavaScript has for it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    endpoint: String,
    agent_id: String,
    tenant_id: String,
    token: String,
    cert_pem: String,
    key_pem: String,
    ca_pem: String,
    metrics_endpoint: String,
}

impl Config {
    /// An attacker with a replica of its own.
    fn attacker(&self, number: u8) -> Outcome<Attacker> {
        let tls = AgentTls {
            identity: Some((PemSource::Text(self.cert_pem.clone()), PemSource::Text(self.key_pem.clone()))),
            ca: Some(PemSource::Text(self.ca_pem.clone())),
        };
        let (tenant, agent, token) = (self.tenant_id.clone(), self.agent_id.clone(), self.token.clone());
        let address = EndpointAddress::parse(&self.endpoint)?;
        Ok(Attacker::new(address, tls, Hello { tenant, agent, token }, number))
    }

    fn metrics_address(&self) -> String {
        self.metrics_endpoint.trim_start_matches("http://").to_owned()
    }
}

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut lines = std::io::stdin().lock().lines();
    let config: Config = serde_json::from_str(&lines.next().ok_or("no configuration on stdin")??)?;
    println!("ready");
    for command in lines {
        let command = command?;
        let (name, seconds) = command.split_once(' ').ok_or("usage: <attack> <seconds>")?;
        let attack = Attack::named(name).ok_or_else(|| format!("no attack is called {name}"))?;
        let until = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
        let cost = runtime.block_on(run(&config, attack, until))?;
        let (bytes, count, refused) = cost.told();
        println!("{{\"bytes\":{bytes},\"count\":{count},\"refused\":{refused}}}");
    }
    Ok(())
}

/// Attacks on as many connections as the attack takes.
async fn run(config: &Config, attack: Attack, until: Instant) -> Outcome<Arc<Cost>> {
    let cost = Arc::new(Cost::default());
    if attack == Attack::IdleMetrics {
        attacks::idle_metrics(&config.metrics_address(), until, &cost);
        return Ok(cost);
    }
    let mut connections = JoinSet::new();
    for number in 0..attack.connections() {
        connections.spawn(attack.run(config.attacker(number + 1)?, until, Arc::clone(&cost)));
    }
    connections.join_all().await;
    Ok(cost)
}
