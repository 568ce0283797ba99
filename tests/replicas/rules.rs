//! Columns with a merge rule of their own.

use crate::retirement::{collect, retire_all};
use crate::world::parts::text;
use crate::world::{Agent, Fate, Hub, pair, settle};
use federation_hub::model::{Rule, Value};
use federation_hub::storage::choice::{CreateSchema, SyncOptions, TableOptions};

const SKILLS: &str = "CREATE TABLE skills(name TEXT PRIMARY KEY, uses, best, worst, tags TEXT)";
const USES: &str = "SELECT name, uses FROM skills ORDER BY name";

fn options() -> SyncOptions {
    let rules = [("uses", Rule::Counter), ("best", Rule::Max), ("worst", Rule::Min), ("tags", Rule::Set)];
    let rules = rules.map(|(column, rule)| (column.to_owned(), rule)).to_vec();
    let tables = vec![TableOptions { name: "skills".into(), rules, ..TableOptions::default() }];
    SyncOptions { tables, ..SyncOptions::default() }
}

/// Two agents that know one skill, used ten times.
fn ruled() -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(SKILLS);
    a.options = options();
    b.options = options();
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO skills VALUES('retry', 10, 5, 5, '[\"net\"]')");
    settle(&mut hub, &mut a, &mut b, USES);
    (hub, a, b)
}

fn number(value: i64) -> Value {
    Value::Integer(value)
}

#[test]
fn no_addition_to_a_counter_is_lost_and_none_counts_twice() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("UPDATE skills SET uses = uses + 1");
    b.run("UPDATE skills SET uses = uses + 2");
    let rows = settle(&mut hub, &mut a, &mut b, USES);
    assert_eq!(rows, vec![vec![text("retry"), number(13)]]);
    for fate in [Fate::LosesBatch, Fate::LosesAnswer] {
        a.run("UPDATE skills SET uses = uses + 1");
        a.sync_with(&mut hub, fate, &mut |_| {});
        a.run("UPDATE skills SET uses = uses + 1");
        b.run("UPDATE skills SET uses = uses - 5");
        b.sync(&mut hub);
        settle(&mut hub, &mut a, &mut b, USES);
    }
    assert_eq!(a.rows(USES)[0][1], number(13 + 4 - 10));
    assert_eq!(a.sync(&mut hub).pushed, 0);
}

#[test]
fn an_addition_made_while_a_sync_is_in_flight_shows_and_counts_once() {
    let (mut hub, mut a, mut b) = ruled();
    b.run("UPDATE skills SET uses = uses + 100");
    b.sync(&mut hub);
    a.run("UPDATE skills SET uses = uses + 1");
    a.sync_with(&mut hub, Fate::Complete, &mut |a| {
        a.run("UPDATE skills SET uses = uses + 1");
    });
    assert_eq!(a.rows(USES)[0][1], number(112), "the hub's value, and what is pending here");
    let rows = settle(&mut hub, &mut a, &mut b, USES);
    assert_eq!(rows[0][1], number(112));
}

#[test]
fn a_counter_of_rows_inserted_apart_is_their_sum_and_of_a_template_its_value() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("INSERT INTO skills(name, uses) VALUES('new', 3)");
    b.run("INSERT INTO skills(name, uses) VALUES('new', 4)");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0], vec![text("new"), number(7)]);

    let template = format!("{SKILLS}; INSERT INTO skills(name, uses) VALUES('old', 50)");
    let (mut hub, mut a, mut b) = pair(&template);
    a.options = options();
    b.options = options();
    a.sync(&mut hub);
    a.run("UPDATE skills SET uses = uses + 1");
    a.sync(&mut hub);
    b.run("UPDATE skills SET uses = uses + 0").sync(&mut hub);
    b.run("UPDATE skills SET uses = uses + 1");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0], vec![text("old"), number(52)]);
}

#[test]
fn a_delete_cancels_what_it_has_seen_of_a_counter() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("DELETE FROM skills");
    a.sync(&mut hub);
    std::thread::sleep(std::time::Duration::from_millis(5));
    b.run("UPDATE skills SET uses = uses + 2");
    let rows = settle(&mut hub, &mut a, &mut b, USES);
    assert_eq!(rows, vec![vec![text("retry"), number(2)]], "back, with what the delete had not seen");
    a.run("DELETE FROM skills");
    settle(&mut hub, &mut a, &mut b, USES);
    a.run("INSERT INTO skills(name, uses) VALUES('retry', 1)");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES), vec![vec![text("retry"), number(1)]]);
}

