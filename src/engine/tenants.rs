//! The tenants that are connected, and what each of them takes of the hub.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hub_limits::HubLimits;
use crate::protocol::message::{Refusal, Refused};

/// When an agent for which there is no seat may ask again, in ms: agents live for seconds to minutes.
const RETRY_SEAT_MS: u32 = 2_000;

/// The tenants of a hub.
#[derive(Debug)]
pub(super) struct Tenants {
    limits: HubLimits,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: u64,
    by_tenant: HashMap<String, u64>,
}

/// A connected agent's seat. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Seat {
    tenants: Arc<Tenants>,
    tenant: String,
}

impl Tenants {
    /// Nobody yet.
    pub(super) fn new(limits: HubLimits) -> Arc<Self> {
        Arc::new(Self { limits, seats: Mutex::default() })
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for an agent of a tenant, whose token was verified.
    pub(super) fn admit(self: &Arc<Self>, tenant: &str) -> Result<Seat, Refused> {
        let HubLimits { max_agents, max_agents_per_tenant, .. } = self.limits;
        let mut seats = self.seats();
        if seats.by_tenant.get(tenant).is_some_and(|taken| *taken >= max_agents_per_tenant) {
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
        *seats.by_tenant.entry(tenant.to_owned()).or_default() += 1;
        Ok(Seat { tenants: Arc::clone(self), tenant: tenant.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.tenants.seats();
        seats.taken -= 1;
        if let Some(taken) = seats.by_tenant.get_mut(&self.tenant) {
            *taken -= 1;
            if *taken == 0 {
                seats.by_tenant.remove(&self.tenant);
            }
        }
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
        assert!(tenants.seats().by_tenant.is_empty(), "a tenant that is gone costs nothing");
    }
}
