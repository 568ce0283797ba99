//! A batch whose body was read.

use super::frame;
use super::message::{Batch, BatchBody, Refusal, Refused};
use crate::model::{Digest, ReplicaId};

/// A batch, decoded and checked as far as it can be without the store. Opening one is most of the work that a hub has
/// with a batch before its store has it, so that it can be done somewhere else than where messages are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedBatch {
    /// The batch's number; never 0, and of 63 bits.
    pub n: u64,
    /// The digest of batch `n - 1`.
    pub previous: Digest,
    /// Its own digest.
    pub digest: Digest,
    /// What it holds. Every table and column that it names is in its headers.
    pub body: BatchBody,
    /// The bytes of the encoded body.
    pub bytes: usize,
}

impl OpenedBatch {
    /// Reads a batch of this replica.
    pub fn open(batch: &Batch, replica: ReplicaId) -> Result<Self, Refused> {
        let body: BatchBody = frame::decode_payload(&batch.body)
            .map_err(|error| Refused::new(Refusal::Protocol, format!("batch {}: {error}", batch.n)))?;
        if batch.n == 0 || i64::try_from(batch.n).is_err() || !body.is_consistent() {
            let message = format!(
                "batch {} names a table or a column that its headers do not, or too many collisions",
                batch.n
            );
            return Err(Refused::new(Refusal::Protocol, message));
        }
        let (digest, bytes) = (batch.digest(replica), batch.body.len());
        Ok(Self { n: batch.n, previous: batch.previous, digest, body, bytes })
    }
}
