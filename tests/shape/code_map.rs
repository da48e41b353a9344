//! The code map in `ARCHITECTURE.md` names existing paths and every crate.

use sandhog_testkit::environment::checkout;

use crate::tree::{members, text};

/// Expands `a/{b,c}.rs` to `a/b.rs` and `a/c.rs`.
fn expand(pattern: &str) -> Vec<String> {
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

/// Returns the paths in the first column of a page's code map.
fn code_map(page: &str) -> Vec<String> {
    let map = page
        .split_once("\n## Code map\n")
        .map_or("", |(_, rest)| rest);
    map.lines()
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|row| row.split_once('`'))
        .flat_map(|(path, _)| expand(path))
        .collect()
}

/// Returns whether a map names files of a crate, or a folder with programs that contains it.
fn names_crate(map: &[String], folder: &str) -> bool {
    let inside = |path: &String| path.ends_with('/') && folder.starts_with(path.as_str());
    map.iter()
        .any(|path| path.starts_with(folder) || inside(path))
}

#[test]
fn the_code_map_names_what_exists() {
    let map = code_map(&text(&checkout().join("ARCHITECTURE.md")));
    assert!(map.len() > 20, "the code map is read: {map:?}");
    let missing: Vec<&String> = map
        .iter()
        .filter(|path| !checkout().join(path).exists())
        .collect();
    assert!(missing.is_empty(), "the code map names {missing:?}");

    let left_out: Vec<String> = members()
        .into_iter()
        .filter(|folder| !names_crate(&map, folder))
        .collect();
    assert!(left_out.is_empty(), "the code map leaves out {left_out:?}");
}

#[test]
fn each_row_of_the_map_is_read() {
    let page = "# Page\n\n## Code map\n\n| path | content |\n| --- | --- |\n\
                | `a/{b,c}.rs` | two |\n| `d/` | one |\n\n## Next\n\n| `e/` | another table |\n";
    let map = code_map(page);
    assert_eq!(map, ["a/b.rs", "a/c.rs", "d/"]);
    assert!(names_crate(&map, "a") && names_crate(&map, "d/peers/e"));
    assert!(!names_crate(&map, "e"), "the crate is left out");
}
