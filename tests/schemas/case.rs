//! A case: a schema, agents, and what happens to them, all of it from one seed.

use federation_hub::storage::choice::CreateSchema;
use federation_hub::storage::collect::TurnLimits;
use federation_hub::storage::driver::Sql;

use crate::apart::Had;
use crate::auditor::Auditor;
use crate::catching::catching;
use crate::checks::{self, Failure};
use crate::clock::Clock;
use crate::database::Ablation;
use crate::dice::Dice;
use crate::draw_rules;
use crate::draw_schema;
use crate::draw_search;
use crate::draw_steps::{self, Step};
use crate::features::{Feature, Features};
use crate::schema::Schema;
use crate::world::{Agent, Fate, Hub};

/// After how many rounds of syncs in which nobody writes there must be nothing left to do.
const ROUNDS: usize = 12;

/// The time at which every case begins, in ms since the epoch.
const BEGINNING_MS: i64 = 1_800_000_000_000;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    pub features: Features,
    pub schema: Schema,
    pub agents: Vec<Start>,
    /// What agents that start from a template hold before anything happens.
    pub template: Vec<String>,
    pub steps: Vec<Step>,
    /// How much time passes before each write, in ms. If none does, stamps of several agents are of one time.
    pub tick_ms: i64,
    /// Whether the model looks at all that the hub does.
    pub is_audited: bool,
}

/// How an agent begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub from_template: bool,
    /// How far its machine's clock is ahead, in ms.
    pub skew_ms: i64,
    /// How many rows one turn handles.
    pub turn: usize,
    /// Whether its application hands out numbers itself, where a table is for that.
    pub is_apart: bool,
}

impl Case {
    /// The case of a seed, with some of the features that are allowed.
    pub fn draw(seed: u64, allowed: &[Feature]) -> Self {
        Self::draw_with(seed, &[], allowed)
    }

    /// The case of a seed, with these features and some of those that are allowed.
    pub fn draw_with(seed: u64, features: &[Feature], allowed: &[Feature]) -> Self {
        let mut dice = Dice::new(seed);
        let features = Features::draw(&mut dice, allowed).and(features);
        let schema = draw_schema::draw(&mut dice, &features);
        let agents: Vec<Start> = (0..2 + dice.below(4))
            .map(|_| Start {
                from_template: features.has(Feature::Template) && dice.chance(60),
                skew_ms: *dice.pick(&[0, 0, 5_000, -5_000]),
                turn: *dice.pick(&[1, 3, 250]),
                is_apart: features.has(Feature::Apart) && dice.chance(70),
            })
            .collect();
        let template = draw_steps::template(&mut dice, &features, &schema);
        let steps = draw_steps::steps(&mut dice, &features, &schema, agents.len());
        Self { features, schema, agents, template, steps, tick_ms: 1, is_audited: false }
    }

    /// Runs it and checks what came of it.
    pub fn run(&self, ablation: Option<Ablation>) -> Result<Outcome, Failure> {
        catching(|| self.run_and_check(ablation))
    }

    fn run_and_check(&self, ablation: Option<Ablation>) -> Result<Outcome, Failure> {
        let clock = Clock::standing_at(BEGINNING_MS);
        let mut hub = Hub::new();
        hub.clock = clock.clone();
        let mut auditor = self.is_audited.then(|| Auditor::attend(&mut hub));
        let mut agents: Vec<Agent> =
            self.agents.iter().enumerate().map(|(at, start)| self.agent(at, start, &clock)).collect();
        for agent in &mut agents {
            agent.sql.ablation = ablation;
        }
        let mut outcome = Outcome::default();
        let mut had: Vec<Had> = agents.iter().map(|_| Had::default()).collect();
        for step in &self.steps {
            match step {
                Step::Pass(ms) => clock.pass(*ms),
                Step::Rules(agent, says) => self.say_rules(&mut agents[*agent], *agent, *says),
                Step::Write(agent, statements) => {
                    clock.pass(self.tick_ms);
                    outcome.writes += write(&mut agents[*agent], statements);
                }
                Step::Transaction(agent, statements) => {
                    clock.pass(self.tick_ms);
                    transact(&mut agents[*agent], statements);
                }
                Step::Sync(agent, fate, meanwhile) => {
                    let (had, is_apart) = (&mut had[*agent], self.agents[*agent].is_apart);
                    had.note(&mut agents[*agent], &self.schema);
                    agents[*agent].sync_with(&mut hub, *fate, &mut |agent| {
                        clock.pass(self.tick_ms);
                        write(agent, meanwhile);
                        had.note(agent, &self.schema);
                    });
                    if is_apart {
                        had.check(&mut agents[*agent], &self.schema)?;
                    }
                    draw_search::check(&mut agents[*agent], &self.schema, &format!("agent {agent}"))?;
                }
            }
            if let Some(auditor) = &mut auditor {
                auditor.check(&mut hub)?;
            }
        }
        if self.features.has(Feature::LateRules) {
            // Whoever was refused a table has it mended.
            for (at, agent) in agents.iter_mut().enumerate() {
                self.say_rules(agent, at, false);
            }
        }
        for (agent, had) in agents.iter_mut().zip(&mut had) {
            had.note(agent, &self.schema);
        }
        if self.features.has(Feature::FailingRows) {
            // In the end nothing fails, so that all replicas can have all rows.
            for agent in &mut agents {
                let drops =
                    self.schema.tables.iter().filter_map(|table| draw_steps::failing_index(table, None));
                drops.for_each(|drop| {
                    agent.run(&drop);
                });
            }
        }
        let originals: Vec<Vec<String>> = agents.iter_mut().map(checks::definitions).collect();
        settle(&mut agents, &mut hub)?;
        if let Some(auditor) = &mut auditor {
            auditor.check(&mut hub)?;
        }
        let mut newcomer = Agent::timed("acme", "newcomer", 1_000, clock.clone());
        // It has no application that would make what triggers fill.
        newcomer.options.create_schema = CreateSchema::Always;
        newcomer.sync(&mut hub);
        for agent in &mut agents {
            agent.sql.ablation = None;
        }
        for (at, agent) in agents.iter_mut().enumerate() {
            if self.agents[at].is_apart {
                had[at].check(agent, &self.schema)?;
            }
            draw_search::check(agent, &self.schema, &format!("agent {at}"))?;
        }
        let shape = checks::check(&mut agents, &mut newcomer, &originals)?;
        (outcome.rows, outcome.digest) = (shape.rows(), shape.digest());
        Ok(outcome)
    }

