//! Removing rows in pieces, each small enough that others hardly wait for it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::damaged;
use super::dropped;
use super::tenant::Tenant;
use super::weight::Weight;
use crate::storage::hub_operator::{Removal, Removed};
use crate::storage::hub_store::{StoreError, StoreStats};

/// Rows that one piece removes.
const ROWS: i64 = 250;

/// Bytes of rows after which a piece is full.
const BYTES: u64 = 4 << 20;

/// What a tenant has besides its rows, with what tells the lines of each table apart.
const REST: [(&str, &str); 15] = [
    ("claim", "digest"),
    ("former_claim", "digest"),
    ("claim_wait", "digest"),
    ("alike", "digest"),
    ("link", "target"),
    ("table_rules", "tbl"),
    ("definition", "id"),
    ("declaration", "id"),
    ("replica", "id"),
    ("agent", "name"),
    ("retired", "name"),
    ("dropped_table", "name"),
    ("dropped_definition", "digest"),
    ("table_schema", "id"),
    ("incarnation", "n"),
];

/// What has gone so far of removals that are under way.
pub type Totals = HashMap<Removal, Removed>;

/// Notes that rows are to be removed.
pub fn begin(conn: &Connection, removal: Removal) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR IGNORE INTO removal (tenant, tbl) VALUES (?1, ?2)")?
        .execute([removal.tenant, removal.table])?;
    Ok(())
}

/// A removal that is under way.
pub fn any(conn: &Connection) -> Result<Option<Removal>, StoreError> {
    let found = conn
        .prepare_cached("SELECT tenant, tbl FROM removal LIMIT 1")?
        .query_row([], |row| Ok(Removal { tenant: row.get(0)?, table: row.get(1)? }))
        .optional()?;
    Ok(found)
}

/// Whether anything is left of a removal.
pub fn is_under_way(conn: &Connection, removal: Removal) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM removal WHERE tenant = ?1 AND tbl = ?2)";
    let mut statement = conn.prepare_cached(sql)?;
    Ok(statement.query_row([removal.tenant, removal.table], |row| row.get(0))?)
}

/// What a piece has done.
pub struct Piece {
    /// What it has removed.
    pub removed: Removed,
    /// Whether nothing is left.
    pub is_last: bool,
    /// The tenant whose replicas have to declare their tables again.
    pub renewed: Option<String>,
}

/// Removes a piece. What it frees of the file is overwritten.
pub fn step(conn: &Connection, stats: &mut StoreStats, removal: Removal) -> Result<Piece, StoreError> {
    set_secure_delete(conn, "ON")?;
    let outcome = remove_some(conn, stats, removal);
    set_secure_delete(conn, "FAST")?;
    outcome
}

fn set_secure_delete(conn: &Connection, how: &str) -> Result<(), StoreError> {
    Ok(conn.pragma_update_and_check(None, "secure_delete", how, |_| Ok(()))?)
}

fn remove_some(conn: &Connection, stats: &mut StoreStats, removal: Removal) -> Result<Piece, StoreError> {
    let (removed, weight) = remove_rows(conn, removal)?;
    let mut piece = Piece { removed, is_last: false, renewed: None };
    if removal.table != 0 {
        take_off(conn, stats, removal.tenant, removed.rows, weight)?;
    }
    if weight != Weight::default() {
        return Ok(piece);
    }
    if removal.table == 0 && remove_rest(conn, removal.tenant)? {
        return Ok(piece);
    }
    if removal.table != 0 {
        piece.renewed = end_of_table(conn, removal)?;
    }
    conn.prepare_cached("DELETE FROM removal WHERE tenant = ?1 AND tbl = ?2")?
        .execute([removal.tenant, removal.table])?;
    piece.is_last = true;
    Ok(piece)
}

