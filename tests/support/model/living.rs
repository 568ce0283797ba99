//! Which rows live, and which of their references show another value: what foreign keys make of raw rows.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::{CellValue, Value};

use super::history::RowKey;
use super::number::is_equal;
use super::raw::Raw;
use super::schema::{Column, ForeignKey, OnDelete, Schema};

/// All rows, as their own writes make them.
pub type Raws = BTreeMap<RowKey, Raw>;

/// What foreign keys make of rows.
#[derive(Debug, Default)]
pub struct Living {
    /// The rows that live.
    pub rows: BTreeSet<RowKey>,
    /// Cells that show another value than was written.
    pub values: BTreeMap<(RowKey, String), CellValue>,
}

/// Works it out. Rows that are withheld are dead, whoever references them.
pub fn derive(schema: &Schema, raws: &Raws, withheld: &BTreeSet<RowKey>) -> Living {
    let family = Family { schema, raws, withheld };
    let is_written_alive = |(row, raw): &(&RowKey, &Raw)| raw.is_alive && !withheld.contains(*row);
    let born: BTreeSet<RowKey> = raws.iter().filter(is_written_alive).map(|(key, _)| key.clone()).collect();
    let kept = family.kept(&born);
    let mut living = Living { rows: born.union(&kept).cloned().collect(), values: BTreeMap::new() };
    // What is kept has living parents, unless one is withheld.
    while let Some(dead) = living.rows.iter().find(|row| family.dies(row, &living.rows)) {
        let dead = dead.clone();
        living.rows.remove(&dead);
    }
    for row in &living.rows {
        for (key, parent) in family.parents(row) {
            if !living.rows.contains(&parent) {
                for (column, _) in &key.columns {
                    let value = replacement(key, schema.column(&key.child, column));
                    living.values.insert((row.clone(), column.clone()), value.into());
                }
            }
        }
    }
    living
}

/// Rows, and who references whom.
pub struct Family<'a> {
    pub schema: &'a Schema,
    pub raws: &'a Raws,
    /// Rows that have not got the keys that they were written with.
    pub withheld: &'a BTreeSet<RowKey>,
}

impl<'a> Family<'a> {
    /// The rows that a row references, each with the foreign key.
    pub fn parents(&self, row: &RowKey) -> Vec<(&'a ForeignKey, RowKey)> {
        let keys = self.schema.keys.iter().filter(|key| key.child == row.0);
        keys.filter_map(|key| Some((key, self.parent(key, row)?))).collect()
    }

    fn parent(&self, key: &ForeignKey, row: &RowKey) -> Option<RowKey> {
        let child = self.raws.get(row)?;
        let mut wanted = Vec::new();
        for (from, to) in &key.columns {
            let value = child.cells.get(from).map(|cell| &cell.value)?;
            if *value == CellValue::Plain(Value::Null) {
                return None;
            }
            wanted.push((to, value));
        }
        if let [(None, CellValue::Ref(id))] = wanted[..] {
            let parent = (key.parent.clone(), *id);
            return self.raws.contains_key(&parent).then_some(parent);
        }
        let has_key = |(_, raw): &(&RowKey, &Raw)| {
            wanted.iter().all(|(to, value)| {
                let Some(to) = to else { return false };
                let ignores_case = self.schema.column(&key.parent, to).ignores_case;
                raw.cells.get(to).is_some_and(|cell| is_same(&cell.value, value, ignores_case))
            })
        };
        let candidates = self.raws.iter().filter(|(candidate, _)| candidate.0 == key.parent).filter(has_key);
        let has_got = |(row, raw): &(&RowKey, &Raw)| raw.is_alive && !self.withheld.contains(*row);
        candidates.max_by_key(has_got).map(|(candidate, _)| candidate.clone())
    }

    /// What living rows reference, beside themselves, with RESTRICT or NO ACTION, and what such rows cannot be without.
    fn kept(&self, born: &BTreeSet<RowKey>) -> BTreeSet<RowKey> {
        let mut kept = BTreeSet::new();
        let mut open: Vec<RowKey> = born.iter().cloned().collect();
        while let Some(row) = open.pop() {
            for (key, parent) in self.parents(&row) {
                let holds = match key.on_delete {
                    OnDelete::Keep => true,
                    OnDelete::Cascade => kept.contains(&row),
                    OnDelete::SetNull | OnDelete::SetDefault => {
                        kept.contains(&row) && !self.can_do_without(key)
                    }
                };
                if holds && parent != row && !self.withheld.contains(&parent) && kept.insert(parent.clone()) {
                    open.push(parent);
                }
            }
        }
        kept
    }

    /// Whether a row cannot live without one of its parents, which is dead.
    fn dies(&self, row: &RowKey, living: &BTreeSet<RowKey>) -> bool {
        self.parents(row).into_iter().any(|(key, parent)| {
            let needs = match key.on_delete {
                OnDelete::Keep | OnDelete::Cascade => true,
                OnDelete::SetNull | OnDelete::SetDefault => !self.can_do_without(key),
            };
            needs && !living.contains(&parent)
        })
    }

    /// Whether the clause of a foreign key can put another value in its place.
    fn can_do_without(&self, key: &ForeignKey) -> bool {
        key.columns.iter().all(|(name, _)| {
            let column = self.schema.column(&key.child, name);
            column.is_nullable && replacement(key, column) == Value::Null
        })
    }
}

/// What SET NULL or SET DEFAULT put in a column.
fn replacement(key: &ForeignKey, column: &Column) -> Value {
    if key.on_delete == OnDelete::SetDefault { column.default.clone() } else { Value::Null }
}

/// Whether SQLite takes two keys for the same.
pub fn is_same(a: &CellValue, b: &CellValue, ignores_case: bool) -> bool {
    match (a, b) {
        (CellValue::Plain(Value::Text(a)), CellValue::Plain(Value::Text(b))) if ignores_case => {
            a.eq_ignore_ascii_case(b)
        }
        (CellValue::Plain(a), CellValue::Plain(b)) => is_equal(a, b),
        _ => a == b,
    }
}
