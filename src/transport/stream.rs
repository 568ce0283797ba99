//! Streams of frames.

use std::time::Duration;

use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::connection_lost::ConnectionLost;
use crate::protocol::frame::{self, FrameError, LENGTH_BYTES, MAX_FRAME_BYTES};

/// Slower than this, in bytes per second, no frame is received under a deadline: who trickles a frame byte by
/// byte would hold its stream for ever.
const MIN_BYTES_PER_SECOND: usize = 16 << 10;

/// The sending half of a stream. Dropped, it ends the stream as [`Self::finish`] does.
#[derive(Debug)]
pub struct FrameSender {
    stream: SendStream,
    bytes: u64,
}

/// A frame that could not be sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The connection ended; connect again.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// The other side does not want the rest of this stream; what it has to say is on its own half.
    #[error("the other side stopped reading the stream (code {0})")]
    Stopped(u64),
    /// This half was finished or reset before; a fault of the caller.
    #[error("the stream is already finished")]
    Finished,
    /// A message that does not fit a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl FrameSender {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, bytes: 0 }
    }

    /// Sends a message as one frame; returns the bytes written. Waits while the other side reads too slowly.
    ///
    /// Not cancel-safe: dropped half-way, the stream holds a broken frame and can only be reset.
    pub async fn send<M: Serialize>(&mut self, message: &M) -> Result<usize, SendError> {
        self.send_encoded(frame::encode(message)?).await
    }

    /// Sends what [`frame::encode`] made, without copying it; otherwise as [`Self::send`].
    pub async fn send_encoded(&mut self, frame: impl Into<Bytes>) -> Result<usize, SendError> {
        let frame = frame.into();
        let length = frame.len();
        self.stream.write_chunk(frame).await.map_err(|error| match error {
            WriteError::ConnectionLost(error) => SendError::Lost(error.into()),
            WriteError::Stopped(code) => SendError::Stopped(code.into_inner()),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => SendError::Finished,
        })?;
        self.bytes += length as u64;
        Ok(length)
    }

    /// Nothing more will be sent: the other side gets `None` once it has read the rest.
    pub fn finish(&mut self) -> Result<(), SendError> {
        self.stream.finish().map_err(|_| SendError::Finished)
    }

    /// After [`Self::finish`]: waits until the other side's QUIC stack has everything, so that closing the
    /// connection loses nothing. Give it a deadline.
    pub async fn delivered(&mut self) -> Result<(), SendError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(SendError::Stopped(code.into_inner())),
            Err(StoppedError::ConnectionLost(error)) => Err(SendError::Lost(error.into())),
            Err(StoppedError::ZeroRttRejected) => Err(SendError::Finished),
        }
    }

    /// Gives the stream up: the other side gets [`ReceiveError::Reset`] with this code.
    pub fn reset(&mut self, code: u32) {
        // Fails only if the stream is over already.
        let _ = self.stream.reset(VarInt::from_u32(code));
    }

    /// Bytes of frames handed to the stream so far.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes
    }
}

/// The receiving half of a stream. Dropped, it tells the other side to stop sending.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: RecvStream,
    bytes: u64,
    limit: usize,
    partial: Partial,
}

/// What has arrived of the next frame. Kept between calls, so that a call can be cancelled.
#[derive(Debug, Default)]
struct Partial {
    prefix: [u8; LENGTH_BYTES],
    prefix_bytes: usize,
    /// Grows with what arrives, not with what the prefix claims: a claim costs its sender nothing.
    body: Vec<u8>,
}

/// A frame that did not arrive.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The connection ended; connect again.
    #[error(transparent)]
    Lost(#[from] ConnectionLost),
    /// The other side gave the stream up.
    #[error("the other side gave the stream up (code {0})")]
    Reset(u64),
    /// Bytes that are no frame, or no message. They cost their sender the connection.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other side stays silent, or sends slower than is acceptable.
    #[error("the other side sent too little for too long")]
    TooSlow,
    /// This half was stopped before; a fault of the caller.
    #[error("the stream is already stopped")]
    Stopped,
}

