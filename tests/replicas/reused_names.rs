//! Names of columns and tables that come to stand for what another column or table held.

use crate::world::parts::text;
use crate::world::{Agent, Counts, Hub, pair, settle};
use federation_hub::model::Value;

const DOCS: &str = "CREATE TABLE docs(id TEXT PRIMARY KEY, a, b)";
const ROWS: &str = "SELECT id, a FROM docs ORDER BY id";

/// A hundred rows whose columns hold `a<n>` and `b<n>`.
fn filled(schema: &str) -> (Hub, Agent, Agent) {
    let (mut hub, mut a, mut b) = pair(schema);
    a.run(
        "WITH RECURSIVE n(i) AS (VALUES(100) UNION ALL SELECT i + 1 FROM n WHERE i < 199)
         INSERT INTO docs(id, a, b) SELECT i, 'a' || i, 'b' || i FROM n",
    );
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM docs ORDER BY id");
    // Whoever had a value first has the older stamp: the values of `a` are the later ones.
    pass_a_millisecond();
    a.run("UPDATE docs SET a = 'A' || id");
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM docs ORDER BY id");
    (hub, a, b)
}

fn pass_a_millisecond() {
    std::thread::sleep(std::time::Duration::from_millis(2));
}

fn holds(agent: &mut Agent, query: &str, prefix: &str, count: i64) {
    let count = Value::Integer(count);
    let found = agent.rows(&format!("SELECT count(*) FROM ({query}) WHERE a LIKE '{prefix}' || id"));
    assert_eq!(found, vec![vec![count]], "{query}: {:?}", agent.rows(&format!("{query} LIMIT 3")));
}

/// Syncs until nothing moves, each one a few times, so that every row has been looked at.
fn look_around(hub: &mut Hub, agents: &mut [&mut Agent]) {
    for _ in 0..4 {
        for agent in agents.iter_mut() {
            agent.reconnect();
            agent.sync(hub);
        }
    }
}

const DROP_AND_RENAME: &str = "ALTER TABLE docs DROP COLUMN a; ALTER TABLE docs RENAME COLUMN b TO a";

#[test]
fn a_column_dropped_and_another_one_named_like_it_keeps_the_others_values() {
    for schema in [DOCS, "CREATE TABLE docs(id TEXT PRIMARY KEY, other, a, b, more)"] {
        let (mut hub, mut a, mut b) = filled(schema);
        a.run(DROP_AND_RENAME);
        assert_eq!(a.sync(&mut hub).healed, 0, "{schema}");
        holds(&mut a, ROWS, "b", 100);
        look_around(&mut hub, &mut [&mut a, &mut b]);
        holds(&mut a, ROWS, "b", 100);
        b.run(DROP_AND_RENAME);
        b.sync(&mut hub);
        look_around(&mut hub, &mut [&mut a, &mut b]);
        holds(&mut a, ROWS, "b", 100);
        holds(&mut b, ROWS, "b", 100);
        let mut fresh = Agent::new("acme", "fresh", 3);
        fresh.run("CREATE TABLE docs(id TEXT PRIMARY KEY, a)").sync(&mut hub);
        holds(&mut fresh, ROWS, "b", 100);
        assert_eq!(a.sync(&mut hub), Counts::default());
    }
}

#[test]
fn two_columns_that_swap_their_names_keep_their_values() {
    let swap = "ALTER TABLE docs RENAME COLUMN a TO x; ALTER TABLE docs RENAME COLUMN b TO a;
                ALTER TABLE docs RENAME COLUMN x TO b";
    let (mut hub, mut a, mut b) = filled(DOCS);
    for (is_heard, prefix, other) in
        [(false, "b", "A"), (true, "A", "b"), (true, "b", "A"), (false, "A", "b")]
    {
        pass_a_millisecond();
        a.run(swap).sync(&mut hub);
        let mut both = [&mut a, &mut b];
        look_around(&mut hub, if is_heard { &mut both } else { &mut both[..1] });
        b.run(swap).sync(&mut hub);
        look_around(&mut hub, &mut [&mut a, &mut b]);
        for agent in [&mut a, &mut b] {
            holds(agent, ROWS, prefix, 100);
            holds(agent, "SELECT id, b AS a FROM docs ORDER BY id", other, 100);
        }
    }
}

