//! Hubs that die, lose everything, or come back from a backup; databases of another tenant (invariants I13, I15,
//! I16).

use std::path::PathBuf;

use super::{MEMORY, NOTES, USES, all_sync, counting, memories, newcomer, replica, titles, uses};
use crate::retirement::{retire_all, upkeep};
use crate::world::{Agent, Counts, Fate, Hub};
use federation_hub::model::{ReplicaId, Value};
use federation_hub::protocol::frame::decode_payload;
use federation_hub::protocol::hub_request::{AttachRequest, Caller, PullRequest, PushRequest};
use federation_hub::storage::apply::Incoming;
use federation_hub::storage::attach::{TurnError, open};
use federation_hub::storage::detach::detach;
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;
use tempfile::TempDir;

/// A hub whose store is a file.
struct Site {
    directory: TempDir,
    openings: u8,
}

impl Site {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), openings: 0 }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("hub.db")
    }

    /// Starts a hub. Any one before it must be gone.
    fn start(&mut self) -> Hub {
        self.openings += 1;
        let mut hub = Hub::new();
        let identity = ReplicaId([self.openings; 16]);
        hub.store = SqliteHubStore::open(self.path().to_str().unwrap(), identity).unwrap();
        hub
    }

    /// A backup of the store, as SQLite makes it while the hub runs.
    fn backup(&self) -> PathBuf {
        let copy = self.directory.path().join("backup.db");
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        copy
    }

    /// Puts a backup in the store's place, with the hub stopped.
    fn restore(&self, backup: &PathBuf) {
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", self.path().display()));
        }
        std::fs::copy(backup, self.path()).unwrap();
    }
}

/// Two agents that know one note and one skill, and their hub.
fn sited() -> (Site, Hub, Agent, Agent) {
    let mut site = Site::new();
    let mut hub = site.start();
    let (mut a, mut b) = (newcomer(1), newcomer(2));
    a.run(MEMORY).run("INSERT INTO notes VALUES('x', 'one')").run("INSERT INTO skills VALUES('retry', 10)");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    (site, hub, a, b)
}

fn reconnect(agents: &mut [&mut Agent]) {
    for agent in agents {
        agent.reconnect();
    }
}

/// If the agent sent again what it had no answer to, the increment counted twice.
#[test]
fn a_hub_that_dies_between_commit_and_acknowledgement_counts_once() {
    let (mut site, mut hub, mut a, mut b) = sited();
    a.run("INSERT INTO notes VALUES('y', 'two')").run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    drop(hub);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b]);
    let pushed = a.sync(&mut hub).pushed;
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!((titles(&mut b).len(), uses(&mut b)), (2, Value::Integer(11)));
    assert_eq!(pushed, 2, "the hub has them, and the agent learns of it only now");
}

/// If what was under way were not unsent again, the row and the increment would stay with their author. That nothing
/// is answered before it is durable is shown by the tests of `engine/writer.rs`, and those of its crashes by
/// `tests/simulation`.
#[test]
fn a_hub_that_dies_before_it_commits_has_shown_nothing_and_gets_it_again() {
    let (mut site, mut hub, mut a, mut b) = sited();
    a.run("INSERT INTO notes VALUES('y', 'two')").run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    let (replica, epoch, batch) = a.lost.take().unwrap();
    let push = PushRequest {
        replica,
        epoch,
        counter: 1,
        n: batch.n,
        previous: batch.previous,
        digest: batch.digest(replica),
        body: decode_payload(&batch.body).unwrap(),
    };
    let caller = Caller { tenant: "acme".into(), agent: "agent 1".into() };
    hub.store.push(&caller, push, hub.clock.now_ms()).unwrap();
    drop(hub);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b]);
    assert_eq!(b.sync(&mut hub), Counts::default());
    assert_eq!(a.sync(&mut hub).pushed, 2);
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!((titles(&mut b).len(), uses(&mut b)), (2, Value::Integer(11)));
}

