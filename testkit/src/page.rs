//! Programs on pages of the documentation, taken from the page itself, so that the published text
//! is tested.

use std::fs;

use crate::environment;
use crate::namespace::TestNamespace;

/// Returns the code blocks of one language in docs/reference/protocol.md, in order, changed to use
/// this test's queue.
///
/// # Panics
/// Panics if the page has none.
#[must_use]
pub fn blocks(language: &str, space: &TestNamespace) -> Vec<String> {
    page_blocks("docs/reference/protocol.md", language, space)
}

/// Returns the code blocks of one language on a page, in order, changed to use this test's queue.
///
/// # Panics
/// Panics if the page has none.
#[must_use]
pub fn page_blocks(page: &str, language: &str, space: &TestNamespace) -> Vec<String> {
    let page =
        fs::read_to_string(environment::checkout().join(page)).expect("the page can be read");
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

/// Returns the words of each line on the page that gives a user its permissions. The password in
/// them is [`PASSWORD`].
#[must_use]
pub fn permissions(space: &TestNamespace) -> Vec<Vec<String>> {
    blocks("acl", space)
        .iter()
        .flat_map(|block| block.lines())
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// Password of the users on the page.
pub const PASSWORD: &str = "change-me";
