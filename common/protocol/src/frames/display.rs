//! Displays of a program, in the encoding that its harness writes and in the form that frames
//! carry. A display is one object in one or more forms.
//!
//! Before its answer, a harness may write any number of messages of the kind
//! [`Display`](super::HarnessMessageKind::Display). The body of such a message is a sequence of
//! parts. Each part is a length byte and a mime type, then a big-endian `u32` length and data. An
//! empty body means that the program showed something that was too long to be written.
//!
//! All of these bytes are hostile. This module decodes bodies without recursion and within stated
//! bounds, for the runner and for the worker. It does not check that the data match the mime type.

use serde::{Deserialize, Serialize};

/// The most parts of one display.
pub const MAX_PARTS: usize = 16;

/// The longest mime type, in bytes.
pub const MAX_MIME: usize = 100;

/// Caps on the displays of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DisplayCaps {
    /// The most displays that are passed on. Later ones are dropped.
    pub count: u32,
    /// The most bytes of one display, all its forms together. A longer one is dropped.
    pub bytes: u64,
    /// The most bytes of all displays that are passed on. A display that would exceed it is
    /// dropped.
    pub total_bytes: u64,
}

/// One form of a display, as frames carry it.
///
/// It is separate from the [`Display`](sandhog_core::display::Display) of a result, in which text
/// is a string, JSON is a value, and other data is base64. A frame carries the bytes unchanged, and
/// the worker converts them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisplayPart {
    /// The mime type, without parameters, in lower case.
    pub mime: String,
    /// The data: text and JSON as UTF-8, anything else unchanged.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// Decodes a display's body. Returns `None` if the body is malformed or its parts are not
/// [`is_valid_display`].
#[must_use]
pub fn read_display(mut body: &[u8]) -> Option<Vec<DisplayPart>> {
    let mut parts = Vec::new();
    while let Some((&length, rest)) = body.split_first() {
        if parts.len() == MAX_PARTS {
            return None;
        }
        let (mime, rest) = rest.split_at_checked(usize::from(length))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (data, rest) = rest.split_at_checked(length)?;
        parts.push(DisplayPart {
            mime: String::from_utf8(mime.to_vec()).ok()?,
            data: data.to_vec(),
        });
        body = rest;
    }
    is_valid_display(&parts).then_some(parts)
}

/// Returns whether a display is valid: it has at least one part and at most [`MAX_PARTS`], and each
/// part has a valid mime type that no other part has.
#[must_use]
pub fn is_valid_display(parts: &[DisplayPart]) -> bool {
    let distinct = |(at, part): (usize, &DisplayPart)| {
        let before = parts.get(..at).unwrap_or_default();
        is_mime(&part.mime) && before.iter().all(|other| other.mime != part.mime)
    };
    !parts.is_empty() && parts.len() <= MAX_PARTS && parts.iter().enumerate().all(distinct)
}

/// Returns whether this is a mime type by RFC 6838, in lower case and without parameters.
#[must_use]
pub fn is_mime(text: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$&-^_.+".contains(&byte)
            })
    };
    text.len() <= MAX_MIME
        && text
            .split_once('/')
            .is_some_and(|(kind, name)| is_name(kind) && is_name(name))
}

/// Returns the number of bytes that a display counts for.
#[must_use]
pub fn display_size(parts: &[DisplayPart]) -> u64 {
    let one = |part: &DisplayPart| (part.mime.len() as u64).saturating_add(part.data.len() as u64);
    parts.iter().map(one).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(mime: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![u8::try_from(mime.len()).unwrap()];
        bytes.extend_from_slice(mime.as_bytes());
        bytes.extend_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn a_body_reads_as_it_was_written() {
        let body = [part("image/png", b"\x89PNG"), part("text/plain", b"")].concat();
        let parts = read_display(&body).unwrap();
        let mimes: Vec<_> = parts.iter().map(|part| part.mime.as_str()).collect();
        assert_eq!(mimes, ["image/png", "text/plain"]);
        assert_eq!(parts[0].data, b"\x89PNG");
        assert_eq!(display_size(&parts), 9 + 4 + 10);
    }

    #[test]
    fn what_is_no_display_is_none() {
        let good = part("text/plain", b"x");
        let long = format!("text/{}", "x".repeat(MAX_MIME));
        let many: Vec<u8> = (0..=MAX_PARTS)
            .flat_map(|number| part(&format!("text/x{number}"), b""))
            .collect();
        for (case, body) in [
            ("nothing", Vec::new()),
            ("cut in its mime type", good[..5].to_vec()),
            ("cut in its length", good[..13].to_vec()),
            ("cut in its data", good[..good.len() - 1].to_vec()),
            ("more after the end", [good.clone(), vec![0]].concat()),
            ("twice the same", [good.clone(), good].concat()),
            ("too many forms", many),
            ("a long mime type", part(&long, b"")),
            ("no mime type", part("", b"")),
            ("half a mime type", part("text", b"")),
            ("nothing before the slash", part("/plain", b"")),
            ("nothing after it", part("text/", b"")),
            ("two slashes", part("text/a/b", b"")),
            ("a path", part("../../x", b"")),
            ("capitals", part("Text/Plain", b"")),
            ("parameters", part("text/plain; charset=utf-8", b"")),
            ("a control character", part("text/pl\u{1b}ain", b"")),
            ("no ASCII", part("text/pläin", b"")),
        ] {
            assert_eq!(read_display(&body), None, "{case}");
        }
        let mut huge = part("text/plain", b"");
        huge.truncate(11);
        huge.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(read_display(&huge), None, "a length that nothing follows");
        let mut bad = part("text/plain", b"");
        bad[3] = 0xff;
        assert_eq!(read_display(&bad), None, "a mime type that is no text");
    }
}
