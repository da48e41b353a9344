//! Errors before any connection is made: the message, the hint and the exit code.

use insta::assert_snapshot;

use crate::command::User;

#[test]
fn mistakes_on_the_command_line_end_with_64() {
    let user = User::new().file("main.py", "print(1)");
    let user = user.file("sub/main.py", "print(2)").file(
        "jobs.jsonl",
        "{\"image\":\"python\",\"code\":\"1\"}\n\n{\"image\":\"python\"}\n",
    );
    let two = "{\"image\":\"python\",\"code\":\"1\"}\n".repeat(2);
    let user = user.file("two.jsonl", &two);
    for (case, words) in [
        ("unknown_command", &["explode"][..]),
        ("nothing_to_run", &["run"]),
        ("two_programs", &["run", "main.py", "-c", "1"]),
        ("bad_span", &["run", "-c", "1", "--timeout", "soon"]),
        ("bad_size", &["run", "-c", "1", "--memory", "1XB"]),
        ("small_size", &["run", "-c", "1", "--memory", "64"]),
        ("small_share", &["run", "-c", "1", "--cpu", "0.001"]),
        ("bad_image", &["run", "-c", "1", "--image", "a b"]),
        ("bad_input", &["run", "-c", "1", "--input", "text"]),
        ("bad_env", &["run", "-c", "1", "--env", "1A=b"]),
        ("stdin_twice", &["run", "-", "--stdin", "-"]),
        ("language_with_argv", &["run", "-l", "bash", "--", "ls"]),
        ("bad_line", &["submit", "--file", "jobs.jsonl"]),
        ("bad_id", &["wait", "a b"]),
        ("mistake_json", &["run", "--json", "--explode"]),
        ("nothing_to_run_json", &["run", "--json"]),
        (
            "two_files_one_name",
            &["run", "main.py", "--put", "main.py", "--put", "sub/main.py"],
        ),
        (
            "bad_cron",
            &["schedule", "add", "n", "61 * * * *", "-c", "1"],
        ),
        (
            "cron_never",
            &["schedule", "add", "n", "0 0 30 2 *", "-c", "1"],
        ),
        (
            "bad_zone",
            &[
                "schedule",
                "add",
                "n",
                "@daily",
                "-c",
                "1",
                "--zone",
                "Europe/Berln",
            ],
        ),
        (
            "schedule_with_id",
            &["schedule", "add", "n", "@daily", "-c", "1", "--id", "mine"],
        ),
        (
            "two_jobs_scheduled",
            &["schedule", "add", "n", "@daily", "--file", "two.jsonl"],
        ),
    ] {
        assert_eq!(user.run(words).status.code(), Some(64), "case {case}");
        assert_snapshot!(case, user.shown(words));
    }
}

#[test]
fn what_is_missing_is_named_with_a_hint() {
    // No `PATH`, so no redis-server; and addresses of a Redis and an engine that do not exist.
    let user = User::new();
    let nowhere = "unix:/nonexistent/redis.sock";
    let engine = "sandbox.engine=unix:///nonexistent/docker.sock";
    for (case, code, words) in [
        ("no_file", 66, &["run", "absent.py"][..]),
        ("code_for_a_file", 66, &["run", "print(1)"]),
        ("no_redis_server", 69, &["run", "-c", "1"]),
        ("no_redis_server_up", 69, &["up"]),
        ("no_address", 69, &["status"]),
        ("no_address_json", 69, &["wait", "a", "--json"]),
        ("no_redis", 69, &["submit", "-c", "1", "--redis", nowhere]),
        ("no_engine", 69, &["images", "list", "--set", engine]),
    ] {
        assert_eq!(user.run(words).status.code(), Some(code), "case {case}");
        assert_snapshot!(case, user.shown(words));
    }
    let left: Vec<_> = std::fs::read_dir(user.home())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != ".local")
        .collect();
    assert!(left.is_empty(), "nothing is left behind: {left:?}");
}
