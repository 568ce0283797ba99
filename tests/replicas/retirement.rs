//! Agents that were away for so long that the hub has forgotten them, and rows that died meanwhile.

use std::collections::HashSet;

use crate::world::parts::text;
use crate::world::{Agent, Counts, Fate, Hub, pair, settle};
use federation_hub::model::{ReplicaId, Rule, Value};
use federation_hub::protocol::hub_request::{AttachRequest, Caller};
use federation_hub::storage::attach::open;
use federation_hub::storage::choice::{SyncOptions, TableOptions};
use federation_hub::storage::hub_store::{HubStore, Upkeep};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT, body)";
const ALL: &str = "SELECT * FROM notes ORDER BY id";
const IDS: &str = "SELECT id FROM notes ORDER BY id";
const HOUR_MS: i64 = 3_600_000;

/// Does what is due at the hub this much later.
pub fn upkeep(hub: &mut Hub, later_ms: i64) {
    let (now_ms, connected) = (hub.clock.now_ms() + later_ms, HashSet::new());
    while hub
        .store
        .upkeep(&Upkeep { now_ms, wall_ms: now_ms, agent_ttl_ms: HOUR_MS, connected: &connected })
        .unwrap()
    {
        hub.store.commit().unwrap();
    }
    hub.store.commit().unwrap();
}

/// Has the hub forget all agents.
pub fn retire_all(hub: &mut Hub) {
    upkeep(hub, 2 * HOUR_MS);
}

/// Syncs until the hub has heard that all which is there was seen, and collects what died.
pub fn collect(hub: &mut Hub, agents: &mut [&mut Agent]) {
    for _ in 0..3 {
        for agent in agents.iter_mut() {
            agent.sync(hub);
        }
    }
    upkeep(hub, 0);
}

fn replica_of(agent: &mut Agent) -> Value {
    agent.rows("SELECT replica FROM _federation_replica")[0][0].clone()
}

pub fn remembered(agent: &mut Agent) -> Vec<Vec<Value>> {
    agent.rows("SELECT k FROM _federation_row")
}

/// Two agents that have this, and are forgotten; then `a` has come back.
pub fn forgotten(schema: &str, rows: &str) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(schema);
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run(rows);
    for _ in 0..2 {
        a.sync(&mut hub);
        b.sync(&mut hub);
    }
    retire_all(&mut hub);
    a.sync(&mut hub);
    b.bears_rejection = true;
    (hub, a, b)
}

#[test]
fn an_agent_that_was_away_loses_what_died_and_keeps_what_it_did() {
    let rows =
        "INSERT INTO notes VALUES('dies', 'a', 0), ('edited', 'a', 0), ('lives', 'a', 0), ('both', 'a', 0)";
    let (mut hub, mut a, mut b) = forgotten(NOTES, rows);
    b.run("UPDATE notes SET title = 'b' WHERE id IN ('edited', 'lives')");
    b.run("INSERT INTO notes VALUES('own', 'b', 1)").run("DELETE FROM notes WHERE id = 'both'");
    a.run("DELETE FROM notes WHERE id IN ('dies', 'edited', 'both')");
    collect(&mut hub, &mut [&mut a]);
    let before = replica_of(&mut b);
    assert_eq!(b.sync(&mut hub).rejected, 0, "it hears what is gone before it sends anything");
    assert_ne!(replica_of(&mut b), before);
    assert!(b.notices.iter().any(|notice| notice.contains("deleted while")), "{:?}", b.notices);
    let all = settle(&mut hub, &mut a, &mut b, ALL);
    let number = Value::Integer;
    assert_eq!(all, [[text("lives"), text("b"), number(0)], [text("own"), text("b"), number(1)]]);
    assert_eq!(b.sync(&mut hub).pushed, 0);
    let idle = b.sync(&mut hub);
    assert_eq!((idle.pushed, idle.pulled), (0, 0), "and that is the end of it");
}

