//! Many unique values that change hands at random, in turns of any size, in syncs that break off anywhere, and while
//! others write.

use std::collections::BTreeSet;

use crate::clock::Clock;
use crate::dice::{Dice, asked_for};
use crate::world::{Agent, Fate, Hub, turn_time};
use federation_hub::model::Value;

/// What holds the values: a table with a column `name`, by which a row is known to the test, and one `pos`.
const TABLES: [&str; 8] = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, pos INTEGER UNIQUE, note)",
    "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, pos INTEGER NOT NULL UNIQUE CHECK (pos < 1e9), note)",
    "CREATE TABLE t(name TEXT PRIMARY KEY, pos INTEGER, note); CREATE UNIQUE INDEX by_pos ON t(pos) WHERE pos IS NOT NULL",
    "CREATE TABLE t(name TEXT, list INTEGER DEFAULT 1, pos INTEGER, note, PRIMARY KEY(list, pos)) WITHOUT ROWID",
    "CREATE TABLE t(name TEXT PRIMARY KEY, pos INTEGER, twice INTEGER AS (pos * 2), note, UNIQUE(twice))",
    "CREATE TABLE t(name TEXT, pos INTEGER UNIQUE, note)",
    "CREATE TABLE lists(id INTEGER PRIMARY KEY, title TEXT); INSERT INTO lists VALUES(1, 'one'), (2, 'two');
     CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, list INTEGER DEFAULT 1 REFERENCES lists(id) ON DELETE CASCADE,
       up INTEGER REFERENCES t(id), pos INTEGER, note, UNIQUE(list, pos))",
    "CREATE TABLE t(id TEXT PRIMARY KEY DEFAULT (hex(randomblob(8))), name TEXT, pos INTEGER UNIQUE, note);
     CREATE TABLE marks(id INTEGER PRIMARY KEY, pos INTEGER REFERENCES t(pos) ON UPDATE CASCADE, label TEXT)",
];

