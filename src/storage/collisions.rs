//! Collisions that only this replica sees: its unique index is over a function of the application's own, or with
//! such a collation, which the hub cannot evaluate. A row that is set aside for one is told of with the next batch,
//! and the hub rules.

use std::rc::Rc;

use super::ahead::Update;
use super::applier::Applier;
use super::catalog::{Catalog, Table};
use super::driver::{Sql, SqlError, ValueRef};
use super::fields::Fields;
use super::local_key::LocalKey;
use super::obstacles::obstacles;
use super::parked::Parked;
use super::quarantine;
use super::rows::{Entry, Sending};
use super::swaps::target;
use super::unique_index::UniqueKey;
use crate::model::{Digest, RowId, RowUpdate};
use crate::protocol::limits::MAX_COLLISIONS;

/// The bookkeeping table: the row that is set aside, the one in its way, and the index. `mark` says what the two
/// were like.
pub const TABLE: &str = "CREATE TABLE main._federation_collision(tbl INTEGER NOT NULL, id BLOB NOT NULL, other BLOB NOT NULL, \
                         idx TEXT NOT NULL, mark BLOB NOT NULL, told INTEGER NOT NULL DEFAULT 0, \
                         PRIMARY KEY(tbl, id, other, idx)) WITHOUT ROWID";

/// A collision to tell of.
pub struct Found {
    /// The number of the table.
    pub table: i64,
    /// The row that is set aside, and the one in its way.
    pub rows: (RowId, RowId),
    /// The name of the index.
    pub index: String,
    mark: Digest,
}

/// Notes what is in the way of a row that is being set aside, as far as the hub may not see it.
pub fn note(
    applier: &mut Applier<'_>,
    sql: &mut dyn Sql,
    table: &Table,
    row: &Rc<Update<'_>>,
    parked: Option<&Parked>,
) -> Result<(), SqlError> {
    if table.unique_keys.iter().all(UniqueKey::is_plain) {
        return Ok(());
    }
    let Some(target) = target(applier, sql, table, row, parked)? else { return Ok(()) };
    for (unique, key) in obstacles(sql, table, &target, |unique| !unique.is_plain())? {
        let Some(other) = Entry::by_key(sql, table, &LocalKey::of(table, &key)?)? else { continue };
        let is_shared = other.sending == Sending::Clean && !other.meta.held;
        if other.id == row.1.id || !is_shared {
            // What the hub does not know as it is here, it could not compare.
            continue;
        }
        sql.execute(
            "INSERT INTO main._federation_collision(tbl, id, other, idx, mark) VALUES(?, ?, ?, ?, ?) \
             ON CONFLICT DO UPDATE SET mark = excluded.mark, told = 0 WHERE mark <> excluded.mark",
            &[
                table.number.into(),
                ValueRef::Blob(&row.1.id.0),
                ValueRef::Blob(&other.id.0),
                unique.index.as_str().into(),
                ValueRef::Blob(&mark(&row.1, &other).0),
            ],
        )?;
    }
    Ok(())
}

/// Takes the collisions that are to be told of, and still are.
pub fn take(sql: &mut dyn Sql, catalog: &Catalog) -> Result<Vec<Found>, SqlError> {
    let mut found = Vec::new();
    sql.query(
        "SELECT tbl, id, other, idx, mark FROM main._federation_collision WHERE NOT told LIMIT ?",
        &[i64::try_from(MAX_COLLISIONS).unwrap_or(i64::MAX).into()],
        &mut |row| {
            let mut fields = Fields::of(row);
            let table = fields.integer()?;
            let rows = (fields.bytes(RowId::from_slice)?, fields.bytes(RowId::from_slice)?);
            found.push(Found { table, rows, index: fields.text()?, mark: fields.bytes(Digest::from_slice)? });
            Ok(())
        },
    )?;
    let mut current = Vec::new();
    for one in found {
        let is_current = match catalog.numbered(one.table) {
            Some(table) => present_mark(sql, table, one.rows)? == Some(one.mark),
            None => false,
        };
        sql.execute(
            "UPDATE main._federation_collision SET told = 1 WHERE tbl = ? AND id = ? AND other = ? AND idx = ?",
            &[
                one.table.into(),
                ValueRef::Blob(&one.rows.0.0),
                ValueRef::Blob(&one.rows.1.0),
                one.index.as_str().into(),
            ],
        )?;
        if is_current {
            current.push(one);
        }
    }
    Ok(current)
}

/// Forgets collisions of rows that are not set aside any more.
pub fn forget_settled(sql: &mut dyn Sql) -> Result<(), SqlError> {
    sql.execute(
        "DELETE FROM main._federation_collision WHERE NOT EXISTS(SELECT 1 FROM main._federation_quarantine AS q \
         JOIN main._federation_table AS t ON t.name = q.tbl \
         WHERE t.tbl = _federation_collision.tbl AND q.id = _federation_collision.id)",
        &[],
    )?;
    Ok(())
}

/// Has everything told again: the batch that told of it may be lost, or the hub that heard it.
pub fn tell_again(sql: &mut dyn Sql) -> Result<(), SqlError> {
    sql.execute("UPDATE main._federation_collision SET told = 0", &[])?;
    Ok(())
}

fn present_mark(
    sql: &mut dyn Sql,
    table: &Table,
    (id, other): (RowId, RowId),
) -> Result<Option<Digest>, SqlError> {
    let (row, other) = (quarantine::find(sql, &table.name, id)?, Entry::by_id(sql, table, other)?);
    let other = other.filter(|other| other.sending == Sending::Clean);
    Ok(row.zip(other).map(|(row, other)| mark(&row.update, &other)))
}

/// What an update and the row in its way are like.
fn mark(update: &RowUpdate, other: &Entry) -> Digest {
    let mut hash = blake3::Hasher::new();
    hash.update(&update.seq.to_be_bytes()).update(&other.meta.seen.to_be_bytes());
    for cell in &other.meta.cells {
        hash.update(format!("{:?}{:?}{:?}", cell.column, cell.stamp, cell.fingerprint).as_bytes());
    }
    Digest(*hash.finalize().as_bytes())
}
