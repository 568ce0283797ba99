//! Batches of every kind.

use federation_hub::engine::clock::wall_now_ms;
use federation_hub::model::{
    Adjustment, CellValue, ColumnIndex, Hlc, Number, Op, RowChange, Seq, Stamp, TableHeader, Value, Write,
};
use federation_hub::protocol::extent::MAX_VALUES;
use federation_hub::protocol::limits::{MAX_COLLISIONS, MAX_COLUMNS, MAX_ROW_BYTES, MAX_TABLES};
use federation_hub::protocol::message::{Batch, BatchBody, Collision};

use super::dice::{Dice, row};
use super::tables;
use super::tally::Kind;
use crate::attacker::{Attacker, encode};

/// What a row of a few cells has of values, about.
const VALUES_OF_ROW: usize = 16;

/// Rows of a batch, at most.
const MAX_ROWS: usize = MAX_VALUES / VALUES_OF_ROW;

/// Rows of which each references the one before.
const MAX_CHAIN: usize = 1 << 16;

/// Whoever writes a batch.
struct Author<'a> {
    stamp: Stamp,
    base: Seq,
    body: BatchBody,
    /// Elements of sets that there is room for: each of very many writes could have very many.
    room: usize,
    dice: &'a mut Dice,
}

/// The next batch of an attacker, of a kind; what to say of it.
pub fn batch(attacker: &Attacker, kind: Kind, dice: &mut Dice) -> (Batch, String) {
    let stamp = Stamp { hlc: Hlc::from_ms(wall_now_ms()), replica: attacker.replica.tie_break() };
    let mut author =
        Author { stamp, base: attacker.cursor, body: BatchBody::default(), room: MAX_VALUES / 4, dice };
    match kind {
        Kind::Rows => author.rows(),
        Kind::WideRows => author.wide_rows(),
        Kind::HugeCells => author.huge_cells(),
        Kind::ManyWrites => author.many_writes(),
        Kind::Deletes => author.deletes(),
        Kind::Chains => author.chains(),
        Kind::Collisions => author.collisions(),
        Kind::Undeclared => author.undeclared(),
        _ => author.extremes(),
    }
    author.flaw();
    let Author { body, .. } = author;
    let told = format!(
        "{} tables of {} columns, {} rows with {} writes, {} collisions",
        body.tables.len(),
        body.tables.iter().map(|it| it.columns.len()).sum::<usize>(),
        body.rows.len(),
        body.rows.iter().map(|it| it.writes.len()).sum::<usize>(),
        body.collisions.len()
    );
    let mut batch = attacker.batch(encode(&body));
    if dice.once_in(12) {
        match dice.u8(..3) {
            0 => batch.n = dice.u64(..),
            1 => batch.n = batch.n.saturating_sub(1),
            _ => batch.previous.0[0] ^= 1,
        }
    }
    (batch, told)
}

