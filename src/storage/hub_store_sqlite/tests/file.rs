//! The file, what survives, and what keeps others out of it.

use std::collections::HashSet;

use super::*;

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
    assert_eq!(store.incarnation(), ReplicaId([2; 16]));
    assert_eq!(store.stats(), StoreStats { tenants: 1, rows: 1 });
    let attached = store.attach(&alice.caller, &attach_request(ALICE), NOW_MS).unwrap();
    assert_eq!((attached.epoch, attached.last), (2, Some(alice.last)));
    assert_eq!(attached.past, [(ReplicaId([1; 16]), 2)], "it knows how far it came");
    let welcomed = store.welcome(&alice.caller).unwrap();
    assert_eq!((welcomed.counter, welcomed.highest), (1, Hlc::from_ms(NOW_MS)));
    let mut bob = Pusher::attach(&mut store, "acme", "bob", BOB);
    assert_eq!(bob.pull(&mut store, &[]).cells[0].2, text("kept").into());
}

#[test]
fn the_time_that_was_kept_is_there_after_reopening_and_never_less() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let open = || SqliteHubStore::open(path.to_str().unwrap(), ReplicaId([1; 16])).unwrap();
    let mut store = open();
    assert_eq!(store.kept_time_ms(), 0);
    for (now_ms, expected) in [(5_000, 5_000), (4_000, 5_000)] {
        store.keep_time(now_ms).unwrap();
        store.commit().unwrap();
        drop(store);
        store = open();
        assert_eq!(store.kept_time_ms(), expected);
    }
}

#[test]
fn a_store_knows_its_last_incarnations_and_where_each_ended() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let alice = Caller { tenant: "acme".into(), agent: "alice".into() };
    let limit = u8::try_from(MAX_PAST_INCARNATIONS).unwrap();
    for opening in 0..limit + 4 {
        let mut store = SqliteHubStore::open(path.to_str().unwrap(), ReplicaId([opening; 16])).unwrap();
        let past = store.attach(&alice, &attach_request(ALICE), NOW_MS).unwrap().past;
        let asked = store.attach(&alice, &attach_request(BOB), NOW_MS).unwrap();
        assert_eq!(asked.past, past, "whoever asks");
        // One position is given away in each.
        let expected = (opening.saturating_sub(limit)..opening).rev();
        let expected: Vec<_> = expected.map(|it| (ReplicaId([it; 16]), u64::from(it) + 1)).collect();
        assert_eq!(past, expected);
        store.conn.execute("UPDATE tenant SET seq = seq + 1", []).unwrap();
        store.commit().unwrap();
    }
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
    assert!(matches!(pushed.and_then(|()| store.commit()), Err(StoreError::NoRoom(_))));
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

/// Breaks if a backup holds no snapshot: each commit then has it begin again.
#[test]
fn a_backup_is_complete_after_one_walk_however_often_the_store_is_written_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mut store = SqliteHubStore::open(path("hub.db").to_str().unwrap(), ReplicaId([1; 16])).unwrap();
    let (mut alice, _) = two_agents(&mut store);
    for row in 1..=4 {
        alice.set(&mut store, 0, row, &[("body", Value::Blob(vec![row; 1_000_000]))]);
    }
    let source = store.backup_source().unwrap();
    let mut steps = 0;
    let copied = source.copy(&path("backup.db"), &mut || {
        steps += 1;
        alice.set(&mut store, steps, 5, &[("title", text("meanwhile"))]);
        steps < 20
    });
    assert!(copied.is_ok(), "{copied:?} after {steps} steps");
    drop(store);
    let copy = SqliteHubStore::open(path("backup.db").to_str().unwrap(), ReplicaId([2; 16])).unwrap();
    assert_eq!(copy.stats().rows, 4, "of one moment, before the others wrote");
}

/// Breaks if what a group wrote down that failed counts as written: tombstones wait for whoever saw them long ago.
#[test]
fn who_was_heard_of_is_written_down_again_after_a_group_that_failed() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("x"))]);
    for _ in 0..2 {
        alice.pull(&mut store, &[]);
    }
    let connected = HashSet::new();
    let upkeep = Upkeep { now_ms: NOW_MS, wall_ms: NOW_MS, agent_ttl_ms: 3_600_000, connected: &connected };
    let written = |store: &SqliteHubStore| -> i64 {
        store.conn.query_row("SELECT max(cursor) FROM replica", [], |row| row.get(0)).unwrap()
    };
    store.upkeep(&upkeep).unwrap();
    assert_eq!(written(&store), alice.cursor.cast_signed());
    store.give_up();
    assert_eq!(written(&store), 0);
    // Whoever syncs is heard of again.
    alice.pull(&mut store, &[]);
    store.upkeep(&upkeep).unwrap();
    store.commit().unwrap();
    assert_eq!(written(&store), alice.cursor.cast_signed());
}