/// Breaks if it sends what it has before it is told what is gone.
#[test]
fn whoever_vanishes_while_it_catches_up_leaves_no_row_that_waits_for_one_that_is_gone() {
    for on_delete in ["CASCADE", "SET NULL", "RESTRICT"] {
        let schema = format!(
            "CREATE TABLE tasks(id INTEGER PRIMARY KEY, title TEXT);
             CREATE TABLE steps(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id) ON DELETE {on_delete})"
        );
        let all =
            "SELECT title, count(steps.id) FROM tasks LEFT JOIN steps ON task = tasks.id GROUP BY tasks.id";
        for fate in [Fate::LosesAnswer, Fate::Complete] {
            let (mut hub, mut a, mut b) = forgotten(&schema, "INSERT INTO tasks VALUES(1, 'one')");
            a.run("DELETE FROM tasks");
            collect(&mut hub, &mut [&mut a]);
            b.run("INSERT INTO steps VALUES(1, 1)");
            b.sync_with(&mut hub, fate, &mut |_| {});
            assert_eq!(a.sync(&mut hub).quarantined, 0, "{on_delete}, {fate:?}");
            let rows = settle(&mut hub, &mut a, &mut b, all);
            assert_eq!(
                rows,
                [[text("one"), Value::Integer(1)]],
                "b has it, and is asked for it: {on_delete}"
            );
        }
    }
}

/// Breaks if an interrupted pull, or a lost answer, makes the agent believe that it has caught up.
#[test]
fn whoever_catches_up_may_be_interrupted() {
    for fate in [Fate::LosesBatch, Fate::LosesAnswer, Fate::InterruptedPull(0), Fate::InterruptedPull(1)] {
        let rows = "INSERT INTO notes VALUES('1', 'a', 0), ('2', 'a', 0), ('3', 'a', 0), ('4', 'a', 0)";
        let (mut hub, mut a, mut b) = forgotten(NOTES, rows);
        a.run("DELETE FROM notes WHERE id IN ('1', '3')");
        collect(&mut hub, &mut [&mut a]);
        b.run("UPDATE notes SET title = 'b' WHERE id = '4'").run("INSERT INTO notes VALUES('5', 'b', 0)");
        b.slice = 1;
        b.sync_with(&mut hub, fate, &mut |_| {});
        b.sync(&mut hub);
        let ids = settle(&mut hub, &mut a, &mut b, IDS);
        assert_eq!(ids, [[text("2")], [text("4")], [text("5")]], "{fate:?}");
        assert_eq!(a.rows("SELECT title FROM notes WHERE id = '4'"), [[text("b")]]);
    }
}

#[test]
fn an_edit_made_while_it_catches_up_of_a_row_that_is_gone_is_dropped_and_reported() {
    let rows = "INSERT INTO notes VALUES('dies', 'a', 0), ('lives', 'a', 0)";
    let (mut hub, mut a, mut b) = forgotten(NOTES, rows);
    a.run("DELETE FROM notes WHERE id = 'dies'");
    collect(&mut hub, &mut [&mut a]);
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("UPDATE notes SET title = 'b'");
    });
    assert!(b.notices.iter().any(|notice| notice.contains("deleted while")), "{:?}", b.notices);
    let all = settle(&mut hub, &mut a, &mut b, ALL);
    assert_eq!(all, [[text("lives"), text("b"), Value::Integer(0)]]);
}

/// Breaks if only rows that are applied one by one count as told of: those that swap are taken out together.
#[test]
fn rows_that_swapped_values_while_an_agent_was_away_are_not_taken_for_gone() {
    let schema = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT UNIQUE)";
    let rows = "INSERT INTO notes VALUES('1', 'x'), ('2', 'y'), ('dies', 'z')";
    let (mut hub, mut a, mut b) = forgotten(schema, rows);
    a.run("DELETE FROM notes WHERE id = 'dies'")
        .run("UPDATE notes SET title = NULL WHERE id = '1'")
        .run("UPDATE notes SET title = 'x' WHERE id = '2'")
        .run("UPDATE notes SET title = 'y' WHERE id = '1'");
    collect(&mut hub, &mut [&mut a]);
    b.sync(&mut hub);
    assert_eq!(b.rows(ALL), [[text("1"), text("y")], [text("2"), text("x")]]);
    assert_eq!(b.sync(&mut hub).healed, 0);
    settle(&mut hub, &mut a, &mut b, ALL);
}

