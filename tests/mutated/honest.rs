//! What honest agents say.

use federation_hub::engine::clock::wall_now_ms;
use federation_hub::model::{
    Agreement, Hlc, KeyKind, Op, ReplicaId, RowChange, RowId, Stamp, TableHeader, TableSchema, Value, Write,
};
use federation_hub::protocol::check::{Check, Range};
use federation_hub::protocol::message::{Attach, BatchBody, SyncBegin, ToHub};

use crate::attacker::{Attacker, encode};

/// What an honest agent would say on a stream.
pub fn script(attacker: &Attacker, dice: &mut fastrand::Rng) -> Vec<ToHub> {
    // Once in a while an agent declares its tables, and wants everything.
    let is_first = attacker.last.0 == 0 || dice.u8(..16) == 0;
    let cursor = if is_first { 0 } else { attacker.cursor };
    let sync = ToHub::Sync(SyncBegin {
        cursor,
        resume: cursor,
        schema: is_first.then(|| vec![notes(), marks()]),
        refresh: if dice.u8(..16) == 0 { vec!["notes".into()] } else { Vec::new() },
        ..attacker.sync()
    });
    match dice.u8(..8) {
        // Of another database than the one that the others are about: an attach ends earlier sessions.
        0 => {
            vec![ToHub::Attach(Attach { replica: ReplicaId([dice.u8(200..); 16]), cursor: 0, is_new: true })]
        }
        1..3 => vec![sync, ToHub::End],
        3..5 => vec![sync, ToHub::Check(check(dice)), ToHub::End],
        _ => vec![sync, ToHub::Batch(attacker.batch(encode(&body(attacker, dice)))), ToHub::End],
    }
}

fn body(attacker: &Attacker, dice: &mut fastrand::Rng) -> BatchBody {
    let tables = vec![
        TableHeader { name: "notes".into(), columns: vec!["id".into(), "title".into()] },
        TableHeader { name: "marks".into(), columns: vec!["note".into(), "mark".into()] },
    ];
    let stamp = Stamp { hlc: Hlc::from_ms(wall_now_ms()), replica: attacker.replica.tie_break() };
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
