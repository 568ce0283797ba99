//! What comes from outside: no bytes make a decoder panic, and none make it take more memory than they are worth.

use federation_hub::protocol::extent::MAX_VALUES;
use federation_hub::protocol::frame::{
    FrameError, LENGTH_BYTES, MAX_FRAME_BYTES, decode, decode_payload, decode_within, encode,
};
use federation_hub::protocol::limits::MAX_HELLO_BYTES;
use federation_hub::protocol::message::{BatchBody, ToAgent, ToHub};
use federation_hub::storage::row_codec;
use federation_hub::storage::row_meta::RowMeta;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::allocations::peak_of;
use crate::arbitrary::{any_row_state, batch_body, to_agent, to_hub};

/// What a value may take besides its own bytes: the place in a list that has just grown.
const BYTES_PER_VALUE: usize = 64;

/// What an error, or a list of which nothing arrived, may take.
const SMALL: usize = 4 << 10;

/// Decodes a payload as everything that may arrive; says how much memory the dearest of these took.
fn dearest(payload: &[u8]) -> usize {
    let taken = [
        peak_of(|| drop(decode_payload::<ToHub>(payload))).1,
        peak_of(|| drop(decode_payload::<ToAgent>(payload))).1,
        peak_of(|| drop(decode_payload::<BatchBody>(payload))).1,
    ];
    taken.into_iter().max().unwrap_or(0)
}

/// What a payload may take: each of its bytes may be a value.
fn worth(payload: &[u8]) -> usize {
    SMALL + payload.len() + BYTES_PER_VALUE * payload.len().min(MAX_VALUES)
}

/// A valid message, damaged: bytes changed, taken out, put in, repeated; or a length that lies.
#[derive(Clone, Debug)]
enum Damage {
    Change(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    // A list, a text, bytes, a map of as many elements as can be said.
    let lie = prop::sample::select(vec![0xdd, 0xdb, 0xc6, 0xdf, 0xc9]).prop_flat_map(|marker| {
        vec(prop_oneof![Just(0xff), Just(0), any::<u8>()], 4)
            .prop_map(move |length| [&[marker][..], &length].concat())
    });
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Change(at, to)),
        (any::<Index>(), 1_usize..20).prop_map(|(at, bytes)| Damage::Remove(at, bytes)),
        (any::<Index>(), prop_oneof![vec(any::<u8>(), 1..8), lie])
            .prop_map(|(at, new)| Damage::Insert(at, new)),
        (any::<Index>(), 1_usize..40).prop_map(|(at, bytes)| Damage::Repeat(at, bytes)),
        any::<Index>().prop_map(Damage::Cut),
    ]
}

fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = bytes.len();
        if length == 0 {
            break;
        }
        match damage {
            Damage::Change(at, to) => bytes[at.index(length)] = *to,
            Damage::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..length.min(at + count));
            }
            Damage::Insert(at, new) => {
                let at = at.index(length);
                bytes.splice(at..at, new.iter().copied());
            }
            Damage::Repeat(at, count) => {
                let at = at.index(length);
                let again = bytes[at..length.min(at + count)].to_vec();
                bytes.splice(at..at, again);
            }
            Damage::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let of = |bytes: Result<Vec<u8>, rmp_serde::encode::Error>| bytes.unwrap();
    prop_oneof![
        to_hub().prop_map(move |it| of(rmp_serde::to_vec(&it))),
        to_agent().prop_map(move |it| of(rmp_serde::to_vec(&it))),
        batch_body().prop_map(move |it| of(rmp_serde::to_vec(&it))),
    ]
}

