//! A real hub on the loopback interface, and agents driven by hand.

mod hostile;
mod lifecycle;
mod sharing;

use super::*;
use crate::engine::token::keys::KeySource;
use crate::model::{
    Agreement, Digest, Hlc, KeyKind, Op, RowChange, RowId, RowUpdate, Seq, Stamp, TableHeader, TableSchema,
    Value, Write,
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

impl TestHub {
    async fn start(data_path: &str) -> Self {
        let credentials = Credentials::generate([7; 32]).unwrap();
        let hub = Hub::start(HubOptions::local(&credentials, data_path)).await.unwrap();
        Self { hub, credentials }
    }

    fn token(&self, tenant: &str, agent: &str) -> String {
        crate::engine::token::issue(&self.credentials.jwt_secret, tenant, agent, EXPIRY_MS).unwrap()
    }

    async fn connect(&self) -> Connection {
        self.connect_as("tenant", "agent").await
    }

    async fn connect_as(&self, tenant: &str, agent: &str) -> Connection {
        let (cert, key) = self.credentials.issue_agent(agent, tenant).unwrap();
        let tls = AgentTls {
            identity: Some((pem(&cert), pem(&key))),
            ca: Some(pem(&self.credentials.ca_cert_pem)),
        };
        let address = self.hub.local_addr().into();
        AgentEndpoint::new().connect(&address, &tls, PATIENCE).await.unwrap()
    }

    /// Connects and says hello; returns the answer.
    async fn greet(&self, tenant: &str, agent: &str, token: String) -> (Connection, ToAgent) {
        let connection = self.connect_as(tenant, agent).await;
        let hello = ToHub::Hello(Hello { tenant: tenant.into(), agent: agent.into(), token });
        let (mut sender, mut receiver) = connection.open().await.unwrap();
        sender.send(&hello).await.unwrap();
        let answer = receiver.next().await.unwrap().unwrap();
        (connection, answer)
    }

    /// An agent with one replica, attached.
    async fn agent(&self, tenant: &str, agent: &str, replica: u8) -> Agent {
        self.agent_with(tenant, agent, self.token(tenant, agent), replica).await
    }

    async fn agent_with(&self, tenant: &str, agent: &str, token: String, replica: u8) -> Agent {
        let (connection, answer) = self.greet(tenant, agent, token).await;
        let ToAgent::Welcome(welcome) = answer else { panic!("{answer:?}") };
        let replica = ReplicaId([replica; 16]);
        let (mut sender, mut receiver) = connection.open().await.unwrap();
        sender.send(&ToHub::Attach(Attach { replica, cursor: 0, is_new: true })).await.unwrap();
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
            is_new: true,
            writes: vec![Write { stamp, base: self.cursor, op: Op::Set(vec![(0, value.into())]) }],
        };
        let rows = rows.into_iter().map(change).collect();
        let tables = vec![TableHeader { name: "notes".into(), columns: vec!["body".into()] }];
        let body = rmp_serde::to_vec(&BatchBody { tables, rows, ..BatchBody::default() }).unwrap();
        let batch = Batch { n: self.last.0 + 1, previous: self.last.1, body };
        self.last = (batch.n, batch.digest(self.replica));
        batch
    }

    async fn begin(&mut self) -> (FrameSender, FrameReceiver) {
        self.counter += 1;
        let notes = TableSchema {
            name: "notes".into(),
            key: KeyKind::Natural,
            columns: vec!["id".into(), "body".into()],
            ddl: "CREATE TABLE notes (id TEXT PRIMARY KEY, body)".into(),
            indexes: vec![],
            agreed: Agreement { key_columns: vec!["id".into()], ..Agreement::default() },
        };
        let begin = SyncBegin {
            replica: self.replica,
            epoch: self.attached.epoch,
            cursor: self.cursor,
            resume: self.cursor,
            counter: self.counter,
            schema: Some(vec![notes]),
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
                ToAgent::Welcome(_) | ToAgent::Attached(_) | ToAgent::Compared(_) => {
                    panic!("out of order: {message:?}")
                }
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

fn frame_of(message: &ToHub) -> Vec<u8> {
    crate::protocol::frame::encode(message).unwrap()
}
