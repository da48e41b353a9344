//! The example image of the documentation, built from the text of the page.

use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::environment;
use sandhog_testkit::namespace::TestNamespace;
use serde_json::Value;

use crate::fixture::ModelImageFixture;

/// Returns the files that a section of the page shows, by path. Each is a line that ends with a
/// quoted path and a colon, followed by a code block.
fn files(section: &str) -> Vec<(String, String)> {
    let mut parts = section.split("\n```");
    let mut files = Vec::new();
    while let (Some(text), Some(block)) = (parts.next(), parts.next()) {
        let (_language, block) = block.split_once('\n').unwrap();
        let path = text.trim_end().strip_suffix("`:");
        if let Some((_, path)) = path.and_then(|text| text.rsplit_once('`')) {
            files.push((path.to_owned(), format!("{block}\n")));
        }
    }
    files
}

#[test]
fn the_ten_lines_of_the_page_are_a_model() {
    let page =
        std::fs::read_to_string(environment::checkout().join("docs/guides/inference.md")).unwrap();
    let (_, section) = page
        .split_once("\n## Bake your own in ten lines\n")
        .unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let files = files(section);
    let lines: usize = files.iter().map(|(_, text)| text.lines().count()).sum();
    assert_eq!((files.len(), lines), (3, 10), "{files:?}");

    let mut space = TestNamespace::shared("baked");
    let toy = ModelImageFixture::of_files(&space, "shout", &files);
    let _worker = toy.worker(&space).start();
    let result = space.run(&Job::infer(toy.name().clone(), "hello".into()));
    assert_eq!(result.value, Some(Value::from("HELLO!")), "{result:?}");
    assert!(section.contains("$ sandhog infer shout --text hello\n\"HELLO!\"\n"));

    let refused = space.run(&Job::code(toy.name().clone(), "print(1)"));
    assert_eq!(refused.outcome, Outcome::Rejected);
    assert_eq!(refused.error.unwrap().code, "unknown_language");
}
