//! Drawing a case from its seed.

use crate::case::{Case, Start, Step, YEAR_MS};
use crate::dice::Dice;
use crate::draw_schema;
use crate::draw_steps::{self, Step as Drawn};
use crate::features::{self, Features};
use crate::rich;
use crate::weather::{Way, Weather};

/// A day, in ms.
const DAY_MS: i64 = 86_400_000;

/// How long an agent may be silent where the hub retires agents soon, in ms.
const SHORT_TTL_MS: i64 = 120_000;

/// One case in so many has random tables. The seed alone says which, so that the others are the same without them.
const SCHEMAS_EVERY: u64 = 5;

/// A kind of fault. A case has some of them, so that a failing one points to what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Slow, lossy, cut and repeating networks.
    Network,
    /// Agents that die.
    Death,
    /// A hub that dies, or whose store fails.
    Hub,
    /// Clocks that are wrong, and that jump.
    Clocks,
    /// Agents that vanish, and databases that are copied, emptied, or go back in time.
    History,
    /// Several processes of one name, or on one database.
    Company,
    /// A hub that goes on with an older copy of its file.
    Backup,
    /// Agents that say goodbye and come back, and a hub that retires those that are silent.
    Retirement,
    /// Tables that change.
    Drift,
    /// Not a fault: tables of any kind, in place of those that every other case has.
    Schemas,
}

/// Everything.
pub const ALL: [Fault; 10] = [
    Fault::Network,
    Fault::Death,
    Fault::Hub,
    Fault::Clocks,
    Fault::History,
    Fault::Company,
    Fault::Backup,
    Fault::Retirement,
    Fault::Drift,
    Fault::Schemas,
];

/// The case of a seed.
pub fn draw(seed: u64, allowed: &[Fault]) -> Case {
    let mut dice = Dice::new(seed);
    let is_any = allowed.contains(&Fault::Schemas) && seed.is_multiple_of(SCHEMAS_EVERY);
    let disturbing = allowed.iter().copied().filter(|fault| *fault != Fault::Schemas);
    let mut faults: Vec<Fault> = disturbing.filter(|_| dice.chance(50)).collect();
    if is_any {
        faults.push(Fault::Schemas);
    }
    let tenants = dice.weighed(&[(3, 1), (2, 2), (1, 3)]);
    let agents = (0..tenants * 2 + dice.below(3)).map(|at| Start {
        tenant: at % tenants,
        skew_ms: if faults.contains(&Fault::Clocks) {
            *dice.pick(&[0, 3_000, -3_000, DAY_MS, -DAY_MS, 70_000])
        } else {
            0
        },
        turn: *dice.pick(&[1, 3, 250]),
    });
    let agents: Vec<Start> = agents.collect();
    let agent_ttl_ms = if faults.contains(&Fault::Retirement) { SHORT_TTL_MS } else { 2 * YEAR_MS };
    let mut steps = Vec::new();
    for process in 0..tenants {
        let statements = vec![rich::TALLY_LINE.to_owned()];
        steps.push(Step::Write { process, statements, is_transaction: false });
        steps.push(Step::Sync { process, weather: Weather::calm(dice.number()) });
    }
    let (schema, options) = if is_any {
        let features = Features::draw(&mut dice, &features::ALL);
        let schema = draw_schema::draw(&mut dice, &features);
        let writes = draw_steps::steps(&mut dice, &features, &schema, agents.len());
        let mut drawer = Drawer { dice: &mut dice, tenants, faults, agents: agents.len(), marks: 0 };
        drawer.spread(writes, &mut steps);
        let mut statements = schema.statements();
        statements.extend([rich::MARKS, rich::NOTES, rich::TALLY, rich::WORDS].map(str::to_owned));
        (statements, rich::options_of_any())
    } else {
        let mut drawer = Drawer { dice: &mut dice, tenants, faults, agents: agents.len(), marks: 0 };
        for _ in 0..=drawer.dice.below(3) {
            for _ in 0..10 + drawer.dice.below(40) {
                drawer.step(&mut steps);
            }
            steps.push(Step::Settle);
        }
        (rich::SCHEMA.map(str::to_owned).to_vec(), rich::options())
    };
    Case { seed, tenants, schema, options, agent_ttl_ms, agents, steps }
}

struct Drawer<'a> {
    dice: &'a mut Dice,
    tenants: usize,
    faults: Vec<Fault>,
    agents: usize,
    marks: usize,
}

