//! What a hub counts for its operator, in Prometheus' text format.
//!
//! Each hub has a registry of its own, since several may live in one process. Of tenants at most [`NAMED_TENANTS`] are
//! told by name, so that no tenant's agents can make the list long; nothing else that an agent says becomes a label.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::hub_counts::HubStats;
use super::log;
use super::writer::CommitMetrics;
use crate::protocol::message::{Refusal, ToAgent};

/// Tenants that are told by name; the rest are `other`.
const NAMED_TENANTS: usize = 100;

/// What the tenants beyond [`NAMED_TENANTS`] are called together.
const OTHER_TENANTS: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTenant {
    tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// What a hub counts.
#[derive(Debug)]
pub(super) struct HubMetrics {
    registry: Registry,
    sessions: Gauge,
    tenants: Gauge,
    rows: Gauge,
    queued: Gauge,
    memory: Gauge,
    dropped_lines: Gauge,
    syncs: Counter,
    sent: Counter,
    received: Counter,
    conflicts: Counter,
    rejected: Counter,
    refusals: Family<ByReason, Counter>,
    tenant_syncs: Family<ByTenant, Counter>,
    rows_received: Family<ByTenant, Counter>,
    rows_sent: Family<ByTenant, Counter>,
    named: Mutex<HashSet<String>>,
}

impl HubMetrics {
    /// Nothing counted yet, but for what the store's thread counts of its commits.
    pub(super) fn new(commits: &CommitMetrics) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("federation_hub"),
            sessions: Gauge::default(),
            tenants: Gauge::default(),
            rows: Gauge::default(),
            queued: Gauge::default(),
            memory: Gauge::default(),
            dropped_lines: Gauge::default(),
            syncs: Counter::default(),
            sent: Counter::default(),
            received: Counter::default(),
            conflicts: Counter::default(),
            rejected: Counter::default(),
            refusals: Family::default(),
            tenant_syncs: Family::default(),
            rows_received: Family::default(),
            rows_sent: Family::default(),
            named: Mutex::default(),
        };
        metrics.register(commits);
        metrics
    }

    /// Names of counters get their `_total` when they are written.
    fn register(&mut self, commits: &CommitMetrics) {
        let to = &mut self.registry;
        to.register("sessions", "Agents that are connected", self.sessions.clone());
        to.register("tenants", "Tenants that the store holds", self.tenants.clone());
        to.register("rows", "Live rows of all tenants", self.rows.clone());
        to.register("store_queue", "Jobs that wait for the store's thread", self.queued.clone());
        to.register("message_memory_bytes", "Memory taken for what agents send", self.memory.clone());
        to.register("log_lines_dropped", "Lines of the log that nobody read", self.dropped_lines.clone());
        to.register("syncs", "Syncs answered", self.syncs.clone());
        to.register("sent_bytes", "Bytes of frames sent to agents", self.sent.clone());
        to.register("received_bytes", "Bytes of frames received from agents", self.received.clone());
        to.register(
            "conflicts",
            "Pushed cells that were concurrent with another write",
            self.conflicts.clone(),
        );
        to.register("quarantined", "Pushed rows that the hub could not take", self.rejected.clone());
        to.register("refusals", "Refusals, by reason", self.refusals.clone());
        to.register("tenant_syncs", "Syncs answered, by tenant", self.tenant_syncs.clone());
        to.register("tenant_received_rows", "Rows that agents pushed, by tenant", self.rows_received.clone());
        to.register("tenant_sent_rows", "Rows that agents were told, by tenant", self.rows_sent.clone());
        to.register("commit_writes", "Writes that shared a commit", commits.writes.clone());
        to.register("commit_seconds", "How long commits took", commits.seconds.clone());
    }

    fn tenant(&self, tenant: &str) -> ByTenant {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let is_named =
            named.contains(tenant) || named.len() < NAMED_TENANTS && named.insert(tenant.to_owned());
        ByTenant { tenant: if is_named { tenant } else { OTHER_TENANTS }.to_owned() }
    }

    /// A sync was answered.
    pub(super) fn synced(&self, tenant: &str) {
        self.tenant_syncs.get_or_create(&self.tenant(tenant)).inc();
    }

    /// An agent has pushed so many rows.
    pub(super) fn pushed(&self, tenant: &str, rows: usize) {
        self.rows_received.get_or_create(&self.tenant(tenant)).inc_by(rows as u64);
    }

    /// An agent that was let in is told something.
    pub(super) fn told(&self, tenant: &str, message: &ToAgent) {
        match message {
            ToAgent::Ack(ack) => {
                self.conflicts.inc_by(u64::from(ack.conflicts));
                self.rejected.inc_by(ack.rejected.len() as u64);
            }
            ToAgent::Rows(rows) => {
                self.rows_sent.get_or_create(&self.tenant(tenant)).inc_by(rows.rows.len() as u64);
            }
            ToAgent::Refused(refused) => self.refused(refused.reason),
            _ => {}
        }
    }

    /// Somebody was refused.
    pub(super) fn refused(&self, reason: Refusal) {
        self.refusals.get_or_create(&ByReason { reason: name_of(reason) }).inc();
    }

    /// Everything, as of now.
    pub(super) fn encode(&self, stats: &HubStats, queued: usize) -> String {
        self.sessions.set(stats.connected_agents.cast_signed());
        self.tenants.set(stats.tenants.cast_signed());
        self.rows.set(stats.rows.cast_signed());
        self.queued.set(i64::try_from(queued).unwrap_or(i64::MAX));
        self.memory.set(stats.memory_bytes.cast_signed());
        self.dropped_lines.set(log::dropped_lines().cast_signed());
        let totals = [
            (&self.syncs, stats.syncs),
            (&self.sent, stats.bytes_sent),
            (&self.received, stats.bytes_received),
        ];
        for (counter, total) in totals {
            let counter: &AtomicU64 = counter.inner();
            counter.store(total, Ordering::Relaxed);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A reason as operators know it.
fn name_of(reason: Refusal) -> &'static str {
    match reason {
        Refusal::Unauthenticated => "unauthenticated",
        Refusal::Protocol => "protocol",
        Refusal::Stale => "stale",
        Refusal::Clock => "clock",
        Refusal::Store => "store",
        Refusal::Stopping => "stopping",
        Refusal::Forbidden => "forbidden",
        Refusal::Busy => "busy",
        Refusal::Quota => "quota",
        Refusal::Full => "full",
        Refusal::NoRoom => "no_room",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_first_are_told_together() {
        let metrics = HubMetrics::new(&CommitMetrics::default());
        for tenant in 0..NAMED_TENANTS + 7 {
            metrics.synced(&format!("tenant {tenant}"));
        }
        metrics.synced("tenant 3");
        let text = metrics.encode(&HubStats::default(), 0);
        assert!(text.contains("tenant_syncs_total{tenant=\"tenant 3\"} 2\n"), "{text}");
        assert!(text.contains("tenant_syncs_total{tenant=\"other\"} 7\n"), "{text}");
        assert_eq!(text.matches("tenant_syncs_total{").count(), NAMED_TENANTS + 1);
    }

    #[test]
    fn a_tenants_name_cannot_forge_a_line() {
        let metrics = HubMetrics::new(&CommitMetrics::default());
        metrics.synced("\"} 1\nforged{x=\"");
        let text = metrics.encode(&HubStats::default(), 0);
        assert!(!text.contains("\nforged"), "{text}");
    }
}