/// Removes some rows, with everything by which they could be found. Returns what has gone, and what it weighed.
fn remove_rows(conn: &Connection, removal: Removal) -> Result<(Removed, Weight), StoreError> {
    let sql = format!(
        "SELECT row, length(body) + coalesce(length(effective), 0), dead, withheld FROM row_state
         WHERE tenant = ?1 {} LIMIT {ROWS}",
        if removal.table == 0 { "AND ?2 = 0" } else { "AND tbl = ?2" }
    );
    let mut found: Vec<(i64, Weight, bool)> = Vec::new();
    let mut statement = conn.prepare_cached(&sql)?;
    let mut rows = statement.query([removal.tenant, removal.table])?;
    let mut total = Weight::default();
    while let Some(row) = rows.next()?
        && total.live + total.dead < BYTES
    {
        let (bytes, is_dead, is_withheld): (u32, bool, bool) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let weight = Weight::of(bytes as usize, is_dead);
        total = total.changed(weight, Weight::default());
        found.push((row.get(0)?, weight, !is_dead && !is_withheld));
    }
    for (row, ..) in &found {
        for sql in [
            "DELETE FROM claim WHERE row = ?1",
            "DELETE FROM former_claim WHERE row = ?1",
            "DELETE FROM claim_wait WHERE row = ?1",
            "DELETE FROM link WHERE row = ?1",
            "DELETE FROM row_state WHERE row = ?1",
        ] {
            conn.prepare_cached(sql)?.execute([row])?;
        }
    }
    let live = found.iter().filter(|(.., is_live)| *is_live).count() as u64;
    Ok((Removed { rows: live, bytes: total.live + total.dead }, total))
}

/// Takes rows off what is counted of their tenant.
fn take_off(
    conn: &Connection,
    stats: &mut StoreStats,
    tenant: i64,
    live: u64,
    weight: Weight,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE tenant SET rows = max(0, rows - ?2), live_bytes = max(0, live_bytes - ?3),
             dead_bytes = max(0, dead_bytes - ?4) WHERE id = ?1",
    )?
    .execute(params![
        tenant,
        live.cast_signed(),
        weight.live.cast_signed(),
        weight.dead.cast_signed()
    ])?;
    stats.rows = stats.rows.saturating_sub(live);
    Ok(())
}

/// Removes some of what a tenant has besides its rows. Says whether there was anything.
fn remove_rest(conn: &Connection, tenant: i64) -> Result<bool, StoreError> {
    for (table, key) in REST {
        let sql = format!(
            "DELETE FROM {table} WHERE tenant = ?1 AND {key} IN (
                 SELECT {key} FROM {table} WHERE tenant = ?1 LIMIT {ROWS})"
        );
        if conn.prepare_cached(&sql)?.execute([tenant])? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The rows of a table are gone: its name is free, which every replica is told. Returns the tenant's name.
fn end_of_table(conn: &Connection, removal: Removal) -> Result<Option<String>, StoreError> {
    let name: Option<String> = conn
        .prepare_cached("SELECT name FROM tenant WHERE id = ?1")?
        .query_row([removal.tenant], |row| row.get(0))
        .optional()?;
    // The tenant may have been erased meanwhile.
    let Some(name) = name else { return Ok(None) };
    let mut tenant = Tenant::find(conn, &name)?.ok_or_else(|| damaged("a tenant"))?;
    tenant.seq += 1;
    dropped::note_end(conn, tenant.id, removal.table, tenant.seq)?;
    tenant.save(conn)?;
    end_sessions(conn, tenant.id)?;
    Ok(Some(name))
}

/// Has every replica attach again before it does anything else.
pub fn end_sessions(conn: &Connection, tenant: i64) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE replica SET epoch = epoch + 1 WHERE tenant = ?1")?.execute([tenant])?;
    Ok(())
}

/// Gives some of the file's free pages back. Returns how many pages are free then, and were before.
pub fn vacuum(conn: &Connection, pages: i64) -> Result<(i64, i64), StoreError> {
    let free = || -> Result<i64, StoreError> {
        Ok(conn.pragma_query_value(None, "freelist_count", |row| row.get(0))?)
    };
    let before = free()?;
    if before > 0 {
        let mut statement = conn.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok((free()?, before))
}

/// Brings the log into the file, and empties it if nobody reads.
pub fn empty_log(conn: &Connection) -> Result<bool, StoreError> {
    // Nobody is waited for: whoever asked comes again.
    conn.busy_timeout(std::time::Duration::ZERO)?;
    let busy = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    conn.busy_timeout(super::open::BUSY_TIMEOUT)?;
    // What keeps it from being done in full is somebody who reads, and who reads has nothing to do with a failure.
    match busy {
        Ok(busy) => Ok(busy == 0),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
