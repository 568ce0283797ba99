//! UNIQUE constraints and foreign keys between agents that did not know of each other's writes.

mod alike;
mod claims;
mod followed;
mod foreign_keys;
mod keys;
mod undone;
mod unions;
mod unique;

use std::collections::{BTreeMap, HashMap};

use super::*;

use crate::model::Rule;
use crate::storage::catalog::Catalog;
use crate::storage::choice::{Choice, SyncOptions};
use crate::storage::identity::natural_row_id;
use crate::storage::scratch::Scratch;

const SKILLS: &str = "CREATE TABLE skills(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, uses)";
const LINKS: &str = "CREATE TABLE links(id INTEGER PRIMARY KEY, \
                     parent INTEGER NOT NULL REFERENCES skills(id) ON DELETE CASCADE, \
                     child INTEGER NOT NULL REFERENCES skills(id), kind TEXT, UNIQUE(parent, child, kind))";

/// One change to a row: table, row, and cells; none to delete it.
type Edit<'a> = (&'a str, u8, Option<Vec<(&'a str, CellValue)>>);

fn at(row: u8) -> CellValue {
    CellValue::Ref(RowId([row; 16]))
}

fn t(value: &str) -> CellValue {
    text(value).into()
}

fn null() -> CellValue {
    Value::Null.into()
}

/// What a new replica gets, by row; dead rows are left out.
type View = BTreeMap<(u8, String), CellValue>;

struct Site {
    store: SqliteHubStore,
    ms: i64,
    /// The rows that were pushed, and who deleted them last.
    known: BTreeMap<(String, u8), Option<ReplicaId>>,
}

impl Site {
    /// A store whose tenant has these tables. Numbered tables give their columns after the number.
    fn new(tables: &[(&str, &[&str])]) -> (Self, Pusher, Pusher) {
        let mut store = store();
        let alice = Pusher::attach(&mut store, "acme", "alice", ALICE);
        let schemas = tables.iter().map(|(ddl, indexes)| declared(ddl, indexes)).collect();
        alice.register(&mut store, schemas);
        let bob = Pusher::attach(&mut store, "acme", "bob", BOB);
        (Self { store, ms: 0, known: BTreeMap::new() }, alice, bob)
    }

    /// Pushes edits as one batch; the author has seen what it pulled.
    fn push(&mut self, who: &mut Pusher, edits: &[Edit<'_>]) -> Ack {
        self.push_with_effects(who, edits, &[])
    }

    /// The same, of which what was done to some rows was no statement's doing.
    fn push_with_effects(&mut self, who: &mut Pusher, edits: &[Edit<'_>], effects: &[u8]) -> Ack {
        self.ms += 1;
        let mut body = BatchBody::default();
        for (table, row, cells) in edits {
            let columns: Vec<String> =
                cells.iter().flatten().map(|(column, _)| (*column).to_owned()).collect();
            let header = TableHeader { name: (*table).into(), columns };
            let op = match cells {
                None if effects.contains(row) => Op::Gone,
                None => Op::Delete,
                Some(cells) => {
                    let cells = (0..).zip(cells).map(|(at, (_, value))| (at, value.clone())).collect();
                    if effects.contains(row) { Op::Cut(cells) } else { Op::Set(cells) }
                }
            };
            let table = u16::try_from(body.tables.len()).unwrap();
            let (id, writes) = (RowId([*row; 16]), who.write(self.ms, op));
            // It is new if nobody has made it, or whoever writes it has deleted it.
            let deleter = cells.is_none().then_some(who.replica);
            let known = self.known.insert((header.name.clone(), *row), deleter);
            let is_new = known.is_none_or(|deleter| deleter == Some(who.replica));
            body.tables.push(header);
            body.rows.push(RowChange { table, id, number: Some(i64::from(*row)), is_new, writes });
        }
        let ack = who.push(&mut self.store, body);
        assert_eq!(ack.rejected, []);
        ack
    }

    fn pull(&mut self, who: &mut Pusher) {
        who.pull(&mut self.store, &[]);
    }

    /// What somebody new gets.
    fn view(&mut self) -> View {
        let mut carol = Pusher::attach(&mut self.store, "acme", "carol", ReplicaId([0xc0; 16]));
        let pulled = carol.pull(&mut self.store, &[]);
        let mut states: BTreeMap<u8, (bool, BTreeMap<String, CellValue>)> = BTreeMap::new();
        for (id, column, value) in &pulled.cells {
            states.entry(id.0[0]).or_default().1.insert(column.clone(), value.clone());
        }
        for update in &pulled.updates {
            let dead = update.united.is_some() || update.writes.iter().any(|write| write.op == Op::Delete);
            let newest = update.writes.iter().filter(|w| w.op != Op::Delete).map(|w| w.stamp).max();
            let delete = update.writes.iter().filter(|w| w.op == Op::Delete).map(|w| w.stamp).max();
            states.entry(update.id.0[0]).or_default().0 = dead && newest <= delete;
        }
        let alive = states.into_iter().filter(|(_, (dead, _))| !dead);
        alive.flat_map(|(row, (_, cells))| cells.into_iter().map(move |(c, v)| ((row, c), v))).collect()
    }

    fn rows(&mut self) -> Vec<u8> {
        let mut rows: Vec<u8> = self.view().keys().map(|(row, _)| *row).collect();
        rows.dedup();
        rows
    }
}

fn declared(ddl: &str, indexes: &[&str]) -> TableSchema {
    let mut scratch = Scratch::open().unwrap();
    scratch.define(ddl).unwrap();
    for index in indexes {
        scratch.define(index).unwrap();
    }
    let options = SyncOptions::default();
    Catalog::read(&mut scratch.sql, &Choice::new(&options, HashMap::default())).unwrap().tables[0].schema()
}

fn skill(row: u8, name: &str, uses: i64) -> Edit<'static> {
    ("skills", row, Some(vec![("name", t(name)), ("uses", Value::Integer(uses).into())]))
}

fn renamed(row: u8, name: &str) -> Edit<'static> {
    ("skills", row, Some(vec![("name", t(name))]))
}

fn linked(row: u8, parent: u8, child: u8) -> Edit<'static> {
    ("links", row, Some(vec![("parent", at(parent)), ("child", at(child)), ("kind", t("x"))]))
}

fn deleted(table: &str, row: u8) -> Edit<'_> {
    (table, row, None)
}

fn cell(view: &View, row: u8, column: &str) -> Option<CellValue> {
    view.get(&(row, column.to_owned())).cloned()
}
