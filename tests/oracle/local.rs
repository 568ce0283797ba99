//! The database of a replica, without any bookkeeping: SQLite says what a statement did.

use std::collections::BTreeMap;

use federation_hub::model::{
    Adjustment, CellValue, ColumnIndex, KeyKind, RowId, Rule, TableHeader, TableSchema, Value,
};
use rusqlite::{Connection, types};

use crate::effects::{self, Effects};
use crate::model::told::LivingRows;

/// A database in which the number of a row is every byte of its identity, if its table gives rows numbers. Other
/// rows have an identity that follows from the key with which they came.
pub struct Local {
    sqlite: Connection,
    tables: Vec<TableSchema>,
    /// The rows without a number of their own, by table and rowid.
    ids: BTreeMap<Place, RowId>,
    /// Whose it is, and how many identities it has made up.
    name: u8,
    minted: u64,
}

/// A table, and a rowid in it.
pub type Place = (u16, i64);

/// What a statement did to a row.
pub struct Change {
    pub table: u16,
    pub id: RowId,
    /// Its number, if its table gives rows numbers.
    pub number: Option<i64>,
    /// Whether the row was not there before.
    pub is_new: bool,
    /// Its new cells; none if it was deleted.
    pub cells: Option<Vec<NewCell>>,
    /// Whether it was deleted with a row that it references.
    pub is_effect: bool,
}

/// A cell that was written.
pub struct NewCell {
    pub column: ColumnIndex,
    pub value: CellValue,
    /// What was done to the value, if the column's rule asks for that.
    pub adjustment: Option<Adjustment>,
    /// Whether a foreign key's clause has put it there.
    pub is_effect: bool,
}

/// The rule of a column, which its name tells.
pub fn rule(column: &str) -> Option<Rule> {
    match column {
        "uses" => Some(Rule::Counter),
        "tags" => Some(Rule::Set),
        "best" => Some(Rule::Max),
        "least" => Some(Rule::Min),
        _ => None,
    }
}

/// The cells of a row, in the order of its table's columns.
type Cells = Vec<types::Value>;

impl Local {
    /// An empty database.
    pub fn new(name: u8, statements: &[String], tables: &[TableSchema]) -> Self {
        let sqlite = Connection::open_in_memory().unwrap();
        for statement in statements {
            sqlite.execute_batch(statement).unwrap();
        }
        sqlite.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        effects::listen(&sqlite, tables);
        Self { sqlite, tables: tables.to_vec(), ids: BTreeMap::new(), name, minted: 0 }
    }

    /// The tables and columns that changes name.
    pub fn headers(&self) -> Vec<TableHeader> {
        let header =
            |table: &TableSchema| TableHeader { name: table.name.clone(), columns: table.columns.clone() };
        self.tables.iter().map(header).collect()
    }

    /// Runs a statement, or not, if a constraint forbids it. Returns what it did.
    pub fn run(&mut self, statement: &str) -> Vec<Change> {
        effects::forget(&self.sqlite);
        let mut before = self.rows();
        let _ = self.sqlite.execute_batch(statement);
        let after = self.rows();
        self.follow(&mut before, &after);
        let effects = Effects::heard(&self.sqlite, &self.tables);
        let mut changes = Vec::new();
        for (place, cells) in &after {
            let was = before.get(place);
            let is_news = |at: &usize| was.is_none_or(|was| was[*at] != cells[*at]);
            let news: Vec<NewCell> = (0..cells.len())
                .filter(is_news)
                .map(|at| {
                    let cell = self.written(place.0, at, was.map(|was| &was[at]), &cells[at]);
                    let is_effect = effects.has_cut(&self.sqlite, *place, &self.tables, at, &cells[at]);
                    NewCell { is_effect, ..cell }
                })
                .collect();
            if !news.is_empty() {
                changes.push(self.change(*place, was.is_none(), Some(news), false));
            }
        }
        for place in before.keys().filter(|place| !after.contains_key(place)) {
            changes.push(self.change(*place, false, None, effects.gone.contains(place)));
            self.ids.remove(place);
        }
        changes
    }

    /// Finds rows that were replaced under their key, which are the same ones, and gives identities to new ones.
    fn follow(&mut self, before: &mut BTreeMap<Place, Cells>, after: &BTreeMap<Place, Cells>) {
        for (place, cells) in after {
            if !self.is_natural(place.0) || before.contains_key(place) {
                continue;
            }
            let key = self.key(place.0, cells);
            let is_replaced = |(was, cells): &(&Place, &Cells)| {
                was.0 == place.0 && !after.contains_key(was) && self.key(was.0, cells) == key
            };
            let replaced = before.iter().find(is_replaced).map(|(was, _)| *was);
            let id = if let Some(was) = replaced {
                let cells = before.remove(&was).unwrap();
                before.insert(*place, cells);
                self.ids.remove(&was).unwrap()
            } else {
                self.born(&format!("{} {key:?}", place.0))
            };
            self.ids.insert(*place, id);
        }
    }

