//! Columns with rules under random writes, random syncs, lost batches and lost answers, interrupted pulls and
//! writes in flight: all databases end equal (I11), and each addition has counted once (I12).

use crate::world::{Agent, Fate, Hub};
use federation_hub::model::{Rule, Value};
use federation_hub::storage::choice::{SyncOptions, TableOptions};
use federation_hub::storage::collect::TurnLimits;
use proptest::prelude::*;

const SCHEMA: &str =
    "CREATE TABLE skills(name TEXT PRIMARY KEY, uses DEFAULT 0, best, tags TEXT DEFAULT '[]')";
const ALL: &str = "SELECT name, uses, best, tags FROM skills ORDER BY name";

#[derive(Clone, Debug)]
enum Write {
    Insert(u8),
    Delete(u8),
    Add(u8, i64),
    Best(u8, i64),
    /// As an application writes that knows what the column is for: what is overwritten before a sync is gone.
    Raise(u8, i64),
    Tag(u8, u8),
    Untag(u8, u8),
}

impl Write {
    fn sql(&self) -> String {
        match self {
            Self::Insert(k) => format!("INSERT OR IGNORE INTO skills(name) VALUES('k{k}')"),
            Self::Delete(k) => format!("DELETE FROM skills WHERE name = 'k{k}'"),
            Self::Add(k, by) => format!("UPDATE skills SET uses = uses + {by} WHERE name = 'k{k}'"),
            Self::Best(k, it) => format!("UPDATE skills SET best = {it} WHERE name = 'k{k}'"),
            Self::Raise(k, it) => {
                format!("UPDATE skills SET best = max(coalesce(best, {it}), {it}) WHERE name = 'k{k}'")
            }
            Self::Tag(k, it) => format!(
                "UPDATE skills SET tags = json_insert(tags, '$[#]', {it}) WHERE name = 'k{k}' \
                 AND NOT EXISTS (SELECT 1 FROM json_each(tags) WHERE value = {it})"
            ),
            Self::Untag(k, it) => format!(
                "UPDATE skills SET tags = (SELECT json_group_array(value) FROM json_each(tags) \
                 WHERE value <> {it}) WHERE name = 'k{k}'"
            ),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Write),
    Sync(usize, Fate, Option<Write>),
}

fn write(with_deletes: bool) -> impl Strategy<Value = Write> {
    let last = if with_deletes { 10_u8 } else { 9 };
    (0..last, 0_u8..3, -3_i64..9).prop_map(move |(kind, k, by)| {
        let element = by.unsigned_abs().to_le_bytes()[0] % 5;
        match kind {
            0 => Write::Insert(k),
            1..=4 => Write::Add(k, by),
            5 | 6 if with_deletes => Write::Best(k, by),
            5 | 6 => Write::Raise(k, by),
            7 => Write::Tag(k, element),
            8 => Write::Untag(k, element),
            _ => Write::Delete(k),
        }
    })
}

fn steps(with_deletes: bool) -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        6 => Just(Fate::Complete),
        2 => Just(Fate::LosesBatch),
        2 => Just(Fate::LosesAnswer),
        2 => (0_usize..3).prop_map(Fate::InterruptedPull),
    ];
    let sync = (0..3_usize, fate, prop::option::weighted(0.4, write(with_deletes)));
    let step = prop_oneof![
        2 => (0..3_usize, write(with_deletes)).prop_map(|(agent, write)| Step::Write(agent, write)),
        1 => sync.prop_map(|(agent, fate, meanwhile)| Step::Sync(agent, fate, meanwhile)),
    ];
    prop::collection::vec(step, 1..60)
}

fn agents() -> Vec<Agent> {
    let rules = [("uses", Rule::Counter), ("best", Rule::Max), ("tags", Rule::Set)];
    let rules = rules.map(|(column, rule)| (column.to_owned(), rule)).to_vec();
    let tables = vec![TableOptions { name: "skills".into(), rules, ..TableOptions::default() }];
    let options = SyncOptions { tables, ..SyncOptions::default() };
    let agent = |seed: u64| {
        let mut agent = Agent::new("acme", &format!("agent {seed}"), seed);
        agent.options = options.clone();
        agent.limits = TurnLimits { rows: 2, ..TurnLimits::default() };
        agent.slice = 1;
        agent.run(SCHEMA);
        agent
    };
    (1..=3).map(agent).collect()
}

/// Attaches everyone, because rows that are older than that are not what their author did to them; plays the steps,
/// syncs everyone to the end, and compares. Returns what everyone has.
fn play(
    hub: &mut Hub,
    agents: &mut [Agent],
    steps: &[Step],
    write: &mut dyn FnMut(&mut Agent, &Write),
) -> Vec<Vec<Value>> {
    for agent in agents.iter_mut() {
        agent.sync(hub);
    }
    for step in steps {
        match step {
            Step::Write(agent, it) => write(&mut agents[*agent], it),
            Step::Sync(agent, fate, meanwhile) => {
                let mut pending = meanwhile.clone();
                agents[*agent].sync_with(hub, *fate, &mut |agent| {
                    if let Some(it) = pending.take() {
                        write(agent, &it);
                    }
                });
            }
        }
    }
    for _ in 0..3 {
        for agent in agents.iter_mut() {
            agent.sync(hub);
        }
    }
    let expected = agents[0].rows(ALL);
    for agent in agents.iter_mut() {
        assert_eq!(agent.rows(ALL), expected);
        assert_eq!(agent.sync(hub).pushed, 0);
    }
    expected
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn everyone_ends_with_the_same_rows(steps in steps(true)) {
        let (mut hub, mut agents) = (Hub::new(), agents());
        play(&mut hub, &mut agents, &steps, &mut |agent, it| {
            agent.run(&it.sql());
        });
    }

    #[test]
    fn each_addition_counts_once_and_no_maximum_is_lost(steps in steps(false)) {
        let (mut hub, mut agents) = (Hub::new(), agents());
        let (mut sums, mut best) = ([0_i64; 3], [None; 3]);
        let rows = play(&mut hub, &mut agents, &steps, &mut |agent, it| {
            agent.run(&it.sql());
            let changed = agent.rows("SELECT changes()") == vec![vec![Value::Integer(1)]];
            match it {
                Write::Add(k, by) if changed => sums[usize::from(*k)] += by,
                Write::Raise(k, it) if changed => {
                    best[usize::from(*k)] = best[usize::from(*k)].max(Some(*it));
                }
                _ => {}
            }
        });
        for row in rows {
            let Value::Text(name) = &row[0] else { panic!("{row:?}") };
            let k = usize::from(name.as_bytes()[1] - b'0');
            prop_assert_eq!(&row[1], &Value::Integer(sums[k]));
            prop_assert_eq!(&row[2], &best[k].map_or(Value::Null, Value::Integer));
        }
    }
}
