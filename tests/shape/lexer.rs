//! Splits source text into code, comments and literals, as far as the language rules need it.

/// Kind of a piece of source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Code,
    /// A comment, with its marker.
    Comment,
    /// A string literal, with its quotes.
    Text,
    /// A string literal without escapes, such as `r"…"` in Rust or `[[…]]` in Lua.
    RawText,
}

/// A piece of source text. It has at most one line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) kind: Kind,
    /// Number of its line, from 1.
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

/// Languages that differ in comments and literals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Lua,
    Python,
    Shell,
    JavaScript,
}

impl Language {
    /// Returns the language of files with this extension.
    pub(crate) fn of(extension: &str) -> Option<Self> {
        Some(match extension {
            "rs" => Self::Rust,
            "lua" => Self::Lua,
            "py" => Self::Python,
            "sh" => Self::Shell,
            "js" | "mjs" | "cjs" => Self::JavaScript,
            _ => return None,
        })
    }

    fn line_comment(self) -> &'static str {
        match self {
            Self::Rust | Self::JavaScript => "//",
            Self::Lua => "--",
            Self::Python | Self::Shell => "#",
        }
    }
}

/// Splits a text into pieces.
pub(crate) fn pieces(text: &str, language: Language) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = text;
    let mut before = '\n';
    while !rest.is_empty() {
        let (kind, length) = next(rest, before, language);
        let (piece, after) = rest.split_at(length);
        for (at, part) in piece.split('\n').enumerate() {
            line += usize::from(at > 0);
            if !part.is_empty() {
                found.push(Piece {
                    kind,
                    line,
                    text: part,
                });
            }
        }
        before = piece.chars().next_back().unwrap_or(before);
        rest = after;
    }
    found
}

/// Returns the kind and the length of the piece at the start of `rest`. Code is returned one
/// character or word at a time.
fn next(rest: &str, before: char, language: Language) -> (Kind, usize) {
    let end = |from: usize, mark: &str| {
        let tail = rest.get(from..).unwrap_or_default();
        tail.find(mark)
            .map_or(rest.len(), |at| from + at + mark.len())
    };
    let starts_comment = match language {
        // `$#` and `${x#y}` in a shell are no comments.
        Language::Shell => rest.starts_with('#') && before.is_whitespace(),
        _ => rest.starts_with(language.line_comment()),
    };
    if let Some(long) = rest
        .strip_prefix("--[[")
        .filter(|_| language == Language::Lua)
    {
        return (Kind::Comment, rest.len() - long.len() + end_of(long, "]]"));
    }
    if starts_comment {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if matches!(language, Language::Rust | Language::JavaScript) && rest.starts_with("/*") {
        return (Kind::Comment, end(2, "*/"));
    }
    if language == Language::Lua && rest.starts_with("[[") {
        return (Kind::RawText, end(2, "]]"));
    }
    if language == Language::Python {
        for quote in ["\"\"\"", "'''"] {
            if rest.starts_with(quote) {
                return (Kind::Text, end(3, quote));
            }
        }
    }
    if language == Language::Rust {
        if let Some(length) = raw_string(rest).filter(|_| !is_word(before)) {
            return (Kind::RawText, length);
        }
        if rest.starts_with('\'') {
            return (Kind::Code, char_or_lifetime(rest));
        }
    }
    let quotes: &[char] = match language {
        Language::Rust => &['"'],
        Language::Lua | Language::Python | Language::Shell => &['"', '\''],
        Language::JavaScript => &['"', '\'', '`'],
    };
    let first = rest.chars().next().unwrap_or(' ');
    if quotes.contains(&first) {
        let escapes = !(language == Language::Shell && first == '\'');
        return (Kind::Text, quoted(rest, first, escapes));
    }
    let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    (Kind::Code, word.max(first.len_utf8()))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of(text: &str, mark: &str) -> usize {
    text.find(mark).map_or(text.len(), |at| at + mark.len())
}

/// Returns the length of a quoted literal, with its quotes.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && escapes {
            escaped = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// Returns the length of a raw string of Rust, such as `r#"…"#` or `br"…"`.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r"]
        .into_iter()
        .find(|prefix| text.starts_with(prefix))?;
    let rest = text.get(prefix.len()..)?;
    let hashes = rest.find(|c: char| c != '#')?;
    let rest = rest.get(hashes..)?.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - rest.len();
    Some(start + end_of(rest, &close))
}

/// Returns the length of a character literal or of the mark of a lifetime.
fn char_or_lifetime(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => {
            let escaped = text.char_indices().skip(3);
            let mut close = escaped.filter(|(_, c)| *c == '\'');
            close.next().map_or(text.len(), |(at, _)| at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[test]
fn comments_and_literals_are_told_from_code() {
    use Kind::{Comment, RawText, Text};
    let rust =
        "let a = \"x \\\" y\"; // one\nlet b = r#\"raw \"q\"\n two\"#; let c = '\"'; 'a: \"t\"";
    let shell = "echo \"a\" $# # note\n";
    let python = "x = 'a'  # note\n\"\"\"doc\nline\"\"\"\n";
    type Tokens = &'static [(Kind, usize, &'static str)];
    let cases: [(Language, &str, Tokens); 4] = [
        (
            Language::Rust,
            rust,
            &[
                (Text, 1, "\"x \\\" y\""),
                (Comment, 1, "// one"),
                (RawText, 2, "r#\"raw \"q\""),
                (RawText, 3, " two\"#"),
                (Text, 3, "\"t\""),
            ],
        ),
        (
            Language::Lua,
            "f('a') -- b\nx = [[c]]",
            &[
                (Text, 1, "'a'"),
                (Comment, 1, "-- b"),
                (RawText, 2, "[[c]]"),
            ],
        ),
        (
            Language::Shell,
            shell,
            &[(Text, 1, "\"a\""), (Comment, 1, "# note")],
        ),
        (
            Language::Python,
            python,
            &[
                (Text, 1, "'a'"),
                (Comment, 1, "# note"),
                (Text, 2, "\"\"\"doc"),
                (Text, 3, "line\"\"\""),
            ],
        ),
    ];
    for (language, text, want) in cases {
        let found: Vec<(Kind, usize, &str)> = pieces(text, language)
            .into_iter()
            .filter(|piece| piece.kind != Kind::Code)
            .map(|piece| (piece.kind, piece.line, piece.text))
            .collect();
        assert_eq!(found, want, "case {language:?}");
    }
}
