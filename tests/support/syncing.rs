//! A sync without a network: what the engine does, by hand.

use federation_hub::protocol::hub_request::{PullRequest, RegisterRequest};
use federation_hub::protocol::message::{Ack, Refusal};
use federation_hub::storage::apply::{Applied, Incoming};
use federation_hub::storage::bookkeeping::SentBatch;
use federation_hub::storage::collect::TurnLimits;
use federation_hub::storage::held_back::NOTHING;
use federation_hub::storage::hub_store::StoreError;
use federation_hub::storage::missing_tables::Missing;
use federation_hub::storage::refused_rows::RefusedRow;
use federation_hub::storage::replica::{
    ApplyExtras, CachedCatalog, CollectTurn, Setting, apply_turn, collect_turn,
};
use federation_hub::storage::retrial::Retrial;

use super::checking::Asker;
use super::parts::{cut, is_usual, until_free};
use super::{Agent, Counts, Fate, Hub};

/// The first turn of a push, the batches that the hub has taken, and rows of these that it has not.
type Pushed = (CollectTurn, Vec<SentBatch>, Vec<RefusedRow>);

impl Agent {
    /// Syncs; `meanwhile` is what the application does between the sending and the applying.
    pub fn sync_with(
        &mut self,
        hub: &mut Hub,
        fate: Fate,
        meanwhile: &mut dyn FnMut(&mut Self),
    ) -> Option<Counts> {
        loop {
            match self.try_sync(hub, fate, meanwhile) {
                Ok(counts) => return counts,
                Err(StoreError::Refused(Refusal::Stale, _)) => self.reconnect(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A sync that fails if another session of the replica was opened meanwhile.
    fn try_sync(
        &mut self,
        hub: &mut Hub,
        fate: Fate,
        meanwhile: &mut dyn FnMut(&mut Self),
    ) -> Result<Option<Counts>, StoreError> {
        self.syncs += 1;
        self.told_before = self.notices.len();
        let (epoch, mut catalog) = self.attach(hub);
        let mut counts = Counts { pushed: std::mem::take(&mut self.delivered), ..Counts::default() };
        let pushed = self.push_all(hub, fate, epoch, &mut catalog, &mut counts)?;
        let Some((first, mut acked, mut refused)) = pushed.filter(|_| fate != Fate::LosesAnswer) else {
            self.attached = None;
            return Ok(None);
        };
        let request = PullRequest {
            replica: first.state.replica,
            epoch,
            cursor: first.state.cursor,
            resume: first.state.resume,
            refresh: first.refresh.clone(),
        };
        let mut asker = Asker { replica: request.replica, epoch, cursor: request.cursor };
        let search = self.compare(hub, asker, &first.look)?;
        let now_ms = self.hub_clock().now_ms;
        let snapshot = hub.snapshot(&self.caller, &request, now_ms)?;
        meanwhile(self);
        let mut chunks = vec![snapshot.first];
        if let Some(mut rest) = snapshot.rest {
            while let Some(chunk) = rest.next_chunk().unwrap() {
                chunks.push(chunk);
            }
        }
        let mut told = snapshot.tables;
        let known = catalog.as_ref().map(|it| it.catalog.clone());
        let mut missing = Missing::of(&told, known.as_deref(), &self.options);
        assert_eq!(missing.notices, Vec::<String>::new());
        let slices = cut(chunks, self.slice);
        let last = slices.len() - 1;
        for (at, rows) in slices.into_iter().enumerate() {
            if fate == Fate::InterruptedPull(at) {
                self.attached = None;
                return Ok(None);
            }
            let mut extras = ApplyExtras {
                told: std::mem::take(&mut told),
                missing: std::mem::take(&mut missing),
                schema_digest: first.schema.as_ref().map(|(_, digest)| *digest),
                refreshed: first.refresh.clone(),
            };
            let done = (at == last).then(|| snapshot.done.clone());
            let retry = done.is_some() && (first.quarantined > 0 || counts.quarantined > 0);
            let (acked, refused) = (std::mem::take(&mut acked), std::mem::take(&mut refused));
            let mut incoming = Incoming { acked, refused, rows, done, retry };
            let mut retrial = Retrial::within(self.time);
            retrial.set_pace(self.slice);
            for turns in 0.. {
                if fate == Fate::InterruptedRetrial(turns) && turns > 0 {
                    self.attached = None;
                    return Ok(None);
                }
                let turn = self.apply_turn(&mut catalog, &extras, &incoming, &mut retrial);
                counts.pulled += turn.rows;
                counts.quarantined = turn.quarantined;
                if !turn.is_unfinished {
                    break;
                }
                incoming = incoming.rest();
                (extras.refreshed, extras.told) = (Vec::new(), Vec::new());
                extras.missing = Missing::default();
            }
        }
        asker.cursor = snapshot.done.cursor;
        self.heal(hub, asker, search, &mut catalog, &mut counts)?;
        self.notices.extend(snapshot.done.refused.iter().map(|(_, reason)| reason.clone()));
        self.notices.extend(snapshot.done.notices.clone());
        self.attached = Some((epoch, catalog));
        if std::mem::take(&mut self.pulls_first) {
            let then = self.try_sync(hub, fate, &mut |_| {})?;
            return Ok(then.map(|then| counts.and(then)));
        }
        Ok(Some(counts))
    }

    /// What a report of a sync has once.
    fn tell(&mut self, notices: Vec<String>) {
        for notice in notices {
            if !self.notices[self.told_before..].contains(&notice) {
                self.notices.push(notice);
            }
        }
    }

    /// One applying turn.
    fn apply_turn(
        &mut self,
        catalog: &mut Option<CachedCatalog>,
        extras: &ApplyExtras,
        incoming: &Incoming,
        retrial: &mut Retrial,
    ) -> Applied {
        let (clock, claim) = (self.hub_clock(), self.claim());
        let turn = until_free(|| {
            let setting = Setting { clock, claim, options: &self.options };
            apply_turn(&mut self.sql, catalog.clone(), setting, &mut self.mint, extras, incoming, retrial)
        });
        self.tell(turn.notices.clone());
        let is_borne = |notice: &str| self.bears_damage && notice.contains(" index ");
        let is_unexpected = |notice: &&String| !is_usual(notice) && !is_borne(notice);
        let unexpected: Vec<&String> = turn.notices.iter().filter(is_unexpected).collect();
        assert_eq!(unexpected, Vec::<&String>::new());
        *catalog = Some(turn.catalog);
        turn.applied
    }

    /// Collects and pushes all that there is. Returns the first turn, the batches that the hub has taken, and rows of
    /// these that it has not; nothing if a batch gets lost.
    fn push_all(
        &mut self,
        hub: &mut Hub,
        fate: Fate,
        epoch: u64,
        catalog: &mut Option<CachedCatalog>,
        counts: &mut Counts,
    ) -> Result<Option<Pushed>, StoreError> {
        let (mut acked, mut refused) = (Vec::new(), Vec::new());
        let mut first = None;
        loop {
            let (clock, claim) = (self.hub_clock(), self.claim());
            let turn = until_free(|| {
                let setting = Setting { clock, claim, options: &self.options };
                let limits = if self.pulls_first { NOTHING } else { self.limits };
                let limits = TurnLimits { time: self.time, ..limits };
                collect_turn(&mut self.sql, catalog.clone(), setting, limits, &mut self.mint)
            });
            let look = turn.look.clone();
            assert!(self.bears_damage || turn.strays == 0, "{:?}", turn.notices);
            counts.healed += turn.strays;
            self.notices.extend(turn.notices.iter().cloned());
            *catalog = Some(turn.catalog.clone());
            let (more, rows) = (turn.collected.more, turn.collected.rows);
            self.told.extend(turn.collected.notices.clone());
            self.notices.extend(turn.collected.notices.clone());
            if first.is_none()
                && let Some((schema, _)) = &turn.schema
            {
                let schema = self.sql.declared(schema.clone());
                let request = RegisterRequest {
                    replica: turn.state.replica,
                    epoch,
                    cursor: turn.state.cursor,
                    schema,
                    may_define: true,
                };
                hub.register(&self.caller, &request)?;
            }
            if let Some((sent, batch)) = &turn.collected.batch {
                if fate == Fate::LosesBatch || fate == Fate::LosesBatchAfter(acked.len()) {
                    self.lost = Some((turn.state.replica, epoch, batch.clone()));
                    return Ok(None);
                }
                let ack = hub.push(&self.caller, turn.state.replica, epoch, self.syncs, batch)?;
                refused.extend(RefusedRow::of_batch(sent.mark, &turn.collected.places, &ack.rejected));
                self.take_ack(ack, counts);
                counts.pushed += rows;
                acked.push(*sent);
            }
            let first_turn = first.get_or_insert(turn);
            if !more || self.pulls_first {
                // The last turn has looked at rows, if any has.
                first_turn.look = look;
                return Ok(first.map(|first| (first, acked, refused)));
            }
        }
    }

    /// Notes what the hub says to a batch.
    fn take_ack(&mut self, ack: Ack, counts: &mut Counts) {
        counts.conflicts += u64::from(ack.conflicts);
        if self.bears_rejection {
            counts.rejected += ack.rejected.len() as u64;
            self.notices.extend(ack.rejected.into_iter().map(|(_, reason)| reason));
        } else {
            assert_eq!(ack.rejected, vec![]);
        }
        self.contests.extend(ack.contests);
        self.tell(ack.notices);
    }

    /// Syncs, and is told of everything before it sends anything.
    pub fn pull_first(&mut self, hub: &mut Hub) -> Counts {
        self.attach(hub);
        self.pulls_first = true;
        self.sync(hub)
    }

    /// Syncs to the end, with nothing happening meanwhile.
    pub fn sync(&mut self, hub: &mut Hub) -> Counts {
        self.sync_with(hub, Fate::Complete, &mut |_| {}).unwrap()
    }
}
