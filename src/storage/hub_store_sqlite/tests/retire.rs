//! Retirement: what remains of agents that are gone, and of rows that died while everyone looked.

use std::collections::HashSet;

use super::*;
use crate::protocol::message::Standing;

const HOUR_MS: i64 = 3_600_000;

pub(super) fn count(store: &SqliteHubStore, table: &str) -> i64 {
    store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Rounds of upkeep until there is nothing to do, at a time after [`NOW_MS`].
pub(super) fn upkeep(store: &mut SqliteHubStore, after_ms: i64, connected: &[ReplicaId]) {
    let connected: HashSet<_> = connected.iter().map(|id| ("acme".to_owned(), *id)).collect();
    let now_ms = NOW_MS + after_ms;
    let upkeep = Upkeep { now_ms, wall_ms: now_ms, agent_ttl_ms: HOUR_MS, connected: &connected };
    while store.upkeep(&upkeep).unwrap() {
        store.commit().unwrap();
    }
    store.commit().unwrap();
    assert_weighed(store);
}

fn attach(store: &mut SqliteHubStore, who: &Pusher, is_new: bool) -> Attached {
    let request = AttachRequest { cursor: who.cursor, is_new, ..attach_request(who.replica) };
    let attached = store.attach(&who.caller, &request, NOW_MS).unwrap();
    store.commit().unwrap();
    attached
}

fn goodbye(store: &mut SqliteHubStore, who: &Pusher) {
    store.retire(&who.caller, &[(who.replica, who.epoch)]).unwrap();
    store.commit().unwrap();
}

fn delete(store: &mut SqliteHubStore, who: &mut Pusher, ms: i64, row: u8) {
    let mut body = who.body("notes", ms, row, &[]);
    body.rows[0].writes = who.write(ms, Op::Delete);
    body.rows[0].is_new = false;
    assert_eq!(who.push(store, body).rejected, vec![]);
}

/// Breaks if whoever takes the beginning of another replica's id writes in its place.
#[test]
fn a_replica_whose_id_begins_as_anothers_takes_another_one() {
    let mut store = store();
    let (alice, mut bob) = two_agents(&mut store);
    for first in [alice.replica.0[0], alice.replica.0[0] ^ 0x80] {
        bob.replica = alice.replica;
        bob.replica.0[0] = first;
        bob.replica.0[15] ^= 1;
        assert_eq!(attach(&mut store, &bob, true).standing, Standing::Retired);
    }
    bob.replica.0[7] ^= 1;
    assert_eq!(attach(&mut store, &bob, true).standing, Standing::Current);
    assert_eq!(attach(&mut store, &alice, false).standing, Standing::Current, "nobody else is disturbed");
}

#[test]
fn an_agent_that_says_goodbye_leaves_its_rows_and_nothing_else() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("kept"))]);
    store.end_session(&alice.caller, 7).unwrap();
    goodbye(&mut store, &alice);
    assert_eq!((count(&store, "replica"), count(&store, "agent")), (1, 0));
    assert_eq!(store.welcome(&alice.caller).unwrap().counter, 0);
    store.end_session(&alice.caller, 8).unwrap();
    assert_eq!(count(&store, "agent"), 0, "what comes late leaves nothing behind");
    assert_eq!(bob.pull(&mut store, &[]).cells[0].2, text("kept").into());
    // A cell of a replica that is gone is still another one's.
    let lost = bob.body("notes", -5, 1, &[("title", text("bob"))]);
    bob.cursor = 0;
    let mut late = lost;
    late.rows[0].writes[0].base = 0;
    assert_eq!(bob.push(&mut store, late).conflicts, 1);
}

#[test]
fn a_replica_that_retired_is_not_let_in_under_its_old_id() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("x"))]);
    let late = alice.request(alice.body("notes", 1, 1, &[("title", text("late"))]));
    goodbye(&mut store, &alice);
    assert_eq!(refusal(store.push(&alice.caller, late, NOW_MS)).0, Refusal::Stale);
    for _ in 0..2 {
        let attached = attach(&mut store, &alice, false);
        assert_eq!((attached.standing, attached.epoch), (Standing::Retired, 0));
    }
    assert_eq!(count(&store, "replica"), 1, "it was asked, and left no trace");
    alice.replica = ReplicaId([0xa2; 16]);
    assert_eq!(attach(&mut store, &alice, true).standing, Standing::Current);
}

