//! A real hub on the loopback interface, and agents driven by hand.

use super::*;
use crate::model::{
    Digest, Hlc, KeyKind, Op, RowChange, RowId, RowUpdate, Seq, Stamp, TableHeader, TableSchema, Value, Write,
};
use crate::protocol::message::{
    Ack, Attach, Attached, Batch, BatchBody, Done, Hello, Refused, SyncBegin, ToAgent, ToHub, Welcome,
};
use crate::transport::{
    AgentEndpoint, AgentTls, Connection, ConnectionLost, Credentials, FrameReceiver, FrameSender, PemSource,
    ReceiveError,
};

/// Long enough for the slowest machine; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// In the year 2100: no test outlives it.
const EXPIRY_MS: i64 = 4_102_444_800_000;

struct TestHub {
    hub: Hub,
    credentials: Credentials,
}

fn pem(text: &str) -> PemSource {
    PemSource::Text(text.to_owned())
}

fn options(credentials: &Credentials, data_path: &str) -> HubOptions {
    let tls = HubTls {
        cert: pem(&credentials.hub_cert_pem),
        key: pem(&credentials.hub_key_pem),
        client_ca: Some(pem(&credentials.ca_cert_pem)),
    };
    HubOptions {
        listen: "127.0.0.1:0".into(),
        data_path: data_path.into(),
        tls,
        jwt_secret: credentials.jwt_secret.clone(),
    }
}

impl TestHub {
    async fn start(data_path: &str) -> Self {
        let credentials = Credentials::generate([7; 32]).unwrap();
        let hub = Hub::start(options(&credentials, data_path)).await.unwrap();
        Self { hub, credentials }
    }

    fn token(&self, tenant: &str, agent: &str) -> String {
        super::super::token::issue(&self.credentials.jwt_secret, tenant, agent, EXPIRY_MS).unwrap()
    }

    async fn connect(&self) -> Connection {
        let (cert, key) = self.credentials.issue_agent("agent", "tenant").unwrap();
        let tls = AgentTls {
            identity: Some((pem(&cert), pem(&key))),
            ca: Some(pem(&self.credentials.ca_cert_pem)),
        };
        let address = self.hub.local_addr().into();
        AgentEndpoint::new().connect(&address, &tls, PATIENCE).await.unwrap()
    }

    /// Connects and says hello; returns the answer.
    async fn greet(&self, tenant: &str, agent: &str, token: String) -> (Connection, ToAgent) {
        let connection = self.connect().await;
        let hello = ToHub::Hello(Hello { tenant: tenant.into(), agent: agent.into(), token });
        let (mut sender, mut receiver) = connection.open().await.unwrap();
        sender.send(&hello).await.unwrap();
        let answer = receiver.next().await.unwrap().unwrap();
        (connection, answer)
    }

    /// An agent with one replica, attached.
    async fn agent(&self, tenant: &str, agent: &str, replica: u8) -> Agent {
        let (connection, answer) = self.greet(tenant, agent, self.token(tenant, agent)).await;
        let ToAgent::Welcome(welcome) = answer else { panic!("{answer:?}") };
        let replica = ReplicaId([replica; 16]);
        let (mut sender, mut receiver) = connection.open().await.unwrap();
        sender.send(&ToHub::Attach(Attach { replica })).await.unwrap();
        let Some(ToAgent::Attached(attached)) = receiver.next().await.unwrap() else {
            panic!("not attached")
        };
        let last = attached.last.unwrap_or((0, Digest::ZERO));
        Agent { connection, welcome, attached, replica, last, cursor: 0, counter: 0 }
    }
}

struct Agent {
    connection: Connection,
    welcome: Welcome,
    attached: Attached,
    replica: ReplicaId,
    last: (u64, Digest),
    cursor: Seq,
    counter: u64,
}

