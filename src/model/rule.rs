//! Merge rules: what a column's concurrent writes add up to, where the later one alone is not the answer.
//!
//! Two kinds of rule. `max` and `min` choose between two values, and do it in any order and any repetition.
//! `counter` and `set` look at what a write *did*: the difference between the value that its author had seen
//! and the one it left behind travels as an [`Adjustment`], and the hub, which accepts each batch once and in
//! one order, applies it to the present value.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::rule_set::{self, Scalars};
use super::{CellValue, Value};

/// How the writes of a column are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rule {
    /// The later write wins.
    #[default]
    Lww,
    /// A number to which every replica adds: no addition is lost.
    Counter,
    /// The greatest value wins, by SQLite's order; NULL is no value.
    Max,
    /// The least value wins, by SQLite's order; NULL is no value.
    Min,
    /// A JSON array of scalars: every addition and every removal counts.
    Set,
    /// The later write wins, and the replica that finds two writes concurrent may write what follows from both.
    Resolver,
}

impl Rule {
    /// Every rule, with the name that people write.
    pub const NAMES: [(&str, Self); 6] = [
        ("lww", Self::Lww),
        ("counter", Self::Counter),
        ("max", Self::Max),
        ("min", Self::Min),
        ("set", Self::Set),
        ("resolver", Self::Resolver),
    ];

    /// The name that people write.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, rule)| *rule == self).map_or("", |(name, _)| name)
    }

    /// Whether a write travels as what it did, and not as what it left behind.
    pub fn adjusts(self) -> bool {
        matches!(self, Self::Counter | Self::Set)
    }

    /// Whether two concurrent writes are a conflict: whether one of them goes under.
    pub fn loses(self) -> bool {
        matches!(self, Self::Lww | Self::Resolver)
    }

    /// Of two values, the one that a choosing rule keeps; nothing if the rule does not choose.
    pub fn choose<'a>(self, a: &'a CellValue, b: &'a CellValue) -> Option<&'a CellValue> {
        let wanted = match self {
            Self::Max => Ordering::Greater,
            Self::Min => Ordering::Less,
            _ => return None,
        };
        let (CellValue::Plain(left), CellValue::Plain(right)) = (a, b) else { return Some(a.max(b)) };
        Some(match (left, right) {
            (Value::Null, _) => b,
            (_, Value::Null) => a,
            _ if sqlite_order(left, right) == wanted => a,
            _ => b,
        })
    }

    /// What became of `before` that left `after` behind; nothing if the rule cannot tell, and the write
    /// travels as a value.
    pub fn difference(self, before: &Value, after: &Value) -> Option<Adjustment> {
        match self {
            Self::Counter => {
                let after = Number::of(after)?;
                let before = if *before == Value::Null { Number::ZERO } else { Number::of(before)? };
                after.minus(before).map(Adjustment::Add)
            }
            Self::Set => {
                let after = rule_set::parse(after)?;
                let before =
                    if *before == Value::Null { Scalars::default() } else { rule_set::parse(before)? };
                Some(Adjustment::Edit {
                    added: after.difference(&before).cloned().collect(),
                    removed: before.difference(&after).cloned().collect(),
                })
            }
            _ => None,
        }
    }
}

/// SQLite's order of values: NULL, numbers, text by its bytes, blobs. Of two numbers that are equal and stored
/// differently the integer is the lesser, so that the order is total.
pub fn sqlite_order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Integer(a), Value::Real(b)) => integer_and_real(*a, *b),
        (Value::Real(a), Value::Integer(b)) => integer_and_real(*b, *a).reverse(),
        _ => a.cmp(b),
    }
}

/// Exact: an `i64` need not fit a double.
fn integer_and_real(integer: i64, real: f64) -> Ordering {
    /// 2^63, the first double beyond the integers.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if real >= BEYOND {
        return Ordering::Less;
    }
    if real < -BEYOND {
        return Ordering::Greater;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the integers, as just checked")]
    let whole = real.trunc() as i64;
    // Equal numbers: the integer first.
    integer.cmp(&whole).then(if real.fract() < 0.0 { Ordering::Greater } else { Ordering::Less })
}

/// What a write did to a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adjustment {
    /// Added this to a number.
    Add(Number),
    /// Added and removed elements of a set: JSON scalars, each as a text of its own.
    Edit {
        /// Elements that were not there before.
        added: Vec<String>,
        /// Elements that were there before.
        removed: Vec<String>,
    },
}

