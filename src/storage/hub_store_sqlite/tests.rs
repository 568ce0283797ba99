//! The store, driven by hand.

mod declaring;
mod file;
mod operator;
mod pull;
mod push;
mod retire;
mod rules;
mod schema;

use super::*;
use crate::model::{
    Agreement, CellValue, Digest, Hlc, KeyKind, Op, RowChange, RowId, RowUpdate, Seq, Stamp, TableHeader,
    TableSchema, Value, Write,
};
use crate::protocol::limits::MAX_PAST_INCARNATIONS;
use crate::protocol::message::{BatchBody, Rows};

const NOW_MS: i64 = 1_700_000_000_000;
const ALICE: ReplicaId = ReplicaId([0xa1; 16]);
const BOB: ReplicaId = ReplicaId([0xb0; 16]);

fn store() -> SqliteHubStore {
    SqliteHubStore::open(":memory:", Incarnation::from_slice(&[1; 16]).unwrap()).unwrap()
}

fn caller(tenant: &str, agent: &str) -> Caller {
    Caller { tenant: tenant.into(), agent: agent.into() }
}

fn attach_request(replica: ReplicaId) -> AttachRequest {
    AttachRequest { replica, cursor: 0, is_new: true, token_until_ms: i64::MAX, incarnation: None }
}

/// A table whose key is a number, or else its `title`, or its first column.
fn schema(name: &str, key: KeyKind, columns: &[&str]) -> TableSchema {
    let titled = columns.iter().find(|column| **column == "title").unwrap_or(&columns[0]);
    let (ddl, key_columns) = match key {
        KeyKind::Number => {
            (format!("CREATE TABLE {name} (id INTEGER PRIMARY KEY, {})", columns.join(", ")), vec![])
        }
        KeyKind::Natural => {
            let ddl = format!("CREATE TABLE {name} ({}, PRIMARY KEY({titled}))", columns.join(", "));
            (ddl, vec![(*titled).to_owned()])
        }
    };
    TableSchema {
        name: name.into(),
        key,
        columns: columns.iter().map(|column| (*column).into()).collect(),
        ddl,
        indexes: vec![],
        agreed: Agreement { key_columns, ..Agreement::default() },
    }
}

/// A replica that pushes by hand.
struct Pusher {
    caller: Caller,
    replica: ReplicaId,
    epoch: u64,
    last: (u64, Digest),
    cursor: Seq,
}

