//! Reading what a replica lacks, at one point in its tenant's order.
//!
//! The first chunk is read on the writer's thread, between two groups: most pulls end there. A larger pull
//! goes on elsewhere, through a connection whose read transaction begins before the writer goes on, so that
//! the rest is of the same point (I14).

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::session::session;
use super::tables::{self, Table};
use super::tenant::Tenant;
use super::{damaged, definitions, dropped, open, presence, refused, run};
use crate::model::{RowId, RowUpdate, Seq, TableHeader};
use crate::protocol::hub_request::{Caller, PullRequest};
use crate::protocol::limits::{CHUNK_BYTES, CHUNK_ROWS};
use crate::protocol::message::{Done, Refusal, Rows};
use crate::storage::hub_store::{RowSource, Snapshot, StoreError};
use crate::storage::row_codec;

/// How many large pulls may run at once: each holds a connection, and keeps the WAL from being recycled.
const MAX_READERS: usize = 16;

/// Those of one tenant: others find a reader whatever it does.
const MAX_READERS_OF_TENANT: usize = MAX_READERS / 2;

/// See [`crate::storage::hub_store::HubStore::snapshot`]. Comes with the tenant's number.
pub fn snapshot(
    conn: &Connection,
    readers: Option<&Arc<ReaderPool>>,
    caller: &Caller,
    request: &PullRequest,
    now_ms: i64,
) -> Result<(i64, Snapshot), StoreError> {
    let (tenant, replica) = session(conn, caller, request.replica, request.epoch)?;
    if request.cursor > tenant.seq || request.resume > tenant.seq {
        return refused(
            Refusal::Protocol,
            "the replica has merged more than this hub holds: the hub's file was replaced by an older copy",
        );
    }
    let mut snapshot = Snapshot {
        tables: Vec::new(),
        first: Rows::default(),
        rest: None,
        done: Done {
            cursor: tenant.seq,
            highest: tenant.highest,
            hub_now_ms: now_ms,
            clock: Vec::new(),
            retired: Some(Vec::new()),
            horizon: tenant.swept,
            refused: replica.refused.iter().map(|it| (it.name.clone(), it.reason.clone())).collect(),
            notices: Vec::new(),
        },
    };
    if tenant.seq == request.cursor && request.refresh.is_empty() {
        return Ok((tenant.id, snapshot));
    }
    snapshot.tables = tables::changed_since(conn, &tenant, request.cursor, request.replica.tie_break())?;
    snapshot.tables.extend(dropped::told_since(conn, tenant.id, request.cursor)?);
    snapshot.done.notices = definitions::news_since(conn, tenant.id, request.cursor)?;
    (snapshot.done.clock, snapshot.done.retired) = presence::news_since(conn, &tenant, request.cursor)?;
    let mut chunks = Chunks::new(conn, &tenant, request)?;
    chunks.refused = replica.refused.iter().map(|it| it.table).collect();
    chunks.refused.extend(dropped::under_way(conn, tenant.id)?);
    snapshot.first = chunks.next(conn)?.unwrap_or_default();
    if !chunks.finished {
        snapshot.rest = Some(rest(conn, readers, chunks)?);
    }
    Ok((tenant.id, snapshot))
}

/// Prepares what remains after the first chunk to be read later.
fn rest(
    conn: &Connection,
    readers: Option<&Arc<ReaderPool>>,
    mut chunks: Chunks,
) -> Result<Box<dyn RowSource>, StoreError> {
    if let Some(pool) = readers {
        return Ok(Box::new(Leased { lease: ReaderPool::lease(pool, chunks.tenant)?, chunks }));
    }
    let mut collected = VecDeque::new();
    while let Some(rows) = chunks.next(conn)? {
        collected.push_back(rows);
    }
    Ok(Box::new(Collected(collected)))
}

