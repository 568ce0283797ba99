//! Rows that the hub, or the agent, does not take: they stay what they are, and go out once they can.

use federation_hub::model::Value;
use federation_hub::storage::hub_store_sqlite::{SqliteHubStore, StoreLimits};

use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub, pair};

const NOTES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body BLOB)";
const ALL: &str = "SELECT id, title, length(body) FROM notes ORDER BY id";

fn with_row_bytes(hub: Hub, row_bytes: usize) -> Hub {
    let Hub { store, clock, listener } = hub;
    let store: SqliteHubStore = store.within(StoreLimits { row_bytes, ..StoreLimits::default() });
    Hub { store, clock, listener }
}

/// A hub that takes rows of 1,024 bytes, and two agents.
fn small() -> (Hub, Agent, Agent) {
    let (hub, mut a, mut b) = pair(NOTES);
    (a.bears_rejection, b.bears_rejection) = (true, true);
    (with_row_bytes(hub, 1_024), a, b)
}

/// Syncs often enough for the self-check to see all rows, which finds nothing to heal and has nothing rejected.
fn at_rest(hub: &mut Hub, agents: &mut [&mut Agent]) {
    for _ in 0..20 {
        for agent in &mut *agents {
            let counts = agent.sync(hub);
            assert_eq!((counts.healed, counts.rejected, counts.pushed), (0, 0, 0), "{:?}", agent.notices);
        }
    }
}