#[test]
fn a_name_that_one_release_drops_and_the_next_gives_to_another_column() {
    let (mut hub, mut a, mut b) = filled(DOCS);
    for agent in [&mut a, &mut b] {
        agent.run("ALTER TABLE docs DROP COLUMN a").sync(&mut hub);
    }
    settle(&mut hub, &mut a, &mut b, "SELECT id, b FROM docs ORDER BY id");
    for agent in [&mut a, &mut b] {
        agent.run("ALTER TABLE docs RENAME COLUMN b TO a").sync(&mut hub);
    }
    settle(&mut hub, &mut a, &mut b, ROWS);
    holds(&mut a, ROWS, "b", 100);
    look_around(&mut hub, &mut [&mut a, &mut b]);
    holds(&mut b, ROWS, "b", 100);
}

/// Breaks if the tenant's old values of a name count for an agent that never had a column of that name.
#[test]
fn whoever_has_never_had_a_column_may_be_the_first_to_give_its_name_to_another_one() {
    for heard in [false, true] {
        let (mut hub, mut a, mut b) = filled(DOCS);
        for agent in [&mut a, &mut b] {
            agent.run("ALTER TABLE docs DROP COLUMN a").sync(&mut hub);
        }
        let mut late = Agent::new("acme", "late", 3);
        late.run("CREATE TABLE docs(id TEXT PRIMARY KEY, b)").sync(&mut hub);
        pass_a_millisecond();
        late.run("ALTER TABLE docs RENAME COLUMN b TO a").sync(&mut hub);
        late.run("UPDATE docs SET a = 'edited' WHERE id = '100'").sync(&mut hub);
        look_around(&mut hub, &mut [&mut late]);
        holds(&mut late, ROWS, "b", 99);
        for agent in [&mut a, &mut b] {
            if heard {
                agent.sync(&mut hub);
            }
            agent.run("ALTER TABLE docs RENAME COLUMN b TO a").sync(&mut hub);
        }
        look_around(&mut hub, &mut [&mut late, &mut a, &mut b]);
        for agent in [&mut late, &mut a, &mut b] {
            holds(agent, ROWS, "b", 99);
            assert_eq!(agent.rows("SELECT a FROM docs WHERE id = '100'"), [[text("edited")]]);
        }
    }
}

/// Breaks if a new name that others gave to the same column is taken for another meaning of it.
#[test]
fn a_column_renamed_by_each_in_turn_is_one() {
    let (mut hub, mut a, mut b) = filled(DOCS);
    a.run("ALTER TABLE docs RENAME COLUMN b TO c").sync(&mut hub);
    a.run("UPDATE docs SET c = 'edited' WHERE id = '100'").sync(&mut hub);
    b.sync(&mut hub);
    b.run("UPDATE docs SET b = 'by b' WHERE id = '101'");
    b.run("ALTER TABLE docs RENAME COLUMN b TO c").sync(&mut hub);
    look_around(&mut hub, &mut [&mut a, &mut b]);
    let renamed = "SELECT id, c AS a FROM docs ORDER BY id";
    for agent in [&mut a, &mut b] {
        holds(agent, renamed, "b", 98);
        let edited = agent.rows("SELECT c FROM docs WHERE id IN ('100', '101') ORDER BY id");
        assert_eq!(edited, [[text("edited")], [text("by b")]]);
    }
}

/// Breaks if a column that takes another one's place in a table without rows is taken for that one, renamed.
#[test]
fn a_column_that_the_tenant_has_replaces_another_one_in_an_empty_table() {
    let (mut hub, mut a, mut b) = filled(DOCS);
    let mut late = Agent::new("acme", "late", 3);
    late.run("CREATE TABLE docs(id TEXT PRIMARY KEY, other)").sync(&mut hub);
    late.run("DROP TABLE docs; CREATE TABLE docs(id TEXT PRIMARY KEY, other)").sync(&mut hub);
    let mut empty = Agent::new("globex", "empty", 4);
    empty.run("CREATE TABLE docs(id TEXT PRIMARY KEY, other)").sync(&mut hub);
    for agent in [&mut late, &mut empty] {
        agent.run("ALTER TABLE docs ADD COLUMN a; ALTER TABLE docs DROP COLUMN other").sync(&mut hub);
    }
    look_around(&mut hub, &mut [&mut a, &mut b, &mut late]);
    for agent in [&mut a, &mut b, &mut late] {
        holds(agent, ROWS, "A", 100);
    }
}

