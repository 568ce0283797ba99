//! The columns of a table that the bookkeeping has numbers for, and what became of them.
//!
//! SQLite appends a column that is added, keeps the place of one that is renamed, and closes the gap behind one
//! that is dropped. So a table's columns, compared with what they were, tell which of these happened.

use serde::{Deserialize, Serialize};

use super::row_meta::LocalColumn;

/// A column that the table has, or had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KnownColumn {
    name: String,
    /// The column that it was before it was renamed.
    was: Option<LocalColumn>,
    /// Its place in the table; none once it is dropped.
    place: Option<usize>,
}

/// All columns that a table ever had. A column's number is its position here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KnownColumns(Vec<KnownColumn>);

/// What a look at a table's columns found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Something is not as it was.
    pub changed: bool,
    /// There are columns that were not there.
    pub added: bool,
    /// Some of these are others, renamed.
    pub renamed: bool,
}

impl KnownColumns {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the column that is at this place now.
    pub fn number(&self, place: usize) -> Option<LocalColumn> {
        let at = self.0.iter().position(|column| column.place == Some(place))?;
        LocalColumn::try_from(at).ok()
    }

    /// The column that one was before it was renamed.
    pub fn was(&self, number: LocalColumn) -> Option<LocalColumn> {
        self.0.get(usize::from(number))?.was
    }

    /// Takes note of a table's columns as they are now. `is_rebuilt` says that the table was made anew, perhaps
    /// with its columns in another order.
    ///
    /// A column that is back under the name of a dropped one is another column: its values are defaults. One that
    /// was dropped, and added again as the last, looks as if nothing had happened.
    pub fn follow(&mut self, names: &[&str], is_rebuilt: bool) -> Found {
        let before = self.clone();
        let mut live: Vec<usize> = (0..self.0.len()).filter(|&at| self.0[at].place.is_some()).collect();
        live.sort_by_key(|&at| self.0[at].place);
        let kept = self.keep(&live, names, is_rebuilt);
        let origins = rename(&live, &kept);
        for &at in &live {
            self.0[at].place = None;
        }
        let mut found = Found::default();
        for (place, name) in names.iter().enumerate() {
            if let Some(at) = kept[place] {
                self.0[at].place = Some(place);
                (*name).clone_into(&mut self.0[at].name);
            } else {
                let was = origins[place].and_then(|at| LocalColumn::try_from(at).ok());
                found.added = true;
                found.renamed |= was.is_some();
                self.0.push(KnownColumn { name: (*name).to_owned(), was, place: Some(place) });
            }
        }
        found.changed = *self != before;
        found
    }

    /// Which of the columns that were there each name is: those whose order is what it was.
    fn keep(&self, live: &[usize], names: &[&str], is_rebuilt: bool) -> Vec<Option<usize>> {
        let mut from = 0;
        let mut kept = Vec::with_capacity(names.len());
        for name in names {
            let place = live.iter().position(|&at| self.0[at].name.eq_ignore_ascii_case(name));
            let place = place.filter(|&place| is_rebuilt || place >= from);
            from = place.map_or(from, |place| from.max(place + 1));
            kept.push(place.map(|place| live[place]));
        }
        kept
    }
}

/// For each place, the column that was renamed to the one that is there now. Between two columns that stayed,
/// as many new ones as are gone are the same ones, renamed; behind the last of them others may have been added.
fn rename(live: &[usize], kept: &[Option<usize>]) -> Vec<Option<usize>> {
    let mut origins = vec![None; kept.len()];
    let stays = |at: &usize| kept.contains(&Some(*at));
    let mut start = 0;
    while start <= kept.len() {
        // A gap of new columns, and where it ends.
        let end = kept[start..].iter().position(Option::is_some).map_or(kept.len(), |length| start + length);
        let after = start.checked_sub(1).and_then(|place| kept[place]);
        let first =
            after.map_or(Some(0), |at| live.iter().position(|&other| other == at).map(|place| place + 1));
        let gone: Vec<usize> =
            live[first.unwrap_or(live.len())..].iter().copied().take_while(|at| !stays(at)).collect();
        let is_last = end == kept.len();
        if gone.len() == end - start || (is_last && gone.len() < end - start) {
            for (place, at) in (start..end).zip(gone) {
                origins[place] = Some(at);
            }
        }
        start = end + 1;
    }
    origins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> KnownColumns {
        let mut known = KnownColumns::default();
        known.follow(names, false);
        known
    }

    /// The numbers of the columns after a change, and what those that are new were.
    fn after(before: &[&str], now: &[&str], is_rebuilt: bool) -> Vec<(u16, Option<u16>)> {
        let mut known = known(before);
        known.follow(now, is_rebuilt);
        let number = |place| known.number(place).unwrap();
        (0..now.len()).map(|place| (number(place), known.was(number(place)))).collect()
    }

    #[test]
    fn columns_are_added_renamed_and_dropped() {
        for (now, expected) in [
            (&["a", "b", "c"][..], &[(0, None), (1, None), (2, None)][..]),
            (&["a", "b", "c", "d"], &[(0, None), (1, None), (2, None), (3, None)]),
            (&["a", "x", "c"], &[(0, None), (3, Some(1)), (2, None)]),
            (&["x", "b", "y", "new"], &[(3, Some(0)), (1, None), (4, Some(2)), (5, None)]),
            (&["a", "c"], &[(0, None), (2, None)]),
            // Dropped, and added again.
            (&["a", "c", "b"], &[(0, None), (2, None), (3, None)]),
            // Nobody knows which of the two is left.
            (&["x", "c"], &[(3, None), (2, None)]),
            (&["A", "b", "C"], &[(0, None), (1, None), (2, None)]),
        ] {
            assert_eq!(after(&["a", "b", "c"], now, false), expected, "{now:?}");
        }
    }

    #[test]
    fn a_table_that_is_rebuilt_may_have_another_order() {
        assert_eq!(after(&["a", "b"], &["b", "new", "a"], true), [(1, None), (2, None), (0, None)]);
        assert_eq!(after(&["a", "b"], &["a", "x"], true), [(0, None), (2, Some(1))]);
    }

    #[test]
    fn what_did_not_change_is_not_written_again() {
        let mut known = known(&["a", "b"]);
        assert_eq!(known.follow(&["a", "b"], false), Found::default());
        let dropped = Found { changed: true, ..Found::default() };
        assert_eq!(known.follow(&["a"], false), dropped);
        assert_eq!(
            known.follow(&["a", "b"], false),
            Found { added: true, ..dropped },
            "it is another column"
        );
        assert_eq!(known.number(1), Some(2));
        assert_eq!(known.number(2), None);
    }
}
