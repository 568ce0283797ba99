//! REPLACE, DELETE and INSERT, and UPSERT under a UNIQUE column: the commonest way to store a memory.

use std::collections::BTreeMap;

use crate::dice::asked_for;
use crate::identity::{NO_ROWS, agree, settle};
use crate::retirement::{collect, upkeep};
use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub, pair};
use federation_hub::model::Value;
use proptest::prelude::*;

use crate::clock::Clock;

/// Agents of one tenant that have made the same tables, and have synced.
fn agents(schema: &str, count: usize) -> (Hub, Vec<Agent>, Clock) {
    let mut hub = Hub::new();
    let clock = Clock::standing_at(1_700_000_000_000);
    hub.clock = clock.clone();
    let agents = (0..count).map(|at| {
        let mut agent = Agent::timed("acme", &format!("agent {at}"), at as u64 + 1, clock.clone());
        agent.run(schema).sync(&mut hub);
        agent
    });
    let agents = agents.collect();
    (hub, agents, clock)
}

fn everyone(agents: &mut [Agent]) -> Vec<&mut Agent> {
    agents.iter_mut().collect()
}

const SLUGS: &str = "CREATE TABLE r(id INTEGER PRIMARY KEY, slug TEXT UNIQUE, v)";

/// Breaks if the claim of a row that was replaced since counts for what is left of the rows that were one with it.
#[test]
fn the_later_of_two_replaced_rows_is_the_row() {
    let (mut hub, mut all, clock) = agents(SLUGS, 2);
    for round in 0..4 {
        for (at, agent) in all.iter_mut().enumerate() {
            clock.pass(10);
            agent.run(&format!("REPLACE INTO r(slug, v) VALUES('s', '{at}-{round}')"));
        }
        for agent in &mut all {
            clock.pass(10);
            agent.sync(&mut hub);
        }
    }
    settle(&mut hub, &mut everyone(&mut all));
    assert_eq!(agree(&mut everyone(&mut all), "SELECT slug, v FROM r"), [[text("s"), text("1-3")]]);
    clock.pass(10);
    all[0].run("DELETE FROM r");
    settle(&mut hub, &mut everyone(&mut all));
    assert_eq!(agree(&mut everyone(&mut all), "SELECT slug, v FROM r"), NO_ROWS);
}

const MEMORY: &str = "CREATE TABLE m(id TEXT PRIMARY KEY, namespace, key, value, UNIQUE(namespace, key))";

/// Breaks if a write that is later than every other one is not what its writer reads after its own sync.
#[test]
fn who_writes_last_reads_what_it_wrote() {
    for seed in 0..4_usize {
        let (mut hub, mut all, clock) = agents(MEMORY, 2 + seed % 2);
        for at in 0..30_usize {
            clock.pass(10);
            let drawn = (at + 31 * seed) * 7919 % 1009;
            let (who, key) = (drawn % all.len(), drawn / 7 % 2);
            if drawn.is_multiple_of(5) {
                all[who].sync(&mut hub);
            }
            let value = format!("written {at}");
            let row = format!("('id {at}', 'n', 'k{key}', '{value}')");
            if drawn.is_multiple_of(3) {
                all[who].run(&format!("DELETE FROM m WHERE key = 'k{key}'; INSERT INTO m VALUES{row}"));
            } else {
                all[who].run(&format!("REPLACE INTO m VALUES{row}"));
            }
            clock.pass(10);
            assert_eq!(all[who].sync(&mut hub).quarantined, 0);
            let query = format!("SELECT value FROM m WHERE namespace = 'n' AND key = 'k{key}'");
            assert_eq!(all[who].rows(&query), [[text(&value)]], "write {at} by {who}, seed {seed}");
        }
        settle(&mut hub, &mut everyone(&mut all));
        assert_eq!(agree(&mut everyone(&mut all), "SELECT * FROM m ORDER BY key").len(), 2);
    }
}

