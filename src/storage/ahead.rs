//! The rows that one applying turn is still to apply.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use super::driver::SqlError;
use super::quarantine::SetAside;
use crate::model::{RowId, RowUpdate, TableHeader};
use crate::protocol::message::Rows;

/// One of them: the columns that it names, what the hub says, and the mark of the last batch that the hub knew as it
/// said so.
pub type Update<'a> = (Cow<'a, TableHeader>, Cow<'a, RowUpdate>, u64);

/// The rows of a turn, in order.
pub struct Ahead<'a> {
    /// Each with whether it is still to be applied.
    rows: Vec<(Rc<Update<'a>>, bool)>,
    /// Where a row is, by its table's name in lower case and its identity: only once somebody asks.
    places: Option<HashMap<(String, RowId), usize>>,
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
            let update = match earlier(header, update.id)? {
                Some(earlier) => {
                    let now = SetAside { header: header.clone(), update: update.clone(), acked };
                    owned(earlier.merge(now))
                }
                None => (Cow::Borrowed(header), Cow::Borrowed(update), acked),
            };
            updates.push((Rc::new(update), true));
        }
        Ok(Self { rows: updates, places: None })
    }

    /// What was set aside and is tried again.
    pub fn again(rows: Vec<SetAside>) -> Self {
        Self { rows: rows.into_iter().map(|row| (Rc::new(owned(row)), true)).collect(), places: None }
    }

    /// All of them, with their places.
    pub fn all(&self) -> impl Iterator<Item = (usize, &Update<'a>)> {
        self.rows.iter().enumerate().map(|(at, (row, _))| (at, &**row))
    }

    /// One of them, if it is still to be applied.
    pub fn get(&self, at: usize) -> Option<Rc<Update<'a>>> {
        self.rows.get(at).filter(|(_, is_ahead)| *is_ahead).map(|(row, _)| row.clone())
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
            row.1 = is_ahead;
        }
    }

    /// Where the row of this identity is, if it is still to be applied.
    pub fn find(&mut self, table: &str, id: RowId) -> Option<usize> {
        let rows = &self.rows;
        let places = self.places.get_or_insert_with(|| {
            let key = |update: &Update<'_>| (update.0.name.to_lowercase(), update.1.id);
            rows.iter().enumerate().map(|(at, (row, _))| (key(row), at)).collect()
        });
        let at = *places.get(&(table.to_lowercase(), id))?;
        self.rows[at].1.then_some(at)
    }
}

fn owned<'a>(SetAside { header, update, acked }: SetAside) -> Update<'a> {
    (Cow::Owned(header), Cow::Owned(update), acked)
}
