//! The language of the code: width of lines, openings of doc comments, and words that are not used.

use std::path::Path;

use crate::lexer::{Kind, Language, Piece, pieces};
use crate::tree::{files, relative, text};

/// Maximum number of columns of a line.
const MAX_COLUMNS: usize = 100;

/// First words of a doc comment that turn its sentence into a riddle.
const OPENERS: &[&str] = &["What", "Whether", "How", "Who", "Where", "When"];

/// Words and phrases that no comment and no message contains. Split, so that this file has none.
const BANNED: &[&[&str]] = &[
    &["who", "ever"],
    &["what", "ever"],
    &["no", "body"],
    &["some", "body"],
    &["so ", "many"],
    &["parted ", "by"],
    &["cannot be ", "meant"],
    &["does not ", "read"],
    &["spoke out of ", "turn"],
    &["bu", "ry"],
    &["mis", "hap"],
];

/// Lines that may be wider: a part of the path, a part of the line, and the reason.
const WIDE_LINES: &[(&str, &str, &str)] = &[
    (
        "tests/sandbox/hostile/programs/",
        "",
        "an attack keeps the form in which it was written, and its header lines are data",
    ),
    (
        "tests/system/entry.rs",
        "main.__",
        "lines of a Python program in a literal",
    ),
];

/// Lines that may contain a banned word: a part of the path, a part of the line, and the reason.
const WORDS_IN_PLACE: &[(&str, &str, &str)] = &[(
    "tests/system/entry.rs",
    "def main(who=",
    "a value in a Python program",
)];

/// A line that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: usize,
    rule: String,
}

/// Returns the lines of a text that are too wide, except those within raw strings.
fn wide_lines(text: &str, language: Language) -> Vec<Fault> {
    if text.lines().all(|line| line.chars().count() <= MAX_COLUMNS) {
        return Vec::new();
    }
    let raw: Vec<usize> = pieces(text, language)
        .iter()
        .filter(|piece| piece.kind == Kind::RawText)
        .map(|piece| piece.line)
        .collect();
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.chars().count()))
        .filter(|(line, width)| *width > MAX_COLUMNS && !raw.contains(line))
        .map(|(line, width)| Fault {
            line,
            rule: format!("{width} columns"),
        })
        .collect()
}

/// Returns the text of a doc comment without its marker.
fn doc<'a>(piece: &Piece<'a>) -> Option<&'a str> {
    let marked = ["///", "//!", "/**"]
        .into_iter()
        .find_map(|mark| piece.text.strip_prefix(mark));
    let docstring = || piece.text.strip_prefix("\"\"\"");
    match piece.kind {
        Kind::Comment => marked,
        Kind::Text => docstring(),
        Kind::Code | Kind::RawText => None,
    }
}

/// Returns the doc comments of a text whose first word is an opener.
fn openers(text: &str, language: Language) -> Vec<Fault> {
    let mut found = Vec::new();
    let mut above = None;
    for piece in pieces(text, language) {
        let Some(doc) = doc(&piece) else { continue };
        let first_line = above.is_none_or(|above: usize| piece.line != above + 1);
        above = Some(piece.line);
        let first = doc.split_whitespace().next().unwrap_or_default();
        let word = first.trim_matches(|c: char| !c.is_alphanumeric());
        if first_line && OPENERS.contains(&word) {
            found.push(Fault {
                line: piece.line,
                rule: format!("a doc comment starts with {word}"),
            });
        }
    }
    found
}

/// Returns the banned words in comments and messages. A literal without a blank is data, not a
/// message.
fn banned_words(text: &str, language: Language) -> Vec<Fault> {
    let banned = BANNED.iter().map(|parts| parts.concat());
    let whole = text.to_lowercase();
    let banned: Vec<String> = banned.filter(|word| whole.contains(word)).collect();
    if banned.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for piece in pieces(text, language) {
        let is_message = piece.text.contains(char::is_whitespace);
        if piece.kind == Kind::Code || (piece.kind != Kind::Comment && !is_message) {
            continue;
        }
        let lower = piece.text.to_lowercase();
        for word in &banned {
            if contains_word(&lower, word) {
                found.push(Fault {
                    line: piece.line,
                    rule: format!("contains the words {word:?}"),
                });
            }
        }
    }
    found
}

