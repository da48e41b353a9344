//! Hiding of passwords in all displayed text.

use serde_json::Value;

/// Returns the URL with its password replaced by `***`: the one before `@`, and the value of
/// `pass=` or `password=` in the query.
///
/// The text may be no URL at all. In ambiguous cases, this function hides more rather than less.
#[must_use]
pub fn mask_url(url: &str) -> String {
    let (url, query) = match url.split_once('?') {
        // A `?` before the last `@` is part of a password that was not escaped.
        Some((url, query)) if !query.contains('@') => (url, Some(query)),
        Some(_) | None => (url, None),
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _password)) => format!("{user}:***@{host}"),
            None => format!("{user}@{host}"),
        },
        None => rest.to_owned(),
    };
    let scheme = match scheme {
        "" => String::new(),
        scheme => format!("{scheme}://"),
    };
    let query = query.map(mask_query).unwrap_or_default();
    format!("{scheme}{rest}{query}")
}

fn mask_query(query: &str) -> String {
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _secret)) if name.to_ascii_lowercase().starts_with("pass") => {
                format!("{name}=***")
            }
            Some(_) | None => pair.to_owned(),
        })
        .collect();
    format!("?{}", pairs.join("&"))
}

/// Returns a setting's value for display.
pub(super) fn display_value(key: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if key.ends_with("url") => Value::String(mask_url(text)),
        Value::String(_) if key.ends_with("password") => Value::String("***".to_owned()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show() {
        for (case, url, want) in [
            ("none", "redis://h:1/0", "redis://h:1/0"),
            ("password", "redis://:pw@h:1", "redis://:***@h:1"),
            ("user", "redis://u:pw@h", "redis://u:***@h"),
            ("odd password", "redis://u:p@:/?w@h/2", "redis://u:***@h/2"),
            (
                "socket",
                "unix:/run/r.sock?db=1&pass=pw",
                "unix:/run/r.sock?db=1&pass=***",
            ),
            ("no scheme", "u:pw@h", "u:***@h"),
            ("not a url", "nonsense", "nonsense"),
        ] {
            assert_eq!(mask_url(url), want, "case {case}");
        }
    }
}
