//! Names of the files that a job brings, and patterns of the files that it fetches.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use sandhog_common::blob::Blob;
use sandhog_common::files::{check_names, check_patterns};

use crate::feed;

/// A name that is accepted can be created below a directory, and never outside of it.
#[test]
fn names() {
    let seeds = [
        "a.txt",
        "out/b/c.txt",
        "../a",
        "a/../../b",
        "./a",
        "/etc/passwd",
        "a//b",
        "é\u{0}",
    ];
    let seeds: Vec<Vec<u8>> = seeds.map(|name| name.as_bytes().to_vec()).into();
    let top = tempfile::tempdir().expect("a directory can be made");
    let work = top.path().join("work");
    feed("names", &seeds, |bytes| {
        let Ok(name) = std::str::from_utf8(bytes) else {
            return;
        };
        let files = BTreeMap::from([(name.to_owned(), Blob::default())]);
        if check_names(&files).is_err() {
            return;
        }
        let below = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        assert!(below, "let through: {name:?}");
        let path = work.join(name);
        let folder = path.parent().expect("it has one at least");
        std::fs::create_dir_all(folder).expect("a name that was let through can be made");
        std::fs::write(&path, b"").expect("a name that was let through can be made");
        let beside: Vec<_> = std::fs::read_dir(top.path())
            .expect("the directory can be listed")
            .map(|entry| entry.expect("the directory can be listed").file_name())
            .collect();
        assert_eq!(beside, ["work"]);
        std::fs::remove_dir_all(&work).expect("what was made can be removed");
    });
}

/// A pattern that is accepted can be matched with any name, quickly enough for 64 names.
#[test]
fn patterns() {
    let seeds = [
        "*.png",
        "out/**",
        "{a,b}*/[!c]?",
        "**/**/**/*a*b*c",
        "[",
        "{",
        "\\",
        "{{{,},},}",
    ];
    let seeds: Vec<Vec<u8>> = seeds.map(|pattern| pattern.as_bytes().to_vec()).into();
    let names = [
        "a",
        "out/b/c.png",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "",
        "é/[",
        "a/b/c/d/e/f/g/h/i/j",
    ];
    feed("patterns", &seeds, |bytes| {
        let Ok(pattern) = std::str::from_utf8(bytes) else {
            return;
        };
        if check_patterns(&[pattern.to_owned()]).is_err() {
            return;
        }
        for name in names {
            // Either result is correct; the match must neither panic nor hang.
            std::hint::black_box(fast_glob::glob_match(pattern, name));
        }
    });
}
