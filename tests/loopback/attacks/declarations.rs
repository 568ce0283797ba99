//! Agents that declare, and attach, as much as they may.

use std::sync::atomic::{AtomicBool, Ordering};

use federation_hub::engine::hub_limits::HubLimits;
use federation_hub::model::{Agreement, KeyKind, ReplicaId, TableSchema, Value};
use federation_hub::protocol::message::{Standing, SyncBegin, ToAgent, ToHub};

use super::messages::{attach, notes, say, sync};
use super::raw::enter;
use crate::site::Site;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";
const MINE: ReplicaId = ReplicaId([0xee; 16]);

fn wide(name: &str, columns: usize) -> TableSchema {
    let columns: Vec<String> = (0..columns).map(|n| format!("c{n}")).collect();
    let ddl = format!("CREATE TABLE {name}(c0 TEXT PRIMARY KEY, {})", columns[1..].join(", "));
    let agreed = Agreement { key_columns: vec!["c0".into()], ..Agreement::default() };
    TableSchema { name: name.into(), key: KeyKind::Natural, columns, ddl, indexes: Vec::new(), agreed }
}

/// The tables that are refused to whoever declares these, each with the reason.
async fn declare(
    connection: &federation_hub::transport::Connection,
    epoch: u64,
    schema: Vec<TableSchema>,
) -> Vec<(String, String)> {
    let begin = SyncBegin { refresh: vec![], ..sync(MINE, epoch, 0, schema) };
    let heard = say(connection, &[ToHub::Sync(begin), ToHub::End]).await;
    let Some(ToAgent::Done(done)) = heard.last() else { panic!("{heard:?}") };
    done.refused.clone()
}

/// Breaks if one message of a few kilobytes keeps everybody else from the hub's store: a thousand tables, each of more columns
/// than any table may have, and as many as the tenant may have.
#[tokio::test]
async fn a_sync_that_declares_a_thousand_tables_of_two_thousand_columns() {
    let site = Site::start(":memory:").await;
    let (good, attacker) = (site.agent("acme", "good").await, enter(&site).await);
    good.run(NOTES).await;
    good.sync().await;
    let epoch = attach(&attacker, MINE, true).await.epoch;
    let widest = TableSchema { ddl: String::new(), ..wide("t", 1_999) };
    let named = |n: usize| TableSchema { name: format!("t{n}"), ..widest.clone() };
    let too_wide: Vec<TableSchema> = (0..1_000).map(named).collect();
    let as_many_as_may_be: Vec<TableSchema> = (0..300).map(|n| wide(&format!("w{n}"), 80)).collect();
    for (schema, refused, limit) in
        [(too_wide, 1_000, "1900 columns"), (as_many_as_may_be, 50, "maxColumnsPerTenant")]
    {
        let is_over = AtomicBool::new(false);
        let attack = async {
            let told = declare(&attacker, epoch, schema).await;
            is_over.store(true, Ordering::Relaxed);
            told
        };
        let (told, ()) = tokio::join!(attack, async {
            let mut syncs = 0;
            while !is_over.load(Ordering::Relaxed) {
                good.run(&format!("INSERT INTO notes VALUES('{limit} {syncs}', 'good')")).await;
                assert_eq!(good.sync().await.pushed, 1);
                syncs += 1;
            }
        });
        assert_eq!(told.len(), refused, "{:?}", told.first());
        assert!(told.iter().all(|(_, why)| why.contains(limit)), "{:?}", told[0]);
    }
}

/// Breaks if an agent of the tenant takes so many names that those that are shared suffer, or that nothing can be done.
#[tokio::test]
async fn tables_and_columns_that_are_taken_so_that_nobody_else_has_any() {
    let limits = HubLimits { max_tables_per_tenant: 5, max_columns_per_tenant: 100, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let (good, attacker) = (site.agent("evil", "good").await, enter(&site).await);
    good.run(NOTES).await;
    good.run("INSERT INTO notes VALUES('a', 'first')").await;
    good.sync().await;
    let epoch = attach(&attacker, MINE, true).await.epoch;
    let mut squatting: Vec<TableSchema> = (0..50).map(|n| wide(&format!("t{n}"), 2)).collect();
    let columns = (0..1_900).map(|n| format!("of_evil_{n}"));
    squatting.push(TableSchema { columns: notes().columns.into_iter().chain(columns).collect(), ..notes() });
    let refused = declare(&attacker, epoch, squatting).await;
    assert_eq!(refused.iter().filter(|(_, why)| why.contains("maxTablesPerTenant")).count(), 46);
    let last = refused.last().unwrap();
    assert!(last.0 == "notes" && last.1.contains("columns"), "{last:?}");

    good.run("CREATE TABLE more(id TEXT PRIMARY KEY); INSERT INTO more VALUES('x')").await;
    good.run("UPDATE notes SET title = 'second'").await;
    let report = good.sync().await;
    assert_eq!((report.pushed, report.quarantined), (1, 0), "{report:?}");
    let told: Vec<&String> = report.notices.iter().filter(|it| it.contains("maxTablesPerTenant")).collect();
    assert_eq!(told.len(), 1, "{:?}", report.notices);
    let late = site.agent("evil", "late").await;
    late.sync().await;
    assert_eq!(late.rows("SELECT title FROM notes").await, [[Value::Text("second".into())]]);
    assert_eq!(late.rows("SELECT count(*) FROM pragma_table_info('notes')").await, [[Value::Integer(2)]]);
}

/// Breaks if an agent fills the hub with replicas, or its tenant, so that nobody else's is remembered.
#[tokio::test]
async fn replicas_without_end() {
    let limits = HubLimits { max_replicas_per_tenant: 10, ..HubLimits::default() };
    let site = Site::with(":memory:", |options| options.limits = limits).await;
    let (good, attacker) = (site.agent("evil", "good").await, enter(&site).await);
    good.run(NOTES).await;
    good.run("INSERT INTO notes VALUES('a', 'first')").await;
    good.sync().await;
    let before = good.rows("SELECT replica FROM _federation_replica").await;
    for n in 0..50 {
        assert_eq!(attach(&attacker, ReplicaId([n; 16]), true).await.standing, Standing::Current);
    }
    good.run("UPDATE notes SET title = 'second'").await;
    assert_eq!(good.sync().await.pushed, 1);
    assert_eq!(good.rows("SELECT replica FROM _federation_replica").await, before, "it is remembered");
    assert_eq!(attach(&attacker, ReplicaId([0; 16]), false).await.standing, Standing::Retired);
    let late = site.agent("evil", "late").await;
    assert_eq!(late.sync().await.pulled, 1, "who comes next finds a place");
}
