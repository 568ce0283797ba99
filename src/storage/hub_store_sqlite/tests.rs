use super::*;
use crate::model::{
    CellValue, KeyKind, Op, RowChange, RowId, RowUpdate, Stamp, TableHeader, TableSchema, Value, Write,
};
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

fn schema(name: &str, key: KeyKind, columns: &[&str]) -> TableSchema {
    TableSchema {
        name: name.into(),
        key,
        columns: columns.iter().map(|column| (*column).into()).collect(),
        ddl: format!("CREATE TABLE {name} ({})", columns.join(", ")),
        indexes: vec![],
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

impl Pusher {
    fn attach(store: &mut SqliteHubStore, tenant: &str, agent: &str, replica: ReplicaId) -> Self {
        let caller = caller(tenant, agent);
        let attached = store.attach(&caller, replica).unwrap();
        store.commit().unwrap();
        let last = attached.last.unwrap_or((0, Digest::ZERO));
        Self { caller, replica, epoch: attached.epoch, last, cursor: 0 }
    }

    fn register(&self, store: &mut SqliteHubStore, schema: Vec<TableSchema>) {
        let request = RegisterRequest { replica: self.replica, epoch: self.epoch, schema };
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
        ack
    }

    fn set(&mut self, store: &mut SqliteHubStore, ms: i64, row: u8, cells: &[(&str, Value)]) -> Ack {
        let body = self.body("notes", ms, row, cells);
        self.push(store, body)
    }

    fn body(&self, table: &str, ms: i64, row: u8, cells: &[(&str, Value)]) -> BatchBody {
        let op = Op::Set((0..).zip(cells).map(|(i, (_, value))| (i, value.clone().into())).collect());
        let change = RowChange { table: 0, id: RowId([row; 16]), number: None, writes: self.write(ms, op) };
        let columns = cells.iter().map(|(column, _)| (*column).into()).collect();
        BatchBody { tables: vec![TableHeader { name: table.into(), columns }], rows: vec![change] }
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
                Op::Set(cells) => cells.clone(),
                Op::Delete => vec![],
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

#[test]
fn what_one_pushes_the_other_pulls_and_not_oneself() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    let ack = alice.set(&mut store, 0, 1, &[("title", text("hello")), ("body", Value::Null)]);
    assert_eq!((ack.n, ack.conflicts, ack.rejected), (1, 0, vec![]));

    let pulled = bob.pull(&mut store, &[]);
    assert_eq!(pulled.tables, [schema("notes", KeyKind::Natural, &["title", "body"])]);
    assert!(pulled.updates[0].whole);
    assert_eq!(pulled.cells[0], (RowId([1; 16]), "title".into(), text("hello").into()));
    assert_eq!(pulled.clock, [("alice".to_owned(), 1)]);
    assert_eq!(store.stats(), StoreStats { tenants: 1, rows: 1 });

    let own = alice.pull(&mut store, &[]);
    assert_eq!((own.tables.len(), own.updates.len()), (0, 0), "{own:?}");
    assert_eq!(own.cursor, bob.cursor);
    assert_eq!(bob.pull(&mut store, &[]).updates, []);
}

#[test]
fn a_deleted_row_is_no_row_any_more() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("hello"))]);
    let mut body = alice.body("notes", 1, 1, &[]);
    body.rows[0].writes = alice.write(1, Op::Delete);
    alice.push(&mut store, body);
    assert_eq!(store.stats().rows, 0);
    assert_eq!(bob.pull(&mut store, &[]).updates.len(), 1);
}

#[test]
fn everything_acknowledged_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    let mut store = SqliteHubStore::open(path, ReplicaId([1; 16])).unwrap();
    let (mut alice, _) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("kept"))]);
    drop(store);

    let mut store = SqliteHubStore::open(path, ReplicaId([2; 16])).unwrap();
    assert_eq!(store.incarnation(), ReplicaId([1; 16]), "an existing store keeps its name");
    assert_eq!(store.stats(), StoreStats { tenants: 1, rows: 1 });
    let attached = store.attach(&alice.caller, ALICE).unwrap();
    assert_eq!((attached.epoch, attached.last), (2, Some(alice.last)));
    let welcomed = store.welcome(&alice.caller).unwrap();
    assert_eq!((welcomed.counter, welcomed.highest), (1, Hlc::from_ms(NOW_MS)));
    let mut bob = Pusher::attach(&mut store, "acme", "bob", BOB);
    assert_eq!(bob.pull(&mut store, &[]).cells[0].2, text("kept").into());
}

