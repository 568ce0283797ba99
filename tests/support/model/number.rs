//! Numbers as SQLite adds and compares them.

use std::cmp::Ordering;

use federation_hub::model::Value;

/// A number. What is none counts as 0.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Integer(i64),
    Real(f64),
}

impl Number {
    /// The number in a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Integer(integer) => Self::Integer(*integer),
            Value::Real(real) => Self::Real(*real),
            _ => Self::Integer(0),
        }
    }

    /// The sum: integers stay within 64 bits, and a sum with a double is one.
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Self::Integer(a.saturating_add(b)),
            (a, b) => {
                let sum = a.real() + b.real();
                Self::Real(if sum.is_nan() { b.real() } else { sum })
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "what SQLite does with an integer beside a real")]
    fn real(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Real(real) => real,
        }
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        match number {
            Number::Integer(integer) => Self::Integer(integer),
            Number::Real(real) => Self::Real(real),
        }
    }
}

/// Whether SQLite takes two values for the same.
pub fn is_equal(a: &Value, b: &Value) -> bool {
    compare(a, b) == 0
}

/// SQLite's order; of two numbers that are equal, the integer is the lesser.
pub fn order(a: &Value, b: &Value) -> Ordering {
    compare(a, b).cmp(&0).then_with(|| match (a, b) {
        (Value::Integer(_), Value::Real(_)) => Ordering::Less,
        (Value::Real(_), Value::Integer(_)) => Ordering::Greater,
        _ => a.cmp(b),
    })
}

/// Asks SQLite. NULL is equal to nothing.
fn compare(a: &Value, b: &Value) -> i64 {
    thread_local! {
        static SQLITE: rusqlite::Connection = rusqlite::Connection::open_in_memory().unwrap();
    }
    let stored = |value: &Value| match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Integer(integer) => rusqlite::types::Value::Integer(*integer),
        Value::Real(real) => rusqlite::types::Value::Real(*real),
        Value::Text(text) => rusqlite::types::Value::Text(text.clone()),
        Value::Blob(blob) => rusqlite::types::Value::Blob(blob.clone()),
    };
    let sql = "SELECT coalesce((?1 > ?2) - (?1 < ?2), 1)";
    SQLITE.with(|sqlite| sqlite.query_row(sql, [stored(a), stored(b)], |row| row.get(0))).unwrap()
}