#[test]
fn what_is_no_number_is_merged_like_any_value_and_told() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("UPDATE skills SET uses = 'many'");
    settle(&mut hub, &mut a, &mut b, USES);
    assert_eq!(b.rows(USES)[0][1], text("many"));
    assert!(a.notices.iter().any(|notice| notice.contains("skills.uses")), "{:?}", a.notices);
    b.run("UPDATE skills SET uses = 3");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0][1], number(3));
    a.run("UPDATE skills SET uses = uses + 1.5");
    b.run("UPDATE skills SET uses = uses + 1");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0][1], Value::Real(5.5));
    a.run("UPDATE skills SET uses = NULL");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0][1], Value::Null);
    a.run("UPDATE skills SET uses = 1");
    b.run("UPDATE skills SET uses = 1");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0][1], number(2));
}

#[test]
fn the_greatest_and_the_least_value_win_in_any_order() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("UPDATE skills SET best = 9, worst = 9");
    std::thread::sleep(std::time::Duration::from_millis(5));
    b.run("UPDATE skills SET best = 7, worst = 1");
    let extremes = "SELECT best, worst FROM skills";
    assert_eq!(b.sync(&mut hub).conflicts + a.sync(&mut hub).conflicts, 0, "nothing goes under");
    assert_eq!(settle(&mut hub, &mut a, &mut b, extremes), vec![vec![number(9), number(1)]]);
    a.run("UPDATE skills SET best = 2, worst = 20");
    assert_eq!(settle(&mut hub, &mut a, &mut b, extremes), vec![vec![number(9), number(1)]]);
}

#[test]
fn additions_to_a_set_and_removals_from_it_all_count() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("UPDATE skills SET tags = '[\"net\",\"slow\"]'");
    b.run("UPDATE skills SET tags = '[ 10, 2, \"flaky\" ]'");
    let tags = "SELECT tags FROM skills";
    assert_eq!(settle(&mut hub, &mut a, &mut b, tags), vec![vec![text("[2,10,\"flaky\",\"slow\"]")]]);
    a.run("UPDATE skills SET tags = '[\"slow\",\"flaky\",10,2]'");
    assert_eq!(settle(&mut hub, &mut a, &mut b, tags), vec![vec![text("[2,10,\"flaky\",\"slow\"]")]]);
    a.run("UPDATE skills SET tags = '[\"slow\"'");
    assert_eq!(
        settle(&mut hub, &mut a, &mut b, tags),
        vec![vec![text("[\"slow\"")]],
        "no JSON: the later wins"
    );
    assert!(a.notices.iter().any(|notice| notice.contains("skills.tags")), "{:?}", a.notices);
}

#[test]
fn whoever_says_nothing_of_a_column_goes_by_the_tenants_rule() {
    let (mut hub, mut a, _) = ruled();
    let mut c = Agent::new("acme", "c", 3);
    c.sync(&mut hub);
    c.run("UPDATE skills SET uses = uses + 1");
    a.run("UPDATE skills SET uses = uses + 1");
    assert_eq!(settle(&mut hub, &mut a, &mut c, USES)[0][1], number(12));
}

/// Options with a rule for the column `best`.
fn greatest() -> SyncOptions {
    let rules = vec![("best".to_owned(), Rule::Max)];
    let tables = vec![TableOptions { name: "skills".into(), rules, ..TableOptions::default() }];
    SyncOptions { tables, ..SyncOptions::default() }
}

const BEST: &str = "SELECT name, best FROM skills ORDER BY name";

