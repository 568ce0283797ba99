//! The self-check's loop: what a sync found to differ is narrowed down, fetched and healed before the sync ends.

use std::sync::{Arc, PoisonError};

use super::agent_error::AgentError;
use super::clock::wall_now_ms;
use super::sync::SyncJob;
use super::sync_report::SyncReport;
use super::turn::turn;
use crate::model::Seq;
use crate::protocol::check::{Check, CheckAnswer, Prints};
use crate::protocol::message::{Rows, SyncBegin, ToHub};
use crate::storage::heal::{Fetched, heal_turn, look_turn};
use crate::storage::lease::Claim;
use crate::storage::look::{Bounds, Slice};
use crate::storage::replica::{CachedCatalog, Setting};
use crate::storage::search::{Search, Step, compare, fetch};
use crate::transport::{FrameReceiver, FrameSender};

/// A stream on which nothing is asked but what the hub has.
struct Questions {
    sender: FrameSender,
    receiver: FrameReceiver,
    cursor: Seq,
}

impl SyncJob<'_> {
    /// Heals what is not as the hub has it. `begin` is how this sync began, now with its new cursor.
    pub(super) async fn heal(
        &mut self,
        mut search: Search,
        begin: SyncBegin,
        report: &mut SyncReport,
    ) -> Result<(), AgentError> {
        let mut questions = None;
        while let Some(step) = search.next_step() {
            let Some(cached) = self.database.catalog.clone() else { return Ok(()) };
            let questions = match &mut questions {
                Some(questions) => questions,
                none => none.insert(self.questions(&begin).await?),
            };
            match step {
                Step::Narrow(ranges) => {
                    let parts = self.look_at_parts(cached, questions.cursor, ranges).await?;
                    if parts.is_empty() {
                        continue;
                    }
                    let (_, prints) = self.ask(questions, compare(&parts)).await?;
                    search.narrowed(&parts, &prints);
                }
                Step::Fetch(ranges) => {
                    let (rows, prints) = self.ask(questions, fetch(&ranges)).await?;
                    for fetched in search.fetched(ranges, &rows, prints) {
                        self.heal_range(questions.cursor, fetched, report).await?;
                    }
                }
            }
        }
        if let Some(Questions { sender, receiver, .. }) = &mut questions {
            sender.finish()?;
            report.bytes_sent += sender.bytes_sent();
            report.bytes_received += receiver.bytes_received();
        }
        Ok(())
    }

    /// Opens a stream for questions: a sync that ends before it pulls.
    async fn questions(&self, begin: &SyncBegin) -> Result<Questions, AgentError> {
        let (mut sender, receiver) = self.session.connection.open().await?;
        self.send(&mut sender, &ToHub::Sync(begin.clone())).await?;
        Ok(Questions { sender, receiver, cursor: begin.cursor })
    }

    async fn ask(&self, questions: &mut Questions, check: Check) -> Result<(Rows, Prints), AgentError> {
        let mut answer = CheckAnswer::to(&check);
        self.send(&mut questions.sender, &ToHub::Check(check)).await?;
        loop {
            let message = self.receive(&mut questions.receiver).await?;
            if let Some(answer) = answer.receive(message)? {
                return Ok(answer);
            }
        }
    }

    async fn look_at_parts(
        &self,
        cached: CachedCatalog,
        cursor: Seq,
        ranges: Vec<Bounds>,
    ) -> Result<Vec<Slice>, AgentError> {
        let (clock, holder, options) = (self.session.clock(), self.holder, Arc::clone(&self.options));
        let look = move |sql: &mut dyn crate::storage::driver::Sql| {
            let claim = Claim { holder, now_ms: wall_now_ms() };
            look_turn(sql, &cached, Setting { clock, claim, options: &options }, cursor, &ranges)
        };
        turn(self.driver, self.patience, look).await
    }

    async fn heal_range(
        &mut self,
        cursor: Seq,
        fetched: Fetched,
        report: &mut SyncReport,
    ) -> Result<(), AgentError> {
        let Some(cached) = self.database.catalog.clone() else { return Ok(()) };
        let (clock, mint, holder) = (self.session.clock(), self.mint.clone(), self.holder);
        let options = Arc::clone(&self.options);
        let healed = turn(self.driver, self.patience, move |sql| {
            let mut mint = mint.lock().unwrap_or_else(PoisonError::into_inner);
            let claim = Claim { holder, now_ms: wall_now_ms() };
            let setting = Setting { clock, claim, options: &options };
            heal_turn(sql, &cached, setting, &mut mint, cursor, &fetched)
        })
        .await?;
        if let Some(catalog) = healed.catalog {
            self.database.catalog = Some(catalog);
        }
        report.healed += healed.rows;
        report.quarantined = healed.quarantined.unwrap_or(report.quarantined);
        report.note_all(healed.notices);
        Ok(())
    }
}
