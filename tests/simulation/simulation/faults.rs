//! What goes wrong, at the command of a case, and how it ends.

use std::rc::Rc;

use super::{MAX_PROCESSES, Simulation};
use crate::case::Step;
use crate::checks::Failure;
use crate::disk::Disk;
use crate::network::Event;
use crate::process::{Birth, Life};

impl Simulation {
    pub(super) fn change_history(&mut self, step: &Step, at: usize) {
        let process = &self.processes[at];
        if process.state == Life::Gone {
            return;
        }
        let birth = process.birth.clone();
        let skew_ms = process.clock.now_ms() - self.network.queue.now_ms();
        let may_grow = self.processes.len() < MAX_PROCESSES;
        let copy = || process.disk.copy().map(Rc::new);
        match step {
            Step::Leave { .. } if process.sync.is_none() => self.processes[at].say_goodbye(&mut self.network),
            Step::Stumble { after, .. } => self.processes[at].agent.sql.busy_after = Some(*after),
            Step::Vanish { .. } => {
                let tenant = birth.tenant;
                let others = self.processes.iter().filter(|it| it.birth.tenant == tenant);
                if others.filter(|it| it.state != Life::Gone).count() > 2 {
                    self.processes[at].die();
                    self.processes[at].state = Life::Gone;
                }
            }
            Step::Save { .. } => {
                if let Some(copy) = copy() {
                    self.saved.insert(at, copy);
                }
            }
            Step::GoBack { .. } => {
                let copy = self.saved.get(&at).and_then(|saved| saved.copy()).map(Rc::new);
                if let Some(copy) = copy {
                    self.processes[at].die();
                    self.processes[at].adopt(copy);
                }
            }
            Step::Clone { .. } if may_grow => {
                if let Some(copy) = copy() {
                    self.bear(birth, copy, skew_ms);
                }
            }
            Step::Twin { .. } if may_grow => {
                let twin = self.bear(birth, Rc::new(Disk::new()), skew_ms);
                self.prepare(twin);
            }
            Step::Beside { .. } if may_grow => {
                let disk = Rc::clone(&process.disk);
                let name = format!("{} beside", birth.name);
                let clock = process.clock.clone();
                let beside = self.bear(Birth { name, ..birth }, disk, 0);
                // One machine has one clock.
                (self.processes[beside].clock, self.processes[beside].is_guest) = (clock, true);
                self.processes[beside].start();
            }
            Step::Empty { .. } => {
                self.processes[at].die();
                self.processes[at].adopt(Rc::new(Disk::new()));
                self.prepare(at);
            }
            _ => {}
        }
    }

    pub(super) fn die(&mut self, process: usize, after: Option<usize>) {
        let at = self.at(process);
        let process = &mut self.processes[at];
        match after {
            _ if process.state != Life::Up => {}
            None => self.bury(at),
            Some(after) => process.agent.sql.dies_after = Some(after),
        }
    }

    /// A process has died; it starts again after a while.
    pub(super) fn bury(&mut self, at: usize) {
        self.note("deaths of agents");
        self.trace.push(format!("{} process {at} dies", self.since_beginning()));
        self.processes[at].die();
        let pause_ms = i64::try_from(self.dice.below(5_000)).unwrap();
        self.network.queue.after(pause_ms, Event::Restart(at, self.processes[at].life));
    }

    pub(super) fn bury_hub(&mut self) {
        self.note("deaths of the hub");
        self.trace.push(format!("{} the hub dies", self.since_beginning()));
        self.take_note();
        if self.hub.crash() > 0 {
            self.note("deaths of the hub that took unsynced writes along");
        }
        let pause_ms = i64::try_from(self.dice.below(5_000)).unwrap();
        self.network.queue.after(pause_ms, Event::RestartHub(self.hub.life));
    }

    pub(super) fn restore(&mut self) {
        let Some(backup) = &self.backup else { return };
        self.hub.crash();
        self.hub.restore(&backup.file);
        self.ledger = backup.ledger.clone();
        self.positions.clear();
        // An older copy knows an older time only: here it is the clock that must be right.
        self.set_hub_right();
        self.has_old_time = true;
        self.hub.start();
    }

    /// The hub's clock jumps; not back while nothing but the clock knows the time.
    pub(super) fn jump_hub(&mut self, ms: i64) {
        if self.has_old_time && ms < 0 {
            return;
        }
        let (highest, now) = self.hub_jumps;
        self.hub_jumps = (highest.max(now + ms), now + ms);
        self.hub.clock.pass(ms);
    }

    /// The hub's clock is set, as far ahead as it ever was.
    pub(super) fn set_hub_right(&mut self) {
        let (highest, now) = self.hub_jumps;
        self.jump_hub(highest - now);
    }

    pub(super) fn replay(&mut self, which: usize) {
        let Some((connection, began_ms, packets)) = self.network.sent(which) else { return };
        // No connection lives on in silence for as long as a replica may: nothing arrives so late.
        if self.network.queue.now_ms() - began_ms > self.case.agent_ttl_ms / 2 {
            return;
        }
        // A number that no agent gives to a stream.
        let stream = self.dice.number() | 1 << 63;
        for packet in packets {
            self.network.queue.after(1, Event::ToHub(connection, stream, packet));
        }
    }

    /// Ends all faults, lets what is under way end, and starts whoever is down.
    pub fn calm_down(&mut self) -> Result<(), Failure> {
        self.network.calm_down();
        self.hub.fail_after(None);
        for at in 0..self.processes.len() {
            // It may have died in the ROLLBACK of a turn that had failed, which nobody has noticed yet.
            if self.processes[at].state == Life::Up && self.processes[at].agent.sql.dies_after == Some(0) {
                self.bury(at);
            }
        }
        for process in &mut self.processes {
            process.agent.sql.busy_after = None;
            (process.agent.sql.dies_after, process.agent.sql.dies_after_rows) = (None, None);
            process.dies_applying = None;
        }
        // Nothing waits for longer than this, but for what arrives very late.
        while let Some(next_ms) = self.network.queue.next_ms() {
            self.pass(next_ms - self.network.queue.now_ms())?;
        }
        Ok(())
    }
}