#[test]
fn what_was_not_committed_is_not_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    let mut store = SqliteHubStore::open(path, ReplicaId([1; 16])).unwrap();
    let (alice, _) = two_agents(&mut store);
    let request = alice.request(alice.body("notes", 0, 1, &[("title", text("lost"))]));
    store.push(&alice.caller, request, NOW_MS).unwrap();
    drop(store);
    let store = SqliteHubStore::open(path, ReplicaId([2; 16])).unwrap();
    assert_eq!(store.stats().rows, 0);
}

#[test]
fn a_batch_counts_once_and_only_in_its_place() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    let first = alice.request(alice.body("notes", 0, 1, &[("title", text("once"))]));
    let mut other = first.clone();
    other.digest = Digest([9; 32]);
    let mut gap = first.clone();
    gap.n = 2;
    assert_eq!(refusal(store.push(&alice.caller, gap, NOW_MS)).0, Refusal::Stale);

    store.push(&alice.caller, first.clone(), NOW_MS).unwrap();
    store.commit().unwrap();
    let cursor = alice.pull(&mut store, &[]).cursor;
    let again = store.push(&alice.caller, first.clone(), NOW_MS).unwrap();
    assert_eq!(again.n, 1, "a repetition is acknowledged again");
    store.commit().unwrap();
    assert_eq!(alice.pull(&mut store, &[]).cursor, cursor, "and has no effect");

    assert_eq!(refusal(store.push(&alice.caller, other.clone(), NOW_MS)).0, Refusal::Stale);
    other.n = 2;
    other.previous = Digest([8; 32]);
    assert_eq!(refusal(store.push(&alice.caller, other, NOW_MS)).0, Refusal::Stale);
}

#[test]
fn an_earlier_epoch_is_refused() {
    let mut store = store();
    let (alice, _) = two_agents(&mut store);
    let late = alice.request(alice.body("notes", 0, 1, &[("title", text("late"))]));
    let newer = Pusher::attach(&mut store, "acme", "alice", ALICE);
    assert_eq!(newer.epoch, alice.epoch + 1);
    assert_eq!(refusal(store.push(&alice.caller, late, NOW_MS)).0, Refusal::Stale);
    let pull = store.snapshot(&alice.caller, &alice.pull_request(&[]), NOW_MS).map(|_| ());
    assert_eq!(refusal(pull).0, Refusal::Stale);
}

#[test]
fn concurrent_cells_are_counted_and_the_greater_stamp_wins() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("start")), ("body", text("b"))]);
    bob.pull(&mut store, &[]);
    alice.pull(&mut store, &[]);
    assert_eq!(alice.set(&mut store, 20, 1, &[("title", text("alice"))]).conflicts, 0);
    let ack = bob.set(&mut store, 10, 1, &[("title", text("bob")), ("body", text("bob"))]);
    assert_eq!(ack.conflicts, 1, "the titles are concurrent, the body is not");
    let cells = alice.pull(&mut store, &[]).cells;
    assert_eq!(cells, [(RowId([1; 16]), "body".into(), text("bob").into())]);
    let cells = bob.pull(&mut store, &[]).cells;
    assert_eq!(cells, [(RowId([1; 16]), "title".into(), text("alice").into())]);
}

#[test]
fn tenants_do_not_see_each_other() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("secret"))]);
    let mut eve = Pusher::attach(&mut store, "evil", "alice", ALICE);
    assert_eq!((eve.epoch, eve.last.0), (1, 0), "the same replica id is another replica");
    let pulled = eve.pull(&mut store, &["notes"]);
    assert_eq!((pulled.cursor, pulled.tables.len(), pulled.updates.len()), (0, 0, 0));
    assert_eq!(store.welcome(&eve.caller).unwrap(), Welcomed::default());
    let ack = eve.set(&mut store, 0, 1, &[("title", text("mine"))]);
    assert!(ack.rejected[0].1.contains("no table notes"), "{ack:?}");
    assert_eq!(store.stats(), StoreStats { tenants: 2, rows: 1 });
}