/// Breaks if a rule that comes when a column is in use is taken for the tenant's: it would turn back what others write to
/// it, who know nothing of a rule.
#[test]
fn a_rule_for_a_column_in_use_is_refused_and_turns_no_edit_back() {
    let (mut hub, mut a, mut b) = pair(&format!("{SKILLS}; CREATE TABLE notes(id TEXT PRIMARY KEY)"));
    a.run("INSERT INTO skills(name, best) VALUES('retry', 10)");
    settle(&mut hub, &mut a, &mut b, BEST);
    (b.options, b.bears_rejection) = (greatest(), true);
    b.reconnect();
    b.run("INSERT INTO skills(name, best) VALUES('own', 1); INSERT INTO notes VALUES('of b')");
    for _ in 0..2 {
        b.notices.clear();
        b.sync(&mut hub);
        let told =
            b.notices.iter().any(|it| it.contains("column best of table skills") && it.contains("max"));
        assert!(told, "in each report: {:?}", b.notices);
    }
    a.run("UPDATE skills SET best = 3");
    a.sync(&mut hub);
    a.sync(&mut hub);
    assert_eq!(a.rows(BEST), [[text("retry"), number(3)]], "an honest edit stands");
    assert_eq!(a.rows("SELECT id FROM notes"), [[text("of b")]], "other tables go on");
    assert_eq!(
        b.rows(BEST),
        [[text("own"), number(1)], [text("retry"), number(10)]],
        "rows stay where they are"
    );
    b.options = SyncOptions::default();
    b.reconnect();
    b.sync(&mut hub);
    let rows = settle(&mut hub, &mut a, &mut b, BEST);
    assert_eq!(rows, [[text("own"), number(1)], [text("retry"), number(3)]]);
}

#[test]
fn a_rule_holds_if_nothing_was_written_yet_or_if_it_comes_with_its_column() {
    let (mut hub, mut a, mut b) = pair(SKILLS);
    a.sync(&mut hub);
    b.options = greatest();
    b.sync(&mut hub);
    a.run("INSERT INTO skills(name, best) VALUES('retry', 10)");
    settle(&mut hub, &mut a, &mut b, BEST);
    a.run("UPDATE skills SET best = 3");
    assert_eq!(settle(&mut hub, &mut a, &mut b, BEST), [[text("retry"), number(10)]]);
    let added = ("count".to_owned(), Rule::Counter);
    b.options.tables[0].rules.push(added);
    for agent in [&mut b, &mut a] {
        agent.run("ALTER TABLE skills ADD COLUMN count DEFAULT 0").reconnect();
        agent.sync(&mut hub);
    }
    let counts = "SELECT count FROM skills WHERE name = 'new'";
    a.run("INSERT INTO skills(name) VALUES('new')");
    settle(&mut hub, &mut a, &mut b, counts);
    for agent in [&mut b, &mut a] {
        agent.run("UPDATE skills SET count = count + 1");
    }
    assert_eq!(settle(&mut hub, &mut a, &mut b, counts), [[number(2)]]);
}

/// Breaks if agents that go by the tenant's rule do not stand up for it: whoever meets an empty hub first would make its
/// author's declaration a late one.
#[test]
fn a_rule_that_was_agreed_on_outlasts_the_hub() {
    let (mut hub, mut a, mut b) = pair(SKILLS);
    b.options = greatest();
    b.sync(&mut hub);
    a.run("INSERT INTO skills(name, best) VALUES('retry', 10)");
    settle(&mut hub, &mut a, &mut b, BEST);
    let mut restored = Hub::incarnated(2);
    a.reconnect();
    b.reconnect();
    settle(&mut restored, &mut a, &mut b, BEST);
    a.run("UPDATE skills SET best = 3");
    assert_eq!(settle(&mut restored, &mut a, &mut b, BEST), [[text("retry"), number(10)]]);
}

/// What is resolved by a function is merged as it would be without, so that it can be said at any time.
#[test]
fn a_resolver_may_come_late() {
    let (mut hub, mut a, mut b) = pair(SKILLS);
    a.run("INSERT INTO skills(name, best) VALUES('retry', 10)");
    settle(&mut hub, &mut a, &mut b, BEST);
    b.options = greatest();
    b.options.tables[0].rules[0].1 = Rule::Resolver;
    b.reconnect();
    settle(&mut hub, &mut a, &mut b, BEST);
    a.run("UPDATE skills SET best = 3").sync(&mut hub);
    b.run("UPDATE skills SET best = 4").sync(&mut hub);
    assert_eq!(b.contests.len(), 1);
}

#[test]
fn a_hub_that_lost_everything_gets_the_sum_back_and_goes_on_adding() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("UPDATE skills SET uses = uses + 1");
    settle(&mut hub, &mut a, &mut b, USES);
    let mut restored = Hub::incarnated(2);
    a.reconnect();
    b.reconnect();
    settle(&mut restored, &mut a, &mut b, USES);
    a.run("UPDATE skills SET uses = uses + 1");
    b.run("UPDATE skills SET uses = uses + 1");
    assert_eq!(settle(&mut restored, &mut a, &mut b, USES)[0][1], number(13));
}

