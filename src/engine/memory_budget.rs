//! The memory that a hub spends on what agents send: frames that are not complete, messages while they are decoded, and
//! requests until the store has answered them.
//!
//! It is taken before it is used, from three budgets: the connection's, the tenant's and the hub's. Whoever finds none waits for
//! a while, and reads nothing more meanwhile; then it is refused.

mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use self::ledger::Ledger;
use super::tenants::LONGEST_WAIT;
use crate::protocol::extent::{BYTES_PER_VALUE, MAX_VALUES};
use crate::protocol::frame::MAX_FRAME_BYTES;
use crate::protocol::message::{Refusal, Refused};
use crate::transport::FrameMemory;

/// What the dearest message takes while it is decoded, in bytes: its bytes twice, and its values.
const DEAREST_MESSAGE: usize = MAX_FRAME_BYTES + (MAX_FRAME_BYTES + MAX_VALUES * BYTES_PER_VALUE);

/// The least that a hub's messages need, in bytes: a tenant may hold half of it, and any message has to fit.
pub const LEAST_MEMORY_BYTES: u64 = 2 * DEAREST_MESSAGE as u64;

/// In what the budgets of connections are counted, in bytes.
const UNIT: u64 = 1 << 10;

/// When an agent for which there was no memory may ask again, in ms.
const RETRY_MS: u32 = 1_000;

/// A hub's memory for messages.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    total: u64,
    /// How long somebody waits for some.
    patience: Duration,
    ledger: Mutex<Ledger<oneshot::Sender<()>>>,
}

/// A connection's part in it.
#[derive(Debug)]
pub(super) struct ConnectionMemory {
    budget: Arc<MemoryBudget>,
    tenant: String,
    /// Three quarters of what its tenant may hold, in units.
    own: Arc<Semaphore>,
}

/// Memory that is taken. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Permit {
    memory: Arc<ConnectionMemory>,
    bytes: u64,
    own: Option<OwnedSemaphorePermit>,
}

/// Memory for a frame that arrives.
pub(super) struct FrameShare<'a> {
    permit: &'a mut Permit,
    /// Why there was none.
    pub(super) refused: Option<Refused>,
}

/// Somebody who waits. Dropped before it is served, it waits no more, and gives back what it has just got.
struct Waiting<'a> {
    memory: &'a ConnectionMemory,
    bytes: u64,
    number: u64,
    is_served: bool,
}

impl MemoryBudget {
    /// So many bytes, and never less than [`LEAST_MEMORY_BYTES`].
    pub(super) fn new(bytes: u64) -> Arc<Self> {
        Self::with_patience(bytes, LONGEST_WAIT)
    }

    fn with_patience(bytes: u64, patience: Duration) -> Arc<Self> {
        let total = bytes.max(LEAST_MEMORY_BYTES);
        Arc::new(Self { total, patience, ledger: Mutex::new(Ledger::new(total)) })
    }

    /// The bytes that are taken.
    pub(super) fn held(&self) -> u64 {
        self.ledger().held()
    }

    /// The most that was ever taken.
    pub(super) fn peak(&self) -> u64 {
        self.ledger().peak()
    }

