//! The application codes with which a connection is closed.
//!
//! A hub that refuses an agent says why in [`super::message::Refused`] as well, where a stream is open for
//! it; the code is for agents that never got to read that.

use super::message::Refusal;

/// Nothing is wrong; the agent, or whatever is left of it, may be back.
pub const CLOSED: u32 = 0;

/// The agent is done, and waits for no answer: its replicas may be retired.
pub const GOODBYE: u32 = 7;

/// The token that the agent was let in with has expired: it may come back with a new one.
pub const EXPIRED: u32 = 8;

/// The tenant, the agent, or its token was revoked.
pub const REVOKED: u32 = 9;

impl Refusal {
    /// The code of a connection that is closed for this reason.
    pub fn close_code(self) -> u32 {
        match self {
            Self::Unauthenticated => 1,
            Self::Protocol => 2,
            Self::Stale => 3,
            Self::Clock => 4,
            Self::Store => 5,
            Self::Stopping => 6,
            Self::Forbidden => 10,
            Self::Busy => 11,
            Self::Quota => 12,
            Self::Full => 13,
            Self::NoRoom => 14,
        }
    }

    /// The reason behind a code, if this version knows it.
    pub fn from_close_code(code: u64) -> Option<Self> {
        let all = [
            Self::Unauthenticated,
            Self::Protocol,
            Self::Stale,
            Self::Clock,
            Self::Store,
            Self::Stopping,
            Self::Forbidden,
            Self::Busy,
            Self::Quota,
            Self::Full,
            Self::NoRoom,
        ];
        all.into_iter().find(|reason| u64::from(reason.close_code()) == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_leads_back_to_its_reason() {
        for code in [CLOSED, GOODBYE, EXPIRED, REVOKED] {
            assert_eq!(Refusal::from_close_code(u64::from(code)), None);
        }
        for code in (1..=6).chain(10..=14) {
            assert_eq!(Refusal::from_close_code(code).map(Refusal::close_code), u32::try_from(code).ok());
        }
    }
}
