//! Sets as columns hold them: a JSON array of scalars, written in one way only, so that equal sets are equal
//! bytes.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::Value;

/// The elements of a set.
pub type Scalars = BTreeSet<String>;

/// Reads a JSON array of scalars; nothing if the value is something else, or holds a number that would not
/// survive. Each element is in its one spelling.
pub fn parse(value: &Value) -> Option<Scalars> {
    let Value::Text(text) = value else { return None };
    let Ok(Json::Array(elements)) = serde_json::from_str(text) else { return None };
    elements.iter().map(spelling).collect()
}

/// Reads one element in its own text.
pub fn scalar(text: &str) -> Option<String> {
    spelling(&serde_json::from_str(text).ok()?)
}

/// The set as a column holds it: sorted, null, false, true, numbers, then strings.
pub fn text(scalars: &Scalars) -> Value {
    let mut sorted: Vec<&String> = scalars.iter().collect();
    sorted.sort_by(|a, b| order(a, b));
    let list: Vec<&str> = sorted.into_iter().map(String::as_str).collect();
    Value::Text(format!("[{}]", list.join(",")))
}

fn spelling(element: &Json) -> Option<String> {
    match element {
        Json::Null | Json::Bool(_) | Json::String(_) => Some(element.to_string()),
        // A number beyond 64 bits has been rounded.
        Json::Number(number) => {
            (!number.is_f64() || number.as_f64()?.abs() < 9e15).then(|| number.to_string())
        }
        Json::Array(_) | Json::Object(_) => None,
    }
}

fn order(a: &str, b: &str) -> Ordering {
    let class = |text: &str| match text.as_bytes().first() {
        Some(b'n') => 0,
        Some(b'f') => 1,
        Some(b't') => 2,
        Some(b'"') => 4,
        _ => 3,
    };
    let number = |text: &str| text.parse::<f64>().unwrap_or(0.0);
    let numbers = if class(a) == 3 { number(a).total_cmp(&number(b)) } else { Ordering::Equal };
    class(a).cmp(&class(b)).then(numbers).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Option<Scalars> {
        parse(&Value::Text(json.into()))
    }

    #[test]
    fn a_set_has_one_spelling() {
        let one = of(r#"[ "b", 10, 2, null, "a", true, 2, "b" ]"#).unwrap();
        assert_eq!(text(&one), Value::Text(r#"[null,true,2,10,"a","b"]"#.into()));
        assert_eq!(of(r#"["a", "é"]"#), of(r#"["\u00e9", "\u0061"]"#));
    }

    #[test]
    fn what_is_no_array_of_scalars_is_no_set() {
        for other in ["", "{}", "[[1]]", "[1", "7", "[123456789012345678901234567890]"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(parse(&Value::Blob(b"[1]".to_vec())), None);
        assert_eq!(of("[]"), Some(Scalars::new()));
    }
}
