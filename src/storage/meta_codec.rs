//! How what a replica remembers of a row is kept in `_federation_row.state`.
//!
//! Every synced row has such a state, so it is small: cells that were written together share their stamp, and are
//! mostly a run of columns of which only fingerprints are left to say.
//!
//! ```text
//! state  = flags:u8 seen:int [unshared:int] [deleted: stamp pending] count:int group… [rare]
//! group  = stamp pending columns fingerprint:5 bytes…
//! stamp  = ms:int counter:int replica:u64, big endian
//! pending= 0 | base + 1:int mark:int, where the highest bit of the first is set for an effect
//! columns= count · 2 + 1:int first:int, where they follow each other | count · 2:int column:int…
//! int    = LEB128;  rare = MessagePack of (number, united, ruled)
//! ```

use super::driver::SqlError;
use super::identity::FINGERPRINT_BYTES;
use super::row_meta::{CellMeta, LocalColumn, Pending, RowMeta, Tombstone};
use super::ruled::RuledCell;
use crate::model::{Hlc, RowId, Stamp};

const HELD: u8 = 1;
const DELETED: u8 = 2;
const RARE: u8 = 4;
/// The hub does not have the row, and no batch has carried it.
const UNSENT: u8 = 8;
/// It was under way in the batch that the first group was.
const SENT: u8 = 16;
/// It was under way in another batch, which is named.
const SENT_APART: u8 = 32;

/// Set in the base of what was no statement's doing.
const EFFECT: u64 = 1 << 63;

/// What only few rows have: their number before they were deleted, the row that they were united with, and what
/// is kept of counters and sets.
type Rare = (Option<i64>, Option<RowId>, Vec<RuledCell>);

/// Cells that were written together, and are sent together.
struct Group<'a> {
    head: (Stamp, Option<Pending>),
    cells: Vec<&'a CellMeta>,
}

/// Encodes what is remembered.
pub fn encode(meta: &RowMeta) -> Result<Vec<u8>, SqlError> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for cell in &meta.cells {
        let head = (cell.stamp, cell.pending);
        match groups.iter_mut().find(|group| group.head == head) {
            Some(group) => group.cells.push(cell),
            None => groups.push(Group { head, cells: vec![cell] }),
        }
    }
    let first_mark = groups.first().and_then(|group| group.head.1).map(|pending| pending.mark);
    let is_rare = meta.number.is_some() || meta.united.is_some() || !meta.ruled.is_empty();
    let unshared = match meta.unshared {
        None => 0,
        Some(0) => UNSENT,
        mark if mark == first_mark => SENT,
        Some(_) => SENT_APART,
    };
    let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
    let mut out = Vec::with_capacity(32 + meta.cells.len() * FINGERPRINT_BYTES);
    out.push(flag(HELD, meta.held) | flag(DELETED, meta.deleted.is_some()) | flag(RARE, is_rare) | unshared);
    put_int(&mut out, meta.seen);
    if let (SENT_APART, Some(mark)) = (unshared, meta.unshared) {
        put_int(&mut out, mark);
    }
    if let Some(deleted) = meta.deleted {
        put_head(&mut out, (deleted.stamp, deleted.pending));
    }
    put_int(&mut out, groups.len() as u64);
    for group in &groups {
        put_head(&mut out, group.head);
        put_cells(&mut out, &group.cells);
    }
    if is_rare {
        let rare = (meta.number, meta.united, &meta.ruled);
        let bytes = rmp_serde::to_vec(&rare)
            .map_err(|error| SqlError::corrupt(format!("cannot encode a row's state: {error}")))?;
        out.extend(bytes);
    }
    Ok(out)
}

/// Decodes it.
pub fn decode(bytes: &[u8]) -> Result<RowMeta, SqlError> {
    read(bytes).ok_or_else(|| SqlError::corrupt("what is remembered of a row is damaged"))
}

fn read(bytes: &[u8]) -> Option<RowMeta> {
    let mut input = Input(bytes);
    let flags = input.byte()?;
    let is = |flag: u8| flags & flag != 0;
    let seen = input.int()?;
    let mut unshared = is(UNSENT).then_some(0);
    if is(SENT_APART) {
        unshared = Some(input.int()?);
    }
    let mut deleted = None;
    if is(DELETED) {
        let (stamp, pending) = input.head()?;
        deleted = Some(Tombstone { stamp, pending });
    }
    let mut cells = Vec::new();
    for _ in 0..input.int()? {
        let (stamp, pending) = input.head()?;
        if is(SENT) && unshared.is_none() {
            unshared = Some(pending?.mark);
        }
        for column in input.columns()? {
            let fingerprint = input.fingerprint()?;
            cells.push(CellMeta { column, stamp, fingerprint, pending });
        }
        // Each cell took some bytes, so that damaged counts end here.
    }
    if is(SENT) && unshared.is_none() {
        return None;
    }
    let (number, united, ruled): Rare =
        if is(RARE) { rmp_serde::from_slice(input.0).ok()? } else { Rare::default() };
    Some(RowMeta { seen, held: is(HELD), unshared, deleted, number, united, cells, ruled })
}

