//! The lease: one sync at a time works on a database, also where two processes have it open.
//!
//! What has to hold without it, holds without it (batches are numbered, an attach opens an epoch): the lease
//! keeps two processes from undoing each other's work for ever. It is taken when a database is attached, which ends
//! others' sessions, and by turns that write anyway; those that find nothing to do only look at it. So an idle sync of a
//! database that is attached pays nothing for it.

use super::driver::{SqlError, SqlErrorKind, ValueRef};

/// How long a lease holds after the last turn that renewed it, in ms: so long does a process that died in the
/// middle of a sync keep others waiting, which is less than a sync waits unless it is told otherwise.
pub const LEASE_MS: i64 = 5_000;

/// Who holds a lease: a random number of each agent of each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub [u8; 16]);

impl Holder {
    /// Reads what a database holds.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }
}

/// A lease, as the database holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub holder: Holder,
    /// When it runs out, in ms since the epoch, by this machine's clock.
    pub until_ms: i64,
}

impl Lease {
    /// Its columns in the bookkeeping: holder and end.
    pub fn as_params(lease: Option<&Self>) -> [ValueRef<'_>; 2] {
        match lease {
            Some(lease) => [ValueRef::Blob(&lease.holder.0), lease.until_ms.into()],
            None => [ValueRef::Null, ValueRef::Null],
        }
    }

    /// Whether it holds at this time. One that would hold for longer than any does is of a clock that was put
    /// back since.
    fn holds(&self, now_ms: i64) -> bool {
        (1..=LEASE_MS).contains(&self.until_ms.saturating_sub(now_ms))
    }
}

/// Somebody who wants to work on a database, and when.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Who.
    pub holder: Holder,
    /// This machine's clock, in ms since the epoch.
    pub now_ms: i64,
}

impl Claim {
    /// Whether the way is free.
    ///
    /// # Errors
    /// [`SqlErrorKind::Leased`] while the lease is another's.
    pub fn check(self, lease: Option<&Lease>) -> Result<(), SqlError> {
        match lease.filter(|lease| lease.holder != self.holder && lease.holds(self.now_ms)) {
            None => Ok(()),
            Some(_) => Err(SqlError {
                kind: SqlErrorKind::Leased,
                message: "another connection is syncing this database".into(),
            }),
        }
    }

    /// The lease that this claim makes.
    pub fn lease(self) -> Lease {
        Lease { holder: self.holder, until_ms: self.now_ms.saturating_add(LEASE_MS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Holder = Holder([1; 16]);
    const B: Holder = Holder([2; 16]);

    fn claim(holder: Holder, now_ms: i64) -> Claim {
        Claim { holder, now_ms }
    }

    #[test]
    fn a_lease_keeps_others_out_until_it_runs_out() {
        let lease = claim(A, 1_000).lease();
        assert!(claim(A, 1_500).check(Some(&lease)).is_ok());
        for (now_ms, is_free) in [(1_000, false), (1_000 + LEASE_MS - 1, false), (1_000 + LEASE_MS, true)] {
            assert_eq!(claim(B, now_ms).check(Some(&lease)).is_ok(), is_free, "{now_ms}");
        }
        assert!(claim(B, 0).check(None).is_ok());
    }

    #[test]
    fn a_lease_of_a_clock_that_was_put_back_does_not_hold_for_years() {
        let lease = claim(A, 1 << 40).lease();
        assert!(claim(B, 1_000).check(Some(&lease)).is_ok());
        assert!(claim(B, i64::MIN).check(Some(&claim(A, i64::MAX).lease())).is_ok());
    }
}
