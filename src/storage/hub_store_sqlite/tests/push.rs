//! Batches.

use super::*;
use crate::model::Rule;
use crate::protocol::limits::MAX_CONTEST_BYTES;

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

    let (reason, message) = refusal(store.push(&alice.caller, other.clone(), NOW_MS));
    assert_eq!(reason, Refusal::Stale);
    assert!(message.contains("with other content"), "{message}");
    other.n = 2;
    other.previous = Digest([8; 32]);
    let (reason, message) = refusal(store.push(&alice.caller, other, NOW_MS));
    assert_eq!(reason, Refusal::Stale);
    assert!(message.contains("does not follow"), "{message}");
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
fn stamps_from_the_future_are_refused_and_time_never_runs_backwards() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    let early = alice.request(alice.body("notes", 61_000, 1, &[("title", text("future"))]));
    let (reason, message) = refusal(store.push(&alice.caller, early, NOW_MS));
    assert_eq!(reason, Refusal::Clock);
    assert!(message.contains("1700000061000") && message.contains("1700000000000"), "{message}");
    alice.set(&mut store, 60_000, 1, &[("title", text("ahead"))]);
    // Whoever has seen that stamps above it, however far ahead it is by then; and no further.
    alice.set(&mut store, 60_001, 1, &[("title", text("above"))]);
    let further = alice.request(alice.body("notes", 60_003, 1, &[("title", text("further"))]));
    let (reason, message) = refusal(store.push(&alice.caller, further, NOW_MS));
    assert_eq!(reason, Refusal::Clock, "the lead adds up: {message}");
    let done = store.snapshot(&alice.caller, &alice.pull_request(&[]), NOW_MS).unwrap().done;
    assert_eq!(done.hub_now_ms, NOW_MS, "an agent that is ahead puts nobody's clock forward");
    assert_eq!(done.highest.ms(), NOW_MS.unsigned_abs() + 60_001);
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
fn a_row_of_just_the_largest_size_is_taken() {
    let mut store = store().within(StoreLimits { row_bytes: 1000, ..StoreLimits::default() });
    let (mut alice, _) = two_agents(&mut store);
    let mut is_taken = |bytes: usize| {
        let ack = alice.set(&mut store, 0, 1, &[("body", Value::Blob(vec![0; bytes - 48]))]);
        ack.rejected.is_empty()
    };
    assert!(!is_taken(1001));
    assert!(is_taken(1000));
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

/// Breaks if a tenant whose deleted rows take all the room can free none, or can go on making rows that it deletes.
#[test]
fn a_batch_of_nothing_but_deletes_is_taken_however_much_waits_of_deleted_rows() {
    let mut store = store().within(StoreLimits { tenant_bytes: 100, ..StoreLimits::default() });
    let (mut alice, _) = two_agents(&mut store);
    for row in 1..4 {
        let mut body = alice.body("notes", 0, row, &[]);
        body.rows[0].writes = alice.write(1, Op::Delete);
        alice.push(&mut store, body);
    }
    let mut body = alice.body("notes", 2, 4, &[("title", text("made"))]);
    body.rows[0].writes.extend(alice.write(3, Op::Delete));
    let made_and_deleted = alice.request(body);
    let (reason, message) = refusal(store.push(&alice.caller, made_and_deleted, NOW_MS));
    assert_eq!(reason, Refusal::Full);
    assert!(message.contains("with deleted ones"), "{message}");
}

#[test]
fn what_somebody_is_to_resolve_is_told_as_far_as_there_is_room_for_both_values() {
    for (bytes, contests) in [(MAX_CONTEST_BYTES - 150, 1), (MAX_CONTEST_BYTES - 149, 0)] {
        let mut store = store();
        let (mut alice, mut bob) = two_agents(&mut store);
        let mut notes = schema("notes", KeyKind::Natural, &["title", "body"]);
        notes.agreed.rules = vec![("body".into(), Rule::Resolver)];
        alice.register(&mut store, vec![notes]);
        alice.set(&mut store, 0, 1, &[("body", Value::Blob(vec![1; 50]))]);
        let ack = bob.set(&mut store, 1, 1, &[("body", Value::Blob(vec![2; bytes]))]);
        assert_eq!((ack.conflicts, ack.contests.len()), (1, contests));
        assert!(ack.contests.iter().all(|it| it.agent == "alice"), "{:?}", ack.contests);
    }
}

/// Breaks if a row that was not taken is taken for one that is there.
#[test]
fn a_change_of_a_row_that_the_same_batch_could_not_make_is_rejected() {
    let mut store = store().within(StoreLimits { row_bytes: 1000, ..StoreLimits::default() });
    let (mut alice, mut bob) = two_agents(&mut store);
    let mut body = alice.body("notes", 0, 1, &[("body", Value::Blob(vec![0; 1000]))]);
    let mut change = alice.body("notes", 1, 1, &[("body", Value::Null)]).rows.remove(0);
    change.is_new = false;
    body.rows.push(change);
    let rejected: Vec<u32> = alice.push(&mut store, body).rejected.iter().map(|(row, _)| *row).collect();
    assert_eq!(rejected, [0, 1]);
    assert_eq!(bob.pull(&mut store, &[]).updates, []);
}
