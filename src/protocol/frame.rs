//! Framing: how messages lie in a stream.
//!
//! ```text
//! frame    = length:u32 (big endian, of what follows) encoding:u8 payload
//! encoding = 0: payload is MessagePack
//!            1: payload is decompressed size:u32 (big endian), then that MessagePack under zstd
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The largest frame that is read, in bytes, compressed or not: room for a row with a blob of 16 MB.
pub const MAX_FRAME_BYTES: usize = 17 << 20;

/// The bytes of a frame's length prefix.
pub const LENGTH_BYTES: usize = 4;

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
    /// A frame that is empty, or shorter than its encoding needs.
    #[error("a truncated frame")]
    Truncated,
    /// An encoding byte that this version does not know.
    #[error("frame encoding {0}, which this version does not know")]
    UnknownEncoding(u8),
    /// The zstd payload is damaged, or does not have the size that it claims.
    #[error("a damaged compressed frame: {0}")]
    Decompress(std::io::Error),
    /// The MessagePack payload is damaged, or is no message.
    #[error("not a message: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// A message that cannot be encoded; a fault of this library.
    #[error("cannot encode: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// Encodes a message as one frame, length prefix included.
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; LENGTH_BYTES + 1];
    rmp_serde::encode::write(&mut frame, message)?;
    let payload = frame.len() - LENGTH_BYTES - 1;
    if payload >= COMPRESS_FROM_BYTES {
        let packed = zstd::bulk::compress(&frame[LENGTH_BYTES + 1..], COMPRESSION_LEVEL)
            .map_err(FrameError::Decompress)?;
        if packed.len() + 4 < payload {
            frame.truncate(LENGTH_BYTES);
            frame.push(ZSTD);
            frame.extend_from_slice(
                &u32::try_from(payload).map_err(|_| FrameError::TooLarge(payload))?.to_be_bytes(),
            );
            frame.extend_from_slice(&packed);
        }
    }
    let length = frame.len() - LENGTH_BYTES;
    if payload > MAX_FRAME_BYTES || length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge(payload));
    }
    let prefix = u32::try_from(length).map_err(|_| FrameError::TooLarge(length))?;
    frame[..LENGTH_BYTES].copy_from_slice(&prefix.to_be_bytes());
    Ok(frame)
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
    match frame.split_first().ok_or(FrameError::Truncated)? {
        (&PLAIN, payload) => decode_payload(payload),
        (&ZSTD, rest) => {
            let (size, packed) = rest.split_first_chunk::<4>().ok_or(FrameError::Truncated)?;
            let size = u32::from_be_bytes(*size) as usize;
            if size > MAX_FRAME_BYTES {
                return Err(FrameError::TooLarge(size));
            }
            let payload = zstd::bulk::decompress(packed, size).map_err(FrameError::Decompress)?;
            if payload.len() != size {
                return Err(FrameError::Truncated);
            }
            decode_payload(&payload)
        }
        (&encoding, _) => Err(FrameError::UnknownEncoding(encoding)),
    }
}

/// Decodes MessagePack. Bytes behind the message are ignored, as are fields behind those that this version
/// knows: room for later versions.
pub fn decode_payload<M: DeserializeOwned>(payload: &[u8]) -> Result<M, FrameError> {
    Ok(rmp_serde::from_slice(payload)?)
}
