//! What an operator removes while agents are connected, and what becomes of it at the agents.

use std::time::Duration;

use federation_hub::engine::agent_error::ErrorCode;
use federation_hub::engine::operator::OperateError;
use federation_hub::model::Value;
use federation_hub::storage::revocation::Revoked;

use crate::site::{Member, Site};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT)";
const SKILLS: &str = "CREATE TABLE skills(name TEXT PRIMARY KEY, uses INTEGER)";
const ALL: &str = "SELECT id, body FROM notes ORDER BY id";

fn texts(rows: &[&[&str]]) -> Vec<Vec<Value>> {
    rows.iter().map(|row| row.iter().map(|it| Value::Text((*it).into())).collect()).collect()
}

/// Two agents with `notes` and `skills`, and a row of each in both.
async fn two(site: &Site) -> (Member, Member) {
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    a.run(NOTES).await;
    a.run(SKILLS).await;
    a.run("INSERT INTO notes VALUES('1', 'one'), ('2', 'two'); INSERT INTO skills VALUES('s', 1)").await;
    a.sync().await;
    b.sync().await;
    assert_eq!(b.rows(ALL).await.len(), 2);
    (a, b)
}

/// Syncs both until nothing moves; fails if that does not come, or if the self-check heals anything.
async fn settle(members: &[&Member]) {
    let mut quiet = 0;
    for _ in 0..20 {
        let mut moved = 0;
        for member in members {
            let report = member.sync().await;
            assert_eq!(report.healed, 0, "{:?}", report.notices);
            moved += report.pulled + report.pushed;
        }
        quiet = if moved == 0 { quiet + 1 } else { 0 };
        if quiet == 5 {
            return;
        }
    }
    panic!("it does not come to rest");
}

/// Breaks if agents push back what was removed, lose it, repair it for ever, or cannot go on with their other tables.
#[tokio::test]
async fn a_table_that_was_removed_stays_where_it_is_and_is_shared_no_more() {
    let site = Site::start(":memory:").await;
    let (a, b) = two(&site).await;
    let report = site.hub.drop_table("acme", "notes").await.unwrap();
    assert_eq!(report.removed.rows, 2);
    assert_eq!(site.hub.stats().rows, 1);

    a.run("INSERT INTO notes VALUES('3', 'of a'); UPDATE notes SET body = 'edited' WHERE id = '1'").await;
    a.run("UPDATE skills SET uses = 2").await;
    let told = a.sync().await;
    assert!(
        told.notices.iter().any(|it| it.contains("notes") && it.contains("operator has removed it")),
        "{told:?}"
    );
    settle(&[&a, &b]).await;
    assert_eq!(site.hub.stats().rows, 1, "nothing has come back");
    assert_eq!(a.rows(ALL).await, texts(&[&["1", "edited"], &["2", "two"], &["3", "of a"]]));
    assert_eq!(b.rows(ALL).await, texts(&[&["1", "one"], &["2", "two"]]));
    assert_eq!(b.rows("SELECT uses FROM skills").await, [[Value::Integer(2)]]);
    let notices = b.sync().await.notices;
    assert!(notices.iter().any(|it| it.contains("server.readmit")), "{notices:?}");
    let newcomer = site.agent("acme", "c").await;
    newcomer.sync().await;
    let made = newcomer.rows("SELECT name FROM sqlite_master WHERE name IN ('notes', 'skills')").await;
    assert_eq!(made, texts(&[&["skills"]]));
}

/// Breaks if a table that was readmitted is not the same everywhere, whoever was away when.
#[tokio::test]
async fn a_table_that_is_readmitted_is_offered_by_all_who_have_it() {
    let site = Site::start(":memory:").await;
    let (a, b) = two(&site).await;
    let away = site.agent("acme", "away").await;
    away.sync().await;
    away.run("INSERT INTO notes VALUES('9', 'of away'); UPDATE notes SET body = 'by away' WHERE id = '2'")
        .await;
    site.hub.drop_table("acme", "notes").await.unwrap();
    a.run("INSERT INTO notes VALUES('3', 'of a'); DELETE FROM notes WHERE id = '1'").await;
    settle(&[&a, &b]).await;
    site.hub.readmit("acme", "notes", None).await.unwrap();
    settle(&[&a, &b]).await;
    // It has heard neither of the removal nor of its end.
    settle(&[&away, &a, &b]).await;
    let expected = texts(&[&["2", "by away"], &["3", "of a"], &["9", "of away"]]);
    for member in [&a, &b, &away] {
        assert_eq!(member.rows(ALL).await, expected);
    }
    let newcomer = site.agent("acme", "c").await;
    newcomer.sync().await;
    assert_eq!(newcomer.rows(ALL).await, expected);
}

