//! Applying what has arrived, in turns that are short enough for the thread that they run on: the application's, if it
//! has given its handle.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::agent_error::AgentError;
use super::clock::{turn_time, wall_now_ms};
use super::sync::{Arrived, SyncJob};
use super::sync_report::SyncReport;
use super::turn::turn;
use crate::protocol::message::{Done, Rows};
use crate::storage::acknowledged::Booking;
use crate::storage::apply::{Applied, Incoming};
use crate::storage::driver::SqlError;
use crate::storage::lease::Claim;
use crate::storage::replica::{ApplyExtras, Setting, apply_turn};
use crate::storage::retrial::Retrial;

/// How many rows a turn takes on, by what earlier turns have cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace(usize);

impl Pace {
    /// Rows of the first turn: it may be that each is in another's way.
    const FIRST: usize = 25;
    /// Rows of any turn, however fast.
    const MOST: usize = 250;
    /// Rows of any turn, however slow.
    const LEAST: usize = 5;
    /// A turn that takes longer is followed by a smaller one: the application waits for 10 ms at most.
    const LONG: Duration = Duration::from_millis(7);
    /// What turns are made to take then.
    const AIM: Duration = Duration::from_millis(5);
    /// A turn that takes less is followed by a larger one.
    const SHORT: Duration = Duration::from_millis(3);

    /// How many rows the next turn takes on.
    fn rows(self) -> usize {
        self.0
    }

    /// Takes note of what a turn of so many rows as it may have has taken.
    fn note(&mut self, took: Duration) {
        if took > Self::LONG {
            let rows = u128::try_from(self.0).unwrap_or(u128::MAX) * Self::AIM.as_micros();
            let rows = rows / took.as_micros().max(1);
            self.0 = usize::try_from(rows).unwrap_or(Self::LEAST).clamp(Self::LEAST, Self::MOST);
        } else if took < Self::SHORT {
            self.0 = (self.0 * 2).min(Self::MOST);
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

impl SyncJob<'_> {
    /// Books and applies what has arrived, in bounded turns; the last one takes the end.
    pub(super) async fn apply_all(
        &mut self,
        arrived: &mut Arrived,
        done: Option<Done>,
        report: &mut SyncReport,
    ) -> Result<(), AgentError> {
        let Rows { tables, rows } = std::mem::take(&mut arrived.rows);
        if rows.is_empty() && done.is_none() {
            return Ok(());
        }
        while arrived.acknowledged.takes_turns() {
            self.apply(arrived, Incoming::default(), report).await?;
        }
        let mut rows = rows.into_iter().peekable();
        loop {
            let slice: Vec<_> = rows.by_ref().take(arrived.pace.rows()).collect();
            let is_last = rows.peek().is_none();
            let incoming = Incoming {
                rows: Rows { tables: tables.clone(), rows: slice },
                done: done.clone().filter(|_| is_last),
                retry: is_last && done.is_some() && report.quarantined > 0,
                ..Incoming::default()
            };
            self.apply(arrived, incoming, report).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Applies so much, and books as many acknowledgements as a turn has room for; at the end of the sync in as many turns as
    /// it takes to try again what is set aside.
    async fn apply(
        &mut self,
        arrived: &mut Arrived,
        mut incoming: Incoming,
        report: &mut SyncReport,
    ) -> Result<(), AgentError> {
        let Booking { acked, refused, rows: mut pushed } = arrived.acknowledged.next_turn();
        (incoming.acked, incoming.refused) = (acked, refused);
        let mut extras = ApplyExtras {
            told: std::mem::take(&mut arrived.extras.told),
            missing: std::mem::take(&mut arrived.extras.missing),
            schema_digest: arrived.extras.schema_digest,
            refreshed: arrived.extras.refreshed.clone(),
        };
        let (retrial, mut pace) = (Arc::new(Mutex::new(Retrial::within(turn_time()))), Pace::default());
        loop {
            let rest = incoming.rest();
            let is_plain = !incoming.rows.rows.is_empty();
            retrial.lock().unwrap_or_else(PoisonError::into_inner).set_pace(pace.rows());
            let next = ApplyExtras { schema_digest: extras.schema_digest, ..ApplyExtras::default() };
            let (applied, took) = self.apply_turn(extras, incoming, &retrial, report).await?;
            report.pushed += std::mem::take(&mut pushed);
            if is_plain {
                arrived.pace.note(took);
            } else {
                pace.note(took);
            }
            if !applied.is_unfinished {
                return Ok(());
            }
            (extras, incoming) = (next, rest);
        }
    }

    /// One turn. Returns how long it has held the thread.
    async fn apply_turn(
        &mut self,
        extras: ApplyExtras,
        incoming: Incoming,
        retrial: &Arc<Mutex<Retrial>>,
        report: &mut SyncReport,
    ) -> Result<(Applied, Duration), AgentError> {
        let cached = self.database.catalog.clone();
        let (clock, mint, holder) = (self.session.clock(), self.mint.clone(), self.holder);
        let (options, retrial) = (Arc::clone(&self.options), Arc::clone(retrial));
        let turn = turn(self.driver, self.patience, move |sql| {
            let begun = Instant::now();
            let mut mint = mint.lock().unwrap_or_else(PoisonError::into_inner);
            let mut retrial = retrial.lock().unwrap_or_else(PoisonError::into_inner);
            let claim = Claim { holder, now_ms: wall_now_ms() };
            let setting = Setting { clock, claim, options: &options };
            let turn = apply_turn(sql, cached.clone(), setting, &mut mint, &extras, &incoming, &mut retrial)?;
            Ok::<_, SqlError>((turn, begun.elapsed()))
        });
        let (turn, took) = turn.await?;
        self.database.catalog = Some(turn.catalog);
        report.pulled += turn.applied.rows;
        report.quarantined = turn.applied.quarantined;
        report.note_all(turn.notices);
        Ok((turn.applied, took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_that_take_long_get_smaller_and_those_that_do_not_get_larger() {
        let mut pace = Pace::default();
        pace.note(Duration::from_millis(1));
        assert_eq!(pace.0, 2 * Pace::FIRST);
        (0..3).for_each(|_| pace.note(Duration::from_millis(1)));
        assert_eq!(pace.0, Pace::MOST);
        pace.note(Duration::from_millis(5));
        assert_eq!(pace.0, Pace::MOST, "that is what is aimed at");
        pace.note(Duration::from_millis(50));
        assert_eq!(pace.0, Pace::MOST / 10);
        pace.note(Duration::from_secs(60));
        assert_eq!(pace.0, Pace::LEAST);
        pace.note(Duration::ZERO);
        assert_eq!(pace.0, 2 * Pace::LEAST);
    }
}
