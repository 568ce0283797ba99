//! What a hub tells of its rows, and whether it is right.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use federation_hub::model::{Op, RowUpdate, Stamp, TableHeader};
use federation_hub::protocol::message::Rows;

use super::Difference;
use super::history::RowKey;
use super::tenant::{Row, Tenant};

/// Rows that live, by table and identity.
pub type LivingRows = BTreeMap<RowKey, Row>;

/// Compares what must be with what is told.
pub fn compare(tenant: &Tenant, told: &[Rows]) -> Result<(), Difference> {
    let (expected, told) = (tenant.rows(), living(told));
    let mut difference = String::new();
    for (key, row) in expected {
        match told.get(key) {
            None => {
                writeln!(difference, "{key:?} lives, and the hub says that it does not: {row:?}").unwrap();
            }
            Some(other) if other != row => {
                writeln!(difference, "{key:?} is {row:?}, and the hub says {other:?}").unwrap();
            }
            Some(_) => {}
        }
    }
    for (key, row) in told.iter().filter(|(key, _)| !expected.contains_key(*key)) {
        writeln!(difference, "{key:?} is dead, and the hub says that it lives: {row:?}").unwrap();
    }
    if difference.is_empty() { Ok(()) } else { Err(difference) }
}

/// The rows that live, of all that were told.
pub fn living(told: &[Rows]) -> LivingRows {
    let mut rows = BTreeMap::new();
    for message in told {
        for update in message.rows.iter().filter(|update| is_alive(update)) {
            let header = &message.tables[usize::from(update.table)];
            rows.insert((header.name.to_ascii_lowercase(), update.id), cells(header, update));
        }
    }
    rows
}

fn is_alive(update: &RowUpdate) -> bool {
    let newest = |is_delete: bool| -> Option<Stamp> {
        let writes = update.writes.iter().filter(|write| (write.op == Op::Delete) == is_delete);
        writes.map(|write| write.stamp).max()
    };
    update.united.is_none() && newest(false) > newest(true)
}

fn cells(header: &TableHeader, update: &RowUpdate) -> Row {
    let mut row = Row::new();
    for write in &update.writes {
        if let Op::Set(cells) = &write.op {
            let name = |column: u16| header.columns[usize::from(column)].to_ascii_lowercase();
            row.extend(cells.iter().map(|(column, value)| (name(*column), value.clone())));
        }
    }
    row
}