#[test]
fn what_the_hub_alone_still_has_under_a_dropped_name_is_older_too() {
    let (mut hub, mut a, mut b) = filled(DOCS);
    let mut old = Agent::new("acme", "old", 3);
    old.run(DOCS).sync(&mut hub);
    for agent in [&mut a, &mut b] {
        agent.run("ALTER TABLE docs DROP COLUMN a").sync(&mut hub);
    }
    // Nobody who renames the column is told of this.
    old.run("UPDATE docs SET a = 'later'").sync(&mut hub);
    a.sync(&mut hub);
    b.sync(&mut hub);
    pass_a_millisecond();
    a.run("ALTER TABLE docs RENAME COLUMN b TO a").sync(&mut hub);
    holds(&mut a, ROWS, "b", 100);
    look_around(&mut hub, &mut [&mut a]);
    b.run("ALTER TABLE docs RENAME COLUMN b TO a").sync(&mut hub);
    look_around(&mut hub, &mut [&mut a, &mut b]);
    holds(&mut a, ROWS, "b", 100);
    holds(&mut b, ROWS, "b", 100);
}

#[test]
fn whoever_makes_the_same_change_later_takes_back_no_edit() {
    for heard in [false, true] {
        for release_between in [false, true] {
            let (mut hub, mut a, mut b) = filled(DOCS);
            let rename = if release_between {
                for agent in [&mut a, &mut b] {
                    agent.run("ALTER TABLE docs DROP COLUMN a").sync(&mut hub);
                }
                "ALTER TABLE docs RENAME COLUMN b TO a"
            } else {
                DROP_AND_RENAME
            };
            pass_a_millisecond();
            a.run(rename).run("UPDATE docs SET a = 'early' WHERE id = '100'").sync(&mut hub);
            pass_a_millisecond();
            a.run("UPDATE docs SET a = 'edited' WHERE id = '101'").sync(&mut hub);
            if heard {
                b.sync(&mut hub);
            }
            pass_a_millisecond();
            b.run("UPDATE docs SET b = 'by b' WHERE id = '102'");
            b.run(rename).sync(&mut hub);
            settle(&mut hub, &mut a, &mut b, ROWS);
            look_around(&mut hub, &mut [&mut a, &mut b]);
            let rows = settle(&mut hub, &mut a, &mut b, "SELECT a FROM docs ORDER BY id LIMIT 4");
            let expected = ["early", "edited", "by b", "b103"].map(|value| vec![text(value)]);
            assert_eq!(rows, expected, "heard {heard}, release between {release_between}");
            holds(&mut a, ROWS, "b", 97);
        }
    }
}

#[test]
fn rows_of_an_agent_that_has_not_changed_its_columns_yet_follow_when_it_does() {
    let (mut hub, mut a, mut b) = filled(DOCS);
    a.run(DROP_AND_RENAME).sync(&mut hub);
    pass_a_millisecond();
    b.run("INSERT INTO docs VALUES('new', 'anew', 'bnew')").sync(&mut hub);
    a.sync(&mut hub);
    b.run(DROP_AND_RENAME).sync(&mut hub);
    settle(&mut hub, &mut a, &mut b, ROWS);
    holds(&mut a, ROWS, "b", 101);
}

#[test]
fn a_change_of_columns_brings_no_row_back() {
    let (mut hub, mut a, mut b) = filled(DOCS);
    pass_a_millisecond();
    b.run("DELETE FROM docs WHERE id < '150'").sync(&mut hub);
    pass_a_millisecond();
    a.run(DROP_AND_RENAME).sync(&mut hub);
    b.run(DROP_AND_RENAME).sync(&mut hub);
    settle(&mut hub, &mut a, &mut b, ROWS);
    holds(&mut a, ROWS, "b", 50);
    assert_eq!(a.rows("SELECT count(*) FROM docs"), vec![vec![Value::Integer(50)]]);
}

#[test]
fn a_column_that_is_added_under_a_dropped_name_gets_what_others_wrote() {
    let (mut hub, mut a, mut b) = filled(DOCS);
    a.run("ALTER TABLE docs DROP COLUMN a; ALTER TABLE docs ADD COLUMN a").sync(&mut hub);
    settle(&mut hub, &mut a, &mut b, ROWS);
    holds(&mut a, ROWS, "A", 100);
}