/// If agents kept their cursors they would be refused: they have merged more than there is. If they offered nothing,
/// everyone's rows were with whoever had them, and nobody new got any.
#[test]
fn a_hub_that_lost_everything_gets_it_back_and_deleted_rows_stay_deleted() {
    let (mut hub, mut a, mut b) = memories();
    a.run("INSERT INTO notes VALUES('gone', '')").sync(&mut hub);
    b.sync(&mut hub);
    b.run("DELETE FROM notes WHERE id = 'gone'").run("INSERT INTO notes VALUES('y', 'two')");
    b.run("UPDATE skills SET uses = uses + 1");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    let mut restored = Hub::incarnated(2);
    reconnect(&mut [&mut a, &mut b]);
    a.run("UPDATE skills SET uses = uses + 2");
    let mut fresh = newcomer(3);
    all_sync(&mut restored, &mut [&mut a, &mut b, &mut fresh]);
    assert_eq!(titles(&mut fresh), ["one", "two"]);
    assert_eq!(uses(&mut fresh), Value::Integer(13));
}

/// Rows, edits, deletes and increments that a backup lacks, made and acknowledged after it.
fn after_the_backup(hub: &mut Hub, a: &mut Agent, b: &mut Agent) -> Agent {
    a.run("INSERT INTO notes VALUES('later', 'after the backup')").run("UPDATE skills SET uses = uses + 1");
    b.run("UPDATE notes SET title = 'edited' WHERE id = 'x'").run("DELETE FROM notes WHERE id = 'y'");
    let mut c = newcomer(3);
    all_sync(hub, &mut [a, b, &mut c]);
    c.run("INSERT INTO notes VALUES('c', 'by a newcomer')").run("UPDATE skills SET uses = uses + 2");
    all_sync(hub, &mut [a, b, &mut c]);
    c
}

/// If nobody found out that the store is an older one, agents were refused as having merged more than there is, and
/// the hub never got back what it had acknowledged.
#[test]
fn a_hub_restored_from_a_backup_gets_back_what_the_backup_lacks() {
    let (mut site, mut hub, mut a, mut b) = sited();
    a.run("INSERT INTO notes VALUES('y', 'two')");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    let backup = site.backup();
    let mut c = after_the_backup(&mut hub, &mut a, &mut b);
    let (notes, counted) = (a.rows(NOTES), uses(&mut a));
    drop(hub);
    site.restore(&backup);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b, &mut c]);
    all_sync(&mut hub, &mut [&mut a, &mut b, &mut c]);
    let mut fresh = newcomer(4);
    all_sync(&mut hub, &mut [&mut a, &mut b, &mut c, &mut fresh]);
    assert_eq!(fresh.rows(NOTES), notes);
    assert_eq!((uses(&mut fresh), counted), (Value::Integer(13), Value::Integer(13)));
}

/// One who only reads cannot tell by its batches that the hub has forgotten some. If it went by its cursor alone, it
/// would miss what got the positions below it anew, and the note of the one who left would be nowhere but with it.
#[test]
fn nobody_misses_what_a_restored_hub_is_told_while_he_is_away() {
    let (mut site, mut hub, mut a, mut b) = sited();
    a.run("INSERT INTO notes VALUES('y', 'two')");
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    // One who will not hear of anything after the backup, and so notices nothing; and one who only reads.
    let (mut old, mut reader) = (newcomer(5), newcomer(6));
    old.sync(&mut hub);
    reader.sync(&mut hub);
    let backup = site.backup();
    drop(after_the_backup(&mut hub, &mut a, &mut b));
    reader.sync(&mut hub);
    drop((hub, a, b));
    site.restore(&backup);
    let mut hub = site.start();
    reconnect(&mut [&mut reader, &mut old]);
    for at in 0..20 {
        old.run(&format!("INSERT INTO notes VALUES('new {at}', 'on the restored hub')"));
        old.sync(&mut hub);
    }
    all_sync(&mut hub, &mut [&mut reader, &mut old]);
    assert_eq!(titles(&mut reader).len(), 3 + 20);
    assert_eq!(uses(&mut old), Value::Integer(13));
}

#[test]
fn increments_that_no_hub_has_yet_survive_its_loss() {
    let (mut site, mut hub, mut a, mut b) = sited();
    let backup = site.backup();
    let mut c = newcomer(3);
    all_sync(&mut hub, &mut [&mut a, &mut b, &mut c]);
    a.run("UPDATE skills SET uses = uses + 1");
    all_sync(&mut hub, &mut [&mut a, &mut b, &mut c]);
    drop(hub);
    // If others had some as well, the later one's sum would stand.
    b.run("UPDATE skills SET uses = uses + 10");
    site.restore(&backup);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b, &mut c]);
    all_sync(&mut hub, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(uses(&mut b), Value::Integer(21));
}