#[test]
fn the_second_author_of_two_concurrent_writes_is_told_of_both() {
    let (mut hub, mut a, mut b) = pair(SKILLS);
    let mut resolver = options();
    resolver.tables[0].rules = vec![("tags".into(), Rule::Resolver)];
    a.options = resolver.clone();
    b.options = resolver;
    a.run("INSERT INTO skills(name, tags) VALUES('retry', 'one')");
    settle(&mut hub, &mut a, &mut b, USES);
    a.run("UPDATE skills SET tags = 'of a'");
    b.run("UPDATE skills SET tags = 'of b'");
    assert_eq!(a.sync(&mut hub).conflicts, 0);
    assert_eq!(b.sync(&mut hub).conflicts, 1);
    assert_eq!(a.contests, vec![]);
    let [contest] = &b.contests[..] else { panic!("{:?}", b.contests) };
    assert_eq!(
        (contest.local.1.clone(), contest.remote.1.clone()),
        (text("of b").into(), text("of a").into())
    );
    assert_eq!(
        (contest.table.as_str(), contest.column.as_str(), contest.agent.as_str()),
        ("skills", "tags", "a")
    );
}

#[test]
fn a_skill_that_two_agents_made_apart_was_used_as_often_as_both_say() {
    const NUMBERED: &str =
        "CREATE TABLE skills(id INTEGER PRIMARY KEY, name TEXT UNIQUE, uses, best, worst, tags TEXT)";
    let (mut hub, mut a, mut b) = pair(NUMBERED);
    a.options = options();
    b.options = options();
    a.sync(&mut hub);
    b.sync(&mut hub);
    a.run("INSERT INTO skills(name, uses, best, tags) VALUES('retry', 3, 9, '[1]')");
    b.run("INSERT INTO skills(name, uses, best, tags) VALUES('retry', 4, 7, '[2]')");
    let all = "SELECT name, uses, best, tags FROM skills";
    let rows = settle(&mut hub, &mut a, &mut b, all);
    assert_eq!(rows, vec![vec![text("retry"), number(7), number(9), text("[1,2]")]]);
    a.run("UPDATE skills SET uses = uses + 1");
    b.run("UPDATE skills SET uses = uses + 1");
    assert_eq!(settle(&mut hub, &mut a, &mut b, all)[0][1], number(9));
}

#[test]
fn a_table_that_appears_later_shows_what_rules_made_of_it() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("UPDATE skills SET uses = uses + 1, best = 9");
    b.run("UPDATE skills SET uses = uses + 2, best = 7");
    settle(&mut hub, &mut a, &mut b, USES);
    let mut late = Agent::new("acme", "late", 9);
    late.options = SyncOptions { create_schema: CreateSchema::Never, ..options() };
    late.sync(&mut hub);
    late.run(SKILLS);
    late.sync(&mut hub);
    let all = "SELECT name, uses, best, worst, tags FROM skills";
    assert_eq!(late.rows(all), a.rows(all));
}

#[test]
fn a_row_of_which_nothing_is_left_to_send_waits_for_nothing() {
    let (mut hub, mut a, mut b) = ruled();
    let mut clone = Agent::new("acme", "a", 3);
    clone.options = options();
    clone.restore(&a.copy());
    clone.run("UPDATE skills SET best = 6");
    clone.sync(&mut hub);
    a.run("UPDATE skills SET uses = uses + 1");
    // The addition is dropped: the hub has another second batch of this replica.
    settle(&mut hub, &mut a, &mut b, USES);
    assert_eq!(a.rows("SELECT count(*) FROM _federation_row WHERE batch IS NOT NULL"), vec![vec![number(0)]]);
}

