//! Patterns of files: `*`, `**`, `?`, `[a-z]` and `{a,b}`, with the meaning that they have in a
//! shell.
//!
//! The runner and the command `sandhog` use the same function, so that a program's files are
//! written only where the person who typed the pattern expects them. As in a shell, a wildcard does
//! not match a leading dot: `*` and `**` do not match `.git` or `.bashrc`, but `.*` and `.git/**`
//! do.

/// Returns whether `path`, with `/` between its parts, matches `pattern`.
#[must_use]
pub fn matches_pattern(pattern: &str, path: &str) -> bool {
    fast_glob::glob_match(pattern, path)
        && path
            .split('/')
            .filter(|part| part.starts_with('.'))
            .all(|hidden| {
                dotted_parts(pattern)
                    .iter()
                    .any(|part| fast_glob::glob_match(part, hidden))
            })
}

/// Returns the parts of a pattern that begin with a literal dot. In `a/{.b,c}` that is `.b`; in
/// `a{.b,c}` there is none.
fn dotted_parts(pattern: &str) -> Vec<&str> {
    let mut found = Vec::new();
    // For each open brace: whether a part of the path begins right after it.
    let mut braces: Vec<bool> = Vec::new();
    let mut at_start = true;
    let mut characters = pattern.char_indices();
    while let Some((at, character)) = characters.next() {
        let begins = std::mem::replace(&mut at_start, false);
        match character {
            '/' => at_start = true,
            '{' => {
                braces.push(begins);
                at_start = begins;
            }
            ',' => at_start = braces.last().copied().unwrap_or(false),
            '}' => {
                braces.pop();
            }
            '.' if begins => found.extend(pattern.get(at..).map(first_part)),
            // The character after a backslash stands for itself.
            '\\' => match characters.next() {
                Some((_, '.')) if begins => found.extend(pattern.get(at..).map(first_part)),
                Some(_) | None => {}
            },
            _other => {}
        }
    }
    found
}

/// Returns a pattern up to the end of its first part. A part ends at a slash, or at the comma or
/// brace that ends the alternative it is in.
fn first_part(pattern: &str) -> &str {
    let mut depth = 0_u32;
    let mut is_escaped = false;
    for (at, character) in pattern.char_indices() {
        let ends = match character {
            _escaped if std::mem::take(&mut is_escaped) => false,
            '\\' => {
                is_escaped = true;
                false
            }
            '/' => true,
            ',' | '}' if depth == 0 => true,
            '{' => {
                depth += 1;
                false
            }
            '}' => {
                depth -= 1;
                false
            }
            _other => false,
        };
        if ends {
            return pattern.get(..at).unwrap_or(pattern);
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_no_leading_dot() {
        for (pattern, path, want) in [
            ("*", "a.txt", true),
            ("*", ".bashrc", false),
            ("?bashrc", ".bashrc", false),
            ("[.]bashrc", ".bashrc", false),
            ("**", "out/a.txt", true),
            ("**", ".bashrc", false),
            ("**", ".git/config", false),
            ("**", "out/.ssh/authorized_keys", false),
            ("**/config", ".git/config", false),
            ("*/config", ".git/config", false),
            ("out/**", "out/.env", false),
            ("{*,**/*}", ".env", false),
            (".*", ".bashrc", true),
            (".*", ".git/config", false),
            (".env", ".env", true),
            ("\\.env", ".env", true),
            ("**/.env", "out/.env", true),
            ("**/.env", ".git/.env", false),
            (".git/**", ".git/config", true),
            (".git/**", ".git/hooks/pre-commit", true),
            (".git/**", ".git/.hidden", false),
            ("{.a,b}/*", ".a/x", true),
            ("{.a,b}/*", "b/x", true),
            ("{b,.a*}/*", ".abc/x", true),
            ("x/{y,{z,.a}}", "x/.a", true),
            ("x{.a,.b}", "x.a", true),
            (".{a,b}", ".b", true),
            ("*.{png,csv}", "plot.png", true),
        ] {
            assert_eq!(
                matches_pattern(pattern, path),
                want,
                "{pattern:?} and {path:?}"
            );
        }
    }

    #[test]
    fn odd_patterns_match_without_harm() {
        for pattern in [
            "{", "}", ",", "\\", "{{{{", "}}}}", ".{", ".{/", "[", "a\\", ".\\",
        ] {
            // The test passes if the call returns.
            let _either = matches_pattern(pattern, ".x/y");
        }
    }
}
