//! Agents that go through the same releases of an application, each at a time of its own, and write and sync as they like.
//!
//! Each release gives names of columns to other contents. A value says which content it belongs to. Everybody has heard of everything
//! before the first agent comes to a release; an agent of an older release writes nothing to a name that a newer one, which has
//! begun, has given to something else: that would be another content's. And whoever comes to a release syncs before the next.

use std::collections::{BTreeMap, HashSet};

use crate::clock::Clock;
use crate::dice::{Dice, asked_for};
use crate::world::{Agent, Fate, Hub};
use federation_hub::model::Value;

/// What a release does to the schema, and the contents under the names that its columns have then.
const RELEASES: [(&str, &[(&str, &str)]); 6] = [
    ("", &[("a", "a"), ("b", "b"), ("c", "c")]),
    ("ALTER TABLE docs DROP COLUMN a", &[("b", "b"), ("c", "c")]),
    ("ALTER TABLE docs RENAME COLUMN b TO a", &[("a", "b"), ("c", "c")]),
    (
        "ALTER TABLE docs RENAME COLUMN a TO x; ALTER TABLE docs RENAME COLUMN c TO a;
         ALTER TABLE docs RENAME COLUMN x TO c",
        &[("c", "b"), ("a", "c")],
    ),
    (
        "CREATE TABLE new(id TEXT PRIMARY KEY, a, c); INSERT INTO new SELECT id, c, a FROM docs; DROP TABLE docs;
         ALTER TABLE new RENAME TO docs",
        &[("a", "b"), ("c", "c")],
    ),
    ("ALTER TABLE docs DROP COLUMN a; ALTER TABLE docs RENAME COLUMN c TO a", &[("a", "c")]),
];

struct Run {
    dice: Dice,
    clock: Clock,
    hub: Hub,
    agents: Vec<(Agent, usize)>,
    /// The last write of each content of each row.
    last: BTreeMap<(usize, &'static str), String>,
    /// What happened, for whoever has to find out why a seed fails.
    story: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let clock = Clock::standing_at(1_800_000_000_000);
        let mut hub = Hub::new();
        hub.clock = clock.clone();
        let mut run = Self {
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            clock: clock.clone(),
            hub,
            agents: Vec::new(),
            last: BTreeMap::new(),
            story: Vec::new(),
        };
        for at in 0..3 {
            let mut agent = Agent::timed("acme", &format!("agent {at}"), at + 1, clock.clone());
            agent.run("CREATE TABLE docs(id TEXT PRIMARY KEY, a, b, c)");
            run.agents.push((agent, 0));
        }
        for row in 0..6 {
            for content in ["a", "b", "c"] {
                run.last.insert((row, content), format!("{content}-{row}"));
            }
            let values = format!("('{row}', 'a-{row}', 'b-{row}', 'c-{row}')");
            run.agents[0].0.run(&format!("INSERT INTO docs VALUES{values}"));
        }
        run.all_sync();
        run
    }

    fn all_sync(&mut self) {
        for _ in 0..2 {
            for (agent, _) in &mut self.agents {
                agent.sync(&mut self.hub);
            }
        }
    }

    /// The contents that an agent of this release may write, each with its name.
    fn writable(&self, release: usize) -> Vec<(&'static str, &'static str)> {
        let newest = self.agents.iter().map(|(_, release)| *release).max().unwrap_or(0);
        let given: HashSet<(&str, &str)> =
            RELEASES[release..=newest].iter().flat_map(|(_, columns)| columns.iter().copied()).collect();
        let is_free = |(name, content): &&(&str, &str)| {
            // What a later release drops is lost, whoever writes it.
            given.iter().all(|(other, meant)| other != name || meant == content)
        };
        RELEASES[release].1.iter().filter(is_free).copied().collect()
    }

    fn step(&mut self, at: usize) {
        self.clock.pass(1);
        let (who, what) = (self.dice.below(3), self.dice.below(100));
        let release = self.agents[who].1;
        match what {
            0..45 => {
                let writable = self.writable(release);
                if writable.is_empty() {
                    return;
                }
                let (name, content) = writable[self.dice.below(writable.len())];
                let row = self.dice.below(6);
                let value = format!("{content}-{row} of step {at}");
                let statement = format!("UPDATE docs SET {name} = '{value}' WHERE id = '{row}'");
                self.story.push(format!("{who}: {statement}"));
                self.agents[who].0.run(&statement);
                self.last.insert((row, content), value);
            }
            45..60 if release + 1 < RELEASES.len() => {
                if self.agents.iter().all(|(_, other)| *other <= release) {
                    self.story.push("all sync".to_owned());
                    self.all_sync();
                } else {
                    self.agents[who].0.sync(&mut self.hub);
                }
                self.story.push(format!("{who}: release {}", release + 1));
                self.agents[who].0.run(RELEASES[release + 1].0);
                self.agents[who].1 += 1;
            }
            _ => {
                let fate = match self.dice.below(10) {
                    0 => Fate::LosesBatch,
                    1 => Fate::LosesAnswer,
                    2 => Fate::InterruptedPull(0),
                    _ => Fate::Complete,
                };
                self.story.push(format!("{who}: {fate:?}"));
                // What a TEMP table hides from the application is nothing to the sync.
                let is_hidden = self.dice.below(3) == 0;
                let agent = &mut self.agents[who].0;
                if is_hidden {
                    agent.run("CREATE TEMP TABLE docs(id INTEGER PRIMARY KEY AUTOINCREMENT, a)");
                }
                agent.sync_with(&mut self.hub, fate, &mut |_| {});
                if is_hidden {
                    agent.run("DROP TABLE temp.docs");
                }
            }
        }
    }

    fn end(mut self, seed: u64) {
        self.all_sync();
        for (agent, release) in &mut self.agents {
            while *release + 1 < RELEASES.len() {
                self.clock.pass(1);
                *release += 1;
                agent.run(RELEASES[*release].0);
                agent.sync(&mut self.hub);
            }
        }
        for _ in 0..4 {
            self.clock.pass(1);
            self.all_sync();
        }
        let expected: Vec<Vec<Value>> = (0..6)
            .map(|row| vec![Value::Text(row.to_string()), Value::Text(self.last[&(row, "c")].clone())])
            .collect();
        for (at, (agent, _)) in self.agents.iter_mut().enumerate() {
            let rows = agent.rows("SELECT id, a FROM docs ORDER BY id");
            assert_eq!(rows, expected, "seed {seed}, agent {at}: {:#?}", self.story);
        }
    }
}

#[test]
fn whoever_goes_through_the_releases_when_has_the_last_writes_of_what_is_left() {
    let seeds = asked_for("FEDERATION_SEEDS").unwrap_or(20);
    for seed in 1..=seeds {
        let mut run = Run::new(seed);
        for at in 0..40 {
            run.step(at);
        }
        run.end(seed);
    }
}
