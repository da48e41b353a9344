//! Long files: reported, because a longer file often has more than one subject.

use sandhog_testkit::environment::checkout;

use crate::tree::{files, has_extension, relative, text};

/// Number of lines above which a file is reported.
const MAX_LINES: usize = 500;

const SOURCE_EXTENSIONS: &[&str] = &["rs", "lua", "py", "sh", "js", "toml", "md"];

/// Returns a warning about a file that is too long.
fn warning(name: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_LINES).then(|| format!("{name}: {lines} lines"))
}

/// Prints a warning for each long file. It fails for none: the number of subjects in a file counts,
/// not the number of lines.
#[test]
fn long_files_are_reported() {
    let scripts = checkout().join("scripts");
    for path in files() {
        if has_extension(&path, SOURCE_EXTENSIONS) || path.starts_with(&scripts) {
            let warning = warning(&relative(&path), &text(&path));
            warning
                .iter()
                .for_each(|warning| println!("warning: {warning}"));
        }
    }
}

#[test]
fn only_a_long_file_is_reported() {
    let lines = |count| "line\n".repeat(count);
    assert_eq!(warning("a.rs", &lines(MAX_LINES)), None);
    let long = warning("a.rs", &lines(MAX_LINES + 1));
    assert_eq!(long.as_deref(), Some("a.rs: 501 lines"));
}
