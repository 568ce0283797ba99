//! Many agents that number their rows alike: what integer keys promise, at a size where a clash would show.
//!
//! Every agent inserts rows numbered from 1, with children that reference them. With `FEDERATION_FULL=1` a
//! thousand agents insert a hundred rows each, every fiftieth looks at what all have written, and a thousand
//! agents start from one template. That takes minutes. Otherwise a thousand agents insert two rows each,
//! twenty agents a hundred rows each, and three hundred start from one template.

use federation_hub::model::Value;

use crate::world::{Agent, Fate, Hub};

const SCHEMA: &str = "
    CREATE TABLE episodes(id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL);
    CREATE TABLE steps(id INTEGER PRIMARY KEY, episode_id INTEGER NOT NULL REFERENCES episodes(id), task TEXT);
    CREATE TABLE notes(episode_id INTEGER PRIMARY KEY REFERENCES episodes(id), task TEXT);";

fn is_full() -> bool {
    std::env::var_os("FEDERATION_FULL").is_some()
}

fn agent(at: usize, schema: &str) -> Agent {
    let mut agent = Agent::new("acme", &format!("agent {at}"), u64::try_from(at).unwrap() + 1);
    agent.run("PRAGMA foreign_keys = ON").run(schema);
    agent
}

fn number(agent: &mut Agent, query: &str) -> i64 {
    match agent.rows(query)[..] {
        [ref row] => match row[..] {
            [Value::Integer(number)] => number,
            _ => panic!("{query}: {row:?}"),
        },
        ref rows => panic!("{query}: {rows:?}"),
    }
}

/// Rows 1 to `rows` of an agent, each with a child; all say whose they are.
fn write(agent: &mut Agent, at: usize, rows: usize) {
    agent.run(&format!(
        "INSERT INTO episodes(task) WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n LIMIT {rows}) \
         SELECT {at} || '/' || i FROM n"
    ));
    agent.run("INSERT INTO steps(episode_id, task) SELECT id, task FROM episodes ORDER BY id");
}

/// Checks that an agent has the rows of `agents` agents, each child under its own parent, under small
/// numbers, and its own rows under the numbers that it gave them.
fn check(agent: &mut Agent, at: usize, agents: usize, rows: usize) {
    let all = i64::try_from(agents * rows).unwrap();
    for table in ["episodes", "steps"] {
        assert_eq!(number(agent, &format!("SELECT count(*) FROM {table}")), all, "agent {at}, {table}");
        assert_eq!(number(agent, &format!("SELECT count(DISTINCT task) FROM {table}")), all);
        assert!(number(agent, &format!("SELECT max(id) FROM {table}")) <= all, "numbers stay small");
        let own = format!("SELECT count(*) FROM {table} WHERE task = '{at}/' || id");
        assert_eq!(
            number(agent, &own),
            i64::try_from(rows).unwrap(),
            "agent {at}'s numbers are what they were"
        );
    }
    let astray = "SELECT count(*) FROM steps AS s LEFT JOIN episodes AS e ON e.id = s.episode_id \
                  WHERE e.task IS NOT s.task";
    assert_eq!(number(agent, astray), 0, "every child is under its own parent");
    assert_eq!(agent.rows("PRAGMA foreign_key_check"), Vec::<Vec<Value>>::new());
    assert_eq!(agent.rows("SELECT reason FROM _federation_quarantine"), Vec::<Vec<Value>>::new());
}

/// `agents` agents write `rows` rows each and push them; then every `stride`th learns what all have written.
fn share(agents: usize, rows: usize, stride: usize) {
    let mut hub = Hub::new();
    let mut all: Vec<Agent> = (0..agents).map(|at| agent(at, SCHEMA)).collect();
    for (at, agent) in all.iter_mut().enumerate() {
        // Attached before it writes, so that its rows are writes and not older than syncing.
        agent.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
        write(agent, at, rows);
        // It goes away before the hub answers, as ephemeral agents do.
        agent.sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    }
    for (at, agent) in all.iter_mut().enumerate().step_by(stride) {
        agent.sync(&mut hub);
        check(agent, at, agents, rows);
        agent.run("INSERT INTO episodes(task) VALUES('one more')");
        let next = number(agent, "SELECT id FROM episodes WHERE task = 'one more'");
        assert_eq!(next, i64::try_from(agents * rows).unwrap() + 1, "the next number is the next");
        agent.run("DELETE FROM episodes WHERE task = 'one more'");
    }
}

#[test]
fn a_thousand_agents_that_number_alike_collide_nowhere() {
    let (rows, stride) = if is_full() { (100, 50) } else { (2, 250) };
    share(1_000, rows, stride);
}

#[test]
fn twenty_agents_share_a_hundred_rows_each() {
    share(20, 100, 5);
}

#[test]
fn the_last_number_of_the_range_poisons_nobody() {
    let (mut hub, mut a, mut b) = (Hub::new(), agent(0, SCHEMA), agent(1, SCHEMA));
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO episodes VALUES(9223372036854775807, 'last'); INSERT INTO steps VALUES(9223372036854775807, 9223372036854775807, 'last')");
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(number(&mut b, "SELECT id FROM episodes"), 1);
    assert_eq!(number(&mut b, "SELECT episode_id FROM steps"), 1);
    b.run("INSERT INTO episodes(task) VALUES('b')");
    b.run("INSERT INTO steps(episode_id, task) SELECT id, task FROM episodes WHERE task = 'b'");
    assert_eq!(number(&mut b, "SELECT max(id) FROM episodes"), 2);
    b.sync(&mut hub);
    a.sync(&mut hub);
    assert_eq!(number(&mut a, "SELECT count(*) FROM episodes"), 2, "even where no greater number is left");
    assert_eq!(number(&mut a, "SELECT id FROM episodes WHERE task = 'last'"), i64::MAX);
    let child =
        "SELECT count(*) FROM steps JOIN episodes AS e ON e.id = episode_id WHERE e.task = steps.task";
    assert_eq!(number(&mut a, child), 2);
}

#[test]
fn agents_from_one_template_have_its_rows_once() {
    let mut hub = Hub::new();
    for at in 0..if is_full() { 1_000 } else { 300 } {
        let mut agent = agent(at, SCHEMA);
        write(&mut agent, 0, 25);
        agent.sync(&mut hub);
        if at % 100 == 99 {
            check(&mut agent, 0, 1, 25);
        }
    }
    let mut fresh = agent(1_000, "");
    fresh.sync(&mut hub);
    check(&mut fresh, 0, 1, 25);
}
