//! The replica's own tables inside the application's database, and its one row of state.
//!
//! Every name begins with `_federation_`; dropping them returns the database to what it was (I4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::collisions;
use super::doubt;
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::fields::{Fields, integer};
use super::lease::{Holder, Lease};
use super::row_meta::RowMeta;
use super::rows::Sending;
use super::tenant_tables;
use super::vacuum::SENTINEL;
use crate::model::{Digest, Hlc, ReplicaId, Seq, Value};
use crate::protocol::message::Incarnation;

/// What bookkeeping tables, triggers and indexes begin with.
pub const PREFIX: &str = "_federation_";

/// The version of the bookkeeping's layout, for later versions of this library.
const LAYOUT: i64 = 5;

/// The bookkeeping tables.
///
/// `_federation_row.k` is where a row is found by its key here: the number of a numbered row, the hash of a
/// natural key, or `x'00' || id` once the row is deleted. `batch` is NULL when everything is acknowledged, 0
/// when something is unsent, -1 when everything is to be offered again, -2 when that is to a hub which may not have the
/// row, -3 when something is unsent that was not taken, else the mark of the batch under way.
///
/// `_federation_log.effect_of` is the number of the table of a row whose delete has done this by a foreign key's clause; it is
/// filled in when the log is read. It has a column more, `k4` and so on, for each that a longer key needs (`change_log`).
///
/// `_federation_table.refresh` is 1 when every row is asked for again, 2 when the table's past was never here;
/// `is_out` marks tables that the application excludes, and `refused` those that the hub does not take, with
/// the reason.
const TABLES: &[&str] = &[
    "CREATE TABLE main._federation_replica(
       layout INTEGER NOT NULL, replica BLOB NOT NULL, tenant TEXT, incarnation BLOB,
       cursor INTEGER NOT NULL, resume INTEGER NOT NULL, highest INTEGER NOT NULL,
       acked INTEGER NOT NULL, acked_digest BLOB NOT NULL, mark_offset INTEGER NOT NULL, schema_digest BLOB,
       lease_holder BLOB, lease_until INTEGER, buried INTEGER NOT NULL, covered INTEGER NOT NULL,
       half_settled BLOB)",
    "CREATE TABLE main._federation_table(
       tbl INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, columns TEXT NOT NULL,
       scan TEXT, scanned BLOB, refresh INTEGER NOT NULL DEFAULT 0,
       numbered INTEGER NOT NULL DEFAULT 0, rules TEXT NOT NULL DEFAULT '[]', is_out INTEGER NOT NULL DEFAULT 0, refused TEXT,
       suspects TEXT NOT NULL DEFAULT '')",
    tenant_tables::TABLE,
    "CREATE TABLE main._federation_log(seq INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, op INTEGER NOT NULL,
       at INTEGER NOT NULL, k0, k1, k2, k3, effect_of INTEGER)",
    LOG_KEYS,
    LOG_REPLACING,
    "CREATE TABLE main._federation_row(tbl INTEGER NOT NULL, k NOT NULL, id BLOB NOT NULL, batch INTEGER,
       state BLOB NOT NULL, PRIMARY KEY(tbl, k)) WITHOUT ROWID",
    // Named by whoever needs it: the planner takes the primary key and scans the whole table. The beginning of an
    // identity is enough to find it by, and every synced row has an entry here.
    "CREATE INDEX main._federation_row_id ON _federation_row(tbl, substr(id, 1, 6))",
    "CREATE INDEX main._federation_row_batch ON _federation_row(batch) WHERE batch IS NOT NULL",
    doubt::TABLE,
    collisions::TABLE,
    "CREATE TABLE main._federation_batch(mark INTEGER PRIMARY KEY, digest BLOB NOT NULL)",
    "CREATE TABLE main._federation_quarantine(tbl TEXT NOT NULL, id BLOB NOT NULL, reason TEXT NOT NULL,
       change BLOB NOT NULL, UNIQUE(tbl, id))",
];

