//! The displays of a program. Prints a line for each with its plain text, and writes files if the
//! user requests them.
//!
//! A display has several forms. The richest form is named and written. Its MIME type comes from an
//! untrusted program, so it sets the extension of the file only if it is listed here.

use sandhog_core::blob::Blob;
use sandhog_core::display::Display;
use sandhog_core::outcome::JobResult;

use crate::output::{Printer, sanitize};
use crate::quantity::format_size;

/// Most lines of a display's plain text that are shown.
const TEXT_LINES: usize = 30;

/// Most characters of such a line that are shown.
const TEXT_COLUMNS: usize = 200;

/// Returns the files for a result's displays by name. The names are numbered in the order of the
/// displays: `display-1.png` and so on.
pub(super) fn display_files(result: &JobResult) -> impl Iterator<Item = (String, Blob)> {
    result
        .displays
        .iter()
        .zip(1..)
        .filter_map(|(shown, place)| {
            let mime = shown.best()?;
            let data = shown.bytes(mime)?;
            let mut name = format!("display-{place}.{}", extension(mime));
            // A fetched file keeps its name, so the display gets another one.
            while result.files.contains_key(&name) {
                name.insert(0, '_');
            }
            Some((name, Blob(data.into_owned())))
        })
}

/// Prints a line for each display, and the number of displays that were dropped.
pub(super) fn print_displays(output: Printer, result: &JobResult) {
    for (shown, place) in result.displays.iter().zip(1..) {
        output.note(&format!("sandhog: display {place}: {}", describe(shown)));
        for line in plain_text(shown) {
            output.note(&line);
        }
    }
    match result.displays_dropped {
        0 => {}
        1 => output.note("sandhog: 1 display was dropped because of the limits for displays"),
        many => output.note(&format!(
            "sandhog: {many} displays were dropped because of the limits for displays"
        )),
    }
}

fn describe(shown: &Display) -> String {
    let Some(mime) = shown.best() else {
        return "nothing".to_owned();
    };
    let bytes = shown.bytes(mime).map_or(0, |data| data.len() as u64);
    format!("{} {}", sanitize(mime), format_size(bytes))
}

/// Returns the plain text of a display such as a table or a formula, cut to a bounded size. Returns
/// nothing for a picture, whose plain text is not useful.
fn plain_text(shown: &Display) -> Vec<String> {
    let is_text = shown
        .best()
        .is_some_and(|mime| mime.starts_with("text/") || mime == "application/json");
    let Some(text) = shown.get("text/plain").filter(|_| is_text) else {
        return Vec::new();
    };
    let text = text.as_str().unwrap_or_default();
    let cut = |line: &str| {
        let line = sanitize(&line.replace('\t', "    "));
        match line.char_indices().nth(TEXT_COLUMNS) {
            Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
            None => line,
        }
    };
    let mut lines: Vec<String> = text.lines().take(TEXT_LINES).map(cut).collect();
    match text.lines().count().saturating_sub(TEXT_LINES) {
        0 => {}
        more => lines.push(format!("… {more} more lines")),
    }
    lines
}

fn extension(mime: &str) -> &'static str {
    match mime {
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        "image/svg+xml" => "svg",
        "text/html" => "html",
        "text/markdown" => "md",
        "text/latex" => "tex",
        "application/pdf" => "pdf",
        "application/javascript" => "js",
        json if json == "application/json" || json.ends_with("+json") => "json",
        text if text.starts_with("text/") => "txt",
        _unknown => "bin",
    }
}

#[cfg(test)]
mod tests {
    use sandhog_core::outcome::Outcome;

    use super::*;

    fn result(displays: &[(&str, &[u8])]) -> JobResult {
        let display = |(mime, data): &(&str, &[u8])| {
            let forms = [
                ((*mime).to_owned(), data.to_vec()),
                ("text/plain".to_owned(), b"in words".to_vec()),
            ];
            Display::of(forms).unwrap()
        };
        JobResult {
            displays: displays.iter().map(display).collect(),
            ..JobResult::bare("a".parse().unwrap(), Outcome::Succeeded)
        }
    }

    #[test]
    fn each_display_is_one_file_of_its_best_form() {
        let mut result = result(&[
            ("image/png", b"\x89PNG"),
            ("text/html", b"<b>"),
            ("application/vnd.plotly.v1+json", b"[1]"),
            ("video/x..-sh", b"\x00"),
            ("text/plain", b"x"),
        ]);
        result.files = [("display-2.html".to_owned(), Blob::from("fetched"))].into();
        let files: Vec<(String, Vec<u8>)> = display_files(&result)
            .map(|(n, data)| (n, data.0))
            .collect();
        let want: [(&str, &[u8]); 5] = [
            ("display-1.png", b"\x89PNG"),
            ("_display-2.html", b"<b>"),
            ("display-3.json", b"[1]"),
            ("display-4.bin", b"\x00"),
            ("display-5.txt", b"in words"),
        ];
        assert_eq!(files, want.map(|(n, data)| (n.to_owned(), data.to_vec())));
    }

    #[test]
    fn the_plain_text_of_a_table_is_shown_and_bounded() {
        let display = |mime: &str, text: &str| {
            let forms = [
                (mime, b"<b>".to_vec()),
                ("text/plain", text.as_bytes().to_vec()),
            ];
            Display::of(forms.map(|(mime, data)| (mime.to_owned(), data))).unwrap()
        };
        let table = "   a\n0\t1\n\u{1b}[31m2\n";
        assert_eq!(
            plain_text(&display("text/html", table)),
            ["   a", "0    1", "\u{fffd}[31m2"]
        );
        assert!(plain_text(&display("image/png", "<Figure size 640x480>")).is_empty());
        let long = plain_text(&display("text/html", &"é".repeat(300)));
        assert_eq!(long, [format!("{}…", "é".repeat(TEXT_COLUMNS))]);
        let many = plain_text(&display("text/html", &"x\n".repeat(50)));
        assert_eq!(many.len(), TEXT_LINES + 1);
        assert_eq!(many.last().map(String::as_str), Some("… 20 more lines"));
    }

    #[test]
    fn a_line_says_what_was_shown() {
        let long = vec![0; 1300 * 1024];
        let result = result(&[
            ("image/png", &[0; 12_600]),
            ("text/html", b"<b>"),
            ("a/b", &long),
        ]);
        let lines: Vec<_> = result.displays.iter().map(describe).collect();
        assert_eq!(
            lines,
            ["image/png 12.3 KiB", "text/html 3 B", "a/b 1.2 MiB"]
        );
        let odd: Display = serde_json::from_str("{\"x\\u001b\":7}").unwrap();
        assert_eq!(describe(&odd), "x\u{fffd} 0 B");
        assert_eq!(describe(&Display::default()), "nothing");
    }
}
