//! One attempt to sync: collect, send, receive, apply. The loop around the agent's state machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::agent_error::{AgentError, ErrorCode};
use super::applying::Pace;
use super::clock::{reading, turn_time, wall_now_ms};
use super::hub_offset::Reading;
use super::link::{Session, millis};
use super::resolve::ConflictResolver;
use super::sync_report::SyncReport;
use super::turn::turn;
use crate::model::{TableSchema, VectorClock};
use crate::protocol::agent_session::{AgentExchange, Step};
use crate::protocol::message::{Ack, Rows, SyncBegin, ToAgent, ToHub};
use crate::storage::acknowledged::Acknowledged;
use crate::storage::attach::release;
use crate::storage::bookkeeping::SentBatch;
use crate::storage::choice::SyncOptions;
use crate::storage::collect::TurnLimits;
use crate::storage::driver::SqlDriver;
use crate::storage::held_back;
use crate::storage::lease::{Claim, Holder};
use crate::storage::left_alone::tell_catalog;
use crate::storage::look::Slice;
use crate::storage::missing_tables::Missing;
use crate::storage::refused_rows::{Places, RefusedRow};
use crate::storage::replica::{ApplyExtras, CachedCatalog, CollectTurn, Mint, Setting, collect_turn};
use crate::storage::search::{Search, compare};
use crate::transport::{FrameReceiver, FrameSender};

/// Random bytes for new identities, shared with the turns.
pub type SharedMint = Arc<Mutex<Mint>>;

/// A database that is attached on the present connection.
#[derive(Clone, Debug)]
pub struct AttachedDatabase {
    /// The epoch that the hub opened for it.
    pub epoch: u64,
    /// What is known of its schema.
    pub catalog: Option<CachedCatalog>,
    /// The version of the schema of which people have been told which tables are not shared.
    pub noted: Option<i64>,
    /// Whether it sends nothing before it has been told of everything ([`crate::storage::attach::Next::Sync`]).
    pub pulls_first: bool,
    /// Whether attaching has taken the lease, and no turn has given it back.
    pub is_leased: bool,
    /// Rows that the hub had made durable without this agent's knowing, as the attaching has found out.
    pub delivered: u64,
    /// What people should know of the attaching.
    pub notices: Vec<String>,
}

/// What a sync works with.
pub struct SyncJob<'a> {
    /// The connection.
    pub session: &'a Session,
    /// The database.
    pub driver: &'a dyn SqlDriver,
    /// Its attachment.
    pub database: &'a mut AttachedDatabase,
    /// The agent's own clock entry.
    pub counter: u64,
    /// How long no progress is borne.
    pub patience: Duration,
    /// Random bytes.
    pub mint: SharedMint,
    /// Whose lease on the database it is.
    pub holder: Holder,
    /// What the application has chosen.
    pub options: Arc<SyncOptions>,
    /// What resolves conflicts that the rules leave to the application.
    pub resolver: Option<Arc<dyn ConflictResolver>>,
    /// The agent's name.
    pub agent_id: String,
    /// The hub has no room for more rows at present.
    pub is_hub_full: bool,
}

/// A batch under way.
struct UnderWay {
    sent: SentBatch,
    n: u64,
    rows: u64,
    places: Places,
}

/// What has come and is not applied yet.
#[derive(Default)]
pub(super) struct Arrived {
    /// Batches that the hub has acknowledged.
    pub(super) acknowledged: Acknowledged,
    /// Rows of others.
    pub(super) rows: Rows,
    /// What comes besides.
    pub(super) extras: ApplyExtras,
    /// How many rows a turn applies.
    pub(super) pace: Pace,
}

impl Arrived {
    fn is_nothing(&self) -> bool {
        self.acknowledged.is_empty() && self.rows.rows.is_empty() && self.extras.is_empty()
    }
}

/// What the hub told of agents: the clock entries of those that pushed, and which retired ([`Done::retired`]).
#[derive(Clone, Debug, Default)]
pub struct ClockNews {
    /// The entries.
    pub entries: VectorClock,
    /// Names, or nothing if all others are gone.
    pub retired: Option<Vec<String>>,
}

/// Runs one attempt to its end. Adds to the report what it did, also if it fails; returns what the hub told of
/// agents.
pub async fn run(mut job: SyncJob<'_>, report: &mut SyncReport) -> Result<ClockNews, AgentError> {
    report.note_all(std::mem::take(&mut job.database.notices));
    report.pushed += std::mem::take(&mut job.database.delivered);
    if job.database.pulls_first {
        exchange_all(&mut job, report).await?;
        job.database.pulls_first = false;
    }
    exchange_all(&mut job, report).await
}

