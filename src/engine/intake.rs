//! What comes in on a stream of an agent that was let in: each message with the memory that it takes, which is taken
//! before, and charged to its tenant.
//!
//! ```text
//! frame ─► size ─► charge ─► memory ─► decompress, count values ─► charge ─► memory ─► decode ─► the exchange
//! ```
//!
//! What is small is decoded where it arrives. The rest, and all that comes of a tenant beyond its rate, is decoded on
//! other threads, one message of each tenant at a time: nobody else's messages wait for it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::hub::Shared;
use super::hub_connection::AgentSession;
use super::hub_stream::StreamError;
use super::memory_budget::{FrameShare, Permit};
use super::tenants::LONGEST_WAIT;
use crate::model::ReplicaId;
use crate::protocol::extent::{decoded_bytes, measure};
use crate::protocol::frame::{FrameError, decode_payload, payload, payload_bytes};
use crate::protocol::message::{Batch, Refusal, Refused, ToHub};
use crate::protocol::opened_batch::OpenedBatch;
use crate::transport::{FrameReceiver, ReceiveError};

/// A message of up to so many bytes, decompressed, is decoded where it arrives.
const INLINE_BYTES: usize = 16 << 10;

/// A message of up to so many values takes no memory worth speaking of besides its bytes.
const FEW_VALUES: usize = 64;

/// What a value costs of a tenant's bytes per second. So a tenant that pushes rows of a few columns as fast as it may
/// by their number may so by their bytes.
const BYTES_CHARGED_PER_VALUE: u64 = 16;

/// When an agent whose tenant's messages wait for each other may ask again, in ms.
const RETRY_DECODING_MS: u32 = 2_000;

/// The threads of a hub that decode what is large: as many at once as half of the machine's processors.
#[derive(Debug)]
pub(super) struct Decoders(Arc<Semaphore>);

impl Default for Decoders {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new((processors / 2).max(1))))
    }
}

/// The receiving half of a stream.
pub(super) struct Intake {
    shared: Arc<Shared>,
    session: Arc<AgentSession>,
    receiver: FrameReceiver,
}

/// A message that has begun.
pub(super) type Hearing = Pin<Box<dyn Future<Output = (Intake, Result<Heard, StreamError>)> + Send>>;

/// What came.
pub(super) struct Heard {
    pub(super) what: What,
    /// The memory that it takes, to be kept until it is done with.
    pub(super) permit: Permit,
    /// How long the tenant's rate would have it wait, as of before this message was charged.
    pub(super) due: Result<Duration, Refused>,
}

/// What an agent said.
pub(super) enum What {
    /// Something.
    Message(ToHub),
    /// A batch, as far as it makes sense.
    Batch(Result<OpenedBatch, Refused>),
    /// Something for which there is no room now.
    NoRoom(Refused),
}

/// Why a message was not heard.
enum Unheard {
    Stream(StreamError),
    Refused(Refused),
}

impl From<Refused> for Unheard {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl<E: Into<ReceiveError>> From<E> for Unheard {
    fn from(error: E) -> Self {
        Self::Stream(StreamError::Receive(error.into()))
    }
}

/// A message of which the memory that it takes is known.
enum Measured {
    Message(ToHub, usize),
    /// A batch, with the values of its body.
    Batch(Batch, Result<usize, FrameError>),
    /// A payload, with its values.
    Payload(Vec<u8>, usize),
}

impl Measured {
    /// Decompresses a frame, and counts what it holds. Decodes it if that takes hardly more memory.
    fn of(frame: &[u8], max_bytes: usize) -> Result<Self, FrameError> {
        let payload = payload(frame, max_bytes)?;
        let values = measure(&payload)?;
        if values > FEW_VALUES {
            return Ok(Self::Payload(payload.into_owned(), values));
        }
        Ok(match decode_payload(&payload)? {
            ToHub::Batch(batch) => {
                let values = measure(&batch.body);
                Self::Batch(batch, values)
            }
            message => Self::Message(message, decoded_bytes(payload.len(), values)),
        })
    }
}

/// Where a message is decoded.
enum Place {
    Here,
    /// On another thread, with the tenant's only turn.
    Elsewhere(OwnedSemaphorePermit),
}

impl Intake {
    /// What an agent says in its session.
    pub(super) fn new(shared: Arc<Shared>, session: Arc<AgentSession>, receiver: FrameReceiver) -> Self {
        Self { shared, session, receiver }
    }

    /// The message that has begun. A batch is opened, for this replica.
    pub(super) async fn next(mut self, replica: Option<ReplicaId>) -> (Self, Result<Heard, StreamError>) {
        let before = self.receiver.bytes_received();
        let heard = match self.hear(replica).await {
            Ok(heard) => Ok(heard),
            Err(Unheard::Stream(error)) => Err(error),
            Err(Unheard::Refused(refused)) => Ok(Heard {
                what: What::NoRoom(refused),
                permit: self.session.memory.permit(),
                due: Ok(Duration::ZERO),
            }),
        };
        self.shared.counts.add_received(self.receiver.bytes_received() - before);
        (self, heard)
    }

