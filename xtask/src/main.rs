//! Chores of the checkout.
//!
//! `cargo xtask docs` writes the generated parts of `docs/` again, and `cargo xtask docs --check`
//! fails if one of them is out of date. `cargo xtask lua --lint` checks the scripts of the queue.

mod docs;
mod lua_lint;

use std::path::Path;

use anyhow::{Context, bail};

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate is in a folder of the checkout")?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["docs"] => docs::write_docs(root),
        ["docs", "--check"] => docs::check_docs(root),
        ["lua", "--lint"] => lua_lint::lua_lint(root),
        _ => bail!(
            "unknown chore {:?}; there are: docs, docs --check, lua --lint",
            words.join(" ")
        ),
    }
}