/// Breaks if the self-check takes what the column makes of the hub's sum for damage: an INTEGER column holds 0.0 as 0.
#[test]
fn a_counter_whose_sum_is_a_whole_real_is_what_its_column_makes_of_it() {
    for kind in ["INTEGER", "REAL", ""] {
        let schema = format!("CREATE TABLE skills(name TEXT PRIMARY KEY, uses {kind}, best, worst, tags)");
        let (mut hub, mut a, mut b) = pair(&schema);
        (a.options, b.options) = (options(), options());
        a.run("INSERT INTO skills(name, uses) VALUES('retry', 0)");
        settle(&mut hub, &mut a, &mut b, USES);
        a.run("UPDATE skills SET uses = uses + 0.5");
        b.run("UPDATE skills SET uses = uses - 0.5");
        for _ in 0..3 {
            settle(&mut hub, &mut a, &mut b, "SELECT uses, typeof(uses) FROM skills");
        }
        assert_eq!(a.rows("SELECT uses = 0 FROM skills"), [[number(1)]], "{kind}");
        // What is written beside it is no addition.
        a.run("UPDATE skills SET best = 1, uses = uses");
        b.run("UPDATE skills SET worst = 1, uses = uses + 2");
        let counts = [a.sync(&mut hub), b.sync(&mut hub), a.sync(&mut hub)];
        assert_eq!(counts.map(|counts| counts.conflicts), [0, 0, 0], "{kind}");
        assert_eq!(a.rows("SELECT uses = 2 FROM skills"), [[number(1)]], "{kind}");
    }
}

/// Breaks if the hub's value, which does not know of it, takes the place of a value that was not sent yet.
#[test]
fn a_value_written_while_a_sync_is_in_flight_outlasts_what_the_hub_tells() {
    let (mut hub, mut a, mut b) = ruled();
    b.run("UPDATE skills SET uses = uses + 2").sync(&mut hub);
    std::thread::sleep(std::time::Duration::from_millis(5));
    a.sync_with(&mut hub, Fate::Complete, &mut |a| {
        a.run("UPDATE skills SET uses = 'many'");
    });
    assert_eq!(a.rows(USES)[0][1], text("many"));
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0][1], text("many"));
}

/// Breaks if a value from before syncing goes before the hub's in whoever is told that one before it sends its own.
#[test]
fn an_old_value_of_whoever_catches_up_gives_way_to_the_hubs() {
    let (mut hub, mut a, mut b) = pair(&format!("{SKILLS}; CREATE TABLE notes(id TEXT PRIMARY KEY)"));
    a.options = options();
    b.options = SyncOptions { exclude: vec!["skills".into()], ..options() };
    a.run("INSERT INTO skills(name, uses) VALUES('old', 50)").run("INSERT INTO notes VALUES('x'), ('dies')");
    b.run("INSERT INTO skills(name, uses) VALUES('old', 40)");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM notes ORDER BY id");
    retire_all(&mut hub);
    a.run("DELETE FROM notes WHERE id = 'dies'");
    collect(&mut hub, &mut [&mut a]);
    b.options = options();
    b.reconnect();
    b.sync(&mut hub);
    assert_eq!(b.rows(USES), [[text("old"), number(50)]]);
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES), [[text("old"), number(50)]]);
}

#[test]
fn additions_of_several_batches_that_were_lost_all_count() {
    let (mut hub, mut a, mut b) = ruled();
    for _ in 0..3 {
        a.run("UPDATE skills SET uses = uses + 1").collect();
    }
    a.reconnect();
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0][1], number(13));
}

/// Breaks if an addition travels beside a value that it is in, or goes with one that the hub has.
#[test]
fn an_addition_goes_with_a_value_that_is_sent_again_and_with_no_other() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("UPDATE skills SET uses = 'many'").sync(&mut hub);
    for statement in ["UPDATE skills SET uses = 3", "UPDATE skills SET uses = uses + 1"] {
        a.run(statement).collect();
    }
    a.reconnect();
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0][1], number(4));
    a.run("INSERT INTO skills(name, uses) VALUES('lost', 1)");
    a.sync_with(&mut hub, Fate::LosesBatch, &mut |_| {});
    a.run("UPDATE skills SET uses = uses + 1 WHERE name = 'retry'");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[1], [text("retry"), number(5)]);
}

#[test]
fn nobody_is_told_of_a_counter_or_a_set_that_is_emptied() {
    let (mut hub, mut a, mut b) = ruled();
    a.run("UPDATE skills SET uses = NULL, tags = NULL");
    assert_eq!(settle(&mut hub, &mut a, &mut b, USES)[0][1], Value::Null);
    assert!(!a.notices.iter().any(|notice| notice.contains("merge rule")), "{:?}", a.notices);
}
