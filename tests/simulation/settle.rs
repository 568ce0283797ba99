//! The oracles: what must hold once all faults have ended and everyone has synced.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use federation_hub::model::Value;

use crate::checks::{self, Failure};
use crate::disk::Disk;
use crate::isomorphism::Shape;
use crate::process::{Birth, Life, foreign, tenant_name};
use crate::simulation::Simulation;
use crate::weather::Weather;

/// After how many rounds of syncs in which nobody writes there must be nothing left to do.
const ROUNDS: usize = 12;

/// How long a round may take in an undisturbed world, in ms.
const ROUND_MS: i64 = 300_000;

impl Simulation {
    /// Ends all faults, has everyone sync until nothing moves, and compares.
    pub fn settle(&mut self) -> Result<(), Failure> {
        self.calm_down()?;
        self.catch_up();
        self.sync_until_quiet()?;
        self.probe_conflicts()?;
        self.sync_until_quiet()?;
        for tenant in 0..self.case.tenants {
            self.check(tenant)?;
        }
        if self.case.retires() { self.check_hub() } else { Ok(()) }
    }

    /// Once those that are gone have been silent for long enough, the hub keeps nothing of them (I10).
    fn check_hub(&mut self) -> Result<(), Failure> {
        for _ in 0..4 {
            self.pass(self.case.agent_ttl_ms / 2)?;
            self.sync_until_quiet()?;
        }
        for tenant in 0..self.case.tenants {
            let members =
                self.processes.iter().filter(|it| it.birth.tenant == tenant && it.state == Life::Up);
            let live = i64::try_from(members.count()).unwrap();
            let tenant = tenant_name(tenant);
            // A dead row that others reference waits for them.
            let referenced = self.hub.count("link", "true", &tenant);
            let kept =
                [("replica", "true", live), ("agent", "true", live), ("row_state", "dead", referenced)];
            for (table, condition, most) in kept {
                let kept = self.hub.count(table, condition, &tenant);
                if kept > most {
                    let detail =
                        format!("{tenant} has {live} agents, and {kept} lines of {table}, not {most}");
                    return Err(Failure::new("bookkeeping of the hub", detail));
                }
            }
        }
        Ok(())
    }

    fn sync_until_quiet(&mut self) -> Result<(), Failure> {
        for round in 0..ROUNDS {
            if self.round(round)? {
                return Ok(());
            }
        }
        Err(Failure::new("wedged", format!("after {ROUNDS} rounds there is still something to sync")))
    }

    /// Everyone syncs once: one after the other, or in every third round all at once. Says whether nothing moved.
    fn round(&mut self, round: usize) -> Result<bool, Failure> {
        let up: Vec<usize> =
            (0..self.processes.len()).filter(|at| self.processes[*at].state == Life::Up).collect();
        let before = self.completed.clone();
        let is_crowded = round % 3 == 1;
        for at in &up {
            self.begin_sync(*at, Weather::calm(u64::try_from(round).unwrap()));
            if !is_crowded {
                self.calm_down()?;
            }
        }
        let began_ms = self.network.queue.now_ms();
        self.calm_down()?;
        if self.network.queue.now_ms() - began_ms > ROUND_MS {
            return Err(Failure::new("wedged", format!("round {round} took too long")));
        }
        Ok(up.iter().all(|at| {
            let moved = self.moved.get(at).copied().unwrap_or_default();
            self.completed.get(at) > before.get(at) && moved.pulled == 0 && moved.pushed == 0
        }))
    }

    fn check(&mut self, tenant: usize) -> Result<(), Failure> {
        let newcomer = self.newcomer(tenant)?;
        let mut members: Vec<usize> = (0..self.processes.len())
            .filter(|at| self.processes[*at].birth.tenant == tenant && self.processes[*at].state == Life::Up)
            .collect();
        members.retain(|at| *at != newcomer);
        for at in members.iter().copied().chain([newcomer]) {
            let name = format!("process {at} of {}", tenant_name(tenant));
            self.check_alone(at, &name)?;
            self.check_marks(at, &name)?;
            self.check_notes(at, &name)?;
            self.check_words(at, &name)?;
            self.check_tally(at, &name)?;
            self.check_tenant(at, &name)?;
        }
        if let Some(first) = members.first() {
            let shape = Shape::read(&mut self.processes[*first].agent);
            *self.tally.entry("rows compared").or_default() += shape.rows() as u64;
            for at in members.iter().copied().skip(1).chain([newcomer]) {
                let other = Shape::read(&mut self.processes[at].agent);
                checks::same(&shape, &other, &format!("process {first} and process {at}"))?;
            }
        }
        self.dismiss(newcomer)
    }

    /// A process that begins with nothing, and learns all from the hub.
    fn newcomer(&mut self, tenant: usize) -> Result<usize, Failure> {
        let birth =
            Birth { tenant, name: "newcomer".into(), seed: 0, turn: 250, options: self.case.options.clone() };
        let at = self.bear(birth, Rc::new(Disk::new()), 0);
        let before = self.completed.get(&at).copied();
        self.begin_sync(at, Weather::calm(1));
        self.calm_down()?;
        if self.completed.get(&at).copied() == before {
            return Err(Failure::new("wedged", "a newcomer's first sync fails".into()));
        }
        Ok(at)
    }

