//! The audit trail: who was let in, who was refused and why, whom the operator has revoked, and what was removed.
//!
//! Events of the tracing target `audit`, one line for each, whatever else is logged. They carry names and reasons,
//! never a token, a key or a row; what a stranger says of itself is cut short, and passed as a text, which every format of
//! lines quotes and escapes as it must, so that it can neither flood the trail nor forge a line of it.

use std::net::SocketAddr;
use std::path::Path;

use super::token::Claims;
use crate::protocol::hub_request::Caller;
use crate::protocol::limits::MAX_ID_BYTES;
use crate::storage::hub_operator::Removed;
use crate::storage::revocation::Revoked;
use crate::transport::TooMany;

/// The target of all events.
pub const TARGET: &str = "audit";

/// An agent was let in.
pub(super) fn admitted(address: SocketAddr, claims: &Claims) {
    let Claims { tenant_id, agent_id, token_id, may_write, expires_at_ms } = claims;
    tracing::info!(
        target: TARGET,
        event = "admitted",
        %address,
        tenant = tenant_id,
        agent = agent_id,
        token_id,
        may_write,
        expires_at_ms,
    );
}

/// Somebody was refused, who claimed to be an agent of this name.
pub(super) fn refused(address: SocketAddr, claimed: Option<(&str, &str)>, reason: &str) {
    let (tenant, agent) = claimed.unwrap_or_default();
    let (claimed_tenant, claimed_agent) = (shorten(tenant), shorten(agent));
    tracing::info!(target: TARGET, event = "refused", %address, claimed_tenant, claimed_agent, reason);
}

/// A connection was refused before anything of it was read, for lack of room: told once for each time that the limit
/// is reached.
pub(super) fn crowded_out(address: SocketAddr, why: TooMany) {
    let reason = match why {
        TooMany::InAll => "too many connections",
        TooMany::FromAddress => "too many connections from this address (maxConnectionsPerAddress)",
    };
    refused(address, None, reason);
}

/// An agent that was let in wanted more than its tenant may have.
pub(super) fn over_quota(address: SocketAddr, caller: &Caller, reason: &str) {
    let Caller { tenant, agent } = caller;
    tracing::info!(target: TARGET, event = "over quota", %address, tenant, agent, reason);
}

/// The session of an agent that was let in has ended.
pub(super) fn ended(address: SocketAddr, claims: &Claims, reason: &str) {
    let Claims { tenant_id, agent_id, token_id, .. } = claims;
    tracing::info!(
        target: TARGET,
        event = "ended",
        %address,
        tenant = tenant_id,
        agent = agent_id,
        token_id,
        reason,
    );
}

/// The operator has revoked somebody.
pub(super) fn revoked(whom: &Revoked) {
    let (tenant, agent, token_id) = parts(whom);
    tracing::info!(target: TARGET, event = "revoked", tenant, agent, token_id);
}

/// The operator has taken a revocation back.
pub(super) fn reinstated(whom: &Revoked) {
    let (tenant, agent, token_id) = parts(whom);
    tracing::info!(target: TARGET, event = "reinstated", tenant, agent, token_id);
}

/// The operator has removed something of a tenant: what, and how much has gone with it once that is known.
pub(super) fn removed(event: &str, tenant: &str, what: Option<(&str, Option<&str>)>, gone: Option<Removed>) {
    let (table, name) = what.map_or((None, None), |(table, name)| (Some(table), name));
    let (rows, bytes) = (gone.map(|it| it.rows), gone.map(|it| it.bytes));
    tracing::info!(target: TARGET, event, tenant, table, name, rows, bytes);
}

/// The operator has had the store's file made smaller.
pub(super) fn compacted(bytes: u64) {
    tracing::info!(target: TARGET, event = "compacted", bytes);
}

/// The tenant, agent and token that a revocation names. A field of an event that is none is left out.
fn parts(whom: &Revoked) -> (Option<&str>, Option<&str>, Option<&str>) {
    match whom {
        Revoked::Tenant(tenant) => (Some(tenant), None, None),
        Revoked::Agent { tenant, agent } => (Some(tenant), Some(agent), None),
        Revoked::Token(token_id) => (None, None, Some(token_id)),
    }
}

/// The operator has copied the store, which holds all tenants' rows.
pub(super) fn backed_up(path: &Path) {
    tracing::info!(target: TARGET, event = "backed up", path = %path.display());
}

/// Certificates or keys were loaded anew.
pub(super) fn reloaded(what: &str) {
    tracing::info!(target: TARGET, event = "reloaded", what);
}

/// As much of a name as any agent's may have.
fn shorten(name: &str) -> &str {
    let ends = name.char_indices().map(|(at, c)| at + c.len_utf8());
    &name[..ends.take_while(|end| *end <= MAX_ID_BYTES).last().unwrap_or(0)]
}
