//! The world: a hub, processes of agents, a network between them, and the one queue in which all of it happens.

mod agents;
mod applications;
mod faults;

use std::collections::BTreeMap;
use std::rc::Rc;

use federation_hub::model::Seq;

use crate::case::{Case, Step};
use crate::checks::Failure;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::hub_side::{Act, HubSide, Promise};
use crate::ledger::{Ledger, Witness};
use crate::network::{Event, Network};
use crate::process::{Birth, Life, Process};
use crate::sync::Moved;
use crate::weather::{Way, Weather};

/// The time at which every case begins, in ms since the epoch.
const BEGINNING_MS: i64 = 1_800_000_000_000;

/// More processes than this there are never.
const MAX_PROCESSES: usize = 9;

/// How often the hub does what becomes due with time, in ms: as often as the engine.
const UPKEEP_MS: i64 = 20_000;

/// What was tried, and how often.
pub type Tally = BTreeMap<&'static str, u64>;

/// A hub's file, and what the hub had accepted by then.
struct Backup {
    file: Vec<u8>,
    ledger: Ledger,
}

/// The world.
pub struct Simulation {
    pub case: Case,
    pub network: Network,
    pub hub: HubSide,
    pub processes: Vec<Process>,
    pub ledger: Ledger,
    pub witnesses: Vec<Box<dyn Witness>>,
    pub tally: Tally,
    /// How often each tenant's applications have counted.
    pub counted: BTreeMap<usize, i64>,
    /// What each process last did in a sync.
    pub moved: BTreeMap<usize, Moved>,
    /// How many syncs of each process were completed.
    pub completed: BTreeMap<usize, u64>,
    /// Changes of tables that some applications have made, by tenant.
    changes: Vec<(usize, String)>,
    saved: BTreeMap<usize, Rc<Disk>>,
    backup: Option<Backup>,
    dice: Dice,
    births: u64,
    /// How far each tenant's order is known to be durable.
    positions: BTreeMap<String, Seq>,
    group_is_due: bool,
    upkeep_is_due_ms: i64,
    /// How far ahead the hub's clock was at most, and is now, in ms.
    hub_jumps: (i64, i64),
    /// Whether the hub was restored from a copy, and nobody has synced since: it keeps the time of the copy until then.
    has_old_time: bool,
    broken: Option<String>,
    /// What happened, line by line.
    pub trace: Vec<String>,
}

impl Simulation {
    /// The world of a case, before anything happens.
    pub fn new(case: &Case) -> Self {
        let mut simulation = Self {
            case: case.clone(),
            network: Network::new(BEGINNING_MS),
            hub: HubSide::new(Clock::standing_at(BEGINNING_MS)),
            processes: Vec::new(),
            ledger: Ledger::default(),
            witnesses: Vec::new(),
            tally: Tally::new(),
            counted: BTreeMap::new(),
            moved: BTreeMap::new(),
            completed: BTreeMap::new(),
            changes: Vec::new(),
            saved: BTreeMap::new(),
            backup: None,
            dice: Dice::new(case.seed),
            births: 0,
            positions: BTreeMap::new(),
            group_is_due: false,
            upkeep_is_due_ms: BEGINNING_MS,
            hub_jumps: (0, 0),
            has_old_time: false,
            broken: None,
            trace: Vec::new(),
        };
        for (at, start) in case.agents.iter().enumerate() {
            let birth = Birth {
                tenant: start.tenant,
                name: format!("agent {at}"),
                seed: 0,
                turn: start.turn,
                options: case.options.clone(),
            };
            let process = simulation.bear(birth, Rc::new(Disk::new()), start.skew_ms);
            simulation.prepare(process);
        }
        simulation
    }

    /// Runs a case to its end.
    pub fn run(&mut self) -> Result<(), Failure> {
        for step in self.case.steps.clone() {
            *self.tally.entry(step.kind()).or_default() += 1;
            self.trace.push(format!("{} {step:?}", self.since_beginning()));
            self.step(&step)?;
            let pause_ms = i64::try_from(self.dice.below(20)).unwrap();
            self.pass(pause_ms)?;
        }
        Ok(())
    }

    /// How much time has passed, in ms.
    pub fn since_beginning(&self) -> i64 {
        self.network.queue.now_ms() - BEGINNING_MS
    }