/// If the agent went on where a pull from the lost hub broke off, it missed a row: that hub would have told it later,
/// because it had been edited after the backup.
#[test]
fn a_pull_that_a_lost_hub_had_begun_begins_again_at_a_restored_one() {
    let (mut site, mut hub, mut a, mut b) = sited();
    a.run("INSERT INTO notes VALUES('y', 'two')").sync(&mut hub);
    a.run("INSERT INTO notes VALUES('z', 'three')").sync(&mut hub);
    let backup = site.backup();
    a.run("UPDATE notes SET title = 'edited' WHERE id = 'y'").sync(&mut hub);
    b.slice = 1;
    b.sync_with(&mut hub, Fate::InterruptedPull(1), &mut |_| {});
    assert_eq!(titles(&mut b), ["one", "three"], "of two rows, the one that was edited comes last");
    drop(hub);
    site.restore(&backup);
    let mut hub = site.start();
    reconnect(&mut [&mut b]);
    b.sync(&mut hub);
    assert_eq!(titles(&mut b), ["one", "two", "three"]);
    reconnect(&mut [&mut a]);
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(titles(&mut b), ["one", "edited", "three"]);
}

/// If a hub that knows fewer batches than it acknowledged were taken for an honest one, the row would stay with its
/// author for good.
#[test]
fn a_batch_whose_acknowledgement_alone_arrived_is_offered_again_to_a_hub_that_forgot_it() {
    let (mut site, mut hub, mut a, mut b) = sited();
    let backup = site.backup();
    a.run("INSERT INTO notes VALUES('y', 'two')");
    a.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    // It learns that the batch arrived, and gets no further: its cursor is from before the backup.
    a.sync_with(&mut hub, Fate::InterruptedPull(0), &mut |_| {});
    drop(hub);
    site.restore(&backup);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b]);
    all_sync(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(titles(&mut b), ["one", "two"]);
}

/// The hub that was put back has never heard of the replica, like one that has let it retire; which of the two it is, its
/// positions do not tell. If it were taken to have retired, its row would stay with it for good.
#[test]
fn a_newcomers_batch_whose_acknowledgement_alone_arrived_is_offered_again_to_a_hub_that_forgot_both() {
    let (mut site, mut hub, mut a, mut b) = sited();
    let backup = site.backup();
    let mut c = newcomer(3);
    c.run(MEMORY).run("INSERT INTO notes VALUES('y', 'two')");
    c.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    c.sync_with(&mut hub, Fate::InterruptedPull(0), &mut |_| {});
    drop(hub);
    site.restore(&backup);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b, &mut c]);
    all_sync(&mut hub, &mut [&mut c, &mut a, &mut b]);
    assert_eq!(titles(&mut b), ["one", "two"]);
}

/// If every store that does not know the replica were taken for one that was put back, what had died would come back with
/// whoever had been away.
#[test]
fn an_agent_that_has_retired_offers_nothing_to_a_hub_that_was_started_again() {
    let (mut site, mut hub, mut a, mut b) = sited();
    b.run("INSERT INTO notes VALUES('y', 'two')").sync(&mut hub);
    a.sync(&mut hub);
    retire_all(&mut hub);
    reconnect(&mut [&mut a]);
    a.sync(&mut hub);
    a.run("DELETE FROM notes WHERE id = 'y'");
    for _ in 0..2 {
        a.sync(&mut hub);
        upkeep(&mut hub, 0);
    }
    drop(hub);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b]);
    all_sync(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!(titles(&mut a), ["one"]);
}

/// Breaks if an idle sync unlearns that the hub has all that it acknowledged: whoever has retired would offer all that it
/// holds to every hub that was started again.
#[test]
fn an_agent_that_has_retired_offers_nothing_after_a_restart_also_if_its_last_sync_was_idle() {
    let (mut site, mut hub, mut a, _) = sited();
    a.run("INSERT INTO notes VALUES('y', 'two')");
    for _ in 0..3 {
        a.sync(&mut hub);
    }
    retire_all(&mut hub);
    drop(hub);
    let mut hub = site.start();
    a.reconnect();
    assert_eq!(a.sync(&mut hub), Counts::default());
}

