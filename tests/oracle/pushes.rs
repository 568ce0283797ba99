//! Random pushes to a hub, and the model's opinion of what it makes of them.

use std::cell::RefCell;
use std::rc::Rc;

use federation_hub::model::{
    Adjustment, ColumnIndex, Digest, Hlc, Op, ReplicaId, RowChange, Seq, Stamp, TableSchema, Write,
};
use federation_hub::protocol::hub_request::{AttachRequest, Caller, PullRequest, RegisterRequest};
use federation_hub::protocol::message::{Batch, BatchBody, Rows};
use federation_hub::storage::catalog::Catalog;
use federation_hub::storage::choice::{Choice, SyncOptions, TableOptions};
use federation_hub::storage::driver::Sql;
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::sqlite_driver::RusqliteSql;
use proptest::prelude::ProptestConfig;
use rusqlite::Connection;

use crate::hub::{Heard, Hub};
use crate::local::{Change, Local, NewCell, rule};
use crate::model::told::living;
use crate::model::{Accepted, Model};

/// What happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A replica's application runs these statements, each so many clock readings after the one before; those that
    /// its database refuses are skipped. What became of them is pushed.
    Push(usize, Vec<(u64, String)>),
    /// The same, with each row that has changed in a batch of its own.
    PushApart(usize, Vec<(u64, String)>),
    /// What these statements have put into a replica's database before it ever synced is pushed: the first thing that it
    /// does.
    Old(usize, Vec<String>),
    /// A replica takes over all that there is, which ends its sync: what it has pushed since the last one was one
    /// push, in several batches.
    Pull(usize),
    /// A replica's sync breaks off, and it begins another one.
    BreakOff(usize),
}

/// A push of these statements, each so many clock readings after the one before.
pub fn push(who: usize, statements: &[(u64, &str)]) -> Step {
    Step::Push(who, statements.iter().map(|(later, it)| (*later, (*it).to_owned())).collect())
}

