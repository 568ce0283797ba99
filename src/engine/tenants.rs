//! The tenants that are connected, and what each of them takes of the hub.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::hub_limits::HubLimits;
use super::rate::Rate;
use crate::protocol::message::{Refusal, Refused};

/// When an agent for which there is no seat may ask again, in ms: agents live for seconds to minutes.
const RETRY_SEAT_MS: u32 = 2_000;

/// How long an agent is held back for its tenant's rate before it is refused.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Tenants without agents that are remembered, for what they have done lately, before those that have rested are
/// forgotten.
const MANY_GONE: usize = 64;

/// The tenants of a hub.
#[derive(Debug)]
pub(super) struct Tenants {
    limits: HubLimits,
    /// When times begin.
    origin: Instant,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: u64,
    by_tenant: HashMap<String, Load>,
    /// How many of these have no agents.
    gone: usize,
}

/// What a tenant takes of the hub.
#[derive(Debug)]
struct Load {
    agents: u64,
    rate: Rate,
    /// One of its messages at a time is decoded elsewhere than where it arrived.
    decoding: Arc<Semaphore>,
}

/// A connected agent's seat. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Seat {
    tenants: Arc<Tenants>,
    tenant: String,
    decoding: Arc<Semaphore>,
}

impl Tenants {
    /// Nobody yet.
    pub(super) fn new(limits: HubLimits) -> Arc<Self> {
        Arc::new(Self { limits, origin: Instant::now(), seats: Mutex::default() })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for an agent of a tenant, whose token was verified.
    pub(super) fn admit(self: &Arc<Self>, tenant: &str) -> Result<Seat, Refused> {
        let HubLimits { max_agents, max_agents_per_tenant, .. } = self.limits;
        let mut seats = self.seats();
        if seats.by_tenant.get(tenant).is_some_and(|load| load.agents >= max_agents_per_tenant) {
            let message = format!(
                "{max_agents_per_tenant} agents of this tenant are connected, as many as may be \
                 (maxAgentsPerTenant): disconnect agents that are done, or have the hub's operator raise the limit"
            );
            return Err(Refused::new(Refusal::Quota, message).for_ms(RETRY_SEAT_MS));
        }
        if seats.taken >= max_agents {
            let message = format!(
                "{max_agents} agents are connected to this hub, as many as may be (maxAgents): try again later, or \
                 have the hub's operator raise the limit"
            );
            return Err(Refused::new(Refusal::Busy, message).for_ms(RETRY_SEAT_MS));
        }
        seats.taken += 1;
        let HubLimits { max_rows_per_second, max_bytes_per_second, .. } = self.limits;
        let new = || {
            let rate = Rate::new(max_rows_per_second, max_bytes_per_second);
            Load { agents: 0, rate, decoding: Arc::new(Semaphore::new(1)) }
        };
        let known = seats.by_tenant.len();
        let load = seats.by_tenant.entry(tenant.to_owned()).or_insert_with(new);
        load.agents += 1;
        let decoding = Arc::clone(&load.decoding);
        let is_back = load.agents == 1 && seats.by_tenant.len() == known;
        seats.gone -= usize::from(is_back);
        Ok(Seat { tenants: Arc::clone(self), tenant: tenant.to_owned(), decoding })
    }
}

impl Seats {
    /// Forgets tenants that are gone and have rested, once there are many.
    fn forget(&mut self, now: Duration) {
        if self.gone >= MANY_GONE && self.gone * 2 >= self.by_tenant.len() {
            self.by_tenant.retain(|_, load| load.agents > 0 || !load.rate.is_rested(now));
            self.gone = self.by_tenant.values().filter(|load| load.agents == 0).count();
        }
    }
}

impl Seat {
    /// How long to wait before the tenant's next exchange of rows; a refusal where that would be too long.
    pub(super) fn due(&self) -> Result<Duration, Refused> {
        let HubLimits { max_rows_per_second, max_bytes_per_second, .. } = self.tenants.limits;
        let now = self.tenants.origin.elapsed();
        let wait =
            self.tenants.seats().by_tenant.get(&self.tenant).map_or(Duration::ZERO, |it| it.rate.wait(now));
        if wait <= LONGEST_WAIT {
            return Ok(wait);
        }
        let message = format!(
            "this tenant's agents push and pull more than {max_rows_per_second} rows (maxRowsPerSecond) or \
             {max_bytes_per_second} bytes (maxBytesPerSecond) per second: sync less often, or have the hub's operator \
             raise the limit"
        );
        Err(Refused::new(Refusal::Quota, message).for_ms(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)))
    }