    async fn hear(&mut self, replica: Option<ReplicaId>) -> Result<Heard, Unheard> {
        let mut permit = self.session.memory.permit();
        let mut share = FrameShare::new(&mut permit);
        let received = self.receiver.next_frame_within(self.shared.limits.frame(), &mut share).await;
        if let Some(refused) = share.refused {
            return Err(refused.into());
        }
        let frame = received?.ok_or(FrameError::Truncated)?;
        let max_bytes = self.receiver.frame_limit();
        let size = payload_bytes(&frame, max_bytes)?;
        let seat = &self.session.seat;
        let mut due = seat.due();
        let place = if size <= INLINE_BYTES && due == Ok(Duration::ZERO) {
            Place::Here
        } else {
            let turn = self.turn().await?;
            if size > INLINE_BYTES {
                let wait = seat.due().inspect_err(|refused| self.session.over_quota(refused))?;
                // A timer sleeps for a millisecond or more even if it is asked for none.
                if !wait.is_zero() {
                    sleep(wait).await;
                }
                due = Ok(Duration::ZERO);
            }
            Place::Elsewhere(turn)
        };
        seat.charge(0, frame.len().max(size) as u64);
        // The frame, what comes out of it, and what of that is a batch's body.
        permit.resize(frame.len() + 2 * size).await?;
        let open = move || Measured::of(&frame, max_bytes);
        let (measured, permit, place) = self.work(place, permit, open).await?;
        let (what, permit) = self.decode(measured?, permit, place, replica).await?;
        Ok(Heard { what, permit, due })
    }

    /// Decodes what was measured, once there is memory for it.
    async fn decode(
        &self,
        measured: Measured,
        mut permit: Permit,
        place: Place,
        replica: Option<ReplicaId>,
    ) -> Result<(What, Permit), Unheard> {
        let (what, mut permit, bytes) = match measured {
            Measured::Message(message, bytes) => (What::Message(message), permit, bytes),
            Measured::Batch(batch, values) => {
                let (Some(replica), Ok(values)) = (replica, values) else {
                    let bytes = batch.body.len();
                    // The exchange says why it is refused.
                    permit.resize(bytes).await?;
                    return Ok((What::Message(ToHub::Batch(batch)), permit));
                };
                let (encoded, decoded) = (batch.body.len(), decoded_bytes(batch.body.len(), values));
                self.charge_values(values);
                permit.resize(encoded + decoded).await?;
                let open = move || OpenedBatch::open(&batch, replica);
                let (opened, permit, _) = self.work(place, permit, open).await?;
                (What::Batch(opened), permit, decoded)
            }
            Measured::Payload(payload, values) => {
                let decoded = decoded_bytes(payload.len(), values);
                self.charge_values(values);
                permit.resize(payload.len() + decoded).await?;
                let decode = move || decode_payload::<ToHub>(&payload);
                let (message, permit, _) = self.work(place, permit, decode).await?;
                (What::Message(message?), permit, decoded)
            }
        };
        permit.resize(bytes).await?;
        Ok((what, permit))
    }

    fn charge_values(&self, values: usize) {
        self.session.seat.charge(0, BYTES_CHARGED_PER_VALUE * values as u64);
    }

    /// Does some work in its place. The memory that it takes, and its turn, are kept until it is done, whoever still
    /// waits for it.
    async fn work<T: Send + 'static>(
        &self,
        place: Place,
        permit: Permit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, Permit, Place), Unheard> {
        let Place::Elsewhere(turn) = place else { return Ok((work(), permit, Place::Here)) };
        let decoder = Arc::clone(&self.shared.decoders.0).acquire_owned().await.ok();
        let working = spawn_blocking(move || {
            let result = work();
            drop(decoder);
            (result, permit, Place::Elsewhere(turn))
        });
        working.await.map_err(|_| Refused::new(Refusal::Store, "the hub cannot read the message").into())
    }

    /// Waits for the tenant's turn to have something decoded elsewhere.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let turn = timeout(2 * LONGEST_WAIT, self.session.seat.decoding_turn()).await;
        turn.ok().flatten().ok_or_else(|| {
            let message = "this tenant's agents send more than the hub can read: sync less at once";
            let refused = Refused::new(Refusal::Quota, message).for_ms(RETRY_DECODING_MS);
            self.session.over_quota(&refused);
            refused
        })
    }
}

/// Waits for the next message to begin; `false` if there is none. Cancel-safe. Waits for ever while one is heard.
pub(super) async fn begun(intake: &mut Option<Intake>) -> Result<bool, StreamError> {
    match intake {
        Some(Intake { shared, receiver, .. }) => Ok(receiver.begun_within(shared.limits.frame()).await?),
        None => std::future::pending().await,
    }
}

/// The message that is being heard; never, if none is.
pub(super) async fn heard(hearing: &mut Option<Hearing>) -> (Intake, Result<Heard, StreamError>) {
    match hearing {
        Some(message) => {
            let heard = message.await;
            *hearing = None;
            heard
        }
        None => std::future::pending().await,
    }
}