/// What a sync was answered.
#[derive(Debug, Default)]
struct Synced {
    acks: Vec<Ack>,
    tables: Vec<TableSchema>,
    rows: Vec<RowUpdate>,
    messages: usize,
    done: Option<Done>,
    refused: Option<Refused>,
}

impl Agent {
    fn batch(&mut self, rows: impl IntoIterator<Item = (u8, Value)>) -> Batch {
        let stamp = Stamp { hlc: Hlc::from_ms(self.welcome.hub_now_ms), replica: self.replica.tie_break() };
        let change = |(row, value): (u8, Value)| RowChange {
            table: 0,
            id: RowId([row; 16]),
            number: None,
            writes: vec![Write { stamp, base: self.cursor, op: Op::Set(vec![(0, value.into())]) }],
        };
        let rows = rows.into_iter().map(change).collect();
        let tables = vec![TableHeader { name: "notes".into(), columns: vec!["body".into()] }];
        let body = rmp_serde::to_vec(&BatchBody { tables, rows }).unwrap();
        let batch = Batch { n: self.last.0 + 1, previous: self.last.1, body };
        self.last = (batch.n, batch.digest(self.replica));
        batch
    }

    async fn begin(&mut self) -> (FrameSender, FrameReceiver) {
        self.counter += 1;
        let notes = TableSchema {
            name: "notes".into(),
            key: KeyKind::Natural,
            columns: vec!["body".into()],
            ddl: "CREATE TABLE notes (id TEXT PRIMARY KEY, body)".into(),
            indexes: vec![],
        };
        let begin = SyncBegin {
            replica: self.replica,
            epoch: self.attached.epoch,
            cursor: self.cursor,
            resume: self.cursor,
            counter: self.counter,
            schema: vec![notes],
            refresh: vec![],
        };
        let (mut sender, receiver) = self.connection.open().await.unwrap();
        sender.send(&ToHub::Sync(begin)).await.unwrap();
        (sender, receiver)
    }

    async fn sync(&mut self, batches: Vec<Batch>) -> Synced {
        let (mut sender, receiver) = self.begin().await;
        for batch in batches {
            sender.send(&ToHub::Batch(batch)).await.unwrap();
        }
        sender.send(&ToHub::End).await.unwrap();
        sender.finish().unwrap();
        let synced = Synced::read(receiver).await;
        self.cursor = synced.done.as_ref().map_or(self.cursor, |done| done.cursor);
        synced
    }

    /// Sends something on a stream of its own, and waits until the hub closes the connection for it.
    async fn closed_for(&self, frame: Vec<u8>) -> ConnectionLost {
        let (mut sender, _receiver) = self.connection.open().await.unwrap();
        sender.send_encoded(frame).await.unwrap();
        sender.finish().unwrap();
        self.connection.closed().await
    }
}

impl Synced {
    async fn read(mut receiver: FrameReceiver) -> Self {
        let mut synced = Self::default();
        while let Some(message) = receiver.next().await.unwrap() {
            synced.messages += 1;
            match message {
                ToAgent::Ack(ack) => synced.acks.push(ack),
                ToAgent::Tables(tables) => synced.tables = tables,
                ToAgent::Rows(rows) => synced.rows.extend(rows.rows),
                ToAgent::Done(done) => synced.done = Some(done),
                ToAgent::Refused(refused) => synced.refused = Some(refused),
                ToAgent::Welcome(_) | ToAgent::Attached(_) => panic!("out of order: {message:?}"),
            }
        }
        synced
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(3 * PATIENCE, test).await.expect("the test hangs") });
}

