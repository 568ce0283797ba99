//! An agent with a good certificate and a good token that says whatever it is told to.

use std::time::Duration;

use federation_hub::model::{Digest, ReplicaId, Seq};
use federation_hub::protocol::message::{Attach, Attached, Batch, Hello, SyncBegin, ToAgent, ToHub};
use federation_hub::transport::{AgentEndpoint, AgentTls, Connection, EndpointAddress};
use tokio::time::timeout;

/// Long enough for the slowest machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An attacker, with a replica of its own.
pub struct Attacker {
    endpoint: AgentEndpoint,
    address: EndpointAddress,
    tls: AgentTls,
    pub hello: Hello,
    pub replica: ReplicaId,
    /// The epoch of its session, 0 before there was one.
    pub epoch: u64,
    /// The last batch that the hub has taken, and its digest.
    pub last: (u64, Digest),
    pub cursor: Seq,
}

impl Attacker {
    /// An attacker with these credentials, whose replica's id is made of a number.
    pub fn new(address: EndpointAddress, tls: AgentTls, hello: Hello, number: u8) -> Self {
        Self {
            endpoint: AgentEndpoint::new(),
            address,
            tls,
            hello,
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
        let attached = Self::attach(connection, self.replica, self.epoch == 0).await?;
        self.attached(&attached);
        Some(())
    }

    /// Takes in what the hub said of the replica.
    pub fn attached(&mut self, attached: &Attached) {
        (self.epoch, self.last) = (attached.epoch, attached.last.unwrap_or((0, Digest::ZERO)));
    }

    /// Attaches a replica; nothing if the hub does not let it.
    pub async fn attach(connection: &Connection, replica: ReplicaId, is_new: bool) -> Option<Attached> {
        let (mut sender, mut receiver) = connection.open().await.ok()?;
        sender.send(&ToHub::Attach(Attach { replica, cursor: 0, is_new })).await.ok()?;
        match timeout(PATIENCE, receiver.next()).await.ok()?.ok()? {
            Some(ToAgent::Attached(attached)) => Some(attached),
            _ => None,
        }
    }

    /// The start of a sync that declares nothing and asks for nothing.
    pub fn sync(&self) -> SyncBegin {
        SyncBegin {
            replica: self.replica,
            epoch: self.epoch,
            cursor: self.cursor,
            resume: self.cursor,
            counter: self.last.0 + 1,
            schema: None,
            refresh: Vec::new(),
        }
    }

    /// The next batch of the replica.
    pub fn batch(&self, body: Vec<u8>) -> Batch {
        Batch { n: self.last.0 + 1, previous: self.last.1, body }
    }
}

pub fn encode<T: serde::Serialize>(it: &T) -> Vec<u8> {
    rmp_serde::to_vec(it).expect("whatever the protocol has can be encoded")
}
