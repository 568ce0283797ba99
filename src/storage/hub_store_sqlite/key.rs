//! Unique keys: when SQLite would take the keys of two rows for the same.

use super::rules::TableRules;
use crate::model::{CellValue, ColumnIndex, RowId, RowState, Value, whole};
use crate::storage::catalog::quote;
use crate::storage::driver::{Sql, SqlError, ValueRef};
use crate::storage::scratch::Scratch;
use crate::storage::sqlite_driver::RusqliteSql;
use crate::storage::unique_index::{Collation, KeyTerm, UniqueKey};

/// Bytes of the values that an expression is evaluated over here. The store's thread is everybody's; of longer ones the
/// replicas tell, as of what only an application can compute.
const MAX_EVALUATED_BYTES: usize = 16 << 10;

/// Bytes of the expressions themselves, likewise.
const MAX_EXPRESSION_BYTES: usize = 4 << 10;

/// Bytes of a value that no expression asks for and that is put into its row all the same; of a longer one, none are.
const MAX_BYSTANDER_BYTES: usize = 64;

/// A key that must be unique, by the store's numbers.
pub struct UniqueRule {
    /// The name of the index that keeps it on a replica.
    pub index: String,
    /// What tells it from every other key, however the schema is read: a hash of what it says.
    pub signature: KeyDigest,
    /// The columns whose values decide the key.
    pub columns: Vec<ColumnIndex>,
    parts: Vec<Part>,
    is_partial: bool,
    /// What SQLite must evaluate: the condition, then each expression. None for a key of columns alone.
    query: Option<String>,
}

struct Part {
    /// The column that travels; none for a generated one, or an expression.
    column: Option<ColumnIndex>,
    /// The name of the column; none for an expression.
    name: Option<String>,
    collation: Collation,
}

/// A hash of a key: equal for two rows exactly if they would collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest(pub [u8; 16]);

/// What is known of a row's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOf {
    /// The row collides with none: a part is NULL or missing, or the row is outside of a partial index.
    None,
    /// It collides with those that have the same.
    Known(KeyDigest),
    /// It collides with those that have the same; and a collation of the application's own may take it for the
    /// same as another.
    Compared(KeyDigest),
    /// A function of the application's own decides; this is a hash of what it is asked about.
    Computed(KeyDigest),
}

/// What is known of the values of a row's key.
pub enum PartsOf {
    /// One is missing, or the row is outside of a partial index.
    None,
    /// These.
    Known(Vec<CellValue>),
    /// A function of the application's own decides.
    Computed,
}

impl UniqueRule {
    /// The rule of a key; none if it reads a column that does not travel.
    pub fn new(table: &TableRules, key: &UniqueKey) -> Option<Self> {
        let mut parts = Vec::new();
        let mut evaluated = Vec::new();
        let mut hash = blake3::Hasher::new();
        hash.update(table.name.to_lowercase().as_bytes());
        for part in &key.parts {
            let collation = Collation::of(&part.collation);
            hash.update(b"\0").update(part.collation.to_ascii_uppercase().as_bytes()).update(b"\0");
            let (name, column) = match &part.term {
                KeyTerm::Column(name) => {
                    hash.update(name.to_lowercase().as_bytes());
                    let column = table.column(name);
                    if column.is_none() {
                        if table.number.as_ref().is_some_and(|number| number.eq_ignore_ascii_case(name)) {
                            return None;
                        }
                        // A generated column: SQLite computes it.
                        evaluated.push(quote(name));
                    }
                    (Some(name.clone()), column)
                }
                KeyTerm::Expression(text) => {
                    hash.update(b"=").update(text.as_bytes());
                    evaluated.push(format!("({text})"));
                    (None, None)
                }
            };
            parts.push(Part { column, name, collation });
        }
        if let Some(filter) = &key.filter {
            hash.update(b"\0?").update(filter.as_bytes());
        }
        let query = (key.filter.is_some() || !evaluated.is_empty()).then(|| {
            let filter = key.filter.as_deref().unwrap_or("1");
            // SQLite says what is true: a text can be as well.
            evaluated.insert(0, format!("CASE WHEN ({filter}) THEN 1 END"));
            format!("SELECT {} FROM {}", evaluated.join(", "), quote(&table.name))
        });
        let columns = key.columns.iter().filter_map(|name| table.column(name)).collect();
        let signature = finish(&hash);
        let is_partial = key.filter.is_some();
        Some(Self { index: key.index.clone(), signature, columns, parts, is_partial, query })
    }

