//! What the hub has accepted, and what must therefore be everywhere.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::{CellValue, Op, ReplicaId, RowChange, RowId, Stamp, TableHeader, Value};
use federation_hub::protocol::hub_request::PushRequest;
use federation_hub::protocol::message::Ack;

use crate::store::Accepted;

/// Whoever wants to know what the hub has accepted, in its order: a batch is told once, when it is durable.
pub trait Witness {
    /// A batch of a tenant's replica has become durable.
    fn on_accepted(&mut self, tenant: &str, replica: ReplicaId, epoch: u64, batch: &PushRequest, ack: &Ack);
}

/// What was accepted, by tenant, and what was told to witnesses.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Lines that are written once.
    marks: BTreeMap<String, BTreeSet<String>>,
    /// The greatest write of each cell of a table whose rows are never deleted and never change their keys.
    words: BTreeMap<String, Words>,
    last: BTreeMap<(String, ReplicaId), u64>,
}

/// The greatest write of each cell, by the row and the column.
type Words = BTreeMap<(RowId, &'static str), (Stamp, String)>;

/// The texts that a row's writes set, with their columns and stamps.
fn texts<'a>(
    table: &'a TableHeader,
    row: &'a RowChange,
) -> impl Iterator<Item = (&'a str, Stamp, &'a str)> + 'a {
    let sets = row.writes.iter().filter_map(|write| match &write.op {
        Op::Set(cells) => Some((write.stamp, cells)),
        _ => None,
    });
    sets.flat_map(move |(stamp, cells)| {
        cells.iter().filter_map(move |(column, value)| match value {
            CellValue::Plain(Value::Text(text)) => {
                Some((table.columns.get(usize::from(*column))?.as_str(), stamp, text.as_str()))
            }
            _ => None,
        })
    })
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

    /// Whether a batch was accepted.
    pub fn has(&self, tenant: &str, replica: ReplicaId, n: u64) -> bool {
        self.last.get(&(tenant.to_owned(), replica)).is_some_and(|last| *last >= n)
    }

    /// The marks that every replica of a tenant must have.
    pub fn marks(&self, tenant: &str) -> BTreeSet<String> {
        self.marks.get(tenant).cloned().unwrap_or_default()
    }

    /// The words that every replica of a tenant must show, by their names: of each, the one of the greatest stamp, or that which
    /// was accepted first of those that are older than syncing.
    pub fn words(&self, tenant: &str) -> BTreeMap<String, String> {
        let Some(words) = self.words.get(tenant) else { return BTreeMap::new() };
        let names = words.iter().filter(|((_, column), _)| *column == "name");
        let word = |id| words.get(&(id, "word")).map(|(_, word)| word.clone());
        names.filter_map(|((id, _), (_, name))| Some((name.clone(), word(*id)?))).collect()
    }
}

impl Witness for Ledger {
    fn on_accepted(&mut self, tenant: &str, _: ReplicaId, _: u64, batch: &PushRequest, ack: &Ack) {
        let marks = self.marks.entry(tenant.to_owned()).or_default();
        let words = self.words.entry(tenant.to_owned()).or_default();
        for (at, row) in (0_u32..).zip(&batch.body.rows) {
            let table = &batch.body.tables[usize::from(row.table)];
            if ack.rejected.iter().any(|(rejected, _)| *rejected == at) {
                continue;
            }
            for (column, stamp, text) in texts(table, row) {
                match (table.name.as_str(), column) {
                    ("marks", "mark") => {
                        marks.insert(text.to_owned());
                    }
                    ("words", _) => {
                        let column = if column == "name" { "name" } else { "word" };
                        let newest = words.entry((row.id, column)).or_insert((stamp, text.to_owned()));
                        // Of what is older than syncing, the first stands.
                        if (stamp, text) > (newest.0, newest.1.as_str()) && stamp != Stamp::ZERO {
                            *newest = (stamp, text.to_owned());
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}