/// The entries of the log that are about keys, and are read before the others.
const LOG_KEYS: &str =
    "CREATE INDEX main._federation_log_keys ON _federation_log(seq) WHERE op IN (1, 2, 5, 8)";

/// Those of INSERTs that may take a row away.
const LOG_REPLACING: &str =
    "CREATE INDEX main._federation_log_replacing ON _federation_log(tbl, k0) WHERE op = 6";

/// The earliest layout that is led to the present one.
const FIRST_LAYOUT: i64 = 3;

/// What leads from each layout, beginning with the first, to the next one.
const STEPS: &[&[&str]] = &[
    &[
        "ALTER TABLE main._federation_log ADD COLUMN effect_of INTEGER",
        "DROP INDEX main._federation_log_move",
        LOG_KEYS,
        LOG_REPLACING,
    ],
    &["ALTER TABLE main._federation_replica ADD COLUMN half_settled BLOB"],
];

/// The columns of `_federation_replica`, in the order in which [`ReplicaState`] is read.
const STATE_COLUMNS: &str = "layout, replica, tenant, incarnation, cursor, resume, highest, acked, \
                             acked_digest, mark_offset, schema_digest, lease_holder, lease_until, buried, \
                             covered, half_settled";

/// The replica's one row of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// Which replica this database is.
    pub replica: ReplicaId,
    /// The tenant that this database is bound to (I15); none before its first sync.
    pub tenant: Option<String>,
    /// The store that `cursor` is a position of.
    pub incarnation: Option<Incarnation>,
    /// Up to where the hub's changes have been merged.
    pub cursor: Seq,
    /// Up to where a pull under way has been merged; equals `cursor` otherwise.
    pub resume: Seq,
    /// The highest clock reading seen or made.
    pub highest: Hlc,
    /// The mark of the last acknowledged batch. Marks only grow; a batch's `n` is its mark less
    /// `mark_offset`, because a replica that takes a new id counts from 1 again.
    pub acked: u64,
    /// The digest of the last acknowledged batch.
    pub acked_digest: Digest,
    /// See `acked`.
    pub mark_offset: u64,
    /// The digest of the schema that the hub last acknowledged.
    pub schema_digest: Option<Digest>,
    /// Who is syncing the database.
    pub lease: Option<Lease>,
    /// What is remembered of dead rows has been looked through for what the hub forgot up to here.
    pub buried: Seq,
    /// The mark of the last batch that is known to lie at or below `cursor`.
    pub covered: u64,
    /// What has been settled of a log of which more is to be settled.
    pub half_settled: Option<HalfSettled>,
}

/// What turns that have settled a part of the log leave to those that go on with it. All of it was written before any of
/// it was settled: what the first of them have stamped is nothing that whoever wrote the rest has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfSettled {
    /// The highest reading of the stamps that they have made.
    pub highest: Hlc,
    /// That of a delete.
    pub last_delete: Hlc,
    /// The highest ones of the deletes up to some entries of the log.
    pub deaths: BTreeMap<i64, Hlc>,
}

/// What one statement tells of a database: enough to see that there is nothing to do.
#[derive(Clone, Debug)]
pub struct Probe {
    /// SQLite's counter of schema changes, the key of the cached catalog.
    pub schema_version: i64,
    /// Whether the log or the rows hold something to send.
    pub has_changes: bool,
    /// Whether a batch was composed and is not acknowledged.
    pub is_under_way: bool,
    /// Whether rows are set aside.
    pub quarantined: u64,
    /// The replica's state.
    pub state: ReplicaState,
}

/// Makes the bookkeeping tables of a new replica.
pub fn install(sql: &mut dyn Sql, replica: ReplicaId) -> Result<(), SqlError> {
    for table in TABLES.iter().chain(&SENTINEL) {
        sql.run(table)?;
    }
    ReplicaState::new(replica).insert(sql)
}

/// Whether anything of this name, which is not the application's, is there.
pub fn exists(sql: &mut dyn Sql, name: &str) -> Result<bool, SqlError> {
    let query = "SELECT 1 FROM main.sqlite_master WHERE name = ?";
    Ok(sql.query_row(query, &[name.into()])?.is_some())
}

