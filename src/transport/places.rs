//! How many connections a hub has from where.
//!
//! Everybody can write any address on a packet, so the second half of an address's places is only for who has proven
//! that it is his (a Retry packet, one more round trip): forged packets never take them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// The hub has as many connections as it may.
    InAll,
    /// The address has.
    FromAddress,
}

/// What to do with somebody who wants a place.
#[derive(Debug)]
pub(super) enum Judgement {
    /// Here it is.
    Place(Place),
    /// Only if the address is proven.
    Prove,
    /// There is none. The last value says whether it is the first time since there was one.
    Refuse(TooMany, bool),
}

/// The places of a hub's endpoint.
#[derive(Debug)]
pub(super) struct Places {
    in_all: u64,
    from_address: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: u64,
    /// Whether somebody was refused since there was a place.
    is_told: bool,
    by_address: HashMap<IpAddr, Share>,
}

#[derive(Debug, Default)]
struct Share {
    count: u64,
    is_told: bool,
}

/// A place that is taken. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// So many in all, and so many from one address, or from one IPv6 network of 64 bits.
    pub(super) fn new(in_all: u64, from_address: u64) -> Arc<Self> {
        Arc::new(Self { in_all, from_address, taken: Mutex::default() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection from there.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, is_proven: bool) -> Judgement {
        let address = origin(address);
        let mut taken = self.taken();
        if taken.count >= self.in_all {
            return Judgement::Refuse(TooMany::InAll, !std::mem::replace(&mut taken.is_told, true));
        }
        let count = taken.by_address.get(&address).map_or(0, |share| share.count);
        if count >= self.from_address / 2 && !is_proven {
            return Judgement::Prove;
        }
        let share = taken.by_address.entry(address).or_default();
        if share.count >= self.from_address {
            return Judgement::Refuse(TooMany::FromAddress, !std::mem::replace(&mut share.is_told, true));
        }
        share.count += 1;
        taken.count += 1;
        Judgement::Place(Place { places: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.count -= 1;
        taken.is_told = false;
        if let Some(share) = taken.by_address.get_mut(&self.address) {
            share.count -= 1;
            share.is_told = false;
            if share.count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What counts as one address: whoever has an IPv6 address has a whole network of 64 bits.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn place(places: &Arc<Places>, from: &str, is_proven: bool) -> Place {
        match places.take(address(from), is_proven) {
            Judgement::Place(place) => place,
            other => panic!("{from}: {other:?}"),
        }
    }

    #[test]
    fn who_forges_an_address_takes_half_of_its_places_at_most() {
        let places = Places::new(100, 4);
        let forged = [place(&places, "10.0.0.1", false), place(&places, "10.0.0.1", false)];
        assert!(matches!(places.take(address("10.0.0.1"), false), Judgement::Prove));
        let proven = [place(&places, "10.0.0.1", true), place(&places, "10.0.0.1", true)];
        for is_first in [true, false] {
            let judgement = places.take(address("10.0.0.1"), true);
            assert!(matches!(judgement, Judgement::Refuse(TooMany::FromAddress, first) if first == is_first));
        }
        place(&places, "10.0.0.2", false);
        drop((forged, proven));
        assert!(places.taken().by_address.is_empty(), "an address that is gone costs nothing");
        place(&places, "10.0.0.1", false);
    }

    #[test]
    fn with_one_place_for_an_address_everybody_proves_his() {
        let places = Places::new(100, 1);
        assert!(matches!(places.take(address("10.0.0.1"), false), Judgement::Prove));
        let _only = place(&places, "10.0.0.1", true);
        assert!(matches!(places.take(address("10.0.0.1"), true), Judgement::Refuse(TooMany::FromAddress, _)));
    }

    #[test]
    fn an_ipv6_network_counts_once_and_a_mapped_address_as_what_it_is() {
        let places = Places::new(100, 2);
        let taken = [
            place(&places, "2001:db8::1", true),
            place(&places, "2001:db8::2", true),
            place(&places, "10.0.0.1", true),
            place(&places, "::ffff:10.0.0.1", true),
        ];
        for full in ["2001:db8::3", "10.0.0.1", "::ffff:10.0.0.1"] {
            assert!(matches!(places.take(address(full), true), Judgement::Refuse(TooMany::FromAddress, _)));
        }
        place(&places, "2001:db8:0:1::1", true);
        drop(taken);
    }

    #[test]
    fn there_are_so_many_places_in_all_and_one_that_is_free_is_taken_again() {
        let places = Places::new(2, 2);
        let first = place(&places, "10.0.0.1", false);
        let _second = place(&places, "10.0.0.2", false);
        for is_first in [true, false] {
            let judgement = places.take(address("10.0.0.3"), false);
            assert!(matches!(judgement, Judgement::Refuse(TooMany::InAll, first) if first == is_first));
        }
        drop(first);
        let _third = place(&places, "10.0.0.3", false);
        assert!(matches!(places.take(address("10.0.0.3"), false), Judgement::Refuse(TooMany::InAll, true)));
    }
}
