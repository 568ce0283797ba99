//! What agents that are gone cost those that are here, for `npm run bench`.
//!
//! Two hubs with a tenant of the same rows each: behind one, a thousand agents have come and gone, behind the other
//! a million (`FEDERATION_RETIRED` says how many). They are made in the store, through the calls that a hub makes
//! for an agent that attaches, pushes one row, and says goodbye. Then one agent syncs with each, in turns.
//!
//! Besides, what the bookkeeping of a synced row takes in an agent's database.
//!
//! ```text
//! retired <folder>      prints lines of text
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use federation_hub::engine::agent::{Agent, AgentOptions};
use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::hub::{Hub, HubOptions};
use federation_hub::engine::token;
use federation_hub::model::{
    Agreement, CellValue, Digest, Hlc, KeyKind, Op, ReplicaId, RowChange, Stamp, TableHeader, TableSchema,
    Value, Write,
};
use federation_hub::protocol::hub_request::{AttachRequest, Caller, PushRequest, RegisterRequest};
use federation_hub::protocol::message::BatchBody;
use federation_hub::storage::driver::{SqlDriver, SqlError, batch};
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;
use federation_hub::storage::identity::natural_row_id;
use federation_hub::storage::sqlite_driver::SqliteDriver;
use federation_hub::transport::{Credentials, PemSource};
use rusqlite::Connection;

type Outcome<T> = Result<T, Box<dyn Error>>;

const TENANT: &str = "acme";
/// Rows of each tenant: as many as there are agents in the smaller one.
const ROWS: u64 = 1_000;
/// Agents of one commit.
const GROUP: u64 = 500;
const ROUNDS: usize = 60;
const SYNCS_PER_ROUND: usize = 10;
const EPISODES: u32 = 10_000;

const DDL: &str = "CREATE TABLE memories (id TEXT PRIMARY KEY, content TEXT)";

const EPISODE: &str = "CREATE TABLE episodes (id INTEGER PRIMARY KEY AUTOINCREMENT, ts INTEGER NOT NULL, \
     session_id TEXT NOT NULL, task TEXT NOT NULL, input TEXT, output TEXT, critique TEXT, reward REAL, \
     success BOOLEAN, latency_ms INTEGER, tokens_used INTEGER, tags TEXT, metadata JSON, created_at INTEGER)";

fn main() -> Outcome<()> {
    let folder = std::env::args().nth(1).ok_or("usage: retired <folder>")?;
    let many = std::env::var("FEDERATION_RETIRED").map_or(Ok(1_000_000), |text| text.parse::<u64>())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut sites = Vec::new();
    for agents in [ROWS, many] {
        let path = Path::new(&folder).join(format!("retired-{agents}.db"));
        let started = Instant::now();
        live_and_die(&path, agents)?;
        #[expect(clippy::cast_precision_loss, reason = "a report")]
        let micros = started.elapsed().as_secs_f64() * 1e6 / agents as f64;
        sites.push(runtime.block_on(Site::start(&path, agents, micros))?);
    }
    runtime.block_on(compare(&mut sites))?;
    runtime.block_on(bookkeeping())
}

/// Has agents come one after the other, push a row, and go.
fn live_and_die(path: &Path, agents: u64) -> Outcome<()> {
    if path.exists() {
        return Err(format!("{} is there already: give an empty folder", path.display()).into());
    }
    let mut store = SqliteHubStore::open(&path.to_string_lossy(), ReplicaId([7; 16]))?;
    let now_ms = wall_now_ms();
    for n in 0..agents {
        let caller =
            Caller { tenant: TENANT.into(), agent: format!("eph-{TENANT}-{}", 1_700_000_000_000 + n) };
        let mut id = *blake3::hash(&n.to_be_bytes()).as_bytes();
        id[16..].fill(0);
        let replica = ReplicaId::from_slice(&id[..16]).ok_or("an id")?;
        let attach =
            AttachRequest { replica, cursor: n, is_new: true, token_until_ms: i64::MAX, incarnation: None };
        let epoch = store.attach(&caller, &attach, now_ms)?.epoch;
        if n == 0 {
            store.register(
                &caller,
                &RegisterRequest { replica, epoch, cursor: n, schema: vec![schema()], may_define: true },
            )?;
        }
        let push = push(replica, epoch, n, now_ms);
        let ack = store.push(&caller, push, now_ms)?;
        if !ack.rejected.is_empty() {
            return Err(format!("{ack:?}").into());
        }
        store.retire(&caller, &[(replica, epoch)])?;
        if n % GROUP == GROUP - 1 {
            store.commit()?;
        }
    }
    store.commit()?;
    Ok(())
}

