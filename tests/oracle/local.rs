//! The database of a replica, without any bookkeeping: SQLite says what a statement did.

use std::collections::BTreeMap;

use federation_hub::model::{
    Adjustment, CellValue, ColumnIndex, RowId, Rule, TableHeader, TableSchema, Value,
};
use rusqlite::{Connection, types};

use crate::model::told::LivingRows;

/// A database in which the number of a row is every byte of its identity.
pub struct Local {
    sqlite: Connection,
    tables: Vec<TableSchema>,
}

/// What a statement did to a row.
pub struct Change {
    pub table: u16,
    pub row: i64,
    /// Whether the row was not there before.
    pub is_new: bool,
    /// Its new cells; none if it was deleted.
    pub cells: Option<Vec<NewCell>>,
}

/// A cell that was written.
pub struct NewCell {
    pub column: ColumnIndex,
    pub value: CellValue,
    /// What was done to the value, if the column's rule asks for that.
    pub adjustment: Option<Adjustment>,
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
    pub fn new(statements: &[String], tables: &[TableSchema]) -> Self {
        let sqlite = Connection::open_in_memory().unwrap();
        for statement in statements {
            sqlite.execute_batch(statement).unwrap();
        }
        sqlite.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        Self { sqlite, tables: tables.to_vec() }
    }

    /// The tables and columns that changes name.
    pub fn headers(&self) -> Vec<TableHeader> {
        let header =
            |table: &TableSchema| TableHeader { name: table.name.clone(), columns: table.columns.clone() };
        self.tables.iter().map(header).collect()
    }

    /// Runs a statement, or not, if a constraint forbids it. Returns what it did.
    pub fn run(&mut self, statement: &str) -> Vec<Change> {
        let before = self.rows();
        let _ = self.sqlite.execute_batch(statement);
        let after = self.rows();
        let mut changes = Vec::new();
        for ((table, row), cells) in &after {
            let was = before.get(&(*table, *row));
            let is_news = |at: &usize| was.is_none_or(|was| was[*at] != cells[*at]);
            let news: Vec<NewCell> = (0..cells.len())
                .filter(is_news)
                .map(|at| self.written(*table, at, was.map(|was| &was[at]), &cells[at]))
                .collect();
            if !news.is_empty() {
                let is_new = was.is_none();
                changes.push(Change { table: *table, row: *row, is_new, cells: Some(news) });
            }
        }
        for (table, row) in before.keys().filter(|key| !after.contains_key(key)) {
            changes.push(Change { table: *table, row: *row, is_new: false, cells: None });
        }
        changes
    }

    /// Shows these rows, and no others.
    pub fn take_over(&mut self, rows: &LivingRows) {
        self.sqlite.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        for table in &self.tables {
            self.sqlite.execute_batch(&format!("DELETE FROM {}", table.name)).unwrap();
        }
        for ((name, id), cells) in rows {
            let Some(table) = self.tables.iter().find(|table| table.name == *name) else { continue };
            let mut values = vec![types::Value::Integer(number(*id))];
            for column in &table.columns {
                values.push(cells.get(column).map_or(types::Value::Null, stored));
            }
            let places = vec!["?"; values.len()].join(", ");
            let columns = table.columns.join(", ");
            let sql = format!("INSERT INTO {name}(id, {columns}) VALUES({places})");
            self.sqlite.execute(&sql, rusqlite::params_from_iter(values)).unwrap();
        }
        self.sqlite.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    }

    fn rows(&self) -> BTreeMap<(u16, i64), Cells> {
        let mut rows = BTreeMap::new();
        for (at, table) in (0_u16..).zip(&self.tables) {
            let sql = format!("SELECT id, {} FROM {}", table.columns.join(", "), table.name);
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
        NewCell { column: ColumnIndex::try_from(at).unwrap(), value, adjustment }
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
