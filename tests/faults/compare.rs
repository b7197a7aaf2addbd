//! The differences of two states, as text.

use serde_json::Value;

/// How many differences are printed.
const MOST: usize = 12;

/// The differences; none if the states are equal.
pub fn differences(expected: &Value, found: &Value) -> Vec<String> {
    let mut all = Vec::new();
    walk("", Some(expected), Some(found), &mut all);
    all.truncate(MOST);
    all
}

fn walk(path: &str, expected: Option<&Value>, found: Option<&Value>, all: &mut Vec<String>) {
    match (expected, found) {
        (Some(Value::Object(expected)), Some(Value::Object(found))) => {
            for key in expected.keys().chain(found.keys().filter(|key| !expected.contains_key(*key))) {
                walk(&format!("{path}/{key}"), expected.get(key), found.get(key), all);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(found))) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                walk(&format!("{path}/{index}"), Some(expected), Some(found), all);
            }
        }
        (expected, found) if expected == found => {}
        (expected, found) => all.push(format!("{path}: {} instead of {}", word(found), word(expected))),
    }
}

fn word(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
    if text.chars().count() > 200 { text.chars().take(200).chain(['…']).collect() } else { text }
}

#[test]
fn what_is_missing_what_is_more_and_what_differs_is_told() {
    let expected = serde_json::json!({"a": 1, "b": {"c": [1, 2]}});
    assert!(differences(&expected, &expected).is_empty());
    let found = serde_json::json!({"b": {"c": [1, 3]}, "d": true});
    let told = ["/a: nothing instead of 1", "/b/c/1: 3 instead of 2", "/d: true instead of nothing"];
    assert_eq!(differences(&expected, &found), told);
}