/// Where a pull stands. Every row has a position of its own, so the last one told is all there is to know.
struct Chunks {
    tenant: i64,
    reader: u64,
    cursor: Seq,
    resume: Seq,
    /// Tables that are told whole, as a JSON array of numbers and as they are compared.
    refresh_json: String,
    refresh: Vec<i64>,
    /// Tables that this replica is told nothing of.
    refused: Vec<i64>,
    told: Seq,
    finished: bool,
}

impl Chunks {
    fn new(conn: &Connection, tenant: &Tenant, request: &PullRequest) -> Result<Self, StoreError> {
        let mut refresh = Vec::new();
        for name in &request.refresh {
            refresh.extend(tables::id_of(conn, tenant, name)?);
        }
        let resume = request.resume.max(request.cursor);
        Ok(Self {
            tenant: tenant.id,
            reader: request.replica.tie_break(),
            cursor: request.cursor,
            resume,
            refresh_json: format!("{refresh:?}"),
            // Rows of refreshed tables may stand anywhere; an interrupted pull tells them once more.
            told: if refresh.is_empty() { resume } else { 0 },
            refresh,
            refused: Vec::new(),
            finished: false,
        })
    }

    /// Reads the next rows; nothing when all are told.
    fn next(&mut self, conn: &Connection) -> Result<Option<Rows>, StoreError> {
        if self.finished {
            return Ok(None);
        }
        let mut statement = conn.prepare_cached(
            "SELECT seq, tbl, id, coalesce(effective, body), survivor FROM row_state INDEXED BY row_by_seq
             WHERE tenant = ?1 AND seq > ?2
               AND (seq > ?3 AND (writer <> ?4 OR other_seq > ?5)
                    OR tbl IN (SELECT value FROM json_each(?6)))
             ORDER BY seq",
        )?;
        let (told, resume, reader) =
            (self.told.cast_signed(), self.resume.cast_signed(), self.reader.cast_signed());
        let cursor = self.cursor.cast_signed();
        let mut rows =
            statement.query(params![self.tenant, told, resume, reader, cursor, self.refresh_json])?;
        let mut chunk = Chunk::default();
        while let Some(row) = rows.next()? {
            let seq = row.get::<_, i64>(0)?.cast_unsigned();
            let table = row.get(1)?;
            if self.refused.contains(&table) {
                self.told = seq;
                continue;
            }
            let id = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
            let id = RowId::from_slice(id).ok_or_else(|| damaged("a row's identity"))?;
            let body = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
            let state = row_codec::decode(body).map_err(|_| damaged("a row"))?;
            let survivor = row.get_ref(4)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
            let told = match survivor.and_then(RowId::from_slice) {
                Some(survivor) => Some((Vec::new(), false, Some(survivor))),
                None if self.refresh.contains(&table) => {
                    state.everything().map(|(writes, whole)| (writes, whole, None))
                }
                None => state.since(self.cursor, self.reader).map(|(writes, whole)| (writes, whole, None)),
            };
            if let Some((writes, whole, united)) = told {
                let update = RowUpdate { table: 0, id, number: state.number, seq, whole, united, writes };
                if !chunk.add(conn, self.tenant, table, update)? {
                    return Ok(Some(chunk.rows));
                }
            }
            self.told = seq;
            if chunk.is_full() {
                return Ok(Some(chunk.rows));
            }
        }
        self.finished = true;
        Ok((!chunk.rows.rows.is_empty()).then_some(chunk.rows))
    }
}