/// Breaks if an edit of somebody who did not know that its row was replaced brings that one back beside the new one, or
/// takes the new one out of its table.
#[test]
fn an_edit_of_a_row_that_was_replaced_meanwhile_is_one_of_the_row_that_replaced_it() {
    for edit_is_later in [false, true] {
        let (mut hub, mut all, clock) = agents(SLUGS, 3);
        all[0].run("INSERT INTO r(slug, v) VALUES('s', 'old')");
        settle(&mut hub, &mut everyone(&mut all));
        let writes = ["REPLACE INTO r(slug, v) VALUES('s', 'new')", "UPDATE r SET v = 'edited'"];
        for at in if edit_is_later { [0, 1] } else { [1, 0] } {
            clock.pass(10);
            all[at].run(writes[at]);
        }
        settle(&mut hub, &mut everyone(&mut all));
        let expected = if edit_is_later { "edited" } else { "new" };
        assert_eq!(agree(&mut everyone(&mut all), "SELECT slug, v FROM r"), [[text("s"), text(expected)]]);
    }
}

/// Breaks if a stale edit brings back what an old row held of a column that it did not write, or a delete of somebody who
/// saw the one row leaves a part of it.
#[test]
fn what_somebody_who_saw_the_row_deleted_stays_deleted() {
    let (mut hub, mut all, clock) = agents(SLUGS, 3);
    for (at, agent) in all[..2].iter_mut().enumerate() {
        clock.pass(10);
        agent.run(&format!("REPLACE INTO r(slug, v) VALUES('s', 'of {at}')"));
    }
    settle(&mut hub, &mut everyone(&mut all));
    // One replaces the row, which the third one does not hear of before it deletes it.
    clock.pass(10);
    all[2].run("UPDATE r SET v = 'stale'");
    clock.pass(10);
    all[0].run("REPLACE INTO r(slug, v) VALUES('s', 'again')").sync(&mut hub);
    clock.pass(10);
    all[1].sync(&mut hub);
    all[1].run("DELETE FROM r").sync(&mut hub);
    settle(&mut hub, &mut everyone(&mut all));
    assert_eq!(agree(&mut everyone(&mut all), "SELECT slug, v FROM r"), NO_ROWS);
}

/// Breaks if what is remembered of rows that were replaced never goes.
#[test]
fn what_is_kept_of_replaced_rows_goes_again() {
    let (mut hub, mut all, clock) = agents(MEMORY, 3);
    for at in 0..60 {
        clock.pass(10);
        let (who, key) = ((at * 7 + at / 4) % 3, (at * 5) % 4);
        all[who].run(&format!("REPLACE INTO m VALUES('id {at}', 'n', 'k{key}', {at})"));
        if at % 3 == 0 {
            all[who].sync(&mut hub);
        }
    }
    settled(&mut hub, &mut all, 4);
}

/// Has everyone agree, and everything forgotten that is not needed any more: `count` rows of `m` are left, and the
/// bookkeeping of as many.
fn settled(hub: &mut Hub, all: &mut [Agent], count: usize) -> Vec<Vec<Value>> {
    for _ in 0..3 {
        collect(hub, &mut everyone(all));
    }
    settle(hub, &mut everyone(all));
    let rows = agree(&mut everyone(all), "SELECT namespace, key, value, id FROM m ORDER BY 1, 2");
    assert_eq!(rows.len(), count);
    for agent in &mut *all {
        assert_eq!(agent.rows("SELECT k FROM _federation_row").len(), count);
    }
    upkeep(hub, 0);
    let mut late = Agent::timed("acme", "late", 99, hub.clock.clone());
    late.run(MEMORY).sync(hub);
    assert_eq!(late.rows("SELECT namespace, key, value, id FROM m ORDER BY 1, 2"), rows);
    assert_eq!(late.rows("SELECT k FROM _federation_row").len(), count, "what the hub tells of");
    rows
}

#[derive(Clone, Debug)]
enum Step {
    Write { who: usize, kind: u8, key: u8 },
    Sync(usize, u8),
    Collect,
}