/// Breaks if a name stays with whoever has squatted it, or goes back to it by way of those who made its table.
#[tokio::test]
async fn a_squatted_name_goes_to_whoever_has_another_table_of_it() {
    let site = Site::start(":memory:").await;
    let squatter = site.agent("acme", "squatter").await;
    squatter
        .run("CREATE TABLE notes(id INTEGER PRIMARY KEY, spam TEXT); INSERT INTO notes VALUES(1, 'spam')")
        .await;
    squatter.sync().await;
    let bystander = site.agent("acme", "bystander").await;
    bystander.sync().await;
    let rightful = site.agent("acme", "rightful").await;
    rightful.run(NOTES).await;
    rightful.run("INSERT INTO notes VALUES('mine', 'own')").await;
    assert!(rightful.sync().await.notices.iter().any(|it| it.contains("INTEGER PRIMARY KEY")));

    let revoked = Revoked::Agent { tenant: "acme".into(), agent: "squatter".into() };
    site.hub.revoke(revoked, None).await.unwrap();
    site.hub.drop_table("acme", "notes").await.unwrap();
    // Whoever only made the table comes first.
    settle(&[&bystander, &rightful]).await;
    let newcomer = site.agent("acme", "newcomer").await;
    newcomer.sync().await;
    assert_eq!(newcomer.rows(ALL).await, texts(&[&["mine", "own"]]));
    assert_eq!(bystander.rows("SELECT spam FROM notes").await, texts(&[&["spam"]]));
    bystander.run("DROP TABLE notes").await;
    bystander.run(NOTES).await;
    settle(&[&bystander, &rightful, &newcomer]).await;
    assert_eq!(bystander.rows(ALL).await, texts(&[&["mine", "own"]]));
}

/// Breaks if a removed index keeps rows apart or together at the hub, or is handed to newcomers.
#[tokio::test]
async fn an_index_that_was_removed_is_no_rule_any_more() {
    let site = Site::start(":memory:").await;
    let (a, b) = two(&site).await;
    a.run("CREATE UNIQUE INDEX by_body ON notes(body)").await;
    a.sync().await;
    site.hub.drop_definition("acme", "notes", "by_body").await.unwrap();
    let told = b.sync().await;
    assert!(told.notices.iter().any(|it| it.contains("by_body") && it.contains("operator")), "{told:?}");
    let newcomer = site.agent("acme", "c").await;
    newcomer.sync().await;
    newcomer.run("INSERT INTO notes VALUES('5', 'one')").await;
    settle(&[&newcomer, &b]).await;
    assert_eq!(b.rows("SELECT count(*) FROM notes WHERE body = 'one'").await, [[Value::Integer(2)]]);
    assert_eq!(site.hub.stats().rows, 4);
}