/// Sends what may be sent, and takes over what comes.
async fn exchange_all(job: &mut SyncJob<'_>, report: &mut SyncReport) -> Result<ClockNews, AgentError> {
    let first = job.collect(report).await?;
    report.quarantined = first.quarantined;
    let state = first.state.clone();
    let mut arrived = Arrived::default();
    arrived.extras.refreshed.clone_from(&first.refresh);
    let (schema, schema_digest) = job.declare(first.schema.as_ref());
    arrived.extras.schema_digest = schema_digest;
    let holds_changes = !job.may_write() && first.collected.more;
    let mut begin = SyncBegin {
        replica: state.replica,
        epoch: job.database.epoch,
        cursor: state.cursor,
        resume: state.resume,
        counter: job.counter,
        schema,
        refresh: first.refresh.clone(),
    };
    let (mut sender, mut receiver) = job.session.connection.open().await?;
    let mut exchange = AgentExchange::new(state.cursor);
    let pushed = job.push(&mut sender, &mut exchange, &begin, first, report).await;
    let (mut under_way, look, asked) = match pushed {
        Ok(pushed) => pushed,
        // The database's own failure: the hub has no part in it, and waits for what will not come.
        Err(error) if error.code == ErrorCode::Database => return Err(error),
        // A hub that stops reading has said why on its own half.
        Err(error) => return Err(refusal(&mut receiver, job.patience).await.unwrap_or(error)),
    };
    let mut contests = Vec::new();
    let mut search = Search::default();
    let clock = loop {
        let message = job.receive(&mut receiver).await?;
        match exchange.receive(message)? {
            Step::Acked(mut ack) => {
                contests.append(&mut ack.contests);
                acknowledged(ack, &mut under_way, &mut arrived, report);
            }
            Step::Compared(prints) => search = Search::new(&look, &prints),
            Step::Tables(tables) => {
                job.take_tables(tables, &mut arrived, report);
            }
            Step::Rows(rows) => {
                job.apply_all(&mut arrived, None, report).await?;
                arrived.rows = rows;
            }
            Step::Done(done) => {
                job.session.renew_clock(asked, done.hub_now_ms);
                let entries = done.clock.iter().map(|(agent, count)| (agent.as_str(), *count)).collect();
                let clock = ClockNews { entries, retired: done.retired.clone() };
                report.tell_refused(&done.refused);
                let refused = done.refused.clone();
                report.note_all(done.notices.iter().cloned());
                (begin.cursor, begin.resume) = (done.cursor, done.cursor);
                let idle =
                    arrived.is_nothing() && done.cursor == state.cursor && done.horizon <= state.buried;
                if !idle {
                    job.apply_all(&mut arrived, Some(done), report).await?;
                } else if job.database.is_leased {
                    let holder = job.holder;
                    let claim = move || Claim { holder, now_ms: wall_now_ms() };
                    turn(job.driver, job.patience, move |sql| release(sql, claim())).await?;
                }
                job.database.is_leased = false;
                job.tell_catalog(&refused, report).await?;
                break clock;
            }
        }
    };
    begin.schema = None;
    job.heal(search, begin, report).await?;
    report.is_held_back = holds_changes && job.is_held_back().await?;
    report.note_all(job.resolve(contests).await?);
    report.bytes_sent += sender.bytes_sent();
    report.bytes_received += receiver.bytes_received();
    Ok(clock)
}

/// Books what the hub has accepted. Its rows are counted once that is in the database: until then, another attempt
/// may be the one to learn of it.
fn acknowledged(ack: Ack, under_way: &mut Vec<UnderWay>, arrived: &mut Arrived, report: &mut SyncReport) {
    let Some(at) = under_way.iter().position(|batch| batch.n == ack.n) else { return };
    let batch = under_way.remove(at);
    let rejected = ack.rejected.len() as u64;
    let refused = RefusedRow::of_batch(batch.sent.mark, &batch.places, &ack.rejected);
    arrived.acknowledged.add(batch.sent, batch.rows.saturating_sub(rejected), refused);
    report.rejected += rejected;
    report.conflicts += u64::from(ack.conflicts);
    report.note_all(ack.notices);
    report
        .note_all(ack.rejected.into_iter().map(|(_, reason)| format!("the hub cannot take a row: {reason}")));
}

/// What the hub said when it stopped listening, if it did.
async fn refusal(receiver: &mut FrameReceiver, patience: Duration) -> Option<AgentError> {
    loop {
        if let ToAgent::Refused(refused) = receiver.next_within::<ToAgent>(patience).await.ok()?? {
            return Some(refused.into());
        }
    }
}

