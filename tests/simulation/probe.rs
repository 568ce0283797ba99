//! Whether conflicts are counted as they are: among replicas of which it is known what each has seen.

use std::rc::Rc;

use crate::checks::Failure;
use crate::process::{Life, tenant_name};
use crate::simulation::Simulation;
use crate::weather::Weather;

impl Simulation {
    /// Has two replicas of each tenant write one cell, with and without knowing of each other. Begins where
    /// everyone has heard of everything, and ends where there is something to hear.
    pub fn probe_conflicts(&mut self) -> Result<(), Failure> {
        for tenant in 0..self.case.tenants {
            let is_member = |at: &usize| {
                self.processes[*at].birth.tenant == tenant && self.processes[*at].state == Life::Up
            };
            let members: Vec<usize> = (0..self.processes.len()).filter(is_member).collect();
            let Some(&one) = members.first() else { continue };
            let disk = Rc::clone(&self.processes[one].disk);
            let apart = |at: &&usize| !Rc::ptr_eq(&self.processes[**at].disk, &disk);
            if let Some(&other) = members.iter().find(apart) {
                self.probe(one, other)?;
            }
        }
        Ok(())
    }

    fn probe(&mut self, one: usize, other: usize) -> Result<(), Failure> {
        self.say(one, "first");
        self.expect_conflicts(one, 0, "nobody else writes")?;
        self.expect_conflicts(other, 0, "there is nothing to send")?;
        self.say(other, "an answer");
        self.expect_conflicts(other, 0, "it has seen what it replaces")?;
        self.say(one, "a contradiction");
        self.say(other, "a second answer");
        self.expect_conflicts(one, 1, "it has not seen the answer")?;
        // Where a clock jumped, the answer may bear the greater stamp.
        let is_there = format!("SELECT 1 FROM words WHERE word = '{} a contradiction'", self.tenant_of(one));
        let won = self.processes[one].agent.rows(&is_there).len() as u64;
        self.expect_conflicts(other, won, "it has not seen the contradiction, if that stands")
    }

    fn tenant_of(&self, at: usize) -> String {
        tenant_name(self.processes[at].birth.tenant)
    }

    fn say(&mut self, at: usize, word: &str) {
        let tenant = self.tenant_of(at);
        self.processes[at].agent.run(&format!(
            "INSERT INTO words VALUES('{tenant} probe', '{tenant} {word}') \
             ON CONFLICT(name) DO UPDATE SET word = excluded.word"
        ));
    }

    fn expect_conflicts(&mut self, at: usize, expected: u64, why: &str) -> Result<(), Failure> {
        let before = self.completed.get(&at).copied();
        self.begin_sync(at, Weather::calm(0));
        self.calm_down()?;
        let moved = self.moved.get(&at).copied().unwrap_or_default();
        if self.completed.get(&at).copied() == before {
            return Err(Failure::new("wedged", format!("process {at} cannot sync")));
        }
        if moved.conflicts == expected {
            return Ok(());
        }
        let detail = format!("process {at} reports {} and not {expected}: {why}", moved.conflicts);
        Err(Failure::new("miscounted conflicts", detail))
    }
}
