//! How many jobs of each tenant wait for the store's thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Jobs of one tenant that wait for the thread; whoever of it asks more waits as well, and no other tenant does.
pub(super) const MAX_WAITING_OF_TENANT: usize = 64;

/// Tenants that are remembered before those that wait for nothing are forgotten.
const MANY_TENANTS: usize = 64;

/// The shares of all tenants.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<String, Weak<Semaphore>>,
    /// How many may be known before one looks who can be forgotten.
    many: usize,
}

impl Shares {
    /// Waits until another job of the tenant may wait. Nothing comes only if the system has ended.
    pub(super) async fn enter(&self, tenant: &str) -> Option<OwnedSemaphorePermit> {
        self.of(tenant).acquire_owned().await.ok()
    }

    fn of(&self, tenant: &str) -> Arc<Semaphore> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = known.tenants.get(tenant).and_then(Weak::upgrade) {
            return share;
        }
        if known.tenants.len() >= known.many {
            known.tenants.retain(|_, share| share.strong_count() > 0);
            known.many = MANY_TENANTS + 2 * known.tenants.len();
        }
        let share = Arc::new(Semaphore::new(MAX_WAITING_OF_TENANT));
        known.tenants.insert(tenant.to_owned(), Arc::downgrade(&share));
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_one_share_and_one_that_waits_for_nothing_is_forgotten() {
        let shares = Shares::default();
        let permit = shares.of("acme").try_acquire_owned().unwrap();
        assert_eq!(shares.of("acme").available_permits(), MAX_WAITING_OF_TENANT - 1);
        for n in 0..10_000 {
            shares.of(&n.to_string());
        }
        assert!(shares.0.lock().unwrap().tenants.len() <= 2 * MANY_TENANTS);
        assert_eq!(
            shares.of("acme").available_permits(),
            MAX_WAITING_OF_TENANT - 1,
            "who waits is remembered"
        );
        drop(permit);
        assert_eq!(shares.of("acme").available_permits(), MAX_WAITING_OF_TENANT);
    }
}
