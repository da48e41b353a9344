//! Help, the version and completions.

use insta::assert_snapshot;

use crate::command::User;

#[test]
fn every_command_has_help() {
    let user = User::new();
    for words in [
        &["--help"][..],
        &["run", "--help"],
        &["infer", "--help"],
        &["submit", "--help"],
        &["wait", "--help"],
        &["logs", "--help"],
        &["cancel", "--help"],
        &["status", "--help"],
        &["top", "--help"],
        &["dead", "--help"],
        &["dead", "requeue", "--help"],
        &["schedule", "--help"],
        &["schedule", "add", "--help"],
        &["tenant", "--help"],
        &["tenant", "set", "--help"],
        &["pause", "--help"],
        &["resume", "--help"],
        &["worker", "--help"],
        &["images", "--help"],
        &["images", "build", "--help"],
        &["up", "--help"],
        &["doctor", "--help"],
        &["config", "show", "--help"],
        &["completions", "--help"],
    ] {
        let name = words.join("_").replace('-', "");
        assert_snapshot!(name, user.prints(words));
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    let user = User::new();
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef sandhog"),
        ("fish", "complete -c sandhog"),
        ("elvish", "edit:completion"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let script = user.prints(&["completions", shell]);
        assert!(script.contains(sign), "{shell}");
        assert!(script.contains("redis"), "{shell} knows the options");
    }
}

#[test]
fn completions_know_images_and_no_hidden_command() {
    let user = User::new()
        .file(
            "images/mine/image.toml",
            "contract = 1\nname = \"mine\"\nsummary = \"\"\nlanguage = \"x\"\n[languages.x]\n\
             style = \"file\"\nfile = \"a\"\nargv = [\"/x\"]\n",
        )
        .set("SANDHOG_SANDBOX_IMAGES_DIR", "~/images");
    for shell in ["bash", "zsh", "fish"] {
        let script = user.prints(&["completions", shell]);
        assert!(!script.contains("redis-guard"), "{shell}");
        let offers = script.lines().filter(|line| line.contains("mine"));
        // Both forms of `--image`, and the arguments of `images build`.
        assert!(offers.count() >= 3, "{shell}: {script}");
    }
}

#[test]
fn the_version_is_the_packages() {
    let version = User::new().prints(&["--version"]);
    assert_eq!(version, format!("sandhog {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    let program = sandhog_testkit::environment::sandhog();
    let mut child = Command::new(program)
        .args(["completions", "bash"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // The command may have written everything before the reader closed the pipe.
    assert!(matches!(output.status.code(), Some(0 | 141)), "{output:?}");
}
