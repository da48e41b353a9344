//! What a program showed: told in a line each, and written as files where the user wants them.
//!
//! A display has several forms; the one that shows most is told of and written. Its mime type comes from a program that
//! nobody trusts: it makes a file's ending only where it is one of those listed here.

use sandhog_common::blob::Blob;
use sandhog_common::display::Display;
use sandhog_common::outcome::JobResult;

use crate::output::{Output, tame};

/// The files that a result's displays are written as, by name: `display-1.png` and so on, by their places in it.
pub(super) fn files(result: &JobResult) -> impl Iterator<Item = (String, Blob)> {
    result
        .displays
        .iter()
        .zip(1..)
        .filter_map(|(shown, place)| {
            let mime = shown.best()?;
            let data = shown.bytes(mime)?;
            let mut name = format!("display-{place}.{}", ending(mime));
            // What the job fetched keeps its name.
            while result.files.contains_key(&name) {
                name.insert(0, '_');
            }
            Some((name, Blob(data.into_owned())))
        })
}

/// Tells what was shown, and what was not.
pub(super) fn tell(output: Output, result: &JobResult) {
    for (shown, place) in result.displays.iter().zip(1..) {
        output.note(&format!("sandhog: display {place}: {}", described(shown)));
    }
    match result.displays_dropped {
        0 => {}
        1 => output.note("sandhog: 1 display above its caps was dropped"),
        many => output.note(&format!(
            "sandhog: {many} displays above their caps were dropped"
        )),
    }
}

fn described(shown: &Display) -> String {
    let Some(mime) = shown.best() else {
        return "nothing".to_owned();
    };
    let bytes = shown.bytes(mime).map_or(0, |data| data.len());
    let size = match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{}.{} KiB", bytes >> 10, (bytes % 1024 * 10) >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, (bytes % 1_048_576 * 10) >> 20),
    };
    format!("{} {size}", tame(mime))
}

fn ending(mime: &str) -> &'static str {
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
    use sandhog_common::outcome::Outcome;

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
        let files: Vec<(String, Vec<u8>)> = files(&result).map(|(n, data)| (n, data.0)).collect();
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
    fn a_line_says_what_was_shown() {
        let long = vec![0; 1300 * 1024];
        let result = result(&[
            ("image/png", &[0; 12_600]),
            ("text/html", b"<b>"),
            ("a/b", &long),
        ]);
        let lines: Vec<_> = result.displays.iter().map(described).collect();
        assert_eq!(
            lines,
            ["image/png 12.3 KiB", "text/html 3 B", "a/b 1.2 MiB"]
        );
        let odd: Display = serde_json::from_str("{\"x\\u001b\":7}").unwrap();
        assert_eq!(described(&odd), "x\u{fffd} 0 B");
        assert_eq!(described(&Display::default()), "nothing");
    }
}
