//! Checks of the queue's Lua scripts: each has a header, and no call of a function has more
//! arguments than the function has parameters.
//!
//! Lua ignores a surplus argument, so an argument in the wrong place changes a job's record without
//! an error. A missing argument is nil; the scripts leave out optional ones at the end, so fewer
//! arguments are no problem.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Folder below which the scripts are.
const SCRIPTS: &str = "common/queue/src";

/// Functions by name, each with the largest number of arguments that one of its definitions takes.
/// Scripts are joined when the program is built, so a definition in one file holds for all.
type ArgumentLimits = BTreeMap<String, usize>;

/// Checks every script of the queue.
///
/// # Errors
/// Names each script without a header, and each call with a wrong number of arguments.
pub(crate) fn lua_lint(root: &Path) -> anyhow::Result<()> {
    let mut scripts = Vec::new();
    for path in lua_files(&root.join(SCRIPTS))? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
        scripts.push((name.display().to_string(), text));
    }
    ensure!(!scripts.is_empty(), "no Lua script below {SCRIPTS}");
    let problems = problems(&scripts);
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn lua_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(lua_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "lua") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the problems of these scripts, each a name and a text.
fn problems(scripts: &[(String, String)]) -> Vec<String> {
    let codes: Vec<Vec<Token>> = scripts.iter().map(|(_, text)| tokens(text)).collect();
    let mut limits = ArgumentLimits::new();
    for code in &codes {
        for (name, limit) in definitions(code) {
            let largest = limits.entry(name).or_default();
            *largest = limit.max(*largest);
        }
    }
    let mut found = Vec::new();
    for ((name, text), code) in scripts.iter().zip(&codes) {
        if !has_header(text) {
            found.push(format!(
                "{name}: no header; it begins with a comment that states the purpose, and either \
                 KEYS[1], ARGV and Result, or that it takes no arguments"
            ));
        }
        for call in calls(code) {
            let Some(limit) = limits.get(&call.function) else {
                continue;
            };
            if call.arguments > *limit {
                found.push(format!(
                    "{name}:{}: {} is called with {} arguments and takes {limit}",
                    call.line, call.function, call.arguments
                ));
            }
        }
    }
    found
}

/// Returns whether a script begins with a comment that describes its arguments.
fn has_header(text: &str) -> bool {
    let header: Vec<&str> = text
        .lines()
        .map_while(|line| line.strip_prefix("--"))
        .map(str::trim)
        .collect();
    let states_purpose = header.first().is_some_and(|line| !line.is_empty());
    let header = header.join(" ");
    let is_script = header.contains("KEYS[1]") && header.contains("Result");
    states_purpose && (is_script || header.contains("takes no arguments"))
}

/// One word, mark or string of a script. Comments are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

/// Splits a script into tokens. A name with its dots and colons is one token, and a string is the
/// token `''`, regardless of its content.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (token, length) = match first {
            '-' if rest.starts_with("--") => (None, rest.find('\n').unwrap_or(rest.len())),
            '\'' | '"' => (Some("''".to_owned()), string_length(rest, first)),
            '.' if rest.starts_with("...") => (Some("...".to_owned()), 3),
            '.' if rest.starts_with("..") => (Some("..".to_owned()), 2),
            _ if is_of_name(first) => {
                let length = name_length(rest);
                (rest.get(..length).map(str::to_owned), length)
            }
            _ if first.is_whitespace() => (None, first.len_utf8()),
            _ => (Some(first.to_string()), first.len_utf8()),
        };
        found.extend(token.map(|text| Token { text, line }));
        let (passed, after) = rest.split_at(length);
        line += passed.matches('\n').count();
        rest = after;
    }
    found
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Returns the length of the name at the start of `text`, with the names behind a dot or a colon.
fn name_length(text: &str) -> usize {
    let length = text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    let after = text.get(length..).unwrap_or_default();
    match after.strip_prefix(['.', ':']) {
        Some(member) if member.starts_with(is_of_name) => length + 1 + name_length(member),
        _ => length,
    }
}

/// Returns the length of the string literal at the start of `text`, with its quotes.
fn string_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Returns the named functions that a script defines, with the numbers of arguments that they take.
fn definitions(code: &[Token]) -> Vec<(String, usize)> {
    code.windows(3)
        .enumerate()
        .filter(|(_, words)| words[0].text == "function" && words[2].text == "(")
        .map(|(at, words)| {
            let limit = match is_open_ended(code, at + 3) {
                true => usize::MAX,
                false => arguments(code, at + 3),
            };
            (words[1].text.clone(), limit)
        })
        .collect()
}

/// A call of a function.
#[derive(Debug, PartialEq, Eq)]
struct LuaCall {
    function: String,
    arguments: usize,
    line: usize,
}