/// Returns whether a text contains a word or its plural, and not only as a part of another word.
fn contains_word(text: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|part| part.chars().next_back());
        let rest = text.get(at + word.len()..).unwrap_or_default();
        let after = rest.strip_prefix('s').unwrap_or(rest).chars().next();
        !before.is_some_and(is_letter) && !after.is_some_and(is_letter)
    })
}

/// Applies a rule to every source file. Returns the faults that are not listed.
fn faults(
    rule: impl Fn(&str, Language) -> Vec<Fault>,
    listed: &[(&str, &str, &str)],
) -> Vec<String> {
    let mut found = Vec::new();
    for path in files() {
        let Some(language) = language_of(&path) else {
            continue;
        };
        let (name, text) = (relative(&path), text(&path));
        let lines: Vec<&str> = text.lines().collect();
        for fault in rule(&text, language) {
            let line = lines.get(fault.line - 1).copied().unwrap_or_default();
            let mut listed = listed.iter();
            if !listed.any(|(file, part, _)| name.contains(file) && line.contains(part)) {
                let Fault { line: number, rule } = fault;
                found.push(format!("{name}:{number}: {rule}: {}", line.trim()));
            }
        }
    }
    found
}

/// Returns the language of a source file. Files without an extension are shell scripts if they
/// start with `#!` and name a shell.
fn language_of(path: &Path) -> Option<Language> {
    match path.extension() {
        Some(extension) => Language::of(&extension.to_string_lossy()),
        None => {
            let bytes = std::fs::read(path).ok()?;
            let first = bytes.split(|byte| *byte == b'\n').next()?;
            let first = String::from_utf8_lossy(first);
            (first.starts_with("#!") && first.ends_with("sh")).then_some(Language::Shell)
        }
    }
}

#[test]
fn no_line_is_too_wide() {
    let found = faults(wide_lines, WIDE_LINES);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_doc_comment_opens_with_a_question_word() {
    let found = faults(openers, &[]);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_comment_and_no_message_contains_a_banned_word() {
    let found = faults(banned_words, WORDS_IN_PLACE);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_wide_line_is_found_outside_of_raw_strings() {
    let wide = "x".repeat(MAX_COLUMNS);
    let text = format!("// {wide}\nlet a = r\"\n{wide}yz\n\";\n{wide}\n");
    let found = wide_lines(&text, Language::Rust);
    let want = Fault {
        line: 1,
        rule: "103 columns".to_owned(),
    };
    assert_eq!(found, [want]);
}

#[test]
fn an_opener_is_found_only_at_the_start_of_a_doc_comment() {
    let text = "/// What it is.\nstruct A;\n// When this runs.\n/// Time after\n/// When it ends.\n\
                struct B;\n//! How it works.\n";
    let lines: Vec<usize> = openers(text, Language::Rust)
        .into_iter()
        .map(|fault| fault.line)
        .collect();
    assert_eq!(lines, [1, 7]);
    let python = "def f():\n    \"\"\"Whether it is.\"\"\"\n";
    assert_eq!(openers(python, Language::Python).len(), 1);
}

#[test]
fn a_banned_word_is_found_in_comments_and_messages_only() {
    let word = BANNED[2].concat();
    let text = format!(
        "// {word} is here\nlet {word} = 1;\nlet b = \"for {word}\";\n// {word}else\n// {word}s\n\
         let c = \"{word}\";\n"
    );
    let lines: Vec<usize> = banned_words(&text, Language::Rust)
        .into_iter()
        .map(|fault| fault.line)
        .collect();
    assert_eq!(lines, [1, 3, 5]);
}
