//! Folding: once every live replica has heard that rows are one, nobody writes to one of them any more. What they are
//! together is then what was written to one row, and the others go.

use rusqlite::{Connection, OptionalExtension, params};

use super::claims::{Claims, Target};
use super::damaged;
use super::rows::Rows;
use super::tables::{Table, merge_rules};
use super::weight::Weight;
use crate::model::{RowState, Rule, Seq};
use crate::storage::hub_store::StoreError;

/// Folds a tenant's rows.
pub struct Folder<'a> {
    pub conn: &'a Connection,
    pub tenant: i64,
    /// Every live replica has seen everything up to here.
    pub horizon: Seq,
}

impl Folder<'_> {
    /// Folds a row that is one with another one into that one. Returns the last position that it goes with; none if
    /// somebody may yet write to it, or a row references it.
    pub fn fold(&self, no: i64) -> Result<Option<Seq>, StoreError> {
        let mut rows = Rows::new(self.conn, self.tenant);
        if !self.is_there(no)? {
            return Ok(None);
        }
        rows.load(no)?;
        let (table, id, united_at) = {
            let row = rows.get(no)?;
            (row.table, row.id, row.united_at)
        };
        let Some(survivor) = rows.get(no)?.survivor else { return Ok(None) };
        let entity = rows.find(table, survivor)?.ok_or_else(|| damaged("a union of rows"))?;
        let claims = Claims::new(self.conn, self.tenant);
        let (is_seen, was_seen) = (self.is_seen(&rows, no)?, self.is_seen(&rows, entity)?);
        // Another row may mean this one by the identity that it had.
        let is_referenced = claims.referencing(&[Target::from(id)].into())?.iter().any(|row| *row != no);
        if united_at > self.horizon || !is_seen || is_referenced {
            return Ok(None);
        }
        let (row, kept) = (rows.get(no)?, rows.get(entity)?);
        let last = united_at.max(row.died);
        if row.raw.is_alive() {
            if !was_seen {
                return Ok(None);
            }
            let merge = self.merge_rules(table)?;
            let (first, second) = if row.born < kept.born { (row, kept) } else { (kept, row) };
            let (born, author, base) = if kept.raw.is_alive() {
                (first.born, first.author, first.base.max(second.base))
            } else {
                (row.born, row.author, row.base)
            };
            let number = kept.raw.number;
            let mut raw = RowState::united([&first.raw, &second.raw], &merge);
            raw.number = number.or(raw.number);
            let told = kept.told().clone();
            let kept = rows.get_mut(entity)?;
            (kept.born, kept.author, kept.base, kept.died) = (born, author, base, 0);
            kept.effective = (told != raw).then_some(told);
            kept.raw = raw;
            rows.store(entity)?;
        }
        self.remove(no, entity, &rows)?;
        Ok(Some(last))
    }

    fn is_there(&self, no: i64) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS(SELECT 1 FROM row_state WHERE row = ?1 AND tenant = ?2)";
        Ok(self.conn.prepare_cached(sql)?.query_row([no, self.tenant], |row| row.get(0))?)
    }

    /// Whether a row lives by its own writes, or everybody has seen that it does not.
    fn is_seen(&self, rows: &Rows<'_>, no: i64) -> Result<bool, StoreError> {
        let row = rows.get(no)?;
        // Earlier layouts did not say when.
        let died = if row.died == 0 { row.raw.seq() } else { row.died };
        Ok(row.raw.is_alive() || died <= self.horizon)
    }

    fn merge_rules(&self, table: i64) -> Result<Vec<Rule>, StoreError> {
        let found = Table::by_id(self.conn, self.tenant, table)?;
        Ok(found.map(|table| merge_rules(&table.schema)).unwrap_or_default())
    }

    /// Removes a row. References by keys that it had last mean the row that it was one with.
    fn remove(&self, no: i64, entity: i64, rows: &Rows<'_>) -> Result<(), StoreError> {
        for sql in ["DELETE FROM claim_wait WHERE row = ?1", "DELETE FROM link WHERE row = ?1"] {
            self.conn.prepare_cached(sql)?.execute([no])?;
        }
        let sql = "UPDATE former_claim SET row = ?2 WHERE row = ?1";
        self.conn.prepare_cached(sql)?.execute([no, entity])?;
        let sql = "DELETE FROM former_claim WHERE row = ?1 AND NOT EXISTS(
                       SELECT 1 FROM link WHERE link.tenant = former_claim.tenant AND target = digest)";
        if rows.get(entity)?.told().seq() <= self.horizon {
            self.conn.prepare_cached(sql)?.execute([entity])?;
        }
        let sql =
            "DELETE FROM row_state WHERE row = ?1 RETURNING length(body) + coalesce(length(effective), 0)";
        let bytes: Option<u32> =
            self.conn.prepare_cached(sql)?.query_row([no], |row| row.get(0)).optional()?;
        let sql = "SELECT live_bytes, dead_bytes FROM tenant WHERE id = ?1";
        let (live, dead) = self
            .conn
            .prepare_cached(sql)?
            .query_row([self.tenant], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        let before = Weight { live: live.cast_unsigned(), dead: dead.cast_unsigned() };
        let freed = Weight::of(bytes.unwrap_or_default() as usize, true);
        let after = rows.weigh(before).changed(Weight::default(), freed);
        let sql = "UPDATE tenant SET live_bytes = ?2, dead_bytes = ?3 WHERE id = ?1";
        self.conn.prepare_cached(sql)?.execute(params![
            self.tenant,
            after.live.cast_signed(),
            after.dead.cast_signed()
        ])?;
        Ok(())
    }
}
