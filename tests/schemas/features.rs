//! What a random case may contain.

use crate::dice::Dice;

/// A kind of difficulty. A case has some of them, so that a failing one points to what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Foreign keys to numbered tables.
    References,
    /// Foreign keys to tables with a text or blob key.
    NaturalReferences,
    /// Foreign keys of several columns.
    CompositeReferences,
    /// Keys, or parts of keys, that are foreign keys.
    InheritedKeys,
    /// Tables that reference themselves, or each other.
    Cycles,
    /// ON DELETE and ON UPDATE clauses, and deletes of rows that others reference.
    Actions,
    /// Updates of keys.
    KeyEdits,
    /// UNIQUE constraints.
    Unique,
    /// Unique indexes: partial, over expressions, without case.
    UniqueIndexes,
    /// Foreign keys to UNIQUE columns.
    UniqueReferences,
    /// Keys whose collation takes several values for one.
    CollatedKeys,
    /// Triggers.
    Triggers,
    /// Deletes of rows that nobody references.
    Deletes,
    /// Batches and answers that get lost.
    Losses,
    /// Writes while a sync is in flight.
    Meanwhile,
    /// Agents that start from one template.
    Template,
    /// Agents that wrote before their first sync.
    Late,
    /// Numbers at the end of the range.
    HugeNumbers,
    /// Columns with a merge rule.
    Rules,
    /// Merge rules that an agent declares when the columns are in use, and takes back.
    LateRules,
    /// Few tables and many deletes, so that agents meet at the same rows.
    Dense,
    /// Generated columns that must be unique.
    GeneratedKeys,
    /// Unique indexes that some agents make later, over whatever is there, and drop again.
    LateIndexes,
    /// Columns that agents add apart from each other, each with an index.
    LateColumns,
    /// Full-text indexes that triggers keep.
    Search,
    /// Keys of five to sixteen columns.
    LongKeys,
    /// Applications that hand out numbers themselves, and say so.
    Apart,
    /// Numbers that are deleted and inserted again, and families that are deleted child by child.
    Anew,
    /// Indexes that some agents make later, and drop again, and whose expressions fail over some rows.
    FailingRows,
}

/// All but the later ones, which would make another case of every seed that was kept.
pub const ALL: [Feature; 18] = [
    Feature::References,
    Feature::NaturalReferences,
    Feature::CompositeReferences,
    Feature::InheritedKeys,
    Feature::Cycles,
    Feature::Actions,
    Feature::KeyEdits,
    Feature::Unique,
    Feature::UniqueIndexes,
    Feature::UniqueReferences,
    Feature::CollatedKeys,
    Feature::Triggers,
    Feature::Deletes,
    Feature::Losses,
    Feature::Meanwhile,
    Feature::Template,
    Feature::Late,
    Feature::HugeNumbers,
];

/// The features of a case.
#[derive(Clone, Debug)]
pub struct Features(Vec<Feature>);

impl Features {
    /// Some of those that are allowed.
    pub fn draw(dice: &mut Dice, allowed: &[Feature]) -> Self {
        Self(allowed.iter().copied().filter(|_| dice.chance(60)).collect())
    }

    /// These as well.
    pub fn and(mut self, others: &[Feature]) -> Self {
        self.0.extend(others);
        self
    }

    /// Whether the case has this one.
    pub fn has(&self, feature: Feature) -> bool {
        self.0.contains(&feature)
    }
}
