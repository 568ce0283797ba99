//! Vector clocks, as users see them: how much of each agent's work has been merged here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How two vector clocks relate. A partial order: two clocks can be [`ClockOrder::Concurrent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockOrder {
    /// The same knowledge.
    Equal,
    /// The left one knows less.
    Before,
    /// The left one knows more.
    After,
    /// Each knows something the other does not.
    Concurrent,
}

/// A count of syncs for each agent heard of. An agent that is absent counts as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VectorClock(BTreeMap<String, u64>);

impl VectorClock {
    /// The count of one agent.
    pub fn get(&self, agent: &str) -> u64 {
        self.0.get(agent).copied().unwrap_or(0)
    }

    /// Raises one agent's count to at least `count`. Even a count of 0 leaves an entry.
    pub fn raise(&mut self, agent: &str, count: u64) {
        let entry = self.0.entry(agent.to_owned()).or_insert(0);
        *entry = count.max(*entry);
    }

    /// One more for an agent; returns the new count.
    pub fn increment(&mut self, agent: &str) -> u64 {
        let entry = self.0.entry(agent.to_owned()).or_insert(0);
        *entry += 1;
        *entry
    }

    /// Takes the maximum of each entry.
    pub fn merge(&mut self, other: &Self) {
        for (agent, count) in &other.0 {
            self.raise(agent, *count);
        }
    }

    /// Takes in what a hub tells an agent: which entries are new, and which agents have retired; if that is not
    /// known, all but those entries have. The agent's own entry stays.
    pub fn follow(&mut self, news: &Self, retired: Option<&[String]>, own: &str) {
        match retired {
            Some(names) => names.iter().filter(|name| *name != own).for_each(|name| {
                self.0.remove(name);
            }),
            None => self.0.retain(|agent, _| agent == own || news.0.contains_key(agent)),
        }
        self.merge(news);
    }

    /// The entries, by agent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(agent, count)| (agent.as_str(), *count))
    }

    /// Compares what two clocks know.
    pub fn compare(&self, other: &Self) -> ClockOrder {
        let exceeds = |a: &Self, b: &Self| a.iter().any(|(agent, count)| count > b.get(agent));
        match (exceeds(self, other), exceeds(other, self)) {
            (false, false) => ClockOrder::Equal,
            (false, true) => ClockOrder::Before,
            (true, false) => ClockOrder::After,
            (true, true) => ClockOrder::Concurrent,
        }
    }
}

impl<S: Into<String>> FromIterator<(S, u64)> for VectorClock {
    fn from_iter<I: IntoIterator<Item = (S, u64)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(agent, count)| (agent.into(), count)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clocks() -> impl Strategy<Value = VectorClock> {
        prop::collection::btree_map("[a-d]", 0_u64..4, 0..4).prop_map(VectorClock)
    }

    #[test]
    fn who_retired_is_forgotten_but_for_oneself() {
        let all = || VectorClock::from_iter([("own", 3), ("gone", 2), ("here", 1)]);
        let news = VectorClock::from_iter([("new", 1)]);
        let mut clock = all();
        clock.follow(&news, Some(&["gone".into(), "own".into(), "unheard".into()]), "own");
        assert_eq!(clock, VectorClock::from_iter([("own", 3), ("here", 1), ("new", 1)]));
        let mut clock = all();
        clock.follow(&VectorClock::from_iter([("here", 4)]), None, "own");
        assert_eq!(clock, VectorClock::from_iter([("own", 3), ("here", 4)]));
        let mut back = all();
        back.follow(&VectorClock::from_iter([("gone", 1)]), Some(&["gone".into()]), "own");
        assert_eq!(back.get("gone"), 1, "under that name another one has come");
    }

    proptest! {
        #[test]
        fn comparison_is_a_partial_order(a in clocks(), b in clocks(), c in clocks()) {
            prop_assert_eq!(a.compare(&a), ClockOrder::Equal);
            let mirrored = match b.compare(&a) {
                ClockOrder::Before => ClockOrder::After,
                ClockOrder::After => ClockOrder::Before,
                same => same,
            };
            prop_assert_eq!(a.compare(&b), mirrored);
            if a.compare(&b) == ClockOrder::Before && b.compare(&c) == ClockOrder::Before {
                prop_assert_eq!(a.compare(&c), ClockOrder::Before);
            }
        }

        #[test]
        fn merging_is_the_least_upper_bound(a in clocks(), b in clocks()) {
            let (mut ab, mut ba) = (a.clone(), b.clone());
            ab.merge(&b);
            ba.merge(&a);
            prop_assert_eq!(&ab, &ba);
            prop_assert!(matches!(a.compare(&ab), ClockOrder::Equal | ClockOrder::Before));
            prop_assert!(matches!(b.compare(&ab), ClockOrder::Equal | ClockOrder::Before));
        }
    }
}
