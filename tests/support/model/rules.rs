//! Columns whose rule is not that the last write wins.

use std::collections::BTreeSet;

use federation_hub::model::{Adjustment, CellValue, Hlc, Rule, Stamp, Value};
use serde_json::Value as Json;

use super::history::{Entry, What};
use super::number::{Number, order};
use super::raw::{Cell, are_old};

/// So many additions to a counter are known one by one; a delete takes those before them as well.
const ADDITIONS: usize = 16;

/// One cell of two rows that are one, of which `one` was made first: the later one, or what a rule makes of both. Of what
/// is older than syncing, the row that was made first goes before the other one's.
pub fn unite(rule: Rule, one: &Cell, other: &Cell) -> Cell {
    let is_first = !are_old(one.stamp, other.stamp) && (one.stamp, &one.value) < (other.stamp, &other.value);
    let (earlier, later) = if is_first { (one, other) } else { (other, one) };
    let both: Vec<Entry> = [&earlier.made_of[..], &later.made_of].concat();
    let nothing = Value::Null.into();
    match (rule, &earlier.value, &later.value) {
        (Rule::Max | Rule::Min, old, new)
            if *new == nothing || *old != nothing && !is_better(rule, old, new) =>
        {
            Cell { stamp: later.stamp, ..earlier.clone() }
        }
        // Each began with nothing, and its value is what was done to it.
        (Rule::Counter, CellValue::Plain(old), CellValue::Plain(new)) if is_number(old) && is_number(new) => {
            let value = Value::from(Number::of(old).plus(Number::of(new)));
            Cell { value: value.into(), stamp: later.stamp, made_of: both }
        }
        (Rule::Set, CellValue::Plain(old), CellValue::Plain(new)) if is_set(old) && is_set(new) => {
            let value = spelled(elements(old).into_iter().chain(elements(new)).collect());
            Cell { value: value.into(), stamp: later.stamp, made_of: both }
        }
        _ => later.clone(),
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Integer(_) | Value::Real(_))
}

/// The greatest value, or the least: NULL is none.
pub fn best(rule: Rule, writes: &[&Entry]) -> Cell {
    let mut present: Option<Cell> = None;
    for entry in writes {
        let What::Set(_, value) = &entry.what else { continue };
        let Some(cell) = &mut present else {
            present =
                Some(Cell { value: value.clone(), stamp: entry.stamp, made_of: vec![(*entry).clone()] });
            continue;
        };
        let is_better = is_better(rule, &cell.value, value);
        if is_better {
            (cell.value, cell.made_of) = (value.clone(), vec![(*entry).clone()]);
        }
        cell.stamp = cell.stamp.max(entry.stamp);
    }
    present.expect("a column has a cell only if somebody wrote it")
}

/// Whether a rule prefers the new value.
fn is_better(rule: Rule, old: &CellValue, new: &CellValue) -> bool {
    match (old, new) {
        (CellValue::Plain(Value::Null), new) => *new != CellValue::Plain(Value::Null),
        (_, CellValue::Plain(Value::Null)) => false,
        (CellValue::Plain(old), CellValue::Plain(new)) if rule == Rule::Max => order(new, old).is_gt(),
        (CellValue::Plain(old), CellValue::Plain(new)) => order(new, old).is_lt(),
        // References have no order that means anything; one of them is kept, the same everywhere.
        (old, new) => new > old,
    }
}

/// What all adjustments add up to, in the order in which the hub accepted them.
pub fn sum(writes: &[&Entry]) -> Cell {
    let mut cell = Cell { value: Value::Null.into(), stamp: Stamp::ZERO, made_of: Vec::new() };
    let (mut newest, mut deleted) = (Stamp::ZERO, None);
    for entry in writes {
        let is_first = cell.made_of.is_empty() && cell.stamp == Stamp::ZERO;
        match &entry.what {
            What::Set(_, value) => {
                let is_later =
                    !are_old(cell.stamp, entry.stamp) && (cell.stamp, &cell.value) < (entry.stamp, value);
                if is_first || is_later {
                    cell = Cell { value: value.clone(), stamp: entry.stamp, made_of: vec![(*entry).clone()] };
                }
            }
            What::Adjust(_, adjustment) => {
                let CellValue::Plain(before) = &cell.value else { continue };
                cell.value = adjusted(before, adjustment).into();
                let before = cell.stamp;
                cell.stamp = if is_first { entry.stamp } else { above(cell.stamp, entry.stamp) };
                if Some(cell.stamp) > deleted && Some(before.max(entry.stamp)) <= deleted {
                    cell.stamp = before;
                }
                cell.made_of.push((*entry).clone());
            }
            What::Delete => {
                cancel(&mut cell, entry);
                let last = deleted.unwrap_or(entry.stamp).max(entry.stamp);
                deleted = Some(last);
                // What it is told under must not outlive a delete that is later than all that it is made of.
                if newest <= last {
                    cell.stamp = cell.stamp.min(last);
                }
                continue;
            }
        }
        newest = newest.max(entry.stamp);
    }
    cell
}

