//! Framing: how messages lie in a stream.
//!
//! ```text
//! frame    = length:u32 (big endian, of what follows) encoding:u8 payload
//! encoding = 0: payload is MessagePack
//!            1: payload is decompressed size:u32 (big endian), then that MessagePack under zstd
//! ```

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::extent::{self, MAX_VALUES};

/// The largest frame that is read, in bytes, compressed or not: room for a row with a blob of 16 MB.
pub const MAX_FRAME_BYTES: usize = 17 << 20;

/// The bytes of a frame's length prefix.
pub const LENGTH_BYTES: usize = 4;

/// The bytes in front of a plain payload: the length prefix, and the encoding.
const HEADER_BYTES: usize = LENGTH_BYTES + 1;

/// The bytes of a compressed payload's size.
const SIZE_BYTES: usize = 4;

/// Below this a frame is sent as it is: compressing it would cost more than it saves.
const COMPRESS_FROM_BYTES: usize = 4096;

/// zstd's fastest regular level: it keeps up with a local network.
const COMPRESSION_LEVEL: i32 = 1;

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Bytes that are no message of this protocol. They cost their sender the connection.
#[derive(Debug, Error)]
pub enum FrameError {
    /// A length beyond [`MAX_FRAME_BYTES`], checked before anything is allocated (I17).
    #[error("a frame of {0} bytes exceeds the limit of {MAX_FRAME_BYTES}")]
    TooLarge(usize),
    /// A frame that is empty, or shorter than it says or its encoding needs.
    #[error("a truncated frame")]
    Truncated,
    /// An encoding byte that this version does not know.
    #[error("frame encoding {0}, which this version does not know")]
    UnknownEncoding(u8),
    /// The zstd payload is damaged, or does not have the size that it claims.
    #[error("a damaged compressed frame: {0}")]
    Decompress(std::io::Error),
    /// A payload that cannot be compressed; a fault of this library.
    #[error("cannot compress: {0}")]
    Compress(std::io::Error),
    /// More values in one message than [`MAX_VALUES`], counted before anything is
    /// allocated (I17).
    #[error("a message of more than {MAX_VALUES} values")]
    TooManyValues,
    /// The MessagePack payload is damaged, or is no message.
    #[error("not a message: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A message that cannot be encoded; a fault of this library.
    #[error("cannot encode: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// Encodes a message as one frame, length prefix included.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; LENGTH_BYTES];
    frame.push(PLAIN);
    rmp_serde::encode::write(&mut frame, message)?;
    // A payload beyond the limit is refused however well it would compress: so does its reader.
    let payload = frame.len() - HEADER_BYTES;
    check_length(payload)?;
    if payload >= COMPRESS_FROM_BYTES {
        let packed =
            zstd::bulk::compress(&frame[HEADER_BYTES..], COMPRESSION_LEVEL).map_err(FrameError::Compress)?;
        if packed.len() + SIZE_BYTES < payload {
            frame.truncate(LENGTH_BYTES);
            frame.push(ZSTD);
            frame.extend_from_slice(&check_length(payload)?.to_be_bytes());
            frame.extend_from_slice(&packed);
        }
    }
    let prefix = check_length(frame.len() - LENGTH_BYTES)?;
    frame[..LENGTH_BYTES].copy_from_slice(&prefix.to_be_bytes());
    Ok(frame)
}

/// A length as it is written, if a frame can have it.
fn check_length(length: usize) -> Result<u32, FrameError> {
    match u32::try_from(length) {
        Ok(written) if length <= MAX_FRAME_BYTES => Ok(written),
        _ => Err(FrameError::TooLarge(length)),
    }
}

/// Reads a length prefix; refuses it before anything of that size is allocated.
pub fn decode_length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix) as usize;
    match length {
        0 => Err(FrameError::Truncated),
        1..=MAX_FRAME_BYTES => Ok(length),
        _ => Err(FrameError::TooLarge(length)),
    }
}

