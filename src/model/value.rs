//! Values, exactly as SQLite stores them (invariant I8), and their one encoding.

use std::cmp::Ordering;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::RowId;

/// One of SQLite's five storage classes.
///
/// Two values are the same when SQLite would store the same bytes: `1` and `1.0` differ, so do `0.0` and
/// `-0.0`, `'a'` and `'A'`, and the text `'x'` and the blob `x'78'`.
#[derive(Clone, Debug)]
pub enum Value {
    /// NULL.
    Null,
    /// A 64-bit signed integer.
    Integer(i64),
    /// A double. SQLite stores no NaN (it turns into NULL).
    Real(f64),
    /// UTF-8 text, NULs included.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// The integer that SQLite takes a double for the same as.
#[expect(clippy::cast_possible_truncation, reason = "only where the double is an integer within the range")]
pub fn whole(real: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    let is_whole = real.trunc().to_bits() == real.to_bits() && (-LIMIT..LIMIT).contains(&real);
    is_whole.then_some(real as i64)
}

impl Value {
    fn class(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Integer(_) => 1,
            Self::Real(_) => 2,
            Self::Text(_) => 3,
            Self::Blob(_) => 4,
        }
    }

    /// The heap bytes behind the value, for bounds on batches and frames.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Null | Self::Integer(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len(),
            Self::Blob(blob) => blob.len(),
        }
    }
}

impl Ord for Value {
    /// A total order over stored representations. It has no meaning but to be the same everywhere: it
    /// decides between two values that carry one stamp.
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(b),
            (Self::Real(a), Self::Real(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Blob(a), Self::Blob(b)) => a.cmp(b),
            _ => self.class().cmp(&other.class()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

/// A value on its way between replicas: a plain one, or a reference to a row.
///
/// A foreign-key column holds a local number here and another there, so it travels as the identity of the
/// row that it means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CellValue {
    /// A value that means the same everywhere.
    Plain(Value),
    /// The row that a foreign-key column points at.
    Ref(RowId),
}

impl CellValue {
    /// The heap bytes behind the value.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Plain(value) => value.heap_bytes(),
            Self::Ref(_) => 16,
        }
    }
}

impl From<Value> for CellValue {
    fn from(value: Value) -> Self {
        Self::Plain(value)
    }
}

/// The MessagePack extension type of a reference to a row.
const REF_EXTENSION: i8 = 1;

impl Serialize for CellValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(Value::Null) => serializer.serialize_unit(),
            Self::Plain(Value::Integer(integer)) => serializer.serialize_i64(*integer),
            Self::Plain(Value::Real(real)) => serializer.serialize_f64(*real),
            Self::Plain(Value::Text(text)) => serializer.serialize_str(text),
            Self::Plain(Value::Blob(blob)) => serializer.serialize_bytes(blob),
            // rmp-serde's documented convention for an extension: a newtype of this name around (type, bytes).
            Self::Ref(id) => serializer.serialize_newtype_struct("_ExtStruct", &(REF_EXTENSION, id)),
        }
    }
}

impl<'de> Deserialize<'de> for CellValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = CellValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nil, an integer, a double, text, bytes, or a reference to a row")
    }

    fn visit_unit<E: de::Error>(self) -> Result<CellValue, E> {
        Ok(Value::Null.into())
    }

    fn visit_i64<E: de::Error>(self, integer: i64) -> Result<CellValue, E> {
        Ok(Value::Integer(integer).into())
    }

    fn visit_u64<E: de::Error>(self, integer: u64) -> Result<CellValue, E> {
        let integer = i64::try_from(integer).map_err(|_| E::custom("an integer beyond 64 signed bits"))?;
        Ok(Value::Integer(integer).into())
    }

    fn visit_f64<E: de::Error>(self, real: f64) -> Result<CellValue, E> {
        if real.is_nan() {
            return Err(E::custom("NaN, which SQLite cannot store"));
        }
        Ok(Value::Real(real).into())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<CellValue, E> {
        Ok(Value::Text(text.to_owned()).into())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<CellValue, E> {
        Ok(Value::Text(text).into())
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<CellValue, E> {
        Ok(Value::Blob(bytes.to_vec()).into())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<CellValue, E> {
        Ok(Value::Blob(bytes).into())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<CellValue, D::Error> {
        let (kind, id) = <(i8, RowId)>::deserialize(deserializer)?;
        if kind != REF_EXTENSION {
            return Err(de::Error::custom(format!(
                "extension type {kind}, which this version does not know"
            )));
        }
        Ok(CellValue::Ref(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(value: &CellValue) -> CellValue {
        rmp_serde::from_slice(&rmp_serde::to_vec(value).unwrap()).unwrap()
    }

    #[test]
    fn every_value_survives_the_encoding_exactly() {
        let plain = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Integer(i64::MAX),
            Value::Integer((1 << 53) + 1),
            Value::Real(1.0),
            Value::Real(-0.0),
            Value::Real(f64::INFINITY),
            Value::Real(5e-324),
            Value::Text("nul\0 and 🦀".into()),
            Value::Text(String::new()),
            Value::Blob(vec![]),
            Value::Blob(vec![0; 1_000_000]),
        ];
        for value in plain.map(CellValue::Plain).into_iter().chain([CellValue::Ref(RowId([7; 16]))]) {
            assert_eq!(round_trip(&value), value);
        }
    }

    #[test]
    fn values_that_sqlite_stores_differently_differ() {
        assert_ne!(Value::Integer(1), Value::Real(1.0));
        assert_ne!(Value::Real(0.0), Value::Real(-0.0));
        assert_ne!(Value::Text("a".into()), Value::Text("A".into()));
        assert_ne!(Value::Text("x".into()), Value::Blob(b"x".to_vec()));
    }

    #[test]
    fn what_sqlite_cannot_hold_is_refused() {
        for bytes in [&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[0xd4, 0x05, 0x00]] {
            assert!(rmp_serde::from_slice::<CellValue>(bytes).is_err());
        }
        let nan = rmp_serde::to_vec(&f64::NAN).unwrap();
        assert!(rmp_serde::from_slice::<CellValue>(&nan).is_err());
    }
}