#[test]
fn a_parent_that_is_gone_lives_on_if_a_new_child_needs_it() {
    let schema = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT);
                  CREATE TABLE tags(id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes(id) ON DELETE CASCADE)";
    let (mut hub, mut a, mut b) = forgotten(schema, "INSERT INTO notes VALUES(1, 'parent'), (2, 'dies')");
    a.run("DELETE FROM notes");
    collect(&mut hub, &mut [&mut a]);
    b.run("INSERT INTO tags VALUES(7, 1)");
    b.sync(&mut hub);
    let all = "SELECT notes.title, tags.id IS NOT NULL FROM notes LEFT JOIN tags ON note = notes.id";
    let rows = settle(&mut hub, &mut a, &mut b, all);
    assert_eq!(rows, [[text("parent"), Value::Integer(1)]]);
}

#[test]
fn a_row_that_an_agent_edited_before_it_heard_of_the_delete_comes_back_whole() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'a', 0)");
    settle(&mut hub, &mut a, &mut b, ALL);
    a.run("DELETE FROM notes");
    collect(&mut hub, &mut [&mut a]);
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("UPDATE notes SET title = 'later'");
    });
    // B's cursor is above the delete, and its edit is not sent: to attach must not report that yet.
    b.reconnect();
    b.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    upkeep(&mut hub, 0);
    let all = settle(&mut hub, &mut a, &mut b, ALL);
    assert_eq!(all, [[text("x"), text("later"), Value::Integer(0)]]);
}

/// Breaks if the hub alone says who is behind: it knows only cursors, and forgets which one a replica had reported.
#[test]
fn an_edit_that_outlived_a_delete_goes_with_its_row_once_the_hub_has_forgotten_both() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('x', 'a', 0), ('lives', 'a', 0)");
    settle(&mut hub, &mut a, &mut b, ALL);
    a.run("DELETE FROM notes WHERE id = 'x'");
    collect(&mut hub, &mut [&mut a]);
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        b.run("UPDATE notes SET title = 'later'");
    });
    // B's cursor is above the delete, and its edit is not sent. Nobody waits for that any more.
    retire_all(&mut hub);
    a.reconnect();
    collect(&mut hub, &mut [&mut a]);
    b.bears_rejection = true;
    b.reconnect();
    assert_eq!(b.sync(&mut hub).rejected, 1);
    assert!(b.notices.iter().any(|notice| notice.contains("deleted while")), "{:?}", b.notices);
    let all = settle(&mut hub, &mut a, &mut b, ALL);
    assert_eq!(all, [[text("lives"), text("later"), Value::Integer(0)]]);
    let idle = b.sync(&mut hub);
    assert_eq!((idle.pushed, idle.pulled, idle.healed), (0, 0, 0), "and that is the end of it");
}

#[test]
fn a_copy_of_a_database_whose_replica_has_retired_is_told_what_that_one_wrote() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.sync(&mut hub);
    let copy = a.copy();
    b.restore(&copy);
    a.run("INSERT INTO notes VALUES('of a', 'a', 0)");
    a.sync(&mut hub);
    retire_all(&mut hub);
    b.run("INSERT INTO notes VALUES('of b', 'b', 0)");
    b.sync(&mut hub);
    a.reconnect();
    assert_eq!(settle(&mut hub, &mut a, &mut b, IDS).len(), 2);
    assert_ne!(replica_of(&mut a), replica_of(&mut b));
}

/// Breaks if an id that lay in a file counts as fresh: the hub has forgotten who had it before.
#[test]
fn a_copy_of_a_database_that_was_never_attached_is_another_replica() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    let claim = a.claim();
    open(&mut a.sql, "acme", ReplicaId([9; 16]), claim, &SyncOptions::default()).unwrap();
    let copy = a.copy();
    b.restore(&copy);
    a.run("INSERT INTO notes VALUES('of a', 'a', 0)");
    a.sync(&mut hub);
    retire_all(&mut hub);
    b.run("INSERT INTO notes VALUES('of b', 'b', 0)");
    b.sync(&mut hub);
    a.reconnect();
    assert_eq!(settle(&mut hub, &mut a, &mut b, IDS).len(), 2);
}

