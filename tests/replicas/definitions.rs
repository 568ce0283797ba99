//! Definitions that agents of one tenant do not agree on: which of them are the tenant's, and what becomes of the others.

use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub, pair, settle};
use federation_hub::model::{ReplicaId, Value};

const FACTS: &str = "CREATE TABLE facts(id INTEGER PRIMARY KEY, topic TEXT, body TEXT)";
const BY_TOPIC: &str = "CREATE UNIQUE INDEX facts_topic ON facts(topic)";
const SLUGS: &str = "CREATE TABLE r(id TEXT PRIMARY KEY, slug TEXT UNIQUE, v TEXT)";

fn number(agent: &mut Agent, query: &str) -> i64 {
    match agent.rows(query)[0][0] {
        Value::Integer(number) => number,
        ref other => panic!("{other:?}"),
    }
}

fn count(agent: &mut Agent) -> i64 {
    number(agent, "SELECT count(*) FROM facts")
}

fn sync_all(hub: &mut Hub, agents: &mut [&mut Agent]) {
    for _ in 0..3 {
        for agent in agents.iter_mut() {
            agent.sync(hub);
        }
    }
}

/// Two agents that have 200 facts of two topics.
fn facts() -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(FACTS);
    a.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
         INSERT INTO facts(topic, body) SELECT 'topic ' || (i % 2), 'fact ' || i FROM n",
    );
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!((count(&mut a), count(&mut b)), (200, 200));
    (hub, a, b)
}

fn newcomer(hub: &mut Hub, seed: u64) -> Agent {
    let mut newcomer = Agent::new("acme", &format!("newcomer {seed}"), seed);
    newcomer.sync(hub);
    newcomer
}

fn indexes(agent: &mut Agent) -> Vec<String> {
    let names = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL \
                 AND name NOT LIKE '\\_federation%' ESCAPE '\\' ORDER BY name";
    let names = agent.rows(names).into_iter().flatten();
    names.map(|name| if let Value::Text(name) = name { name } else { panic!("{name:?}") }).collect()
}

fn told(agent: &Agent, word: &str) -> usize {
    agent.notices.iter().filter(|notice| notice.contains(word)).count()
}

#[test]
fn columns_that_two_agents_add_and_index_reach_newcomers_and_unique_keys_are_ruled_on() {
    let (mut hub, mut a, mut b) = pair(SLUGS);
    a.run("INSERT INTO r VALUES('1', 's', 'of a')");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    a.run("ALTER TABLE r ADD COLUMN mood TEXT; CREATE INDEX r_mood ON r(mood); UPDATE r SET mood = 'fine'");
    b.run("ALTER TABLE r ADD COLUMN score INTEGER DEFAULT 7; CREATE INDEX r_score ON r(score)");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    a.run("INSERT INTO r(id, slug) VALUES('2', 'twice')");
    b.run("INSERT INTO r(id, slug) VALUES('3', 'twice')");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT slug, v FROM r ORDER BY slug");
    assert_eq!(rows, [[text("s"), text("of a")], [text("twice"), Value::Null]]);
    let mut c = newcomer(&mut hub, 3);
    assert_eq!(c.rows("SELECT slug, v FROM r ORDER BY slug"), rows);
    assert_eq!(c.rows("SELECT mood, score FROM r WHERE id = '1'"), [[text("fine"), Value::Integer(7)]]);
    assert_eq!(indexes(&mut c), ["r_mood", "r_score"]);
}

/// Breaks if a declaration whose answer got lost is the hub's last word, although it was taken back before the next sync.
#[test]
fn what_is_taken_back_after_an_answer_that_got_lost_is_taken_back_at_the_hub() {
    let (mut hub, mut a, mut b) = pair(FACTS);
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    a.run(BY_TOPIC).sync_with(&mut hub, Fate::LosesAnswer, &mut |_| {});
    a.run("DROP INDEX facts_topic").sync(&mut hub);
    assert_eq!(indexes(&mut newcomer(&mut hub, 3)), Vec::<String>::new());
}

