//! Revocation while the hub runs: whom it lets in no more, and how their sessions end.
//!
//! The store remembers; what it remembers is read when the hub starts, and kept here, so that letting somebody in
//! asks nobody. Whoever is connected is told of each change, and looks whether it is meant.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use thiserror::Error;
use tokio::sync::watch;

use super::audit;
use super::clock::wall_now_ms;
use super::hub::Hub;
use super::token::Claims;
use crate::storage::hub_store::StoreError;
use crate::storage::revocation::{Revocation, Revoked};

/// Why an operator's word has no effect, or not for long.
#[derive(Debug, Error)]
pub enum RevokeError {
    /// The hub has stopped: start it first.
    #[error("the hub is not running: start it first")]
    NotRunning,
    /// The revocation holds, and is forgotten when the hub stops: see to the store, and repeat it.
    #[error(
        "the revocation holds until the hub stops, but cannot be stored: {0}; see to that, and repeat it"
    )]
    NotStored(StoreError),
    /// The store failed, and nothing has changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is revoked at present.
#[derive(Debug)]
pub(super) struct Revocations {
    held: RwLock<HashMap<Revoked, Held>>,
    changes: watch::Sender<()>,
    /// How many words an operator has given: the store takes them in this order.
    words: AtomicU64,
}

/// A revocation that holds, and which of the operator's words it is.
#[derive(Debug)]
struct Held {
    revocation: Revocation,
    word: u64,
}

/// Hears of changes.
pub(super) type Changes = watch::Receiver<()>;

impl Revocations {
    /// Those that are remembered.
    pub(super) fn new(remembered: Vec<Revocation>) -> Self {
        let held = |revocation: Revocation| (revocation.whom.clone(), Held { revocation, word: 0 });
        let held = remembered.into_iter().map(held).collect();
        Self { held: RwLock::new(held), changes: watch::Sender::default(), words: AtomicU64::new(1) }
    }

    fn next_word(&self) -> u64 {
        self.words.fetch_add(1, Ordering::Relaxed)
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<Revoked, Held>) -> T) -> T {
        work(&mut self.held.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hears of every change from now on.
    pub(super) fn changes(&self) -> Changes {
        self.changes.subscribe()
    }

    /// Whether all of a tenant is revoked.
    pub(super) fn hold_tenant(&self, tenant: &str, now_ms: i64) -> bool {
        let whom = Revoked::Tenant(tenant.to_owned());
        self.with(|held| held.get(&whom).is_some_and(|it| it.revocation.holds(now_ms)))
    }

    /// Whether somebody whose token says this has been revoked.
    pub(super) fn hold(&self, claims: &Claims, now_ms: i64) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        if held.is_empty() {
            return false;
        }
        let (tenant, agent) = (claims.tenant_id.clone(), claims.agent_id.clone());
        let mut names = vec![Revoked::Tenant(tenant.clone()), Revoked::Agent { tenant, agent }];
        names.extend(claims.token_id.clone().map(Revoked::Token));
        names.iter().any(|whom| held.get(whom).is_some_and(|it| it.revocation.holds(now_ms)))
    }
}

impl Hub {
    /// Lets somebody in no more, and ends the sessions that are open. It holds when this returns, and survives
    /// restarts, until it is taken back, or until `until_ms` (ms since the epoch), which of a token is its `exp`.
    pub async fn revoke(&self, whom: Revoked, until_ms: Option<i64>) -> Result<(), RevokeError> {
        let shared = self.shared().ok_or(RevokeError::NotRunning)?;
        // A token is taken for a while after its end: so long the revocation has to hold.
        let until_ms = match whom {
            Revoked::Token(_) => until_ms.map(|exp_ms| shared.tokens.taken_until_ms(exp_ms)),
            Revoked::Tenant(_) | Revoked::Agent { .. } => until_ms,
        };
        let revocation = Revocation { whom, at_ms: wall_now_ms(), until_ms };
        audit::revoked(&revocation.whom);
        // First of all it holds: what keeps it from being stored must not keep anybody in.
        let word = shared.revocations.next_word();
        shared
            .revocations
            .with(|held| held.insert(revocation.whom.clone(), Held { revocation: revocation.clone(), word }));
        shared.revocations.changes.send_replace(());
        shared.writer.revoke(revocation).await.map_err(RevokeError::NotStored)
    }

    /// Takes a revocation back. Says whether there was one.
    pub async fn reinstate(&self, whom: Revoked) -> Result<bool, RevokeError> {
        let shared = self.shared().ok_or(RevokeError::NotRunning)?;
        let word = shared.revocations.next_word();
        let was_stored = shared.writer.reinstate(whom.clone()).await?;
        // A revocation that was asked for meanwhile is the later word, in the store as well.
        let was_held = shared
            .revocations
            .with(|held| held.get(&whom).is_some_and(|it| it.word < word) && held.remove(&whom).is_some());
        audit::reinstated(&whom);
        Ok(was_stored || was_held)
    }

    /// The revocations that hold, in the order of whom they are about; none if the hub does not run.
    pub fn revocations(&self) -> Vec<Revocation> {
        let Some(shared) = self.shared() else { return Vec::new() };
        let now_ms = wall_now_ms();
        let mut all = shared.revocations.with(|held| {
            held.retain(|_, it| it.revocation.holds(now_ms));
            held.values().map(|it| it.revocation.clone()).collect::<Vec<_>>()
        });
        all.sort_by(|one, other| one.whom.cmp(&other.whom));
        all
    }
}
