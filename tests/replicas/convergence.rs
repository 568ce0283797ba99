//! Random writes on two and three agents, random syncs, lost batches and lost answers, interrupted pulls,
//! writes in flight, restored and cloned databases, a hub that loses everything: once everyone has synced after the last write, all databases are equal (invariant I11).

use crate::world::{Agent, Counts, Fate, Hub};
use federation_hub::model::Value;
use federation_hub::storage::collect::TurnLimits;
use proptest::prelude::*;
use tempfile::TempPath;

const SCHEMA: &str = "
    CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT COLLATE NOCASE, body);
    CREATE TABLE pairs(a TEXT, b INTEGER, v REAL, PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE logs(id INTEGER PRIMARY KEY, line TEXT);
    CREATE TABLE tasks(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, done INTEGER DEFAULT 0);
    CREATE TABLE steps(id INTEGER PRIMARY KEY, task INTEGER REFERENCES tasks(id), what TEXT);";

/// What must be equal everywhere: natural keys as they are, numbers replaced by what they stand for.
const VIEWS: [&str; 5] = [
    "SELECT id, title, body, typeof(body) FROM notes ORDER BY id",
    "SELECT a, b, v FROM pairs ORDER BY a, b",
    "SELECT hex(r.id), line FROM logs JOIN _federation_row AS r ON r.k = logs.id
       AND r.tbl = (SELECT tbl FROM _federation_table WHERE name = 'logs') ORDER BY 1",
    "SELECT hex(r.id), title, done FROM tasks JOIN _federation_row AS r ON r.k = tasks.id
       AND r.tbl = (SELECT tbl FROM _federation_table WHERE name = 'tasks') ORDER BY 1",
    "SELECT hex(r.id), hex(p.id), what FROM steps
       JOIN _federation_row AS r ON r.k = steps.id
         AND r.tbl = (SELECT tbl FROM _federation_table WHERE name = 'steps')
       LEFT JOIN _federation_row AS p ON p.k = steps.task
         AND p.tbl = (SELECT tbl FROM _federation_table WHERE name = 'tasks') ORDER BY 1",
];

#[derive(Clone, Debug)]
enum Step {
    Write(usize, String),
    Sync(usize, Fate, Option<String>),
    /// A copy of an agent's database is put aside.
    Copy(usize),
    /// An agent goes on with the last copy of an agent's database.
    Restore(usize, usize),
    /// The hub loses everything.
    NewHub,
}

/// One statement of an application that knows nothing of syncing.
fn statement() -> impl Strategy<Value = String> {
    let (key, value) = (0_u8..4, 0_u8..5);
    (0_u8..15, key, value).prop_map(|(kind, k, v)| match kind {
        0 => format!("INSERT INTO notes VALUES('k{k}', 't{v}', {v}) ON CONFLICT DO UPDATE SET body = {v}"),
        1 => format!("INSERT OR REPLACE INTO notes VALUES('k{k}', 'T{v}', {v}.0)"),
        2 => format!("UPDATE notes SET title = 't{v}' WHERE id = 'k{k}'"),
        3 => format!("UPDATE notes SET body = x'0{v}' WHERE id >= 'k{k}'"),
        4 => format!("DELETE FROM notes WHERE id = 'k{k}'"),
        5 => format!("INSERT OR REPLACE INTO pairs VALUES('p{k}', {v}, {v})"),
        6 => format!("UPDATE pairs SET v = v + 1 WHERE a = 'p{k}'"),
        7 => format!("DELETE FROM pairs WHERE b = {v}"),
        8 => format!("INSERT INTO logs(line) VALUES('line {v}')"),
        9 => format!("UPDATE logs SET line = line || '{v}' WHERE id % 3 = {k}"),
        10 => format!("DELETE FROM logs WHERE id > {k}"),
        11 => format!("INSERT INTO tasks(title) VALUES('task {v}')"),
        12 => format!("UPDATE tasks SET done = {v} WHERE id % 4 = {k}"),
        13 => format!("INSERT INTO steps(task, what) SELECT id, 'step {v}' FROM tasks LIMIT 1 OFFSET {k}"),
        _ => format!("UPDATE steps SET task = (SELECT max(id) FROM tasks), what = '{v}' WHERE id % 4 = {k}"),
    })
}

fn steps(agents: usize) -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        6 => Just(Fate::Complete),
        1 => Just(Fate::LosesBatch),
        1 => Just(Fate::LosesAnswer),
        2 => (0_usize..5).prop_map(Fate::InterruptedPull),
    ];
    let step = prop_oneof![
        60 => (0..agents, statement()).prop_map(|(agent, sql)| Step::Write(agent, sql)),
        20 => (0..agents, fate, prop::option::weighted(0.3, statement()))
            .prop_map(|(agent, fate, meanwhile)| Step::Sync(agent, fate, meanwhile)),
        2 => (0..agents).prop_map(Step::Copy),
        2 => (0..agents, 0..agents).prop_map(|(agent, of)| Step::Restore(agent, of)),
        1 => Just(Step::NewHub),
    ];
    prop::collection::vec(step, 1..60)
}

fn run(count: usize, turn: usize, steps: &[Step]) {
    let mut hub = Hub::new();
    let mut hubs = 1;
    let mut copies: Vec<Option<TempPath>> = (0..count).map(|_| None).collect();
    let mut agents: Vec<Agent> = (0..count)
        .map(|at| Agent::new("acme", &format!("agent {at}"), u64::try_from(at).unwrap() + 1))
        .collect();
    for (at, agent) in agents.iter_mut().enumerate() {
        agent.skew_ms = [0, 3_600_000, -3_600_000][at];
        (agent.limits, agent.slice) = (TurnLimits { rows: turn, ..TurnLimits::default() }, turn);
        agent.run(SCHEMA);
    }
    for step in steps {
        match step {
            Step::Write(agent, sql) => {
                agents[*agent].run(sql);
            }
            Step::Sync(agent, fate, meanwhile) => {
                agents[*agent].sync_with(&mut hub, *fate, &mut |agent| {
                    if let Some(sql) = meanwhile {
                        agent.run(sql);
                    }
                });
            }
            Step::Copy(agent) => copies[*agent] = Some(agents[*agent].copy()),
            Step::Restore(agent, of) => {
                if let Some(copy) = &copies[*of] {
                    agents[*agent].restore(copy);
                }
            }
            Step::NewHub => {
                hubs += 1;
                hub = Hub::incarnated(hubs);
                agents.iter_mut().for_each(Agent::reconnect);
            }
        }
    }
    // Twice round: everyone pushes, everyone hears of the last push. Once more, and nothing moves.
    for _ in 0..2 {
        for agent in &mut agents {
            agent.sync(&mut hub);
        }
    }
    for agent in &mut agents {
        assert_eq!(agent.sync(&mut hub), Counts::default(), "the fixpoint is reached");
        assert_eq!(agent.rows("PRAGMA foreign_key_check"), Vec::<Vec<Value>>::new());
    }
    let (first, others) = agents.split_first_mut().unwrap();
    for view in VIEWS {
        let expected = first.rows(view);
        for other in &mut *others {
            assert_eq!(other.rows(view), expected, "{view}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn two_agents_end_with_equal_databases(turn in 1_usize..8, steps in steps(2)) {
        run(2, turn, &steps);
    }

    #[test]
    fn three_agents_end_with_equal_databases(turn in 1_usize..8, steps in steps(3)) {
        run(3, turn, &steps);
    }
}
