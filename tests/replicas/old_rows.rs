//! Rows that were there before the first sync, on several agents.

use crate::identity::{NO_ROWS, agree, settle};
use crate::world::parts::text;
use crate::world::{Agent, Hub, pair};
use federation_hub::model::Value;

const FACTS: &str = "CREATE TABLE facts(key TEXT PRIMARY KEY, content TEXT, hash TEXT, note TEXT)";

/// Whether an agent was told that rows older than syncing differ.
fn is_told(agent: &Agent, table: &str) -> bool {
    let is_it = |notice: &&String| notice.contains("before the first sync") && notice.contains(table);
    let told: Vec<&String> = agent.notices.iter().filter(is_it).collect();
    assert!(told.len() < 2, "{told:?}");
    !told.is_empty()
}

/// Breaks if each cell is decided about by itself: one agent's content would stand with another's hash.
#[test]
fn of_two_old_rows_of_one_key_one_stands_whole_and_the_other_s_agent_is_told() {
    for order in [[0, 1], [1, 0]] {
        let (mut hub, mut a, mut b) = pair(FACTS);
        a.run("INSERT INTO facts VALUES('k', 'a', 'z', NULL), ('l', 'z', 'a', 'of a'), ('m', 'a', 'a', 'a')");
        b.run("INSERT INTO facts VALUES('k', 'z', 'a', NULL), ('l', 'a', 'z', 'of b'), ('m', 'a', 'a', 'a')");
        let mut agents = [a, b];
        let expected = agents[order[0]].rows("SELECT * FROM facts ORDER BY key");
        for at in order {
            assert_eq!(agents[at].sync(&mut hub).conflicts, 0, "what is old is in conflict with nothing");
        }
        let [a, b] = &mut agents;
        settle(&mut hub, &mut [a, b]);
        assert_eq!(agree(&mut [a, b], "SELECT * FROM facts ORDER BY key"), expected);
        assert!(!is_told(&agents[order[0]], "facts") && is_told(&agents[order[1]], "facts"));
    }
}

/// Breaks if rows that turn out to be one by a unique value are mixed, or nobody hears of what does not stand.
#[test]
fn of_two_old_rows_of_one_unique_value_one_stands_whole() {
    let schema = "CREATE TABLE facts(id INTEGER PRIMARY KEY, key TEXT UNIQUE, content TEXT, hash TEXT)";
    for order in [[0, 1], [1, 0]] {
        let (mut hub, mut a, mut b) = pair(schema);
        a.run("INSERT INTO facts(key, content, hash) VALUES('k', 'a', 'z'), ('l', 'z', 'a')");
        b.run(
            "INSERT INTO facts(key, content, hash) VALUES('own', 'b', 'b'), ('k', 'z', 'a'), ('l', 'a', 'z')",
        );
        let mut agents = [a, b];
        let all = "SELECT key, content, hash FROM facts WHERE key <> 'own' ORDER BY key";
        let expected = agents[order[0]].rows(all);
        for at in order {
            agents[at].sync(&mut hub);
        }
        let [a, b] = &mut agents;
        settle(&mut hub, &mut [a, b]);
        assert_eq!(agree(&mut [a, b], all), expected);
        assert!(!is_told(&agents[order[0]], "facts") && is_told(&agents[order[1]], "facts"));
    }
}

#[test]
fn what_only_the_other_row_knows_is_filled_in_and_what_was_written_since_beats_both() {
    let (mut hub, mut a, mut b) = pair(FACTS);
    a.run("ALTER TABLE facts DROP COLUMN note");
    a.run("INSERT INTO facts VALUES('k', 'a', 'z'), ('l', 'a', 'z')");
    b.run("INSERT INTO facts VALUES('k', 'z', 'a', 'of b'), ('l', 'z', 'a', 'of b')");
    a.sync(&mut hub);
    a.run("UPDATE facts SET content = 'edited' WHERE key = 'l'");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let all = "SELECT key, content, hash FROM facts ORDER BY key";
    let rows = agree(&mut [&mut a, &mut b], all);
    assert_eq!(rows, [[text("k"), text("a"), text("z")], [text("l"), text("edited"), text("z")]]);
    assert_eq!(b.rows("SELECT DISTINCT note FROM facts"), [[text("of b")]]);
}

