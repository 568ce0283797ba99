//! What must hold once everyone has synced after the last write.

use federation_hub::model::Value;

use crate::isomorphism::Shape;
use crate::world::Agent;

/// What does not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of failure: a smaller case must fail in the same way.
    pub kind: String,
    /// The rest.
    pub detail: String,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: &str, detail: String) -> Self {
        Self { kind: kind.to_owned(), detail }
    }
}

/// The application's definitions, byte for byte.
pub fn definitions(agent: &mut Agent) -> Vec<String> {
    let rows = agent.rows(
        "SELECT type, name, tbl_name, sql FROM sqlite_master \
         WHERE name NOT LIKE '\\_federation\\_%' ESCAPE '\\' AND tbl_name NOT LIKE '\\_federation\\_%' ESCAPE '\\' \
         AND name <> 'sqlite_sequence' ORDER BY type, name",
    );
    rows.iter().map(|row| format!("{row:?}")).collect()
}

/// The unique indexes that were made later.
fn late_indexes(agent: &mut Agent) -> Vec<Vec<Value>> {
    agent.rows("SELECT name FROM sqlite_master WHERE type = 'index' AND name LIKE 'late %' ORDER BY name")
}

/// Checks all replicas, and one that began empty. Returns what the first one holds. Who has an index that is not the
/// tenant's may have set rows aside for it.
pub fn check(
    agents: &mut [Agent],
    newcomer: &mut Agent,
    originals: &[Vec<String>],
) -> Result<Shape, Failure> {
    let adopted = late_indexes(newcomer);
    let is_in = |agent: &mut Agent| late_indexes(agent).iter().all(|index| adopted.contains(index));
    for (at, (agent, original)) in agents.iter_mut().zip(originals).enumerate() {
        let name = format!("agent {at}");
        if is_in(agent) {
            alone(agent, &name)?;
        }
        if definitions(agent) != *original {
            let detail = format!("{name}: {original:#?} became {:#?}", definitions(agent));
            return Err(Failure::new("other definitions", detail));
        }
        nothing(agent, &name, "SELECT * FROM _federation_log", "entries in the log")?;
        let enforced = agent.rows("PRAGMA foreign_keys");
        if enforced != [[Value::Integer(1)]] {
            return Err(Failure::new("foreign keys are not enforced any more", name));
        }
    }
    alone(newcomer, "the newcomer")?;
    let last = Shape::read(newcomer);
    for (at, agent) in agents.iter_mut().enumerate() {
        if is_in(agent) {
            same(&Shape::read(agent), &last, &format!("agent {at} and the newcomer"))?;
        }
    }
    Ok(Shape::read(&mut agents[0]))
}

/// Checks what must hold in a database by itself.
pub fn alone(agent: &mut Agent, name: &str) -> Result<(), Failure> {
    nothing(agent, name, "SELECT tbl, reason FROM _federation_quarantine", "rows set aside")?;
    nothing(agent, name, "PRAGMA foreign_key_check", "violated foreign keys")?;
    let integrity = agent.rows("PRAGMA integrity_check");
    if integrity != [[Value::Text("ok".into())]] {
        return Err(Failure::new("integrity", format!("{name}: {integrity:?}")));
    }
    Ok(())
}

/// Fails if a query finds rows.
pub fn nothing(agent: &mut Agent, name: &str, query: &str, what: &str) -> Result<(), Failure> {
    let rows = agent.rows(query);
    if rows.is_empty() {
        return Ok(());
    }
    Err(Failure::new(what, format!("{name}: {rows:?}")))
}

/// Fails if two databases differ.
pub fn same(one: &Shape, other: &Shape, who: &str) -> Result<(), Failure> {
    match one.difference(other) {
        None => Ok(()),
        Some(difference) => Err(Failure::new("replicas differ", format!("{who}: {difference}"))),
    }
}
