//! The bookkeeping of rows: from a key here to an identity and back.

use std::collections::HashSet;

use super::catalog::{Catalog, Column, Key, Table, as_number, quote, quote_list};
use super::driver::{Sql, SqlError, SqlErrorKind, ValueRef};
use super::fields::integer;
use super::identity::fingerprint;
use super::local_key::LocalKey;
use super::quarantine::ask_again;
use super::row_meta::{CellMeta, Pending, RowMeta};
use crate::model::{RowId, Stamp, Value};

/// `_federation_row.batch`: what of a row is unsent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Nothing.
    Clean,
    /// Some cells.
    Unsent,
    /// All cells are to be offered again, with their stamps, to the hub that had them.
    Offer,
    /// All cells are to be offered to a hub that may have none of them (I15).
    OfferNew,
    /// Something that was not taken: it waits for the row to change ([`super::refused_rows`]).
    Refused,
    /// Some cells are under way in the batch of this mark.
    InBatch(u64),
}

impl Sending {
    /// As `_federation_row.batch` has it.
    pub fn as_param(self) -> Result<ValueRef<'static>, SqlError> {
        Ok(match self {
            Self::Clean => ValueRef::Null,
            Self::Unsent => ValueRef::Integer(0),
            Self::Offer => ValueRef::Integer(-1),
            Self::OfferNew => ValueRef::Integer(-2),
            Self::Refused => ValueRef::Integer(-3),
            Self::InBatch(mark) => integer(mark)?,
        })
    }

    /// Reads `_federation_row.batch`.
    pub fn read(value: &Value) -> Self {
        match value {
            Value::Integer(0) => Self::Unsent,
            Value::Integer(-1) => Self::Offer,
            Value::Integer(-3) => Self::Refused,
            Value::Integer(mark) => u64::try_from(*mark).map_or(Self::OfferNew, Self::InBatch),
            _ => Self::Clean,
        }
    }
}

/// A row of `_federation_row`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub key: LocalKey,
    /// The row's identity.
    pub id: RowId,
    /// What of it is unsent.
    pub sending: Sending,
    /// The rest.
    pub meta: RowMeta,
}

const ENTRY: &str = "SELECT k, id, batch, state FROM main._federation_row";

/// As much of an identity as the index `_federation_row_id` keeps. (SQLite's `substr` of an empty blob is NULL.)
pub fn beginning(id: &[u8]) -> &[u8] {
    &id[..id.len().min(6)]
}

impl Entry {
    /// The bookkeeping of the row that has this key here.
    pub fn by_key(sql: &mut dyn Sql, table: &Table, key: &LocalKey) -> Result<Option<Self>, SqlError> {
        let row = sql
            .query_row(&format!("{ENTRY} WHERE tbl = ? AND k = ?"), &[table.number.into(), key.as_param()])?;
        row.map(|mut row| Self::read(&mut row)).transpose()
    }

    /// The bookkeeping of the row of this identity.
    pub fn by_id(sql: &mut dyn Sql, table: &Table, id: RowId) -> Result<Option<Self>, SqlError> {
        let row = sql.query_row(
            &format!(
                "{ENTRY} INDEXED BY _federation_row_id WHERE tbl = ? AND substr(id, 1, 6) = ? AND id = ?"
            ),
            &[table.number.into(), ValueRef::Blob(beginning(&id.0)), ValueRef::Blob(&id.0)],
        )?;
        row.map(|mut row| Self::read(&mut row)).transpose()
    }

    /// Reads the columns of [`ENTRY`].
    pub fn read(row: &mut [Value]) -> Result<Self, SqlError> {
        let [key, Value::Blob(id), batch, Value::Blob(state)] = row else {
            return Err(SqlError::corrupt("_federation_row holds something else"));
        };
        Ok(Self {
            key: LocalKey::read(key)?,
            id: RowId::from_slice(id).ok_or_else(|| SqlError::corrupt("an identity of another length"))?,
            sending: Sending::read(batch),
            meta: RowMeta::decode(state)?,
        })
    }

