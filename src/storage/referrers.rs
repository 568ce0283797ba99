//! The rows here that reference a row by its number.

use super::catalog::{Catalog, Table, quote, quote_list};
use super::driver::{Sql, SqlError, ValueRef};
use super::identity::fingerprint;
use super::references::Reference;
use super::row_meta::CellMeta;
use super::rows::{Entry, LocalKey};
use crate::model::Value;

/// A column of rows that holds one number of a table's row.
pub struct Referrers<'a> {
    /// The rows' table.
    pub table: &'a Table,
    /// The position of the column.
    pub at: usize,
    /// The number as the column stores it.
    pub value: Value,
    /// Only rows that hold these in those columns.
    pub only: Vec<(usize, Value)>,
}

impl<'a> Referrers<'a> {
    /// All columns that can hold a table's numbers.
    pub fn all(catalog: &'a Catalog, parent: &Table, number: i64) -> Vec<Self> {
        let mut all = Vec::new();
        for table in &catalog.tables {
            for (at, column) in table.columns.iter().enumerate() {
                let mut add =
                    |only| all.push(Self { table, at, value: column.affinity.stored(number), only });
                match &column.references {
                    Some(Reference::Table(name)) if name.eq_ignore_ascii_case(&parent.name) => add(vec![]),
                    Some(Reference::ByColumn { column, map }) => {
                        for (value, name) in map {
                            if name.eq_ignore_ascii_case(&parent.name) {
                                add(vec![(*column, value.clone())]);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        all
    }

    /// The keys of the rows.
    pub fn keys(&self, sql: &mut dyn Sql) -> Result<Vec<Vec<Value>>, SqlError> {
        let held =
            || std::iter::once((self.at, &self.value)).chain(self.only.iter().map(|(at, it)| (*at, it)));
        let condition = |(at, _): (usize, _)| format!("{} = ?", quote(&self.table.columns[at].name));
        let condition = held().map(condition).collect::<Vec<_>>().join(" AND ");
        let params: Vec<ValueRef<'_>> = held().map(|(_, value)| value.into()).collect();
        keys_where(sql, self.table, &condition, &params)
    }
}

/// The keys of a table's rows for which a condition holds.
pub fn keys_where(
    sql: &mut dyn Sql,
    table: &Table,
    condition: &str,
    params: &[ValueRef<'_>],
) -> Result<Vec<Vec<Value>>, SqlError> {
    let columns = quote_list(table.key_columns());
    let statement = format!("SELECT {columns} FROM main.{} WHERE {condition}", quote(&table.name));
    let mut keys = Vec::new();
    sql.query(&statement, params, &mut |row| {
        keys.push(row.to_vec());
        Ok(())
    })?;
    Ok(keys)
}

/// The rows that hold a number which another row has now, or none: each is another reference than before,
/// although it is the same number. What is remembered of it is spoilt, so that it counts as written.
pub fn spoil<'a>(
    sql: &mut dyn Sql,
    catalog: &'a Catalog,
    parent: &Table,
    number: i64,
) -> Result<Vec<(&'a Table, Vec<Value>)>, SqlError> {
    let mut spoilt = Vec::new();
    for referrers in Referrers::all(catalog, parent, number) {
        for key in referrers.keys(sql)? {
            if key.contains(&Value::Null) {
                continue;
            }
            let local = LocalKey::of(referrers.table, &key)?;
            let column = referrers.table.columns[referrers.at].number;
            if let Some(mut entry) = Entry::by_key(sql, referrers.table, &local)?
                && let Some(cell) = entry.meta.cell(column).copied()
            {
                // Anything but the fingerprint of the number, however often it is spoilt.
                let other = !fingerprint(&referrers.value);
                entry.meta.put(CellMeta { fingerprint: other, ..cell });
                entry.update(sql, referrers.table, &local)?;
                spoilt.push((referrers.table, key));
            }
        }
    }
    Ok(spoilt)
}
