//! Programs on pages of the documentation, taken from the page itself, so that the published text
//! is tested.

use std::fs;

use crate::given;
use crate::space::Space;

/// The blocks of one language in docs/protocol.md, in order, made to talk to this queue.
///
/// # Panics
/// When the page has none.
#[must_use]
pub fn blocks(language: &str, space: &Space) -> Vec<String> {
    blocks_of("docs/protocol.md", language, space)
}

/// The blocks of one language on a page, in order, made to talk to this queue.
///
/// # Panics
/// If the page has none.
#[must_use]
pub fn blocks_of(page: &str, language: &str, space: &Space) -> Vec<String> {
    let page = fs::read_to_string(given::checkout().join(page)).expect("the page can be read");
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
