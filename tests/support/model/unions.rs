//! Rows that are one.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::{CellValue, Seq};

use super::history::RowKey;
use super::living::Raws;
use super::raw::Raw;

/// Which rows are one with which.
#[derive(Clone, Debug, Default)]
pub struct Unions {
    /// Rows that go under another one's identity: that one, and since when.
    lost: BTreeMap<RowKey, (RowKey, Seq)>,
}

impl Unions {
    /// The row under whose identity a row goes.
    pub fn entity(&self, row: &RowKey) -> RowKey {
        self.lost.get(row).map_or_else(|| row.clone(), |(survivor, _)| survivor.clone())
    }

    /// The rows that are one with a row that stands for itself, that one included.
    pub fn members(&self, entity: &RowKey) -> Vec<RowKey> {
        let others = self.lost.iter().filter(|(_, (survivor, _))| survivor == entity).map(|(row, _)| row);
        std::iter::once(entity).chain(others).cloned().collect()
    }

    /// Since when a row goes under another one's identity.
    pub fn lost_since(&self, row: &RowKey) -> Option<Seq> {
        self.lost.get(row).map(|(_, since)| *since)
    }

    /// The rows that somebody with this base knew to be one with a row that stands for itself.
    pub fn known(&self, entity: &RowKey, base: Seq) -> Vec<RowKey> {
        let mut members = self.members(entity);
        members.retain(|row| self.lost_since(row).is_none_or(|since| since <= base));
        members
    }

    /// Puts a row, and all that are one with it, under another one's identity.
    pub fn unite(&mut self, loser: &RowKey, survivor: &RowKey, now: Seq) {
        for member in self.members(loser) {
            self.lost.insert(member, (survivor.clone(), now));
        }
    }

    /// A row stands for itself again.
    pub fn leave(&mut self, row: &RowKey) {
        self.lost.remove(row);
    }

    /// Takes a row out from among those that are one. Returns whoever stands for the others from now on: the first
    /// of `others` if the row did, itself one of those that live.
    pub fn part(&mut self, row: &RowKey, others: &[RowKey], now: Seq) -> RowKey {
        let entity = self.entity(row);
        let heir = if *row == entity { others[0].clone() } else { entity.clone() };
        let rest = self.members(&entity);
        self.lost.remove(row);
        self.lost.remove(&heir);
        for member in rest.into_iter().filter(|member| member != row && *member != heir) {
            let is_there = self.lost.get(&member).is_some_and(|(survivor, _)| *survivor == heir);
            if !is_there {
                self.lost.insert(member, (heir.clone(), now));
            }
        }
        heir
    }

    /// A value, a reference by the identity under which its row goes.
    pub fn value(&self, value: &CellValue) -> CellValue {
        let CellValue::Ref(id) = value else { return value.clone() };
        let survivor = self.lost.iter().find(|(row, _)| row.1 == *id).map(|(_, (survivor, _))| survivor.1);
        CellValue::Ref(survivor.unwrap_or(*id))
    }

    /// Rows with such values.
    pub fn with_references(&self, mut raws: Raws) -> Raws {
        for cell in raws.values_mut().flat_map(|raw| raw.cells.values_mut()) {
            cell.value = self.value(&cell.value);
        }
        raws
    }

    /// Rows that stand for themselves, each with all that is one with it, in the order of `rank`.
    pub fn united<R: Ord>(
        &self,
        raws: &Raws,
        rank: impl Fn(&RowKey) -> R,
        unite: impl Fn(&str, Vec<&Raw>) -> Raw,
    ) -> Raws {
        let stand: BTreeSet<&RowKey> = raws.keys().filter(|row| !self.lost.contains_key(*row)).collect();
        let united = |row: &RowKey| {
            let mut members = self.members(row);
            members.sort_by_key(&rank);
            let members: Vec<&Raw> = members.iter().map(|member| &raws[member]).collect();
            let alive: Vec<&Raw> = members.iter().copied().filter(|raw| raw.is_alive).collect();
            (row.clone(), unite(&row.0, if alive.is_empty() { members } else { alive }))
        };
        stand.into_iter().map(united).collect()
    }
}