const AGENTS: usize = 5;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..AGENTS, 0_u8..4, 0_u8..4).prop_map(|(who, kind, key)| Step::Write { who, kind, key }),
        5 => (0..AGENTS, 0_u8..8).prop_map(|(who, fate)| Step::Sync(who, fate)),
        1 => Just(Step::Collect),
    ]
}

/// A statement that stores a value under a key. An id is sometimes that of an earlier row of the key.
fn statement(kind: u8, key: u8, at: usize) -> String {
    let id = if at.is_multiple_of(3) { format!("of {key}, {}", at % 2) } else { format!("id {at}") };
    let row = format!("('{id}', 'n{}', 'k{key}', {at})", key % 2);
    let it = format!("namespace = 'n{}' AND key = 'k{key}'", key % 2);
    match kind {
        0 => format!("DELETE FROM m WHERE {it}; INSERT OR REPLACE INTO m VALUES{row}"),
        1 => format!(
            "INSERT INTO m VALUES{row} ON CONFLICT(namespace, key) DO UPDATE SET value = excluded.value \
             ON CONFLICT(id) DO UPDATE SET value = excluded.value"
        ),
        _ => format!("REPLACE INTO m VALUES{row}"),
    }
}

fn play(steps: &[Step]) {
    let (mut hub, mut all, clock) = agents(MEMORY, AGENTS);
    let mut stored: BTreeMap<(String, String), i64> = BTreeMap::new();
    for (at, step) in steps.iter().enumerate() {
        clock.pass(10);
        match step {
            Step::Write { who, kind, key } => {
                all[*who].run(&statement(*kind, *key, at));
                stored.insert((format!("n{}", key % 2), format!("k{key}")), i64::try_from(at).unwrap());
            }
            Step::Sync(who, fate) => {
                let fate = match fate {
                    0 => Fate::LosesBatch,
                    1 => Fate::LosesAnswer,
                    2 => Fate::InterruptedPull(0),
                    _ => Fate::Complete,
                };
                all[*who].sync_with(&mut hub, fate, &mut |_| {});
            }
            Step::Collect => upkeep(&mut hub, 0),
        }
    }
    let rows = settled(&mut hub, &mut all, stored.len());
    let expected: Vec<Vec<Value>> = stored
        .into_iter()
        .map(|((namespace, key), value)| vec![text(&namespace), text(&key), Value::Integer(value)])
        .collect();
    let found: Vec<Vec<Value>> = rows.into_iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(found, expected);
}

/// The same cases each time, unless the environment names another beginning or number.
fn config() -> ProptestConfig {
    let rng_seed = proptest::test_runner::RngSeed::Fixed(asked_for("FEDERATION_SEED").unwrap_or(1));
    let cases = asked_for("PROPTEST_CASES").and_then(|it| u32::try_from(it).ok()).unwrap_or(40);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_stored_under_a_key_is_what_was_stored_last(steps in prop::collection::vec(step(), 1..60)) {
        play(&steps);
    }
}

/// Breaks if a row that was made before another one was deleted takes a stamp that is later than the delete.
#[test]
fn a_row_is_as_old_as_its_making_whatever_was_deleted_later() {
    let (mut hub, mut all, clock) = agents(MEMORY, 2);
    all[0].run("INSERT INTO m VALUES('other', 'n', 'other', 0)");
    settle(&mut hub, &mut everyone(&mut all));
    all[0].run("UPDATE m SET value = 1");
    clock.pass(10);
    all[0].run("INSERT INTO m VALUES('a', 'n', 'k', 'first')");
    clock.pass(10);
    all[1].run("INSERT INTO m VALUES('b', 'n', 'k', 'second')");
    clock.pass(10);
    all[0].run("DELETE FROM m WHERE key = 'other'");
    settle(&mut hub, &mut everyone(&mut all));
    assert_eq!(agree(&mut everyone(&mut all), "SELECT id, value FROM m"), [[text("b"), text("second")]]);
}

