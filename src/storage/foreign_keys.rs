//! Foreign keys as they are checked here: applying runs with enforcement off, and looks at what it touched.

use std::collections::{HashMap, HashSet};

use super::catalog::{Catalog, Key, Table, quote, quote_list};
use super::driver::{Sql, SqlError, ValueRef};
use super::generated::{ColumnsOfTables, TableColumns};
use super::rows::{key_condition, key_params, read_columns};
use super::table_info::{OnDelete, RawColumn};
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
    /// What becomes of the child when the parent is deleted.
    pub on_delete: OnDelete,
}

/// A generated column by which a row is referenced. Its value is read with the row's cells, behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Its name.
    pub name: String,
    /// The positions of the columns that it is made of, in [`Table::columns`].
    behind: Vec<usize>,
}

impl Catalog {
    /// Finds the foreign keys that can be checked; `columns` are those of all tables, synced or not, and `made` says
    /// what generated ones are made of. SQLite accepts foreign keys to tables and columns that do not exist.
    pub fn link_rows(&mut self, columns: &HashMap<String, Vec<RawColumn>>, made: &ColumnsOfTables) {
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
                    let (child, parent, on_delete) = (table.name.clone(), key.parent.clone(), key.on_delete);
                    links.push(Link { child, parent, columns, on_delete });
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
            let mut to: HashSet<String> = pairs(&table.children).iter().map(|(_, to)| lower(to)).collect();
            table.shadows = shadows(table, &to, made.get(&table.name));
            to.extend(
                table
                    .shadows
                    .iter()
                    .flat_map(|shadow| &shadow.behind)
                    .map(|at| lower(&table.columns[*at].name)),
            );
            for column in &mut table.columns {
                let name = column.name.to_lowercase();
                column.is_foreign_key = from.contains(&name);
                column.is_referenced = to.contains(&name);
            }
        }
    }
}

/// The generated columns among those that are referenced, by their names in lower case.
fn shadows(table: &Table, referenced: &HashSet<String>, made: Option<&TableColumns>) -> Vec<Shadow> {
    let Some(made) = made else { return Vec::new() };
    let mut names: Vec<&String> = referenced.iter().collect();
    names.sort();
    let shadow = |name: &String| {
        let (written, generated) = made.behind(std::slice::from_ref(name));
        // The one that is asked for comes last.
        let (name, _) = generated.into_iter().last()?;
        let behind = written.iter().filter_map(|column| table.position(column)).collect();
        Some(Shadow { name, behind })
    };
    names.into_iter().filter_map(shadow).collect()
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
        let was: Option<Vec<&Value>> = link.columns.iter().map(|(_, to)| cell(table, key, row, to)).collect();
        let Some(was) = was.filter(|was| !was.contains(&&Value::Null)) else { continue };
        if new.is_some_and(|new| link.columns.iter().all(|(_, to)| is_kept(table, (key, row), new, to))) {
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

/// The keys by which rows reference a table, as far as they are made of several columns: their positions.
pub fn referenced_keys(table: &Table) -> impl Iterator<Item = Vec<usize>> {
    let positions = |column: &String| {
        if let Some(at) = table.position(column) {
            return vec![at];
        }
        let shadow = table.shadows.iter().find(|shadow| shadow.name.eq_ignore_ascii_case(column));
        shadow.map(|shadow| shadow.behind.clone()).unwrap_or_default()
    };
    let key = move |link: &Link| link.columns.iter().flat_map(|(_, to)| positions(to)).collect::<Vec<_>>();
    table.children.iter().map(key).filter(|key| key.len() > 1)
}

/// Whether a column is the same in a row that is to be changed. What a generated one will be nobody knows yet: it is
/// taken for another if anything is that it is made of.
fn is_kept(table: &Table, (key, row): (&[Value], &[Value]), new: &[Value], column: &str) -> bool {
    match table.shadows.iter().find(|shadow| shadow.name.eq_ignore_ascii_case(column)) {
        Some(shadow) => shadow.behind.iter().all(|at| row.get(*at) == new.get(*at)),
        None => cell(table, key, row, column) == cell(table, key, new, column),
    }
}

/// The columns for a SELECT of a row with its shadows.
pub fn columns_with_shadows(table: &Table) -> String {
    let columns = table.columns.iter().map(|column| &column.name);
    quote_list(columns.chain(table.shadows.iter().map(|shadow| &shadow.name)).map(String::as_str))
}

/// A row's cells and shadows.
pub fn read_with_shadows(
    sql: &mut dyn Sql,
    table: &Table,
    key: &[Value],
) -> Result<Option<Vec<Value>>, SqlError> {
    read_columns(sql, table, &columns_with_shadows(table), key)
}

/// A row's cell by the column's name; none for a shadow, unless it was read with the row.
pub fn cell<'a>(table: &Table, key: &'a [Value], row: &'a [Value], column: &str) -> Option<&'a Value> {
    if let Key::Number(number) = &table.key
        && number.eq_ignore_ascii_case(column)
    {
        return key.first();
    }
    let shadow = || {
        let at = table.shadows.iter().position(|shadow| shadow.name.eq_ignore_ascii_case(column))?;
        Some(table.columns.len() + at)
    };
    row.get(table.position(column).or_else(shadow)?)
}