impl SyncJob<'_> {
    /// Says which tables are not shared, and what else there is to say of the schema, wherever it is another than at the
    /// last sync.
    async fn tell_catalog(
        &mut self,
        refused: &[(String, String)],
        report: &mut SyncReport,
    ) -> Result<(), AgentError> {
        let noted = self.database.noted;
        let is_new = |cached: &CachedCatalog| noted != Some(cached.schema_version);
        let Some(cached) = self.database.catalog.clone().filter(is_new) else { return Ok(()) };
        let told = turn(self.driver, self.patience, move |sql| tell_catalog(sql, cached.clone()));
        let (cached, news) = told.await?;
        report.tell_left_alone(&news.left_alone, refused);
        report.note_all(news.notices);
        self.database.noted = Some(cached.schema_version);
        self.database.catalog = Some(cached);
        Ok(())
    }

    /// Keeps definitions: what the tenant has agreed on, and those of tables that are missing here, once they are
    /// proved harmless.
    fn take_tables(&self, tables: Vec<TableSchema>, arrived: &mut Arrived, report: &mut SyncReport) {
        let known = self.database.catalog.as_ref().map(|it| &*it.catalog);
        let mut missing = Missing::of(&tables, known, &self.options);
        report.note_all(missing.notices.drain(..));
        arrived.extras.missing.add(missing);
        arrived.extras.told.extend(tables);
    }

    /// Sends the start, every batch, and the end, and tells when that was: the hub reads its clock after it.
    async fn push(
        &mut self,
        sender: &mut FrameSender,
        exchange: &mut AgentExchange,
        begin: &SyncBegin,
        first: CollectTurn,
        report: &mut SyncReport,
    ) -> Result<(Vec<UnderWay>, Vec<Slice>, Reading), AgentError> {
        let mut under_way = Vec::new();
        self.send(sender, &ToHub::Sync(begin.clone())).await?;
        let CollectTurn { mut collected, mut look, .. } = first;
        loop {
            report.rejected += collected.rejected.len() as u64;
            report.note_all(collected.rejected.into_iter().chain(collected.notices));
            if let Some((sent, batch)) = collected.batch {
                let n = batch.n;
                exchange.sent(n);
                self.send(sender, &ToHub::Batch(batch)).await?;
                under_way.push(UnderWay { sent, n, rows: collected.rows, places: collected.places });
            }
            if !collected.more || !self.may_push() {
                break;
            }
            CollectTurn { collected, look, .. } = self.collect(report).await?;
        }
        if !look.is_empty() {
            let check = compare(&look);
            exchange.asked(check.ranges.len());
            self.send(sender, &ToHub::Check(check)).await?;
        }
        let asked = reading();
        self.send(sender, &ToHub::End).await?;
        sender.finish()?;
        Ok((under_way, look, asked))
    }

    pub(super) async fn send(&self, sender: &mut FrameSender, message: &ToHub) -> Result<(), AgentError> {
        let sent = timeout(self.patience, sender.send(message)).await;
        sent.map_err(|_| AgentError::timeout(millis(self.patience)))??;
        Ok(())
    }

    pub(super) async fn receive(&self, receiver: &mut FrameReceiver) -> Result<ToAgent, AgentError> {
        let answer = timeout(self.patience, receiver.next::<ToAgent>()).await;
        answer.map_err(|_| AgentError::timeout(millis(self.patience)))??.ok_or_else(|| {
            AgentError::new(
                ErrorCode::Protocol,
                "the hub ended the sync before it was complete; nothing is lost, sync again",
            )
        })
    }

    async fn collect(&mut self, report: &mut SyncReport) -> Result<CollectTurn, AgentError> {
        let cached = self.database.catalog.clone();
        let (clock, mint, holder) = (self.session.clock(), self.mint.clone(), self.holder);
        let options = Arc::clone(&self.options);
        let limits = if self.may_push() {
            let limits = TurnLimits::for_frames_of(self.session.welcome.max_frame_bytes);
            TurnLimits { time: turn_time(), ..limits }
        } else {
            held_back::NOTHING
        };
        let found = turn(self.driver, self.patience, move |sql| {
            let mut mint = mint.lock().unwrap_or_else(PoisonError::into_inner);
            let claim = Claim { holder, now_ms: wall_now_ms() };
            let setting = Setting { clock, claim, options: &options };
            collect_turn(sql, cached.clone(), setting, limits, &mut mint)
        });
        let mut found = found.await?;
        report.note_all(found.notices.drain(..));
        report.healed += found.strays;
        self.database.catalog = Some(found.catalog.clone());
        Ok(found)
    }
}