    /// What is known of a table's rows from one identity, which is not among them, up to another; at most `limit`
    /// of them, in the order of their identities.
    pub fn in_range(
        sql: &mut dyn Sql,
        table: &Table,
        after: Option<RowId>,
        upto: Option<RowId>,
        limit: u64,
    ) -> Result<Vec<Self>, SqlError> {
        let after = after.as_ref().map_or(&[][..], |id| &id.0[..]);
        // Longer than any identity, and so behind all of them.
        let upto = upto.as_ref().map_or(&[0xff; 17][..], |id| &id.0[..]);
        let mut entries = Vec::new();
        sql.query(
            "SELECT k, id, batch, state FROM main._federation_row INDEXED BY _federation_row_id \
             WHERE tbl = ? AND substr(id, 1, 6) >= ? AND id > ? AND id <= ? \
             ORDER BY substr(id, 1, 6), id LIMIT ?",
            &[
                table.number.into(),
                ValueRef::Blob(beginning(after)),
                ValueRef::Blob(after),
                ValueRef::Blob(upto),
                integer(limit)?,
            ],
            &mut |row| {
                entries.push(Self::read(row)?);
                Ok(())
            },
        )?;
        Ok(entries)
    }

    /// The tables that have rows with something to send, by their numbers. Rows of a table that is gone wait until it is
    /// back, or for ever, and must hold nobody up.
    pub fn unsent_tables(sql: &mut dyn Sql, catalog: &Catalog) -> Result<HashSet<i64>, SqlError> {
        let tables: Vec<i64> = catalog.tables.iter().map(|table| table.number).collect();
        let mut unsent = HashSet::new();
        sql.query(
            "SELECT t.value FROM json_each(?) AS t WHERE EXISTS(SELECT 1 FROM main._federation_row AS r \
             INDEXED BY _federation_row_batch WHERE r.batch IN (-2, -1, 0) AND r.tbl = t.value)",
            &[format!("{tables:?}").as_str().into()],
            &mut |row| {
                unsent.extend(as_number(&row[0]));
                Ok(())
            },
        )?;
        Ok(unsent)
    }

    /// Rows of a table with something to send, beginning with those to be offered again.
    pub fn unsent(sql: &mut dyn Sql, table: &Table, limit: i64) -> Result<Vec<Self>, SqlError> {
        let mut entries = Vec::new();
        sql.query(
            "SELECT k, id, batch, state FROM main._federation_row INDEXED BY _federation_row_batch \
             WHERE batch IN (-2, -1, 0) AND tbl = ? ORDER BY batch LIMIT ?",
            &[table.number.into(), limit.into()],
            &mut |row| {
                entries.push(Self::read(row)?);
                Ok(())
            },
        )?;
        Ok(entries)
    }

    /// Some rows of a table of which nothing is unsent.
    pub fn some_clean(sql: &mut dyn Sql, table: &Table, limit: i64) -> Result<Vec<Self>, SqlError> {
        let mut entries = Vec::new();
        let statement =
            format!("{ENTRY} WHERE tbl = ? AND NOT (k >= x'00' AND k < x'01') AND batch IS NULL LIMIT ?");
        sql.query(&statement, &[table.number.into(), limit.into()], &mut |row| {
            entries.push(Self::read(row)?);
            Ok(())
        })?;
        Ok(entries)
    }

    /// Whether the row is, as far as the bookkeeping knows, in its table.
    pub fn is_present(&self) -> bool {
        !matches!(self.key, LocalKey::Dead(_)) && !self.meta.is_reserved()
    }

    /// Lays it where deleted rows lie, with the number that the row had; returns where it lay.
    pub fn bury(&mut self) -> LocalKey {
        let was = std::mem::replace(&mut self.key, LocalKey::dead(self.id));
        if let LocalKey::Number(number) = was {
            self.meta.number = Some(number);
        }
        was
    }