#[test]
fn a_goodbye_does_not_retire_a_replica_that_has_attached_again() {
    let mut store = store();
    let (alice, _) = two_agents(&mut store);
    let newer = attach(&mut store, &alice, false);
    goodbye(&mut store, &alice);
    assert_eq!(attach(&mut store, &alice, false).epoch, newer.epoch + 1);
}

#[test]
fn an_agent_retires_when_it_is_silent_for_too_long_or_its_token_ends() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    let request = AttachRequest { token_until_ms: NOW_MS + 10, ..attach_request(BOB) };
    bob.epoch = store.attach(&bob.caller, &request, NOW_MS).unwrap().epoch;
    store.commit().unwrap();
    upkeep(&mut store, 10, &[BOB]);
    assert_eq!(count(&store, "replica"), 2, "whoever is connected may outlive its token");
    upkeep(&mut store, HOUR_MS / 2, &[]);
    assert_eq!(count(&store, "replica"), 1);
    let heard = PullRequest { ..alice.pull_request(&[]) };
    store.snapshot(&alice.caller, &heard, NOW_MS + HOUR_MS / 2).unwrap();
    upkeep(&mut store, HOUR_MS + 1, &[ALICE]);
    assert_eq!(count(&store, "replica"), 1, "it was heard of half an hour ago");
    upkeep(&mut store, HOUR_MS * 3 / 2 + 1, &[ALICE]);
    assert_eq!(count(&store, "replica"), 0, "connected or not");
    alice.cursor = 0;
}

#[test]
fn a_clock_loses_agents_that_retired_however_many() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    bob.set(&mut store, 0, 1, &[("title", text("b"))]);
    assert_eq!(alice.pull(&mut store, &[]).clock, vec![("bob".into(), 1)]);
    goodbye(&mut store, &bob);
    let mut carol = Pusher::attach(&mut store, "acme", "carol", ReplicaId([0xc0; 16]));
    carol.set(&mut store, 1, 2, &[("title", text("c"))]);
    let done = store.snapshot(&alice.caller, &alice.pull_request(&[]), NOW_MS).unwrap().done;
    assert_eq!(done.retired, Some(vec!["bob".into()]));
    for n in 0..300_u16 {
        let mut id = [0xd0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        let mut one = Pusher::attach(&mut store, "acme", &format!("agent {n}"), ReplicaId(id));
        one.set(&mut store, 2, 3, &[("title", text("d"))]);
        goodbye(&mut store, &one);
    }
    assert!(count(&store, "retired") <= 256);
    let done = store.snapshot(&alice.caller, &alice.pull_request(&[]), NOW_MS).unwrap().done;
    assert_eq!((done.retired, done.clock), (None, vec![("carol".into(), 1)]), "who is not named is gone");
    alice.pull(&mut store, &[]);
    carol.set(&mut store, 3, 2, &[("title", text("more"))]);
    let done = store.snapshot(&alice.caller, &alice.pull_request(&[]), NOW_MS).unwrap().done;
    assert!(done.retired.is_some(), "whoever has heard all that needs no list");
}

#[test]
fn a_tombstone_goes_when_every_live_replica_has_reported_that_it_saw_it() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("dies"))]);
    alice.set(&mut store, 0, 2, &[("title", text("lives"))]);
    bob.pull(&mut store, &[]);
    delete(&mut store, &mut alice, 1, 1);
    for _ in 0..2 {
        alice.pull(&mut store, &[]);
    }
    upkeep(&mut store, 0, &[]);
    assert_eq!(count(&store, "row_state"), 2, "bob has not heard of it");
    bob.pull(&mut store, &[]);
    upkeep(&mut store, 0, &[]);
    assert_eq!(count(&store, "row_state"), 2, "it was told, and may not have arrived");
    bob.pull(&mut store, &[]);
    upkeep(&mut store, 0, &[]);
    assert_eq!(count(&store, "row_state"), 1);
    assert_eq!(store.stats().rows, 1);
}

