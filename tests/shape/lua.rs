//! No Lua call passes more arguments than the function takes: Lua drops the surplus without an
//! error.

use std::collections::BTreeMap;

use crate::lexer::{Kind, Language, pieces};
use crate::tree::{files, has_extension, relative, text};

/// The largest number of parameters of each function, by name. `None`: it takes any number.
type Functions = BTreeMap<String, Option<usize>>;

/// Returns a script with blanks in place of comments and of the text of literals.
fn code(script: &str) -> String {
    let mut found = String::new();
    let mut line = 1;
    for piece in pieces(script, Language::Lua) {
        for _ in line..piece.line {
            found.push('\n');
        }
        line = piece.line;
        match piece.kind {
            Kind::Code => found.push_str(piece.text),
            Kind::Comment => {}
            // A number: an argument that contains no comma and no bracket.
            Kind::Text | Kind::RawText => found.push('0'),
        }
    }
    found
}

/// Returns the arguments or parameters in a list, which starts behind its opening bracket.
fn arguments(list: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let mut found = Vec::new();
    let mut start = 0;
    for (at, c) in list.char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' if depth > 0 => depth -= 1,
            ',' | ')' | '}' | ']' if depth == 0 => {
                found.push(list.get(start..at).unwrap_or_default().trim());
                start = at + 1;
                if c != ',' {
                    break;
                }
            }
            _ => {}
        }
    }
    if found == [""] { Vec::new() } else { found }
}

/// Returns each call or definition in code: the code before it, the name, and the list behind its
/// opening bracket. Methods and fields of tables are left out.
fn lists(code: &str) -> Vec<(&str, &str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices('(') {
        let before = code.get(..at).unwrap_or_default();
        let start = before.trim_end_matches(is_word).len();
        let (head, name) = before.split_at(start);
        let list = code.get(at + 1..).unwrap_or_default();
        if !name.is_empty() && !head.ends_with(['.', ':']) {
            found.push((head, name, list));
        }
    }
    found
}

fn is_definition(head: &str) -> bool {
    let head = head.trim_end();
    let before = head.strip_suffix("function");
    before.is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// Adds the functions that code defines.
fn add_functions(code: &str, functions: &mut Functions) {
    for (_, name, list) in lists(code).iter().filter(|(head, ..)| is_definition(head)) {
        let parameters = arguments(list);
        let open = parameters.contains(&"...");
        let entry = functions.entry((*name).to_owned()).or_insert(Some(0));
        *entry = entry
            .filter(|_| !open)
            .map(|known| known.max(parameters.len()));
    }
}

/// Returns the calls in code that pass more arguments than their function takes.
fn surplus(code: &str, functions: &Functions) -> Vec<String> {
    let mut found = Vec::new();
    for (head, name, list) in lists(code) {
        let Some(Some(takes)) = functions.get(name) else {
            continue;
        };
        let passed = arguments(list).len();
        if !is_definition(head) && passed > *takes {
            let line = head.matches('\n').count() + 1;
            found.push(format!(
                "{line}: {name} takes {takes}, not {passed} arguments"
            ));
        }
    }
    found
}

#[test]
fn no_lua_call_passes_more_arguments_than_the_function_takes() {
    let scripts: Vec<(String, String)> = files()
        .iter()
        .filter(|path| has_extension(path, &["lua"]))
        .map(|path| (relative(path), code(&text(path))))
        .collect();
    assert!(scripts.len() > 10, "the scripts are read");
    let mut shared = Functions::new();
    for (_, code) in &scripts {
        add_functions(code, &mut shared);
    }
    let mut found = Vec::new();
    for (name, code) in &scripts {
        // A function of the script itself hides a shared one of the same name.
        let mut functions = shared.clone();
        let mut own = Functions::new();
        add_functions(code, &mut own);
        functions.extend(own);
        let faults = surplus(code, &functions);
        found.extend(faults.iter().map(|fault| format!("{name}:{fault}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_surplus_argument_is_found() {
    let script = "local function close(id, job, why) -- (a, b, c, d)\nend\n\
                  local function all(...) end\n\
                  close(id, job)\nclose(f(1, 2), {3, 4}, 'a, (b')\nall(1, 2, 3)\n\
                  redis.close(1, 2, 3, 4)\nreturn close(id, job, 'dead', [[x]])\n";
    let code = code(script);
    let mut functions = Functions::new();
    add_functions(&code, &mut functions);
    let want = Functions::from([("close".to_owned(), Some(3)), ("all".to_owned(), None)]);
    assert_eq!(functions, want);
    assert_eq!(
        surplus(&code, &functions),
        ["8: close takes 3, not 4 arguments"]
    );
}
