//! Which of the columns that a table had each of its present ones is.
//!
//! Names tell as long as no name is used again: `DROP COLUMN a` and `RENAME COLUMN b TO a` leave what `DROP COLUMN b`
//! leaves, to look at. So a few rows are compared with what was synced of them, and where they say something else than
//! the names, they are right.

/// Rows of a table, as they were synced and as they are.
#[derive(Debug, Default)]
pub struct Evidence {
    /// For each row: what is known of the columns that were there, and what those that are there hold.
    pub rows: Vec<(Vec<Option<u64>>, Vec<u64>)>,
    /// What rows hold in a column that was added.
    pub defaults: Vec<u64>,
}

/// More columns, both counted, than this are told apart by their names alone.
const MAX_PAIRS: usize = 1 << 16;

impl Evidence {
    /// Rows that contradict that the column at `place` is the one that was `old`; a new one, if none.
    fn against(&self, old: Option<usize>, place: usize) -> u64 {
        let contradicts = |(before, now): &&(Vec<Option<u64>>, Vec<u64>)| match old {
            Some(old) => before[old].is_some_and(|before| before != now[place]),
            None => self.defaults[place] != now[place],
        };
        self.rows.iter().filter(contradicts).count() as u64
    }

    fn against_all(&self, from: &[Option<usize>]) -> u64 {
        from.iter().enumerate().map(|(place, old)| self.against(*old, place)).sum()
    }
}

/// For each column that is there now, the one that it was, both by their places; none if it is new.
pub fn origins(old: &[&str], now: &[&str], is_rebuilt: bool, evidence: &Evidence) -> Vec<Option<usize>> {
    let mut by_name = by_names(old, now, is_rebuilt);
    if evidence.rows.is_empty() || old.len().saturating_mul(now.len()) > MAX_PAIRS {
        return by_name;
    }
    if is_rebuilt {
        exchange(&mut by_name, evidence);
        return by_name;
    }
    let by_content = align(old, now, evidence);
    if evidence.against_all(&by_content) * 2 < evidence.against_all(&by_name) { by_content } else { by_name }
}

/// Takes the names' word for it: what is in its order is what it was; between two columns that stayed, as many new ones
/// as are gone are the same ones, renamed; behind the last of them others may have been added.
fn by_names(old: &[&str], now: &[&str], is_rebuilt: bool) -> Vec<Option<usize>> {
    let mut next = 0;
    let mut from = Vec::with_capacity(now.len());
    for name in now {
        let place = old.iter().position(|it| it.eq_ignore_ascii_case(name));
        let place = place.filter(|&place| is_rebuilt || place >= next);
        next = place.map_or(next, |place| next.max(place + 1));
        from.push(place);
    }
    let kept = from.clone();
    let mut start = 0;
    while start <= kept.len() {
        // A gap of new columns, and where it ends.
        let end = kept[start..].iter().position(Option::is_some).map_or(kept.len(), |length| start + length);
        let after = start.checked_sub(1).and_then(|place| kept[place]);
        let first = after.map_or(0, |at| at + 1);
        let gone: Vec<usize> = (first..old.len()).take_while(|at| !kept.contains(&Some(*at))).collect();
        let is_last = end == kept.len();
        if gone.len() == end - start || (is_last && gone.len() < end - start) {
            for (place, at) in (start..end).zip(gone) {
                from[place] = Some(at);
            }
        }
        start = end + 1;
    }
    from
}

/// What SQLite's own changes can have made of the columns, whatever their names: some are gone, the others stand in
/// their order, and behind them those that were added. Of all that is possible, what contradicts the fewest rows; then
/// what takes the fewest changes.
fn align(old: &[&str], now: &[&str], evidence: &Evidence) -> Vec<Option<usize>> {
    const ROW: u64 = 1 << 20;
    let width = now.len() + 1;
    let kept = |at: usize, place: usize| {
        let is_renamed = !old[at].eq_ignore_ascii_case(now[place]);
        evidence.against(Some(at), place) * ROW + 2 * u64::from(is_renamed)
    };
    // The least cost of having the first columns that are there of the first that were there.
    let mut costs = vec![u64::MAX; (old.len() + 1) * width];
    costs[0] = 0;
    for at in 0..old.len() {
        for place in 0..width {
            let dropped = costs[at * width + place].saturating_add(1);
            let before = place.checked_sub(1).map(|place| (place, costs[at * width + place]));
            let stayed =
                before.filter(|(_, cost)| *cost < u64::MAX).map(|(place, cost)| cost + kept(at, place));
            costs[(at + 1) * width + place] = dropped.min(stayed.unwrap_or(u64::MAX));
        }
    }
    let added =
        |from: usize| (from..now.len()).map(|place| evidence.against(None, place) * ROW + 1).sum::<u64>();
    let total = |count: &usize| costs[old.len() * width + count].saturating_add(added(*count));
    let mut count = (0..width).min_by_key(total).unwrap_or(0);
    let mut from = vec![None; now.len()];
    for at in (0..old.len()).rev() {
        let stays = count > 0 && {
            let before = costs[at * width + count - 1];
            before < u64::MAX && before + kept(at, count - 1) == costs[(at + 1) * width + count]
        };
        if stays {
            count -= 1;
            from[count] = Some(at);
        }
    }
    from
}

