//! The self-check of a sync that goes without a network: what the engine does, by hand.

use federation_hub::model::{ReplicaId, Seq};
use federation_hub::protocol::check::{Check, CheckRequest, Prints};
use federation_hub::protocol::message::Rows;
use federation_hub::storage::heal::{heal_turn, look_turn};
use federation_hub::storage::hub_store::{HubStore, StoreError};
use federation_hub::storage::look::Slice;
use federation_hub::storage::replica::{CachedCatalog, Setting};
use federation_hub::storage::search::{Search, Step, compare, fetch};

use super::parts::{Counts, until_free};
use super::{Agent, Hub};

/// Who asks, and as of which position.
#[derive(Clone, Copy)]
pub struct Asker {
    pub replica: ReplicaId,
    pub epoch: u64,
    pub cursor: Seq,
}

impl Agent {
    fn ask(&mut self, hub: &mut Hub, asker: Asker, check: Check) -> Result<(Rows, Prints), StoreError> {
        let Asker { replica, epoch, cursor } = asker;
        self.exchanges += 1;
        let request = CheckRequest { replica, epoch, cursor, check };
        let checked = hub.store.check(&self.caller, &request)?;
        Ok((checked.rows, checked.prints))
    }

    /// Asks what the hub has where this sync has looked.
    pub(super) fn compare(
        &mut self,
        hub: &mut Hub,
        asker: Asker,
        look: &[Slice],
    ) -> Result<Search, StoreError> {
        if look.is_empty() {
            return Ok(Search::default());
        }
        self.looked_at += look.iter().map(|slice| slice.rows.len()).sum::<usize>();
        let (_, prints) = self.ask(hub, asker, compare(look))?;
        Ok(Search::new(look, &prints))
    }

    /// Finds and heals what differs.
    pub(super) fn heal(
        &mut self,
        hub: &mut Hub,
        asker: Asker,
        mut search: Search,
        catalog: &mut Option<CachedCatalog>,
        counts: &mut Counts,
    ) -> Result<(), StoreError> {
        while let Some(step) = search.next_step() {
            let Some(cached) = catalog.clone() else { return Ok(()) };
            let (clock, claim) = (self.hub_clock(), self.claim());
            match step {
                Step::Narrow(ranges) => {
                    let parts = until_free(|| {
                        let setting = Setting { clock, claim, options: &self.options };
                        look_turn(&mut self.sql, &cached, setting, asker.cursor, &ranges)
                    });
                    if !parts.is_empty() {
                        let (_, prints) = self.ask(hub, asker, compare(&parts))?;
                        search.narrowed(&parts, &prints);
                    }
                }
                Step::Fetch(ranges) => {
                    let name = &self.caller.agent;
                    assert!(self.bears_damage, "{name} differs from the hub in {ranges:?}");
                    let (rows, prints) = self.ask(hub, asker, fetch(&ranges))?;
                    for fetched in search.fetched(ranges, &rows, prints) {
                        let Some(cached) = catalog.clone() else { return Ok(()) };
                        let healed = until_free(|| {
                            let setting = Setting { clock, claim, options: &self.options };
                            let mint = &mut self.mint;
                            heal_turn(&mut self.sql, &cached, setting, mint, asker.cursor, &fetched)
                        });
                        *catalog = healed.catalog.or(Some(cached));
                        counts.healed += healed.rows;
                        counts.quarantined = healed.quarantined.unwrap_or(counts.quarantined);
                        self.notices.extend(healed.notices);
                    }
                }
            }
        }
        Ok(())
    }
}
