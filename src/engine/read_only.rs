//! Syncs under a token that permits no writing, or while the hub has no room for more: they pull, declare nothing, and say so if something waits.

use std::sync::{Arc, PoisonError};

use super::agent_error::AgentError;
use super::clock::wall_now_ms;
use super::sync::SyncJob;
use super::turn::turn;
use crate::model::{Digest, TableSchema};
use crate::storage::held_back::held_back_turn;
use crate::storage::lease::Claim;
use crate::storage::replica::Setting;

impl SyncJob<'_> {
    /// Whether the token permits writing, and the hub has room for it.
    pub(super) fn may_write(&self) -> bool {
        self.session.welcome.may_write && !self.is_hub_full
    }

    /// Whether anything is sent now.
    pub(super) fn may_push(&self) -> bool {
        self.may_write() && !self.database.pulls_first
    }

    /// What to declare, and the digest of what the hub has taken in then. From one that may only read it takes
    /// nothing, and is told once for each connection, for the sake of what contradicts it.
    pub(super) fn declare(
        &self,
        schema: Option<&(Vec<TableSchema>, Digest)>,
    ) -> (Option<Vec<TableSchema>>, Option<Digest>) {
        match schema {
            Some((schema, digest)) if self.may_write() => (Some(schema.clone()), Some(*digest)),
            Some((schema, _)) if self.database.noted.is_none() => (Some(schema.clone()), None),
            _ => (None, None),
        }
    }

    /// Whether something was written here that is not let through.
    pub(super) async fn is_held_back(&self) -> Result<bool, AgentError> {
        let Some(cached) = self.database.catalog.clone() else { return Ok(false) };
        let (clock, mint, holder) = (self.session.clock(), self.mint.clone(), self.holder);
        let (options, counts_old) = (Arc::clone(&self.options), self.session.welcome.may_write);
        turn(self.driver, self.patience, move |sql| {
            let mut mint = mint.lock().unwrap_or_else(PoisonError::into_inner);
            let claim = Claim { holder, now_ms: wall_now_ms() };
            held_back_turn(sql, &cached, Setting { clock, claim, options: &options }, &mut mint, counts_old)
        })
        .await
    }
}