    /// For each part of the key, the place of its column among these; none if the key is over others, or partial.
    pub fn order_of(&self, columns: &[&str]) -> Option<Vec<usize>> {
        let is = |name: &str| columns.iter().position(|column| column.eq_ignore_ascii_case(name));
        let places: Option<Vec<usize>> = self.parts.iter().map(|part| is(part.name.as_deref()?)).collect();
        places.filter(|places| !self.is_partial && places.len() == columns.len())
    }

    /// Whether each of its columns is compared as the column is by itself: a foreign key names no other one.
    pub fn compares_as(&self, collation: &dyn Fn(&str) -> Option<Collation>) -> bool {
        let is_same = |part: &Part| part.name.as_deref().and_then(collation) == Some(part.collation);
        self.parts.iter().all(is_same)
    }

    /// The key of a row.
    pub fn key_of(
        &self,
        scratch: &mut Scratch,
        table: &TableRules,
        row: &RowState,
        value: &dyn Fn(ColumnIndex) -> Option<CellValue>,
    ) -> KeyOf {
        match self.parts_of(scratch, table, row, value) {
            PartsOf::None => KeyOf::None,
            PartsOf::Known(parts) => self.of_parts(&parts),
            PartsOf::Computed => KeyOf::Computed(self.of_input(&|column| {
                value(column).or_else(|| row.cells.get(&column).map(|cell| cell.value.clone()))
            })),
        }
    }

    /// The values of the key's parts.
    pub fn parts_of(
        &self,
        scratch: &mut Scratch,
        table: &TableRules,
        row: &RowState,
        value: &dyn Fn(ColumnIndex) -> Option<CellValue>,
    ) -> PartsOf {
        let cell = |column| present(column, row, value);
        let evaluated = match &self.query {
            None => Vec::new(),
            Some(query) if self.is_costly(query, &cell) => return PartsOf::Computed,
            Some(query) => {
                match scratch.evaluate(|sql| evaluate(sql, table, (query, &self.columns), &cell)) {
                    Some(Ok(Some(evaluated))) => evaluated,
                    // What SQLite refuses to evaluate, no replica can have in its index either.
                    Some(Ok(None) | Err(_)) => return PartsOf::None,
                    None => return PartsOf::Computed,
                }
            }
        };
        let mut evaluated = evaluated.into_iter();
        let parts = self.parts.iter().map(|part| match part.column {
            Some(column) => value(column),
            None => evaluated.next().map(CellValue::Plain),
        });
        parts.collect::<Option<Vec<CellValue>>>().map_or(PartsOf::None, PartsOf::Known)
    }

    /// Whether the expressions, or what they are over, are too long to be evaluated here.
    fn is_costly(&self, query: &str, cell: &dyn Fn(ColumnIndex) -> Option<CellValue>) -> bool {
        let values = self.columns.iter().filter_map(|column| cell(*column));
        query.len() > MAX_EXPRESSION_BYTES
            || values.map(|value| value.heap_bytes()).sum::<usize>() > MAX_EVALUATED_BYTES
    }

    /// A hash of all that decides the key, to the byte.
    fn of_input(&self, cell: &dyn Fn(ColumnIndex) -> Option<CellValue>) -> KeyDigest {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.signature.0);
        for column in &self.columns {
            let value = cell(*column).unwrap_or(CellValue::Plain(Value::Null));
            if add(&mut hash, &value, Collation::Binary).is_none() {
                hash.update(b"-");
            }
        }
        finish(&hash)
    }

    /// The key that a foreign key's values name; `order` is where the value for each part is ([`Self::order_of`]).
    pub fn digest_of(&self, order: &[usize], values: &[CellValue]) -> KeyOf {
        let parts: Option<Vec<CellValue>> = order.iter().map(|&at| values.get(at).cloned()).collect();
        parts.map_or(KeyOf::None, |parts| self.of_parts(&parts))
    }

    fn of_parts(&self, values: &[CellValue]) -> KeyOf {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.signature.0);
        for (part, value) in self.parts.iter().zip(values) {
            if add(&mut hash, value, part.collation).is_none() {
                return KeyOf::None;
            }
        }
        let is_own = self.parts.iter().any(|part| part.collation == Collation::Own);
        if is_own { KeyOf::Compared(finish(&hash)) } else { KeyOf::Known(finish(&hash)) }
    }
}

