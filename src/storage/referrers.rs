//! The rows here that reference a row by its number.

use std::collections::{BTreeMap, HashSet};

use super::catalog::{Catalog, Key, Table, as_number, quote, quote_list};
use super::driver::{EachRow, Sql, SqlError, ValueRef};
use super::identity::fingerprint;
use super::local_key::LocalKey;
use super::look::number_sql;
use super::references::Reference;
use super::row_meta::CellMeta;
use super::rows::Entry;
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

    /// The columns that can hold a table's numbers without SQLite's, or the hub's, seeing to it that there is a row
    /// for each: they are no foreign keys.
    fn unguarded(catalog: &'a Catalog, parent: &Table) -> impl Iterator<Item = Self> {
        let all = Self::all(catalog, parent, 0).into_iter();
        all.filter(|one| !one.table.columns[one.at].is_foreign_key)
    }

    /// Hands over the number in each row for which a condition on it holds, whichever number it is, behind the
    /// `columns`. The rows are called `child`; the condition is made of an expression for the number.
    fn each(
        &self,
        sql: &mut dyn Sql,
        columns: &str,
        condition: impl FnOnce(&str) -> String,
        params: &[ValueRef<'_>],
        each: EachRow<'_>,
    ) -> Result<(), SqlError> {
        let name = |at: usize| format!("child.{}", quote(&self.table.columns[at].name));
        let number = number_sql(self.table.columns[self.at].affinity, &name(self.at));
        let only: Vec<String> = self.only.iter().map(|(at, _)| format!("{} = ? AND ", name(*at))).collect();
        let statement = format!(
            "SELECT {columns}{number} FROM main.{} AS child WHERE {}{}",
            quote(&self.table.name),
            only.concat(),
            condition(&number)
        );
        let only = self.only.iter().map(|(_, value)| value.into());
        let params: Vec<ValueRef<'_>> = only.chain(params.iter().copied()).collect();
        sql.query(&statement, &params, each)
    }

    /// Spoils what is remembered of the column in one of the rows, if that passes the filter; says whether it was.
    fn spoil(
        &self,
        sql: &mut dyn Sql,
        key: &[Value],
        filter: impl FnOnce(&CellMeta) -> bool,
    ) -> Result<bool, SqlError> {
        if key.contains(&Value::Null) {
            return Ok(false);
        }
        let local = LocalKey::of(self.table, key)?;
        let column = self.table.columns[self.at].number;
        let Some(mut entry) = Entry::by_key(sql, self.table, &local)? else { return Ok(false) };
        let Some(cell) = entry.meta.cell(column).copied().filter(filter) else { return Ok(false) };
        // Anything but the fingerprint of the number, however often it is spoilt.
        let other = !fingerprint(&self.value);
        entry.meta.put(CellMeta { fingerprint: other, ..cell });
        entry.update(sql, self.table, &local)?;
        Ok(true)
    }

    /// The keys of the rows.
    pub fn keys(&self, sql: &mut dyn Sql) -> Result<Vec<Vec<Value>>, SqlError> {
        let held = self.held();
        let condition = |(at, _): &(usize, Value)| format!("{} = ?", quote(&self.table.columns[*at].name));
        let condition = held.iter().map(condition).collect::<Vec<_>>().join(" AND ");
        let params: Vec<ValueRef<'_>> = held.iter().map(|(_, value)| value.into()).collect();
        keys_where(sql, self.table, &condition, &params)
    }

    /// What such a row holds, by the positions of columns.
    pub fn held(&self) -> Vec<(usize, Value)> {
        std::iter::once((self.at, self.value.clone())).chain(self.only.iter().cloned()).collect()
    }
}