#[test]
fn a_type_that_is_changed_by_way_of_another_column_is_a_write() {
    let (mut hub, mut a, mut b) = filled("CREATE TABLE docs(id TEXT PRIMARY KEY, b, a)");
    a.run(
        "ALTER TABLE docs ADD COLUMN n INTEGER NOT NULL DEFAULT 0; UPDATE docs SET n = 1 WHERE id < '150';
         ALTER TABLE docs DROP COLUMN a; ALTER TABLE docs RENAME COLUMN n TO a",
    );
    a.sync(&mut hub);
    look_around(&mut hub, &mut [&mut a]);
    settle(&mut hub, &mut a, &mut b, ROWS);
    let sums = b.rows("SELECT sum(a), count(*) FILTER (WHERE a = 0) FROM docs");
    assert_eq!(sums, vec![vec![Value::Integer(50), Value::Integer(50)]]);
}

#[test]
fn a_rebuilt_table_whose_columns_swap_their_names_is_the_same_change_everywhere() {
    let rebuild =
        "CREATE TABLE new(id TEXT PRIMARY KEY, a, b); INSERT INTO new(id, a, b) SELECT id, b, a FROM docs;
                   DROP TABLE docs; ALTER TABLE new RENAME TO docs";
    let (mut hub, mut a, mut b) = filled(DOCS);
    a.run(rebuild).sync(&mut hub);
    pass_a_millisecond();
    a.run("UPDATE docs SET a = 'edited' WHERE id = '100'").sync(&mut hub);
    pass_a_millisecond();
    b.run(rebuild).sync(&mut hub);
    settle(&mut hub, &mut a, &mut b, "SELECT * FROM docs ORDER BY id");
    look_around(&mut hub, &mut [&mut a, &mut b]);
    holds(&mut a, ROWS, "b", 99);
    holds(&mut b, "SELECT id, b AS a FROM docs", "A", 100);
    assert_eq!(b.rows("SELECT a FROM docs WHERE id = '100'"), vec![vec![text("edited")]]);
}

#[test]
fn a_null_that_a_renamed_column_is_given_is_a_write() {
    let (mut hub, mut a, mut b) = filled(DOCS);
    a.run("ALTER TABLE docs RENAME COLUMN b TO c; UPDATE docs SET c = NULL WHERE id = '100'").sync(&mut hub);
    b.run("ALTER TABLE docs RENAME COLUMN b TO c").sync(&mut hub);
    let rows = settle(&mut hub, &mut a, &mut b, "SELECT c FROM docs ORDER BY id LIMIT 2");
    assert_eq!(rows, vec![vec![Value::Null], vec![text("b101")]]);
}

#[test]
fn a_table_that_takes_the_name_of_a_dropped_one_has_its_own_rows() {
    let keys = ["TEXT PRIMARY KEY", "INTEGER PRIMARY KEY"];
    for (key, is_heard) in keys.into_iter().flat_map(|key| [(key, false), (key, true)]) {
        let schema = format!("CREATE TABLE docs(id {key}, a); CREATE TABLE pages(id {key}, a)");
        let (mut hub, mut a, mut b) = pair(&schema);
        a.run("INSERT INTO docs VALUES(1, 'old 1'), (2, 'old 2'); INSERT INTO pages VALUES(1, 'page 1'), (3, 'page 3')");
        settle(&mut hub, &mut a, &mut b, "SELECT * FROM docs ORDER BY id");
        pass_a_millisecond();
        a.run("UPDATE docs SET a = a || '!'");
        settle(&mut hub, &mut a, &mut b, "SELECT * FROM docs ORDER BY id");
        let take = "DROP TABLE docs; ALTER TABLE pages RENAME TO docs";
        a.run(take).sync(&mut hub);
        let pages = ["page 1", "page 3"].map(|page| vec![text(page)]);
        assert_eq!(a.rows("SELECT a FROM docs ORDER BY id"), pages, "{key}");
        look_around(&mut hub, &mut [&mut a]);
        pass_a_millisecond();
        a.run("UPDATE docs SET a = 'edited' WHERE a = 'page 1'; INSERT INTO docs VALUES(4, 'new')")
            .sync(&mut hub);
        if is_heard {
            b.sync(&mut hub);
        }
        b.run(take).sync(&mut hub);
        look_around(&mut hub, &mut [&mut a, &mut b]);
        let pages = ["edited", "new", "page 3"].map(|page| vec![text(page)]);
        assert_eq!(a.rows("SELECT a FROM docs ORDER BY a"), pages, "{key}");
        assert_eq!(b.rows("SELECT a FROM docs ORDER BY a"), pages, "{key}");
    }
}
