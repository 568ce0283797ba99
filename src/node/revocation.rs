//! Revocation, as an operator's JavaScript sees it.

use napi_derive::napi;

use super::error::CodedError;
use crate::engine::token::in_ms;
use crate::storage::revocation::{Revocation, Revoked};

/// Whom a revocation is about: a tenant, one of its agents, or whoever has a token.
#[napi(object, object_to_js = false)]
pub struct RevocationTarget {
    /// All agents of this tenant, unless `agentId` names one.
    pub tenant_id: Option<String>,
    /// Only this agent of the tenant.
    pub agent_id: Option<String>,
    /// Whoever has the token whose `jti` this is, instead of a tenant.
    pub token_id: Option<String>,
    /// When the revocation need not be remembered any more, since the token has expired by then: a time to come, in
    /// milliseconds since the epoch, or in seconds like a token's `exp`. Never, unless given.
    pub expires_at: Option<f64>,
}

/// A revocation that holds.
#[napi(object, object_from_js = false)]
pub struct HubRevocation {
    /// The tenant, unless it is about a token.
    pub tenant_id: Option<String>,
    /// The agent, if it is about one.
    pub agent_id: Option<String>,
    /// The token's `jti`, if it is about one.
    pub token_id: Option<String>,
    /// When it was made, in milliseconds since the epoch.
    pub revoked_at: f64,
    /// When it ends, in milliseconds since the epoch, if it does.
    pub expires_at: Option<f64>,
}

/// Whom a revocation is about, and when it ends, in ms since the epoch. It is `now_ms`.
pub fn revoked(target: RevocationTarget, now_ms: i64) -> Result<(Revoked, Option<i64>), CodedError> {
    let RevocationTarget { tenant_id, agent_id, token_id, expires_at } = target;
    let whom = match (tenant_id, agent_id, token_id) {
        (Some(tenant), None, None) => Revoked::Tenant(tenant),
        (Some(tenant), Some(agent), None) => Revoked::Agent { tenant, agent },
        (None, None, Some(id)) => Revoked::Token(id),
        _ => {
            return Err(CodedError::config(
                "pass { tenantId }, { tenantId, agentId } or { tokenId } to say whom a revocation is about",
            ));
        }
    };
    let Some(at) = expires_at else { return Ok((whom, None)) };
    match in_ms(at).filter(|until_ms| *until_ms > now_ms) {
        Some(until_ms) => Ok((whom, Some(until_ms))),
        None => Err(CodedError::config(format!(
            "target.expiresAt must be a time to come, in milliseconds since the epoch (seconds are understood), not {at}: \
             after it the revocation is forgotten"
        ))),
    }
}

impl From<Revocation> for HubRevocation {
    fn from(revocation: Revocation) -> Self {
        let Revocation { whom, at_ms, until_ms } = revocation;
        let (tenant_id, agent_id, token_id) = match whom {
            Revoked::Tenant(tenant) => (Some(tenant), None, None),
            Revoked::Agent { tenant, agent } => (Some(tenant), Some(agent), None),
            Revoked::Token(id) => (None, None, Some(id)),
        };
        #[expect(clippy::cast_precision_loss, reason = "times within 2^53 ms")]
        let (revoked_at, expires_at) = (at_ms as f64, until_ms.map(|at| at as f64));
        Self { tenant_id, agent_id, token_id, revoked_at, expires_at }
    }
}