/// Decodes what follows a length prefix.
pub fn decode<M: DeserializeOwned>(frame: &[u8]) -> Result<M, FrameError> {
    decode_within(frame, MAX_FRAME_BYTES)
}

/// As [`decode`], but refuses a payload of more than `max_bytes`, decompressed: a few hundred bytes
/// can become [`MAX_FRAME_BYTES`], which a stranger's first message must not.
pub fn decode_within<M: DeserializeOwned>(frame: &[u8], max_bytes: usize) -> Result<M, FrameError> {
    decode_payload(&payload(frame, max_bytes)?)
}

/// The bytes of a frame's payload, decompressed, as the frame says; not more than `max_bytes`. Takes no memory.
pub fn payload_bytes(frame: &[u8], max_bytes: usize) -> Result<usize, FrameError> {
    let size = match frame.split_first().ok_or(FrameError::Truncated)? {
        (&PLAIN, payload) => payload.len(),
        (&ZSTD, rest) => {
            let (size, _) = rest.split_first_chunk::<SIZE_BYTES>().ok_or(FrameError::Truncated)?;
            u32::from_be_bytes(*size) as usize
        }
        (&encoding, _) => return Err(FrameError::UnknownEncoding(encoding)),
    };
    if size > max_bytes.min(MAX_FRAME_BYTES) { Err(FrameError::TooLarge(size)) } else { Ok(size) }
}

/// A frame's payload, decompressed, of exactly [`payload_bytes`].
pub fn payload(frame: &[u8], max_bytes: usize) -> Result<Cow<'_, [u8]>, FrameError> {
    let size = payload_bytes(frame, max_bytes)?;
    match frame {
        [ZSTD, rest @ ..] => {
            let packed = rest.get(SIZE_BYTES..).ok_or(FrameError::Truncated)?;
            let payload = zstd::bulk::decompress(packed, size).map_err(FrameError::Decompress)?;
            if payload.len() == size { Ok(payload.into()) } else { Err(FrameError::Truncated) }
        }
        [_, payload @ ..] => Ok(payload.into()),
        [] => Err(FrameError::Truncated),
    }
}