impl Drawer<'_> {
    /// Has the writes and syncs of a random schema happen among faults.
    fn spread(&mut self, writes: Vec<Drawn>, steps: &mut Vec<Step>) {
        for write in writes {
            let step = match write {
                Drawn::Pass(ms) => Step::Pass(ms),
                // Drawn only where rules come late, which no case of this suite has.
                Drawn::Rules(..) => continue,
                Drawn::Write(process, statements) => {
                    Step::Write { process, statements, is_transaction: false }
                }
                Drawn::Transaction(process, statements) => {
                    Step::Write { process, statements, is_transaction: true }
                }
                Drawn::Sync(process, _, meanwhile) => {
                    let weather = self.weather();
                    steps.push(Step::Sync { process, weather });
                    Step::Write { process, statements: meanwhile, is_transaction: false }
                }
            };
            steps.push(step);
            if self.dice.chance(40) {
                self.step(steps);
            }
        }
        steps.push(Step::Settle);
    }

    fn weather(&mut self) -> Weather {
        if self.has(Fault::Network) && self.dice.chance(60) {
            Weather::draw(self.dice)
        } else {
            Weather::calm(self.dice.number())
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn step(&mut self, steps: &mut Vec<Step>) {
        let process = self.dice.below(self.agents + 3);
        match self.dice.below(100) {
            0..15 => steps.push(Step::Pass(self.dice.weighed(&[(4, 3), (3, 50), (2, 3_000), (1, 60_000)]))),
            15..40 => {
                let statements = if self.has(Fault::Schemas) {
                    let mark = rich::mark(self.marks);
                    self.marks += 1;
                    mark.into_iter().chain([rich::word(self.dice)]).collect()
                } else {
                    rich::statements(self.dice, &mut self.marks)
                };
                steps.push(Step::Write { process, statements, is_transaction: self.dice.chance(30) });
            }
            40..48 => steps.push(Step::Count { process }),
            48..75 => {
                let weather = self.weather();
                steps.push(Step::Sync { process, weather });
            }
            _ => {
                let faults = self.faults.clone();
                match (!faults.is_empty()).then(|| *self.dice.pick(&faults)) {
                    Some(Fault::Death) if self.dice.chance(75) => self.die_applying(process, steps),
                    Some(fault) => {
                        let step = self.fault(fault, process);
                        steps.push(step);
                    }
                    None => {}
                }
            }
        }
    }

    /// Has a process die while it takes in what another one has just written.
    fn die_applying(&mut self, process: usize, steps: &mut Vec<Step>) {
        // Of two that follow each other with as many tenants between, both are of one tenant.
        let author = process + self.tenants;
        let statements = rich::mark(self.marks).to_vec();
        self.marks += 1;
        let mut sync = |process| {
            let weather = Weather::calm(self.dice.number());
            Step::Sync { process, weather }
        };
        steps.push(sync(process));
        steps.push(Step::Pass(100));
        steps.push(Step::Write { process: author, statements, is_transaction: false });
        steps.push(sync(author));
        steps.push(Step::Pass(100));
        let sync = sync(process);
        steps.push(Step::DieApplying { process, after: self.dice.below(3) });
        steps.push(sync);
        steps.push(Step::Pass(100));
    }

    fn fault(&mut self, fault: Fault, process: usize) -> Step {
        let dice = &mut *self.dice;
        match fault {
            Fault::Network => {
                let way = *dice.pick(&[Way::ToHub, Way::ToAgent]);
                let ms = *dice.pick(&[100, 5_000, 40_000]);
                if dice.chance(50) {
                    Step::CutOff { process, way, ms }
                } else {
                    Step::Replay { which: dice.below(12) }
                }
            }
            Fault::Death => {
                let after = if dice.chance(80) { Some(dice.below(120)) } else { None };
                match after {
                    Some(after) if dice.chance(30) => Step::Stumble { process, after },
                    _ => Step::Die { process, after },
                }
            }
            Fault::Hub => {
                let after = dice.below(10);
                if dice.chance(70) { Step::HubDies { after } } else { Step::HubFails { after } }
            }
            Fault::Clocks => {
                let process = if dice.chance(70) { Some(process) } else { None };
                let ms = *dice.pick(&[1_000, -1_000, 50_000, -50_000, DAY_MS, -DAY_MS, DAY_MS / 24]);
                Step::Jump { process, ms }
            }
            Fault::History => match dice.below(6) {
                0 => Step::Vanish { process },
                1 | 2 => Step::Save { process },
                3 => Step::GoBack { process },
                4 => Step::Clone { process },
                _ => Step::Empty { process },
            },
            Fault::Company => {
                if dice.chance(50) {
                    Step::Twin { process }
                } else {
                    Step::Beside { process }
                }
            }
            Fault::Backup => {
                if dice.chance(50) {
                    Step::Backup
                } else {
                    Step::Restore
                }
            }
            Fault::Retirement => {
                if dice.chance(50) {
                    Step::Leave { process }
                } else {
                    Step::Pass(SHORT_TTL_MS)
                }
            }
            Fault::Schemas => Step::Pass(1),
            Fault::Drift => Step::Alter { process, statement: (*dice.pick(&rich::CHANGES)).to_owned() },
        }
    }
}
