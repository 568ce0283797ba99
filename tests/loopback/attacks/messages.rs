//! Messages that are well made, and mean harm.

use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::token::Grant;
use federation_hub::model::{
    Agreement, Digest, Hlc, KeyKind, Op, ReplicaId, RowChange, RowId, Stamp, TableHeader, TableSchema, Value,
    Write,
};
use federation_hub::protocol::check::{Check, Range};
use federation_hub::protocol::message::{
    Attach, Attached, Batch, BatchBody, Hello, Refusal, Standing, SyncBegin, ToAgent, ToHub,
};
use federation_hub::transport::Connection;
use tokio::time::timeout;

use super::raw::{PATIENCE, connect, enter};
use crate::site::{Member, Site};

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)";
const MINE: ReplicaId = ReplicaId([0xee; 16]);

/// Says all of this on one stream, and hears the hub out.
pub async fn say(connection: &Connection, messages: &[ToHub]) -> Vec<ToAgent> {
    let (mut sender, mut receiver) = connection.open().await.unwrap();
    for message in messages {
        sender.send(message).await.unwrap();
    }
    sender.finish().unwrap();
    let mut heard = Vec::new();
    while let Some(message) = timeout(PATIENCE, receiver.next()).await.unwrap().unwrap() {
        heard.push(message);
    }
    heard
}

pub async fn attach(connection: &Connection, replica: ReplicaId, is_new: bool) -> Attached {
    let heard = say(connection, &[ToHub::Attach(Attach { replica, cursor: 0, is_new })]).await;
    let [ToAgent::Attached(attached)] = &heard[..] else { panic!("{heard:?}") };
    attached.clone()
}

pub fn sync(replica: ReplicaId, epoch: u64, cursor: u64, schema: Vec<TableSchema>) -> SyncBegin {
    let schema = (!schema.is_empty()).then_some(schema);
    SyncBegin { replica, epoch, cursor, resume: cursor, counter: 1, schema, refresh: vec!["notes".into()] }
}

pub fn notes() -> TableSchema {
    TableSchema {
        name: "notes".into(),
        key: KeyKind::Natural,
        columns: vec!["id".into(), "title".into()],
        ddl: NOTES.into(),
        indexes: Vec::new(),
        agreed: Agreement { key_columns: vec!["id".into()], ..Agreement::default() },
    }
}

/// The first batch of a replica: these rows of `notes`, each with its stamp.
fn batch(rows: &[(RowId, Hlc, Op)]) -> ToHub {
    let tables = vec![TableHeader { name: "notes".into(), columns: vec!["id".into(), "title".into()] }];
    let rows = rows.iter().map(|(id, hlc, op)| {
        let stamp = Stamp { hlc: *hlc, replica: MINE.tie_break() };
        let writes = vec![Write { stamp, base: 0, op: op.clone() }];
        RowChange { table: 0, id: *id, number: None, is_new: true, writes }
    });
    let body = BatchBody { tables, rows: rows.collect(), collisions: Vec::new() };
    ToHub::Batch(Batch { n: 1, previous: Digest::ZERO, body: rmp_serde::to_vec(&body).unwrap() })
}

fn note(id: &str, title: &str) -> Op {
    Op::Set(vec![(0, Value::Text(id.into()).into()), (1, Value::Text(title.into()).into())])
}

fn now() -> Hlc {
    Hlc::from_ms(wall_now_ms())
}

async fn titles(member: &Member) -> Vec<Vec<Value>> {
    member.rows("SELECT id, title FROM notes ORDER BY id").await
}

fn rows(expected: &[(&str, &str)]) -> Vec<Vec<Value>> {
    expected.iter().map(|(id, title)| vec![Value::Text((*id).into()), Value::Text((*title).into())]).collect()
}

/// The replica of a database, and the row of its only note: what an attacker might have learned of a victim.
async fn secrets_of(victim: &Member) -> (ReplicaId, RowId) {
    let blob = |found: Vec<Vec<Value>>| match &found[0][0] {
        Value::Blob(bytes) => <[u8; 16]>::try_from(&bytes[..]).unwrap(),
        other => panic!("{other:?}"),
    };
    let replica = blob(victim.rows("SELECT replica FROM _federation_replica").await);
    (ReplicaId(replica), RowId(blob(victim.rows("SELECT id FROM _federation_row").await)))
}

