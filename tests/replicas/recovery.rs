//! What goes wrong between a replica and its hub, and what the user sees of it: no row lost, no increment counted
//! twice, no foreign row. Beside each test stands what the user would see without the code that it is about, as
//! it was found by taking that code out.

mod batches;
mod hubs;
mod snapshots;

use crate::world::{Agent, Hub, pair};
use federation_hub::model::{Rule, Value};
use federation_hub::storage::choice::{SyncOptions, TableOptions};

/// Notes, and skills that count how often they were used.
const MEMORY: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT);
                      CREATE TABLE skills(name TEXT PRIMARY KEY, uses INTEGER)";
const NOTES: &str = "SELECT id, title FROM notes ORDER BY id";
const USES: &str = "SELECT name, uses FROM skills ORDER BY name";

/// What an application says that counts uses.
fn counting() -> SyncOptions {
    let rules = vec![("uses".to_owned(), Rule::Counter)];
    let tables = vec![TableOptions { name: "skills".into(), rules, ..TableOptions::default() }];
    SyncOptions { tables, ..SyncOptions::default() }
}

/// Two agents that know one note and one skill, used ten times.
fn memories() -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(MEMORY);
    for agent in [&mut a, &mut b] {
        agent.options = counting();
        agent.sync(&mut hub);
    }
    a.run("INSERT INTO notes VALUES('x', 'one')").run("INSERT INTO skills VALUES('retry', 10)");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    (hub, a, b)
}

/// Another agent of that tenant, with nothing.
fn newcomer(seed: u64) -> Agent {
    let mut agent = Agent::new("acme", &format!("agent {seed}"), seed);
    agent.options = counting();
    agent
}

/// Everyone syncs until everyone has heard of everything; what they hold is then the same.
fn all_sync(hub: &mut Hub, agents: &mut [&mut Agent]) {
    for _ in 0..2 {
        for agent in &mut *agents {
            agent.sync(hub);
        }
    }
    let [first, others @ ..] = agents else { return };
    for query in [NOTES, USES] {
        let expected = first.rows(query);
        for other in &mut *others {
            assert_eq!(other.rows(query), expected, "{query}");
        }
    }
}

/// The uses of the one skill.
fn uses(agent: &mut Agent) -> Value {
    agent.rows(USES)[0][1].clone()
}

/// The titles of the notes, by their ids.
fn titles(agent: &mut Agent) -> Vec<String> {
    let title = |row: Vec<Value>| match &row[1] {
        Value::Text(title) => title.clone(),
        other => format!("{other:?}"),
    };
    agent.rows(NOTES).into_iter().map(title).collect()
}

fn replica(agent: &mut Agent) -> Value {
    agent.rows("SELECT replica FROM _federation_replica")[0][0].clone()
}
