//! Snapshots.

use super::*;

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
            alice.set(&mut store, 0, row, &[("title", text(&format!("old {row}"))), ("body", old.clone())]);
        }
        let snapshot = store.snapshot(&bob.caller, &bob.pull_request(&[]), NOW_MS).unwrap();
        for row in 0..25 {
            alice.set(&mut store, 1, row, &[("title", text(&format!("new {row}")))]);
        }
        let pulled = Pulled::read(snapshot);
        assert!(pulled.chunks > 3, "{path} {}", pulled.chunks);
        assert_eq!(pulled.updates.len(), 20, "{path}");
        let is_new =
            |value: &CellValue| matches!(value, CellValue::Plain(Value::Text(it)) if it.starts_with("new"));
        assert!(!pulled.cells.iter().any(|(_, _, value)| is_new(value)), "{path}");
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
fn a_bounded_number_of_large_pulls_run_at_once_and_half_of_them_for_one_tenant() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let mut store = SqliteHubStore::open(path.to_str().unwrap(), ReplicaId([1; 16])).unwrap();
    let readers = ["acme", "other", "third"].map(|tenant| {
        let mut author = Pusher::attach(&mut store, tenant, "alice", ALICE);
        author.register(&mut store, vec![schema("notes", KeyKind::Natural, &["title", "body"])]);
        for row in 0..8 {
            author.set(&mut store, 0, row, &[("body", Value::Blob(vec![0; 100_000]))]);
        }
        Pusher::attach(&mut store, tenant, "bob", BOB)
    });
    let mut pull = |at: usize| store.snapshot(&readers[at].caller, &readers[at].pull_request(&[]), NOW_MS);
    let mut running: Vec<Snapshot> = (0..8).map(|_| pull(0).unwrap()).collect();
    assert!(matches!(pull(0), Err(StoreError::Busy)));
    running.extend((0..8).map(|_| pull(1).unwrap()));
    assert!(matches!(pull(2), Err(StoreError::Busy)));
    running.pop();
    assert_eq!(Pulled::read(pull(2).unwrap()).updates.len(), 8);
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
