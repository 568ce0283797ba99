//! A case: tenants, agents, and all that happens to them, drawn from one seed.

use federation_hub::storage::choice::SyncOptions;

use crate::weather::{Way, Weather};

/// A year, in ms: longer than any case takes.
pub const YEAR_MS: i64 = 365 * 86_400_000;

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Decides what no step decides: how long restarts take, when the hub's store gets its turn.
    pub seed: u64,
    /// How many tenants share the hub.
    pub tenants: usize,
    /// The statements that make the application's tables.
    pub schema: Vec<String>,
    /// What the applications choose.
    pub options: SyncOptions,
    /// How long a replica may be silent until the hub retires it, in ms.
    pub agent_ttl_ms: i64,
    pub agents: Vec<Start>,
    pub steps: Vec<Step>,
}

/// How an agent begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub tenant: usize,
    /// How far its machine's clock is ahead, in ms.
    pub skew_ms: i64,
    /// How many rows one turn handles.
    pub turn: usize,
}

/// What happens. Processes are named by their position, modulo how many there are.
#[derive(Clone, Debug)]
pub enum Step {
    /// Time passes, in ms.
    Pass(i64),
    /// An application runs these statements; those that its database refuses are skipped. As a transaction, all of
    /// them count, or none.
    Write { process: usize, statements: Vec<String>, is_transaction: bool },
    /// An application adds 1 to the counter of its tenant.
    Count { process: usize },
    /// A process begins a sync, unless one runs.
    Sync { process: usize, weather: Weather },
    /// A process dies: at once, or after so many more statements. It starts again.
    Die { process: usize, after: Option<usize> },
    /// A process dies in the next turn that writes rows of others into its tables, right behind one that is new here,
    /// so many after the first.
    DieApplying { process: usize, after: usize },
    /// The hub dies after so many more operations of its store. It starts again.
    HubDies { after: usize },
    /// An operation of the hub's store fails.
    HubFails { after: usize },
    /// A process is cut off for a while, in one direction; what is sent meanwhile arrives afterwards.
    CutOff { process: usize, way: Way, ms: i64 },
    /// What was sent on one of the last streams arrives once more, on a stream of its own.
    Replay { which: usize },
    /// A machine's clock jumps: a process's, or the hub's.
    Jump { process: Option<usize>, ms: i64 },
    /// A process says goodbye to the hub, as it disconnects.
    Leave { process: usize },
    /// A statement of a process finds the database locked, after so many more.
    Stumble { process: usize, after: usize },
    /// A process goes away for ever.
    Vanish { process: usize },
    /// A copy of a process's database is put aside.
    Save { process: usize },
    /// A process goes on with the copy that was put aside.
    GoBack { process: usize },
    /// A copy of a process's database goes on beside it, in a process of the same name.
    Clone { process: usize },
    /// A second process of the same name begins with an empty database.
    Twin { process: usize },
    /// A process goes on with an empty database, under its old name.
    Empty { process: usize },
    /// A second process opens the same database.
    Beside { process: usize },
    /// The hub's file is copied.
    Backup,
    /// The hub goes on with the last copy of its file.
    Restore,
    /// An application changes its tables; the others follow before the next comparison.
    Alter { process: usize, statement: String },
    /// All faults end, everyone syncs, and everything is compared.
    Settle,
}

impl Step {
    /// What it is, for a list of how much of each was tried.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pauses",
            Self::Write { .. } => "writes",
            Self::Count { .. } => "increments",
            Self::Sync { .. } => "syncs begun",
            Self::Die { .. } => "agents killed",
            Self::DieApplying { .. } => "agents killed as they apply",
            Self::HubDies { .. } => "hubs killed",
            Self::HubFails { .. } => "store failures",
            Self::CutOff { .. } => "partitions",
            Self::Replay { .. } => "replays",
            Self::Jump { .. } => "clock jumps",
            Self::Leave { .. } => "goodbyes",
            Self::Stumble { .. } => "locked databases",
            Self::Vanish { .. } => "agents vanished",
            Self::Save { .. } => "databases put aside",
            Self::GoBack { .. } => "databases gone back in time",
            Self::Clone { .. } => "databases cloned",
            Self::Twin { .. } => "names used twice",
            Self::Empty { .. } => "databases emptied",
            Self::Beside { .. } => "databases opened twice",
            Self::Backup => "hub backups",
            Self::Restore => "hubs restored",
            Self::Alter { .. } => "schema changes",
            Self::Settle => "comparisons",
        }
    }

    /// Whether it may take writes away that were not acknowledged, or do them twice.
    fn bends_history(&self) -> bool {
        matches!(
            self,
            Self::Vanish { .. }
                | Self::GoBack { .. }
                | Self::Clone { .. }
                | Self::Empty { .. }
                | Self::Restore
        )
    }
}

impl Case {
    /// Whether nobody goes on with what another one has not sent yet.
    pub fn is_single(&self) -> bool {
        !self.steps.iter().any(|step| matches!(step, Step::Clone { .. } | Step::GoBack { .. }))
    }

    /// Whether replicas retire because they are silent.
    pub fn retires(&self) -> bool {
        self.agent_ttl_ms < YEAR_MS
    }

    /// Whether everything that an application did happened exactly once.
    pub fn is_exact(&self) -> bool {
        // Of a replica that was retired in silence nobody knows which of its last increments had arrived.
        !self.retires() && !self.steps.iter().any(Step::bends_history)
    }
}
