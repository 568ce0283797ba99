//! Who holds how much of a hub's memory for messages, and who waits for some. Pure: nobody sleeps here.
//!
//! A tenant may hold as much as stays free for the others. So one tenant alone takes at most half of the whole, two take
//! a third each, and whoever comes next finds as much as each of them has.

use std::collections::{BTreeMap, HashMap};

/// A request for less than this, in bytes, does not wait behind larger ones of its tenant that do not fit.
const SMALL_BYTES: u64 = 64 << 10;

/// The memory of a hub. `W` is what is kept for whoever waits, to be handed out when there is room.
#[derive(Debug)]
pub(super) struct Ledger<W> {
    total: u64,
    held: u64,
    peak: u64,
    /// The number of the next who waits.
    next: u64,
    tenants: HashMap<String, Share<W>>,
    /// The tenants that wait, by the number of their first request.
    waiting: BTreeMap<u64, String>,
}

/// What a tenant holds and waits for.
#[derive(Debug)]
struct Share<W> {
    held: u64,
    /// The bytes of each request, in the order in which they came.
    waiting: BTreeMap<u64, (u64, W)>,
}

impl<W> Default for Share<W> {
    fn default() -> Self {
        Self { held: 0, waiting: BTreeMap::new() }
    }
}

impl<W> Ledger<W> {
    /// Nobody holds any of so many bytes.
    pub(super) fn new(total: u64) -> Self {
        Self { total, held: 0, peak: 0, next: 0, tenants: HashMap::new(), waiting: BTreeMap::new() }
    }

    /// The bytes that all tenants hold.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The most that they have ever held.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// The bytes that a tenant holds.
    pub(super) fn held_by(&self, tenant: &str) -> u64 {
        self.tenants.get(tenant).map_or(0, |share| share.held)
    }

    fn fits(&self, tenant: &str, bytes: u64) -> bool {
        let held = self.held.saturating_add(bytes);
        held <= self.total && self.held_by(tenant).saturating_add(bytes) <= self.total - held
    }

