//! The rows that one applying turn is still to apply.

use std::borrow::Cow;
use std::collections::HashMap;

use super::quarantine::SetAside;
use crate::model::{RowId, RowUpdate, TableHeader};
use crate::protocol::message::Rows;

/// One of them.
pub type Update<'a> = (Cow<'a, TableHeader>, Cow<'a, RowUpdate>);

/// The rows of a turn, in order, without those that have been taken out.
pub struct Ahead<'a> {
    rows: Vec<Option<Update<'a>>>,
    /// Where a row is, by its table's name in lower case and its identity: only once somebody asks.
    places: Option<HashMap<(String, RowId), usize>>,
}

impl<'a> Ahead<'a> {
    /// What has come from the hub. None if a row is of a table that was not named.
    pub fn of(rows: &'a Rows) -> Option<Self> {
        let update = |row: &'a RowUpdate| {
            let header = rows.tables.get(usize::from(row.table))?;
            Some(Some((Cow::Borrowed(header), Cow::Borrowed(row))))
        };
        let rows: Option<Vec<_>> = rows.rows.iter().map(update).collect();
        Some(Self { rows: rows?, places: None })
    }

    /// What was set aside and is tried again.
    pub fn again(rows: Vec<SetAside>) -> Self {
        let owned = |row: SetAside| Some((Cow::Owned(row.header), Cow::Owned(row.update)));
        Self { rows: rows.into_iter().map(owned).collect(), places: None }
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// Takes one out.
    pub fn take(&mut self, at: usize) -> Option<Update<'a>> {
        self.rows.get_mut(at).and_then(Option::take)
    }

    /// Puts one in (again): it is taken for the row that was there.
    pub fn put(&mut self, at: usize, update: Update<'a>) {
        if let Some(slot) = self.rows.get_mut(at) {
            *slot = Some(update);
        }
    }

    /// Where the row of this identity is, if it has not been taken out.
    pub fn find(&mut self, table: &str, id: RowId) -> Option<usize> {
        let rows = &self.rows;
        let places = self.places.get_or_insert_with(|| {
            let key = |update: &Update<'_>| (update.0.name.to_lowercase(), update.1.id);
            rows.iter().enumerate().filter_map(|(at, row)| Some((key(row.as_ref()?), at))).collect()
        });
        let at = *places.get(&(table.to_lowercase(), id))?;
        self.rows[at].as_ref().map(|_| at)
    }
}