/// Whether the bookkeeping tables are there.
pub fn is_installed(sql: &mut dyn Sql) -> Result<bool, SqlError> {
    let found = sql.query_row(
        "SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND name = '_federation_replica'",
        &[],
    )?;
    Ok(found.is_some())
}

/// Leads bookkeeping of an earlier layout to the present one, within the transaction that is open. What is of another
/// layout still, whoever reads it refuses.
pub fn lead_here(sql: &mut dyn Sql) -> Result<(), SqlError> {
    let row = sql.query_row("SELECT layout FROM main._federation_replica", &[])?;
    let found = Fields::from(row.unwrap_or_default()).integer()?;
    if !(FIRST_LAYOUT..LAYOUT).contains(&found) {
        return Ok(());
    }
    for (_, step) in (FIRST_LAYOUT..).zip(STEPS).skip_while(|(layout, _)| *layout < found) {
        for statement in *step {
            sql.run(statement)?;
        }
    }
    sql.execute("UPDATE main._federation_replica SET layout = ?", &[LAYOUT.into()])?;
    Ok(())
}

/// SQLite's counter of schema changes, without a look at anything else.
pub fn schema_version(sql: &mut dyn Sql) -> Result<i64, SqlError> {
    let row = sql.query_row("SELECT schema_version FROM pragma_schema_version", &[])?;
    Fields::from(row.unwrap_or_default()).integer()
}

/// The lease on an installed replica.
pub fn lease(sql: &mut dyn Sql) -> Result<Option<Lease>, SqlError> {
    let row = sql.query_row("SELECT lease_holder, lease_until FROM main._federation_replica", &[])?;
    Ok(read_lease(&mut Fields::from(row.unwrap_or_default())))
}

fn read_lease(fields: &mut Fields) -> Option<Lease> {
    let (holder, until) = (fields.optional_bytes(Holder::from_slice), fields.value());
    match until {
        Value::Integer(until_ms) => Some(Lease { holder: holder?, until_ms }),
        _ => None,
    }
}

/// Looks at an installed replica.
///
/// # Errors
/// [`SqlErrorKind::Detached`] if the bookkeeping has been removed.
pub fn probe(sql: &mut dyn Sql) -> Result<Probe, SqlError> {
    look(sql).map_err(|error| match is_installed(sql) {
        Ok(false) => SqlError {
            kind: SqlErrorKind::Detached,
            message: "the database was detached during the sync".into(),
        },
        _ => error,
    })
}

fn look(sql: &mut dyn Sql) -> Result<Probe, SqlError> {
    let row = sql.query_row(&probe_sql(""), &[])?;
    let row = row.ok_or_else(|| SqlError::corrupt("_federation_replica is empty"))?;
    Probe::read(&mut Fields::from(row))
}

/// How many columns a probe has.
pub const PROBE_COLUMNS: usize = 20;

/// The statement of a probe, with further columns behind its own. Its first column is never negative.
pub fn probe_sql(further: &str) -> String {
    format!(
        "SELECT schema_version, \
         EXISTS(SELECT 1 FROM main._federation_log) \
           OR EXISTS(SELECT 1 FROM main._federation_row WHERE batch > -3) \
           OR EXISTS(SELECT 1 FROM main._federation_table WHERE scan IS NOT NULL OR refresh) \
           OR EXISTS(SELECT 1 FROM main._federation_collision WHERE NOT told), \
         EXISTS(SELECT 1 FROM main._federation_batch), \
         (SELECT count(*) FROM main._federation_quarantine), \
         {STATE_COLUMNS}{further} FROM pragma_schema_version, main._federation_replica"
    )
}

impl Probe {
    /// Reads what a probe has found.
    pub fn read(fields: &mut Fields) -> Result<Self, SqlError> {
        Ok(Self {
            schema_version: fields.integer()?,
            has_changes: fields.integer()? != 0,
            is_under_way: fields.integer()? != 0,
            quarantined: fields.unsigned()?,
            state: ReplicaState::read(fields)?,
        })
    }
}