#[test]
fn whoever_was_away_is_told_that_it_is_behind_until_it_has_caught_up() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("dies"))]);
    bob.pull(&mut store, &[]);
    goodbye(&mut store, &bob);
    delete(&mut store, &mut alice, 1, 1);
    for _ in 0..2 {
        alice.pull(&mut store, &[]);
    }
    upkeep(&mut store, 0, &[]);
    assert_eq!(count(&store, "row_state"), 0);
    bob.replica = ReplicaId([0xb2; 16]);
    for is_new in [true, false] {
        let attached = attach(&mut store, &bob, is_new);
        assert_eq!(attached.standing, Standing::Behind, "also if the first answer was lost");
        (bob.epoch, bob.last) = (attached.epoch, (0, Digest::ZERO));
    }
    // Its update of the row has lost; a row of its own goes in.
    let mut update = bob.body("notes", 9, 1, &[("title", text("too late"))]);
    update.rows[0].is_new = false;
    let ack = bob.push(&mut store, update);
    assert_eq!(ack.rejected.len(), 1);
    assert!(ack.rejected[0].1.contains("deleted"), "{ack:?}");
    assert_eq!(bob.set(&mut store, 9, 3, &[("title", text("own"))]).rejected, vec![]);
    delete(&mut store, &mut bob, 9, 1);
    assert_eq!(store.stats().rows, 1);
    bob.pull(&mut store, &["notes"]);
    assert_eq!(attach(&mut store, &bob, false).standing, Standing::Current);
}

#[test]
fn a_replica_that_attached_holds_tombstones_until_it_has_pushed() {
    let mut store = store();
    let (mut alice, bob) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("dies"))]);
    delete(&mut store, &mut alice, 1, 1);
    for _ in 0..2 {
        alice.pull(&mut store, &[]);
    }
    goodbye(&mut store, &bob);
    let mut carol = bob;
    (carol.replica, carol.cursor) = (ReplicaId([0xc0; 16]), alice.cursor);
    carol.epoch = attach(&mut store, &carol, true).epoch;
    upkeep(&mut store, 0, &[]);
    assert_eq!(count(&store, "row_state"), 1, "she may have an edit of it that beats the delete");
    carol.pull(&mut store, &[]);
    upkeep(&mut store, 0, &[]);
    assert_eq!(count(&store, "row_state"), 0);
}

#[test]
fn a_tombstone_stays_as_long_as_something_references_it_and_a_circle_goes_together() {
    let mut store = store();
    let (mut alice, bob) = two_agents(&mut store);
    goodbye(&mut store, &bob);
    let reference = |store: &mut SqliteHubStore, who: &mut Pusher, row: u8, to: u8| {
        let mut body = who.body("notes", 1, row, &[("title", text("x"))]);
        body.rows[0].writes = who.write(1, Op::Set(vec![(0, CellValue::Ref(RowId([to; 16])))]));
        assert_eq!(who.push(store, body).rejected, vec![]);
    };
    alice.set(&mut store, 0, 1, &[("title", text("parent"))]);
    for (row, to) in [(2, 1), (3, 4), (4, 3)] {
        reference(&mut store, &mut alice, row, to);
    }
    let mut left = Vec::new();
    for row in [1, 3, 4, 2] {
        delete(&mut store, &mut alice, 2, row);
        for _ in 0..2 {
            alice.pull(&mut store, &[]);
        }
        upkeep(&mut store, 0, &[]);
        left.push(count(&store, "row_state"));
    }
    assert_eq!(left, [4, 4, 2, 0]);
    assert_eq!(count(&store, "link"), 0);
}

/// A replica's id, or a row's, of this number.
fn numbered(n: u16) -> [u8; 16] {
    let mut id = [0xd0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    id
}

/// What the file says of a replica: its cursor, and how long after [`NOW_MS`] it was heard of.
fn written(store: &SqliteHubStore, who: &Pusher) -> (i64, i64) {
    let sql = "SELECT cursor, seen_ms FROM replica WHERE id = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)? - NOW_MS));
    store.conn.query_row(sql, [&who.replica.0[..]], read).unwrap()
}

/// Breaks if a hub writes for every idle sync, or lets an agent retire that it has heard of.
#[test]
fn who_was_heard_of_without_news_is_written_down_after_an_eighth_of_its_time() {
    let mut store = store();
    let (alice, _) = two_agents(&mut store);
    let patience_ms = HOUR_MS / 8;
    for (heard_ms, written_ms) in
        [(1, 1), (1 + patience_ms, 1), (2 + patience_ms, 2 + patience_ms), (3 + patience_ms, 2 + patience_ms)]
    {
        store.snapshot(&alice.caller, &alice.pull_request(&[]), NOW_MS + heard_ms).unwrap();
        upkeep(&mut store, heard_ms, &[]);
        assert_eq!(written(&store, &alice), (0, written_ms), "{heard_ms}");
    }
}

/// Breaks if a cursor that was written down before an attach lowered it counts as written: tombstones wait for it.
#[test]
fn a_cursor_that_is_reported_again_after_an_attach_is_written_down_again() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    bob.set(&mut store, 0, 1, &[("title", text("x"))]);
    for _ in 0..2 {
        alice.pull(&mut store, &[]);
    }
    let cursor = alice.cursor;
    upkeep(&mut store, 0, &[]);
    assert_eq!(written(&store, &alice).0, cursor.cast_signed());
    alice.cursor = 0;
    alice.epoch = attach(&mut store, &alice, false).epoch;
    assert_eq!(written(&store, &alice).0, 0);
    alice.cursor = cursor;
    alice.pull(&mut store, &[]);
    upkeep(&mut store, 0, &[]);
    assert_eq!(written(&store, &alice).0, cursor.cast_signed());
}