/// Decodes MessagePack. Bytes behind the message are ignored: room for later versions. Within a message there
/// is none, since a struct is an array of exactly its fields; another field takes another ALPN name.
pub fn decode_payload<M: DeserializeOwned>(payload: &[u8]) -> Result<M, FrameError> {
    extent::measure(payload)?;
    Ok(rmp_serde::from_slice(payload)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::message::{Batch, ToAgent, ToHub};

    fn batch(body: Vec<u8>) -> ToHub {
        ToHub::Batch(Batch { n: 1, previous: crate::model::Digest::ZERO, body })
    }

    /// What a receiver does with a stream's bytes.
    fn receive(frame: &[u8]) -> Result<ToHub, FrameError> {
        let (prefix, rest) = frame.split_first_chunk().ok_or(FrameError::Truncated)?;
        assert_eq!(decode_length(*prefix)?, rest.len());
        decode(rest)
    }

    fn compressed(claim: usize, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![ZSTD];
        frame.extend_from_slice(&u32::try_from(claim).unwrap().to_be_bytes());
        frame.extend(zstd::bulk::compress(payload, COMPRESSION_LEVEL).unwrap());
        frame
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn small_frames_are_plain_large_ones_compressed_unless_that_is_in_vain() {
        for (body, encoding) in [
            (vec![], PLAIN),
            (vec![0; COMPRESS_FROM_BYTES / 2], PLAIN),
            (vec![0; COMPRESS_FROM_BYTES], ZSTD),
            (noise(COMPRESS_FROM_BYTES), PLAIN),
            (noise(1 << 20), PLAIN),
            (vec![7; 16 << 20], ZSTD),
        ] {
            let message = batch(body);
            let frame = encode(&message).unwrap();
            assert_eq!(frame[LENGTH_BYTES], encoding);
            assert_eq!(receive(&frame).unwrap(), message);
        }
    }

    #[test]
    fn a_message_beyond_the_limit_is_refused_by_its_sender_and_its_reader() {
        let too_large = batch(vec![0; MAX_FRAME_BYTES]);
        assert!(matches!(encode(&too_large), Err(FrameError::TooLarge(_))));
        let largest = rmp_serde::to_vec(&batch(vec![])).unwrap().len() + 4 + 2;
        assert!(receive(&encode(&batch(noise(MAX_FRAME_BYTES - largest))).unwrap()).is_ok());
        let prefix = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
        assert!(matches!(decode_length(prefix(MAX_FRAME_BYTES)), Ok(MAX_FRAME_BYTES)));
        assert!(matches!(decode_length(prefix(MAX_FRAME_BYTES + 1)), Err(FrameError::TooLarge(_))));
        assert!(matches!(decode_length([0xff; 4]), Err(FrameError::TooLarge(_))));
        assert!(matches!(decode_length([0; 4]), Err(FrameError::Truncated)));
    }

    #[test]
    fn a_decompression_bomb_is_refused_whatever_it_claims() {
        let bomb = vec![0; MAX_FRAME_BYTES + 1];
        let honest = compressed(bomb.len(), &bomb);
        assert!(honest.len() < 10_000, "a bomb is small: {} bytes", honest.len());
        assert!(matches!(decode::<ToHub>(&honest), Err(FrameError::TooLarge(_))));
        for claim in [0, 1, MAX_FRAME_BYTES] {
            let error = decode::<ToHub>(&compressed(claim, &bomb)).unwrap_err();
            assert!(matches!(error, FrameError::Decompress(_)), "{error}");
        }
        // One that does not even say in its zstd header how much it holds.
        let mut streamed = zstd::stream::encode_all(&bomb[..], COMPRESSION_LEVEL).unwrap();
        streamed.splice(0..0, [ZSTD, 0, 0, 0, 10]);
        assert!(matches!(decode::<ToHub>(&streamed), Err(FrameError::Decompress(_))));
    }

    #[test]
    fn a_compressed_frame_holds_exactly_what_it_claims() {
        let payload = rmp_serde::to_vec(&batch(vec![1; 5000])).unwrap();
        assert!(decode::<ToHub>(&compressed(payload.len(), &payload)).is_ok());
        let more = decode::<ToHub>(&compressed(payload.len() + 1, &payload)).unwrap_err();
        assert!(matches!(more, FrameError::Truncated), "{more}");
        let fewer = decode::<ToHub>(&compressed(payload.len() - 1, &payload)).unwrap_err();
        assert!(matches!(fewer, FrameError::Decompress(_)), "{fewer}");
        assert!(matches!(decode::<ToHub>(&[ZSTD, 0, 0, 1]), Err(FrameError::Truncated)));
    }

    #[test]
    fn a_reader_can_set_a_lower_limit() {
        let message = batch(vec![0; 8192]);
        let frame = encode(&message).unwrap();
        assert!(frame.len() < 4096);
        let error = decode_within::<ToHub>(&frame[LENGTH_BYTES..], 4096).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge(_)), "{error}");
        let plain = encode(&batch(vec![0; 1000])).unwrap();
        assert!(decode_within::<ToHub>(&plain[LENGTH_BYTES..], 4096).is_ok());
        assert!(decode_within::<ToHub>(&plain[LENGTH_BYTES..], 1000).is_err());
    }

    #[test]
    fn a_frame_says_how_large_its_payload_is_before_it_is_decompressed() {
        let payload = vec![7; 9_000];
        let (plain, packed) = ([&[PLAIN][..], &payload].concat(), compressed(9_000, &payload));
        for frame in [&plain, &packed] {
            assert_eq!(payload_bytes(frame, 9_000).unwrap(), 9_000);
            assert_eq!(super::payload(frame, 9_000).unwrap(), payload);
            assert!(matches!(payload_bytes(frame, 8_999), Err(FrameError::TooLarge(9_000))));
        }
        assert!(matches!(
            payload_bytes(&compressed(MAX_FRAME_BYTES + 1, &[]), usize::MAX),
            Err(FrameError::TooLarge(_))
        ));
        assert!(matches!(payload_bytes(&[ZSTD, 0, 0, 1], 9), Err(FrameError::Truncated)));
        assert!(matches!(payload_bytes(&[], 9), Err(FrameError::Truncated)));
        assert!(matches!(payload_bytes(&[9, 0], 9), Err(FrameError::UnknownEncoding(9))));
    }

    #[test]
    fn what_is_no_message_of_this_version_is_refused() {
        assert!(matches!(decode::<ToHub>(&[]), Err(FrameError::Truncated)));
        assert!(matches!(decode::<ToHub>(&[2, 0xc0]), Err(FrameError::UnknownEncoding(2))));
        let unknown = rmp_serde::to_vec(&("Unknown", 1)).unwrap();
        assert!(matches!(decode_payload::<ToHub>(&unknown), Err(FrameError::Decode(_))));
        let a_field_more = rmp_serde::to_vec(&(1_u64, crate::model::Digest::ZERO, &[0_u8][..], 7)).unwrap();
        assert!(matches!(decode_payload::<Batch>(&a_field_more), Err(FrameError::Decode(_))));
    }

    #[test]
    fn bytes_behind_a_message_are_room_for_later_versions() {
        let mut payload = rmp_serde::to_vec(&ToHub::End).unwrap();
        payload.extend_from_slice(b"later");
        assert_eq!(decode_payload::<ToHub>(&payload).unwrap(), ToHub::End);
    }

    #[test]
    fn claimed_lengths_inside_a_message_allocate_nothing() {
        // A batch whose body, and rows whose number, are 4 GB by their own account.
        let body =
            [&b"\x81\xa5Batch\x93\x01\xc4\x20"[..], &[0; 32], &[0xc6, 0xff, 0xff, 0xff, 0xff]].concat();
        assert!(matches!(decode_payload::<ToHub>(&body), Err(FrameError::Truncated)));
        let rows = b"\x81\xa4Rows\x92\xdd\x00\x00\x01\x00";
        assert!(matches!(decode_payload::<ToAgent>(rows), Err(FrameError::Truncated)));
    }

    #[test]
    fn nesting_is_bounded() {
        let mut payload = b"\x81\xa4Rows".to_vec();
        payload.resize(1 << 20, 0x91);
        payload.push(0xc0);
        assert!(matches!(decode_payload::<ToAgent>(&payload), Err(FrameError::Decode(_))));
    }

    proptest! {
        #[test]
        fn round_trip(n: u64, body in prop::collection::vec(any::<u8>(), 0..10_000), repeat in 1_usize..20) {
            let message =
                ToHub::Batch(Batch { n, previous: crate::model::Digest([3; 32]), body: body.repeat(repeat) });
            prop_assert_eq!(receive(&encode(&message).unwrap()).unwrap(), message);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for encoding in [PLAIN, ZSTD, bytes.first().copied().unwrap_or(9)] {
                let frame = [&[encoding][..], &bytes].concat();
                let _ = decode::<ToHub>(&frame);
                let _ = decode::<ToAgent>(&frame);
            }
            let _ = decode::<ToHub>(&compressed(bytes.len(), &bytes));
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0_usize..5000, flip in 1_u8..=255) {
            for body in [vec![b'x'; 5000], noise(100)] {
                let mut frame = encode(&batch(body)).unwrap();
                let at = LENGTH_BYTES + at % (frame.len() - LENGTH_BYTES);
                frame[at] ^= flip;
                let _ = receive(&frame);
            }
        }
    }
}
