//! Displays in a result: one object in one or more forms, by mime type, as notebooks store it.
//!
//! Text is a string, JSON is any value, and every other form is a base64 string; the mime type
//! determines which. A display comes from a hostile program, so a form is rejected if its data does
//! not match its mime type, or nests deeper than a reader with an ordinary depth limit could parse.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::blob::is_compact;

/// Maximum size of one JSON form, in bytes. The parsed value may take many times as much memory as
/// its text.
const MAX_JSON: usize = 1 << 20;

/// Maximum nesting depth of JSON.
const MAX_DEPTH: usize = 100;

/// One displayed object in all its forms.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Display(BTreeMap<String, Value>);

/// The encoding of a form in a result, by its mime type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MimeEncoding {
    Text,
    Json,
    Binary,
}

impl MimeEncoding {
    fn of(mime: &str) -> Self {
        if mime == "application/json" || mime.ends_with("+json") {
            Self::Json
        } else if mime.starts_with("text/")
            || mime.ends_with("+xml")
            || mime == "application/xml"
            || mime == "application/javascript"
        {
            Self::Text
        } else {
            Self::Binary
        }
    }
}

impl Display {
    /// Returns a display with these forms, each a mime type and its bytes; none if the data of one
    /// form does not match its mime type.
    #[must_use]
    pub fn of(forms: impl IntoIterator<Item = (String, Vec<u8>)>) -> Option<Self> {
        forms
            .into_iter()
            .map(|(mime, data)| {
                let value = match MimeEncoding::of(&mime) {
                    MimeEncoding::Text => {
                        let text = String::from_utf8(data).ok().filter(|text| is_compact(text));
                        Value::String(text?)
                    }
                    MimeEncoding::Json => json(&data)?,
                    MimeEncoding::Binary => Value::String(STANDARD.encode(data)),
                };
                Some((mime, value))
            })
            .collect::<Option<_>>()
            .map(Self)
    }

    /// Returns the mime types of the forms. In a result from an untrusted source they may be any
    /// text.
    pub fn mimes(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the form with this mime type, as it is in the result.
    #[must_use]
    pub fn get(&self, mime: &str) -> Option<&Value> {
        self.0.get(mime)
    }

    /// Returns the bytes of the form with this mime type; none if there is no such form, or it has
    /// the wrong encoding.
    #[must_use]
    pub fn bytes(&self, mime: &str) -> Option<Cow<'_, [u8]>> {
        let value = self.get(mime)?;
        match (MimeEncoding::of(mime), value) {
            (MimeEncoding::Text, Value::String(text)) => Some(Cow::Borrowed(text.as_bytes())),
            (MimeEncoding::Json, value) => Some(Cow::Owned(value.to_string().into_bytes())),
            (MimeEncoding::Binary, Value::String(text)) => {
                STANDARD.decode(text).ok().map(Cow::Owned)
            }
            (MimeEncoding::Text | MimeEncoding::Binary, _) => None,
        }
    }

    /// Returns the mime type of the richest form: the first of the usual ones, else any that is not
    /// plain text, else plain text.
    #[must_use]
    pub fn best(&self) -> Option<&str> {
        const USUAL: [&str; 9] = [
            "image/svg+xml",
            "image/png",
            "image/jpeg",
            "text/html",
            "text/markdown",
            "text/latex",
            "application/pdf",
            "application/json",
            "application/javascript",
        ];
        let usual = USUAL.into_iter().find(|mime| self.0.contains_key(*mime));
        usual
            .or_else(|| self.mimes().find(|mime| *mime != "text/plain"))
            .or_else(|| self.mimes().next())
    }
}

fn json(data: &[u8]) -> Option<Value> {
    if data.len() > MAX_JSON {
        return None;
    }
    let value = serde_json::from_slice(data).ok()?;
    is_shallow(&value, MAX_DEPTH).then_some(value)
}

/// Returns whether a value nests at most `depth` levels. The recursion is bounded by `depth`, and
/// the parser has a limit of its own.
fn is_shallow(value: &Value, depth: usize) -> bool {
    let below = |each: &Value| is_shallow(each, depth - 1);
    match value {
        Value::Array(list) => depth > 0 && list.iter().all(below),
        Value::Object(map) => depth > 0 && map.values().all(below),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn display(forms: &[(&str, &[u8])]) -> Option<Display> {
        let owned = |(mime, data): &(&str, &[u8])| ((*mime).to_owned(), data.to_vec());
        Display::of(forms.iter().map(owned))
    }

    #[test]
    fn each_form_is_written_as_notebooks_write_it() {
        let forms: [(&str, &[u8]); 4] = [
            ("image/png", b"\x89PNG"),
            ("image/svg+xml", b"<svg/>"),
            ("application/vnd.plotly.v1+json", b"{\"data\":[1]}"),
            ("text/plain", "é".as_bytes()),
        ];
        let shown = display(&forms).unwrap();
        assert_eq!(
            serde_json::to_value(&shown).unwrap(),
            json!({
                "image/png": "iVBORw==",
                "image/svg+xml": "<svg/>",
                "application/vnd.plotly.v1+json": {"data": [1]},
                "text/plain": "é",
            })
        );
        for (mime, data) in forms {
            assert_eq!(shown.bytes(mime).as_deref(), Some(data), "{mime}");
        }
        assert_eq!(shown.bytes("text/html"), None);
    }

    #[test]
    fn what_is_not_what_it_says_is_no_display() {
        let nested = |depth| [vec![b'['; depth], vec![b']'; depth]].concat();
        let long = format!("\"{}\"", "x".repeat(MAX_JSON));
        assert!(display(&[("application/json", &nested(MAX_DEPTH))]).is_some());
        for (case, mime, data) in [
            ("bytes for text", "text/html", b"\xff".as_slice()),
            ("bytes for an SVG", "image/svg+xml", b"\xff"),
            ("text of control characters", "text/html", &[0; 8192]),
            ("no JSON", "application/json", b"NaN"),
            ("half of JSON", "application/geo+json", b"{"),
            ("a number beyond all", "application/json", b"1e999"),
            ("too deep", "application/json", &nested(MAX_DEPTH + 1)),
            ("deep beyond parsing", "application/json", &nested(100_000)),
            ("too long", "application/json", long.as_bytes()),
        ] {
            assert_eq!(
                display(&[("text/plain", b"x"), (mime, data)]),
                None,
                "{case}"
            );
        }
    }

    #[test]
    fn the_best_form_is_the_one_that_shows_most() {
        for (case, forms, want) in [
            ("none", &[][..], None),
            ("text alone", &["text/plain"][..], Some("text/plain")),
            ("a table", &["text/html", "text/plain"], Some("text/html")),
            (
                "an unusual one",
                &["text/plain", "video/mp4"],
                Some("video/mp4"),
            ),
        ] {
            let forms: Vec<(&str, &[u8])> = forms.iter().map(|mime| (*mime, &b""[..])).collect();
            assert_eq!(display(&forms).unwrap().best(), want, "{case}");
        }
    }

    #[test]
    fn a_display_from_elsewhere_may_hold_anything() {
        let odd: Display =
            serde_json::from_str(r#"{"image/png":7,"text/plain":[],"../x":"%"}"#).unwrap();
        for mime in ["image/png", "text/plain", "../x"] {
            assert_eq!(odd.bytes(mime), None, "{mime}");
        }
    }
}
