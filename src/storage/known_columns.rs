//! The columns of a table that the bookkeeping has numbers for, and what became of them.
//!
//! SQLite appends a column that is added, keeps the place of one that is renamed, and closes the gap behind one
//! that is dropped. So a table's columns, compared with what they were, tell which of these happened; and where names
//! alone do not, what the columns hold does (`column_origins`).

use serde::{Deserialize, Serialize};

use super::column_origins::{Evidence, origins};
use super::row_meta::LocalColumn;
use crate::model::{Agreement, Hlc, Origin};

/// A column that the table has, or had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KnownColumn {
    name: String,
    /// The column that it was before it was renamed.
    was: Option<LocalColumn>,
    /// Its place in the table; none once it is dropped.
    place: Option<usize>,
    /// How often its name has come to stand for what another column held.
    #[serde(default)]
    generation: u8,
    /// What was written to the name before then is of its former meaning, where the generation is not the first.
    #[serde(default)]
    since: Hlc,
    /// Whether it was there before this replica had heard of its table: its name means what it means to the tenant.
    #[serde(default)]
    is_fresh: bool,
    /// Whether its name means something else to others by now.
    #[serde(default)]
    is_outgrown: bool,
    /// Whether the table never had it: the tenant has.
    #[serde(default)]
    is_foreign: bool,
    /// What its definition makes of it; none if that was not noted yet.
    #[serde(default)]
    shape: Option<u64>,
}

impl KnownColumn {
    fn is_undated(&self) -> bool {
        self.generation > 0 && self.since == Hlc::ZERO
    }
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
    /// What the columns hold is to be compared with what was synced: some were renamed, dropped, or made anew.
    pub moved: bool,
}

/// A column as the table has it now.
#[derive(Clone, Copy, Debug)]
pub struct PresentColumn<'a> {
    /// Its name.
    pub name: &'a str,
    /// What its definition makes of it.
    pub shape: u64,
}

