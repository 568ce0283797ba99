//! Somebody with a good certificate and a good token, and what honest agents say.

use std::net::SocketAddr;
use std::time::Duration;

use federation_hub::engine::clock::wall_now_ms;
use federation_hub::engine::token::keys::KeySource;
use federation_hub::engine::token::{Grant, TokenOptions};
use federation_hub::model::{
    Agreement, Digest, Hlc, KeyKind, Op, ReplicaId, RowChange, RowId, Seq, Stamp, TableHeader, TableSchema,
    Value, Write,
};
use federation_hub::protocol::check::{Check, Range};
use federation_hub::protocol::message::{Attach, Batch, BatchBody, Hello, SyncBegin, ToAgent, ToHub};
use federation_hub::transport::{AgentEndpoint, AgentTls, Connection, EndpointAddress, PemSource};
use tokio::time::timeout;

use crate::messages::Heard;
use crate::place::Place;

const TENANT: &str = "evil";

/// Long enough for the slowest machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An attacker, with a replica of its own.
pub struct Attacker {
    endpoint: AgentEndpoint,
    address: EndpointAddress,
    tls: AgentTls,
    pub hello: Hello,
    replica: ReplicaId,
    epoch: u64,
    last: (u64, Digest),
    cursor: Seq,
}

impl Attacker {
    /// One who reaches the hub of this place at an address.
    pub fn new(place: &Place, address: SocketAddr, number: u8) -> Self {
        let credentials = place.credentials();
        let agent = format!("attacker {number}");
        let (cert, key) = credentials.issue_agent(&agent, TENANT).unwrap();
        let tokens = TokenOptions::of(KeySource::Secret(credentials.jwt_secret.clone()));
        let token = tokens.issue(TENANT, &agent, wall_now_ms() + 86_400_000, &Grant::default()).unwrap();
        Self {
            endpoint: AgentEndpoint::new(),
            address: EndpointAddress::from(address),
            tls: AgentTls {
                identity: Some((PemSource::Text(cert), PemSource::Text(key))),
                ca: Some(PemSource::Text(credentials.ca_cert_pem)),
            },
            hello: Hello { tenant: TENANT.into(), agent, token },
            replica: ReplicaId([number; 16]),
            epoch: 0,
            last: (0, Digest::ZERO),
            cursor: 0,
        }
    }

    /// A connection on which nothing was said yet. A hub that has a lot to do may be slow to let it in.
    pub async fn connect(&self) -> Connection {
        loop {
            if let Ok(connection) = self.endpoint.connect(&self.address, &self.tls, PATIENCE).await {
                return connection;
            }
        }
    }

    /// A connection that is let in, and whose replica is attached.
    pub async fn enter(&mut self) -> Connection {
        loop {
            let connection = self.connect().await;
            if self.greet(&connection).await.is_some() {
                return connection;
            }
        }
    }

    async fn greet(&mut self, connection: &Connection) -> Option<()> {
        let (mut sender, mut receiver) = connection.open().await.ok()?;
        sender.send(&ToHub::Hello(self.hello.clone())).await.ok()?;
        let welcome = timeout(PATIENCE, receiver.next()).await.ok()?.ok()?;
        let Some(ToAgent::Welcome(_)) = welcome else { return None };
        let (mut sender, mut receiver) = connection.open().await.ok()?;
        let attach = Attach { replica: self.replica, cursor: 0, is_new: self.epoch == 0 };
        sender.send(&ToHub::Attach(attach)).await.ok()?;
        let attached = timeout(PATIENCE, receiver.next()).await.ok()?.ok()?;
        let Some(ToAgent::Attached(attached)) = attached else { return None };
        (self.epoch, self.last) = (attached.epoch, attached.last.unwrap_or((0, Digest::ZERO)));
        Some(())
    }

    /// Takes in what the hub said on a stream, in answer to a batch if there was one.
    pub fn learn(&mut self, heard: Heard, batch: Option<&Batch>) {
        if let Some(batch) = batch.filter(|_| heard.is_acknowledged) {
            self.last = (batch.n, batch.digest(self.replica));
        }
        self.cursor = heard.cursor.unwrap_or(self.cursor);
    }

