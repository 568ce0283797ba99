//! The hub's store in one SQLite file, the embedded default.
//!
//! The file is WAL with `synchronous=FULL`: a commit is one fsync. One connection writes; large pulls read
//! through connections of their own, each inside a read transaction that began at its snapshot. Every
//! statement names a tenant (I16).
//!
//! Within a group of writes each operation runs in a savepoint, so that a failure takes back its own work
//! only. Positions, clock readings and tie-breaks are unsigned 64-bit numbers kept in SQLite's signed ones,
//! bit for bit; the first two never come near the sign.

mod against_rows;
mod backup;
mod check;
mod claims;
mod contests;
mod counting;
mod definitions;
mod derive;
mod disk;
mod dropped;
mod folding;
mod incarnations;
mod key;
mod merger;
mod migrations;
mod open;
mod operator;
mod operator_store;
mod own_file;
mod presence;
mod proofs;
mod push;
mod refusals;
mod removal;
mod replica_quota;
mod revocations;
mod room;
mod rows;
mod rules;
mod session;
mod snapshot;
mod standing;
mod tables;
mod tenant;
mod tombstones;
mod unsettled;
mod weight;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

pub use open::OpenStoreError;

use self::backup::FileBackup;
use self::own_file::OwnFile;
use self::presence::Sightings;
use self::refusals::Piece;
use self::removal::Totals;
use self::revocations::Tally;
use self::rules::TenantRules;
use self::session::session;
use self::snapshot::ReaderPool;
use self::tenant::Tenant;
use self::tombstones::Sweep;
use self::unsettled::Unsettled;
pub use self::weight::StoreLimits;
use super::backup::BackupSource;
use super::declaring::Declaring;
use super::hub_operator::OperatorStore;
use super::hub_store::{Checked, HubStore, Snapshot, StoreError, StoreStats, Upkeep, Welcomed};
use super::revocation::{Revocation, Revoked};
use crate::model::ReplicaId;
use crate::protocol::check::CheckRequest;
use crate::protocol::hub_request::{AttachRequest, Caller, PullRequest, PushRequest, RegisterRequest};
use crate::protocol::message::{Ack, Attached, Incarnation, Refusal};

/// How many tenants' rules are kept in memory; one more, and all are read again as they are needed.
const MAX_KEPT_RULES: usize = 1_000;

/// How much one turn of upkeep does, in replicas or rows: the store's thread has others waiting.
const UPKEEP: usize = 200;

/// A [`HubStore`] in a SQLite file, or in memory.
pub struct SqliteHubStore {
    conn: Connection,
    incarnation: Incarnation,
    /// Large pulls of a file are read beside the writer; memory has one connection only.
    readers: Option<Arc<ReaderPool>>,
    /// The file; none in memory.
    file: Option<OwnFile>,
    committed: StoreStats,
    pending: StoreStats,
    /// The time that was kept last; 0 if that is not known.
    kept_time_ms: i64,
    /// The rules of tenants that push, each good for the version of its definitions that it was read at.
    rules: HashMap<String, TenantRules>,
    /// What was heard of replicas and is not written down yet.
    sightings: Sightings,
    /// Tables of which it is still to be decided what stands.
    unsettled: Unsettled,
    /// Where the look for tombstones stands.
    sweep: Sweep,
    /// How many revocations there are.
    revoked: Tally,
    /// Under which name positions of tenants are given away since an operator's order made their replicas declare anew.
    renewed: HashMap<String, Incarnation>,
    /// What has gone so far of removals that are under way.
    removed: Totals,
    /// Set when SQLite rolled the whole group back on its own, as it does on a full disk.
    lost: Option<StoreError>,
    limits: StoreLimits,
}

