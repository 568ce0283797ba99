//! Declarations that are large: taken in in pieces, and only as far as the tenant has room.

use super::retire::{count, upkeep};
use super::*;
use crate::protocol::limits::MAX_COLUMNS;
use crate::protocol::message::Standing;

/// More than are looked at at once.
const ROWS: u16 = 1_300;

fn many(prefix: &str, tables: usize, columns: usize) -> Vec<TableSchema> {
    let names: Vec<String> = (0..columns).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    (0..tables).map(|n| schema(&format!("{prefix}{n}"), KeyKind::Natural, &names)).collect()
}

fn request(who: &Pusher, schema: Vec<TableSchema>) -> RegisterRequest {
    RegisterRequest { replica: who.replica, epoch: who.epoch, schema, may_define: true, cursor: 0 }
}

/// One piece, as one group of the store's thread. Says whether there is more.
fn piece(store: &mut SqliteHubStore, who: &Pusher, request: &RegisterRequest, state: &mut Declaring) -> bool {
    let more = store.declare(&who.caller, request, state).unwrap();
    store.commit().unwrap();
    assert_weighed(store);
    more
}

fn refusals(who: &Pusher, store: &mut SqliteHubStore) -> Vec<(String, String)> {
    store.snapshot(&who.caller, &who.pull_request(&[]), NOW_MS).unwrap().done.refused
}

/// Breaks if one declaration keeps the store's thread as long as all of its tables take, or if others see half a table.
#[test]
fn many_tables_are_taken_in_in_pieces_between_which_everything_is_whole() {
    let mut store = store();
    let (alice, mut bob) = two_agents(&mut store);
    let mut elsewhere = Pusher::attach(&mut store, "globex", "eve", ReplicaId([0xee; 16]));
    elsewhere.register(&mut store, vec![schema("notes", KeyKind::Natural, &["title"])]);
    let mut schemas = many("t", 60, 5);
    schemas[59].indexes.push("CREATE INDEX by_c1 ON t59(c1)".into());
    schemas.push(schema("notes", KeyKind::Natural, &["title", "body"]));
    let (request, mut state) = (request(&alice, schemas.clone()), Declaring::default());
    let mut known = Vec::new();
    for row in 1.. {
        let more = piece(&mut store, &alice, &request, &mut state);
        elsewhere.set(&mut store, 0, row, &[("title", text("between"))]);
        let told = bob.pull(&mut store, &[]).tables;
        assert!(told.len() <= 40, "a piece is small: {}", told.len());
        assert!(told.iter().all(|table| !table.ddl.is_empty()), "{told:?}");
        known.extend(told.into_iter().map(|table| table.name));
        if !more {
            break;
        }
    }
    assert!(state.pieces > 2, "{}", state.pieces);
    known.sort_unstable();
    known.dedup();
    assert_eq!(known.len(), 61);
    assert_eq!((count(&store, "declaration"), count(&store, "definition")), (2, 63), "with those of globex");
    let mut carol = Pusher::attach(&mut store, "acme", "carol", ReplicaId([0xc0; 16]));
    assert_eq!(carol.pull(&mut store, &[]).tables.len(), 61);
    let mut again = Declaring::default();
    while piece(&mut store, &alice, &request, &mut again) {}
    assert_eq!((count(&store, "declaration"), count(&store, "definition")), (2, 63), "with those of globex");
    assert_eq!(bob.pull(&mut store, &[]).tables, [], "what was declared before is no news");
}

/// Breaks if what no table may have is compared, name by name, before it is refused.
#[test]
fn what_is_too_large_costs_a_look_at_its_size() {
    let mut store = store();
    let (alice, mut bob) = two_agents(&mut store);
    bob.pull(&mut store, &[]);
    let mut widest = many("t", 1, MAX_COLUMNS + 99).remove(0);
    widest.ddl.clear();
    let schemas = (0..1_000).map(|n| TableSchema { name: format!("t{n}"), ..widest.clone() }).collect();
    let (request, mut state) = (request(&alice, schemas), Declaring::default());
    while piece(&mut store, &alice, &request, &mut state) {}
    assert!(state.pieces <= 4, "{}", state.pieces);
    let refused = refusals(&alice, &mut store);
    assert_eq!(refused.len(), 1_000);
    assert!(refused.iter().all(|(_, why)| why.contains("1900 columns")), "{:?}", refused[0]);
    assert_eq!(bob.pull(&mut store, &[]).tables, []);
}

