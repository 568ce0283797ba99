//! A row as its own writes make it, whatever happened around it.

use std::collections::BTreeMap;

use federation_hub::model::{CellValue, Rule, Stamp};

use super::history::{Entry, History, What};
use super::rules;

/// A row as its own writes make it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Raw {
    /// Whether its newest write is newer than its newest delete.
    pub is_alive: bool,
    /// Its cells, by column.
    pub cells: BTreeMap<String, Cell>,
    /// The delete that counts.
    pub deleted: Option<Entry>,
}

/// What is in a cell, and who put it there.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// The value.
    pub value: CellValue,
    /// The greatest stamp among those that had a part in it.
    pub stamp: Stamp,
    /// The writes that made it: the winner, or all that a rule made it of.
    pub made_of: Vec<Entry>,
}

impl Raw {
    /// Merges all that was done to a row. `rule` is the rule of a column.
    pub fn of(history: &History, rule: &dyn Fn(&str) -> Rule) -> Self {
        let mut by_column: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        for entry in &history.entries {
            by_column.entry(entry.column().unwrap_or_default()).or_default().push(entry);
        }
        let deletes = by_column.remove("").unwrap_or_default();
        let written = by_column.values().flatten().map(|entry| entry.stamp).max();
        let mut deleted: Option<Entry> = None;
        for delete in &deletes {
            if deleted.as_ref().is_none_or(|present| present.stamp < delete.stamp) {
                deleted = Some((*delete).clone());
            }
        }
        let cell = |(column, _): (&str, Vec<&Entry>)| {
            let of_column = |entry: &&Entry| entry.column().is_none_or(|it| it == column);
            let writes: Vec<&Entry> = history.entries.iter().filter(of_column).collect();
            let cell = match rule(column) {
                Rule::Lww | Rule::Resolver => last(&writes),
                Rule::Max | Rule::Min => rules::best(rule(column), &writes),
                Rule::Counter | Rule::Set => rules::sum(&writes),
            };
            (column.to_owned(), cell)
        };
        Self {
            is_alive: written > deleted.as_ref().map(|delete| delete.stamp),
            cells: by_column.into_iter().map(cell).collect(),
            deleted,
        }
    }
}

/// Rows that are one: each cell as if all that was done had been done to it.
impl Raw {
    /// Merges rows.
    pub fn united(rows: &[&Self], rule: &dyn Fn(&str) -> Rule) -> Self {
        let mut united = Self::default();
        for row in rows {
            united.is_alive |= row.is_alive;
            if united.deleted.as_ref().map(|it| it.stamp) < row.deleted.as_ref().map(|it| it.stamp) {
                united.deleted.clone_from(&row.deleted);
            }
            for (column, cell) in &row.cells {
                let present = united.cells.remove(column);
                let cell = present.map_or_else(|| cell.clone(), |it| rules::unite(rule(column), &it, cell));
                united.cells.insert(column.clone(), cell);
            }
        }
        if united.is_alive {
            united.deleted = None;
        }
        united
    }
}

/// Whether two things were there before anybody synced: neither is later than the other.
pub fn are_old(one: Stamp, other: Stamp) -> bool {
    one == Stamp::ZERO && other == Stamp::ZERO
}

/// Whether the last write wins.
pub fn is_plain(rule: Rule) -> bool {
    matches!(rule, Rule::Lww | Rule::Resolver)
}

/// The last write wins; of several with one stamp, the one with the greatest value. Of rows older than syncing the first
/// one stands.
fn last(writes: &[&Entry]) -> Cell {
    let mut present: Option<Cell> = None;
    for entry in writes {
        let What::Set(_, value) = &entry.what else { continue };
        let is_later =
            |it: &Cell| !are_old(it.stamp, entry.stamp) && (it.stamp, &it.value) < (entry.stamp, value);
        if present.as_ref().is_none_or(is_later) {
            let (value, made_of) = (value.clone(), vec![(*entry).clone()]);
            present = Some(Cell { value, stamp: entry.stamp, made_of });
        }
    }
    present.expect("a column has a cell only if somebody wrote it")
}
