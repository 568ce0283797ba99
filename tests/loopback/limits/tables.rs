//! More tables, columns or definitions than a tenant may have: what is too much stays, and everything else goes on.

use federation_hub::engine::agent::AgentOptions;
use federation_hub::model::Value;

use crate::limits::NOTES;
use crate::site::{Member, Site};

/// An agent that waits for as long as an unoptimised hub takes to prove a thousand definitions.
async fn patient(site: &Site, name: &str) -> Member {
    Member::connect(AgentOptions { request_timeout_ms: 120_000, ..site.options("acme", name) }).await
}

/// More tables than are shared, each with a row.
async fn many_tables(member: &Member, prefix: &str, count: usize) {
    let tables = (0..count).map(|n| format!("CREATE TABLE {prefix}{n}(id TEXT PRIMARY KEY); "));
    let rows = (0..count).map(|n| format!("INSERT INTO {prefix}{n} VALUES('{prefix}'); "));
    member.run(&format!("BEGIN; {}{}COMMIT", tables.collect::<String>(), rows.collect::<String>())).await;
}

async fn count(member: &Member, query: &str) -> i64 {
    match member.rows(query).await[..] {
        [ref row] => match row[..] {
            [Value::Integer(count)] => count,
            _ => panic!("{row:?}"),
        },
        _ => panic!("{query}"),
    }
}