    /// Waits for the tenant's turn to have a message decoded elsewhere than where it arrived.
    pub(super) async fn decoding_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.decoding).acquire_owned().await.ok()
    }

    /// Takes note of rows and bytes that the tenant exchanges.
    pub(super) fn charge(&self, rows: u64, bytes: u64) {
        let now = self.tenants.origin.elapsed();
        if let Some(load) = self.tenants.seats().by_tenant.get_mut(&self.tenant) {
            load.rate.charge(now, rows, bytes);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.tenants.seats();
        seats.taken -= 1;
        if let Some(load) = seats.by_tenant.get_mut(&self.tenant) {
            load.agents -= 1;
            seats.gone += usize::from(load.agents == 0);
        }
        seats.forget(self.tenants.origin.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_by_tenant_and_in_all_and_given_back() {
        let limits = HubLimits { max_agents: 3, max_agents_per_tenant: 2, ..HubLimits::default() };
        let tenants = Tenants::new(limits);
        let mut acme = vec![tenants.admit("acme").unwrap(), tenants.admit("acme").unwrap()];
        let refused = tenants.admit("acme").unwrap_err();
        assert_eq!(refused.reason, Refusal::Quota);
        assert!(refused.message.contains("maxAgentsPerTenant") && refused.retry_after_ms > 0, "{refused:?}");
        let globex = tenants.admit("globex").unwrap();
        let refused = tenants.admit("initech").unwrap_err();
        assert_eq!(refused.reason, Refusal::Busy);
        assert!(refused.message.contains("maxAgents)") && refused.retry_after_ms > 0, "{refused:?}");
        assert_eq!(tenants.admit("acme").unwrap_err().reason, Refusal::Quota, "its own limit is told first");
        drop(globex);
        tenants.admit("initech").unwrap();
        acme.pop();
        tenants.admit("acme").unwrap();
        drop(acme);
        for n in 0..1_000 {
            drop(tenants.admit(&n.to_string()).unwrap());
        }
        let seats = tenants.seats();
        assert!(
            seats.by_tenant.len() <= MANY_GONE && seats.taken == 0,
            "a tenant that is gone costs nothing"
        );
    }

    #[test]
    fn a_tenant_that_does_too_much_waits_and_then_is_refused_also_when_it_comes_back() {
        let limits = HubLimits { max_rows_per_second: 1_000, ..HubLimits::default() };
        let tenants = Tenants::new(limits);
        let (seat, other) = (tenants.admit("acme").unwrap(), tenants.admit("globex").unwrap());
        assert_eq!(seat.due().unwrap(), Duration::ZERO);
        seat.charge(5_000, 0);
        let wait = seat.due().unwrap();
        assert!(wait > Duration::from_secs(2) && wait <= Duration::from_secs(3), "{wait:?}");
        seat.charge(1_000_000, 0);
        drop(seat);
        let refused = tenants.admit("acme").unwrap().due().unwrap_err();
        assert_eq!(refused.reason, Refusal::Quota);
        assert!(
            refused.message.contains("maxRowsPerSecond") && refused.retry_after_ms > 900_000,
            "{refused:?}"
        );
        assert_eq!(other.due().unwrap(), Duration::ZERO, "another tenant does not notice");
    }
}