#[test]
fn a_large_pull_reads_one_snapshot_while_others_push() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    for path in [path.to_str().unwrap(), ":memory:"] {
        let mut store = SqliteHubStore::open(path, ReplicaId([1; 16])).unwrap();
        let (mut alice, mut bob) = two_agents(&mut store);
        let old = Value::Blob(vec![1; 100_000]);
        for row in 0..20 {
            alice.set(&mut store, 0, row, &[("title", text("old")), ("body", old.clone())]);
        }
        let snapshot = store.snapshot(&bob.caller, &bob.pull_request(&[]), NOW_MS).unwrap();
        for row in 0..25 {
            alice.set(&mut store, 1, row, &[("title", text("new"))]);
        }
        let pulled = Pulled::read(snapshot);
        assert!(pulled.chunks > 3, "{path} {}", pulled.chunks);
        assert_eq!(pulled.updates.len(), 20, "{path}");
        assert!(pulled.cells.iter().all(|(_, _, value)| *value != text("new").into()), "{path}");
        bob.cursor = pulled.cursor;
        assert_eq!(bob.pull(&mut store, &[]).cells.len(), 25, "{path}");
    }
}

#[test]
fn an_interrupted_pull_goes_on_where_it_stopped() {
    let mut store = store();
    let (mut alice, bob) = two_agents(&mut store);
    for row in 0..10 {
        alice.set(&mut store, 0, row, &[("title", text("x"))]);
    }
    let all = Pulled::read(store.snapshot(&bob.caller, &bob.pull_request(&[]), NOW_MS).unwrap());
    let request = PullRequest { resume: all.updates[6].seq, ..bob.pull_request(&[]) };
    let rest = Pulled::read(store.snapshot(&bob.caller, &request, NOW_MS).unwrap());
    assert_eq!(rest.updates, all.updates[7..]);
}

#[test]
fn a_cursor_beyond_the_store_is_refused() {
    let mut store = store();
    let (_, mut bob) = two_agents(&mut store);
    bob.cursor = 1_000;
    let pull = store.snapshot(&bob.caller, &bob.pull_request(&[]), NOW_MS).map(|_| ());
    assert_eq!(refusal(pull).0, Refusal::Protocol);
}

#[test]
fn a_refreshed_table_is_told_whole_own_rows_included() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    alice.register(&mut store, vec![schema("other", KeyKind::Natural, &["x"])]);
    alice.set(&mut store, 0, 1, &[("title", text("mine")), ("body", text("b"))]);
    let body = alice.body("other", 0, 2, &[("x", text("x"))]);
    alice.push(&mut store, body);
    alice.pull(&mut store, &[]);
    let pulled = alice.pull(&mut store, &["NOTES", "unknown"]);
    assert_eq!(pulled.updates.len(), 1);
    assert!(pulled.updates[0].whole);
    assert_eq!(pulled.cells.len(), 2);
}

#[test]
fn columns_of_two_agents_come_together() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.pull(&mut store, &[]);
    bob.pull(&mut store, &[]);
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &["title", "body", "mood"])]);
    bob.register(&mut store, vec![schema("notes", KeyKind::Natural, &["Body", "title", "score"])]);
    bob.set(&mut store, 0, 1, &[("score", Value::Integer(3)), ("title", text("t"))]);

    let told = alice.pull(&mut store, &[]);
    assert_eq!(told.tables[0].columns, ["title", "body", "mood", "score"]);
    assert_eq!(
        told.tables[0].ddl, "CREATE TABLE notes (title, body, mood)",
        "the last text with every column"
    );
    assert_eq!(told.cells[0].1, "title");
    assert_eq!(told.cells[1], (RowId([1; 16]), "score".into(), Value::Integer(3).into()));
    assert_eq!(bob.pull(&mut store, &[]).tables.len(), 1, "who declared less than there is, is told as well");

    let all = ["title", "body", "mood", "score"];
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &all)]);
    assert_eq!(bob.pull(&mut store, &[]).tables[0].ddl, "CREATE TABLE notes (title, body, mood, score)");
    assert_eq!(alice.pull(&mut store, &[]).tables, [], "who declared all there is, is not told");
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &all)]);
    assert_eq!(bob.pull(&mut store, &[]).tables, [], "the same declaration again is no change");
}