/// The same cases each time, unless the environment names another beginning (`FEDERATION_SEED`) or number (`PROPTEST_CASES`).
pub fn config() -> ProptestConfig {
    let seed = std::env::var("FEDERATION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let rng_seed = proptest::test_runner::RngSeed::Fixed(seed);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|it| it.parse().ok()).unwrap_or(200);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

struct Replica {
    caller: Caller,
    id: ReplicaId,
    epoch: u64,
    n: u64,
    previous: Digest,
    syncs: u64,
    cursor: u64,
    hlc: u64,
    local: Local,
    told: Vec<Rows>,
}

/// Has SQLite read definitions as an agent would.
fn declared(statements: &[String]) -> Vec<TableSchema> {
    let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
    for statement in statements {
        sql.run(statement).unwrap();
    }
    let read = |sql: &mut RusqliteSql, options: &SyncOptions| -> Vec<TableSchema> {
        let catalog = Catalog::read(sql, &Choice::new(options, std::collections::HashMap::default()));
        catalog.unwrap().tables.iter().map(federation_hub::storage::catalog::Table::schema).collect()
    };
    let ruled = |table: &TableSchema| TableOptions {
        name: table.name.clone(),
        rules: table.columns.iter().filter_map(|column| Some((column.clone(), rule(column)?))).collect(),
        ..TableOptions::default()
    };
    let tables = read(&mut sql, &SyncOptions::default()).iter().map(ruled).collect();
    read(&mut sql, &SyncOptions { tables, ..SyncOptions::default() })
}

/// Plays the steps; the error says where hub and model differ.
pub fn play(statements: &[String], steps: &[Step]) -> Result<(), String> {
    let (mut hub, model) = (Hub::new(), Rc::new(RefCell::new((Model::default(), Ok(())))));
    let shared = model.clone();
    hub.listener = Some(Box::new(move |caller, heard| {
        let (model, verdict) = &mut *shared.borrow_mut();
        match heard {
            Heard::Registered(request) => model.registered(&caller.tenant, request.replica, &request.schema),
            Heard::Pushed(request, ack) => {
                let (replica, sync, body) = (request.replica, request.counter, &request.body);
                let counted = model.accepted(&caller.tenant, &Accepted { replica, sync, body, ack });
                *verdict = std::mem::replace(verdict, Ok(())).and(counted);
            }
            Heard::Told(cursor) => model.read(&caller.tenant, cursor),
        }
    }));
    let schema = declared(statements);
    let mut replicas: Vec<Replica> =
        (1..5).map(|at| Replica::attach(&mut hub, at, &schema, statements)).collect();
    let mut witness = Replica::attach(&mut hub, 9, &[], &[]);
    let tables: Vec<String> = schema.iter().map(|table| table.name.clone()).collect();
    for step in steps {
        let who = match step {
            Step::Pull(who)
            | Step::Push(who, _)
            | Step::PushApart(who, _)
            | Step::Old(who, _)
            | Step::BreakOff(who) => &mut replicas[*who],
        };
        match step {
            Step::Pull(_) => who.pull(&mut hub, &tables),
            Step::Push(_, statements) => who.push(&mut hub, statements, false),
            Step::PushApart(_, statements) => who.push(&mut hub, statements, true),
            Step::Old(_, statements) => who.push_old(&mut hub, statements),
            Step::BreakOff(_) => who.syncs += 1,
        }
        witness.pull(&mut hub, &tables);
        let (model, verdict) = &*model.borrow();
        verdict.clone()?;
        model.check("acme", &witness.told)?;
    }
    Ok(())
}

impl Replica {
    fn attach(hub: &mut Hub, at: u8, schema: &[TableSchema], statements: &[String]) -> Self {
        let caller = Caller { tenant: "acme".into(), agent: format!("agent {at}") };
        let id = ReplicaId([at; 16]);
        let request = AttachRequest {
            replica: id,
            cursor: 0,
            is_new: true,
            token_until_ms: i64::MAX,
            incarnation: None,
        };
        let epoch = hub.store.attach(&caller, &request, 0).unwrap().epoch;
        hub.store.commit().unwrap();
        let (request, local) = (schema.to_vec(), Local::new(at, statements, schema));
        hub.register(
            &caller,
            &RegisterRequest { replica: id, epoch, cursor: 0, schema: request, may_define: true },
        )
        .unwrap();
        let (n, previous, syncs, cursor, hlc, told) = (0, Digest::ZERO, 1, 0, 0, Vec::new());
        Self { caller, id, epoch, n, previous, syncs, cursor, hlc, local, told }
    }

    fn push(&mut self, hub: &mut Hub, statements: &[(u64, String)], is_apart: bool) {
        let mut body = BatchBody { tables: self.local.headers(), ..BatchBody::default() };
        for (later, statement) in statements {
            self.hlc += later;
            let stamp = Stamp { hlc: Hlc(self.hlc), replica: self.id.tie_break() };
            for change in self.local.run(statement) {
                add(&mut body, &change, stamp, self.cursor);
            }
        }
        if !is_apart {
            return self.send(hub, &body);
        }
        for row in std::mem::take(&mut body.rows) {
            self.send(hub, &BatchBody { rows: vec![row], ..body.clone() });
        }
    }

    fn push_old(&mut self, hub: &mut Hub, statements: &[String]) {
        let mut body = BatchBody { tables: self.local.headers(), ..BatchBody::default() };
        for statement in statements {
            for change in self.local.run(statement) {
                // It was there: nobody has added it to anything.
                let cells =
                    change.cells.into_iter().flatten().map(|cell| NewCell { adjustment: None, ..cell });
                let change = Change { cells: Some(cells.collect()), ..change };
                add(&mut body, &change, Stamp::ZERO, 0);
            }
        }
        self.send(hub, &body);
    }

    fn send(&mut self, hub: &mut Hub, body: &BatchBody) {
        if body.rows.is_empty() {
            return;
        }
        self.n += 1;
        let batch = Batch { n: self.n, previous: self.previous, body: rmp_serde::to_vec(body).unwrap() };
        self.previous = batch.digest(self.id);
        let ack = hub.push(&self.caller, self.id, self.epoch, self.syncs, &batch).unwrap();
        assert_eq!(ack.rejected, []);
    }

    /// Reads everything. What it shows is what the model has agreed to, so that it needs no merging.
    fn pull(&mut self, hub: &mut Hub, tables: &[String]) {
        let request = PullRequest {
            replica: self.id,
            epoch: self.epoch,
            cursor: self.cursor,
            resume: self.cursor,
            refresh: tables.to_vec(),
        };
        let snapshot = hub.snapshot(&self.caller, &request, 0).unwrap();
        self.cursor = snapshot.done.cursor;
        self.syncs += 1;
        // Whoever has seen a stamp writes later ones.
        self.hlc = self.hlc.max(snapshot.done.highest.0);
        assert!(snapshot.rest.is_none(), "few rows fit one message");
        self.told = vec![snapshot.first];
        self.local.take_over(&living(&self.told));
    }
}

/// Adds a write to a row's change. An agent sends the last write of each cell only, and the last delete.
fn add(body: &mut BatchBody, done: &Change, stamp: Stamp, base: Seq) {
    let (table, id, number, is_new) = (done.table, done.id, done.number, done.is_new);
    let at =
        body.rows.iter().position(|change| (change.table, change.id) == (table, id)).unwrap_or_else(|| {
            body.rows.push(RowChange { table, id, number, is_new, writes: Vec::new() });
            body.rows.len() - 1
        });
    body.rows[at].is_new |= is_new;
    let writes = &mut body.rows[at].writes;
    let Some(cells) = &done.cells else {
        let op = if done.is_effect { Op::Gone } else { Op::Delete };
        *writes = vec![Write { stamp, base, op }];
        return;
    };
    for cell in cells {
        // A value that is under way says it all.
        let op = match (take(writes, cell.column), &cell.adjustment) {
            (Before::Value, _) | (_, None) => {
                let cells = vec![(cell.column, cell.value.clone())];
                if cell.is_effect { Op::Cut(cells) } else { Op::Set(cells) }
            }
            (Before::Nothing, Some(what)) => Op::Adjust(vec![(cell.column, what.clone())]),
            (Before::Adjustment(before), Some(what)) => {
                Op::Adjust(vec![(cell.column, before.then(what).unwrap())])
            }
        };
        writes.push(Write { stamp, base, op });
    }
}

/// What was done to a cell before.
enum Before {
    Nothing,
    Value,
    Adjustment(Adjustment),
}

/// Takes out what was done to a cell. Each write is to one cell.
fn take(writes: &mut Vec<Write>, column: ColumnIndex) -> Before {
    let is_of = |write: &Write| match &write.op {
        Op::Set(cells) | Op::Cut(cells) => cells[0].0 == column,
        Op::Adjust(cells) => cells[0].0 == column,
        Op::Delete | Op::Gone => false,
    };
    let Some(at) = writes.iter().position(is_of) else { return Before::Nothing };
    match writes.remove(at).op {
        Op::Adjust(mut cells) => Before::Adjustment(cells.remove(0).1),
        _ => Before::Value,
    }
}