/// Gives rows of a table each other's values, or those of rows that are gone, in a transaction.
fn permute(dice: &mut Dice, agent: &mut Agent, step: usize, may_delete: bool) {
    let number = |value: &Value| match value {
        Value::Integer(number) => *number,
        other => panic!("{other:?} is no number"),
    };
    let places: Vec<i64> =
        agent.rows("SELECT pos FROM t ORDER BY pos").iter().map(|row| number(&row[0])).collect();
    let mut moved: Vec<i64> = match dice.below(5) {
        // All of them, or a stretch, or a few here and there.
        0 | 1 => places.clone(),
        2 => places.iter().copied().filter(|pos| pos % 7 > 1).collect(),
        3 => places.iter().copied().skip(places.len() / 5).collect(),
        _ => (0..20).map(|_| dice.pick(&places)).collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let from = moved.clone();
    match dice.below(4) {
        0 => dice.shuffle(&mut moved),
        1 => moved.rotate_left(1),
        2 => moved.rotate_right(dice.below(from.len()) + 1),
        _ => moved.reverse(),
    }
    let last = places.last().copied().unwrap_or(0);
    let mut to = moved;
    let first = (dice.below(3) == 0).then(|| to[0]);
    if first.is_some() {
        // One that is new gets the first, and the last one goes where none was.
        to.rotate_left(1);
        *to.last_mut().unwrap() = last + 1 + i64::try_from(dice.below(5)).unwrap();
    }
    let mut statements = vec!["PRAGMA defer_foreign_keys = ON".to_owned()];
    let moves = from.iter().zip(&to);
    statements.extend(moves.map(|(from, to)| format!("UPDATE t SET pos = {} WHERE pos = {from}", -1 - to)));
    statements.push("UPDATE t SET pos = -1 - pos WHERE pos < 0".into());
    statements
        .extend(first.map(|first| format!("INSERT INTO t(name, pos) VALUES('new in step {step}', {first})")));
    if may_delete && dice.below(3) == 0 {
        statements
            .push(format!("DELETE FROM t WHERE pos = {} AND name NOT LIKE 'row %5'", dice.pick(&places)));
    }
    agent.run(&format!("BEGIN; {}; COMMIT", statements.join("; ")));
}

/// Writes something that is in nobody's way.
fn write(dice: &mut Dice, agent: &mut Agent, step: usize, who: usize) {
    let place = 1_000_000 + i64::try_from(step * 10 + who).unwrap();
    let note = format!("step {step} of {who}");
    match dice.below(3) {
        0 => agent.run(&format!("INSERT INTO t(name, pos, note) VALUES('{note}', {place}, 'x')")),
        1 => agent.run(&format!("UPDATE t SET note = '{note}' WHERE name LIKE 'row %{}'", dice.below(10))),
        _ => agent.run(&format!("UPDATE t SET note = '{note}' WHERE pos % 5 = {}", dice.below(5))),
    };
}

fn play(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let clock = Clock::standing_at(1_800_000_000_000);
    let mut hub = Hub::new();
    hub.clock = clock.clone();
    let (schema, count) = (TABLES[usize::try_from(seed).unwrap() % TABLES.len()], 251 + dice.below(120));
    let mut agents: Vec<Agent> =
        (0..3).map(|at| Agent::timed("acme", &format!("agent {at}"), at + 1, clock.clone())).collect();
    agents[0].run(&format!(
        "{schema}; WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})
           INSERT INTO t(name, pos) SELECT 'row ' || n, n FROM n"
    ));
    if schema.contains("marks") {
        agents[0].run("INSERT INTO marks(pos, label) SELECT pos, name FROM t WHERE pos % 3 = 0");
    }
    if schema.contains(" up ") {
        agents[0].run("UPDATE t SET up = (SELECT min(id) FROM t AS other WHERE other.pos = t.pos / 2)");
    }
    for agent in &mut agents {
        (agent.slice, agent.limits.rows) = (dice.pick(&[7, 60, 100, 500]), dice.pick(&[30, 100, 250]));
        agent.time = turn_time(dice.pick(&[0, 0, 1, 3]));
        agent.sync(&mut hub);
    }
    for step in 0..6 {
        clock.pass(10);
        let (who, other) = (dice.below(3), dice.below(3));
        // Whoever moves many knows how they are: two that move the same at once have no circle in common.
        agents[who].sync(&mut hub);
        let is_referenced = schema.contains("REFERENCES t");
        permute(&mut dice, &mut agents[who], step, !is_referenced);
        agents[who].sync(&mut hub);
        if who == other {
            continue;
        }
        let fate = match dice.below(5) {
            0 => Fate::InterruptedPull(dice.below(4)),
            1 | 2 => Fate::InterruptedRetrial(1 + dice.below(6)),
            _ => Fate::Complete,
        };
        let is_busy = dice.below(2) == 0;
        let mut meanwhile = |agent: &mut Agent| {
            if is_busy {
                write(&mut dice, agent, step, other);
            }
        };
        let reached = agents[other].sync_with(&mut hub, fate, &mut meanwhile);
        if reached.is_none() && dice.below(2) == 0 {
            write(&mut dice, &mut agents[other], 100 + step, other);
        }
    }
    for _ in 0..3 {
        for agent in &mut agents {
            agent.sync(&mut hub);
        }
    }
    let mut newcomer = Agent::timed("acme", "newcomer", 9, clock);
    newcomer.sync(&mut hub);
    agents.push(newcomer);
    let rows = |agent: &mut Agent| agent.rows("SELECT pos, name, note FROM t ORDER BY pos");
    let first = rows(&mut agents[0]);
    for (at, agent) in agents.iter_mut().enumerate() {
        assert_eq!(rows(agent), first, "seed {seed}, agent {at}: {schema}");
        for (table, expected) in [("_federation_quarantine", 0), ("_federation_log", 0)] {
            let left = agent.rows(&format!("SELECT count(*) FROM {table}"));
            assert_eq!(left, [[Value::Integer(expected)]], "seed {seed}, agent {at}: {table}");
        }
        assert_eq!(
            agent.rows("PRAGMA foreign_key_check"),
            Vec::<Vec<Value>>::new(),
            "seed {seed}, agent {at}"
        );
        if schema.contains("marks") {
            let marks = "SELECT label, pos FROM marks ORDER BY label";
            assert_eq!(agent.rows(marks).len(), count / 3, "seed {seed}, agent {at}");
        }
    }
}

/// `FEDERATION_SEEDS=500` plays that many; one that fails is played again by `FEDERATION_SEED=7`.
#[test]
fn many_values_that_change_hands_at_random_arrive_everywhere() {
    let first = asked_for("FEDERATION_SEED").unwrap_or(0);
    let count = asked_for("FEDERATION_SEEDS").unwrap_or(if first > 0 { 1 } else { 12 });
    for seed in first..first + count {
        play(seed);
    }
}
