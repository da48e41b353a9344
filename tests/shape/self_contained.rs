//! No test reads files outside the checkout: in a fresh clone there is nothing beside it.

use crate::tree::{files, has_extension, relative, text};

/// Returns whether Rust text joins the checkout's path with a path that leads out of it.
fn leads_out(text: &str) -> bool {
    let leading_out = ["checkout().join(\"", ".."].concat();
    text.contains(&leading_out)
}

#[test]
fn no_test_reads_beside_the_checkout() {
    let found: Vec<String> = files()
        .iter()
        .filter(|path| has_extension(path, &["rs"]) && leads_out(&text(path)))
        .map(|path| relative(path))
        .collect();
    assert!(found.is_empty(), "outside the checkout: {found:?}");
}

#[test]
fn a_path_that_leads_out_is_found() {
    let path = |inner: &str| format!("checkout().join(\"{inner}\")");
    assert!(leads_out(&path("../other")));
    assert!(!leads_out(&path("docs")));
}