#[test]
fn two_agents_share_rows_and_a_third_of_another_tenant_sees_nothing() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let mut bob = hub.agent("acme", "bob", 2).await;
        let mut eve = hub.agent("evil", "eve", 3).await;
        let batch = alice.batch([(1, text("hello"))]);
        let synced = alice.sync(vec![batch]).await;
        assert_eq!(synced.acks, [Ack { n: 1, conflicts: 0, rejected: vec![] }]);
        assert_eq!(synced.messages, 2, "an ack and done");

        let synced = bob.sync(vec![]).await;
        assert_eq!((synced.tables.len(), synced.rows.len()), (1, 1), "{synced:?}");
        assert_eq!(synced.done.unwrap().clock, [("alice".to_owned(), 1)]);
        assert_eq!(bob.sync(vec![]).await.messages, 1, "an idle sync is answered by done alone");
        assert_eq!(eve.sync(vec![]).await.rows, []);

        let stats = hub.hub.stats();
        assert_eq!((stats.connected_agents, stats.tenants, stats.rows, stats.syncs), (3, 2, 1, 4));
        assert!(stats.bytes_sent > 0 && stats.bytes_received > 0);
        hub.hub.stop().await;
    });
}

#[test]
fn what_was_acknowledged_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    block_on(async {
        let hub = TestHub::start(path).await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let batch = alice.batch([(1, text("kept"))]);
        alice.sync(vec![batch]).await;
        alice.sync(vec![]).await;
        alice.connection.close(0, "");
        while hub.hub.stats().connected_agents > 0 {
            tokio::task::yield_now().await;
        }
        hub.hub.stop().await;
        hub.hub.stop().await;

        let again = TestHub::start(path).await;
        let back = again.agent("acme", "alice", 1).await;
        assert_eq!(back.welcome.incarnation, alice.welcome.incarnation);
        assert_eq!(back.welcome.counter, 2, "idle syncs count");
        assert_eq!((back.attached.epoch, back.last), (2, alice.last));
        let mut bob = again.agent("acme", "bob", 2).await;
        assert_eq!(bob.sync(vec![]).await.rows.len(), 1);
    });
}

#[test]
fn who_cannot_prove_who_he_is_is_refused_before_anything_else() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let other = super::super::token::issue("another secret", "acme", "alice", EXPIRY_MS).unwrap();
        let expired = super::super::token::issue(&hub.credentials.jwt_secret, "acme", "alice", 1).unwrap();
        let tokens = [String::new(), other, expired, hub.token("acme", "bob"), hub.token("evil", "alice")];
        for token in tokens {
            let (connection, answer) = hub.greet("acme", "alice", token).await;
            let ToAgent::Refused(refused) = answer else { panic!("{answer:?}") };
            assert_eq!(refused.reason, Refusal::Unauthenticated);
            let lost = connection.closed().await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Unauthenticated));
        }
        assert_eq!(hub.hub.stats().connected_agents, 0);
    });
}

#[test]
fn only_a_small_hello_is_read_from_a_stranger() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let long = Hello { tenant: "acme".into(), agent: "a".into(), token: "x".repeat(20_000) };
        let plain = [b"\0\0\x50\0\0".to_vec(), vec![0; 100]].concat();
        let compressed = frame_of(&ToHub::Hello(long));
        let sync = frame_of(&ToHub::End);
        for bytes in [plain, compressed, sync, b"\0\0\0\x01\x09".to_vec()] {
            let connection = hub.connect().await;
            let (mut sender, _receiver) = connection.open().await.unwrap();
            sender.send_encoded(bytes).await.unwrap();
            let lost = connection.closed().await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Protocol));
        }
    });
}

fn frame_of(message: &ToHub) -> Vec<u8> {
    crate::protocol::frame::encode(message).unwrap()
}

#[test]
fn a_malformed_frame_costs_its_own_connection_and_nothing_else() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut good = hub.agent("acme", "good", 1).await;
        let four_gigabytes = vec![0xff, 0xff, 0xff, 0xff, 0];
        let truncated = frame_of(&ToHub::Attach(Attach { replica: good.replica }));
        let truncated = truncated[..truncated.len() - 1].to_vec();
        let garbage = b"\0\0\0\x05\0\xc1\xc1\xc1\xc1".to_vec();
        for (name, bytes) in [("huge", four_gigabytes), ("truncated", truncated), ("garbage", garbage)] {
            let bad = hub.agent("acme", "bad", 9).await;
            let lost = bad.closed_for(bytes).await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{name}: {lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Protocol), "{name}");
            let batch = good.batch([(1, text(name))]);
            assert_eq!(good.sync(vec![batch]).await.acks.len(), 1);
        }
    });
}