/// A delete takes the additions that its author had seen, and its author's own, and those that are too old to be
/// told apart. What was set before them stays.
fn cancel(cell: &mut Cell, delete: &Entry) {
    let is_addition = |entry: &Entry| matches!(&entry.what, What::Adjust(_, Adjustment::Add(_)));
    let additions = cell.made_of.iter().filter(|entry| is_addition(entry)).count();
    if additions == 0 {
        return;
    }
    let mut older = additions.saturating_sub(ADDITIONS);
    cell.made_of.retain(|entry| {
        if !is_addition(entry) {
            return true;
        }
        let is_old = older > 0;
        older = older.saturating_sub(1);
        !is_old && entry.is_concurrent_with(delete.push.0, delete.base)
    });
    let left = cell.made_of.iter().fold(Value::Integer(0), |value, entry| match &entry.what {
        // What is no number counts as 0.
        What::Set(_, CellValue::Plain(set)) => Number::of(set).into(),
        What::Adjust(_, adjustment) => adjusted(&value, adjustment),
        _ => value,
    });
    cell.value = left.into();
}

/// The stamp of what a rule made of the present value and a write: above both.
fn above(present: Stamp, new: Stamp) -> Stamp {
    if new > present { new } else { Stamp { hlc: Hlc(present.hlc.0 + 1), ..present } }
}

fn adjusted(value: &Value, adjustment: &Adjustment) -> Value {
    match adjustment {
        Adjustment::Add(amount) => {
            let CellValue::Plain(amount) = (*amount).into() else { unreachable!("a number is no reference") };
            Number::of(value).plus(Number::of(&amount)).into()
        }
        Adjustment::Edit { added, removed } => {
            let mut elements = elements(value);
            for element in removed {
                elements.remove(&scalar(element));
            }
            elements.extend(added.iter().map(|element| scalar(element)));
            spelled(elements)
        }
    }
}

/// An element of a set, in the order in which sets are written: its class, its number, its spelling.
type Element = (u8, TotalReal, String);

#[derive(Clone, Copy, Debug, PartialEq)]
struct TotalReal(f64);

impl Eq for TotalReal {}

impl PartialOrd for TotalReal {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TotalReal {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

fn scalar(text: &str) -> Element {
    element(&serde_json::from_str(text).expect("a set's element is JSON"))
}

fn element(json: &Json) -> Element {
    let (class, number) = match json {
        Json::Null => (0, 0.0),
        Json::Bool(false) => (1, 0.0),
        Json::Bool(true) => (2, 0.0),
        Json::Number(number) => (3, number.as_f64().expect("a number")),
        _ => (4, 0.0),
    };
    (class, TotalReal(number), json.to_string())
}

fn spelled(elements: BTreeSet<Element>) -> Value {
    let all: Vec<String> = elements.into_iter().map(|(_, _, text)| text).collect();
    Value::Text(format!("[{}]", all.join(",")))
}

fn is_set(value: &Value) -> bool {
    let Value::Text(text) = value else { return false };
    let Ok(Json::Array(elements)) = serde_json::from_str(text) else { return false };
    elements.iter().all(|it| !it.is_array() && !it.is_object())
}

/// What is no array counts as an empty set.
fn elements(value: &Value) -> BTreeSet<Element> {
    let Value::Text(text) = value else { return BTreeSet::new() };
    match serde_json::from_str(text) {
        Ok(Json::Array(elements)) => elements.iter().map(element).collect(),
        _ => BTreeSet::new(),
    }
}