/// Breaks if more than a turn writes down are passed over: they retire although they were heard of.
#[test]
fn nobody_retires_who_was_heard_of_however_many_there_are() {
    let mut store = store();
    for n in 0..201 {
        let one = Pusher::attach(&mut store, "acme", "one", ReplicaId(numbered(n)));
        store.snapshot(&one.caller, &one.pull_request(&[]), NOW_MS + HOUR_MS / 2).unwrap();
    }
    upkeep(&mut store, HOUR_MS + 1, &[]);
    assert_eq!(count(&store, "replica"), 201);
}

/// Breaks if upkeep rests while there are others whose time is over.
#[test]
fn all_retire_whose_time_is_over_however_many_there_are() {
    let mut store = store();
    for n in 0..251 {
        let (seen_ms, token_until_ms) = if n == 0 { (NOW_MS - HOUR_MS, i64::MAX) } else { (NOW_MS, NOW_MS) };
        let request = AttachRequest { token_until_ms, ..attach_request(ReplicaId(numbered(n))) };
        store.attach(&caller("acme", "one"), &request, seen_ms).unwrap();
    }
    store.commit().unwrap();
    upkeep(&mut store, 1, &[]);
    assert_eq!(count(&store, "replica"), 0);
}

#[test]
fn whoever_claims_to_be_known_to_a_tenant_that_nobody_knows_makes_none() {
    let mut store = store();
    let request = AttachRequest { is_new: false, ..attach_request(ALICE) };
    let attached = store.attach(&caller("acme", "alice"), &request, NOW_MS).unwrap();
    store.commit().unwrap();
    assert_eq!((attached.standing, store.stats().tenants), (Standing::Retired, 0));
}

#[test]
fn a_replica_that_comes_back_under_another_name_leaves_nothing_under_the_old_one() {
    let mut store = store();
    let (mut alice, _) = two_agents(&mut store);
    alice.set(&mut store, 0, 1, &[("title", text("x"))]);
    alice.caller = caller("acme", "alice again");
    attach(&mut store, &alice, false);
    assert_eq!(count(&store, "agent"), 0);
}

/// Breaks if a round passes over dead rows: agents are told that all up to there are gone, and forget that they are dead.
#[test]
fn a_round_collects_all_that_can_go_however_many_there_are() {
    let mut store = store();
    let (mut alice, bob) = two_agents(&mut store);
    goodbye(&mut store, &bob);
    // Each of the later half references one of the earlier half.
    let named = |n: u16| match n.checked_sub(250) {
        Some(parent) => CellValue::Ref(RowId(numbered(parent))),
        None => text("parent").into(),
    };
    for is_delete in [false, true] {
        let mut body = alice.body("notes", 0, 1, &[("title", Value::Null)]);
        let change = body.rows.remove(0);
        body.rows.extend((0..500).map(|n| {
            let op = if is_delete { Op::Delete } else { Op::Set(vec![(0, named(n))]) };
            let writes = alice.write(i64::from(is_delete), op);
            RowChange { id: RowId(numbered(n)), is_new: !is_delete, writes, ..change.clone() }
        }));
        assert_eq!(alice.push(&mut store, body).rejected, []);
        alice.pull(&mut store, &[]);
    }
    alice.pull(&mut store, &[]);
    assert_eq!(count(&store, "row_state"), 500);
    upkeep(&mut store, 0, &[]);
    assert_eq!(count(&store, "row_state"), 0);
}