/// Breaks if the hub refuses the sync of whoever has one table too many, or a new table takes the place of one that is shared.
#[tokio::test]
async fn tables_beyond_a_thousand_stay_and_one_notice_says_so() {
    let site = Site::start(":memory:").await;
    let (a, b) = (patient(&site, "a").await, patient(&site, "b").await);
    many_tables(&a, "t", 990).await;
    a.sync().await;
    many_tables(&a, "late", 15).await;
    a.run(NOTES).await;
    let report = a.sync().await;
    assert_eq!(report.pushed, 10);
    let told: Vec<&String> = report.notices.iter().filter(|it| it.contains("not shared")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    for word in ["notes", "1000 tables", "exclude"] {
        assert!(told[0].contains(word), "{told:?}");
    }
    assert_eq!(a.sync().await.notices, Vec::<String>::new());
    a.run("INSERT INTO t0 VALUES('after')").await;
    assert_eq!(a.sync().await.pushed, 1);
    b.sync().await;
    assert_eq!(count(&b, "SELECT count(*) FROM t0").await, 2);
    assert_eq!(
        count(&b, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'late%' AND type = 'table'").await,
        10
    );
}

/// Breaks if two agents whose tables are too many together stop each other.
#[tokio::test]
async fn agents_whose_tables_are_too_many_together_share_what_the_tenant_has() {
    let site = Site::start(":memory:").await;
    let (a, b) = (patient(&site, "a").await, patient(&site, "b").await);
    many_tables(&a, "of_a", 700).await;
    many_tables(&b, "of_b", 700).await;
    a.sync().await;
    let notices = b.sync().await.notices;
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    for word in ["of_b", "380 others", "1000 tables", "xclude"] {
        assert!(notice.contains(word), "{notice}");
    }
    for _ in 0..2 {
        a.sync().await;
        let report = b.sync().await;
        assert_eq!(report.quarantined, 0, "{report:?}");
    }
    a.run("INSERT INTO of_a699 VALUES('later')").await;
    a.sync().await;
    b.sync().await;
    assert_eq!(count(&b, "SELECT count(*) FROM of_a699").await, 2);
    assert_eq!(count(&a, "SELECT count(*) FROM of_b0").await, 1);
}

/// Breaks if a table that no query can read whole ends the syncs of its database.
#[tokio::test]
async fn a_table_of_too_many_columns_stays_and_one_notice_says_so() {
    let site = Site::start(":memory:").await;
    let (a, b) = (patient(&site, "a").await, patient(&site, "b").await);
    let wide = |name: &str, columns: usize| {
        let columns: Vec<String> = (1..columns).map(|n| format!(", c{n}")).collect();
        let columns = columns.concat();
        format!(
            "CREATE TABLE {name}(id TEXT PRIMARY KEY{columns}); INSERT INTO {name}(id, c1) VALUES('x', 1)"
        )
    };
    for (name, columns) in [("widest", 2_000), ("wider", 1_901), ("wide", 1_900)] {
        a.run(&wide(name, columns)).await;
    }
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('x', 'one')").await;
    let report = a.sync().await;
    assert_eq!(report.pushed, 2);
    let told: Vec<&String> = report.notices.iter().filter(|it| it.contains("not shared")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    for word in ["wider", "widest", "1900 columns", "exclude"] {
        assert!(told[0].contains(word), "{told:?}");
    }
    assert_eq!(b.sync().await.pulled, 2);
    b.run("UPDATE wide SET c1899 = 'changed'").await;
    b.sync().await;
    assert_eq!(a.sync().await.pulled, 1);
    // Elsewhere the table may be narrow enough: its rows are not wanted here, and are not set aside.
    b.run("CREATE TABLE widest(id TEXT PRIMARY KEY, c1)").await;
    b.run("INSERT INTO widest VALUES('y', 2)").await;
    b.sync().await;
    assert_eq!(a.sync().await.quarantined, 0);
}

/// Breaks if definitions that no message can hold end the syncs of their database.
#[tokio::test]
async fn definitions_beyond_what_a_message_holds_stay() {
    let site = Site::start(":memory:").await;
    let a = patient(&site, "a").await;
    let comment = "x".repeat(60 << 10);
    let table = |n| format!("CREATE TABLE t{n}(id TEXT PRIMARY KEY /* {comment} */); ");
    let tables: Vec<String> = (0..300).map(table).collect();
    a.run(&format!("BEGIN; {}COMMIT", tables.concat())).await;
    a.run("INSERT INTO t0 VALUES('x')").await;
    let report = a.sync().await;
    assert_eq!(report.pushed, 1);
    let told: Vec<&String> = report.notices.iter().filter(|it| it.contains("not shared")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("bytes") && told[0].contains("exclude"), "{told:?}");
}

/// Breaks if an agent relies on its hub to have refused a definition that never ends: one of an earlier release has not.
#[tokio::test]
async fn a_definition_that_never_ends_is_not_made_whatever_the_hub_thinks_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let mut site = Site::start(path.to_str().unwrap()).await;
    let a = site.agent("acme", "a").await;
    a.run(NOTES).await;
    a.run("CREATE TABLE others(id TEXT PRIMARY KEY); CREATE INDEX by_id ON others(id)").await;
    a.run("INSERT INTO notes VALUES('x', 'one'); INSERT INTO others VALUES('o')").await;
    a.sync().await;
    a.agent.disconnect().await;
    site.hub.stop().await;
    let store = rusqlite::Connection::open(&path).unwrap();
    let endless = "instr(zeroblob(400000000), zeroblob(200000000) || 'x')";
    let text = format!("CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT CHECK({endless} = 0))");
    let index = format!("CREATE INDEX by_id ON others(id) WHERE {endless}");
    let set = |column: &str, value: &dyn rusqlite::ToSql, table: &str| {
        let statement = format!("UPDATE table_schema SET {column} = ?1 WHERE name = ?2");
        assert_eq!(store.execute(&statement, rusqlite::params![value, table]).unwrap(), 1);
    };
    set("ddl", &text, "notes");
    set("indexes", &rmp_serde::to_vec(&[index]).unwrap(), "others");
    drop(store);
    site.restart().await;
    let newcomer = site.agent("acme", "newcomer").await;
    let report = newcomer.sync().await;
    for why in ["notes\" is not made here", "an index of table others is not made here"] {
        let is_told = |notice: &&String| notice.contains(why) && notice.contains("out of numbers");
        assert_eq!(report.notices.iter().filter(is_told).count(), 1, "{:?}", report.notices);
    }
    assert_eq!(newcomer.rows("SELECT id FROM others").await, [[Value::Text("o".into())]]);
}
