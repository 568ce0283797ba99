//! How much a MessagePack message claims to hold, found out before anything of it is allocated (I17).
//!
//! A byte on the wire can become a value of many bytes in memory: an empty text is one byte there and 24 here, so
//! that a frame of 17 MiB, which may have come as a few hundred compressed ones, would become half a gigabyte. And
//! a list may claim more elements than there are bytes. So the values are counted first, which takes no memory.

use super::frame::FrameError;

/// The values in one message, at most: elements of lists, their lists, and whatever else MessagePack gives a
/// marker of its own. Room for every table definition that a tenant can have, and for any row.
pub const MAX_VALUES: usize = 2 << 20;

/// What a value is followed by.
struct Extent {
    /// Bytes of its own.
    bytes: usize,
    /// Values within it.
    values: usize,
}

/// What a value may take in memory besides its own bytes: the place in a list that has just grown.
pub const BYTES_PER_VALUE: usize = 64;

/// What a message of so many bytes and values takes in memory once it is decoded, at most, in bytes.
pub fn decoded_bytes(payload_bytes: usize, values: usize) -> usize {
    payload_bytes + BYTES_PER_VALUE * values
}

/// Counts the values of a message. Refuses one that claims more than [`MAX_VALUES`], or more of anything than there
/// are bytes. Whatever comes behind the message is not looked at.
pub fn measure(payload: &[u8]) -> Result<usize, FrameError> {
    let mut rest = payload;
    let (mut awaited, mut counted) = (1, 0);
    while awaited > 0 {
        let (marker, behind) = rest.split_first().ok_or(FrameError::Truncated)?;
        let (Extent { bytes, values }, behind) = extent(*marker, behind).ok_or(FrameError::Truncated)?;
        rest = behind.get(bytes..).ok_or(FrameError::Truncated)?;
        counted += 1;
        awaited += values;
        awaited -= 1;
        if counted + awaited > MAX_VALUES {
            return Err(FrameError::TooManyValues);
        }
        // Each takes one byte at least.
        if awaited > rest.len() {
            return Err(FrameError::Truncated);
        }
    }
    Ok(counted)
}

/// What follows a marker, and the bytes behind its length; nothing if they are not there.
fn extent(marker: u8, behind: &[u8]) -> Option<(Extent, &[u8])> {
    let of_bytes = |bytes| Extent { bytes, values: 0 };
    let of_values = |values| Extent { bytes: 0, values };
    let low = |bits: u8| usize::from(marker & bits);
    Some(match marker {
        0x80..=0x8f => (of_values(2 * low(0x0f)), behind),
        0x90..=0x9f => (of_values(low(0x0f)), behind),
        0xa0..=0xbf => (of_bytes(low(0x1f)), behind),
        // bin, and text.
        0xc4 | 0xd9 => length::<1>(behind).map(|(length, behind)| (of_bytes(length), behind))?,
        0xc5 | 0xda => length::<2>(behind).map(|(length, behind)| (of_bytes(length), behind))?,
        0xc6 | 0xdb => length::<4>(behind).map(|(length, behind)| (of_bytes(length), behind))?,
        // Extensions: their type, then their bytes.
        0xc7 => length::<1>(behind).map(|(length, behind)| (of_bytes(1 + length), behind))?,
        0xc8 => length::<2>(behind).map(|(length, behind)| (of_bytes(1 + length), behind))?,
        0xc9 => length::<4>(behind).map(|(length, behind)| (of_bytes(1 + length), behind))?,
        0xd4..=0xd8 => (of_bytes(1 + (1 << (marker - 0xd4))), behind),
        // Numbers.
        0xcc | 0xd0 => (of_bytes(1), behind),
        0xcd | 0xd1 => (of_bytes(2), behind),
        0xca | 0xce | 0xd2 => (of_bytes(4), behind),
        0xcb | 0xcf | 0xd3 => (of_bytes(8), behind),
        // Lists, and maps.
        0xdc => length::<2>(behind).map(|(length, behind)| (of_values(length), behind))?,
        0xdd => length::<4>(behind).map(|(length, behind)| (of_values(length), behind))?,
        0xde => length::<2>(behind).map(|(length, behind)| (of_values(2 * length), behind))?,
        0xdf => length::<4>(behind).map(|(length, behind)| (of_values(length.saturating_mul(2)), behind))?,
        // Small numbers, nil, false, true; and the one marker that means nothing, which the decoder refuses.
        _ => (of_bytes(0), behind),
    })
}

