//! Displays of programs: one form, by its mime type, and displays in results from elsewhere.

use sandhog_core::display::Display;
use serde_json::Value;

/// Requires of bytes that come from a program, or from a result, all properties of this module.
///
/// # Panics
/// Panics if one of them does not hold.
pub fn displays(bytes: &[u8]) {
    form(bytes);
    foreign_display(bytes);
}

/// Returns forms, each with its mime type on its first line, and a display as it is in a result.
#[must_use]
pub fn display_seeds() -> Vec<Vec<u8>> {
    [
        &b"image/png\n\x89PNG"[..],
        b"image/svg+xml\n<svg/>",
        b"text/plain\n\xc3\xa9",
        b"application/json\n{\"a\":[1,null,true,\"x\"]}",
        b"application/vnd.plotly.v1+json\n{\"data\":[[],{}]}",
        b"text/html\n\xff",
        br#"{"image/png":"iVBORw==","text/plain":"x","application/json":[7]}"#,
        br#"{"image/png":7,"text/plain":[],"../x":"%"}"#,
    ]
    .map(<[u8]>::to_vec)
    .into()
}

/// Requires that a form that is accepted has the same bytes when it is read from the result, or for
/// JSON the same value, and that any reader can parse the result.
///
/// # Panics
/// Panics if it does not.
pub fn form(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (mime, data) = bytes.split_at(end.unwrap_or(bytes.len()));
    let data = data.get(1..).unwrap_or_default();
    let Ok(mime) = std::str::from_utf8(mime) else {
        return;
    };
    let Some(display) = Display::of([(mime.to_owned(), data.to_vec())]) else {
        return;
    };
    assert_eq!(display.best(), Some(mime));
    let found = display.bytes(mime).expect("an accepted form has bytes");
    if found != data {
        let found: Value = serde_json::from_slice(&found).expect("only JSON is written anew");
        let sent: Value = serde_json::from_slice(data).expect("only JSON is written anew");
        assert_eq!(found, sent);
    }
    let text = serde_json::to_string(&display).expect("a display is written as JSON");
    let again: Value = serde_json::from_str(&text).expect("a display is valid JSON");
    assert!(again.get(mime).is_some(), "{text}");
}

/// Requires that the forms of a display from elsewhere, which may hold anything, can be read.
///
/// # Panics
/// Panics if its richest form is none of its forms.
pub fn foreign_display(bytes: &[u8]) {
    let Ok(display) = serde_json::from_slice::<Display>(bytes) else {
        return;
    };
    for mime in display.mimes() {
        std::hint::black_box(display.bytes(mime));
    }
    let best = display.best();
    assert_eq!(best.is_none(), display.mimes().next().is_none());
    assert!(best.is_none_or(|best| display.get(best).is_some()));
}
