//! Settings: precedence of sources, origin of each value, and a report of all errors at once.

use insta::assert_snapshot;
use serde_json::Value;

use crate::command::User;

/// Returns the value and the origin of `worker.slots`.
fn slots(user: &User, words: &[&str]) -> (Value, String) {
    let words = [&["config", "show", "--json"], words].concat();
    let shown: Value = serde_json::from_str(&user.prints(&words)).expect("it is JSON");
    let slots = &shown["worker.slots"];
    let origin = slots["origin"].as_str().unwrap_or_default();
    (
        slots["value"].clone(),
        origin.replace(user.home_text(), "~"),
    )
}

#[test]
fn each_source_goes_over_the_one_before() {
    const USERS: &str = ".config/sandhog/sandhog.toml";
    let file = |slots: u32| format!("[worker]\nslots = {slots}\n");
    let plain = User::new;
    let with_file = || plain().file(USERS, &file(2)).file("other.toml", &file(3));
    let with_config = || with_file().set("SANDHOG_CONFIG", "~/other.toml");
    let with_variable = || with_config().set("SANDHOG_WORKER_SLOTS", "4");
    for (case, user, words, want) in [
        ("default", plain(), &[][..], (0, "default".to_owned())),
        ("user's file", with_file(), &[], (2, format!("~/{USERS}"))),
        (
            "file by variable",
            with_config(),
            &[],
            (3, "~/other.toml".to_owned()),
        ),
        (
            "variable",
            with_variable(),
            &[],
            (4, "SANDHOG_WORKER_SLOTS".to_owned()),
        ),
        (
            "file by flag is still a file",
            with_variable(),
            &["--config", "~/other.toml"],
            (4, "SANDHOG_WORKER_SLOTS".to_owned()),
        ),
        (
            "flag",
            with_variable(),
            &["--set", "worker.slots=5"],
            (5, "--set".to_owned()),
        ),
    ] {
        let (value, origin) = want;
        assert_eq!(
            slots(&user, words),
            (Value::from(value), origin),
            "case {case}"
        );
    }
}

#[test]
fn all_settings_are_shown_with_their_origin() {
    let user = User::new()
        .file("secret", "redis://user:hunter2@example.org:6379/2\n")
        .file("set.toml", "[worker]\ntags = [\"gpu\", \"cpu\"]\n")
        .set("SANDHOG_REDIS_URL_FILE", "~/secret")
        .set("SANDHOG_STATE_DIR", "/srv/state");
    let words = ["config", "show", "--origin", "--config", "~/set.toml"];
    assert_snapshot!(user.shown(&words));
}

#[test]
fn every_problem_is_told_at_once() {
    let user = User::new()
        .file(
            "bad.toml",
            "colour = true\n[worker]\nslot = 2\nlease_ms = 10\ntags = []\n",
        )
        .set("SANDHOG_WORKER_HTTP", "nowhere")
        .set("SANDHOG_WROKER_SLOTS", "2")
        .set("SANDHOG_REDIS_URL_FILE", "~/absent");
    let words = [
        "status",
        "--config",
        "~/bad.toml",
        "--set",
        "sandbox.memory=1XB",
    ];
    assert_snapshot!(user.shown(&words));
    let json = ["status", "--config", "~/absent.toml", "--json"];
    assert_snapshot!(User::new().shown(&json));
}

#[test]
fn a_file_that_does_not_parse_says_where() {
    let user = User::new().file("bad.toml", "[worker]\nslots = = 2\n");
    assert_snapshot!(user.shown(&["config", "show", "--config", "~/bad.toml"]));
}
