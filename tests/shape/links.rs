//! Links between pages lead to an existing file and heading.

use std::collections::BTreeSet;
use std::path::Path;

use sandhog_testkit::environment::checkout;

use crate::tree::{files, has_extension, relative, text};

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

/// Returns the links of a page that lead nowhere.
fn dead_links(path: &Path, page: &str) -> Vec<String> {
    links(page)
        .into_iter()
        .filter(|link| !leads_somewhere(path, link))
        .map(|link| format!("{}: {link}", relative(path)))
        .collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let dead: Vec<String> = files()
        .iter()
        .filter(|path| has_extension(path, &["md"]))
        .flat_map(|path| dead_links(path, &text(path)))
        .collect();
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn the_index_has_every_page() {
    let index = checkout().join("docs/README.md");
    let page = text(&index);
    let linked = links(&page);
    let missing: Vec<String> = files()
        .iter()
        .filter(|path| has_extension(path, &["md"]) && **path != index)
        .filter_map(|path| path.strip_prefix(checkout().join("docs")).ok())
        .map(|path| path.display().to_string())
        .filter(|page| !page.starts_with("reference/commands/"))
        .filter(|page| !linked.contains(&page.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/README.md leaves out {missing:?}");
}

#[test]
fn a_heading_is_an_anchor_and_a_comment_in_code_is_none() {
    let page = "# What it *is*: `[serve]`\n```\n# none\n```\n### Two words\n";
    let want = ["what-it-is-serve", "two-words"].map(str::to_owned);
    assert_eq!(anchors(page), BTreeSet::from(want));
}

#[test]
fn a_dead_link_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    let text = "# Here\n[a](#here) [b](#gone) [c](page.md#here) [d](other.md) [e](https://x.org)\n";
    std::fs::write(&page, text).unwrap();
    let dead: Vec<String> = dead_links(&page, text);
    assert_eq!(dead.len(), 2, "{dead:?}");
    assert!(dead[0].ends_with("#gone") && dead[1].ends_with("other.md"));
}
