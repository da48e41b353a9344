//! What a program shows, as its harness writes it and as frames carry it: one thing in one or more forms.
//!
//! On descriptor 3, before its answer, a harness may write any number of displays: the byte [`DISPLAY`], a big-endian
//! `u32` length and a body of that length. A body is parts one after another: a length byte and a mime type, a
//! big-endian `u32` length and data. An empty body says that something was shown which was too long to be written.
//!
//! All of it is hostile: bodies are read here without recursion and within stated bounds, on both sides of the
//! conversation. Whether data is what its mime type says is not looked at here.

use serde::{Deserialize, Serialize};

/// What a display begins with. No answer of a harness does: it is a JSON object.
pub const DISPLAY: u8 = b'D';

/// The most forms of one display.
pub const MAX_PARTS: usize = 16;

/// The longest mime type, in bytes.
pub const MAX_MIME: usize = 100;

/// What a program may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Displays {
    /// Displays that are passed on; later ones are dropped.
    pub most: u32,
    /// Bytes of one, all its forms together; a longer one is dropped.
    pub bytes: u64,
    /// Bytes of all that are passed on; one that does not fit any more is dropped.
    pub total_bytes: u64,
}

/// One form of a display.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its mime type, without parameters, in lower case.
    pub mime: String,
    /// Its bytes: text as UTF-8, JSON as text, anything else as it is.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// Reads a display's body; nothing when it does not read or is not [`is_sound`].
#[must_use]
pub fn read(mut body: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some((&length, rest)) = body.split_first() {
        if parts.len() == MAX_PARTS {
            return None;
        }
        let (mime, rest) = rest.split_at_checked(usize::from(length))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (data, rest) = rest.split_at_checked(length)?;
        parts.push(Part {
            mime: String::from_utf8(mime.to_vec()).ok()?,
            data: data.to_vec(),
        });
        body = rest;
    }
    is_sound(&parts).then_some(parts)
}

/// Whether a display can be passed on: it has forms, not too many, each with a mime type of its own.
#[must_use]
pub fn is_sound(parts: &[Part]) -> bool {
    let distinct = |(at, part): (usize, &Part)| {
        let before = parts.get(..at).unwrap_or_default();
        is_mime(&part.mime) && before.iter().all(|other| other.mime != part.mime)
    };
    !parts.is_empty() && parts.len() <= MAX_PARTS && parts.iter().enumerate().all(distinct)
}

/// Whether this is a mime type as RFC 6838 has them, in lower case and without parameters.
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

/// How many bytes a display counts for.
#[must_use]
pub fn size(parts: &[Part]) -> u64 {
    let one = |part: &Part| (part.mime.len() as u64).saturating_add(part.data.len() as u64);
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
        let parts = read(&body).unwrap();
        let mimes: Vec<_> = parts.iter().map(|part| part.mime.as_str()).collect();
        assert_eq!(mimes, ["image/png", "text/plain"]);
        assert_eq!(parts[0].data, b"\x89PNG");
        assert_eq!(size(&parts), 9 + 4 + 10);
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
            assert_eq!(read(&body), None, "{case}");
        }
        let mut huge = part("text/plain", b"");
        huge.truncate(11);
        huge.extend_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(read(&huge), None, "a length that nothing follows");
        let mut bad = part("text/plain", b"");
        bad[3] = 0xff;
        assert_eq!(read(&bad), None, "a mime type that is no text");
    }
}
