//! Concurrent writes of columns that the application resolves itself: told to the replica that pushed the
//! second one, with its acknowledgement.

use rusqlite::{Connection, OptionalExtension, params};

use super::push::Resolved;
use crate::model::{Contest, RowId};
use crate::protocol::limits::MAX_CONTEST_BYTES;
use crate::protocol::message::Contested;
use crate::storage::hub_store::StoreError;

/// The contests of one batch, as far as its acknowledgement has room for them; of the others the later write
/// stands, as without a resolver.
pub struct Contests<'a> {
    conn: &'a Connection,
    tenant: i64,
    found: Vec<Contested>,
    room_bytes: usize,
}

impl<'a> Contests<'a> {
    /// None yet.
    pub fn new(conn: &'a Connection, tenant: i64) -> Self {
        Self { conn, tenant, found: Vec::new(), room_bytes: MAX_CONTEST_BYTES }
    }

    /// Adds what came up while a row was merged.
    pub fn add(&mut self, table: &Resolved, id: RowId, contests: Vec<Contest>) -> Result<(), StoreError> {
        for contest in contests {
            let bytes = 100 + contest.present.value.heap_bytes() + contest.pushed.value.heap_bytes();
            let column = table.names.get(usize::from(contest.column));
            let (Some(column), Some(room)) = (column, self.room_bytes.checked_sub(bytes)) else { continue };
            self.room_bytes = room;
            self.found.push(Contested {
                table: table.name.clone(),
                id,
                column: column.clone(),
                local: (contest.pushed.stamp, contest.pushed.value),
                agent: self.agent(contest.present.writer)?,
                remote: (contest.present.stamp, contest.present.value),
            });
        }
        Ok(())
    }

    /// All of them.
    pub fn finish(self) -> Vec<Contested> {
        self.found
    }

    /// The agent whose replica has this tie-break; empty if it is not known. A tie-break is the first 64 bits of an identity
    /// without the highest, so that there are two ranges of identities to look in.
    fn agent(&self, writer: u64) -> Result<String, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT agent FROM replica WHERE tenant = ?1 AND id BETWEEN ?2 AND ?3 LIMIT 1")?;
        for beginning in [writer, writer | 1 << 63] {
            let (mut first, mut last) = ([0; 16], [0xff; 16]);
            first[..8].copy_from_slice(&beginning.to_be_bytes());
            last[..8].copy_from_slice(&beginning.to_be_bytes());
            let params = params![self.tenant, &first[..], &last[..]];
            if let Some(agent) = statement.query_row(params, |row| row.get(0)).optional()? {
                return Ok(agent);
            }
        }
        Ok(String::new())
    }
}
