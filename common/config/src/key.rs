//! The list of all keys, derived from [`Settings`] itself, so that it cannot become outdated.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::environment::PREFIX;
use super::settings::Settings;

/// One setting.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyInfo {
    /// The key as it is written in files and flags: `worker.lease_ms`.
    pub key: String,
    /// The name of its variable: `SANDHOG_WORKER_LEASE_MS`.
    pub variable: String,
    /// Its default; null if there is none.
    pub default: Value,
    /// The description, with unit, default and the meaning of zero.
    pub description: String,
    /// Set if empty text is a value of its own, such as "off". An empty variable of any other
    /// setting counts as unset.
    pub takes_empty: bool,
}

/// Settings for which empty text is a value. Their descriptions explain it in a sentence "Empty …".
const TAKES_EMPTY: [&str; 2] = ["worker.http", "telemetry.otlp"];

/// Returns every setting, in the order of [`Settings`].
pub fn keys() -> &'static [KeyInfo] {
    static KEYS: LazyLock<Vec<KeyInfo>> = LazyLock::new(|| {
        let defaults = serde_json::to_value(Settings::default())
            .expect("settings have string keys and no fallible serialiser");
        let mut keys = Vec::new();
        collect("", &defaults, &mut keys);
        keys
    });
    &KEYS
}

/// Returns the setting called `key`.
pub(super) fn find(key: &str) -> Option<&'static KeyInfo> {
    keys().iter().find(|info| info.key == key)
}

/// Returns whether `key` is a table of settings, such as `worker`.
pub(super) fn is_group(key: &str) -> bool {
    let prefix = format!("{key}.");
    keys().iter().any(|info| info.key.starts_with(&prefix))
}

/// Returns nested objects with `value` at `key`: `a.b` becomes `{"a": {"b": value}}`.
pub(super) fn nest_at(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |inner, part| {
        Value::Object(Map::from_iter([(part.to_owned(), inner)]))
    })
}

/// Returns the value at `key` in nested objects.
pub(super) fn get_at<'a>(root: &'a Value, key: &str) -> &'a Value {
    key.split('.')
        .try_fold(root, |table, part| table.get(part))
        .unwrap_or(&Value::Null)
}

fn collect(prefix: &str, value: &Value, into: &mut Vec<KeyInfo>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                let key = match prefix {
                    "" => name.clone(),
                    prefix => format!("{prefix}.{name}"),
                };
                collect(&key, value, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            into.push(KeyInfo {
                key: prefix.to_owned(),
                variable: format!("{PREFIX}{}", prefix.replace('.', "_").to_ascii_uppercase()),
                default: value.clone(),
                description: describe(prefix),
                takes_empty: TAKES_EMPTY.contains(&prefix),
            })
        }
    }
}

/// Returns the doc comment of a key's field. It is read from the source, so that the reference and
/// the code have the same text.
fn describe(key: &str) -> String {
    const SOURCE: &str = include_str!("settings.rs");
    let (group, field) = key.rsplit_once('.').unwrap_or(("", key));
    let holder = format!("pub struct {}Settings {{", capitalised(group));
    let body = SOURCE.split_once(&holder).map_or("", |(_, rest)| rest);
    let mut words: Vec<&str> = Vec::new();
    for line in body.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            words.push(doc.trim());
        } else if line == "}" {
            break;
        } else if line.starts_with(&format!("pub {field}:")) {
            return words.join(" ");
        } else {
            words.clear();
        }
    }
    String::new()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(letters)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_key_has_a_description_and_a_variable_of_its_own() {
        let mut variables = BTreeSet::from(["SANDHOG_CONFIG".to_owned()]);
        for info in keys() {
            assert!(!info.description.is_empty(), "key {}", info.key);
            assert_eq!(
                info.takes_empty,
                info.description.contains("Empty "),
                "key {}: the description and TAKES_EMPTY say the same",
                info.key
            );
            for variable in [info.variable.clone(), format!("{}_FILE", info.variable)] {
                assert!(variables.insert(variable.clone()), "{variable} twice");
            }
        }
        assert_eq!(
            find("worker.lease_ms").map(|info| info.variable.as_str()),
            Some("SANDHOG_WORKER_LEASE_MS")
        );
        assert!(is_group("worker") && !is_group("worker.slots"));
    }

    #[test]
    fn nested_values_are_found_again() {
        let nested = nest_at("a.b", Value::from(3));
        assert_eq!(get_at(&nested, "a.b"), &Value::from(3));
        assert_eq!(get_at(&nested, "a.c"), &Value::Null);
    }
}