impl SqliteHubStore {
    /// Opens a store, making it if nothing is there. `:memory:` is a store that dies with its hub.
    /// `incarnation` names what it gives away until it is closed; it must be random.
    pub fn open(data_path: &str, incarnation: Incarnation) -> Result<Self, OpenStoreError> {
        let failed = |error| OpenStoreError::of_sql(Path::new(data_path), error);
        let (conn, readers, file) = if data_path == ":memory:" {
            (open::memory().map_err(failed)?, None, None)
        } else {
            // One file has one lock, by whatever link it is called. One that does not exist is called what it will be.
            let path = std::fs::canonicalize(data_path).unwrap_or_else(|_| data_path.into());
            let (conn, lock) = open::file(&path)?;
            (conn, Some(Arc::new(ReaderPool::new(&path, lock))), Some(OwnFile::of(&path)))
        };
        let committed = open::stats(&conn).map_err(failed)?;
        let kept_time_ms = open::kept_time_ms(&conn).map_err(failed)?;
        let unsettled = Unsettled::read(&conn).map_err(failed)?;
        Ok(Self {
            conn,
            incarnation,
            readers,
            file,
            committed,
            pending: committed,
            kept_time_ms,
            rules: HashMap::new(),
            sightings: Sightings::default(),
            unsettled,
            sweep: Sweep::default(),
            revoked: Tally::default(),
            renewed: HashMap::new(),
            removed: Totals::new(),
            lost: None,
            limits: StoreLimits::default(),
        })
    }

    /// With other limits than usual.
    #[must_use]
    pub fn within(self, limits: StoreLimits) -> Self {
        Self { limits, ..self }
    }

    /// Fails if nothing that is written would be kept.
    fn check_file(&mut self) -> Result<(), StoreError> {
        self.file.as_mut().map_or(Ok(()), OwnFile::check)
    }

    /// Runs one write of the current group, whole or not at all.
    fn write<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut StoreStats) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        if self.conn.is_autocommit() {
            self.check_file()?;
            run(&self.conn, "BEGIN IMMEDIATE")?;
        }
        let mut stats = self.pending;
        let outcome = run(&self.conn, "SAVEPOINT one")
            .and_then(|()| work(&self.conn, &mut stats))
            .and_then(|value| run(&self.conn, "RELEASE one").map(|()| value));
        match &outcome {
            Ok(_) => self.pending = stats,
            Err(error) => self.take_back(error),
        }
        outcome
    }

    /// Undoes what a failed operation wrote; gives the whole group up if that is not possible.
    fn take_back(&mut self, error: &StoreError) {
        // They may have been read from what is undone now.
        self.rules.clear();
        let undone = !self.conn.is_autocommit()
            && run(&self.conn, "ROLLBACK TO one").and_then(|()| run(&self.conn, "RELEASE one")).is_ok();
        if !undone {
            self.give_up();
            self.lost = Some(match error {
                StoreError::NoRoom(_) => error.clone(),
                // What is a refusal to one is a failure to the others.
                _ => StoreError::Failed(error.to_string()),
            });
        }
    }

    /// Keeps what was read of a tenant's rules; what was taken back may have changed them.
    fn keep_rules<T>(
        &mut self,
        caller: &Caller,
        rules: Option<TenantRules>,
        outcome: &Result<T, StoreError>,
    ) {
        if self.rules.len() >= MAX_KEPT_RULES {
            self.rules.clear();
        }
        if outcome.is_ok() {
            self.rules.extend(rules.map(|rules| (caller.tenant.clone(), rules)));
        }
    }

    fn give_up(&mut self) {
        self.rules.clear();
        self.sightings.clear();
        self.revoked.forget();
        if !self.conn.is_autocommit() {
            // A rollback that fails leaves nothing to do; the next BEGIN tells.
            let _ = run(&self.conn, "ROLLBACK");
        }
        self.pending = self.committed;
        // It may have been kept in this group.
        self.kept_time_ms = 0;
    }
}

impl HubStore for SqliteHubStore {
    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn stats(&self) -> StoreStats {
        self.committed
    }

