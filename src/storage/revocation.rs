//! Whom a hub lets in no more, by its operator's word.

/// Whom a revocation is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revoked {
    /// All agents of a tenant.
    Tenant(String),
    /// One agent of a tenant.
    Agent {
        /// The tenant.
        tenant: String,
        /// The agent.
        agent: String,
    },
    /// Whoever has this token, by its `jti`.
    Token(String),
}

/// A revocation. It holds until it is taken back, or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whom it is about.
    pub whom: Revoked,
    /// When it was made, in ms since the epoch.
    pub at_ms: i64,
    /// When it need not be remembered any more, in ms since the epoch: the token has expired by then. Never, if none.
    pub until_ms: Option<i64>,
}

impl Revocation {
    /// Whether it holds at a point in time, in ms since the epoch.
    pub fn holds(&self, now_ms: i64) -> bool {
        self.until_ms.is_none_or(|until_ms| now_ms < until_ms)
    }
}