/// Returns the calls in a script whose number of arguments is known: none that ends with `...` or
/// with `unpack`, which may stand for any number.
fn calls(code: &[Token]) -> Vec<LuaCall> {
    let mut found = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let is_call = token
            .text
            .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && code.get(at + 1).is_some_and(|next| next.text == "(")
            && (at == 0 || code[at - 1].text != "function");
        if is_call && !is_open_ended(code, at + 2) {
            found.push(LuaCall {
                function: token.text.clone(),
                arguments: arguments(code, at + 2),
                line: token.line,
            });
        }
    }
    found
}

/// Returns the indexes of the first tokens of the arguments in a list that starts at `start`, after
/// its bracket.
fn argument_starts(code: &[Token], start: usize) -> Vec<usize> {
    // Brackets and blocks (`function … end`) that are open; a comma in one of them separates no
    // arguments.
    let mut open = 1;
    let mut starts = Vec::new();
    let mut is_start = true;
    for (at, token) in code.iter().enumerate().skip(start) {
        match token.text.as_str() {
            ")" | "]" | "}" | "end" | "until" => open -= 1,
            _ if is_start => starts.push(at),
            _ => {}
        }
        if open == 0 {
            break;
        }
        match token.text.as_str() {
            "(" | "[" | "{" | "function" | "if" | "do" | "repeat" => open += 1,
            _ => {}
        }
        is_start = open == 1 && token.text == ",";
    }
    starts
}

fn arguments(code: &[Token], start: usize) -> usize {
    argument_starts(code, start).len()
}

fn is_open_ended(code: &[Token], start: usize) -> bool {
    argument_starts(code, start)
        .last()
        .is_some_and(|last| matches!(code[*last].text.as_str(), "..." | "unpack"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "-- Does it.\n--\n-- KEYS[1]  prefix\n-- Result   1\n\n";

    fn problems_of(code: &str) -> Vec<String> {
        problems(&[("a.lua".to_owned(), format!("{HEADER}{code}"))])
    }

    #[test]
    fn a_call_has_at_most_the_arguments_that_the_function_takes() {
        let define = "local function close(id, job, why)\n  return id\nend\n";
        for (case, call, is_right) in [
            ("equal", "close(1, 2, 3)", true),
            ("one too many", "close(1, 2, 'dead', 'error')", false),
            ("one that is optional", "close(1, 2)", true),
            ("none", "close()", true),
            ("a comma in a string", "close(1, 2, 'a, b)')", true),
            ("an escaped quote", r"close(1, 2, 'a\', b')", true),
            ("a comma in a table", "close(1, { 2, 3 }, 4)", true),
            ("a comma in a call", "close(f(1, 2), 3, 4)", true),
            ("too many in a call", "other(close(1, 2, 3, 4))", false),
            (
                "a comma in a function",
                "close(1, 2, function(a, b)\n  if a then local c, d = a, b end\nend)",
                true,
            ),
            ("a comment", "close(1, 2, 3) -- close(1)", true),
            ("a comma in a comment", "close(1, 2, -- 3, 4\n  5)", true),
            ("an unknown number", "close(1, unpack(all))", true),
            (
                "an unpacked value in the middle",
                "close(unpack(all), 1)",
                true,
            ),
            ("a method of another", "other.close(1, 2, 3, 4)", true),
            (
                "behind a concatenation",
                "local a = b..close(1, 2, 3, 4)",
                false,
            ),
            ("a longer name", "enclose(1, 2, 3, 4)", true),
            (
                "any number",
                "local function all(...) end all(1, 2, 3, 4)",
                true,
            ),
        ] {
            let found = problems_of(&format!("{define}{call}\n"));
            assert_eq!(found.is_empty(), is_right, "{case}: {found:?}");
        }
    }

    #[test]
    fn a_problem_names_the_line() {
        let found = problems_of("local function f(a) return a end\n\nf(1, 2)\n");
        assert_eq!(found, ["a.lua:8: f is called with 2 arguments and takes 1"]);
    }

    #[test]
    fn a_definition_in_one_file_holds_for_all() {
        let file = |name: &str, code: &str| (name.to_owned(), format!("{HEADER}{code}"));
        let found = problems(&[
            file("a.lua", "f(1, 2, 3)\n"),
            file("b.lua", "function f(a, b) end\n"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_script_has_a_header() {
        for (case, text, is_right) in [
            ("a script", HEADER, true),
            (
                "a library",
                "-- Helps.\n--\n-- It takes no\n-- arguments.\n",
                true,
            ),
            ("no comment", "return 1\n", false),
            (
                "no purpose",
                "--\n-- KEYS[1]  prefix\n-- Result   1\n",
                false,
            ),
            ("no result", "-- Does it.\n--\n-- KEYS[1]  prefix\n", false),
            ("later", "return 1\n-- KEYS[1] Result\n", false),
        ] {
            assert_eq!(has_header(text), is_right, "{case}");
        }
    }
}