    /// The last process leaves, and nothing of it is under way.
    fn dismiss(&mut self, at: usize) -> Result<(), Failure> {
        let connection = self.processes[at].session.map(|session| session.connection);
        self.processes[at].hang_up(&mut self.network);
        self.calm_down()?;
        self.network.forget(connection.unwrap_or_default());
        self.processes.remove(at);
        Ok(())
    }

    fn check_alone(&mut self, at: usize, name: &str) -> Result<(), Failure> {
        let agent = &mut self.processes[at].agent;
        checks::alone(agent, name)?;
        checks::nothing(agent, name, "SELECT * FROM _federation_log", "entries in the log")?;
        checks::nothing(agent, name, "SELECT * FROM _federation_batch", "batches under way")?;
        let unsent = "SELECT hex(id) FROM _federation_row WHERE batch IS NOT NULL";
        checks::nothing(agent, name, unsent, "rows that are not sent")?;
        let alive =
            "SELECT count(*) FROM _federation_row WHERE NOT (typeof(k) = 'blob' AND substr(k, 1, 1) = x'00')";
        let (kept, rows) = (number(&agent.rows(alive)), application_rows(agent));
        if kept > rows {
            return Err(Failure::new("bookkeeping", format!("{name}: {kept} entries for {rows} rows")));
        }
        Ok(())
    }

    fn check_marks(&mut self, at: usize, name: &str) -> Result<(), Failure> {
        let process = &mut self.processes[at];
        let owed = self.ledger.marks(&tenant_name(process.birth.tenant));
        let there: BTreeSet<String> = process
            .agent
            .rows("SELECT mark FROM marks")
            .into_iter()
            .filter_map(|row| if let [Value::Text(mark)] = &row[..] { Some(mark.clone()) } else { None })
            .collect();
        let missing: Vec<&String> = owed.difference(&there).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::new("acknowledged and lost", format!("{name}: {missing:?}")))
    }

    /// Where no database is copied, each note is there once.
    fn check_notes(&mut self, at: usize, name: &str) -> Result<(), Failure> {
        if !self.case.is_single() {
            return Ok(());
        }
        let twice = "SELECT mark FROM notes GROUP BY mark HAVING count(*) > 1";
        checks::nothing(&mut self.processes[at].agent, name, twice, "rows that are there twice")
    }

    /// Of all words that were accepted, the one of the greatest stamp is there.
    fn check_words(&mut self, at: usize, name: &str) -> Result<(), Failure> {
        let process = &mut self.processes[at];
        let expected = self.ledger.words(&tenant_name(process.birth.tenant));
        let rows = process.agent.rows("SELECT name, word FROM words");
        let shown: BTreeMap<String, String> = rows
            .into_iter()
            .filter_map(|row| match &row[..] {
                [Value::Text(name), Value::Text(word)] => Some((name.clone(), word.clone())),
                _ => None,
            })
            .collect();
        if shown == expected {
            return Ok(());
        }
        Err(Failure::new("another winner", format!("{name} shows {shown:?}, and {expected:?} was accepted")))
    }

    /// Where nothing bends history, each increment counts exactly once.
    fn check_tally(&mut self, at: usize, name: &str) -> Result<(), Failure> {
        let process = &mut self.processes[at];
        let counted = self.counted.get(&process.birth.tenant).copied().unwrap_or_default();
        let shown = number(&process.agent.rows("SELECT coalesce(sum(n), 0) FROM tally"));
        if !self.case.is_exact() || shown == counted {
            return Ok(());
        }
        Err(Failure::new("miscounted", format!("{name} shows {shown} and was told to add {counted}")))
    }

    /// Nothing of another tenant is in any byte of a database.
    fn check_tenant(&mut self, at: usize, name: &str) -> Result<(), Failure> {
        let process = &self.processes[at];
        match foreign(&process.disk.bytes(), process.birth.tenant, self.case.tenants) {
            Some(other) => Err(Failure::new("another tenant's bytes", format!("{name}: {other}"))),
            None => Ok(()),
        }
    }
}

fn number(rows: &[Vec<Value>]) -> i64 {
    match rows.first().map(Vec::as_slice) {
        Some([Value::Integer(number)]) => *number,
        _ => 0,
    }
}

/// How many rows the application has.
fn application_rows(agent: &mut crate::world::Agent) -> i64 {
    let tables = agent.rows(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
         AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_federation\\_%' ESCAPE '\\'",
    );
    let mut rows = 0;
    for table in tables {
        if let [Value::Text(table)] = &table[..] {
            let table = table.replace('"', "\"\"");
            rows += number(&agent.rows(&format!("SELECT count(*) FROM \"{table}\"")));
        }
    }
    rows
}
