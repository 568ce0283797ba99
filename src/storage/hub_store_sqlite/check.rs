//! Fingerprints of a tenant's rows, as of a replica's cursor.
//!
//! What readers are told of a row changes only together with the row's position. So a row whose position is not
//! above the cursor is what the replica was told of it; any other is named, and left out.

use std::collections::HashSet;

use rusqlite::{Connection, Row as SqlRow, params};

use super::damaged;
use super::session::session;
use super::tables::Table;
use super::tenant::Tenant;
use crate::model::{CellValue, ColumnIndex, RowId, RowState, RowUpdate, Seq, TableHeader};
use crate::protocol::check::{CheckRequest, Fingerprint, Print, Range};
use crate::protocol::hub_request::Caller;
use crate::protocol::limits::{MAX_CHECK_BYTES, MAX_CHECK_ROWS};
use crate::protocol::message::Rows;
use crate::storage::hub_store::{Checked, StoreError};
use crate::storage::identity::row_fingerprint;

/// See [`crate::storage::hub_store::HubStore::check`].
pub fn check(conn: &Connection, caller: &Caller, request: &CheckRequest) -> Result<Checked, StoreError> {
    let (tenant, replica) = session(conn, caller, request.replica, request.epoch)?;
    let mut look = Look { conn, tenant: &tenant, request, rows: 0, bytes: 0, told: Rows::default() };
    let mut prints = Vec::with_capacity(request.check.ranges.len());
    for range in &request.check.ranges {
        let table = Table::find(conn, tenant.id, &range.table)?;
        let table = table.filter(|table| replica.refused.iter().all(|refused| refused.table != table.id));
        prints.push(match table {
            Some(table) => look.at(&table, range)?,
            None => None,
        });
    }
    Ok(Checked { rows: look.told, prints })
}

/// What one check looks at.
struct Look<'a> {
    conn: &'a Connection,
    tenant: &'a Tenant,
    request: &'a CheckRequest,
    /// Rows looked at.
    rows: usize,
    /// Their bytes in the store.
    bytes: usize,
    told: Rows,
}

/// A row of the range.
struct Found {
    id: RowId,
    seq: Seq,
    survivor: Option<RowId>,
    state: RowState,
}

impl Look<'_> {
    /// The print of one range; none if there is no room for its first row.
    fn at(&mut self, table: &Table, range: &Range) -> Result<Option<Print>, StoreError> {
        let columns = columns(table, range);
        if columns.len() < range.columns.len() {
            // There was no room for the others, and the rows that have them were refused.
            return Ok(None);
        }
        let left_out: HashSet<RowId> = range.left_out.iter().copied().collect();
        let mut statement = self.conn.prepare_cached(
            "SELECT id, seq, survivor, coalesce(effective, body) FROM row_state
             WHERE tenant = ?1 AND tbl = ?2 AND id > ?3 AND id <= ?4 ORDER BY id",
        )?;
        let after = range.after.as_ref().map_or(&[][..], |id| &id.0[..]);
        // Longer than any identity, and so behind all of them.
        let upto = range.upto.as_ref().map_or(&[0xff; 17][..], |id| &id.0[..]);
        let mut rows = statement.query(params![self.tenant.id, table.id, after, upto])?;
        let mut print = Print { upto: None, sum: Fingerprint::default(), newer: Vec::new() };
        let mut last = None;
        while let Some(row) = rows.next()? {
            let bytes = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?.len();
            if !self.has_room_for(bytes) {
                print.upto = last;
                return Ok(last.map(|_| print));
            }
            (self.rows, self.bytes) = (self.rows + 1, self.bytes + bytes);
            let mut found = Found::read(row)?;
            last = Some(found.id);
            if left_out.contains(&found.id) {
                continue;
            }
            if found.seq > self.request.cursor {
                print.newer.push(found.id);
                continue;
            }
            self.rename(&mut found.state)?;
            if found.survivor.is_none() && found.state.is_alive() {
                print.sum += fingerprint(&found, &columns);
            }
            if self.request.check.rows {
                self.tell(table, found)?;
            }
        }
        Ok(Some(print))
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.rows == 0 || (self.rows < MAX_CHECK_ROWS && self.bytes + bytes <= MAX_CHECK_BYTES)
    }

    /// Has the row reference others under the identities that the replica knows.
    fn rename(&self, state: &mut RowState) -> Result<(), StoreError> {
        for cell in state.cells.values_mut() {
            if let CellValue::Ref(id) = &mut cell.value {
                *id = self.known_as(*id)?;
            }
        }
        Ok(())
    }

    /// The identity under which the replica knows a row that is referenced: it has heard of unions up to its
    /// cursor.
    fn known_as(&self, id: RowId) -> Result<RowId, StoreError> {
        let mut statement = self.conn.prepare_cached(
            "SELECT survivor FROM row_state INDEXED BY united_row
             WHERE tenant = ?1 AND id = ?2 AND survivor IS NOT NULL AND united_at <= ?3",
        )?;
        let cursor = self.request.cursor.cast_signed();
        let mut rows = statement.query(params![self.tenant.id, &id.0[..], cursor])?;
        let survivor = rows.next()?.map(|row| row.get(0)).transpose()?;
        Ok(survivor.map_or(id, RowId))
    }

    /// Adds a row to the answer, whole.
    fn tell(&mut self, table: &Table, found: Found) -> Result<(), StoreError> {
        let name = &table.schema.name;
        let place = self.told.tables.iter().position(|header| header.name == *name);
        let place = place.unwrap_or_else(|| {
            self.told.tables.push(TableHeader { name: name.clone(), columns: table.schema.columns.clone() });
            self.told.tables.len() - 1
        });
        let Found { id, seq, survivor: united, state } = found;
        let writes = if united.is_some() { Vec::new() } else { state.everything().unwrap_or_default().0 };
        let whole = united.is_none();
        let table = u16::try_from(place).map_err(|_| damaged("the list of tables"))?;
        self.told.rows.push(RowUpdate { table, id, number: state.number, seq, whole, united, writes });
        Ok(())
    }
}

fn fingerprint(found: &Found, columns: &[(String, ColumnIndex)]) -> Fingerprint {
    let cells = columns
        .iter()
        .filter_map(|(name, column)| found.state.cells.get(column).map(|cell| (name.as_str(), &cell.value)));
    row_fingerprint(found.id, cells)
}

/// The columns that a range's fingerprints are over, in the order of their names.
fn columns(table: &Table, range: &Range) -> Vec<(String, ColumnIndex)> {
    let known = &table.schema.columns;
    let place = |name: &String| known.iter().position(|other| other.eq_ignore_ascii_case(name));
    let mut columns: Vec<(String, ColumnIndex)> = range
        .columns
        .iter()
        .filter_map(|name| Some((name.to_ascii_lowercase(), ColumnIndex::try_from(place(name)?).ok()?)))
        .collect();
    columns.sort();
    columns
}

impl Found {
    fn read(row: &SqlRow<'_>) -> Result<Self, StoreError> {
        let id = |index: usize| -> Result<Option<RowId>, StoreError> {
            let bytes = row.get_ref(index)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
            bytes.map(|bytes| RowId::from_slice(bytes).ok_or_else(|| damaged("a row's identity"))).transpose()
        };
        let body = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        Ok(Self {
            id: id(0)?.ok_or_else(|| damaged("a row's identity"))?,
            seq: row.get::<_, i64>(1)?.cast_unsigned(),
            survivor: id(2)?,
            state: crate::storage::row_codec::decode(body).map_err(|_| damaged("a row"))?,
        })
    }
}