fn schema() -> TableSchema {
    TableSchema {
        name: "memories".into(),
        key: KeyKind::Natural,
        columns: vec!["id".into(), "content".into()],
        ddl: DDL.into(),
        indexes: vec![],
        agreed: Agreement { key_columns: vec!["id".into()], ..Agreement::default() },
    }
}

/// The whole row `n`, or whoever's turn it is to write it again.
fn push(replica: ReplicaId, epoch: u64, n: u64, now_ms: i64) -> PushRequest {
    let key = format!("memory-{:012}", n % ROWS);
    let id = natural_row_id("memories", [&CellValue::from(Value::Text(key.clone()))]);
    let hlc = Hlc(Hlc::from_ms(now_ms - 10_000_000).0 + n);
    let cells = vec![(0, Value::Text(key).into()), (1, Value::Text("content ".repeat(65)).into())];
    let stamp = Stamp { hlc, replica: replica.tie_break() };
    let writes = vec![Write { stamp, base: n, op: Op::Set(cells) }];
    let header = TableHeader { name: "memories".into(), columns: vec!["id".into(), "content".into()] };
    let rows = vec![RowChange { table: 0, id, number: None, is_new: true, writes }];
    let body = BatchBody { tables: vec![header], rows, ..BatchBody::default() };
    PushRequest { replica, epoch, counter: 1, n: 1, previous: Digest::ZERO, digest: Digest([1; 32]), body }
}

/// A hub, and an agent that syncs with it.
struct Site {
    retired: u64,
    micros_each: f64,
    bookkeeping: Stored,
    _hub: Hub,
    agent: Agent,
    database: Arc<dyn SqlDriver>,
    rows: u64,
    durations: Vec<f64>,
    bytes: u64,
}

/// What a hub keeps.
struct Stored {
    bytes_per_row: f64,
    entries: i64,
}

impl Site {
    async fn start(path: &Path, retired: u64, micros_each: f64) -> Outcome<Self> {
        let bookkeeping = stored(path)?;
        let (credentials, hub) = hub_on(&path.to_string_lossy()).await?;
        let agent = connect(&credentials, &hub).await?;
        let database: Arc<dyn SqlDriver> = Arc::new(SqliteDriver::start(Connection::open_in_memory()?)?);
        let mut site = Self {
            retired,
            micros_each,
            bookkeeping,
            _hub: hub,
            agent,
            database,
            rows: 0,
            durations: Vec::new(),
            bytes: 0,
        };
        site.sync().await?;
        (site.durations, site.bytes) = (Vec::new(), 0);
        Ok(site)
    }

    async fn sync(&mut self) -> Outcome<()> {
        let started = Instant::now();
        let report = self.agent.sync(self.agent.begin_sync()?, self.database.clone()).await?;
        self.durations.push(started.elapsed().as_secs_f64() * 1e3);
        self.bytes += report.bytes_sent + report.bytes_received;
        Ok(())
    }

    async fn write_and_sync(&mut self) -> Outcome<()> {
        self.rows += 1;
        let insert =
            format!("INSERT INTO memories VALUES('own-{:08}', '{}')", self.rows, "content ".repeat(65));
        run(&self.database, insert).await?;
        self.sync().await
    }

    fn median_ms(&self) -> f64 {
        let mut sorted = self.durations.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }
}

async fn connect(credentials: &Credentials, hub: &Hub) -> Outcome<Agent> {
    let (cert, key) = credentials.issue_agent("here", TENANT)?;
    let agent = Agent::new(AgentOptions {
        endpoint: format!("quic://{}", hub.local_addr()),
        agent_id: "here".into(),
        tenant_id: TENANT.into(),
        token: token::issue(&credentials.jwt_secret, TENANT, "here", wall_now_ms() + 3_600_000)?,
        enable_mtls: true,
        cert: Some(PemSource::Text(cert)),
        key: Some(PemSource::Text(key)),
        ca: Some(PemSource::Text(credentials.ca_cert_pem.clone())),
        connect_timeout_ms: 5_000,
        request_timeout_ms: 60_000,
        sync: Arc::default(),
    });
    agent.connect().await?;
    Ok(agent)
}

async fn run(database: &Arc<dyn SqlDriver>, statements: String) -> Outcome<()> {
    Ok(batch(&**database, move |sql| sql.run(&statements)).await??)
}