impl Author<'_> {
    /// Names a table, with so many of its columns; returns its place.
    fn name(&mut self, table: usize, columns: usize) -> u16 {
        let columns = (0..columns).map(tables::column).collect();
        self.body.tables.push(TableHeader { name: tables::name(table), columns });
        u16::try_from(self.body.tables.len() - 1).unwrap()
    }

    fn write(&self, op: Op) -> Write {
        Write { stamp: self.stamp, base: self.base, op }
    }

    /// A row of a table of a number, and of a place.
    fn push(&mut self, (table, place): (usize, u16), at: usize, writes: Vec<Write>) {
        let number = tables::is_numbered(table).then(|| i64::try_from(at).unwrap());
        let is_new = self.dice.once_in(2);
        self.body.rows.push(RowChange { table: place, id: row(at), number, is_new, writes });
    }

    /// Some cells of a row: the key's, as it always is, and a few others.
    fn cells(&mut self, at: usize, columns: usize) -> Vec<(ColumnIndex, CellValue)> {
        let mut cells = vec![(0, tables::key(at).into())];
        for _ in 0..self.dice.usize(..3) {
            let column = ColumnIndex::try_from(self.dice.usize(..columns)).unwrap();
            cells.push((column, self.dice.value()));
        }
        cells
    }

    fn rows(&mut self) {
        for _ in 0..=self.dice.size_within(8) {
            let table = tables::number(self.dice);
            self.name(table, tables::columns(table));
        }
        // As often in the order of their identities as in none.
        let (count, in_order) = (self.dice.size(MAX_ROWS), self.dice.bool());
        for n in 0..count {
            let place = self.dice.usize(..self.body.tables.len());
            let columns = self.body.tables[place].columns.len();
            let table = self.body.tables[place].name[1..].parse().unwrap();
            let at = if in_order { n } else { self.dice.size_within(MAX_ROWS) };
            let cells = self.cells(at, columns);
            let writes = vec![self.write(Op::Set(cells))];
            self.push((table, u16::try_from(place).unwrap()), at, writes);
        }
    }

    fn wide_rows(&mut self) {
        let table = tables::number(self.dice);
        // Also of more columns than a table may have.
        let columns = tables::columns(table) + self.dice.size(MAX_COLUMNS + 16);
        let place = self.name(table, columns);
        for _ in 0..=self.dice.size(MAX_ROWS / columns) {
            let at = self.dice.size_within(MAX_ROWS);
            let mut cells: Vec<(ColumnIndex, CellValue)> = vec![(0, tables::key(at).into())];
            cells.extend((1..columns).map(|it| (ColumnIndex::try_from(it).unwrap(), self.dice.value())));
            let writes = vec![self.write(Op::Set(cells))];
            self.push((table, place), at, writes);
        }
    }

    fn huge_cells(&mut self) {
        let table = tables::number(self.dice);
        let place = self.name(table, tables::columns(table));
        for _ in 0..self.dice.usize(1..4) {
            let at = self.dice.size_within(64);
            let bytes = self.dice.size(MAX_ROW_BYTES + (1 << 16));
            let value = match self.dice.u8(..3) {
                0 => Value::Blob(vec![0; bytes]),
                1 => Value::Blob(std::iter::repeat_with(|| self.dice.u8(..)).take(bytes).collect()),
                _ => Value::Text(self.dice.text(bytes)),
            };
            let column = self.dice.u16(1..4);
            let writes = vec![self.write(Op::Set(vec![(0, tables::key(at).into()), (column, value.into())]))];
            self.push((table, place), at, writes);
        }
    }

    fn many_writes(&mut self) {
        let table = tables::number(self.dice);
        let columns = tables::columns(table);
        let place = self.name(table, columns);
        for _ in 0..self.dice.usize(1..5) {
            let at = self.dice.size_within(64);
            let key = vec![(0, tables::key(at).into())];
            let mut writes = vec![self.write(Op::Set(key))];
            for _ in 0..self.dice.size(MAX_ROWS) {
                let op = self.op(at, columns);
                writes.push(self.write(op));
                self.stamp.hlc = self.stamp.hlc.next();
            }
            self.push((table, place), at, writes);
        }
    }

    fn op(&mut self, at: usize, columns: usize) -> Op {
        match self.dice.u8(..8) {
            0 => Op::Delete,
            1 => Op::Gone,
            2 => Op::Cut(vec![(1, Value::Null.into())]),
            3 => Op::Adjust(vec![(
                3,
                Adjustment::Add(Number::of(&Value::Integer(self.dice.i64(..))).unwrap()),
            )]),
            4 => {
                let many = self.dice.size(1 << 16).min(self.room);
                self.room -= many;
                let mut texts = || (0..many).map(|_| self.dice.u32(..).to_string()).collect();
                Op::Adjust(vec![(3, Adjustment::Edit { added: texts(), removed: texts() })])
            }
            _ => Op::Set(self.cells(at, columns)),
        }
    }

    fn deletes(&mut self) {
        let table = tables::number(self.dice);
        let place = self.name(table, tables::columns(table));
        let is_dense = self.dice.bool();
        for n in 0..=self.dice.size(MAX_ROWS) {
            let at = if is_dense { n } else { self.dice.size_within(MAX_ROWS) };
            let op = if self.dice.once_in(4) { Op::Gone } else { Op::Delete };
            let mut writes = vec![self.write(op)];
            // And some of them brought back.
            if self.dice.once_in(8) {
                self.stamp.hlc = self.stamp.hlc.next();
                let cells = self.cells(at, 4);
                writes.push(self.write(Op::Set(cells)));
            }
            self.push((table, place), at, writes);
        }
    }

    /// Rows of which each references the one before, the first perhaps the last, and perhaps is deleted.
    fn chains(&mut self) {
        let table = tables::number(self.dice) / 3 * 3;
        let place = self.name(table, tables::columns(table));
        let length = 1 + self.dice.size(MAX_CHAIN);
        let (closes, branches, from) =
            (self.dice.bool(), self.dice.once_in(4), self.dice.size_within(1 << 10));
        for n in 0..length {
            let parent = match n {
                0 if closes => Some(length - 1),
                0 => None,
                _ if branches => Some(self.dice.size_within(n - 1)),
                _ => Some(n - 1),
            };
            let parent = parent.map_or(Value::Null.into(), |it| CellValue::Ref(row(from + it)));
            let writes = vec![self.write(Op::Set(vec![(0, tables::key(from + n).into()), (1, parent)]))];
            self.push((table, place), from + n, writes);
        }
        if self.dice.bool() {
            self.stamp.hlc = self.stamp.hlc.next();
            let writes = vec![self.write(Op::Delete)];
            self.push((table, place), from, writes);
        }
    }

    /// Rows of one key, and reports of rows that are alike.
    fn collisions(&mut self) {
        let table = tables::number(self.dice) / 10 * 10 + 9;
        let place = self.name(table, tables::columns(table));
        let kinds = 1 + self.dice.size_within(64);
        for _ in 0..=self.dice.size(MAX_ROWS) {
            let (at, alike) = (self.dice.size_within(MAX_ROWS), self.dice.usize(..kinds));
            let key = tables::key(if self.dice.bool() { alike } else { at });
            let unique = Value::Text(format!("{}{alike}", if self.dice.bool() { "V" } else { "v" }));
            let writes = vec![self.write(Op::Set(vec![(0, key.into()), (2, unique.into())]))];
            self.push((table, place), at, writes);
        }
        for _ in 0..self.dice.size_within(MAX_COLLISIONS + MAX_COLLISIONS / 2) {
            let rows = (self.dice.row(), self.dice.row());
            let index = format!("{}_by_{}", tables::name(table), self.dice.size_within(8));
            self.body.collisions.push(Collision { table: place, index, rows, base: self.base });
        }
    }

    /// Rows of tables that nobody has declared, between those of one that somebody may have.
    fn undeclared(&mut self) {
        let unknown = self.dice.size(2 * MAX_TABLES);
        for n in 0..unknown {
            self.body.tables.push(TableHeader { name: format!("u{n}"), columns: vec!["c0".into()] });
        }
        let table = tables::number(self.dice);
        let place = self.name(table, tables::columns(table));
        let of_known = self.dice.bool();
        for _ in 0..=self.dice.size(MAX_ROWS) {
            let at = self.dice.size_within(MAX_ROWS);
            let writes = vec![self.write(Op::Set(vec![(0, tables::key(at).into())]))];
            let place = if of_known && self.dice.once_in(2) { place } else { self.dice.u16(..=place) };
            self.push((table, place), at, writes);
        }
    }

    /// Few rows with stamps, bases and numbers from the ends of their ranges.
    fn extremes(&mut self) {
        let table = tables::number(self.dice);
        let columns = tables::columns(table);
        let place = self.name(table, columns);
        let now = self.stamp.hlc;
        // Without those the batch is refused whole.
        let may_lead = self.dice.once_in(3);
        for _ in 0..=self.dice.size_within(16) {
            let at = self.dice.size_within(64);
            let mut writes = Vec::new();
            for _ in 0..=self.dice.size_within(16) {
                let hlc = match self.dice.u8(..5) {
                    0 => Hlc::ZERO,
                    1 => Hlc(1),
                    2 => Hlc::from_ms(wall_now_ms() + 59_000),
                    3 if may_lead => Hlc(u64::MAX - self.dice.u64(..2)),
                    _ => now,
                };
                let replica = self.dice.choice([0, 1, u64::MAX, self.stamp.replica]).unwrap();
                let base = self.dice.choice([0, 1, i64::MAX.unsigned_abs(), u64::MAX, self.base]).unwrap();
                let op = self.op(at, columns);
                writes.push(Write { stamp: Stamp { hlc, replica }, base, op });
            }
            self.push((table, place), at, writes);
            let number = self.dice.choice([i64::MIN, -1, 0, i64::MAX]).unwrap();
            if let Some(change) = self.body.rows.last_mut().filter(|it| it.number.is_some()) {
                change.number = Some(number);
            }
        }
    }

    /// Makes a batch that has to be wrong contradict itself.
    fn flaw(&mut self) {
        if !self.dice.is_wrong {
            return;
        }
        let at = self.dice.size_within(MAX_ROWS);
        let writes = match self.dice.u8(..3) {
            0 => vec![self.write(Op::Set(vec![(ColumnIndex::MAX, Value::Null.into())]))],
            1 => vec![self.write(Op::Cut(vec![(ColumnIndex::MAX, Value::Null.into())]))],
            _ => Vec::new(),
        };
        let place = if writes.is_empty() { u16::MAX } else { 0 };
        self.body.rows.push(RowChange { table: place, id: row(at), number: None, is_new: true, writes });
    }
}
