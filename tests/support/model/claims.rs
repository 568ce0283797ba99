//! Who has which unique key: what is remembered from one batch to the next.

use std::collections::{BTreeMap, BTreeSet};

use super::history::RowKey;
use super::living::{Family, Having, Raws};
use super::tenant::{Row, Tenant};
use super::unions::Unions;
use super::unique::Key;

/// What was decided about unique keys.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// Which rows are one.
    pub unions: Unions,
    /// Who has a key, and whether one of the rows that it is was made with it.
    pub(super) held: BTreeMap<Key, (RowKey, bool)>,
    /// Who wants a key that another row has.
    pub(super) waiting: BTreeSet<(Key, RowKey)>,
    /// Who had a key last that nobody has, or was written with it when nobody had had it.
    pub(super) former: BTreeMap<Key, RowKey>,
    /// Rows that are told as dead, because what they want is taken.
    pub withheld: BTreeSet<RowKey>,
    /// Columns that show what was told before, because what was written is taken.
    pub(super) kept: BTreeMap<RowKey, Row>,
    /// What is told.
    pub shown: BTreeMap<RowKey, Row>,
}

impl Claims {
    /// Notes that a row was written with these keys. Where nobody has one or had it, that row is meant by it.
    pub fn note_meant(&mut self, keys: impl IntoIterator<Item = Key>, row: &RowKey) {
        for key in keys {
            if !self.held.contains_key(&key) {
                self.former.entry(key).or_insert_with(|| row.clone());
            }
        }
    }

    /// Who references whom, of some rows.
    pub fn family<'a>(&'a self, tenant: &'a Tenant, raws: &'a Raws) -> Family<'a> {
        Family {
            schema: tenant.schema(),
            raws,
            withheld: &self.withheld,
            keys: tenant.keys(),
            held: &self.held,
            having: Having::Wanted,
            former: &self.former,
            unions: &self.unions,
        }
    }

    /// The same, where keys are whose they were when the last batch had been decided about.
    pub fn family_before<'a>(&'a self, tenant: &'a Tenant, raws: &'a Raws) -> Family<'a> {
        Family { having: Having::Before, ..self.family(tenant, raws) }
    }
}