/// Breaks if one agent takes names and columns without end, or if what is left out is not said, or takes others with it.
#[test]
fn tables_and_columns_beyond_the_tenants_are_left_out_and_everything_else_goes_on() {
    let mut store = store().within(StoreLimits { tables: 3, columns: 12, ..StoreLimits::default() });
    let (mut alice, mut bob) = two_agents(&mut store);
    let mut schemas = many("t", 4, 3);
    schemas.push(schema("notes", KeyKind::Natural, &["title", "body"]));
    alice.register(&mut store, schemas);
    let refused = refusals(&alice, &mut store);
    assert_eq!(refused.iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["t2", "t3"]);
    assert_eq!(refused[0].1, refused[1].1, "one notice for both");
    assert!(refused[0].1.contains("3 tables") && refused[0].1.contains("maxTablesPerTenant"), "{refused:?}");

    // 8 columns so far.
    let wide: Vec<String> = (0..5).map(|n| format!("wide{n}")).collect();
    let mut columns = vec!["title", "body"];
    columns.extend(wide.iter().map(String::as_str));
    bob.register(&mut store, vec![schema("notes", KeyKind::Natural, &columns)]);
    let refused = refusals(&bob, &mut store);
    assert!(refused[0].0 == "notes" && refused[0].1.contains("maxColumnsPerTenant"), "{refused:?}");
    bob.register(&mut store, vec![schema("notes", KeyKind::Natural, &columns[..6])]);
    assert_eq!(refusals(&bob, &mut store), []);
    let ack = alice.set(&mut store, 0, 1, &[("title", text("t")), ("another", Value::Null)]);
    assert!(ack.rejected[0].1.contains("maxColumnsPerTenant"), "{ack:?}");
    assert_eq!(alice.set(&mut store, 0, 1, &[("title", text("t"))]).rejected, []);
    assert_eq!(bob.pull(&mut store, &[]).cells.len(), 1);
}

/// Breaks if definitions of a declaration that was not taken in whole are remembered for ever.
#[test]
fn a_declaration_that_ends_halfway_leaves_nothing_behind() {
    let mut store = store();
    let (alice, _) = two_agents(&mut store);
    let (all, mut state) = (request(&alice, many("t", 60, 5)), Declaring::default());
    assert!(piece(&mut store, &alice, &all, &mut state));
    let held = count(&store, "definition");
    assert!(held > 1 && count(&store, "declaration") == 2);
    // The next session of the replica has none of them any more.
    let alice = Pusher { epoch: 2, ..Pusher::attach(&mut store, "acme", "alice", ALICE) };
    assert!(store.declare(&alice.caller, &all, &mut state).is_err(), "the session is another one");
    alice.register(&mut store, vec![schema("notes", KeyKind::Natural, &["title", "body"])]);
    assert_eq!((count(&store, "declaration"), count(&store, "definition")), (1, 1));

    // Neither has a replica that retires.
    let mut state = Declaring::default();
    let all = RegisterRequest { epoch: 2, ..all };
    assert!(piece(&mut store, &alice, &all, &mut state));
    store.retire(&alice.caller, &[(ALICE, 2)]).unwrap();
    upkeep(&mut store, 0, &[]);
    assert_eq!((count(&store, "declaration"), count(&store, "definition")), (0, 0));
}

/// Breaks if a rule that comes to a table of many rows keeps the store's thread until all of them are looked at, or passes
/// over some.
#[test]
fn rows_under_a_new_rule_are_looked_at_in_pieces() {
    let mut store = store();
    let (mut alice, mut bob) = two_agents(&mut store);
    for at in 0..ROWS {
        let mut body = alice.body(
            "notes",
            0,
            1,
            &[("title", text(&format!("t{at}"))), ("body", text(&format!("b{at}")))],
        );
        body.rows[0].id.0[..2].copy_from_slice(&at.to_be_bytes());
        alice.push(&mut store, body);
    }
    let claims = count(&store, "claim");
    let mut unique = schema("notes", KeyKind::Natural, &["title", "body"]);
    unique.indexes.push("CREATE UNIQUE INDEX by_body ON notes(body)".into());
    let (request, mut state) = (request(&alice, vec![unique]), Declaring::default());
    let mut looked_at = vec![0];
    while piece(&mut store, &alice, &request, &mut state) {
        looked_at.push(count(&store, "claim") - claims);
    }
    looked_at.push(count(&store, "claim") - claims);
    assert_eq!(*looked_at.last().unwrap(), i64::from(ROWS));
    assert!(looked_at.windows(2).all(|it| it[1] - it[0] <= 500), "{looked_at:?}");
    // Who takes the value of a row that is there waits, whichever piece that one was in.
    bob.pull(&mut store, &[]);
    for (row, taken) in [(1, "b0"), (2, "b1299")] {
        let mut body = bob.body("notes", 9, 1, &[("title", text(taken)), ("body", text(taken))]);
        body.rows[0].id.0[15] = row;
        assert_eq!(bob.push(&mut store, body).notices.len(), 1, "{taken}");
    }
}

/// Breaks if one agent fills its tenant with replicas, at the cost of the others.
#[test]
fn an_agent_with_very_many_replicas_loses_its_oldest_and_nobody_else_does() {
    let mut store = store().within(StoreLimits { replicas: 20, ..StoreLimits::default() });
    let (mut alice, mut bob) = two_agents(&mut store);
    for n in 1..=100 {
        let mallory = Pusher::attach(&mut store, "acme", "mallory", ReplicaId([n; 16]));
        mallory.register(&mut store, many("m", 1, 2));
        assert!(count(&store, "replica") <= 20);
        assert_weighed(&store);
    }
    alice.set(&mut store, 0, 1, &[("title", text("still here"))]);
    assert_eq!(bob.pull(&mut store, &[]).cells.len(), 1);
    let mut attach = |id: u8| {
        let request = AttachRequest { is_new: false, ..attach_request(ReplicaId([id; 16])) };
        store.attach(&caller("acme", "mallory"), &request, NOW_MS).unwrap().standing
    };
    assert_eq!((attach(1), attach(100)), (Standing::Retired, Standing::Current));
}
