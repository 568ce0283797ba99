//! Who takes over the keys by which rows are referenced, where more rows are set aside than a turn can look at.
//!
//! A row that gives up such a key takes along what references it, unless another row takes the key over: so it has to be
//! known whether one that comes in a later turn does.

use super::ahead::Ahead;
use super::applier::{Applier, Refusal};
use super::catalog::{Key, Table};
use super::driver::{Sql, SqlError};
use super::foreign_keys::cell;
use super::local_key::encode_values;
use super::quarantine;
use super::row_io::whole_row;
use super::rows::Entry;
use super::swaps::target;
use crate::model::Value;

/// Rows that were refused.
type Refused = Vec<(usize, Refusal)>;

/// A key by which rows reference others: the number of the table, the place of the foreign key among those to it, and the
/// values.
pub type ReferencedKey = (i64, usize, Vec<u8>);

/// Keys by which rows reference one: those that it gives up, and those that it is to have for them.
type GivenUpAndWanted = (Vec<ReferencedKey>, Vec<ReferencedKey>);

impl Applier<'_> {
    /// Of rows that others reference, those that may give up their keys now, and those that may not.
    pub fn without_takers(
        &mut self,
        sql: &mut dyn Sql,
        ahead: &mut Ahead<'_>,
        referenced: Refused,
    ) -> Result<(Refused, Refused), SqlError> {
        let (leaves_children, unless_taken) = self.retrial.leaves_children();
        if leaves_children && !unless_taken {
            return Ok((referenced, Vec::new()));
        }
        let (mut free, mut taken) = (Vec::new(), Vec::new());
        for (at, refusal) in referenced {
            let is_free = leaves_children && !self.has_taker(sql, ahead, at)?;
            if is_free {
                free.push((at, refusal));
                continue;
            }
            if let (false, Some((_, wanted))) = (leaves_children, self.keys_of(sql, ahead, at)?)
                && let Some(row) = ahead.get(at)
            {
                for key in wanted {
                    self.retrial.note_taker(key, row.1.id);
                }
            }
            taken.push((at, refusal));
        }
        Ok((free, taken))
    }

    /// Whether another row that is set aside is to have a key that this one gives up.
    fn has_taker(&mut self, sql: &mut dyn Sql, ahead: &Ahead<'_>, at: usize) -> Result<bool, SqlError> {
        let (Some(row), Some((given_up, _))) = (ahead.get(at), self.keys_of(sql, ahead, at)?) else {
            return Ok(false);
        };
        for key in given_up {
            let Some(taker) = self.retrial.taker(&key).filter(|taker| *taker != row.1.id) else { continue };
            if quarantine::find(sql, &row.0.name, taker)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The keys by which a row may be referenced that it gives up, and those that it is to have for them.
    fn keys_of(
        &mut self,
        sql: &mut dyn Sql,
        ahead: &Ahead<'_>,
        at: usize,
    ) -> Result<Option<GivenUpAndWanted>, SqlError> {
        let Some(row) = ahead.get(at) else { return Ok(None) };
        let Some(table) = self.catalog.table(&row.0.name) else { return Ok(None) };
        let Some(entry) = Entry::by_id(sql, table, row.1.id)?.filter(Entry::is_present) else {
            return Ok(None);
        };
        let (_, was) = whole_row(sql, table, &entry)?;
        let Some(target) = target(self, sql, table, &row, None)? else { return Ok(None) };
        let Some(key) = entry.key.values()? else { return Ok(None) };
        let new_key = match &table.key {
            Key::Number(_) => key.clone(),
            Key::Natural(positions) => positions.iter().map(|&at| target[at].clone()).collect(),
        };
        let (mut given_up, mut wanted) = (Vec::new(), Vec::new());
        for link in 0..table.children.len() {
            let (old, new) = (values(table, link, &key, &was), values(table, link, &new_key, &target));
            if old != new {
                given_up.extend(referenced_key(table, link, old)?);
                wanted.extend(referenced_key(table, link, new)?);
            }
        }
        Ok(Some((given_up, wanted)))
    }
}

/// The values by which a foreign key references a row; none if one of them is NULL or unknown.
fn values(table: &Table, link: usize, key: &[Value], row: &[Value]) -> Option<Vec<Value>> {
    let columns = table.children.get(link)?.columns.iter();
    let values: Option<Vec<Value>> = columns.map(|(_, to)| cell(table, key, row, to).cloned()).collect();
    values.filter(|values| !values.contains(&Value::Null))
}

fn referenced_key(
    table: &Table,
    link: usize,
    values: Option<Vec<Value>>,
) -> Result<Option<ReferencedKey>, SqlError> {
    values.map(|values| Ok((table.number, link, encode_values(&values)?))).transpose()
}
