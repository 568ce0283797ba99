//! Agents and a hub without a network: the real storage on both sides, on in-memory SQLite, driven by hand.

pub mod checking;
pub mod parts;
mod short_turns;
mod syncing;

pub use parts::{Counts, Fate};
pub use short_turns::turn_time;

use federation_hub::model::{ReplicaId, Value};
use federation_hub::protocol::hub_request::{AttachRequest, Caller};
use federation_hub::protocol::message::{Batch, Contested};
use federation_hub::storage::apply::Incoming;
use federation_hub::storage::attach::{Next, TurnError, open, reconcile};
use federation_hub::storage::choice::SyncOptions;
use federation_hub::storage::collect::TurnLimits;
use federation_hub::storage::driver::{Sql, SqlError, SqlErrorKind};
use federation_hub::storage::held_back::held_back_turn;
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::lease::{Claim, Holder, LEASE_MS};
use federation_hub::storage::replica::{
    ApplyExtras, CachedCatalog, HubClock, Mint, Setting, apply_turn, collect_turn,
};
use federation_hub::storage::retrial::Retrial;
use federation_hub::storage::turn_time::TurnTime;
use rusqlite::Connection;
use tempfile::TempPath;

use crate::clock::Clock;
use crate::database::Faulty;
pub use crate::hub::Hub;

/// What others do to a hub.
pub type Meanwhile = Box<dyn FnOnce(&mut Hub)>;

/// An agent's database, and what its connection would remember.
pub struct Agent {
    pub sql: Faulty,
    caller: Caller,
    mint: Mint,
    attached: Option<(u64, Option<CachedCatalog>)>,
    /// Whether it sends nothing before it has been told of everything.
    pulls_first: bool,
    /// Whose leases these are.
    pub holder: Holder,
    /// How far the time by which leases run out is ahead of the true time.
    pub later_ms: i64,
    clock: Clock,
    /// The wall clock of this agent's machine, less the true time.
    pub skew_ms: i64,
    /// How far this agent believes the hub's clock to be ahead of the true time.
    pub lead_ms: i64,
    /// How much one collecting turn does.
    pub limits: TurnLimits,
    /// How long a turn works on rows.
    pub time: TurnTime,
    /// Turns of attaching in which some of what the hub had accepted was booked, and not all.
    pub bookings: usize,
    /// How many rows one applying turn gets.
    pub slice: usize,
    /// What people were told of rows that were looked at.
    pub told: Vec<String>,
    /// Where the database lies, if not in memory.
    file: Option<TempPath>,
    /// What its application has chosen.
    pub options: SyncOptions,
    /// What its syncs have told people.
    pub notices: Vec<String>,
    /// How many of them were told before the last sync.
    told_before: usize,
    /// Whether the hub may reject its rows.
    pub bears_rejection: bool,
    /// The contests that its pushes were told of.
    pub contests: Vec<Contested>,
    /// Rows that the hub had accepted without its knowing.
    delivered: u64,
    /// What others do while the hub's next answer to an `Attach` is under way.
    pub meanwhile: Option<Meanwhile>,
    /// How many syncs it has begun.
    syncs: u64,
    /// The last batch that never arrived, and the replica and the epoch that it is of.
    pub lost: Option<(ReplicaId, u64, Batch)>,
    /// Rows that its syncs have compared with the hub's.
    pub looked_at: usize,
    /// Questions that it has asked for that.
    pub exchanges: usize,
    /// Whether its rows may differ from the hub's without having been written, or not be in its indexes.
    pub bears_damage: bool,
}

impl Agent {
    pub fn new(tenant: &str, name: &str, seed: u64) -> Self {
        Self::timed(tenant, name, seed, Clock::default())
    }