#[test]
fn uncertain_increments_of_a_forgotten_replica_are_dropped_and_its_cells_are_not() {
    let schema = "CREATE TABLE skills(name TEXT PRIMARY KEY, uses, note)";
    let rules = vec![("uses".to_owned(), Rule::Counter)];
    let tables = vec![TableOptions { name: "skills".into(), rules, ..TableOptions::default() }];
    let options = SyncOptions { tables, ..SyncOptions::default() };
    for fate in [Fate::LosesBatch, Fate::LosesAnswer] {
        let (mut hub, mut a, mut b) = pair(schema);
        (a.options, b.options) = (options.clone(), options.clone());
        let all = "SELECT * FROM skills";
        a.run("INSERT INTO skills VALUES('retry', 10, 'a')");
        settle(&mut hub, &mut a, &mut b, all);
        b.run("UPDATE skills SET uses = uses + 5, note = 'b'");
        b.sync_with(&mut hub, fate, &mut |_| {});
        b.run("UPDATE skills SET uses = uses + 1");
        retire_all(&mut hub);
        b.reconnect();
        b.sync(&mut hub);
        assert!(b.notices.iter().any(|notice| notice.contains("dropped")), "{fate:?}: {:?}", b.notices);
        let counted = if fate == Fate::LosesAnswer { 16 } else { 11 };
        let rows = settle(&mut hub, &mut a, &mut b, all);
        assert_eq!(rows, [[text("retry"), Value::Integer(counted), text("b")]], "{fate:?}");
    }
}

#[test]
fn what_is_remembered_of_dead_rows_goes_everywhere() {
    let schema = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT UNIQUE);
                  CREATE TABLE tags(note INTEGER REFERENCES notes(id) ON DELETE CASCADE, tag TEXT, PRIMARY KEY(note, tag))";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("PRAGMA foreign_keys = ON");
    a.run("INSERT INTO notes VALUES(1, 'one'), (2, 'two'), (3, 'three')")
        .run("INSERT INTO tags VALUES(1, 'x'), (2, 'y')");
    settle(&mut hub, &mut a, &mut b, "SELECT title FROM notes ORDER BY title");
    b.run("UPDATE notes SET title = 'other' WHERE id = 3");
    a.run("DELETE FROM notes WHERE id IN (1, 2)");
    b.run("DELETE FROM notes WHERE title = 'three'");
    collect(&mut hub, &mut [&mut a, &mut b]);
    collect(&mut hub, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        assert_eq!(remembered(agent).len(), 1, "the row that lives");
        assert_eq!(agent.rows("SELECT count(*) FROM _federation_log")[0][0], Value::Integer(0));
        assert_eq!(agent.rows("SELECT count(*) FROM _federation_batch")[0][0], Value::Integer(0));
    }
    // The number is free again, and the row that takes it is another one.
    a.run("INSERT INTO notes VALUES(1, 'again')");
    settle(&mut hub, &mut a, &mut b, "SELECT title FROM notes ORDER BY title");
}

#[test]
fn a_table_that_comes_back_after_its_rows_died_does_not_bring_them_back() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.run("INSERT INTO notes VALUES('dies', 'a', 0), ('lives', 'a', 0)");
    settle(&mut hub, &mut a, &mut b, ALL);
    b.options = SyncOptions { exclude: vec!["notes".into()], ..SyncOptions::default() };
    b.reconnect();
    b.run("INSERT INTO notes VALUES('own', 'b', 0)").run("UPDATE notes SET body = 1 WHERE id = 'lives'");
    b.sync(&mut hub);
    a.run("DELETE FROM notes WHERE id = 'dies'");
    collect(&mut hub, &mut [&mut a, &mut b]);
    b.options = SyncOptions::default();
    b.reconnect();
    b.bears_rejection = true;
    b.sync(&mut hub);
    let all = settle(&mut hub, &mut a, &mut b, "SELECT id, body FROM notes ORDER BY id");
    assert_eq!(all, [[text("lives"), Value::Integer(1)], [text("own"), Value::Integer(0)]]);
}

#[test]
fn the_counter_of_a_new_row_arrives_whether_or_not_the_hub_had_it_when_it_forgot_the_author() {
    for fate in [Fate::LosesBatch, Fate::LosesAnswer] {
        let (mut hub, mut a, mut b) =
            pair("CREATE TABLE facts(name TEXT PRIMARY KEY, body TEXT, hits INTEGER NOT NULL DEFAULT 0)");
        for agent in [&mut a, &mut b] {
            let rule = ("hits".to_owned(), Rule::Counter);
            let facts = TableOptions { name: "facts".into(), rules: vec![rule], ..TableOptions::default() };
            agent.options.tables = vec![facts];
        }
        a.sync(&mut hub);
        a.run("INSERT INTO facts VALUES('sky', 'blue', 5)");
        assert!(a.sync_with(&mut hub, fate, &mut |_| {}).is_none());
        retire_all(&mut hub);
        assert_eq!(a.sync(&mut hub).healed, 0);
        assert_eq!(settle(&mut hub, &mut a, &mut b, "SELECT hits FROM facts"), [[Value::Integer(5)]]);
        assert_eq!(a.sync(&mut hub).healed + b.sync(&mut hub).healed, 0, "{fate:?}");
    }
}