/// What a hub's file holds besides the values of its rows, and how many entries for agents.
fn stored(path: &Path) -> Outcome<Stored> {
    let conn = Connection::open(path)?;
    conn.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?;
    let one = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0));
    let bytes = one("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")?;
    let rows = one("SELECT count(*) FROM row_state")?;
    let entries = one(
        "SELECT (SELECT count(*) FROM replica) + (SELECT count(*) FROM agent) + (SELECT count(*) FROM retired)",
    )?;
    let values = 19 + 8 * 65;
    #[expect(clippy::cast_precision_loss, reason = "a report")]
    let bytes_per_row = bytes as f64 / rows as f64 - f64::from(values);
    Ok(Stored { bytes_per_row, entries })
}

async fn compare(sites: &mut [Site]) -> Outcome<()> {
    for _ in 0..ROUNDS {
        for site in sites.iter_mut() {
            for _ in 0..SYNCS_PER_ROUND {
                site.write_and_sync().await?;
            }
        }
    }
    println!("  agents that are gone: one-row sync, bytes of a sync, and what the hub keeps besides values");
    for site in sites.iter() {
        #[expect(clippy::cast_precision_loss, reason = "a report")]
        let bytes = site.bytes as f64 / site.durations.len() as f64;
        println!(
            "  {:>9} retired   {:>7.3} ms   {bytes:>7.1} B   {:>7.1} B/row   {} entries   ({:.0} µs to come and go)",
            site.retired,
            site.median_ms(),
            site.bookkeeping.bytes_per_row,
            site.bookkeeping.entries,
            site.micros_each
        );
    }
    Ok(())
}

/// A hub on a store, and what agents connect to it with.
async fn hub_on(data_path: &str) -> Outcome<(Credentials, Hub)> {
    let credentials = Credentials::generate([7; 32])?;
    let hub = Hub::start(HubOptions::local(&credentials, data_path)).await?;
    Ok((credentials, hub))
}

/// What an agent's database holds for each synced row of an agent's episodes, a table of 14 columns.
async fn bookkeeping() -> Outcome<()> {
    let (credentials, hub) = hub_on(":memory:").await?;
    let rows = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {EPISODES})
         INSERT INTO episodes SELECT n, 1700000000 + n, 'session-' || (n % 50), 'task ' || n, 'input ' || n,
             'output ' || n, NULL, n * 0.001, n % 2, n % 900, n % 4000, '[\"a\",\"b\"]', '{{}}', 1700000000 + n FROM n"
    );
    println!("  bookkeeping of a synced row in an agent's database: {EPISODES} episodes of 14 columns");
    let mut databases = Vec::new();
    for what in ["written here", "pulled"] {
        let database: Arc<dyn SqlDriver> = Arc::new(SqliteDriver::start(Connection::open_in_memory()?)?);
        let agent = connect(&credentials, &hub).await?;
        if databases.is_empty() {
            run(&database, EPISODE.to_owned()).await?;
            agent.sync(agent.begin_sync()?, database.clone()).await?;
            run(&database, rows.clone()).await?;
        }
        for _ in 0..2 {
            agent.sync(agent.begin_sync()?, database.clone()).await?;
        }
        run(&database, "VACUUM".to_owned()).await?;
        let tables = own_tables(&database).await?;
        let total: i64 = tables.iter().map(|(_, bytes)| bytes).sum();
        println!("  {what:<14} {:>6.1} B/row", per_row(total));
        for (name, bytes) in tables.iter().filter(|(_, bytes)| per_row(*bytes) >= 0.5) {
            println!("      {name:<30} {:>6.1} B/row", per_row(*bytes));
        }
        databases.push((agent, database));
    }
    Ok(())
}

fn per_row(bytes: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a report")]
    let bytes = bytes as f64;
    bytes / f64::from(EPISODES)
}

/// The bookkeeping's tables and indexes, each with its size in bytes.
async fn own_tables(database: &Arc<dyn SqlDriver>) -> Outcome<Vec<(String, i64)>> {
    let read = batch(&**database, |sql| {
        let mut tables = Vec::new();
        sql.query(
            "SELECT name, sum(pgsize) FROM dbstat WHERE name LIKE '%\\_federation\\_%' ESCAPE '\\' GROUP BY name",
            &[],
            &mut |row| {
                if let [Value::Text(name), Value::Integer(bytes)] = row {
                    tables.push((name.clone(), *bytes));
                }
                Ok(())
            },
        )?;
        Ok::<_, SqlError>(tables)
    });
    Ok(read.await??)
}