fn put_int(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_head(out: &mut Vec<u8>, (stamp, pending): (Stamp, Option<Pending>)) {
    put_int(out, stamp.hlc.ms());
    put_int(out, stamp.hlc.0 & 0xffff);
    out.extend(stamp.replica.to_be_bytes());
    match pending {
        None => out.push(0),
        Some(Pending { base, mark, is_effect }) => {
            let effect = if is_effect { EFFECT } else { 0 };
            put_int(out, base.saturating_add(1).min(EFFECT - 1) | effect);
            put_int(out, mark);
        }
    }
}

fn put_cells(out: &mut Vec<u8>, cells: &[&CellMeta]) {
    let count = cells.len() as u64;
    let is_run = cells.windows(2).all(|pair| pair[0].column.checked_add(1) == Some(pair[1].column));
    match cells.first() {
        Some(first) if is_run => {
            put_int(out, count * 2 + 1);
            put_int(out, u64::from(first.column));
        }
        _ => {
            put_int(out, count * 2);
            for cell in cells {
                put_int(out, u64::from(cell.column));
            }
        }
    }
    for cell in cells {
        out.extend(&cell.fingerprint.to_be_bytes()[8 - FINGERPRINT_BYTES..]);
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn int(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn head(&mut self) -> Option<(Stamp, Option<Pending>)> {
        let (ms, counter) = (self.int()?, self.int()?);
        let (replica, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        let hlc = Hlc(ms.checked_mul(1 << 16)? | (counter & 0xffff));
        let stamp = Stamp { hlc, replica: u64::from_be_bytes(*replica) };
        let pending = match self.int()? {
            0 => None,
            head => {
                let base = (head & !EFFECT).checked_sub(1)?;
                Some(Pending { base, mark: self.int()?, is_effect: head & EFFECT != 0 })
            }
        };
        Some((stamp, pending))
    }

    fn columns(&mut self) -> Option<Vec<LocalColumn>> {
        let head = self.int()?;
        let count = usize::try_from(head / 2).ok().filter(|count| *count <= self.0.len())?;
        if head % 2 == 0 {
            return (0..count).map(|_| LocalColumn::try_from(self.int()?).ok()).collect();
        }
        let first = LocalColumn::try_from(self.int()?).ok()?;
        (0..count).map(|at| first.checked_add(LocalColumn::try_from(at).ok()?)).collect()
    }

    fn fingerprint(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk::<FINGERPRINT_BYTES>()?;
        self.0 = rest;
        let mut whole = [0; 8];
        whole[8 - FINGERPRINT_BYTES..].copy_from_slice(bytes);
        Some(u64::from_be_bytes(whole))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Value;

    fn stamps() -> impl Strategy<Value = Stamp> {
        (any::<u64>(), any::<u64>()).prop_map(|(hlc, replica)| Stamp { hlc: Hlc(hlc), replica })
    }

    fn pendings() -> impl Strategy<Value = Option<Pending>> {
        let parts = (0..EFFECT - 2, 0_u64..3, any::<bool>());
        prop::option::of(parts.prop_map(|(base, mark, is_effect)| Pending { base, mark, is_effect }))
    }

    fn metas() -> impl Strategy<Value = RowMeta> {
        let heads = prop::collection::vec((stamps(), pendings()), 1..4);
        let cells = prop::collection::btree_map(any::<LocalColumn>(), (0_u64..1 << 40, 0_usize..4), 0..9);
        let tombstone = prop::option::of((stamps(), pendings()));
        let rare = (prop::option::of(any::<i64>()), prop::option::of(any::<[u8; 16]>()), any::<bool>());
        (any::<u64>(), any::<bool>(), prop::option::of(0_u64..3), tombstone, heads, cells, rare).prop_map(
            |(seen, held, unshared, tombstone, heads, cells, (number, united, ruled))| {
                let mut meta = RowMeta { seen, held, unshared, number, ..RowMeta::default() };
                meta.united = united.map(RowId);
                meta.deleted = tombstone.map(|(stamp, pending)| Tombstone { stamp, pending });
                // Groups come back one after the other.
                for (at, (stamp, pending)) in heads.into_iter().enumerate() {
                    let own = cells.iter().filter(|(_, (_, head))| *head == at);
                    meta.cells.extend(own.map(|(column, (fingerprint, _))| CellMeta {
                        column: *column,
                        stamp,
                        fingerprint: *fingerprint,
                        pending,
                    }));
                }
                if ruled {
                    meta.ruled =
                        vec![RuledCell { column: 1, shown: Value::Integer(7).into(), pending: vec![] }];
                }
                meta
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(meta in metas()) {
            prop_assert_eq!(decode(&encode(&meta).unwrap()).unwrap(), meta);
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(meta in metas(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = encode(&meta).unwrap();
            let cut = at.index(bytes.len());
            prop_assert!(decode(&bytes[..cut]).is_err());
            bytes[cut] = byte;
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_row_that_was_written_at_once_takes_little_more_than_its_fingerprints() {
        let (stamp, pending) = (Stamp { hlc: Hlc::from_ms(1_700_000_000_000), replica: u64::MAX }, None);
        let cell = |column| CellMeta { column, stamp, fingerprint: 1, pending };
        let meta = RowMeta { cells: (0..13).map(cell).collect(), ..RowMeta::default() };
        assert_eq!(encode(&meta).unwrap().len(), 3 + 16 + 2 + 13 * 5);
    }
}