    /// All that is known of a table's rows.
    pub fn all(sql: &mut dyn Sql, table: &Table) -> Result<Vec<Self>, SqlError> {
        let mut entries = Vec::new();
        sql.query(&format!("{ENTRY} WHERE tbl = ?"), &[table.number.into()], &mut |row| {
            entries.push(Self::read(row)?);
            Ok(())
        })?;
        Ok(entries)
    }

    /// What is remembered of rows that are not in their table.
    pub fn dead(sql: &mut dyn Sql, table: &Table) -> Result<Vec<Self>, SqlError> {
        let mut entries = Vec::new();
        let statement = format!("{ENTRY} WHERE tbl = ? AND k >= x'00' AND k < x'01'");
        sql.query(&statement, &[table.number.into()], &mut |row| {
            entries.push(Self::read(row)?);
            Ok(())
        })?;
        Ok(entries)
    }

    /// What is known of a table's rows beyond a key (of all, if that is NULL); at most `limit` of them, in the order of
    /// their keys.
    pub fn after(sql: &mut dyn Sql, table: &Table, key: &Value, limit: usize) -> Result<Vec<Self>, SqlError> {
        let mut entries = Vec::new();
        let beyond = if *key == Value::Null { "? IS NULL" } else { "k > ?" };
        sql.query(
            &format!("{ENTRY} WHERE tbl = ? AND {beyond} ORDER BY k LIMIT ?"),
            &[table.number.into(), key.into(), integer(limit as u64)?],
            &mut |row| {
                entries.push(Self::read(row)?);
                Ok(())
            },
        )?;
        Ok(entries)
    }

    /// Turns a row that went with its table, as that was dropped and made again, into a reserved identity: the hub is
    /// asked for it, and it comes back under its number.
    pub fn release(mut self, sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
        (self.sending, self.meta) = (Sending::Clean, RowMeta::default());
        let was = self.key.clone();
        self.update(sql, table, &was)
    }

    /// Marks what is unsent of the row (or all of it, if it is to be offered again) as under way in the
    /// batch `mark`.
    pub fn take_up(&mut self, mark: u64) {
        let offer = matches!(self.sending, Sending::Offer | Sending::OfferNew);
        let take = |pending: &mut Option<Pending>| {
            *pending = match *pending {
                _ if offer => Some(Pending { base: 0, mark, is_effect: false }),
                Some(pending) if pending.mark == 0 => Some(Pending { mark, ..pending }),
                other => other,
            };
        };
        if offer {
            // A position of another store means nothing to this one.
            self.meta.seen = 0;
        }
        let is_unsent = self.meta.unshared == Some(0);
        if is_unsent || self.sending == Sending::OfferNew {
            self.meta.unshared = Some(mark);
        }
        self.meta.cells.iter_mut().for_each(|cell| take(&mut cell.pending));
        self.meta.deleted.iter_mut().for_each(|deleted| take(&mut deleted.pending));
        self.meta.take_up_adjustments(mark, offer);
        self.sending = if mark == 0 { Sending::Unsent } else { Sending::InBatch(mark) };
    }

    /// Takes over what is remembered of the row after a merge, which may have left something to send.
    pub fn take_over(&mut self, meta: RowMeta) {
        self.meta = meta;
        let has_to_go = match self.sending {
            Sending::Clean | Sending::InBatch(_) => self.meta.is_unsent(),
            // Of this, the hub may take what it did not take before.
            Sending::Refused => true,
            _ => false,
        };
        if has_to_go {
            self.sending = Sending::Unsent;
        }
    }

    /// Adds it.
    pub fn insert(&self, sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
        let state = self.meta.encode()?;
        self.place(
            sql,
            table,
            "INSERT INTO main._federation_row(tbl, k, id, batch, state) VALUES(?, ?, ?, ?, ?)",
            &[
                table.number.into(),
                self.key.as_param(),
                ValueRef::Blob(&self.id.0),
                self.sending.as_param()?,
                ValueRef::Blob(&state),
            ],
        )
    }