/// What a row has in a column: what stands in for its own value, if anything does.
fn present(
    column: ColumnIndex,
    row: &RowState,
    value: &dyn Fn(ColumnIndex) -> Option<CellValue>,
) -> Option<CellValue> {
    value(column).or_else(|| row.cells.get(&column).map(|cell| cell.value.clone()))
}

fn finish(hash: &blake3::Hasher) -> KeyDigest {
    let mut digest = KeyDigest([0; 16]);
    hash.finalize_xof().fill(&mut digest.0);
    digest
}

/// Adds a value so that equal ones, as SQLite compares them, add the same. None for NULL.
fn add(hash: &mut blake3::Hasher, value: &CellValue, collation: Collation) -> Option<()> {
    let mut tagged = |tag: u8, bytes: &[u8]| {
        hash.update(&[tag]).update(&(bytes.len() as u64).to_be_bytes()).update(bytes);
    };
    match value {
        CellValue::Ref(RowId(id)) => tagged(b'@', id),
        CellValue::Plain(Value::Null) => return None,
        CellValue::Plain(Value::Integer(integer)) => tagged(b'i', &integer.to_be_bytes()),
        CellValue::Plain(Value::Real(real)) => match whole(*real) {
            Some(integer) => tagged(b'i', &integer.to_be_bytes()),
            None => tagged(b'r', &real.to_be_bytes()),
        },
        CellValue::Plain(Value::Text(text)) => match collation {
            Collation::Binary | Collation::Own => tagged(b't', text.as_bytes()),
            Collation::NoCase => tagged(b't', text.to_ascii_lowercase().as_bytes()),
            Collation::RTrim => tagged(b't', text.trim_end_matches(' ').as_bytes()),
        },
        CellValue::Plain(Value::Blob(blob)) => tagged(b'b', blob),
    }
    Some(())
}

/// Evaluates expressions over one row, in an empty table of the tenant's own definition. None if the row is
/// outside of the index. The key is decided by the values of `columns`.
fn evaluate(
    scratch: &mut RusqliteSql,
    table: &TableRules,
    (query, columns): (&str, &[ColumnIndex]),
    cell: &dyn Fn(ColumnIndex) -> Option<CellValue>,
) -> Result<Option<Vec<Value>>, SqlError> {
    let mut names = Vec::new();
    let mut values = Vec::new();
    for (column, name) in (0..).zip(&table.columns) {
        let Some(cell) = cell(column).filter(|_| table.made.contains(&column)) else { continue };
        names.push(quote(name));
        values.push(match cell {
            CellValue::Plain(value)
                if value.heap_bytes() > MAX_BYSTANDER_BYTES && !columns.contains(&column) =>
            {
                // Of the same type, because the table may insist on one.
                if matches!(value, Value::Text(_)) {
                    Value::Text(String::new())
                } else {
                    Value::Blob(Vec::new())
                }
            }
            CellValue::Plain(value) => value,
            // Some number, the same for the same row: it has one here, whichever.
            CellValue::Ref(id) => Value::Integer(number_of(id)),
        });
    }
    let name = quote(&table.name);
    let marks = vec!["?"; names.len()].join(", ");
    let params: Vec<ValueRef<'_>> = values.iter().map(ValueRef::from).collect();
    scratch.execute(&format!("INSERT INTO {name}({}) VALUES({marks})", names.join(", ")), &params)?;
    let found = scratch.query_row(query, &[]);
    scratch.execute(&format!("DELETE FROM {name}"), &[])?;
    let mut found = found?.unwrap_or_default().into_iter();
    let is_in = found.next() == Some(Value::Integer(1));
    Ok(is_in.then(|| found.collect()))
}

/// A number that stands for a row.
pub fn number_of(id: RowId) -> i64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.0[..8]);
    i64::from_be_bytes(bytes).checked_abs().unwrap_or(1)
}