#[test]
fn messages_out_of_order_are_refused_and_the_connection_goes_on() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let (mut sender, receiver) = alice.connection.open().await.unwrap();
        sender.send(&ToHub::End).await.unwrap();
        let synced = Synced::read(receiver).await;
        assert_eq!(synced.refused.unwrap().reason, Refusal::Protocol);
        assert!(alice.sync(vec![]).await.done.is_some());
    });
}

#[test]
fn a_refused_batch_ends_its_sync_and_an_older_session_is_told_to_attach() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        alice.welcome.hub_now_ms += 120_000;
        let early = alice.batch([(1, text("future"))]);
        let synced = alice.sync(vec![early]).await;
        assert_eq!(synced.refused.unwrap().reason, Refusal::Clock);
        assert!(synced.acks.is_empty() && synced.done.is_none());

        let mut again = hub.agent("acme", "alice", 1).await;
        assert_eq!(alice.sync(vec![]).await.refused.unwrap().reason, Refusal::Stale);
        assert!(again.sync(vec![]).await.done.is_some());
    });
}

#[test]
fn a_pull_of_many_chunks_arrives_whole_from_memory_and_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    for path in [":memory:", path.to_str().unwrap()] {
        block_on(async {
            let hub = TestHub::start(path).await;
            let mut alice = hub.agent("acme", "alice", 1).await;
            let big = |row: u8| (row, Value::Blob(vec![row; 100_000]));
            let batches = vec![alice.batch((0..100).map(big)), alice.batch((100..200).map(big))];
            assert_eq!(alice.sync(batches).await.acks.len(), 2);
            let mut bob = hub.agent("acme", "bob", 2).await;
            let synced = bob.sync(vec![]).await;
            assert!(synced.messages > 20, "{}", synced.messages);
            assert_eq!(synced.rows.len(), 200);
            for (row, update) in (0_u8..).zip(synced.rows) {
                let Op::Set(cells) = &update.writes[0].op else { panic!("a delete") };
                assert_eq!(cells[0].1, Value::Blob(vec![row; 100_000]).into());
            }
        });
    }
}

#[test]
fn many_agents_at_once_all_get_through() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    block_on(async {
        let hub = Arc::new(TestHub::start(path.to_str().unwrap()).await);
        let mut tasks = JoinSet::new();
        for number in 1..=20 {
            let hub = Arc::clone(&hub);
            tasks.spawn(async move {
                let mut agent = hub.agent("acme", &format!("agent-{number}"), number).await;
                for row in 0..5 {
                    let batch = agent.batch([(number * 10 + row, text("x"))]);
                    let synced = agent.sync(vec![batch]).await;
                    assert_eq!(synced.acks.len(), 1, "{synced:?}");
                }
            });
        }
        while let Some(finished) = tasks.join_next().await {
            finished.unwrap();
        }
        let mut reader = hub.agent("acme", "reader", 200).await;
        let synced = reader.sync(vec![]).await;
        assert_eq!(synced.rows.len(), 100);
        assert_eq!(synced.done.unwrap().clock.len(), 20);
    });
}

