//! What applications do to their databases.

use federation_hub::storage::driver::{Sql, SqlErrorKind};

use super::Simulation;
use crate::process::{Life, tenant_name};
use crate::rich;

impl Simulation {
    /// Makes an application's tables.
    pub(super) fn prepare(&mut self, process: usize) {
        for statement in &self.case.schema {
            self.processes[process].agent.run(statement);
        }
    }

    pub(super) fn write(&mut self, process: usize, statements: &[String], is_transaction: bool) {
        let at = self.at(process);
        let process = &mut self.processes[at];
        if process.state != Life::Up {
            return;
        }
        let tenant = tenant_name(process.birth.tenant);
        let statements: Vec<String> =
            statements.iter().map(|statement| statement.replace("{t}", &tenant)).collect();
        let mut done = 0;
        let mut is_dead = false;
        let mut run = |statement: &str| match process.agent.try_run(statement) {
            Ok(()) => true,
            Err(error) => {
                is_dead |= error.kind == SqlErrorKind::Closed;
                false
            }
        };
        if is_transaction {
            let is_whole = run("BEGIN IMMEDIATE") && statements.iter().all(|statement| run(statement));
            if is_whole && run("COMMIT") {
                done = statements.len();
            } else {
                run("ROLLBACK");
            }
        } else {
            done = statements.iter().filter(|statement| run(statement)).count();
        }
        *self.tally.entry("statements").or_default() += done as u64;
        if is_dead {
            self.bury(at);
        }
    }

    pub(super) fn count(&mut self, process: usize) {
        let at = self.at(process);
        let process = &mut self.processes[at];
        if process.state != Life::Up {
            return;
        }
        let tenant = process.birth.tenant;
        match process.agent.sql.execute(rich::COUNT, &[]) {
            Ok(changed) => *self.counted.entry(tenant).or_default() += i64::try_from(changed).unwrap(),
            Err(error) if error.kind == SqlErrorKind::Closed => self.bury(at),
            Err(_) => {}
        }
    }

    pub(super) fn alter(&mut self, process: usize, statement: &str) {
        let at = self.at(process);
        let process = &mut self.processes[at];
        if process.state != Life::Up {
            return;
        }
        let tenant = process.birth.tenant;
        match process.agent.try_run(statement) {
            Ok(()) => self.changes.push((tenant, statement.to_owned())),
            Err(error) if error.kind == SqlErrorKind::Closed => self.bury(at),
            Err(_) => {}
        }
    }

    /// Has every application make the changes that some of its tenant have made.
    pub fn catch_up(&mut self) {
        for process in self.processes.iter_mut().filter(|it| it.state == Life::Up) {
            for (_, statement) in self.changes.iter().filter(|(tenant, _)| *tenant == process.birth.tenant) {
                // Whoever has it already is told so.
                let _ = process.agent.try_run(statement);
            }
        }
    }
}