    fn attach(
        &mut self,
        caller: &Caller,
        request: &AttachRequest,
        now_ms: i64,
    ) -> Result<Attached, StoreError> {
        let (incarnation, limits) = (self.incarnation_of(&caller.tenant), self.limits);
        let mut sightings = std::mem::take(&mut self.sightings);
        let outcome = self.write(|conn, stats| {
            let with = (stats, &mut sightings, limits);
            presence::attach(conn, with, caller, request, (incarnation, now_ms))
        });
        self.sightings = sightings;
        let (attached, undeclared) = outcome?;
        self.unsettled.add(&caller.tenant, undeclared);
        // What it reported before may not be true of the database that attaches now.
        if let Some(tenant) = Tenant::find(&self.conn, &caller.tenant)? {
            self.sightings.remove(tenant.id, request.replica);
        }
        Ok(attached)
    }

    fn declare(
        &mut self,
        caller: &Caller,
        request: &RegisterRequest,
        state: &mut Declaring,
    ) -> Result<bool, StoreError> {
        let mut rules = self.rules.remove(&caller.tenant);
        let limits = self.limits;
        let outcome = self.write(|conn, stats| {
            let (mut tenant, replica) = session(conn, caller, request.replica, request.epoch)?;
            let (tenant, replica, agent) = (&mut tenant, &replica, caller.agent.as_str());
            Piece { conn, tenant, replica, agent, request, limits, rules: &mut rules }.run(stats, state)
        });
        self.keep_rules(caller, rules, &outcome);
        outcome
    }

    fn push(&mut self, caller: &Caller, request: PushRequest, now_ms: i64) -> Result<Ack, StoreError> {
        let mut rules = self.rules.remove(&caller.tenant);
        let limits = self.limits;
        let mut left = BTreeSet::new();
        let outcome = self.write(|conn, stats| {
            push::push(conn, stats, caller, request, (now_ms, limits), (&mut rules, &mut left))
        });
        self.keep_rules(caller, rules, &outcome);
        self.unsettled.add(&caller.tenant, left);
        outcome
    }

    fn end_session(&mut self, caller: &Caller, counter: u64) -> Result<(), StoreError> {
        self.write(|conn, _| presence::end_session(conn, caller, counter))
    }

    fn retire(&mut self, caller: &Caller, replicas: &[(ReplicaId, u64)]) -> Result<(), StoreError> {
        let mut sightings = std::mem::take(&mut self.sightings);
        let mut rules = self.rules.remove(&caller.tenant);
        let outcome = self.write(|conn, stats| {
            presence::retire(conn, (stats, &mut sightings, &mut rules), caller, replicas)
        });
        self.sightings = sightings;
        self.keep_rules(caller, rules, &outcome);
        self.unsettled.add(&caller.tenant, outcome?);
        Ok(())
    }

    fn upkeep(&mut self, upkeep: &Upkeep<'_>) -> Result<bool, StoreError> {
        if let Some((name, mut tables)) = self.unsettled.take_one() {
            let mut rules = self.rules.remove(&name);
            let settle =
                |conn: &_, stats: &mut _| presence::settle(conn, stats, &name, &mut rules, &mut tables);
            self.write(settle)?;
            self.unsettled.add(&name, tables);
            self.rules.extend(rules.map(|rules| (name, rules)));
            return Ok(true);
        }
        if let Some(name) = rules::tenant_with_rows_left(&self.conn)? {
            let mut rules = self.rules.remove(&name);
            self.write(|conn, stats| presence::derive_left(conn, stats, &name, &mut rules))?;
            self.rules.extend(rules.map(|rules| (name, rules)));
            return Ok(true);
        }
        let (mut sightings, mut sweep) =
            (std::mem::take(&mut self.sightings), std::mem::take(&mut self.sweep));
        if let Some(removal) = removal::any(&self.conn)? {
            // The rest goes by what is there of each tenant.
            (self.sightings, self.sweep) = (sightings, sweep);
            return self.remove_piece(removal).map(|()| true);
        }
        let mut unsettled = Unsettled::default();
        let outcome = self.write(|conn, _| {
            let written = sightings.write(conn, upkeep, UPKEEP)?;
            if written == UPKEEP {
                return Ok(true);
            }
            let retired = presence::retire_due(conn, (&mut sightings, &mut unsettled), upkeep, UPKEEP)?;
            if retired == UPKEEP || !unsettled.is_empty() {
                return Ok(true);
            }
            sweep.step(conn, UPKEEP)
        });
        // If that was taken back, less is known than the file may say.
        if outcome.is_ok() {
            (self.sightings, self.sweep, self.unsettled) = (sightings, sweep, unsettled);
        }
        outcome
    }

