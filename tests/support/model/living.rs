//! Which rows live, and which of their references show another value: what foreign keys make of raw rows.

use std::collections::{BTreeMap, BTreeSet};

use federation_hub::model::{CellValue, Value};

use super::history::RowKey;
use super::number::is_equal;
use super::raw::Raw;
use super::schema::{Column, ForeignKey, OnDelete, Schema};
use super::unions::Unions;
use super::unique::{Key, KeyBook};

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
pub fn derive(family: &Family<'_>) -> Living {
    let Family { schema, raws, withheld, .. } = *family;
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
            for (column, to) in &key.columns {
                let value = if !living.rows.contains(&parent) {
                    replacement(key, schema.column(&key.child, column)).into()
                } else if family.has_followed(key, row) {
                    raws[&parent].cells[to.as_ref().unwrap()].value.clone()
                } else {
                    continue;
                };
                living.values.insert((row.clone(), column.clone()), value);
            }
        }
    }
    living
}

/// Who counts as having a key.
#[derive(Clone, Copy)]
pub enum Having {
    /// Who had it when the last batch had been decided about, whatever the rows are by now.
    Before,
    /// A row that wants it, whoever had it: so it is until a batch is first decided about.
    Wanted,
    /// Who has got it; a row that wants it, if nobody has.
    Decided,
}

/// Rows, and who references whom.
#[derive(Clone, Copy)]
pub struct Family<'a> {
    pub schema: &'a Schema,
    pub raws: &'a Raws,
    /// Rows that have not got the keys that they were written with.
    pub withheld: &'a BTreeSet<RowKey>,
    /// Unique keys.
    pub keys: &'a KeyBook,
    /// Who had which key when that was last decided, and whether one of the rows that it is was made with it.
    pub held: &'a BTreeMap<Key, (RowKey, bool)>,
    /// Who counts as having one.
    pub having: Having,
    /// Who had a key last, or was written with it when nobody had had it.
    pub former: &'a BTreeMap<Key, RowKey>,
    /// Which rows are one.
    pub unions: &'a Unions,
}

impl<'a> Family<'a> {
    /// The rows that a row references, each with the foreign key.
    pub fn parents(&self, row: &RowKey) -> Vec<(&'a ForeignKey, RowKey)> {
        let keys = self.schema.keys.iter().filter(|key| key.child == row.0);
        keys.filter_map(|key| Some((key, self.parent(key, row)?))).collect()
    }

    /// Whether a row references another one by a key that this one has no more.
    fn has_followed(&self, key: &ForeignKey, row: &RowKey) -> bool {
        self.named(key, row).is_some_and(|(_, is_former)| is_former)
    }

    fn parent(&self, key: &ForeignKey, row: &RowKey) -> Option<RowKey> {
        self.named(key, row).map(|(parent, _)| parent)
    }

    /// The row that one means, and whether only by a key that it had.
    fn named(&self, key: &ForeignKey, row: &RowKey) -> Option<(RowKey, bool)> {
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
            return self.raws.contains_key(&parent).then_some((parent, false));
        }
        let has_key = |(_, raw): &(&RowKey, &Raw)| {
            wanted.iter().all(|(to, value)| {
                let Some(to) = to else { return false };
                let ignores_case = self.schema.column(&key.parent, to).ignores_case;
                raw.cells.get(to).is_some_and(|cell| is_same(&cell.value, value, ignores_case))
            })
        };
        let mut candidates = self.raws.iter().filter(|(row, _)| row.0 == key.parent).filter(has_key);
        let wanted = self.key(key, &wanted);
        let holder = wanted.as_ref().and_then(|key| self.held.get(key)).map(|(it, _)| self.unions.entity(it));
        let is_open = match self.having {
            Having::Before => false,
            Having::Wanted => true,
            Having::Decided => holder.is_none(),
        };
        let has_got = |(row, raw): &(&RowKey, &Raw)| raw.is_alive && !self.withheld.contains(*row) && is_open;
        let taker = candidates.clone().find(has_got).map(|(taker, _)| taker.clone());
        if let Some(holder) = taker.or(holder) {
            return Some((holder, false));
        }
        let former = wanted.and_then(|key| self.former.get(&key));
        let former = former.map(|former| (self.unions.entity(former), true));
        former.or_else(|| candidates.next().map(|(dead, _)| (dead.clone(), false)))
    }

    /// The key that is wanted.
    fn key(&self, key: &ForeignKey, wanted: &[(&Option<String>, &CellValue)]) -> Option<Key> {
        let names = wanted.iter().map(|(to, _)| (*to).clone()).collect::<Option<BTreeSet<String>>>()?;
        let unique = self.schema.unique[&key.parent].iter().find(|unique| unique.columns == names)?;
        let value = |column: &str| wanted.iter().find(|(to, _)| to.as_deref() == Some(column)).map(|it| it.1);
        self.keys.key_of(unique, &value)
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
pub fn replacement(key: &ForeignKey, column: &Column) -> Value {
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
