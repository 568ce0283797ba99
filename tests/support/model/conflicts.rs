//! Which cells of a push are in conflict with what the hub has.

use federation_hub::model::{Rule, Stamp};

use super::history::{Entry, What};
use super::raw::{Raw, is_plain};

/// How many conflicts there are between a row and what somebody does to it: cells whose value differs from the
/// present one and is concurrent with it, whichever side wins; and once for the row, a delete against an edit.
pub fn count(row: &Raw, done: &[Entry], rule: &dyn Fn(&str) -> Rule) -> u32 {
    let cells = done.iter().filter(|entry| is_cell_in_conflict(row, entry, rule)).count();
    let existence = done.iter().any(|entry| is_existence_in_conflict(row, entry));
    u32::try_from(cells).unwrap() + u32::from(existence)
}

fn is_cell_in_conflict(row: &Raw, entry: &Entry, rule: &dyn Fn(&str) -> Rule) -> bool {
    // What is older than syncing is in conflict with nothing.
    let What::Set(column, value) = &entry.what else { return false };
    if entry.stamp == Stamp::ZERO || !is_plain(rule(column)) {
        return false;
    }
    row.cells.get(column).is_some_and(|present| {
        let is_concurrent =
            present.made_of.iter().any(|made| made.is_concurrent_with(entry.push.0, entry.base));
        is_concurrent && present.value != *value
    })
}

fn is_existence_in_conflict(row: &Raw, entry: &Entry) -> bool {
    let is_concurrent = |made: &Entry| made.is_concurrent_with(entry.push.0, entry.base);
    match &entry.what {
        What::Delete => row.is_alive && row.cells.values().flat_map(|cell| &cell.made_of).any(is_concurrent),
        _ if entry.stamp == Stamp::ZERO => false,
        _ => !row.is_alive && row.deleted.as_ref().is_some_and(is_concurrent),
    }
}