/// What is known besides of a table whose columns are looked at.
pub struct Circumstances<'a> {
    /// The table was made anew, perhaps with its columns in another order.
    pub is_rebuilt: bool,
    /// What the tenant has agreed on.
    pub agreed: Option<&'a Agreement>,
    /// Whether anything has been heard of the tenant.
    pub has_heard: bool,
    /// What every later write is stamped with at the least; none where nobody knows the hub's time.
    pub now: Option<Hlc>,
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

    /// The columns that one was before it was renamed, the last first.
    pub fn was(&self, number: LocalColumn) -> Vec<LocalColumn> {
        let before = |number: &LocalColumn| self.0.get(usize::from(*number))?.was.filter(|was| was < number);
        std::iter::successors(before(&number), before).collect()
    }

    /// The column that had the name of this one before it.
    pub fn over(&self, number: LocalColumn) -> Option<LocalColumn> {
        let (at, own) = (usize::from(number), self.0.get(usize::from(number))?);
        let over = self.0[..at].iter().rposition(|it| it.name.eq_ignore_ascii_case(&own.name))?;
        LocalColumn::try_from(over).ok()
    }

    /// Since when, and in which generation, a column's name stands for what it holds.
    pub fn origin(&self, number: LocalColumn) -> (u8, Hlc) {
        self.0.get(usize::from(number)).map_or((0, Hlc::ZERO), |column| (column.generation, column.since))
    }

    /// The columns that are there, in their order.
    fn live(&self) -> Vec<usize> {
        let mut live: Vec<usize> = (0..self.0.len()).filter(|&at| self.0[at].place.is_some()).collect();
        live.sort_by_key(|&at| self.0[at].place);
        live
    }

    /// Whether there is a name of which it is not noted since when it means what it does.
    pub fn is_undated(&self) -> bool {
        self.0.iter().any(KnownColumn::is_undated)
    }

    /// The numbers of the columns that are there as far as is known, in their order.
    pub fn live_numbers(&self) -> Vec<LocalColumn> {
        self.live().into_iter().filter_map(|at| LocalColumn::try_from(at).ok()).collect()
    }

    /// Whether the table has other columns than it had, so that evidence is wanted of what became of them.
    pub fn is_moved(&self, now: &[PresentColumn<'_>], is_rebuilt: bool) -> bool {
        let live = self.live();
        let same = |(&at, column): (&usize, &PresentColumn<'_>)| {
            let known = &self.0[at];
            known.name.eq_ignore_ascii_case(column.name) && known.shape.is_none_or(|it| it == column.shape)
        };
        !live.is_empty() && (is_rebuilt || live.len() > now.len() || !live.iter().zip(now).all(same))
    }

    /// Takes note of a table's columns as they are now.
    ///
    /// A column that is back under the name of a dropped one is another column: its values are defaults. One that
    /// was dropped, and added again as the last with the same definition, looks as if nothing had happened.
    pub fn follow(
        &mut self,
        now: &[PresentColumn<'_>],
        evidence: &Evidence,
        circumstances: &Circumstances<'_>,
    ) -> Found {
        let before = self.clone();
        let live = self.live();
        let moved = self.is_moved(now, circumstances.is_rebuilt);
        let names: Vec<&str> = live.iter().map(|&at| self.0[at].name.as_str()).collect();
        let present: Vec<&str> = now.iter().map(|column| column.name).collect();
        let from = origins(&names, &present, circumstances.is_rebuilt, evidence);
        let from: Vec<Option<usize>> = from.into_iter().map(|old| old.map(|old| live[old])).collect();
        for &at in &live {
            self.0[at].place = None;
        }
        let mut found = Found { moved: moved && !circumstances.is_rebuilt, ..Found::default() };
        for (place, column) in now.iter().enumerate() {
            match from[place] {
                Some(at) if self.0[at].name.eq_ignore_ascii_case(column.name) => {
                    self.0[at].place = Some(place);
                    column.name.clone_into(&mut self.0[at].name);
                    self.0[at].shape = Some(column.shape);
                }
                was => {
                    found.added = true;
                    found.moved |= was.is_some();
                    let is_proved = !evidence.rows.is_empty();
                    let (generation, since) = self.generation(column.name, was, is_proved, circumstances);
                    let was = was.and_then(|at| LocalColumn::try_from(at).ok());
                    let (name, shape) = (column.name.to_owned(), Some(column.shape));
                    let (place, is_fresh) = (Some(place), !circumstances.has_heard && was.is_none());
                    self.0.push(KnownColumn {
                        name,
                        was,
                        place,
                        generation,
                        since,
                        is_fresh,
                        shape,
                        ..KnownColumn::default()
                    });
                }
            }
        }
        self.hear(circumstances.agreed);
        self.catch_up(circumstances);
        if let Some(now) = circumstances.now {
            for column in self.0.iter_mut().filter(|column| column.is_undated()) {
                column.since = now;
            }
        }
        found.changed = *self != before;
        // What was passed over while a name meant something else is asked for again.
        let was_outgrown = |it: &KnownColumn| it.is_outgrown && it.place.is_some();
        let is_back =
            before.0.iter().zip(&self.0).any(|(before, now)| was_outgrown(before) && !was_outgrown(now));
        found.added |= is_back;
        found
    }

    /// In which generation, and since when, a name stands for a column that is new to it: one that `was` before, as its
    /// rows prove, or as it looks.
    fn generation(
        &self,
        name: &str,
        was: Option<usize>,
        is_proved: bool,
        circumstances: &Circumstances<'_>,
    ) -> (u8, Hlc) {
        let newest =
            newest(circumstances.agreed, name).map_or((0, Hlc::ZERO), |it| (it.generation, it.since));
        let Some(was) = was else { return newest };
        let over = self.0.iter().rposition(|it| it.name.eq_ignore_ascii_case(name));
        // A table without rows may as well have got the tenant's column in place of another one.
        let Some(over) = over.filter(|&over| is_proved || !self.0[over].is_foreign) else { return newest };
        if self.lineage(was).any(|at| at == over) {
            // It has its old name again.
            return (self.0[over].generation, self.0[over].since);
        }
        // Somebody else may have given it the same content before, with others in between that never were here.
        let (over, content) = (&self.0[over], self.content(was));
        let before = if over.is_foreign { newest.0 } else { over.generation };
        let told = told(circumstances.agreed, name).filter(|it| over.is_foreign || it.generation > before);
        let same = told.filter(|it| it.content.eq_ignore_ascii_case(content)).max_by_key(|it| it.generation);
        let generation = same.map_or(before.saturating_add(1), |it| it.generation);
        let origin = circumstances.agreed.and_then(|agreed| agreed.origin(name, generation));
        (generation, origin.map_or(Hlc::ZERO, |it| it.since))
    }

    /// Notes columns that the tenant has, and this table never had. Says whether there were any.
    pub fn note_foreign(&mut self, names: &[String]) -> bool {
        let before = self.0.len();
        for name in names {
            if !self.0.iter().any(|it| it.name.eq_ignore_ascii_case(name)) {
                let name = name.clone();
                self.0.push(KnownColumn { name, is_foreign: true, ..KnownColumn::default() });
            }
        }
        self.0.len() > before
    }

    /// Notes that the table has taken the name of another one, which had these columns: as a column without a name, and
    /// without a place. Says since when the name has that meaning, if anybody has told.
    pub fn replace_table(&mut self, over: &Self, agreed: Option<&Agreement>) -> Option<Hlc> {
        let before = over.0.iter().filter(|it| it.name.is_empty()).map(|it| it.generation).max();
        let generation = before.unwrap_or(0).saturating_add(1);
        let told = agreed.and_then(|agreed| agreed.origin("", generation)).map(|it| it.since);
        let since = told.unwrap_or(Hlc::ZERO);
        self.0.push(KnownColumn { generation, since, ..KnownColumn::default() });
        told
    }

    /// Since when the table has its name, if that was another one's.
    pub fn table_origin(&self) -> Option<Origin> {
        let last = self.0.iter().rfind(|it| it.name.is_empty() && it.since > Hlc::ZERO)?;
        let (column, content) = (String::new(), String::new());
        Some(Origin { column, generation: last.generation, content, since: last.since })
    }

    /// A column, and those that it was before it was renamed.
    fn lineage(&self, at: usize) -> impl Iterator<Item = usize> {
        let before = |at: &usize| self.0.get(*at)?.was.map(usize::from).filter(|was| was < at);
        std::iter::successors(Some(at), before)
    }

    /// The first name of what a column holds.
    pub fn content(&self, at: usize) -> &str {
        self.lineage(at).last().and_then(|first| self.0.get(first)).map_or("", |first| first.name.as_str())
    }

    /// Takes names for what they mean to the tenant by now, where that is what they hold: of columns that were there before
    /// anything was heard, and of those whose names have gone through other meanings meanwhile and are back. Says of which
    /// columns it is news that their names mean something else to others, or do so no more.
    fn catch_up(&mut self, circumstances: &Circumstances<'_>) {
        for at in 0..self.0.len() {
            let newest = newest(circumstances.agreed, &self.0[at].name);
            let is_same = newest.is_some_and(|it| it.content.eq_ignore_ascii_case(self.content(at)));
            let column = &mut self.0[at];
            let (generation, since) = newest.map_or((0, Hlc::ZERO), |it| (it.generation, it.since));
            let is_first = column.is_fresh && !circumstances.has_heard;
            if column.place.is_some() && generation > column.generation && (is_first || is_same) {
                (column.generation, column.since) = (generation, since);
            }
            column.is_fresh = is_first && generation == 0;
            column.is_outgrown = column.place.is_some() && generation > column.generation;
        }
    }

    /// Whoever told the hub first since when a name means another thing has said it for all.
    fn hear(&mut self, agreed: Option<&Agreement>) {
        for origin in agreed.iter().flat_map(|agreed| &agreed.origins) {
            let is_it = |it: &&mut KnownColumn| {
                it.generation == origin.generation && it.name.eq_ignore_ascii_case(&origin.column)
            };
            for column in self.0.iter_mut().filter(is_it) {
                column.since = origin.since;
            }
        }
    }
}

fn told<'a>(agreed: Option<&'a Agreement>, name: &str) -> impl Iterator<Item = &'a Origin> {
    let origins = agreed.into_iter().flat_map(|agreed| &agreed.origins);
    origins.filter(move |it| it.column.eq_ignore_ascii_case(name))
}