/// Breaks if a row counts as the hub's once a batch that carried it is acknowledged, although the hub refused the row.
#[test]
fn a_row_that_was_refused_as_too_large_goes_out_once_it_fits() {
    let (mut hub, mut a, mut b) = small();
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO notes VALUES(1, 'large', zeroblob(2000)), (2, 'small', x'00')");
    assert_eq!(a.sync(&mut hub).rejected, 1);
    b.sync(&mut hub);
    at_rest(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(b.rows("SELECT title FROM notes"), [[text("small")]]);
    a.run("UPDATE notes SET body = zeroblob(1900) WHERE id = 1");
    assert_eq!(a.sync(&mut hub).rejected, 1);
    at_rest(&mut hub, &mut [&mut a, &mut b]);
    a.run("UPDATE notes SET body = zeroblob(500) WHERE id = 1");
    let counts = a.sync(&mut hub);
    assert_eq!((counts.rejected, counts.pushed), (0, 1), "{:?}", a.notices);
    b.sync(&mut hub);
    assert_eq!(
        b.rows("SELECT title, length(body) FROM notes WHERE title = 'large'"),
        [[text("large"), Value::Integer(500)]]
    );
    at_rest(&mut hub, &mut [&mut a, &mut b]);
}

#[test]
fn an_update_that_was_refused_as_too_large_goes_out_once_it_fits_and_is_never_healed() {
    let (mut hub, mut a, mut b) = small();
    a.run("INSERT INTO notes VALUES(1, 'small', x'00')").sync(&mut hub);
    b.sync(&mut hub);
    a.run("UPDATE notes SET title = 'grown', body = zeroblob(2000)");
    assert_eq!(a.sync(&mut hub).rejected, 1);
    at_rest(&mut hub, &mut [&mut a, &mut b]);
    let of = |agent: &mut Agent| agent.rows("SELECT title, length(body) FROM notes");
    assert_eq!(of(&mut a), [[text("grown"), Value::Integer(2_000)]]);
    assert_eq!(of(&mut b), [[text("small"), Value::Integer(1)]]);
    a.run("UPDATE notes SET body = zeroblob(500)").sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(of(&mut b), [[text("grown"), Value::Integer(500)]]);
    assert_eq!(of(&mut a), of(&mut b));
    at_rest(&mut hub, &mut [&mut a, &mut b]);
}

/// Breaks if what somebody else does to a refused row counts for less than what its author does.
#[test]
fn an_update_that_was_refused_goes_out_when_somebody_else_makes_room_for_it() {
    let (mut hub, mut a, mut b) = small();
    a.run("INSERT INTO notes VALUES(1, 'small', zeroblob(900))").sync(&mut hub);
    b.sync(&mut hub);
    a.run("UPDATE notes SET title = printf('%.200c', 'x')");
    assert_eq!(a.sync(&mut hub).rejected, 1);
    b.run("UPDATE notes SET body = x'01'").sync(&mut hub);
    for _ in 0..2 {
        a.sync(&mut hub);
        b.sync(&mut hub);
    }
    let of = |agent: &mut Agent| agent.rows("SELECT length(title), length(body) FROM notes");
    assert_eq!(of(&mut b), [[200, 1].map(Value::Integer)]);
    assert_eq!(of(&mut a), of(&mut b));
}

#[test]
fn a_row_that_was_refused_and_deleted_is_nobodys() {
    let (mut hub, mut a, mut b) = small();
    a.run("INSERT INTO notes VALUES(1, 'large', zeroblob(2000))").sync(&mut hub);
    a.run("DELETE FROM notes").sync(&mut hub);
    b.sync(&mut hub);
    at_rest(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!((a.rows(ALL).len(), b.rows(ALL).len()), (0, 0));
}

/// Breaks if an agent waits for the application where its hub has come to take more.
#[test]
fn refused_rows_are_offered_to_a_hub_that_was_started_again_with_a_higher_limit() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::remove_file(&path).unwrap();
    let open = |seed: u8, row_bytes: usize| {
        let mut hub = Hub::new();
        hub.store =
            SqliteHubStore::open(path.to_str().unwrap(), federation_hub::model::ReplicaId([seed; 16]))
                .unwrap()
                .within(StoreLimits { row_bytes, ..StoreLimits::default() });
        hub
    };
    let (_, mut a, mut b) = small();
    let mut hub = open(1, 1_024);
    a.sync(&mut hub);
    a.run("INSERT INTO notes VALUES(1, 'large', zeroblob(2000))");
    assert_eq!(a.sync(&mut hub).rejected, 1);
    drop(hub);
    let mut hub = open(2, 4_096);
    a.reconnect();
    let counts = a.sync(&mut hub);
    assert_eq!((counts.rejected, counts.pushed), (0, 1));
    b.sync(&mut hub);
    assert_eq!(a.rows(ALL), b.rows(ALL));
}

/// Breaks if an agent that was never told that the hub refused a row believes that the hub has it.
#[test]
fn a_row_whose_refusal_got_lost_on_its_way_goes_out_once_it_fits() {
    let (mut hub, mut a, mut b) = small();
    a.sync(&mut hub);
    a.run("INSERT INTO notes VALUES(1, 'one', x'00')").sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO notes VALUES(2, 'large', zeroblob(2000)); UPDATE notes SET body = zeroblob(3000) WHERE id = 1");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    at_rest(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(
        a.rows(ALL),
        [
            [Value::Integer(1), text("one"), Value::Integer(3_000)],
            [Value::Integer(2), text("large"), Value::Integer(2_000)]
        ]
    );
    a.run("UPDATE notes SET body = zeroblob(500)");
    let counts = a.sync(&mut hub);
    assert_eq!((counts.rejected, counts.pushed), (0, 2), "{:?}", a.notices);
    b.sync(&mut hub);
    assert_eq!(a.rows(ALL), b.rows(ALL));
    at_rest(&mut hub, &mut [&mut a, &mut b]);
}

/// Breaks if a row that this agent does not even send counts as sent with the next batch.
#[test]
fn a_row_beyond_the_agents_own_limit_goes_out_once_it_fits() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.sync(&mut hub);
    a.limits.row_bytes = 1_024;
    a.run("INSERT INTO notes VALUES(1, 'large', zeroblob(2000))").sync(&mut hub);
    a.run("INSERT INTO notes VALUES(2, 'small', x'00')").sync(&mut hub);
    for _ in 0..20 {
        assert_eq!(a.sync(&mut hub).healed, 0);
    }
    b.sync(&mut hub);
    assert_eq!(b.rows("SELECT title FROM notes"), [[text("small")]]);
    a.run("UPDATE notes SET body = x'01' WHERE id = 1").sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(
        b.rows("SELECT title, length(body) FROM notes WHERE title = 'large'"),
        [[text("large"), Value::Integer(1)]]
    );
    at_rest(&mut hub, &mut [&mut a, &mut b]);
}
