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

/// The room that a frame gets before any of it is here, in bytes; doubled as it fills, so that a claim costs nothing.
const FIRST_ROOM_BYTES: usize = 4 << 10;

/// A frame of which this much is here, in bytes, gets room for the rest at once. So of frames that wait for room, none
/// holds much, and none that has its room waits.
const WHOLE_ROOM_FROM_BYTES: usize = 64 << 10;

/// Where the memory for frames that are incomplete comes from.
pub trait FrameMemory: Send {
    /// Waits until a frame may take `bytes` bytes in all; `false` if it may not.
    fn reserve(&mut self, bytes: usize) -> impl Future<Output = bool> + Send;
}

/// As much as there is: for whoever chose the other side itself, and for frames that are small in any case.
impl FrameMemory for () {
    async fn reserve(&mut self, _bytes: usize) -> bool {
        true
    }
}

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
    /// The bytes that `body` may have.
    room: usize,
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
    /// There is no memory for the frame, as its [`FrameMemory`] says.
    #[error("there is no memory for the frame")]
    NoMemory,
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
        let frame = self.receive(None, &mut ()).await?;
        self.decode(frame)
    }

    /// As [`Self::next`], but fails with [`ReceiveError::TooSlow`] when nothing arrives for `patience`, or
    /// when a frame takes longer than `patience` and a second for each [`MIN_BYTES_PER_SECOND`] of it.
    pub async fn next_within<M: DeserializeOwned>(
        &mut self,
        patience: Duration,
    ) -> Result<Option<M>, ReceiveError> {
        let frame = self.receive(Some(patience), &mut ()).await?;
        self.decode(frame)
    }

    /// Waits for the next frame to begin; `false` at the end of the stream. Fails with [`ReceiveError::TooSlow`] when its
    /// length is not here after `patience`.
    ///
    /// Cancel-safe.
    pub async fn begun_within(&mut self, patience: Duration) -> Result<bool, ReceiveError> {
        self.begin(Some(patience)).await
    }

    /// What follows the length of the next frame, not decoded; otherwise as [`Self::next_within`]. Each byte of it is
    /// reserved before it is read; while that waits nothing is read, and the sender is not blamed for it.
    ///
    /// Not cancel-safe, unless `memory` keeps what was reserved.
    pub async fn next_frame_within(
        &mut self,
        patience: Duration,
        memory: &mut impl FrameMemory,
    ) -> Result<Option<Vec<u8>>, ReceiveError> {
        self.receive(Some(patience), memory).await
    }

    fn decode<M: DeserializeOwned>(&self, frame: Option<Vec<u8>>) -> Result<Option<M>, ReceiveError> {
        Ok(frame.map(|frame| frame::decode_within(&frame, self.limit)).transpose()?)
    }

    /// The largest frame that is read, compressed or not, in bytes; see [`Self::limit_frames`].
    pub fn frame_limit(&self) -> usize {
        self.limit
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

    async fn receive(
        &mut self,
        patience: Option<Duration>,
        memory: &mut impl FrameMemory,
    ) -> Result<Option<Vec<u8>>, ReceiveError> {
        let mut started = Instant::now();
        if !self.begin(patience).await? {
            return Ok(None);
        }
        let length = self.claimed()?;
        let pace = Duration::from_secs((length / MIN_BYTES_PER_SECOND) as u64);
        while self.partial.body.len() < length {
            if self.partial.body.len() == self.partial.room {
                let room = self.partial.next_room(length);
                let asked = Instant::now();
                if !memory.reserve(room).await {
                    return Err(ReceiveError::NoMemory);
                }
                started += asked.elapsed();
                self.partial.room = room;
            }
            let wanted = self.partial.room - self.partial.body.len();
            let deadline =
                patience.map(|patience| (Instant::now() + patience).min(started + patience + pace));
            let chunk = self.read(wanted, deadline).await?.ok_or(FrameError::Truncated)?;
            self.partial.push(&chunk);
        }
        Ok(Some(std::mem::take(&mut self.partial).body))
    }

    /// Reads the length of the next frame; `false` at the end of the stream. Cancel-safe.
    async fn begin(&mut self, patience: Option<Duration>) -> Result<bool, ReceiveError> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        while self.partial.prefix_bytes < LENGTH_BYTES {
            let have = self.partial.prefix_bytes;
            let Some(chunk) = self.read(LENGTH_BYTES - have, deadline).await? else {
                return if have == 0 { Ok(false) } else { Err(FrameError::Truncated.into()) };
            };
            self.partial.prefix_bytes += chunk.len();
            self.partial.prefix[have..self.partial.prefix_bytes].copy_from_slice(&chunk);
        }
        Ok(true)
    }

    /// The length that the frame under way claims, if a frame may have it.
    fn claimed(&self) -> Result<usize, ReceiveError> {
        let length = frame::decode_length(self.partial.prefix)?;
        if length > self.limit { Err(FrameError::TooLarge(length).into()) } else { Ok(length) }
    }

    /// Some bytes, at most `wanted`; `None` at the end of the stream. Cancel-safe.
    async fn read(
        &mut self,
        wanted: usize,
        deadline: Option<Instant>,
    ) -> Result<Option<Bytes>, ReceiveError> {
        let chunk = self.stream.read_chunk(wanted, true);
        let chunk = match deadline {
            None => chunk.await,
            Some(deadline) => timeout_at(deadline, chunk).await.map_err(|_| ReceiveError::TooSlow)?,
        };
        let chunk = chunk.map_err(|error| match error {
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
    /// The room that the body is to have next, of what the frame claims.
    fn next_room(&self, claimed: usize) -> usize {
        if self.room >= WHOLE_ROOM_FROM_BYTES {
            claimed
        } else {
            claimed.min(FIRST_ROOM_BYTES.max(2 * self.room))
        }
    }

    /// Takes bytes of the body, at most as many as there is room for.
    fn push(&mut self, chunk: &[u8]) {
        // Doubled, as a vector does by itself, but never beyond the room.
        let length = self.body.len();
        if self.body.capacity() < length + chunk.len() {
            self.body.reserve_exact((2 * length).max(length + chunk.len()).min(self.room) - length);
        }
        self.body.extend_from_slice(chunk);
    }
}