    /// An agent whose identities follow from a seed, and whose time is this clock's.
    pub fn timed(tenant: &str, name: &str, seed: u64, clock: Clock) -> Self {
        let mut stretched = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
        let mint: Mint = Box::new(move || {
            let mut bytes = [0; 16];
            stretched.fill(&mut bytes);
            bytes
        });
        Self {
            sql: Faulty::new(Connection::open_in_memory().unwrap(), &clock),
            caller: Caller { tenant: tenant.into(), agent: name.into() },
            mint,
            attached: None,
            pulls_first: false,
            holder: Holder(u128::from(seed).to_be_bytes()),
            later_ms: 0,
            clock,
            skew_ms: 0,
            lead_ms: 0,
            limits: TurnLimits::default(),
            time: turn_time(seed),
            bookings: 0,
            slice: 500,
            told: Vec::new(),
            file: None,
            options: SyncOptions::default(),
            notices: Vec::new(),
            told_before: 0,
            bears_rejection: false,
            contests: Vec::new(),
            delivered: 0,
            meanwhile: None,
            syncs: 0,
            lost: None,
            looked_at: 0,
            exchanges: 0,
            bears_damage: false,
        }
    }

    /// Runs statements of the application.
    pub fn run(&mut self, statements: &str) -> &mut Self {
        self.sql.run(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
        self
    }

    /// Runs statements that may fail.
    pub fn try_run(&mut self, statements: &str) -> Result<(), SqlError> {
        self.sql.run(statements)
    }

    /// Tables that the last sync has left alone, each with the reason.
    pub fn left_alone(&self) -> Vec<(String, String)> {
        let catalog = self.attached.as_ref().and_then(|(_, catalog)| catalog.as_ref());
        catalog.map(|cached| cached.catalog.left_alone.clone()).unwrap_or_default()
    }

    /// The rows of a query, as text.
    pub fn rows(&mut self, query: &str) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        self.sql
            .query(query, &[], &mut |row| {
                rows.push(row.to_vec());
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        rows
    }

    /// What the catalog of the last sync tells people.
    pub fn catalog_notices(&self) -> Vec<String> {
        let catalog = self.attached.as_ref().and_then(|(_, catalog)| catalog.clone());
        catalog.map(|it| it.catalog.notices.clone()).unwrap_or_default()
    }

    /// A new connection to the hub.
    pub fn reconnect(&mut self) {
        self.attached = None;
    }

    /// Says goodbye, and is another replica when it comes back.
    pub fn goodbye(&mut self, hub: &mut Hub) {
        let Some((epoch, _)) = self.attached.take() else { return };
        let replica = self.rows("SELECT replica FROM _federation_replica")[0][0].clone();
        let Value::Blob(replica) = replica else { panic!("{replica:?}") };
        hub.store.retire(&self.caller, &[(ReplicaId::from_slice(&replica).unwrap(), epoch)]).unwrap();
        hub.store.commit().unwrap();
    }

    fn hub_clock(&self) -> HubClock {
        let now_ms = self.clock.now_ms() + self.lead_ms;
        HubClock { offset_ms: self.lead_ms - self.skew_ms, now_ms }
    }

    /// This agent, now.
    pub fn claim(&self) -> Claim {
        Claim { holder: self.holder, now_ms: self.hub_clock().now_ms + self.later_ms }
    }

    fn attach(&mut self, hub: &mut Hub) -> (u64, Option<CachedCatalog>) {
        if let Some(attached) = self.attached.clone() {
            return attached;
        }
        let fresh = ReplicaId((self.mint)());
        let claim = self.claim();
        let opened = open(&mut self.sql, &self.caller.tenant, fresh, claim, &self.options);
        let mut state = opened.unwrap_or_else(|error| {
            // A copy of a database in mid-sync holds the lease of the original: it runs out.
            assert!(matches!(&error, TurnError::Sql(error) if error.kind == SqlErrorKind::Leased), "{error}");
            self.later_ms += LEASE_MS;
            let claim = self.claim();
            open(&mut self.sql, &self.caller.tenant, fresh, claim, &self.options).unwrap()
        });
        let claim = self.claim();
        let mut is_new = state.incarnation.is_none();
        loop {
            let (replica, cursor) = (state.replica, state.cursor);
            let request =
                AttachRequest { replica, cursor, is_new, token_until_ms: i64::MAX, incarnation: None };
            let now_ms = self.hub_clock().now_ms;
            let attached = hub.store.attach(&self.caller, &request, now_ms).unwrap();
            hub.store.commit().unwrap();
            let (incarnation, fresh) = (hub.store.incarnation(), ReplicaId((self.mint)()));
            if let Some(meanwhile) = self.meanwhile.take() {
                meanwhile(hub);
            }
            let reconciled = loop {
                let tenant = &self.caller.tenant;
                let reconciled =
                    reconcile(&mut self.sql, tenant, incarnation, &state, &attached, fresh, claim).unwrap();
                self.delivered += reconciled.delivered;
                if reconciled.next != Next::Reconcile {
                    break reconciled;
                }
                self.bookings += 1;
                state = reconciled.state;
            };
            self.notices.extend(reconciled.notice);
            match reconciled.next {
                Next::Reconcile => state = reconciled.state,
                Next::Attach { is_new: minted } => (state, is_new) = (reconciled.state, minted),
                Next::Sync { pulls_first } => {
                    self.pulls_first = pulls_first;
                    self.attached = Some((attached.epoch, None));
                    return (attached.epoch, None);
                }
            }
        }
    }

    /// One collecting turn whose outcome nobody needs.
    pub fn collect(&mut self) {
        self.try_collect().unwrap();
    }

    /// One collecting turn that may fail.
    pub fn try_collect(&mut self) -> Result<(), SqlError> {
        let (_, catalog) = self.attached.clone().unwrap();
        let (clock, claim) = (self.hub_clock(), self.claim());
        let setting = Setting { clock, claim, options: &self.options };
        let limits = TurnLimits { time: self.time, ..self.limits };
        collect_turn(&mut self.sql, catalog, setting, limits, &mut self.mint).map(|_| ())
    }

    /// Whether it has written what it would not be let through with, were it to read only.
    pub fn holds_back(&mut self) -> bool {
        let (_, catalog) = self.attached.clone().unwrap();
        let (clock, claim) = (self.hub_clock(), self.claim());
        let setting = Setting { clock, claim, options: &self.options };
        held_back_turn(&mut self.sql, &catalog.unwrap(), setting, &mut self.mint, false).unwrap()
    }

    /// Lets go of the database as a process does that dies, and opens its file again.
    pub fn reopen(&mut self) {
        self.sql = Faulty::new(Connection::open(self.file.as_ref().unwrap()).unwrap(), &self.clock);
        self.reconnect();
    }

    /// Another process that has the same file open.
    pub fn beside(&self, name: &str, seed: u64) -> Self {
        let connection = Connection::open(self.file.as_ref().unwrap()).unwrap();
        let other = Self::timed(&self.caller.tenant, name, seed, self.clock.clone());
        Self { sql: Faulty::new(connection, &self.clock), ..other }
    }

    /// One applying turn, of something that a hub might send.
    pub fn apply(&mut self, incoming: &Incoming) {
        let (clock, claim) = (self.hub_clock(), self.claim());
        let extras = ApplyExtras::default();
        let setting = Setting { clock, claim, options: &self.options };
        let mut retrial = Retrial::default();
        apply_turn(&mut self.sql, None, setting, &mut self.mint, &extras, incoming, &mut retrial).unwrap();
    }

    /// A copy of the database as it is now.
    pub fn copy(&mut self) -> TempPath {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        self.run(&format!("VACUUM INTO '{}'", path.display()));
        path
    }

    /// Goes on with a copy, perhaps another agent's.
    pub fn restore(&mut self, copy: &TempPath) {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        std::fs::copy(copy, &path).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY").unwrap();
        self.sql = Faulty::new(connection, &self.clock);
        self.file = Some(path);
        self.reconnect();
    }
}

/// A hub, and two agents whose databases have this schema.
pub fn pair(schema: &str) -> (Hub, Agent, Agent) {
    let (mut a, mut b) = (Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
    a.run(schema);
    b.run(schema);
    (Hub::new(), a, b)
}

/// Syncs everyone until everyone has heard of everything, and compares.
pub fn settle(hub: &mut Hub, a: &mut Agent, b: &mut Agent, query: &str) -> Vec<Vec<Value>> {
    for _ in 0..2 {
        a.sync(hub);
        b.sync(hub);
    }
    assert_eq!(a.rows(query), b.rows(query), "{query}");
    a.rows(query)
}
