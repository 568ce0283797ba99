//! How a row's merged state is kept in one column of a hub's store.
//!
//! Most of a row's cells were written together, so cells that share stamp, position and writer share them
//! here as well. MessagePack of
//! `[format, number, whole since, delete, [[hlc, replica, seq, writer, [[column, value], …]], …]]`,
//! where a writer that equals the stamp's replica is nil. A row with cells that rules made has the format 2 and one
//! element more: what they were made of, by column. A row with a delete beneath its delete has the format 3, and that
//! delete behind it.

use std::collections::BTreeMap;

use crate::model::{Cell, CellValue, ColumnIndex, Hlc, Made, RowState, Seq, Stamp};

/// The first element. Another one is another layout.
const FORMAT: u8 = 1;

/// The first element of a row with cells that rules made.
const WITH_RULES: u8 = 2;

/// The first element of a row that another replica has deleted as well.
const WITH_BENEATH: u8 = 3;

/// What several registers share.
type Head = (Hlc, u64, Seq, Option<u64>);
type Groups<V> = Vec<(Head, Vec<(ColumnIndex, V)>)>;
type Body<V> = (u8, Option<i64>, Seq, Option<Head>, Groups<V>);
type Rules = BTreeMap<ColumnIndex, Made>;
type BodyWithRules<V, A> = (u8, Option<i64>, Seq, Option<Head>, Groups<V>, A);
type BodyWithBeneath<V, A> = (u8, Option<i64>, Seq, Option<Head>, Groups<V>, A, Head);

/// Encodes a state.
pub fn encode(state: &RowState) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut groups: BTreeMap<Head, Vec<(ColumnIndex, &CellValue)>> = BTreeMap::new();
    for (column, cell) in &state.cells {
        groups.entry(head_of(cell)).or_default().push((*column, &cell.value));
    }
    let deleted = state.deleted.as_ref().map(head_of);
    let (number, whole_since, groups) = (state.number, state.whole_since, groups.into_iter().collect());
    if let Some(beneath) = state.beneath.as_ref().map(head_of) {
        let body: BodyWithBeneath<&CellValue, &Rules> =
            (WITH_BENEATH, number, whole_since, deleted, groups, &state.made, beneath);
        return rmp_serde::to_vec(&body);
    }
    if state.made.is_empty() {
        let body: Body<&CellValue> = (FORMAT, number, whole_since, deleted, groups);
        return rmp_serde::to_vec(&body);
    }
    let body: BodyWithRules<&CellValue, &Rules> =
        (WITH_RULES, number, whole_since, deleted, groups, &state.made);
    rmp_serde::to_vec(&body)
}

/// Decodes a state.
pub fn decode(bytes: &[u8]) -> Result<RowState, rmp_serde::decode::Error> {
    // The second byte is the format: the first says how many elements there are.
    let (format, number, whole_since, deleted, groups, made, beneath) = match bytes.get(1) {
        Some(&WITH_BENEATH) => {
            let body: BodyWithBeneath<CellValue, Rules> = rmp_serde::from_slice(bytes)?;
            (body.0, body.1, body.2, body.3, body.4, body.5, Some(body.6))
        }
        Some(&WITH_RULES) => {
            let body: BodyWithRules<CellValue, Rules> = rmp_serde::from_slice(bytes)?;
            (body.0, body.1, body.2, body.3, body.4, body.5, None)
        }
        _ => {
            let body: Body<CellValue> = rmp_serde::from_slice(bytes)?;
            (body.0, body.1, body.2, body.3, body.4, Rules::new(), None)
        }
    };
    if !(FORMAT..=WITH_BENEATH).contains(&format) {
        return Err(rmp_serde::decode::Error::Uncategorized(format!("row format {format}")));
    }
    let mut cells = BTreeMap::new();
    for (head, members) in groups {
        cells.extend(members.into_iter().map(|(column, value)| (column, cell_of(head, value))));
    }
    let delete = |head: Option<Head>| head.map(|head| cell_of(head, ()));
    Ok(RowState { number, whole_since, deleted: delete(deleted), cells, made, beneath: delete(beneath) })
}

fn head_of<V>(cell: &Cell<V>) -> Head {
    let writer = (cell.writer != cell.stamp.replica).then_some(cell.writer);
    (cell.stamp.hlc, cell.stamp.replica, cell.seq, writer)
}

fn cell_of<V>((hlc, replica, seq, writer): Head, value: V) -> Cell<V> {
    Cell { stamp: Stamp { hlc, replica }, seq, writer: writer.unwrap_or(replica), value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Adjustment, Number, Op, RowId, Value, Write};

    fn set(ms: u64, replica: u64, cells: Vec<(ColumnIndex, CellValue)>) -> Write {
        Write { stamp: Stamp { hlc: Hlc(ms), replica }, base: 0, op: Op::Set(cells) }
    }

    #[test]
    fn a_state_survives_exactly() {
        let mut state = RowState::default();
        let blob = Value::Blob(vec![7; 1 << 20]).into();
        let first = vec![(0, blob), (1, Value::Null.into()), (3, CellValue::Ref(RowId([9; 16])))];
        state.merge(Some(-5), &[set(10, 1, first)], 1, 1);
        state.merge(None, &[set(11, 2, vec![(1, Value::Real(-0.0).into())])], 3, 2);
        let delete = Write { stamp: Stamp { hlc: Hlc(12), replica: 4 }, base: 2, op: Op::Delete };
        state.merge(None, &[delete], 4, 3);
        assert_eq!(decode(&encode(&state).unwrap()).unwrap(), state);
        let mut twice = state.clone();
        let other = Write { stamp: Stamp { hlc: Hlc(14), replica: 5 }, base: 2, op: Op::Delete };
        twice.merge(None, &[other], 5, 4);
        assert_eq!(twice.beneath, state.deleted);
        assert_eq!(decode(&encode(&twice).unwrap()).unwrap(), twice);
        assert_eq!(decode(&encode(&RowState::default()).unwrap()).unwrap(), RowState::default());
        let one = Op::Adjust(vec![(4, Adjustment::Add(Number::Real(0.5)))]);
        state.merge(None, &[Write { stamp: Stamp { hlc: Hlc(13), replica: 4 }, base: 3, op: one }], 4, 4);
        assert_eq!(state.made.len(), 1);
        assert_eq!(decode(&encode(&state).unwrap()).unwrap(), state);
    }

    #[test]
    fn cells_written_together_share_their_head() {
        let mut state = RowState::default();
        let cells = (0..100).map(|column| (column, Value::Integer(0).into())).collect();
        state.merge(None, &[set(1 << 60, u64::MAX, cells)], u64::MAX, 1);
        assert!(encode(&state).unwrap().len() < 100 * 3 + 40);
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = encode(&RowState::default()).unwrap();
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        let mut other_format = bytes;
        other_format[1] = 4;
        assert!(decode(&other_format).is_err());
    }
}