/// Breaks if what tenants' rows are counted to take is not what they take.
fn assert_weighed(store: &SqliteHubStore) {
    let weighed = format!(
        "SELECT count(*) FROM tenant WHERE (live_bytes, dead_bytes) IS NOT (
             SELECT coalesce(sum(bytes * NOT dead), 0), coalesce(sum(bytes * dead), 0) FROM (
                 SELECT {} + length(body) + coalesce(length(effective), 0) AS bytes, dead
                 FROM row_state WHERE tenant = tenant.id))",
        weight::ROW_OVERHEAD
    );
    assert_eq!(store.conn.query_row(&weighed, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    let kept = "SELECT count(*) FROM tenant WHERE (replicas, kept_bytes) IS NOT (
             (SELECT count(*) FROM replica WHERE tenant = tenant.id), (SELECT sum(bytes) FROM (
                 SELECT tenant, 160 + length(agent) + coalesce(length(refused), 0) + coalesce(length(rejected), 0) AS bytes
                 FROM replica
                 UNION ALL SELECT tenant, 160 + length(text) + length(agent) + coalesce(length(why), 0) FROM definition
                 UNION ALL SELECT tenant, 160 + length(definitions) FROM declaration
                 UNION ALL SELECT tenant, 160 + length(columns) + length(ddl) + length(indexes) + length(agreed)
                 FROM table_schema
                 UNION ALL SELECT id, 0 FROM tenant) AS kept WHERE kept.tenant = tenant.id))";
    assert_eq!(store.conn.query_row(kept, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

impl Pusher {
    fn attach(store: &mut SqliteHubStore, tenant: &str, agent: &str, replica: ReplicaId) -> Self {
        let caller = caller(tenant, agent);
        let attached = store.attach(&caller, &attach_request(replica), NOW_MS).unwrap();
        store.commit().unwrap();
        let last = attached.last.unwrap_or((0, Digest::ZERO));
        Self { caller, replica, epoch: attached.epoch, last, cursor: 0 }
    }

    fn register(&self, store: &mut SqliteHubStore, schema: Vec<TableSchema>) {
        let request = RegisterRequest {
            replica: self.replica,
            epoch: self.epoch,
            cursor: self.cursor,
            schema,
            may_define: true,
        };
        store.register(&self.caller, &request).unwrap();
        store.commit().unwrap();
    }

    fn request(&self, body: BatchBody) -> PushRequest {
        let n = self.last.0 + 1;
        let bytes = rmp_serde::to_vec(&body).unwrap();
        let hash = blake3::hash(&bytes);
        let (replica, epoch, previous) = (self.replica, self.epoch, self.last.1);
        PushRequest { replica, epoch, counter: n, n, previous, digest: Digest(*hash.as_bytes()), body }
    }

    fn push(&mut self, store: &mut SqliteHubStore, body: BatchBody) -> Ack {
        let request = self.request(body);
        self.last = (request.n, request.digest);
        let ack = store.push(&self.caller, request, NOW_MS).unwrap();
        store.commit().unwrap();
        assert_weighed(store);
        ack
    }

    fn set(&mut self, store: &mut SqliteHubStore, ms: i64, row: u8, cells: &[(&str, Value)]) -> Ack {
        let body = self.body("notes", ms, row, cells);
        self.push(store, body)
    }

    fn body(&self, table: &str, ms: i64, row: u8, cells: &[(&str, Value)]) -> BatchBody {
        let op = Op::Set((0..).zip(cells).map(|(i, (_, value))| (i, value.clone().into())).collect());
        let change = RowChange {
            table: 0,
            id: RowId([row; 16]),
            number: None,
            is_new: true,
            writes: self.write(ms, op),
        };
        let columns = cells.iter().map(|(column, _)| (*column).into()).collect();
        let tables = vec![TableHeader { name: table.into(), columns }];
        BatchBody { tables, rows: vec![change], ..BatchBody::default() }
    }

    fn write(&self, ms: i64, op: Op) -> Vec<Write> {
        let stamp = Stamp { hlc: Hlc::from_ms(NOW_MS + ms), replica: self.replica.tie_break() };
        vec![Write { stamp, base: self.cursor, op }]
    }

    fn pull_request(&self, refresh: &[&str]) -> PullRequest {
        PullRequest {
            replica: self.replica,
            epoch: self.epoch,
            cursor: self.cursor,
            resume: self.cursor,
            refresh: refresh.iter().map(|table| (*table).into()).collect(),
        }
    }

    fn pull(&mut self, store: &mut SqliteHubStore, refresh: &[&str]) -> Pulled {
        let request = self.pull_request(refresh);
        let snapshot = store.snapshot(&self.caller, &request, NOW_MS).unwrap();
        let pulled = Pulled::read(snapshot);
        self.cursor = pulled.cursor;
        pulled
    }
}

/// A pull, put together. `rows` has (table, row, columns and values).
#[derive(Debug)]
struct Pulled {
    cursor: Seq,
    tables: Vec<TableSchema>,
    clock: Vec<(String, u64)>,
    chunks: usize,
    updates: Vec<RowUpdate>,
    cells: Vec<(RowId, String, CellValue)>,
}

impl Pulled {
    fn read(snapshot: Snapshot) -> Self {
        let Snapshot { tables, first, rest, done } = snapshot;
        let mut pulled = Self {
            cursor: done.cursor,
            tables,
            clock: done.clock,
            chunks: 0,
            updates: vec![],
            cells: vec![],
        };
        pulled.take(first);
        if let Some(mut rest) = rest {
            while let Some(rows) = rest.next_chunk().unwrap() {
                pulled.take(rows);
            }
        }
        pulled
    }

    fn take(&mut self, rows: Rows) {
        self.chunks += 1;
        for update in rows.rows {
            let columns = &rows.tables[usize::from(update.table)].columns;
            for (column, value) in update.writes.iter().flat_map(|write| match &write.op {
                Op::Set(cells) | Op::Cut(cells) => cells.clone(),
                Op::Adjust(_) | Op::Delete | Op::Gone => vec![],
            }) {
                self.cells.push((update.id, columns[usize::from(column)].clone(), value));
            }
            self.updates.push(update);
        }
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> (Refusal, String) {
    match outcome {
        Err(StoreError::Refused(reason, message)) => (reason, message),
        other => panic!("not refused: {other:?}"),
    }
}

/// A store in which Alice and Bob are attached and `notes(title, body)` is declared.
fn two_agents(store: &mut SqliteHubStore) -> (Pusher, Pusher) {
    let alice = Pusher::attach(store, "acme", "alice", ALICE);
    alice.register(store, vec![schema("notes", KeyKind::Natural, &["title", "body"])]);
    let bob = Pusher::attach(store, "acme", "bob", BOB);
    (alice, bob)
}