/// Breaks if a tenant can be erased while its agents are let in, if they cannot come back, or if others notice.
#[tokio::test]
async fn an_erased_tenant_is_gone_until_its_agents_are_let_in_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut site = Site::start(directory.path().join("hub.db").to_str().unwrap()).await;
    let (a, b) = two(&site).await;
    let other = site.agent("globex", "a").await;
    other.run(NOTES).await;
    other.run("INSERT INTO notes VALUES('g', 'x')").await;
    other.sync().await;
    let error = site.hub.erase_tenant("acme").await.unwrap_err();
    assert!(
        matches!(&error, OperateError::NotRevoked(_)) && error.to_string().contains("revoke("),
        "{error}"
    );
    let error = site.hub.erase_tenant("acne").await.unwrap_err();
    assert!(error.to_string().contains("did you mean \"acme\"?"), "{error}");

    let acme = Revoked::Tenant("acme".into());
    site.hub.revoke(acme.clone(), None).await.unwrap();
    let report = site.hub.erase_tenant("acme").await.unwrap();
    assert!(report.removed.rows == 3 && report.is_log_emptied, "{report:?}");
    assert_eq!((site.hub.stats().tenants, site.hub.stats().rows), (1, 1));
    assert_eq!(a.try_sync().await.unwrap_err().code, ErrorCode::Unauthenticated);
    assert_eq!(other.sync().await.pushed, 0, "it is still attached");
    other.run("INSERT INTO notes VALUES('h', 'y')").await;
    assert_eq!(other.sync().await.pushed, 1);

    // Whoever is let in offers what it has, as to a hub that has never seen it.
    assert!(site.hub.reinstate(acme).await.unwrap());
    a.run("INSERT INTO notes VALUES('3', 'after')").await;
    settle(&[&a, &b]).await;
    assert_eq!(site.hub.stats().rows, 6);
    for member in [&a, &b] {
        assert_eq!(member.rows(ALL).await.len(), 3);
    }
    site.restart().await;
    settle(&[&a, &b]).await;
    assert_eq!(site.hub.stats().rows, 6);
}

/// Breaks if agents of other tenants wait for a large tenant to go, or if its file stays as large as it was.
#[tokio::test]
async fn a_large_tenant_goes_in_pieces_and_gives_its_pages_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let site = Site::start(path.to_str().unwrap()).await;
    let a = site.agent("acme", "a").await;
    a.run(NOTES).await;
    a.run(
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
           INSERT INTO notes SELECT i, hex(randomblob(1000)) FROM n",
    )
    .await;
    a.sync().await;
    let other = site.agent("globex", "a").await;
    other.run(NOTES).await;
    site.hub.revoke(Revoked::Tenant("acme".into()), None).await.unwrap();
    let writing = async {
        let mut during = 0;
        loop {
            other.run(&format!("INSERT INTO notes VALUES('{during}', 'x')")).await;
            other.sync().await;
            if site.hub.stats().rows == during + 1 && path.metadata().unwrap().len() < 1_000_000 {
                return during;
            }
            during += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (erased, _) = tokio::join!(site.hub.erase_tenant("acme"), writing);
    let erased = erased.unwrap();
    assert!(erased.removed.rows == 3_000 && erased.compacted > 5_000_000, "{erased:?}");
    assert_eq!(site.hub.compact().await.unwrap(), 0);
}

#[tokio::test]
async fn what_there_is_is_told_and_what_there_is_not_is_named() {
    let site = Site::start(":memory:").await;
    let (a, _b) = two(&site).await;
    let all = site.hub.tenants().await.unwrap();
    assert_eq!(
        all.iter().map(|it| (it.name.as_str(), it.rows, it.agents)).collect::<Vec<_>>(),
        [("acme", 3, 2)]
    );
    let described = site.hub.describe("acme").await.unwrap();
    let counted: Vec<_> = described
        .tenant
        .tables
        .iter()
        .zip(&described.counts)
        .map(|(it, count)| (it.name.as_str(), count.rows))
        .collect();
    assert_eq!(counted, [("notes", 2), ("skills", 1)]);
    assert_eq!(described.counts.iter().map(|it| it.bytes).sum::<u64>(), described.tenant.summary.bytes);
    a.run("ALTER TABLE skills ADD COLUMN level").await;
    a.sync().await;
    let skills = &site.hub.describe("acme").await.unwrap().tenant.tables[1];
    assert_eq!(skills.columns, ["name", "uses", "level"]);
    for error in [
        site.hub.drop_table("acme", "note").await.unwrap_err(),
        site.hub.drop_definition("acme", "note", "x").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("did you mean \"notes\"?"), "{error}");
    }
    let stopped = Site::start(":memory:").await;
    stopped.hub.stop().await;
    assert!(matches!(stopped.hub.tenants().await, Err(OperateError::NotRunning)));
    assert!(matches!(stopped.hub.compact().await, Err(OperateError::NotRunning)));
}
