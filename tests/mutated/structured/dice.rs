//! Chance, and sizes.

use std::ops::{Deref, DerefMut};

use federation_hub::model::{CellValue, RowId, Value};

/// One message in so many may be as large as the protocol lets it, and one in so many a good part of that. To have all of them
/// so would let few be sent: of the largest, each takes a second.
const GREAT: u32 = 50;
const MIDDLING: u32 = 8;

/// How much smaller than the protocol lets them the others may be: those, and most.
const SHARE_OF_MIDDLING: usize = 16;
const SHARE_OF_MOST: usize = 512;

/// Of each kind one message in so many is wrong in itself.
const WRONG: u64 = 6;

/// What any message may have of anything.
const LEAST: usize = 8;

/// Dice for one message.
pub struct Dice {
    random: fastrand::Rng,
    share: usize,
    /// Whether the message has to be one that the hub refuses, whatever it knows.
    pub is_wrong: bool,
}

impl Deref for Dice {
    type Target = fastrand::Rng;

    fn deref(&self) -> &fastrand::Rng {
        &self.random
    }
}

impl DerefMut for Dice {
    fn deref_mut(&mut self) -> &mut fastrand::Rng {
        &mut self.random
    }
}

impl Dice {
    /// Those of the message with this number, the n-th of its kind.
    pub fn of(seed: u64, number: u64, of_kind: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed.rotate_left(40) ^ number);
        let share = if random.u32(..GREAT) == 0 {
            1
        } else if random.u32(..MIDDLING) == 0 {
            SHARE_OF_MIDDLING
        } else {
            SHARE_OF_MOST
        };
        Self { random, share, is_wrong: of_kind % WRONG == WRONG - 1 }
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.random.u32(..times) == 0
    }

    /// A size, as often of each order of magnitude, from none to a limit or this message's share of it.
    pub fn size(&mut self, limit: usize) -> usize {
        self.size_within((limit / self.share).max(LEAST).min(limit))
    }

    /// The same, from none to the limit, whatever the message's share.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes are far below 2^52, and not below 0"
    )]
    pub fn size_within(&mut self, limit: usize) -> usize {
        let magnitudes = ((limit + 1) as f64).ln();
        ((self.random.f64() * magnitudes).exp() as usize).saturating_sub(1).min(limit)
    }

    /// Text of so many bytes, which compresses or does not.
    pub fn text(&mut self, bytes: usize) -> String {
        if self.random.bool() {
            return "x".repeat(bytes);
        }
        (0..bytes).map(|_| self.random.alphanumeric()).collect()
    }

    /// One of the rows that everything is about; small numbers often.
    pub fn row(&mut self) -> RowId {
        row(self.size_within(1 << 20))
    }

    /// A small value.
    pub fn value(&mut self) -> CellValue {
        match self.random.u8(..8) {
            0 => Value::Null.into(),
            1 => Value::Integer(self.random.i64(..)).into(),
            2 => Value::Integer(i64::from(self.random.u8(..8))).into(),
            3 => Value::Real(self.random.f64()).into(),
            4 => Value::Blob(vec![self.random.u8(..); 9]).into(),
            5 => CellValue::Ref(self.row()),
            6 => Value::Text(["a", "A", "b", ""][self.random.usize(..4)].into()).into(),
            _ => Value::Text(self.text(12)).into(),
        }
    }
}

/// The row of a number.
pub fn row(number: usize) -> RowId {
    let mut id = [0x5a; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    RowId(id)
}