    /// What an honest agent would say on a stream.
    pub fn honest(&self, dice: &mut fastrand::Rng) -> Vec<ToHub> {
        // Once in a while an agent declares its tables, and wants everything.
        let is_first = self.last.0 == 0 || dice.u8(..16) == 0;
        let cursor = if is_first { 0 } else { self.cursor };
        let sync = ToHub::Sync(SyncBegin {
            replica: self.replica,
            epoch: self.epoch,
            cursor,
            resume: cursor,
            counter: self.last.0 + 1,
            schema: is_first.then(|| vec![notes(), marks()]),
            refresh: if dice.u8(..16) == 0 { vec!["notes".into()] } else { Vec::new() },
        });
        match dice.u8(..8) {
            // Of another database than the one that the others are about: an attach ends earlier sessions.
            0 => vec![ToHub::Attach(Attach {
                replica: ReplicaId([dice.u8(200..); 16]),
                cursor: 0,
                is_new: true,
            })],
            1..3 => vec![sync, ToHub::End],
            3..5 => vec![sync, ToHub::Check(check(dice)), ToHub::End],
            _ => vec![sync, ToHub::Batch(self.batch(encode(&self.body(dice)))), ToHub::End],
        }
    }

    /// The next batch of the replica.
    pub fn batch(&self, body: Vec<u8>) -> Batch {
        Batch { n: self.last.0 + 1, previous: self.last.1, body }
    }

    fn body(&self, dice: &mut fastrand::Rng) -> BatchBody {
        let tables = vec![
            TableHeader { name: "notes".into(), columns: vec!["id".into(), "title".into()] },
            TableHeader { name: "marks".into(), columns: vec!["note".into(), "mark".into()] },
        ];
        let stamp = Stamp { hlc: Hlc::from_ms(wall_now_ms()), replica: self.replica.tie_break() };
        let rows = (0..dice.usize(1..4)).map(|_| {
            let (table, name) = (dice.u16(..2), dice.u8(..64));
            let (first, number) = match table {
                0 => (Value::Text(format!("note {name}")), None),
                _ => (Value::Blob(vec![name; 16]), Some(i64::from(name))),
            };
            let cells = vec![(0, first.into()), (1, Value::Text("x".repeat(dice.usize(..200))).into())];
            let op = if dice.u8(..5) == 0 { Op::Delete } else { Op::Set(cells) };
            let writes = vec![Write { stamp, base: 0, op }];
            RowChange { table, id: RowId([name; 16]), number, is_new: dice.bool(), writes }
        });
        BatchBody { tables, rows: rows.collect(), collisions: Vec::new() }
    }
}

pub fn encode<T: serde::Serialize>(it: &T) -> Vec<u8> {
    rmp_serde::to_vec(it).unwrap()
}

fn notes() -> TableSchema {
    TableSchema {
        name: "notes".into(),
        key: KeyKind::Natural,
        columns: vec!["id".into(), "title".into()],
        ddl: "CREATE TABLE notes(id TEXT PRIMARY KEY, title TEXT)".into(),
        indexes: vec!["CREATE UNIQUE INDEX by_title ON notes(title)".into()],
        agreed: Agreement { key_columns: vec!["id".into()], ..Agreement::default() },
    }
}

fn marks() -> TableSchema {
    TableSchema {
        name: "marks".into(),
        key: KeyKind::Number,
        columns: vec!["note".into(), "mark".into()],
        ddl: "CREATE TABLE marks(id INTEGER PRIMARY KEY, note TEXT REFERENCES notes ON DELETE CASCADE, mark TEXT)"
            .into(),
        indexes: Vec::new(),
        agreed: Agreement::default(),
    }
}

fn check(dice: &mut fastrand::Rng) -> Check {
    let mut range = |table: &str, column: &str| Range {
        table: table.into(),
        columns: vec![column.into()],
        after: None,
        upto: Some(RowId([dice.u8(..); 16])),
        left_out: vec![RowId([3; 16])],
    };
    let ranges = vec![range("notes", "title"), range("marks", "mark")];
    Check { ranges, rows: dice.bool() }
}