    /// The identity of a row that comes with a key: another one, if a row that has a new key by now has that.
    fn born(&mut self, key: &str) -> RowId {
        let hash = |text: &str| RowId::from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]).unwrap();
        let id = hash(key);
        if !self.ids.values().any(|other| *other == id) {
            return id;
        }
        self.minted += 1;
        hash(&format!("{key} {} {}", self.minted, self.name))
    }

    fn is_natural(&self, table: u16) -> bool {
        self.tables[usize::from(table)].key == KeyKind::Natural
    }

    /// The values of a row's key.
    fn key(&self, table: u16, cells: &Cells) -> Vec<types::Value> {
        let table = &self.tables[usize::from(table)];
        let columns = table.columns.iter().zip(cells);
        columns
            .filter(|(name, _)| table.agreed.key_columns.contains(name))
            .map(|(_, it)| it.clone())
            .collect()
    }

    fn change(&self, place: Place, is_new: bool, cells: Option<Vec<NewCell>>, is_effect: bool) -> Change {
        let (table, row) = place;
        if self.is_natural(table) {
            return Change { table, id: self.ids[&place], number: None, is_new, cells, is_effect };
        }
        let id = RowId([u8::try_from(row).unwrap(); 16]);
        Change { table, id, number: Some(row), is_new, cells, is_effect }
    }

    /// Shows these rows, and no others.
    pub fn take_over(&mut self, rows: &LivingRows) {
        self.sqlite.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        for table in &self.tables {
            self.sqlite.execute_batch(&format!("DELETE FROM {}", table.name)).unwrap();
        }
        self.ids.clear();
        for (rowid, ((name, id), cells)) in (1..).zip(rows) {
            let Some(table) = self.tables.iter().position(|table| table.name == *name) else { continue };
            let at = u16::try_from(table).unwrap();
            let number = if self.is_natural(at) { rowid } else { number(*id) };
            if self.is_natural(at) {
                self.ids.insert((at, number), *id);
            }
            let table = &self.tables[table];
            let mut values = vec![types::Value::Integer(number)];
            for column in &table.columns {
                values.push(cells.get(column).map_or(types::Value::Null, stored));
            }
            let places = vec!["?"; values.len()].join(", ");
            let columns = table.columns.join(", ");
            let sql = format!("INSERT INTO {name}(rowid, {columns}) VALUES({places})");
            self.sqlite.execute(&sql, rusqlite::params_from_iter(values)).unwrap();
        }
        self.sqlite.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    }

    fn rows(&self) -> BTreeMap<Place, Cells> {
        let mut rows = BTreeMap::new();
        for (at, table) in (0_u16..).zip(&self.tables) {
            let sql = format!("SELECT rowid, {} FROM {}", table.columns.join(", "), table.name);
            let mut statement = self.sqlite.prepare(&sql).unwrap();
            let read = |row: &rusqlite::Row<'_>| {
                let cells = (1..=table.columns.len()).map(|at| row.get(at).unwrap()).collect();
                Ok(((at, row.get(0).unwrap()), cells))
            };
            rows.extend(statement.query_map([], read).unwrap().map(Result::unwrap));
        }
        rows
    }

    fn written(&self, table: u16, at: usize, was: Option<&types::Value>, is: &types::Value) -> NewCell {
        let value = self.travelling(table, at, is);
        let rule = rule(&self.tables[usize::from(table)].columns[at]).unwrap_or_default();
        let was = was.map_or(CellValue::Plain(Value::Null), |was| self.travelling(table, at, was));
        let adjustment = match (&was, &value) {
            (CellValue::Plain(was), CellValue::Plain(is)) => rule.difference(was, is),
            _ => None,
        };
        NewCell { column: ColumnIndex::try_from(at).unwrap(), value, adjustment, is_effect: false }
    }

    /// A value as it travels: that of a foreign key as the row that it means.
    fn travelling(&self, table: u16, column: usize, value: &types::Value) -> CellValue {
        let table = &self.tables[usize::from(table)];
        let sql = "SELECT count(*) FROM pragma_foreign_key_list(?1) WHERE \"from\" = ?2";
        let params = [&table.name, &table.columns[column]];
        let is_reference: bool = self.sqlite.query_row(sql, params, |row| row.get(0)).unwrap();
        match value {
            types::Value::Integer(number) if is_reference => {
                CellValue::Ref(RowId([u8::try_from(*number).unwrap(); 16]))
            }
            types::Value::Integer(integer) => Value::Integer(*integer).into(),
            types::Value::Text(text) => Value::Text(text.clone()).into(),
            types::Value::Real(real) => Value::Real(*real).into(),
            _ => Value::Null.into(),
        }
    }
}

fn number(id: RowId) -> i64 {
    i64::from(id.0[0])
}

fn stored(value: &CellValue) -> types::Value {
    match value {
        CellValue::Ref(id) => types::Value::Integer(number(*id)),
        CellValue::Plain(Value::Integer(integer)) => types::Value::Integer(*integer),
        CellValue::Plain(Value::Text(text)) => types::Value::Text(text.clone()),
        CellValue::Plain(Value::Real(real)) => types::Value::Real(*real),
        CellValue::Plain(_) => types::Value::Null,
    }
}
