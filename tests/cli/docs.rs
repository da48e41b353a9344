//! The reference in `docs/` must match the program's own help.
//!
//! With `SANDHOG_TEST_WRITE=1` these tests write the generated parts instead of comparing them.

use sandhog_tests::given;
use serde_json::Value;

use crate::command::User;

/// Compares, or writes, the part of a document between `<!-- begin NAME -->` and `<!-- end NAME
/// -->`.
fn generated(document: &str, name: &str, want: &str) {
    let path = given::checkout().join(document);
    let text = std::fs::read_to_string(&path).expect("the document is there");
    let begin = format!("<!-- begin {name}: generated, see tests/cli/docs.rs -->\n");
    let end = format!("<!-- end {name} -->");
    let (before, rest) = text.split_once(&begin).expect("the part begins");
    let (found, after) = rest.split_once(&end).expect("the part ends");
    if given::writes() {
        std::fs::write(&path, format!("{before}{begin}{want}{end}{after}"))
            .expect("the document can be written");
    } else {
        assert_eq!(
            found, want,
            "{document} is out of date: run this test with SANDHOG_TEST_WRITE=1"
        );
    }
}

/// First line of a page that is generated as a whole.
const MADE: &str = "<!-- generated, see tests/cli/docs.rs -->\n";

/// Compares, or writes, a page that is generated as a whole.
fn whole(document: &str, want: &str) {
    let path = given::checkout().join(document);
    if given::writes() {
        std::fs::create_dir_all(path.parent().expect("a page is in a folder"))
            .and_then(|()| std::fs::write(&path, want))
            .expect("the page can be written");
    } else {
        assert_eq!(
            std::fs::read_to_string(&path).unwrap_or_default(),
            want,
            "{document} is out of date: run this test with SANDHOG_TEST_WRITE=1"
        );
    }
}

#[test]
fn the_settings_reference_is_current() {
    let mut table =
        "| key | variable | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for line in User::new().prints(&["config", "keys", "--json"]).lines() {
        let info: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| info[name].as_str().unwrap().to_owned();
        let default = match &info["default"] {
            Value::Null => String::new(),
            other => format!("`{other}`"),
        };
        table.push_str(&format!(
            "| `{}` | `{}` | {default} | {} |\n",
            text("key"),
            text("variable"),
            text("description").replace('|', "\\|"),
        ));
    }
    generated("docs/configuration.md", "settings", &table);
}

#[test]
fn the_command_reference_is_current() {
    let user = User::new();
    let mut pages: Vec<(&str, String)> = Vec::new();
    for words in [
        &["run"][..],
        &["infer"],
        &["submit"],
        &["wait"],
        &["logs"],
        &["cancel"],
        &["status"],
        &["top"],
        &["dead", "list"],
        &["dead", "show"],
        &["dead", "requeue"],
        &["dead", "drop"],
        &["schedule", "add"],
        &["schedule", "list"],
        &["schedule", "show"],
        &["schedule", "remove"],
        &["schedule", "pause"],
        &["schedule", "resume"],
        &["schedule", "run-now"],
        &["tenant", "list"],
        &["tenant", "show"],
        &["tenant", "set"],
        &["tenant", "pause"],
        &["tenant", "resume"],
        &["tenant", "remove"],
        &["pause"],
        &["resume"],
        &["worker"],
        &["up"],
        &["images", "build"],
        &["images", "list"],
        &["images", "check"],
        &["doctor"],
        &["config", "show"],
        &["config", "keys"],
        &["completions"],
    ] {
        let help = user.prints(&[words, &["--help"]].concat());
        // The global options are the same for every command and are on the page of all commands.
        let own: Vec<&str> = help.split("\nGlobal options:").collect();
        let after = own
            .get(1)
            .and_then(|rest| rest.split_once("\n\n"))
            .map_or("", |(_, after)| after);
        let text = format!("{}\n{after}", own[0].trim_end());
        let command = words[0];
        if pages.last().is_none_or(|(page, _)| *page != command) {
            pages.push((command, MADE.to_owned()));
        }
        let (_, page) = pages.last_mut().expect("one was just made");
        page.push_str(&format!(
            "\n# sandhog {}\n\n```text\n{}\n```\n",
            words.join(" "),
            text.trim_end()
        ));
    }
    let mut list = String::new();
    for (command, page) in &pages {
        whole(&format!("docs/commands/{command}.md"), page);
        list.push_str(&format!("- [sandhog {command}](commands/{command}.md)\n"));
    }
    generated("docs/cli.md", "commands", &list);

    let help = user.prints(&["--help"]);
    let global = help
        .split_once("Global options:\n")
        .and_then(|(_, rest)| rest.split_once("\nExit codes:\n"));
    let (options, codes) = global.expect("both sections are there");
    let section = |text: &str| format!("```text\n{}\n```\n", text.trim_end());
    generated("docs/cli.md", "options", &section(options));
    generated("docs/cli.md", "exit codes", &section(codes));
}
