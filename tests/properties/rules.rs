//! Merge rules: what each says of itself, and how adjustments add up.

use federation_hub::model::{Adjustment, Number, ReplicaId, Rule, Value, sqlite_order};
use proptest::prelude::*;

use crate::arbitrary::number;

/// One adjustment of numbers after the other.
fn one_by_one(value: &Value, steps: &[Number]) -> Value {
    steps.iter().fold(value.clone(), |value, step| Adjustment::Add(*step).apply(&value))
}

proptest! {
    /// Of whole numbers; those with a fraction are rounded, which depends on the order.
    #[test]
    fn two_additions_in_one_do_the_same(start in -999_i64..999, a in -999_i64..999, b in -999_i64..999) {
        let both = Adjustment::Add(Number::Integer(a)).then(&Adjustment::Add(Number::Integer(b))).unwrap();
        let steps = [Number::Integer(a), Number::Integer(b)];
        let start = Value::Integer(start);
        prop_assert_eq!(both.apply(&start), one_by_one(&start, &steps));
    }

    #[test]
    fn an_addition_is_never_no_number(start in number(), step in number()) {
        let sum = one_by_one(&start.into(), &[step]);
        prop_assert!(!matches!(sum, Value::Real(real) if real.is_nan()));
        prop_assert!(Number::of(&sum).is_some());
    }
}

#[test]
fn a_number_with_a_fraction_makes_a_sum_with_one() {
    let half = |value: Value| one_by_one(&value, &[Number::Real(0.5)]);
    assert_eq!(half(Value::Integer(3)), Value::Real(3.5));
    assert_eq!(half(Value::Real(1.5)), Value::Real(2.0));
    assert_eq!(one_by_one(&Value::Real(1.5), &[Number::Integer(2)]), Value::Real(3.5));
    assert_ne!(Number::Integer(1), Number::Real(1.0), "they are stored differently");
    let none = [Number::Real(f64::INFINITY), Number::Real(f64::NEG_INFINITY)];
    assert_eq!(one_by_one(&Value::Null, &none), Value::Real(f64::NEG_INFINITY), "the later one stands");
}

#[test]
fn a_rule_is_what_its_name_says() {
    let names = ["lww", "counter", "max", "min", "set", "resolver"];
    assert_eq!(Rule::NAMES.map(|(_, rule)| rule.name()), names);
    for (name, rule) in Rule::NAMES {
        assert_eq!(rule.adjusts(), ["counter", "set"].contains(&name), "{name}");
        assert_eq!(rule.loses(), ["lww", "resolver"].contains(&name), "{name}");
    }
}

#[test]
fn the_least_integer_comes_before_the_double_that_equals_it() {
    let least = Value::Real(-9_223_372_036_854_775_808.0);
    assert!(sqlite_order(&Value::Integer(i64::MIN), &least).is_lt());
    assert!(sqlite_order(&Value::Integer(i64::MIN + 1), &least).is_gt());
}

/// Batches are cut by it: too small a figure would make frames that nobody takes.
#[test]
fn an_adjustment_is_as_large_as_its_texts() {
    let texts = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect();
    let edit = Adjustment::Edit { added: texts(&["\"abc\""]), removed: texts(&["1", "22"]) };
    assert_eq!(edit.heap_bytes(), 3 * 8 + 5 + 1 + 2);
    assert!(Adjustment::Add(Number::ZERO).heap_bytes() >= 9);
}

/// As `docs/protocol.md` has it: the first eight bytes, big endian.
#[test]
fn a_tie_is_broken_by_the_first_bytes_of_a_replicas_id() {
    let mut id = [0xff; 16];
    id[..8].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(ReplicaId(id).tie_break(), 0x0102_0304_0506_0708);
}