/// Breaks if the end of a pull is taken to cover what another process has pushed since: the position goes back to one that
/// the backup has as well, and nobody finds out that the hub lost what came after it.
#[test]
fn a_pull_that_another_process_has_overtaken_covers_nothing_of_what_that_one_pushed() {
    let (mut site, mut hub, mut a, mut b) = sited();
    let backup = site.backup();
    let mut c = newcomer(3);
    c.sync(&mut hub);
    let Value::Blob(replica) = replica(&mut c) else { panic!("no replica") };
    let replica = ReplicaId::from_slice(&replica).unwrap();
    let caller = Caller { tenant: "acme".into(), agent: "agent 3".into() };
    let attach =
        AttachRequest { replica, cursor: 0, is_new: true, token_until_ms: i64::MAX, incarnation: None };
    let epoch = hub.store.attach(&caller, &attach, hub.clock.now_ms()).unwrap().epoch;
    hub.store.commit().unwrap();
    let request = PullRequest { replica, epoch, cursor: 0, resume: 0, refresh: vec![] };
    let late = hub.store.snapshot(&caller, &request, hub.clock.now_ms()).unwrap();
    reconnect(&mut [&mut c]);
    c.run("INSERT INTO notes VALUES('later', 'after the backup')");
    assert_eq!(c.sync(&mut hub).pushed, 1);
    c.apply(&Incoming { rows: late.first, done: Some(late.done), ..Incoming::default() });
    drop(hub);
    site.restore(&backup);
    let mut hub = site.start();
    reconnect(&mut [&mut a, &mut b, &mut c]);
    all_sync(&mut hub, &mut [&mut c, &mut a, &mut b]);
    assert_eq!(titles(&mut a), ["after the backup", "one"]);
}

/// Breaks if a restart counts as another store: all agents would offer all that they hold.
#[test]
fn a_hub_that_is_merely_started_again_is_the_same_hub() {
    let (mut site, mut hub, mut a, mut b) = sited();
    for round in 0..3 {
        a.run(&format!("INSERT INTO notes VALUES('{round}', '')")).sync(&mut hub);
        let before = super::replica(&mut b);
        drop(hub);
        hub = site.start();
        reconnect(&mut [&mut a, &mut b]);
        assert_eq!(
            b.sync(&mut hub),
            Counts { pulled: 1, ..Counts::default() },
            "and nothing is offered again"
        );
        assert_eq!(super::replica(&mut b), before);
    }
}

/// If a database went with whoever opens it, acme's rows were globex's.
#[test]
fn a_database_of_one_tenant_is_never_synced_as_another() {
    let (mut hub, mut a, _) = memories();
    let copy = a.copy();
    let mut stranger = Agent::new("globex", "a", 9);
    assert_eq!(stranger.sync(&mut hub), Counts::default());
    assert_eq!(
        stranger.rows("SELECT name FROM sqlite_master WHERE name IN ('notes', 'skills')"),
        Vec::<Vec<Value>>::new(),
        "nothing of acme's comes to globex"
    );
    // The same application, configured for another tenant.
    stranger.restore(&copy);
    let (claim, options) = (stranger.claim(), counting());
    let opened = open(&mut stranger.sql, "globex", ReplicaId([9; 16]), claim, &options);
    if opened.is_ok() {
        stranger.sync(&mut hub);
        stranger.run("UPDATE notes SET title = 'secret'").sync(&mut hub);
    }
    let mut fresh = Agent::new("globex", "b", 10);
    assert_eq!(fresh.sync(&mut hub), Counts::default(), "and nothing of it has left");
    let Err(TurnError::OtherTenant { bound, asked }) = opened else { panic!("{opened:?}") };
    assert_eq!((bound.as_str(), asked.as_str()), ("acme", "globex"));
    // Whoever means it detaches first.
    detach(&mut stranger.sql, claim).unwrap();
    stranger.sync(&mut hub);
    fresh.sync(&mut hub);
    assert_eq!(fresh.rows(USES).len(), 1);
}