/// Breaks if a definition that never ends is handed to newcomers: each would hang as it makes it, or with the first row.
#[test]
fn a_definition_that_costs_out_of_all_proportion_stays_its_declarers_own() {
    let endless = "instr(zeroblob(4e8), zeroblob(2e8) || id)";
    for hostile in [
        format!("CREATE TABLE r(id TEXT PRIMARY KEY, slug TEXT, v TEXT, CHECK({endless} = 0))"),
        format!("CREATE TABLE r(id TEXT PRIMARY KEY, slug TEXT, v TEXT, g AS ({endless}) STORED)"),
        "CREATE TABLE r(id TEXT PRIMARY KEY, slug TEXT DEFAULT (hex(randomblob(4e8))), v TEXT)".to_owned(),
        format!(
            "CREATE TABLE r(id TEXT PRIMARY KEY, slug TEXT, v TEXT); CREATE INDEX i ON r(v) WHERE {endless}"
        ),
        format!(
            "CREATE TABLE r(id TEXT PRIMARY KEY, slug TEXT, v TEXT); CREATE UNIQUE INDEX i ON r({endless})"
        ),
    ] {
        let (mut hub, mut a, mut b) = pair("");
        a.run(&hostile).sync(&mut hub);
        assert_eq!(told(&a, "zeroblob") + told(&a, "randomblob"), 1, "{hostile}: {:?}", a.notices);
        b.run(
            "CREATE TABLE r(id TEXT PRIMARY KEY, slug TEXT, v TEXT); INSERT INTO r VALUES('1', 's', 'of b')",
        );
        assert_eq!(b.sync(&mut hub).pushed, 1, "{hostile}");
        let mut newcomer = newcomer(&mut hub, 3);
        assert_eq!(newcomer.rows("SELECT v FROM r"), [[text("of b")]], "{hostile}");
        let texts = newcomer.rows("SELECT count(*) FROM sqlite_master WHERE sql LIKE '%blob(%'");
        assert_eq!(texts, [[Value::Integer(0)]], "{hostile}");
    }
}

#[test]
fn an_index_that_rows_contradict_stays_its_declarers_own() {
    let (mut hub, mut a, mut b) = facts();
    let mut c = Agent::new("acme", "carl", 3);
    c.run(FACTS).run(BY_TOPIC);
    sync_all(&mut hub, &mut [&mut c, &mut a, &mut b]);
    assert_eq!((count(&mut a), count(&mut b), count(&mut c)), (200, 200, 2));
    assert_eq!(c.sync(&mut hub).quarantined, 198);
    for agent in [&a, &b, &c] {
        let notices: Vec<_> = agent.notices.iter().filter(|it| it.contains("facts_topic")).collect();
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].contains("carl") && notices[0].contains("table facts"), "{notices:?}");
    }
    b.run("INSERT INTO facts(topic, body) VALUES('topic 1', 'one more'); DELETE FROM facts WHERE body = 'fact 7'");
    sync_all(&mut hub, &mut [&mut b, &mut a, &mut c]);
    assert_eq!((count(&mut a), count(&mut b), count(&mut c)), (200, 200, 2));
    let mut d = newcomer(&mut hub, 4);
    assert_eq!(count(&mut d), 200);
    assert_eq!(indexes(&mut d), [""; 0]);
    c.run("DROP INDEX facts_topic");
    sync_all(&mut hub, &mut [&mut c, &mut a]);
    assert_eq!(count(&mut c), 200, "what was set aside has its place");
    assert_eq!(told(&a, "facts_topic"), 1);
}

/// The usual way to one: what is there twice goes, and the index comes with the same sync.
#[test]
fn an_index_is_the_tenants_as_soon_as_its_declarer_has_made_room_for_it() {
    let (mut hub, mut a, mut b) = facts();
    a.run("DELETE FROM facts WHERE id NOT IN (SELECT min(id) FROM facts GROUP BY topic)").run(BY_TOPIC);
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!((count(&mut a), count(&mut b)), (2, 2));
    assert_eq!((told(&a, "facts_topic"), told(&b, "facts_topic")), (0, 0));
    let mut c = newcomer(&mut hub, 3);
    assert_eq!(indexes(&mut c), ["facts_topic"]);
    b.run("INSERT INTO facts(topic, body) VALUES('new', 'of b')");
    c.run("INSERT INTO facts(topic, body) VALUES('new', 'of c')");
    sync_all(&mut hub, &mut [&mut b, &mut c, &mut a]);
    assert_eq!((count(&mut a), count(&mut b), count(&mut c)), (3, 3, 3));
}