    /// Has an application that starts again say what the rules are, or nothing.
    fn say_rules(&self, agent: &mut Agent, at: usize, says: bool) {
        let options = |is_apart| draw_rules::options(&self.schema, is_apart);
        agent.options.tables = if says { options(self.agents[at].is_apart) } else { Vec::new() };
        agent.reconnect();
    }

    fn agent(&self, at: usize, start: &Start, clock: &Clock) -> Agent {
        let mut agent =
            Agent::timed("acme", &format!("agent {at}"), u64::try_from(at).unwrap() + 1, clock.clone());
        agent.skew_ms = start.skew_ms;
        if self.features.has(Feature::LateRules) {
            agent.bears_rejection = true;
        } else {
            agent.options.tables = draw_rules::options(&self.schema, start.is_apart);
        }
        (agent.limits, agent.slice) = (TurnLimits { rows: start.turn, ..TurnLimits::default() }, start.turn);
        agent.run("PRAGMA foreign_keys = ON");
        if self.schema.is_recursive {
            agent.run("PRAGMA recursive_triggers = ON");
        }
        for statement in self.schema.statements() {
            agent.run(&statement);
        }
        if start.from_template {
            for statement in &self.template {
                agent.run("SAVEPOINT one");
                let _ = agent.sql.run(statement);
                // A REPLACE of the row that the new one references leaves that reference to nothing: SQLite does
                // not see it, and no other replica could have the row.
                if !agent.rows("PRAGMA foreign_key_check").is_empty() {
                    agent.run("ROLLBACK TO one");
                }
                // A table whose numbers are used up ends all that is open.
                let _ = agent.sql.run("RELEASE one");
            }
        }
        agent
    }
}

/// What a case did, so that a suite in which nothing happens is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Statements that the applications' databases accepted.
    pub writes: usize,
    /// Rows in each replica at the end.
    pub rows: usize,
    /// A hash of all of them, local numbers included.
    pub digest: u64,
}

/// Runs statements one by one, as an application does that shrugs off errors. Returns how many succeeded.
fn write(agent: &mut Agent, statements: &[String]) -> usize {
    statements.iter().filter(|statement| agent.sql.run(statement).is_ok()).count()
}

fn transact(agent: &mut Agent, statements: &[String]) {
    agent.run("BEGIN");
    let is_whole = statements.iter().all(|statement| agent.sql.run(statement).is_ok());
    if !is_whole || agent.sql.run("COMMIT").is_err() {
        // A RAISE(ROLLBACK) or the like may have ended it already.
        let _ = agent.sql.run("ROLLBACK");
    }
}

/// Everyone syncs until nothing changes.
fn settle(agents: &mut [Agent], hub: &mut Hub) -> Result<(), Failure> {
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        let mut is_quiet = true;
        for agent in &mut *agents {
            let counts = agent.sync_with(hub, Fate::Complete, &mut |_| {}).unwrap_or_default();
            is_quiet &= counts.pulled == 0 && counts.pushed == 0;
        }
        // A quiet round may have asked the hub for something again.
        quiet = if is_quiet { quiet + 1 } else { 0 };
        if quiet == 2 {
            return Ok(());
        }
    }
    Err(Failure::new("wedged", format!("after {ROUNDS} rounds there is still something to sync")))
}