/// The last meaning of a name that the tenant knows.
pub fn newest<'a>(agreed: Option<&'a Agreement>, name: &str) -> Option<&'a Origin> {
    told(agreed, name).max_by_key(|it| it.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(known: &mut KnownColumns, names: &[&str], is_rebuilt: bool) -> Found {
        let now: Vec<PresentColumn<'_>> = names.iter().map(|name| PresentColumn { name, shape: 0 }).collect();
        let circumstances = Circumstances { is_rebuilt, agreed: None, has_heard: true, now: Some(Hlc(8)) };
        known.follow(&now, &Evidence::default(), &circumstances)
    }

    fn known(names: &[&str]) -> KnownColumns {
        let mut known = KnownColumns::default();
        follow(&mut known, names, false);
        known
    }

    /// The numbers of the columns after a change, and what those that are new were.
    fn after(before: &[&str], now: &[&str], is_rebuilt: bool) -> Vec<(u16, Option<u16>)> {
        let mut known = known(before);
        follow(&mut known, now, is_rebuilt);
        let number = |place| known.number(place).unwrap();
        (0..now.len()).map(|place| (number(place), known.was(number(place)).first().copied())).collect()
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
        assert_eq!(follow(&mut known, &["a", "b"], false), Found::default());
        let dropped = Found { changed: true, added: false, moved: true };
        assert_eq!(follow(&mut known, &["a"], false), dropped);
        let added = Found { changed: true, added: true, moved: false };
        assert_eq!(follow(&mut known, &["a", "b"], false), added, "it is another column");
        assert_eq!(known.number(1), Some(2));
        assert_eq!(known.number(2), None);
    }

    #[test]
    fn a_name_that_comes_to_mean_another_column_begins_a_generation() {
        let mut known = known(&["a", "b"]);
        follow(&mut known, &["b"], false);
        follow(&mut known, &["a"], false);
        let number = known.number(0).unwrap();
        assert_eq!((known.was(number), known.over(number)), (vec![1], Some(0)));
        assert_eq!(known.origin(number), (1, Hlc(8)));
        // There and back again is the same column.
        follow(&mut known, &["c"], false);
        assert_eq!(known.origin(known.number(0).unwrap()), (0, Hlc::ZERO));
        follow(&mut known, &["a"], false);
        assert_eq!(known.origin(known.number(0).unwrap()), (1, Hlc(8)));
        // Somebody else was first.
        let origins = vec![Origin { column: "A".into(), generation: 1, content: "b".into(), since: Hlc(5) }];
        known.hear(Some(&Agreement { origins, ..Agreement::default() }));
        assert_eq!(known.origin(known.number(0).unwrap()), (1, Hlc(5)));
    }
}