/// Breaks if anything that an attacker knows of another tenant (its agents' replicas, rows and tables, where they are in
/// its order) tells him more, or lets him write there.
#[tokio::test]
async fn cross_tenant_cursor_and_key_probing() {
    let site = Site::start(":memory:").await;
    let victim = site.agent("acme", "ada").await;
    victim.run(NOTES).await;
    victim.run("INSERT INTO notes VALUES('secret', 'of acme')").await;
    victim.sync().await;
    let (replica, row) = secrets_of(&victim).await;
    let attacker = enter(&site).await;
    // Of his own tenant, which there is from now on.
    let epoch = attach(&attacker, MINE, true).await.epoch;

    let attached = attach(&attacker, replica, false).await;
    assert_eq!(attached.standing, Standing::Retired, "as of any replica that there never was");
    assert_eq!((attached.last, attached.past), (None, Vec::new()));
    for epoch in 0..3 {
        let heard = say(&attacker, &[ToHub::Sync(sync(replica, epoch, 0, vec![])), ToHub::End]).await;
        assert!(matches!(&heard[..], [ToAgent::Refused(refused)] if refused.reason == Refusal::Stale));
    }

    let range = |upto| Range {
        table: "notes".into(),
        columns: vec!["id".into(), "title".into()],
        after: None,
        upto,
        left_out: Vec::new(),
    };
    for cursor in [0, 1, u64::MAX >> 1] {
        for is_asking in [false, true] {
            let check = Check { ranges: vec![range(Some(row)), range(None)], rows: is_asking };
            let begin = ToHub::Sync(sync(MINE, epoch, cursor, vec![]));
            for message in say(&attacker, &[begin, ToHub::Check(check), ToHub::End]).await {
                match message {
                    ToAgent::Done(done) => {
                        assert!(done.cursor == 0 || done.cursor == cursor, "{done:?}");
                        assert!(done.clock.is_empty() && done.retired.is_none_or(|it| it.is_empty()));
                    }
                    ToAgent::Rows(told) => assert!(told.rows.is_empty() && told.tables.is_empty()),
                    ToAgent::Compared(prints) => {
                        let heard = format!("{prints:?}");
                        assert!(!heard.contains("secret"), "{heard}");
                    }
                    ToAgent::Refused(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    let heard = say(
        &attacker,
        &[
            ToHub::Sync(sync(MINE, epoch, 0, vec![notes()])),
            batch(&[(row, now(), note("secret", "of evil")), (RowId([1; 16]), now(), Op::Delete)]),
            ToHub::End,
        ],
    )
    .await;
    assert!(heard.iter().any(|it| matches!(it, ToAgent::Ack(_))), "in its own tenant it may: {heard:?}");
    let other = site.agent("acme", "ben").await;
    for member in [&victim, &other] {
        member.sync().await;
        assert_eq!(titles(member).await, rows(&[("secret", "of acme")]));
    }
}

/// Breaks if somebody can write what nobody can ever overwrite, or put the hub's clock forward.
#[tokio::test]
async fn stamps_from_the_future() {
    let site = Site::start(":memory:").await;
    let attacker = enter(&site).await;
    let epoch = attach(&attacker, MINE, true).await.epoch;
    for ahead in [Hlc::from_ms(wall_now_ms() + 90_000), Hlc::from_ms(i64::MAX), Hlc(u64::MAX)] {
        let begin = ToHub::Sync(sync(MINE, epoch, 0, vec![notes()]));
        let attack = batch(&[(RowId([1; 16]), ahead, note("a", "for ever"))]);
        let heard = say(&attacker, &[begin, attack, ToHub::End]).await;
        let Some(ToAgent::Refused(refused)) = heard.last() else { panic!("{ahead:?}: {heard:?}") };
        assert_eq!(refused.reason, Refusal::Clock, "{refused:?}");
    }
    let good = site.agent("evil", "good").await;
    assert_eq!(good.sync().await.pulled, 0);
    good.run("INSERT INTO notes VALUES('a', 'good')").await;
    assert_eq!(good.sync().await.pushed, 1);
}

/// Breaks if what an agent declares does more, at the hub or on another agent, than to make its own table.
#[tokio::test]
async fn schema_ddl_that_would_do_harm() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside.db");
    let site = Site::start(":memory:").await;
    let (good, attacker) = (site.agent("evil", "good").await, enter(&site).await);
    good.run("CREATE TABLE kept(id TEXT PRIMARY KEY); INSERT INTO kept VALUES('here')").await;
    good.sync().await;
    let epoch = attach(&attacker, MINE, true).await.epoch;
    let outside_text = outside.display();
    let harm = [
        format!("{NOTES}; DROP TABLE kept"),
        "DROP TABLE kept".into(),
        format!("ATTACH '{outside_text}' AS notes"),
        format!("VACUUM INTO '{outside_text}'"),
        "PRAGMA writable_schema = ON".into(),
        "CREATE VIEW notes AS SELECT * FROM kept".into(),
        "CREATE VIRTUAL TABLE notes USING fts5(id, title)".into(),
        "CREATE TABLE notes AS SELECT id, id AS title FROM kept".into(),
        "CREATE TABLE _federation_replica(id TEXT PRIMARY KEY, title TEXT)".into(),
        "CREATE TABLE kept(id TEXT PRIMARY KEY, title TEXT)".into(),
    ];
    let trigger = "CREATE TRIGGER notes_insert AFTER INSERT ON kept BEGIN DELETE FROM kept; END";
    let schemas = harm.iter().map(|ddl| TableSchema { ddl: ddl.clone(), ..notes() });
    let schemas: Vec<_> = schemas.chain([TableSchema { indexes: vec![trigger.into()], ..notes() }]).collect();
    for (n, schema) in schemas.into_iter().enumerate() {
        // Under a name of its own, so that the first one does not stand for all.
        let name = format!("notes{n}");
        let rename = |text: &String| text.replace("notes", &name);
        let schema = TableSchema {
            name: name.clone(),
            ddl: rename(&schema.ddl),
            indexes: schema.indexes.iter().map(rename).collect(),
            ..schema
        };
        let begin = SyncBegin { refresh: vec![], ..sync(MINE, epoch, 0, vec![schema.clone()]) };
        say(&attacker, &[ToHub::Sync(begin), ToHub::End]).await;
        let late = site.agent("evil", "late").await;
        for member in [&good, &late] {
            member.sync().await;
            // The table that a trigger comes with does no harm: it is what it says.
            let is_harm = if schema.indexes.is_empty() { "1" } else { "type = 'trigger'" };
            let made = format!("SELECT 1 FROM sqlite_master WHERE name LIKE '{name}%' AND {is_harm}");
            assert!(member.rows(&made).await.is_empty(), "{schema:?}");
            assert_eq!(
                member.rows("SELECT id FROM kept").await,
                [[Value::Text("here".into())]],
                "{schema:?}"
            );
        }
    }
    assert!(!outside.exists());
}

/// Breaks if one tenant's definitions cost all others the hub's store: its thread evaluates indexes that are over expressions.
#[tokio::test]
async fn an_index_that_takes_the_hub_for_ever() {
    let site = Site::start(":memory:").await;
    let (good, attacker) = (site.agent("acme", "good").await, enter(&site).await);
    good.run(NOTES).await;
    good.sync().await;
    let epoch = attach(&attacker, MINE, true).await.epoch;
    let doubled = |n: usize| format!("g{n} AS (g{} || g{})", n - 1, n - 1);
    let doubled: Vec<_> = (1..40).map(doubled).collect();
    let costs = [
        ("instr(zeroblob(40000000), zeroblob(20000000) || title)", String::new()),
        ("length(replace(hex(zeroblob(100000000)), '0', hex(zeroblob(10000))))", String::new()),
        ("length(hex(zeroblob(900000000)))", String::new()),
        ("printf('%900000000d', title) = title", String::new()),
        ("length(g39)", format!(", g0 AS (title), {}", doubled.join(", "))),
        ("length(g39)", format!(", g0 AS (title) STORED, {}", doubled.join(", ").replace(')', ") STORED"))),
    ];
    for (n, (cost, columns)) in costs.into_iter().enumerate() {
        let name = format!("notes{n}");
        let schema = TableSchema {
            name: name.clone(),
            ddl: format!("CREATE TABLE {name}(id TEXT PRIMARY KEY, title TEXT{columns})"),
            indexes: vec![format!("CREATE UNIQUE INDEX by_{n} ON {name}({cost}, id)")],
            ..notes()
        };
        let tables = vec![TableHeader { name, columns: vec!["id".into(), "title".into()] }];
        let (n, previous) = (n as u64 + 1, attach(&attacker, MINE, false).await.last);
        let epoch = epoch + n;
        let begin = SyncBegin { refresh: vec![], ..sync(MINE, epoch, 0, vec![schema]) };
        let ToHub::Batch(batch) = batch(&[(RowId([1; 16]), now(), note("a", &"x".repeat(10_000)))]) else {
            panic!("a batch")
        };
        let body: BatchBody = rmp_serde::from_slice(&batch.body).unwrap();
        let body = rmp_serde::to_vec(&BatchBody { tables, ..body }).unwrap();
        let previous = previous.map_or(Digest::ZERO, |(_, digest)| digest);
        let words = [ToHub::Sync(begin), ToHub::Batch(Batch { n, previous, body }), ToHub::End];
        let (heard, ()) = tokio::join!(say(&attacker, &words), async {
            good.run(&format!("INSERT INTO notes VALUES('{n}', 'good')")).await;
            assert_eq!(good.sync().await.pushed, 1, "{cost}");
        });
        assert!(heard.iter().any(|it| matches!(it, ToAgent::Ack(_))), "{cost}: {heard:?}");
    }
}

/// Breaks if a name gets into a statement otherwise than as a name.
#[tokio::test]
async fn sql_looking_table_and_column_names() {
    let site = Site::start(":memory:").await;
    let (a, b) = (site.agent("acme", "a").await, site.agent("acme", "b").await);
    let names = [
        r#"x"; DROP TABLE notes; --"#,
        "x'); DELETE FROM notes; --",
        "[notes]",
        "`notes`",
        "notes\n--",
        "?1",
        "main.notes",
        "SELECT",
        "%s%n",
        "'",
    ];
    a.run(NOTES).await;
    a.run("INSERT INTO notes VALUES('a', 'kept')").await;
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        a.run(&format!(
            "CREATE TABLE {quoted}({quoted} TEXT PRIMARY KEY, \"{quoted_column}\" TEXT UNIQUE)",
            quoted_column = format!("2 {name}").replace('"', "\"\"")
        ))
        .await;
        a.run(&format!("INSERT INTO {quoted} VALUES('{0}', '{0}')", name.replace('\'', "''"))).await;
    }
    for member in [&a, &b, &a] {
        member.sync().await;
    }
    for member in [&a, &b] {
        assert_eq!(titles(member).await, rows(&[("a", "kept")]));
        for name in names {
            let quoted = format!("\"{}\"", name.replace('"', "\"\""));
            let text = Value::Text(name.into());
            assert_eq!(
                member.rows(&format!("SELECT * FROM {quoted}")).await,
                [[text.clone(), text]],
                "{name}"
            );
        }
    }
    b.run("UPDATE \"x\"\"; DROP TABLE notes; --\" SET \"2 x\"\"; DROP TABLE notes; --\" = 'by b'").await;
    assert_eq!(b.sync().await.pushed, 1);
    assert_eq!(a.sync().await.pulled, 1);
}

/// Breaks if a push counts twice: what one connection said is said again, word for word, on another one and by another
/// agent. (Early data, which could be replayed without even connecting, no hub takes:
/// `no_early_data_can_be_replayed_because_none_is_taken`.)
#[tokio::test]
async fn a_push_that_is_said_again() {
    let site = Site::start(":memory:").await;
    let attacker = enter(&site).await;
    let epoch = attach(&attacker, MINE, true).await.epoch;
    let words = [
        ToHub::Sync(sync(MINE, epoch, 0, vec![notes()])),
        batch(&[(RowId([1; 16]), now(), note("a", "first"))]),
        ToHub::End,
    ];
    let heard = say(&attacker, &words).await;
    assert!(heard.iter().any(|it| matches!(it, ToAgent::Ack(_))), "{heard:?}");
    let good = site.agent("evil", "good").await;
    assert_eq!(good.sync().await.pulled, 1);
    good.run("UPDATE notes SET title = 'second'").await;
    assert_eq!(good.sync().await.pushed, 1);
    let again = connect(&site).await;
    let token = site.token("evil", "attacker", &Grant::default());
    say(&again, &[ToHub::Hello(Hello { tenant: "evil".into(), agent: "attacker".into(), token })]).await;
    for connection in [&attacker, &again] {
        let heard = say(connection, &words).await;
        let Some(ToAgent::Done(done)) = heard.last() else { panic!("{heard:?}") };
        assert_eq!(done.cursor, 3, "a declaration and two pushes: {heard:?}");
    }
    good.sync().await;
    assert_eq!(titles(&good).await, rows(&[("a", "second")]));
}