/// Columns of a table that was made anew can have exchanged their names.
fn exchange(from: &mut [Option<usize>], evidence: &Evidence) {
    let by_name: Vec<(usize, usize)> =
        from.iter().enumerate().filter_map(|(place, old)| Some((place, (*old)?))).collect();
    let is_wrong: Vec<(usize, usize)> =
        by_name.into_iter().filter(|(place, old)| evidence.against(Some(*old), *place) > 0).collect();
    let mut taken: Vec<usize> = Vec::new();
    for (place, own) in &is_wrong {
        let others = is_wrong.iter().map(|(_, old)| *old).filter(|old| old != own && !taken.contains(old));
        let best = others.map(|old| (evidence.against(Some(old), *place), old)).min();
        if let Some((against, old)) = best
            && against * 2 < evidence.against(Some(*own), *place)
        {
            from[*place] = Some(old);
            taken.push(old);
        }
    }
    // Whoever lost its column to another one, and found none itself, is new.
    for (place, own) in is_wrong {
        if from[place] == Some(own) && taken.contains(&own) {
            from[place] = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows, whose columns held 10, 20, … and 11, 21, …; now they hold these columns' values; 0 is a default.
    fn found(old: &[&str], now: &[(&str, u64)], is_rebuilt: bool) -> Vec<Option<usize>> {
        let before = |row: u64| (1..=old.len() as u64).map(|at| Some(at * 10 + row)).collect();
        let after =
            |row: u64| now.iter().map(|(_, holds)| if *holds == 0 { 0 } else { holds * 10 + row }).collect();
        let rows = (0..2).map(|row| (before(row), after(row))).collect();
        let names: Vec<&str> = now.iter().map(|(name, _)| *name).collect();
        origins(old, &names, is_rebuilt, &Evidence { rows, defaults: vec![0; now.len()] })
    }

    #[test]
    fn what_columns_hold_tells_which_they_were() {
        let old = ["a", "b", "c"];
        for (now, expected) in [
            (&[("a", 1), ("b", 2), ("c", 3)][..], &[Some(0), Some(1), Some(2)][..]),
            (&[("a", 1), ("c", 3)], &[Some(0), Some(2)]),
            (&[("a", 2), ("c", 3)], &[Some(1), Some(2)]),
            (&[("b", 1), ("a", 2), ("c", 3)], &[Some(0), Some(1), Some(2)]),
            (&[("a", 1), ("c", 3), ("b", 0)], &[Some(0), Some(2), None]),
            (&[("x", 2), ("c", 3)], &[Some(1), Some(2)]),
            // Edited besides.
            (&[("a", 9), ("b", 2), ("c", 3)], &[Some(0), Some(1), Some(2)]),
            (&[("a", 9), ("c", 3)], &[Some(0), Some(2)]),
            // Added, filled, and named like one that was dropped.
            (&[("b", 2), ("c", 3), ("a", 9)], &[Some(1), Some(2), None]),
            (&[("a", 1), ("b", 2), ("c", 0)], &[Some(0), Some(1), None]),
        ] {
            assert_eq!(found(&old, now, false), expected, "{now:?}");
        }
    }

    #[test]
    fn columns_of_a_table_made_anew_may_have_exchanged_their_names() {
        let old = ["a", "b", "c"];
        for (now, expected) in [
            (&[("c", 3), ("a", 1), ("b", 2)][..], &[Some(2), Some(0), Some(1)][..]),
            (&[("c", 3), ("a", 2), ("b", 1)], &[Some(2), Some(1), Some(0)]),
            (&[("a", 9), ("b", 2), ("c", 3)], &[Some(0), Some(1), Some(2)]),
            (&[("a", 2), ("b", 9), ("c", 3)], &[Some(1), None, Some(2)]),
        ] {
            assert_eq!(found(&old, now, true), expected, "{now:?}");
        }
    }
}
