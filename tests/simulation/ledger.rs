//! What the hub has accepted, and what must therefore be everywhere.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::{CellValue, Op, ReplicaId, Value};
use federation_hub::protocol::hub_request::PushRequest;
use federation_hub::protocol::message::Ack;

use crate::store::Accepted;

/// Whoever wants to know what the hub has accepted, in its order: a batch is told once, when it is durable.
pub trait Witness {
    /// A batch of a tenant's replica has become durable.
    fn on_accepted(&mut self, tenant: &str, replica: ReplicaId, epoch: u64, batch: &PushRequest, ack: &Ack);
}

/// The marks that were accepted, by tenant, and what was told to witnesses.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    marks: BTreeMap<String, BTreeSet<String>>,
    last: BTreeMap<(String, ReplicaId), u64>,
}

impl Ledger {
    /// Notes a batch. A batch that was accepted before counts once.
    pub fn note(&mut self, accepted: &Accepted, witnesses: &mut [Box<dyn Witness>]) {
        let Accepted { caller, push, ack } = accepted;
        let last = self.last.entry((caller.tenant.clone(), push.replica)).or_insert(0);
        if push.n <= *last {
            return;
        }
        *last = push.n;
        self.on_accepted(&caller.tenant, push.replica, push.epoch, push, ack);
        for witness in witnesses {
            witness.on_accepted(&caller.tenant, push.replica, push.epoch, push, ack);
        }
    }

    /// The marks that every replica of a tenant must have.
    pub fn marks(&self, tenant: &str) -> BTreeSet<String> {
        self.marks.get(tenant).cloned().unwrap_or_default()
    }
}

impl Witness for Ledger {
    fn on_accepted(&mut self, tenant: &str, _: ReplicaId, _: u64, batch: &PushRequest, ack: &Ack) {
        let marks = self.marks.entry(tenant.to_owned()).or_default();
        for (at, row) in (0_u32..).zip(&batch.body.rows) {
            let table = &batch.body.tables[usize::from(row.table)];
            if table.name != "marks" || ack.rejected.iter().any(|(rejected, _)| *rejected == at) {
                continue;
            }
            for write in &row.writes {
                let Op::Set(cells) = &write.op else { continue };
                for (column, value) in cells {
                    if let (Some("mark"), CellValue::Plain(Value::Text(mark))) =
                        (table.columns.get(usize::from(*column)).map(String::as_str), value)
                    {
                        marks.insert(mark.clone());
                    }
                }
            }
        }
    }
}
