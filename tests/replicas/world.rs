//! Agents and a hub without a network: the real storage on both sides, on in-memory SQLite, driven by hand.

use federation_hub::model::{ReplicaId, Value};
use federation_hub::protocol::hub_request::{Caller, PullRequest, PushRequest, RegisterRequest};
use federation_hub::protocol::message::Ack;
use federation_hub::storage::apply::Incoming;
use federation_hub::storage::bookkeeping::SentBatch;
use federation_hub::storage::driver::Sql;
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::hub_store_sqlite::SqliteHubStore;
use federation_hub::storage::replica::{
    ApplyExtras, CachedCatalog, HubClock, Mint, apply_turn, collect_turn, open, reconcile,
};
use federation_hub::storage::scratch::prove_harmless;
use federation_hub::storage::sqlite_driver::RusqliteSql;
use rusqlite::Connection;

/// How far a sync gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// To its end.
    Complete,
    /// The batch never arrives.
    LosesBatch,
    /// The hub has the batch, and its answer never arrives.
    LosesAnswer,
}

/// What a sync did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub pulled: u64,
    pub pushed: u64,
    pub conflicts: u64,
    pub quarantined: u64,
}

/// A hub's store.
pub struct Hub {
    pub store: SqliteHubStore,
}

impl Hub {
    pub fn new() -> Self {
        Self::incarnated(1)
    }

    pub fn incarnated(seed: u8) -> Self {
        Self { store: SqliteHubStore::open(":memory:", ReplicaId([seed; 16])).unwrap() }
    }
}

/// An agent's database, and what its connection would remember.
pub struct Agent {
    pub sql: RusqliteSql,
    caller: Caller,
    mint: Mint,
    attached: Option<(u64, Option<CachedCatalog>)>,
    /// The wall clock of this agent's machine, less the true time.
    pub skew_ms: i64,
}

impl Agent {
    pub fn new(tenant: &str, name: &str, seed: u8) -> Self {
        let mut stretched = blake3::Hasher::new().update(&[seed]).finalize_xof();
        let mint: Mint = Box::new(move || {
            let mut bytes = [0; 16];
            stretched.fill(&mut bytes);
            bytes
        });
        Self {
            sql: RusqliteSql::new(Connection::open_in_memory().unwrap()),
            caller: Caller { tenant: tenant.into(), agent: name.into() },
            mint,
            attached: None,
            skew_ms: 0,
        }
    }

    /// Runs statements of the application.
    pub fn run(&mut self, statements: &str) -> &mut Self {
        self.sql.run(statements).unwrap_or_else(|error| panic!("{statements}: {error}"));
        self
    }