/// Reads a length of `N` bytes, big endian.
fn length<const N: usize>(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, behind) = bytes.split_first_chunk::<N>()?;
    Some((length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One of each marker with a length, as it is encoded with nothing left out.
    fn samples() -> Vec<Vec<u8>> {
        let filled = |head: &[u8], bytes: usize| [head, &vec![0; bytes]].concat();
        vec![
            filled(&[0x82], 4),
            filled(&[0x93], 3),
            filled(&[0xa5], 5),
            filled(&[0xbf], 31),
            filled(&[0xc4, 3], 3),
            filled(&[0xc5, 1, 0], 256),
            filled(&[0xc6, 0, 1, 0, 0], 65_536),
            filled(&[0xc7, 3], 4),
            filled(&[0xc8, 1, 0], 257),
            filled(&[0xc9, 0, 0, 1, 0], 257),
            filled(&[0xca], 4),
            filled(&[0xcb], 8),
            filled(&[0xcc], 1),
            filled(&[0xcd], 2),
            filled(&[0xce], 4),
            filled(&[0xcf], 8),
            filled(&[0xd0], 1),
            filled(&[0xd1], 2),
            filled(&[0xd2], 4),
            filled(&[0xd3], 8),
            filled(&[0xd4], 2),
            filled(&[0xd5], 3),
            filled(&[0xd6], 5),
            filled(&[0xd7], 9),
            filled(&[0xd8], 17),
            filled(&[0xd9, 3], 3),
            filled(&[0xda, 1, 0], 256),
            filled(&[0xdb, 0, 0, 1, 0], 256),
            filled(&[0xdc, 1, 0], 256),
            filled(&[0xdd, 0, 0, 1, 0], 256),
            filled(&[0xde, 1, 0], 512),
            filled(&[0xdf, 0, 0, 1, 0], 512),
            vec![0xc0],
            vec![0xc2],
            vec![0xc3],
            vec![0x7f],
            vec![0xe0],
        ]
    }

    #[test]
    fn a_value_has_the_bytes_that_it_says_and_not_one_less() {
        for sample in samples() {
            assert!(measure(&sample).is_ok(), "{:02x?}", &sample[..1]);
            let (_, shorter) = sample.split_last().unwrap();
            assert!(matches!(measure(shorter), Err(FrameError::Truncated)), "{:02x?}", &sample[..1]);
            let longer = [&sample[..], &[0xdd]].concat();
            assert!(measure(&longer).is_ok(), "what comes behind is not looked at");
        }
    }

    #[test]
    fn values_are_counted_wherever_they_are() {
        let list = |length: usize| {
            [&[0xdd][..], &u32::try_from(length).unwrap().to_be_bytes(), &vec![0xc0; length]].concat()
        };
        assert_eq!(measure(&list(MAX_VALUES - 1)).unwrap(), MAX_VALUES);
        assert!(matches!(measure(&list(MAX_VALUES)), Err(FrameError::TooManyValues)));
        let nested = [&[0x92][..], &list(MAX_VALUES / 2), &list(MAX_VALUES / 2)].concat();
        assert!(matches!(measure(&nested), Err(FrameError::TooManyValues)));
    }

    proptest! {
        /// Breaks if a length is read wrongly: a message of one's own would be refused.
        #[test]
        fn whatever_is_encoded_passes_and_no_part_of_it_does(
            value: (Vec<(u64, i32, Option<String>)>, f32, std::collections::BTreeMap<u8, Vec<u16>>, bool),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = rmp_serde::to_vec(&value).unwrap();
            prop_assert!(measure(&bytes).is_ok());
            prop_assert!(measure(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }
}