    /// Runs a statement that puts the bookkeeping under the row's key. If that of another row lies there, that
    /// row is not in its table any more, or this one could not be: it makes way, and the hub is asked for it.
    fn place(
        &self,
        sql: &mut dyn Sql,
        table: &Table,
        statement: &str,
        params: &[ValueRef<'_>],
    ) -> Result<(), SqlError> {
        let refused = match sql.execute(statement, params) {
            Err(error) if error.kind == SqlErrorKind::Constraint => error,
            outcome => return outcome.map(|_| ()),
        };
        let Some(other) = Self::by_key(sql, table, &self.key)?.filter(|other| other.id != self.id) else {
            return Err(refused);
        };
        sql.execute(
            "UPDATE OR REPLACE main._federation_row SET k = ? WHERE tbl = ? AND k = ?",
            &[LocalKey::dead(other.id).as_param(), table.number.into(), self.key.as_param()],
        )?;
        ask_again(sql, table)?;
        sql.execute(statement, params)?;
        Ok(())
    }

    /// Removes it.
    pub fn forget(&self, sql: &mut dyn Sql, table: &Table) -> Result<(), SqlError> {
        sql.execute(
            "DELETE FROM main._federation_row WHERE tbl = ? AND k = ?",
            &[table.number.into(), self.key.as_param()],
        )?;
        Ok(())
    }

    /// Writes it back, perhaps under another key than the one it was read from.
    pub fn update(&self, sql: &mut dyn Sql, table: &Table, was: &LocalKey) -> Result<(), SqlError> {
        let state = self.meta.encode()?;
        self.place(
            sql,
            table,
            "UPDATE main._federation_row SET k = ?, batch = ?, state = ? WHERE tbl = ? AND k = ?",
            &[
                self.key.as_param(),
                self.sending.as_param()?,
                ValueRef::Blob(&state),
                table.number.into(),
                was.as_param(),
            ],
        )
    }
}

/// Reads a row's travelling columns by its key.
pub fn read_row(sql: &mut dyn Sql, table: &Table, key: &[Value]) -> Result<Option<Vec<Value>>, SqlError> {
    read_columns(sql, table, &column_list(table), key)
}

/// These columns of a row; none if it is not there.
pub fn read_columns(
    sql: &mut dyn Sql,
    table: &Table,
    columns: &str,
    key: &[Value],
) -> Result<Option<Vec<Value>>, SqlError> {
    sql.query_row(
        &format!("SELECT {columns} FROM main.{} WHERE {}", quote(&table.name), key_condition(table)),
        &key_params(table, key),
    )
}

/// The travelling columns for a SELECT.
pub fn column_list(table: &Table) -> String {
    quote_list(table.columns.iter().map(|column| column.name.as_str()))
}

/// `"k0" = ? AND …`, comparing bytes, so that a NOCASE key finds its own row only. See [`key_params`].
pub fn key_condition(table: &Table) -> String {
    let conditions = table.key_columns().into_iter().map(|column| match table.key {
        Key::Number(_) => format!("{} = ?", quote(column)),
        // The first comparison is the one that the key's index knows, the second one is exact.
        Key::Natural(_) => format!("{0} = ? AND {0} = ? COLLATE BINARY", quote(column)),
    });
    conditions.collect::<Vec<_>>().join(" AND ")
}

/// The parameters of [`key_condition`].
pub fn key_params<'a>(table: &Table, key: &'a [Value]) -> Vec<ValueRef<'a>> {
    match table.key {
        Key::Number(_) => key.iter().map(ValueRef::from).collect(),
        Key::Natural(_) => key.iter().flat_map(|value| [value.into(), value.into()]).collect(),
    }
}

/// The fingerprints of a row's cells.
pub fn fingerprints<'a>(
    table: &'a Table,
    row: &'a [Value],
) -> impl Iterator<Item = (&'a Column, u64)> + use<'a> {
    table.columns.iter().zip(row).map(|(column, value)| (column, fingerprint(value)))
}

/// What is remembered of a cell that came from elsewhere.
pub fn merged_cell(column: u16, stamp: Stamp, value: &Value) -> CellMeta {
    CellMeta { column, stamp, fingerprint: fingerprint(value), pending: None }
}
