//! What is counted of commits.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// How many writes share a commit, and how long commits take.
#[derive(Clone, Debug)]
pub struct CommitMetrics {
    /// Writes of one commit.
    pub writes: Histogram,
    /// Seconds that a commit took.
    pub seconds: Histogram,
}

impl Default for CommitMetrics {
    fn default() -> Self {
        Self {
            writes: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            // From 0.1 ms, a fast disk's fsync, to 6.5 s.
            seconds: Histogram::new(exponential_buckets(0.000_1, 4.0, 9)),
        }
    }
}

impl CommitMetrics {
    /// A commit of so many writes took so long; one of none is none.
    pub fn add(&self, writes: usize, took: Duration) {
        if writes > 0 {
            self.writes.observe(f64::from(u32::try_from(writes).unwrap_or(u32::MAX)));
            self.seconds.observe(took.as_secs_f64());
        }
    }
}
