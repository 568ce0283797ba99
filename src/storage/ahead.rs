//! The rows that one applying turn is still to apply.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use super::driver::SqlError;
use super::parked::Parked;
use super::quarantine::SetAside;
use crate::model::{RowId, RowUpdate, TableHeader};
use crate::protocol::message::Rows;

/// One of them: the columns that it names, what the hub says, and the mark of the last batch that the hub knew as it
/// said so.
pub type Update<'a> = (Cow<'a, TableHeader>, Cow<'a, RowUpdate>, u64);

/// The rows of a turn, in order.
#[derive(Default)]
pub struct Ahead<'a> {
    rows: Vec<Row<'a>>,
    /// Where a row is, by its table's name in lower case and its identity: only once somebody asks.
    places: Option<HashMap<(String, RowId), usize>>,
}

/// One of the rows.
struct Row<'a> {
    update: Rc<Update<'a>>,
    /// Whether it is still to be applied.
    is_ahead: bool,
    /// Its place in quarantine, if it is there.
    kept: Option<i64>,
    /// What it was like, if it is out of its table.
    parked: Option<Parked>,
    /// Whether it has left its table in this turn.
    is_taken_out: bool,
}

impl<'a> Row<'a> {
    fn new(update: Update<'a>, parked: Option<Parked>) -> Self {
        Self { update: Rc::new(update), is_ahead: true, kept: None, parked, is_taken_out: false }
    }

    fn set_aside(row: SetAside) -> Self {
        let SetAside { header, update, acked, parked } = row;
        Self::new((Cow::Owned(header), Cow::Owned(update), acked), parked)
    }
}

impl<'a> Ahead<'a> {
    /// What has come from a hub that has acknowledged the batches up to the mark `acked`, each with what is set aside of
    /// it if `earlier` finds something. None if a row is of a table that was not named.
    pub fn of(
        rows: &'a Rows,
        acked: u64,
        mut earlier: impl FnMut(&TableHeader, RowId) -> Result<Option<SetAside>, SqlError>,
    ) -> Result<Self, SqlError> {
        let mut updates = Vec::with_capacity(rows.rows.len());
        for update in &rows.rows {
            let Some(header) = rows.tables.get(usize::from(update.table)) else {
                return Err(SqlError::corrupt("the hub sent a row of a table that it did not name"));
            };
            updates.push(match earlier(header, update.id)? {
                Some(earlier) => {
                    let (header, update) = (header.clone(), update.clone());
                    Row::set_aside(earlier.merge(SetAside { header, update, acked, parked: None }))
                }
                None => Row::new((Cow::Borrowed(header), Cow::Borrowed(update), acked), None),
            });
        }
        Ok(Self { rows: updates, places: None })
    }

    /// Rows that are not set aside.
    pub fn again(rows: Vec<SetAside>) -> Self {
        Self { rows: rows.into_iter().map(Row::set_aside).collect(), places: None }
    }

    /// Rows that are set aside and are tried again, each with its place there.
    pub fn kept(rows: Vec<(i64, SetAside)>) -> Self {
        let row = |(place, row)| Row { kept: Some(place), ..Row::set_aside(row) };
        Self { rows: rows.into_iter().map(row).collect(), places: None }
    }

    /// Adds a row that is set aside, to be tried again. Returns its place.
    pub fn add_kept(&mut self, (kept, row): (i64, SetAside)) -> usize {
        self.add(Row { kept: Some(kept), ..Row::set_aside(row) })
    }

    /// Adds a row that an earlier turn has applied, and that may have to be taken back. Returns its place.
    pub fn add_applied(&mut self, row: SetAside) -> usize {
        match self.look_up(&row.header.name, row.update.id) {
            Some((at, _)) => at,
            None => self.add(Row { is_ahead: false, ..Row::set_aside(row) }),
        }
    }

    fn add(&mut self, row: Row<'a>) -> usize {
        let at = self.rows.len();
        if let Some(places) = &mut self.places {
            places.insert(key(&row.update), at);
        }
        self.rows.push(row);
        at
    }

    /// All of them, with their places.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Update<'a>)> {
        self.rows.iter().enumerate().map(|(at, row)| (at, &*row.update))
    }

    /// One of them, if it is still to be applied.
    pub fn get(&self, at: usize) -> Option<Rc<Update<'a>>> {
        self.rows.get(at).filter(|row| row.is_ahead).map(|row| row.update.clone())
    }

    /// A copy of one of them, applied or not.
    pub fn copy(&self, at: usize) -> Option<SetAside> {
        let row = self.rows.get(at)?;
        let (header, update, acked) = &*row.update;
        let (header, update) = (header.clone().into_owned(), update.clone().into_owned());
        Some(SetAside { header, update, acked: *acked, parked: row.parked.clone() })
    }

    /// The name of the table and the identity of one of them, whether or not it is still to be applied.
    pub fn name_of(&self, at: usize) -> Option<(&str, RowId)> {
        self.rows.get(at).map(|row| (row.update.0.name.as_str(), row.update.1.id))
    }

    /// It has been applied.
    pub fn done(&mut self, at: usize) {
        self.set(at, false);
    }

    /// It has been undone.
    pub fn undone(&mut self, at: usize) {
        self.set(at, true);
    }

    fn set(&mut self, at: usize, is_ahead: bool) {
        if let Some(row) = self.rows.get_mut(at) {
            row.is_ahead = is_ahead;
        }
    }

    /// What a row was like that is out of its table.
    pub fn parked(&self, at: usize) -> Option<&Parked> {
        self.rows.get(at)?.parked.as_ref()
    }

    /// It has left its table in this turn, or is in it again.
    pub fn park(&mut self, at: usize, parked: Option<Parked>) {
        if let Some(row) = self.rows.get_mut(at) {
            (row.is_taken_out, row.parked) = (parked.is_some(), parked);
        }
    }

    /// Its place in quarantine, if it is there.
    pub fn place_in_quarantine(&self, at: usize) -> Option<i64> {
        self.rows.get(at)?.kept
    }

    /// Those that are set aside still and have been applied.
    pub fn settled(&self) -> impl Iterator<Item = &Update<'a>> {
        self.rows.iter().filter(|row| !row.is_ahead && row.kept.is_some()).map(|row| &*row.update)
    }

    /// Those that have left their table in this turn and are not in it again.
    pub fn taken_out(&self) -> impl Iterator<Item = (&Update<'a>, &Parked)> {
        let out = self.rows.iter().filter(|row| row.is_ahead && row.is_taken_out);
        out.filter_map(|row| Some((&*row.update, row.parked.as_ref()?)))
    }

    /// Where the row of this identity is, and whether it is still to be applied.
    pub fn look_up(&mut self, table: &str, id: RowId) -> Option<(usize, bool)> {
        let rows = &self.rows;
        let places = self
            .places
            .get_or_insert_with(|| rows.iter().zip(0..).map(|(row, at)| (key(&row.update), at)).collect());
        let at = *places.get(&(table.to_lowercase(), id))?;
        Some((at, self.rows[at].is_ahead))
    }
}

fn key(update: &Update<'_>) -> (String, RowId) {
    (update.0.name.to_lowercase(), update.1.id)
}
