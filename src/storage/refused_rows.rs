//! Rows that were not taken: the hub refused them, or they are larger than this replica sends.
//!
//! What was to go out stays unsent, with its stamps and bases, and a row that the hub never had stays new. Such a row is
//! composed again when the application writes to it, when the hub tells something of it, and when the hub was started
//! again, perhaps with other limits; until then it costs no sync anything.

use super::driver::{Sql, SqlError, ValueRef};
use super::row_meta::RowMeta;
use super::rows::{Sending, beginning};
use crate::model::{RowId, Value};

/// Where the rows of a batch are here: the number of the table, and the identity.
pub type Places = Vec<(i64, RowId)>;

/// A row that a batch carried, or would have, and that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedRow {
    /// The batch's mark.
    pub mark: u64,
    /// The number of the row's table.
    pub table: i64,
    /// The row.
    pub id: RowId,
}

impl RefusedRow {
    /// Those that a hub rejected of a batch, by their positions in it.
    pub fn of_batch<'a>(
        mark: u64,
        places: &'a Places,
        rejected: &'a [(u32, String)],
    ) -> impl Iterator<Item = Self> + 'a {
        let place = |(position, _): &(u32, String)| places.get(usize::try_from(*position).ok()?);
        rejected.iter().filter_map(place).map(move |(table, id)| Self { mark, table: *table, id: *id })
    }

    /// The row of this identity in the table of this name; none if there is no such table here.
    pub fn named(sql: &mut dyn Sql, mark: u64, table: &str, id: RowId) -> Result<Option<Self>, SqlError> {
        let row = sql.query_row(
            "SELECT tbl FROM main._federation_table WHERE lower(name) = lower(?)",
            &[table.into()],
        )?;
        Ok(match row.as_deref() {
            Some([Value::Integer(table)]) => Some(Self { mark, table: *table, id }),
            _ => None,
        })
    }
}

/// Has what batches carried of rows that were not taken wait. What the batches held otherwise must be acknowledged.
pub fn refuse(sql: &mut dyn Sql, rows: &[RefusedRow]) -> Result<(), SqlError> {
    for row in rows {
        let found = sql.query_row(
            "SELECT k, batch, state FROM main._federation_row INDEXED BY _federation_row_id \
             WHERE tbl = ? AND substr(id, 1, 6) = ? AND id = ?",
            &[row.table.into(), ValueRef::Blob(beginning(&row.id.0)), ValueRef::Blob(&row.id.0)],
        )?;
        let Some([key, batch, Value::Blob(state)]) = found.as_deref() else { continue };
        let mut meta = RowMeta::decode(state)?;
        meta.refuse(row.mark);
        let sending = match Sending::read(batch) {
            Sending::Clean => Sending::Refused,
            Sending::InBatch(mark) if mark == row.mark => Sending::Refused,
            // It was changed since, and goes as a whole.
            Sending::InBatch(_) => Sending::Unsent,
            other => other,
        };
        let state = meta.encode()?;
        sql.execute(
            "UPDATE main._federation_row SET batch = ?, state = ? WHERE tbl = ? AND k = ?",
            &[sending.as_param()?, ValueRef::Blob(&state), row.table.into(), key.into()],
        )?;
    }
    Ok(())
}

/// Has all rows that were not taken tried again.
pub fn try_again(sql: &mut dyn Sql) -> Result<(), SqlError> {
    sql.execute("UPDATE main._federation_row SET batch = 0 WHERE batch = -3", &[])?;
    Ok(())
}
