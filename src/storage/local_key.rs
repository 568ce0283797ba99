//! Where the bookkeeping of a row lies.

use serde::{Deserialize, Serialize};

use super::catalog::{Key, Table};
use super::driver::{SqlError, ValueRef};
use crate::model::{CellValue, RowId, Value};

/// Where a row's bookkeeping is found: `_federation_row.k`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LocalKey {
    /// The number of a numbered row.
    Number(i64),
    /// A natural key: its values, as a MessagePack array.
    Natural(Vec<u8>),
    /// A row that is deleted: `x'00' || id` (no MessagePack array), so that its key is free again.
    Dead([u8; 17]),
}

impl LocalKey {
    /// The key of a table's row from the values of its key columns.
    pub fn of(table: &Table, values: &[Value]) -> Result<Self, SqlError> {
        match (&table.key, values) {
            (Key::Number(_), [Value::Integer(number)]) => Ok(Self::Number(*number)),
            (Key::Number(_), _) => Err(SqlError::corrupt("a rowid that is no integer")),
            (Key::Natural(_), values) => encode_values(values).map(Self::Natural),
        }
    }

    /// Where the bookkeeping of a deleted row lies.
    pub fn dead(id: RowId) -> Self {
        let mut bytes = [0; 17];
        bytes[1..].copy_from_slice(&id.0);
        Self::Dead(bytes)
    }

    /// The values of the key's columns; none for a deleted row.
    pub fn values(&self) -> Result<Option<Vec<Value>>, SqlError> {
        match self {
            Self::Number(number) => Ok(Some(vec![Value::Integer(*number)])),
            Self::Natural(bytes) => decode_values(bytes).map(Some),
            Self::Dead(_) => Ok(None),
        }
    }

    /// The parameter for `_federation_row.k`.
    pub fn as_param(&self) -> ValueRef<'_> {
        match self {
            Self::Number(number) => ValueRef::Integer(*number),
            Self::Natural(bytes) => ValueRef::Blob(bytes),
            Self::Dead(bytes) => ValueRef::Blob(bytes),
        }
    }

    /// Reads it from the bookkeeping.
    pub fn read(value: &mut Value) -> Result<Self, SqlError> {
        match std::mem::replace(value, Value::Null) {
            Value::Integer(number) => Ok(Self::Number(number)),
            Value::Blob(bytes) if bytes.first() == Some(&0) => <[u8; 17]>::try_from(bytes)
                .map(Self::Dead)
                .map_err(|_| SqlError::corrupt("a deleted row's key of another length")),
            Value::Blob(bytes) => Ok(Self::Natural(bytes)),
            other => Err(SqlError::corrupt(format!("a row's key is {other:?}"))),
        }
    }
}

/// Values as a MessagePack array, for bookkeeping.
pub fn encode_values(values: &[Value]) -> Result<Vec<u8>, SqlError> {
    let values: Vec<CellValue> = values.iter().cloned().map(Into::into).collect();
    rmp_serde::to_vec(&values).map_err(|error| SqlError::corrupt(error.to_string()))
}

/// Reads what [`encode_values`] wrote.
pub fn decode_values(bytes: &[u8]) -> Result<Vec<Value>, SqlError> {
    let values: Vec<CellValue> =
        rmp_serde::from_slice(bytes).map_err(|error| SqlError::corrupt(error.to_string()))?;
    let plain = values.into_iter().map(|value| match value {
        CellValue::Plain(value) => Ok(value),
        CellValue::Ref(_) => Err(SqlError::corrupt("a reference among plain values")),
    });
    plain.collect()
}
