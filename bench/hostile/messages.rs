//! What the attacks send, encoded.

use federation_hub::engine::clock::wall_now_ms;
use federation_hub::model::{
    Agreement, CellValue, Hlc, KeyKind, Op, RowChange, RowId, Stamp, TableHeader, TableSchema, Value, Write,
};
use federation_hub::protocol::extent::MAX_VALUES;
use federation_hub::protocol::frame::{self, LENGTH_BYTES, MAX_FRAME_BYTES};
use federation_hub::protocol::limits::MAX_TABLES;
use federation_hub::protocol::message::{BatchBody, SyncBegin, ToHub};

use crate::attacker::{Attacker, encode};

/// Columns of each table that is declared, beside its key.
const COLUMNS: usize = 1_899;

/// Rows of a batch, and bytes of each: what an honest agent puts into one batch at most.
const HONEST_ROWS: usize = 250;
const HONEST_ROW_BYTES: usize = 4_000;

/// Rows of which each references the one before.
pub const CHAIN: usize = 4_000;

/// The messages of a stream, in their frames.
pub fn frames(messages: &[ToHub]) -> Vec<Vec<u8>> {
    messages.iter().filter_map(|message| frame::encode(message).ok()).collect()
}

/// A sync with this batch.
pub fn pushing(attacker: &Attacker, body: Vec<u8>) -> Vec<ToHub> {
    vec![ToHub::Sync(attacker.sync()), ToHub::Batch(attacker.batch(body))]
}

/// A sync that declares tables.
pub fn declaring(attacker: &Attacker, schema: Vec<TableSchema>) -> Vec<ToHub> {
    vec![ToHub::Sync(SyncBegin { schema: Some(schema), ..attacker.sync() }), ToHub::End]
}

/// The body of a batch: one table without a name, of as many columns without names as a message may have values.
pub fn empty_values() -> Vec<u8> {
    let count = MAX_VALUES - 100;
    let length = u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
    [&[0x93, 0x91, 0x92, 0xa0, 0xdd][..], &length, &vec![0xa0; count], &[0x90, 0x90]].concat()
}

/// As many tables as a tenant may have, of as many columns as fit; other ones for each number.
pub fn many_columns(number: u64) -> Vec<TableSchema> {
    let columns: Vec<String> = (0..COLUMNS).map(short_name).collect();
    let table = |at: usize| TableSchema {
        name: format!("t{number}_{at}"),
        key: KeyKind::Number,
        columns: columns.clone(),
        ddl: format!("CREATE TABLE t{number}_{at}(id INTEGER PRIMARY KEY, a)"),
        indexes: Vec::new(),
        agreed: Agreement::default(),
    };
    (0..MAX_TABLES).map(table).collect()
}

/// A name of at most three letters.
fn short_name(number: usize) -> String {
    let letter = |at: usize| char::from(b'a' + u8::try_from(at % 26).unwrap_or(0));
    [letter(number / 676), letter(number / 26), letter(number)].iter().collect()
}

/// A sync that names more tables than it may, as many as a message has room for: it takes long to decode, and means nothing.
pub fn nonsense(attacker: &Attacker) -> Vec<ToHub> {
    vec![ToHub::Sync(SyncBegin { refresh: vec![String::new(); MAX_VALUES - 100], ..attacker.sync() })]
}

/// A frame as large as any, but for its last byte.
pub fn partial() -> Vec<u8> {
    let mut frame = u32::try_from(MAX_FRAME_BYTES).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    frame.resize(LENGTH_BYTES + MAX_FRAME_BYTES - 1, 0);
    frame
}

/// A table whose rows may reference each other, and go with those that they reference.
pub fn chained() -> Vec<TableSchema> {
    vec![TableSchema {
        name: "chained".into(),
        key: KeyKind::Natural,
        columns: vec!["id".into(), "parent".into()],
        ddl: "CREATE TABLE chained(id TEXT PRIMARY KEY, parent TEXT REFERENCES chained ON DELETE CASCADE)"
            .into(),
        indexes: Vec::new(),
        agreed: Agreement { key_columns: vec!["id".into()], ..Agreement::default() },
    }]
}

/// A plain table.
pub fn notes() -> Vec<TableSchema> {
    vec![TableSchema {
        name: "notes".into(),
        key: KeyKind::Number,
        columns: vec!["body".into()],
        ddl: "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT)".into(),
        indexes: Vec::new(),
        agreed: Agreement::default(),
    }]
}

fn row(owner: u8, number: usize) -> RowId {
    let mut id = [owner; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    RowId(id)
}

/// Who writes, and when.
#[derive(Clone, Copy)]
pub struct Author {
    pub stamp: Stamp,
    owner: u8,
}

impl Author {
    pub fn of(attacker: &Attacker) -> Self {
        let stamp = Stamp { hlc: Hlc::from_ms(wall_now_ms()), replica: attacker.replica.tie_break() };
        Self { stamp, owner: attacker.replica.0[0] }
    }

    fn body(self, (table, columns): (&str, &[&str]), rows: Vec<(usize, Option<i64>, Op)>) -> Vec<u8> {
        let columns = columns.iter().map(|it| (*it).to_owned()).collect();
        let tables = vec![TableHeader { name: table.into(), columns }];
        let rows = rows.into_iter().map(|(at, number, op)| RowChange {
            table: 0,
            id: row(self.owner, at),
            number,
            is_new: true,
            writes: vec![Write { stamp: self.stamp, base: 0, op }],
        });
        encode(&BatchBody { tables, rows: rows.collect(), collisions: Vec::new() })
    }

    /// All rows of a chain.
    pub fn chain(self) -> Vec<u8> {
        let rows = (0..CHAIN).map(|at| {
            let parent = match at {
                0 => Value::Null.into(),
                _ => CellValue::Ref(row(self.owner, at - 1)),
            };
            let cells = vec![(0, Value::Text(format!("row {at}")).into()), (1, parent)];
            (at, None, Op::Set(cells))
        });
        self.body(("chained", &["id", "parent"]), rows.collect())
    }

    /// The chain's first row, deleted or brought back.
    pub fn head(self, is_delete: bool) -> Vec<u8> {
        let op = if is_delete {
            Op::Delete
        } else {
            Op::Set(vec![(0, Value::Text("row 0".into()).into()), (1, Value::Null.into())])
        };
        self.body(("chained", &["id", "parent"]), vec![(0, None, op)])
    }

    /// Rows of an honest agent that has a lot to say.
    pub fn honest(self, from: usize, dice: &mut fastrand::Rng) -> Vec<u8> {
        let rows = (0..HONEST_ROWS).map(|at| {
            let text: String =
                std::iter::repeat_with(|| dice.alphanumeric()).take(HONEST_ROW_BYTES).collect();
            let number = i64::try_from(from + at).ok();
            (from + at, number, Op::Set(vec![(0, Value::Text(text).into())]))
        });
        self.body(("notes", &["body"]), rows.collect())
    }

    /// One small row.
    pub fn one(self) -> Vec<u8> {
        self.body(("notes", &["body"]), vec![(0, Some(1), Op::Set(vec![(0, Value::Integer(1).into())]))])
    }
}