impl Adjustment {
    /// What a value is after this. A value that is no number, or no set, counts as none.
    pub fn apply(&self, value: &Value) -> Value {
        match self {
            Self::Add(amount) => Number::of(value).unwrap_or(Number::ZERO).plus(*amount).into(),
            Self::Edit { added, removed } => {
                let mut scalars = rule_set::parse(value).unwrap_or_default();
                removed.iter().filter_map(|text| rule_set::scalar(text)).for_each(|it| {
                    scalars.remove(&it);
                });
                scalars.extend(added.iter().filter_map(|text| rule_set::scalar(text)));
                rule_set::text(&scalars)
            }
        }
    }

    /// This, and then `later`: one adjustment that does the same. Nothing if they are of different kinds.
    #[must_use]
    pub fn then(&self, later: &Self) -> Option<Self> {
        match (self, later) {
            (Self::Add(a), Self::Add(b)) => Some(Self::Add(a.plus(*b))),
            (Self::Edit { added, removed }, Self::Edit { added: more, removed: less }) => {
                let still = |kept: &[String], gone: &[String], new: &[String]| {
                    let mut all: Vec<String> = kept.iter().filter(|it| !gone.contains(it)).cloned().collect();
                    all.extend(new.iter().filter(|it| !kept.contains(it)).cloned());
                    all
                };
                Some(Self::Edit { added: still(added, less, more), removed: still(removed, more, less) })
            }
            _ => None,
        }
    }

    /// The heap bytes behind it, for bounds on batches.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Add(_) => 16,
            Self::Edit { added, removed } => added.iter().chain(removed).map(|text| 8 + text.len()).sum(),
        }
    }
}

/// A number, as SQLite stores it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(into = "CellValue", try_from = "CellValue")]
pub enum Number {
    /// Exact, and saturating at the ends of 64 bits.
    Integer(i64),
    /// A double.
    Real(f64),
}

impl Number {
    /// Nothing to add.
    pub const ZERO: Self = Self::Integer(0);

    /// The number in a value.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(integer) => Some(Self::Integer(*integer)),
            Value::Real(real) => Some(Self::Real(*real)),
            _ => None,
        }
    }

    /// The sum. Two integers whose sum has no room stay at the end of the range, and do not turn into a double.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Self::Integer(a.saturating_add(b)),
            (a, b) => Self::finite(a.as_real() + b.as_real(), b.as_real()),
        }
    }

    /// The difference; nothing if it has no room.
    fn minus(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.checked_sub(b).map(Self::Integer),
            (a, b) => {
                let difference = a.as_real() - b.as_real();
                difference.is_finite().then_some(Self::Real(difference))
            }
        }
    }

    /// Infinities of both signs add up to no number, which SQLite cannot store: then the later one stands.
    fn finite(sum: f64, otherwise: f64) -> Self {
        Self::Real(if sum.is_nan() { otherwise } else { sum })
    }

    #[expect(clippy::cast_precision_loss, reason = "what SQLite does with an integer beside a real")]
    fn as_real(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Real(real) => real,
        }
    }
}

impl From<Number> for CellValue {
    fn from(number: Number) -> Self {
        Value::from(number).into()
    }
}

impl TryFrom<CellValue> for Number {
    type Error = &'static str;

    fn try_from(value: CellValue) -> Result<Self, Self::Error> {
        match value {
            CellValue::Plain(value) => Self::of(&value),
            CellValue::Ref(_) => None,
        }
        .ok_or("what is added must be a number")
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        Value::from(*self) == Value::from(*other)
    }
}