    /// The rows of a query, as text.
    pub fn rows(&mut self, query: &str) -> Vec<Vec<Value>> {
        let mut rows = Vec::new();
        self.sql
            .query(query, &[], &mut |row| {
                rows.push(row.to_vec());
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        rows
    }

    /// A new connection to the hub.
    pub fn reconnect(&mut self) {
        self.attached = None;
    }

    fn clock(&self) -> HubClock {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        HubClock { offset_ms: -self.skew_ms, now_ms: i64::try_from(now.as_millis()).unwrap() }
    }

    fn attach(&mut self, hub: &mut Hub) -> (u64, Option<CachedCatalog>) {
        if let Some(attached) = self.attached.clone() {
            return attached;
        }
        let fresh = ReplicaId((self.mint)());
        let mut state = open(&mut self.sql, &self.caller.tenant, fresh).unwrap();
        loop {
            let attached = hub.store.attach(&self.caller, state.replica).unwrap();
            hub.store.commit().unwrap();
            let (incarnation, fresh) = (hub.store.incarnation(), ReplicaId((self.mint)()));
            let reconciled =
                reconcile(&mut self.sql, &self.caller.tenant, incarnation, &attached, fresh).unwrap();
            state = reconciled.state;
            if !reconciled.renewed {
                self.attached = Some((attached.epoch, None));
                return (attached.epoch, None);
            }
        }
    }

    /// Syncs; `meanwhile` is what the application does between the sending and the applying.
    pub fn sync_with(
        &mut self,
        hub: &mut Hub,
        fate: Fate,
        meanwhile: &mut dyn FnMut(&mut Self),
    ) -> Option<Counts> {
        let (epoch, mut catalog) = self.attach(hub);
        let mut counts = Counts::default();
        let mut acked: Vec<SentBatch> = Vec::new();
        let mut first = None;
        loop {
            let clock = self.clock();
            let turn = collect_turn(&mut self.sql, catalog.take(), clock, &mut self.mint).unwrap();
            catalog = Some(turn.catalog.clone());
            let more = turn.collected.more;
            let rows = turn.collected.rows;
            if first.is_none()
                && let Some((schema, _)) = &turn.schema
            {
                let request = RegisterRequest { replica: turn.state.replica, epoch, schema: schema.clone() };
                hub.store.register(&self.caller, &request).unwrap();
                hub.store.commit().unwrap();
            }
            let replica = turn.state.replica;
            if let Some((sent, batch)) = &turn.collected.batch {
                if fate == Fate::LosesBatch {
                    self.attached = None;
                    return None;
                }
                let ack = push(hub, &self.caller, replica, epoch, batch);
                assert_eq!(ack.rejected, vec![]);
                counts.conflicts += u64::from(ack.conflicts);
                counts.pushed += rows;
                acked.push(*sent);
            }
            first.get_or_insert(turn);
            if !more {
                break;
            }
        }
        if fate == Fate::LosesAnswer {
            self.attached = None;
            return None;
        }
        let first = first.unwrap();
        let request = PullRequest {
            replica: first.state.replica,
            epoch,
            cursor: first.state.cursor,
            resume: first.state.resume,
            refresh: first.refresh.clone(),
        };
        let now_ms = self.clock().now_ms;
        let snapshot = hub.store.snapshot(&self.caller, &request, now_ms).unwrap();
        meanwhile(self);
        let mut chunks = vec![snapshot.first];
        if let Some(mut rest) = snapshot.rest {
            while let Some(chunk) = rest.next_chunk().unwrap() {
                chunks.push(chunk);
            }
        }
        let mut tables = snapshot.tables;
        let known = catalog.as_ref().map(|it| it.catalog.clone());
        tables.retain(|table| known.as_ref().is_none_or(|it| it.table(&table.name).is_none()));
        for table in &tables {
            prove_harmless(table).unwrap();
        }
        let last = chunks.pop().unwrap_or_default();
        let ends = chunks.into_iter().map(|rows| (rows, None)).chain([(last, Some(snapshot.done))]);
        for (rows, done) in ends {
            let extras = ApplyExtras {
                tables: std::mem::take(&mut tables),
                schema_digest: first.schema.as_ref().map(|(_, digest)| *digest),
                refreshed: first.refresh.clone(),
            };
            let mut incoming = Some(Incoming { acked: std::mem::take(&mut acked), rows, done });
            let clock = self.clock();
            let turn =
                apply_turn(&mut self.sql, catalog.take(), clock, &mut self.mint, &extras, &mut incoming)
                    .unwrap();
            assert_eq!(turn.notices, Vec::<String>::new());
            catalog = Some(turn.catalog);
            counts.pulled += turn.applied.rows;
            counts.quarantined = turn.applied.quarantined;
        }
        self.attached = Some((epoch, catalog));
        Some(counts)
    }

    /// Syncs to the end, with nothing happening meanwhile.
    pub fn sync(&mut self, hub: &mut Hub) -> Counts {
        self.sync_with(hub, Fate::Complete, &mut |_| {}).unwrap()
    }
}

fn push(
    hub: &mut Hub,
    caller: &Caller,
    replica: ReplicaId,
    epoch: u64,
    batch: &federation_hub::protocol::message::Batch,
) -> Ack {
    let request = PushRequest {
        replica,
        epoch,
        counter: 1,
        n: batch.n,
        previous: batch.previous,
        digest: batch.digest(replica),
        body: federation_hub::protocol::frame::decode_payload(&batch.body).unwrap(),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let ack = hub.store.push(caller, request, i64::try_from(now.as_millis()).unwrap()).unwrap();
    hub.store.commit().unwrap();
    ack
}
