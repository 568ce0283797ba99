//! Foreign keys as they are checked here: applying runs with enforcement off, and looks at what it touched.

use std::collections::{HashMap, HashSet};

use super::catalog::{Catalog, Key, Table, quote};
use super::driver::{Sql, SqlError, ValueRef};
use super::rows::{key_condition, key_params};
use super::table_info::RawColumn;
use crate::model::Value;

/// A foreign key that can be checked: both tables and all columns exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The table that references.
    pub child: String,
    /// The table that is referenced.
    pub parent: String,
    /// Pairs of a column of the child and a column of the parent.
    pub columns: Vec<(String, String)>,
}

impl Catalog {
    /// Finds the foreign keys that can be checked; `columns` are those of all tables, synced or not. SQLite
    /// accepts foreign keys to tables and columns that do not exist.
    pub fn link_rows(&mut self, columns: &HashMap<String, Vec<RawColumn>>) {
        let by_name: HashMap<String, &Vec<RawColumn>> =
            columns.iter().map(|(name, own)| (name.to_lowercase(), own)).collect();
        let mut links = Vec::new();
        for table in &self.tables {
            for key in &table.foreign_keys {
                let Some(parent) = by_name.get(&key.parent.to_lowercase()) else { continue };
                let mut primary: Vec<&RawColumn> = parent.iter().filter(|it| it.key_position > 0).collect();
                primary.sort_by_key(|column| column.key_position);
                let pair = |(at, (from, to)): (usize, &(String, Option<String>))| {
                    let to = to.as_deref().or_else(|| primary.get(at).map(|column| column.name.as_str()))?;
                    let column = parent.iter().find(|column| column.name.eq_ignore_ascii_case(to))?;
                    Some((from.clone(), column.name.clone()))
                };
                let pairs: Option<Vec<_>> = key.columns.iter().enumerate().map(pair).collect();
                if let Some(columns) = pairs {
                    links.push(Link { child: table.name.clone(), parent: key.parent.clone(), columns });
                }
            }
        }
        for table in &mut self.tables {
            let is_own = |name: &str| name.eq_ignore_ascii_case(&table.name);
            table.parents = links.iter().filter(|link| is_own(&link.child)).cloned().collect();
            table.children = links.iter().filter(|link| is_own(&link.parent)).cloned().collect();
            let lower = |name: &String| name.to_lowercase();
            let pairs =
                |links: &[Link]| links.iter().flat_map(|link| link.columns.clone()).collect::<Vec<_>>();
            let from: HashSet<String> = pairs(&table.parents).iter().map(|(from, _)| lower(from)).collect();
            let to: HashSet<String> = pairs(&table.children).iter().map(|(_, to)| lower(to)).collect();
            for column in &mut table.columns {
                let name = column.name.to_lowercase();
                column.is_foreign_key = from.contains(&name);
                column.is_referenced = to.contains(&name);
            }
        }
    }
}

/// The first foreign key of a row whose parent is not here.
pub fn missing_parent<'a>(
    sql: &mut dyn Sql,
    table: &'a Table,
    key: &[Value],
) -> Result<Option<&'a Link>, SqlError> {
    if table.parents.is_empty() {
        return Ok(None);
    }
    let cases = table.parents.iter().enumerate().map(|(at, link)| {
        let set: Vec<String> =
            link.columns.iter().map(|(from, _)| format!("c.{} IS NOT NULL", quote(from))).collect();
        let same: Vec<String> =
            link.columns.iter().map(|(from, to)| format!("p.{} = c.{}", quote(to), quote(from))).collect();
        format!(
            "WHEN {} AND NOT EXISTS(SELECT 1 FROM main.{} AS p WHERE {}) THEN {at}",
            set.join(" AND "),
            quote(&link.parent),
            same.join(" AND ")
        )
    });
    let statement = format!(
        "SELECT CASE {} END FROM main.{} AS c WHERE {}",
        cases.collect::<Vec<_>>().join(" "),
        quote(&table.name),
        key_condition(table)
    );
    let found = sql.query_row(&statement, &key_params(table, key))?;
    Ok(match found.as_deref() {
        Some([Value::Integer(at)]) => usize::try_from(*at).ok().and_then(|at| table.parents.get(at)),
        _ => None,
    })
}

/// A foreign key by which other rows here reference a row that is to be deleted, or to become `new`.
pub fn referencing_child<'a>(
    sql: &mut dyn Sql,
    table: &'a Table,
    key: &[Value],
    row: &[Value],
    new: Option<&[Value]>,
) -> Result<Option<&'a Link>, SqlError> {
    for link in &table.children {
        let cells = |row| link.columns.iter().map(move |(_, to)| cell(table, key, row, to));
        let was: Option<Vec<&Value>> = cells(row).collect();
        let Some(was) = was.filter(|was| !was.contains(&&Value::Null)) else { continue };
        if new.is_some_and(|new| cells(new).eq(was.iter().copied().map(Some))) {
            continue;
        }
        let mut params: Vec<ValueRef<'_>> = was.iter().map(|&value| value.into()).collect();
        let mut statement = format!("SELECT 1 FROM main.{} WHERE ", quote(&link.child));
        statement += &conditions(link.columns.iter().map(|(from, _)| from));
        if link.child.eq_ignore_ascii_case(&table.name) {
            statement = format!("{statement} AND NOT ({})", key_condition(table));
            params.extend(key_params(table, key));
        }
        if sql.query_row(&(statement + " LIMIT 1"), &params)?.is_some() {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// That columns of these names equal parameters.
pub fn conditions<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(|name| format!("{} = ?", quote(name))).collect::<Vec<_>>().join(" AND ")
}

/// A foreign key of rows here that reference what this row was, although no row is that any more.
pub fn deserted_child<'a>(
    sql: &mut dyn Sql,
    table: &'a Table,
    key: &[Value],
    row: &[Value],
) -> Result<Option<&'a Link>, SqlError> {
    for link in &table.children {
        let was: Option<Vec<&Value>> = link.columns.iter().map(|(_, to)| cell(table, key, row, to)).collect();
        let Some(was) = was.filter(|was| !was.contains(&&Value::Null)) else { continue };
        let params: Vec<ValueRef<'_>> = was.iter().map(|&value| value.into()).collect();
        let from = conditions(link.columns.iter().map(|(from, _)| from));
        let referencing = format!("SELECT 1 FROM main.{} WHERE {from} LIMIT 1", quote(&link.child));
        if sql.query_row(&referencing, &params)?.is_none() {
            continue;
        }
        if !is_parent_here(sql, link, &params)? {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// Whether a row is here that what references by these values means.
pub fn is_parent_here(sql: &mut dyn Sql, link: &Link, values: &[ValueRef<'_>]) -> Result<bool, SqlError> {
    let to = conditions(link.columns.iter().map(|(_, to)| to));
    let referenced = format!("SELECT 1 FROM main.{} WHERE {to} LIMIT 1", quote(&link.parent));
    Ok(sql.query_row(&referenced, values)?.is_some())
}

/// A row's cell by the column's name; none for a generated column.
pub fn cell<'a>(table: &Table, key: &'a [Value], row: &'a [Value], column: &str) -> Option<&'a Value> {
    match &table.key {
        Key::Number(number) if number.eq_ignore_ascii_case(column) => key.first(),
        _ => table
            .columns
            .iter()
            .position(|own| own.name.eq_ignore_ascii_case(column))
            .and_then(|at| row.get(at)),
    }
}