    fn take(&mut self, tenant: &str, bytes: u64) {
        self.held += bytes;
        self.peak = self.peak.max(self.held);
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.held += bytes;
        } else {
            let share = Share { held: bytes, ..Share::default() };
            self.tenants.insert(tenant.to_owned(), share);
        }
    }

    /// Takes bytes for a tenant if they are free, and nobody of it has waited longer.
    pub(super) fn try_take(&mut self, tenant: &str, bytes: u64) -> bool {
        let must_queue =
            bytes >= SMALL_BYTES && self.tenants.get(tenant).is_some_and(|share| !share.waiting.is_empty());
        let is_taken = !must_queue && self.fits(tenant, bytes);
        if is_taken {
            self.take(tenant, bytes);
        }
        is_taken
    }

    /// Has a request wait; its number.
    pub(super) fn wait(&mut self, tenant: &str, bytes: u64, waiter: W) -> u64 {
        let number = self.next;
        self.next += 1;
        let share = self.tenants.entry(tenant.to_owned()).or_default();
        if share.waiting.is_empty() {
            self.waiting.insert(number, tenant.to_owned());
        }
        share.waiting.insert(number, (bytes, waiter));
        number
    }

    /// Gives bytes back; returns who has got what it waited for.
    pub(super) fn give_back(&mut self, tenant: &str, bytes: u64) -> Vec<W> {
        self.held = self.held.saturating_sub(bytes);
        if let Some(share) = self.tenants.get_mut(tenant) {
            share.held = share.held.saturating_sub(bytes);
        }
        self.forget(tenant);
        self.serve()
    }

    /// Takes a request back that has waited, or has just got its bytes; returns who has got what it waited for.
    pub(super) fn abandon(&mut self, tenant: &str, bytes: u64, number: u64) -> Vec<W> {
        if self.unqueue(tenant, number).is_none() {
            return self.give_back(tenant, bytes);
        }
        self.forget(tenant);
        self.serve()
    }

    /// Ends the waiting of a request.
    fn unqueue(&mut self, tenant: &str, number: u64) -> Option<(u64, W)> {
        let share = self.tenants.get_mut(tenant)?;
        let request = share.waiting.remove(&number)?;
        if self.waiting.remove(&number).is_some()
            && let Some((first, _)) = share.waiting.first_key_value()
        {
            self.waiting.insert(*first, tenant.to_owned());
        }
        Some(request)
    }

    fn forget(&mut self, tenant: &str) {
        if self.tenants.get(tenant).is_some_and(|share| share.held == 0 && share.waiting.is_empty()) {
            self.tenants.remove(tenant);
        }
    }

    /// Serves whoever has waited longest and fits, until nobody does.
    fn serve(&mut self) -> Vec<W> {
        let mut served = Vec::new();
        loop {
            let first = self.waiting.iter().find_map(|(number, tenant)| {
                let (bytes, _) = self.tenants.get(tenant)?.waiting.get(number)?;
                self.fits(tenant, *bytes).then(|| (*number, tenant.clone()))
            });
            let Some((number, tenant)) = first else { return served };
            let Some((bytes, waiter)) = self.unqueue(&tenant, number) else { return served };
            self.take(&tenant, bytes);
            served.push(waiter);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn one_tenant_takes_half_two_take_a_third_each_and_the_next_still_finds_room() {
        let mut ledger = Ledger::<u32>::new(12 * MIB);
        let take_all = |ledger: &mut Ledger<u32>, tenant: &str| {
            while ledger.try_take(tenant, MIB / 2) {}
            ledger.held_by(tenant)
        };
        assert_eq!(take_all(&mut ledger, "a"), 6 * MIB);
        assert_eq!(take_all(&mut ledger, "b"), 3 * MIB);
        assert!(ledger.try_take("c", MIB), "there is room for whoever comes next");
        assert!(!ledger.try_take("a", 1));
        assert_eq!((ledger.held(), ledger.peak()), (10 * MIB, 10 * MIB));
    }

    #[test]
    fn who_waits_is_served_in_order_and_nobody_waits_for_another_tenants_share() {
        let mut ledger = Ledger::new(12 * MIB);
        assert!(ledger.try_take("a", 6 * MIB));
        ledger.wait("a", 4 * MIB, 1);
        ledger.wait("a", MIB, 2);
        assert!(!ledger.try_take("a", SMALL_BYTES));
        assert!(ledger.try_take("b", 2 * MIB), "the other tenant does not wait");
        assert_eq!(ledger.give_back("a", 2 * MIB), [] as [i32; 0], "the first is too large, and comes first");
        assert!(!ledger.try_take("a", SMALL_BYTES), "nobody overtakes it");
        assert!(ledger.try_take("a", SMALL_BYTES - 1), "but what is small");
        assert_eq!(ledger.give_back("a", 4 * MIB + SMALL_BYTES - 1), [1, 2]);
        assert_eq!(ledger.held_by("a"), 5 * MIB);
    }

    #[test]
    fn who_gives_up_leaves_nothing_whether_it_was_served_or_not() {
        let mut ledger = Ledger::new(4 * MIB);
        assert!(ledger.try_take("a", 2 * MIB));
        let large = ledger.wait("a", 2 * MIB, 1);
        ledger.wait("a", MIB, 2);
        assert_eq!(ledger.give_back("a", MIB), [] as [i32; 0]);
        assert_eq!(ledger.abandon("a", 2 * MIB, large), [2], "the next has its turn");
        let late = ledger.wait("a", MIB, 3);
        assert_eq!(ledger.give_back("a", MIB), [3]);
        assert_eq!(ledger.abandon("a", MIB, late), [] as [i32; 0]);
        ledger.give_back("a", MIB);
        assert!(ledger.held() == 0 && ledger.tenants.is_empty() && ledger.waiting.is_empty());
    }

    proptest! {
        /// No tenant holds more than it may, nothing is lost, and nobody waits who is the first of its tenant and fits.
        #[test]
        fn shares_are_kept(steps in prop::collection::vec((0_usize..4, 1_u64..40, any::<bool>()), 1..200)) {
            let names = ["a", "b", "c", "d"];
            let mut ledger = Ledger::new(100);
            let mut held: Vec<(usize, u64)> = Vec::new();
            for (tenant, bytes, takes) in steps {
                let served = if takes || held.is_empty() {
                    if ledger.try_take(names[tenant], bytes) {
                        held.push((tenant, bytes));
                    } else {
                        ledger.wait(names[tenant], bytes, (tenant, bytes));
                    }
                    Vec::new()
                } else {
                    let (tenant, bytes) = held.swap_remove(tenant % held.len());
                    ledger.give_back(names[tenant], bytes)
                };
                held.extend(served);
                let sum: u64 = held.iter().map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(ledger.held(), sum);
                prop_assert!(sum <= 100 && ledger.peak() <= 100);
                for name in names {
                    prop_assert!(ledger.held_by(name) <= 50);
                    let first = ledger.tenants.get(name).and_then(|share| share.waiting.first_key_value());
                    if let Some((number, (bytes, _))) = first {
                        prop_assert!(!ledger.fits(name, *bytes), "{} waits for nothing", name);
                        prop_assert_eq!(ledger.waiting.get(number).map(String::as_str), Some(name));
                    }
                }
            }
        }
    }
}