/// The numbers that rows hold and that no row of the table has, though nothing but the application sees to that.
pub fn dangling(sql: &mut dyn Sql, catalog: &Catalog, parent: &Table) -> Result<HashSet<i64>, SqlError> {
    let mut numbers = HashSet::new();
    let Key::Number(key) = &parent.key else { return Ok(numbers) };
    let (parent_name, key) = (quote(&parent.name), quote(key));
    let is_missing = |number: &str| {
        format!(
            "{number} IS NOT NULL AND NOT EXISTS(SELECT 1 FROM main.{parent_name} AS parent \
             WHERE parent.{key} = {number})"
        )
    };
    for referrers in Referrers::unguarded(catalog, parent) {
        referrers.each(sql, "", is_missing, &[], &mut |row| {
            numbers.extend(as_number(&row[0]));
            Ok(())
        })?;
    }
    Ok(numbers)
}

/// As [`spoil`], of the rows that hold one of these numbers in a column that is no foreign key, and have told so before
/// batch `mark`.
pub fn spoil_unguarded<'a>(
    sql: &mut dyn Sql,
    catalog: &'a Catalog,
    parent: &Table,
    numbers: &BTreeMap<i64, i64>,
    mark: u64,
) -> Result<Vec<Spoilt<'a>>, SqlError> {
    // What is yet to be told, or is in the batch being composed, is told as what the number means then.
    let is_told = |cell: &CellMeta| cell.pending.is_none_or(|pending| ![0, mark].contains(&pending.mark));
    spoil_those(sql, Referrers::unguarded(catalog, parent), numbers, is_told)
}

/// As [`spoil`], of the rows that hold one of these numbers.
pub fn spoil_all<'a>(
    sql: &mut dyn Sql,
    catalog: &'a Catalog,
    parent: &Table,
    numbers: &BTreeMap<i64, i64>,
) -> Result<Vec<Spoilt<'a>>, SqlError> {
    spoil_those(sql, Referrers::all(catalog, parent, 0).into_iter(), numbers, |_| true)
}

fn spoil_those<'a>(
    sql: &mut dyn Sql,
    all: impl Iterator<Item = Referrers<'a>>,
    numbers: &BTreeMap<i64, i64>,
    is_told: impl Fn(&CellMeta) -> bool,
) -> Result<Vec<Spoilt<'a>>, SqlError> {
    let mut spoilt = Vec::new();
    let (Some((lowest, _)), Some((highest, _))) = (numbers.first_key_value(), numbers.last_key_value())
    else {
        return Ok(spoilt);
    };
    let bounds = [(*lowest).into(), (*highest).into()];
    for mut referrers in all {
        let table = referrers.table;
        let key = table
            .key_columns()
            .into_iter()
            .fold(String::new(), |key, column| format!("{key}child.{}, ", quote(column)));
        let mut found = Vec::new();
        referrers.each(sql, &key, |number| format!("{number} BETWEEN ? AND ?"), &bounds, &mut |row| {
            let [key @ .., number] = row else { return Ok(()) };
            let number = as_number(number).filter(|number| numbers.contains_key(number));
            found.extend(number.map(|number| (key.to_vec(), number)));
            Ok(())
        })?;
        for (key, number) in found {
            referrers.value = table.columns[referrers.at].affinity.stored(number);
            if referrers.spoil(sql, &key, &is_told)? {
                spoilt.push(Spoilt { table, key, number });
            }
        }
    }
    Ok(spoilt)
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

/// A row whose reference is spoilt.
pub struct Spoilt<'a> {
    /// Its table.
    pub table: &'a Table,
    /// Its key.
    pub key: Vec<Value>,
    /// The number that it holds.
    pub number: i64,
}

/// The rows that hold a number which another row has now, or none: each is another reference than before,
/// although it is the same number. What is remembered of it is spoilt, so that it counts as written.
pub fn spoil<'a>(
    sql: &mut dyn Sql,
    catalog: &'a Catalog,
    parent: &Table,
    number: i64,
) -> Result<Vec<Spoilt<'a>>, SqlError> {
    let mut spoilt = Vec::new();
    for referrers in Referrers::all(catalog, parent, number) {
        for key in referrers.keys(sql)? {
            if referrers.spoil(sql, &key, |_| true)? {
                spoilt.push(Spoilt { table: referrers.table, key, number });
            }
        }
    }
    Ok(spoilt)
}