/// Breaks if a hub that knows the name of a replica and none of its batches counts as another store: the agent offers all
/// that it holds, as somebody who has seen nothing, and what it has read is in conflict with what it writes.
#[test]
fn a_late_attach_of_a_replica_that_has_retired_brings_back_no_more_than_its_name() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    b.run("INSERT INTO notes VALUES('x', 'b', 0)").sync(&mut hub);
    a.sync(&mut hub);
    a.run("UPDATE notes SET title = 'a'").sync(&mut hub);
    b.sync(&mut hub);
    let Value::Blob(replica) = replica_of(&mut b) else { panic!("no replica") };
    retire_all(&mut hub);
    let replica = ReplicaId::from_slice(&replica).unwrap();
    let late =
        AttachRequest { replica, cursor: 0, is_new: true, token_until_ms: i64::MAX, incarnation: None };
    let caller = Caller { tenant: "acme".into(), agent: "b".into() };
    hub.store.attach(&caller, &late, hub.clock.now_ms()).unwrap();
    hub.store.commit().unwrap();
    b.reconnect();
    b.run("UPDATE notes SET title = 'c'");
    assert_eq!(b.sync(&mut hub), Counts { pushed: 1, ..Counts::default() });
    a.reconnect();
    settle(&mut hub, &mut a, &mut b, ALL);
}

/// Breaks if a row counts as known to the hub once that has told of its death: the hub forgets the dead, and then takes the
/// row that was made anew for an edit of one that it has forgotten.
#[test]
fn a_row_made_anew_while_its_death_was_told_outlives_what_the_hub_remembers() {
    let (mut hub, mut a, mut b) = pair(NOTES);
    a.sync(&mut hub);
    b.sync(&mut hub);
    for statement in ["INSERT INTO notes VALUES('x', 'a', 0)", "DELETE FROM notes"] {
        a.run(statement).sync(&mut hub);
    }
    b.sync_with(&mut hub, Fate::Complete, &mut |b| {
        // In the millisecond of the delete, of which it knows nothing yet, the row would be the earlier write.
        std::thread::sleep(std::time::Duration::from_millis(5));
        b.run("INSERT INTO notes VALUES('x', 'b', 1)");
    });
    retire_all(&mut hub);
    a.reconnect();
    collect(&mut hub, &mut [&mut a]);
    b.reconnect();
    assert_eq!(b.sync(&mut hub).pushed, 1);
    a.sync(&mut hub);
    assert_eq!(a.rows(ALL), b.rows(ALL));
    assert_eq!(a.rows(IDS), [[text("x")]]);
}

/// Breaks if the hub's row for the new name goes in before the one here follows its parent to that name: then the new
/// name cannot be had, what this agent wrote keeps the former one, and waits for it at everyone.
#[test]
fn what_was_hung_on_a_row_while_away_follows_it_to_the_name_that_it_got_by_becoming_one_with_another() {
    let schema = "CREATE TABLE topics(name TEXT PRIMARY KEY, slug TEXT UNIQUE);
        CREATE TABLE plans(id INTEGER PRIMARY KEY, n UNIQUE, topic TEXT NOT NULL UNIQUE
          REFERENCES topics ON DELETE NO ACTION ON UPDATE CASCADE);";
    let (mut hub, mut a, mut b) = pair(schema);
    b.run("INSERT INTO topics VALUES('former', 's')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO topics VALUES('now', 's'); INSERT INTO plans(n, topic) VALUES(1, 'now')");
    retire_all(&mut hub);
    collect(&mut hub, &mut [&mut a]);
    b.run("INSERT INTO plans(n, topic) VALUES(2, 'former')");
    settle(&mut hub, &mut b, &mut a, "SELECT * FROM topics");
    let plans = settle(&mut hub, &mut a, &mut b, "SELECT n, topic FROM plans");
    assert_eq!(plans, [[Value::Integer(2), text("now")]]);
    assert_eq!(b.sync(&mut hub).quarantined + a.sync(&mut hub).quarantined, 0);
}