impl ReplicaState {
    fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            tenant: None,
            incarnation: None,
            cursor: 0,
            resume: 0,
            highest: Hlc::ZERO,
            acked: 0,
            acked_digest: Digest::ZERO,
            mark_offset: 0,
            schema_digest: None,
            lease: None,
            buried: 0,
            covered: 0,
            half_settled: None,
        }
    }

    /// Takes a new replica id (I12): this database is a copy, or went back in time. Its rows keep their
    /// stamps; what was under way is unsent again, but for additions, which could be counted twice. Says whether
    /// there were any; the hub is then asked what their cells hold.
    pub fn renew(&mut self, sql: &mut dyn Sql, replica: ReplicaId) -> Result<bool, SqlError> {
        let dropped = unsend(sql, self.acked, true)?;
        if dropped {
            sql.execute("UPDATE main._federation_table SET refresh = max(refresh, 1) WHERE NOT is_out", &[])?;
        }
        self.replica = replica;
        // The hub has yet to judge what this replica declares.
        self.schema_digest = None;
        self.mark_offset = self.acked;
        self.acked_digest = Digest::ZERO;
        self.save(sql)?;
        Ok(dropped)
    }

    /// The `n` that a batch with this mark bears on the wire.
    pub fn n(&self, mark: u64) -> u64 {
        mark.saturating_sub(self.mark_offset)
    }

    fn read(fields: &mut Fields) -> Result<Self, SqlError> {
        let layout = fields.integer()?;
        if layout != LAYOUT {
            return Err(SqlError::corrupt(format!(
                "this database was synced by another version of federation-hub (layout {layout}, this \
                 version knows {LAYOUT}); update federation-hub"
            )));
        }
        Ok(Self {
            replica: fields.bytes(ReplicaId::from_slice)?,
            tenant: match fields.value() {
                Value::Text(tenant) => Some(tenant),
                _ => None,
            },
            incarnation: fields.optional_bytes(Incarnation::from_slice),
            cursor: fields.unsigned()?,
            resume: fields.unsigned()?,
            highest: Hlc(fields.unsigned()?),
            acked: fields.unsigned()?,
            acked_digest: fields.bytes(Digest::from_slice)?,
            mark_offset: fields.unsigned()?,
            schema_digest: fields.optional_bytes(Digest::from_slice),
            lease: read_lease(fields),
            buried: fields.unsigned()?,
            covered: fields.unsigned()?,
            half_settled: match fields.value() {
                Value::Blob(bytes) => Some(
                    rmp_serde::from_slice(&bytes)
                        .map_err(|_| SqlError::corrupt("_federation_replica holds no half-settled log"))?,
                ),
                _ => None,
            },
        })
    }

    fn insert(&self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        self.write(
            sql,
            &format!(
                "INSERT INTO main._federation_replica({STATE_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ),
        )
    }

    /// Writes the row back.
    pub fn save(&self, sql: &mut dyn Sql) -> Result<(), SqlError> {
        self.write(
            sql,
            &format!(
                "UPDATE main._federation_replica SET ({STATE_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            ),
        )
    }

    fn write(&self, sql: &mut dyn Sql, statement: &str) -> Result<(), SqlError> {
        let blob = |bytes: &Option<ReplicaId>| bytes.map(|id| id.0);
        let incarnation = blob(&self.incarnation);
        let schema = self.schema_digest.map(|digest| digest.0);
        let half_settled = self.half_settled.as_ref().map(rmp_serde::to_vec).transpose();
        let half_settled = half_settled.map_err(|error| SqlError::corrupt(error.to_string()))?;
        let [holder, until] = Lease::as_params(self.lease.as_ref());
        sql.execute(
            statement,
            &[
                LAYOUT.into(),
                ValueRef::Blob(&self.replica.0),
                self.tenant.as_deref().map_or(ValueRef::Null, ValueRef::Text),
                incarnation.as_ref().map_or(ValueRef::Null, |bytes| ValueRef::Blob(bytes)),
                integer(self.cursor)?,
                integer(self.resume)?,
                integer(self.highest.0)?,
                integer(self.acked)?,
                ValueRef::Blob(&self.acked_digest.0),
                integer(self.mark_offset)?,
                schema.as_ref().map_or(ValueRef::Null, |bytes| ValueRef::Blob(bytes)),
                holder,
                until,
                integer(self.buried)?,
                integer(self.covered)?,
                half_settled.as_deref().map_or(ValueRef::Null, ValueRef::Blob),
            ],
        )?;
        Ok(())
    }
}

/// A batch that was composed and is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentBatch {
    /// Its mark.
    pub mark: u64,
    /// Its digest.
    pub digest: Digest,
}