#[test]
fn a_column_that_only_a_batch_names_is_kept() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("t")), ("later", Value::Integer(1))]);
    let pulled = bob.pull(&mut store, &[]);
    assert_eq!(pulled.tables[0].columns, ["title", "body", "later"]);
    assert_eq!(pulled.cells[1].1, "later");
    let ack = alice.set(&mut store, 0, 1, &[(&"x".repeat(300), Value::Null)]);
    assert!(ack.rejected[0].1.contains("column name"), "{ack:?}");
}

#[test]
fn new_indexes_reach_the_others() {
    let mut store = store();
    let (alice, mut bob) = two_agents(&mut store);
    bob.pull(&mut store, &[]);
    let mut declared = schema("notes", KeyKind::Natural, &["title", "body"]);
    declared.indexes.push("CREATE INDEX i ON notes(title)".into());
    alice.register(&mut store, vec![declared.clone()]);
    assert_eq!(bob.pull(&mut store, &[]).tables, [declared]);
}

#[test]
fn numbers_travel_with_rows_of_numbered_tables_only() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.register(&mut store, vec![schema("log", KeyKind::Number, &["line"])]);
    let mut body = alice.body("log", 0, 1, &[("line", text("a"))]);
    body.rows[0].number = Some(7);
    assert_eq!(alice.push(&mut store, body.clone()).rejected, []);
    assert_eq!(bob.pull(&mut store, &[]).updates[0].number, Some(7));

    // Bob has a table of that name with a TEXT key, and one named `notes` with a numbered one.
    bob.register(&mut store, vec![schema("log", KeyKind::Natural, &["line"])]);
    let unnumbered = bob.body("log", 0, 2, &[("line", text("b"))]);
    assert!(bob.push(&mut store, unnumbered).rejected[0].1.contains("INTEGER PRIMARY KEY"));
    let mut numbered = bob.body("notes", 0, 3, &[("title", text("b"))]);
    numbered.rows[0].number = Some(1);
    assert!(bob.push(&mut store, numbered).rejected[0].1.contains("TEXT"));
    assert_eq!(store.stats().rows, 1);
}

#[test]
fn stamps_from_the_future_are_refused_and_time_never_runs_backwards() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    let early = alice.request(alice.body("notes", 61_000, 1, &[("title", text("future"))]));
    let (reason, message) = refusal(store.push(&alice.caller, early, NOW_MS));
    assert_eq!(reason, Refusal::Clock);
    assert!(message.contains("1700000061000") && message.contains("1700000000000"), "{message}");
    alice.set(&mut store, 50_000, 1, &[("title", text("ahead"))]);
    // The highest stored stamp is hub time now, whatever the wall says.
    alice.set(&mut store, 100_000, 1, &[("title", text("further"))]);
    let snapshot = store.snapshot(&alice.caller, &alice.pull_request(&[]), 5).unwrap();
    assert_eq!(snapshot.done.hub_now_ms, NOW_MS + 100_000);
}

#[test]
fn large_values_survive_and_too_large_rows_are_rejected() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    let big = Value::Blob((0..16_000_000_u32).map(|i| i.to_le_bytes()[0]).collect());
    assert_eq!(alice.set(&mut store, 0, 1, &[("body", big.clone())]).rejected, []);
    let ack = alice.set(&mut store, 1, 1, &[("title", Value::Blob(vec![0; 1_000_000]))]);
    assert!(ack.rejected[0].1.contains("bytes"), "{ack:?}");
    assert_eq!(bob.pull(&mut store, &[]).cells, [(RowId([1; 16]), "body".into(), big.into())]);
}

#[test]
fn a_failed_operation_leaves_the_rest_of_its_group_alone() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    let good = alice.request(alice.body("notes", 0, 1, &[("title", text("good"))]));
    let mut bad = bob.request(bob.body("notes", 0, 2, &[("title", text("bad"))]));
    bad.epoch = 99;
    store.push(&alice.caller, good, NOW_MS).unwrap();
    assert!(store.push(&bob.caller, bad, NOW_MS).is_err());
    store.commit().unwrap();
    assert_eq!(store.stats().rows, 1);
    assert_eq!(bob.pull(&mut store, &[]).updates.len(), 1);
    alice.pull(&mut store, &[]);
}