impl Eq for Number {}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        match number {
            Number::Integer(integer) => Self::Integer(integer),
            Number::Real(real) => Self::Real(real),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-3_i64..3).prop_map(Value::Integer),
            any::<f64>().prop_filter("SQLite stores no NaN", |it| !it.is_nan()).prop_map(Value::Real),
            (-3_i32..3).prop_map(|it| Value::Real(f64::from(it))),
            "[ab]{0,2}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::Blob),
        ]
    }

    fn json_set() -> impl Strategy<Value = Value> {
        prop::collection::vec(0_u8..6, 0..5).prop_map(|it| Value::Text(format!("{it:?}")))
    }

    proptest! {
        #[test]
        fn a_choice_does_not_depend_on_order_or_repetition(a in value(), b in value(), c in value()) {
            for rule in [Rule::Max, Rule::Min] {
                let [a, b, c] = [&a, &b, &c].map(|it| CellValue::Plain(it.clone()));
                let choose = |a: &CellValue, b: &CellValue| rule.choose(a, b).unwrap().clone();
                prop_assert_eq!(choose(&a, &b), choose(&b, &a));
                prop_assert_eq!(choose(&choose(&a, &b), &c), choose(&a, &choose(&b, &c)));
                prop_assert_eq!(choose(&a, &a), a.clone());
            }
        }

        #[test]
        fn an_order_of_numbers_agrees_with_itself(a in value(), b in value(), c in value()) {
            prop_assert_eq!(sqlite_order(&a, &b), sqlite_order(&b, &a).reverse());
            if sqlite_order(&a, &b).is_le() && sqlite_order(&b, &c).is_le() {
                prop_assert!(sqlite_order(&a, &c).is_le());
            }
        }

        #[test]
        fn additions_commute(start in -1_000_000_i64..1_000_000, steps in prop::collection::vec(-1000_i64..1000, 0..8)) {
            let sum = |steps: &mut dyn Iterator<Item = &i64>| {
                steps.fold(Value::Integer(start), |at, step| Adjustment::Add(Number::Integer(*step)).apply(&at))
            };
            prop_assert_eq!(sum(&mut steps.iter()), sum(&mut steps.iter().rev()));
            prop_assert_eq!(sum(&mut steps.iter()), Value::Integer(start + steps.iter().sum::<i64>()));
        }

        #[test]
        fn a_difference_applied_is_the_value_it_was_taken_from(a in json_set(), b in json_set(), x: i32, y: i32) {
            let edit = Rule::Set.difference(&a, &b).unwrap();
            prop_assert_eq!(edit.apply(&a), rule_set::text(&rule_set::parse(&b).unwrap()));
            let (x, y) = (Value::Integer(x.into()), Value::Integer(y.into()));
            prop_assert_eq!(Rule::Counter.difference(&x, &y).unwrap().apply(&x), y);
        }

        #[test]
        fn two_adjustments_in_one_do_the_same(a in json_set(), b in json_set(), c in json_set()) {
            let (first, second) = (Rule::Set.difference(&a, &b).unwrap(), Rule::Set.difference(&b, &c).unwrap());
            prop_assert_eq!(first.then(&second).unwrap().apply(&a), rule_set::text(&rule_set::parse(&c).unwrap()));
        }

        #[test]
        fn edits_of_different_elements_commute(base in json_set(), a in 10_u8..14, b in 20_u8..24) {
            let edit = |it: u8| Adjustment::Edit { added: vec![it.to_string()], removed: vec![(it % 6).to_string()] };
            let (a, b) = (edit(a), edit(b));
            prop_assert_eq!(b.apply(&a.apply(&base)), a.apply(&b.apply(&base)));
            prop_assert_eq!(a.apply(&a.apply(&base)), a.apply(&base));
        }
    }

    #[test]
    fn numbers_are_compared_exactly() {
        let ordered = [
            Value::Real(f64::NEG_INFINITY),
            Value::Integer(i64::MIN),
            Value::Real(-1.5),
            Value::Integer(-1),
            Value::Integer(1),
            Value::Real(1.0),
            Value::Integer((1 << 53) + 1),
            Value::Integer(i64::MAX),
            Value::Real(9.3e18),
            Value::Text("0".into()),
            Value::Blob(vec![]),
        ];
        for pair in ordered.windows(2) {
            assert!(sqlite_order(&pair[0], &pair[1]).is_lt(), "{pair:?}");
        }
    }

    #[test]
    fn a_sum_without_room_stays_at_the_end_and_a_difference_without_room_is_none() {
        let (most, least) = (Value::Integer(i64::MAX), Value::Integer(i64::MIN));
        assert_eq!(Adjustment::Add(Number::Integer(1)).apply(&most), most);
        assert_eq!(Rule::Counter.difference(&least, &most), None);
        assert_eq!(
            Rule::Counter.difference(&Value::Real(0.5), &Value::Integer(1)),
            Some(Adjustment::Add(Number::Real(0.5)))
        );
    }

    #[test]
    fn what_is_no_number_or_no_set_has_no_difference() {
        let text = Value::Text("many".into());
        assert_eq!(Rule::Counter.difference(&Value::Integer(1), &text), None);
        assert_eq!(Rule::Counter.difference(&text, &Value::Integer(1)), None);
        assert_eq!(Rule::Set.difference(&Value::Null, &text), None);
        assert_eq!(Rule::Max.difference(&Value::Null, &Value::Integer(1)), None);
        assert_eq!(
            Rule::Counter.difference(&Value::Null, &Value::Integer(3)),
            Some(Adjustment::Add(Number::Integer(3)))
        );
    }
}