    fn operator(&mut self) -> Option<&mut dyn OperatorStore> {
        Some(self)
    }

    fn revoke(&mut self, revocation: &Revocation) -> Result<(), StoreError> {
        let mut tally = std::mem::take(&mut self.revoked);
        let outcome = self.write(|conn, _| revocations::revoke(conn, &mut tally, revocation));
        // What has failed was taken back, and with it what it had counted.
        if outcome.is_ok() {
            self.revoked = tally;
        }
        outcome
    }

    fn reinstate(&mut self, whom: &Revoked) -> Result<bool, StoreError> {
        self.write(|conn, _| revocations::reinstate(conn, whom))
    }

    fn kept_time_ms(&self) -> i64 {
        self.kept_time_ms
    }

    fn keep_time(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.kept_time_ms = self.write(|conn, _| {
            conn.prepare_cached("UPDATE hub_time SET kept_ms = max(kept_ms, ?1)")?.execute([now_ms])?;
            Ok(now_ms)
        })?;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        if let Some(lost) = self.lost.take() {
            return Err(lost);
        }
        if self.conn.is_autocommit() {
            return Ok(());
        }
        let outcome = run(&self.conn, "COMMIT");
        match &outcome {
            Ok(()) => self.committed = self.pending,
            Err(_) => self.give_up(),
        }
        // What is committed to a file that is gone is not kept, and nobody may be told that it is.
        outcome.and_then(|()| self.check_file())
    }

    fn revocations(&mut self, now_ms: i64) -> Result<Vec<Revocation>, StoreError> {
        revocations::all(&self.conn, now_ms)
    }

    fn backup_source(&self) -> Option<Box<dyn BackupSource>> {
        let pool = self.readers.clone()?;
        Some(Box::new(FileBackup(pool)))
    }

    fn welcome(&mut self, caller: &Caller) -> Result<Welcomed, StoreError> {
        self.check_file()?;
        let incarnation = self.renewed.get(&caller.tenant).copied();
        let Some(tenant) = Tenant::find(&self.conn, &caller.tenant)? else {
            return Ok(Welcomed { incarnation, ..Welcomed::default() });
        };
        let counter = self
            .conn
            .prepare_cached("SELECT counter FROM agent WHERE tenant = ?1 AND name = ?2")?
            .query_row(params![tenant.id, caller.agent], |row| row.get::<_, i64>(0))
            .optional()?;
        Ok(Welcomed { counter: counter.unwrap_or(0).cast_unsigned(), highest: tenant.highest, incarnation })
    }

    fn check(&mut self, caller: &Caller, request: &CheckRequest) -> Result<Checked, StoreError> {
        check::check(&self.conn, caller, request)
    }

    fn snapshot(
        &mut self,
        caller: &Caller,
        request: &PullRequest,
        now_ms: i64,
    ) -> Result<Snapshot, StoreError> {
        self.check_file()?;
        let (tenant, snapshot) =
            snapshot::snapshot(&self.conn, self.readers.as_ref(), caller, request, now_ms)?;
        self.sightings.add(tenant, request.replica, request.cursor, now_ms);
        Ok(snapshot)
    }
}

/// One statement without parameters or results, kept prepared.
fn run(conn: &Connection, sql: &str) -> Result<(), StoreError> {
    conn.prepare_cached(sql)?.execute([])?;
    Ok(())
}

fn damaged(what: &str) -> StoreError {
    StoreError::Failed(format!("{what} in the hub's file is damaged: restore it from a backup"))
}

fn refused<T>(reason: Refusal, message: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::Refused(reason, message.into()))
}

#[cfg(test)]
mod tests;
