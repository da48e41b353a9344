//! Rules for the checkout itself: short files, a code map that names existing paths, links that
//! lead to a target.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sandhog_tests::given::checkout;

/// Maximum number of lines. House style: a longer file has more than one subject.
const MOST_LINES: usize = 500;

/// Returns every file of the checkout except build output and version control.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![checkout().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the checkout can be read") {
            let path = entry.expect("the checkout can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match (path.is_dir(), name.as_ref()) {
                (true, "target" | ".git" | "__pycache__" | "node_modules" | "snapshots") => {}
                (true, _) => folders.push(path),
                (false, _) => found.push(path),
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    let relative = path.strip_prefix(checkout()).unwrap_or(path);
    relative.display().to_string()
}

fn is_source(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["rs", "lua", "py", "sh", "toml", "md"]
        .iter()
        .any(|known| extension == *known)
        || path.starts_with(checkout().join("scripts"))
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<String> = files()
        .iter()
        .filter(|path| is_source(path))
        .map(|path| (path, text(path).lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines", shown(path)))
        .collect();
    assert!(long.is_empty(), "above {MOST_LINES} lines: {long:#?}");
}

/// Expands `a/{b,c}.rs` to `a/b.rs` and `a/c.rs`.
fn spread(pattern: &str) -> Vec<String> {
    match (pattern.split_once('{'), pattern.rsplit_once('}')) {
        (Some((before, _)), Some((inside, after))) => {
            let choices = inside.split_once('{').map_or("", |(_, choices)| choices);
            choices
                .split(',')
                .map(|choice| format!("{before}{choice}{after}"))
                .collect()
        }
        _ => vec![pattern.to_owned()],
    }
}

/// Returns the paths in the first column of the code map.
fn code_map() -> Vec<String> {
    let page = text(&checkout().join("ARCHITECTURE.md"));
    let map = page
        .split_once("\n## Code map\n")
        .map_or("", |(_, rest)| rest);
    map.lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split_once('`'))
        .flat_map(|(path, _)| spread(path))
        .collect()
}

#[test]
fn the_code_map_names_what_exists() {
    let map = code_map();
    assert!(map.len() > 20, "the code map is read: {map:?}");
    let missing: Vec<&String> = map
        .iter()
        .filter(|path| !checkout().join(path).exists())
        .collect();
    assert!(missing.is_empty(), "the code map names {missing:?}");

    for crate_folder in members() {
        assert!(
            map.iter().any(|path| path.starts_with(&crate_folder)),
            "the code map leaves out the crate {crate_folder}"
        );
    }
}

/// Returns the folders of the workspace's crates.
fn members() -> Vec<String> {
    files()
        .iter()
        .filter(|path| path.ends_with("Cargo.toml"))
        .map(|path| shown(path.parent().expect("a file has a folder")))
        .filter(|folder| !folder.is_empty())
        .collect()
}

#[test]
fn every_crate_inherits_the_lints() {
    // A crate has the workspace's lints only if its manifest asks for them.
    for folder in members() {
        let manifest = text(&checkout().join(&folder).join("Cargo.toml"));
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{folder}/Cargo.toml does not inherit the workspace's lints"
        );
    }
}

/// Returns the targets of a page's links, without those outside the checkout.
fn links(page: &str) -> Vec<&str> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

/// Returns the anchors of a page, as GitHub derives them from its headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut code = false;
    page.lines()
        .filter(|line| {
            code ^= line.starts_with("```");
            !code && line.starts_with('#')
        })
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| {
            heading
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// Returns whether a link on the page at `path` leads to an existing file and, in a page, to an
/// existing heading.
fn leads_somewhere(path: &Path, link: &str) -> bool {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = path.parent().expect("a file has a folder");
    let target = match file {
        "" => path.to_owned(),
        file => folder.join(file),
    };
    target.exists() && (anchor.is_empty() || anchors(&text(&target)).contains(anchor))
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut dead = Vec::new();
    for path in files() {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        dead.extend(
            links(&text(&path))
                .into_iter()
                .filter(|link| !leads_somewhere(&path, link))
                .map(|link| format!("{}: {link}", shown(&path))),
        );
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn no_test_reads_beside_the_checkout() {
    // In a fresh clone there is nothing beside the checkout.
    let leading_out = ["checkout().join(\"", ".."].concat();
    let found: Vec<String> = files()
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| text(path).contains(&leading_out))
        .map(|path| shown(path))
        .collect();
    assert!(found.is_empty(), "outside the checkout: {found:?}");
}

#[test]
fn a_heading_is_an_anchor_and_a_comment_in_code_is_none() {
    let page = "# What it *is*: `[serve]`\n```\n# none\n```\n### Two words\n";
    let want = ["what-it-is-serve", "two-words"].map(str::to_owned);
    assert_eq!(anchors(page), BTreeSet::from(want));
}