#[test]
fn a_full_disk_fails_the_group_and_the_store_goes_on() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    let pages: i64 = store.conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit = |store: &SqliteHubStore, pages: i64| {
        store.conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    limit(&store, pages);
    let body = alice.body("notes", 0, 1, &[("body", Value::Blob(vec![0; 1_000_000]))]);
    let request = alice.request(body.clone());
    let pushed = store.push(&alice.caller, request, NOW_MS).map(|_| ());
    assert!(matches!(pushed.and_then(|()| store.commit()), Err(StoreError::Failed(_))));
    // Whether the push or the commit failed, the group is over.
    let _ = store.commit();
    limit(&store, pages + 1_000);
    assert_eq!(alice.push(&mut store, body).rejected, []);
    assert_eq!(store.stats().rows, 1);
}

#[test]
fn a_counter_survives_idle_sessions_and_never_falls() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("x"))]);
    for (counter, expected) in [(9, 9), (4, 9)] {
        store.end_session(&alice.caller, counter).unwrap();
        store.commit().unwrap();
        assert_eq!(store.welcome(&alice.caller).unwrap().counter, expected);
    }
    assert_eq!(bob.pull(&mut store, &[]).clock, [("alice".to_owned(), 9)]);
    store.end_session(&caller("nobody", "x"), 3).unwrap();
    store.commit().unwrap();
    assert_eq!(store.stats().tenants, 1);
}

#[test]
fn a_bounded_number_of_large_pulls_run_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let mut store = SqliteHubStore::open(path.to_str().unwrap(), ReplicaId([1; 16])).unwrap();
    let (mut alice, bob) = two_agents(&mut store);
    for row in 0..8 {
        alice.set(&mut store, 0, row, &[("body", Value::Blob(vec![0; 100_000]))]);
    }
    let mut pull = || store.snapshot(&bob.caller, &bob.pull_request(&[]), NOW_MS);
    let mut running: Vec<Snapshot> = (0..16).map(|_| pull().unwrap()).collect();
    assert!(matches!(pull(), Err(StoreError::Busy)));
    running.pop();
    assert_eq!(Pulled::read(pull().unwrap()).updates.len(), 8);
}

#[test]
fn a_second_hub_is_kept_out_of_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    let store = SqliteHubStore::open(path, ReplicaId([1; 16])).unwrap();
    assert!(matches!(SqliteHubStore::open(path, ReplicaId([2; 16])), Err(OpenStoreError::Locked(_))));
    drop(store);
    SqliteHubStore::open(path, ReplicaId([2; 16])).unwrap();
}

#[test]
fn a_foreign_or_newer_file_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let text_path = directory.path().join("notes.txt");
    std::fs::write(&text_path, "SQLite is great").unwrap();
    let sqlite = directory.path().join("app.db");
    Connection::open(&sqlite).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    let newer = directory.path().join("newer.db");
    drop(SqliteHubStore::open(newer.to_str().unwrap(), ReplicaId([1; 16])).unwrap());
    Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    for path in [text_path, sqlite, newer] {
        let before = std::fs::read(&path).unwrap();
        let outcome = SqliteHubStore::open(path.to_str().unwrap(), ReplicaId([2; 16]));
        assert!(
            matches!(outcome, Err(OpenStoreError::Foreign(_) | OpenStoreError::Newer { found: 9, .. })),
            "{}",
            path.display()
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    let nowhere = directory.path().join("no/such/directory/hub.db");
    let outcome = SqliteHubStore::open(nowhere.to_str().unwrap(), ReplicaId([1; 16]));
    assert!(matches!(outcome, Err(OpenStoreError::Io { .. })));
}

#[test]
fn pulls_walk_the_index_by_position() {
    let store = store();
    let plan: String = store
        .conn
        .query_row(
            "EXPLAIN QUERY PLAN SELECT seq, tbl, id, body FROM row_state INDEXED BY row_by_seq
             WHERE tenant = 1 AND seq > 2 AND (seq > 3 AND (writer <> 4 OR other_seq > 5)
             OR tbl IN (SELECT value FROM json_each('[]'))) ORDER BY seq",
            [],
            |row| row.get(3),
        )
        .unwrap();
    assert!(plan.contains("(tenant=? AND seq>?)"), "{plan}");
}