#[test]
fn an_index_that_is_dropped_again_gives_back_what_it_took() {
    let (mut hub, mut a, mut b) = pair(FACTS);
    a.run(BY_TOPIC).run("INSERT INTO facts(topic, body) VALUES('one', 'of a')");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO facts(topic, body) VALUES('one', 'seen')");
    sync_all(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!((count(&mut a), count(&mut b)), (1, 1), "the hub rules on it");
    a.run("DROP INDEX facts_topic");
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.sync(&mut hub);
    assert_eq!((count(&mut a), count(&mut b)), (2, 2));
    assert_eq!(indexes(&mut newcomer(&mut hub, 4)), [""; 0]);
    b.run("INSERT INTO facts(topic, body) VALUES('one', 'again')");
    sync_all(&mut hub, &mut [&mut b, &mut a]);
    assert_eq!((count(&mut a), count(&mut b)), (3, 3));
}

#[test]
fn an_index_retires_with_its_last_declarer_and_not_with_the_last_agent() {
    let (mut hub, mut a, mut b) = pair(FACTS);
    a.run(BY_TOPIC).run("INSERT INTO facts(topic, body) VALUES('one', 'of a')");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO facts(topic, body) VALUES('one', 'seen')");
    b.sync(&mut hub);
    a.goodbye(&mut hub);
    b.sync(&mut hub);
    assert_eq!(count(&mut b), 2, "nobody who is there has it");
    assert_eq!(indexes(&mut newcomer(&mut hub, 3)), [""; 0]);

    let (mut hub, mut a, _) = pair(FACTS);
    a.run(BY_TOPIC).run("INSERT INTO facts(topic, body) VALUES('one', 'of a')");
    sync_all(&mut hub, &mut [&mut a]);
    a.goodbye(&mut hub);
    for seed in 3..6 {
        let mut newcomer = newcomer(&mut hub, seed);
        assert_eq!((indexes(&mut newcomer), count(&mut newcomer)), (vec!["facts_topic".to_owned()], 1));
        newcomer.sync(&mut hub);
        newcomer.goodbye(&mut hub);
    }
}

#[test]
fn whoever_drops_the_table_declares_none_of_its_indexes() {
    let (mut hub, mut a, mut b) = pair(FACTS);
    a.run(BY_TOPIC).run("INSERT INTO facts(topic, body) VALUES('one', 'of a')");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    b.run("INSERT INTO facts(topic, body) VALUES('one', 'seen')");
    b.sync(&mut hub);
    assert_eq!(count(&mut b), 1);
    a.run("DROP TABLE facts");
    a.sync(&mut hub);
    b.sync(&mut hub);
    assert_eq!(count(&mut b), 2);
}

/// A hub that was put back to a time before a declaration hears of it again.
#[test]
fn an_index_that_nobody_declared_to_this_opening_of_the_hub_is_declared_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let open = |seed| {
        federation_hub::storage::hub_store_sqlite::SqliteHubStore::open(
            path.to_str().unwrap(),
            ReplicaId([seed; 16]),
        )
        .unwrap()
    };
    let (mut hub, mut a, mut b) = pair(FACTS);
    hub.store = open(1);
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    hub.store = Hub::new().store;
    let copy = directory.path().join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    hub.store = open(2);
    for agent in [&mut a, &mut b] {
        agent.reconnect();
    }
    a.run("CREATE INDEX by_body ON facts(body)");
    a.sync(&mut hub);
    hub.store = Hub::new().store;
    std::fs::copy(&copy, &path).unwrap();
    hub.store = open(3);
    for agent in [&mut a, &mut b] {
        agent.reconnect();
        agent.sync(&mut hub);
    }
    assert_eq!(indexes(&mut newcomer(&mut hub, 3)), ["by_body"]);
}

#[test]
fn of_two_indexes_of_one_name_the_first_stands_and_nothing_else_is_switched_off() {
    let (mut hub, mut a, mut b) = pair(SLUGS);
    a.run("CREATE INDEX same ON r(v)");
    b.run("CREATE UNIQUE INDEX same ON r(v, slug)");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    a.run("INSERT INTO r VALUES('1', 's', 'of both')");
    b.run("INSERT INTO r VALUES('2', 's', 'of both')");
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT slug, v FROM r");
    assert_eq!(rows, [[text("s"), text("of both")]]);
    let mut c = newcomer(&mut hub, 3);
    assert_eq!(c.rows("SELECT slug, v FROM r"), rows);
    let sql = "SELECT sql FROM sqlite_master WHERE name = 'same'";
    assert_eq!(c.rows(sql), [[text("CREATE INDEX same ON r(v)")]]);
    a.run("DROP INDEX same");
    c.run("DROP INDEX same");
    sync_all(&mut hub, &mut [&mut a, &mut c]);
    assert_eq!(newcomer(&mut hub, 4).rows(sql), [[text("CREATE UNIQUE INDEX same ON r(v, slug)")]]);
}