/// Breaks if many writes to few keys leave more than one row for each, another one than the last, or bookkeeping that grows
/// with the writes, of which there are more if the environment says so (`FEDERATION_WRITES`).
#[test]
fn five_agents_that_store_the_same_things_again_and_again_have_each_once() {
    const KEYS: usize = 40;
    let writes = asked_for("FEDERATION_WRITES").map_or(800, u64::cast_signed);
    let (mut hub, mut all, clock) = agents(MEMORY, AGENTS);
    let mut stored = BTreeMap::new();
    let mut drawn: u64 = 7;
    let mut draw = |below: usize| {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (drawn >> 33) as usize % below
    };
    for at in 0..writes {
        clock.pass(10);
        let (who, kind, key) = (draw(AGENTS), draw(3), draw(KEYS));
        let row = format!("('id {at}', 'n', 'k{key}', {at})");
        all[who].run(&match kind {
            0 => format!("DELETE FROM m WHERE key = 'k{key}'; INSERT INTO m VALUES{row}"),
            1 => format!(
                "INSERT INTO m VALUES{row} ON CONFLICT(namespace, key) DO UPDATE SET value = excluded.value"
            ),
            _ => format!("REPLACE INTO m VALUES{row}"),
        });
        stored.insert(format!("k{key}"), at);
        if draw(20) == 0 {
            all[draw(AGENTS)].sync(&mut hub);
        }
        if draw(200) == 0 {
            upkeep(&mut hub, 0);
        }
    }
    let rows = settled(&mut hub, &mut all, KEYS);
    let expected: Vec<[Value; 3]> =
        stored.into_iter().map(|(key, at)| [text("n"), text(&key), Value::Integer(at)]).collect();
    assert_eq!(rows.iter().map(|row| row[..3].to_vec()).collect::<Vec<_>>(), expected);
    // As much as for rows that were written once.
    let (mut new_hub, mut once, _) = agents(MEMORY, AGENTS);
    for row in &rows {
        let [Value::Text(key), Value::Integer(value), Value::Text(id)] = &row[1..] else { panic!("{row:?}") };
        once[0].run(&format!("INSERT INTO m VALUES('{id}', 'n', '{key}', {value})"));
    }
    settled(&mut new_hub, &mut once, KEYS);
    let bytes = |agent: &mut Agent| match agent
        .rows("SELECT sum(length(k) + length(state)) FROM _federation_row")[..]
    {
        [ref row] => match row[0] {
            Value::Integer(bytes) => bytes,
            ref other => panic!("{other:?}"),
        },
        ref other => panic!("{other:?}"),
    };
    let most = once.iter_mut().map(bytes).max().unwrap();
    for agent in &mut all {
        assert!(bytes(agent) <= most * 3 / 2, "{} bytes, and {most}", bytes(agent));
    }
}

/// Breaks if nobody notices that the row is gone: no trigger knew of the index yet.
#[test]
fn a_row_that_goes_by_a_unique_index_made_since_the_last_sync_is_deleted() {
    for schema in [
        "CREATE TABLE facts(id INTEGER PRIMARY KEY, topic TEXT, v)",
        "CREATE TABLE facts(id TEXT PRIMARY KEY DEFAULT (hex(randomblob(8))), topic TEXT, v)",
    ] {
        let (mut hub, mut a, mut b) = pair(schema);
        a.run("INSERT INTO facts(topic, v) VALUES('x', 1), ('y', 2)");
        settle(&mut hub, &mut [&mut a, &mut b]);
        a.run("CREATE UNIQUE INDEX by_topic ON facts(topic)");
        a.run("REPLACE INTO facts(topic, v) VALUES('x', 3); REPLACE INTO facts(topic, v) VALUES('z', 4)");
        settle(&mut hub, &mut [&mut a, &mut b]);
        let topics = agree(&mut [&mut a, &mut b], "SELECT topic, v FROM facts ORDER BY topic");
        let expected = [("x", 3), ("y", 2), ("z", 4)].map(|(topic, v)| vec![text(topic), Value::Integer(v)]);
        assert_eq!(topics, expected);
    }
}