    /// Notes one more of something.
    pub fn note(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::Pass(ms) => self.pass(*ms)?,
            Step::Write { process, statements, is_transaction } => {
                self.write(*process, statements, *is_transaction);
            }
            Step::Count { process } => self.count(*process),
            Step::Sync { process, weather } => {
                let process = self.at(*process);
                self.begin_sync(process, *weather);
            }
            Step::Die { process, after } => self.die(*process, *after),
            Step::DieApplying { process, after } => {
                let process = self.at(*process);
                self.processes[process].dies_applying = Some(*after);
            }
            Step::HubDies { after } => self.hub.die_after(*after),
            Step::HubFails { after } => self.hub.fail_after(Some(*after)),
            Step::CutOff { process, way, ms } => {
                let process = self.at(*process);
                self.network.cut_off(process, *way, *ms);
            }
            Step::Replay { which } => self.replay(*which),
            Step::Jump { process: Some(process), ms } => {
                let process = self.at(*process);
                self.processes[process].clock.pass(*ms);
            }
            Step::Jump { process: None, ms } => self.jump_hub(*ms),
            Step::Backup => self.backup = Some(Backup { file: self.hub.copy(), ledger: self.ledger.clone() }),
            Step::Restore => self.restore(),
            Step::Alter { process, statement } => self.alter(*process, statement),
            Step::Settle => self.settle()?,
            Step::Leave { process }
            | Step::Stumble { process, .. }
            | Step::Vanish { process }
            | Step::Save { process }
            | Step::GoBack { process }
            | Step::Clone { process }
            | Step::Twin { process }
            | Step::Empty { process }
            | Step::Beside { process } => {
                let process = self.at(*process);
                self.change_history(step, process);
            }
        }
        Ok(())
    }

    /// The process of a number.
    fn at(&self, process: usize) -> usize {
        process % self.processes.len()
    }

    /// A new process. Its machine's clock is ahead by `skew_ms`.
    pub fn bear(&mut self, birth: Birth, disk: Rc<Disk>, skew_ms: i64) -> usize {
        self.births += 1;
        let birth = Birth { seed: self.births, ..birth };
        let clock = Clock::standing_at(self.network.queue.now_ms() + skew_ms);
        self.processes.push(Process::new(birth, disk, clock));
        self.processes.len() - 1
    }

    /// Lets a process begin a sync.
    pub fn begin_sync(&mut self, at: usize, weather: Weather) {
        if self.processes[at].begin_sync(weather, &mut self.network) {
            self.note("syncs");
            let turn = self.processes[at].turn();
            self.network.queue.after(0, Event::Process(at, turn));
        }
    }

    /// Lets time pass, and all that happens meanwhile happen.
    pub fn pass(&mut self, ms: i64) -> Result<(), Failure> {
        let until_ms = self.network.queue.now_ms() + ms;
        loop {
            let (passed_ms, event) = self.network.queue.pop_until(until_ms.min(self.upkeep_is_due_ms));
            self.hub.pass(passed_ms);
            self.pass_clocks(passed_ms);
            match event {
                Some(event) => self.happen(event),
                None if self.network.queue.now_ms() >= self.upkeep_is_due_ms => self.keep_up(),
                None => return Ok(()),
            }
            if let Some(broken) = self.broken.take() {
                return Err(Failure::new("broken", broken));
            }
        }
    }

    /// The hub does what became due with time.
    fn keep_up(&mut self) {
        self.upkeep_is_due_ms = self.network.queue.now_ms() + UPKEEP_MS;
        self.hub.upkeep(self.case.agent_ttl_ms);
        self.act();
    }

    fn pass_clocks(&mut self, ms: i64) {
        // A guest shares the clock of its host, who is there as long as it is.
        for process in self.processes.iter().filter(|process| !process.is_guest) {
            process.clock.pass(ms);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Process(at, turn) => {
                if self.processes[at].turn() == turn && self.processes[at].sync.is_some() {
                    self.advance(at);
                }
            }
            Event::Patience(at, turn, progress) => self.lose_patience(at, turn, progress),
            Event::Restart(at, life) => {
                let process = &mut self.processes[at];
                if process.life == life && process.state == Life::Down {
                    process.start();
                }
            }
            Event::ToHub(connection, stream, packet) => {
                self.hub.arrive(connection, stream, packet);
                self.act();
            }
            Event::ToAgent(connection, stream, packet) => self.arrive(connection, stream, packet),
            Event::Group(life) => {
                self.group_is_due = false;
                if self.hub.life == life && self.hub.is_up() {
                    let heard = self.dice.below(4);
                    let is_alive = self.hub.group(heard);
                    self.act();
                    if !is_alive {
                        self.bury_hub();
                    }
                }
            }
            Event::ReadOn(life, connection, stream) => {
                if self.hub.life == life {
                    self.hub.read_on(connection, stream);
                    self.act();
                }
            }
            Event::RestartHub(life) => {
                if self.hub.life == life && !self.hub.is_up() {
                    self.hub.start();
                    self.look_for_promises();
                }
            }
        }
    }

    /// Does what the hub wants done.
    fn act(&mut self) {
        self.take_note();
        for act in self.hub.take_acts() {
            match act {
                Act::Send(connection, stream, packet) => {
                    self.network.send(connection, Way::ToAgent, stream, packet);
                }
                Act::Group if self.group_is_due => {}
                Act::Group => {
                    self.group_is_due = true;
                    // The longer the store takes, the more gathers behind it.
                    let pause_ms = i64::try_from(self.dice.below(8)).unwrap();
                    self.network.queue.after(pause_ms, Event::Group(self.hub.life));
                }
                Act::ReadOn(connection, stream) => {
                    self.network.queue.after(1, Event::ReadOn(self.hub.life, connection, stream));
                }
            }
        }
    }

    /// What a hub that starts again had promised must be there.
    fn look_for_promises(&mut self) {
        for (tenant, promised) in &self.positions {
            let found = self.hub.position(tenant);
            if found < *promised {
                self.broken =
                    Some(format!("position {promised} of {tenant} was told, and {found} is left of it"));
            }
        }
    }

    /// Notes what became durable. What was promised must be among it.
    fn take_note(&mut self) {
        for accepted in self.hub.take_accepted() {
            self.note("batches");
            self.ledger.note(&accepted, &mut self.witnesses);
        }
        for promise in self.hub.take_promises() {
            let is_kept = match &promise {
                Promise::Batch(tenant, replica, n) => self.ledger.has(tenant, *replica, *n),
                Promise::Position(tenant, seq) => {
                    let durable = self.positions.get(tenant).copied().unwrap_or_default();
                    durable >= *seq || {
                        let durable = self.hub.position(tenant);
                        self.positions.insert(tenant.clone(), durable);
                        durable >= *seq
                    }
                }
            };
            if !is_kept {
                self.broken = Some(format!("the hub has promised what was not durable: {promise:?}"));
            }
        }
    }
}
