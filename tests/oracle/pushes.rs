//! Random pushes to a hub, and the model's opinion of what it makes of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use federation_hub::model::{CellValue, Digest, Hlc, Op, ReplicaId, RowChange, RowId, Stamp, TableHeader};
use federation_hub::model::{TableSchema, Write};
use federation_hub::protocol::hub_request::{Caller, PullRequest, RegisterRequest};
use federation_hub::protocol::message::{Batch, BatchBody, Rows};
use federation_hub::storage::catalog::Catalog;
use federation_hub::storage::choice::{Choice, SyncOptions};
use federation_hub::storage::driver::Sql;
use federation_hub::storage::hub_store::HubStore;
use federation_hub::storage::sqlite_driver::RusqliteSql;
use rusqlite::Connection;

use crate::hub::{Heard, Hub};
use crate::model::{Accepted, Model};

/// What a replica does to a row: a table, the row's place in it, and its cells, or none to delete it.
#[derive(Clone, Debug)]
pub struct Edit {
    pub table: &'static str,
    pub row: u8,
    pub cells: Option<Vec<(&'static str, CellValue)>>,
    /// How much later than its replica's last one, in clock readings.
    pub later: u64,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A replica pushes these edits, in batches of its own.
    Push(usize, Vec<Vec<Edit>>),
    /// A replica reads all that there is.
    Pull(usize),
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
}

/// Has SQLite read definitions as an agent would.
fn declared(statements: &[String]) -> Vec<TableSchema> {
    let mut sql = RusqliteSql::new(Connection::open_in_memory().unwrap());
    for statement in statements {
        sql.run(statement).unwrap();
    }
    let options = SyncOptions::default();
    let catalog = Catalog::read(&mut sql, &Choice::new(&options, std::collections::HashMap::default()));
    catalog.unwrap().tables.iter().map(federation_hub::storage::catalog::Table::schema).collect()
}

/// Plays the steps; the error says where hub and model differ.
pub fn play(statements: &[String], steps: &[Step]) -> Result<(), String> {
    let (mut hub, model) = (Hub::new(), Rc::new(RefCell::new((Model::default(), Ok(())))));
    let shared = model.clone();
    hub.listener = Some(Box::new(move |caller, heard| {
        let (model, verdict) = &mut *shared.borrow_mut();
        match heard {
            Heard::Registered(request) => model.registered(&caller.tenant, &request.schema),
            Heard::Pushed(request, ack) => {
                let (replica, sync, body) = (request.replica, request.counter, &request.body);
                let counted = model.accepted(&caller.tenant, &Accepted { replica, sync, body, ack });
                *verdict = std::mem::replace(verdict, Ok(())).and(counted);
            }
            Heard::Told(cursor) => model.read(&caller.tenant, cursor),
        }
    }));
    let schema = declared(statements);
    let mut replicas: Vec<Replica> = (1..5).map(|at| Replica::attach(&mut hub, at, &schema)).collect();
    let mut witness = Replica::attach(&mut hub, 9, &[]);
    let mut born = BTreeSet::new();
    for step in steps {
        match step {
            Step::Pull(who) => {
                replicas[*who].pull(&mut hub, &[]);
            }
            Step::Push(who, batches) => {
                replicas[*who].syncs += 1;
                for edits in batches {
                    // Nobody deletes what was never there.
                    let edits: Vec<Edit> = edits
                        .iter()
                        .filter(|edit| edit.cells.is_some() || born.contains(&edit.row))
                        .cloned()
                        .collect();
                    born.extend(edits.iter().map(|edit| edit.row));
                    if !edits.is_empty() {
                        replicas[*who].push(&mut hub, &edits);
                    }
                }
                let tables: Vec<String> = schema.iter().map(|table| table.name.clone()).collect();
                let told = witness.pull(&mut hub, &tables);
                let (model, verdict) = &*model.borrow();
                verdict.clone()?;
                model.check("acme", &told)?;
            }
        }
    }
    Ok(())
}

impl Replica {
    fn attach(hub: &mut Hub, at: u8, schema: &[TableSchema]) -> Self {
        let caller = Caller { tenant: "acme".into(), agent: format!("agent {at}") };
        let id = ReplicaId([at; 16]);
        let epoch = hub.store.attach(&caller, id).unwrap().epoch;
        hub.store.commit().unwrap();
        let schema = schema.to_vec();
        hub.register(&caller, &RegisterRequest { replica: id, epoch, schema }).unwrap();
        Self { caller, id, epoch, n: 0, previous: Digest::ZERO, syncs: 0, cursor: 0, hlc: 0 }
    }

    fn push(&mut self, hub: &mut Hub, edits: &[Edit]) {
        let mut body = BatchBody::default();
        for (at, edit) in edits.iter().enumerate() {
            if edits[..at].iter().any(|it| it.row == edit.row) {
                // A batch has a row once.
                continue;
            }
            let cells = edit.cells.iter().flatten();
            let columns = cells.clone().map(|(column, _)| (*column).to_owned()).collect();
            let op = match &edit.cells {
                None => Op::Delete,
                Some(_) => Op::Set((0..).zip(cells.map(|(_, value)| value.clone())).collect()),
            };
            let table = u16::try_from(body.tables.len()).unwrap();
            body.tables.push(TableHeader { name: edit.table.into(), columns });
            self.hlc += edit.later;
            let stamp = Stamp { hlc: Hlc(self.hlc), replica: self.id.tie_break() };
            let writes = vec![Write { stamp, base: self.cursor, op }];
            body.rows.push(RowChange {
                table,
                id: RowId([edit.row; 16]),
                number: Some(i64::from(edit.row)),
                writes,
            });
        }
        self.n += 1;
        let batch = Batch { n: self.n, previous: self.previous, body: rmp_serde::to_vec(&body).unwrap() };
        self.previous = batch.digest(self.id);
        let ack = hub.push(&self.caller, self.id, self.epoch, self.syncs, &batch).unwrap();
        assert_eq!(ack.rejected, []);
    }

    fn pull(&mut self, hub: &mut Hub, whole: &[String]) -> Vec<Rows> {
        let request = PullRequest {
            replica: self.id,
            epoch: self.epoch,
            cursor: self.cursor,
            resume: self.cursor,
            refresh: whole.to_vec(),
        };
        let snapshot = hub.snapshot(&self.caller, &request, 0).unwrap();
        self.cursor = snapshot.done.cursor;
        // Whoever has seen a stamp writes later ones.
        self.hlc = self.hlc.max(snapshot.done.highest.0);
        assert!(snapshot.rest.is_none(), "few rows fit one message");
        vec![snapshot.first]
    }
}