/// The batches that were composed and are not acknowledged, in order.
pub fn sent_batches(sql: &mut dyn Sql) -> Result<Vec<SentBatch>, SqlError> {
    let mut sent = Vec::new();
    sql.query("SELECT mark, digest FROM main._federation_batch ORDER BY mark", &[], &mut |row| {
        let mut fields = Fields::of(row);
        sent.push(SentBatch { mark: fields.unsigned()?, digest: fields.bytes(Digest::from_slice)? });
        Ok(())
    })?;
    Ok(sent)
}

/// Remembers a batch before its first byte leaves (I12).
pub fn remember_batch(sql: &mut dyn Sql, batch: SentBatch) -> Result<(), SqlError> {
    sql.execute(
        "INSERT INTO main._federation_batch(mark, digest) VALUES(?, ?)",
        &[integer(batch.mark)?, ValueRef::Blob(&batch.digest.0)],
    )?;
    Ok(())
}

/// Takes the batches beyond `acked` as never accepted: what they carried is unsent, with its stamps.
///
/// The marks in the rows go too, because the next batch will bear the same mark with other content.
pub fn forget_sent(sql: &mut dyn Sql, acked: u64) -> Result<(), SqlError> {
    unsend(sql, acked, false).map(|_| ())
}

/// As [`forget_sent`]. If it is `uncertain` what was accepted, adjustments are dropped; says whether any was.
fn unsend(sql: &mut dyn Sql, acked: u64, uncertain: bool) -> Result<bool, SqlError> {
    let mut dropped = false;
    let mut lost = Vec::new();
    sql.query(
        "SELECT tbl, k, batch, state FROM main._federation_row WHERE batch IN (-3, 0) OR batch > ?",
        &[integer(acked)?],
        &mut |row| {
            lost.push(row.to_vec());
            Ok(())
        },
    )?;
    for row in lost {
        let [table, key, batch, Value::Blob(state)] = &row[..] else {
            return Err(SqlError::corrupt("_federation_row holds no state"));
        };
        let mut meta = RowMeta::decode(state)?;
        let before = meta.clone();
        dropped |= uncertain && meta.drop_uncertain_adjustments(acked);
        meta.forget_sent(acked);
        if Sending::read(batch) == Sending::Refused && meta == before {
            // It goes on waiting.
            continue;
        }
        let state = meta.encode()?;
        sql.execute(
            "UPDATE main._federation_row SET batch = 0, state = ? WHERE tbl = ? AND k = ?",
            &[ValueRef::Blob(&state), table.into(), key.into()],
        )?;
    }
    sql.execute("DELETE FROM main._federation_batch", &[])?;
    collisions::tell_again(sql)?;
    Ok(dropped)
}

/// Takes a batch as acknowledged: what it carried is clean, unless it was changed again. Returns how many rows are
/// clean now.
pub fn acknowledge(sql: &mut dyn Sql, state: &mut ReplicaState, batch: SentBatch) -> Result<u64, SqlError> {
    if batch.mark <= state.acked {
        // Another process has learned it as well, and gone on.
        return Ok(0);
    }
    let mark = integer(batch.mark)?;
    let clean =
        sql.execute("UPDATE main._federation_row SET batch = NULL WHERE batch BETWEEN 1 AND ?", &[mark])?;
    sql.execute("DELETE FROM main._federation_batch WHERE mark <= ?", &[mark])?;
    state.acked = batch.mark;
    state.acked_digest = batch.digest;
    Ok(clean)
}
