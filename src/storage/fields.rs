//! Reading the columns of a bookkeeping row in order, checking each.

use super::driver::{SqlError, ValueRef};
use crate::model::Value;

/// Binds an unsigned number; SQLite's integers are signed.
pub fn integer(number: u64) -> Result<ValueRef<'static>, SqlError> {
    i64::try_from(number)
        .map(ValueRef::Integer)
        .map_err(|_| SqlError::corrupt(format!("{number} is beyond SQLite's integers")))
}

/// The columns of a row, read from left to right.
pub struct Fields(std::vec::IntoIter<Value>);

impl From<Vec<Value>> for Fields {
    fn from(row: Vec<Value>) -> Self {
        Self(row.into_iter())
    }
}

impl Fields {
    /// Takes the values out of a row that a query hands over.
    pub fn of(row: &mut [Value]) -> Self {
        let values: Vec<Value> = row.iter_mut().map(|value| std::mem::replace(value, Value::Null)).collect();
        values.into()
    }

    /// The values that were not read yet.
    pub fn rest(self) -> Vec<Value> {
        self.0.collect()
    }

    /// The next value; NULL behind the last.
    pub fn value(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Null)
    }
    /// The next value, an integer.
    pub fn integer(&mut self) -> Result<i64, SqlError> {
        match self.value() {
            Value::Integer(integer) => Ok(integer),
            other => Err(SqlError::corrupt(format!("an integer was expected, not {other:?}"))),
        }
    }

    /// The next value, an integer that is not negative.
    pub fn unsigned(&mut self) -> Result<u64, SqlError> {
        u64::try_from(self.integer()?).map_err(|_| SqlError::corrupt("a negative number"))
    }

    /// The next value, text.
    pub fn text(&mut self) -> Result<String, SqlError> {
        match self.value() {
            Value::Text(text) => Ok(text),
            other => Err(SqlError::corrupt(format!("text was expected, not {other:?}"))),
        }
    }

    /// The next value, text or NULL.
    pub fn optional_text(&mut self) -> Option<String> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The next value, bytes of an exact form.
    pub fn bytes<T>(&mut self, parse: impl Fn(&[u8]) -> Option<T>) -> Result<T, SqlError> {
        self.optional_bytes(parse).ok_or_else(|| SqlError::corrupt("bytes of another length were expected"))
    }

    /// The next value, bytes of an exact form or NULL.
    pub fn optional_bytes<T>(&mut self, parse: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        match self.value() {
            Value::Blob(bytes) => parse(&bytes),
            _ => None,
        }
    }
}