proptest! {
    #[test]
    fn a_message_takes_what_it_is_worth(payload in message()) {
        prop_assert!(dearest(&payload) <= worth(&payload));
    }

    #[test]
    fn a_damaged_message_takes_no_more_than_its_bytes_are_worth(
        payload in message(),
        damages in vec(damage(), 1..5),
    ) {
        let payload = damaged(payload, &damages);
        prop_assert!(dearest(&payload) <= worth(&payload), "{payload:02x?}");
    }

    #[test]
    fn no_bytes_take_more_than_they_are_worth(payload in vec(any::<u8>(), 0..300)) {
        prop_assert!(dearest(&payload) <= worth(&payload), "{payload:02x?}");
    }

    /// The same of whole frames, compressed ones among them.
    #[test]
    fn a_damaged_frame_takes_no_more_than_it_claims(message in to_hub(), damages in vec(damage(), 0..5)) {
        let frame = encode(&message).unwrap();
        let frame = damaged(frame[LENGTH_BYTES..].to_vec(), &damages);
        let claims = match &frame[..] {
            [1, size @ ..] if size.len() >= 4 => {
                u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize
            }
            _ => frame.len(),
        };
        let ((), peak) = peak_of(|| drop(decode::<ToHub>(&frame)));
        let values = if claims > MAX_FRAME_BYTES { 0 } else { claims.min(MAX_VALUES) };
        let bytes = if claims > MAX_FRAME_BYTES { 0 } else { 2 * claims };
        prop_assert!(peak <= SMALL + bytes + BYTES_PER_VALUE * values);
        // A stranger's first message, whatever it claims.
        let ((), peak) = peak_of(|| drop(decode_within::<ToHub>(&frame, MAX_HELLO_BYTES)));
        prop_assert!(peak <= SMALL + (2 + BYTES_PER_VALUE) * MAX_HELLO_BYTES);
    }

    /// What a disk gives back may be damaged too.
    #[test]
    fn no_stored_bytes_make_a_reader_panic(
        state in any_row_state(),
        damages in vec(damage(), 0..5),
        noise in vec(any::<u8>(), 0..60),
    ) {
        let stored = damaged(row_codec::encode(&state).unwrap(), &damages);
        for bytes in [&stored, &noise] {
            let _ = row_codec::decode(bytes);
            let _ = RowMeta::decode(bytes);
        }
    }
}

/// A list of 17 million empty texts fits in a frame of 1 kB, and would be half a gigabyte in memory.
#[test]
fn what_grows_in_memory_is_refused_before_it_does() {
    let fill = MAX_FRAME_BYTES - 100;
    let texts = |head: &[u8]| {
        let length = u32::try_from(fill).unwrap().to_be_bytes();
        [head, &[0xdd], &length, &vec![0xa0; fill]].concat()
    };
    // Sync: five fields, then no definitions, and then the names of tables to refresh.
    let sync = [&b"\x81\xa4Sync\x97\xc4\x10"[..], &[0; 16], &[1, 0, 0, 0, 0x90]].concat();
    for (payload, name) in [
        (texts(&sync), "tables to refresh"),
        (texts(b"\x81\xa3Ack\x95\x01\x00\x90"), "notices"),
        (texts(b"\x81\xa4Rows\x92\x91\x92\xa1t"), "columns"),
        (texts(b"\x92"), "tables of a batch"),
    ] {
        let (outcome, peak) = peak_of(|| decode_payload::<ToHub>(&payload).map(drop));
        assert!(matches!(outcome, Err(FrameError::TooManyValues)), "{name}: {outcome:?}");
        assert!(peak < SMALL, "{name}: {peak} bytes");
        assert!(dearest(&payload) < SMALL, "{name}");
        let mut frame = vec![1];
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend(zstd::bulk::compress(&payload, 1).unwrap());
        assert!(frame.len() < 10_000, "it is {} bytes on the wire", frame.len());
        let (outcome, peak) = peak_of(|| decode::<ToHub>(&frame).map(drop));
        assert!(matches!(outcome, Err(FrameError::TooManyValues)), "{name}: {outcome:?}");
        assert!(peak < MAX_FRAME_BYTES + SMALL, "{name}: {peak} bytes");
    }
}

/// Just below the limit: the most that one message can take.
#[test]
fn the_greatest_of_all_messages_takes_a_bounded_amount() {
    let count = MAX_VALUES - 20;
    let length = u32::try_from(count).unwrap().to_be_bytes();
    let head = [&b"\x81\xa4Sync\x97\xc4\x10"[..], &[0; 16], &[1, 0, 0, 0, 0x90, 0xdd]].concat();
    let payload = [&head[..], &length, &vec![0xa0; count]].concat();
    let (outcome, peak) = peak_of(|| decode_payload::<ToHub>(&payload).is_ok());
    assert!(outcome, "it is a message");
    assert!(peak <= BYTES_PER_VALUE * MAX_VALUES, "{peak}");
}