impl FrameReceiver {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, bytes: 0, limit: MAX_FRAME_BYTES, partial: Partial::default() }
    }

    /// Refuses frames of more than `max_bytes`, compressed or not, from now on: a stranger's first message
    /// needs little. Never above [`MAX_FRAME_BYTES`].
    pub fn limit_frames(&mut self, max_bytes: usize) {
        self.limit = max_bytes.min(MAX_FRAME_BYTES);
    }

    /// The next message, or `None` at the end of the stream. Waits as long as the connection lives.
    ///
    /// Cancel-safe: what has arrived of a frame is kept for the next call.
    pub async fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, ReceiveError> {
        self.receive(None).await
    }

    /// As [`Self::next`], but fails with [`ReceiveError::TooSlow`] when nothing arrives for `patience`, or
    /// when a frame takes longer than `patience` and a second for each [`MIN_BYTES_PER_SECOND`] of it.
    pub async fn next_within<M: DeserializeOwned>(
        &mut self,
        patience: Duration,
    ) -> Result<Option<M>, ReceiveError> {
        self.receive(Some(patience)).await
    }

    /// Reads no more: the other side's sender fails with [`SendError::Stopped`] and this code.
    pub fn stop(&mut self, code: u32) {
        // Fails only if the stream is over already.
        let _ = self.stream.stop(VarInt::from_u32(code));
    }

    /// Bytes of frames taken from the stream so far.
    pub fn bytes_received(&self) -> u64 {
        self.bytes
    }

    /// The memory that the frame under way holds.
    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.partial.body.capacity()
    }

    async fn receive<M: DeserializeOwned>(
        &mut self,
        patience: Option<Duration>,
    ) -> Result<Option<M>, ReceiveError> {
        let started = Instant::now();
        loop {
            let wanted = self.wanted()?;
            if wanted == 0 {
                let partial = std::mem::take(&mut self.partial);
                return Ok(Some(frame::decode_within(&partial.body, self.limit)?));
            }
            let chunk = match patience {
                None => self.read(wanted).await?,
                Some(patience) => {
                    let pace = Duration::from_secs((self.claimed() / MIN_BYTES_PER_SECOND) as u64);
                    let deadline = (Instant::now() + patience).min(started + patience + pace);
                    timeout_at(deadline, self.read(wanted)).await.map_err(|_| ReceiveError::TooSlow)??
                }
            };
            match chunk {
                Some(chunk) => self.partial.push(&chunk),
                None if self.partial.prefix_bytes == 0 => return Ok(None),
                None => return Err(FrameError::Truncated.into()),
            }
        }
    }

    /// How many bytes are missing: of the prefix first, then of the frame. Checks what the prefix claims.
    fn wanted(&self) -> Result<usize, ReceiveError> {
        if self.partial.prefix_bytes < LENGTH_BYTES {
            return Ok(LENGTH_BYTES - self.partial.prefix_bytes);
        }
        let length = frame::decode_length(self.partial.prefix)?;
        if length > self.limit {
            return Err(FrameError::TooLarge(length).into());
        }
        Ok(length - self.partial.body.len())
    }

    /// The length that the next frame claims; 0 before its prefix is here.
    fn claimed(&self) -> usize {
        if self.partial.prefix_bytes < LENGTH_BYTES {
            return 0;
        }
        frame::decode_length(self.partial.prefix).unwrap_or(0)
    }

    /// Some bytes, at most `wanted`; `None` at the end of the stream. Cancel-safe.
    async fn read(&mut self, wanted: usize) -> Result<Option<Bytes>, ReceiveError> {
        let chunk = self.stream.read_chunk(wanted, true).await.map_err(|error| match error {
            ReadError::ConnectionLost(error) => ReceiveError::Lost(error.into()),
            ReadError::Reset(code) => ReceiveError::Reset(code.into_inner()),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
                ReceiveError::Stopped
            }
        })?;
        Ok(chunk.map(|chunk| {
            self.bytes += chunk.bytes.len() as u64;
            chunk.bytes
        }))
    }
}

impl Partial {
    /// Takes bytes, at most as many as [`FrameReceiver::wanted`] said.
    fn push(&mut self, chunk: &[u8]) {
        if self.prefix_bytes < LENGTH_BYTES {
            let end = self.prefix_bytes + chunk.len();
            self.prefix[self.prefix_bytes..end].copy_from_slice(chunk);
            self.prefix_bytes = end;
        } else {
            self.body.extend_from_slice(chunk);
        }
    }
}