/// Breaks if an agent whose first rows are taken for another one's, by their numbers and content, does not hear of it, or if
/// anybody hears of rows whose keys say that they are the same.
#[test]
fn old_rows_that_only_their_numbers_and_content_make_the_same_are_told_of_once() {
    let schema = "CREATE TABLE facts(id INTEGER PRIMARY KEY, key TEXT UNIQUE, content TEXT);
                  CREATE TABLE tags(name TEXT PRIMARY KEY, fact INTEGER REFERENCES facts)";
    let (mut hub, mut a, mut b) = pair(schema);
    for agent in [&mut a, &mut b] {
        agent.run(
            "INSERT INTO facts VALUES(1, 'k', 'same'), (2, 'l', 'same'); INSERT INTO tags VALUES('t', 2)",
        );
        assert_eq!(agent.sync(&mut hub).conflicts, 0);
    }
    settle(&mut hub, &mut [&mut a, &mut b]);
    assert_eq!(a.notices, Vec::<String>::new());
    let [notice] = &b.notices[..] else { panic!("{:?}", b.notices) };
    assert!(notice.starts_with("rows of facts ") && notice.contains("existingRows: 'new'"), "{notice}");
}

/// Breaks if agents that offer what they hold to a hub which has lost it hear of that as of their first rows.
#[test]
fn rows_that_are_offered_again_are_nobodys_first() {
    let schema = "CREATE TABLE facts(id INTEGER PRIMARY KEY, content TEXT)";
    let (mut hub, mut a, mut b) = pair(schema);
    a.run("INSERT INTO facts VALUES(1, 'of a')").sync(&mut hub);
    b.run("INSERT INTO facts VALUES(1, 'of b')").sync(&mut hub);
    settle(&mut hub, &mut [&mut a, &mut b]);
    let mut restored = Hub::incarnated(2);
    for agent in [&mut a, &mut b] {
        agent.reconnect();
    }
    settle(&mut restored, &mut [&mut a, &mut b]);
    settle(&mut restored, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        assert_eq!(agent.rows("SELECT count(*) FROM facts"), [[Value::Integer(2)]]);
        assert_eq!(agent.notices, Vec::<String>::new());
    }
}

/// Breaks if whoever is told of the tenant's row before it offers its own loses that in silence.
#[test]
fn an_old_row_that_gives_way_before_it_was_offered_does_so_whole_and_not_in_silence() {
    let (mut hub, mut a, mut b) = pair(FACTS);
    a.run("INSERT INTO facts VALUES('k', 'a', 'z', NULL)").sync(&mut hub);
    b.run("INSERT INTO facts VALUES('k', 'z', 'a', 'of b')");
    b.pull_first(&mut hub);
    assert_eq!(b.rows("SELECT * FROM facts"), [[text("k"), text("a"), text("z"), Value::Null]]);
    assert!(is_told(&b, "facts"));
    settle(&mut hub, &mut [&mut a, &mut b]);
    let rows = agree(&mut [&mut a, &mut b], "SELECT * FROM facts");
    assert_eq!(rows, [[text("k"), text("a"), text("z"), Value::Null]]);
}

/// Breaks if a hub that was put in place of a lost one mixes what its agents offer again.
#[test]
fn a_hub_that_gets_old_rows_back_keeps_them_whole() {
    let (mut hub, mut a, mut b) = pair(FACTS);
    a.run("INSERT INTO facts VALUES('k', 'a', 'z', NULL)");
    b.run("INSERT INTO facts VALUES('k', 'z', 'a', NULL)");
    settle(&mut hub, &mut [&mut a, &mut b]);
    let before = agree(&mut [&mut a, &mut b], "SELECT * FROM facts");
    let mut c = Agent::new("acme", "c", 3);
    c.run(FACTS).run("INSERT INTO facts VALUES('k', 'y', 'b', NULL)");
    let mut hub = Hub::incarnated(2);
    for agent in [&mut a, &mut b] {
        agent.reconnect();
        agent.notices.clear();
    }
    settle(&mut hub, &mut [&mut b, &mut c, &mut a]);
    assert_eq!(agree(&mut [&mut a, &mut b, &mut c], "SELECT * FROM facts"), before);
    assert!(!is_told(&a, "facts") && !is_told(&b, "facts") && is_told(&c, "facts"));
    assert_eq!(c.rows("SELECT * FROM _federation_quarantine"), NO_ROWS);
}
