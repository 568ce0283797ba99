//! One pull reads one point of the tenant's order, and what it brings is whole (invariant I14).

use super::newcomer;
use crate::world::Hub;
use federation_hub::model::{ReplicaId, Value};
use federation_hub::protocol::hub_request::{AttachRequest, Caller, PullRequest};
use federation_hub::storage::apply::Incoming;
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;

const TEAMS: &str = "CREATE TABLE teams(id TEXT PRIMARY KEY);
                     CREATE TABLE members(id INTEGER PRIMARY KEY, team TEXT REFERENCES teams(id), life TEXT)";
const SIDES: &str = "SELECT DISTINCT team FROM members";

/// The chunks of a large pull are of one point, although others push between them.
///
/// Without the read transaction that the rest of a pull is read in, half of the members were told as blue before
/// anybody told of a blue team: rows were set aside, and the cursor was below rows that had been told.
#[test]
fn a_large_pull_is_of_one_point_while_others_push() {
    let directory = tempfile::tempdir().unwrap();
    let mut hub = Hub::new();
    let path = directory.path().join("hub.db");
    hub.store = SqliteHubStore::open(path.to_str().unwrap(), ReplicaId([1; 16])).unwrap();
    let (mut a, mut b) = (newcomer(1), newcomer(2));
    a.run(TEAMS).run("INSERT INTO teams VALUES('red')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 40)
           INSERT INTO members SELECT n, 'red', replace(hex(zeroblob(10000)), '0', 'x') FROM n",
    );
    a.sync(&mut hub);

    let caller = Caller { tenant: "acme".into(), agent: "agent 2".into() };
    let Value::Blob(bytes) = super::replica(&mut b) else { panic!("no replica") };
    let replica = ReplicaId::from_slice(&bytes).unwrap();
    let request =
        AttachRequest { replica, cursor: 0, is_new: true, token_until_ms: i64::MAX, incarnation: None };
    let epoch = hub.store.attach(&caller, &request, hub.clock.now_ms()).unwrap().epoch;
    hub.store.commit().unwrap();
    let cursor = 3;
    let request = PullRequest { replica, epoch, cursor, resume: cursor, refresh: vec![] };
    let snapshot = hub.store.snapshot(&caller, &request, hub.clock.now_ms()).unwrap();
    a.run("PRAGMA foreign_keys = ON; INSERT INTO teams VALUES('blue')");
    a.run("UPDATE members SET team = 'blue'; DELETE FROM teams WHERE id = 'red'").sync(&mut hub);
    let mut chunks = vec![snapshot.first];
    let mut rest = snapshot.rest.expect("it is a large one");
    while let Some(chunk) = rest.next_chunk().unwrap() {
        chunks.push(chunk);
    }
    drop(rest);
    assert!(chunks.len() > 2);
    assert!(chunks.iter().flat_map(|chunk| &chunk.rows).all(|row| row.seq <= snapshot.done.cursor));
    let last = chunks.len() - 1;
    for (at, rows) in chunks.into_iter().enumerate() {
        let done = (at == last).then(|| snapshot.done.clone());
        b.apply(&Incoming { rows, done, ..Incoming::default() });
        assert_eq!(b.rows("PRAGMA foreign_key_check"), Vec::<Vec<Value>>::new());
    }
    assert_eq!(b.rows(SIDES), [["red".to_owned()].map(Value::Text).to_vec()]);
    assert_eq!(b.rows("SELECT count(*) FROM _federation_quarantine"), [[Value::Integer(0)]]);
    b.reconnect();
    b.sync(&mut hub);
    assert_eq!(b.rows(SIDES), [["blue".to_owned()].map(Value::Text).to_vec()]);
    assert_eq!(b.rows("SELECT count(*) FROM members"), [[Value::Integer(40)]]);
}