    /// The part of another connection of a tenant's.
    pub(super) fn connection(self: &Arc<Self>, tenant: &str) -> Arc<ConnectionMemory> {
        let units = usize::try_from(self.total / 2 / 4 * 3 / UNIT).unwrap_or(usize::MAX);
        let own = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        Arc::new(ConnectionMemory { budget: Arc::clone(self), tenant: tenant.to_owned(), own })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger<oneshot::Sender<()>>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells those who were served.
fn tell(served: Vec<oneshot::Sender<()>>) {
    for waiter in served {
        // Who has just given up gives back by itself what it got.
        let _ = waiter.send(());
    }
}

impl ConnectionMemory {
    /// Memory to be taken for one message; none yet.
    pub(super) fn permit(self: &Arc<Self>) -> Permit {
        Permit { memory: Arc::clone(self), bytes: 0, own: None }
    }

    /// Waits until the tenant may hold so many bytes more, and takes them.
    async fn take(&self, bytes: u64) {
        let (waiter, served) = oneshot::channel();
        let mut waiting = {
            let mut ledger = self.budget.ledger();
            if ledger.try_take(&self.tenant, bytes) {
                return;
            }
            let number = ledger.wait(&self.tenant, bytes, waiter);
            Waiting { memory: self, bytes, number, is_served: false }
        };
        // The ledger drops no waiter that is still in it.
        waiting.is_served = served.await.is_ok();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_served {
            let ConnectionMemory { budget, tenant, .. } = self.memory;
            let served = budget.ledger().abandon(tenant, self.bytes, self.number);
            tell(served);
        }
    }
}

impl Permit {
    /// Has the permit be for so many bytes: gives back what is too much, or waits for what is missing. A refusal leaves it
    /// as it was.
    pub(super) async fn resize(&mut self, bytes: usize) -> Result<(), Refused> {
        let bytes = bytes as u64;
        if bytes > self.bytes {
            return timeout(self.memory.budget.patience, self.grow(bytes)).await.map_err(|_| self.refusal());
        }
        let excess = self.units().saturating_sub(units(bytes));
        if let Some(own) = &mut self.own {
            drop(own.split(excess as usize));
        }
        self.give_back(self.bytes - bytes);
        self.bytes = bytes;
        Ok(())
    }

    async fn grow(&mut self, bytes: u64) {
        let missing = units(bytes).saturating_sub(self.units());
        let own = Arc::clone(&self.memory.own).acquire_many_owned(missing).await;
        self.memory.take(bytes - self.bytes).await;
        self.bytes = bytes;
        // A semaphore that nobody closes fails never.
        if let Ok(more) = own {
            match &mut self.own {
                Some(own) => own.merge(more),
                None => self.own = Some(more),
            }
        }
    }

    fn units(&self) -> u32 {
        self.own.as_ref().map_or(0, |own| u32::try_from(own.num_permits()).unwrap_or(u32::MAX))
    }

    fn give_back(&self, bytes: u64) {
        if bytes > 0 {
            let ConnectionMemory { budget, tenant, .. } = &*self.memory;
            let served = budget.ledger().give_back(tenant, bytes);
            tell(served);
        }
    }

    /// Why there is none: for the tenant's own messages, or those of all.
    fn refusal(&self) -> Refused {
        let ConnectionMemory { budget, tenant, .. } = &*self.memory;
        let refused = if budget.ledger().held_by(tenant) > self.bytes {
            let message = "the messages of this tenant's agents that wait for the hub take as much of its memory as they \
                           may (maxMemoryBytes): sync less at once, or have the hub's operator raise the limit";
            Refused::new(Refusal::Quota, message)
        } else {
            let message = "the messages that wait for this hub take as much of its memory as they may \
                           (maxMemoryBytes): try again later, or have the hub's operator raise the limit";
            Refused::new(Refusal::Busy, message)
        };
        refused.for_ms(RETRY_MS)
    }
}

/// Bytes in units, rounded up. Nothing that is taken at once has more than a gigabyte.
fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

impl<'a> FrameShare<'a> {
    /// Takes memory by this permit.
    pub(super) fn new(permit: &'a mut Permit) -> Self {
        Self { permit, refused: None }
    }
}

impl FrameMemory for FrameShare<'_> {
    async fn reserve(&mut self, bytes: usize) -> bool {
        self.refused = self.permit.resize(bytes).await.err();
        self.refused.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::extent::decoded_bytes;

    const MIB: usize = 1 << 20;

    fn impatient() -> Arc<MemoryBudget> {
        MemoryBudget::with_patience(LEAST_MEMORY_BYTES, Duration::from_millis(5))
    }

    #[test]
    fn any_message_fits_a_connection_of_a_tenant_that_is_alone() {
        assert_eq!(DEAREST_MESSAGE, MAX_FRAME_BYTES + decoded_bytes(MAX_FRAME_BYTES, MAX_VALUES));
    }

    #[tokio::test]
    async fn what_is_held_is_given_back_when_it_shrinks_and_when_it_is_dropped() {
        let budget = MemoryBudget::new(LEAST_MEMORY_BYTES);
        let memory = budget.connection("acme");
        let mut permit = memory.permit();
        permit.resize(10 * MIB).await.unwrap();
        permit.resize(MIB).await.unwrap();
        assert_eq!((budget.held(), budget.peak()), (MIB as u64, 10 * MIB as u64));
        permit.resize(2 * MIB).await.unwrap();
        drop(permit);
        assert_eq!(budget.held(), 0);
        assert_eq!(memory.own.available_permits() as u64 * UNIT, LEAST_MEMORY_BYTES / 8 * 3);
    }

    #[tokio::test]
    async fn who_finds_none_waits_and_is_refused_with_the_right_reason() {
        let budget = impatient();
        let half = usize::try_from(LEAST_MEMORY_BYTES / 2).unwrap();
        let (one, two) = (budget.connection("acme"), budget.connection("acme"));
        let mut first = one.permit();
        first.resize(half / 4 * 3).await.unwrap();
        let mut sibling = one.permit();
        let refused = sibling.resize(MIB).await.unwrap_err();
        assert_eq!(refused.reason, Refusal::Quota, "the connection has its share");
        let mut second = two.permit();
        second.resize(half / 4).await.unwrap();
        let mut third = two.permit();
        let refused = third.resize(MIB).await.unwrap_err();
        assert_eq!(refused.reason, Refusal::Quota, "the tenant has its share");
        assert!(refused.retry_after_ms > 0 && refused.message.contains("maxMemoryBytes"), "{refused:?}");
        let mut other = budget.connection("globex").permit();
        other.resize(half / 2).await.unwrap();
        drop((first, second));
        assert_eq!(budget.held(), half as u64 / 2);
        third.resize(MIB).await.unwrap();

        let refused = budget.connection("initech").permit().resize(half).await.unwrap_err();
        assert_eq!(refused.reason, Refusal::Busy, "it holds nothing itself");
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_given_back_and_who_gave_up_gets_nothing() {
        let budget = MemoryBudget::new(LEAST_MEMORY_BYTES);
        let half = usize::try_from(LEAST_MEMORY_BYTES / 2).unwrap();
        let memory: Vec<_> = (0..4).map(|_| budget.connection("acme")).collect();
        let (mut first, mut second) = (memory[0].permit(), memory[1].permit());
        first.resize(half / 2).await.unwrap();
        second.resize(half / 2).await.unwrap();
        let (mut third, mut fourth) = (memory[2].permit(), memory[3].permit());
        tokio::select! {
            biased;
            _ = third.resize(half / 2) => panic!("there is none"),
            () = tokio::task::yield_now() => {}
        }
        let (outcome, ()) = tokio::join!(fourth.resize(half / 4), async { drop(first) });
        outcome.unwrap();
        assert_eq!(budget.held(), (half / 2 + half / 4) as u64);
        drop((second, third, fourth));
        assert_eq!(budget.held(), 0);
    }
}