#[test]
fn a_hub_that_stops_finishes_the_sync_that_is_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    block_on(async {
        let hub = TestHub::start(path.to_str().unwrap()).await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let idle = hub.agent("acme", "idle", 2).await;
        let batch = alice.batch([(1, text("just in time"))]);
        let (mut sender, mut receiver) = alice.begin().await;
        sender.send(&ToHub::Batch(batch)).await.unwrap();
        let ack: Option<ToAgent> = receiver.next().await.unwrap();
        assert!(matches!(ack, Some(ToAgent::Ack(_))));
        let finish = async {
            let lost = idle.connection.closed().await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Stopping));
            sender.send(&ToHub::End).await.unwrap();
            assert!(Synced::read(receiver).await.done.is_some());
        };
        tokio::join!(hub.hub.stop(), finish);
        let again = TestHub::start(path.to_str().unwrap()).await;
        assert_eq!(again.hub.stats().rows, 1);
    });
}

#[test]
fn a_hub_that_is_dropped_ends_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    block_on(async {
        let hub = TestHub::start(path).await;
        let alice = hub.agent("acme", "alice", 1).await;
        let mut ended = hub.hub.ended.clone();
        drop(hub);
        ended.wait_for(|ended| *ended).await.unwrap();
        let end = alice.connection.closed().await;
        assert!(matches!(end, ConnectionLost::Closed { .. }), "{end:?}");
        TestHub::start(path).await.hub.stop().await;
    });
}

#[test]
fn a_hub_that_cannot_start_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.db");
    let path = path.to_str().unwrap();
    block_on(async {
        let hub = TestHub::start(path).await;
        let good = options(&hub.credentials, ":memory:");
        let port = hub.hub.local_addr().to_string();
        let taken = Hub::start(HubOptions { listen: port, ..good.clone() }).await;
        assert!(matches!(taken, Err(HubStartError::Bind(BindError::InUse(_)))), "{taken:?}");
        let locked = Hub::start(HubOptions { data_path: path.into(), ..good.clone() }).await;
        assert!(matches!(locked, Err(HubStartError::Store(OpenStoreError::Locked(_)))), "{locked:?}");
        let nowhere = Hub::start(HubOptions { listen: "not a host:1".into(), ..good.clone() }).await;
        assert!(matches!(nowhere, Err(HubStartError::Address { .. })), "{nowhere:?}");
        let open = Hub::start(HubOptions { jwt_secret: String::new(), ..good }).await;
        assert!(matches!(open, Err(HubStartError::Secret(_))), "{open:?}");
    });
}

#[test]
fn who_says_nothing_loses_the_connection() {
    block_on(async {
        let credentials = Credentials::generate([7; 32]).unwrap();
        let short = Duration::from_secs(1);
        let deadlines = Deadlines { hello: short, idle: short, ..Deadlines::default() };
        let hub = Hub::start_with(options(&credentials, ":memory:"), deadlines).await.unwrap();
        let hub = TestHub { hub, credentials };
        let silent = hub.connect().await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let _sync = alice.begin().await;
        for connection in [silent, alice.connection] {
            let lost = connection.closed().await;
            let ConnectionLost::Closed { code, .. } = lost else { panic!("{lost:?}") };
            assert_eq!(Refusal::from_close_code(code), Some(Refusal::Protocol));
        }
    });
}

#[test]
fn a_hub_stops_although_a_stranger_is_silent() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let silent = hub.connect().await;
        hub.hub.stop().await;
        // Refused, if the stranger was not even through its handshake.
        let lost = silent.closed().await;
        assert!(matches!(lost, ConnectionLost::Closed { .. } | ConnectionLost::Refused), "{lost:?}");
    });
}

#[test]
fn an_agent_that_vanishes_is_forgotten() {
    block_on(async {
        let hub = TestHub::start(":memory:").await;
        let mut alice = hub.agent("acme", "alice", 1).await;
        let (_sender, mut receiver) = alice.begin().await;
        alice.connection.close(0, "gone in mid-sync");
        assert!(matches!(receiver.next::<ToAgent>().await, Err(ReceiveError::Lost(_))));
        while hub.hub.stats().connected_agents > 0 {
            tokio::task::yield_now().await;
        }
        hub.hub.stop().await;
    });
}
