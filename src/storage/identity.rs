//! Identity: how a row gets the id by which every replica knows it, and how cells are fingerprinted.
//!
//! A row's key fixes its identity at birth; from then on the key is an ordinary cell.

use crate::model::{CellValue, RowId, Value, whole};
use crate::protocol::check::Fingerprint;

/// Separates the uses of one hash function, so that no id of one kind can be made to equal one of another.
#[derive(Clone, Copy)]
enum Domain {
    /// The identity of a row with a natural key.
    NaturalKey = 1,
    /// The identity of a numbered row that is older than syncing.
    OldRow = 2,
    /// The fingerprint of a cell.
    Cell = 3,
    /// The fingerprint of a row.
    Row = 4,
}

struct Hash(blake3::Hasher);

impl Hash {
    fn new(domain: Domain, table: &str) -> Self {
        let mut hash = Self::of(domain);
        hash.bytes(table.as_bytes());
        hash
    }

    fn of(domain: Domain) -> Self {
        let mut hash = Self(blake3::Hasher::new());
        hash.0.update(&[domain as u8]);
        hash
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes()).update(bytes);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.bytes(b"n"),
            Value::Integer(integer) => {
                self.bytes(b"i");
                self.bytes(&integer.to_be_bytes());
            }
            Value::Real(real) => {
                self.bytes(b"r");
                self.bytes(&real.to_be_bytes());
            }
            Value::Text(text) => {
                self.bytes(b"t");
                self.bytes(text.as_bytes());
            }
            Value::Blob(blob) => {
                self.bytes(b"b");
                self.bytes(blob);
            }
        }
    }

    fn cell(&mut self, value: &CellValue) {
        match value {
            CellValue::Plain(value) => self.value(value),
            CellValue::Ref(id) => {
                self.bytes(b"ref");
                self.bytes(&id.0);
            }
        }
    }

    fn finish<const N: usize>(self) -> [u8; N] {
        let mut out = [0; N];
        self.0.finalize_xof().fill(&mut out);
        out
    }
}

/// The identity of a row with a natural key, from the key as it travels: where a key column is a foreign
/// key, the identity of the parent row takes the place of the local number.
pub fn natural_row_id<'a>(table: &str, key: impl IntoIterator<Item = &'a CellValue>) -> RowId {
    let mut hash = Hash::new(Domain::NaturalKey, &table.to_ascii_lowercase());
    for part in key {
        hash.cell(part);
    }
    RowId(hash.finish())
}

/// The identity of a numbered row that was there before the database was first attached: the same on every
/// replica that started from the same template (I5). The content is as it travels, as far as it references
/// rows whose identity does not depend on this one: equal numbers in two databases that have nothing to do
/// with each other are no equal content.
pub fn old_row_id<'a>(table: &str, number: i64, content: impl IntoIterator<Item = &'a CellValue>) -> RowId {
    let mut hash = Hash::new(Domain::OldRow, &table.to_ascii_lowercase());
    hash.value(&Value::Integer(number));
    for value in content {
        hash.cell(value);
    }
    RowId(hash.finish())
}

/// Bytes of a fingerprint: every synced row keeps one for each of its cells.
pub const FINGERPRINT_BYTES: usize = 5;

/// A cell's fingerprint: equal exactly if SQLite stores the same bytes, but for one chance in 2^40. A change that
/// meets that chance is not seen.
pub fn fingerprint(value: &Value) -> u64 {
    let mut hash = Hash::new(Domain::Cell, "");
    hash.value(value);
    let mut bytes = [0; 8];
    bytes[8 - FINGERPRINT_BYTES..].copy_from_slice(&hash.finish::<FINGERPRINT_BYTES>());
    u64::from_be_bytes(bytes)
}

/// A row's fingerprint: of its identity, and of its cells as they travel, by the names of their columns in lower
/// case and in the order of these. A whole double counts as the integer that it equals: which of the two a sum is stored
/// as is for its column to say, and the hub has no column.
pub fn row_fingerprint<'a>(
    id: RowId,
    cells: impl IntoIterator<Item = (&'a str, &'a CellValue)>,
) -> Fingerprint {
    let mut hash = Hash::of(Domain::Row);
    hash.bytes(&id.0);
    for (column, value) in cells {
        hash.bytes(column.as_bytes());
        match value {
            CellValue::Plain(Value::Real(real)) => {
                hash.value(&whole(*real).map_or(Value::Real(*real), Value::Integer));
            }
            value => hash.cell(value),
        }
    }
    Fingerprint(u128::from_be_bytes(hash.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_depends_on_table_key_and_type_and_on_nothing_else() {
        let text = CellValue::from(Value::Text("1".into()));
        let integer = CellValue::from(Value::Integer(1));
        assert_eq!(natural_row_id("t", [&text]), natural_row_id("t", [&text]));
        assert_eq!(
            natural_row_id("t", [&text]),
            natural_row_id("T", [&text]),
            "SQLite does not tell them apart"
        );
        assert_ne!(natural_row_id("t", [&text]), natural_row_id("u", [&text]));
        assert_ne!(natural_row_id("t", [&text]), natural_row_id("t", [&integer]));
        assert_ne!(natural_row_id("t", [&text, &integer]), natural_row_id("t", [&integer, &text]));
    }

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let part = |text: &str| CellValue::from(Value::Text(text.into()));
        let key = |a: &str, b: &str| natural_row_id("t", [&part(a), &part(b)]);
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }

    #[test]
    fn a_fingerprint_sees_what_sqlite_stores() {
        assert_ne!(fingerprint(&Value::Real(0.0)), fingerprint(&Value::Real(-0.0)));
        assert_ne!(fingerprint(&Value::Integer(1)), fingerprint(&Value::Real(1.0)));
        assert_ne!(fingerprint(&Value::Text("x".into())), fingerprint(&Value::Blob(b"x".to_vec())));
    }

    #[test]
    fn a_rows_fingerprint_sees_its_identity_its_columns_and_its_values() {
        let value = |text: &str| CellValue::from(Value::Text(text.into()));
        let (id, other) = (RowId([8; 16]), RowId([9; 16]));
        let print = |id, cells: &[(&str, CellValue)]| {
            row_fingerprint(id, cells.iter().map(|(name, value)| (*name, value)))
        };
        let prints = [
            print(id, &[("body", value("hi"))]),
            print(other, &[("body", value("hi"))]),
            print(id, &[("bodyhi", value(""))]),
            print(id, &[("body", CellValue::Ref(other))]),
            print(id, &[("body", Value::Null.into())]),
            print(id, &[]),
        ];
        for (at, one) in prints.iter().enumerate() {
            assert!(!prints[..at].contains(one), "{at}");
        }
        assert_eq!(
            format!("{:032x}", prints[0].0),
            "c2d08a2c9a5d2920c8e587382eec0407",
            "as docs/protocol.md says"
        );
    }

    /// Every implementation must get these; they are in docs/protocol.md.
    #[test]
    fn the_hash_is_part_of_the_protocol() {
        let text: CellValue = Value::Text("deploy".into()).into();
        let parent = CellValue::Ref(RowId([9; 16]));
        let ids = [
            natural_row_id("notes", [&text]),
            natural_row_id("notes", [&parent, &Value::Integer(-1).into()]),
            old_row_id("notes", 1, &[Value::Text("hi".into()).into()]),
        ];
        assert_eq!(
            ids.map(|id| id.to_string()),
            [
                "fd19ff48818ad02e6d07e075432c913f",
                "61e73e5a00494542d824d507a1aa1e74",
                "34d1f5f9b274bc047f5b950bbb61a241"
            ]
        );
    }
}