/// Some rows, as they are gathered.
#[derive(Default)]
struct Chunk {
    rows: Rows,
    /// The position in `rows.tables` of each table.
    headers: HashMap<i64, u16>,
    bytes: usize,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.rows.rows.len() >= CHUNK_ROWS || self.bytes >= CHUNK_BYTES
    }

    /// Adds a row; false if it must wait for the next chunk, because a large row travels alone.
    fn add(
        &mut self,
        conn: &Connection,
        tenant: i64,
        table: i64,
        mut update: RowUpdate,
    ) -> Result<bool, StoreError> {
        let bytes = update.heap_bytes();
        if !self.rows.rows.is_empty() && self.bytes + bytes > 2 * CHUNK_BYTES {
            return Ok(false);
        }
        update.table = match self.headers.get(&table) {
            Some(header) => *header,
            None => self.add_header(conn, tenant, table)?,
        };
        self.bytes += bytes;
        self.rows.rows.push(update);
        Ok(true)
    }

    fn add_header(&mut self, conn: &Connection, tenant: i64, table: i64) -> Result<u16, StoreError> {
        let header = u16::try_from(self.rows.tables.len()).map_err(|_| damaged("the list of tables"))?;
        let found = Table::by_id(conn, tenant, table)?.ok_or_else(|| damaged("a table's definition"))?;
        let (name, columns) = (found.schema.name, found.schema.columns);
        self.bytes += name.len() + columns.iter().map(|column| column.len() + 3).sum::<usize>();
        self.rows.tables.push(TableHeader { name, columns });
        self.headers.insert(table, header);
        Ok(header)
    }
}

/// The rest of a pull from memory: there is no second connection, so it is read at once.
struct Collected(VecDeque<Rows>);

impl RowSource for Collected {
    fn next_chunk(&mut self) -> Result<Option<Rows>, StoreError> {
        Ok(self.0.pop_front())
    }
}

/// The rest of a pull from a file.
struct Leased {
    lease: Lease,
    chunks: Chunks,
}

impl RowSource for Leased {
    fn next_chunk(&mut self) -> Result<Option<Rows>, StoreError> {
        match &self.lease.conn {
            Some(conn) => self.chunks.next(conn),
            None => Ok(None),
        }
    }
}

/// Connections for reading, opened as they are needed.
pub struct ReaderPool {
    path: PathBuf,
    connections: Mutex<Connections>,
    /// Keeps other hubs away until the last connection is closed.
    _lock: File,
}

#[derive(Default)]
struct Connections {
    idle: Vec<Connection>,
    /// How many each tenant has.
    leased: HashMap<i64, usize>,
}

impl ReaderPool {
    /// A pool for the store at `path`, which `lock` protects.
    pub fn new(path: &Path, lock: File) -> Self {
        Self { path: path.to_owned(), connections: Mutex::default(), _lock: lock }
    }

    /// The store's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a connection, and begins a read transaction on it.
    fn lease(pool: &Arc<Self>, tenant: i64) -> Result<Lease, StoreError> {
        let idle = {
            let mut connections = pool.connections.lock().unwrap_or_else(PoisonError::into_inner);
            let own = connections.leased.get(&tenant).copied().unwrap_or(0);
            if own == MAX_READERS_OF_TENANT || connections.leased.values().sum::<usize>() == MAX_READERS {
                return Err(StoreError::Busy);
            }
            connections.leased.insert(tenant, own + 1);
            connections.idle.pop()
        };
        let mut lease = Lease { pool: pool.clone(), tenant, conn: idle };
        let conn = match lease.conn.take() {
            Some(conn) => conn,
            None => open::reader(&pool.path)?,
        };
        let conn = lease.conn.insert(conn);
        run(conn, "BEGIN")?;
        // SQLite takes its snapshot at the first read, not at BEGIN.
        conn.prepare_cached("SELECT seq FROM tenant WHERE id = ?1")?.query_row([tenant], |_| Ok(()))?;
        Ok(lease)
    }
}

/// A connection on loan.
struct Lease {
    pool: Arc<ReaderPool>,
    tenant: i64,
    conn: Option<Connection>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let returned = self.conn.take().filter(|conn| conn.is_autocommit() || run(conn, "ROLLBACK").is_ok());
        let mut connections = self.pool.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = connections.leased.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                connections.leased.remove(&self.tenant);
            }
        }
        connections.idle.extend(returned);
    }
}
