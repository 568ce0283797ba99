//! What an application has chosen, as the JavaScript layer hands it over: checked there, as plain data.

use serde::Deserialize;

use super::error::CodedError;
use crate::model::{Rule, Value};
use crate::storage::choice::{CreateSchema, SyncOptions, TableOptions};
use crate::storage::references::{DeclaredParent, DeclaredReference};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Choice {
    include: Option<Vec<String>>,
    #[serde(default)]
    exclude: Vec<String>,
    tables: Vec<Table>,
    #[serde(default)]
    references: Vec<Reference>,
    existing_rows_are_old: bool,
    create_schema: CreateSchema,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    name: String,
    is_global: bool,
    numbers_apart: bool,
    rules: Vec<ColumnRule>,
}

#[derive(Deserialize)]
struct ColumnRule {
    column: String,
    rule: String,
}

#[derive(Deserialize)]
struct Reference {
    table: String,
    column: String,
    by: Option<String>,
    to: Vec<(Option<String>, String)>,
}

/// Reads a choice.
pub fn sync_options(json: &[u8]) -> Result<SyncOptions, CodedError> {
    let choice: Choice =
        serde_json::from_slice(json).map_err(|error| CodedError::config(format!("the options: {error}")))?;
    Ok(SyncOptions {
        include: choice.include,
        exclude: choice.exclude,
        tables: choice.tables.into_iter().map(table).collect::<Result<_, _>>()?,
        references: choice.references.into_iter().map(reference).collect::<Result<_, _>>()?,
        existing_rows_are_old: choice.existing_rows_are_old,
        create_schema: choice.create_schema,
    })
}

fn table(table: Table) -> Result<TableOptions, CodedError> {
    let rule = |ColumnRule { column, rule: name }: ColumnRule| {
        let rule = Rule::NAMES.iter().find(|(known, _)| *known == name);
        let (_, rule) = rule.ok_or_else(|| CodedError::config(format!("there is no merge rule {name}")))?;
        Ok((column, *rule))
    };
    let rules = table.rules.into_iter().map(rule).collect::<Result<_, CodedError>>()?;
    let Table { name, is_global, numbers_apart, .. } = table;
    Ok(TableOptions { name, is_global, numbers_apart, rules })
}

fn reference(Reference { table, column, by, to }: Reference) -> Result<DeclaredReference, CodedError> {
    let parent = if let Some(column) = by {
        let named =
            |(value, table): (Option<String>, String)| (Value::Text(value.unwrap_or_default()), table);
        DeclaredParent::ByColumn { column, map: to.into_iter().map(named).collect() }
    } else {
        let only = to.into_iter().next();
        let (_, parent) =
            only.ok_or_else(|| CodedError::config(format!("{table}.{column} references nothing")))?;
        DeclaredParent::Table(parent)
    };
    Ok(DeclaredReference { table, column, parent })
}