#[test]
fn a_constraint_that_refuses_what_others_write_is_not_handed_to_newcomers() {
    for strict in ["v TEXT CHECK(0)", "v TEXT NOT NULL", "v TEXT CHECK(length(v) > 99)"] {
        let (mut hub, mut a, mut b) = (Hub::new(), Agent::new("acme", "a", 1), Agent::new("acme", "b", 2));
        a.run(&format!("CREATE TABLE t(id TEXT PRIMARY KEY, {strict})"));
        b.run("CREATE TABLE t(id TEXT PRIMARY KEY, v TEXT)");
        sync_all(&mut hub, &mut [&mut a, &mut b]);
        b.run("INSERT INTO t VALUES('x', NULL), ('y', 'of b')");
        sync_all(&mut hub, &mut [&mut b, &mut a]);
        let mut c = newcomer(&mut hub, 3);
        assert_eq!(
            c.rows("SELECT id, v FROM t ORDER BY id"),
            b.rows("SELECT id, v FROM t ORDER BY id"),
            "{strict}"
        );
        assert_eq!(number(&mut c, "SELECT count(*) FROM _federation_quarantine"), 0, "{strict}");
        assert_eq!(told(&a, "is not handed"), 1, "{:?}", a.notices);
    }
}

#[test]
fn a_column_comes_without_what_the_tenants_rows_contradict() {
    let parents = "CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT);";
    for (table, rebuilt) in [
        ("t(id TEXT PRIMARY KEY, v TEXT)", "t(id TEXT PRIMARY KEY, v TEXT NOT NULL, w TEXT)"),
        ("t(id TEXT PRIMARY KEY, v TEXT)", "t(id TEXT PRIMARY KEY, v TEXT CHECK(v > 'm'), w TEXT)"),
        ("t(id TEXT PRIMARY KEY, v TEXT)", "t(id TEXT PRIMARY KEY, v TEXT UNIQUE, w TEXT)"),
        ("t(id TEXT PRIMARY KEY, v TEXT)", "t(id TEXT PRIMARY KEY, v TEXT REFERENCES p(id), w TEXT)"),
    ] {
        let schema = format!("{parents} CREATE TABLE {table}");
        let (mut hub, mut a, mut b) = pair(&schema);
        a.run("INSERT INTO t VALUES('1', 'a'), ('2', 'a'), ('3', NULL)");
        sync_all(&mut hub, &mut [&mut a, &mut b]);
        let mut c = Agent::new("acme", "c", 3);
        c.run(parents).run(&format!("CREATE TABLE {rebuilt}"));
        sync_all(&mut hub, &mut [&mut c, &mut a, &mut b]);
        let mut d = newcomer(&mut hub, 4);
        assert_eq!(number(&mut d, "SELECT count(*) FROM t"), 3, "{rebuilt}");
        assert_eq!(number(&mut d, "SELECT count(w) FROM t"), 0, "{rebuilt}");
        assert_eq!(number(&mut a, "SELECT count(*) FROM t"), 3, "{rebuilt}");
    }
}

/// Breaks if a row whose last edit is one of a column that this replica lacks stays dead here.
#[test]
fn a_row_that_lives_by_a_column_which_is_not_here_lives() {
    let (mut hub, mut a, mut b) = pair("CREATE TABLE t(name TEXT PRIMARY KEY, c INTEGER)");
    a.run("INSERT INTO t VALUES('x', 2)");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    b.run("ALTER TABLE t ADD COLUMN late TEXT");
    a.run("DELETE FROM t");
    std::thread::sleep(std::time::Duration::from_millis(5));
    b.run("UPDATE t SET late = 'of b'");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    let rows = a.rows("SELECT name, c FROM t");
    assert_eq!(rows, [[text("x"), Value::Integer(2)]]);
    assert_eq!(b.rows("SELECT name, c FROM t"), rows);
    a.run("DELETE FROM t");
    sync_all(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!((a.rows("SELECT * FROM t").len(), b.rows("SELECT * FROM t").len()), (0, 0));
}
