//! What docs/protocol.md shows, taken from the page itself, so that what is published is what is tested.

use std::fs;

use crate::given;
use crate::space::Space;

/// The page's blocks of one language, in order, made to talk to this queue.
///
/// # Panics
/// When the page has none.
#[must_use]
pub fn blocks(language: &str, space: &Space) -> Vec<String> {
    let page = fs::read_to_string(given::checkout().join("docs/protocol.md"))
        .expect("the page can be read");
    let namespace = format!("{{{}}}", space.namespace());
    let blocks: Vec<String> = page
        .split(&format!("```{language}\n"))
        .skip(1)
        .map(|rest| rest.split("```").next().expect("a split has a first part"))
        .map(|block| block.replace("{default}", &namespace))
        .collect();
    assert!(!blocks.is_empty(), "the page has no {language}");
    blocks
}

/// The lines by which users get their permissions, in words, and the password in them.
#[must_use]
pub fn permissions(space: &Space) -> Vec<Vec<String>> {
    blocks("acl", space)
        .iter()
        .flat_map(|block| block.lines())
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// The password of the users on the page.
pub const PASSWORD: &str = "change-me";
